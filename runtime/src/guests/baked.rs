//! Rounds whose state was baked in lately: the same question, asked again, is not compiled again.
//!
//! *In*: code that a worker made of a component and a round's public state. *Out*: the same code, for
//! the same component, state and limits, as long as there is room. *Trusts*: nothing more than the
//! round that it was made for did: it has seen no data, and goes to no other component's round.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Limits;
use vestibule_protocol::round::Round;

/// Bytes of code that stay in memory, all together.
const MOST_BYTES: usize = 64 << 20;

/// What code was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name(Digest);

impl Name {
    /// `engine`: what decides how it is compiled. `None` where the round cannot be written down.
    pub(super) fn of(engine: Digest, component: &[u8], round: &Round, limits: Limits) -> Option<Self> {
        #[derive(Serialize)]
        struct MadeOf<'a> {
            engine: &'a [u8],
            component: &'a [u8],
            request: &'a vestibule_protocol::round::RoundRequest,
            limits: Limits,
        }
        let component = Digest::of(component);
        let made_of = MadeOf { engine: engine.as_bytes(), component: component.as_bytes(), request: round.request(), limits };
        Some(Self(Digest::of(&postcard::to_allocvec(&made_of).ok()?)))
    }
}

/// What was baked lately.
#[derive(Debug, Default)]
pub(super) struct Baked(Mutex<VecDeque<(Name, Arc<[u8]>)>>);

impl Baked {
    /// The code of that name, if it is here still.
    pub(super) fn get(&self, name: Name) -> Option<Arc<[u8]>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(known, _)| *known == name)?;
        let found = kept.remove(place)?;
        let code = Arc::clone(&found.1);
        kept.push_front(found);
        Some(code)
    }

    /// Keeps it; what was not asked for the longest goes. What would leave little room is not kept.
    pub(super) fn keep(&self, name: Name, code: &Arc<[u8]>) {
        if code.len() > MOST_BYTES / 4 {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(known, _)| *known != name);
        kept.push_front((name, Arc::clone(code)));
        let mut bytes = 0_usize;
        kept.retain(|(_, code)| {
            bytes = bytes.saturating_add(code.len());
            bytes <= MOST_BYTES
        });
    }
}

#[cfg(test)]
mod tests {
    use vestibule_protocol::round::{Bound, RoundRequest, Statistic};
    use vestibule_protocol::scores::Source;

    use super::*;

    fn name(engine: u8, component: &[u8], state: &[u8], memory_mib: u32) -> Name {
        let bound = Bound::OneCell;
        let statistic = Statistic { name: "n".into(), length: 1, bound, weight: 1.0, source: Source::Given };
        let request = RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: state.to_vec(), dosages: true };
        let limits = Limits { memory_mib, ..Limits::default() };
        Name::of(Digest::from_bytes([engine; 32]), component, &Round::check(request).unwrap(), limits).unwrap()
    }

    #[test]
    fn what_differs_in_anything_has_another_name() {
        let one = name(1, b"component", b"state", 8);
        assert_eq!(one, name(1, b"component", b"state", 8));
        for other in [
            name(2, b"component", b"state", 8),
            name(1, b"componenu", b"state", 8),
            name(1, b"component", b"stat", 8),
            name(1, b"component", b"state", 9),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_is_asked_for_stays_and_what_is_not_goes() {
        let (baked, names) = (Baked::default(), [1, 2, 3, 4, 5].map(|engine| name(engine, b"", b"", 1)));
        let code: Arc<[u8]> = vec![0; MOST_BYTES / 4].into();
        let [one, two, three, four, five] = names;
        for name in [one, two, three, four] {
            baked.keep(name, &code);
        }
        assert!(baked.get(one).is_some());
        baked.keep(five, &code);
        let there = names.map(|name| baked.get(name).is_some());
        assert_eq!(there, [true, false, true, true, true]);
        // What is too large is not kept, and nothing goes for it.
        baked.keep(two, &vec![0; MOST_BYTES / 4 + 1].into());
        assert!(baked.get(two).is_none() && baked.get(five).is_some());
    }
}
