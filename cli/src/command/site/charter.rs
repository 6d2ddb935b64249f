//! `vestibule site charter`: which projects the site takes part in.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::name::Name;
use vestibule_runtime::charter::Terms;
use vestibule_runtime::home::Home;

use super::{home, open, print, recorded, since_1970};
use crate::failure::coded;
use crate::files::read_bytes;
use crate::show;

#[derive(Debug, Subcommand)]
pub(crate) enum Charter {
    /// Take part in a project, under its charter and this site's own terms, which can only be narrower. Read it first: `vestibule charter show`.
    Accept {
        /// The site's folder.
        dir: PathBuf,
        /// The signed charter.
        charter: PathBuf,
        /// Less than the charter asks for: epsilon for all its jobs here.
        #[arg(long)]
        epsilon: Option<f64>,
        /// The only columns that it may read here.
        #[arg(long = "column")]
        columns: Vec<Name>,
        /// A person looks at every release before it leaves.
        #[arg(long)]
        review: bool,
        /// Noised counts below this are released as 0. Costs no privacy, and makes results worse.
        #[arg(long, default_value_t = 0)]
        suppress_below: u32,
        /// Noised counts are released as multiples of this. Costs no privacy, and makes results worse.
        #[arg(long, default_value_t = 1)]
        round_to: u32,
    },
    /// The projects that this site takes part in.
    List {
        /// The site's folder.
        dir: PathBuf,
    },
    /// No longer take part. Holds at once; what was charged stays charged.
    Withdraw {
        /// The site's folder.
        dir: PathBuf,
        /// The charter's digest.
        charter: Digest,
    },
}

pub(super) fn charters(command: Charter, json: bool) -> Result<()> {
    let log = |site: &Home, charter: Digest, project: &Name, accepted: bool, details: serde_json::Value| {
        let event = Event::Charter { charter, project: project.clone(), accepted };
        let logged = site.ledger().map_err(home)?.record(event, Some(&details), since_1970());
        logged.map_err(|error| coded(error.code(), error))
    };
    match command {
        Charter::Accept { dir, charter, epsilon, columns, review, suppress_below, round_to } => {
            let site = recorded(&dir, "charter-accept", json!({ "file": charter }))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "negative and impossible ones are refused"
            )]
            let epsilon_micro = epsilon.map(|epsilon| (epsilon * 1e6).round() as u64);
            let columns = (!columns.is_empty()).then(|| columns.into_iter().collect());
            let terms = Terms { epsilon_micro, columns, review, suppress_below, round_to };
            let accepted = site.accept(&read_bytes(&charter)?, terms.clone()).map_err(home)?;
            let (digest, project) = (accepted.signed().digest(), &accepted.signed().charter().project);
            log(&site, digest, project, true, json!(terms))?;
            let text = format!("takes part in {project}, under {digest}, for at most {:.6} rho", accepted.cap().value());
            print(json, &json!({ "project": project, "charter": digest, "cap_rho": accepted.cap().value() }), &text);
        }
        Charter::List { dir } => {
            let found = open(&dir)?.charters().map_err(home)?;
            let document = found.iter().map(|accepted| {
                let signed = accepted.signed();
                json!({ "project": signed.charter().project, "title": signed.charter().title, "charter": signed.digest(),
                    "until": signed.charter().not_after, "cap_rho": accepted.cap().value(), "terms": accepted.terms() })
            });
            let rows = found.iter().map(|accepted| {
                let charter = accepted.signed().charter();
                let cap = format!("{:.6}", accepted.cap().value());
                vec![
                    charter.project.to_string(),
                    charter.title.to_string(),
                    charter.not_after.clone(),
                    cap,
                    accepted.signed().digest().to_string(),
                ]
            });
            let text = show::grid(&["project", "title", "until", "rho here", "charter"], rows);
            print(json, &json!(document.collect::<Vec<_>>()), &text);
        }
        Charter::Withdraw { dir, charter } => {
            let site = recorded(&dir, "charter-withdraw", json!({ "charter": charter }))?;
            let known = site.charters().map_err(home)?.into_iter().find(|accepted| accepted.signed().digest() == charter);
            site.leave(charter).map_err(home)?;
            if let Some(known) = known {
                log(&site, charter, &known.signed().charter().project, false, json!({}))?;
            }
            print(json, &json!({ "charter": charter }), &format!("no longer takes part in {charter}"));
        }
    }
    Ok(())
}
