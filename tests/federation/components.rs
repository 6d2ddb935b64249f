//! Components that are refused, and compiled code that is not trusted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Limits;
use vestibule_sandbox::{CodeCache, CodeStore, Sandbox, Settings};

use crate::world::{World, component, root, run};

const CLOCK: &str = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func)))))"#;

#[test]
fn a_component_that_imports_a_function_is_refused_everywhere_and_the_import_named() {
    let world = World::new(&[]);
    let bytes = wat::parse_str(CLOCK).unwrap();
    std::fs::write(world.dir().join("clock.wasm"), &bytes).unwrap();
    // `inspect`
    let output = run(world.dir(), &["--json", "analysis", "inspect", "clock.wasm"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(document["imports"], serde_json::json!(["wasi:clocks/wall-clock@0.2.0#now"]));
    // The coordinator.
    let (status, document) = world.document("ada", "PUT", &format!("/v1/components/{}", Digest::of(&bytes)), &bytes);
    assert_eq!((status, &document["code"]), (422, &"component-imports".into()), "{document}");
    assert!(document["message"].as_str().unwrap().contains("wall-clock@0.2.0#now"), "{document}");
    // What every site loads components with.
    let error = Sandbox::new(Settings::default()).unwrap().load(&bytes).unwrap_err();
    assert_eq!(error.code(), "component-imports");
    // A function of the component's own, a core module, and rubbish.
    let bare = Sandbox::new(Settings::default()).unwrap();
    for (text, code) in [
        (r#"(component (import "f" (func)))"#, "component-imports"),
        (r#"(component (import "m" (core module)))"#, "component-imports"),
        ("(component)", "component-not-analysis"),
        ("(module)", "component-unreadable"),
    ] {
        assert_eq!(bare.load(&wat::parse_str(text).unwrap()).unwrap_err().code(), code, "{text}");
    }
}

/// A store that anybody may write to, with a count of what this host put in.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Kept>>);

type Kept = (HashMap<String, Vec<u8>>, usize);

impl CodeStore for Shelf {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().0.get(name).cloned()
    }
    fn put(&self, name: &str, sealed: &[u8]) {
        let mut shelf = self.0.lock().unwrap();
        shelf.0.insert(name.to_owned(), sealed.to_vec());
        shelf.1 += 1;
    }
}

#[test]
fn compiled_code_is_used_again_only_if_this_host_sealed_it() {
    let wasm = std::fs::read(component("cohort-summary")).unwrap();
    let shelf = Shelf::default();
    let load = |key: u8| {
        let cache = Some(CodeCache::new(Box::new(shelf.clone()), &[key; 32]).into());
        let sandbox = Sandbox::new(Settings { cache, ..Settings::default() }).unwrap();
        let plan = sandbox.load(&wasm).unwrap().plan(r#"{"columns":["age"]}"#, Limits::default()).unwrap();
        assert_eq!(plan.columns, ["age"]);
        shelf.0.lock().unwrap().1
    };
    assert_eq!(load(1), 1, "compiled and kept");
    assert_eq!(load(1), 1, "used again");
    // One changed bit anywhere: compiled again, never loaded.
    let length = shelf.0.lock().unwrap().0.values().next().unwrap().len();
    for (compiled, at) in (2..).zip([0, 31, 32, length / 2, length - 1]) {
        shelf.0.lock().unwrap().0.values_mut().for_each(|sealed| sealed[at] ^= 1);
        assert_eq!(load(1), compiled, "byte {at}");
    }
    // Cut short, empty, and sealed by another host.
    shelf.0.lock().unwrap().0.values_mut().for_each(|sealed| sealed.truncate(40));
    assert_eq!(load(1), 7);
    shelf.0.lock().unwrap().0.values_mut().for_each(Vec::clear);
    assert_eq!(load(1), 8);
    assert_eq!(load(2), 9);
}

/// A component of the same code whose types are another contract's.
fn by_contract(wit: &str) -> Vec<u8> {
    let mut module = wat::parse_str(include_str!("isolation.wat")).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("analysis.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("analysis")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8, false).unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Anything else, however deep it lies, is found without compiling: the engine would find it after that.
#[test]
fn a_component_of_another_contract_is_refused_before_it_is_compiled_and_says_where() {
    let wit = std::fs::read_to_string(root().join("wit/analysis.wit")).unwrap();
    assert!(vestibule_sandbox::inspect(&by_contract(&wit)).is_ok());
    for (was, is, says) in [
        ("max-rounds: u32", "max-rounds: u16", "`plan` has another type than wit/analysis.wit says: the result, `max-rounds`"),
        ("max-rounds: u32", "most-rounds: u32", "the result, `max-rounds`"),
        (
            "budget-share: f64",
            "budget-share: f32",
            "`next` has another type than wit/analysis.wit says: the result, `round`, `budget-share`",
        ),
        ("scores: list<s16>", "scores: list<u16>", "`statistics`, an element, `source`, `genotypes`, `scores`, an element"),
        ("tuple<u32, f64, f64>", "tuple<u32, f64, f64, f64>", "`bound`, `top`"),
        ("frequency: option<f64>", "frequency: f64", "parameter 2, `variants`, an element, `frequency`"),
        ("noise-sd: f64", "noise-sd: f64, more: bool", "parameter 3, an element, an element"),
        (
            "level(u32),",
            "level,",
            "`contribute` has another type than wit/analysis.wit says: parameter 1, an element, `values`, an element, `level`",
        ),
        (
            "reals(list<f64>),",
            "reals(list<f64>), words(list<string>),",
            "`contribute` has another type than wit/analysis.wit says: the result",
        ),
        (
            "export prepare: func(state: list<u8>)",
            "export prepare: func(state: string)",
            "`prepare` has another type than wit/analysis.wit says: parameter 1",
        ),
    ] {
        assert!(wit.contains(was), "{was}");
        let component = by_contract(&wit.replacen(was, is, 1));
        let begun = std::time::Instant::now();
        let error = vestibule_sandbox::inspect(&component).unwrap_err();
        let took = begun.elapsed();
        assert_eq!(error.code(), "component-not-analysis", "{error}");
        assert!(error.to_string().contains(says), "{is}: {error}");
        assert!(took < std::time::Duration::from_millis(100), "{took:?}");
        assert_eq!(Sandbox::new(Settings::default()).unwrap().load(&component).unwrap_err(), error);
    }
}
