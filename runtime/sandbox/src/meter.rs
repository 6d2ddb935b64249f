//! Makes fuel bound time: puts checks wherever a guest could go on for long after its fuel is gone.
//!
//! *In*: a component. *Out*: one that computes the same, in which at most [`STRETCH`] units of fuel
//! are spent between two checks, and moves between locals cost fuel. *Refuses*: a component that
//! has more than one core module, and one whose branches and locals would make it too large.
//!
//! The engine looks at the fuel where a function or a turn of a loop begins, and nowhere else: not
//! behind a call, so a deep recursion runs the rest of each frame for nothing; nor in a function
//! without loops, which can have millions of operators. A `loop` that ends at once is such a place
//! and does nothing else. One goes behind every call, and wherever the longest way from the last
//! check passes [`STRETCH`] ([`Way`] follows all ways at once: a body is nested blocks, which are
//! left forwards).
//!
//! Where ways meet, the compiler may have to move every local that differs between them, on a way
//! that costs next to nothing. Beyond [`FREE_LOCALS`] these moves are charged where they happen.

use std::sync::Arc;

use wasm_encoder::{CodeSection, Module, RawSection, SectionId};
use wasmparser::{
    BinaryReaderError, BlockType, CompositeInnerType, FuncType, FunctionBody, Operator, Parser, Payload, TypeRef,
};

use crate::analysis::LoadError;
use crate::fuel::{COSTS, TOKEN};
use crate::module::rewritten;

/// Most fuel that is spent between two checks. It is part of what one individual can take.
pub(crate) const STRETCH: u64 = 2_048;
/// What a bulk operation of a constant size costs at most where the engine does not check it.
const SMALL_BULK: u64 = 128;
/// Locals whose moves cost nothing: as many as two loads and a branch take time for.
const FREE_LOCALS: usize = 64;
/// Moves that cost one unit of fuel.
const MOVES: usize = 8;
/// Most times that a module may grow, and bytes beyond.
const GROWTH: usize = 3;
const ROOM_BYTES: usize = 1 << 20;

/// `loop` without parameters or results, and its `end`.
const CHECK: [u8; 3] = [0x03, 0x40, 0x0b];
/// `ref.null func`, `drop`: costs [`TOKEN`], and no code is made of it.
const MANY: [u8; 3] = [0xd0, 0x70, 0x1a];
/// `i32.const 0`, `drop`: costs 1.
const ONE: [u8; 3] = [0x41, 0x00, 0x1a];

/// A component whose fuel is checked, or one made of it without code of a guest's. Only this is
/// ever compiled.
#[derive(Clone)]
pub(crate) struct Metered(Arc<[u8]>);

/// The component with its fuel checked.
pub(crate) fn metered(component: &[u8]) -> Result<Metered, LoadError> {
    let made = rewritten(component, module).map_err(|error| match error {
        Unmetered::Binary(error) => LoadError::NotComponent { why: error.to_string() },
        Unmetered::Grown => refused("its functions have too many locals for so many branches"),
    })?;
    made.map(|made| Metered(made.into())).ok_or_else(|| refused("it has more than one core module"))
}

impl Metered {
    /// The component.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same code with other state, or with functions of our own beside it.
    pub(crate) fn with<E>(&self, change: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        change(&self.0).map(|made| Self(made.into()))
    }
}

fn refused(why: &str) -> LoadError {
    LoadError::Unmetered { why: why.to_owned() }
}

/// Why a module cannot be metered.
#[derive(Debug)]
pub(crate) enum Unmetered {
    Binary(BinaryReaderError),
    Grown,
}

impl From<BinaryReaderError> for Unmetered {
    fn from(error: BinaryReaderError) -> Self {
        Self::Binary(error)
    }
}

/// What is known of a module's types: how many values a function or a block takes and leaves.
#[derive(Default)]
struct Types {
    functions: Vec<(usize, usize)>,
    /// For each function, imported ones first, its type.
    of: Vec<u32>,
    imported: usize,
}

impl Types {
    fn values(&self, index: u32) -> usize {
        let arity = self.functions.get(index as usize);
        arity.map_or(0, |(parameters, results)| parameters.saturating_add(*results))
    }

