//! Connections that only read: a few, so that who reads much waits for others who do, and never for the one who writes.
//!
//! *In*: a path. *Out*: one moment of the database for each look. *Refuses*: to write.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::{Result, schema};

/// As many as look at the same time: a machine that runs a coordinator has few processors, and each keeps a cache of 2 MB.
const READERS: usize = 4;

#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    free: Mutex<Free>,
    back: Condvar,
}

#[derive(Debug, Default)]
struct Free {
    connections: Vec<Connection>,
    /// Opened, free or not.
    opened: usize,
}

/// A connection that goes back, whatever happens.
struct Lent<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut free = self.readers.free();
        match self.connection.take() {
            Some(connection) => free.connections.push(connection),
            None => free.opened = free.opened.saturating_sub(1),
        }
        drop(free);
        self.readers.back.notify_one();
    }
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, free: Mutex::default(), back: Condvar::new() }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until a connection is free.
    pub(super) fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut lent = self.lend();
        let connection = match lent.connection.take() {
            Some(connection) => connection,
            None => schema::reader(&self.path)?,
        };
        let connection = lent.connection.insert(connection);
        let moment = connection.transaction()?;
        let value = body(&moment)?;
        moment.finish()?;
        Ok(value)
    }

    fn lend(&self) -> Lent<'_> {
        let mut free = self.free();
        loop {
            if let Some(connection) = free.connections.pop() {
                return Lent { readers: self, connection: Some(connection) };
            }
            if free.opened < READERS {
                free.opened = free.opened.saturating_add(1);
                return Lent { readers: self, connection: None };
            }
            free = self.back.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
