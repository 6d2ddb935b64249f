//! Rows at rest: one row for each individual, in row groups, each column of a group a sealed chunk of its own (`sealed`, `layout`).
//!
//! *In*: rows, at ingest; a [`Selection`], at a round. *Out*: [`RowGroup`]s that hold the selected columns and blocks and nothing
//! else; the rest of the file is not read. *Trusts*: the key. *Refuses*: a file that another key made, or whose bytes were
//! changed, moved or taken from elsewhere: no byte counts that was not authenticated in its place.
//!
//! Columns: the head of the row's place in the keyed order, one for each column of the dictionary (`cells`), and one for each block of 4,096 variants of
//! a catalogue (1,024 bytes a row, see `pack`). Nothing is compressed: so a chunk's length says how many rows there are and nothing of what is in
//! them, and a block is read at the speed of memory. Why this and nothing else that is common: docs/notes/store.md.

mod cells;
mod layout;
mod row_group;
mod sealed;
mod selection;
mod sink;
mod source;
mod writer;

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;

pub(crate) use self::row_group::Packed;
pub use self::row_group::RowGroup;
pub use self::selection::Selection;
pub(super) use self::sink::{Sink, forget};
pub(super) use self::source::{Source, place_of};
pub(super) use self::writer::RowWriter;

use self::cells::Cell;
use self::layout::{Directory, Layout, PLACES};
use self::row_group::Wanted;
use self::sealed::{Cipher, END, HEADER, Piece};
use super::bucket::StorageError;
use super::pack::{BLOCK_BYTES, BLOCK_VARIANTS};
use super::withdrawal::Withdrawn;
use crate::reserve::NoRoom;

pub(super) const FILE: &str = "people.rows";
/// The most individuals of a row group: the unit of parallel work. 1,024 individuals x 100 blocks are 100 MB, which a thread can hold.
pub(crate) const GROUP_ROWS: usize = 1_024;

/// A file whose columns are not those of the description beside it.
const OTHER_COLUMNS: &str = "it has not the columns that its description says";
const NO_GROUP: &str = "there is no such row group";
const SHORT: &str = "a chunk does not hold what the directory says";

/// Why rows were not read. Nothing of it follows from what is in them.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum ReadError {
    /// The bytes are not what the key sealed.
    #[error("{0}")]
    Damaged(String),
    /// They did not come.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<String> for ReadError {
    fn from(why: String) -> Self {
        Self::Damaged(why)
    }
}

impl From<&str> for ReadError {
    fn from(why: &str) -> Self {
        Self::Damaged(why.to_owned())
    }
}

/// Blocks that a catalogue of that many variants takes.
pub(super) const fn blocks(variants: usize) -> usize {
    variants.div_ceil(BLOCK_VARIANTS)
}

/// An opened file of rows.
pub(super) struct Store {
    source: Source,
    cipher: Cipher,
    directory: Directory,
    withdrawn: Withdrawn,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Rows of those who are withdrawn are not read.
    pub(super) fn open(source: Source, key: &[u8], withdrawn: Withdrawn) -> Result<Self, ReadError> {
        let short = || "it is cut short".to_owned();
        let end = source.length().checked_sub(END as u64).ok_or_else(short)?;
        let [header, length] =
            source.read(&[0..HEADER as u64, end..source.length()])?.try_into().map_err(|_| "it was read in part".to_owned())?;
        let cipher = Cipher::of(key, &header)?;
        let length = length.try_into().map(u64::from_be_bytes).map_err(|_| short())?;
        let start = end.checked_sub(length).filter(|start| *start >= HEADER as u64);
        let start = start.ok_or("its last bytes were changed, or it is cut short")?;
        let mut directory = source.read(std::slice::from_ref(&(start..end)))?.pop().unwrap_or_default();
        cipher.open(Piece::Directory, &mut directory)?;
        let layout: Layout = postcard::from_bytes(&directory).map_err(|error| format!("its directory: {error}"))?;
        Ok(Self { source, cipher, directory: Directory::new(layout, start)?, withdrawn })
    }

    /// Where the file lies.
    pub(super) fn place(&self) -> String {
        self.source.place()
    }

    /// Where it lies, encrypted as it is.
    pub(super) const fn source(&self) -> &Source {
        &self.source
    }

    /// Whose rows are left out.
    pub(super) const fn withdrawn(&self) -> &Withdrawn {
        &self.withdrawn
    }

    /// Bytes of the file that were read, its directory's among them.
    pub(super) fn bytes_read(&self) -> u64 {
        self.source.bytes_read()
    }

    /// How many row groups there are, empty ones among them: each is one of so many equal parts of the keyed order.
    pub(super) fn row_groups(&self) -> usize {
        self.directory.layout().groups.len()
    }

    /// Where each chunk lies.
    #[cfg(test)]
    pub(super) fn chunk_ranges(&self) -> Vec<Range<u64>> {
        let columns = 0..self.directory.layout().columns();
        let groups = 0..self.row_groups();
        groups.flat_map(|group| columns.clone().map(move |column| self.directory.chunk(group, column).unwrap().bytes)).collect()
    }

