//! Places for offers: few are under way at a site at the same time, the others wait here, where those
//! of one person never keep others' from their turn.
//!
//! *In*: whose job is to be offered to which site. *Out*: a place, free again when it is dropped.
//! *Trusts*: that one person asks under one name. *Refuses*: nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use vestibule_protocol::name::Name;
use vestibule_worker::{Place, Places};

/// Offers under way at one site: one whose round runs, and some that are made ready meanwhile. A site
/// takes more ([`vestibule_protocol::message`]), so that those of a lost connection do no harm.
const AT_A_SITE: usize = 4;

/// The places of all sites.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<HashMap<Name, Places<Name>>>);

impl Offers {
    /// Waits for a place at a site.
    pub(crate) async fn take(&self, site: &Name, who: &Name) -> Place<Name> {
        let places = {
            let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sites.entry(site.clone()).or_insert_with(|| Places::new(AT_A_SITE, AT_A_SITE)).clone()
        };
        places.take(who).await
    }
}
