//! What jobs took of the site's time that nothing was charged for, by researcher: so that a day's refused jobs have a bound.
//!
//! *In*: seconds that public calls took, by the clock. *Out*: whether a researcher has used up a day's. Public facts only: nothing in here has seen
//! data. *Refuses*: nothing itself.

use std::time::Duration;

use rusqlite::params;
use vestibule_protocol::name::Name;

use super::{Ledger, LedgerError, database, milliseconds};

/// How long back it counts.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

impl Ledger {
    /// Books what was taken, at `since` (1970), and forgets what was a day before.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn unpaid(&self, researcher: &Name, spent: Duration, since: Duration) -> Result<(), LedgerError> {
        let name = self.1.name(researcher);
        self.transaction(|tx| {
            let old = milliseconds(since.saturating_sub(DAY));
            tx.execute("DELETE FROM unpaid WHERE at_ms <= ?1", [old]).map_err(database(tx))?;
            let row = params![name, milliseconds(since), milliseconds(spent)];
            let sql = "INSERT INTO unpaid(researcher, at_ms, spent_ms) VALUES(?1, ?2, ?3)";
            tx.execute(sql, row).map_err(database(tx)).map(|_| ())
        })
    }

    /// If a researcher's jobs have taken `most` or more within the day before `since` (1970): the moment (1970) from which on it is less.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn worn(&self, researcher: &Name, most: Duration, since: Duration) -> Result<Option<Duration>, LedgerError> {
        let name = self.1.name(researcher);
        let rows: Vec<(i64, i64)> = self.transaction(|tx| {
            let sql = "SELECT at_ms, spent_ms FROM unpaid WHERE researcher = ?1 AND at_ms > ?2 ORDER BY at_ms";
            let mut statement = tx.prepare(sql).map_err(database(tx))?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let rows = statement.query_map(params![name, milliseconds(since.saturating_sub(DAY))], row);
            rows.and_then(Iterator::collect).map_err(database(tx))
        })?;
        let mut spent = rows.iter().fold(0_i64, |sum, (_, spent)| sum.saturating_add(*spent));
        let mut again = None;
        for (at, of) in rows {
            if spent < milliseconds(most) {
                break;
            }
            spent = spent.saturating_sub(of);
            again = Some(Duration::from_millis(at.unsigned_abs()).saturating_add(DAY));
        }
        Ok(again)
    }
}
