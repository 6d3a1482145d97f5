//! Names of this crate's metrics, their units, what feeds them, and the attributes that only its spans have.
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, UpDownCounter},
};
use shoal_kit::telemetry::meter;
use shoal_proto::v1;
use shoal_stack::metrics::SECONDS;
use std::time::Duration;

/// Counter: plans ended, by `state`.
pub const PLANS: &str = "shoal_plans";
/// Up-down counter: plans running.
pub const PLANS_RUNNING: &str = "shoal_plans_running";
/// Histogram, seconds: acceptance to the last event, by `state`.
pub const PLAN_SECONDS: &str = "shoal_plan_seconds";
/// Counter: plans refused, by `reason` (as in ErrorInfo).
pub const PLANS_REFUSED: &str = "shoal_plans_refused";
/// Histogram, seconds: a node's start to its end, by `kind`, `name` (a task's, a tool's, or `client` of every tool that a plan's
/// client answers) and `state`.
pub const NODE_SECONDS: &str = "shoal_node_seconds";
/// Counter: answers that went to the next target, by `task`, `from` and `why`.
pub const ESCALATIONS: &str = "shoal_escalations";
/// Counter: tokens by `target` and `direction` ("input", "output").
pub const TOKENS: &str = "shoal_tokens";
/// Counter, US dollars, by `target`.
pub const COST: &str = "shoal_cost_usd";
/// Gauge, bytes: outcomes on disk that feedback has not acknowledged.
pub const SPOOL_BYTES: &str = "shoal_spool_bytes";
/// Counter: outcomes that feedback has acknowledged.
pub const OUTCOMES_ACKNOWLEDGED: &str = "shoal_outcomes_acknowledged";

/// Span attribute: the task of a model node.
pub(crate) const TASK: &str = "shoal.task";
/// Span attribute: the target that answered.
pub(crate) const TARGET: &str = "shoal.target";
/// Span attribute: how a plan or a node ended.
pub(crate) const STATE: &str = "shoal.state";
/// Span attribute: how sure the model was, 0 to 1.
pub(crate) const CONFIDENCE: &str = "shoal.confidence.score";
/// Span attribute: US dollars.
pub(crate) const COST_USD: &str = "shoal.cost_usd";
/// Span attribute: "host:port" of the peer.
pub(crate) const SERVER_ADDRESS: &str = "server.address";
/// Span attribute: retries before this attempt.
pub(crate) const ATTEMPT: &str = "shoal.attempt";

/// The instruments of one gateway.
#[derive(Debug, Clone)]
pub(crate) struct Instruments {
    plans: Counter<u64>,
    running: UpDownCounter<i64>,
    plan_seconds: Histogram<f64>,
    refused: Counter<u64>,
    node_seconds: Histogram<f64>,
    escalations: Counter<u64>,
    tokens: Counter<u64>,
    cost: Counter<f64>,
    pub(crate) spool_bytes: Gauge<u64>,
    pub(crate) acknowledged: Counter<u64>,
}

impl Default for Instruments {
    fn default() -> Self {
        let meter = meter();
        Self {
            plans: meter.u64_counter(PLANS).with_description("plans ended").build(),
            running: meter
                .i64_up_down_counter(PLANS_RUNNING)
                .with_description("plans running")
                .build(),
            plan_seconds: meter
                .f64_histogram(PLAN_SECONDS)
                .with_boundaries(SECONDS.to_vec())
                .with_description("acceptance to the last event")
                .build(),
            refused: meter
                .u64_counter(PLANS_REFUSED)
                .with_description("plans refused")
                .build(),
            node_seconds: meter
                .f64_histogram(NODE_SECONDS)
                .with_boundaries(SECONDS.to_vec())
                .with_description("a node's start to its end")
                .build(),
            escalations: meter
                .u64_counter(ESCALATIONS)
                .with_description("answers that went to the next target")
                .build(),
            tokens: meter
                .u64_counter(TOKENS)
                .with_description("tokens of model calls")
                .build(),
            cost: meter
                .f64_counter(COST)
                .with_description("US dollars by the cards' prices")
                .build(),
            spool_bytes: meter
                .u64_gauge(SPOOL_BYTES)
                .with_description("outcomes on disk, not acknowledged")
                .build(),
            acknowledged: meter
                .u64_counter(OUTCOMES_ACKNOWLEDGED)
                .with_description("outcomes acknowledged by feedback")
                .build(),
        }
    }
}

impl Instruments {
    pub(crate) fn plan_began(&self) {
        self.running.add(1, &[]);
    }

    pub(crate) fn plan_ended(&self, state: v1::State, took: Duration) {
        let state = [KeyValue::new("state", word(state))];
        self.running.add(-1, &[]);
        self.plans.add(1, &state);
        self.plan_seconds.record(took.as_secs_f64(), &state);
    }

    pub(crate) fn plan_refused(&self, reason: &str) {
        self.refused.add(1, &[KeyValue::new("reason", reason.to_owned())]);
    }

    pub(crate) fn node_ended(&self, kind: &'static str, name: &str, state: v1::State, took: Duration) {
        let labels = [
            KeyValue::new("kind", kind),
            KeyValue::new("name", name.to_owned()),
            KeyValue::new("state", word(state)),
        ];
        self.node_seconds.record(took.as_secs_f64(), &labels);
    }

    pub(crate) fn escalated(&self, task: &str, from: &str, why: &'static str) {
        let labels = [
            KeyValue::new("task", task.to_owned()),
            KeyValue::new("from", from.to_owned()),
            KeyValue::new("why", why),
        ];
        self.escalations.add(1, &labels);
    }

    pub(crate) fn used(&self, target: &str, usage: &v1::Usage) {
        let target = KeyValue::new("target", target.to_owned());
        self.tokens.add(
            usage.input_tokens,
            &[target.clone(), KeyValue::new("direction", "input")],
        );
        self.tokens.add(
            usage.output_tokens,
            &[target.clone(), KeyValue::new("direction", "output")],
        );
        self.cost.add(usage.cost_usd, &[target]);
    }
}

/// "succeeded" of `STATE_SUCCEEDED`.
pub(crate) fn word(state: v1::State) -> &'static str {
    match state {
        v1::State::Unspecified => "unknown",
        v1::State::Pending => "pending",
        v1::State::Running => "running",
        v1::State::Succeeded => "succeeded",
        v1::State::Failed => "failed",
        v1::State::Cancelled => "cancelled",
        v1::State::Skipped => "skipped",
    }
}
