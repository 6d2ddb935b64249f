//! `vestibule researcher` and `vestibule approver`: how a person joins.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use vestibule_protocol::token::{Invitation, Role};
use vestibule_protocol::words::{Country, Organisation};

use crate::client::Client;
use crate::failure::Failure;
use crate::files::{handed, now, secret_key};
use crate::trust;

#[derive(Debug, Subcommand)]
pub(crate) enum Person {
    /// Register your key with the coordinator that invited you. It counts once the consortium's roots have put it into the trust bundle.
    Join {
        /// The token that you were given; `-` reads it from standard input, where no list of processes shows it.
        token: String,
        /// Your secret key's file.
        #[arg(long)]
        key: PathBuf,
        /// Whom you work for.
        #[arg(long)]
        organisation: Organisation,
        /// Where: an ISO 3166 code of two capital letters.
        #[arg(long)]
        country: Country,
    },
}

impl Person {
    pub(crate) fn run(self, role: Role, json: bool) -> Result<()> {
        let Self::Join { token, key, organisation, country } = self;
        let token = handed(token)?;
        let (invitation, invitation_key) =
            Invitation::from_token(&token).map_err(|error| Failure::input("token-malformed", error))?;
        if invitation.role != role {
            let whom = match invitation.role {
                Role::Site => "site",
                Role::Researcher => "researcher",
                Role::Approver => "approver",
            };
            return Err(Failure::input("token-role", format!("this invitation is for `vestibule {whom} join`")));
        }
        if now() > invitation.expires {
            return Err(Failure::input("token-expired", "the invitation has expired: ask the coordinator for a new one"));
        }
        let client = Client::new(&invitation.api, invitation.coordinator, secret_key(&key)?);
        let joined = client.join(&invitation_key, organisation, country)?;
        let consortium = invitation.consortium;
        trust::pin(&key, &invitation.coordinator, consortium)?;
        if json {
            let document = serde_json::json!({ "name": joined.name, "coordinator": invitation.api, "consortium": consortium });
            println!("{document}");
        } else {
            println!("joined {} as {}; the consortium's roots have the fingerprint\n{consortium}", invitation.api, joined.name);
            println!("compare it by phone with one of their holders, who will compare your key with you");
        }
        Ok(())
    }
}
