//! A node's result as an outcome. Pure.
use super::frame::MAX_PAYLOAD;
use prost::Message as _;
use shoal_proto::{time, v1};
use std::{ops::RangeInclusive, time::SystemTime};

/// Bytes of an id that feedback takes.
const ID_BYTES: RangeInclusive<usize> = 1..=64;

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

/// Why feedback would never take an outcome. Sent all the same it would end its stream, and so would the next stream that begins with it:
/// nothing behind it would ever arrive.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Undeliverable {
    /// It would be stored under no name, or one that is too long.
    #[error("its id has {0} bytes, and feedback takes 1 to 64")]
    Id(usize),
    /// It is past what feedback decodes.
    #[error("it has {0} bytes, and feedback decodes at most {MAX_PAYLOAD}")]
    TooLarge(usize),
    /// Its bytes, though as they were written, are no outcome.
    #[error("it cannot be decoded: {0}")]
    Unreadable(#[from] prost::DecodeError),
}

/// Whether feedback can take it.
///
/// # Errors
/// Why not.
pub(crate) fn deliverable(outcome: &v1::Outcome) -> Result<(), Undeliverable> {
    let (id, bytes) = (outcome.outcome_id.len(), outcome.encoded_len());
    if !ID_BYTES.contains(&id) {
        return Err(Undeliverable::Id(id));
    }
    if bytes > MAX_PAYLOAD {
        return Err(Undeliverable::TooLarge(bytes));
    }
    Ok(())
}

/// The outcome of a frame, if feedback can take it.
///
/// # Errors
/// Why not.
pub(crate) fn read(payload: &[u8]) -> Result<v1::Outcome, Undeliverable> {
    let outcome = v1::Outcome::decode(payload)?;
    deliverable(&outcome)?;
    Ok(outcome)
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
