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

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use self::row_group::Packed;
pub use self::row_group::RowGroup;
pub use self::selection::Selection;
pub(super) use self::sink::{Sink, forget};
pub(super) use self::source::{Source, place_of};
pub(super) use self::writer::RowWriter;

use self::cells::Cell;
use self::layout::{Chunk, Directory, Layout, PLACES};
use self::sealed::{Cipher, END, HEADER, Piece, TAG};
use super::bucket::StorageError;
use super::pack::{BLOCK_BYTES, BLOCK_VARIANTS};
use super::withdrawal::Withdrawn;

pub(super) const FILE: &str = "people.rows";
/// The most individuals of a row group: the unit of parallel work. 1,024 individuals x 100 blocks are 100 MB, which a thread can hold.
pub(crate) const GROUP_ROWS: usize = 1_024;

/// A file whose columns are not those of the description beside it.
const OTHER_COLUMNS: &str = "it has not the columns that its description says";

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

    pub(super) fn row_groups(&self) -> usize {
        self.directory.layout().groups.len()
    }

    /// For each row group, which part of the keyed order it is; and of how many.
    pub(super) fn parts(&self) -> (Vec<u64>, u64) {
        let layout = self.directory.layout();
        (layout.groups.iter().map(|group| group.part).collect(), layout.of)
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

    /// Opened chunks, each of the length that is expected.
    fn chunks(&self, wanted: &[(Chunk, usize)]) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut found = self.source.read(&ranges(wanted))?;
        for (bytes, (chunk, length)) in found.iter_mut().zip(wanted) {
            self.cipher.open(Piece::Chunk(chunk.number), bytes)?;
            if bytes.len() != *length {
                return Err("a chunk does not hold what the directory says".into());
            }
        }
        Ok(found)
    }

    /// The chunks of these columns of a row group; for each column, how long it is for so many rows.
    fn wanted(&self, columns: &BTreeMap<usize, Width>, group: usize) -> Option<Vec<(Chunk, usize)>> {
        let rows = self.directory.group(group)?.rows as usize;
        columns.iter().map(|(column, width)| Some((self.directory.chunk(group, *column)?, width.of(rows)))).collect()
    }

    /// The columns that a selection takes, each once, though two stretches may lie in one block.
    fn columns(&self, selection: &Selection) -> Option<BTreeMap<usize, Width>> {
        let layout = self.directory.layout();
        let mut columns = BTreeMap::new();
        columns.extend(self.by_place(selection).then_some((PLACES, Width::Bytes(8))));
        for column in &selection.columns {
            let (column, cell) = layout.cell(*column)?;
            columns.insert(column, Width::Cell(cell));
        }
        for stretch in &selection.stretches {
            columns.insert(layout.block(stretch.catalogue, stretch.block)?, Width::Bytes(BLOCK_BYTES));
        }
        Some(columns)
    }

    fn by_place(&self, selection: &Selection) -> bool {
        selection.places || !self.withdrawn.is_empty()
    }

    /// Has all that is selected where no bucket need be asked for it.
    pub(super) fn fetch(&self, selection: &Selection) -> Result<(), ReadError> {
        let columns = self.columns(selection).ok_or(OTHER_COLUMNS)?;
        let groups = 0..self.row_groups();
        self.source.fetch(groups.filter_map(|group| self.wanted(&columns, group)).map(|wanted| ranges(&wanted)))
    }

    /// Reads what is selected of a row group.
    pub(super) fn read(&self, selection: &Selection, group: usize) -> Result<RowGroup, ReadError> {
        let layout = self.directory.layout();
        let rows = self.directory.group(group).ok_or("there is no such row group")?.rows as usize;
        let by_place = self.by_place(selection);
        let cells: Option<Vec<_>> = selection.columns.iter().map(|column| layout.cell(*column)).collect();
        let blocks: Option<Vec<_>> =
            selection.stretches.iter().map(|stretch| layout.block(stretch.catalogue, stretch.block)).collect();
        let ((cells, blocks), columns) = cells.zip(blocks).zip(self.columns(selection)).ok_or(OTHER_COLUMNS)?;
        let wanted = self.wanted(&columns, group).ok_or("there is no such row group")?;
        let chunks = self.chunks(&wanted)?;
        let mut chunks: BTreeMap<usize, Vec<u8>> = columns.keys().copied().zip(chunks).collect();
        let places = by_place.then(|| places(chunks.get(&PLACES).map(Vec::as_slice).unwrap_or_default()));
        let stays = places.as_deref().and_then(|places| self.stays(places));
        let mut found = RowGroup { rows, places, columns: vec![], stretches: vec![], shown: selection.shown };
        let short = "a chunk does not hold what the directory says";
        for (column, cell) in cells {
            found.columns.push(chunks.get(&column).and_then(|bytes| cell.decode(bytes, rows)).ok_or(short)?);
        }
        if let Some(stays) = &stays {
            found.rows = stays.iter().filter(|stays| **stays).count();
            found.places.iter_mut().for_each(|places| keep(places, 1, stays));
            found.columns.iter_mut().for_each(|column| keep(column, 1, stays));
            for column in blocks.iter().collect::<std::collections::BTreeSet<_>>() {
                chunks.entry(*column).and_modify(|bytes| keep(bytes, BLOCK_BYTES, stays));
            }
        }
        let shared: BTreeMap<usize, Arc<Vec<u8>>> =
            chunks.into_iter().map(|(column, bytes)| (column, Arc::new(bytes))).collect();
        for (column, stretch) in blocks.iter().zip(&selection.stretches) {
            let bytes = shared.get(column).map(Arc::clone).ok_or(short)?;
            found.stretches.push((bytes, stretch.start, stretch.end));
        }
        Ok(found)
    }

    /// Where everybody's row lies: the head of their place in the keyed order, the row group, the row in it.
    pub(super) fn heads(&self) -> Result<Vec<(u64, u32, u32)>, ReadError> {
        self.fetch(&Selection::of_places())?;
        let number = |number: usize| u32::try_from(number).map_err(|error| error.to_string());
        let mut heads = Vec::with_capacity(self.rows_before(self.row_groups()));
        for group in 0..self.row_groups() {
            let rows = self.directory.group(group).map_or(0, |group| group.rows as usize);
            for (row, head) in places(&self.column(PLACES, group, &Width::Bytes(8))?).into_iter().enumerate() {
                heads.push((head, number(group)?, number(row)?));
            }
            if heads.len() != self.rows_before(group).saturating_add(rows) {
                return Err("a chunk does not hold what the directory says".into());
            }
        }
        Ok(heads)
    }

    /// Everybody's bytes of a row group at a block of a catalogue, whoever withdrew.
    pub(super) fn block(&self, catalogue: usize, block: usize, group: usize) -> Result<Vec<u8>, ReadError> {
        let column = self.directory.layout().block(catalogue, block).ok_or(OTHER_COLUMNS)?;
        self.column(column, group, &Width::Bytes(BLOCK_BYTES))
    }

    fn column(&self, column: usize, group: usize, width: &Width) -> Result<Vec<u8>, ReadError> {
        let there = "there is no such row group";
        let rows = self.directory.group(group).ok_or(there)?.rows as usize;
        let chunk = self.directory.chunk(group, column).ok_or(there)?;
        Ok(self.chunks(&[(chunk, width.of(rows))])?.pop().unwrap_or_default())
    }

    /// Has all blocks of some catalogues where no bucket need be asked for them.
    pub(super) fn fetch_blocks(&self, catalogues: impl Iterator<Item = usize>) -> Result<(), ReadError> {
        let layout = self.directory.layout();
        let blocks = |catalogue: usize| (0..).map_while(move |block| layout.block(catalogue, block));
        let columns: Vec<usize> = catalogues.flat_map(blocks).collect();
        let of_group = |group| columns.iter().filter_map(move |column| self.directory.chunk(group, *column));
        self.source.fetch((0..self.row_groups()).map(|group| of_group(group).map(|chunk| chunk.bytes).collect()))
    }

    /// Which rows are those of people who take part; `None` where all are.
    fn stays(&self, places: &[u64]) -> Option<Vec<bool>> {
        let stays: Vec<bool> = places.iter().map(|head| !self.withdrawn.has_head(*head)).collect();
        stays.contains(&false).then_some(stays)
    }

    /// How many rows of withdrawn individuals the file still has.
    pub(super) fn withdrawn_rows(&self) -> Result<u64, ReadError> {
        if self.withdrawn.is_empty() {
            return Ok(0);
        }
        self.fetch(&Selection::of_places())?;
        let mut there = 0_usize;
        for group in 0..self.row_groups() {
            there = there.saturating_add(self.read(&Selection::of_places(), group)?.len());
        }
        Ok(self.rows_before(self.row_groups()).saturating_sub(there) as u64)
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
            let chunk = |column: usize| -> Result<Vec<u8>, ReadError> {
                let chunk = self.directory.chunk(number, column).ok_or("there is no such row group")?;
                let length =
                    usize::try_from(chunk.bytes.end.saturating_sub(chunk.bytes.start)).map_err(|error| error.to_string())?;
                Ok(self.chunks(&[(chunk, length.saturating_sub(TAG))])?.pop().unwrap_or_default())
            };
            let all = places(&chunk(PLACES).map_err(CopyError::Read)?);
            let stays = self.stays(&all).unwrap_or_else(|| vec![true; rows]);
            let left = stays.iter().filter(|stays| **stays).count();
            if left == 0 {
                continue;
            }
            writer.begin(group.part, left);
            for column in 0..columns {
                let mut bytes = chunk(column).map_err(CopyError::Read)?;
                match layout.cell_at(column) {
                    Some(cell) => {
                        let short = || CopyError::Read("a chunk does not hold what the directory says".into());
                        let mut values = cell.decode(&bytes, rows).ok_or_else(short)?;
                        keep(&mut values, 1, &stays);
                        bytes = cell.encode(values.into_iter());
                    }
                    None => {
                        let width = bytes.len() / rows.max(1);
                        keep(&mut bytes, width, &stays);
                    }
                }
                writer.chunk(bytes).map_err(CopyError::Write)?;
            }
        }
        writer.finish(layout.of).map_err(CopyError::Write)
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

fn ranges(wanted: &[(Chunk, usize)]) -> Vec<Range<u64>> {
    wanted.iter().map(|(chunk, _)| chunk.bytes.clone()).collect()
}

fn places(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
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
