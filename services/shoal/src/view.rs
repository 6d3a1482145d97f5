//! A plan as it runs: what the events have said so far ([`PlanView`]), and two ways to show it.
//!
//! `live` redraws in place on a terminal; `plain` writes a line an event, for pipes and logs. Both say of each node its
//! kind, target, state, latency, tokens and the nodes that it waits for.
mod live;
mod plain;
mod words;

pub use live::Live;
pub use plain::Plain;
pub(crate) use words::{colour, milliseconds, summary};

use crate::json;
use shoal_proto::v1::{self, plan_event::Event};

/// What is known of one node.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// "model" or "tool".
    pub kind: String,
    /// The step as plan text.
    pub text: String,
    /// Task of a model node, name of a tool.
    pub name: String,
    /// What a model node is asked, before references are filled in; `$$` is a dollar sign.
    pub input: String,
    /// Ids that it waits for.
    pub depends_on: Vec<String>,
    /// A [`v1::State`].
    pub state: i32,
    /// Where it runs, or ran.
    pub target: String,
    /// Targets that it left, with the reason.
    pub left: Vec<String>,
    /// What a running model has written.
    pub partial: String,
    /// Its end.
    pub result: Option<v1::NodeResult>,
}

/// What the events of a plan have said so far.
#[derive(Debug, Clone, Default)]
pub struct PlanView {
    /// Its id.
    pub plan_id: String,
    /// 32 hex digits.
    pub trace_id: String,
    /// In order of joining.
    pub nodes: Vec<NodeView>,
    /// Its end.
    pub finished: Option<v1::PlanFinished>,
}

/// How much of a running model's text is kept: a line of a terminal shows no more.
const PARTIAL_BYTES: usize = 2048;

impl PlanView {
    /// Takes one event in; says which node it was about (index into `nodes`).
    pub fn apply(&mut self, event: &v1::PlanEvent) -> Option<usize> {
        if self.plan_id.is_empty() {
            self.plan_id.clone_from(&event.plan_id);
        }
        match event.event.as_ref()? {
            Event::Accepted(accepted) => {
                self.trace_id.clone_from(&accepted.trace_id);
                None
            }
            Event::NodeAdded(added) => {
                let node = added.node.as_ref()?;
                let index = self.node(&node.id);
                let view = &mut self.nodes[index];
                let (kind, name, input) = match &node.kind {
                    Some(v1::node::Kind::Tool(tool)) => ("tool", tool.name.as_str(), ""),
                    Some(v1::node::Kind::Model(model)) => ("model", model.task.as_str(), model.input.as_str()),
                    None => ("", "", ""),
                };
                (view.kind, view.name, view.input) = (kind.into(), name.into(), input.into());
                // Plan text starts with the id, which every line of ours starts with anyway.
                let step = added.text.strip_prefix(&format!("{}. ", node.id));
                view.text = step.unwrap_or(&added.text).to_owned();
                view.depends_on.clone_from(&added.depends_on);
                Some(index)
            }
            Event::NodeStarted(started) => {
                let index = self.node(&started.node_id);
                let view = &mut self.nodes[index];
                view.state = v1::State::Running.into();
                view.target.clone_from(&started.target);
                Some(index)
            }
            Event::NodeDelta(delta) => {
                let index = self.node(&delta.node_id);
                let partial = &mut self.nodes[index].partial;
                if partial.len() < PARTIAL_BYTES {
                    partial.push_str(&delta.text);
                }
                Some(index)
            }
            Event::NodeEscalated(escalated) => {
                let index = self.node(&escalated.node_id);
                let view = &mut self.nodes[index];
                let why = escalated.decision.as_ref().map_or("", |d| d.reason.as_str());
                view.left.push(format!("{} ({why})", escalated.from));
                view.target.clone_from(&escalated.to);
                view.partial.clear();
                Some(index)
            }
            Event::ToolRequested(requested) => Some(self.node(&requested.node_id)),
            Event::NodeFinished(finished) => {
                let result = finished.result.as_ref()?;
                let index = self.node(&result.node_id);
                let view = &mut self.nodes[index];
                view.state = result.state;
                view.target.clone_from(&result.target);
                if view.kind.is_empty() {
                    view.kind.clone_from(&result.kind);
                    view.text.clone_from(&result.name);
                    view.name.clone_from(&result.name);
                    view.depends_on.clone_from(&result.depends_on);
                }
                view.result = Some(result.clone());
                Some(index)
            }
            Event::Finished(finished) => {
                self.finished = Some(finished.clone());
                None
            }
        }
    }

    /// The node of that id, added if it is new: an event about a node that nobody announced still shows.
    fn node(&mut self, id: &str) -> usize {
        self.nodes.iter().position(|n| n.id == id).unwrap_or_else(|| {
            let state = v1::State::Pending.into();
            self.nodes.push(NodeView {
                id: id.to_owned(),
                state,
                ..NodeView::default()
            });
            self.nodes.len() - 1
        })
    }

    /// Dependencies between nodes.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.nodes.iter().map(|n| n.depends_on.len()).sum()
    }

    /// The last object of `--json`: `{plan_id, state, nodes, outputs}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let state = self.finished.as_ref().map_or("unknown", |f| json::state(f.state));
        let nodes: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|n| n.result.as_ref())
            .map(json::result)
            .collect();
        let output = |n: &NodeView| Some((n.id.clone(), json::value(&n.result.as_ref()?.output_json)));
        let outputs: serde_json::Map<_, _> = self
            .nodes
            .iter()
            .filter_map(output)
            .filter(|(_, v)| !v.is_null())
            .collect();
        serde_json::json!({"plan_id": self.plan_id, "state": state, "nodes": nodes, "outputs": outputs})
    }
}

/// Something that shows a plan while it runs.
pub trait Show {
    /// An event has been taken into `plan`; `node` is the one that it was about.
    fn event(&mut self, event: &v1::PlanEvent, plan: &PlanView, node: Option<usize>);
    /// No more events come.
    fn end(&mut self, plan: &PlanView);
}

/// What fits the reader: a live view on a terminal, plain lines in a pipe.
#[must_use]
pub fn for_reader() -> Box<dyn Show + Send> {
    if crate::output::is_terminal() {
        Box::new(Live::new())
    } else {
        Box::new(Plain)
    }
}

#[cfg(test)]
mod tests;
