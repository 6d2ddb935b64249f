//! Turns the guests that [`slowest`](src/slowest.rs) measures with into their binary form, so that no
//! site parses text.

use std::path::Path;

fn main() {
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    for name in ["guest", "lists"] {
        let source = format!("src/slowest/{name}.wat");
        println!("cargo::rerun-if-changed={source}");
        let text = std::fs::read_to_string(&source).expect("it lies beside this file");
        let text = text
            .replace("LOADS", &format!("{}(local.get $at){}", "(i32.load ".repeat(128), ")".repeat(128)))
            .replace("MULTIPLIED", &"(local.set $x (f64.mul (local.get $x) (f64.const 0.999999)))".repeat(64));
        let bytes = wat::parse_str(text).expect("it is WebAssembly text");
        std::fs::write(Path::new(&out).join(format!("{name}.wasm")), bytes).expect("OUT_DIR can be written");
    }
}
