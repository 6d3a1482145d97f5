//! One token from one row of logits.
use super::{
    Sampling,
    draw::draw,
    logits::{close, is_allowed, likeliest, sureness},
};
use std::borrow::Cow;

/// A chosen token and what the model thought of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: u32,
    /// Its natural-log probability over the whole vocabulary, before penalty, mask and temperature.
    pub logprob: f64,
    /// `logprob` less that of the best other token.
    pub margin: f64,
}

/// One request's sampler. Its draws depend on its seed and on how many it has made, on nothing that runs beside it.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    seed: u64,
    penalty: f32,
    draws: u64,
    /// Tokens of the prompt and of the answer, as a set of bits, where there is a penalty on them.
    seen: Vec<u64>,
}

impl Sampler {
    /// A sampler that has seen `prompt`.
    #[must_use]
    pub fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let Sampling {
            temperature,
            top_k,
            top_p,
            seed,
            repetition_penalty: penalty,
            ..
        } = *sampling;
        let mut sampler = Self {
            temperature,
            top_k,
            top_p,
            seed,
            penalty,
            draws: 0,
            seen: Vec::new(),
        };
        prompt.iter().for_each(|token| sampler.note(*token));
        sampler
    }

    /// Chooses from `logits: [vocabulary]`. `allowed` is a bit per token, least significant first; `None` allows all.
    /// `None` comes back when no allowed token has a finite logit: the model is broken.
    pub fn choose(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Option<Choice> {
        let token = self.pick(logits, allowed)?;
        self.take(logits, token)
    }

    /// The choice alone, which need not be what is said then.
    pub fn pick(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Option<u32> {
        let token = if self.temperature > 0.0 {
            let at = uniform(self.seed, self.draws);
            self.draws += 1;
            let logits = self.counted(logits, allowed);
            draw(&logits, self.temperature, self.top_k, self.top_p, at)?
        } else if self.penalty == 1.0 {
            likeliest(logits, allowed)?
        } else {
            likeliest(&self.counted(logits, allowed), None)?
        };
        Some(token as u32)
    }

    /// What the model thought of a token that is said, chosen or not. `None` where that is no number.
    pub fn take(&mut self, logits: &[f32], token: u32) -> Option<Choice> {
        self.note(token);
        let (logprob, margin) = sureness(logits, token as usize)?;
        Some(Choice { token, logprob, margin })
    }

    /// The logits that the choice is made by: less the penalty, and none of what is not allowed.
    fn counted<'a>(&self, logits: &'a [f32], allowed: Option<&[u32]>) -> Cow<'a, [f32]> {
        let mut counted = Cow::Borrowed(logits);
        if self.penalty != 1.0 {
            let counted = counted.to_mut();
            for (i, mut word) in self.seen.iter().copied().enumerate() {
                while word != 0 {
                    let token = i * 64 + word.trailing_zeros() as usize;
                    word &= word - 1;
                    if let Some(logit) = counted.get_mut(token) {
                        *logit = self.penalised(*logit);
                    }
                }
            }
        }
        if let Some(mask) = allowed {
            close(counted.to_mut(), mask);
        }
        counted
    }

    /// As in CTRL (arXiv 1909.05858): a seen token's logit is divided if positive, multiplied if negative. A number stays one.
    fn penalised(&self, logit: f32) -> f32 {
        match (logit.is_finite(), logit > 0.0) {
            (false, _) => logit,
            (true, true) => (logit / self.penalty).min(f32::MAX),
            (true, false) => (logit * self.penalty).max(f32::MIN),
        }
    }

    fn note(&mut self, token: u32) {
        if self.penalty == 1.0 {
            return;
        }
        let word = token as usize / 64;
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        self.seen[word] |= 1 << (token % 64);
    }
}

/// Whether a token could be chosen: it is allowed, and the model gave it a number.
#[must_use]
pub fn is_open(token: u32, logits: &[f32], allowed: Option<&[u32]>) -> bool {
    let token = token as usize;
    is_allowed(token, allowed) && logits.get(token).is_some_and(|l| l.is_finite())
}

