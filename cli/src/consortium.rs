//! A consortium's own file, as its roots' holders write it, and the bundle that is made of it.
//!
//! *In*: `consortium.toml`; requests of those who joined a coordinator. *Out*: a [`Bundle`] to sign. *Trusts*: the one who edits the file, with the
//! other roots' holders looking before they sign. *Refuses*: unknown fields, a quorum that could never be had.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use vestibule_coordinator::store::Request;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::log::policy;
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::{Bundle, Former, Person, Revoked, Role, Roots, Site};
use vestibule_protocol::words::{Country, Organisation, Origin, Reason};

use crate::failure::Failure;

/// `consortium.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Consortium {
    name: Name,
    threshold: u32,
    roots: Vec<PublicKey>,
    days: i64,
    /// How many of the other sites must cosign a site's log.
    witnesses: u32,
    /// How many of the overseers must, besides.
    overseers: u32,
    /// Organisations that work for no profit.
    #[serde(default)]
    non_profits: BTreeSet<Organisation>,
    #[serde(default)]
    site: Vec<Member>,
    /// Witnesses that are no sites.
    #[serde(default)]
    overseer: Vec<Overseer>,
    #[serde(default)]
    person: Vec<Person>,
    #[serde(default)]
    revoked: Vec<Word>,
    #[serde(default)]
    rotated: Vec<Rotated>,
}

/// A key, of a person or of a site, that another took the place of. The later of two holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotated {
    former: PublicKey,
    key: PublicKey,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    name: Name,
    organisation: Organisation,
    country: Country,
    link: PublicKey,
    log_origin: Origin,
    log: PublicKey,
    witness: PublicKey,
    #[serde(default)]
    overseer: bool,
    /// Keys that it had before, from `rotated`.
    #[serde(skip)]
    former: Former,
    #[serde(skip)]
    former_witness: Vec<PublicKey>,
}

/// A witness that sites ask over HTTPS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Overseer {
    name: Name,
    /// Its key, in C2SP's form.
    vkey: String,
    /// Where it is asked.
    url: String,
}

impl Member {
    /// Puts a key in another's place, if it has that.
    fn rotate(&mut self, former: PublicKey, key: PublicKey) -> bool {
        if self.link == former {
            self.former.link.insert(std::mem::replace(&mut self.link, key));
        } else if self.log == former {
            self.former.log.insert(std::mem::replace(&mut self.log, key));
        } else if self.witness == former {
            self.former_witness.push(std::mem::replace(&mut self.witness, key));
        } else {
            return false;
        }
        true
    }
}

/// What is revoked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    key: Option<PublicKey>,
    component: Option<Digest>,
    why: Reason,
}

/// Who is new, and the keys to compare.
pub(crate) type Newcomer = (Name, Vec<PublicKey>);

/// A new file.
pub(crate) fn template(name: &Name, threshold: u32, roots: &[PublicKey], witnesses: u32) -> String {
    let roots: String = roots.iter().map(|root| format!("    \"{root}\",\n")).collect();
    format!(
        "# Who belongs to the consortium `{name}`. Whatever changes here holds once `vestibule consortium issue` made a bundle of it, enough\n\
         # roots have signed that, and a coordinator has published it.\n\
         name = \"{name}\"\n\
         threshold = {threshold}      # how many of the roots must sign\n\
         roots = [\n{roots}]\n\
         days = 7           # how long a bundle is believed: a withheld revocation is withheld for no longer. At most 90\n\
         witnesses = {witnesses}      # how many other sites must cosign a site's log before its results are believed\n\
         overseers = 0      # how many of the sites with `overseer = true`, and of the witnesses under `[[overseer]]`, must besides\n\
         non_profits = []   # organisations, by the names that members gave, that the roots' holders know to work for no profit\n"
    )
}

fn error(why: impl std::fmt::Display) -> anyhow::Error {
    Failure::input("consortium-malformed", format!("consortium.toml: {why}"))
}

