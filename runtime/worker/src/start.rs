//! Starting processes that end with this one.
//!
//! *In*: a program. *Out*: its process. The kernel ends it when the *thread* that started it ends
//! (`PR_SET_PDEATHSIG`, which the process asks for itself, before it reads anything:
//! [`crate::confine::limit`]). So all are started by one thread, which ends with this process:
//! whether that returns, is killed, or aborts. A process whose parent was gone before it asked
//! hears of it when it reads its socket.

use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A program, and where its process goes.
type Order = (Command, SyncSender<std::io::Result<Child>>);

/// Starts a program, whose process ends with this one if it asks for that.
pub(crate) fn start(command: Command) -> std::io::Result<Child> {
    static STARTING: OnceLock<Mutex<SyncSender<Order>>> = OnceLock::new();
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    let orders = match STARTING.get() {
        Some(orders) => orders,
        None => {
            let (orders, taken) = sync_channel(0);
            // Of two threads at once, one is kept: the other hears that its orders are gone, and
            // ends, without a process.
            std::thread::Builder::new().name("starting".to_owned()).spawn(move || serve(&taken))?;
            STARTING.get_or_init(|| Mutex::new(orders))
        }
    };
    let (give, take) = sync_channel(1);
    orders.lock().unwrap_or_else(PoisonError::into_inner).send((command, give)).map_err(|_| gone())?;
    take.recv().map_err(|_| gone())?
}

fn serve(orders: &Receiver<Order>) {
    while let Ok((mut command, give)) = orders.recv() {
        if let Err(unheard) = give.send(command.spawn())
            && let Ok(mut child) = unheard.0
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
