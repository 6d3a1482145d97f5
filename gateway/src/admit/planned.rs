//! One step as plan text brings it, whoever wrote the text.
use super::{Admission, Faults, Step};
use shoal_plan::{Kind, Node};
use shoal_proto::v1;

impl Admission<'_> {
    /// What the text's own grammar cannot know: which tasks and tools there are.
    pub(super) fn planned(&self, node: &Node, path: &str, faults: &mut Faults) {
        match &node.kind {
            Kind::Model { task, .. } => self.task(task, path, faults),
            Kind::Tool { name, arguments } => self.tool(name, Some(arguments), path, faults),
        }
    }
}

/// The step of a node that has every default.
pub(super) fn step(node: Node) -> Step {
    Step {
        wire: wire(&node),
        node,
        sampling: None,
        schema: None,
        conversation: None,
    }
}

/// The node as a typed plan would write it.
pub(crate) fn wire(node: &Node) -> v1::Node {
    let kind = match &node.kind {
        Kind::Model { task, input } => v1::node::Kind::Model(v1::ModelCall {
            task: task.clone(),
            input: input.to_string(),
            ..v1::ModelCall::default()
        }),
        Kind::Tool { name, arguments } => v1::node::Kind::Tool(v1::ToolCall {
            name: name.clone(),
            arguments_json: arguments.written().to_string(),
        }),
    };
    v1::Node {
        id: node.id.clone(),
        kind: Some(kind),
        after: node.after.clone(),
        ..v1::Node::default()
    }
}
