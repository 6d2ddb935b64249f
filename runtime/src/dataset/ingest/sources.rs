//! What an ingest reads: the recipe's files, found and checked before anything is written.
//!
//! *In*: the recipe and its folder. *Out*: [`Sources`]: the dictionary and the catalogues, and the variant files, with what each is known by.
//! *Refuses*: a pattern that matches no file, a catalogue on another build.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use cap_std::fs::Dir;
use vestibule_importer::{Config, ConfigError, beside};
use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::dictionary::Dictionary;

use super::marks::Known;
use super::{IngestError, Progress};

/// What is ingested, opened as far as it is small.
pub(super) struct Sources {
    pub(super) dictionary_text: String,
    pub(super) dictionary: Dictionary,
    pub(super) catalogues: Vec<(Vec<u8>, Arc<Catalogue>)>,
    pub(super) variant_files: Vec<String>,
    /// Bytes of all of them, and of those that belong to them.
    pub(super) variant_bytes: u64,
    /// What each is known by, with those that belong to it, once they are [identified](Self::identify).
    known: Vec<Vec<Known>>,
}

impl Sources {
    pub(super) fn open(source: &Dir, config: &Config) -> Result<Self, IngestError> {
        let io = |file: &str, error: std::io::Error| IngestError::Config(ConfigError(format!("{file}: {error}")));
        let dictionary_text = source.read_to_string(&config.dictionary).map_err(|error| io(&config.dictionary, error))?;
        let of = |file: &str, error: &dyn std::fmt::Display| IngestError::Config(ConfigError(format!("{file}: {error}")));
        let dictionary = Dictionary::parse(&dictionary_text).map_err(|error| of(&config.dictionary, &error))?;
        let mut catalogues = Vec::new();
        let (mut variant_files, mut variant_bytes) = (Vec::new(), 0_u64);
        if let Some(variants) = &config.variants {
            for file in &variants.catalogue {
                let bytes = source.read(file).map_err(|error| io(file, error))?;
                let catalogue = Catalogue::parse(&bytes).map_err(|error| of(file, &error))?;
                if catalogue.build != variants.build {
                    let why = format!(
                        "it is on {}, the variant files on {}: bring them to one build",
                        catalogue.build, variants.build
                    );
                    return Err(of(file, &why));
                }
                catalogues.push((bytes, Arc::new(catalogue)));
            }
            if catalogues.is_empty() {
                return Err(of("[variants]", &"`catalogue` names no file"));
            }
            variant_files = matching(source, &variants.files)?;
            for file in variant_files.iter().flat_map(|file| parts(file)) {
                let bytes = source.metadata(&file).map_err(|error| io(&file, error))?.len();
                variant_bytes = variant_bytes.saturating_add(bytes);
            }
        }
        Ok(Self { dictionary_text, dictionary, catalogues, variant_files, variant_bytes, known: vec![] })
    }

    /// SHA-256 of everything that is read, so that the same files are not ingested twice. Tables are read for it; variant files where they are not those that
    /// were known `before`. `now`: seconds since 1970.
    pub(super) fn identify(
        &mut self,
        source: &Dir,
        config_text: &str,
        (before, now): (&HashMap<&str, &Known>, i64),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, IngestError> {
        let config = Config::parse(config_text)?;
        let mut context = Context::new(&SHA256);
        // The first part is the version of the format: data of another one are ingested again.
        for part in [b"3".as_slice(), config_text.as_bytes(), self.dictionary_text.as_bytes()]
            .into_iter()
            .chain(self.catalogues.iter().map(|(bytes, _)| bytes.as_slice()))
        {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut known = |file: &str, before: Option<&Known>| {
            let mut read = |done, total| progress(Progress { stage: format!("checking {file}"), done, total });
            let known = Known::of(source, file, before, now, &mut read);
            known.map_err(|error| IngestError::Config(ConfigError(format!("{file}: {error}"))))
        };
        let mut all = Vec::new();
        for table in &config.table {
            all.push(known(&table.file, None)?);
        }
        for file in &self.variant_files {
            let of_file: Result<Vec<Known>, _> =
                parts(file).iter().map(|part| known(part, before.get(part.as_str()).copied())).collect();
            let of_file = of_file?;
            all.extend(of_file.iter().cloned());
            self.known.push(of_file);
        }
        for known in &all {
            context.update(&(known.name.len() as u64).to_be_bytes());
            context.update(known.name.as_bytes());
            context.update(&known.length.to_be_bytes());
            context.update(known.digest().map(<[u8; 32]>::as_slice).unwrap_or_default());
        }
        Ok(context.finish().as_ref().to_vec())
    }

    /// What a variant file is known by, and those that belong to it.
    pub(super) fn known(&self, number: usize) -> Option<&[Known]> {
        self.known.get(number).map(Vec::as_slice)
    }

    pub(super) fn catalogues(&self) -> Vec<Arc<Catalogue>> {
        self.catalogues.iter().map(|(_, catalogue)| Arc::clone(catalogue)).collect()
    }
}

/// A variant file, and those that belong to it.
fn parts(file: &str) -> Vec<String> {
    let mut parts = vec![file.to_owned()];
    if file.ends_with(".bed") {
        parts.extend([beside(file, "bim"), beside(file, "fam")]);
    }
    parts
}

/// The files of the source folder that match the patterns, each once, in order of their names.
fn matching(source: &Dir, patterns: &[String]) -> Result<Vec<String>, IngestError> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let before = found.len();
        if !pattern.contains('*') {
            found.insert(pattern.clone());
            continue;
        }
        for entry in source.entries().map_err(|error| IngestError::io("the source folder", &error))? {
            let entry = entry.map_err(|error| IngestError::io("the source folder", &error))?;
            if let Some(name) = entry.file_name().to_str().filter(|name| wildcard(pattern, name)) {
                found.insert(name.to_owned());
            }
        }
        if found.len() == before {
            return Err(ConfigError(format!("`[variants] files`: no file matches `{pattern}`")).into());
        }
    }
    Ok(found.into_iter().collect())
}

/// Whether `name` matches `pattern`, in which `*` stands for any text.
fn wildcard(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            let mut starts = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
            starts.any(|at| tail.get(at..).is_some_and(|tail| wildcard(rest, tail)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::wildcard;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, want) in [
            ("*.vcf.gz", "a.vcf.gz", true),
            ("*.vcf.gz", "a.vcf.gz.tbi", false),
            ("chr*.bcf", "chr20.bcf", true),
            ("chr*.bcf", "20.bcf", false),
            ("a*b*c", "axxbyyc", true),
            ("*", "", true),
            ("a", "b", false),
        ] {
            assert_eq!(wildcard(pattern, name), want, "{pattern} {name}");
        }
    }
}
