//! From logits to a token, and from tokens to text. Pure: no clock, no channel, no model.
//!
//! [`Sampler`] chooses (greedy, or by temperature, top-k, top-p and a seed) and says how sure the model was;
//! [`Confidence`] sums that up and [`calibration`] makes a probability of it; [`detokenise`] turns tokens into whole
//! characters, and [`stop`] holds back what may turn out to be a stop string.

pub mod calibration;
mod choose;
mod confidence;
pub mod detokenise;
mod draw;
mod logits;
mod power;
pub mod stop;
mod weights;

pub use choose::{Choice, Sampler, is_open};
pub use confidence::Confidence;

/// How to decode, all defaults filled in and all limits held.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// New tokens at most, 1 or more.
    pub max_tokens: usize,
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probability reaches p; 1 keeps all.
    pub top_p: f32,
    /// Of the sampler's draws.
    pub seed: u64,
    /// Divides the logits of tokens already seen; 1 is off.
    pub repetition_penalty: f32,
    /// Generation ends before any of these would be sent.
    pub stop: Vec<String>,
}

impl Sampling {
    /// Greedy, with no stop strings.
    #[must_use]
    pub fn greedy(max_tokens: usize) -> Self {
        Self {
            max_tokens,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
            repetition_penalty: 1.0,
            stop: Vec::new(),
        }
    }
}
