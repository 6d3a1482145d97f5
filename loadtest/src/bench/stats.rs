//! The median of a figure's rounds and the interval that it comes with. Pure.
//!
//! The interval is that of order statistics: the median of whatever distribution lies between the k-th smallest and the k-th largest of
//! n independent values with probability 1 - 2 * sum of C(n, i) / 2^n over i < k (David and Nagaraja, Order Statistics, 7.1). It assumes no
//! distribution and draws no numbers, so the same rounds give the same interval. Seven rounds give their whole range, at 98.4 %; with
//! fewer than six no such interval reaches 95 %, and the object says what was reached.
use serde_json::{Value, json};

/// The probability that is wanted of an interval.
const WANTED: f64 = 0.95;

/// What the rounds of one figure come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// The median.
    pub(crate) value: f64,
    /// The interval's lower end.
    pub(crate) low: f64,
    /// The interval's upper end.
    pub(crate) high: f64,
    /// Rounds.
    pub(crate) rounds: usize,
    /// With which probability the interval holds the median.
    pub(crate) coverage: f64,
}

impl Summary {
    /// Of some rounds' values; `None` without any, or with one that is no number.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (rounds, (k, coverage)) = (sorted.len(), widest_cut(sorted.len()));
        Some(Self {
            value: middle(&sorted),
            low: sorted[k],
            high: sorted[rounds - 1 - k],
            rounds,
            coverage,
        })
    }

    /// As the object has it.
    pub(crate) fn to_json(self) -> Value {
        json!({
            "value": rounded(self.value), "low": rounded(self.low), "high": rounded(self.high), "rounds": self.rounds,
            "coverage": rounded(self.coverage),
        })
    }
}

/// The median of some values; 0 without any.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() { 0.0 } else { middle(&sorted) }
}

/// The smallest of some values that at least a part `q` of them, 0 to 1, does not exceed; 0 without any.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "values are few, and q is no more than 1"
)]
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

/// Six digits after the point: more are noise in every unit that is used here.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[half]
    } else {
        f64::midpoint(sorted[half - 1], sorted[half])
    }
}

/// How many values may be cut off at each end, and the coverage that is left; 0 where even all do not reach what is wanted.
fn widest_cut(n: usize) -> (usize, f64) {
    let mut best = (0, coverage(n, 1).max(0.0));
    for k in 2..=n.div_ceil(2) {
        let covered = coverage(n, k);
        if covered < WANTED {
            break;
        }
        best = (k - 1, covered);
    }
    best
}

/// The probability that the median lies between the k-th smallest and the k-th largest of n values.
#[expect(clippy::cast_precision_loss, reason = "rounds are few")]
fn coverage(n: usize, k: usize) -> f64 {
    let (mut choose, mut below) = (1.0, 0.0);
    for i in 0..k {
        below += choose;
        choose = choose * (n - i) as f64 / (i + 1) as f64;
    }
    1.0 - 2.0 * below / 2f64.powi(i32::try_from(n).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seven_rounds_give_their_range_and_more_give_less_of_it() {
        let seven = Summary::of(&[7.0, 1.0, 3.0, 2.0, 5.0, 4.0, 6.0]).expect("rounds");
        assert_eq!((seven.value, seven.low, seven.high, seven.rounds), (4.0, 1.0, 7.0, 7));
        assert!((seven.coverage - 0.984_375).abs() < 1e-12);
        let twenty: Vec<f64> = (1..=20).map(f64::from).collect();
        let twenty = Summary::of(&twenty).expect("rounds");
        // As in every table of sign-test intervals: the 6th of 20 from each end, 95.9 %.
        assert_eq!((twenty.value, twenty.low, twenty.high), (10.5, 6.0, 15.0));
        assert!((twenty.coverage - 0.958_6).abs() < 1e-4);
    }

    #[test]
    fn few_rounds_say_how_little_they_cover_and_none_give_no_figure() {
        let three = Summary::of(&[1.0, 2.0, 3.0]).expect("rounds");
        assert_eq!((three.low, three.high, three.coverage), (1.0, 3.0, 0.75));
        assert_eq!(Summary::of(&[1.0]).expect("a round").coverage, 0.0);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=300).rev().map(f64::from).collect();
        assert_eq!((quantile(&values, 0.99), quantile(&values, 0.5)), (297.0, 150.0));
        assert_eq!((quantile(&values, 0.0), quantile(&values, 1.0)), (1.0, 300.0));
        assert_eq!(quantile(&[], 0.99), 0.0);
    }

    proptest! {
        #[test]
        fn the_median_lies_in_its_interval_whatever_the_order(mut values in prop::collection::vec(0.01f64..1e6, 1..60)) {
            let summary = Summary::of(&values).expect("rounds");
            prop_assert!(summary.low <= summary.value && summary.value <= summary.high);
            prop_assert!(values.len() < 6 || summary.coverage >= WANTED);
            prop_assert_eq!(summary.value, median(&values));
            values.reverse();
            prop_assert_eq!(Summary::of(&values), Some(summary));
        }
    }
}
