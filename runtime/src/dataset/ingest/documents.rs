//! What lies beside the rows: public documents, the description with its seal, the report.

use std::io::Write as _;

use vestibule_importer::IngestReport;

use super::super::{InfoFile, catalogue_file};
use super::IngestError;
use super::record::{self, Record};
use super::rows::Making;

/// Writes everything beside the rows: public documents, the description with its seal, the report, and what was read, if anything was.
pub(super) fn write(making: &Making<'_>, report: &IngestReport, record: Option<Record>) -> Result<(), IngestError> {
    let Making { config, sources, dir, version, inputs, key, .. } = *making;
    let mut written = Vec::new();
    let mut put = |file: &str, bytes: &[u8]| -> Result<(), IngestError> {
        let write = || -> std::io::Result<_> {
            let mut out = dir.create(file)?;
            out.write_all(bytes)?;
            Ok(out)
        };
        written.push((file.to_owned(), write().map_err(|error| IngestError::io(file, &error))?));
        Ok(())
    };
    put("dictionary.toml", sources.dictionary_text.as_bytes())?;
    for (index, (bytes, _)) in sources.catalogues.iter().enumerate() {
        put(&catalogue_file(index), bytes)?;
    }
    let info = InfoFile {
        name: config.name.clone(),
        about: config.about.clone(),
        approximate_size: config.approximate_size,
        dictionary: sources.dictionary.digest,
        catalogues: sources.catalogues.iter().map(|(_, catalogue)| catalogue.digest).collect(),
        duo: config.duo.clone(),
        conditions: config.conditions.clone(),
        population: config.population.clone().unwrap_or_else(|| config.name.clone()),
        budget: config.budget,
        inputs: inputs.to_owned(),
    };
    let info = serde_json::to_vec_pretty(&info).expect("texts and numbers are always JSON");
    put("info.json", &info)?;
    put("seal", &key.seal(version, &info))?;
    let report = serde_json::to_vec(report).expect("texts and numbers are always JSON");
    put("report", &key.encrypt(version, &report).map_err(|why| IngestError::Io { what: "report".to_owned(), why })?)?;
    if let Some(record) = record {
        put(record::FILE, &record.sealed(key, version)?)?;
    }
    // All are on their way when the first is waited for, so that the others have less to wait.
    written.into_iter().try_for_each(|(file, out)| out.sync_all().map_err(|error| IngestError::io(&file, &error)))
}
