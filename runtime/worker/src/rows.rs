//! Rows and contributions in the memory file.
//!
//! ```text
//! partition      u32 individuals, then each one's row
//! row            u32 values, each u8 kind + 8 bytes; u32 dosages, a byte each
//! contributions  u8: 0 none (the guest failed), 1 some; then u32 how many, each u8 kind; a list has u32 length before its entries
//! kinds          0 nothing, 1 cell (u32), 2 bytes, 3 integers, 4 reals, 5 integers or reals that all fit a signed byte, which dosages do
//! ```
//!
//! All little-endian. *Trusts*: rows, which the daemon wrote. Contributions come from a worker that may lie: *refuses* whatever runs
//! past the bytes, and more contributions or longer lists than the round has.

use std::ops::Range;

use vestibule_sandbox::{Contribution, Given, Individual, Value};

use crate::message::Rehearsals;

/// Bytes that a partition of that many individuals takes.
pub(crate) const fn partition_bytes(individuals: usize, values: usize, dosages: usize) -> usize {
    individuals.saturating_mul(row_bytes(values, dosages)).saturating_add(4)
}

/// Bytes that a row takes.
pub(crate) const fn row_bytes(values: usize, dosages: usize) -> usize {
    8_usize.saturating_add(values.saturating_mul(9)).saturating_add(dosages)
}

/// Most bytes that the contributions to statistics of these lengths take.
pub(crate) fn contribution_bytes(lengths: &[usize]) -> usize {
    lengths.iter().fold(5, |sum, length| sum.saturating_add(5).saturating_add(length.saturating_mul(8)))
}

/// Begins a partition. Returns where its number of individuals goes.
pub(crate) fn put_partition(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    put_length(out, 0);
    at
}

/// Ends the partition that begins at `at`.
pub(crate) fn end_partition(out: &mut [u8], at: usize, individuals: usize) {
    if let Some(head) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *head = u32::try_from(individuals).unwrap_or(u32::MAX).to_le_bytes();
    }
}

pub(crate) fn put_row(out: &mut Vec<u8>, values: &[Value], dosages: &[u8]) {
    put_length(out, values.len());
    for value in values {
        let (kind, bits) = match *value {
            Value::Missing => (0_u8, 0),
            Value::Number(number) => (1, number.to_bits()),
            Value::Level(level) => (2, u64::from(level)),
            Value::Flag(flag) => (3, u64::from(flag)),
            Value::Day(day) => (4, i64::from(day).cast_unsigned()),
        };
        out.push(kind);
        out.extend_from_slice(&bits.to_le_bytes());
    }
    put_length(out, dosages.len());
    out.extend_from_slice(dosages);
}

/// Public partitions to rehearse a round with.
impl Rehearsals {
    /// Adds a partition of these individuals: values, and dosages.
    pub fn push(&mut self, individuals: &[(Vec<Value>, Vec<u8>)]) {
        let at = put_partition(&mut self.rows);
        individuals.iter().for_each(|(values, dosages)| put_row(&mut self.rows, values, dosages));
        end_partition(&mut self.rows, at, individuals.len());
        self.partitions = self.partitions.saturating_add(1);
    }
}

/// Partitions as they lie in the memory file: of each, its individuals.
pub(crate) struct Partitions<'a> {
    individuals: Vec<(Range<usize>, &'a [u8])>,
    values: Vec<Value>,
    ends: Vec<usize>,
}

impl<'a> Partitions<'a> {
    /// `None`: the bytes end too soon, or are no rows.
    pub(crate) fn read(bytes: &'a [u8], partitions: u32) -> Option<Self> {
        // All that is allocated here is allocated once a batch, however many individuals it has.
        let (mut reader, mut values) = (Reader(bytes), vec![]);
        let (mut individuals, mut ends) = (vec![], vec![]);
        for _ in 0..partitions {
            for _ in 0..reader.individuals()? {
                let first = values.len();
                let dosages = reader.row(&mut values)?;
                individuals.push((first..values.len(), dosages));
            }
            ends.push(individuals.len());
        }
        Some(Self { individuals, values, ends })
    }

