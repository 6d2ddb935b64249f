//! `vestibule site budget`: what was spent, for good.

use anyhow::Result;
use serde_json::json;
use vestibule_runtime::home::Home;

use super::{home, print};
use crate::failure::coded;
use crate::show;

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn femto(amount: u64) -> f64 {
    amount as f64 / 1e15
}

pub(super) fn budget(site: &Home, json: bool) -> Result<()> {
    let accounts = site.ledger().map_err(home)?.accounts().map_err(|error| coded(error.code(), error))?;
    let document: Vec<_> = accounts
        .iter()
        .map(|account| {
            let jobs = account.jobs.iter().map(|job| {
                json!({ "job": job.job, "dataset": job.dataset, "researcher": job.researcher, "title": job.title, "reserved_rho": job.reserved.value(),
                    "spent_rho": job.spent.value(), "rounds": job.rounds, "ended": job.ended })
            });
            json!({ "population": account.population, "delta": account.cap_delta, "moments_delta": femto(account.moments_femto),
                "cap_rho": account.cap.value(), "cap_epsilon": account.epsilon(account.cap),
                "spent_rho": account.spent.value(), "spent_epsilon": account.epsilon(account.spent),
                "reserved_rho": account.reserved.value(), "jobs": jobs.collect::<Vec<_>>() })
        })
        .collect();
    let mut text = Vec::new();
    for account in &accounts {
        let delta = account.cap_delta;
        text.push(format!(
            "{}: spent epsilon {:.3} of {:.3} at delta {delta:e} (rho {:.6} of {:.6}; {:.6} reserved)",
            account.population,
            account.epsilon(account.spent),
            account.epsilon(account.cap),
            account.spent.value(),
            account.cap.value(),
            account.reserved.value()
        ));
        let rows = account.jobs.iter().map(|job| {
            let state = if job.ended { "ended" } else { "open" };
            vec![
                job.job.to_string(),
                job.dataset.to_string(),
                job.researcher.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                job.title.clone().unwrap_or_else(|| "-".to_owned()),
                job.rounds.to_string(),
                format!("{:.6}", job.spent.value()),
                state.to_owned(),
            ]
        });
        text.push(show::grid(&["job", "dataset", "researcher", "title", "rounds", "rho", ""], rows));
    }
    if accounts.is_empty() {
        text.push("nothing was spent".to_owned());
    }
    print(json, &json!(document), &text.join("\n"));
    Ok(())
}
