//! Whether a witness' memory lies where the witness wrote it, or is a copy, which may be old.
//!
//! *In*: the file, a secret of the witness. *Out*: since when it has been a copy, if it is one. *Trusts*: the number that the file system has for the file, which
//! no copy and no restored backup shares. *Refuses*: words about it that the secret did not seal. A machine that is set back as a whole has the same file: that
//! its own log is held against what others have seen, before it cosigns anything, stands against that.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::hmac;
use rusqlite::{Connection, OptionalExtension as _, params};

pub(super) struct Place {
    inode: String,
    key: hmac::Key,
}

impl Place {
    pub(super) fn of(path: &Path, secret: &[u8; 32]) -> rusqlite::Result<Self> {
        let found = std::fs::metadata(path).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&secret, b"vestibule/witness/place/1");
        Ok(Self { inode: found.ino().to_string(), key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) })
    }

    fn text(&self, since: Option<i64>) -> String {
        format!("{}\n{}\n", self.inode, since.map_or_else(String::new, |since| since.to_string()))
    }

    /// Since when it has been a copy; from `now` on, if that was not known. Without `now` it is new.
    pub(super) fn take(&self, connection: &Connection, now: Option<u64>) -> rusqlite::Result<Option<u64>> {
        let Some(now) = now else { return self.put(connection, None).map(|()| None) };
        let sql = "SELECT since, seal FROM place WHERE inode = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Vec<u8>>(1)?));
        let said = connection.query_row(sql, [&self.inode], read).optional()?;
        match said.filter(|(since, seal)| hmac::verify(&self.key, self.text(*since).as_bytes(), seal).is_ok()) {
            Some((since, _)) => Ok(since.map(i64::unsigned_abs)),
            None => {
                connection.execute("UPDATE seen SET sure = 0", [])?;
                self.put(connection, Some(now))?;
                Ok(Some(now))
            }
        }
    }

    /// Writes down since when it has been a copy, if it is one.
    pub(super) fn put(&self, connection: &Connection, since: Option<u64>) -> rusqlite::Result<()> {
        let since = since.map(|since| i64::try_from(since).unwrap_or(i64::MAX));
        let seal = hmac::sign(&self.key, self.text(since).as_bytes());
        let sql = "INSERT INTO place(number, inode, since, seal) VALUES(0, ?1, ?2, ?3)
                   ON CONFLICT(number) DO UPDATE SET inode = ?1, since = ?2, seal = ?3";
        connection.execute(sql, params![self.inode, since, seal.as_ref()]).map(|_| ())
    }
}
