//! Whose word counts when something waits for a person.
//!
//! *In*: a signed [`Review`], the trust bundle, the site's rules. *Out*: the person whose word it is. *Trusts*: the consortium for who is an approver,
//! the site's officers for whose approvers count here besides the site's own. *Refuses*: researchers about their own projects; approvers of
//! other organisations about this site's jobs and releases, and about components unless the site's policy names them; revoked keys.

use std::time::Duration;

use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::review::{Review, ReviewError, Subject};
use vestibule_protocol::trust::{Person, Role, Trust};

use crate::home::{Home, HomeError};
use crate::policy;
use crate::policy::rules::Rules;

/// Why somebody's word does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WordError {
    /// The review itself.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// Not an approver of the consortium's.
    #[error("the key is not one of an approver in the consortium's trust bundle, or was revoked")]
    Approver,
    /// Another organisation's.
    #[error(
        "{0} is an approver of another organisation, whose word does not count here: the site's policy can name reviewers of components"
    )]
    Organisation(Name),
    /// About oneself.
    #[error("{0} is the project's own: nobody decides about their own work")]
    Own(Name),
    /// Another site's.
    #[error("the review is of a job or a release of another site")]
    Site,
    /// Nobody is known yet.
    #[error("the site has no trust bundle of its consortium yet: who an approver is, it would say")]
    Trust,
    /// The site's folder.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl WordError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Review(error) => error.code(),
            Self::Approver => "review-not-approver",
            Self::Organisation(_) => "review-other-organisation",
            Self::Own(_) => "review-own",
            Self::Site => "review-other-site",
            Self::Trust => "trust-missing",
            Self::Home(error) => error.code(),
        }
    }
}

/// The person whose word a review is, if it counts at `site`. `own`: the keys of those whose work it is about.
///
/// # Errors
/// See [`WordError`].
pub fn counts<'a>(
    envelope: &[u8],
    trust: &'a Trust,
    site: &Name,
    rules: &Rules,
    own: &[PublicKey],
) -> Result<(Review, &'a Person), WordError> {
    let keys: Vec<PublicKey> = trust.keys(Role::Approver).into_iter().map(|(_, key)| key).collect();
    let (review, key) = Review::verify(envelope, &keys).map_err(|error| match error {
        ReviewError::Envelope(vestibule_protocol::dsse::DsseError::Signature) => WordError::Approver,
        error => error.into(),
    })?;
    let person = trust.person(&key, Role::Approver).ok_or(WordError::Approver)?;
    if own.iter().any(|own| trust.same_person(own, &key)) {
        return Err(WordError::Own(person.name.clone()));
    }
    let ours = trust.site(site).is_some_and(|site| site.organisation == person.organisation);
    let named = matches!(review.subject, Subject::Component { .. }) && rules.document().reviewers.contains(&person.name);
    if !ours && !named {
        return Err(WordError::Organisation(person.name.clone()));
    }
    match &review.subject {
        Subject::Job { site: at, .. } | Subject::Release { site: at, .. } if at != site => Err(WordError::Site),
        _ => Ok((review, person)),
    }
}

/// Books a signed review, if its signer's word counts at this site. `own`: the keys of those whose work it is about.
///
/// # Errors
/// See [`WordError`]. Nothing is booked then.
pub fn book(home: &Home, envelope: &[u8], own: &[PublicKey], since: Duration) -> Result<(Review, Name), WordError> {
    let (site, ledger) = (home.coordinator()?.site, home.ledger()?);
    let trust = home.trust()?.ok_or(WordError::Trust)?;
    let rules = policy::holding(home, &ledger, &site)?;
    let (review, person) = counts(envelope, &trust, &site, &rules, own)?;
    ledger.review(&review, &person.name, envelope, since).map_err(HomeError::from)?;
    Ok((review, person.name.clone()))
}
