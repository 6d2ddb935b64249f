//! The readers of what others wrote: variant files, tables, recipes, encrypted files.
//!
//! *In*: bytes, which may be made to do harm. *Out*: values of known shape, or an error that says where a file is wrong. Variant files and tables are
//! read by [`work`] alone, which a site runs in a process that has no network, no keys and no files but the one it reads; recipes are the site's
//! own, and files that are encrypted for it are opened by the site, which has the key ([`Decrypted`]).
//!
//! Every reader is fuzzed (`fuzz/`, and [`fuzz`] here).

mod budget;
mod codes;
mod conditions;
mod config;
mod crypt4gh;
mod days;
#[doc(hidden)]
pub mod fuzz;
mod genotypes;
mod message;
mod plink;
mod report;
mod table;
mod value;
mod variants;
mod work;

pub use budget::{LifetimeBudget, SUMS_DELTA};
pub use codes::{MISSING, MISSING_BYTE, pack};
pub use conditions::{Conditions, modifiers, permission};
pub use config::{Config, ConfigError, Duplicates, Individuals, MapConfig, Mapping, TableConfig, VariantsConfig};
pub use crypt4gh::{Crypt4ghKey, Decrypted, MAGIC};
pub use message::{Bytes, Cell, Row, Rows, Said, Talk, Task};
pub use plink::beside;
pub use report::{IngestReport, Note, Notes};
pub use table::value;
pub use value::Value;
pub use variants::{Batch, Place, Seen};
pub use work::work;

/// `Debug` that says what something is, and nothing of what is in it.
macro_rules! withheld {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(withheld)"))
            }
        }
    )*};
}
use withheld;
