//! What a model is put to before it serves: whatever would show in a caller's answer shows at load.
use super::Answer;
use crate::{one_run::Limits, runtime::Padded};
use tokenizers::Tokenizer;

/// Tokens of the row that a model is proven on, at most: tables of positions have 512 rows in most encoders, and what goes on
/// longer would hold up the start for seconds.
pub(crate) const PROVEN_TOKENS: usize = 1024;

/// How far a number may be from that of the same text alone, as a share of the largest: kernels round differently for other sizes, in fp16 by some
/// thousandths, and what reads another token is far off.
const ROUNDING: f32 = 0.02;

/// Runs what shows that model, tokenizer and card are not of one export: the last token of the vocabulary, two rows, one of them padded, which must
/// say what it says alone, and one row as long as the card allows. `run` gives what a model says of the last of a batch's texts.
pub(crate) fn prove(
    tokenizer: &Tokenizer,
    limits: Limits,
    mut run: impl FnMut(Padded) -> Result<Vec<f32>, String>,
) -> Result<(), String> {
    let mut ids: Vec<u32> = tokenizer.get_vocab(true).into_values().collect();
    ids.sort_unstable();
    let last = *ids.last().ok_or("the tokenizer has no tokens")?;
    // From the middle, where words are: at both ends stand special tokens, of which one may be the padding itself.
    let word = ids[ids.len() / 2];
    let mut told = |texts: &[&[u32]], what: &str| {
        run(Padded::of(texts))
            .map_err(|e| format!("it does not run on {what} of tokens up to {last}, the tokenizer's last: {e}"))
    };
    if limits.run_tokens == 0 {
        told(&[&[last, word]], "a text")?;
    } else {
        let beside = told(&[&[last, word], &[word]], "two texts")?;
        let alone = told(&[&[word]], "a text")?;
        agree(&beside, &alone)?;
    }
    let long = limits.context_tokens.min(PROVEN_TOKENS);
    let one = run(Padded::of(&[&vec![last; long]]));
    one.map(drop)
        .map_err(|e| format!("it does not run on {long} tokens, which [limits] context_tokens allows: {e}"))
}

fn agree(beside: &[f32], alone: &[f32]) -> Result<(), String> {
    let largest = alone.iter().fold(0f32, |most, v| most.max(v.abs()));
    let off = beside
        .iter()
        .zip(alone)
        .fold(0f32, |most, (b, a)| most.max((b - a).abs()));
    if beside.len() == alone.len() && off <= ROUNDING * largest + f32::EPSILON {
        return Ok(());
    }
    Err(format!(
        "it says of a text beside a longer one what it does not say of it alone (a number of up to {largest} is off by {off}): it does not pass over \
         what the shorter one is filled up with. List a tokenizer_config.json whose pad_token is the one that the model was exported with \
         (pad_token_id of its config.json), or export it so that it goes by attention_mask"
    ))
}

/// An answer in numbers that can be compared: log probabilities in the labels' order, or the vector.
pub(super) fn numbers(answer: Option<&Answer>) -> Vec<f32> {
    match answer {
        None => Vec::new(),
        Some(Answer::Vector(vector)) => vector.clone(),
        Some(Answer::Labels(ranked)) => {
            let mut labels = ranked.clone();
            labels.sort_unstable_by_key(|(label, _)| *label);
            // A probability of nothing has no logarithm.
            labels.iter().map(|(_, p)| p.max(1e-30).ln() as f32).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_as_far_as_rounding_goes_and_no_further() {
        assert_eq!(agree(&[10.1, 0.0], &[10.0, 0.1]), Ok(()));
        assert_eq!(agree(&[0.0; 3], &[0.0; 3]), Ok(()));
        assert!(agree(&[10.0, 0.0], &[10.0, 0.3]).is_err());
        assert!(agree(&[1.0], &[1.0, 1.0]).is_err());
    }
}
