//! What a plan may still spend. A call is charged at what it may cost at most before it begins, and at what it did cost when it has
//! ended: so calls that run side by side cannot together spend what each of them alone could.
use shoal_proto::v1;
use std::sync::{Mutex, PoisonError};

/// Bytes of English to a token, about. A prompt's tokens are not known before it is sent; the answer's are the larger part anyway.
const BYTES_PER_TOKEN: usize = 4;

/// Tokens of so many bytes, about; never none.
fn tokens(bytes: usize) -> u64 {
    (bytes / BYTES_PER_TOKEN) as u64 + 1
}

/// Token and money bounds of a plan; `None` is no bound.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    max_tokens: Option<u64>,
    max_cost_usd: Option<f64>,
    charged: Mutex<Charge>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Charge {
    tokens: u64,
    cost_usd: f64,
}

impl Charge {
    fn of(usage: &v1::Usage) -> Self {
        Self {
            tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            cost_usd: usage.cost_usd,
        }
    }
}

/// What a call is expected to need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) input_bytes: usize,
    /// New tokens that it may generate at most.
    pub(crate) max_new_tokens: u32,
    /// US dollars per million tokens: prompt, generated.
    pub(crate) price: (f64, f64),
}

/// A call's charge. Dropped unsettled (the call failed, or was cancelled), it is given back.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    budget: &'a Budget,
    charge: Charge,
    price: (f64, f64),
    /// New tokens that the call may generate, if the budget has a say.
    pub(crate) max_new_tokens: Option<u32>,
}

impl Budget {
    pub(crate) fn new(max_tokens: Option<u64>, max_cost_usd: Option<f64>) -> Self {
        Self {
            max_tokens,
            max_cost_usd,
            charged: Mutex::default(),
        }
    }

    /// Charges a call.
    ///
    /// # Errors
    /// In words, when not a single token may be generated any more.
    pub(crate) fn reserve(&self, need: Need) -> Result<Reservation<'_>, String> {
        let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        let input = tokens(need.input_bytes);
        let mut output = u64::from(need.max_new_tokens.max(1));
        if let Some(most) = self.max_tokens {
            let left = most.saturating_sub(charged.tokens);
            if left <= input {
                return Err(format!(
                    "{left} of {most} tokens are left (limits.max_tokens), and the prompt alone has about {input}"
                ));
            }
            output = output.min(left - input);
        }
        let (per_input, per_output) = (need.price.0 / 1e6, need.price.1 / 1e6);
        if let Some(most) = self.max_cost_usd {
            let left = most - charged.cost_usd - input as f64 * per_input;
            if left < per_output || left <= 0.0 {
                return Err(format!(
                    "${:.6} of ${most} are left (limits.max_cost_usd): not enough for this target",
                    most - charged.cost_usd
                ));
            }
            if per_output > 0.0 {
                output = output.min((left / per_output) as u64);
            }
        }
        let charge = Charge {
            tokens: input + output,
            cost_usd: input as f64 * per_input + output as f64 * per_output,
        };
        charged.tokens += charge.tokens;
        charged.cost_usd += charge.cost_usd;
        let bounded = self.max_tokens.is_some() || self.max_cost_usd.is_some();
        Ok(Reservation {
            budget: self,
            charge,
            price: need.price,
            max_new_tokens: bounded.then(|| u32::try_from(output).unwrap_or(u32::MAX)),
        })
    }

    fn charge(&self, back: Charge, instead: Charge) {
        let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        charged.tokens = charged
            .tokens
            .saturating_sub(back.tokens)
            .saturating_add(instead.tokens);
        charged.cost_usd = (charged.cost_usd - back.cost_usd).max(0.0) + instead.cost_usd;
    }
}

