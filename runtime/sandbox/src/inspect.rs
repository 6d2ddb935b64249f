//! Looks at a component without compiling any of it: what it exports, and whether it imports a function.
//!
//! *In*: bytes. *Out*: [`Inspection`]. *Refuses*, in this order, so that what is refused costs little: a component of more parts than an
//! analysis has ([`crate::bounds`]); what is no valid component of the proposals we run; one whose type is not an analysis'
//! ([`crate::contract`]), before its functions' bodies are looked at. A component may import
//! instances that hold types only (the contract's own `types`); whatever else it asks for is listed as a function import, and
//! [`crate::Sandbox::load`] refuses it.

use serde::Serialize;
use vestibule_protocol::digest::Digest;
use wasmparser::component_types::{ComponentEntityType, ComponentInstanceTypeId};
use wasmparser::types::Types;
use wasmparser::{
    Encoding, FuncToValidate, FuncValidatorAllocations, FunctionBody, Parser, Payload, ValidPayload, Validator,
    ValidatorResources, WasmFeatures,
};

use crate::analysis::LoadError;
use crate::meter::metered;
use crate::{bake, bounds, contract};

/// What a component is, from its own type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub bytes: usize,
    /// Names of its exports.
    pub exports: Vec<String>,
    /// Functions (or anything that can do something) that it asks for. Empty for every component that is accepted.
    pub imports: Vec<String>,
    /// Instances that it asks for and that hold types only.
    pub type_imports: Vec<String>,
}

/// The proposals that a component may use: the same that the engine is set up with.
const FEATURES: WasmFeatures = WasmFeatures::WASM1
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::MUTABLE_GLOBAL)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// Looks at a component.
///
/// # Errors
/// [`LoadError::TooComplex`], [`LoadError::NotComponent`]; [`LoadError::NotAnalysis`], [`LoadError::Unmetered`]
/// or [`LoadError::Unbakeable`] where it imports no function, which would be worse.
pub fn inspect(component: &[u8]) -> Result<Inspection, LoadError> {
    let found = look(component)?;
    if found.imports.is_empty() {
        bake::instrument(&metered(component)?)?;
    }
    Ok(found)
}

/// What it is, whether it can run here or not.
pub(crate) fn look(component: &[u8]) -> Result<Inspection, LoadError> {
    let not = |why: String| LoadError::NotComponent { why };
    bounds::check(component)?;
    let (types, functions) = declared(component).map_err(|error| not(error.to_string()))?;
    let mut found = Inspection {
        digest: Digest::of(component),
        bytes: component.len(),
        exports: vec![],
        imports: vec![],
        type_imports: vec![],
    };
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| not(error.to_string()))? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(not("it is a core module: encode it as a component, with `vestibule analysis build`".to_owned()));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth = depth.saturating_add(1),
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import.map_err(|error| not(error.to_string()))?.name.name.to_owned();
                    found.import(&types, name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(export.map_err(|error| not(error.to_string()))?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    if found.imports.is_empty() {
        contract::check(types.as_ref())?;
    }
    bodies(functions).map_err(|error| not(error.to_string()))?;
    Ok(found)
}

/// A function whose body is still to be validated.
type Body<'a> = (FuncToValidate<ValidatorResources>, FunctionBody<'a>);

/// Validates all but the functions' bodies.
fn declared(component: &[u8]) -> wasmparser::Result<(Types, Vec<Body<'_>>)> {
    let (mut validator, mut parser) = (Validator::new_with_features(FEATURES), Parser::new(0));
    parser.set_features(FEATURES);
    let (mut functions, mut types) = (vec![], None);
    for payload in parser.parse_all(component) {
        match validator.payload(&payload?)? {
            ValidPayload::Func(function, body) => functions.push((function, body)),
            // The last is that of the outermost component.
            ValidPayload::End(found) => types = Some(found),
            ValidPayload::Ok | ValidPayload::Parser(_) => {}
        }
    }
    Ok((types.expect("a component that was parsed to its end has types"), functions))
}

fn bodies(functions: Vec<Body<'_>>) -> wasmparser::Result<()> {
    let mut allocations = FuncValidatorAllocations::default();
    for (function, body) in functions {
        let mut validator = function.into_validator(allocations);
        validator.validate(&body)?;
        allocations = validator.into_allocations();
    }
    Ok(())
}

impl Inspection {
    fn import(&mut self, types: &Types, name: String) {
        let before = self.imports.len();
        match types.as_ref().component_item_for_import(&name).map(|item| item.ty) {
            Some(ComponentEntityType::Instance(id)) => self.instance(types, id, &name),
            Some(ComponentEntityType::Type { .. }) => {}
            // A function, a value, a module, a component, or something this parser does not know.
            _ => self.imports.push(name.clone()),
        }
        if self.imports.len() == before {
            self.type_imports.push(name);
        }
    }

    fn instance(&mut self, types: &Types, id: ComponentInstanceTypeId, path: &str) {
        let Some(instance) = types.as_ref().get(id) else {
            self.imports.push(path.to_owned());
            return;
        };
        for (name, item) in &instance.exports {
            let path = format!("{path}#{name}");
            match item.ty {
                ComponentEntityType::Instance(id) => self.instance(types, id, &path),
                ComponentEntityType::Type { referenced, .. } if !is_resource(referenced) => {}
                _ => self.imports.push(path),
            }
        }
    }
}

/// A resource type is a handle to something of the host: not a plain type.
const fn is_resource(ty: wasmparser::component_types::ComponentAnyTypeId) -> bool {
    matches!(ty, wasmparser::component_types::ComponentAnyTypeId::Resource(_))
}
