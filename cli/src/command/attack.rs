//! `vestibule attack`: the table of what was tried.
//!
//! *In*: the project's folder. *Out*: a table, or one document; exit code 1 where any promise was broken.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::attack::{Defect, NOT_TRIED, Row, Verdict, all, ends};
use crate::failure::{Exit, Failure};
use crate::federation::source_root;
use crate::show;

#[derive(Debug, Args)]
pub(crate) struct Attack {
    /// Attack a mechanism that is broken on purpose in this way: to see that the attacks notice. Those that
    /// it opens are then broken, and the exit code is 1.
    #[arg(long)]
    defect: Option<Defect>,
    /// Attack only the moments at which rounds end, at several limits and with many people, and what
    /// researchers hear of them. Takes an hour. The one defect that can be planted is `no-delay`.
    #[arg(long)]
    ends: bool,
}

impl Attack {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let (root, say) = (source_root()?, |text: &str| eprintln!("{text}"));
        if self.ends && self.defect.is_some_and(|defect| defect != Defect::NoDelay) {
            return Err(Failure::input("defect-elsewhere", "with `--ends` only the defect `no-delay` can be planted"));
        }
        let rows = if self.ends { ends(&root, self.defect, &say)? } else { all(&root, self.defect, &say)? };
        let broken = rows.iter().filter(|row| row.verdict == Verdict::Broken).count();
        if json {
            println!("{}", json!({ "attacks": rows, "not_tried": NOT_TRIED }));
        } else {
            println!("{}", table(&rows));
            println!("not tried:\n  {}", NOT_TRIED.join("\n  "));
            println!("\n{} of {} attacks were held off", rows.len().saturating_sub(broken), rows.len());
        }
        if broken == 0 {
            return Ok(());
        }
        let names: Vec<&str> = rows.iter().filter(|row| row.verdict == Verdict::Broken).map(|row| row.name.as_str()).collect();
        if json {
            // The document is the table; a second one would spoil it.
            std::process::exit(Exit::Refused as i32);
        }
        let planted =
            if self.defect.is_some() { " (a defect was planted: that attacks see it is what this run is for)" } else { "" };
        Err(Failure::of(Exit::Refused, "promise-broken", format!("broken: {}{planted}", names.join("; "))))
    }
}

/// By channel, in the order in which channels first came.
fn table(rows: &[Row]) -> String {
    let mut order: Vec<&str> = Vec::new();
    let mut channels: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        if !channels.contains_key(row.channel) {
            order.push(row.channel);
        }
        channels.entry(row.channel).or_default().push(row);
    }
    let part = |channel: &&str| {
        let rows = channels.get(channel).into_iter().flatten().map(|row| {
            let verdict = if row.verdict == Verdict::Held { "held" } else { "BROKEN" };
            vec![row.name.clone(), row.unprotected.clone(), row.observed.clone(), verdict.to_owned()]
        });
        format!("{channel}\n{}\n", show::wrapped(&["attack", "without protection", "observed", ""], rows))
    };
    order.iter().map(part).collect::<Vec<_>>().join("\n")
}
