//! The ledger, from the leaves of its log alone: what an overseer recomputes, and compares with what a site says.
//!
//! *In*: leaves, in order. *Out*: accounts and jobs as they must be. *Refuses*: a leaf that could not follow from the ones before: a time that
//! goes back, a charge without a reservation or beyond one, a reservation beyond a cap, an answer without a charge, a second answer.

use std::collections::{BTreeMap, BTreeSet};

use super::leaf::{Event, Leaf, Purpose};
use crate::digest::Digest;
use crate::job::JobId;
use crate::key::PublicKey;
use crate::name::Name;
use crate::review::Subject;

/// The books, so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replay {
    /// What each population's data have been spent on.
    pub accounts: BTreeMap<Name, Account>,
    /// Every job that was admitted.
    pub jobs: BTreeMap<JobId, Job>,
    /// Which account each dataset is paid from.
    pub datasets: BTreeMap<Name, Name>,
    /// Which version of each dataset serves.
    pub serving: BTreeMap<Name, Serving>,
    /// The last leaf's moment, in milliseconds since 1970.
    pub last_ms: i64,
    /// How many leaves there were.
    pub leaves: u64,
    /// What people decided, in order: the leaf, of what, and yes or no.
    pub reviews: Vec<(u64, Subject, bool)>,
    /// The rules that held, by version.
    pub policies: BTreeMap<u64, Digest>,
    /// The trust bundles that were believed, oldest first: the leaf, the version, what was signed.
    pub bundles: Vec<(u64, u64, Digest)>,
    /// The charters under which the site takes part: its own terms, and the leaf that says so.
    pub charters: BTreeMap<Digest, (Digest, u64)>,
    /// SHA-256 of the settings that the daemon started with last.
    pub settings: Option<Digest>,
    /// Keys of the log that took another's place, in order: the leaf, the former, the new.
    pub log_keys: Vec<(u64, PublicKey, PublicKey)>,
    /// How many leaves' details were erased.
    pub erased: u64,
    /// How many releases' bytes were removed.
    pub retired: u64,
}

/// One population's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// What may ever be spent, 10^-12 rho.
    pub cap_rho_pico: u64,
    /// 10^-15 delta of that.
    pub cap_delta_femto: u64,
    /// What the moments of releases may add, 10^-15 delta.
    pub cap_moments_femto: u64,
    /// Reserved by open jobs and charged by ended ones.
    pub committed_rho_pico: u64,
    /// Charged.
    pub spent_rho_pico: u64,
    /// What the moments of releases have added.
    pub moments_femto: u64,
}

/// What serves of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The version.
    pub version: String,
    /// Those that it has replaced.
    pub former: BTreeSet<String>,
    /// SHA-256 of the sealed list of who is left out.
    pub withdrawn: Digest,
    /// The leaf that says so.
    pub leaf: u64,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its signed terms.
    pub manifest: Digest,
    /// Its project's charter.
    pub charter: Digest,
    /// What it reads.
    pub dataset: Name,
    /// What it is paid from.
    pub population: Name,
    /// The leaf of its admission.
    pub leaf: u64,
    /// Its reservation and the leaf of it.
    pub reserved: Option<(u64, u64)>,
    /// Charged.
    pub spent_rho_pico: u64,
    /// Its rounds, from 0.
    pub rounds: Vec<Round>,
    /// Whether it has ended.
    pub ended: bool,
}

/// One round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// The leaf of its charge.
    pub leaf: u64,
    /// When that was, in milliseconds since 1970.
    pub charged_ms: i64,
    /// What it cost.
    pub rho_pico: u64,
    /// What its moment cost.
    pub moment_femto: u64,
    /// The leaf of its answer, and the release's digest: of no bytes where there was none.
    pub settled: Option<(u64, Digest)>,
}

