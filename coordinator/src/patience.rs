//! How long a site has for a round: time in which it waits for others' jobs does not count.
//!
//! *In*: a limit, and what is waited for. *Out*: what came, or that the time is over.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// The time that is left.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
}

/// It is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Over;

impl Patience {
    pub(crate) const fn of(left: Duration) -> Self {
        Self { left }
    }

    /// Waits, which counts.
    ///
    /// # Errors
    /// [`Over`].
    pub(crate) async fn spend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Over> {
        let began = Instant::now();
        let done = tokio::time::timeout(self.left, work).await;
        self.spent(began.elapsed());
        done.map_err(|_| Over)
    }

    const fn spent(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn what_is_spent_counts_and_what_passes_beside_does_not() {
        let mut patience = Patience::of(SECOND * 10);
        patience.spent(SECOND * 6);
        assert_eq!(patience.left, SECOND * 4);
        assert_eq!(patience.spend(std::future::ready(7)).await, Ok(7));
        assert!(patience.left > SECOND * 3);
        patience.spent(SECOND * 40);
        assert_eq!(patience.spend(std::future::pending::<()>()).await, Err(Over));
        // What is there already is taken.
        assert_eq!(patience.spend(std::future::ready(7)).await, Ok(7));
    }
}
