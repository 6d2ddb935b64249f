//! A hostile guest, and the component that it becomes.
//!
//! *In*: what it does to one individual, as WebAssembly text. *Out*: a component of the analysis
//! world, whose `contribute` does that where the first dosage says so, and next to nothing else.

use vestibule_protocol::job::Limits;

/// What the first dosage says.
pub(crate) const ORDINARY: u8 = 0;
pub(crate) const HOSTILE: u8 = 1;

/// What is hostile of a component.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guest {
    /// Further fields of the module.
    pub fields: String,
    /// Locals and instructions of `$work`, which has no parameter and no result.
    pub work: String,
    /// What `prepare` does: it becomes part of the state.
    pub prepare: String,
    /// Leaves a pointer to what is handed over in the end; nothing: a cell.
    pub answer: String,
    /// Pages of 64 KiB to begin with; none: all that the limit allows.
    pub pages: Option<u64>,
    /// Entries of the sums, at least one.
    pub entries: u64,
    /// Somebody hostile is among those whom the round is rehearsed with.
    pub rehearsed: bool,
}

const FRAME: &str = r#"(module
  (memory (export "memory") PAGES)
  (global $next (mut i32) (i32.const 1024))
  FIELDS
  (func $work WORK)
  (func $answer (result i32) ANSWER)
  (func $cell (result i32)
    (i32.store (i32.const 4096) (i32.const 4104))
    (i32.store (i32.const 4100) (i32.const 1))
    (i32.store8 (i32.const 4104) (i32.const 1))
    (i32.store (i32.const 4108) (i32.const 0))
    (i32.store8 (i32.const 8192) (i32.const 7))
    (i32.const 4096))
  (func (export "contribute") (param $list i32) (param $count i32) (result i32)
    ;; An individual: values (pointer, count), dosages (pointer, count).
    (if (result i32) (i32.load8_u (i32.load (i32.add (local.get $list) (i32.const 8))))
      (then (call $work) (call $answer))
      (else (call $cell))))
  (func (export "cabi_post_contribute") (param i32))
  (func (export "prepare") (param i32 i32) (result i32)
    PREPARE
    (i32.store8 (i32.const 512) (i32.const 0)) (i32.const 512))
  (func (export "cabi_post_prepare") (param i32))
  (func (export "plan") (param i32 i32) (result i32) unreachable)
  (func (export "cabi_post_plan") (param i32))
  (func (export "next") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "cabi_post_next") (param i32))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at)))"#;

impl Guest {
    /// The component, for a job of such limits.
    pub(crate) fn component(&self, limits: Limits) -> Vec<u8> {
        let all = u64::from(limits.memory_mib) * 16;
        let answer = if self.answer.is_empty() { "(call $cell)" } else { &self.answer };
        let text = FRAME
            .replace("PAGES", &self.pages.unwrap_or(all).min(all).to_string())
            .replace("PREPARE", &self.prepare)
            .replace("ANSWER", answer)
            .replace("WORK", &self.work)
            .replace("FIELDS", &self.fields);
        encoded(wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}: {}", &text[..text.len().min(4_000)])))
    }
}

/// A core module as a component of the analysis world.
pub(crate) fn encoded(mut module: Vec<u8>) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let wit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve.select_world(&[package], Some("analysis")).unwrap();
    let coding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, coding, false).unwrap();
    wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}