    /// Each partition's individuals, one after the other.
    pub(crate) fn shown(&self) -> Vec<Individual<'_>> {
        let shown = |(range, dosages): &(Range<usize>, &'a [u8])| Individual {
            values: self.values.get(range.clone()).unwrap_or_default(),
            dosages,
        };
        self.individuals.iter().map(shown).collect()
    }

    /// Where each partition's individuals are among those.
    pub(crate) fn each(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(self.ends.iter().copied()).map(|(start, end)| start..end)
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Rows and lists are far shorter than 2^32; one that is not could not be read back, and fails.
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// Takes from the front of bytes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?)).ok()
    }

    /// How many individuals a partition has.
    pub(crate) fn individuals(&mut self) -> Option<usize> {
        self.length()
    }

    /// One row: its values behind those that are there already. Its dosages.
    pub(crate) fn row(&mut self, values: &mut Vec<Value>) -> Option<&'a [u8]> {
        for _ in 0..self.length()? {
            let kind = self.byte()?;
            let bits = u64::from_le_bytes(self.bytes(8)?.try_into().ok()?);
            values.push(match kind {
                0 => Value::Missing,
                1 => Value::Number(f64::from_bits(bits)),
                2 => Value::Level(u32::try_from(bits).ok()?),
                3 => Value::Flag(bits != 0),
                4 => Value::Day(i32::try_from(bits.cast_signed()).ok()?),
                _ => return None,
            });
        }
        let dosages = self.length()?;
        self.bytes(dosages)
    }

    /// One partition's contributions, over what is in `found`: `Some(false)` where its guest failed, `None` where the bytes are not what a worker
    /// writes.
    pub(crate) fn contributions(&mut self, lengths: &[usize], found: &mut Vec<Given<'a>>) -> Option<bool> {
        found.clear();
        match self.byte()? {
            0 => return Some(false),
            1 => {}
            _ => return None,
        }
        if self.length()? != lengths.len() {
            return None;
        }
        for &most in lengths {
            found.push(self.contribution(most)?);
        }
        Some(true)
    }

    fn contribution(&mut self, most: usize) -> Option<Given<'a>> {
        let kind = self.byte()?;
        match kind {
            0 => return Some(Given::None),
            1 => return Some(Given::Cell(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))),
            _ => {}
        }
        let length = self.length().filter(|length| *length <= most)?;
        Some(match kind {
            2 => Given::Bytes(self.bytes(length)?),
            3 => Given::IntegerWords(self.words(length)?),
            4 => Given::RealWords(self.words(length)?),
            5 => Given::Small(self.bytes(length)?),
            _ => return None,
        })
    }

    fn words(&mut self, length: usize) -> Option<&'a [[u8; 8]]> {
        Some(self.bytes(length.checked_mul(8)?)?.as_chunks::<8>().0)
    }
}

/// Writes one partition's contributions. What has not the round's shape is written as nothing, which is what it counts for.
#[expect(clippy::cast_possible_truncation, reason = "whether a byte holds the value is what is asked")]
pub(crate) fn put_contributions(out: &mut Vec<u8>, contributions: Option<&[Contribution]>, lengths: &[usize]) {
    let Some(contributions) = contributions.filter(|found| found.len() == lengths.len()) else {
        out.push(0);
        return;
    };
    out.push(1);
    put_length(out, contributions.len());
    for (contribution, &length) in contributions.iter().zip(lengths) {
        match contribution {
            Contribution::Cell(cell) => {
                out.push(1);
                out.extend_from_slice(&cell.to_le_bytes());
            }
            Contribution::Bytes(values) if values.len() == length => {
                out.push(2);
                put_length(out, length);
                out.extend_from_slice(values);
            }
            Contribution::Integers(values) if values.len() == length => {
                if !put_small(out, values, |value: i64| (value as i8, i64::from(value as i8) == value)) {
                    put_words(out, 3, values, |value: &i64| value.to_le_bytes());
                }
            }
            Contribution::Reals(values) if values.len() == length => {
                if !put_small(out, values, |value: f64| (value as i8, f64::from(value as i8) == value)) {
                    put_words(out, 4, values, |value: &f64| value.to_le_bytes());
                }
            }
            _ => out.push(0),
        }
    }
}

