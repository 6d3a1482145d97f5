//! When plans arrive: an iterator of offsets from the start, the same for the same seed. Pure.
//!
//! The schedule knows nothing of answers. That is what makes the loop open: a closed one (send, wait, send) slows down
//! with the mesh that it measures, and so leaves out the very requests that would have waited longest (Gil Tene calls it
//! coordinated omission).
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::time::Duration;

/// How arrivals are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrivals {
    /// Independent users: gaps are exponential, so that arrivals cluster as real ones do
    Poisson,
    /// A metronome: every gap is the same
    Uniform,
}

/// Offsets of arrivals, in order, bounded in time and count.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    random: StdRng,
    until: f64,
    left: u64,
    /// Arrivals so far.
    index: u64,
    /// Seconds of the last Poisson arrival.
    at: f64,
}

impl Schedule {
    /// `rate` arrivals a second on average (above 0), none at or after `until`, at most `count`.
    pub(crate) fn new(arrivals: Arrivals, rate: f64, seed: u64, until: Duration, count: Option<u64>) -> Self {
        Self {
            arrivals,
            rate,
            random: StdRng::seed_from_u64(seed),
            until: until.as_secs_f64(),
            left: count.unwrap_or(u64::MAX),
            index: 0,
            at: 0.0,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let at = match self.arrivals {
            Arrivals::Poisson => {
                // Inverse transform of 1 - u, which is in (0, 1]: never the logarithm of nothing.
                let u: f64 = self.random.random();
                self.at -= (1.0 - u).ln() / self.rate;
                self.at
            }
            // By multiplication: a sum of gaps would drift.
            #[expect(
                clippy::cast_precision_loss,
                reason = "below 2^53: at most 100,000 a second for a day"
            )]
            Arrivals::Uniform => self.index as f64 / self.rate,
        };
        self.index += 1;
        (at < self.until).then(|| Duration::from_secs_f64(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Arrivals> {
        prop_oneof![Just(Arrivals::Poisson), Just(Arrivals::Uniform)]
    }

    proptest! {
        #[test]
        fn arrivals_are_in_order_within_the_time_and_within_the_count(
            kind in kinds(), rate in 0.01f64..5000.0, seed: u64, ms in 1u64..5000, count in 1u64..2000,
        ) {
            let until = Duration::from_millis(ms);
            let all: Vec<Duration> = Schedule::new(kind, rate, seed, until, Some(count)).collect();
            prop_assert!(all.len() as u64 <= count);
            prop_assert!(all.iter().all(|at| *at <= until));
            prop_assert!(all.is_sorted());
        }

        #[test]
        fn the_same_seed_gives_the_same_arrivals_and_a_bound_only_cuts_them_short(
            kind in kinds(), seed: u64, count in 1u64..500,
        ) {
            let minute = Duration::from_secs(60);
            let whole: Vec<Duration> = Schedule::new(kind, 20.0, seed, minute, None).collect();
            let again: Vec<Duration> = Schedule::new(kind, 20.0, seed, minute, Some(count)).collect();
            prop_assert_eq!(&whole[..again.len()], &again[..]);
            prop_assert!(again.len() as u64 == count || again.len() == whole.len());
        }

        #[test]
        fn the_mean_rate_is_the_one_asked_for(kind in kinds(), rate in 1.0f64..2000.0, seed: u64) {
            let count = 20_000u32;
            let last = Schedule::new(kind, rate, seed, Duration::MAX, Some(count.into())).last().expect("arrivals");
            let mean = f64::from(count) / last.as_secs_f64();
            // Six standard deviations of the mean of 20,000 exponential gaps: 6 / sqrt(20,000) = 4.2 %.
            prop_assert!((mean / rate - 1.0).abs() < 0.043, "asked for {rate}, got {mean}");
        }
    }

    #[test]
    fn uniform_arrivals_have_equal_gaps_and_start_at_once() {
        let all: Vec<Duration> = Schedule::new(Arrivals::Uniform, 4.0, 0, Duration::from_secs(1), None).collect();
        assert_eq!(all, [0, 250, 500, 750].map(Duration::from_millis));
    }

    #[test]
    fn poisson_gaps_vary_as_much_as_exponential_ones() {
        let at: Vec<f64> = Schedule::new(Arrivals::Poisson, 100.0, 7, Duration::from_secs(100), None)
            .map(|d| d.as_secs_f64())
            .collect();
        let gaps: Vec<f64> = at.windows(2).map(|w| w[1] - w[0]).collect();
        let n = f64::from(u32::try_from(gaps.len()).expect("few"));
        let mean = gaps.iter().sum::<f64>() / n;
        let deviation = (gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / n).sqrt();
        assert!(
            (deviation / mean - 1.0).abs() < 0.1,
            "coefficient of variation {}",
            deviation / mean
        );
    }
}