    /// How many rows lie before a group.
    pub(super) fn rows_before(&self, group: usize) -> usize {
        self.directory.layout().groups.iter().take(group).map(|group| group.rows as usize).sum()
    }

    /// The chunk of a column of a row group, over what is in `bytes`.
    fn chunk(&self, group: usize, column: usize, width: &Width, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
        let rows = self.directory.group(group).ok_or(NO_GROUP)?.rows as usize;
        let chunk = self.directory.chunk(group, column).ok_or(NO_GROUP)?;
        self.source.read_over(&chunk.bytes, bytes)?;
        self.cipher.open(Piece::Chunk(chunk.number), bytes)?;
        if bytes.len() == width.of(rows) { Ok(()) } else { Err(SHORT.into()) }
    }

    /// The columns that a selection takes.
    fn wanted(&self, selection: &Selection) -> Option<Wanted> {
        let layout = self.directory.layout();
        let cells = selection.columns.iter().map(|column| layout.cell(*column)).collect::<Option<_>>()?;
        let stretches = selection.stretches.iter();
        let blocks =
            stretches.map(|stretch| layout.block(stretch.catalogue, stretch.block)).collect::<Option<BTreeSet<_>>>()?;
        let places = selection.places || !self.withdrawn.is_empty();
        Some(Wanted { places, cells, blocks: blocks.into_iter().collect() })
    }

    /// Where all of that lies of a row group.
    fn ranges(&self, wanted: &Wanted, group: usize) -> Vec<Range<u64>> {
        let places = wanted.places.then_some(PLACES).into_iter();
        let columns = places.chain(wanted.cells.iter().map(|(column, _)| *column)).chain(wanted.blocks.iter().copied());
        columns.filter_map(|column| self.directory.chunk(group, column)).map(|chunk| chunk.bytes).collect()
    }

    /// Has all that is selected where no bucket need be asked for it.
    pub(super) fn fetch(&self, selection: &Selection) -> Result<(), ReadError> {
        let wanted = self.wanted(selection).ok_or(OTHER_COLUMNS)?;
        self.source.fetch((0..self.row_groups()).map(|group| self.ranges(&wanted, group)))
    }

    /// Memory for what is selected of any row group.
    pub(super) fn room(&self, selection: &Selection) -> Result<Result<RowGroup, NoRoom>, ReadError> {
        let wanted = self.wanted(selection).ok_or(OTHER_COLUMNS)?;
        let layout = self.directory.layout();
        let mut stretches = Vec::with_capacity(selection.stretches.len());
        for stretch in &selection.stretches {
            let column = layout.block(stretch.catalogue, stretch.block).ok_or(OTHER_COLUMNS)?;
            stretches.push((wanted.blocks.binary_search(&column).map_err(|_| OTHER_COLUMNS)?, stretch.start..stretch.end));
        }
        Ok(RowGroup::room(selection, wanted).map(|room| RowGroup { stretches, ..room }))
    }

    /// Reads what is selected of a row group, into the memory that was made for it.
    pub(super) fn read(&self, group: usize, into: &mut RowGroup) -> Result<(), ReadError> {
        let rows = self.directory.group(group).ok_or(NO_GROUP)?.rows as usize;
        self.source.fetch(std::iter::once(self.ranges(&into.wanted, group)))?;
        let RowGroup { places, columns, blocks, wanted, bytes, stays, .. } = into;
        places.clear();
        if wanted.places {
            self.chunk(group, PLACES, &Width::Bytes(8), bytes)?;
            places.extend(heads(bytes));
        }
        for ((column, cell), values) in wanted.cells.iter().zip(&mut *columns) {
            self.chunk(group, *column, &Width::Cell(*cell), bytes)?;
            cell.decode_over(bytes, rows, values).ok_or(SHORT)?;
        }
        for (column, bytes) in wanted.blocks.iter().zip(&mut *blocks) {
            self.chunk(group, *column, &Width::Bytes(BLOCK_BYTES), bytes)?;
        }
        into.rows = rows;
        if wanted.places && !self.withdrawn.is_empty() {
            stays.clear();
            stays.extend(places.iter().map(|head| !self.withdrawn.has_head(*head)));
            into.rows = stays.iter().filter(|stays| **stays).count();
            keep(places, 1, stays);
            columns.iter_mut().for_each(|column| keep(column, 1, stays));
            blocks.iter_mut().for_each(|bytes| keep(bytes, BLOCK_BYTES, stays));
        }
        Ok(())
    }

