//! The contract's types are those of `wit/analysis.wit`; what differs from them anywhere is refused, and says where.

use wit_parser::{Resolve, Type as Wit, TypeDefKind, WorldItem, WorldKey};

use super::*;
use crate::inspect;

/// A type of the contract, as `wit_parser` reads it, in the words of `say`.
fn read(resolve: &Resolve, ty: &Wit) -> String {
    let of = |ty: &Option<Wit>| ty.as_ref().map_or("_".to_owned(), |ty| read(resolve, ty));
    match ty {
        Wit::Id(id) => match &resolve.types[*id].kind {
            TypeDefKind::Type(ty) => read(resolve, ty),
            TypeDefKind::List(ty) => format!("list<{}>", read(resolve, ty)),
            TypeDefKind::Option(ty) => format!("option<{}>", read(resolve, ty)),
            TypeDefKind::Result(result) => format!("result<{}, {}>", of(&result.ok), of(&result.err)),
            TypeDefKind::Tuple(tuple) => {
                format!("({})", tuple.types.iter().map(|ty| read(resolve, ty)).collect::<Vec<_>>().join(", "))
            }
            TypeDefKind::Record(record) => {
                let fields = record.fields.iter().map(|field| format!("{}: {}", field.name, read(resolve, &field.ty)));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
            }
            TypeDefKind::Variant(variant) => {
                let cases = variant.cases.iter().map(|case| format!("{}: {}", case.name, of(&case.ty)));
                format!("<{}>", cases.collect::<Vec<_>>().join(", "))
            }
            other => panic!("not in the contract: {other:?}"),
        },
        primitive => format!("{primitive:?}"),
    }
}

fn say(ty: &Type) -> String {
    let of = |ty: Option<&Type>| ty.map_or("_".to_owned(), say);
    match ty {
        Is(primitive) => format!("{primitive:?}"),
        List(ty) => format!("list<{}>", say(ty)),
        Type::Option(ty) => format!("option<{}>", say(ty)),
        Type::Result(ok, err) => format!("result<{}, {}>", of(*ok), of(*err)),
        Tuple(types) => format!("({})", types.iter().map(say).collect::<Vec<_>>().join(", ")),
        Record(fields) => {
            let fields = fields.iter().map(|(name, ty)| format!("{name}: {}", say(ty)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Variant(cases) => {
            let cases = cases.iter().map(|(name, ty)| format!("{name}: {}", of(ty.as_ref())));
            format!("<{}>", cases.collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn the_contract_is_what_the_wit_says() {
    let mut resolve = Resolve::default();
    let text = include_str!("../../../../wit/analysis.wit");
    let package = resolve.push_str("analysis.wit", text).unwrap();
    let world = &resolve.worlds[resolve.select_world(&[package], Some("analysis")).unwrap()];
    let exports: Vec<_> = world
        .exports
        .iter()
        .filter_map(|(key, item)| match (key, item) {
            (WorldKey::Name(name), WorldItem::Function(function)) => Some((name.clone(), function)),
            _ => None,
        })
        .collect();
    assert_eq!((world.exports.len(), exports.len()), (FUNCTIONS.len(), FUNCTIONS.len()));
    for (name, params, result) in &FUNCTIONS {
        let (_, function) = exports.iter().find(|(export, _)| export == name).unwrap();
        let found: Vec<_> = function.params.iter().map(|param| read(&resolve, &param.ty)).collect();
        assert_eq!(found, params.iter().map(say).collect::<Vec<_>>(), "{name}");
        assert_eq!(read(&resolve, function.result.as_ref().unwrap()), say(result), "{name}");
    }
}

/// A component's text that exports functions of these types; what they do, they were never asked.
fn component(plan: &str, prepare: &str) -> Vec<u8> {
    let exported = |name: &str, ty: &str| {
        format!(
            "(func ${name} {ty} (canon lift (core func $i \"{name}\") (memory (core memory $i \"m\")) (realloc (core func $i \"r\"))))
             (export \"{name}\" (func ${name}))"
        )
    };
    let text = format!(
        "(component
           (core module $m
             (memory (export \"m\") 1)
             (func (export \"r\") (param i32 i32 i32 i32) (result i32) i32.const 0)
             (func (export \"plan\") (param i32 i32) (result i32) i32.const 0)
             (func (export \"prepare\") (param i32 i32) (result i32) i32.const 0))
           (core instance $i (instantiate $m))
           {} {})",
        exported("plan", plan),
        exported("prepare", prepare)
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn why(component: &[u8]) -> String {
    let error = inspect(component).unwrap_err();
    assert_eq!(error.code(), "component-not-analysis", "{error}");
    error.to_string()
}

#[test]
fn what_differs_is_refused_and_named() {
    let list = "(param \"p\" (list u8)) (result (result (error string)))";
    // `plan` gives a number.
    let number = component("(param \"p\" string) (result (result u32 (error string)))", list);
    assert!(why(&number).contains("`plan` has another type than wit/analysis.wit says: the result"), "{}", why(&number));
    // `plan` takes bytes.
    let bytes = component("(param \"p\" (list u8)) (result (result u32 (error string)))", list);
    assert!(why(&bytes).contains("`plan` has another type than wit/analysis.wit says: parameter 1"), "{}", why(&bytes));
    for (text, says) in [
        ("(component)", "does not export the function `plan`"),
        ("(component (core module $m) (export \"plan\" (core module $m)))", "does not export the function `plan`"),
    ] {
        let why = why(&wat::parse_str(text).unwrap());
        assert!(why.contains(says), "{why}");
    }
}
