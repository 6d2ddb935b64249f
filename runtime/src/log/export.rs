//! The log as files that anybody can serve and check (<https://c2sp.org/tlog-tiles>), for an oversight body to keep.
//!
//! *In*: the ledger's file, a new folder's name. *Out*: `checkpoint`, `tile/LEVEL/NUMBER`, `tile/entries/NUMBER`, up to the newest checkpoint that witnesses
//! cosigned. *Trusts*: nothing: anyone who has the files can recompute the root from the entries. *Refuses*: a log that was never witnessed. Details are
//! the site's own and stay there.

use std::path::{Path, PathBuf};

use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::tree::Nodes as _;

use super::folder::NewFolder;
use super::verify::LogCheckError;
use super::{Source, Stored, leaf};

/// Hashes, or entries, of a whole tile.
const WIDTH: u64 = 256;
/// Levels of the tree between two levels of tiles.
const HEIGHT: u32 = 8;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Which log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// How many files.
    pub files: u64,
}

/// Writes the log into `out`, a folder that is not there yet.
///
/// # Errors
/// There is no ledger that could be read, it was never witnessed, something is at `out` already, or a file cannot be written.
pub fn export(source: &Source, out: &Path) -> Result<Exported, LogCheckError> {
    let error = |why: rusqlite::Error| source.error(why);
    let connection = source.open()?;
    let sql = "SELECT note FROM log_checkpoint ORDER BY size DESC LIMIT 1";
    let note: Option<String> =
        rusqlite::OptionalExtension::optional(connection.query_row(sql, [], |row| row.get(0))).map_err(error)?;
    let text = note.as_deref().and_then(|note| note.split("\n\n").next()).map(|text| format!("{text}\n"));
    let checkpoint = text.as_deref().and_then(Checkpoint::parse);
    let (Some(note), Some(checkpoint)) = (note, checkpoint) else {
        return Err(source.error("no checkpoint of this log was witnessed yet"));
    };
    let folder = NewFolder::make(out)?;
    let mut files = 0;
    let mut put = |path: PathBuf, bytes: &[u8]| {
        files += 1;
        folder.put(&path, bytes)
    };
    let stored = Stored(&connection);
    let (mut level, mut count) = (0, checkpoint.size);
    while count > 0 {
        for tile in 0..count.div_ceil(WIDTH) {
            let (from, until) = (tile * WIDTH, count.min((tile + 1) * WIDTH));
            let mut hashes = Vec::new();
            for number in from..until {
                hashes.extend_from_slice(stored.node(level * HEIGHT, number).map_err(error)?.as_bytes());
            }
            put(path(&level.to_string(), tile, until - from), &hashes)?;
            if level == 0 {
                let mut entries = Vec::new();
                for number in from..until {
                    let body = leaf(&connection, number).map_err(error)?;
                    let length = u16::try_from(body.len()).map_err(|_| source.error(format!("leaf {number} is too long")))?;
                    entries.extend_from_slice(&length.to_be_bytes());
                    entries.extend_from_slice(&body);
                }
                put(path("entries", tile, until - from), &entries)?;
            }
        }
        (level, count) = (level + 1, count / WIDTH);
    }
    // Last: where it lies, everything that it promises does.
    put("checkpoint".into(), note.as_bytes())?;
    Ok(Exported { origin: checkpoint.origin, size: checkpoint.size, files })
}

/// A tile's path: its number in groups of three digits, and its width where it is not whole.
fn path(level: &str, number: u64, width: u64) -> PathBuf {
    let (mut rest, mut groups) = (number / 1_000, vec![format!("{:03}", number % 1_000)]);
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1_000));
        rest /= 1_000;
    }
    groups.reverse();
    let mut path = groups.join("/");
    if width < WIDTH {
        path.push_str(&format!(".p/{width}"));
    }
    PathBuf::from("tile").join(level).join(path)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::{Ledger, Seal};
    use vestibule_protocol::digest::Digest;
    use vestibule_protocol::key::SecretKey;
    use vestibule_protocol::log::leaf::Event;
    use vestibule_protocol::log::tree::{Growing, leaf_hash, node_hash};

    #[test]
    fn the_root_follows_from_the_files() {
        assert_eq!(path("0", 1_234_067, 256), Path::new("tile/0/x001/x234/067"));
        assert_eq!(path("entries", 5, 12), Path::new("tile/entries/005.p/12"));
        let temp = tempfile::tempdir().unwrap();
        let (file, out) = (temp.path().join("ledger.sqlite"), temp.path().join("out"));
        // Digests and tiles are for anyone who has no keys.
        let source = Source::new(&file, None);
        let ledger = Ledger::open(&file, &Seal::for_tests()).unwrap();
        assert!(export(&source, &out).unwrap_err().to_string().contains("witnessed"));
        for second in 0..600 {
            ledger.record(Event::Heartbeat, None, Duration::from_secs(second)).unwrap();
        }
        let (checkpoint, note) = ledger.checkpoint(&SecretKey::from_seed([1; 32]).unwrap()).unwrap();
        ledger.keep(checkpoint.size, &note).unwrap();
        ledger.record(Event::Heartbeat, None, Duration::from_secs(600)).unwrap();
        let exported = export(&source, &out).unwrap();
        assert_eq!(
            (exported.size, exported.files),
            (600, 8),
            "three tiles of leaves and of entries, one above, the checkpoint"
        );
        assert_eq!(std::fs::read_to_string(out.join("checkpoint")).unwrap(), note);
        let mut growing = Growing::default();
        let mut leaves = Vec::new();
        for (number, width) in [(0, 256), (1, 256), (2, 88)] {
            let entries = std::fs::read(out.join(path("entries", number, width))).unwrap();
            let mut rest = entries.as_slice();
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let (body, after) = after.split_at(u16::from_be_bytes(*length).into());
                growing.push(leaf_hash(body));
                leaves.push(leaf_hash(body));
                rest = after;
            }
            let hashes = std::fs::read(out.join(path("0", number, width))).unwrap();
            let want: Vec<u8> =
                leaves[leaves.len() - usize::try_from(width).unwrap()..].iter().flat_map(|hash| *hash.as_bytes()).collect();
            assert_eq!(hashes, want);
        }
        assert_eq!((growing.size(), growing.root()), (600, checkpoint.root));
        let whole = |leaves: &[Digest]| {
            let mut level = leaves.to_vec();
            while level.len() > 1 {
                level = level.chunks(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
            }
            *level[0].as_bytes()
        };
        assert_eq!(
            std::fs::read(out.join(path("1", 0, 2))).unwrap(),
            [whole(&leaves[..256]), whole(&leaves[256..512])].concat()
        );
    }
}
