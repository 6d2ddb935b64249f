//! A socket that is read and written until a moment, and no longer: however little the other end says at a time.
//!
//! *In*: a socket, and how long. *Out*: what it says. *Refuses*: to wait for more once the time is over.

use std::io::{ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A socket until then.
pub(crate) struct Until<'a> {
    link: &'a UnixStream,
    begun: Instant,
    time: Duration,
}

impl<'a> Until<'a> {
    pub(crate) fn new(link: &'a UnixStream, time: Duration) -> Self {
        Self { link, begun: Instant::now(), time }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_none()
    }

    fn left(&self) -> Option<Duration> {
        self.time.checked_sub(self.begun.elapsed()).filter(|left| !left.is_zero())
    }
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.link.set_read_timeout(Some(self.left().ok_or(ErrorKind::TimedOut)?))?;
        self.link.read(bytes)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.link.set_write_timeout(Some(self.left().ok_or(ErrorKind::TimedOut)?))?;
        self.link.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket's own time-out begins anew with every byte.
    #[test]
    fn whoever_says_a_little_at_a_time_is_not_heard_for_longer() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let (stopped, theirs) = (&stop, &theirs);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) && (&*theirs).write_all(b".").is_ok() {
                    std::thread::yield_now();
                }
            });
            let mut link = Until::new(&ours, Duration::from_millis(200));
            let heard = std::iter::repeat_with(|| link.read(&mut [0])).find_map(Result::err).unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(matches!(heard.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) && link.is_over());
            // Anyone who writes is let go on.
            ours.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut link = Until::new(&ours, Duration::from_millis(50));
        assert!(link.write_all(&vec![0; 64 << 20]).is_err() && link.is_over());
    }
}