    fn block(&self, block: BlockType) -> usize {
        match block {
            BlockType::Empty => 0,
            BlockType::Type(_) => 1,
            BlockType::FuncType(index) => self.values(index),
        }
    }

    fn parameters(&self, function: usize) -> usize {
        let index = self.of.get(function).copied().unwrap_or(u32::MAX);
        self.functions.get(index as usize).map_or(0, |(parameters, _)| *parameters)
    }
}

/// The module with its fuel checked.
pub(crate) fn module(bytes: &[u8]) -> Result<Vec<u8>, Unmetered> {
    let (mut types, mut bodies) = (Types::default(), vec![]);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::TypeSection(groups) => {
                for group in groups {
                    for ty in group?.into_types() {
                        types.functions.push(match &ty.composite_type.inner {
                            CompositeInnerType::Func(ty) => arity(ty),
                            _ => (0, 0),
                        });
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    if let TypeRef::Func(index) = import?.ty {
                        types.of.push(index);
                    }
                }
                types.imported = types.of.len();
            }
            Payload::FunctionSection(functions) => {
                for index in functions {
                    types.of.push(index?);
                }
            }
            Payload::CodeSectionEntry(body) => bodies.push(body),
            _ => {}
        }
    }
    let most = bytes.len().saturating_mul(GROWTH).saturating_add(ROOM_BYTES);
    let mut out = Module::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        if matches!(payload, Payload::CodeSectionStart { .. }) {
            out.section(&code(&types, &bodies, bytes, most)?);
        } else if let Some((id, range)) = payload.as_section().filter(|(id, _)| *id != SectionId::Code as u8) {
            out.section(&RawSection { id, data: bytes.get(range).unwrap_or_default() });
        }
    }
    Ok(out.finish())
}

fn arity(ty: &FuncType) -> (usize, usize) {
    (ty.params().len(), ty.results().len())
}

fn code(types: &Types, bodies: &[FunctionBody<'_>], bytes: &[u8], most: usize) -> Result<CodeSection, Unmetered> {
    let (mut code, mut written) = (CodeSection::new(), 0_usize);
    for (place, body) in bodies.iter().enumerate() {
        let parameters = types.parameters(types.imported.saturating_add(place));
        let made = function(types, body, bytes, parameters, most)?;
        written = written.saturating_add(made.len());
        if written > most {
            return Err(Unmetered::Grown);
        }
        code.raw(&made);
    }
    Ok(code)
}

/// One function's body with checks and charges put in.
fn function(
    types: &Types,
    body: &FunctionBody<'_>,
    bytes: &[u8],
    parameters: usize,
    most: usize,
) -> Result<Vec<u8>, Unmetered> {
    let range = body.range();
    let mut locals = parameters;
    for local in body.get_locals_reader()? {
        locals = locals.saturating_add(local?.0 as usize);
    }
    let mut made = Vec::with_capacity(range.len().saturating_add(range.len() / 4));
    let mut copied = range.start;
    let mut way = Way::new(locals);
    for read in body.get_operators_reader()?.into_iter_with_offsets() {
        let (operator, at) = read?;
        let put = way.before(&operator);
        if put.is_some() {
            made.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
            copied = at;
            put.write(&mut made);
            if made.len() > most {
                return Err(Unmetered::Grown);
            }
        }
        way.pass(&operator, types);
    }
    made.extend_from_slice(bytes.get(copied..range.end).unwrap_or_default());
    Ok(made)
}

/// What goes in before an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Put {
    check: bool,
    charge: usize,
}

impl Put {
    const fn is_some(self) -> bool {
        self.check || self.charge > 0
    }

    fn write(self, made: &mut Vec<u8>) {
        // Charged first, so that the check sees it.
        let many = usize::from(TOKEN);
        (0..self.charge / many).for_each(|_| made.extend_from_slice(&MANY));
        (0..self.charge % many).for_each(|_| made.extend_from_slice(&ONE));
        if self.check {
            made.extend_from_slice(&CHECK);
        }
    }
}

/// The longest of all ways from a check to a place in a function's body, as the body is read.
struct Way {
    locals: usize,
    /// Fuel since the last check, on the way on which most was spent. `None`: no way leads here.
    spent: Option<u64>,
    open: Vec<Open>,
    /// Put in before the next operator: a check behind a call, a charge where ways meet.
    due: Put,
}

