//! Who a key is: for calls of the API, and for whose jobs are whose.
//!
//! *In*: a key that was proved. *Out*: the name of who joined with it, or whom the trust bundle names with it, and what they may.
//! *Trusts*: the store, and the bundle that was believed when it was published. *Refuses*: keys that were revoked.

use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::token::Role;
use vestibule_protocol::trust;

use crate::shared::Shared;
use crate::store::StoreError;

/// A person, known by a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// Their name.
    pub(crate) name: Name,
    /// Whether they may submit jobs and see those that are theirs.
    pub(crate) researcher: bool,
}

impl Shared {
    /// The person whose key it is, if they joined or the trust bundle names them.
    ///
    /// # Errors
    /// The store.
    pub(crate) fn who(&self, key: &PublicKey) -> Result<Option<Person>, StoreError> {
        let trust = self.trust();
        if trust.as_ref().is_some_and(|trust| trust.is_revoked(key)) {
            return Ok(None);
        }
        let named = |role| trust.as_ref().and_then(|trust| trust.person(key, role)).map(|person| person.name.clone());
        if let Some(name) = named(trust::Role::Researcher) {
            return Ok(Some(Person { name, researcher: true }));
        }
        let joined = self.store.member(key)?.filter(|(_, role)| *role != Role::Site);
        Ok(match joined {
            Some((name, role)) => Some(Person { name, researcher: role == Role::Researcher }),
            None => named(trust::Role::Approver).map(|name| Person { name, researcher: false }),
        })
    }

    /// All keys of the person whose key it is.
    pub(crate) fn keys_of(&self, key: &PublicKey) -> Vec<PublicKey> {
        self.trust().map_or_else(|| vec![*key], |trust| trust.keys_of_person(key))
    }
}
