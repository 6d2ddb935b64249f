//! `vestibule review`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::review::Subject;
use vestibule_protocol::words::Reason;

use super::site::signed;
use crate::files::{read_bytes, write};

/// A signed word on a component.
#[derive(Debug, Args)]
pub(crate) struct Review {
    /// The component.
    component: PathBuf,
    /// Your secret key, as an approver.
    #[arg(long)]
    key: PathBuf,
    /// Why.
    #[arg(long)]
    why: Reason,
    /// Against it, rather than for it.
    #[arg(long)]
    deny: bool,
    /// The review, for `vestibule site review`.
    #[arg(short, long)]
    output: PathBuf,
}

impl Review {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let component = Digest::of(&read_bytes(&self.component)?);
        let envelope = signed(Subject::Component { component }, !self.deny, self.why, &self.key)?;
        write(&self.output, envelope)?;
        let document = json!({ "component": component, "approved": !self.deny, "file": self.output });
        if json {
            println!("{document}");
        } else {
            println!("{component}\nreviewed in {}", self.output.display());
        }
        Ok(())
    }
}
