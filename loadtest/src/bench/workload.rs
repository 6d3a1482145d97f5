//! What is decoded: the same for the same round, on every engine. Pure.
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::{Value, json};

/// Sequences that decode together: the specialist's default slots.
pub(crate) const ROWS: usize = 16;

/// New tokens of the skewed sequences, shortest and longest.
const SHORTEST: usize = 16;
const LONGEST: usize = 256;

/// Of the order of the lengths. A server does not know which answer will be long: sorted ones would flatter whoever groups by arrival.
const SEED: u64 = 20_261_126;

/// 16 lengths from 16 to 256, each longer than the one before by the same factor (half are under 64), in an order that is drawn once.
pub(crate) fn skewed_lengths() -> Vec<usize> {
    let growth = LONGEST / SHORTEST;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "16 to 256"
    )]
    let mut lengths: Vec<usize> = (0..ROWS)
        .map(|i| (SHORTEST as f64 * (growth as f64).powf(i as f64 / (ROWS - 1) as f64)).round() as usize)
        .collect();
    lengths.shuffle(&mut StdRng::seed_from_u64(SEED));
    lengths
}

/// What a vocabulary offers to a prompt.
#[derive(Debug, Clone)]
pub(crate) struct Alphabet {
    /// Ids of the model.
    pub(crate) vocabulary: usize,
    /// Ids that end a text.
    pub(crate) eos: Vec<u32>,
}

impl Alphabet {
    /// `rows` prompts of `tokens` ids each, drawn for this round and purpose; none ends a text.
    pub(crate) fn prompts(&self, round: usize, purpose: &str, rows: usize, tokens: usize) -> Vec<Vec<u32>> {
        let seed = purpose.bytes().fold(SEED ^ round as u64, |seed, byte| {
            seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
        });
        let mut random = StdRng::seed_from_u64(seed);
        let most = u32::try_from(self.vocabulary).unwrap_or(u32::MAX).max(1);
        let mut draw = || {
            // A vocabulary that only ends texts would never be left; a bounded number of tries is enough for any other.
            let id = (0..64)
                .map(|_| random.random_range(0..most))
                .find(|id| !self.eos.contains(id));
            id.unwrap_or_default()
        };
        (0..rows).map(|_| (0..tokens).map(|_| draw()).collect()).collect()
    }
}

/// A form with no end in sight: a model without training fills it until its tokens are used up.
pub(crate) fn schema() -> Value {
    json!({
        "x-guidance": {"whitespace_flexible": false, "item_separator": ",", "key_separator": ":"},
        "type": "array", "minItems": 64, "maxItems": 64,
        "items": {
            "type": "object",
            "properties": {
                "tool": {"enum": ["PlayMusic", "BookRestaurant", "GetWeather"]},
                "count": {"type": "integer", "minimum": 0, "maximum": 99},
                "name": {"type": "string", "maxLength": 12},
            },
            "required": ["tool", "count", "name"],
            "additionalProperties": false,
        },
    })
}

/// Some words, other ones in each round.
pub(crate) fn text(round: usize) -> String {
    format!("play some jazz and then book a table for two in newark at noon, please: request {round}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_skewed_and_always_the_same() {
        let lengths = skewed_lengths();
        assert_eq!(lengths, skewed_lengths());
        let mut sorted = lengths.clone();
        sorted.sort_unstable();
        assert_ne!(lengths, sorted, "they come in no order");
        assert_eq!((sorted[0], sorted[ROWS - 1], sorted.len()), (SHORTEST, LONGEST, ROWS));
        assert!(sorted[ROWS / 2] < 80, "most are short: {sorted:?}");
        assert_eq!(sorted.iter().sum::<usize>(), 1438);
    }

    proptest! {
        #[test]
        fn prompts_are_of_the_vocabulary_and_never_end(
            vocabulary in 3usize..5000, eos in prop::collection::vec(0u32..3, 0..2), round in 0usize..50, rows in 1usize..17, tokens in 1usize..40,
        ) {
            let alphabet = Alphabet { vocabulary, eos: eos.clone() };
            let prompts = alphabet.prompts(round, "a", rows, tokens);
            prop_assert_eq!(&prompts, &alphabet.prompts(round, "a", rows, tokens));
            prop_assert_eq!(prompts.len(), rows);
            for id in prompts.iter().flatten() {
                prop_assert!((*id as usize) < vocabulary && !eos.contains(id));
            }
            if vocabulary > 1000 && tokens > 8 {
                prop_assert_ne!(&prompts, &alphabet.prompts(round, "b", rows, tokens));
                prop_assert_ne!(&prompts, &alphabet.prompts(round + 1, "a", rows, tokens));
            }
        }
    }
}
