//! Whether the site may consider offers at all: its consortium, its log, what its settings say is kept.
//!
//! *In*: trust bundles that were delivered, checkpoints that witnesses showed, the time. *Out*: the bundle that is believed; that the site is frozen. *Trusts*: the
//! consortium's roots. *Refuses*: bundles that do not follow from the last one; every offer, where the log is not what its witnesses know.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use vestibule_protocol::log::note::Verifier;
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::Trust;

use super::{Refused, Site, SiteError, own};
use crate::component::CodeFolder;
use crate::home::HomeError;
use crate::ledger::LedgerError;

pub(super) const FROZEN: &str = "FROZEN: a witness has seen more of this site's log than there is, or other leaves. The site was restored from a copy, or runs \
                      twice. No job is considered; frozen.note holds what the witness showed. See docs/OPERATING.md, \"A frozen site\"";

impl Site {
    /// The trust bundle that is believed.
    pub(crate) fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Believes a trust bundle that was delivered, if there is reason to; keeps and logs it.
    pub(crate) fn believe(&self, envelope: &[u8], clock: Duration) -> Result<(), SiteError> {
        let mut trust = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        let new = match trust.as_ref() {
            Some(known) => known.next(envelope),
            None => Trust::first(envelope, self.consortium),
        };
        let new = match new {
            Ok(new) => new.without(self.home.settings().distrust.clone()),
            Err(error) => {
                tracing::error!(%error, "a trust bundle is not believed");
                self.ledger.rejected(error.code(), clock).map_err(HomeError::from)?;
                return Ok(());
            }
        };
        if trust.as_ref().is_some_and(|known| known.digest() == new.digest()) {
            return Ok(());
        }
        self.home.believe(envelope, &new, clock)?;
        tracing::info!(version = new.bundle().version, expires = new.bundle().expires, "a new trust bundle is believed");
        for what in self.home.named(&new, &self.name) {
            tracing::info!(what = what.name(), "the bundle names the site's next key: it is used from the next start on");
        }
        *trust = Some(Arc::new(new));
        Ok(())
    }

    /// How this site's log is verified.
    pub(crate) fn log_verifier(&self) -> Result<Verifier, LedgerError> {
        let (checkpoint, _) = self.ledger.checkpoint(self.home.log_key())?;
        Ok(crate::log::verifier(&checkpoint.origin, self.home.log_key().public()))
    }

    /// Whether the site considers no offers, since its log is not what its witnesses know.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// A witness showed a checkpoint of this log that this log does not have.
    pub(crate) fn freeze(&self, witness: &Name, shown: &str) {
        self.frozen.store(true, Ordering::Relaxed);
        tracing::error!(%witness, shown, "{FROZEN}");
        if let Err(error) = self.home.freeze(shown) {
            tracing::error!(%error, "that the site is frozen could not be written down");
        }
    }

    /// The trust bundle, if jobs may be begun on its word at `now` and it knows this site with the keys and the log that it has.
    pub(super) fn member(&self, now: i64) -> Result<Arc<Trust>, Refused> {
        if self.is_frozen() {
            return Err(("site-frozen", "the site's log is not what its witnesses know: its operator can see why").into());
        }
        let trust = self.trust().ok_or(("trust-missing", "the site has no trust bundle of its consortium yet"))?;
        if !trust.is_current(now) {
            return Err(("trust-expired", "the consortium's trust bundle has expired: its roots must sign a new one").into());
        }
        let link = self.home.link_key().public();
        let log = self.log_verifier().map_err(|error| own("ledger", &error))?;
        if !(trust.links(&self.name).contains(&link) && trust.logs(&self.name).contains(&log)) {
            let why = "the consortium's trust bundle does not name this site, with the keys and the log that it has";
            return Err(("site-not-member", why).into());
        }
        Ok(trust)
    }

    /// Whether the site could consider an offer at all.
    pub(crate) fn is_member(&self, clock: Duration) -> bool {
        self.member(i64::try_from(clock.as_secs()).unwrap_or(i64::MAX)).is_ok()
    }

    /// Erases what the site's settings say is not kept for so long: details of the log, releases' bytes, components.
    /// Nothing by a clock that ran ahead: what is erased does not come back.
    pub(crate) fn retire(&self, clock: Duration) {
        let Some(clock) = self.ledger.sure(clock) else {
            tracing::error!("this machine's clock is ahead of what the witnesses and the trust bundle say: nothing is erased");
            return;
        };
        match self.ledger.end_overdue(clock) {
            Ok(0) => {}
            Ok(jobs) => tracing::info!(jobs, "jobs that the coordinator never ended are over: what they had reserved is free"),
            Err(error) => tracing::error!(%error, "jobs that are over could not be ended"),
        }
        let settings = self.home.settings();
        let before = |days: u32| clock.saturating_sub(Duration::from_secs(u64::from(days).saturating_mul(86_400)));
        match self.ledger.erase(before(settings.keep_details_days), clock) {
            Ok(0) => {}
            Ok(details) => tracing::info!(details, "old details of the log were erased"),
            Err(error) => tracing::error!(%error, "old details of the log could not be erased"),
        }
        let unused = before(settings.keep_components_days);
        let code = self.home.folder("code").map_err(|error| error.to_string());
        let code = code.and_then(|code| CodeFolder(code).retire(unused).map_err(|error| error.to_string()));
        let components = self.components.retire(unused).map_err(|error| error.to_string());
        let components =
            components.and_then(|components| code.map(|code| components.saturating_add(code))).unwrap_or_else(|error| {
                tracing::error!(%error, "old components could not be removed");
                0
            });
        match self.ledger.retire(before(settings.keep_releases_days), components, clock) {
            Ok(0) => {}
            Ok(releases) => tracing::info!(releases, "old releases are no longer kept"),
            Err(error) => tracing::error!(%error, "old releases could not be removed"),
        }
    }
}
