//! Each limit, obeyed and broken; and that what breaks one is refused before anybody works for it.

use std::time::{Duration, Instant};

use super::*;

fn many(count: u64, text: &str) -> String {
    text.repeat(usize::try_from(count).unwrap())
}

fn checked(text: &str) -> Result<(), LoadError> {
    check(&wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")))
}

/// With `most` parts it passes, and with one more it is refused for that reason.
fn limit(what: &str, most: u64, text: impl Fn(u64) -> String) {
    assert_eq!(checked(&text(most)), Ok(()), "{what}");
    let found = checked(&text(most + 1)).unwrap_err();
    let LoadError::TooComplex { what: named, most: said, .. } = &found else { panic!("{what}: {found}") };
    assert_eq!((*named, *said, found.code()), (what, most, "component-too-complex"));
}

fn module(parts: &str) -> String {
    format!("(component (core module {parts}))")
}

#[test]
fn every_limit_is_obeyed_and_broken() {
    limit("core modules", MODULES, |n| format!("(component {})", many(n, "(core module)")));
    limit("components within it", COMPONENTS, |n| format!("(component {})", many(n, "(component)")));
    limit("layers of modules and components", DEPTH, |n| format!("(component {}{})", many(n, "(component "), many(n, ")")));
    limit("instances", INSTANCES, |n| format!("(component (core module $m) {})", many(n, "(core instance (instantiate $m))")));
    limit("imports and exports", NAMES, |n| {
        format!("(component {})", (0..n).map(|n| format!("(import \"i{n}\" (func))")).collect::<String>())
    });
    // Each takes a byte for its form, one for its head and two for a name of one letter and its length, and more for a type.
    limit("types of core functions", CORE_TYPES, |n| module(&many(n, "(type (func))")));
    limit("parameters of a core function", CORE_PARAMS, |n| module(&format!("(type (func (param {})))", many(n, "i32 "))));
    limit("results of a core function", CORE_RESULTS, |n| module(&format!("(type (func (result {})))", many(n, "i32 "))));
    limit("functions", FUNCTIONS, |n| module(&many(n, "(func)")));
    limit("globals", GLOBALS, |n| module(&many(n, "(global i32 i32.const 0)")));
    limit("segments", SEGMENTS, |n| module(&format!("(memory 1) {}", many(n, "(data \"\")"))));
    limit("imports and exports of modules", CORE_NAMES, |n| {
        module(&(0..n).map(|n| format!("(export \"{n}\" (func 0))")).collect::<String>().replacen(
            "(export",
            "(func) (export",
            1,
        ))
    });
    limit("entries of tables", ELEMENTS, |n| {
        let half = n / 2;
        module(&format!("(func) (elem func {}) (elem func {})", many(half, "0 "), many(n - half, "0 ")))
    });
    // Two of the limits are bytes, of which a part is what tells one from the other.
    let types = |n: u64| format!("(component {})", many(n, "(type (list u8))"));
    assert_eq!(checked(&types(5_000)), Ok(()));
    assert!(matches!(checked(&types(9_000)), Err(LoadError::TooComplex { what: "bytes of types", .. })));
    let named = |n: usize| format!("(component (import \"{}\" (func)))", "a".repeat(n));
    assert_eq!(checked(&named(65_000)), Ok(()));
    assert!(matches!(checked(&named(66_000)), Err(LoadError::TooComplex { what: "bytes around its modules", .. })));
    let code = |n: u64| module(&format!("(func {})", many(n, "nop ")));
    assert_eq!(checked(&code(1_000_000)), Ok(()));
}

/// Types of 20,000 layers, each of the one before, as bytes: a reader that follows them runs out of stack.
fn nested_types(layers: usize) -> Vec<u8> {
    let mut section = vec![1];
    section.extend([0x41, 0x01, 0x01].repeat(layers));
    section.extend([0x41, 0x00]);
    let mut bytes = b"\0asm\x0d\0\x01\0\x07".to_vec();
    let mut length = section.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    [bytes, section].concat()
}

#[test]
fn what_is_built_to_keep_a_reader_busy_is_turned_away_in_milliseconds() {
    let nested = nested_types(1 << 20);
    // A record of 9,000 fields, and 6,000 functions that take it: 20 MB that a validator would go through.
    let wide: String = (0..9_000).map(|n| format!("(field \"f{n}\" string)")).collect();
    let wide =
        wat::parse_str(format!("(component (type $t (record {wide})) {})", many(6_000, "(type (func (param \"p\" $t)))")))
            .unwrap();
    let functions = wat::parse_str(module(&many(400_000, "(func)"))).unwrap();
    for (what, component) in [("nested types", nested), ("wide types", wide), ("many functions", functions)] {
        let begun = Instant::now();
        let found = crate::inspect(&component).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(found.code(), "component-too-complex", "{what}: {found}");
        assert!(took < Duration::from_millis(250), "{what}: {took:?}");
    }
}
