//! One token by chance: the k likeliest, of those the p nucleus, of that the one at a point of its probability.
use std::cmp::Ordering;

/// The token at `at` (0 to 1) of what is kept of `candidates`, (token, logit by temperature) each, finite. `None` if there are none.
pub(super) fn draw(mut candidates: Vec<(usize, f32)>, top_k: usize, top_p: f32, at: f64) -> Option<usize> {
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, likelier);
        candidates.truncate(top_k);
    }
    let best = candidates.iter().map(|(_, l)| *l).fold(f32::NEG_INFINITY, f32::max);
    let weight = |l: f32| f64::from(l - best).exp();
    let total: f64 = candidates.iter().map(|(_, l)| weight(*l)).sum();
    let mut kept = candidates.len();
    let mut order = Likeliest::of(candidates);
    let mut left = total;
    if top_p < 1.0 {
        let mut share = 0.0;
        left = 0.0;
        for i in 0..kept {
            let weight = weight(order.get(i)?.1);
            share += weight / total;
            left += weight;
            if share >= f64::from(top_p) {
                kept = i + 1;
                break;
            }
        }
    }
    left *= at;
    for i in 0..kept {
        let (token, logit) = order.get(i)?;
        left -= weight(logit);
        if left < 0.0 {
            return Some(token);
        }
    }
    // What rounding leaves over is the last one's.
    order.get(kept.checked_sub(1)?).map(|(token, _)| token)
}

/// Ties by id, so that the order is total and the draw reproducible.
fn likelier(a: &(usize, f32), b: &(usize, f32)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// Candidates from the likeliest on, put in order as far as they are asked for: most draws end among the first few of a vocabulary.
struct Likeliest {
    candidates: Vec<(usize, f32)>,
    ordered: usize,
}

impl Likeliest {
    /// What is put in order at first; then as many again as there are.
    const FIRST: usize = 64;

    fn of(candidates: Vec<(usize, f32)>) -> Self {
        Self { candidates, ordered: 0 }
    }

    fn get(&mut self, at: usize) -> Option<(usize, f32)> {
        while at >= self.ordered && self.ordered < self.candidates.len() {
            let rest = &mut self.candidates[self.ordered..];
            let more = self.ordered.max(Self::FIRST).min(rest.len());
            if more < rest.len() {
                rest.select_nth_unstable_by(more - 1, likelier);
            }
            rest[..more].sort_unstable_by(likelier);
            self.ordered += more;
        }
        self.candidates.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same by a sort of all of them.
    fn by_sorting(mut candidates: Vec<(usize, f32)>, top_k: usize, top_p: f32, at: f64) -> Option<usize> {
        candidates.sort_by(likelier);
        candidates.truncate(if top_k == 0 { usize::MAX } else { top_k });
        let best = candidates.first()?.1;
        let weights: Vec<f64> = candidates.iter().map(|(_, l)| f64::from(l - best).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut share = 0.0;
        let reached = weights.iter().position(|weight| {
            share += weight / total;
            top_p < 1.0 && share >= f64::from(top_p)
        });
        let kept = reached.map_or(weights.len(), |i| i + 1);
        let mut left = at * weights[..kept].iter().sum::<f64>();
        let found = weights[..kept].iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        Some(candidates[found.unwrap_or(kept - 1)].0)
    }

    proptest! {
        #[test]
        fn a_draw_is_the_one_of_a_whole_sort(
            logits in prop::collection::vec(-6i8..6, 0..600), top_k in 0usize..300, top_p in 0.05f32..1.2, at in 0.0f64..1.0,
        ) {
            let candidates: Vec<(usize, f32)> = logits.iter().map(|l| f32::from(*l) * 0.37).enumerate().collect();
            let sorted = by_sorting(candidates.clone(), top_k, top_p, at);
            prop_assert_eq!(draw(candidates, top_k, top_p, at), sorted);
        }
    }
}
