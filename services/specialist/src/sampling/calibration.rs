//! From a model's log probabilities to a probability of being right.
//!
//! A model's own probabilities order its answers well and promise nothing: what it gives 0.6 may be right in 0.9 of cases. A
//! card's `[calibration.TASK]` maps one statistic to the share that was right where it lay, as knots of a piecewise-linear
//! function (isotonic regression: Zadrozny and Elkan, KDD 2002), flat beyond the first and the last.
use serde::Deserialize;
use std::sync::Arc;

/// What of an answer's log probabilities is mapped. A classifier has one log probability, of its label: all three are that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Mean over the tokens.
    #[default]
    MeanLogprob,
    /// Sum over the tokens: of the whole answer.
    SumLogprob,
    /// The least probable token's.
    MinLogprob,
}

/// The statistics of one answer, natural logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logprobs {
    /// Mean over the tokens.
    pub mean: f64,
    /// Sum over the tokens.
    pub sum: f64,
    /// Least of them.
    pub min: f64,
}

impl Logprobs {
    /// Of an answer that is one choice, as a label is.
    #[must_use]
    pub fn single(logprob: f64) -> Self {
        Self {
            mean: logprob,
            sum: logprob,
            min: logprob,
        }
    }
}

/// A map to a score between 0 and 1. The default has no knots and gives exp of the mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Calibration {
    statistic: Statistic,
    knots: Arc<[(f64, f64)]>,
}

impl Calibration {
    /// A map of `statistic` through `knots`, (value, probability) each. Two knots of the same value are a step: there and
    /// beyond, the second holds.
    ///
    /// # Errors
    /// Which knot is wrong and why, when they are none, descend, or leave 0 to 1.
    pub fn new(statistic: Statistic, knots: &[[f64; 2]]) -> Result<Self, String> {
        if knots.is_empty() {
            return Err("`knots` is empty: give at least one [x, p], or take `knots` and `statistic` out".into());
        }
        for (i, [x, p]) in knots.iter().enumerate() {
            let knot = format!("knots[{i}] = [{x}, {p}]");
            if !x.is_finite() || !(0.0..=1.0).contains(p) {
                return Err(format!("{knot}: x must be finite, and p a probability between 0 and 1"));
            }
            let Some([before, less]) = i.checked_sub(1).map(|i| knots[i]) else {
                continue;
            };
            if *x < before {
                return Err(format!(
                    "{knot}: x is under that of the knot before ({before}); sort by x"
                ));
            }
            if *p < less {
                return Err(format!(
                    "{knot}: p is under that of the knot before ({less}): a surer answer cannot be right less often; fit again"
                ));
            }
        }
        Ok(Self {
            statistic,
            knots: knots.iter().map(|[x, p]| (*x, *p)).collect(),
        })
    }

    /// The score of an answer.
    #[must_use]
    pub fn score(&self, of: Logprobs) -> f64 {
        let x = match self.statistic {
            Statistic::MeanLogprob => of.mean,
            Statistic::SumLogprob => of.sum,
            Statistic::MinLogprob => of.min,
        };
        let (Some(first), Some(last)) = (self.knots.first(), self.knots.last()) else {
            return of.mean.exp();
        };
        // The first knot beyond x; the one before it is at x or under it.
        let next = self.knots.partition_point(|(at, _)| *at <= x);
        match (next.checked_sub(1).map(|i| self.knots[i]), self.knots.get(next)) {
            (None, _) => first.1,
            (_, None) => last.1,
            // Rounding must not carry it past a knot: the map stays monotone.
            (Some((x0, p0)), Some((x1, p1))) => (p0 + (p1 - p0) * ((x - x0) / (x1 - x0))).clamp(p0, *p1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(knots: &[[f64; 2]]) -> impl Fn(f64) -> f64 {
        let calibration = Calibration::new(Statistic::SumLogprob, knots).expect("monotone");
        move |sum| {
            calibration.score(Logprobs {
                mean: -9.0,
                sum,
                min: -9.0,
            })
        }
    }

    #[test]
    fn a_score_is_linear_between_knots_and_flat_beyond_them() {
        let score = map(&[[-4.0, 0.2], [-2.0, 0.6], [-1.0, 0.6], [0.0, 0.9]]);
        for (x, wanted) in [
            (-9.0, 0.2),
            (-4.0, 0.2),
            (-3.0, 0.4),
            (-2.0, 0.6),
            (-1.5, 0.6),
            (-0.5, 0.75),
            (0.0, 0.9),
            (1.0, 0.9),
        ] {
            assert!((score(x) - wanted).abs() < 1e-12, "{x}: {}", score(x));
        }
        let step = map(&[[-1.0, 0.1], [-1.0, 0.8]]);
        assert_eq!((step(-1.01), step(-1.0), step(0.0)), (0.1, 0.8, 0.8));
        assert_eq!(map(&[[-1.0, 0.3]])(-7.0), 0.3, "one knot is a constant");
    }

    #[test]
    fn without_knots_it_is_exp_of_the_mean_and_each_statistic_is_its_own() {
        let of = Logprobs {
            mean: -0.5,
            sum: -2.0,
            min: -1.0,
        };
        assert_eq!(Calibration::default().score(of), (-0.5f64).exp());
        let line = [[-4.0, 0.0], [0.0, 1.0]];
        let score = |statistic| Calibration::new(statistic, &line).expect("monotone").score(of);
        assert_eq!(score(Statistic::MeanLogprob), 0.875);
        assert_eq!(score(Statistic::SumLogprob), 0.5);
        assert_eq!(score(Statistic::MinLogprob), 0.75);
    }

    #[test]
    fn knots_that_are_not_monotone_or_no_probabilities_are_refused_by_number() {
        let nan = f64::NAN;
        for (knots, wanted) in [
            (&[][..], "is empty"),
            (&[[0.0, 0.1], [-1.0, 0.2]], "knots[1] = [-1, 0.2]: x is under"),
            (
                &[[-1.0, 0.1], [0.0, 0.2], [1.0, 0.1]],
                "knots[2] = [1, 0.1]: p is under",
            ),
            (&[[-1.0, 1.1]], "knots[0] = [-1, 1.1]: x must be finite"),
            (&[[-1.0, nan]], "a probability"),
            (&[[nan, 0.5]], "x must be finite"),
            (&[[f64::INFINITY, 0.5]], "x must be finite"),
        ] {
            let told = Calibration::new(Statistic::MeanLogprob, knots).expect_err("refused");
            assert!(told.contains(wanted), "{knots:?}: {told}");
        }
    }

    proptest! {
        #[test]
        fn a_surer_answer_never_scores_less_and_every_knot_is_met(
            xs in prop::collection::vec(-50.0f64..0.0, 1..12), ps in prop::collection::vec(0.0f64..=1.0, 12), at in prop::collection::vec(-60.0f64..10.0, 2..20),
        ) {
            let (mut xs, mut ps, mut at) = (xs, ps, at);
            [&mut xs, &mut ps, &mut at].into_iter().for_each(|v| v.sort_by(f64::total_cmp));
            xs.dedup();
            let knots: Vec<[f64; 2]> = xs.iter().zip(&ps).map(|(x, p)| [*x, *p]).collect();
            let score = map(&knots);
            for [x, p] in &knots {
                prop_assert!((score(*x) - p).abs() < 1e-12);
            }
            let scores: Vec<f64> = at.iter().map(|x| score(*x)).collect();
            prop_assert!(scores.is_sorted() && scores.iter().all(|s| (0.0..=1.0).contains(s)));
        }
    }
}
