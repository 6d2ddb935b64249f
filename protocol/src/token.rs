//! One-time invitations: how a new site or researcher first meets the coordinator.
//!
//! A token is a key of its own. The coordinator pins the token's public half, allowed to ask for one thing only: to register
//! the newcomer's own key under the invited name. So no unknown key ever passes a handshake, and the coordinator stores no
//! secret. *In*: an invitation, or its text. *Out*: the text to hand over, or the invitation. *Refuses*: any other text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::digest::Digest;
use crate::key::{KeyError, PublicKey, SecretKey};
use crate::name::Name;
use crate::words::Address;

/// How long a token is good for, in seconds.
pub const TOKEN_SECONDS: i64 = 24 * 3_600;
const PREFIX: &str = "vestibule-invitation-1.";

/// Who is invited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A site.
    Site,
    /// A researcher.
    Researcher,
    /// An approver: a person who reviews what others ask for.
    Approver,
}

/// What an invitation says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invitation {
    /// Who is invited.
    pub role: Role,
    /// The name that the newcomer will have.
    pub name: Name,
    /// `host:port` of the coordinator's QUIC listener.
    pub quic: String,
    /// `host:port` where it takes QUIC inside of TLS, if it does.
    pub tunnel: Option<String>,
    /// Base URL of the coordinator's HTTP API.
    pub api: String,
    /// The coordinator's key, to be pinned.
    pub coordinator: PublicKey,
    /// The fingerprint of the consortium's roots, to be pinned: it is for people to compare it with what the roots' holders say.
    pub consortium: Digest,
    /// Seconds since 1970, UTC: good until then.
    pub expires: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    invitation: Invitation,
    seed: String,
}

impl Drop for Text {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an invitation: copy the whole token, which begins with `vestibule-invitation-1.`")]
pub struct TokenError;

impl Invitation {
    /// The token's text. Anyone who has it can join under the name, once: hand it over in confidence.
    #[must_use]
    pub fn to_token(&self, key: &SecretKey) -> Zeroizing<String> {
        let text = Text { invitation: self.clone(), seed: URL_SAFE_NO_PAD.encode(key.seed()) };
        let json = Zeroizing::new(serde_json::to_vec(&text).expect("strings and a number are always JSON"));
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*json)))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`] for any other text.
    pub fn from_token(token: &str) -> Result<(Self, SecretKey), TokenError> {
        let encoded = token.trim().strip_prefix(PREFIX).ok_or(TokenError)?;
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError)?);
        let text: Text = serde_json::from_slice(&json).map_err(|_| TokenError)?;
        let Self { quic, tunnel, api, .. } = &text.invitation;
        let places = [Some(quic), tunnel.as_ref(), Some(api)];
        if places.into_iter().flatten().any(|place| place.parse::<Address>().is_err()) {
            return Err(TokenError);
        }
        let seed = Zeroizing::new(URL_SAFE_NO_PAD.decode(&text.seed).map_err(|_| TokenError)?);
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.as_slice().try_into().map_err(|_| TokenError)?);
        let key = SecretKey::from_seed(*seed).map_err(|_: KeyError| TokenError)?;
        Ok((text.invitation.clone(), key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_a_cut_one_is_not() {
        let key = SecretKey::from_seed([5; 32]).unwrap();
        let invitation = Invitation {
            role: Role::Site,
            name: "leiden".parse().unwrap(),
            quic: "127.0.0.1:4433".into(),
            tunnel: Some("127.0.0.1:443".into()),
            api: "http://127.0.0.1:8080".into(),
            coordinator: SecretKey::from_seed([6; 32]).unwrap().public(),
            consortium: Digest::of(b"roots"),
            expires: 1,
        };
        let token = invitation.to_token(&key);
        let (read, read_key) = Invitation::from_token(&format!(" {}\n", &*token)).unwrap();
        assert_eq!(read, invitation);
        assert_eq!(read_key.public(), key.public());
        for api in ["", "http://a\u{1b}[2J", &"a".repeat(301)] {
            let other = Invitation { api: api.to_owned(), ..invitation.clone() };
            assert_eq!(Invitation::from_token(&other.to_token(&key)).unwrap_err(), TokenError);
        }
        for cut in [0, 10, 40, token.len() - 1] {
            assert_eq!(Invitation::from_token(&token[..cut]).unwrap_err(), TokenError);
        }
    }
}
