//! One column of a row group as bytes.
//!
//! *In*: values of one kind. *Out*: a bit for each row that says whether it is known, then as many bytes for each row as the kind takes. So how long a chunk is
//! follows from how many rows it has, and from nothing that is in them. *Refuses*: bytes of another length.

use serde::{Deserialize, Serialize};
use vestibule_protocol::dictionary::Kind;

use super::super::Value;

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cell {
    Number,
    Level,
    Flag,
    Day,
}

impl Cell {
    pub(super) const fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Number { .. } => Self::Number,
            Kind::Levels(_) => Self::Level,
            Kind::Flag => Self::Flag,
            Kind::Day => Self::Day,
        }
    }

    /// Bytes of a value.
    const fn width(self) -> usize {
        match self {
            Self::Number => 8,
            Self::Level | Self::Day => 4,
            Self::Flag => 1,
        }
    }

    /// Bytes of that many rows.
    pub(super) const fn length(self, rows: usize) -> usize {
        rows.div_ceil(8).saturating_add(rows.saturating_mul(self.width()))
    }

    /// Values of another kind count as missing.
    pub(super) fn encode(self, values: impl ExactSizeIterator<Item = Value>) -> Vec<u8> {
        let mut known = vec![0_u8; values.len().div_ceil(8)];
        let mut bytes = Vec::with_capacity(values.len().saturating_mul(self.width()));
        for (row, value) in values.enumerate() {
            let before = bytes.len();
            match (self, value) {
                (Self::Number, Value::Number(number)) => bytes.extend(number.to_le_bytes()),
                (Self::Level, Value::Level(level)) => bytes.extend(level.to_le_bytes()),
                (Self::Flag, Value::Flag(flag)) => bytes.push(u8::from(flag)),
                (Self::Day, Value::Day(day)) => bytes.extend(day.to_le_bytes()),
                _ => {}
            }
            if bytes.len() > before {
                known.iter_mut().skip(row / 8).take(1).for_each(|byte| *byte |= 1 << (row % 8));
            } else {
                bytes.resize(before.saturating_add(self.width()), 0);
            }
        }
        known.append(&mut bytes);
        known
    }

    /// `None` where there are not that many rows.
    pub(super) fn decode(self, bytes: &[u8], rows: usize) -> Option<Vec<Value>> {
        let mut values = vec![];
        self.decode_over(bytes, rows, &mut values)?;
        Some(values)
    }

    /// The same, over what is in `values`, which are worth nothing where this is `None`.
    pub(super) fn decode_over(self, bytes: &[u8], rows: usize, values: &mut Vec<Value>) -> Option<()> {
        values.clear();
        let (known, bytes) = bytes.split_at_checked(rows.div_ceil(8))?;
        if bytes.len() != rows.checked_mul(self.width())? {
            return None;
        }
        for (row, bytes) in bytes.chunks_exact(self.width()).enumerate() {
            if known.get(row / 8).is_none_or(|byte| byte >> (row % 8) & 1 == 0) {
                values.push(Value::Missing);
                continue;
            }
            values.push(match self {
                Self::Number => Value::Number(f64::from_le_bytes(bytes.try_into().ok()?)),
                Self::Level => Value::Level(u32::from_le_bytes(bytes.try_into().ok()?)),
                Self::Flag => Value::Flag(*bytes.first()? != 0),
                Self::Day => Value::Day(i32::from_le_bytes(bytes.try_into().ok()?)),
            });
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_lengths_follow_from_rows_alone() {
        let kinds = [
            (Cell::Number, [Value::Number(-0.5), Value::Number(f64::MAX)]),
            (Cell::Level, [Value::Level(0), Value::Level(u32::MAX)]),
            (Cell::Flag, [Value::Flag(false), Value::Flag(true)]),
            (Cell::Day, [Value::Day(i32::MIN), Value::Day(1)]),
        ];
        for (cell, [one, two]) in kinds {
            for rows in [0, 1, 7, 8, 9, 1_024] {
                let values: Vec<Value> = (0..rows).map(|row| [one, two, Value::Missing][row * 7 % 3]).collect();
                let bytes = cell.encode(values.iter().copied());
                assert_eq!([bytes.len(), cell.encode(vec![Value::Missing; rows].into_iter()).len()], [cell.length(rows); 2]);
                assert!(cell.decode(&bytes, rows).unwrap() == values);
                assert!(cell.decode(&bytes, rows + 1).is_none());
                assert!(bytes.is_empty() || cell.decode(&bytes[1..], rows).is_none());
            }
            assert!(cell.decode(&cell.encode([Value::Missing].into_iter()), 1).unwrap() == [Value::Missing]);
        }
        let other = Cell::Number.encode([Value::Level(3)].into_iter());
        assert!(Cell::Number.decode(&other, 1).unwrap() == [Value::Missing]);
    }
}
