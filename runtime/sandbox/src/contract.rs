//! Whether a component's type is an analysis': looked at before anything of it is compiled, so that nothing is compiled that could never be called.
//!
//! *In*: the types that the validator found. *Out*: nothing. *Refuses*: a function of the contract that is missing, or whose parameters or
//! result differ from `wit/analysis.wit`, with the place where they do. The comparison follows the contract's types, not the component's: it
//! takes as long whatever the component declares.

use wasmparser::PrimitiveValType as Primitive;
use wasmparser::component_types::{ComponentDefinedType, ComponentEntityType, ComponentFuncType, ComponentValType};
use wasmparser::types::TypesRef;

use crate::analysis::LoadError;

/// A type of the contract.
#[derive(Debug, PartialEq)]
enum Type {
    Is(Primitive),
    List(&'static Self),
    Option(&'static Self),
    Tuple(&'static [Self]),
    Record(&'static [(&'static str, Self)]),
    Variant(&'static [(&'static str, Option<Self>)]),
    Result(Option<&'static Self>, Option<&'static Self>),
}

use Type::{Is, List, Record, Tuple, Variant};

const F64: Type = Is(Primitive::F64);
const U8: Type = Is(Primitive::U8);
const U32: Type = Is(Primitive::U32);
const U64: Type = Is(Primitive::U64);
const BOOL: Type = Is(Primitive::Bool);
const STRING: Type = Is(Primitive::String);
const BYTES: Type = List(&U8);
const RANGE: Type = Tuple(&[F64, F64]);

const PARTITIONING: Type = Variant(&[("each", None), ("blocks", Some(U32))]);
const VARIANT_SLICE: Type = Record(&[("catalogue", STRING), ("contig", STRING), ("start", U64), ("end", U64)]);
const PLAN: Type = Record(&[
    ("columns", List(&STRING)),
    ("variants", List(&VARIANT_SLICE)),
    ("partitioning", PARTITIONING),
    ("max-rounds", U32),
]);

const BOUND: Type = Variant(&[
    ("range", Some(RANGE)),
    ("one-cell", None),
    ("l2", Some(F64)),
    ("l1", Some(F64)),
    ("top", Some(Tuple(&[U32, F64, F64]))),
]);
const GENOTYPE_SUMS: Type = Record(&[("factors", U32), ("scores", List(&Is(Primitive::S16)))]);
const SOURCE: Type = Variant(&[("given", None), ("genotypes", Some(GENOTYPE_SUMS))]);
const STATISTIC: Type = Record(&[("name", STRING), ("length", U32), ("bound", BOUND), ("weight", F64), ("source", SOURCE)]);
const ROUND: Type = Record(&[("statistics", List(&STATISTIC)), ("budget-share", F64), ("state", BYTES), ("dosages", BOOL)]);

const VARIANT: Type = Record(&[
    ("contig", STRING),
    ("position", U64),
    ("reference", STRING),
    ("alternate", STRING),
    ("frequency", Type::Option(&F64)),
]);
const KIND: Type = Variant(&[("number", Some(RANGE)), ("levels", Some(List(&STRING))), ("flag", None), ("day", None)]);
const COLUMN_INFO: Type = Record(&[("name", STRING), ("kind", KIND), ("unit", STRING)]);
const SHAPE: Type = Record(&[("variants", List(&VARIANT)), ("columns", List(&COLUMN_INFO))]);

const VALUE: Type = Variant(&[
    ("missing", None),
    ("number", Some(F64)),
    ("level", Some(U32)),
    ("flag", Some(BOOL)),
    ("day", Some(Is(Primitive::S32))),
]);
const INDIVIDUAL: Type = Record(&[("values", List(&VALUE)), ("dosages", BYTES)]);
const CONTRIBUTION: Type = Variant(&[
    ("none", None),
    ("cell", Some(U32)),
    ("bytes", Some(BYTES)),
    ("integers", Some(List(&Is(Primitive::S64)))),
    ("reals", Some(List(&F64))),
]);

const RELEASED: Type = Record(&[("name", STRING), ("values", List(&F64)), ("noise-sd", F64), ("sites", U32)]);
const CELLS: Type = Variant(&[("numbers", Some(List(&F64))), ("texts", Some(List(&STRING)))]);
const COLUMN: Type = Record(&[("name", STRING), ("values", CELLS)]);
const TABLE: Type = Record(&[("title", STRING), ("columns", List(&COLUMN))]);
const CHART: Type = Record(&[("title", STRING), ("spec", STRING)]);
const REPORT: Type = Record(&[("summary", STRING), ("tables", List(&TABLE)), ("charts", List(&CHART))]);
const STEP: Type = Variant(&[("round", Some(ROUND)), ("report", Some(REPORT))]);

