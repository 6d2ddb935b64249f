//! The distinguishing game on what a researcher hears: jobs on daemons whose datasets differ in one
//! man, at whom the guest is as slow as it may be; when each site's `accepted` and `released` come.
//!
//! *In*: a guest's behaviour and a job's terms. *Out*: the smallest epsilon under which what was
//! guessed from those moments is no wonder, held against the part of the charge that is for moments.
//! *Trusts*: the clock. Delays are drawn by the sites from costs that they measured.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::Value;
use vestibule_protocol::job::{Budget, Noise, Spend};
use vestibule_protocol::round::WHOLE_SHARE_PPB;

use super::lab::{DICTIONARY, Lab, RECIPE};
use super::statistics::game;
use super::{Defect, Row};
use crate::client::Client;
use crate::federation::Federation;

const SITES: [&str; 2] = ["with", "less"];
/// Jobs at each site of one federation, whose datasets' budget holds as many, and how many of these
/// there are: half of the guesses choose a threshold, the others are counted.
const JOBS: usize = 100;
const FEDERATIONS: usize = 2;
const EPSILON: f64 = 3.0;
const DELTA: f64 = 1e-6;
const FUEL: u64 = 300_000;
/// With moments that have no noise there is no need to keep L small.
const MUCH_FUEL: u64 = 20_000_000;
const MEMORY_MIB: u32 = 8;
/// Moments without noise are as long as the round.
const AT_ONCE: &str = "[slowest]\nassume_for_tests = true\n";
/// What the planted one hears, as many as show more than its part of the charge.
const FEWER: usize = 60;

/// What researchers hear of a guest that is slow at one man.
pub(crate) fn rows(lab: &Lab, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let planted = lab.defect == Some(Defect::NoDelay);
    let behaviours: &[&str] = if planted { &["denormals"] } else { &["tail", "touch"] };
    let claim = share()?;
    let row = |how: &&str| -> Result<Row> {
        let [mut with, mut less] = [vec![], vec![]];
        let (federations, jobs) = if planted { (1, FEWER) } else { (FEDERATIONS, JOBS) };
        for number in 0..federations {
            let world = World::start(lab, &format!("heard-{how}-{number}"), planted.then_some(AT_ONCE))?;
            for job in 0..jobs {
                // One site at a time, so that neither waits for the other; in turns, so that what
                // else the machine does meets both.
                with.push(world.heard("with", how, job)?);
                less.push(world.heard("less", how, job)?);
            }
            say(&format!("`{how}`: {} moments of each side", with.len()));
        }
        let shown = game(&with, &less).max(0.0);
        let observed = format!(
            "medians of {} moments each: {:.2} s with him, {:.2} s without; guesses show epsilon \
             {shown:.2} of {claim:.2}",
            with.len(),
            median(&with),
            median(&less),
        );
        Ok(Row::new(
            format!("tell from when a job's release comes whether a man is there (`{how}`)"),
            "time",
            "the moment says so",
            (shown <= claim, observed),
        ))
    };
    behaviours.iter().map(row).collect()
}

/// Epsilon of a moment's part of a job's charge, at the job's delta (Bun and Steinke 2016, proposition 1.3).
fn share() -> Result<f64> {
    match Budget::new(Noise::Gaussian, EPSILON, DELTA)?.round(WHOLE_SHARE_PPB).time() {
        Spend::Gaussian(rho) => {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let rho = rho.pico() as f64 * 1e-12;
            Ok(rho + 2.0 * (rho * (1.0 / DELTA).ln()).sqrt())
        }
        Spend::Laplace(epsilon) => Ok(epsilon),
    }
}

/// A coordinator, two sites, a researcher.
struct World {
    federation: Federation,
    dir: PathBuf,
    client: Client,
    fuel: u64,
}

impl World {
    fn start(lab: &Lab, name: &str, settings: Option<&str>) -> Result<Self> {
        let dir = lab.path().join(name);
        std::fs::create_dir(&dir)?;
        let mut federation = Federation::start(&dir, 1)?;
        federation.charter("project", &["ada"], &SITES)?;
        std::fs::write(dir.join("hostile.wasm"), &lab.component)?;
        for site in SITES {
            let source = federation.source(site)?;
            std::fs::write(source.join("people.csv"), table(site == "with"))?;
            std::fs::write(source.join("dictionary.toml"), DICTIONARY)?;
            let recipe = RECIPE.replace("epsilon = 1.0", "epsilon = 50.0");
            std::fs::write(source.join("DATASET.toml"), format!("name = \"cohort\"\n{recipe}"))?;
            federation.site(site, settings)?;
        }
        federation.connected(SITES.len())?;
        let client = federation.client()?;
        let fuel = if settings.is_some() { MUCH_FUEL } else { FUEL };
        Ok(Self { federation, dir, client, fuel })
    }

    /// Seconds from a site's `accepted` to its `released`, as the coordinator's events tell them.
    fn heard(&self, site: &str, how: &str, job: usize) -> Result<f64> {
        let id = self.submit(site, how, job)?;
        let (mut accepted, mut released) = (None, None);
        let ended = self.client.watch(&id, |status| {
            let now = Instant::now();
            match status.sites.first().map(|site| site.state.as_str()) {
                Some("accepted") => _ = accepted.get_or_insert(now),
                Some("released") => _ = released.get_or_insert(now),
                _ => {}
            }
        })?;
        anyhow::ensure!(ended.state == "finished", "a job did not finish: {:?}", ended.error);
        let (accepted, released) = accepted.zip(released).context("a job without moments")?;
        Ok(released.saturating_duration_since(accepted).as_secs_f64())
    }

    /// No two jobs ask the same: that would be answered without a round.
    fn submit(&self, site: &str, how: &str, job: usize) -> Result<String> {
        let text = format!(
            "charter = \"project.json\"\nanalysis = \"hostile.wasm\"\ndataset = \"cohort\"\n\
             epsilon = {EPSILON:?}\ndelta = {DELTA:?}\nsites = [{site:?}]\nmin_sites = 1\n\
             [limits]\nfuel_per_partition = {}\nmemory_mib = {MEMORY_MIB}\n\
             [params]\nhow = {how:?}\ncells = {}\n",
            self.fuel,
            job.saturating_add(1)
        );
        std::fs::write(self.dir.join("job.toml"), text)?;
        let (_, document) = self.federation.job("ada", &["submit", "job.toml"])?;
        let id = document.get("job").and_then(Value::as_str);
        Ok(id.with_context(|| format!("the job was not taken: {document}"))?.to_owned())
    }
}

/// Some women, and a man or none.
fn table(man: bool) -> String {
    let women = (0..24).map(|n| format!("w{n},F,40,0\n"));
    std::iter::once("id,sex,age,trait\n".to_owned()).chain(women).chain(man.then(|| "man,M,40,0\n".to_owned())).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
