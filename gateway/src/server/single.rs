//! A plan of one model node: what the doors that know no plans lead to.
use super::open::{self, Entrance};
use crate::{admit::Source, context::Context, error::Error, plans::Plan};
use futures::StreamExt as _;
use shoal_proto::v1::{self, plan_event::Event};
use std::sync::Arc;
use tracing::Span;

/// The one node's id.
pub(crate) const ONLY: &str = "1";

/// What a task is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) task: String,
    /// Literal text: a dollar sign is one.
    pub(crate) text: String,
    /// A whole conversation, if it is more than one message.
    pub(crate) conversation: Option<Vec<v1::Message>>,
    pub(crate) sampling: v1::Sampling,
    pub(crate) output_schema_json: String,
}

/// Begins the plan.
///
/// # Errors
/// As any plan's.
pub(crate) fn begin(
    context: &Arc<Context>,
    asked: Asked,
    span: Span,
    left: Option<std::time::Duration>,
) -> Result<Arc<Plan>, Error> {
    let model = v1::ModelCall {
        task: asked.task,
        input: asked.text.replace('$', "$$"),
        sampling: Some(asked.sampling),
        output_schema_json: asked.output_schema_json,
    };
    let node = v1::Node {
        id: ONLY.into(),
        kind: Some(v1::node::Kind::Model(model)),
        ..v1::Node::default()
    };
    let request = v1::ExecutePlanRequest {
        source: Some(v1::execute_plan_request::Source::Plan(v1::Plan { nodes: vec![node] })),
        ..v1::ExecutePlanRequest::default()
    };
    let entrance = Entrance::whole(span, left);
    let admission = context.admission(&entrance.client_tools);
    let said = asked.conversation.iter().flatten().map(|message| message.content.len());
    let mut admitted = admission
        .sized("messages", said.sum())
        .and_then(|()| admission.request(request, left, false));
    if let Ok(admitted) = &mut admitted
        && let Source::Steps(_, steps) = &mut admitted.source
        && let [only] = steps.as_mut_slice()
    {
        only.conversation = asked.conversation;
    }
    open::begin(context, admitted, 0, false, entrance)
}

/// The one node's end.
///
/// # Errors
/// The plan's fault.
pub(crate) async fn result(plan: &Arc<Plan>) -> Result<v1::NodeResult, Error> {
    let mut events = Box::pin(plan.log.clone().watch(0));
    let mut result = None;
    while let Some(event) = events.next().await {
        match &event.event {
            Some(Event::NodeFinished(finished)) if finished.result.as_ref().is_some_and(|r| r.node_id == ONLY) => {
                result.clone_from(&finished.result);
            }
            Some(Event::Finished(finished)) => {
                if let Some(fault) = &finished.fault {
                    return Err(Error::Passed(fault.clone()));
                }
            }
            _ => {}
        }
    }
    result.ok_or_else(|| Error::Broken {
        what: "the plan ended without its node".into(),
    })
}

/// An output as text: a JSON string is its content, anything else is itself.
pub(crate) fn text(output_json: &str) -> String {
    serde_json::from_str::<String>(output_json).unwrap_or_else(|_| output_json.to_owned())
}
