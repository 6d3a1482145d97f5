//! What became of the plans: counts and a histogram. Pure.
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Three significant digits: p999 of 10 s is right to 10 ms, and the histogram takes a few hundred KiB whatever the load.
const DIGITS: u8 = 3;

/// The longest wait told apart, in microseconds: two days. A deadline is at most one, and a schedule another.
const LONGEST: u64 = 2 * 86_400 * 1_000_000;

/// Kinds of error told apart; further ones count as "OTHER", so that a peer that makes up reasons cannot fill our memory.
const KINDS: usize = 64;

/// How one plan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// STATE_SUCCEEDED; `right` says whether the answer is the target, where there is one.
    Succeeded {
        /// As judged.
        right: Option<bool>,
    },
    /// Its deadline ran out. The wait is what the caller saw: it belongs to the latencies.
    TimedOut {
        /// Key of `errors`.
        cause: String,
    },
    /// Anything else.
    Failed {
        /// Key of `errors`.
        cause: String,
    },
}

/// The sums.
#[derive(Debug)]
pub(crate) struct Tally {
    succeeded: u64,
    failed: u64,
    shed: u64,
    judged: u64,
    right: u64,
    errors: BTreeMap<String, u64>,
    /// Microseconds.
    latencies: Histogram<u64>,
    /// From the start to the last end.
    span: Duration,
    interrupted: bool,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            succeeded: 0,
            failed: 0,
            shed: 0,
            judged: 0,
            right: 0,
            errors: BTreeMap::new(),
            latencies: Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are in order"),
            span: Duration::ZERO,
            interrupted: false,
        }
    }

    /// A plan scheduled at `scheduled` ended at `at`, both from the start.
    pub(crate) fn ended(&mut self, scheduled: Duration, at: Duration, ended: Ended) {
        self.span = self.span.max(at);
        let waited = at.saturating_sub(scheduled);
        match ended {
            Ended::Succeeded { right } => {
                self.succeeded += 1;
                self.judged += u64::from(right.is_some());
                self.right += u64::from(right == Some(true));
                self.record(waited);
            }
            Ended::TimedOut { cause } => {
                self.fail(cause);
                self.record(waited);
            }
            Ended::Failed { cause } => self.fail(cause),
        }
    }

    /// An arrival was not sent.
    pub(crate) fn shed(&mut self) {
        self.shed += 1;
    }

    /// The load was not sent to its end.
    pub(crate) fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Whether the sums are of a part of the load.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Arrivals that are accounted for.
    pub(crate) fn arrivals(&self) -> u64 {
        self.succeeded + self.failed + self.shed
    }

    /// For the progress bar.
    pub(crate) fn so_far(&self, in_flight: u32) -> String {
        let p99 = self.quantile(0.99).map_or("-".into(), |ms| format!("{ms:.0} ms"));
        let (failed, shed) = (self.failed, self.shed);
        format!("{in_flight} in flight, {failed} failed, {shed} shed, p99 {p99}")
    }

    /// The object that ends a run; `rate` is what was asked for.
    pub(crate) fn to_json(&self, rate: f64) -> Value {
        let seconds = self.span.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let achieved = if seconds > 0.0 {
            self.succeeded as f64 / seconds
        } else {
            0.0
        };
        let max = (!self.latencies.is_empty()).then(|| milliseconds(self.latencies.max()));
        let mut out = json!({
            "rate": rate, "sent": self.succeeded + self.failed, "succeeded": self.succeeded, "failed": self.failed,
            "shed": self.shed,
        });
        if self.judged > 0 {
            out["right"] = self.right.into();
        }
        if self.interrupted {
            out["interrupted"] = true.into();
        }
        out["latency_ms"] = json!({
            "p50": self.quantile(0.5), "p90": self.quantile(0.9), "p99": self.quantile(0.99),
            "p999": self.quantile(0.999), "max": max,
        });
        out["achieved_rate"] = ((achieved * 1e3).round() / 1e3).into();
        out["errors"] = json!(self.errors);
        out
    }

    fn fail(&mut self, cause: String) {
        self.failed += 1;
        let known = self.errors.len() < KINDS || self.errors.contains_key(&cause);
        *self
            .errors
            .entry(if known { cause } else { "OTHER".into() })
            .or_default() += 1;
    }

    fn record(&mut self, waited: Duration) {
        self.latencies
            .saturating_record(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
    }

    fn quantile(&self, q: f64) -> Option<f64> {
        (!self.latencies.is_empty()).then(|| milliseconds(self.latencies.value_at_quantile(q)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are kept anyway")]
fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1e3
}

#[cfg(test)]
mod tests;