/// Writes a byte for each value where `small` says that it stands for the value exactly; else writes nothing. (Minus zero counts as
/// zero, as it does for every bound.)
fn put_small<T: Copy>(out: &mut Vec<u8>, values: &[T], small: impl Fn(T) -> (i8, bool)) -> bool {
    // A first look, so that a list of other numbers is not gone through twice.
    if !values.first().is_none_or(|&value| small(value).1) {
        return false;
    }
    let before = out.len();
    out.push(5);
    put_length(out, values.len());
    let mut all = true;
    out.extend(values.iter().map(|&value| {
        let (byte, exact) = small(value);
        all &= exact;
        byte.cast_unsigned()
    }));
    if !all {
        out.truncate(before);
    }
    all
}

fn put_words<T>(out: &mut Vec<u8>, kind: u8, values: &[T], bytes: impl Fn(&T) -> [u8; 8]) {
    out.push(kind);
    put_length(out, values.len());
    let start = out.len();
    out.resize(start.saturating_add(values.len().saturating_mul(8)), 0);
    let words = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<8>().0;
    words.iter_mut().zip(values).for_each(|(word, value)| *word = bytes(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        let values = [
            Value::Missing,
            Value::Number(-0.1),
            Value::Level(u32::MAX),
            Value::Flag(true),
            Value::Day(-1),
            Value::Flag(false),
        ];
        let mut bytes = vec![];
        put_row(&mut bytes, &values, &[0, 1, 2, 255]);
        assert_eq!(bytes.len(), row_bytes(6, 4));
        put_row(&mut bytes, &[], &[]);
        let mut reader = Reader(&bytes);
        let mut found = vec![];
        assert_eq!(reader.row(&mut found), Some([0, 1, 2, 255].as_slice()));
        assert_eq!(format!("{found:?}"), format!("{values:?}"));
        assert_eq!(reader.row(&mut found), Some([].as_slice()));
        assert!(found.len() == values.len() && reader.0.is_empty());
        let mut bytes = vec![];
        let at = put_partition(&mut bytes);
        (0..3).for_each(|_| put_row(&mut bytes, &values, &[1]));
        end_partition(&mut bytes, at, 3);
        assert_eq!((bytes.len(), Reader(&bytes).individuals()), (partition_bytes(3, 6, 1), Some(3)));
    }

    #[test]
    fn contributions_come_back_and_wrong_shapes_count_as_nothing() {
        let lengths = [2, 9, 3, 1, 3, 4, 1];
        let sent = [
            Contribution::Reals(vec![f64::NAN, -1.5]),
            Contribution::Cell(8),
            Contribution::Bytes(vec![1, 2, 3]),
            Contribution::Integers(vec![i64::MIN]),
            Contribution::Integers(vec![-128, 127, 0]),
            Contribution::Reals(vec![-1.0, 0.0, 127.0, -128.0]),
            Contribution::Reals(vec![1.0, 2.0]),
        ];
        let mut bytes = vec![];
        put_contributions(&mut bytes, Some(&sent), &lengths);
        put_contributions(&mut bytes, None, &lengths);
        put_contributions(&mut bytes, Some(&sent[..4]), &lengths);
        assert!(bytes.len() <= 3 * contribution_bytes(&lengths));
        let mut reader = Reader(&bytes);
        let mut found = vec![];
        assert_eq!(reader.contributions(&lengths, &mut found), Some(true));
        let (Given::RealWords(reals), Given::IntegerWords(integers)) = (found[0], found[3]) else { panic!("words") };
        assert!(f64::from_le_bytes(reals[0]).is_nan() && reals[1] == (-1.5_f64).to_le_bytes());
        assert_eq!(integers, [i64::MIN.to_le_bytes()]);
        assert!(matches!(found[1], Given::Cell(8)) && matches!(found[2], Given::Bytes([1, 2, 3])));
        assert!(matches!(found[4], Given::Small([0x80, 0x7f, 0])) && matches!(found[5], Given::Small([0xff, 0, 0x7f, 0x80])));
        assert!(matches!(found[6], Given::None));
        let next = [(); 3].map(|()| reader.contributions(&lengths, &mut vec![]));
        assert_eq!(next, [Some(false), Some(false), None], "two that failed, and there is no more");
        // Whatever a worker writes instead is refused or of the round's shape.
        for at in 0..bytes.len() {
            for flip in [1, 4, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let mut reader = Reader(&changed);
                let mut found = vec![];
                while let Some(some) = reader.contributions(&lengths, &mut found) {
                    assert_eq!(found.len(), if some { lengths.len() } else { 0 });
                }
            }
        }
    }
}
