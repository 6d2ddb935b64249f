//! Leaves out of a baked component what only `plan`, `next` and `prepare` call, which it never runs: most of an analysis, and most of the time
//! that compiling it for one round would take.
//!
//! *In*: a component. *Out*: one whose `contribute` does the same, and in which a function that nothing else can reach traps. What can be reached
//! is what exports, tables and calls from there name; tables do not change (see [`crate::bake`]). *Refuses*: nothing: a component of several
//! modules, or of a kind that is not foreseen, stays as it is.

use std::collections::BTreeSet;

use wasm_encoder::{CodeSection, Function, Module, RawSection, SectionId};
use wasmparser::{
    BinaryReaderError, ConstExpr, ElementItems, ExternalKind, FunctionBody, Operator, Parser, Payload, Result, TypeRef,
};

use crate::module::rewritten;

/// Exports of the core module that no instance of a baked component is called by.
const UNUSED: [&str; 6] = ["plan", "next", "prepare", "cabi_post_plan", "cabi_post_next", "cabi_post_prepare"];

pub(crate) fn prune(component: Vec<u8>) -> Vec<u8> {
    rewritten(&component, module).ok().flatten().unwrap_or(component)
}

/// The module, with nothing in the bodies that cannot be reached.
fn module(bytes: &[u8]) -> Result<Vec<u8>> {
    let (mut imported, mut roots, mut bodies) = (0_u32, BTreeSet::new(), vec![]);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    imported = imported.saturating_add(u32::from(matches!(import?.ty, TypeRef::Func(_))));
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    if export.kind == ExternalKind::Func && !UNUSED.contains(&export.name) {
                        roots.insert(export.index);
                    }
                }
            }
            Payload::StartSection { func, .. } => drop(roots.insert(func)),
            Payload::GlobalSection(globals) => {
                for global in globals {
                    named(&global?.init_expr, &mut roots)?;
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    if let wasmparser::TableInit::Expr(expression) = table?.init {
                        named(&expression, &mut roots)?;
                    }
                }
            }
            Payload::ElementSection(elements) => {
                for element in elements {
                    match element?.items {
                        ElementItems::Functions(functions) => {
                            for function in functions {
                                roots.insert(function?);
                            }
                        }
                        ElementItems::Expressions(_, expressions) => {
                            for expression in expressions {
                                named(&expression?, &mut roots)?;
                            }
                        }
                    }
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body),
            _ => {}
        }
    }
    let reached = reached(imported, roots, &bodies)?;
    let mut out = Module::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        if matches!(payload, Payload::CodeSectionStart { .. }) {
            out.section(&code(imported, &reached, &bodies, bytes));
        } else if let Some((id, range)) = payload.as_section().filter(|(id, _)| *id != SectionId::Code as u8) {
            out.section(&RawSection { id, data: bytes.get(range).unwrap_or_default() });
        }
    }
    Ok(out.finish())
}

fn code(imported: u32, reached: &BTreeSet<u32>, bodies: &[FunctionBody<'_>], bytes: &[u8]) -> CodeSection {
    let mut code = CodeSection::new();
    for (function, body) in (imported..).zip(bodies) {
        if reached.contains(&function) {
            code.raw(bytes.get(body.range()).unwrap_or_default());
        } else {
            let mut trap = Function::new([]);
            trap.instructions().unreachable().end();
            code.function(&trap);
        }
    }
    code
}

/// The roots, and all that they call, directly or not.
fn reached(imported: u32, roots: BTreeSet<u32>, bodies: &[FunctionBody<'_>]) -> Result<BTreeSet<u32>> {
    let (mut reached, mut open) = (BTreeSet::new(), Vec::from_iter(roots));
    while let Some(function) = open.pop() {
        if !reached.insert(function) {
            continue;
        }
        let place = function.checked_sub(imported).and_then(|place| usize::try_from(place).ok());
        let Some(body) = place.and_then(|place| bodies.get(place)) else { continue };
        for operator in body.get_operators_reader()? {
            if let Operator::Call { function_index }
            | Operator::ReturnCall { function_index }
            | Operator::RefFunc { function_index } = operator?
            {
                open.push(function_index);
            }
        }
    }
    Ok(reached)
}

/// Functions that a constant names.
fn named(expression: &ConstExpr<'_>, roots: &mut BTreeSet<u32>) -> Result<(), BinaryReaderError> {
    for operator in expression.get_operators_reader() {
        if let Operator::RefFunc { function_index } = operator? {
            roots.insert(function_index);
        }
    }
    Ok(())
}
