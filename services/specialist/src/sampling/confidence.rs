//! How sure the model was of a whole answer.
use super::Choice;
use shoal_proto::v1;

/// Sums up choices. The end-of-sequence token counts like any other: an answer that should have gone on is not sure.
#[derive(Debug, Clone, Copy)]
pub struct Confidence {
    tokens: u32,
    sum: f64,
    min: f64,
    margin: f64,
}

impl Default for Confidence {
    fn default() -> Self {
        Self {
            tokens: 0,
            sum: 0.0,
            min: 0.0,
            margin: f64::MAX,
        }
    }
}

impl Confidence {
    /// Takes one choice in.
    pub fn add(&mut self, choice: &Choice) {
        self.tokens += 1;
        self.sum += choice.logprob;
        self.min = self.min.min(choice.logprob);
        self.margin = self.margin.min(choice.margin);
    }

    /// exp of the mean log probability, 0 to 1; 0 before the first token.
    #[must_use]
    pub fn score(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.mean().exp() }
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_mean_least_and_smallest_margin_over_every_token() {
        let mut confidence = Confidence::default();
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
    }
}
