//! Joining: a new site presents its invitation once, and is known by its own key from then on.
//!
//! *In*: an invitation's text. *Out*: the site's name, and the coordinator remembered in the site's folder. *Refuses*: tokens
//! that are cut, expired, or for a researcher; a coordinator with another key than the token names.

use vestibule_link::{Framed, LinkError};
use vestibule_protocol::message::{Join, Joined, join_message};
use vestibule_protocol::name::Name;
use vestibule_protocol::token::{Invitation, Role, TokenError};

use super::dial;
use crate::home::{Coordinator, Home, HomeError};

/// Why a site could not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The token's text.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A researcher's token.
    #[error("this is an invitation for a researcher: it is for `vestibule researcher join`")]
    Role,
    /// Too late.
    #[error("the invitation has expired: ask the coordinator for a new one")]
    Expired,
    /// The coordinator cannot be reached, or is another one.
    #[error("the coordinator cannot be reached, does not know this invitation (used already?), or has another key: {0}")]
    Link(#[from] LinkError),
    /// The coordinator's refusal.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl JoinError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Token(_) => "token-malformed",
            Self::Role => "token-role",
            Self::Expired => "token-expired",
            Self::Link(_) => "link-closed",
            Self::Refused(_) => "join-refused",
            Self::Home(error) => error.code(),
        }
    }
}

/// Joins the coordinator that the token names.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(home: &Home, token: &str, now: i64) -> Result<Name, JoinError> {
    let (invitation, invitation_key) = Invitation::from_token(token)?;
    if invitation.role != Role::Site {
        return Err(JoinError::Role);
    }
    if now > invitation.expires {
        return Err(JoinError::Expired);
    }
    let key = home.link_key().public();
    let proof = home.link_key().sign(&join_message(&invitation_key.public(), &key)).to_vec();
    let (endpoint, connection) = dial(&invitation.quic, &invitation_key, invitation.coordinator).await?;
    let mut stream = Framed::open(&connection).await?;
    stream.send(&Join { key, proof }).await?;
    let answer: Joined = stream.receive().await?;
    connection.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    match answer {
        Joined::Welcome { name } => {
            let coordinator = Coordinator { site: name.clone(), quic: invitation.quic, key: invitation.coordinator };
            home.set_coordinator(&coordinator)?;
            Ok(name)
        }
        Joined::Refused { why } => Err(JoinError::Refused(why)),
    }
}
