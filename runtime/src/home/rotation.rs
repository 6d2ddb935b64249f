//! New keys of the site's link, log and witness in the place of the ones it has, once the consortium's roots have said so.
//!
//! *In*: which keys; later, the trust bundle that is believed. *Out*: keys beside the old ones, and for each a rotation that both have signed; then, at a
//! start, a leaf and the new key in the old one's place. *Trusts*: the bundle. *Refuses*: to use a key that the bundle does not name. Killed at any
//! moment, the next start goes on: the leaf comes first, and the old key's file goes last.

use std::time::Duration;

use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::log::leaf::{Event, Purpose};
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::{Rotation, Trust};
use zeroize::Zeroizing;

use super::keys::Folder;
use super::{Home, HomeError, KEYS, LOG_KEY, replace};

fn file(what: Purpose) -> String {
    format!("{}.pem", what.name())
}

fn next_file(what: Purpose) -> String {
    format!("{}.next.pem", what.name())
}

/// The keys that lie beside the ones that are used.
pub(super) fn next(keys: &Folder<'_>, passphrase: Option<&str>) -> Result<Vec<(Purpose, SecretKey)>, HomeError> {
    let waiting = Purpose::ALL.into_iter().filter(|what| keys.dir.exists(next_file(*what)));
    waiting.map(|what| Ok((what, keys.key(&next_file(what), passphrase)?))).collect()
}

impl Home {
    const fn used(&self, what: Purpose) -> &SecretKey {
        match what {
            Purpose::Link => &self.link_key,
            Purpose::Log => &self.log_key,
            Purpose::Witness => &self.witness_key,
        }
    }

    /// Makes a new key, unless one lies there already, and returns what asks the consortium's roots to put it in the old one's place.
    ///
    /// # Errors
    /// The passphrase is another than that of the keys; the folder cannot be written.
    pub fn rotate(&self, what: Purpose, passphrase: Option<&str>) -> Result<Vec<u8>, HomeError> {
        let new = if let Some((_, key)) = self.next.iter().find(|(known, _)| *known == what) {
            SecretKey::from_seed(*key.seed()).map_err(|source| HomeError::Key { path: self.path.join(KEYS), source })?
        } else {
            let name = format!("{KEYS}/{}", next_file(what));
            let (path, beside) = (self.path.join(&name), format!("{KEYS}/{}", file(what)));
            let io = |source| HomeError::Io { path: path.clone(), source };
            let key_error = |source| HomeError::Key { path: path.clone(), source };
            // The passphrase that the keys have, not one that nobody typed.
            SecretKey::from_pem(&Zeroizing::new(self.dir.read_to_string(beside).map_err(io)?), passphrase)
                .map_err(key_error)?;
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(|error| io(std::io::Error::other(error.to_string())))?;
            let key = SecretKey::from_seed(*seed).map_err(key_error)?;
            replace(&self.dir, &name, key.to_pem(passphrase).map_err(key_error)?.as_bytes()).map_err(io)?;
            key
        };
        Ok(Rotation::sign(self.used(what), &new))
    }

    /// Which of the next keys a bundle names as this site's.
    pub(crate) fn named(&self, trust: &Trust, site: &Name) -> Vec<Purpose> {
        let of = |what: Purpose| -> Option<PublicKey> {
            match what {
                Purpose::Link => trust.site(site).map(|site| site.link),
                Purpose::Log => trust.site(site).map(|site| site.log),
                Purpose::Witness => {
                    trust.policy().witnesses().iter().find(|(name, _)| name == site.as_str()).map(|(_, by)| by.key)
                }
            }
        };
        self.next.iter().filter(|(what, key)| of(*what) == Some(key.public())).map(|(what, _)| *what).collect()
    }

