//! Places at work that costs a machine time, shared out between people.
//!
//! *In*: who asks for a place. *Out*: a [`Place`], which is free again when it is dropped. *Trusts*: that one person asks under one name.
//! *Refuses*: nothing: anyone who asks waits. Nobody has more places at once than was said, so one who asks for hundreds leaves some for others;
//! those who wait take turns, by start-time fair queueing (Goyal, Vin and Cheng 1996, with every turn of the same length), each in the
//! order in which they asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

/// Places, for people who are told apart by `K`. Cheap to clone.
#[derive(Debug)]
pub struct Places<K: Clone + PartialEq>(Arc<Mutex<Shared<K>>>);

#[derive(Debug)]
struct Shared<K: Clone + PartialEq> {
    free: usize,
    /// Most that one person has at once.
    each: usize,
    /// The turn that was given last.
    turn: u64,
    /// How often anybody has asked.
    asked: u64,
    /// Of each place that somebody has: closed when they give it back.
    given: Vec<watch::Receiver<()>>,
    people: Vec<Person<K>>,
}

#[derive(Debug)]
struct Person<K: Clone + PartialEq> {
    who: K,
    has: usize,
    /// The first turn that they may have.
    turn: u64,
    waiting: VecDeque<Waiting<K>>,
}

/// When it was asked, and where to give the place.
type Waiting<K> = (u64, oneshot::Sender<Place<K>>);

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place<K: Clone + PartialEq> {
    of: Places<K>,
    who: K,
    /// Closed when it is dropped.
    _given: watch::Sender<()>,
}

impl<K: Clone + PartialEq> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + PartialEq> Places<K> {
    /// So many places, of which one person has at most `each`; at least one of both.
    #[must_use]
    pub fn new(places: usize, each: usize) -> Self {
        let (free, each) = (places.max(1), each.max(1));
        Self(Arc::new(Mutex::new(Shared { free, each, turn: 0, asked: 0, given: vec![], people: vec![] })))
    }

    /// Waits for a place. Anyone who no longer waits for it leaves the queue.
    pub async fn take(&self, who: &K) -> Place<K> {
        let heard = {
            let mut shared = self.shared();
            shared.asked = shared.asked.saturating_add(1);
            let (asked, (tell, heard)) = (shared.asked, oneshot::channel());
            shared.person(who).waiting.push_back((asked, tell));
            heard
        };
        self.share_out();
        // Anyone who serves drops no one's sender, but when these places are dropped: and this one holds them.
        heard.await.expect("the places outlive those who wait for one")
    }

    /// A place, if one is free for this person now, and nobody else has waited for it.
    #[must_use]
    pub fn try_take(&self, who: &K) -> Option<Place<K>> {
        let mut shared = self.shared();
        let each = shared.each;
        if shared.free == 0 || shared.next().is_some() || shared.person(who).has >= each {
            return None;
        }
        Some(shared.give(who, self))
    }

    /// Waits until every place that somebody has now was given back.
    pub async fn given_back(&self) {
        let given = {
            let mut shared = self.shared();
            shared.given.retain(|given| given.has_changed().is_ok());
            shared.given.clone()
        };
        for mut given in given {
            // Nothing is ever said: the place is held until the other end is gone.
            while given.changed().await.is_ok() {}
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared<K>> {
        // Nothing in here panics with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free places to those who wait.
    fn share_out(&self) {
        loop {
            let (place, tell) = {
                let mut shared = self.shared();
                shared.tidy();
                let Some(next) = shared.next().filter(|_| shared.free > 0) else { return };
                let Some((who, (_, tell))) =
                    shared.people.get_mut(next).and_then(|person| Some((person.who.clone(), person.waiting.pop_front()?)))
                else {
                    return;
                };
                (shared.give(&who, self), tell)
            };
            // Not with the lock held: a place that nobody takes any more comes back at once.
            drop(tell.send(place));
        }
    }
}

impl<K: Clone + PartialEq> Shared<K> {
    fn person(&mut self, who: &K) -> &mut Person<K> {
        let at = self.people.iter().position(|person| person.who == *who).unwrap_or_else(|| {
            self.people.push(Person { who: who.clone(), has: 0, turn: self.turn, waiting: VecDeque::new() });
            self.people.len().saturating_sub(1)
        });
        let person = self.people.get_mut(at).expect("it was found there, or put there");
        person.turn = person.turn.max(self.turn);
        person
    }

    /// Forgets those who went away, and people of whom nothing is left to know.
    fn tidy(&mut self) {
        let turn = self.turn;
        for person in &mut self.people {
            person.waiting.retain(|(_, tell)| !tell.is_closed());
        }
        self.people.retain(|person| person.has > 0 || !person.waiting.is_empty() || person.turn > turn);
    }

    /// Whose turn it is, of those who wait and may have another place.
    fn next(&self) -> Option<usize> {
        let people = self.people.iter().enumerate().filter(|(_, person)| person.has < self.each);
        let waiting = people.filter_map(|(at, person)| Some((person.turn, person.waiting.front()?.0, at)));
        waiting.min().map(|(.., at)| at)
    }

    /// A free place to a person.
    fn give(&mut self, who: &K, of: &Places<K>) -> Place<K> {
        self.free = self.free.saturating_sub(1);
        let person = self.person(who);
        let turn = person.turn;
        (person.has, person.turn) = (person.has.saturating_add(1), turn.saturating_add(1));
        self.turn = self.turn.max(turn);
        let (hold, given) = watch::channel(());
        self.given.retain(|given| given.has_changed().is_ok());
        self.given.push(given);
        Place { of: of.clone(), who: who.clone(), _given: hold }
    }
}

impl<K: Clone + PartialEq> Drop for Place<K> {
    fn drop(&mut self) {
        {
            let mut shared = self.of.shared();
            shared.free = shared.free.saturating_add(1);
            let person = shared.person(&self.who);
            person.has = person.has.saturating_sub(1);
        }
        self.of.share_out();
    }
}

#[cfg(test)]
mod tests;
