//! Verifying a site's log offline, in a copy of its folder.
//!
//! *In*: the ledger's file, the keys that may sign the log, and the witnesses' policy if it is known. *Out*: what the log and the ledger say, and
//! everything that is wrong, with its place. *Trusts*: the keys it is given, and nothing in the file. Every leaf is hashed again, the
//! ledger is recomputed from the leaves and compared row by row, every checkpoint's root and signatures are checked, and details and releases are
//! held against what their leaf promised. The last takes the site's keys: without them it is said how many records were not opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row, params_from_iter};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::{Event, Leaf, Purpose, commitment, nothing};
use vestibule_protocol::log::note;
use vestibule_protocol::log::policy::Policy;
use vestibule_protocol::log::replay::Replay;
use vestibule_protocol::log::tree::{self, Growing, Nodes};
use vestibule_protocol::review::Subject;

use super::Source;
use crate::ledger::Seal;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// The table and row, or the leaf.
    pub place: String,
    /// What is wrong with it.
    pub why: String,
}

/// What a verified log says.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Which log.
    pub origin: String,
    /// Its root now.
    pub root: Digest,
    /// The books, recomputed.
    pub replay: Replay,
    /// Checkpoints that were kept, and the largest size of one that a quorum cosigned.
    pub checkpoints: usize,
    /// The largest size that a quorum of witnesses cosigned.
    pub witnessed: u64,
    /// Leaves whose details were erased.
    pub erased: u64,
    /// Sealed records that were not looked at, since the keys are not known here.
    pub sealed: u64,
    /// All that is wrong. Empty: the log is whole.
    pub found: Vec<Found>,
}

/// A log that cannot even be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct LogCheckError {
    path: PathBuf,
    why: String,
}

impl LogCheckError {
    pub(super) fn new(path: &Path, why: String) -> Self {
        Self { path: path.to_owned(), why }
    }

    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "log-unreadable"
    }
}

/// Verifies a log. `keys`: those that may sign it now; a leaf names each key before, which may have signed what was before that leaf and nothing after. `policy` and the name that it has for the site's own witness, where they are known.
///
/// # Errors
/// There is no ledger that could be read.
pub fn verify(source: &Source, keys: &[PublicKey], policy: Option<(&Policy, &str)>) -> Result<Verified, LogCheckError> {
    let error = |why: rusqlite::Error| source.error(why);
    let connection = source.open()?;
    let mut check = Check { connection, seal: source.seal.as_ref(), sealed: 0, found: Vec::new() };
    let damage: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).map_err(error)?;
    if damage != "ok" {
        check.wrong("ledger.sqlite", format!("the file is damaged: {damage}"));
    }
    let origin = super::origin(connection).map_err(error)?;
    let log = check.chain(keys).map_err(error)?;
    check.whole(origin, &log, policy).map_err(error)
}

struct Check<'a> {
    connection: &'a Connection,
    /// What opens sealed records, where it is known.
    seal: Option<&'a Seal>,
    sealed: u64,
    found: Vec<Found>,
}

/// The keys of a log, in their order.
struct Chain {
    /// Each key before, and the leaf that named the next: it signs no checkpoint that has that leaf.
    former: Vec<(u64, PublicKey)>,
    /// Those that may sign since.
    now: Vec<PublicKey>,
}

impl Chain {
    fn all(&self) -> impl Iterator<Item = PublicKey> {
        self.former.iter().map(|(_, key)| *key).chain(self.now.iter().copied())
    }

    /// Whether a checkpoint of so many leaves is for that key to sign.
    fn signs(&self, key: &PublicKey, size: u64) -> bool {
        match self.former.iter().find(|(leaf, _)| size <= *leaf) {
            Some((_, then)) => then == key,
            None => self.now.contains(key),
        }
    }
}

/// A sealed record of the ledger.
enum Opened {
    Bytes(Vec<u8>),
    /// Nobody could look at it here, or it was found to be wrong.
    Closed,
}

/// Subtrees in memory, recomputed.
struct Computed(HashMap<(u32, u64), Digest>);

impl Nodes for Computed {
    type Error = ();
    fn node(&self, level: u32, number: u64) -> Result<Digest, ()> {
        self.0.get(&(level, number)).copied().ok_or(())
    }
}

