//! What a plan may still spend. A call is charged at what it may cost at most before it begins, and at what it did cost when it has
//! ended: so calls that run side by side cannot together spend what each of them alone could. One for which too little is left beside those
//! under way waits for their end.
use shoal_proto::v1;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

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
    charged: Mutex<Charged>,
    /// Told when a call has ended, and what it did not use is there again.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Charged {
    /// By calls that have ended.
    spent: Charge,
    /// By calls under way, at most.
    reserved: Charge,
    /// How many these are.
    calls: usize,
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

    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            cost_usd: self.cost_usd + other.cost_usd,
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            cost_usd: (self.cost_usd - other.cost_usd).max(0.0),
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
            ..Self::default()
        }
    }

    /// Charges a call, once those under way leave it as much as those that have ended do: most of what they may use at most they will not
    /// use, and a call that is let in with the rest of it would be cut short for nothing. It waits for nobody who waits himself.
    ///
    /// # Errors
    /// In words, when not a single token may be generated any more.
    pub(crate) async fn reserve(&self, need: Need) -> Result<Reservation<'_>, String> {
        loop {
            // Before the look: what ends after it is told.
            let freed = self.freed.notified();
            if let Some(reservation) = self.take(need)? {
                return Ok(reservation);
            }
            freed.await;
        }
    }

    /// `None`: not before a call under way has ended.
    fn take(&self, need: Need) -> Result<Option<Reservation<'_>>, String> {
        let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        let output = self.output(need, charged.spent)?;
        if charged.calls > 0 && self.output(need, charged.spent.plus(charged.reserved)) != Ok(output) {
            return Ok(None);
        }
        let (input, (per_input, per_output)) = (tokens(need.input_bytes), per_token(need.price));
        let charge = Charge {
            tokens: input + output,
            cost_usd: input as f64 * per_input + output as f64 * per_output,
        };
        charged.reserved = charged.reserved.plus(charge);
        charged.calls += 1;
        let bounded = self.max_tokens.is_some() || self.max_cost_usd.is_some();
        Ok(Some(Reservation {
            budget: self,
            charge,
            price: need.price,
            max_new_tokens: bounded.then(|| u32::try_from(output).unwrap_or(u32::MAX)),
        }))
    }

    /// New tokens that a call may generate where so much is charged already.
    fn output(&self, need: Need, charged: Charge) -> Result<u64, String> {
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
        let (per_input, per_output) = per_token(need.price);
        // What costs nothing is not too dear for who has spent everything, and a little more than was reckoned.
        if let Some(most) = self.max_cost_usd.filter(|_| per_input > 0.0 || per_output > 0.0) {
            let left = most - charged.cost_usd - input as f64 * per_input;
            if left < per_output || left <= 0.0 {
                return Err(format!(
                    "${:.6} of ${most} are left (limits.max_cost_usd): not enough for this target",
                    (most - charged.cost_usd).max(0.0)
                ));
            }
            if per_output > 0.0 {
                output = output.min((left / per_output) as u64);
            }
        }
        Ok(output)
    }

    fn spend(&self, usage: &v1::Usage) {
        let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
        charged.spent = charged.spent.plus(Charge::of(usage));
    }
}

/// US dollars of a token of the prompt, and of one that is generated.
fn per_token(price: (f64, f64)) -> (f64, f64) {
    (price.0 / 1e6, price.1 / 1e6)
}

