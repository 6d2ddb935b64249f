//! What each WebAssembly operator costs in fuel, so that a unit of fuel takes a bounded time.
//!
//! *In*: nothing. *Out*: the table that code is compiled with and that [`crate::meter`] counts by.
//! A plain operator costs 1. An operator that can miss every cache costs as many units as a miss can
//! take: then no guest makes a unit last longer than a plain operator does at its worst. How long
//! that is on a machine, [`crate::slowest`] measures.

use std::sync::LazyLock;

use wasmtime::OperatorCost;

/// A load whose address is the result of a load before it waits for the memory, and for the page
/// tables: 180 to 250 ns were seen over 64 to 224 MiB, against 1 ns for an addition.
const LOAD: u8 = 8;
/// Stores wait for nothing, but each can bring in and write back a line.
const STORE: u8 = 4;
/// The code of the callee can lie in no cache.
const CALL: u8 = 8;
/// A table's entry, the function that it names and that function's code can lie in no cache.
const CALL_INDIRECT: u8 = 24;
/// The jump table can lie in no cache, and the jump is not foreseen.
const BR_TABLE: u8 = 8;
/// A global lies in the instance's own record.
const GLOBAL: u8 = 4;
/// No operator that code can be made of is free, also where it does nothing: a function can have
/// millions. A loop is a look at the fuel; of many blocks leaps are left.
const NEXT_TO_NOTHING: u8 = 1;
/// The engine makes what a reference refers to each time anew, of parts that can lie in no cache.
const REFER: u8 = 24;
/// Divisions and roots take some tens of cycles.
const DIVIDE: u8 = 3;
/// Products and quotients that are too small for the usual form make the processor stop.
const SMALL: u8 = 4;
/// Asks the host, which may ask the kernel. What is then touched of the memory is counted by itself.
const GROW: u8 = 200;
/// What [`crate::meter`] charges moves with: a constant that is dropped, of which no code is made.
pub(crate) const TOKEN: u8 = 16;

/// The table.
pub(crate) static COSTS: LazyLock<OperatorCost> = LazyLock::new(table);

macro_rules! set {
    ($table:ident, $cost:expr, $($operator:ident)*) => { $($table.$operator = $cost;)* };
}

fn table() -> OperatorCost {
    let mut table = OperatorCost::new();
    set!(table, LOAD, I32Load I64Load F32Load F64Load I32Load8S I32Load8U I32Load16S I32Load16U);
    set!(table, LOAD, I64Load8S I64Load8U I64Load16S I64Load16U I64Load32S I64Load32U V128Load);
    set!(table, LOAD, V128Load8x8S V128Load8x8U V128Load16x4S V128Load16x4U V128Load32x2S);
    set!(table, LOAD, V128Load32x2U V128Load8Splat V128Load16Splat V128Load32Splat);
    set!(table, LOAD, V128Load64Splat V128Load32Zero V128Load64Zero V128Load8Lane V128Load16Lane);
    set!(table, LOAD, V128Load32Lane V128Load64Lane TableGet);
    set!(table, STORE, I32Store I64Store F32Store F64Store I32Store8 I32Store16 I64Store8);
    set!(table, STORE, I64Store16 I64Store32 V128Store V128Store8Lane V128Store16Lane);
    set!(table, STORE, V128Store32Lane V128Store64Lane);
    set!(table, CALL, Call ReturnCall MemoryCopy MemoryFill MemoryInit TableSize MemorySize);
    set!(table, CALL_INDIRECT, CallIndirect ReturnCallIndirect CallRef ReturnCallRef);
    set!(table, BR_TABLE, BrTable);
    set!(table, NEXT_TO_NOTHING, Loop Block);
    set!(table, REFER, RefFunc);
    set!(table, GLOBAL, GlobalGet GlobalSet);
    set!(table, DIVIDE, I32DivS I32DivU I32RemS I32RemU I64DivS I64DivU I64RemS I64RemU);
    set!(table, SMALL, F32Div F64Div F32Sqrt F64Sqrt F32x4Div F64x2Div F32x4Sqrt F64x2Sqrt);
    set!(table, SMALL, F32Mul F64Mul F32x4Mul F64x2Mul F32DemoteF64 F64PromoteF32);
    set!(table, SMALL, F32x4DemoteF64x2Zero F64x2PromoteLowF32x4);
    set!(table, GROW, MemoryGrow TableGrow TableFill TableCopy TableInit TableSet);
    set!(table, GROW, DataDrop ElemDrop);
    table.RefNull = TOKEN;
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmparser::{MemArg, Operator};

    #[test]
    fn what_can_wait_costs_more_than_what_cannot() {
        let memarg = MemArg { align: 0, max_align: 0, offset: 0, memory: 0 };
        let cost = |operator| COSTS.cost(&operator);
        assert_eq!(cost(Operator::I32Add), 1);
        assert_eq!(cost(Operator::I32Load { memarg }), i64::from(LOAD));
        assert_eq!(cost(Operator::V128Store { memarg }), i64::from(STORE));
        assert_eq!(cost(Operator::CallIndirect { type_index: 0, table_index: 0 }), i64::from(CALL_INDIRECT));
        assert_eq!(cost(Operator::RefFunc { function_index: 0 }), i64::from(REFER));
        assert_eq!(cost(Operator::Nop), 0);
    }
}