impl Check<'_> {
    fn wrong(&mut self, place: impl Into<String>, why: impl Into<String>) {
        self.found.push(Found { place: place.into(), why: why.into() });
    }

    /// Which key signs at which size.
    fn chain(&mut self, keys: &[PublicKey]) -> rusqlite::Result<Chain> {
        let mut statement =
            self.connection.prepare("SELECT number, body FROM log_leaf WHERE instr(body, ?1) > 0 ORDER BY number")?;
        let mut rows = statement.query([br#""kind":"rotated""#.as_slice()])?;
        let mut former = Vec::new();
        let mut last = None;
        while let Some(row) = rows.next()? {
            let (number, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            if let Ok(Leaf { event: Event::Rotated { what: Purpose::Log, former: before, key }, .. }) = Leaf::parse(&body) {
                former.push((number.unsigned_abs(), before));
                last = Some((number, key));
            }
        }
        if let Some((number, key)) = last.filter(|(_, key)| !keys.contains(key)) {
            let why = format!("it names {key} as the log's key from here on, and that is not the log's key");
            self.found.push(Found { place: format!("leaf {number}"), why });
        }
        Ok(Chain { former, now: last.map_or_else(|| keys.to_vec(), |(_, key)| vec![key]) })
    }

    fn whole(mut self, origin: String, log: &Chain, policy: Option<(&Policy, &str)>) -> rusqlite::Result<Verified> {
        let notes = self.notes(log, policy)?;
        let (mut replay, mut growing, mut computed) = (Replay::default(), Growing::default(), Computed(HashMap::new()));
        let mut promised = HashMap::new();
        let mut statement = self.connection.prepare("SELECT number, body FROM log_leaf ORDER BY number")?;
        let mut rows = statement.query([])?;
        let mut notes_left = notes.iter().peekable();
        while let Some(row) = rows.next()? {
            let (number, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let place = format!("leaf {number}");
            if number.unsigned_abs() != growing.size() {
                self.wrong(&place, format!("leaf {} is missing", growing.size()));
                break;
            }
            let hash = tree::leaf_hash(&body);
            for (level, number, hash) in tree::completed(growing.size(), hash, &computed).unwrap_or_default() {
                computed.0.insert((level, number), hash);
            }
            growing.push(hash);
            while let Some(checkpoint) = notes_left.next_if(|checkpoint| checkpoint.size <= growing.size()) {
                if checkpoint.size == growing.size() && checkpoint.root != growing.root() {
                    let why = "its root is not that of the leaves: a leaf before was changed, or the log was forked";
                    self.wrong(format!("checkpoint of {} leaves", checkpoint.size), why);
                }
            }
            match Leaf::parse(&body) {
                Ok(leaf) => {
                    if let Err(why) = replay.apply(&leaf) {
                        self.wrong(&place, why);
                    }
                    if let Some(details) = leaf.details {
                        promised.insert(number, details);
                    }
                }
                Err(why) => {
                    replay.leaves += 1;
                    self.wrong(&place, format!("it is not a leaf: {why}"));
                }
            }
        }
        for checkpoint in notes_left {
            let why = format!("the log has {} leaves only: it was cut, or restored from a copy", growing.size());
            self.wrong(format!("checkpoint of {} leaves", checkpoint.size), why);
        }
        self.nodes(&computed)?;
        let erased = self.details(&promised)?;
        if erased != replay.erased {
            self.wrong(
                "log_detail",
                format!("the details of {erased} leaves are gone, and the log says that {} were erased", replay.erased),
            );
        }
        self.tables(&replay)?;
        let witnessed = self.witnessed(&origin, log, policy)?;
        let root = growing.root();
        let Self { sealed, found, .. } = self;
        Ok(Verified { origin, root, replay, checkpoints: notes.len(), witnessed, erased, sealed, found })
    }

    /// The checkpoints that were kept, in the order of their sizes.
    fn notes(&mut self, log: &Chain, policy: Option<(&Policy, &str)>) -> rusqlite::Result<Vec<Checkpoint>> {
        let origins = super::origins(self.connection)?;
        let logs: Vec<_> = origins.iter().flat_map(|origin| log.all().map(move |key| super::verifier(origin, key))).collect();
        let mut known = logs.clone();
        known.extend(policy.iter().flat_map(|(policy, _)| policy.witnesses()).map(|(_, verifier)| verifier.clone()));
        let mut statement = self.connection.prepare("SELECT size, note FROM log_checkpoint ORDER BY size")?;
        let notes = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        let mut found = Vec::new();
        for note in notes.collect::<rusqlite::Result<Vec<_>>>()? {
            let place = format!("checkpoint of {} leaves", note.0);
            match note::open(&note.1, &known) {
                Ok((text, by)) => match Checkpoint::parse(text) {
                    Some(checkpoint) if checkpoint.size != note.0.unsigned_abs() || !origins.contains(&checkpoint.origin) => {
                        self.wrong(place, "it is of another size, or of another log");
                    }
                    Some(checkpoint) if !by.iter().any(|by| log.signs(&by.verifier.key, checkpoint.size)) => {
                        self.wrong(place, "it is not signed by the key that the log had then");
                    }
                    Some(checkpoint) => found.push(checkpoint),
                    None => self.wrong(place, "it is not a checkpoint"),
                },
                Err(error) => self.wrong(place, error.to_string()),
            }
        }
        Ok(found)
    }

    /// The largest size that a quorum cosigned.
    fn witnessed(&self, origin: &str, log: &Chain, policy: Option<(&Policy, &str)>) -> rusqlite::Result<u64> {
        let Some((policy, own)) = policy else { return Ok(0) };
        let logs: Vec<_> = log.all().map(|key| super::verifier(origin, key)).collect();
        let mut statement = self.connection.prepare("SELECT note FROM log_checkpoint ORDER BY size DESC")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Ok(checkpoint) = policy.check(&row.get::<_, String>(0)?, &logs, own) {
                return Ok(checkpoint.size);
            }
        }
        Ok(0)
    }

    /// The stored hashes of subtrees are what proofs are made of.
    fn nodes(&mut self, computed: &Computed) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare("SELECT level, number, hash FROM log_node")?;
        let mut rows = statement.query([])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let (level, number, hash): (u32, i64, [u8; 32]) = (row.get(0)?, row.get(1)?, row.get(2)?);
            seen += 1;
            if computed.0.get(&(level, number.unsigned_abs())) != Some(&Digest::from_bytes(hash)) {
                self.wrong(format!("log_node {level}/{number}"), "it is not the hash of its leaves");
            }
        }
        if seen != computed.0.len() {
            self.wrong("log_node", format!("{seen} hashes are stored, where there must be {}", computed.0.len()));
        }
        Ok(())
    }

    /// What `unseal` made of a record that is there.
    fn opened(&mut self, place: &str, opened: Option<Vec<u8>>) -> Opened {
        match opened {
            Some(bytes) => return Opened::Bytes(bytes),
            None if self.seal.is_some() => {
                let why = "it does not open: it was sealed with other keys, changed, or put in another's place";
                self.wrong(place, why);
            }
            None => self.sealed += 1,
        }
        Opened::Closed
    }

    /// Details are what their leaf promised. Returns how many were erased.
    fn details(&mut self, promised: &HashMap<i64, Digest>) -> rusqlite::Result<u64> {
        let mut statement = self.connection.prepare("SELECT leaf, unseal('details', leaf, sealed) FROM log_detail")?;
        let mut rows = statement.query([])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let leaf: i64 = row.get(0)?;
            seen += 1;
            let place = format!("details of leaf {leaf}");
            let promised = promised.get(&leaf);
            if promised.is_none() {
                self.wrong(&place, "the leaf promises none");
            }
            let Opened::Bytes(opened) = self.opened(&place, row.get(1)?) else { continue };
            let found = opened.split_first_chunk().map(|(salt, details)| commitment(salt, &String::from_utf8_lossy(details)));
            if promised != found.as_ref() {
                self.wrong(&place, "they are not what the leaf promises");
            }
        }
        Ok((promised.len() as u64).saturating_sub(seen))
    }

    /// The ledger's rows are what the leaves say, no more and no less.
    fn tables(&mut self, replay: &Replay) -> rusqlite::Result<()> {
        let jobs = &replay.jobs;
        let rows = replay.accounts.iter().map(|(name, account)| {
            let cells =
                vec![account.cap_rho_pico, account.cap_moments_femto, account.committed_rho_pico, account.moments_femto];
            (name.to_string(), texts(cells))
        });
        self.same("account", "population, cap_rho, cap_moments, committed_rho, spent_moments", 1, rows.collect())?;
        let rows = replay.datasets.iter().map(|(dataset, account)| (dataset.to_string(), vec![account.to_string()]));
        self.same("dataset", "dataset, population", 1, rows.collect())?;
        let rows = replay.serving.iter().map(|(dataset, serving)| {
            (dataset.to_string(), vec![serving.version.clone(), serving.withdrawn.to_string(), serving.leaf.to_string()])
        });
        self.same("serving", "dataset, version, withdrawn, leaf", 1, rows.collect())?;
        self.lists()?;
        let rows = jobs.iter().map(|(id, job)| {
            let cells = vec![
                job.manifest.to_string(),
                job.charter.to_string(),
                job.dataset.to_string(),
                u8::from(job.ended).to_string(),
                job.leaf.to_string(),
            ];
            (id.to_string(), cells)
        });
        self.same("job", "job, manifest, charter, dataset, ended, leaf", 1, rows.collect())?;
        let reserved =
            jobs.iter().filter_map(|(id, job)| job.reserved.map(|(rho, leaf)| (id.to_string(), texts(vec![rho, leaf]))));
        self.same("reservation", "job, rho, leaf", 1, reserved.collect())?;
        let round = |id: &JobId, round: usize| format!("{id} {round}");
        let all = || jobs.iter().flat_map(|(id, job)| job.rounds.iter().enumerate().map(move |(at, round)| (id, at, round)));
        let rows =
            all().map(|(id, at, charge)| (round(id, at), texts(vec![charge.rho_pico, charge.moment_femto, charge.leaf])));
        self.same("charge", "job, round, rho, moment, leaf", 2, rows.collect())?;
        self.asked()?;
        let rows = all().filter_map(|(id, at, charge)| charge.settled.map(|(leaf, _)| (round(id, at), texts(vec![leaf]))));
        self.same("departure", "job, round, leaf", 2, rows.collect())?;
        let rows = replay.policies.iter().map(|(version, policy)| (version.to_string(), vec![policy.to_string()]));
        self.same("policy", "version, sha256", 1, rows.collect())?;
        let rows = replay
            .bundles
            .iter()
            .map(|(leaf, version, bundle)| (leaf.to_string(), vec![version.to_string(), bundle.to_string()]));
        self.same("trust", "leaf, version, sha256", 1, rows.collect())?;
        let rows = replay
            .charters
            .iter()
            .map(|(charter, (terms, leaf))| (charter.to_string(), vec![terms.to_string(), leaf.to_string()]));
        self.same("charter", "sha256, terms, leaf", 1, rows.collect())?;
        let rows = replay.reviews.iter().map(|(leaf, subject, approved)| {
            let subject = serde_json::to_string(subject).unwrap_or_default();
            (leaf.to_string(), vec![subject, u8::from(*approved).to_string()])
        });
        self.same("review", "leaf, subject, approved", 1, rows.collect())?;
        // What left is what was stored; bytes that are kept are those.
        let sql = "SELECT job, round, sha256, length(bytes) = 0, unseal('release', job || ' ' || round, bytes) FROM release";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut retired = 0;
        while let Some(row) = rows.next()? {
            let (job, number, sha256, empty): (String, u32, String, bool) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let place = format!("release {job} {number}");
            let digest = sha256.parse().unwrap_or_else(|_| nothing());
            // What is no longer kept has its digest still.
            retired += u64::from(empty && digest != nothing());
            if !empty
                && let Opened::Bytes(bytes) = self.opened(&place, row.get(4)?)
                && Digest::of(&bytes) != digest
            {
                self.wrong(&place, "its bytes are not those of its digest");
            }
            let round = job.parse().ok().and_then(|job: JobId| jobs.get(&job)).and_then(|job| job.rounds.get(number as usize));
            match round.map(|round| round.settled) {
                None => self.wrong(&place, "no leaf says that its round was charged"),
                // Somebody looked at it and said no: what left is that there is nothing.
                Some(Some((leaf, release))) if release == nothing() && denied(replay, digest, leaf) => {}
                Some(Some((leaf, release))) if release != digest => {
                    self.wrong(&place, format!("leaf {leaf} says that something else left"));
                }
                _ => {}
            }
        }
        for (what, sql) in [
            (
                "evidence of release",
                "SELECT job || ' ' || round, unseal('evidence', job || ' ' || round, evidence) FROM release
                                         WHERE evidence IS NOT NULL",
            ),
            (
                "decision of leaf",
                "SELECT CAST(leaf AS TEXT), unseal('review', leaf, envelope) FROM review WHERE length(envelope) > 0",
            ),
        ] {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(found) = rows.next()? {
                let place = format!("{what} {}", found.get::<_, String>(0)?);
                self.opened(&place, found.get(1)?);
            }
        }
        if retired != replay.retired {
            self.wrong(
                "release",
                format!("the bytes of {retired} releases are gone, and the log says that {} were removed", replay.retired),
            );
        }
        Ok(())
    }

    /// Rounds are found again by the digest of what was asked in them, as its leaf's details have
    /// it.
    fn asked(&mut self) -> rusqlite::Result<()> {
        let Some(seal) = self.seal else { return Ok(()) };
        let sql = "SELECT job || ' ' || round, round_digest, unseal('details', log_detail.leaf, sealed)
                   FROM charge JOIN log_detail USING(leaf)";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (place, digest): (String, String) = (row.get(0)?, row.get(1)?);
            let said = super::details(row.get::<_, Option<Vec<u8>>>(2)?.as_deref());
            let said = said.and_then(|said| said.get("round_digest")?.as_str()?.parse().ok());
            if said.is_some_and(|said| seal.keyed(said).to_string() != digest) {
                self.wrong(format!("charge {place}"), "its round is not the one that the log says was asked");
            }
        }
        Ok(())
    }

    /// The sealed lists of who withdrew are those that the leaves name.
    fn lists(&mut self) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare("SELECT dataset, withdrawn, list FROM serving")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (dataset, withdrawn, list): (String, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if Digest::of(&list).to_string() != withdrawn {
                self.wrong(format!("serving {dataset}"), "the list of who withdrew is not the one that the log names");
            }
        }
        Ok(())
    }

    /// Compares a table with rows as they must be: the first `key` columns are the key.
    fn same(&mut self, table: &str, columns: &str, key: usize, mut want: HashMap<String, Vec<String>>) -> rusqlite::Result<()> {
        let names: Vec<&str> = columns.split(", ").collect();
        let cell = |row: &Row<'_>, at: usize| -> rusqlite::Result<String> {
            Ok(match row.get::<_, rusqlite::types::Value>(at)? {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            })
        };
        let mut statement = self.connection.prepare(&format!("SELECT {columns} FROM {table}"))?;
        let mut rows = statement.query(params_from_iter::<[i64; 0]>([]))?;
        while let Some(row) = rows.next()? {
            let cells = (0..names.len()).map(|at| cell(row, at)).collect::<rusqlite::Result<Vec<_>>>()?;
            let (id, cells) = cells.split_at(key);
            let id = id.join(" ");
            let Some(want) = want.remove(&id) else {
                self.wrong(format!("{table} {id}"), "no leaf says so");
                continue;
            };
            for ((name, found), want) in names.iter().skip(key).zip(cells).zip(&want) {
                if found != want {
                    self.wrong(format!("{table} {id}"), format!("{name} is {found}, where the log says {want}"));
                }
            }
        }
        for id in want.into_keys() {
            self.wrong(format!("{table} {id}"), "the log says that it is there, and it is not");
        }
        Ok(())
    }
}

/// Whether a person had decided, when the answer left, that a release does not.
fn denied(replay: &Replay, digest: Digest, left: u64) -> bool {
    let of = |subject: &Subject| matches!(subject, Subject::Release { release, .. } if *release == digest);
    let mut before = replay.reviews.iter().rev().filter(|(leaf, ..)| *leaf < left);
    before.find(|(_, subject, _)| of(subject)).is_some_and(|(_, _, approved)| !approved)
}

fn texts(numbers: Vec<u64>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}
