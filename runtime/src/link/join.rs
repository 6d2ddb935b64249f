//! Joining: a new site presents its invitation once, and is known by its own key from then on.
//!
//! *In*: an invitation's text, and whose the site is. *Out*: the site's name, and the coordinator and its consortium's roots remembered in the site's folder. *Refuses*: tokens
//! that are cut, expired, or for a researcher; a coordinator with another key than the token names.

use vestibule_link::{Dialled, Framed, LinkError, Way, dial};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::message::{Join, Joined, SiteRequest, join_message};
use vestibule_protocol::name::Name;
use vestibule_protocol::token::{Invitation, Role, TokenError};
use vestibule_protocol::words::{Country, Organisation, Sentence};

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
    Refused(Sentence),
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

/// Whose a site is, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whose {
    /// The organisation.
    pub organisation: Organisation,
    /// An ISO 3166 code of two letters.
    pub country: Country,
}

/// Joins the coordinator that the token names. Returns the site's name, and the fingerprint of the consortium's roots that is pinned from
/// now on.
///
/// # Errors
/// See [`JoinError`].
pub async fn join(home: &Home, token: &str, whose: Whose, now: i64) -> Result<(Name, Digest), JoinError> {
    let (invitation, invitation_key) = Invitation::from_token(token)?;
    if invitation.role != Role::Site {
        return Err(JoinError::Role);
    }
    if now > invitation.expires {
        return Err(JoinError::Expired);
    }
    let (checkpoint, _) = home.ledger()?.checkpoint(home.log_key()).map_err(HomeError::from)?;
    let request = SiteRequest {
        organisation: whose.organisation,
        country: whose.country,
        link: home.link_key().public(),
        log_origin: checkpoint.origin.parse().expect("this site gave its log that name itself"),
        log: home.log_key().public(),
        witness: home.witness_key().public(),
    };
    let message = join_message(&invitation_key.public(), &request);
    let proofs = [home.link_key(), home.log_key(), home.witness_key()].map(|key| key.sign(&message)).concat();
    let way = Way { quic: &invitation.quic, tunnel: invitation.tunnel.as_deref() };
    let Dialled { endpoint, connection, .. } = dial(way, &invitation_key, invitation.coordinator).await?;
    let mut stream = Framed::open(&connection).await?;
    stream.send(&Join { request, proofs }).await?;
    let answer: Joined = stream.receive().await?;
    connection.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    match answer {
        Joined::Welcome { name } => {
            let consortium = invitation.consortium;
            let Invitation { quic, tunnel, coordinator: key, .. } = invitation;
            let coordinator = Coordinator { site: name.clone(), quic, tunnel, key, consortium };
            home.set_coordinator(&coordinator)?;
            Ok((name, consortium))
        }
        Joined::Refused { why } => Err(JoinError::Refused(why)),
    }
}
