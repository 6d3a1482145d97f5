//! What one row does with its logits: choose, hold to the grammar, watch for the end, and say what may be sent.
use crate::{
    constrain::{Bounds, Grammar},
    error::Error,
    sampling::{
        Choice, Confidence, Sampler, Sampling,
        calibration::Calibration,
        detokenise::Detokeniser,
        is_open,
        stop::{Passed, Stops},
    },
    vocabulary::Vocabulary,
};
use std::sync::Arc;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// End-of-sequence, a stop string, or a complete grammar.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
}

/// What a row's logits came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Advance {
    /// Send the text (if any), then read `token`.
    On {
        /// The chosen token.
        token: u32,
        /// Text to send.
        text: String,
    },
    /// Send the text (if any), then the end.
    End {
        /// Why.
        finish: Finish,
        /// Text to send.
        text: String,
    },
}

/// One answer in the making.
pub(super) struct Sequence {
    sampler: Sampler,
    detokeniser: Detokeniser,
    stops: Stops,
    bounds: Bounds,
    eos: Arc<[u32]>,
    budget: usize,
    tokens: Vec<u32>,
    text: String,
    confidence: Confidence,
}

impl Sequence {
    /// `budget` is max_tokens, or what the context leaves if that is less.
    pub(super) fn new(
        prompt: &[u32],
        sampling: &Sampling,
        bounds: Bounds,
        calibration: Calibration,
        budget: usize,
        vocabulary: Arc<Vocabulary>,
        eos: Arc<[u32]>,
    ) -> Self {
        Self {
            sampler: Sampler::new(sampling, prompt),
            detokeniser: Detokeniser::new(vocabulary),
            stops: Stops::new(&sampling.stop),
            bounds,
            eos,
            budget,
            tokens: Vec::new(),
            text: String::new(),
            confidence: Confidence::new(calibration),
        }
    }

    /// Takes one step. `logits: [vocabulary]`.
    pub(super) fn advance(&mut self, logits: &[f32]) -> Result<Advance, Error> {
        let broken = |message: String| Error::Broken { message };
        let mask = match &mut self.bounds.grammar {
            Some(grammar) => Some(
                grammar
                    .mask()
                    .map_err(|e| broken(format!("the grammar gives no mask: {e}")))?,
            ),
            None => None,
        };
        let choice = self.choose(logits, mask.as_ref().map(|m| m.as_slice()));
        let choice = choice.ok_or_else(|| broken("the model gave no finite logit for any allowed token".into()))?;
        self.confidence.add(&choice);
        if self.eos.contains(&choice.token) {
            return Ok(self.end(Finish::Stop));
        }
        self.tokens.push(choice.token);
        if let Some(grammar) = &mut self.bounds.grammar {
            grammar
                .accept(choice.token)
                .map_err(|e| broken(format!("the grammar refuses its own token: {e}")))?;
        }
        let new = self.detokeniser.push(choice.token);
        self.bounds.required.push(&new);
        match self.stops.push(&new) {
            Passed::Stop(text) => {
                self.text.push_str(&text);
                Ok(Advance::End {
                    finish: Finish::Stop,
                    text,
                })
            }
            Passed::On(text) if self.tokens.len() < self.budget => {
                self.text.push_str(&text);
                // A complete grammar allows end-of-sequence alone: the model is asked for it all the same, so that its
                // probability counts in the confidence of a constrained answer as it does in a free one.
                Ok(Advance::On {
                    token: choice.token,
                    text,
                })
            }
            Passed::On(text) => {
                self.text.push_str(&text);
                let complete = self.bounds.grammar.as_ref().is_some_and(Grammar::is_complete);
                let Advance::End { finish, text: rest } =
                    self.end(if complete { Finish::Stop } else { Finish::Length })
                else {
                    unreachable!("`end` ends");
                };
                Ok(Advance::End {
                    finish,
                    text: text + &rest,
                })
            }
        }
    }

    /// The model's choice, but while something must be said: that, instead of the end.
    fn choose(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Option<Choice> {
        let may = |token: u32| is_open(token, logits, allowed);
        let required = &mut self.bounds.required;
        let token = match required.going_on(may) {
            Some(token) => token,
            None => match self.sampler.pick(logits, allowed)? {
                end if self.eos.contains(&end) => required.instead_of_end(logits, may).unwrap_or(end),
                token => token,
            },
        };
        self.sampler.take(logits, token)
    }

    fn end(&mut self, finish: Finish) -> Advance {
        let cut = self.detokeniser.finish();
        let (passed, finish) = match self.stops.push(&cut) {
            Passed::Stop(text) => (text, Finish::Stop),
            Passed::On(text) => (text + &self.stops.finish(), finish),
        };
        self.text.push_str(&passed);
        Advance::End { finish, text: passed }
    }

    pub(super) fn generated(&self) -> usize {
        self.tokens.len()
    }

    /// Text, tokens and confidence, at the end.
    pub(super) fn into_parts(self) -> (String, Vec<u32>, Confidence) {
        (self.text, self.tokens, self.confidence)
    }
}
