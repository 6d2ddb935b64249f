//! What may be asked for at all: components that bring something along, terms that were changed on their way, accounts.

use std::time::Duration;

use anyhow::{Context as _, Result};
use vestibule_protocol::charter::{Charter, Purpose, Range};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::{JobId, Limits, Noise};
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::manifest::{ComponentRef, Manifest, Signed};
use vestibule_protocol::message::Offer;
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::round::{Bound, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_runtime::admission;
use vestibule_runtime::charter::{Accepted, Terms};
use vestibule_runtime::dataset::{DatasetInfo, IngestError};
use vestibule_runtime::home::Settings;
use vestibule_runtime::ledger::{Admission, Ledger, LedgerError, Purse, Seal};
use vestibule_runtime::policy;

use super::Row;
use super::lab::{Lab, Person};
use crate::compiled;
use crate::files::random;

const IMPORTS: &str = "import";
const TERMS: &str = "terms";
const BUDGET: &str = "budget";
const NOW: i64 = 1_795_000_000;
const AT: Duration = Duration::from_secs(1_795_000_000);

pub(crate) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let mut rows = components(lab)?;
    rows.push(altered(lab)?);
    rows.extend(accounts(lab)?);
    rows.push(one_person_twice(lab)?);
    Ok(rows)
}

fn components(lab: &Lab) -> Result<Vec<Row>> {
    let sandbox = compiled::sandbox(false)?;
    let refused = |bytes: &[u8], wanted: &str| match sandbox.load(bytes) {
        Ok(_) => (false, "it was loaded".to_owned()),
        Err(error) => (error.code() == wanted, format!("refused: {}", error.code())),
    };
    let mut rows = Vec::new();
    for (name, import, leaks) in [
        ("read a clock", "wasi:clocks/monotonic-clock@0.2.0", "how long others took"),
        ("draw from the host's random numbers", "wasi:random/random@0.2.0", "how many came before"),
        ("open a file", "wasi:filesystem/preopens@0.2.0", "the data"),
        ("connect to the network", "wasi:sockets/tcp-create-socket@0.2.0", "the data"),
        ("read the environment", "wasi:cli/environment@0.2.0", "the site's secrets"),
        ("print", "wasi:cli/stdout@0.2.0", "the data, in a log"),
    ] {
        let text = format!("(component (import \"{import}\" (instance (export \"f\" (func)))))");
        rows.push(Row::new(name, IMPORTS, leaks, refused(&wat::parse_str(text)?, "component-imports")));
    }
    let threads = wat::parse_str("(component (core module (memory 1 1 shared)))")?;
    rows.push(Row::new("count time with a second thread", IMPORTS, "a clock", refused(&threads, "component-unreadable")));
    let machine_code = lab.naked.compiled()?;
    rows.push(Row::new(
        "hand in machine code for WebAssembly",
        IMPORTS,
        "everything",
        refused(&machine_code, "component-unreadable"),
    ));
    let large = vec![0; (64 << 20) + 1];
    rows.push(Row::new(
        "hand in 64 MiB and a byte",
        IMPORTS,
        "the machine's memory and time",
        refused(&large, "component-too-large"),
    ));
    let rubbish = match lab.guests()?.load(b"\0asm rubbish") {
        Ok(_) => (false, "it was loaded".to_owned()),
        Err(error) => (error.code() == "component-unreadable", format!("refused by a worker process: {}", error.code())),
    };
    rows.push(Row::new("hand in bytes that may break the compiler", IMPORTS, "the process that has the keys", rubbish));
    Ok(rows)
}

fn researcher(seed: u8) -> Result<SecretKey> {
    Ok(SecretKey::from_seed([seed; 32])?)
}

/// A charter of both researchers.
fn charter() -> Result<Accepted> {
    let lead = researcher(1)?;
    let charter = Charter {
        project: "registry".parse()?,
        title: "a registry".parse()?,
        summary: "why".parse()?,
        purpose: Purpose {
            research: "DUO:0000037".to_owned(),
            disease: None,
            commercial: false,
            methods_only: false,
            clinical_care: false,
        },
        lead: lead.public(),
        members: [lead.public(), researcher(2)?.public()].into(),
        sites: ["here".parse()?].into(),
        datasets: ["cohort".parse()?].into(),
        columns: Range::Any,
        catalogues: Range::Any,
        components: Range::Any,
        epsilon_micro: 50_000_000,
        delta_femto: 1_000_000_000,
        not_before: "2026-11-01T00:00:00Z".to_owned(),
        not_after: "2027-11-01T00:00:00Z".to_owned(),
        outputs: "tables".parse()?,
        funding: "none".parse()?,
        ethics: None,
    };
    Ok(Accepted::new(&charter.sign(&lead)?, Terms::default())?)
}

fn manifest(lab: &Lab, job: u8, epsilon_micro: u64) -> Result<Manifest> {
    Ok(Manifest {
        job: JobId::from_bytes([job; 16]),
        charter: charter()?.signed().digest(),
        title: "a job".parse()?,
        component: ComponentRef { sha256: Digest::of(&lab.component), bytes: lab.component.len() as u64 },
        params: format!("{{\"job\":{job}}}"),
        dataset: "cohort".parse()?,
        dictionary: Digest::of(super::lab::DICTIONARY.as_bytes()),
        catalogues: vec![],
        noise: Noise::Gaussian,
        epsilon_micro,
        delta_femto: 1_000_000_000,
        sites: vec!["here".parse()?],
        min_sites: 1,
        limits: Limits::default(),
        round_deadline_seconds: 60,
        not_before: "2026-11-01T00:00:00Z".to_owned(),
        not_after: "2026-12-01T00:00:00Z".to_owned(),
    })
}

