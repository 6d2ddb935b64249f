//! Writes a file of rows, chunk after chunk.
//!
//! *In*: rows, in the order they come. *Out*: sealed chunks, and the directory at the end: a file without one does not open. *Refuses*: a row group that is
//! too long.

use std::io::{Error, Result, Write};

use vestibule_protocol::dictionary::Dictionary;

use super::super::Value;
use super::cells::Cell;
use super::layout::{Group, Layout, number};
use super::sealed::{Cipher, Piece};
use super::{GROUP_ROWS, blocks};

/// Writes rows, in the order they come.
pub(in super::super) struct RowWriter<W: Write> {
    sink: W,
    cipher: Cipher,
    layout: Layout,
}

impl<W: Write> RowWriter<W> {
    /// `catalogues`: how many variants each has.
    pub(in super::super) fn new(sink: W, key: &[u8], dictionary: &Dictionary, catalogues: &[usize]) -> Result<Self> {
        let cells = dictionary.columns.iter().map(|column| Cell::of(&column.kind)).collect();
        let blocks = catalogues.iter().map(|variants| u32::try_from(blocks(*variants)));
        let blocks = blocks.collect::<std::result::Result<_, _>>().map_err(Error::other)?;
        Self::begun(sink, key, Layout { cells, blocks, groups: vec![] })
    }

    /// A file of the same columns.
    pub(super) fn like(sink: W, key: &[u8], layout: &Layout) -> Result<Self> {
        Self::begun(sink, key, Layout { groups: vec![], ..layout.clone() })
    }

    fn begun(mut sink: W, key: &[u8], layout: Layout) -> Result<Self> {
        let (cipher, header) = Cipher::fresh(key).map_err(Error::other)?;
        sink.write_all(&header)?;
        Ok(Self { sink, cipher, layout })
    }

    /// Adds a row group, the next part of the keyed order: places with values in the dictionary's order, and for each
    /// block of each catalogue everybody's bytes, one individual after the other. `blocks`: how many there are, and what gives one; they are made and
    /// sealed on all processors, as many at once.
    pub(in super::super) fn group(
        &mut self,
        rows: &[(u64, Vec<Value>)],
        (count, blocks): (usize, &(dyn Fn(usize) -> Result<Vec<u8>> + Sync)),
    ) -> Result<()> {
        self.begin(rows.len());
        self.chunk(rows.iter().flat_map(|(place, _)| place.to_le_bytes()).collect())?;
        for (column, cell) in self.layout.cells.clone().into_iter().enumerate() {
            let values = rows.iter().map(|(_, values)| values.get(column).copied().unwrap_or(Value::Missing));
            self.chunk(cell.encode(values))?;
        }
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        for first in (0..count).step_by(threads) {
            let pieces: Vec<(usize, Piece)> = (first..count)
                .take(threads)
                .zip(self.next_piece()?..)
                .map(|(block, piece)| (block, Piece::Chunk(piece)))
                .collect();
            let cipher = &self.cipher;
            let made = |(block, piece): (usize, Piece)| -> Result<Vec<u8>> {
                let mut bytes = blocks(block)?;
                cipher.seal(piece, &mut bytes).map_err(Error::other)?;
                Ok(bytes)
            };
            let sealed: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
                let making: Vec<_> = pieces.into_iter().map(|piece| scope.spawn(move || made(piece))).collect();
                let failed = |_| Err(Error::other("a thread that seals blocks failed"));
                making.into_iter().map(|thread| thread.join().unwrap_or_else(failed)).collect()
            });
            sealed.into_iter().try_for_each(|bytes| self.put(&bytes?))?;
        }
        Ok(())
    }

    /// The chunks that follow are those of another row group.
    pub(super) fn begin(&mut self, rows: usize) {
        // More than there may be is found when it ends.
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.layout.groups.push(Group { rows, lengths: vec![] });
    }

    /// The next column of the row group.
    pub(super) fn chunk(&mut self, mut bytes: Vec<u8>) -> Result<()> {
        let piece = Piece::Chunk(self.next_piece()?);
        self.cipher.seal(piece, &mut bytes).map_err(Error::other)?;
        self.put(&bytes)
    }

    /// The number of the next column's chunk.
    fn next_piece(&self) -> Result<u64> {
        let at = self.layout.groups.len().saturating_sub(1);
        let group = self.layout.groups.last().ok_or_else(|| Error::other("a chunk of no row group"))?;
        Ok(number(at, self.layout.columns(), group.lengths.len()))
    }

    /// Writes the next column's sealed chunk.
    fn put(&mut self, sealed: &[u8]) -> Result<()> {
        let columns = self.layout.columns();
        let group = self.layout.groups.last_mut().ok_or_else(|| Error::other("a chunk of no row group"))?;
        if group.lengths.len() >= columns || group.rows as usize > GROUP_ROWS {
            return Err(Error::other("a row group has more columns or rows than it may"));
        }
        group.lengths.push(u32::try_from(sealed.len()).map_err(Error::other)?);
        self.sink.write_all(sealed)
    }

    /// Writes the directory. Returns the sink.
    pub(in super::super) fn finish(mut self) -> Result<W> {
        let columns = self.layout.columns();
        if self.layout.groups.iter().any(|group| group.lengths.len() != columns) {
            return Err(Error::other("a row group lacks a column"));
        }
        let mut directory = postcard::to_stdvec(&self.layout).map_err(Error::other)?;
        self.cipher.seal(Piece::Directory, &mut directory).map_err(Error::other)?;
        let length = (directory.len() as u64).to_be_bytes();
        self.sink.write_all(&directory)?;
        self.sink.write_all(&length)?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}
