//! Notices that the machine slept: connections that looked alive before are most likely dead then.
//!
//! A clock that goes on during sleep is read every other second. Whenever more time has passed by it
//! than that, this process did not run in between: the machine slept, or somebody stopped us (Ctrl-Z).
//! A clock that was set forward looks the same, and costs no more than new connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Time since some point in the past, the machine's sleep included.
#[derive(Clone)]
pub(crate) struct SleeplessClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl SleeplessClock {
    /// On Linux `CLOCK_BOOTTIME`, which nobody can set; elsewhere the time of day.
    pub(crate) fn system() -> Self {
        Self(Arc::new(since_boot))
    }

    fn now(&self) -> Duration {
        (self.0)()
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// How often the machine woke since this was called. It watches until the last receiver is dropped.
pub(crate) fn watch(clock: SleeplessClock) -> watch::Receiver<u64> {
    watch_every(TICK, clock)
}

fn watch_every(tick: Duration, clock: SleeplessClock) -> watch::Receiver<u64> {
    let (woke, wakes) = watch::channel(0);
    tokio::spawn(async move {
        let mut last = clock.now();
        while !woke.is_closed() {
            tokio::time::sleep(tick).await;
            let now = clock.now();
            if now.saturating_sub(last) > tick + LATE {
                woke.send_modify(|count| *count += 1);
            }
            last = now;
        }
    });
    wakes
}

/// Between two looks at the clock.
const TICK: Duration = Duration::from_secs(2);
/// A look that is later than this was not late for want of a processor.
const LATE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::api_connection::test_server::until;

    /// A clock that a test sets, and how often it was read.
    #[derive(Clone, Default)]
    struct Hands(Arc<(AtomicU64, AtomicU64)>);

    impl Hands {
        fn clock(&self) -> SleeplessClock {
            let hands = self.0.clone();
            SleeplessClock(Arc::new(move || {
                hands.1.fetch_add(1, Ordering::SeqCst);
                Duration::from_secs(hands.0.load(Ordering::SeqCst))
            }))
        }

        fn set(&self, seconds: u64) {
            self.0.0.store(seconds, Ordering::SeqCst);
        }

        /// Waits for looks that began after this was called.
        async fn looked_at(&self) {
            let before = self.0.1.load(Ordering::SeqCst);
            until("the clock is looked at", || self.0.1.load(Ordering::SeqCst) > before + 1).await;
        }
    }

    #[tokio::test]
    async fn only_a_jump_ahead_is_a_wake_and_each_is_told_once() {
        let hands = Hands::default();
        let wakes = watch_every(Duration::from_millis(1), hands.clock());
        hands.looked_at().await;
        for (time, count) in [(0, 0), (9, 0), (20, 1), (20, 1), (15, 1), (25, 1), (4_000, 2), (4_001, 2)] {
            hands.set(time);
            hands.looked_at().await;
            assert_eq!(*wakes.borrow(), count, "{time}");
        }
    }

    #[tokio::test]
    async fn it_ends_with_its_last_receiver() {
        let hands = Hands::default();
        let wakes = watch_every(Duration::from_millis(1), hands.clock());
        hands.looked_at().await;
        drop(wakes);
        until("nobody holds the clock any more", || Arc::strong_count(&hands.0) == 1).await;
    }

    #[tokio::test]
    async fn the_system_s_clock_goes_forward() {
        let clock = SleeplessClock::system();
        let first = clock.now();
        assert!(first > Duration::ZERO);
        until("it goes on", || clock.now() > first).await;
        let mut wakes = watch(clock);
        let woke = tokio::time::timeout(Duration::from_millis(50), wakes.changed()).await;
        assert!(woke.is_err(), "it goes on watching, and nothing happened");
    }
}