/// What a component must export: name, parameters, result.
type Function = (&'static str, &'static [Type], Type);

const FUNCTIONS: [Function; 4] = [
    ("plan", &[STRING], Type::Result(Some(&PLAN), Some(&STRING))),
    ("next", &[STRING, SHAPE, List(&List(&RELEASED))], Type::Result(Some(&STEP), Some(&STRING))),
    ("prepare", &[BYTES], Type::Result(None, Some(&STRING))),
    ("contribute", &[List(&INDIVIDUAL)], List(&CONTRIBUTION)),
];

/// Whether a component of these types is an analysis.
///
/// # Errors
/// [`LoadError::NotAnalysis`].
pub(crate) fn check(types: TypesRef<'_>) -> Result<(), LoadError> {
    let not = |why: String| LoadError::NotAnalysis { why };
    for (name, params, result) in &FUNCTIONS {
        let item = types.component_item_for_export(name).map(|item| item.ty);
        let id = if let Some(ComponentEntityType::Func(id)) = item { Some(id) } else { None };
        let Some(found) = id.and_then(|id| types.get(id)) else {
            return Err(not(format!("it does not export the function `{name}`")));
        };
        if let Err(place) = function(types, found, params, result) {
            return Err(not(format!("`{name}` has another type than wit/analysis.wit says: {place}")));
        }
    }
    Ok(())
}

/// Where a function differs, in words.
fn function(types: TypesRef<'_>, found: &ComponentFuncType, params: &[Type], result: &Type) -> Result<(), String> {
    if found.async_ {
        return Err("it is async".to_owned());
    }
    if found.params.len() != params.len() {
        return Err(format!("it has {} parameters, not {}", found.params.len(), params.len()));
    }
    for (number, ((_, found), want)) in (1_usize..).zip(found.params.iter().zip(params)) {
        same(types, *found, want).map_err(|path| format!("parameter {number}{path}"))?;
    }
    let found = found.result.ok_or("it has no result")?;
    same(types, found, result).map_err(|path| format!("the result{path}"))
}

/// Where a type differs: the path to it.
fn same(types: TypesRef<'_>, found: ComponentValType, want: &Type) -> Result<(), String> {
    let here = || Err(String::new());
    let found = match found {
        ComponentValType::Primitive(primitive) => return if *want == Is(primitive) { Ok(()) } else { here() },
        ComponentValType::Type(id) => match types.get(id) {
            Some(found) => found,
            None => return here(),
        },
    };
    let named = |name: &str| format!(", `{name}`");
    match (found, want) {
        (ComponentDefinedType::Primitive(found), Is(want)) if found == want => Ok(()),
        (ComponentDefinedType::List { element, .. }, List(want)) => {
            same(types, *element, want).map_err(|path| format!(", an element{path}"))
        }
        (ComponentDefinedType::Option { ty, .. }, Type::Option(want)) => same(types, *ty, want),
        (ComponentDefinedType::Tuple(found), Tuple(want)) if found.types.len() == want.len() => {
            found.types.iter().zip(*want).try_for_each(|(found, want)| same(types, *found, want))
        }
        (ComponentDefinedType::Record(found), Record(want)) if found.fields.len() == want.len() => {
            found.fields.iter().zip(*want).try_for_each(|((found, ty), (name, want))| {
                if found.as_str() == *name { same(types, *ty, want) } else { here() }.map_err(|path| named(name) + &path)
            })
        }
        (ComponentDefinedType::Variant(found), Variant(want)) if found.cases.len() == want.len() => {
            found.cases.iter().zip(*want).try_for_each(|((found, case), (name, want))| {
                let same = found.as_str() == *name;
                if same { both(types, case.ty, want.as_ref()) } else { here() }.map_err(|path| named(name) + &path)
            })
        }
        (ComponentDefinedType::Result { ok, err, .. }, Type::Result(want_ok, want_err)) => {
            both(types, *ok, *want_ok).and_then(|()| both(types, *err, *want_err))
        }
        _ => here(),
    }
}

fn both(types: TypesRef<'_>, found: Option<ComponentValType>, want: Option<&Type>) -> Result<(), String> {
    match (found, want) {
        (None, None) => Ok(()),
        (Some(found), Some(want)) => same(types, found, want),
        _ => Err(String::new()),
    }
}

#[cfg(test)]
mod tests;
