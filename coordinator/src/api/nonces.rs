//! Nonces of calls that change something, so that none is made twice by somebody who heard it.
//!
//! *In*: signed calls, and the time. *Out*: whether it is the first. *Refuses*: the same call again, for as long as its time would let
//! it pass; more than a person's share. Over a restart they are forgotten: each change is one that, made twice, is as made once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::request::{MAX_CLOCK_SKEW_SECONDS, Nonce, Signed};

use super::Refusal;

/// Of one key: 600 kB of memory.
const MOST: usize = 10_000;

/// The nonces that were seen, with when each may be forgotten.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<HashMap<PublicKey, BTreeMap<Nonce, i64>>>);

impl Nonces {
    /// Takes a call of a registered key.
    pub(crate) fn take(&self, call: &Signed, now: i64) -> Result<(), Refusal> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seen.entry(call.key).or_default();
        if own.contains_key(&call.nonce) {
            let why = "this very call was made before: sign it anew";
            return Err(Refusal::new(StatusCode::CONFLICT, "request-repeated", why));
        }
        if own.len() >= MOST {
            own.retain(|_, until| *until >= now);
        }
        if own.len() >= MOST {
            return Err(Refusal::busy("you changed more within ten minutes than one person may", Duration::from_secs(60)));
        }
        own.insert(call.nonce, call.time.saturating_add(MAX_CLOCK_SKEW_SECONDS));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vestibule_protocol::digest::Digest;
    use vestibule_protocol::key::SecretKey;

    fn call(seed: u8, number: u32, time: i64) -> Signed {
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&number.to_be_bytes());
        Signed { key: SecretKey::from_seed([seed; 32]).unwrap().public(), time, nonce, body: Digest::of(b"") }
    }

    #[test]
    fn a_call_is_taken_once_from_each_key() {
        let nonces = Nonces::default();
        nonces.take(&call(1, 7, 100), 100).unwrap();
        nonces.take(&call(2, 7, 100), 100).unwrap();
        nonces.take(&call(1, 8, 100), 100).unwrap();
        for now in [100, 400] {
            assert_eq!(nonces.take(&call(1, 7, 100), now).unwrap_err().code(), "request-repeated");
        }
    }

    #[test]
    fn a_person_has_room_for_so_many_and_has_it_again_later() {
        let nonces = Nonces::default();
        for number in 0..u32::try_from(MOST).unwrap() {
            nonces.take(&call(1, number, 100), 100).unwrap();
        }
        assert_eq!(nonces.take(&call(1, u32::MAX, 400), 400).unwrap_err().code(), "too-many-calls");
        nonces.take(&call(2, 0, 400), 400).unwrap();
        nonces.take(&call(1, u32::MAX, 401), 401).unwrap();
    }
}
