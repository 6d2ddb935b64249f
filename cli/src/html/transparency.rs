//! The transparency report as one HTML file that works offline, without a script.
//!
//! *In*: a report. *Out*: the page. Texts are researchers' and a site's, so all are escaped, and the page's policy forbids every load.

use std::fmt::Write as _;

use vestibule_runtime::log::{Proof, Report};

use super::{STYLE, escape, escape_lines};
use crate::files::rfc3339;

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut body = format!(
        "<h1>What was done with the data here</h1><p class=\"facts\">log {} · {} lines · proven by witnesses up to line {}</p>\
         <p class=\"summary\">Researchers send questions to the data; no data leave. What leaves are sums over everybody, with noise that hides each \
         single person. How much could ever be learnt about one person is counted, and limited, as epsilon. Every line here can be checked against \
         the log: its proof is beside it.</p>",
        escape(&report.log),
        report.leaves,
        report.proven
    );
    for account in &report.accounts {
        let _ = write!(
            body,
            "<p><b>{}</b>: epsilon {:.3} of {:.3} was spent, for good (delta {:e})</p>",
            escape(&account.population),
            account.spent_epsilon,
            account.cap_epsilon,
            account.delta
        );
    }
    for project in &report.projects {
        let charter = project.charter.to_string();
        let _ = write!(body, "<h2>{}</h2>", escape(project.title.as_deref().unwrap_or(&charter)));
        let _ = write!(
            body,
            "<p class=\"summary\">{}</p>",
            escape_lines(project.summary.as_deref().unwrap_or("The project's charter is no longer here."))
        );
        let _ = write!(
            body,
            "<p class=\"facts\">purpose {} · charter {}</p>",
            escape(&project.purpose.join(", ")),
            escape(&charter)
        );
        body.push_str("<table><thead><tr><th>when (UTC)</th><th>who</th><th>question</th><th>data</th><th>read</th><th>spent, rho</th><th>released</th><th>lines of the log</th></tr></thead><tbody>");
        for job in &project.jobs {
            let erased = || "(erased)".to_owned();
            let genotypes = job.catalogues.iter().flatten().map(|catalogue| format!("genotypes ({catalogue})"));
            let columns =
                job.columns.clone().map(|columns| columns.into_iter().chain(genotypes).collect::<Vec<_>>().join(", "));
            let columns = columns.unwrap_or_else(erased);
            let rho: f64 = job.rounds.iter().map(|round| round.rho).sum();
            let released: Vec<String> = job
                .rounds
                .iter()
                .flat_map(|round| &round.released)
                .map(|(name, numbers)| format!("{name} ({numbers} {})", if *numbers == 1 { "number" } else { "numbers" }))
                .collect();
            let released = if released.is_empty() { "nothing".to_owned() } else { released.join(", ") };
            let lines = job.rounds.iter().flat_map(|round| [Some(&round.charged), round.settled.as_ref()]);
            let proofs: String = [Some(&job.admitted)].into_iter().chain(lines).flatten().map(proof).collect();
            let _ = write!(
                body,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{rho:.6}</td><td>{}</td><td>{proofs}</td></tr>",
                rfc3339(job.admitted_ms).split('.').next().unwrap_or_default(),
                escape(&job.researcher.clone().unwrap_or_else(erased)),
                escape(job.title.as_deref().filter(|title| !title.is_empty()).unwrap_or(&job.job.to_string())),
                escape(&job.dataset),
                escape(&columns),
                escape(&released)
            );
        }
        body.push_str("</tbody></table>");
    }
    if !report.refused.is_empty() {
        body.push_str("<h2>Refused</h2><table><thead><tr><th>why</th><th>how often</th></tr></thead><tbody>");
        for (code, count) in &report.refused {
            let _ = write!(body, "<tr><td>{}</td><td>{count}</td></tr>", escape(code));
        }
        body.push_str("</tbody></table>");
    }
    if !report.decided.is_empty() {
        body.push_str("<h2>Decided by people</h2><table><thead><tr><th>what</th><th>how often</th></tr></thead><tbody>");
        for (what, count) in &report.decided {
            let _ = write!(body, "<tr><td>{}</td><td>{count}</td></tr>", escape(what));
        }
        body.push_str("</tbody></table>");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>What was done with the data here</title><style>{STYLE} details[open] {{ max-width: 60ch; overflow: auto }}</style></head>\n\
         <body>{body}</body></html>\n"
    )
}

/// A line of the log, with its proof to unfold.
fn proof(proof: &Proof) -> String {
    let text = proof.proof.as_deref().unwrap_or("The next checkpoint will prove this line.");
    format!(
        "<details><summary>{}</summary><pre>{}\n\n{}</pre></details>",
        proof.leaf,
        escape_lines(&proof.line),
        escape_lines(text)
    )
}
