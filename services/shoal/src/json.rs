//! The wire's messages as JSON for `--json`: one shape everywhere, keys as in the .proto files, durations in seconds.
use serde_json::{Map, Value, json};
use shoal_kit::status;
use shoal_proto::{
    time,
    v1::{self, plan_event::Event},
};
use std::time::UNIX_EPOCH;

/// "succeeded" of `STATE_SUCCEEDED`; "unknown" of a state from the future.
pub(crate) fn state(state: i32) -> &'static str {
    match v1::State::try_from(state) {
        Ok(v1::State::Pending) => "pending",
        Ok(v1::State::Running) => "running",
        Ok(v1::State::Succeeded) => "succeeded",
        Ok(v1::State::Failed) => "failed",
        Ok(v1::State::Cancelled) => "cancelled",
        Ok(v1::State::Skipped) => "skipped",
        Ok(v1::State::Unspecified) | Err(_) => "unknown",
    }
}

/// "chosen" of `VERDICT_CHOSEN`.
pub(crate) fn verdict(verdict: i32) -> &'static str {
    use v1::decision::Verdict;
    match Verdict::try_from(verdict) {
        Ok(Verdict::Chosen) => "chosen",
        Ok(Verdict::Failed) => "failed",
        Ok(Verdict::Invalid) => "invalid",
        Ok(Verdict::Unsure) => "unsure",
        Ok(Verdict::PassedOver) => "passed over",
        Ok(Verdict::Unspecified) | Err(_) => "unknown",
    }
}

/// Seconds, 0 if absent.
pub(crate) fn seconds(duration: Option<&prost_types::Duration>) -> f64 {
    duration.and_then(time::std_duration).map_or(0.0, |d| d.as_secs_f64())
}

/// Text that should be JSON, as a value; what is not JSON is text, and nothing is null.
pub(crate) fn value(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

pub(crate) fn fault(fault: Option<&v1::Fault>) -> Value {
    fault.map_or(
        Value::Null,
        |f| json!({"code": status::code_name(f.code), "reason": f.reason, "message": f.message}),
    )
}

pub(crate) fn usage(usage: Option<&v1::Usage>) -> Value {
    let usage = usage.copied().unwrap_or_default();
    json!({"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "cost_usd": usage.cost_usd})
}

fn decision(d: &v1::Decision) -> Value {
    json!({
        "target": d.target, "endpoint": d.endpoint, "verdict": verdict(d.verdict), "reason": d.reason,
        "confidence": d.confidence, "threshold": d.threshold, "elapsed": seconds(d.elapsed.as_ref()),
    })
}

/// A node as plan files write it.
pub(crate) fn node(node: &v1::Node) -> Value {
    let mut out = Map::new();
    out.insert("id".into(), node.id.clone().into());
    match &node.kind {
        Some(v1::node::Kind::Model(model)) => {
            out.insert("model".into(), model.task.clone().into());
            out.insert("input".into(), model.input.clone().into());
        }
        Some(v1::node::Kind::Tool(tool)) => {
            out.insert("tool".into(), tool.name.clone().into());
            out.insert("arguments".into(), value(&tool.arguments_json));
        }
        None => {}
    }
    if !node.after.is_empty() {
        out.insert("after".into(), node.after.clone().into());
    }
    Value::Object(out)
}

/// A node's whole story.
pub(crate) fn result(r: &v1::NodeResult) -> Value {
    let timings = r.timings.as_ref().map(|t| {
        json!({
            "tokenize": seconds(t.tokenize.as_ref()), "queue": seconds(t.queue.as_ref()),
            "prefill": seconds(t.prefill.as_ref()), "decode": seconds(t.decode.as_ref()),
        })
    });
    let confidence = r.confidence.as_ref().map(|c| {
        json!({
            "score": c.score, "mean_logprob": c.mean_logprob, "min_logprob": c.min_logprob, "margin": c.margin,
            "sum_logprob": c.sum_logprob,
        })
    });
    json!({
        "id": r.node_id, "kind": r.kind, "name": r.name, "state": state(r.state), "target": r.target,
        "endpoint": r.endpoint, "model": r.model, "input": value(&r.input_json), "output": value(&r.output_json),
        "fault": fault(r.fault.as_ref()), "usage": usage(r.usage.as_ref()), "timings": timings,
        "confidence": confidence, "decisions": r.decisions.iter().map(decision).collect::<Vec<_>>(),
        "started_after": seconds(r.started_after.as_ref()), "elapsed": seconds(r.elapsed.as_ref()),
        "depends_on": r.depends_on, "outcome_id": r.outcome_id, "finish_reason": r.finish_reason,
    })
}

/// One event of a plan: `{"event", "plan_id", "sequence", "time", ...}`; `time` is Unix seconds.
pub(crate) fn event(e: &v1::PlanEvent) -> Value {
    let at = e
        .time
        .as_ref()
        .and_then(time::system_time)
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let (name, body) = match &e.event {
        Some(Event::Accepted(a)) => ("accepted", json!({"trace_id": a.trace_id})),
        Some(Event::NodeAdded(a)) => (
            "node_added",
            json!({"node": a.node.as_ref().map(node), "depends_on": a.depends_on, "text": a.text}),
        ),
        Some(Event::NodeStarted(s)) => ("node_started", json!({"node_id": s.node_id, "target": s.target})),
        Some(Event::NodeDelta(d)) => ("node_delta", json!({"node_id": d.node_id, "text": d.text})),
        Some(Event::NodeEscalated(x)) => (
            "node_escalated",
            json!({"node_id": x.node_id, "from": x.from, "to": x.to, "decision": x.decision.as_ref().map(decision)}),
        ),
        Some(Event::ToolRequested(t)) => (
            "tool_requested",
            json!({"call_id": t.call_id, "node_id": t.node_id, "name": t.name, "arguments": value(&t.arguments_json)}),
        ),
        Some(Event::NodeFinished(f)) => ("node_finished", json!({"result": f.result.as_ref().map(result)})),
        Some(Event::Finished(f)) => (
            "finished",
            json!({
                "state": state(f.state), "fault": fault(f.fault.as_ref()), "usage": usage(f.usage.as_ref()),
                "elapsed": seconds(f.elapsed.as_ref()), "outcomes_acknowledged": f.outcomes_acknowledged,
            }),
        ),
        None => ("unknown", json!({})),
    };
    let mut out = json!({
        "event": name, "plan_id": e.plan_id, "sequence": e.sequence, "time": at.map(|d| d.as_secs_f64()),
    });
    if let (Value::Object(out), Value::Object(body)) = (&mut out, body) {
        out.extend(body);
    }
    out
}

/// A plan's record.
pub(crate) fn record(r: &v1::GetPlanResponse) -> Value {
    json!({
        "plan_id": r.plan_id, "state": state(r.state), "trace_id": r.trace_id, "elapsed": seconds(r.elapsed.as_ref()),
        "fault": fault(r.fault.as_ref()), "usage": usage(r.usage.as_ref()), "from_outcomes": r.from_outcomes,
        "nodes": r.nodes.iter().map(result).collect::<Vec<_>>(),
    })
}
