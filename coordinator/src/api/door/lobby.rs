//! Who is connected, and who makes room.
//!
//! *In*: addresses and moments. *Out*: [`Visit`]s. *Trusts*: nothing but a call that was signed: a connection that carries one is left
//! alone. Of the others, each may stay 30 s; one address (of IPv6, one /64) has so many; and where there is no more room, the one goes
//! that has waited longest, of the address that has most. So anyone who comes is heard, however many wait. *Refuses*: one who comes
//! while all are busy with signed calls.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long a connection may stay without a signed call.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Connections: with what else a coordinator has open, fewer than the 1,024 descriptors that a process has at least.
const ALL: usize = 512;
/// Connections of one address without a signed call. Behind a proxy, all people have one address.
const EACH: usize = 128;

/// All who are connected.
#[derive(Debug, Default)]
pub(super) struct Lobby(Mutex<Guests>);

#[derive(Debug, Default)]
struct Guests {
    last: u64,
    all: HashMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    from: IpAddr,
    /// Signed calls under way.
    busy: usize,
    /// When it came, or its last signed call ended.
    since: Instant,
    leave: CancellationToken,
}

/// A connection. Cheap to clone; it is forgotten with the last one.
#[derive(Debug, Clone)]
pub(crate) struct Visit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lobby: Arc<Lobby>,
    id: u64,
    leave: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.lobby.guests().all.remove(&self.id);
    }
}

/// A signed call under way.
#[derive(Debug)]
pub(crate) struct Busy(Visit);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(guest) = self.0.0.lobby.guests().all.get_mut(&self.0.0.id) {
            guest.busy = guest.busy.saturating_sub(1);
            guest.since = Instant::now();
        }
    }
}

impl Lobby {
    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection; none if there is no room.
    pub(super) fn enter(lobby: &Arc<Self>, from: IpAddr, now: Instant) -> Option<Visit> {
        let from = network(from);
        let mut guests = lobby.guests();
        if guests.idle().filter(|guest| guest.from == from).count() >= EACH {
            guests.send_away(from);
        } else if guests.all.len() >= ALL {
            let most = guests.most()?;
            guests.send_away(most);
        }
        guests.last = guests.last.wrapping_add(1);
        let (id, leave) = (guests.last, CancellationToken::new());
        guests.all.insert(id, Guest { from, busy: 0, since: now, leave: leave.clone() });
        Some(Visit(Arc::new(Inner { lobby: Arc::clone(lobby), id, leave })))
    }

    /// One goes, if one can.
    pub(super) fn make_room(&self) {
        let mut guests = self.guests();
        if let Some(most) = guests.most() {
            guests.send_away(most);
        }
    }
}

impl Guests {
    fn idle(&self) -> impl Iterator<Item = &Guest> {
        self.all.values().filter(|guest| guest.busy == 0)
    }

    /// The address that most idle connections come from.
    fn most(&self) -> Option<IpAddr> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for guest in self.idle() {
            let count = counts.entry(guest.from).or_default();
            *count = count.saturating_add(1);
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(from, _)| from)
    }

    /// The one of an address that has waited longest goes.
    fn send_away(&mut self, from: IpAddr) {
        let of = self.all.iter().filter(|(_, guest)| guest.busy == 0 && guest.from == from);
        let longest = of.min_by_key(|(id, guest)| (guest.since, **id)).map(|(id, _)| *id);
        if let Some(guest) = longest.and_then(|id| self.all.remove(&id)) {
            guest.leave.cancel();
        }
    }
}

impl Visit {
    /// A signed call begins: the connection stays until its answer is sent.
    pub(crate) fn begin(&self) -> Busy {
        if let Some(guest) = self.0.lobby.guests().all.get_mut(&self.0.id) {
            guest.busy = guest.busy.saturating_add(1);
        }
        Busy(self.clone())
    }

    /// How long it may stay, to be asked again then; `None`: no longer.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let guests = self.0.lobby.guests();
        let guest = guests.all.get(&self.0.id)?;
        let stayed = now.saturating_duration_since(guest.since);
        if guest.busy > 0 { Some(IDLE) } else { IDLE.checked_sub(stayed).filter(|left| !left.is_zero()) }
    }

    /// Somebody needs the room.
    pub(super) async fn asked_to_leave(&self) {
        self.0.leave.cancelled().await;
    }
}

/// An address, or the /64 that one customer has.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn gone(visit: &Visit, now: Instant) -> bool {
        visit.0.leave.is_cancelled() && visit.left(now).is_none()
    }

    #[test]
    fn who_signs_nothing_stays_for_30_seconds() {
        let (lobby, start) = (Arc::default(), Instant::now());
        let visit = Lobby::enter(&lobby, from(1), start).unwrap();
        assert_eq!(visit.left(start + IDLE / 2), Some(IDLE / 2));
        assert_eq!(visit.left(start + IDLE), None);
        let busy = visit.begin();
        assert_eq!(visit.left(start + IDLE * 100), Some(IDLE), "as long as a signed call is under way");
        drop(busy);
        assert!(visit.left(Instant::now()).is_some(), "and again after it");
        drop(visit);
        assert!(lobby.guests().all.is_empty());
    }

    #[test]
    fn of_one_address_the_longest_waiting_makes_room_and_no_signed_call_does() {
        let (lobby, start) = (Arc::default(), Instant::now());
        let signed = Lobby::enter(&lobby, from(1), start).unwrap();
        let _busy = signed.begin();
        let visits: Vec<_> = (0..EACH).map(|_| Lobby::enter(&lobby, from(1), start).unwrap()).collect();
        let other = Lobby::enter(&lobby, from(2), start).unwrap();
        assert!(!visits.iter().any(|visit| gone(visit, start)), "as many as one address may have");
        let _late = Lobby::enter(&lobby, from(1), start).unwrap();
        let left: Vec<_> = visits.iter().map(|visit| gone(visit, start)).collect();
        assert!(left[0] && !left[1..].contains(&true), "the first goes, and nobody else");
        assert!(!gone(&other, start) && !gone(&signed, start));
    }

    #[test]
    fn where_all_is_full_the_address_with_most_makes_room_unless_all_are_busy() {
        let (lobby, start) = (Arc::default(), Instant::now());
        let few = Lobby::enter(&lobby, from(250), start).unwrap();
        let mut visits = Vec::new();
        for number in 0..ALL - 1 {
            let address = u8::try_from(number / 100).unwrap();
            visits.push(Lobby::enter(&lobby, from(address), start + Duration::from_secs(1)).unwrap());
        }
        let now = start + Duration::from_secs(2);
        let _honest = Lobby::enter(&lobby, from(251), now).unwrap();
        assert!(!gone(&few, now), "it has waited longest, and has one");
        assert_eq!(visits.iter().filter(|visit| gone(visit, now)).count(), 1);
        let (all, busy): (Vec<_>, Arc<Lobby>) = (Vec::new(), Arc::default());
        let mut all = all;
        for _ in 0..ALL {
            let visit = Lobby::enter(&busy, from(1), start).unwrap();
            all.push((visit.begin(), visit));
        }
        assert!(Lobby::enter(&busy, from(2), start).is_none());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), from(1));
    }
}
