//! Rows at rest: Parquet with modular encryption (AES-256-GCM, footer included), one row for each individual.
//!
//! *In*: rows, at ingest; a [`Selection`], at a round. *Out*: [`RowGroup`]s that hold the selected columns and blocks and nothing
//! else; the rest of the file is not read. *Trusts*: the key. *Refuses*: a file that another key made, or whose bytes were
//! changed: every page that is read is authenticated, and bound to its place.
//!
//! Columns: `id` (text; read by ingest only), `place` (the head of the row's place in the keyed order), one for each dictionary column
//! (`c.NAME`), and one for each block of 4,096 variants of a catalogue (`g.CATALOGUE.BLOCK`, 1,024 bytes, see `pack`). The footer also
//! says which of how many equal parts of the keyed order each row group is. No statistics are written.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int32Builder, StringBuilder, UInt32Builder};
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, RecordBatch, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::decrypt::FileDecryptionProperties;
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use vestibule_protocol::catalogue::VariantSlice;
use vestibule_protocol::dictionary::{Dictionary, Kind};
use vestibule_protocol::round::Round;
use vestibule_protocol::shape::{self, ShapeError};

use super::pack::{BLOCK_BYTES, BLOCK_VARIANTS, unpack};
use super::withdrawal::Withdrawn;
use super::{DatasetInfo, Value};

pub(super) const FILE: &str = "people.parquet";
/// The most individuals of a row group: the unit of parallel work. 1,024 individuals x 100 blocks are 100 MB, which a thread can hold.
pub(crate) const GROUP_ROWS: usize = 1_024;

/// What a round reads: resolved against one dataset's description.
#[derive(Debug, Clone)]
pub struct Selection {
    columns: Vec<usize>,
    /// Catalogue, block, and the stretch of that block.
    stretches: Vec<Stretch>,
    places: bool,
    /// Whether guests are shown the dosages.
    shown: bool,
}

#[derive(Debug, Clone)]
struct Stretch {
    catalogue: usize,
    block: usize,
    start: usize,
    end: usize,
}

impl Selection {
    pub(super) fn new(info: &DatasetInfo, columns: &[String], slices: &[VariantSlice]) -> Result<Self, ShapeError> {
        let columns = shape::columns(&info.dictionary, columns)?;
        let mut stretches = Vec::new();
        for (catalogue, range) in shape::slices(&info.catalogues, slices)? {
            let mut at = range.start;
            while at < range.end {
                let block = at / BLOCK_VARIANTS;
                let first = block.saturating_mul(BLOCK_VARIANTS);
                let end = range.end.min(first.saturating_add(BLOCK_VARIANTS));
                stretches.push(Stretch { catalogue, block, start: at.saturating_sub(first), end: end.saturating_sub(first) });
                at = end;
            }
        }
        Ok(Self { columns, stretches, places: false, shown: true })
    }

    /// Also reads where each row lies in the keyed order.
    #[must_use]
    pub const fn with_places(mut self) -> Self {
        self.places = true;
        self
    }

    /// What one round needs of it.
    #[must_use]
    pub fn of(&self, round: &Round) -> Self {
        let read = round.shows_dosages() || round.sums_genotypes();
        let stretches = if read { self.stretches.clone() } else { vec![] };
        Self { columns: self.columns.clone(), stretches, places: self.places, shown: round.shows_dosages() }
    }

    /// Values of a row.
    #[must_use]
    pub const fn values(&self) -> usize {
        self.columns.len()
    }

    /// Dosages of a row that guests are shown.
    #[must_use]
    pub fn dosages(&self) -> usize {
        if self.shown { self.variants() } else { 0 }
    }

    /// Variants of a row that are read.
    #[must_use]
    pub fn variants(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.end.saturating_sub(stretch.start)).sum()
    }
}

/// The selected part of some individuals' rows.
pub struct RowGroup {
    rows: usize,
    places: Option<UInt64Array>,
    columns: Vec<Cells>,
    stretches: Vec<(FixedSizeBinaryArray, usize, usize)>,
    shown: bool,
}