impl Consortium {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(error)
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots { threshold: self.threshold, keys: self.roots.clone() }
    }

    /// What is to be appended to the file so that it names anyone who is not in it yet, and who they are.
    pub(crate) fn added(&self, requests: Vec<(Name, Request)>) -> Result<(String, Vec<Newcomer>)> {
        #[derive(Serialize)]
        struct Sites {
            site: [Member; 1],
        }
        #[derive(Serialize)]
        struct Persons {
            person: [Person; 1],
        }
        let known: BTreeSet<&Name> =
            self.site.iter().map(|site| &site.name).chain(self.person.iter().map(|person| &person.name)).collect();
        let (mut text, mut names) = (String::new(), Vec::new());
        for (name, request) in requests.into_iter().filter(|(name, _)| !known.contains(name)) {
            let role = if matches!(request, Request::Approver(_)) { Role::Approver } else { Role::Researcher };
            let entry = match request {
                Request::Site(site) => {
                    names.push((name.clone(), vec![site.link, site.log, site.witness]));
                    let (organisation, country, log_origin) = (site.organisation, site.country, site.log_origin);
                    let (link, log, witness) = (site.link, site.log, site.witness);
                    toml::to_string(&Sites {
                        site: [Member {
                            name,
                            organisation,
                            country,
                            link,
                            log_origin,
                            log,
                            witness,
                            overseer: false,
                            former: Former::default(),
                            former_witness: vec![],
                        }],
                    })
                }
                Request::Researcher(person) | Request::Approver(person) => {
                    names.push((name.clone(), vec![person.key]));
                    let roles = BTreeSet::from([role]);
                    let (organisation, country, key) = (person.organisation, person.country, person.key);
                    toml::to_string(&Persons {
                        person: [Person { name, organisation, country, roles, key, former: BTreeSet::new() }],
                    })
                }
            };
            text.push('\n');
            text.push_str(&entry.context("writing an entry")?);
        }
        Ok((text, names))
    }

    /// The bundle of that version, issued at `now` (1970).
    pub(crate) fn bundle(mut self, version: u64, now: i64) -> Result<Bundle> {
        for Rotated { former, key } in std::mem::take(&mut self.rotated) {
            let person = self.person.iter_mut().find(|person| person.key == former);
            if let Some(person) = person {
                person.former.insert(std::mem::replace(&mut person.key, key));
            } else if !self.site.iter_mut().any(|site| site.rotate(former, key)) {
                return Err(error(format!("`rotated`: nobody has the key {former}")));
            }
        }
        let issued = OffsetDateTime::from_unix_timestamp(now)?;
        let expires = issued + Duration::days(self.days.clamp(0, 10_000));
        let witnesses = self.quorum()?;
        let mut revoked = Revoked::default();
        for word in &self.revoked {
            match (word.key, word.component) {
                (Some(key), None) => revoked.keys.insert(key),
                (None, Some(component)) => revoked.components.insert(component),
                _ => return Err(error("an entry of `revoked` names a key or a component")),
            };
        }
        let roots = self.roots();
        let site = |member: Member| {
            let Member { name, organisation, country, link, log_origin, log, former, .. } = member;
            Site { name, organisation, country, link, log_origin, log, former }
        };
        Ok(Bundle {
            consortium: self.name,
            version,
            issued: issued.format(&Rfc3339)?,
            expires: expires.format(&Rfc3339)?,
            roots,
            sites: self.site.into_iter().map(site).collect(),
            persons: self.person,
            witnesses,
            non_profits: self.non_profits,
            revoked,
        })
    }

    /// The witnesses' policy.
    fn quorum(&self) -> Result<String> {
        let revoked = |key: PublicKey| self.revoked.iter().any(|word| word.key == Some(key));
        let usable: Vec<&Member> = self.site.iter().filter(|site| !revoked(site.witness)).collect();
        let mut overseers: Vec<&Overseer> = Vec::new();
        for overseer in &self.overseer {
            let wrong = || error(format!("`overseer`: the vkey of {} is none of a witness (Ed25519, type 4)", overseer.name));
            if !revoked(policy::verifier(&overseer.vkey).ok_or_else(wrong)?.key) {
                overseers.push(overseer);
            }
        }
        let vkey = |key: PublicKey| vestibule_runtime::witness::verifier(key).vkey();
        // A witness is its key, or any of those it had before that were not revoked.
        let before = |site: &Member| -> Vec<(String, PublicKey)> {
            let kept = site.former_witness.iter().copied().filter(|key| !revoked(*key)).enumerate();
            kept.map(|(index, key)| (format!("{}/{}", site.name, index + 1), key)).collect()
        };
        let names = |overseer: bool| -> Vec<String> {
            let sites = usable.iter().filter(|site| site.overseer == overseer);
            let sites =
                sites.map(|site| if before(site).is_empty() { site.name.to_string() } else { format!("{}/any", site.name) });
            let others = overseers.iter().filter(|_| overseer).map(|other| other.name.to_string());
            sites.chain(others).collect()
        };
        let mut text = String::new();
        for site in &usable {
            text.push_str(&format!("witness {} {}\n", site.name, vkey(site.witness)));
            let before = before(site);
            for (name, key) in &before {
                text.push_str(&format!("witness {name} {}\n", vkey(*key)));
            }
            if !before.is_empty() {
                let members: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
                text.push_str(&format!("group {0}/any any {0} {1}\n", site.name, members.join(" ")));
            }
        }
        for Overseer { name, vkey, url } in &overseers {
            text.push_str(&format!("witness {name} {vkey} {url}\n"));
        }
        let mut groups = Vec::new();
        for (group, needed, members) in [("sites", self.witnesses, names(false)), ("overseers", self.overseers, names(true))] {
            if needed == 0 {
                continue;
            }
            // A site never witnesses itself.
            let others = if group == "sites" { members.len().saturating_sub(1) } else { members.len() };
            if needed as usize > others {
                return Err(error(format!(
                    "{needed} {group} must cosign each log, and there are {others} that could: lower `{}`",
                    match group {
                        "sites" => "witnesses",
                        _ => "overseers",
                    }
                )));
            }
            text.push_str(&format!("group {group} {needed} {}\n", members.join(" ")));
            groups.push(group);
        }
        match groups.as_slice() {
            [] => text.push_str("quorum none\n"),
            [group] => text.push_str(&format!("quorum {group}\n")),
            groups => text.push_str(&format!("group both all {}\nquorum both\n", groups.join(" "))),
        }
        Ok(text)
    }
}
