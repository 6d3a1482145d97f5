//! Names of this crate's metrics, their units, and what feeds them.
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use shoal_kit::telemetry::{SECONDS, meter};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Gauge: slots that hold a sequence.
pub const LIVE_SLOTS: &str = "shoal.specialist.slots.live";
/// Gauge: prompt tokens waiting for a slot.
pub const QUEUE_TOKENS: &str = "shoal.specialist.queue.tokens";
/// Counter: tokens sampled, end-of-sequence included.
pub const TOKENS: &str = "shoal.specialist.tokens";
/// Counter: prompt tokens of requests that began to decode.
pub const PROMPT_TOKENS: &str = "shoal.specialist.prompt_tokens";
/// Counter: prompt tokens that were not read but copied, from a prompt that began alike. Part of [`PROMPT_TOKENS`]: their ratio is the hit
/// rate in tokens.
pub const PREFIX_TOKENS: &str = "shoal.specialist.prefix.tokens";
/// Counter: prompts for which a beginning was looked up, by `outcome`: "hit", "miss".
pub const PREFIX_LOOKUPS: &str = "shoal.specialist.prefix.lookups";
/// Counter: prompts that were read in one run with others.
pub const TOGETHER: &str = "shoal.specialist.prompts.together";
/// Gauge, bytes: what prompt slots hold of prompts, read by somebody now or kept for the next that begins alike.
pub const PREFIX_BYTES: &str = "shoal.specialist.prefix.bytes";
/// Gauge, bytes: the KV buffer, idle slots included. On the CPU a slot takes memory once it was used.
pub const KV_BYTES: &str = "shoal.specialist.kv.bytes";
/// Histogram, seconds: one decode step of all rows.
pub const STEP_SECONDS: &str = "shoal.specialist.step.duration";
/// Bounds under a millisecond: a step of a model of some megabytes takes a few hundred microseconds.
const SHORT_SECONDS: [f64; 3] = [0.0001, 0.00025, 0.0005];
/// Counter: requests ended, by `outcome`: "stop", "length", "expired", "cancelled", "failed".
pub const REQUESTS: &str = "shoal.specialist.requests";
/// Counter: other versions tried, by `outcome`: "switched" (loaded), "resumed" (it was still kept), "refused"; `model` is the one tried.
pub const VERSIONS: &str = "shoal.specialist.versions";

/// What the engine did so far. Read by `/metrics` and by tests; relaxed, for none of it orders anything else.
#[derive(Debug, Default)]
pub struct Counters {
    /// Slots that hold a sequence now.
    pub live_slots: AtomicU64,
    /// Prompt tokens waiting now.
    pub queue_tokens: AtomicU64,
    /// Tokens sampled.
    pub tokens: AtomicU64,
    /// Prompt tokens of requests that began to decode.
    pub prompt_tokens: AtomicU64,
    /// Prompt tokens that were copied instead of read.
    pub prefix_tokens: AtomicU64,
    /// Prompts of which some were.
    pub prefix_hits: AtomicU64,
    /// Prompts of which none were.
    pub prefix_misses: AtomicU64,
    /// Prompts that were read in one run with others.
    pub together: AtomicU64,
    /// Bytes that the prompt slots hold of prompts now.
    pub prefix_bytes: AtomicU64,
    /// Bytes of the KV buffer.
    pub kv_bytes: AtomicU64,
    /// Decode steps taken.
    pub steps: AtomicU64,
    /// Rows decoded, summed over the steps.
    pub rows: AtomicU64,
    /// Requests that ended because nobody waited for them any more.
    pub cancelled: AtomicU64,
    /// Requests that ended because their time was up.
    pub expired: AtomicU64,
}

/// Counts a version that was tried.
pub(crate) fn tried(model: String, outcome: &'static str) {
    let tried = meter().u64_counter(VERSIONS).with_description("versions tried").build();
    tried.add(1, &[KeyValue::new("model", model), KeyValue::new("outcome", outcome)]);
}

/// The instruments of one engine. `model` is "name@version": while one version takes over, two engines run.
pub(crate) struct Instruments {
    pub(crate) counters: Arc<Counters>,
    step: Histogram<f64>,
    tokens: Counter<u64>,
    prompt_tokens: Counter<u64>,
    prefix_tokens: Counter<u64>,
    prefix_lookups: Counter<u64>,
    together: Counter<u64>,
    requests: Counter<u64>,
    model: KeyValue,
}

