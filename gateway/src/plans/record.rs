//! GetPlan's answer, folded from the events, so that the two can never differ; the calls ahead of its steps, which are no events, come first.
use super::Plan;
use shoal_proto::{
    time,
    v1::{self, plan_event::Event},
};
use std::time::{Duration, SystemTime};

/// The record of a plan, running or ended.
pub(crate) fn of(plan: &Plan) -> v1::GetPlanResponse {
    let mut nodes: Vec<v1::NodeResult> = Vec::new();
    let mut record = v1::GetPlanResponse {
        plan_id: plan.id.clone(),
        state: v1::State::Running.into(),
        trace_id: plan.trace_id.clone(),
        accepted_at: Some(time::timestamp(plan.accepted_at)),
        elapsed: Some(time::duration(plan.began.elapsed())),
        ..v1::GetPlanResponse::default()
    };
    for event in plan.log.events() {
        match event.event.clone() {
            Some(Event::NodeAdded(added)) => nodes.extend(added.node.map(|node| pending(&node, added.depends_on))),
            Some(Event::NodeStarted(started)) => {
                if let Some(node) = find(&mut nodes, &started.node_id) {
                    node.state = v1::State::Running.into();
                    node.target = started.target;
                    node.started_after = Some(time::duration(since(plan, event.time.as_ref())));
                    node.elapsed = Some(time::duration(
                        plan.began.elapsed().saturating_sub(since(plan, event.time.as_ref())),
                    ));
                }
            }
            Some(Event::NodeEscalated(escalated)) => {
                if let Some(node) = find(&mut nodes, &escalated.node_id) {
                    node.target = escalated.to;
                    node.decisions.extend(escalated.decision);
                }
            }
            Some(Event::NodeFinished(finished)) => {
                let Some(result) = finished.result else { continue };
                match find(&mut nodes, &result.node_id) {
                    Some(node) => *node = result,
                    None => nodes.push(result),
                }
            }
            Some(Event::Finished(finished)) => {
                record.state = finished.state;
                record.fault = finished.fault;
                record.elapsed = finished.elapsed;
            }
            _ => {}
        }
    }
    nodes.splice(0..0, plan.ahead());
    record.usage = Some(sum(nodes.iter().filter_map(|n| n.usage.as_ref())));
    record.nodes = nodes;
    record
}

fn find<'a>(nodes: &'a mut [v1::NodeResult], id: &str) -> Option<&'a mut v1::NodeResult> {
    nodes.iter_mut().find(|n| n.node_id == id)
}

fn pending(node: &v1::Node, depends_on: Vec<String>) -> v1::NodeResult {
    let (kind, name) = match &node.kind {
        Some(v1::node::Kind::Tool(tool)) => ("tool", tool.name.clone()),
        Some(v1::node::Kind::Model(model)) => ("model", model.task.clone()),
        None => ("", String::new()),
    };
    v1::NodeResult {
        node_id: node.id.clone(),
        kind: kind.into(),
        name,
        state: v1::State::Pending.into(),
        depends_on,
        ..v1::NodeResult::default()
    }
}

fn since(plan: &Plan, at: Option<&prost_types::Timestamp>) -> Duration {
    let at = at.and_then(time::system_time).unwrap_or(SystemTime::UNIX_EPOCH);
    at.duration_since(plan.accepted_at).unwrap_or_default()
}

/// Tokens and money together.
pub(crate) fn sum<'a>(usages: impl Iterator<Item = &'a v1::Usage>) -> v1::Usage {
    usages.fold(v1::Usage::default(), |a, b| v1::Usage {
        input_tokens: a.input_tokens.saturating_add(b.input_tokens),
        output_tokens: a.output_tokens.saturating_add(b.output_tokens),
        cost_usd: a.cost_usd + b.cost_usd,
    })
}
