//! How far the score could be from what it is by the luck of the rows: a percentile bootstrap (Efron, 1979).
//!
//! Rows are drawn anew, with replacement, as many as there are; the score of each such sample is one throw, and 95 of 100 throws
//! lie between the two figures. It says what chance the rows bring, not what other rows than these would.
use super::score::{self, Malformed, Row, Task};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

/// Samples drawn: the 2.5 % points then rest on fifty throws each, and vary by a tenth of the interval's width.
const SAMPLES: usize = 2000;

/// One seed, so that the same answers have the same interval.
const SEED: u64 = 0;

/// The 95 % interval of `score`; none where no row counts.
///
/// # Errors
/// A row lacks what its task must have.
pub(super) fn interval(task: Task, rows: &[&Row]) -> Result<Option<(f64, f64)>, Malformed> {
    let weights = rows
        .iter()
        .map(|row| score::weight(task, row))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(of(&weights))
}

fn of(weights: &[(u64, u64)]) -> Option<(f64, f64)> {
    if weights.iter().all(|(_, of)| *of == 0) {
        return None;
    }
    let mut random = StdRng::seed_from_u64(SEED);
    let mut throw = || {
        let drawn = (0..weights.len()).map(|_| weights[random.random_range(0..weights.len())]);
        let (hit, of) = drawn.fold((0, 0), |sum: (u64, u64), w| (sum.0 + w.0, sum.1 + w.1));
        #[expect(clippy::cast_precision_loss, reason = "sums of set sizes are far below 2^53")]
        let score = hit as f64 / of as f64;
        (of > 0).then_some(score)
    };
    // A sample of none but rows that do not count has no score; it is possible only where few count.
    let mut scores: Vec<f64> = (0..SAMPLES).filter_map(|_| throw()).collect();
    scores.sort_by(f64::total_cmp);
    let at = |thousandths: usize| scores.get(scores.len().saturating_sub(1) * thousandths / 1000).copied();
    at(25).zip(at(975))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_is_that_of_the_binomial() {
        let weights: Vec<(u64, u64)> = (0..400).map(|i| (u64::from(i % 5 != 0), 1)).collect();
        let (low, high) = of(&weights).expect("rows");
        // 0.8 of 400: the normal approximation says 0.8 +- 1.96 * 0.02.
        assert!(
            (low - 0.761).abs() < 0.01 && (high - 0.839).abs() < 0.01,
            "{low} to {high}"
        );
        assert_eq!(of(&weights), Some((low, high)), "the same rows, the same interval");
    }

    #[test]
    fn rows_that_do_not_count_widen_nothing_and_none_is_no_interval() {
        assert_eq!(of(&[(1, 1), (1, 1), (0, 0)]), Some((1.0, 1.0)));
        assert_eq!(of(&[(0, 1)]), Some((0.0, 0.0)));
        assert_eq!((of(&[(0, 0)]), of(&[])), (None, None));
    }
}
