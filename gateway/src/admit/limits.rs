//! Bounds of a plan, and numbers in general: what is absent has the configured default, what is out of range is refused.
use super::Faults;
use crate::tools::ANSWER_BYTES;
use shoal_kit::config;
use shoal_proto::{
    time,
    v1::{self, execute_plan_request::Source},
};
use std::time::Duration;

/// Attempts that a node may ask for: past five, a target is not flaky but gone.
const ATTEMPTS: u32 = 5;

/// Stop strings of a request, and bytes of one.
const STOPS: (usize, usize) = (8, 64);

/// Bounds of a whole plan, every one of them set or meant to be absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    /// From acceptance to the last event.
    pub(crate) deadline: Duration,
    /// Tokens in and out.
    pub(crate) max_tokens: Option<u64>,
    /// US dollars.
    pub(crate) max_cost_usd: Option<f64>,
    /// Queueing class of every node.
    pub(crate) priority: v1::Priority,
}

/// Reads `limits`; `left` is what the caller's `grpc-timeout` leaves.
pub(super) fn bounds(
    wire: Option<&v1::PlanLimits>,
    left: Option<Duration>,
    config: &config::Gateway,
    faults: &mut Faults,
) -> Bounds {
    let default = v1::PlanLimits::default();
    let wire = wire.unwrap_or(&default);
    let asked = wire.deadline.as_ref().map(|d| positive(d, "limits.deadline", faults));
    if asked.is_some_and(|d| d > config.max_deadline) {
        let most = config.max_deadline;
        faults.add(
            "limits.deadline",
            format!("is longer than {most:?}, the most that may be asked for ([gateway] max_deadline)"),
        );
    }
    let deadline = asked.unwrap_or(config.default_deadline);
    if !wire.max_cost_usd.is_finite() || wire.max_cost_usd < 0.0 {
        faults.add(
            "limits.max_cost_usd",
            format!("{} is no amount of money; 0 is no bound", wire.max_cost_usd),
        );
    }
    Bounds {
        deadline: left.map_or(deadline, |left| deadline.min(left)),
        max_tokens: Some(wire.max_tokens).filter(|n| *n > 0),
        max_cost_usd: Some(wire.max_cost_usd).filter(|n| *n > 0.0),
        priority: priority(wire.priority, faults),
    }
}

fn priority(wire: i32, faults: &mut Faults) -> v1::Priority {
    match v1::Priority::try_from(wire) {
        Ok(v1::Priority::Unspecified) => v1::Priority::Normal,
        Ok(known) => known,
        Err(_) => {
            faults.add(
                "limits.priority",
                format!("{wire} is no Priority that this version knows; send 0 to 3"),
            );
            v1::Priority::Normal
        }
    }
}

/// A duration above zero.
pub(super) fn positive(wire: &prost_types::Duration, field: &str, faults: &mut Faults) -> Duration {
    let duration = time::std_duration(wire).filter(|d| !d.is_zero());
    duration.unwrap_or_else(|| {
        let (s, n) = (wire.seconds, wire.nanos);
        faults.add(field, format!("{s} s and {n} ns is no duration above zero"));
        Duration::MAX
    })
}

/// A node's attempts; `None` is the kind's default.
pub(super) fn attempts(wire: u32, path: &str, faults: &mut Faults) -> Option<u32> {
    if wire > ATTEMPTS {
        faults.add(
            format!("{path}.max_attempts"),
            format!("{wire} is more than {ATTEMPTS}"),
        );
    }
    (wire > 0).then_some(wire)
}

/// How to decode, held to the contract's ranges. The card's own limit of new tokens is the specialist's to hold.
pub(super) fn sampling(wire: &v1::Sampling, path: &str, faults: &mut Faults) {
    let mut fault = |field: &str, said: String| faults.add(format!("{path}.{field}"), said);
    if wire.max_tokens == Some(0) {
        fault("max_tokens", "must be at least 1".into());
    }
    let mut range = |field: &str, value: Option<f32>, least: f32, most: f32, open: bool| {
        let Some(value) = value else { return };
        // NaN lies in no range.
        if !(least..=most).contains(&value) || (open && value == least) {
            fault(
                field,
                format!(
                    "{value} is not {} {least} and at most {most}",
                    if open { "over" } else { "at least" }
                ),
            );
        }
    };
    range("temperature", wire.temperature, 0.0, 2.0, false);
    range("top_p", wire.top_p, 0.0, 1.0, true);
    range("repetition_penalty", wire.repetition_penalty, 0.0, 2.0, true);
    if wire.stop.len() > STOPS.0 {
        fault("stop", format!("{} stop strings; at most {}", wire.stop.len(), STOPS.0));
    }
    for (i, stop) in wire.stop.iter().enumerate().take(STOPS.0) {
        if stop.is_empty() || stop.len() > STOPS.1 {
            fault(
                &format!("stop[{i}]"),
                format!("has {} bytes, not 1 to {}", stop.len(), STOPS.1),
            );
        }
    }
}

/// What an entry of a list counts besides its text: no entry takes more of a message, and one without text takes that of memory.
const ENTRY: usize = 8;

/// Bytes of a request's texts, JSON and plan text together, and of the lists that hold them.
pub(super) fn bytes(request: &v1::ExecutePlanRequest) -> usize {
    match &request.source {
        None => 0,
        Some(Source::PlanText(text)) => text.len(),
        Some(Source::Goal(goal)) => goal_bytes(goal),
        Some(Source::Plan(plan)) => plan.nodes.iter().map(node_bytes).sum(),
    }
}

/// Bytes of a goal's texts.
pub(super) fn goal_bytes(goal: &v1::Goal) -> usize {
    let method = |m: &v1::MethodSignature| ENTRY + m.service.len() + m.method.len() + entries(&m.parameters);
    goal.text.len() + entries(&goal.turns) + goal.methods.iter().map(method).sum::<usize>()
}

/// Bytes of a node's texts.
pub(crate) fn node_bytes(node: &v1::Node) -> usize {
    let kind = match &node.kind {
        None => 0,
        Some(v1::node::Kind::Model(m)) => {
            let stop = m.sampling.as_ref().map_or(0, |s| entries(&s.stop));
            m.task.len() + m.input.len() + m.output_schema_json.len() + stop
        }
        Some(v1::node::Kind::Tool(t)) => t.name.len() + t.arguments_json.len(),
    };
    let policy = node
        .on_failure
        .as_ref()
        .map_or(0, |p| p.default_json.len() + p.fallback_task.len());
    ENTRY + node.id.len() + kind + policy + entries(&node.after)
}

fn entries(texts: &[String]) -> usize {
    texts.iter().map(|text| ENTRY + text.len()).sum()
}

/// Bytes of a message that is read at all: it is held as a whole before anything of it can be counted. Twice the texts, or a tool's
/// answer: what is only somewhat too large is told with the key that says so. A node has a few hundred bytes that are no text, and a
/// stream's opening the names of its tools.
pub(crate) fn message_bytes(config: &config::Gateway) -> usize {
    const NODE: usize = 512;
    const REST: usize = 64 << 10;
    let texts = config.max_input_bytes.max(ANSWER_BYTES).saturating_mul(2);
    texts
        .saturating_add(config.max_nodes.saturating_mul(NODE))
        .saturating_add(REST)
}
