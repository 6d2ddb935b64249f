//! How much of everything a component may have, counted before it is validated: what the validator, the compiler and the snapshot take
//! for it then has a bound.
//!
//! *In*: bytes. *Out*: nothing. *Refuses*: components of more modules, types, functions, segments or code than an analysis has; one that
//! is built to keep anyone who looks at it busy is turned away in milliseconds. Reads headers and counts only; no body, no constant.

use wasmparser::{ElementItems, Parser, Payload, Result};

use crate::analysis::LoadError;
use crate::engine::TABLE_ENTRIES;

/// Core modules: an encoded Rust guest has one to three.
const MODULES: u64 = 8;
/// Components within the component, and how deep they may lie in each other.
const COMPONENTS: u64 = 8;
const DEPTH: u64 = 4;
/// Bytes of all that the component says around its modules; and of its types, which are read by recursion: the contract's own take some 3 KiB.
const SHELL_BYTES: u64 = 64 << 10;
const TYPE_BYTES: u64 = 16 << 10;
/// Instances, imports and exports outside of modules: each is compared with a type that may be large.
const INSTANCES: u64 = 64;
const NAMES: u64 = 64;
/// Types of functions in modules, and how many values each takes and gives: at every branch they are compared.
const CORE_TYPES: u64 = 10_000;
const CORE_PARAMS: u64 = 256;
const CORE_RESULTS: u64 = 16;
/// Functions, and bytes of their code: an ordinary analysis has 1,000 in 500 KB.
const FUNCTIONS: u64 = 50_000;
const CODE_BYTES: u64 = 32 << 20;
/// Imports, exports, globals and data segments of modules.
const CORE_NAMES: u64 = 10_000;
const GLOBALS: u64 = 1_000;
const SEGMENTS: u64 = 10_000;
/// Entries of element segments: all that two full tables take.
const ELEMENTS: u64 = 2 * TABLE_ENTRIES as u64;

/// What was counted so far.
#[derive(Default)]
struct Count {
    modules: u64,
    components: u64,
    depth: u64,
    shell_bytes: u64,
    type_bytes: u64,
    instances: u64,
    names: u64,
    core_types: u64,
    core_params: u64,
    core_results: u64,
    functions: u64,
    code_bytes: u64,
    core_names: u64,
    globals: u64,
    segments: u64,
    elements: u64,
}

/// Whether a component is small enough to be looked at.
///
/// # Errors
/// [`LoadError::TooComplex`]; [`LoadError::NotComponent`] where not even its sections can be told apart.
pub(crate) fn check(component: &[u8]) -> Result<(), LoadError> {
    let not = |error: wasmparser::BinaryReaderError| LoadError::NotComponent { why: error.to_string() };
    let mut count = Count::default();
    for payload in Parser::new(0).parse_all(component) {
        count.add(&payload.map_err(not)?).map_err(not)?;
        count.within()?;
    }
    Ok(())
}

impl Count {
    fn add(&mut self, payload: &Payload<'_>) -> Result<()> {
        let more = |total: &mut u64, by: u64| *total = total.saturating_add(by);
        let bytes = |range: std::ops::Range<usize>| range.end.saturating_sub(range.start) as u64;
        let mut shell = |range: std::ops::Range<usize>| more(&mut self.shell_bytes, bytes(range));
        match payload {
            Payload::ModuleSection { .. } => {
                more(&mut self.modules, 1);
                more(&mut self.depth, 1);
            }
            Payload::ComponentSection { .. } => {
                more(&mut self.components, 1);
                more(&mut self.depth, 1);
            }
            Payload::End(_) => self.depth = self.depth.saturating_sub(1),
            Payload::ComponentTypeSection(section) => {
                shell(section.range());
                more(&mut self.type_bytes, bytes(section.range()));
            }
            Payload::CoreTypeSection(section) => {
                shell(section.range());
                more(&mut self.type_bytes, bytes(section.range()));
            }
            Payload::ComponentAliasSection(section) => shell(section.range()),
            Payload::ComponentCanonicalSection(section) => shell(section.range()),
            Payload::InstanceSection(section) => {
                shell(section.range());
                more(&mut self.instances, section.count().into());
            }
            Payload::ComponentInstanceSection(section) => {
                shell(section.range());
                more(&mut self.instances, section.count().into());
            }
            Payload::ComponentImportSection(section) => {
                shell(section.range());
                more(&mut self.names, section.count().into());
            }
            Payload::ComponentExportSection(section) => {
                shell(section.range());
                more(&mut self.names, section.count().into());
            }
            Payload::TypeSection(section) => {
                more(&mut self.core_types, section.count().into());
                self.signatures(section.clone())?;
            }
            Payload::ImportSection(section) => more(&mut self.core_names, section.count().into()),
            Payload::ExportSection(section) => more(&mut self.core_names, section.count().into()),
            Payload::FunctionSection(section) => more(&mut self.functions, section.count().into()),
            Payload::GlobalSection(section) => more(&mut self.globals, section.count().into()),
            Payload::DataSection(section) => more(&mut self.segments, section.count().into()),
            Payload::CodeSectionStart { size, .. } => more(&mut self.code_bytes, (*size).into()),
            Payload::ElementSection(section) => {
                more(&mut self.segments, section.count().into());
                self.entries(section.clone())?;
            }
            _ => {}
        }
        Ok(())
    }

    fn signatures(&mut self, section: wasmparser::TypeSectionReader<'_>) -> Result<()> {
        // Of more types than are allowed, none is read.
        for function in section.into_iter_err_on_gc_types().take(within(CORE_TYPES, self.core_types)) {
            let function = function?;
            self.core_params = self.core_params.max(function.params().len() as u64);
            self.core_results = self.core_results.max(function.results().len() as u64);
        }
        Ok(())
    }

    fn entries(&mut self, section: wasmparser::ElementSectionReader<'_>) -> Result<()> {
        for element in section.into_iter().take(within(SEGMENTS, self.segments)) {
            let items = match element?.items {
                ElementItems::Functions(items) => items.count(),
                ElementItems::Expressions(_, items) => items.count(),
            };
            self.elements = self.elements.saturating_add(items.into());
        }
        Ok(())
    }

    fn within(&self) -> Result<(), LoadError> {
        let limits = [
            ("core modules", self.modules, MODULES),
            ("components within it", self.components, COMPONENTS),
            ("layers of modules and components", self.depth, DEPTH),
            ("bytes around its modules", self.shell_bytes, SHELL_BYTES),
            ("bytes of types", self.type_bytes, TYPE_BYTES),
            ("instances", self.instances, INSTANCES),
            ("imports and exports", self.names, NAMES),
            ("types of core functions", self.core_types, CORE_TYPES),
            ("parameters of a core function", self.core_params, CORE_PARAMS),
            ("results of a core function", self.core_results, CORE_RESULTS),
            ("functions", self.functions, FUNCTIONS),
            ("bytes of code", self.code_bytes, CODE_BYTES),
            ("imports and exports of modules", self.core_names, CORE_NAMES),
            ("globals", self.globals, GLOBALS),
            ("segments", self.segments, SEGMENTS),
            ("entries of tables", self.elements, ELEMENTS),
        ];
        match limits.into_iter().find(|(_, found, most)| found > most) {
            Some((what, found, most)) => Err(LoadError::TooComplex { what, found, most }),
            None => Ok(()),
        }
    }
}

/// How many of a section's items are read: none where there are more than `most`.
fn within(most: u64, found: u64) -> usize {
    if found > most { 0 } else { usize::MAX }
}

#[cfg(test)]
mod tests;
