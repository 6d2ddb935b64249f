//! One cell of an individual's row. Shows nothing in `Debug`.

/// One cell of an individual's row.
#[derive(Clone, Copy, PartialEq)]
pub enum Value {
    /// Not known.
    Missing,
    /// A number, in the dictionary's unit.
    Number(f64),
    /// Index into the column's levels.
    Level(u32),
    /// Yes or no.
    Flag(bool),
    /// Days since 1970-01-01.
    Day(i32),
}

// A value is somebody's: `Debug` says what kind it is.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "Missing",
            Self::Number(_) => "Number(withheld)",
            Self::Level(_) => "Level(withheld)",
            Self::Flag(_) => "Flag(withheld)",
            Self::Day(_) => "Day(withheld)",
        })
    }
}
