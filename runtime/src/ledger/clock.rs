//! How far this machine's clock is to be believed: no leaf is written, and nothing erased, by one that ran ahead.
//!
//! *In*: the clock, and the latest moment that others have made probable: what witnesses said when they cosigned, when the trust bundle was issued,
//! and what has passed since on a clock that only runs. *Out*: the moment that a leaf gets; whether the clock can be right. *Trusts*: most of those
//! witnesses; this ledger's own row. *Refuses*: to erase anything, or to consider jobs, by a clock that is ahead. One that is behind is held by the last leaf.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension as _, params};
use vestibule_protocol::log::leaf::Event;

use super::{Ledger, LedgerError, database, milliseconds};
use crate::log;

/// A site hears of others' time once a day at least, with its heartbeat: so far its clock may go on alone, and a day more.
pub(crate) const SLACK: Duration = Duration::from_secs(2 * 86_400);

/// The latest moment (1970) that the clock may show, and when that was said. `None`: nobody has said anything yet.
#[derive(Debug, Default)]
pub(super) struct Ceiling(Mutex<Option<(Duration, Instant)>>);

impl Ceiling {
    fn now(&self) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|(latest, said)| latest.saturating_add(said.elapsed()))
    }

    /// Later, never earlier.
    pub(super) fn raise(&self, latest: Option<Duration>) {
        if let Some(latest) = latest.filter(|latest| self.now().is_none_or(|known| known < *latest)) {
            self.set(latest);
        }
    }

    fn set(&self, latest: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((latest, Instant::now()));
    }

    /// The moment that counts for one of the clock's.
    fn held(&self, clock: Duration) -> Duration {
        self.now().map_or(clock, |latest| clock.min(latest))
    }
}

/// Gives the ledger's own connection `held_ms(clock)`: what a leaf is written with.
pub(super) fn serve(ceiling: &std::sync::Arc<Ceiling>, connection: &Connection) -> rusqlite::Result<()> {
    let ceiling = std::sync::Arc::clone(ceiling);
    let flags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_DIRECTONLY);
    connection.create_scalar_function("held_ms", 1, flags, move |context| {
        let clock = Duration::from_millis(context.get::<i64>(0)?.max(0).unsigned_abs());
        Ok(milliseconds(ceiling.held(clock)))
    })
}

impl Ledger {
    /// The latest moment that the clock could show, as it was written down.
    pub(super) fn latest(&self) -> Result<Option<Duration>, LedgerError> {
        self.transaction(|tx| {
            let sql = "SELECT latest_ms FROM proven";
            let latest: Option<i64> = tx.query_row(sql, [], |row| row.get(0)).optional().map_err(database(tx))?;
            Ok(latest.map(|latest| Duration::from_millis(latest.unsigned_abs())))
        })
    }

    /// That it can be as late as `latest` (1970) by now: others have said so. It is written down if it is much later than what was.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn proven(&self, latest: Duration) -> Result<(), LedgerError> {
        self.2.raise(Some(latest));
        if self.latest()?.is_some_and(|known| latest <= known.saturating_add(Duration::from_secs(60))) {
            return Ok(());
        }
        self.transaction(|tx| put(tx, latest).map_err(database(tx)))
    }

    /// The clock's time, if that can be right.
    #[must_use]
    pub(crate) fn sure(&self, clock: Duration) -> Option<Duration> {
        Some(clock).filter(|clock| self.2.held(*clock) == *clock)
    }

    /// Goes on by this machine's clock, after the log was written by one that ran ahead: the next leaf is earlier than the last one, and says so. `issued`: when the
    /// trust bundle that is believed was, before which it cannot be.
    ///
    /// # Errors
    /// The log's last leaf is no later than the clock; the clock is earlier than the bundle; the database.
    pub fn go_on(&self, clock: Duration, issued: Duration, details: &serde_json::Value) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let before_ms = log::last_ms(tx).map_err(database(tx))?;
            if before_ms <= milliseconds(clock) {
                return Err(LedgerError::Clock(
                    "the log's last line is not later than this machine's clock: there is nothing to mend",
                ));
            }
            if clock < issued {
                return Err(LedgerError::Clock(
                    "this machine's clock is earlier than the trust bundle that is believed: set the clock first",
                ));
            }
            let latest = clock.saturating_add(SLACK);
            log::append_earlier(tx, milliseconds(clock), Event::Clock { before_ms }, Some(details)).map_err(database(tx))?;
            put(tx, latest).map_err(database(tx))?;
            self.2.set(latest);
            Ok(())
        })
    }
}

fn put(connection: &Connection, latest: Duration) -> rusqlite::Result<()> {
    let sql = "INSERT INTO proven(number, latest_ms) VALUES(0, ?1) ON CONFLICT(number) DO UPDATE SET latest_ms = ?1";
    connection.execute(sql, params![milliseconds(latest)]).map(|_| ())
}
