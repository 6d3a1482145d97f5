//! What the logits of a whole vocabulary come to. All of it is read for every token of every row, so what follows is written to be done in the widest
//! instructions that the processor has (`pulp` finds out which): of sixteen rows of 4,096 tokens SSE2 takes 57 microseconds, AVX2 32, AVX-512 24.
//! Each does the same operations in the same order: what is chosen, and how sure that was, does not depend on the processor.
use super::power::{LEAST, power};
use pulp::{Arch, NullaryFnOnce};
use std::f32::consts::LOG2_E;

/// Numbers that are gone through side by side: what depends on the number before it, a largest one or a sum, the compiler takes one at a time.
pub(super) const LANES: usize = 16;

/// The same, of the largest of a whole vocabulary: each waits four cycles for the one before in its lane, and so many lanes are four of the widest vectors.
pub(super) const WIDE: usize = 4 * LANES;

/// Terms of a lane that are added in single precision before the sum goes on in double: few enough that they lose under a millionth.
const TERMS: usize = 32;

/// Tokens of a word of a mask.
const WORD: usize = u32::BITS as usize;

/// Whether a mask lets a token be: a bit per token, least significant first. None lets all be.
pub(super) fn is_allowed(token: usize, allowed: Option<&[u32]>) -> bool {
    allowed.is_none_or(|mask| {
        mask.get(token / WORD)
            .is_some_and(|word| word >> (token % WORD) & 1 == 1)
    })
}

/// Puts the logits of what a mask does not allow under all others.
pub(super) fn close(logits: &mut [f32], mask: &[u32]) {
    let words = mask.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(WORD).zip(words) {
        match word {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                let closed = (0..logits.len()).filter(|i| word >> i & 1 == 0);
                closed.for_each(|i| logits[i] = f32::NEG_INFINITY);
            }
        }
    }
}

/// The first of the largest finite logits, of those that are allowed.
pub(super) fn likeliest(logits: &[f32], allowed: Option<&[u32]>) -> Option<usize> {
    match allowed {
        None => Arch::new().dispatch(Likeliest { logits }),
        Some(mask) => Arch::new().dispatch(LikeliestOpen { logits, mask }),
    }
}

/// Log probability of `token`, and its distance to the best other one. None where that is no number.
pub(super) fn sureness(logits: &[f32], token: usize) -> Option<(f64, f64)> {
    Arch::new().dispatch(Sureness { logits, token })
}

// What is not inlined into these is compiled for the least of processors.

struct Likeliest<'a> {
    logits: &'a [f32],
}

impl NullaryFnOnce for Likeliest<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn call(self) -> Option<usize> {
        let best = largest::<WIDE>(self.logits, finite);
        best.is_finite().then(|| first(self.logits, best))?
    }
}

struct LikeliestOpen<'a> {
    logits: &'a [f32],
    mask: &'a [u32],
}

impl NullaryFnOnce for LikeliestOpen<'_> {
    type Output = Option<usize>;

    #[inline(always)]
    fn call(self) -> Option<usize> {
        let (mut best, mut at) = (f32::NEG_INFINITY, 0);
        for (i, (logits, word)) in self.logits.chunks(WORD).zip(self.mask).enumerate() {
            // Most words of most masks are one of the first two.
            let here = match *word {
                0 => continue,
                u32::MAX => largest::<LANES>(logits, finite),
                word => largest_open(logits, word),
            };
            if here > best {
                (best, at) = (here, i);
            }
        }
        let (logits, word) = (self.logits.chunks(WORD).nth(at)?, *self.mask.get(at)?);
        let is_best = |i: &usize| logits[*i] == best && word >> i & 1 == 1;
        let within = best.is_finite().then(|| (0..logits.len()).find(is_best))?;
        Some(at * WORD + within?)
    }
}

struct Sureness<'a> {
    logits: &'a [f32],
    token: usize,
}

impl NullaryFnOnce for Sureness<'_> {
    type Output = Option<(f64, f64)>;

    #[inline(always)]
    fn call(self) -> Option<(f64, f64)> {
        let Self { logits, token } = self;
        let chosen = *logits.get(token)?;
        let best_other = larger(
            largest::<WIDE>(&logits[..token], as_is),
            largest::<WIDE>(&logits[token + 1..], as_is),
        );
        let best = chosen.max(best_other);
        let sum = exp_sum(logits, best);
        let logprob = f64::from(chosen - best) - sum.ln();
        // A vocabulary of one has no other token; its margin is as large as a margin can be told.
        let margin = if best_other.is_finite() {
            f64::from(chosen) - f64::from(best_other)
        } else {
            f64::MAX
        };
        logprob.is_finite().then_some((logprob, margin))
    }
}

