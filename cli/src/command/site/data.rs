//! `vestibule site ingest`, `withdraw` and `datasets`.

use std::path::Path;

use anyhow::Result;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vestibule_protocol::name::Name;
use vestibule_runtime::dataset::{self, Dataset, Importers, Same, ingest};
use vestibule_runtime::home::Home;
use vestibule_worker::Launch;

use super::{home, print};
use crate::failure::{Failure, coded};
use crate::files::read;
use crate::show;

pub(super) fn take_in(site: &Home, recipe: &Path, afresh: bool, json: bool) -> Result<()> {
    let text = read(recipe)?;
    let folder = recipe.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let source = Dir::open_ambient_dir(folder, ambient_authority())
        .map_err(|error| Failure::input("file-unreadable", format!("{}: {error}", folder.display())))?;
    let data = site.data().map_err(home)?;
    let style = ProgressStyle::with_template("{msg:40} {bar:30} {bytes}/{total_bytes} {eta}")?;
    let bar = ProgressBar::new(0).with_style(style);
    let mut progress = |progress: dataset::Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(progress.stage);
    };
    let importers = Importers::new(Launch::this_importer(), site.settings().require_walls);
    for gap in importers.gaps().map_err(|error| coded(error.code(), error))? {
        eprintln!("{gap}: the files are read with fewer walls around");
    }
    let same = if afresh { Same::ReadAgain } else { Same::TakeOver };
    let report = ingest((&source, &text), (&data, &site.store_key()), &importers, same, &mut progress);
    bar.finish_and_clear();
    let report = report.map_err(|error| coded(error.code(), format!("{}: {error}", recipe.display())))?;
    print(json, &serde_json::to_value(&report)?, &report.to_string());
    Ok(())
}

pub(super) fn withdraw(
    site: &Home,
    name: &Name,
    mut ids: Vec<String>,
    file: Option<&Path>,
    undo: bool,
    json: bool,
) -> Result<()> {
    if let Some(file) = file {
        ids.extend(read(file)?.lines().map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned));
    }
    let (data, key) = (site.data().map_err(home)?, site.store_key());
    let failed = |error: dataset::IngestError| coded(error.code(), error);
    if undo {
        let found = dataset::readmit(&data, name, &ids, &key).map_err(failed)?;
        let text = format!("{found} of {} are let in again: ingest the dataset once more", ids.len());
        print(json, &json!({ "readmitted": found }), &text);
        return Ok(());
    }
    let dataset::Withdrawal { listed, removed } = dataset::withdraw(&data, name, &ids, &key).map_err(failed)?;
    let text = format!(
        "{listed} of {} are newly left out, from the next job on and at every ingest; {removed} rows were removed from the file",
        ids.len()
    );
    print(json, &json!({ "listed": listed, "removed": removed }), &text);
    Ok(())
}

pub(super) fn datasets(site: &Home, json: bool) -> Result<()> {
    let data = site.data().map_err(home)?;
    let failed = |error: dataset::DatasetError| coded(error.code(), error);
    let mut found = Vec::new();
    for name in dataset::list(&data).map_err(failed)? {
        found.extend(Dataset::info_of(&data, &name).map_err(failed)?);
    }
    let places = found.iter().map(|info| Dataset::place_of(&data, &info.name).map(Option::unwrap_or_default));
    let places = places.collect::<Result<Vec<String>, _>>().map_err(failed)?;
    let documents = found.iter().zip(&places).map(|(info, place)| {
        let catalogues = info.catalogues.iter().map(|catalogue| {
            json!({ "name": catalogue.name, "digest": catalogue.digest, "build": catalogue.build, "variants": catalogue.variants.len() })
        });
        json!({ "name": info.name, "about": info.about, "approximate_size": info.approximate_size, "dictionary": info.dictionary.digest,
            "columns": info.dictionary.columns, "catalogues": catalogues.collect::<Vec<_>>(), "duo": info.duo, "conditions": info.conditions, "budget": info.budget, "rows": place })
    });
    let document = json!(documents.collect::<Vec<_>>());
    let rows = found.iter().zip(places).map(|(info, place)| {
        let catalogues: Vec<String> = info
            .catalogues
            .iter()
            .map(|catalogue| format!("{} ({} variants)", catalogue.name, catalogue.variants.len()))
            .collect();
        vec![info.name.to_string(), info.about.clone(), info.dictionary.columns.len().to_string(), catalogues.join(", "), place]
    });
    print(json, &document, &show::grid(&["dataset", "about", "columns", "catalogues", "rows"], rows));
    Ok(())
}