/// Everybody's genotypes at a stretch of a block, as they are stored: two bits each, see `pack`.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    bytes: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Packed<'a> {
    /// The rows, one after the other.
    pub(crate) const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of a row.
    #[expect(clippy::unused_self, reason = "the same for all, today")]
    pub(crate) const fn stride(&self) -> usize {
        BLOCK_BYTES
    }

    /// Where in a row the stretch begins.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    /// Variants of the stretch.
    pub(crate) const fn variants(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

enum Cells {
    Numbers(Float64Array),
    Levels(UInt32Array),
    Flags(BooleanArray),
    Days(Int32Array),
}

impl RowGroup {
    /// How many individuals.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rows
    }

    /// Rows of nothing but genotypes.
    #[cfg(test)]
    pub(crate) fn of_genotypes(rows: usize, stretches: &[(usize, usize)], mut byte: impl FnMut() -> u8) -> Self {
        let mut block = || -> Vec<u8> { (0..rows * BLOCK_BYTES).map(|_| byte()).collect() };
        let array = |bytes: Vec<u8>| FixedSizeBinaryArray::try_new(BLOCK_WIDTH, bytes.into(), None).unwrap();
        let stretches = stretches.iter().map(|&(start, end)| (array(block()), start, end)).collect();
        Self { rows, places: None, columns: vec![], stretches, shown: false }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Where a row lies in the keyed order, as a part of 2^64; 0 where that was not asked for.
    pub(crate) fn place(&self, index: usize) -> u64 {
        self.places.as_ref().filter(|places| index < places.len()).map_or(0, |places| places.value(index))
    }

    /// The genotypes that were read, stretch by stretch.
    pub(crate) fn packed(&self) -> impl Iterator<Item = Packed<'_>> {
        self.stretches.iter().map(|(blocks, start, end)| Packed { bytes: blocks.value_data(), start: *start, end: *end })
    }

    /// Writes one individual's values, and its dosages (0, 1, 2 or 255 where missing) where they are shown, over the buffers.
    pub fn fill(&self, index: usize, values: &mut Vec<Value>, dosages: &mut Vec<u8>) {
        values.clear();
        values.extend(self.columns.iter().map(|cells| cells.value(index)));
        dosages.clear();
        if !self.shown {
            return;
        }
        for (blocks, start, end) in &self.stretches {
            if index < blocks.len() {
                unpack(blocks.value(index), *start, *end, dosages);
            }
        }
    }
}

impl std::fmt::Debug for RowGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowGroup(withheld)")
    }
}

impl Cells {
    fn of(array: &ArrayRef) -> Option<Self> {
        let any = array.as_any();
        if let Some(array) = any.downcast_ref::<Float64Array>() {
            return Some(Self::Numbers(array.clone()));
        }
        if let Some(array) = any.downcast_ref::<UInt32Array>() {
            return Some(Self::Levels(array.clone()));
        }
        if let Some(array) = any.downcast_ref::<BooleanArray>() {
            return Some(Self::Flags(array.clone()));
        }
        any.downcast_ref::<Int32Array>().map(|array| Self::Days(array.clone()))
    }

    fn value(&self, index: usize) -> Value {
        let known = |array: &dyn Array| index < array.len() && array.is_valid(index);
        match self {
            Self::Numbers(array) if known(array) => Value::Number(array.value(index)),
            Self::Levels(array) if known(array) => Value::Level(array.value(index)),
            Self::Flags(array) if known(array) => Value::Flag(array.value(index)),
            Self::Days(array) if known(array) => Value::Day(array.value(index)),
            _ => Value::Missing,
        }
    }
}

/// An opened file of rows.
pub(super) struct Store {
    file: PositionedFile,
    metadata: ArrowReaderMetadata,
    withdrawn: Withdrawn,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Rows of those who are withdrawn are not read.
    pub(super) fn open(file: File, key: &[u8], withdrawn: Withdrawn) -> Result<Self, String> {
        let bytes = file.metadata().map_err(|error| error.to_string())?.len();
        let file = PositionedFile { file: Arc::new(file), bytes, read: Arc::default() };
        let text = |error: ParquetError| error.to_string();
        let decryption = FileDecryptionProperties::builder(key.to_vec()).build().map_err(text)?;
        let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(text)?;
        Ok(Self { file, metadata, withdrawn })
    }

