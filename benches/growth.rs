//! How time grows up to a national programme's size: `cargo speed -- growth FILE.svg`.

use super::row;
use super::scale::{Run, lay, threads};

/// How long whole jobs take as people and as variants become more: a table, and `file` as a drawing of it.
pub(super) fn growth(file: &str) {
    const STEPS: [u32; 5] = [1_000, 25_000, 50_000, 75_000, 100_000];
    const OTHER: u32 = 10_000;
    let of = |people: u32, variants: u32| {
        let laid = lay(people, variants, false);
        let median = |run: &dyn Fn() -> Run| {
            let mut seconds = [run().took.seconds, run().took.seconds, run().took.seconds];
            seconds.sort_by(f64::total_cmp);
            seconds[1]
        };
        let seconds = [median(&|| laid.frequency()), median(&|| laid.association(22))];
        row(&format!("{people} people x {variants} variants"), format!("{:.2} s, {:.2} s", seconds[0], seconds[1]));
        seconds
    };
    row("allele-frequency, linear-association", String::new());
    let panels = [
        ("people", "10,000 variants", STEPS.map(|people| of(people, OTHER))),
        ("variants", "10,000 people", STEPS.map(|variants| of(OTHER, variants))),
    ];
    draw(file, &STEPS, &panels);
}

fn draw(file: &str, steps: &[u32], panels: &[(&str, &str, [[f64; 2]; 5])]) {
    use plotters::prelude::*;
    // From where the command is given, which is not where a bench runs.
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let root = SVGBackend::new(&file, (900, 360)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    for (area, (what, other, seconds)) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        let top = seconds.iter().flatten().fold(0.0_f64, |top, seconds| top.max(*seconds)) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{other}, whole jobs on {} cores", threads()), ("sans-serif", 15))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(44)
            .build_cartesian_2d(0.0..f64::from(*steps.last().unwrap()) * 1.02, 0.0..top)
            .unwrap();
        chart
            .configure_mesh()
            .x_desc(*what)
            .y_desc("seconds")
            .x_labels(6)
            .x_label_formatter(&|count| format!("{:.0}k", count / 1e3))
            .y_labels(6)
            .light_line_style(TRANSPARENT)
            .draw()
            .unwrap();
        for (at, (name, colour)) in [("allele-frequency", BLUE), ("linear-association", RED)].into_iter().enumerate() {
            let points: Vec<(f64, f64)> =
                steps.iter().zip(seconds).map(|(step, seconds)| (f64::from(*step), seconds[at])).collect();
            let line = chart.draw_series(LineSeries::new(points.clone(), colour)).unwrap();
            line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled()))).unwrap();
        }
        chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).draw().unwrap();
    }
    root.present().unwrap();
}
