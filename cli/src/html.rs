//! A report as one HTML file that works offline: tables, and charts that Vega-Lite draws.
//!
//! *In*: what was proven of a result, and its report. *Out*: the page. *Trusts*: nothing of the report, which is a guest's. Texts are escaped, data lie in
//! JSON that is not script, the page's own policy names its two scripts by their digests and forbids every load and `eval`. Each chart is drawn in a
//! sandboxed frame without an origin, which reaches nothing of the page; so the page's own lines, which come from signed and proven documents alone,
//! say what they say.

pub(crate) mod transparency;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::manifest::Manifest;
use vestibule_protocol::name::Name;
use vestibule_protocol::report::{Cells, Report, Table};
use vestibule_protocol::words::{json, line};

use crate::show;

const VEGA: &str = include_str!("../assets/vega.min.js");
const VEGA_LITE: &str = include_str!("../assets/vega-lite.min.js");
const INTERPRETER: &str = include_str!("../assets/vega-interpreter.min.js");
const FRAME: &str = include_str!("../assets/frame.js");
const DRAW: &str = include_str!("../assets/draw.js");
const STYLE: &str = include_str!("../assets/report.css");

/// Rows of a table that the page shows; the rest is in its data, for download.
const ROWS: usize = 500;

/// What a page says of a result in its own words.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// As the researcher signed it.
    pub(crate) manifest: Manifest,
    /// Rounds that were computed again.
    pub(crate) rounds: u32,
    /// Sites that were asked, and how many releases of each are proven.
    pub(crate) sites: Vec<(Name, usize)>,
}

/// The page of a job's result.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn page(facts: &Facts, report: &Report) -> String {
    let Facts { manifest, rounds, sites } = facts;
    let sites = sites.iter().map(|(site, releases)| match releases {
        0 => format!("<li>{site} <span>no proven release</span></li>"),
        releases => format!("<li>{site} <span>{releases} proven</span></li>"),
    });
    let job = manifest.job.to_string();
    let title = if manifest.title.is_empty() { &job } else { manifest.title.as_str() };
    let (epsilon, delta) = (manifest.epsilon_micro as f64 / 1e6, manifest.delta_femto as f64 / 1e15);
    let facts = format!(
        "<p class=\"facts\">job {job} · epsilon {epsilon} · delta {delta:e} · {rounds} rounds</p><ul class=\"sites\">{}</ul>",
        sites.collect::<String>()
    );
    whole(title, &facts, report)
}

fn whole(title: &str, facts: &str, report: &Report) -> String {
    let charts: String = report
        .charts
        .iter()
        .enumerate()
        .map(|(index, chart)| format!("<h2>{}</h2><div class=\"chart\" id=\"chart{index}\"></div>", escape(&chart.title)))
        .collect();
    let tables: String = report.tables.iter().enumerate().map(table).collect();
    // In JSON `<` can only stand in a string, where it may be written as an escape: then no text can end the script element.
    let data = serde_json::to_string(report).unwrap_or_default();
    let data = json(&data).replace('<', "\\u003c");
    let library = [VEGA, VEGA_LITE, INTERPRETER, FRAME].join("\n");
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src '{}' '{}'; base-uri 'none'; form-action 'none'",
        digest(DRAW),
        digest(&library)
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n<body>\
         <h1>{title}</h1>{facts}<p class=\"facts\">What follows is the analysis' own words and drawings.</p>\
         <p class=\"summary\">{}</p>{charts}{tables}\
         <script type=\"application/json\" id=\"report\">{data}</script>\n\
         <script type=\"text/plain\" id=\"library\">{library}</script>\n<script>{DRAW}</script></body></html>\n",
        escape_lines(&report.summary),
        title = escape(title),
    )
}

/// How a policy names a script.
fn digest(script: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Digest::of(script.as_bytes()).as_bytes()))
}

fn table((index, table): (usize, &Table)) -> String {
    let rows = table.columns.first().map_or(0, |column| column.values.len());
    let heads: String = table.columns.iter().map(|column| format!("<th>{}</th>", escape(&column.name))).collect();
    let cell = |cells: &Cells, row: usize| match cells {
        Cells::Numbers(values) => {
            format!("<td class=\"n\">{}</td>", values.get(row).map(|value| show::number(*value)).unwrap_or_default())
        }
        Cells::Texts(values) => format!("<td>{}</td>", values.get(row).map(|text| escape(text)).unwrap_or_default()),
    };
    let body: String = (0..rows.min(ROWS))
        .map(|row| format!("<tr>{}</tr>", table.columns.iter().map(|column| cell(&column.values, row)).collect::<String>()))
        .collect();
    let more = rows.saturating_sub(ROWS);
    let more = if more > 0 {
        format!("<p class=\"facts\">{more} more rows are in the file's data: download the table</p>")
    } else {
        String::new()
    };
    let title = escape(&table.title);
    format!(
        "<h2>{title} <button class=\"csv\" data-table=\"{index}\">CSV</button></h2><div class=\"scroll\"><table><thead><tr>{heads}</tr></thead>\
         <tbody>{body}</tbody></table></div>{more}"
    )
}

/// One line of others' words.
fn escape(text: &str) -> String {
    markup(&line(text))
}

/// Lines of others' words.
fn escape_lines(text: &str) -> String {
    markup(&text.split('\n').map(line).collect::<Vec<Cow<'_, str>>>().join("\n"))
}

fn markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests;
