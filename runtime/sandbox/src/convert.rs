//! Between the contract's types and the protocol's.
//!
//! *In*: what a component returned, or what it is to be shown. *Out*: the same in the other's types; steps are checked on the way.

use vestibule_protocol::catalogue::{Variant, VariantSlice};
use vestibule_protocol::dictionary::{Column, Kind};
use vestibule_protocol::release::Released;
use vestibule_protocol::report::{Cells, Chart, Column as TableColumn, Report, Table};
use vestibule_protocol::round::{Bound, Partitioning, Plan, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::{GenotypeSums, Source};

use crate::analysis::Step;
use crate::bindings::vestibule::analysis::types as wit;

pub(crate) fn plan(plan: wit::Plan) -> Plan {
    let slice = |slice: wit::VariantSlice| VariantSlice {
        catalogue: slice.catalogue,
        contig: slice.contig,
        start: slice.start,
        end: slice.end,
    };
    Plan {
        columns: plan.columns,
        variants: plan.variants.into_iter().map(slice).collect(),
        partitioning: match plan.partitioning {
            wit::Partitioning::Each => Partitioning::Each,
            wit::Partitioning::Blocks(blocks) => Partitioning::Blocks(blocks),
        },
        max_rounds: plan.max_rounds,
    }
}

pub(crate) fn step(step: wit::Step) -> Result<Step, String> {
    match step {
        wit::Step::Round(round) => Round::check(request(round)).map(Step::Round).map_err(|error| error.to_string()),
        wit::Step::Report(found) => report(found).checked().map(Step::Report).map_err(|error| error.to_string()),
    }
}

fn request(round: wit::Round) -> RoundRequest {
    let statistic = |statistic: wit::Statistic| Statistic {
        name: statistic.name,
        length: statistic.length,
        bound: match statistic.bound {
            wit::Bound::Range((lower, upper)) => Bound::Range { lower, upper },
            wit::Bound::OneCell => Bound::OneCell,
            wit::Bound::L2(radius) => Bound::L2 { radius },
            wit::Bound::L1(radius) => Bound::L1 { radius },
            wit::Bound::Top((k, lower, upper)) => Bound::Top { k, lower, upper },
        },
        weight: statistic.weight,
        source: match statistic.source {
            wit::Source::Given => Source::Given,
            wit::Source::Genotypes(sums) => {
                Source::Genotypes(GenotypeSums { factors: sums.factors, scores: sums.scores.into() })
            }
        },
    };
    let statistics = round.statistics.into_iter().map(statistic).collect();
    RoundRequest { statistics, budget_share: round.budget_share, state: round.state, dosages: round.dosages }
}

fn report(report: wit::Report) -> Report {
    let column = |column: wit::Column| TableColumn {
        name: column.name,
        values: match column.values {
            wit::Cells::Numbers(values) => Cells::Numbers(values),
            wit::Cells::Texts(values) => Cells::Texts(values),
        },
    };
    let table = |table: wit::Table| Table { title: table.title, columns: table.columns.into_iter().map(column).collect() };
    let chart = |chart: wit::Chart| Chart { title: chart.title, spec: chart.spec };
    Report {
        summary: report.summary,
        tables: report.tables.into_iter().map(table).collect(),
        charts: report.charts.into_iter().map(chart).collect(),
    }
}

/// Columns as the contract shows them; holds the borrowed level names.
pub(crate) struct Columns<'a> {
    columns: &'a [Column],
    levels: Vec<Vec<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(columns: &'a [Column]) -> Self {
        let levels = |column: &'a Column| match &column.kind {
            Kind::Levels(levels) => levels.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        Self { columns, levels: columns.iter().map(levels).collect() }
    }

    pub(crate) fn infos(&self) -> Vec<wit::ColumnInfo<'_>> {
        fn info<'b>((column, levels): (&'b Column, &'b Vec<&'b str>)) -> wit::ColumnInfo<'b> {
            wit::ColumnInfo {
                name: column.name.as_str(),
                unit: &column.unit,
                kind: match column.kind {
                    Kind::Number { lower, upper } => wit::Kind::Number((lower, upper)),
                    Kind::Levels(_) => wit::Kind::Levels(levels),
                    Kind::Flag => wit::Kind::Flag,
                    Kind::Day => wit::Kind::Day,
                },
            }
        }
        self.columns.iter().zip(&self.levels).map(info).collect()
    }
}

pub(crate) fn variant(variant: &Variant) -> wit::Variant<'_> {
    wit::Variant {
        contig: &variant.contig,
        position: variant.position,
        reference: &variant.reference,
        alternate: &variant.alternate,
        frequency: variant.frequency,
    }
}

pub(crate) fn released(released: &Released) -> wit::Released<'_> {
    wit::Released { name: &released.name, values: &released.values, noise_sd: released.noise_sd, sites: released.sites }
}

pub(crate) const fn shape<'a>(variants: &'a [wit::Variant<'a>], columns: &'a [wit::ColumnInfo<'a>]) -> wit::Shape<'a> {
    wit::Shape { variants, columns }
}
