//! What each token weighs in a draw. Written for the widest instructions that there are, as [`super::logits`] is, and as that one the same everywhere.
use super::{
    logits::{LANES, WIDE, finite, largest},
    power::{LEAST, power},
};
use pulp::{Arch, NullaryFnOnce};
use std::f32::consts::LOG2_E;

/// Tokens whose weights are summed up before the draw looks at each of them.
const PART: usize = 512;

/// `exp((logit - best) / temperature)` of each token, and 0 of those that are out of reach.
pub(super) struct Weights {
    each: Vec<f32>,
    /// Sums of [`PART`] weights each.
    parts: Vec<f64>,
    total: f64,
}

impl Weights {
    /// Of logits, above 0 of those alone that are finite and of some weight still beside the best one's. `None` if none is finite.
    pub(super) fn of(logits: &[f32], temperature: f32) -> Option<Self> {
        Arch::new().dispatch(Weigh { logits, temperature })
    }

    pub(super) fn total(&self) -> f64 {
        self.total
    }

    pub(super) fn len(&self) -> usize {
        self.each.len()
    }

    pub(super) fn get(&self, token: usize) -> f64 {
        self.each.get(token).copied().map_or(0.0, f64::from)
    }

    /// The token at `at` (0 to 1) of the whole weight, tokens in their own order.
    pub(super) fn at(&self, at: f64) -> Option<usize> {
        let mut left = at * self.total;
        for (i, (part, sum)) in self.each.chunks(PART).zip(&self.parts).enumerate() {
            if left >= *sum {
                left -= sum;
                continue;
            }
            for (j, weight) in part.iter().enumerate() {
                left -= f64::from(*weight);
                if left < 0.0 {
                    return Some(i * PART + j);
                }
            }
        }
        // What rounding leaves over is the last one's.
        self.each.iter().rposition(|weight| *weight > 0.0)
    }

    /// A weight that at least `tokens` tokens have; 0 where that cannot be told in short.
    pub(super) fn of_heaviest(&self, tokens: usize) -> f32 {
        Arch::new().dispatch(OfHeaviest {
            weights: &self.each,
            tokens,
        })
    }

    /// What the tokens of that weight or more weigh together, and how many they are.
    pub(super) fn heavy(&self, least: f32) -> (f64, usize) {
        Arch::new().dispatch(Heavy {
            weights: &self.each,
            least,
        })
    }

    /// The tokens of that weight or more and above 0, in their own order.
    pub(super) fn at_least(&self, least: f32) -> Vec<usize> {
        Arch::new().dispatch(AtLeast {
            weights: &self.each,
            least,
        })
    }
}

struct Weigh<'a> {
    logits: &'a [f32],
    temperature: f32,
}

impl NullaryFnOnce for Weigh<'_> {
    type Output = Option<Weights>;

    #[inline(always)]
    fn call(self) -> Option<Weights> {
        let Self { logits, temperature } = self;
        let best = largest::<WIDE>(logits, finite);
        if !best.is_finite() {
            return None;
        }
        // However small the temperature is, the best one's distance by it stays a number.
        let scale = (LOG2_E / temperature).min(f32::MAX);
        let weight = |logit: f32| {
            let octaves = (logit - best) * scale;
            let weight = power(octaves);
            // Neither of what is no number, nor of infinity, nor of what weighs nothing.
            if (LEAST..=0.0).contains(&octaves) { weight } else { 0.0 }
        };
        let mut weights = Weights {
            each: Vec::with_capacity(logits.len()),
            parts: Vec::with_capacity(logits.len().div_ceil(PART)),
            total: 0.0,
        };
        let mut part = [0.0; PART];
        for logits in logits.chunks(PART) {
            let mut sums = [0.0; LANES];
            let (whole, rest) = logits.as_chunks::<LANES>();
            let (into, into_rest) = part[..logits.len()].as_chunks_mut::<LANES>();
            for (into, chunk) in into.iter_mut().zip(whole) {
                for ((into, sum), logit) in into.iter_mut().zip(&mut sums).zip(chunk) {
                    *into = weight(*logit);
                    *sum += f64::from(*into);
                }
            }
            for ((into, sum), logit) in into_rest.iter_mut().zip(&mut sums).zip(rest) {
                *into = weight(*logit);
                *sum += f64::from(*into);
            }
            weights.each.extend_from_slice(&part[..logits.len()]);
            weights.parts.push(sums.into_iter().sum());
        }
        weights.total = weights.parts.iter().sum();
        Some(weights)
    }
}

struct OfHeaviest<'a> {
    weights: &'a [f32],
    tokens: usize,
}

impl NullaryFnOnce for OfHeaviest<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        // The heaviest of each chunk are that many tokens, and most of the heaviest of all.
        let mut heaviest: Vec<f32> = Vec::with_capacity(self.weights.len().div_ceil(LANES));
        for chunk in self.weights.chunks(LANES) {
            heaviest.push(largest::<LANES>(chunk, finite));
        }
        match self.tokens.checked_sub(1) {
            Some(last) if last < heaviest.len() => *heaviest.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1,
            _ => 0.0,
        }
    }
}

struct Heavy<'a> {
    weights: &'a [f32],
    least: f32,
}