impl Instruments {
    pub(crate) fn new(model: &str) -> Self {
        let counters = Arc::new(Counters::default());
        let model = KeyValue::new("model", model.to_owned());
        let meter = meter();
        let observe = |name: &'static str, what: &'static str, read: fn(&Counters) -> u64| {
            let (counters, model) = (Arc::downgrade(&counters), model.clone());
            let _gauge = meter
                .u64_observable_gauge(name)
                .with_description(what)
                .with_callback(move |observer| {
                    if let Some(counters) = counters.upgrade() {
                        observer.observe(read(&counters), std::slice::from_ref(&model));
                    }
                });
            let _gauge = _gauge.build();
        };
        observe(LIVE_SLOTS, "slots that hold a sequence", |c| {
            c.live_slots.load(Ordering::Relaxed)
        });
        observe(QUEUE_TOKENS, "prompt tokens waiting for a slot", |c| {
            c.queue_tokens.load(Ordering::Relaxed)
        });
        observe(PREFIX_BYTES, "bytes of prompts in prompt slots", |c| {
            c.prefix_bytes.load(Ordering::Relaxed)
        });
        observe(KV_BYTES, "bytes of the KV buffer", |c| {
            c.kv_bytes.load(Ordering::Relaxed)
        });
        Self {
            counters,
            step: meter
                .f64_histogram(STEP_SECONDS)
                .with_boundaries([&SHORT_SECONDS[..], &SECONDS].concat())
                .with_unit("s")
                .with_description("one decode step of all rows")
                .build(),
            tokens: meter.u64_counter(TOKENS).with_description("tokens sampled").build(),
            prompt_tokens: meter
                .u64_counter(PROMPT_TOKENS)
                .with_description("prompt tokens read")
                .build(),
            prefix_tokens: meter
                .u64_counter(PREFIX_TOKENS)
                .with_description("prompt tokens copied instead of read")
                .build(),
            prefix_lookups: meter
                .u64_counter(PREFIX_LOOKUPS)
                .with_description("prompts whose beginning was looked up")
                .build(),
            together: meter
                .u64_counter(TOGETHER)
                .with_description("prompts read in one run with others")
                .build(),
            requests: meter.u64_counter(REQUESTS).with_description("requests ended").build(),
            model,
        }
    }

    pub(crate) fn prefilled(&self, tokens: usize) {
        self.counters.prompt_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.prompt_tokens.add(tokens as u64, std::slice::from_ref(&self.model));
    }

    /// A prompt begins, and `past` tokens of it need not be read.
    pub(crate) fn looked_up(&self, past: usize) {
        let counters = &self.counters;
        let (outcome, count) = match past {
            0 => ("miss", &counters.prefix_misses),
            _ => ("hit", &counters.prefix_hits),
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.prefix_lookups
            .add(1, &[self.model.clone(), KeyValue::new("outcome", outcome)]);
        counters.prefix_tokens.fetch_add(past as u64, Ordering::Relaxed);
        self.prefix_tokens.add(past as u64, std::slice::from_ref(&self.model));
    }

    pub(crate) fn together(&self, prompts: usize) {
        self.counters.together.fetch_add(prompts as u64, Ordering::Relaxed);
        self.together.add(prompts as u64, std::slice::from_ref(&self.model));
    }

    pub(crate) fn stepped(&self, rows: usize, seconds: f64) {
        self.counters.steps.fetch_add(1, Ordering::Relaxed);
        self.counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.step.record(seconds, std::slice::from_ref(&self.model));
    }

    /// A token of each of so many rows.
    pub(crate) fn sampled(&self, rows: usize) {
        self.counters.tokens.fetch_add(rows as u64, Ordering::Relaxed);
        self.tokens.add(rows as u64, std::slice::from_ref(&self.model));
    }

    pub(crate) fn ended(&self, outcome: &'static str) {
        let counted = match outcome {
            "cancelled" => Some(&self.counters.cancelled),
            "expired" => Some(&self.counters.expired),
            _ => None,
        };
        if let Some(count) = counted {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.requests
            .add(1, &[self.model.clone(), KeyValue::new("outcome", outcome)]);
    }
}
