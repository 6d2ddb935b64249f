//! Which files need not be read: those whose genotypes the version that serves has already.
//!
//! *In*: what that version was read from ([`Record`]), what the files are now, who is wanted. *Out*: for each variant file, whether its genotypes are taken over. What
//! comes out is what reading all of them would give, so a file is read again wherever that is in doubt:
//!
//! * it was changed, or had another name;
//! * an individual of it is also in a file that was changed or is not named any more: some of what lies there may be that file's;
//! * an individual of it is wanted and has no row there: it was left out, or had withdrawn;
//! * another file gave some of its genotypes differently, and it is not wanted of the same number of individuals as before: how many would be told is not known;
//! * a file that is read comes before it, has an individual in common with it, and a variant: the first file's genotype holds. Whether they have a variant in common is
//!   known only when the other is read; then everything is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cap_std::fs::Dir;
use vestibule_importer::Seen;
use vestibule_protocol::catalogue::Catalogue;

use super::super::base::Heads;
use super::super::store::{Source, Store};
use super::super::withdrawal::Withdrawn;
use super::super::{DataFolder, StoreKey};
use super::marks::Known;
use super::record::{CONTRADICTED, FileRecord, Lists, Record};

/// The version that serves, and what it was read from.
pub(super) struct Growth {
    pub(super) record: Record,
    pub(super) version: String,
    /// For each catalogue, which of that version's it is, if it is one.
    pub(super) catalogues: Vec<Option<usize>>,
    pub(super) heads: Heads,
    /// Which file has which name.
    names: HashMap<String, usize>,
}

/// Files that are read again though that version has them, by why.
pub(super) type Again = BTreeMap<String, u64>;

impl Growth {
    /// What can be grown from, with its rows; or why it cannot.
    pub(super) fn open(
        (data, dir, version): (&DataFolder, &Dir, &str),
        key: &StoreKey,
        record: Record,
        catalogues: &[Arc<Catalogue>],
        least_quality: i32,
    ) -> Result<(Self, Store), String> {
        let sealed = || Some(key.sealed(version, &dir.read("info.json").ok()?, &dir.read("seal").ok()?));
        if sealed() != Some(true) {
            return Err("its description was changed".to_owned());
        }
        if record.least_quality != least_quality {
            return Err("`reference_quality` is another".to_owned());
        }
        let place = |catalogue: &Arc<Catalogue>| record.catalogues.iter().position(|digest| *digest == catalogue.digest);
        let places: Vec<Option<usize>> = catalogues.iter().map(place).collect();
        let kept: HashSet<usize> = places.iter().flatten().copied().collect();
        if kept.len() != record.catalogues.len() || kept.len() != places.iter().flatten().count() {
            return Err("a catalogue of it is not named any more".to_owned());
        }
        let store = Source::of(data, dir).and_then(|source| Store::open(source, &key.version(version), Withdrawn::default()));
        let store = store.map_err(|error| error.to_string())?;
        let heads = Heads::of(&store).map_err(|error| error.to_string())?;
        let names = record.read.files.iter().enumerate().map(|(place, file)| (file.name().to_owned(), place)).collect();
        Ok((Self { record, version: version.to_owned(), catalogues: places, heads, names }, store))
    }

    /// Which file of that version has the name of this one, and whether it is the same.
    pub(super) fn same(&self, parts: &[Known]) -> Option<(usize, bool)> {
        let place = *self.names.get(&parts.first()?.name)?;
        let before = &self.file(place)?.known;
        Some((place, before.len() == parts.len() && before.iter().zip(parts).all(|(before, now)| before.is(now))))
    }

    /// Whether there is a catalogue that it has not.
    pub(super) fn lacks_a_catalogue(&self) -> bool {
        self.catalogues.contains(&None)
    }

    /// The old record of a file.
    pub(super) fn file(&self, place: usize) -> Option<&FileRecord> {
        self.record.read.files.get(place)
    }

    /// What was seen in a file, as catalogues lie now.
    pub(super) fn seen(&self, file: &FileRecord, catalogues: &[Arc<Catalogue>]) -> Option<Seen> {
        self.record.read.seen(file)?.moved(catalogues, &self.catalogues)
    }

    /// What was seen in all of them.
    pub(super) fn all_seen(&self, catalogues: &[Arc<Catalogue>]) -> Option<Seen> {
        self.record.read.all.moved(catalogues, &self.catalogues)
    }

    /// Of files that are the [same](Self::same), leaves those whose genotypes can be taken over. `files`: in order of their names, the number of each one's
    /// list, and which of the old ones it is.
    pub(super) fn decide(
        &self,
        files: &mut [(u32, Option<usize>)],
        lists: &Lists,
        wanted: &dyn Fn(&[u8; 16]) -> bool,
    ) -> Again {
        let mut again = Again::new();
        let mut read = |old: &mut Option<usize>, why: &str| {
            *old = None;
            *again.entry(why.to_owned()).or_default() += 1;
        };
        let same: HashSet<usize> = files.iter().filter_map(|(_, old)| *old).collect();
        let gone =
            || self.record.read.files.iter().enumerate().filter(|(place, _)| !same.contains(place)).map(|(_, file)| file);
        let changed = gone().map(|file| file.list).collect::<HashSet<u32>>();
        let some_gone = !changed.is_empty();
        let shared: HashSet<&[u8; 16]> = changed.iter().flat_map(|list| self.record.lists.get(*list)).collect();
        let mut known: HashMap<u32, (bool, bool, u64)> = HashMap::new();
        for (list, old) in files.iter_mut() {
            let Some(file) = old.and_then(|old| self.file(old)) else { continue };
            let (shares, lacks, count) = *known.entry(*list).or_insert_with(|| {
                let all = lists.get(*list);
                let wanted = || all.iter().filter(|order| wanted(order));
                let lacks = wanted().any(|order| !self.heads.has(order));
                (all.iter().any(|order| shared.contains(order)), lacks, wanted().count() as u64)
            });
            let contradicted = self.record.read.notes(file).contains_key(CONTRADICTED);
            if shares {
                read(old, "has an individual in common with a file that was changed or is not named any more");
            } else if lacks {
                read(old, "an individual of it was left out then");
            } else if contradicted && count != file.wanted {
                read(old, "contradicts another file, and is not of the same individuals any more");
            } else if some_gone && self.record.read.seen(file).is_none() {
                read(old, "what was found in it is not known any more");
            }
        }
        // One that is read and comes before: which variants it must not have must be known.
        loop {
            let mut before: HashSet<&[u8; 16]> = HashSet::new();
            let mut unknown = None;
            for (place, (list, old)) in files.iter().enumerate() {
                match old.and_then(|old| self.file(old)) {
                    None => before.extend(lists.get(*list)),
                    Some(file) if self.record.read.seen(file).is_none() => {
                        if lists.get(*list).iter().any(|order| before.contains(order)) {
                            unknown = Some(place);
                            break;
                        }
                    }
                    Some(_) => {}
                }
            }
            let Some((_, old)) = unknown.and_then(|place| files.get_mut(place)) else { break };
            read(old, "what was found in it is not known any more");
        }
        again
    }
}
