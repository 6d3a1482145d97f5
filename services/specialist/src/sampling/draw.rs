//! One token by chance: the k likeliest, of those the p nucleus, of that the one at a point of its probability.
use super::weights::Weights;

/// Weights are rounded, logits are not: what is looked for by weight is looked for a little below.
const NEARLY: f64 = 1.0 - 1e-5;

/// The token at `at` (0 to 1) of what is kept of the tokens by their `logits`; one that is not finite is never kept. `None` if none is.
///
/// Where all are kept they stand in their own order, else from the likeliest on; and then those alone are put in order that may be kept.
pub(super) fn draw(logits: &[f32], temperature: f32, top_k: usize, top_p: f32, at: f64) -> Option<usize> {
    let weights = Weights::of(logits, temperature)?;
    let p = Some(f64::from(top_p)).filter(|p| *p < 1.0);
    let (tokens, total) = match (top_k, p) {
        (1.., _) if top_k < logits.len() => {
            let least = f64::from(weights.of_heaviest(top_k)) * NEARLY;
            let tokens = by_likelihood(logits, weights.at_least(least as f32), top_k);
            let total = tokens.iter().map(|token| weights.get(*token)).sum();
            (tokens, total)
        }
        (_, None) => return weights.at(at),
        (_, Some(p)) => (by_likelihood(logits, nucleus(&weights, p), usize::MAX), weights.total()),
    };
    let mut sum = 0.0;
    let reached = tokens.iter().position(|token| {
        sum += weights.get(*token);
        p.is_some_and(|p| sum >= p * total)
    });
    let kept = &tokens[..reached.map_or(tokens.len(), |last| last + 1)];
    let mut left = at * sum;
    let found = kept.iter().find(|token| {
        left -= weights.get(**token);
        left < 0.0
    });
    // What rounding leaves over is the last one's.
    found.or(kept.last()).copied()
}

/// Tokens that are put in order for less than another look at all of them costs.
const FEW: usize = 128;

/// Looks at all of them, each of which halves what is not known of the lightest weight of a nucleus: of twenty octaves they leave a hundredth of one.
const LOOKS: usize = 12;

/// The tokens that may be in the p nucleus, and few others, in their own order.
///
/// All that have some weight or more are the first ones by likelihood, and if they weigh `p` of all the nucleus is among them. No weight that is too small
/// for it is over what is left besides `p`, shared by all.
fn nucleus(weights: &Weights, p: f64) -> Vec<usize> {
    let (total, tokens) = (weights.total(), weights.len() as f64);
    let enough = p * total * (1.0 + 1e-9);
    let mut least = (((1.0 - p) * total / tokens) as f32).max(f32::MIN_POSITIVE);
    // The best one's: that there is more of the nucleus is not known yet.
    let mut most = 1.0f32;
    for _ in 0..LOOKS {
        // Numbers above 0 are in the order of their bits.
        let middle = f32::from_bits(least.to_bits().midpoint(most.to_bits()));
        let (sum, count) = weights.heavy(middle);
        if sum < enough {
            most = middle;
            continue;
        }
        least = middle;
        if count <= FEW {
            break;
        }
    }
    weights.at_least((f64::from(least) * NEARLY) as f32)
}

/// The `most` likeliest at most, from the likeliest on, and of equals from the smaller id on: the order is total and the draw reproducible.
fn by_likelihood(logits: &[f32], tokens: Vec<usize>, most: usize) -> Vec<usize> {
    // Numbers with the same order: they are sorted several times as fast as pairs that are compared.
    let key = |token: usize| {
        // Both zeroes are one.
        let bits = (logits[token] + 0.0).to_bits();
        let descending = if bits >> 31 == 1 { bits } else { !bits & (u32::MAX >> 1) };
        u64::from(descending) << 32 | token as u64
    };
    let mut keys: Vec<u64> = tokens.into_iter().map(key).collect();
    if most < keys.len() {
        keys.select_nth_unstable(most);
        keys.truncate(most);
    }
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32 as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by a sort of all of them.
    fn by_sorting(logits: &[f32], top_k: usize, top_p: f32, at: f64) -> Option<usize> {
        let weights = Weights::of(logits, 1.0)?;
        let mut tokens: Vec<usize> = (0..logits.len()).collect();
        if top_k > 0 && top_k < logits.len() || top_p < 1.0 {
            tokens.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).expect("numbers").then(a.cmp(b)));
            tokens.truncate(if top_k == 0 { usize::MAX } else { top_k });
        }
        let weighed: Vec<f64> = tokens.iter().map(|token| weights.get(*token)).collect();
        let (total, mut share) = (weighed.iter().sum::<f64>(), 0.0);
        let reached = weighed.iter().position(|weight| {
            share += weight;
            top_p < 1.0 && share >= f64::from(top_p) * total
        });
        let kept = reached.map_or(tokens.len(), |i| i + 1);
        let mut left = at * weighed[..kept].iter().sum::<f64>();
        let found = weighed[..kept].iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        Some(tokens[found.unwrap_or(kept - 1)])
    }

    proptest! {
        #[test]
        fn a_draw_is_the_one_of_a_whole_sort(
            steps in prop::collection::vec(-6i8..6, 0..600), step in prop_oneof![Just(0.0f32), Just(0.37), Just(2.3)],
            top_k in prop_oneof![Just(0), 0usize..300], top_p in prop_oneof![Just(1.0f32), 0.05f32..1.2], at in 0.0f64..1.0,
        ) {
            let logits: Vec<f32> = steps.into_iter().map(|s| f32::from(s) * step).collect();
            prop_assert_eq!(draw(&logits, 1.0, top_k, top_p, at), by_sorting(&logits, top_k, top_p, at));
        }

        #[test]
        fn the_order_is_that_of_logits_and_then_of_ids(
            logits in prop::collection::vec(prop_oneof![-4.0f32..4.0, Just(0.0), Just(-0.0)], 1..50), most in 1usize..60,
        ) {
            let mut tokens: Vec<usize> = (0..logits.len()).collect();
            let quick = by_likelihood(&logits, tokens.clone(), most);
            tokens.sort_by(|a, b| logits[*b].partial_cmp(&logits[*a]).expect("numbers").then(a.cmp(b)));
            tokens.truncate(most);
            prop_assert_eq!(quick, tokens);
        }
    }

    #[test]
    fn one_likely_token_among_many_is_the_whole_nucleus() {
        let mut logits = vec![0.0f32; 5000];
        logits[4000] = 12.0;
        let weights = Weights::of(&logits, 1.0).expect("finite");
        assert_eq!(nucleus(&weights, 0.9), [4000]);
        assert_eq!(
            nucleus(&weights, 0.98).len(),
            5000,
            "of those that are equal all may be"
        );
    }
}
