//! One line an event, no colour: for pipes, logs and tests.
use super::{PlanView, Show, words};
use crate::{json, output};
use shoal_proto::v1::{self, plan_event::Event};

/// The view.
#[derive(Debug)]
pub struct Plain;

impl Show for Plain {
    fn event(&mut self, event: &v1::PlanEvent, plan: &PlanView, node: Option<usize>) {
        if let Some(line) = line(event, plan, node) {
            output::line(line);
        }
    }

    fn end(&mut self, plan: &PlanView) {
        output::line(words::summary(plan));
    }
}

/// The event's line; none for text as it is decoded, and for the plan's end (its summary says more).
pub(super) fn line(event: &v1::PlanEvent, plan: &PlanView, node: Option<usize>) -> Option<String> {
    let node = node.and_then(|index| plan.nodes.get(index));
    Some(match (event.event.as_ref()?, node) {
        (Event::Accepted(accepted), _) => format!("plan {} accepted, trace {}", plan.plan_id, accepted.trace_id),
        (Event::NodeAdded(_), Some(n)) => format!("  {} {:<5} {}{}", n.id, n.kind, n.text, words::waits_for(n)),
        (Event::NodeStarted(_), Some(n)) if n.target.is_empty() => format!("  {} started", n.id),
        (Event::NodeStarted(_), Some(n)) => format!("  {} started on {}", n.id, n.target),
        (Event::NodeEscalated(_), Some(n)) => {
            format!(
                "  {} goes on to {}: left {}",
                n.id,
                n.target,
                n.left.last().map_or("", String::as_str)
            )
        }
        (Event::ToolRequested(r), Some(n)) => format!("  {} asks the client for {}", n.id, r.name),
        (Event::NodeFinished(_), Some(n)) => format!("  {} {} {}", n.id, json::state(n.state), words::ended(n)),
        _ => return None,
    })
}
