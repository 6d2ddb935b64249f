//! The consortium that a coordinator serves, and who is invited to it.
//!
//! *In*: the roots' fingerprint, bundles, names. *Out*: invitations; bundles for everybody. *Refuses*: another consortium, a bundle
//! that is not to be believed after the last, names that are taken.

use vestibule_protocol::digest::{Digest, DigestError};
use vestibule_protocol::name::Name;
use vestibule_protocol::token::{Invitation, Role, TOKEN_SECONDS};
use vestibule_protocol::trust::{Trust, TrustError};
use zeroize::Zeroizing;

use super::private::write_private;
use super::{Home, HomeError, fresh_key};

impl Home {
    /// The fingerprint of the consortium's roots.
    ///
    /// # Errors
    /// None was pinned yet.
    pub fn consortium(&self) -> Result<Digest, HomeError> {
        let path = self.path.join("consortium");
        let text = std::fs::read_to_string(&path).map_err(|_| HomeError::NoConsortium(self.path.clone()))?;
        text.trim().parse().map_err(|error: DigestError| HomeError::Settings { path, why: error.to_string() })
    }

    /// Pins the fingerprint of the consortium's roots: for good.
    ///
    /// # Errors
    /// Another was pinned before; the file cannot be written.
    pub fn pin(&self, consortium: Digest) -> Result<(), HomeError> {
        let path = self.path.join("consortium");
        match self.consortium() {
            Ok(pinned) if pinned == consortium => Ok(()),
            Ok(pinned) => Err(HomeError::Trust(TrustError::Fingerprint { found: consortium, pinned })),
            Err(_) => {
                let write = write_private(&path, format!("{consortium}\n").as_bytes());
                write.map_err(|source| HomeError::Io { path, source })
            }
        }
    }

    /// Publishes a trust bundle to everybody, if it is to be believed after the last one.
    ///
    /// # Errors
    /// It is not; the database.
    pub fn publish(&self, envelope: &[u8]) -> Result<Trust, HomeError> {
        let store = self.store()?;
        let trust = match store.bundle()? {
            Some(known) => Trust::stored(&known)?.next(envelope)?,
            None => Trust::first(envelope, self.consortium()?)?,
        };
        store.publish(trust.bundle().version, envelope)?;
        Ok(trust)
    }

    /// Forgets who joined under a name, or is invited, so that the name is free again: for one that was given by mistake.
    ///
    /// # Errors
    /// Nobody has it; the consortium knows it already.
    pub fn forget(&self, name: &Name) -> Result<(), HomeError> {
        let store = self.store()?;
        let trust = store.bundle()?.map(|envelope| Trust::stored(&envelope)).transpose()?;
        let knows = |trust: &Trust| {
            let bundle = trust.bundle();
            bundle.sites.iter().any(|site| site.name == *name) || bundle.persons.iter().any(|person| person.name == *name)
        };
        if trust.as_ref().is_some_and(knows) {
            return Err(HomeError::InBundle(name.clone()));
        }
        Ok(store.forget(name)?)
    }

    /// Makes a one-time token for a new site or researcher, good for a day from `now`.
    ///
    /// # Errors
    /// The name is taken; the database.
    pub fn invite(&self, role: Role, name: &Name, now: i64) -> Result<Zeroizing<String>, HomeError> {
        let key = fresh_key().map_err(|source| HomeError::Key { path: self.path.clone(), source })?;
        let running = self.addresses();
        let or = |public: &Option<String>, running: Option<String>, set: String| public.clone().or(running).unwrap_or(set);
        let invitation = Invitation {
            role,
            name: name.clone(),
            quic: or(&self.settings.public_quic, running.as_ref().map(|at| at.quic.clone()), self.settings.quic.clone()),
            tunnel: self.settings.public_tunnel.clone().or(running.as_ref().and_then(|at| at.tunnel.clone())),
            api: or(&self.settings.public_api, running.map(|at| at.api), format!("http://{}", self.settings.api)),
            coordinator: self.key.public(),
            consortium: self.consortium()?,
            expires: now.saturating_add(TOKEN_SECONDS),
        };
        self.store()?.invite(&invitation, key.public())?;
        Ok(invitation.to_token(&key))
    }
}