/// A block that was entered.
struct Open {
    kind: Kind,
    /// What moves at its branches cost.
    charge: usize,
    /// The most that was spent on a way that leads behind its end.
    out: Option<u64>,
}

enum Kind {
    Block,
    Loop,
    /// With what was spent before it: what its `else` begins with.
    If(Option<u64>),
}

impl Way {
    fn new(locals: usize) -> Self {
        Self { locals, spent: Some(0), open: vec![], due: Put::default() }
    }

    /// What must be put in before this operator, which then follows it.
    fn before(&mut self, operator: &Operator<'_>) -> Put {
        let mut put = std::mem::take(&mut self.due);
        let Some(spent) = self.spent else { return Put::default() };
        let spent = spent.saturating_add(put.charge as u64);
        let next = spent.saturating_add(cost(operator));
        // A loop is a check by itself, and takes the last unit of a stretch.
        let checks = matches!(operator, Operator::Loop { .. });
        put.check |= !checks && next >= STRETCH && spent > 0;
        self.spent = Some(if put.check { 0 } else { spent });
        put
    }

    fn pass(&mut self, operator: &Operator<'_>, types: &Types) {
        self.spent = self.spent.map(|spent| spent.saturating_add(cost(operator)));
        match *operator {
            Operator::Block { blockty } => self.enter(Kind::Block, types.block(blockty)),
            Operator::Loop { blockty } => {
                // The engine checks here, at each turn.
                self.spent = self.spent.map(|_| 0);
                self.enter(Kind::Loop, types.block(blockty));
                self.due.charge = self.open.last().map_or(0, |open| open.charge);
            }
            Operator::If { blockty } => self.enter(Kind::If(self.spent), types.block(blockty)),
            Operator::Else => {
                if let Some(open) = self.open.last_mut() {
                    open.out = open.out.max(self.spent);
                    if let Kind::If(before) = std::mem::replace(&mut open.kind, Kind::Block) {
                        self.spent = before;
                    }
                }
            }
            Operator::End => {
                let Some(open) = self.open.pop() else { return };
                let met = match open.kind {
                    Kind::Block => open.out,
                    Kind::Loop => return,
                    Kind::If(before) => open.out.max(before),
                };
                if met.is_some() {
                    self.spent = self.spent.max(met);
                    self.due.charge = open.charge;
                }
            }
            Operator::Br { relative_depth } => {
                self.leave(relative_depth);
                self.spent = None;
            }
            Operator::BrIf { relative_depth } => self.leave(relative_depth),
            Operator::BrTable { ref targets } => {
                targets.targets().flatten().for_each(|depth| self.leave(depth));
                self.leave(targets.default());
                self.spent = None;
            }
            Operator::Return | Operator::Unreachable => self.spent = None,
            Operator::Call { .. } | Operator::CallIndirect { .. } => self.due.check = true,
            _ => {}
        }
    }

    fn enter(&mut self, kind: Kind, values: usize) {
        let moves = self.locals.saturating_add(values).saturating_sub(FREE_LOCALS);
        self.open.push(Open { kind, charge: moves.div_ceil(MOVES), out: None });
    }

    /// A branch forwards: behind the end of the block that is so many further out.
    fn leave(&mut self, depth: u32) {
        let place = self.open.len().checked_sub(depth as usize).and_then(|place| place.checked_sub(1));
        // The outermost is the function itself, which is left.
        if let Some(open) = place.and_then(|place| self.open.get_mut(place)) {
            open.out = open.out.max(self.spent);
        }
    }
}

/// What the engine takes for an operator, or may not look at before it goes on.
fn cost(operator: &Operator<'_>) -> u64 {
    let flat = u64::try_from(COSTS.cost(operator)).unwrap_or(u64::MAX);
    match operator {
        Operator::MemoryCopy { .. }
        | Operator::MemoryFill { .. }
        | Operator::MemoryInit { .. }
        | Operator::MemoryGrow { .. }
        | Operator::TableCopy { .. }
        | Operator::TableFill { .. }
        | Operator::TableInit { .. }
        | Operator::TableGrow { .. } => flat.saturating_add(SMALL_BULK),
        _ => flat,
    }
}

#[cfg(test)]
mod tests;