/// A coordinator that changes what it passes on.
fn altered(lab: &Lab) -> Result<Row> {
    let key = researcher(1)?;
    let envelope = manifest(lab, 1, 1_000_000)?.sign(&key)?;
    let accepted = [key.public()];
    let original = Signed::verify(&envelope, &accepted)?;
    let (mut tried, mut passed) = (0_u32, 0_u32);
    for at in 0..envelope.len() {
        let mut changed = envelope.clone();
        if let Some(byte) = changed.get_mut(at) {
            *byte ^= 1;
        }
        tried += 1;
        // A change that leaves the signed words as they were is none.
        passed += u32::from(Signed::verify(&changed, &accepted).is_ok_and(|signed| signed.digest() != original.digest()));
    }
    let found = (passed == 0, format!("{passed} of {tried} changes of one bit pass for the researcher's own"));
    Ok(Row::new("change a signed job on its way", TERMS, "bounds, budget and code are what the coordinator says", found))
}

/// A site's ledger, and who asks of it.
struct Till<'a> {
    ledger: &'a Ledger,
    info: &'a DatasetInfo,
    purse: Purse,
}

impl Till<'_> {
    fn charge(
        &self,
        manifest: &Manifest,
        (name, key): (&str, &SecretKey),
        round: u32,
        share: f64,
    ) -> Result<Result<Admission, LedgerError>> {
        let statistic =
            Statistic { name: "x".to_owned(), length: 1, bound: Bound::OneCell, weight: 1.0, source: Source::Given };
        let state = round.to_be_bytes().to_vec();
        let request = RoundRequest { statistics: vec![statistic], budget_share: share, state, dosages: true };
        let offer = Offer { manifest: manifest.sign(key)?, round, request };
        let known: [(Name, PublicKey); 1] = [(name.parse()?, key.public())];
        let verified = admission::verify(offer, &known, &[charter()?], &"here".parse()?, NOW)?;
        let admitted = policy::decide(verified, &Settings::default(), Some(self.info))?;
        Ok(self.ledger.charge(admitted, &self.purse, AT))
    }
}

fn accounts(lab: &Lab) -> Result<Vec<Row>> {
    let people = lab.cohort(Lab::people(1), 1)?;
    let info = DatasetInfo { name: "cohort".parse()?, ..people.dataset.info().clone() };
    let purse = Purse {
        population: "registry".parse()?,
        cap: Rho::budget(1.0, 1e-6),
        delta: 1e-6,
        moments_femto: 100_000_000,
        researcher_cap: None,
        version: "v1".to_owned(),
    };
    let path = lab.path().join("ledger.sqlite");
    let seal = Seal::from_bytes(&zeroize::Zeroizing::new(random()?));
    let open = || Ledger::open(&path, &seal);
    let (ada, eve) = (researcher(1)?, researcher(2)?);
    let refused = |result: Result<Admission, LedgerError>, wanted: &str| match result {
        Ok(_) => (false, "it was charged and run".to_owned()),
        Err(error) => (error.code() == wanted, format!("refused: {}", error.code())),
    };
    let ledger = open()?;
    let till = Till { ledger: &ledger, info: &info, purse: purse.clone() };
    let first = manifest(lab, 1, 800_000)?;
    till.charge(&first, ("ada", &ada), 0, 0.6)?.context("the first round of a job within its budget")?;
    let more = till.charge(&first, ("ada", &ada), 1, 0.6)?;
    let mut rows = vec![Row::new(
        "ask for rounds that add up to more than the job",
        BUDGET,
        "more than was agreed",
        refused(more, "round-over-job-budget"),
    )];
    let second = manifest(lab, 2, 800_000)?;
    let collusion = refused(till.charge(&second, ("eve", &eve), 0, 1.0)?, "budget-exhausted");
    rows.push(Row::new(
        "spend what is left as another researcher",
        BUDGET,
        "each has a budget of their own, and they share",
        collusion,
    ));
    let renamed = Till { ledger: &ledger, info: &info, purse: Purse { population: "others".parse()?, ..purse.clone() } };
    let lineage = refused(renamed.charge(&second, ("eve", &eve), 0, 1.0)?, "population-differs");
    rows.push(Row::new("leave what was spent behind by giving the people another name", BUDGET, "a fresh budget", lineage));
    // The process dies after the charge and before the release: anyone who asks again pays nothing, and nobody has seen anything.
    drop(till);
    drop(ledger);
    let ledger = open()?;
    let till = Till { ledger: &ledger, info: &info, purse };
    let again = matches!(till.charge(&first, ("ada", &ada), 0, 0.6)?, Ok(Admission::Run(_)));
    let account = ledger.accounts()?.into_iter().next().context("an account")?;
    let rounds = account.jobs.first().map_or(0, |job| job.rounds);
    let found = (again && rounds == 1, format!("the round runs again under the same charge: {rounds} is booked"));
    rows.push(Row::new("crash the site between charge and release", BUDGET, "a release that nobody paid for", found));
    Ok(rows)
}

/// One individual in two rows.
fn one_person_twice(lab: &Lab) -> Result<Row> {
    let mut people = Lab::people(3);
    let twin = Person { man: !people.first().is_some_and(|person| person.man), ..people.first().context("a person")?.clone() };
    people.push(twin);
    let found = match lab.cohort(people.clone(), 1) {
        Ok(_) => (false, "both rows were taken".to_owned()),
        Err(error) => {
            let text = format!("{error:#}");
            (error.is::<IngestError>() && text.contains("the same id"), format!("refused at ingest: {text}"))
        }
    };
    Ok(Row::new("be in the data twice under one id", TERMS, "twice the contribution", found))
}
