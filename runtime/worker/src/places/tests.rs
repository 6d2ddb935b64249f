use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::{Place, Places};

type Asking<'a> = Pin<Box<dyn Future<Output = Place<char>> + 'a>>;

/// Whether it has its place now.
fn has(asking: &mut Asking<'_>) -> Option<Place<char>> {
    match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(place) => Some(place),
        Poll::Pending => None,
    }
}

fn ask<'a>(places: &'a Places<char>, who: &'a char) -> Asking<'a> {
    let mut asking: Asking<'a> = Box::pin(places.take(who));
    assert!(has(&mut asking).is_none(), "{who} was to wait");
    asking
}

fn at_once(places: &Places<char>, who: char) -> Place<char> {
    match pin!(places.take(&who)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(place) => place,
        Poll::Pending => panic!("{who} was to have a place at once"),
    }
}

#[test]
fn one_person_leaves_places_for_others() {
    let places = Places::new(3, 2);
    let (first, _second) = (at_once(&places, 'a'), at_once(&places, 'a'));
    assert!(places.try_take(&'a').is_none());
    let mut third = ask(&places, &'a');
    // The one that is left is not for those who have their share.
    let other = at_once(&places, 'b');
    drop(other);
    assert!(has(&mut third).is_none());
    assert!(places.try_take(&'b').is_some());
    drop(first);
    assert!(has(&mut third).is_some());
}

#[test]
fn of_those_who_wait_whoever_was_served_longest_ago_is_next() {
    let places = Places::new(1, 1);
    let place = at_once(&places, 'a');
    // A flood of a's, then b, then c.
    let mut flood: Vec<_> = (0..50).map(|_| ask(&places, &'a')).collect();
    let (mut b, mut c) = (ask(&places, &'b'), ask(&places, &'c'));
    drop(place);
    // a was served last, so b and c are next, in the order in which they came.
    assert!(flood.iter_mut().all(|asking| has(asking).is_none()) && has(&mut c).is_none());
    let place = has(&mut b).unwrap();
    drop(place);
    let place = has(&mut c).unwrap();
    assert!(flood.iter_mut().all(|asking| has(asking).is_none()));
    drop(place);
    // Then a's, in theirs.
    let place = has(&mut flood[0]).unwrap();
    let mut b = ask(&places, &'b');
    assert!(has(&mut flood[1]).is_none());
    drop(place);
    assert!(has(&mut b).is_some());
}

#[test]
fn who_went_away_takes_no_place() {
    let places = Places::new(1, 1);
    let place = at_once(&places, 'a');
    let gone = ask(&places, &'b');
    let mut next = ask(&places, &'c');
    drop(gone);
    drop(place);
    drop(has(&mut next).unwrap());
    // One that was given to somebody who has gone since comes back.
    let place = at_once(&places, 'a');
    let gone = ask(&places, &'b');
    drop(place);
    drop(gone);
    drop(at_once(&places, 'd'));
    let mut shared = places.shared();
    shared.turn = 100;
    shared.tidy();
    assert!(shared.people.is_empty() && shared.free == 1);
}

#[test]
fn whoever_waits_goes_before_those_who_come_by() {
    let places = Places::new(1, 1);
    let place = at_once(&places, 'a');
    assert!(places.try_take(&'b').is_none());
    let mut b = ask(&places, &'b');
    drop(place);
    assert!(places.try_take(&'c').is_none(), "it is b's");
    drop(has(&mut b).unwrap());
    drop(places.try_take(&'c').unwrap());
}

#[test]
fn what_is_held_now_is_waited_for_and_nothing_that_comes_later() {
    let places = Places::new(2, 2);
    let (first, second) = (at_once(&places, 'a'), at_once(&places, 'b'));
    let mut quiet = Box::pin(places.given_back());
    let mut is_quiet = || quiet.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!is_quiet());
    drop(first);
    let _later = at_once(&places, 'a');
    assert!(!is_quiet());
    drop(second);
    assert!(is_quiet());
}

/// Two who come again as soon as they were served do not keep a third waiting.
#[test]
fn whoever_comes_again_and_again_takes_turns_with_those_who_wait() {
    let places = Places::new(1, 1);
    let mut place = at_once(&places, 'a');
    let mut waiting: Vec<(char, Asking<'_>)> = (0..40).map(|_| ('z', ask(&places, &'z'))).collect();
    waiting.push(('b', ask(&places, &'b')));
    let mut served = String::new();
    for _ in 0..30 {
        let was = place.who;
        drop(place);
        let mut given = None;
        waiting.retain_mut(|(_, asking)| {
            let found = if given.is_none() { has(asking) } else { None };
            let stays = found.is_none();
            given = given.take().or(found);
            stays
        });
        place = given.unwrap();
        served.push(place.who);
        if was != 'z' {
            waiting.push((was, ask(&places, if was == 'a' { &'a' } else { &'b' })));
        }
    }
    for who in ['a', 'b', 'z'] {
        assert!(served.matches(who).count() >= 9, "{served}");
    }
}
