//! What a dataset's jobs are paid from; and what a frozen site pays for what its lost leaves can have spent.
//!
//! *In*: the descriptions of the site's datasets. *Out*: a [`Purse`]; a recovered ledger. *Refuses*: to recover what is not frozen.

use std::time::Duration;

use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::privacy::Rho;

use super::SiteError;
use crate::dataset::{self, Dataset, DatasetError, DatasetInfo};
use crate::home::{Home, HomeError};
use crate::ledger::{Purse, Recovered};

/// What a dataset's jobs are paid from. Of several datasets about the same people, the smallest caps hold.
pub(super) fn purse(home: &Home, own: &DatasetInfo, version: &str) -> Result<Purse, DatasetError> {
    let data = home.data().map_err(|error| DatasetError::Io(std::io::Error::other(error)))?;
    let mut purse = Purse {
        population: own.population.clone(),
        cap: own.budget.rho(),
        delta: own.budget.delta,
        moments_femto: own.budget.moments_femto(),
        researcher_cap: own.budget.researcher_rho(),
        version: version.to_owned(),
    };
    for name in dataset::list(&data)? {
        let Some(info) = Dataset::info_of(&data, &name)?.filter(|info| info.population == own.population) else { continue };
        purse.cap = purse.cap.min(info.budget.rho());
        purse.delta = purse.delta.min(info.budget.delta);
        purse.moments_femto = purse.moments_femto.min(info.budget.moments_femto());
        purse.researcher_cap = purse.researcher_cap.into_iter().chain(info.budget.researcher_rho()).min();
    }
    Ok(purse)
}

/// Lets a frozen site go on: books what the lost leaves can have spent, and gives its log a new name, which the consortium must accept.
///
/// # Errors
/// The site is not frozen, or its folder cannot be read or written.
pub fn recover(home: &Home, since: Duration) -> Result<Recovered, SiteError> {
    let _lock = home.lock()?;
    let settings = |why: &str| HomeError::Settings { path: home.path().to_owned(), why: why.to_owned() };
    let shown = home.frozen()?.ok_or_else(|| settings("the site is not frozen: there is nothing to recover"))?;
    let text = shown.split("\n\n").next().map(|text| format!("{text}\n")).unwrap_or_default();
    let shown = Checkpoint::parse(&text).ok_or_else(|| settings("frozen.note is not a checkpoint"))?;
    let data = home.data()?;
    let mut purses = Vec::new();
    let unreadable = |error: DatasetError| settings(&error.to_string());
    for name in dataset::list(&data).map_err(unreadable)? {
        if let Some(info) = Dataset::info_of(&data, &name).map_err(unreadable)? {
            purses.push((name, purse(home, &info, "").map_err(unreadable)?));
        }
    }
    let most = Rho::budget(home.settings().max_epsilon_per_job, home.settings().max_delta_per_job);
    let pure = Rho::of_pure(home.settings().max_epsilon_per_job);
    let ledger = home.ledger()?;
    let common = ledger.common().map_err(HomeError::from)?;
    let recovered = ledger.recover(&shown, common, &purses, most.max(pure), since).map_err(HomeError::from)?;
    home.thaw()?;
    Ok(recovered)
}