    /// Where everybody's row lies: the head of their place in the keyed order, the row group, the row in it.
    pub(super) fn heads(&self) -> Result<Vec<(u64, u32, u32)>, ReadError> {
        self.fetch(&Selection::of_places())?;
        let number = |number: usize| u32::try_from(number).map_err(|error| error.to_string());
        let mut heads = Vec::with_capacity(self.rows_before(self.row_groups()));
        for group in 0..self.row_groups() {
            let rows = self.directory.group(group).map_or(0, |group| group.rows as usize);
            for (row, head) in self::heads(&self.column(PLACES, group, &Width::Bytes(8))?).enumerate() {
                heads.push((head, number(group)?, number(row)?));
            }
            if heads.len() != self.rows_before(group).saturating_add(rows) {
                return Err("a chunk does not hold what the directory says".into());
            }
        }
        Ok(heads)
    }

    /// Everybody's bytes of a row group at a block of a catalogue, no matter who withdrew.
    pub(super) fn block(&self, catalogue: usize, block: usize, group: usize) -> Result<Vec<u8>, ReadError> {
        let column = self.directory.layout().block(catalogue, block).ok_or(OTHER_COLUMNS)?;
        self.column(column, group, &Width::Bytes(BLOCK_BYTES))
    }

    fn column(&self, column: usize, group: usize, width: &Width) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![];
        self.chunk(group, column, width, &mut bytes)?;
        Ok(bytes)
    }

    /// Has all blocks of some catalogues where no bucket need be asked for them.
    pub(super) fn fetch_blocks(&self, catalogues: impl Iterator<Item = usize>) -> Result<(), ReadError> {
        let layout = self.directory.layout();
        let blocks = |catalogue: usize| (0..).map_while(move |block| layout.block(catalogue, block));
        let columns: Vec<usize> = catalogues.flat_map(blocks).collect();
        let of_group = |group| columns.iter().filter_map(move |column| self.directory.chunk(group, *column));
        self.source.fetch((0..self.row_groups()).map(|group| of_group(group).map(|chunk| chunk.bytes).collect()))
    }

    /// How many rows of withdrawn individuals the file still has.
    pub(super) fn withdrawn_rows(&self) -> Result<u64, ReadError> {
        if self.withdrawn.is_empty() {
            return Ok(0);
        }
        let gone = self.heads()?.into_iter().filter(|(head, ..)| self.withdrawn.has_head(*head)).count();
        Ok(gone as u64)
    }

    /// Writes all rows but those of withdrawn individuals, group by group, under another key. Returns the sink.
    pub(super) fn copy_without_withdrawn<W: Write>(&self, sink: W, key: &[u8]) -> Result<W, CopyError> {
        let layout = self.directory.layout();
        let mut writer = RowWriter::like(sink, key, layout).map_err(CopyError::Write)?;
        let columns = layout.columns();
        let of_group = |group| (0..columns).filter_map(move |column| self.directory.chunk(group, column));
        let all = (0..self.row_groups()).map(|group| of_group(group).map(|chunk| chunk.bytes).collect());
        self.source.fetch(all).map_err(CopyError::Read)?;
        for (number, group) in layout.groups.iter().enumerate() {
            let rows = group.rows as usize;
            let heads = self.column(PLACES, number, &Width::Bytes(8)).map_err(CopyError::Read)?;
            let stays: Vec<bool> = self::heads(&heads).map(|head| !self.withdrawn.has_head(head)).collect();
            // A group of which nobody is left is still one: how many there are follows from public terms.
            writer.begin(stays.iter().filter(|stays| **stays).count());
            for column in 0..columns {
                let width = match layout.cell_at(column) {
                    Some(cell) => Width::Cell(cell),
                    None if column == PLACES => Width::Bytes(8),
                    None => Width::Bytes(BLOCK_BYTES),
                };
                let mut bytes = self.column(column, number, &width).map_err(CopyError::Read)?;
                match width {
                    Width::Cell(cell) => {
                        let mut values = cell.decode(&bytes, rows).ok_or_else(|| CopyError::Read(SHORT.into()))?;
                        keep(&mut values, 1, &stays);
                        bytes = cell.encode(values.into_iter());
                    }
                    Width::Bytes(width) => keep(&mut bytes, width, &stays),
                }
                writer.chunk(bytes).map_err(CopyError::Write)?;
            }
        }
        writer.finish().map_err(CopyError::Write)
    }
}

/// Why rows were not copied.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The file that they are in.
    Read(ReadError),
    /// Where they go.
    Write(std::io::Error),
}

/// How long a column is.
enum Width {
    /// Bytes of a row.
    Bytes(usize),
    Cell(Cell),
}

impl Width {
    const fn of(&self, rows: usize) -> usize {
        match self {
            Self::Bytes(bytes) => rows.saturating_mul(*bytes),
            Self::Cell(cell) => cell.length(rows),
        }
    }
}

fn heads(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Keeps the rows that stay, each of `width` items.
fn keep<T: Copy>(items: &mut Vec<T>, width: usize, stays: &[bool]) {
    let mut to = 0;
    for (row, _) in stays.iter().enumerate().filter(|(_, stays)| **stays) {
        let from = row.saturating_mul(width);
        if from.saturating_add(width) <= items.len() {
            items.copy_within(from..from.saturating_add(width), to);
            to = to.saturating_add(width);
        }
    }
    items.truncate(to);
}