impl Reservation<'_> {
    /// The call has ended, and this is what it used: what the target counted, or else an estimate by the bytes of prompt and answer.
    /// A target that does not count is held to its plan's bounds like any other.
    pub(crate) fn settle(mut self, counted: Option<v1::Usage>, (prompt, answer): (usize, usize)) -> v1::Usage {
        let usage = counted.unwrap_or_else(|| self.priced(tokens(prompt), tokens(answer)));
        self.budget.charge(self.charge, Charge::of(&usage));
        self.charge = Charge::default();
        usage
    }

    /// Charges the attempts of the call that came to no answer, with so many bytes of text together: by an estimate, since nobody has
    /// counted them to the end. None if there were none.
    pub(crate) fn lose(&self, prompt: usize, (attempts, answers): (usize, usize)) -> Option<v1::Usage> {
        let usage = (attempts > 0).then(|| self.priced(tokens(prompt) * attempts as u64, tokens(answers)))?;
        self.budget.charge(Charge::default(), Charge::of(&usage));
        Some(usage)
    }

    fn priced(&self, input_tokens: u64, output_tokens: u64) -> v1::Usage {
        v1::Usage {
            input_tokens,
            output_tokens,
            cost_usd: (input_tokens as f64 * self.price.0 + output_tokens as f64 * self.price.1) / 1e6,
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.charge(self.charge, Charge::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(max_new_tokens: u32, price: f64) -> Need {
        Need {
            input_bytes: 36,
            max_new_tokens,
            price: (price, price),
        }
    }

    #[test]
    fn calls_side_by_side_share_what_is_left_and_what_they_did_not_use_comes_back() {
        let budget = Budget::new(Some(100), None);
        let first = budget.reserve(need(50, 0.0)).expect("fits");
        let second = budget.reserve(need(50, 0.0)).expect("fits in part");
        assert_eq!((first.max_new_tokens, second.max_new_tokens), (Some(50), Some(30)));
        assert!(
            budget
                .reserve(need(1, 0.0))
                .expect_err("nothing is left")
                .contains("max_tokens")
        );
        drop(second);
        let counted = v1::Usage {
            input_tokens: 10,
            output_tokens: 5,
            cost_usd: 0.0,
        };
        assert_eq!(first.settle(Some(counted), (36, 400)), counted);
        assert_eq!(budget.reserve(need(500, 0.0)).expect("again").max_new_tokens, Some(75));
    }

    #[test]
    fn a_call_that_nobody_counted_is_charged_by_its_bytes() {
        let budget = Budget::new(Some(100), Some(1.0));
        let used = budget.reserve(need(50, 2.0)).expect("fits").settle(None, (36, 80));
        assert_eq!((used.input_tokens, used.output_tokens), (10, 21));
        assert!((used.cost_usd - 62e-6).abs() < 1e-12, "{used:?}");
        assert_eq!(budget.reserve(need(500, 2.0)).expect("again").max_new_tokens, Some(59));
    }

    #[test]
    fn attempts_that_came_to_nothing_are_charged_beside_the_answer() {
        let budget = Budget::new(Some(200), None);
        let call = budget.reserve(need(50, 2.0)).expect("fits");
        assert_eq!(call.lose(36, (0, 0)), None);
        let lost = call.lose(36, (2, 116)).expect("two were lost");
        assert_eq!((lost.input_tokens, lost.output_tokens), (20, 30));
        assert!((lost.cost_usd - 100e-6).abs() < 1e-12, "{lost:?}");
        drop(call);
        assert_eq!(budget.reserve(need(500, 2.0)).expect("again").max_new_tokens, Some(140));
    }

    #[test]
    fn money_rules_out_the_dear_target_and_not_the_cheap_one() {
        let budget = Budget::new(None, Some(0.001));
        assert!(
            budget
                .reserve(need(10, 1000.0))
                .expect_err("dear")
                .contains("max_cost_usd")
        );
        assert_eq!(budget.reserve(need(10, 1.0)).expect("cheap").max_new_tokens, Some(10));
        assert_eq!(budget.reserve(need(10, 0.0)).expect("free").max_new_tokens, Some(10));
        assert_eq!(
            Budget::default()
                .reserve(need(10, 1e9))
                .expect("no bound")
                .max_new_tokens,
            None
        );
    }
}