impl Replay {
    /// Takes the next leaf.
    ///
    /// # Errors
    /// Why it cannot be the next one. The books are as before then, apart from the number of leaves and the time.
    pub fn apply(&mut self, leaf: &Leaf) -> Result<(), &'static str> {
        let number = self.leaves;
        self.leaves += 1;
        match leaf.event {
            Event::Clock { before_ms } if before_ms == self.last_ms && leaf.at_ms < before_ms => {}
            Event::Clock { .. } => return Err("it sets the log's time back from another moment than that of the leaf before"),
            _ if leaf.at_ms < self.last_ms => return Err("it is earlier than the leaf before"),
            _ => {}
        }
        self.last_ms = leaf.at_ms;
        match &leaf.event {
            Event::Account { population, cap_rho_pico, cap_delta_femto, cap_moments_femto } => {
                let account = self.accounts.entry(population.clone()).or_default();
                account.cap_rho_pico = *cap_rho_pico;
                account.cap_delta_femto = *cap_delta_femto;
                account.cap_moments_femto = *cap_moments_femto;
            }
            Event::Dataset { dataset, version, withdrawn } => {
                let mut former = BTreeSet::new();
                if let Some(known) = self.serving.get(dataset) {
                    if known.former.contains(version) {
                        return Err("a version serves again that another has replaced");
                    }
                    former.clone_from(&known.former);
                    if known.version != *version {
                        former.insert(known.version.clone());
                    }
                }
                let serving = Serving { version: version.clone(), former, withdrawn: *withdrawn, leaf: number };
                self.serving.insert(dataset.clone(), serving);
            }
            Event::Job { job, manifest, charter, dataset, population } => {
                if !self.accounts.contains_key(population) {
                    return Err("it names an account that has no terms");
                }
                if self.jobs.contains_key(job) {
                    return Err("the job was admitted before");
                }
                if self.datasets.entry(dataset.clone()).or_insert_with(|| population.clone()) != population {
                    return Err("its dataset was paid from another account before");
                }
                let (manifest, charter) = (*manifest, *charter);
                let (dataset, population) = (dataset.clone(), population.clone());
                let (reserved, spent_rho_pico, rounds, ended) = (None, 0, Vec::new(), false);
                self.jobs.insert(
                    *job,
                    Job { manifest, charter, dataset, population, leaf: number, reserved, spent_rho_pico, rounds, ended },
                );
            }
            Event::Reserved { job, rho_pico } => {
                let (job, account) = self.open(*job)?;
                let committed = account.committed_rho_pico.checked_add(*rho_pico).filter(|sum| *sum <= account.cap_rho_pico);
                let committed = committed.ok_or("it reserves more than the account holds")?;
                if job.reserved.replace((*rho_pico, number)).is_some() {
                    return Err("the job had reserved before");
                }
                account.committed_rho_pico = committed;
            }
            Event::Charged { job, round, rho_pico, moment_femto } => {
                let (job, account) = self.open(*job)?;
                if usize::try_from(*round) != Ok(job.rounds.len()) {
                    return Err("another round is next");
                }
                let reserved = job.reserved.map_or(0, |(rho, _)| rho);
                let spent = job.spent_rho_pico.checked_add(*rho_pico).filter(|sum| *sum <= reserved);
                let moments = account.moments_femto.checked_add(*moment_femto);
                let (Some(spent), Some(moments)) = (spent, moments) else {
                    return Err("it charges more than the job reserved");
                };
                if *moment_femto > 0 && moments > account.cap_moments_femto {
                    return Err("the moments of releases add up to more than the account holds");
                }
                job.spent_rho_pico = spent;
                account.spent_rho_pico = account.spent_rho_pico.saturating_add(*rho_pico);
                account.moments_femto = moments;
                let (rho_pico, moment_femto) = (*rho_pico, *moment_femto);
                let round = Round { leaf: number, charged_ms: leaf.at_ms, rho_pico, moment_femto, settled: None };
                job.rounds.push(round);
            }
            Event::Settled { job, round, release } => {
                let job = self.jobs.get_mut(job).ok_or("its job was never admitted")?;
                let round = usize::try_from(*round).ok().and_then(|round| job.rounds.get_mut(round));
                let round = round.ok_or("its round was never charged")?;
                if round.settled.is_some() {
                    return Err("the round had an answer before");
                }
                round.settled = Some((number, *release));
            }
            Event::Ended { job } => {
                let (job, account) = self.open(*job)?;
                job.ended = true;
                let back = job.reserved.map_or(0, |(rho, _)| rho).saturating_sub(job.spent_rho_pico);
                account.committed_rho_pico = account.committed_rho_pico.saturating_sub(back);
            }
            Event::Policy { version, policy } => {
                if self.policies.last_key_value().is_some_and(|(known, _)| version <= known) {
                    return Err("a policy of a higher version held before");
                }
                self.policies.insert(*version, *policy);
            }
            Event::Started { settings, .. } => self.settings = Some(*settings),
            Event::Trust { version, bundle } => {
                if self.bundles.last().is_some_and(|(_, known, _)| version < known) {
                    return Err("a trust bundle of a higher version was believed before");
                }
                self.bundles.push((number, *version, *bundle));
            }
            Event::Charter { charter, terms, accepted: true, .. } => {
                self.charters.insert(*charter, (*terms, number));
            }
            Event::Charter { charter, accepted: false, .. } => {
                self.charters.remove(charter);
            }
            Event::Reviewed { subject, approved } => {
                self.reviews.push((number, subject.clone(), *approved));
            }
            Event::Rotated { what: Purpose::Log, former, key } => {
                if self.log_keys.last().is_some_and(|(_, _, last)| last != former) {
                    return Err("the log had another key before it");
                }
                self.log_keys.push((number, *former, *key));
            }
            Event::Retired { releases, .. } => self.retired = self.retired.saturating_add(*releases),
            Event::Erased { details } => self.erased = self.erased.saturating_add(*details),
            _ => {}
        }
        Ok(())
    }

    /// A job that has not ended, and its account.
    fn open(&mut self, job: JobId) -> Result<(&mut Job, &mut Account), &'static str> {
        let job = self.jobs.get_mut(&job).ok_or("its job was never admitted")?;
        if job.ended {
            return Err("its job had ended");
        }
        let account = self.accounts.get_mut(&job.population).ok_or("its account has no terms")?;
        Ok((job, account))
    }
}
