//! A round's guests in a process of their own, in which no instance slows down those after it.
//!
//! *In*: baked code, a few public partitions to rehearse with, then one partition at a time. *Out*:
//! what each guest returned. *Trusts*: the kernel's count of page faults, and what it says of the
//! mappings of this process. *Refuses*: to go on with memory in another state than the rehearsal
//! left it in.
//!
//! An instance's memory is reset in place: each page that was ever written in its slot is copied
//! anew at every later reset. So one partition that touches many pages would slow down all that
//! follow. Rehearsals on public partitions touch what ordinary ones do; those pages stay, and are
//! reset for everybody. An instance that touches any other page, of whatever kind, has a page
//! fault, which the kernel counts. Behind such an instance the engine is built anew, and the pages
//! of the rehearsal are laid down again before the next partition: the same state, and a bounded
//! time ([`crate::slowest`] measures it). Another process of the same round lays down the same
//! pages and rehearses nothing, since a guest may take as long for that as for a partition.

use std::fs::File;
use std::ops::Range;

use vestibule_protocol::job::Limits;

use crate::analysis::LoadError;
use crate::bindings::vestibule::analysis::types::Individual;
use crate::engine::{Sandbox, Settings};
use crate::pages::{self, Pages, Pool};
use crate::runner::{Contributions, Failure, Runner};
use crate::swap::Swap;
use crate::usage;

/// What a process must hold open before it gives up the file system.
#[derive(Debug)]
pub struct Ground {
    maps: File,
    pagemap: File,
}

impl Ground {
    /// Opens what the kernel says of this process, and holds its allocator to fixed thresholds.
    ///
    /// # Errors
    /// The kernel does not say it.
    pub fn new() -> std::io::Result<Self> {
        pages::steady();
        Ok(Self { maps: File::open("/proc/self/maps")?, pagemap: File::open("/proc/self/pagemap")? })
    }
}

/// A round's guests, alone in their process, which has one thread.
#[derive(Debug)]
pub struct Alone {
    ground: Ground,
    settings: Settings,
    code: Vec<u8>,
    entries: usize,
    limits: Limits,
    /// Gone while it is built anew.
    runner: Option<Runner>,
    /// Pages that every instance finds laid down.
    laid: Pages,
    /// Page faults of this process when the last instance's room was in order.
    faults: i64,
    given_back: u64,
}

/// What a round's instances find.
#[derive(Debug)]
pub enum Room<'a> {
    /// What these partitions, which are nobody's, leave.
    Rehearsed(&'a [Vec<Individual<'a>>]),
    /// What another process of the same round found in its rehearsal.
    Laid(Pages),
}

impl Alone {
    /// Loads what [`crate::Analysis::bake`] returned. `settings` as those of the sandbox that baked
    /// it, but for the cache.
    ///
    /// # Errors
    /// Code of another engine, or the engine could not be set up.
    ///
    /// # Safety
    /// As [`Sandbox::load_baked`]'s.
    #[expect(unsafe_code, reason = "wasmtime offers no safe way to load compiled code")]
    pub unsafe fn new(
        ground: Ground,
        settings: Settings,
        code: Vec<u8>,
        entries: usize,
        limits: Limits,
        room: Room<'_>,
    ) -> Result<Self, LoadError> {
        let laid = Pages::default();
        let mut alone = Self { ground, settings, code, entries, limits, runner: None, laid, faults: 0, given_back: 0 };
        let pool = alone.build()?;
        alone.laid = match room {
            Room::Rehearsed(partitions) => {
                // The second time finds what only a second instance touches.
                for partition in partitions.iter().chain(partitions) {
                    // What it returns or fails with is nobody's.
                    drop(alone.runner.as_ref().map(|runner| runner.contribute(partition)));
                }
                pool.laid(&alone.ground.maps, &alone.ground.pagemap).map_err(lost)?
            }
            Room::Laid(pages) => pages,
        };
        pool.lay(&alone.laid);
        alone.faults = usage::faults();
        Ok(alone)
    }

    /// The pages that every instance finds laid down.
    #[must_use]
    pub const fn pages(&self) -> &Pages {
        &self.laid
    }

    /// One partition, as [`Runner::contribute`]. [`Alone::settle`] must follow when the
    /// contributions were taken.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn contribute(&mut self, partition: &[Individual<'_>]) -> Result<Contributions, Failure> {
        let missing = || Failure::Host("the engine is gone".to_owned());
        self.faults = usage::faults();
        self.runner.as_ref().ok_or_else(missing)?.contribute(partition)
    }

    /// Puts everything as it was before the last instance, if that touched what others do not.
    ///
    /// # Errors
    /// The engine could not be set up again: nothing may run here any more.
    pub fn settle(&mut self) -> Result<(), LoadError> {
        match self.settings.swap {
            Swap::Never if usage::faults() != self.faults => self.give_back(),
            // The engine gives all pages back behind every instance: the next one has its own faults.
            Swap::Never | Swap::Possible => Ok(()),
        }
    }

    /// How often everything was put as it was. Somebody's: for tests and measurements.
    #[must_use]
    pub const fn given_back(&self) -> u64 {
        self.given_back
    }

    fn give_back(&mut self) -> Result<(), LoadError> {
        self.given_back = self.given_back.saturating_add(1);
        self.runner = None;
        let pool = self.build()?;
        pool.lay(&self.laid);
        Ok(())
    }

    /// A new engine with the code, and one instance that came and went.
    fn build(&mut self) -> Result<Pool, LoadError> {
        let before = pages::mappings(&self.ground.maps).map_err(lost)?;
        let sandbox = Sandbox::new(self.settings.clone()).map_err(|error| lost(std::io::Error::other(error)))?;
        let pool = Pool::found(&before, &pages::mappings(&self.ground.maps).map_err(lost)?);
        // SAFETY: the promise that was made to `new`, over the same bytes.
        #[expect(unsafe_code, reason = "argued above")]
        let runner = unsafe { sandbox.load_baked(&self.code, self.entries, self.limits) }?;
        runner.come_and_go();
        self.runner = Some(runner);
        Ok(pool)
    }
}

fn lost(error: std::io::Error) -> LoadError {
    LoadError::NotComponent { why: format!("the engine could not be set up again: {error}") }
}

/// Part of an address space.
pub(crate) type Addresses = Range<usize>;
