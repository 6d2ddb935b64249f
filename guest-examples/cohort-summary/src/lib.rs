//! Cohort summary: how many people, and of each column its mean, variance and distribution.

use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Dictionary columns: numbers, levels or flags.
    pub columns: Vec<String>,
    /// Histogram bins of a number column; 10 unless said.
    pub bins: Option<u32>,
}

pub struct CohortSummary;

impl Analysis for CohortSummary {
    type Params = Params;
    type State = ();

    fn plan(params: &Params) -> Result<Plan> {
        if params.columns.is_empty() {
            return Err("params: `columns` is empty, name at least one column".into());
        }
        Ok(Plan::new().columns(&params.columns))
    }

    fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step> {
        let Some(done) = history.last() else {
            let mut round = Round::new().count("people");
            for column in &shape.columns {
                let name = &column.name;
                round = match &column.kind {
                    Kind::Number(_) => round.moments(format!("{name} moments")).histogram(name, params.bins.unwrap_or(10)),
                    Kind::Levels(_) | Kind::Flag => round.histogram(name, column.categories().len() as u32),
                    Kind::Day => return Err(format!("params: `columns`: `{name}` holds days, which are not summarised").into()),
                };
            }
            return Ok(round.into());
        };
        let people = done.value("people")?;
        let mut report = Report::new(format!("About {people} people."));
        let (mut names, mut moments) = (Vec::new(), [const { Vec::new() }; 4]);
        for column in &shape.columns {
            let (name, mut labels) = (&column.name, column.categories());
            if let Kind::Number(_) = column.kind {
                let [n, mean, variance] = Estimate::moments(column, &done.values(&format!("{name} moments"))?)?;
                names.push(column.to_string());
                // The mean's error as an estimate of the population's: noise, and who happened to be there.
                let sampled = mean.with_error((variance.value / n.value.max(1.0)).sqrt());
                [n, mean, sampled, variance].into_iter().zip(&mut moments).for_each(|(value, list)| list.push(value));
                labels = Bins::of(column, params.bins.unwrap_or(10))?.labels();
            }
            let table = Table::new(name).texts("value", labels).estimates("people", &done.values(name)?);
            report = report.table(table).chart(Chart::bars(column.to_string(), name, "value", "people").error_bars());
        }
        if !names.is_empty() {
            let [n, mean, sampled, variance] = moments;
            let table = Table::new("Numbers").texts("column", names).estimates("people", &n).estimates("mean", &mean);
            let table = table.numbers("mean se", sampled.iter().map(|mean| mean.sd)).estimates("variance", &variance);
            report = report.table(table).chart(Chart::dots("Means", "Numbers", "column", "mean").error_bars());
        }
        Ok(report.into())
    }

    fn contribute(params: &Params, _: &(), individual: &Individual, out: &mut Contributions) {
        out.add("people", 1.0);
        for name in &params.columns {
            let number = matches!(individual.column(name).kind, Kind::Number(_));
            let cell = if number { individual.bin(name, params.bins.unwrap_or(10)) } else { individual.category(name) };
            let Some(cell) = cell else { continue };
            out.cell(name, cell);
            if let Some(moments) = number.then(|| individual.moments(name)).flatten() {
                out.vector(&format!("{name} moments"), &moments);
            }
        }
    }
}

vestibule_sdk::analysis!(CohortSummary);