    /// Bytes of the file that were read, its footer's among them.
    pub(super) fn bytes_read(&self) -> u64 {
        self.file.read.load(Ordering::Relaxed)
    }

    pub(super) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// For each row group, which part of the keyed order it is; and of how many.
    pub(super) fn parts(&self) -> Result<(Vec<u64>, u64), String> {
        let pairs = self.metadata.metadata().file_metadata().key_value_metadata();
        let found = pairs.into_iter().flatten().find(|pair| pair.key == PARTS).and_then(|pair| pair.value.as_deref());
        let (parts, of): (Vec<u64>, u64) = found
            .and_then(|json| serde_json::from_str(json).ok())
            .ok_or("the footer does not say which parts of the keyed order its row groups are: ingest it again")?;
        let good =
            parts.len() == self.row_groups() && parts.is_sorted_by(|a, b| a < b) && parts.last().is_none_or(|last| *last < of);
        if good { Ok((parts, of)) } else { Err("the footer's parts are not those of its row groups".to_owned()) }
    }

    /// How many rows lie before a group.
    pub(super) fn rows_before(&self, group: usize) -> usize {
        let rows = self.metadata.metadata().row_groups().iter().take(group).map(|group| group.num_rows());
        usize::try_from(rows.fold(0, i64::saturating_add)).unwrap_or(usize::MAX)
    }

    pub(super) fn read(&self, selection: &Selection, group: usize) -> Result<RowGroup, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let fields = self.metadata.schema().fields();
        let place =
            |name: &str| fields.find(name).map(|(place, _)| place).ok_or_else(|| format!("there is no column `{name}`"));
        let columns = self.column_names(selection);
        let blocks: Vec<String> =
            selection.stretches.iter().map(|stretch| block_name(stretch.catalogue, stretch.block)).collect();
        let by_place = selection.places || !self.withdrawn.is_empty();
        let place_column = by_place.then(|| PLACE.to_owned());
        let wanted =
            place_column.iter().chain(&columns).chain(&blocks).map(|name| place(name)).collect::<Result<Vec<_>, _>>()?;
        let mask = ProjectionMask::leaves(self.metadata.parquet_schema(), wanted);
        let rows = self.metadata.metadata().row_group(group).num_rows();
        let rows = usize::try_from(rows).map_err(|error| text(&error))?;
        let mut found = RowGroup { rows, places: None, columns: vec![], stretches: vec![], shown: selection.shown };
        if columns.is_empty() && blocks.is_empty() && !by_place {
            return Ok(found);
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone());
        let mut reader = builder
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(rows.max(1))
            .build()
            .map_err(|error| text(&error))?;
        let batch = reader.next().ok_or("a row group is empty")?.map_err(|error| text(&error))?;
        let batch = self.without_withdrawn(batch).map_err(|error| text(&error))?;
        found.rows = batch.num_rows();
        let array = |name: &String| batch.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"));
        if let Some(name) = &place_column {
            let places = array(name)?.as_any().downcast_ref::<UInt64Array>().cloned();
            found.places = Some(places.ok_or_else(|| format!("column `{name}` has another type"))?);
        }
        for name in &columns {
            let cells = Cells::of(array(name)?);
            found.columns.push(cells.ok_or_else(|| format!("column `{name}` has another type"))?);
        }
        for (name, stretch) in blocks.iter().zip(&selection.stretches) {
            let blocks = array(name)?.as_any().downcast_ref::<FixedSizeBinaryArray>().cloned();
            // The reducer looks at all rows' bytes at once.
            let whole = |blocks: &FixedSizeBinaryArray| blocks.value_data().len() == found.rows.saturating_mul(BLOCK_BYTES);
            let blocks = blocks.filter(whole).ok_or_else(|| format!("column `{name}` has another type"))?;
            found.stretches.push((blocks, stretch.start, stretch.end));
        }
        Ok(found)
    }

    /// A batch that has the column of places, without the rows of those who are withdrawn.
    fn without_withdrawn(&self, batch: RecordBatch) -> ParquetResult<RecordBatch> {
        if self.withdrawn.is_empty() {
            return Ok(batch);
        }
        let places = batch.column_by_name(PLACE).and_then(|array| array.as_any().downcast_ref::<UInt64Array>());
        let places = places.ok_or_else(|| ParquetError::General("there is no column of places".to_owned()))?;
        let stays: BooleanArray = places.values().iter().map(|head| Some(!self.withdrawn.has_head(*head))).collect();
        if stays.true_count() == stays.len() {
            return Ok(batch);
        }
        Ok(filter_record_batch(&batch, &stays)?)
    }

    /// How many rows of withdrawn individuals the file still has.
    pub(super) fn withdrawn_rows(&self) -> Result<u64, String> {
        if self.withdrawn.is_empty() {
            return Ok(0);
        }
        let mut gone = 0_u64;
        for group in 0..self.row_groups() {
            let nothing = Selection { columns: vec![], stretches: vec![], places: true, shown: false };
            let there = self.read(&nothing, group)?.len();
            let all = self.metadata.metadata().row_group(group).num_rows();
            gone = gone.saturating_add(u64::try_from(all).unwrap_or(0).saturating_sub(there as u64));
        }
        Ok(gone)
    }

    /// Writes all rows but those of withdrawn individuals, group by group, under another key. Returns the sink.
    pub(super) fn copy_without_withdrawn<W: Write + Send>(&self, sink: W, key: &[u8]) -> ParquetResult<W> {
        let (parts, of) = self.parts().map_err(ParquetError::General)?;
        let mut writer = ArrowWriter::try_new(sink, Arc::clone(self.metadata.schema()), Some(properties(key)?))?;
        let mut left = Vec::new();
        for (group, part) in parts.into_iter().enumerate() {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone());
            let mut reader = builder.with_row_groups(vec![group]).with_batch_size(GROUP_ROWS).build()?;
            let batch = reader.next().ok_or_else(|| ParquetError::General("a row group is empty".to_owned()))??;
            let batch = self.without_withdrawn(batch)?;
            if batch.num_rows() > 0 {
                writer.write(&batch)?;
                writer.flush()?;
                left.push(part);
            }
        }
        end(writer, &left, of)
    }

    /// Columns are stored in the dictionary's order behind `id` and `place`.
    fn column_names(&self, selection: &Selection) -> Vec<String> {
        let fields = self.metadata.schema().fields();
        let name = |&index: &usize| fields.get(index.saturating_add(2)).map(|field| field.name().clone()).unwrap_or_default();
        selection.columns.iter().map(name).collect()
    }
}

