//! The contract as Rust types, generated from `wit/analysis.wit`.
//!
//! *In*: the WIT. *Out*: the contract's types and the export glue. *Trusts*: `wit-bindgen`. Every lint exception that generated
//! code needs is here and nowhere else.
#![allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "wit",
    world: "analysis",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "vestibule_sdk::bindings",
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
});

pub use vestibule::analysis::types;
