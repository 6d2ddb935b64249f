//! Modules that wasm-smith makes up, which `contribute` calls all functions of.
//!
//! *In*: a seed's dice, a job's limits. *Out*: a component of the analysis world. Its parts are
//! random and valid; the functions that a worker needs are put behind them.

use arbitrary::Unstructured;
use vestibule_protocol::job::Limits;
use wasm_encoder::{BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection};
use wasm_encoder::{Instruction, MemArg, Module, RawSection, SectionId, TypeSection, ValType};
use wasmparser::{FuncType, Parser, Payload};

use crate::dice::Dice;
use crate::guest::encoded;

/// Bytes that a module is made up from.
const BYTES: u64 = 30_000;

/// A component, if these bytes become one.
pub(crate) fn component(dice: &mut Dice, limits: Limits) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = (0..dice.within(BYTES / 20, BYTES)).map(|_| dice.word() as u8).collect();
    let config = wasm_smith::Config {
        max_imports: 0,
        min_funcs: 1,
        max_funcs: dice.within(1, 60) as usize,
        max_instructions: dice.size(50, 3_000) as usize,
        min_memories: 1,
        max_memory32_bytes: u64::from(limits.memory_mib) << 20,
        memory_max_size_required: true,
        allow_start_export: false,
        // What the engine does not let in, or what cannot be baked.
        // Values that are left over go to globals, and none of these can be baked.
        simd_enabled: false,
        reference_types_enabled: false,
        bulk_memory_enabled: false,
        tail_call_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        multi_value_enabled: true,
        // Most go on until their fuel is gone.
        disallow_traps: !dice.chance(4),
        ..wasm_smith::Config::default()
    };
    let module = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)).ok()?;
    with_frame(&module.to_bytes(), dice).map(encoded)
}

/// The module's own parts, as far as they are added to.
#[derive(Default)]
struct Parts {
    types: Vec<FuncType>,
    functions: Vec<u32>,
}

/// Puts an analysis' functions behind those of a module; of one that has some.
fn with_frame(bytes: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let mut parts = Parts::default();
    let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    let mut rest = vec![];
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.unwrap();
        match &payload {
            Payload::TypeSection(section) => {
                parts.types = section.clone().into_iter_err_on_gc_types().collect::<Result<_, _>>().unwrap();
            }
            Payload::FunctionSection(section) => {
                parts.functions = section.clone().into_iter().collect::<Result<_, _>>().unwrap();
            }
            Payload::CodeSectionEntry(body) => {
                code.raw(&bytes[body.range()]);
            }
            other => rest.extend(other.as_section()),
        }
    }
    if parts.functions.is_empty() {
        return None;
    }
    for ty in &parts.types {
        types.ty().function(ty.params().iter().copied().map(value), ty.results().iter().copied().map(value));
    }
    parts.functions.iter().for_each(|ty| _ = functions.function(*ty));
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    for (name, params, results, body) in frame(&parts, dice) {
        exports.export(name, ExportKind::Func, functions.len());
        functions.function(types.len());
        types.ty().function(vec![ValType::I32; params], vec![ValType::I32; results]);
        code.function(&body);
    }
    let mut module = Module::new();
    let before = |module: &mut Module, ids: &[SectionId]| {
        for (id, range) in rest.iter().filter(|(id, _)| ids.iter().any(|wanted| *wanted as u8 == *id)) {
            module.section(&RawSection { id: *id, data: &bytes[range.clone()] });
        }
    };
    module.section(&types).section(&functions);
    before(&mut module, &[SectionId::Table, SectionId::Memory, SectionId::Global]);
    module.section(&exports);
    before(&mut module, &[SectionId::Element, SectionId::DataCount]);
    module.section(&code);
    before(&mut module, &[SectionId::Data]);
    Some(module.finish())
}

fn value(ty: wasmparser::ValType) -> ValType {
    match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(_) => ValType::FUNCREF,
    }
}

/// What an analysis exports: names, parameters, results and bodies.
fn frame(parts: &Parts, dice: &mut Dice) -> Vec<(&'static str, usize, usize, Function)> {
    use Instruction as I;
    let byte = MemArg { offset: 0, align: 0, memory_index: 0 };
    let word = MemArg { offset: 0, align: 2, memory_index: 0 };
    let body = |instructions: &[I<'_>]| {
        let mut body = Function::new([]);
        instructions.iter().chain([&I::End]).for_each(|instruction| _ = body.instruction(instruction));
        body
    };
    let mut contribute = vec![I::LocalGet(0), I::I32Load(MemArg { offset: 8, ..word }), I::I32Load8U(byte)];
    contribute.extend([I::If(BlockType::Empty), I::Loop(BlockType::Empty)]);
    let first = dice.within(0, parts.functions.len() as u64 - 1) as usize;
    for at in 0..parts.functions.len() {
        let function = (at + first) % parts.functions.len();
        let ty = &parts.types[parts.functions[function] as usize];
        contribute.extend(ty.params().iter().map(|param| match param {
            wasmparser::ValType::I32 => I::I32Const(dice.size(1, 100_000) as i32),
            wasmparser::ValType::I64 => I::I64Const(dice.word() as i64),
            wasmparser::ValType::F32 => I::F32Const(f32::from_bits(dice.word() as u32).into()),
            wasmparser::ValType::F64 => I::F64Const(f64::from_bits(dice.word()).into()),
            _ => I::V128Const(i128::from(dice.word())),
        }));
        contribute.push(I::Call(function as u32));
        contribute.extend(ty.results().iter().map(|_| I::Drop));
    }
    contribute.extend([I::Br(0), I::End, I::End]);
    // No list at all.
    let store = |at, value| [I::I32Const(at), I::I32Const(value), I::I32Store(word)];
    contribute.extend(store(4_096, 0).into_iter().chain(store(4_100, 0)).chain([I::I32Const(4_096)]));
    let prepare = [I::I32Const(512), I::I32Const(0), I::I32Store8(byte), I::I32Const(512)];
    // An individual and its dosages, each in a place of its own.
    let realloc = [I::LocalGet(2), I::I32Const(10), I::I32Shl];
    vec![
        ("contribute", 2, 1, body(&contribute)),
        ("cabi_post_contribute", 1, 0, body(&[])),
        ("prepare", 2, 1, body(&prepare)),
        ("cabi_post_prepare", 1, 0, body(&[])),
        ("plan", 2, 1, body(&[I::Unreachable])),
        ("cabi_post_plan", 1, 0, body(&[])),
        ("next", 8, 1, body(&[I::Unreachable])),
        ("cabi_post_next", 1, 0, body(&[])),
        ("cabi_realloc", 4, 1, body(&realloc)),
    ]
}