/// A logit that may be the best one, or what is under all of them.
#[inline(always)]
pub(super) fn finite(logit: f32) -> f32 {
    if logit.is_finite() { logit } else { f32::NEG_INFINITY }
}

#[inline(always)]
fn as_is(logit: f32) -> f32 {
    logit
}

/// The larger; what is no number is passed over.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest of what `of` makes of the numbers, so many of them side by side.
#[inline(always)]
pub(super) fn largest<const SIDE_BY_SIDE: usize>(numbers: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = numbers.as_chunks::<SIDE_BY_SIDE>();
    let mut best = [f32::NEG_INFINITY; SIDE_BY_SIDE];
    for chunk in whole {
        for (best, number) in best.iter_mut().zip(chunk) {
            *best = larger(*best, of(*number));
        }
    }
    for (best, number) in best.iter_mut().zip(rest) {
        *best = larger(*best, of(*number));
    }
    best.into_iter().fold(f32::NEG_INFINITY, larger)
}

/// The largest finite of those numbers whose bit is set.
#[inline(always)]
fn largest_open(numbers: &[f32], word: u32) -> f32 {
    let open = |i: usize| {
        if word >> i & 1 == 1 {
            finite(numbers[i])
        } else {
            f32::NEG_INFINITY
        }
    };
    (0..numbers.len()).map(open).fold(f32::NEG_INFINITY, larger)
}

/// Where the first of these is.
#[inline(always)]
fn first(numbers: &[f32], wanted: f32) -> Option<usize> {
    let (whole, rest) = numbers.as_chunks::<LANES>();
    let has = |chunk: &[f32; LANES]| chunk.iter().fold(false, |has, number| has | (*number == wanted));
    let is = |number: &f32| *number == wanted;
    match whole.iter().position(has) {
        Some(chunk) => Some(chunk * LANES + whole[chunk].iter().position(is)?),
        None => Some(whole.len() * LANES + rest.iter().position(is)?),
    }
}

/// Sum of `exp(logit - best)`; `best` is the largest.
#[inline(always)]
fn exp_sum(logits: &[f32], best: f32) -> f64 {
    let exp = |logit: f32| {
        let octaves = (logit - best) * LOG2_E;
        // Not `max`, which would make a number of what is none: a model that gives NaN is broken, and must be told so.
        power(if octaves < LEAST { LEAST } else { octaves })
    };
    let mut sum = 0.0;
    for part in logits.chunks(LANES * TERMS) {
        let (whole, rest) = part.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for chunk in whole {
            for (sum, logit) in sums.iter_mut().zip(chunk) {
                *sum += exp(*logit);
            }
        }
        for (sum, logit) in sums.iter_mut().zip(rest) {
            *sum += exp(*logit);
        }
        sum += sums.into_iter().map(f64::from).sum::<f64>();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_quick_sum_and_the_quick_choices_are_the_slow_ones(
            logits in prop::collection::vec(-30.0f32..30.0, 1..300),
            odd in 0usize..400,
            equal in 0usize..400,
            mask in prop::collection::vec(prop_oneof![Just(0), Just(u32::MAX), any::<u32>()], 0..11),
        ) {
            let mut logits = logits;
            if let Some(l) = logits.get_mut(odd) {
                *l = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][odd % 3];
            }
            if equal < logits.len() {
                logits[equal] = logits[equal / 2];
            }
            for allowed in [None, Some(mask.as_slice())] {
                let mut slow: Option<usize> = None;
                for (i, l) in logits.iter().enumerate() {
                    if l.is_finite() && is_allowed(i, allowed) && slow.is_none_or(|f| logits[f] < *l) {
                        slow = Some(i);
                    }
                }
                prop_assert_eq!(likeliest(&logits, allowed), slow);
            }
            let finite: Vec<f32> = logits.into_iter().filter(|l| l.is_finite()).collect();
            let best = finite.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let slow: f64 = finite.iter().map(|l| f64::from(l - best).exp()).sum();
            prop_assert!(finite.is_empty() || (exp_sum(&finite, best) / slow - 1.0).abs() < 2e-6);
        }

        #[test]
        fn the_processor_changes_nothing(logits in prop::collection::vec(-30.0f32..30.0, 1..300), token in 0usize..300) {
            let token = token % logits.len();
            let (logits, mask) = (logits.as_slice(), &[0x5a5a_5a5a; 10][..]);
            prop_assert_eq!(sureness(logits, token), Sureness { logits, token }.call());
            prop_assert_eq!(likeliest(logits, None), Likeliest { logits }.call());
            prop_assert_eq!(likeliest(logits, Some(mask)), LikeliestOpen { logits, mask }.call());
        }
    }
}
