//! Attacks on a federation, and what they saw.
//!
//! *In*: the project's hostile guest and demo data. *Out*: a [`Row`] for each attack: what a system without protection would let out
//! (measured, where it can be run), what was observed here, and whether the promise held. *Trusts*: nothing; where a [`Defect`] is
//! planted, the attack that is made for it must see it, which is how the attacks themselves are tested.

mod ends;
mod guests;
mod heard;
mod lab;
mod naked;
mod noise;
mod processes;
mod public;
mod researchers;
mod statistics;
mod terms;
mod walls;
mod work;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

pub(crate) use lab::Lab;

/// One attack.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What is tried.
    pub(crate) name: String,
    /// By what way a person's data would come out.
    pub(crate) channel: &'static str,
    /// What a system without protection lets out.
    pub(crate) unprotected: String,
    /// What was seen here.
    pub(crate) observed: String,
    /// Whether the promise held.
    pub(crate) verdict: Verdict,
}

/// Whether the promise held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It did.
    Held,
    /// It did not.
    Broken,
}

impl Row {
    fn new(name: impl Into<String>, channel: &'static str, unprotected: impl Into<String>, found: (bool, String)) -> Self {
        let verdict = if found.0 { Verdict::Held } else { Verdict::Broken };
        Self { name: name.into(), channel, unprotected: unprotected.into(), observed: found.1, verdict }
    }
}

/// A mechanism that is broken on purpose, in place of the site's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Defect {
    /// One instance for everybody.
    ReusedInstance,
    /// Contributions are added as they come.
    NoClamp,
    /// Numbers are clamped, and what is no number passes.
    NanPoison,
    /// The job's time is what is limited, not each individual's fuel.
    WallClock,
    /// It is told how many individuals made the analysis fail.
    TrapCount,
    /// Half the noise.
    HalfNoise,
    /// One draw for all entries.
    SharedNoise,
    /// The same draws in every release.
    StaleNoise,
    /// Releases leave when their round ends.
    NoDelay,
    /// A block's contribution is taken to move by no more than its own size.
    BlockReach,
    /// Fuel is looked at where functions and turns of loops begin, and nowhere else.
    Unmetered,
    /// What an instance touched stays, and is reset for everybody behind it.
    KeptPages,
    /// Moments have half the noise that they need.
    HalfLongest,
    /// A choice tries candidates until it accepts one.
    TryingChoice,
    /// As many groups of rows as people fill.
    GroupsOfPeople,
    /// What people gave is held until all of it is there.
    HeldRows,
    /// Digests of releases have no salt.
    BareDigest,
    /// A daemon that is told to stop ends when its round does.
    StopAtEnd,
    /// Daemons may leave cores.
    OpenDaemons,
    /// A task on a cluster sleeps its delay, and burns nothing.
    SleepingTask,
    /// The usual factor of a product is found by sorting.
    SortedFactors,
    /// Plans run where rounds do.
    PlansInPlace,
}

/// What is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Guests,
    Releases,
    Public,
    Ends,
    Daemons,
}

impl Defect {
    /// Where it is planted.
    const fn part(self) -> Part {
        match self {
            Self::ReusedInstance | Self::NoClamp | Self::NanPoison | Self::WallClock | Self::TrapCount => Part::Guests,
            Self::HalfNoise | Self::SharedNoise | Self::StaleNoise | Self::NoDelay | Self::BlockReach | Self::HalfLongest => {
                Part::Releases
            }
            Self::TryingChoice
            | Self::GroupsOfPeople
            | Self::HeldRows
            | Self::BareDigest
            | Self::SleepingTask
            | Self::SortedFactors => Part::Public,
            Self::Unmetered | Self::KeptPages => Part::Ends,
            Self::StopAtEnd | Self::OpenDaemons | Self::PlansInPlace => Part::Daemons,
        }
    }
}

/// What is said of what is not attacked here.
pub(crate) const NOT_TRIED: [&str; 3] = [
    "channels between processes of one processor (Spectre, caches)",
    "a site's own administrator, who reads its data: what they can change in its log, its witnesses see",
    "an escaped guest whose contribution for one individual depends on others of its job, each within its bound",
];

/// Runs them all; where a defect is planted, those on what it is planted in.
pub(crate) fn all(root: &Path, defect: Option<Defect>, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    say("building the hostile guest, and the unprotected system that it is compared with");
    let lab = Lab::new(root, defect)?;
    let mut rows = Vec::new();
    let attacked = |part: Part| defect.is_none_or(|defect| defect.part() == part);
    if attacked(Part::Guests) {
        say("guests against a site's sandbox and sums");
        rows.extend(guests::rows(&lab)?);
    }
    if attacked(Part::Releases) {
        say("researchers against releases");
        rows.extend(noise::rows(&lab)?);
        rows.extend(researchers::rows(&lab, root)?);
    }
    if attacked(Part::Public) {
        say("everybody against what is seen beside the numbers");
        rows.extend(public::rows(&lab)?);
        rows.extend(work::rows(&lab)?);
    }
    if attacked(Part::Ends) {
        say("guests against the moments at which rounds end: a minute or two");
        rows.extend(ends::rows(&lab)?);
    }
    match defect {
        None => {
            say("components and terms against what they may ask for");
            rows.extend(terms::rows(&lab)?);
            say("escaped guests against the walls around them");
            rows.extend(walls::rows()?);
            say("everybody against daemons");
            rows.extend(processes::rows(&lab, root)?);
        }
        Some(planted) if planted.part() == Part::Daemons => rows.push(processes::planted(&lab, planted)?),
        // It is planted here, and not in daemons.
        Some(_) => {}
    }
    Ok(rows)
}

/// The moments at which rounds end, at several limits, numbers of threads and of people; then what
/// researchers hear of them. With the defect that releases leave at once, only the latter.
pub(crate) fn ends(root: &Path, defect: Option<Defect>, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let lab = Lab::new(root, defect)?;
    let mut rows = if defect.is_none() { ends::thorough(&lab, say)? } else { vec![] };
    rows.extend(heard::rows(&lab, say)?);
    Ok(rows)
}
