//! Tables on a terminal: a report's own, and lists of things.
//!
//! *In*: a report; rows. *Out*: text, in which others' words stay in their place: each field on one line, each line of a text marked. Numbers get the
//! digits that mean something; long tables are cut, and say so.

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};
use vestibule_coordinator::api::types::JobStatus;
use vestibule_protocol::report::{Cells, Report, Table};
use vestibule_protocol::words::line;
use vestibule_runtime::home::Settings;

/// Rows of a table that a terminal shows.
const ROWS: usize = 20;

/// A list with heads.
pub(crate) fn grid(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heads.iter().copied());
    grid.add_rows(rows.into_iter().map(cells));
    grid.to_string()
}

/// A list with heads, whose cells are broken into lines that fit the terminal.
pub(crate) fn wrapped(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(heads.iter().copied());
    if grid.width().is_none() {
        grid.set_width(150);
    }
    grid.add_rows(rows.into_iter().map(cells));
    grid.to_string()
}

/// Cells are one line each, no matter whose words they are.
fn cells(row: Vec<String>) -> Vec<String> {
    row.iter().map(|cell| line(cell).into_owned()).collect()
}

/// A text of somebody's, in lines of which none passes for ours.
pub(crate) fn quoted(text: &str) -> String {
    text.trim().lines().map(|one| format!("│ {}", line(one))).collect::<Vec<_>>().join("\n")
}

/// A time, as people say it.
pub(crate) fn span(time: std::time::Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 120.0 { format!("{seconds:.1} s") } else { indicatif::HumanDuration(time).to_string() }
}

/// How long a delay can be that is so long in the middle, and whether sites take that.
pub(crate) fn at_most(expected: std::time::Duration) -> String {
    let latest = vestibule_runtime::delay::Delay::latest_of(expected);
    let most = std::time::Duration::from_secs(Settings::default().max_release_delay_seconds.into());
    if latest > most {
        format!(
            ", {} at most: TOO LONG for any site that has not raised `max_release_delay_seconds` above {}; ask for less \
             fuel or memory, or more epsilon",
            span(latest),
            most.as_secs()
        )
    } else {
        format!(", {} at most", span(latest))
    }
}

/// A number with the digits that mean something.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "-".to_owned()
    } else if value == value.trunc() && size < 1e12 {
        format!("{value}")
    } else if (0.001..1e6).contains(&size) {
        let digits = if size < 0.1 {
            5
        } else if size < 10.0 {
            4
        } else if size < 1000.0 {
            2
        } else {
            1
        };
        format!("{value:.digits$}")
    } else {
        format!("{value:.3e}")
    }
}

fn table(table: &Table) -> String {
    let mut grid = Grid::new();
    grid.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    grid.set_header(table.columns.iter().map(|column| line(&column.name).into_owned()));
    let rows = table.columns.first().map_or(0, |column| column.values.len());
    for row in 0..rows.min(ROWS) {
        grid.add_row(table.columns.iter().map(|column| match &column.values {
            Cells::Numbers(values) => values.get(row).map(|value| number(*value)).unwrap_or_default(),
            Cells::Texts(values) => values.get(row).map(|text| line(text).into_owned()).unwrap_or_default(),
        }));
    }
    for (index, column) in table.columns.iter().enumerate() {
        if let (Cells::Numbers(_), Some(column)) = (&column.values, grid.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let more = rows.saturating_sub(ROWS);
    let more = if more > 0 { format!("\n  ... {more} more rows: use --json or --html") } else { String::new() };
    format!("{}\n{grid}{more}", quoted(&line(&table.title)))
}

/// A report as text.
pub(crate) fn report(report: &Report) -> String {
    let mut parts = vec![quoted(&report.summary)];
    parts.extend(report.tables.iter().map(table));
    parts.join("\n\n")
}

/// One line for a job, and one for each of its sites that is out.
pub(crate) fn status(status: &JobStatus) -> String {
    let mut lines = vec![format!(
        "{}  {}  round {} of at most {}  epsilon {}  {}",
        line(&status.job),
        line(&status.state),
        status.rounds,
        status.max_rounds,
        status.epsilon,
        line(&status.title)
    )];
    for site in &status.sites {
        let reason = site.reason.as_ref().map(|reason| format!(": {} ({})", line(&reason.message), line(&reason.code)));
        lines.push(format!("  {:20} {}{}", line(&site.site), line(&site.state), reason.unwrap_or_default()));
    }
    if let Some(error) = &status.error {
        lines.push(format!("  {} ({})", line(&error.message), line(&error.code)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{grid, number, quoted};
    use vestibule_coordinator::api::types::{ApiError, JobSite, JobStatus};

    #[test]
    fn numbers_keep_the_digits_that_mean_something() {
        for (value, want) in [
            (0.0, "0"),
            (3.0, "3"),
            (0.123_456, "0.1235"),
            (0.012_345_6, "0.01235"),
            (12.345_6, "12.35"),
            (123_456.78, "123456.8"),
            (1e-9, "1.000e-9"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(number(value), want);
        }
    }

    #[test]
    fn a_delay_is_too_long_where_its_longest_is_more_than_sites_take() {
        let seconds = std::time::Duration::from_secs;
        assert_eq!(super::at_most(seconds(10)), ", 15.0 s at most");
        // Half as long again as 600 s is what they take, and as 601 s is not.
        assert!(!super::at_most(seconds(600)).contains("TOO LONG"));
        assert!(super::at_most(seconds(601)).contains("TOO LONG") && super::at_most(seconds(601)).contains("above 900"));
    }

    #[test]
    fn no_field_makes_a_line_of_its_own() {
        let evil = "x\n  pune    finished\u{1b}[2J".to_owned();
        let error = Some(ApiError { code: evil.clone(), message: evil.clone() });
        let site = JobSite { site: evil.clone(), state: evil.clone(), reason: error.clone() };
        let status = JobStatus {
            job: evil.clone(),
            title: evil.clone(),
            state: evil.clone(),
            rounds: 1,
            max_rounds: 1,
            submitted: 0,
            epsilon: 1.0,
            delta: 0.0,
            sites: vec![site],
            error,
        };
        let shown = super::status(&status);
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(shown.lines().all(vestibule_protocol::words::is_plain), "{shown}");
        assert_eq!(grid(&["a"], [vec![evil.clone()]]).lines().count(), 2);
        assert_eq!(quoted("one\r\ntwo"), "│ one\n│ two");
        assert!(quoted(&evil).lines().all(|line| line.starts_with("│ ")));
    }
}
