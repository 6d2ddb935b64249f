//! Which variant files are read, in which order, and which are taken over.
//!
//! *In*: the files; what the version that serves was read from. *Out*: a [`Plan`]; and for a file that is read, what it must not have ([`Later`]). A file that is the same is
//! not opened for it.

use std::collections::HashSet;
use std::sync::Arc;

use vestibule_importer::{IngestReport, Seen};
use vestibule_protocol::catalogue::Catalogue;

use super::super::import::Reading;
use super::IngestError;
use super::groups::Groups;
use super::growth::{Again, Growth};
use super::people::Gathering;
use super::record::{Lists, Numbering};
use super::rows::Making;

/// Variant files whose importers are held from the first look at them until they are read; where there are more, each is opened twice.
const HELD: usize = 4;

/// A variant file that is to be read or taken over.
pub(super) struct Planned {
    /// Its place among the files as they are named.
    pub(super) number: usize,
    /// Whose genotypes it has.
    pub(super) list: u32,
    /// Its importer, where it is held.
    pub(super) reading: Option<Reading>,
    /// Which of the files it is that the version which serves was read from, where its genotypes are taken over.
    pub(super) old: Option<usize>,
}

/// The files in the order in which they are to be read, and whose genotypes they have.
pub(super) struct Plan {
    pub(super) files: Vec<Planned>,
    pub(super) lists: Lists,
    again: Again,
}

/// Everybody, and where their rows lie.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) order: &'a [[u8; 16]],
    pub(super) groups: &'a Groups,
}

impl Rows<'_> {
    pub(super) fn slot(&self, order: &[u8; 16]) -> Option<usize> {
        self.order.binary_search(order).ok().map(|row| self.groups.slot(row))
    }
}

impl Plan {
    /// Gathers whom the variant files name. A file that the version which serves was read from is not opened for that.
    pub(super) fn new(making: &Making<'_>, gathering: &mut Gathering<'_>) -> Result<Self, IngestError> {
        let (mut lists, mut numbering) = (Lists::default(), Numbering::default());
        let (mut files, mut again) = (Vec::new(), Again::new());
        for (number, file) in making.sources.variant_files.iter().enumerate() {
            let old = making.growth.zip(making.sources.known(number)).and_then(|(growth, known)| {
                let (place, same) = growth.same(known)?;
                if !same {
                    *again.entry("was changed".to_owned()).or_default() += 1;
                }
                Some((growth, place)).filter(|_| same)
            });
            let (list, reading, old) = match old.and_then(|(growth, place)| Some((growth, place, growth.file(place)?))) {
                Some((growth, place, record)) => (growth.record.lists.get(record.list).to_vec(), None, Some(place)),
                None => {
                    let (reading, samples) = making.open(file)?;
                    let list = samples.iter().map(|id| making.key.order(id)).collect();
                    (list, (making.sources.variant_files.len() <= HELD).then_some(reading), None)
                }
            };
            list.iter().try_for_each(|order| gathering.sample(*order))?;
            let list = lists.number(list, &mut numbering);
            files.push(Planned { number, list, reading, old });
        }
        Ok(Self { files, lists, again })
    }

    /// Everybody is known: leaves what can be taken over, and puts the files in the order in which they are to be read.
    pub(super) fn decide(&mut self, making: &Making<'_>, order: &[[u8; 16]], report: &mut IngestReport) {
        if let Some(why) = making.unfit {
            self.again.insert(why.to_owned(), self.files.len() as u64);
        }
        if let Some(growth) = making.growth {
            let mut candidates: Vec<(u32, Option<usize>)> = self.files.iter().map(|file| (file.list, file.old)).collect();
            let again = growth.decide(&mut candidates, &self.lists, &|person| order.binary_search(person).is_ok());
            self.files.iter_mut().zip(candidates).for_each(|(file, (_, old))| file.old = old);
            again.into_iter().for_each(|(why, count)| *self.again.entry(why).or_default() += count);
            report.taken_over = self.files.iter().filter(|file| file.old.is_some()).count() as u64;
            report.taken_from = (report.taken_over > 0).then(|| growth.version.clone());
        }
        report.read_again.append(&mut self.again);
        report.files = self.files.len() as u64;
        let lists = &self.lists;
        let owner = |file: &Planned| if let [owner] = lists.get(file.list) { Some(*owner) } else { None };
        if self.files.iter().all(|file| owner(file).is_some()) {
            // One file for each individual: in the rows' order, so that each tile is gone through once.
            self.files.sort_by_key(owner);
        }
    }

    /// Whether anything is taken over.
    pub(super) fn takes_over(&self) -> bool {
        self.files.iter().any(|file| file.old.is_some())
    }

    /// What a group's tiles begin with: for each group those who are taken over.
    pub(super) fn taken<'a>(&self, rows: Rows<'a>) -> impl Iterator<Item = Vec<(usize, &'a [u8; 16])>> {
        let lists: HashSet<u32> = self.files.iter().filter(|file| file.old.is_some()).map(|file| file.list).collect();
        let taken: HashSet<[u8; 16]> = lists.iter().flat_map(|list| self.lists.get(*list)).copied().collect();
        rows.groups.iter().map(move |group| {
            let people = rows.order.get(group).unwrap_or_default();
            people.iter().enumerate().filter(|(_, order)| taken.contains(*order)).collect()
        })
    }
}

/// Which catalogue variants of the files behind one that is read are taken over of individuals that it has too.
pub(super) struct Later<'a> {
    growth: &'a Growth,
    catalogues: &'a [Arc<Catalogue>],
    /// Files that are taken over, in the order of reading: the place, the list, the old file.
    taken: Vec<(usize, u32, usize)>,
    /// Individuals of their lists, ascending.
    people: Vec<([u8; 16], u32)>,
}

impl<'a> Later<'a> {
    pub(super) fn new(plan: &Plan, growth: &'a Growth, catalogues: &'a [Arc<Catalogue>]) -> Self {
        let taken: Vec<(usize, u32, usize)> =
            plan.files.iter().enumerate().filter_map(|(place, file)| Some((place, file.list, file.old?))).collect();
        let last_read = plan.files.iter().rposition(|file| file.old.is_none());
        let first_read = plan.files.iter().position(|file| file.old.is_none());
        let mut people = Vec::new();
        // Where none that is read comes before one that is taken over, nothing is looked for.
        if first_read.is_some_and(|first| taken.last().is_some_and(|last| last.0 > first)) && last_read.is_some() {
            let lists: HashSet<u32> = taken.iter().map(|(_, list, _)| *list).collect();
            people.extend(lists.iter().flat_map(|list| plan.lists.get(*list).iter().map(|order| (*order, *list))));
            people.sort_unstable();
        }
        Self { growth, catalogues, taken, people }
    }

    /// `None` where there are none.
    pub(super) fn than(&self, place: usize, list: &[[u8; 16]]) -> Option<Seen> {
        let mut lists = HashSet::new();
        for order in list {
            let from = self.people.partition_point(|(other, _)| other < order);
            let same = self.people.get(from..).unwrap_or_default().iter().take_while(|(other, _)| other == order);
            lists.extend(same.map(|(_, list)| *list));
        }
        let later = self.taken.iter().filter(|(at, list, _)| *at > place && lists.contains(list));
        let mut all: Option<Seen> = None;
        for seen in later.filter_map(|(_, _, old)| self.growth.seen(self.growth.file(*old)?, self.catalogues)) {
            match &mut all {
                Some(all) => all.add(&seen),
                None => all = Some(seen),
            }
        }
        all
    }
}