impl Reservation<'_> {
    /// The call has ended, and this is what it used: what the target counted, or else an estimate by the bytes of prompt and answer.
    /// A target that does not count is held to its plan's bounds like any other.
    pub(crate) fn settle(self, counted: Option<v1::Usage>, (prompt, answer): (usize, usize)) -> v1::Usage {
        let usage = counted.unwrap_or_else(|| self.priced(tokens(prompt), tokens(answer)));
        self.budget.spend(&usage);
        usage
    }

    /// Charges the attempts of the call that came to no answer, with so many bytes of text together: by an estimate, since nobody has
    /// counted them to the end. None if there were none.
    pub(crate) fn lose(&self, prompt: usize, (attempts, answers): (usize, usize)) -> Option<v1::Usage> {
        let usage = (attempts > 0).then(|| self.priced(tokens(prompt) * attempts as u64, tokens(answers)))?;
        self.budget.spend(&usage);
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
        let mut charged = self.budget.charged.lock().unwrap_or_else(PoisonError::into_inner);
        charged.calls -= 1;
        charged.reserved = match charged.calls {
            // Dollars that were added and taken off again leave a rest.
            0 => Charge::default(),
            _ => charged.reserved.less(self.charge),
        };
        drop(charged);
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn need(max_new_tokens: u32, price: f64) -> Need {
        Need {
            input_bytes: 36,
            max_new_tokens,
            price: (price, price),
        }
    }

    /// Charges a call that nothing is in the way of.
    fn reserve(budget: &Budget, need: Need) -> Result<Reservation<'_>, String> {
        budget.reserve(need).now_or_never().expect("nothing to wait for")
    }

    #[test]
    fn a_call_waits_for_what_those_beside_it_may_not_use_and_fails_once_it_is_used() {
        let budget = Budget::new(Some(100), None);
        let first = reserve(&budget, need(50, 0.0)).expect("fits");
        let mut second = Box::pin(budget.reserve(need(50, 0.0)));
        let mut third = Box::pin(budget.reserve(need(60, 0.0)));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        let small = reserve(&budget, need(20, 0.0)).expect("what fits whole need not wait");
        assert_eq!((first.max_new_tokens, small.max_new_tokens), (Some(50), Some(20)));
        let counted = v1::Usage {
            input_tokens: 10,
            output_tokens: 5,
            cost_usd: 0.0,
        };
        assert_eq!(first.settle(Some(counted), (36, 400)), counted);
        drop(small);
        let second = second.now_or_never().expect("told").expect("fits");
        assert_eq!(second.max_new_tokens, Some(50));
        let all = v1::Usage {
            output_tokens: 85,
            ..v1::Usage::default()
        };
        second.settle(Some(all), (36, 400));
        let refused = third.now_or_never().expect("told").expect_err("nothing is left");
        assert!(
            refused.contains("0 of 100") && refused.contains("max_tokens"),
            "{refused}"
        );
    }

    #[test]
    fn calls_one_after_the_other_get_what_is_left() {
        let budget = Budget::new(Some(100), None);
        let counted = v1::Usage {
            output_tokens: 15,
            ..v1::Usage::default()
        };
        reserve(&budget, need(50, 0.0))
            .expect("fits")
            .settle(Some(counted), (36, 400));
        assert_eq!(reserve(&budget, need(500, 0.0)).expect("fits").max_new_tokens, Some(75));
    }

    #[test]
    fn a_call_that_nobody_counted_is_charged_by_its_bytes() {
        let budget = Budget::new(Some(100), Some(1.0));
        let used = reserve(&budget, need(50, 2.0)).expect("fits").settle(None, (36, 80));
        assert_eq!((used.input_tokens, used.output_tokens), (10, 21));
        assert!((used.cost_usd - 62e-6).abs() < 1e-12, "{used:?}");
        assert_eq!(
            reserve(&budget, need(500, 2.0)).expect("again").max_new_tokens,
            Some(59)
        );
    }

    #[test]
    fn attempts_that_came_to_nothing_are_charged_beside_the_answer() {
        let budget = Budget::new(Some(200), None);
        let call = reserve(&budget, need(50, 2.0)).expect("fits");
        assert_eq!(call.lose(36, (0, 0)), None);
        let lost = call.lose(36, (2, 116)).expect("two were lost");
        assert_eq!((lost.input_tokens, lost.output_tokens), (20, 30));
        assert!((lost.cost_usd - 100e-6).abs() < 1e-12, "{lost:?}");
        drop(call);
        assert_eq!(
            reserve(&budget, need(500, 2.0)).expect("again").max_new_tokens,
            Some(140)
        );
    }

    #[test]
    fn money_rules_out_the_dear_target_and_not_the_cheap_one() {
        let budget = Budget::new(None, Some(0.001));
        assert!(
            reserve(&budget, need(10, 1000.0))
                .expect_err("dear")
                .contains("max_cost_usd")
        );
        assert_eq!(reserve(&budget, need(10, 1.0)).expect("cheap").max_new_tokens, Some(10));
        assert_eq!(reserve(&budget, need(10, 0.0)).expect("free").max_new_tokens, Some(10));
        let unbounded = Budget::default();
        assert_eq!(
            reserve(&unbounded, need(10, 1e9)).expect("no bound").max_new_tokens,
            None
        );
        // A prompt had more tokens than its bytes said.
        let more = v1::Usage {
            cost_usd: 0.0011,
            ..v1::Usage::default()
        };
        reserve(&budget, need(10, 1.0))
            .expect("cheap")
            .settle(Some(more), (36, 4));
        assert_eq!(reserve(&budget, need(10, 0.0)).expect("free").max_new_tokens, Some(10));
        let refused = reserve(&budget, need(10, 1.0)).expect_err("spent");
        assert!(refused.starts_with("$0.000000 of $0.001 "), "{refused}");
    }
}
