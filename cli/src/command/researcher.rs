//! `vestibule researcher`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use vestibule_protocol::token::{Invitation, Role};

use crate::client::Client;
use crate::failure::Failure;
use crate::files::{now, secret_key};

#[derive(Debug, Subcommand)]
pub(crate) enum Researcher {
    /// Register your key with the coordinator that invited you. Each site must accept your key too: send it FILE.pub.
    Join {
        /// The token that you were given.
        token: String,
        /// Your secret key's file.
        #[arg(long)]
        key: PathBuf,
    },
}

impl Researcher {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let Self::Join { token, key } = self;
        let (invitation, invitation_key) =
            Invitation::from_token(&token).map_err(|error| Failure::input("token-malformed", error))?;
        if invitation.role != Role::Researcher {
            return Err(Failure::input("token-role", "this is an invitation for a site: it is for `vestibule site join`"));
        }
        if now() > invitation.expires {
            return Err(Failure::input("token-expired", "the invitation has expired: ask the coordinator for a new one"));
        }
        let joined = Client::new(&invitation.api, secret_key(&key)?).join(&invitation_key)?;
        if json {
            println!("{}", serde_json::json!({ "name": joined.name, "coordinator": invitation.api }));
        } else {
            println!("joined {} as {}", invitation.api, joined.name);
        }
        Ok(())
    }
}
