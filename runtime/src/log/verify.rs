//! Verifying a site's log offline, in a copy of its folder.
//!
//! *In*: the ledger's file, the key that signs the log, and the witnesses' policy if it is known. *Out*: what the log and the ledger say, and
//! everything that is wrong, with its place. *Trusts*: the key it is given, and nothing in the file. Every leaf is hashed again, the
//! ledger is recomputed from the leaves and compared row by row, every checkpoint's root and signatures are checked, and details are
//! held against what their leaf promised.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Row, params_from_iter};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::{Leaf, SALT_BYTES, commitment, nothing};
use vestibule_protocol::log::note;
use vestibule_protocol::log::policy::Policy;
use vestibule_protocol::log::replay::Replay;
use vestibule_protocol::log::tree::{self, Growing, Nodes};
use vestibule_protocol::review::Subject;

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

/// Verifies the log in the ledger's file. `policy` and the name that it has for the site's own witness, where they are known.
///
/// # Errors
/// There is no ledger that could be read.
pub fn verify(file: &Path, key: PublicKey, policy: Option<(&Policy, &str)>) -> Result<Verified, LogCheckError> {
    let error = |why: String| LogCheckError::new(file, why);
    if !file.is_file() {
        return Err(error("there is no ledger here".to_owned()));
    }
    let connection = open(file).map_err(|why| error(why.to_string()))?;
    let mut check = Check { connection: &connection, found: Vec::new() };
    let damage: String =
        connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).map_err(|why| error(why.to_string()))?;
    if damage != "ok" {
        check.wrong("ledger.sqlite", format!("the file is damaged: {damage}"));
    }
    let origin = super::origin(&connection).map_err(|why| error(why.to_string()))?;
    check.whole(origin, key, policy).map_err(|why| error(why.to_string()))
}

/// Without the rights to write. Where no daemon has it open, nothing at all is made beside it.
pub(super) fn open(file: &Path) -> rusqlite::Result<Connection> {
    let mut wal = file.as_os_str().to_owned();
    wal.push("-wal");
    if Path::new(&wal).exists() {
        return Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY);
    }
    let escaped: String = file.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
}

struct Check<'a> {
    connection: &'a Connection,
    found: Vec<Found>,
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

    fn whole(mut self, origin: String, key: PublicKey, policy: Option<(&Policy, &str)>) -> rusqlite::Result<Verified> {
        let notes = self.notes(key, policy)?;
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
        let witnessed = self.witnessed(&origin, key, policy)?;
        let root = growing.root();
        Ok(Verified { origin, root, replay, checkpoints: notes.len(), witnessed, erased, found: self.found })
    }

    /// The checkpoints that were kept, in the order of their sizes.
    fn notes(&mut self, key: PublicKey, policy: Option<(&Policy, &str)>) -> rusqlite::Result<Vec<Checkpoint>> {
        let origins = super::origins(self.connection)?;
        let logs: Vec<_> = origins.iter().map(|origin| super::verifier(origin, key)).collect();
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
                    Some(_) if !by.iter().any(|by| logs.contains(by.verifier)) => {
                        self.wrong(place, "it is not signed by the log's key");
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
    fn witnessed(&self, origin: &str, key: PublicKey, policy: Option<(&Policy, &str)>) -> rusqlite::Result<u64> {
        let Some((policy, own)) = policy else { return Ok(0) };
        let mut statement = self.connection.prepare("SELECT note FROM log_checkpoint ORDER BY size DESC")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Ok(checkpoint) = policy.check(&row.get::<_, String>(0)?, &super::verifier(origin, key), own) {
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

    /// Details are what their leaf promised. Returns how many were erased.
    fn details(&mut self, promised: &HashMap<i64, Digest>) -> rusqlite::Result<u64> {
        let mut statement = self.connection.prepare("SELECT leaf, salt, details FROM log_detail")?;
        let mut rows = statement.query([])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            let (leaf, salt, details): (i64, [u8; SALT_BYTES], String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            seen += 1;
            if promised.get(&leaf) != Some(&commitment(&salt, &details)) {
                self.wrong(format!("details of leaf {leaf}"), "they are not what the leaf promises");
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
        let rows = all().map(|(id, at, charge)| {
            let mut cells = vec![charge.digest.to_string()];
            cells.extend(texts(vec![charge.rho_pico, charge.moment_femto, charge.leaf]));
            (round(id, at), cells)
        });
        self.same("charge", "job, round, round_digest, rho, moment, leaf", 2, rows.collect())?;
        let rows = all().filter_map(|(id, at, charge)| charge.settled.map(|(leaf, _)| (round(id, at), texts(vec![leaf]))));
        self.same("departure", "job, round, leaf", 2, rows.collect())?;
        let rows = replay.policies.iter().map(|(version, policy)| (version.to_string(), vec![policy.to_string()]));
        self.same("policy", "version, sha256", 1, rows.collect())?;
        let rows = replay.reviews.iter().map(|(leaf, subject, approved)| {
            let subject = serde_json::to_string(subject).unwrap_or_default();
            (leaf.to_string(), vec![subject, u8::from(*approved).to_string()])
        });
        self.same("review", "leaf, subject, approved", 1, rows.collect())?;
        // What left is what was stored; bytes that are kept are those.
        let mut statement = self.connection.prepare("SELECT job, round, bytes, sha256 FROM release")?;
        let mut rows = statement.query([])?;
        let mut retired = 0;
        while let Some(row) = rows.next()? {
            let (job, number, bytes, sha256): (String, u32, Vec<u8>, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let place = format!("release {job} {number}");
            // What is no longer kept has its digest still.
            let gone = bytes.is_empty() && sha256 != nothing().to_string();
            retired += u64::from(gone);
            let digest = if gone { sha256.parse().unwrap_or_else(|_| nothing()) } else { Digest::of(&bytes) };
            if digest.to_string() != sha256 {
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
        if retired != replay.retired {
            self.wrong(
                "release",
                format!("the bytes of {retired} releases are gone, and the log says that {} were removed", replay.retired),
            );
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