impl NullaryFnOnce for Heavy<'_> {
    type Output = (f64, usize);

    #[inline(always)]
    fn call(self) -> (f64, usize) {
        let (mut sums, mut counts) = ([0.0; LANES], [0u32; LANES]);
        let (whole, rest) = self.weights.as_chunks::<LANES>();
        for chunk in whole {
            for ((sum, count), weight) in sums.iter_mut().zip(&mut counts).zip(chunk) {
                let heavy = *weight >= self.least;
                *sum += if heavy { f64::from(*weight) } else { 0.0 };
                *count += u32::from(heavy);
            }
        }
        for weight in rest {
            if *weight >= self.least {
                sums[0] += f64::from(*weight);
                counts[0] += 1;
            }
        }
        (sums.into_iter().sum(), counts.into_iter().sum::<u32>() as usize)
    }
}

struct AtLeast<'a> {
    weights: &'a [f32],
    least: f32,
}

impl NullaryFnOnce for AtLeast<'_> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn call(self) -> Vec<usize> {
        let least = self.least.max(f32::MIN_POSITIVE);
        let mut tokens = Vec::new();
        for (i, chunk) in self.weights.chunks(LANES).enumerate() {
            if chunk.iter().fold(false, |any, weight| any | (*weight >= least)) {
                let heavy = (0..chunk.len()).filter(|j| chunk[*j] >= least);
                tokens.extend(heavy.map(|j| i * LANES + j));
            }
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn weights_are_those_of_the_slow_exponential_and_add_up(
            logits in prop::collection::vec(-30.0f32..30.0, 1..1200), odd in 0usize..1200, temperature in 0.1f32..3.0, at in 0.0f64..1.0,
        ) {
            let mut logits = logits;
            if let Some(l) = logits.get_mut(odd) {
                *l = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][odd % 3];
            }
            let best = logits.iter().copied().filter(|l| l.is_finite()).fold(f32::NEG_INFINITY, f32::max);
            let Some(weights) = Weights::of(&logits, temperature) else {
                prop_assert_eq!(best, f32::NEG_INFINITY);
                return Ok(());
            };
            for (logit, weight) in logits.iter().zip(&weights.each) {
                let slow = if logit.is_finite() { (f64::from(logit - best) / f64::from(temperature)).exp() } else { 0.0 };
                prop_assert!((f64::from(*weight) - slow).abs() <= 1e-6 * slow.max(1e-3), "{} {}", weight, slow);
            }
            let sum: f64 = weights.each.iter().map(|w| f64::from(*w)).sum();
            prop_assert!((weights.total() / sum - 1.0).abs() < 1e-12);
            let before: f64 = weights.each[..weights.at(at).expect("one is finite")].iter().map(|w| f64::from(*w)).sum();
            let reached = before + weights.get(weights.at(at).expect("one is finite"));
            prop_assert!(before <= at * sum * (1.0 + 1e-12) && reached >= at * sum * (1.0 - 1e-12));
        }

        #[test]
        fn the_heaviest_are_found_without_a_sort(logits in prop::collection::vec(-6i8..6, 1..600), tokens in 0usize..100) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let weights = Weights::of(&logits, 1.0).expect("finite");
            let least = weights.of_heaviest(tokens);
            let from = weights.at_least(least);
            prop_assert!(from.len() >= tokens.min(logits.len()) && from.is_sorted());
            prop_assert!((0..logits.len()).all(|i| from.contains(&i) == (weights.each[i] >= least)));
            let (sum, count) = weights.heavy(least.max(f32::MIN_POSITIVE));
            let slow: f64 = from.iter().map(|token| weights.get(*token)).sum();
            prop_assert!(count == from.len() && (sum - slow).abs() < 1e-9);
        }

        #[test]
        fn the_processor_changes_no_weight(logits in prop::collection::vec(-30.0f32..30.0, 1..600), temperature in 0.1f32..3.0) {
            let logits = logits.as_slice();
            let here = Weights::of(logits, temperature).expect("finite");
            let least = Weigh { logits, temperature }.call().expect("finite");
            prop_assert_eq!((&here.each, &here.parts, here.total), (&least.each, &least.parts, least.total));
            prop_assert_eq!(here.of_heaviest(3), OfHeaviest { weights: &here.each, tokens: 3 }.call());
            prop_assert_eq!(here.heavy(0.1), Heavy { weights: &here.each, least: 0.1 }.call());
            prop_assert_eq!(here.at_least(0.1), AtLeast { weights: &here.each, least: 0.1 }.call());
        }
    }

    #[test]
    fn what_is_out_of_reach_weighs_nothing_however_small_the_temperature_is() {
        for temperature in [1e-39, 1e-30, 0.001] {
            let weights = Weights::of(&[1.0, f32::NAN, 300.0, f32::INFINITY, 299.0], temperature).expect("finite");
            assert_eq!(weights.each, [0.0, 0.0, 1.0, 0.0, 0.0], "{temperature}");
            assert_eq!((weights.at(0.0), weights.at(0.999)), (Some(2), Some(2)));
        }
        assert!(Weights::of(&[f32::NEG_INFINITY, f32::NAN], 1.0).is_none() && Weights::of(&[], 1.0).is_none());
    }
}
