//! How sure the model was of a whole answer.
use super::{
    Choice,
    calibration::{Calibration, Logprobs},
};
use shoal_proto::v1;

/// Sums up choices. The end-of-sequence token counts like any other: an answer that should have gone on is not sure.
#[derive(Debug, Clone)]
pub struct Confidence {
    tokens: u32,
    sum: f64,
    min: f64,
    margin: f64,
    calibration: Calibration,
}

impl Confidence {
    /// Of no choice yet; `calibration` makes the score of the sums.
    #[must_use]
    pub fn new(calibration: Calibration) -> Self {
        Self {
            tokens: 0,
            sum: 0.0,
            min: 0.0,
            margin: f64::MAX,
            calibration,
        }
    }

    /// Takes one choice in.
    pub fn add(&mut self, choice: &Choice) {
        self.tokens += 1;
        self.sum += choice.logprob;
        self.min = self.min.min(choice.logprob);
        self.margin = self.margin.min(choice.margin);
    }

    /// What thresholds are compared with, 0 to 1; 0 before the first token.
    #[must_use]
    pub fn score(&self) -> f64 {
        if self.tokens == 0 {
            return 0.0;
        }
        self.calibration.score(Logprobs {
            mean: self.mean(),
            sum: self.sum,
            min: self.min,
        })
    }

    /// Mean log probability.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.tokens == 0 {
            0.0
        } else {
            self.sum / f64::from(self.tokens)
        }
    }

    /// As the contract has it.
    #[must_use]
    pub fn to_wire(&self) -> v1::Confidence {
        let margin = if self.tokens == 0 { 0.0 } else { self.margin };
        v1::Confidence {
            score: self.score(),
            mean_logprob: self.mean(),
            min_logprob: self.min,
            margin,
            sum_logprob: self.sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::calibration::Statistic;

    #[test]
    fn it_is_mean_least_and_smallest_margin_over_every_token() {
        let mut confidence = Confidence::new(Calibration::default());
        for (logprob, margin) in [(-0.1, 2.0), (-0.7, -0.5), (-0.1, 3.0)] {
            confidence.add(&Choice {
                token: 0,
                logprob,
                margin,
            });
        }
        let wire = confidence.to_wire();
        assert!((wire.mean_logprob + 0.3).abs() < 1e-12 && (wire.score - (-0.3f64).exp()).abs() < 1e-12);
        assert_eq!((wire.min_logprob, wire.margin), (-0.7, -0.5));
        assert!((wire.sum_logprob + 0.9).abs() < 1e-12);
    }

    #[test]
    fn a_calibrated_score_is_the_cards_and_nothing_generated_is_not_sure_at_all() {
        let knots = [[-1.0, 0.0], [0.0, 0.5]];
        let mut confidence = Confidence::new(Calibration::new(Statistic::SumLogprob, &knots).expect("monotone"));
        assert_eq!(confidence.score(), 0.0);
        confidence.add(&Choice {
            token: 0,
            logprob: -0.5,
            margin: 1.0,
        });
        assert_eq!(confidence.to_wire().score, 0.25);
    }
}
