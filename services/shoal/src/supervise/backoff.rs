//! When to start a process again.
use std::time::Duration;

/// The first pause: long enough that the system has given back the port, short enough that one crash costs no plan its deadline.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause: a process that cannot start costs one attempt in ten seconds, and is back ten seconds after its cause went.
const LONGEST: Duration = Duration::from_secs(10);

/// A process that was healthy for so long had started well: its next end is a new story.
const STEADY: Duration = Duration::from_secs(30);

/// Bounded exponential backoff between one process's restarts.
#[derive(Debug, Default, Clone)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause before the next start, after `uptime` of being healthy: 0.1 s, doubled with each short run up to 10 s, and 0.1 s
    /// again after one of 30 s.
    pub fn pause(&mut self, uptime: Duration) -> Duration {
        if uptime >= STEADY {
            self.failures = 0;
        }
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_seconds_and_stay_there() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..40)
            .map(|_| backoff.pause(Duration::from_secs(1)).as_millis())
            .collect();
        assert_eq!(pauses[..9], [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert!(pauses[9..].iter().all(|p| *p == 10_000));
    }

    #[test]
    fn a_steady_run_forgets_earlier_failures() {
        let mut backoff = Backoff::default();
        for _ in 0..6 {
            backoff.pause(Duration::ZERO);
        }
        assert_eq!(backoff.pause(Duration::from_millis(29_999)).as_millis(), 6400);
        assert_eq!(backoff.pause(Duration::from_secs(30)).as_millis(), 100);
        assert_eq!(backoff.pause(Duration::ZERO).as_millis(), 200);
    }
}