const PLACE: &str = "place";
/// The footer's key for which parts of the keyed order the row groups are.
const PARTS: &str = "vestibule.parts";

fn block_name(catalogue: usize, block: usize) -> String {
    format!("g.{catalogue}.{block}")
}

/// Blocks that a catalogue of that many variants takes.
pub(super) const fn blocks(variants: usize) -> usize {
    variants.div_ceil(BLOCK_VARIANTS)
}

/// Writes rows, in the order they come.
pub(super) struct RowWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: Arc<Schema>,
    kinds: Vec<Kind>,
    /// Of the row groups so far.
    parts: Vec<u64>,
}

impl<W: Write + Send> RowWriter<W> {
    /// `catalogues`: how many variants each has.
    pub(super) fn new(sink: W, key: &[u8], dictionary: &Dictionary, catalogues: &[usize]) -> ParquetResult<Self> {
        let mut fields = vec![Field::new("id", DataType::Utf8, false), Field::new(PLACE, DataType::UInt64, false)];
        for column in &dictionary.columns {
            let kind = match column.kind {
                Kind::Number { .. } => DataType::Float64,
                Kind::Levels(_) => DataType::UInt32,
                Kind::Flag => DataType::Boolean,
                Kind::Day => DataType::Int32,
            };
            fields.push(Field::new(format!("c.{}", column.name), kind, true));
        }
        for (index, &variants) in catalogues.iter().enumerate() {
            let block = |block| Field::new(block_name(index, block), DataType::FixedSizeBinary(BLOCK_WIDTH), false);
            fields.extend((0..blocks(variants)).map(block));
        }
        let schema = Arc::new(Schema::new(fields));
        let writer = ArrowWriter::try_new(sink, Arc::clone(&schema), Some(properties(key)?))?;
        let kinds = dictionary.columns.iter().map(|column| column.kind.clone()).collect();
        Ok(Self { writer, schema, kinds, parts: vec![] })
    }