    /// Uses the next keys that the bundle names from now on, and says so in the log.
    ///
    /// # Errors
    /// The folder or the ledger cannot be written. Then the old keys are used still.
    pub(crate) fn adopt(&mut self, site: &Name, since: Duration) -> Result<Vec<Purpose>, HomeError> {
        let Some(trust) = self.trust()? else { return Ok(vec![]) };
        let named = self.named(&trust, site);
        for what in &named {
            let Some(at) = self.next.iter().position(|(known, _)| known == what) else { continue };
            let (_, key) = self.next.remove(at);
            let (former, new) = (self.used(*what).public(), key.public());
            self.ledger()?.rotated(&Event::Rotated { what: *what, former, key: new }, since)?;
            if *what == Purpose::Log {
                let io = |source| HomeError::Io { path: self.path.join(LOG_KEY), source };
                replace(&self.dir, LOG_KEY, new.to_pem().as_bytes()).map_err(io)?;
            }
            let (from, to) = (format!("{KEYS}/{}", next_file(*what)), format!("{KEYS}/{}", file(*what)));
            let io = |source| HomeError::Io { path: self.path.join(&to), source };
            self.dir.rename(&from, &self.dir, &to).map_err(io)?;
            match what {
                Purpose::Link => self.link_key = key,
                Purpose::Log => self.log_key = key,
                Purpose::Witness => self.witness_key = key,
            }
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Source, read, verify};
    use vestibule_protocol::trust::{Bundle, Former, Revoked, Roots, Site};

    /// A bundle that names the site with these keys of its link and log.
    fn bundle(home: &Home, link: PublicKey, log: PublicKey) -> Vec<u8> {
        let root = SecretKey::from_seed([1; 32]).unwrap();
        let log_origin = home.ledger().unwrap().checkpoint(home.log_key()).unwrap().0.origin.parse().unwrap();
        let site = Site {
            name: "leiden".parse().unwrap(),
            organisation: "hospital".parse().unwrap(),
            country: "NL".parse().unwrap(),
            link,
            log_origin,
            log,
            former: Former::default(),
        };
        let (issued, expires) = ("2026-01-01T00:00:00Z".into(), "2026-01-08T00:00:00Z".into());
        let bundle = Bundle {
            consortium: "test".parse().unwrap(),
            version: 1,
            issued,
            expires,
            roots: Roots { threshold: 1, keys: vec![root.public()] },
            sites: vec![site],
            persons: vec![],
            witnesses: "quorum none\n".into(),
            non_profits: std::collections::BTreeSet::new(),
            revoked: Revoked::default(),
        };
        bundle.sign(&root).unwrap()
    }

    #[test]
    fn a_key_is_used_once_the_bundle_names_it_whenever_it_is_killed() {
        let temp = tempfile::tempdir().unwrap();
        let (site, at) = ("leiden".parse().unwrap(), Duration::from_secs(100));
        let open = || Home::open(temp.path(), Some("secret")).unwrap();
        let home = Home::init(temp.path(), Some("secret")).unwrap();
        assert_eq!(home.rotate(Purpose::Log, None).unwrap_err().code(), "key-passphrase-needed");
        let rotation = Rotation::verify(&home.rotate(Purpose::Log, Some("secret")).unwrap()).unwrap();
        assert_eq!(rotation.former, home.log_key().public());
        // Asked for again, it is the same.
        assert_eq!(Rotation::verify(&open().rotate(Purpose::Log, Some("secret")).unwrap()).unwrap(), rotation);
        home.ledger().unwrap().record(Event::Heartbeat, None, at).unwrap();
        // Nobody's bundle names it: not used.
        assert_eq!(open().adopt(&site, at).unwrap(), []);
        home.set_trust(&bundle(&home, home.link_key().public(), rotation.former)).unwrap();
        assert_eq!(open().adopt(&site, at).unwrap(), []);
        let (checkpoint, note) = home.ledger().unwrap().checkpoint(home.log_key()).unwrap();
        home.ledger().unwrap().keep(checkpoint.size, &note).unwrap();

        home.set_trust(&bundle(&home, home.link_key().public(), rotation.key)).unwrap();
        // Killed after the leaf: the next start says nothing twice.
        let event = Event::Rotated { what: Purpose::Log, former: rotation.former, key: rotation.key };
        home.ledger().unwrap().rotated(&event, at).unwrap();
        let mut next = open();
        assert_eq!((next.adopt(&site, at).unwrap(), next.log_key().public()), (vec![Purpose::Log], rotation.key));
        assert_eq!(open().adopt(&site, at).unwrap(), []);
        let source = Source::new(temp.path().join("ledger.sqlite"), Some(next.seal()));
        let said = read(&source, None).unwrap();
        assert_eq!(said.iter().filter(|line| line.leaf.event == event).count(), 1);
        assert!(!temp.path().join("keys/log.next.pem").exists());
        let public = PublicKey::from_pem(&std::fs::read_to_string(temp.path().join(LOG_KEY)).unwrap()).unwrap();
        assert_eq!((open().log_key().public(), public), (rotation.key, rotation.key));

        // Each key signs its own part of the log; the new one vouches for the one before.
        let ledger = next.ledger().unwrap();
        let (checkpoint, note) = ledger.checkpoint(next.log_key()).unwrap();
        ledger.keep(checkpoint.size, &note).unwrap();
        assert_eq!(verify(&source, &[rotation.key], None).unwrap().found, []);
        let found = verify(&source, &[rotation.former], None).unwrap().found;
        assert!(found.iter().any(|found| found.why.contains("that is not the log's key")), "{found:?}");
        // The old key signs on: nobody takes it.
        let (checkpoint, note) = ledger.checkpoint(home.log_key()).unwrap();
        ledger.keep(checkpoint.size, &note).unwrap();
        let found = verify(&source, &[rotation.key], None).unwrap().found;
        assert!(found.len() == 1 && found[0].why.contains("the key that the log had then"), "{found:?}");
    }
}
