//! Nodes and plans in words, with or without colour.
use super::{NodeView, PlanView};
use crate::json;
use anstyle::{AnsiColor, Style};
use shoal_proto::v1;

/// The style of a state.
pub(crate) fn colour(state: i32) -> Style {
    let colour = match v1::State::try_from(state) {
        Ok(v1::State::Succeeded) => AnsiColor::Green,
        Ok(v1::State::Failed) => AnsiColor::Red,
        Ok(v1::State::Cancelled | v1::State::Skipped) => AnsiColor::Yellow,
        Ok(v1::State::Running) => AnsiColor::Cyan,
        _ => AnsiColor::BrightBlack,
    };
    colour.on_default()
}

/// "12 ms", "1.24 s".
pub(crate) fn milliseconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// A node's end: where, how long, tokens, what came back or why not.
pub(super) fn ended(node: &NodeView) -> String {
    let Some(result) = &node.result else {
        return String::new();
    };
    let mut words = Vec::new();
    if !result.target.is_empty() {
        words.push(if result.model.is_empty() {
            result.target.clone()
        } else {
            format!("{} ({})", result.target, result.model)
        });
    }
    words.push(milliseconds(json::seconds(result.elapsed.as_ref())));
    if let Some(usage) = result.usage.filter(|u| u.input_tokens + u.output_tokens > 0) {
        words.push(format!("{}+{} tokens", usage.input_tokens, usage.output_tokens));
    }
    if let Some(confidence) = &result.confidence {
        words.push(format!("confidence {:.2}", confidence.score));
    }
    let left = node.left.iter().map(|l| format!("left {l}"));
    words.extend(left);
    let mut text = words.join(", ");
    if let Some(fault) = &result.fault {
        text.push_str(&format!(
            ": {}: {}",
            shoal_kit::status::code_name(fault.code),
            fault.message
        ));
    } else if !result.output_json.is_empty() {
        text.push_str(&format!(": {}", result.output_json));
    }
    text
}

/// " <- 1, 2" of a node that waits for others.
pub(super) fn waits_for(node: &NodeView) -> String {
    if node.depends_on.is_empty() {
        String::new()
    } else {
        format!(" <- {}", node.depends_on.join(", "))
    }
}

/// A plan's end in one line.
pub(crate) fn summary(plan: &PlanView) -> String {
    let Some(finished) = &plan.finished else {
        return format!(
            "plan {} broke off; `shoal watch {}` finds it again",
            plan.plan_id, plan.plan_id
        );
    };
    let usage = finished.usage.unwrap_or_default();
    let fault = finished.fault.as_ref().map_or(String::new(), |f| {
        format!(": {}: {}", shoal_kit::status::code_name(f.code), f.message)
    });
    format!(
        "plan {} {} in {}: {} nodes, {} edges, {}+{} tokens, ${:.6}, trace {}{fault}",
        plan.plan_id,
        json::state(finished.state),
        milliseconds(json::seconds(finished.elapsed.as_ref())),
        plan.nodes.len(),
        plan.edges(),
        usage.input_tokens,
        usage.output_tokens,
        usage.cost_usd,
        plan.trace_id,
    )
}
