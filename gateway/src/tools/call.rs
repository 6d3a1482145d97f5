//! A node's call to a registered tool: arguments held to its schema, one key for all attempts, an answer that is one.
use super::{ANSWER_BYTES, Tool, wire};
use crate::error::Error;
use serde_json::Value;
use shoal_kit::status::{self, Violation};
use shoal_plan::integers;
use shoal_proto::v1;
use shoal_stack::{
    Call,
    hedge::{Answered, Hedged},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tower::ServiceExt as _;

/// What is called, and within which bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// References filled in.
    pub(crate) arguments: &'a Value,
    pub(crate) plan_id: &'a str,
    pub(crate) node_id: &'a str,
    /// `None`: two for an idempotent tool, one for another.
    pub(crate) max_attempts: Option<u32>,
    pub(crate) priority: v1::Priority,
    /// The latest start with which the plan still ends in time, as far as anybody knows.
    pub(crate) start_by: Instant,
    pub(crate) deadline: Instant,
    /// `[gateway] tool_timeout`.
    pub(crate) timeout: Duration,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) value: Value,
    pub(crate) endpoint: String,
    /// Whether it satisfies the tool's own schema; `None` if there is none. A tool that breaks its word is noted, not refused: the
    /// plan wants the answer, and who reads it says what it must hold.
    pub(crate) valid: Option<bool>,
    /// A second attempt beside a slow one, if there was one.
    pub(crate) hedged: Option<Hedged>,
}

/// Calls.
///
/// # Errors
/// Arguments that break the schema, what the tool said, no answer in time, or an answer that is none.
pub(crate) async fn call(tool: &Tool, wanted: Wanted<'_>) -> Result<Told, Error> {
    if let Some(Err(said)) = tool.input.as_ref().map(|schema| schema.check(wanted.arguments)) {
        return Err(Error::Invalid(vec![Violation {
            field: "arguments_json".into(),
            description: format!("breaks the input schema of {}: {said}", tool.name),
        }]));
    }
    let request = v1::CallToolRequest {
        name: tool.name.clone(),
        arguments_json: wanted.arguments.to_string(),
        idempotency_key: key(wanted.plan_id, wanted.node_id),
    };
    let attempts = wanted.max_attempts.unwrap_or(if tool.idempotent { 2 } else { 1 });
    let bound = Instant::now() + wanted.timeout;
    let deadline = wanted.deadline.min(bound);
    let call = Call {
        work: tool.name.as_str().into(),
        idempotent: tool.idempotent,
        class: wanted.priority.into(),
        start_by: wanted.start_by,
        ..Call::new(Arc::new(request), deadline, attempts)
    };
    let answer = tool.server.stack.clone().oneshot(call).await;
    let Answered {
        address,
        answer: text,
        hedged,
    } = answer.map_err(|error| {
        // A server that is away, or one that has come back with other tools.
        if error.endpoint_fault() || error.retryable() || unknown(&error) {
            tool.server.stale.notify_one();
        }
        match error {
            shoal_stack::Error::Expired if bound <= wanted.deadline => Error::Expired {
                what: format!(
                    "{} did not answer within {:?} ([gateway] tool_timeout)",
                    tool.name, wanted.timeout
                ),
            },
            other => other.into(),
        }
    })?;
    let value = answer_of(&text)?;
    let valid = tool.output.as_ref().map(|schema| schema.check(&value).is_ok());
    if valid == Some(false) {
        tracing::warn!(tool = tool.name, "the answer breaks the tool's own output schema");
    }
    Ok(Told {
        value,
        endpoint: address.to_string(),
        valid,
        hedged,
    })
}

/// Whether the server does not know a tool that it has listed.
fn unknown(error: &shoal_stack::Error) -> bool {
    match error {
        shoal_stack::Error::Call { status, .. } => status::error_reason(status).is_some_and(|r| r == "TOOL_UNKNOWN"),
        _ => false,
    }
}

/// The value that a tool, ours or a client's, answered with.
pub(super) fn answer_of(text: &str) -> Result<Value, Error> {
    if text.len() > ANSWER_BYTES {
        return Err(wire::nonsense(&format!("{} bytes", text.len())).into());
    }
    let value = serde_json::from_str(text).map_err(|e| wire::nonsense(&format!("it is no JSON: {e}")))?;
    integers::fit(text).map_err(|e| wire::nonsense(&e.to_string()))?;
    Ok(value)
}

/// The same for every attempt of a node, and for the same node of the same plan after a restart: at most 128 bytes. Two ids of 64
/// leave no room for the colon, and need none.
fn key(plan_id: &str, node_id: &str) -> String {
    let colon = if plan_id.len() + node_id.len() < 128 { ":" } else { "" };
    format!("{plan_id}{colon}{node_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_nodes_alone_and_fits() {
        assert_eq!(key("p", "n"), "p:n");
        assert_eq!(key(&"p".repeat(64), &"n".repeat(64)).len(), 128);
        assert_ne!(key("p", "1-2"), key("p-1", "2"));
    }

    #[test]
    fn an_answer_is_one_json_value_of_bounded_size() {
        assert_eq!(answer_of("7").expect("a value"), Value::from(7));
        assert_eq!(
            answer_of("18446744073709551615").expect("a value"),
            Value::from(u64::MAX)
        );
        let account = r#"{"account": 98765432109876543210}"#;
        for nonsense in [
            "",
            "{",
            "ok",
            "{} {}",
            account,
            &format!("\"{}\"", "x".repeat(ANSWER_BYTES)),
        ] {
            let fault = answer_of(nonsense).expect_err("nonsense").fault();
            assert_eq!(fault.reason, "TOOL_ANSWER_INVALID");
        }
    }
}