/// Number `counter` of the stream `seed`, in [0, 1): SplitMix64's output function (Steele, Lea, Flood, OOPSLA 2014).
fn uniform(seed: u64, counter: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    // The seed is mixed before the counter is added: neighbouring seeds would otherwise be one stream, shifted.
    let bits = mix(mix(seed).wrapping_add((counter + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampled(temperature: f32, top_k: usize, top_p: f32, seed: u64) -> Sampling {
        Sampling {
            temperature,
            top_k,
            top_p,
            seed,
            ..Sampling::greedy(8)
        }
    }

    #[test]
    fn a_model_that_gives_no_number_for_any_token_is_broken() {
        for odd in [f32::NAN, f32::INFINITY] {
            let choice = Sampler::new(&Sampling::greedy(1), &[]).choose(&[1.0, odd, 0.5], None);
            assert_eq!(choice, None, "{odd}");
        }
        let masked = Sampler::new(&Sampling::greedy(1), &[]).choose(&[1.0, f32::NEG_INFINITY, 0.5], None);
        assert!(
            masked.is_some_and(|c| c.token == 0),
            "a token that cannot be is no fault"
        );
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        let choice = Sampler::new(&Sampling::greedy(1), &[])
            .choose(&[1.0, 3.0, 3.0, 2.0], None)
            .expect("finite");
        assert_eq!(choice.token, 1);
        assert_eq!(choice.margin, 0.0);
    }

    #[test]
    fn a_masked_token_is_never_chosen_and_confidence_is_of_the_whole_vocabulary() {
        let logits = [0.0f32, 2.0, 1.0];
        let choice = Sampler::new(&Sampling::greedy(1), &[])
            .choose(&logits, Some(&[0b101]))
            .expect("finite");
        assert_eq!(choice.token, 2);
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        assert!((choice.logprob - (1.0 - total.ln())).abs() < 1e-6);
        assert!((choice.margin + 1.0).abs() < 1e-9, "another was likelier by one");
    }

    #[test]
    fn the_penalty_is_on_prompt_and_answer_alike_and_not_in_the_confidence() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::greedy(4)
        };
        let mut sampler = Sampler::new(&sampling, &[0]);
        let logits = [3.0, 2.0, -1.0];
        let first = sampler.choose(&logits, None).expect("finite");
        assert_eq!(first.token, 1, "3.0 / 2 < 2.0");
        assert_eq!(sampler.choose(&logits, None).expect("finite").token, 0, "both halved");
        assert!((first.margin + 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_model_without_a_finite_logit_is_noticed() {
        assert_eq!(
            Sampler::new(&Sampling::greedy(1), &[]).choose(&[f32::NAN, f32::NAN], None),
            None
        );
        assert_eq!(
            Sampler::new(&sampled(1.0, 0, 1.0, 1), &[]).choose(&[f32::NAN], None),
            None
        );
        assert_eq!(
            Sampler::new(&Sampling::greedy(1), &[]).choose(&[1.0, 2.0], Some(&[0])),
            None
        );
    }

    #[test]
    fn however_small_temperature_and_penalty_are_the_likeliest_is_chosen() {
        let logits = [1.0, 300.0, -20.0, 299.0];
        for temperature in [f32::MIN_POSITIVE, 1e-39, 1e-30] {
            let choice = Sampler::new(&sampled(temperature, 0, 1.0, 3), &[]).choose(&logits, None);
            assert_eq!(choice.map(|c| c.token), Some(1), "{temperature}");
            for least in [temperature, 1e-45] {
                let sampling = Sampling {
                    repetition_penalty: least,
                    ..sampled(temperature, 0, 1.0, 3)
                };
                let choice = Sampler::new(&sampling, &[3]).choose(&logits, None);
                assert_eq!(choice.map(|c| c.token), Some(3), "a seen one is wanted again: {least}");
            }
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let mut sampler = Sampler::new(&sampled(1.0, 0, 1.0, 7), &[]);
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let mut counts = [0u32; 3];
        for _ in 0..20_000 {
            counts[sampler.choose(&logits, None).expect("finite").token as usize] += 1;
        }
        for (count, wanted) in counts.iter().zip([10_000.0f64, 6_000.0, 4_000.0]) {
            assert!((f64::from(*count) - wanted).abs() < 400.0, "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn only_the_k_likeliest_and_the_p_nucleus_are_drawn(
            logits in prop::collection::vec(-4.0f32..4.0, 2..40), k in 1usize..8, p in 0.05f32..1.0, seed: u64,
        ) {
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            let mut sampler = Sampler::new(&sampled(1.0, k, 1.0, seed), &[]);
            for _ in 0..20 {
                let token = sampler.choose(&logits, None).expect("finite").token as usize;
                prop_assert!(order[..k.min(order.len())].contains(&token));
            }
            let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            let mut sum = 0.0;
            let nucleus = 1 + order.iter().take_while(|i| { sum += f64::from(logits[**i]).exp() / total; sum < f64::from(p) - 1e-9 }).count();
            let mut sampler = Sampler::new(&sampled(1.0, 0, p, seed), &[]);
            for _ in 0..20 {
                let token = sampler.choose(&logits, None).expect("finite").token as usize;
                prop_assert!(order[..(nucleus + 1).min(order.len())].contains(&token));
            }
        }

        #[test]
        fn the_same_seed_draws_the_same_tokens(logits in prop::collection::vec(-4.0f32..4.0, 2..40), seed: u64) {
            let draw = |seed| {
                let mut sampler = Sampler::new(&sampled(0.9, 0, 0.95, seed), &[]);
                (0..16).map(|_| sampler.choose(&logits, None).expect("finite").token).collect::<Vec<_>>()
            };
            prop_assert_eq!(draw(seed), draw(seed));
        }
    }
}
