//! A report as one HTML file that works offline: tables, and charts that Vega-Lite draws.
//!
//! *In*: a result. *Out*: the page. Everything of the report is a guest's, so none of it is trusted: texts are escaped, data lie in
//! JSON that is not script, the page's own policy forbids every load and `eval`, and the charts' loader refuses all addresses.

pub(crate) mod transparency;

use vestibule_coordinator::api::types::JobResult;
use vestibule_protocol::report::{Cells, Report, Table};

use crate::show;

const VEGA: &str = include_str!("../assets/vega.min.js");
const VEGA_LITE: &str = include_str!("../assets/vega-lite.min.js");
const INTERPRETER: &str = include_str!("../assets/vega-interpreter.min.js");
const DRAW: &str = include_str!("../assets/draw.js");
const STYLE: &str = include_str!("../assets/report.css");

/// Rows of a table that the page shows; the rest is in its data, for download.
const ROWS: usize = 500;

/// The page of a job's result.
pub(crate) fn page(result: &JobResult) -> String {
    let status = &result.status;
    let sites = status.sites.iter().map(|site| format!("<li>{} <span>{}</span></li>", escape(&site.site), escape(&site.state)));
    let title = if status.title.is_empty() { &status.job } else { &status.title };
    let facts = format!(
        "<p class=\"facts\">job {} · epsilon {} · delta {} · {} rounds</p><ul class=\"sites\">{}</ul>",
        escape(&status.job),
        status.epsilon,
        status.delta,
        status.rounds,
        sites.collect::<String>()
    );
    whole(title, &facts, &result.report)
}

fn whole(title: &str, facts: &str, report: &Report) -> String {
    let charts: String = report
        .charts
        .iter()
        .enumerate()
        .map(|(index, chart)| format!("<h2>{}</h2><div class=\"chart\" id=\"chart{index}\"></div>", escape(&chart.title)))
        .collect();
    let tables: String = report.tables.iter().map(table).collect();
    // In JSON `<` can only stand in a string, where it may be written as an escape: then no text can end the script element.
    let data = serde_json::to_string(report).unwrap_or_default().replace('<', "\\u003c");
    let scripts: String =
        [VEGA, VEGA_LITE, INTERPRETER, DRAW].iter().map(|script| format!("<script>{script}</script>\n")).collect();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:";
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n<body>\
         <h1>{title}</h1>{facts}<p class=\"summary\">{}</p>{charts}{tables}\
         <script type=\"application/json\" id=\"report\">{data}</script>\n{scripts}</body></html>\n",
        escape(&report.summary),
        title = escape(title),
    )
}

fn table(table: &Table) -> String {
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
        "<h2>{title} <button class=\"csv\" data-table=\"{title}\">CSV</button></h2><div class=\"scroll\"><table><thead><tr>{heads}</tr></thead>\
         <tbody>{body}</tbody></table></div>{more}"
    )
}

fn escape(text: &str) -> String {
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
mod tests {
    use super::*;
    use vestibule_protocol::report::{Chart, Column};

    #[test]
    fn nothing_of_a_guest_becomes_markup() {
        let evil = "</script><img src=x onerror=alert(1)>\"'";
        let columns = vec![Column { name: evil.into(), values: Cells::Texts(vec![evil.into()]) }];
        let report = Report {
            summary: evil.into(),
            tables: vec![Table { title: evil.into(), columns }],
            charts: vec![Chart { title: evil.into(), spec: format!("{{\"title\":{}}}", serde_json::to_string(evil).unwrap()) }],
        };
        let page = whole(evil, "", &report);
        assert!(!page.contains("<img"), "markup of a guest stands in the page");
        // Ours only: the data and four scripts.
        assert_eq!(page.matches("</script>").count(), 5);
    }
}