    /// Adds a row group, which is that part of the keyed order: ids and places with values in the dictionary's order, and for each
    /// block of each catalogue everybody's bytes, one individual after the other.
    pub(super) fn group(&mut self, part: u64, rows: &[(&String, u64, Vec<Value>)], blocks: Vec<Vec<u8>>) -> ParquetResult<()> {
        self.parts.push(part);
        let mut ids = StringBuilder::new();
        rows.iter().for_each(|(id, ..)| ids.append_value(id));
        let places = UInt64Array::from_iter_values(rows.iter().map(|(_, place, _)| *place));
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(ids.finish()), Arc::new(places)];
        for (place, kind) in self.kinds.iter().enumerate() {
            let values = rows.iter().map(|(.., values)| values.get(place).copied().unwrap_or(Value::Missing));
            arrays.push(column(kind, values));
        }
        for block in blocks {
            arrays.push(Arc::new(FixedSizeBinaryArray::try_new(BLOCK_WIDTH, block.into(), None)?));
        }
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)?;
        self.writer.flush()
    }

    /// Writes the footer, for a keyed order of so many equal parts. Returns the sink.
    pub(super) fn finish(self, of: u64) -> ParquetResult<W> {
        end(self.writer, &self.parts, of)
    }
}

/// How rows are written.
fn properties(key: &[u8]) -> ParquetResult<WriterProperties> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .with_file_encryption_properties(FileEncryptionProperties::builder(key.to_vec()).build()?)
        .build())
}

/// Writes the footer: which of how many equal parts of the keyed order the row groups are. Returns the sink.
fn end<W: Write + Send>(mut writer: ArrowWriter<W>, parts: &[u64], of: u64) -> ParquetResult<W> {
    let parts = serde_json::to_string(&(parts, of)).map_err(|error| ParquetError::External(error.into()))?;
    writer.append_key_value_metadata(KeyValue::new(PARTS.to_owned(), parts));
    writer.into_inner()
}

/// Bytes of a block, as Arrow counts.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "1,024")]
const BLOCK_WIDTH: i32 = BLOCK_BYTES as i32;

fn column(kind: &Kind, values: impl Iterator<Item = Value>) -> ArrayRef {
    match kind {
        Kind::Number { .. } => {
            let mut builder = Float64Builder::new();
            values.for_each(|value| builder.append_option(if let Value::Number(number) = value { Some(number) } else { None }));
            Arc::new(builder.finish())
        }
        Kind::Levels(_) => {
            let mut builder = UInt32Builder::new();
            values.for_each(|value| builder.append_option(if let Value::Level(level) = value { Some(level) } else { None }));
            Arc::new(builder.finish())
        }
        Kind::Flag => {
            let mut builder = BooleanBuilder::new();
            values.for_each(|value| builder.append_option(if let Value::Flag(flag) = value { Some(flag) } else { None }));
            Arc::new(builder.finish())
        }
        Kind::Day => {
            let mut builder = Int32Builder::new();
            values.for_each(|value| builder.append_option(if let Value::Day(day) = value { Some(day) } else { None }));
            Arc::new(builder.finish())
        }
    }
}

/// A file that several threads read at once: parquet's own reader of `File` moves a shared position.
#[derive(Clone)]
struct PositionedFile {
    file: Arc<File>,
    bytes: u64,
    /// How many bytes were read so far.
    read: Arc<AtomicU64>,
}

struct PositionedRead {
    file: PositionedFile,
    position: u64,
}

impl Read for PositionedRead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.file.read_at(buffer, self.position)?;
        self.file.read.fetch_add(read as u64, Ordering::Relaxed);
        self.position = self.position.saturating_add(read as u64);
        Ok(read)
    }
}

impl Length for PositionedFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for PositionedFile {
    type T = PositionedRead;

    fn get_read(&self, start: u64) -> ParquetResult<PositionedRead> {
        Ok(PositionedRead { file: self.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(ParquetError::EOF("the file is shorter than its footer says".to_owned()));
        }
        let mut buffer = vec![0; length];
        self.file.read_exact_at(&mut buffer, start)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(buffer.into())
    }
}
