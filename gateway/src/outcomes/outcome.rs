//! A node's result as an outcome. Pure.
use super::frame::MAX_PAYLOAD;
use prost::Message as _;
use shoal_proto::{time, v1};
use std::time::SystemTime;

/// What an outcome knows beyond the node's result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beyond {
    /// Whether the output satisfied its schema; `None` if there is none to satisfy.
    pub(crate) valid: Option<bool>,
    /// What a smaller model had said, JSON value; empty if nothing escalated.
    pub(crate) escalated_from: String,
}

/// The outcome of a node.
pub(crate) fn of(plan_id: &str, trace_id: &str, result: &v1::NodeResult, beyond: Beyond) -> v1::Outcome {
    let r = result.clone();
    let outcome = v1::Outcome {
        outcome_id: r.outcome_id,
        plan_id: plan_id.to_owned(),
        node_id: r.node_id,
        trace_id: trace_id.to_owned(),
        kind: r.kind,
        name: r.name,
        input_json: r.input_json,
        output_json: r.output_json,
        target: r.target,
        model: r.model,
        state: r.state,
        fault: r.fault,
        valid: beyond.valid,
        decisions: r.decisions,
        escalated_from_output_json: beyond.escalated_from,
        usage: r.usage,
        timings: r.timings,
        confidence: r.confidence,
        elapsed: r.elapsed,
        finished_at: Some(time::timestamp(SystemTime::now())),
        depends_on: r.depends_on,
        started_after: r.started_after,
    };
    fitted(outcome)
}

/// Feedback decodes messages of a bounded size. An outcome past it would block the spool for ever: its contents go, the rest stays.
fn fitted(mut outcome: v1::Outcome) -> v1::Outcome {
    if outcome.encoded_len() <= MAX_PAYLOAD {
        return outcome;
    }
    for content in [
        &mut outcome.input_json,
        &mut outcome.output_json,
        &mut outcome.escalated_from_output_json,
    ] {
        if content.len() > 1 << 20 {
            *content = format!("\"({} bytes: too large to keep)\"", content.len());
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_to_deliver_loses_its_contents_and_nothing_else() {
        let result = v1::NodeResult {
            node_id: "n".into(),
            outcome_id: "o".into(),
            input_json: format!("{:?}", "x".repeat(MAX_PAYLOAD)),
            output_json: "\"kept\"".into(),
            ..v1::NodeResult::default()
        };
        let outcome = of("p", "t", &result, Beyond::default());
        assert!(outcome.encoded_len() < MAX_PAYLOAD && outcome.input_json.contains("too large"));
        assert_eq!(
            (outcome.output_json.as_str(), outcome.node_id.as_str()),
            ("\"kept\"", "n")
        );
        assert!(serde_json::from_str::<serde_json::Value>(&outcome.input_json).is_ok());
    }
}
