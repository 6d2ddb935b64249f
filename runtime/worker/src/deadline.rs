//! A socket that is read and written until a moment, and no longer: however little the other end says at a time.
//!
//! *In*: a socket, and how long. *Out*: what it says. *Refuses*: to wait for more once the time is over.
//! While the other end [rests](crate::rest), no time passes.

use std::io::{ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::rest::Rest;

/// How long is waited at least, before the clock is looked at again.
const LOOK: Duration = Duration::from_millis(20);

/// A socket until then.
pub(crate) struct Until<'a> {
    link: &'a UnixStream,
    begun: Instant,
    time: Duration,
    /// What the other end rests with, and how long it had rested at the start.
    rest: Option<(&'a Rest, Duration)>,
}

impl<'a> Until<'a> {
    pub(crate) fn new(link: &'a UnixStream, time: Duration, rest: Option<&'a Rest>) -> Self {
        Self { link, begun: Instant::now(), time, rest: rest.map(|rest| (rest, rest.rested())) }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_none()
    }

    fn left(&self) -> Option<Duration> {
        let rested = self.rest.map_or(Duration::ZERO, |(rest, before)| rest.rested().saturating_sub(before));
        self.time.checked_sub(self.begun.elapsed().saturating_sub(rested)).filter(|left| !left.is_zero())
    }

    /// Tries until the time is over: it may not be when the socket's own is.
    fn tried<T>(&self, mut attempt: impl FnMut(Duration) -> Result<T>) -> Result<T> {
        loop {
            let left = self.left().ok_or(ErrorKind::TimedOut)?;
            match attempt(left.max(LOOK)) {
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {}
                done => return done,
            }
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let mut link = self.link;
        self.tried(|left| {
            link.set_read_timeout(Some(left))?;
            link.read(bytes)
        })
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut link = self.link;
        self.tried(|left| {
            link.set_write_timeout(Some(left))?;
            link.write(bytes)
        })
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
            let mut link = Until::new(&ours, Duration::from_millis(200), None);
            let heard = std::iter::repeat_with(|| link.read(&mut [0])).find_map(Result::err).unwrap();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(matches!(heard.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) && link.is_over());
            // Anyone who writes is let go on.
            ours.shutdown(std::net::Shutdown::Both).unwrap();
        });
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut link = Until::new(&ours, Duration::from_millis(50), None);
        assert!(link.write_all(&vec![0; 64 << 20]).is_err() && link.is_over());
    }

    #[test]
    fn while_the_other_end_rests_no_time_passes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let rest = Rest::default();
        let round = rest.round();
        let mut link = Until::new(&ours, Duration::from_millis(50), Some(&rest));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Well after its time would be over.
                std::thread::park_timeout(Duration::from_millis(300));
                theirs.write_all(b".").unwrap();
                std::thread::park_timeout(Duration::from_millis(100));
                drop(round);
            });
            assert_eq!(link.read(&mut [0]).unwrap(), 1);
            // The other end is kept open by nobody: it hangs up, or the time ends.
            let more = link.read(&mut [0]);
            assert!(more.is_err() || more.unwrap() == 0);
        });
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut link = Until::new(&ours, Duration::from_millis(50), Some(&rest));
        assert!(link.read(&mut [0]).is_err() && link.is_over());
    }
}
