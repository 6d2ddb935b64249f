//! The one thread that writes the database. What waits when it comes to work is written together and synced once.
//!
//! *In*: steps, each a function of a transaction. *Out*: what each gives, after it is on the disk. A step that fails leaves nothing
//! behind and the others of its group whole. *Refuses*: nothing; where the disk is full, the one who asked hears so and may ask again.
//! *Stops*: when its store is dropped, after all that was asked is written.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, TransactionBehavior};

use super::{Result, StoreError};

/// Steps that wait to be written: those who would bring more wait themselves.
const WAITING: usize = 256;
/// Steps that are written together: a reader of the log sees them at once, and none waits for a second sync.
const GROUP: usize = 64;

/// The thread's other end.
#[derive(Debug)]
pub(super) struct Writer(SyncSender<Box<dyn Step>>);

impl Writer {
    pub(super) fn start(connection: Connection) -> Result<Self> {
        let (send, receive) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("store".to_owned());
        let started = thread.spawn(move || write(connection, &receive));
        started.map_err(|error| StoreError::Database(error.to_string()))?;
        Ok(Self(send))
    }

    /// Blocks until it is on the disk.
    pub(super) fn write<T: Send + 'static>(&self, body: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        let (reply, answer) = sync_channel(1);
        let stopped = || StoreError::Database("its writer has stopped".to_owned());
        self.0.send(Box::new(One { body: Some(body), given: None, reply })).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }
}

/// One step, of whatever type.
trait Step: Send {
    /// Whether what it did is to be kept.
    fn run(&mut self, transaction: &Connection) -> bool;
    /// Tells who waits for it. An error is that of the whole group.
    fn tell(self: Box<Self>, lost: Option<&StoreError>);
}

struct One<T, F> {
    body: Option<F>,
    given: Option<Result<T>>,
    reply: SyncSender<Result<T>>,
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T> + Send> Step for One<T, F> {
    fn run(&mut self, transaction: &Connection) -> bool {
        self.given = self.body.take().map(|body| body(transaction));
        matches!(self.given, Some(Ok(_)))
    }

    fn tell(self: Box<Self>, lost: Option<&StoreError>) {
        let answer = match (self.given, lost) {
            // Its own words say more than the group's.
            (Some(Err(own)), _) => Err(own),
            (_, Some(lost)) => Err(lost.clone()),
            (Some(given), None) => given,
            (None, None) => Err(StoreError::Database("it was not asked".to_owned())),
        };
        // Who asked may be gone: it is written all the same.
        let _ = self.reply.send(answer);
    }
}

fn write(mut connection: Connection, steps: &Receiver<Box<dyn Step>>) {
    while let Ok(first) = steps.recv() {
        let mut group = vec![first];
        group.extend(steps.try_iter().take(GROUP.saturating_sub(1)));
        let lost = together(&mut connection, &mut group).err();
        for step in group {
            step.tell(lost.as_ref());
        }
    }
}

/// Each step in a savepoint of its own, all in one transaction.
fn together(connection: &mut Connection, group: &mut [Box<dyn Step>]) -> Result<()> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in group {
        let savepoint = transaction.savepoint()?;
        if step.run(&savepoint) {
            savepoint.commit()?;
        } else if !savepoint.is_autocommit() {
            savepoint.finish()?;
        } else {
            // A full disk may have rolled all of it back, and nothing of the group is there any more.
            return Err(StoreError::Full);
        }
    }
    Ok(transaction.commit()?)
}
