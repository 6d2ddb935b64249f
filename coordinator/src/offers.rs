//! Places for offers: few are under way at a site at the same time, the others wait here, where those
//! of one project, or of one person, never keep others' from their turn.
//!
//! *In*: whose job, of which charter, is to be offered to which site. *Out*: a place, free again when
//! it is dropped. Charters take turns at a site's places; of one charter one person waits for its turn,
//! and its people take turns at that; of one person, what was asked first goes first. *Trusts*: that
//! one person asks under one name. *Refuses*: nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use vestibule_protocol::digest::Digest;
use vestibule_protocol::name::Name;
use vestibule_worker::{Place, Places};

/// Offers under way at one site: one whose round runs, and some that are made ready meanwhile. A site
/// takes more ([`vestibule_protocol::message`]), so that those of a lost connection do no harm.
const AT_A_SITE: usize = 4;

/// The places of all sites.
#[derive(Debug, Default)]
pub(crate) struct Offers(Mutex<HashMap<Name, Site>>);

#[derive(Debug)]
struct Site {
    places: Places<Digest>,
    /// Who waits for each charter's next turn.
    next: HashMap<Digest, Places<Name>>,
}

impl Offers {
    /// Waits for a place at a site, for a charter's job of somebody.
    pub(crate) async fn take(&self, site: &Name, charter: Digest, who: &Name) -> Place<Digest> {
        let (places, next) = {
            let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Site { places: Places::new(AT_A_SITE, AT_A_SITE), next: HashMap::new() };
            let site = sites.entry(site.clone()).or_insert_with(new);
            (site.places.clone(), site.next.entry(charter).or_insert_with(|| Places::new(1, 1)).clone())
        };
        // Free again for the next of this charter when this one has its place, or waits no longer.
        let _turn = next.take(who).await;
        places.take(&charter).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Whose turn it was, one after another, where all have asked for so many before any place was free.
    async fn turns(asked: &[(u8, &'static str, usize)]) -> Vec<&'static str> {
        let (offers, site) = (Arc::new(Offers::default()), name("leiden"));
        let mut held = vec![];
        for _ in 0..AT_A_SITE {
            held.push(offers.take(&site, Digest::of(b"before"), &name("before")).await);
        }
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut all = 0;
        for &(charter, who, count) in asked {
            for _ in 0..count {
                all += 1;
                let (offers, site, tell) = (Arc::clone(&offers), site.clone(), tell.clone());
                tokio::spawn(async move {
                    let place = offers.take(&site, Digest::of(&[charter]), &name(who)).await;
                    tell.send((who, place)).unwrap();
                });
                // Each has asked before the next does.
                tokio::task::yield_now().await;
            }
        }
        held.truncate(1);
        let mut order = vec![];
        for _ in 0..all {
            // One place, given on by each in turn.
            drop(held.pop());
            let (who, place) = heard.recv().await.unwrap();
            order.push(who);
            held.push(place);
            tokio::task::yield_now().await;
        }
        order
    }

    #[tokio::test]
    async fn people_of_one_charter_take_turns() {
        let order = turns(&[(1, "ada", 6), (1, "max", 2)]).await;
        let last = order.iter().rposition(|who| *who == "max").unwrap();
        assert!(last <= 4, "{order:?}");
    }

    #[tokio::test]
    async fn charters_take_turns_however_many_people_they_have() {
        let many = [(1, "ada", 5), (1, "eva", 5), (1, "max", 5), (1, "tim", 5), (2, "zoe", 5)];
        let order = turns(&many).await;
        let last = order.iter().rposition(|who| *who == "zoe").unwrap();
        assert!(last <= 11, "every other turn is hers: {order:?}");
    }

    #[tokio::test]
    async fn one_who_waits_no_longer_keeps_nobody_waiting() {
        let (offers, site, charter) = (Offers::default(), name("leiden"), Digest::of(b"charter"));
        let mut held = vec![];
        for _ in 0..AT_A_SITE {
            held.push(offers.take(&site, charter, &name("ada")).await);
        }
        {
            let max = name("max");
            let mut gone = Box::pin(offers.take(&site, charter, &max));
            assert!(waits(&mut gone).await, "there is no place");
        }
        held.pop();
        // The front of the queue is free, and so is a place.
        held.push(offers.take(&site, charter, &name("eva")).await);
        assert_eq!(held.len(), AT_A_SITE);
    }

    async fn waits<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = tokio::task::yield_now() => true,
        }
    }
}
