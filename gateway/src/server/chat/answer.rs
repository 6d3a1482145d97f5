//! What a completion answers: one node's output, or, of a goal, every node's.
use crate::{
    admit::is_ahead,
    error::Error,
    plans::{Plan, record},
    route::question::Finish,
    server::single,
};
use serde_json::{Map, Value, json};
use shoal_kit::openai;
use shoal_proto::v1;
use std::sync::Arc;

/// An answer, and what it took.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// In OpenAI's word. Of several outputs, that of the first that does not end by itself: the whole lacks what that one lacks.
    pub(crate) finish_reason: String,
    nodes: Vec<v1::NodeResult>,
    usage: v1::Usage,
}

/// Waits for a plan's end.
///
/// # Errors
/// The plan's fault.
pub(crate) async fn whole(plan: &Arc<Plan>) -> Result<Answer, Error> {
    plan.ended().await;
    let record = record::of(plan);
    if let Some(fault) = record.fault {
        return Err(Error::Passed(fault));
    }
    let steps: Vec<&v1::NodeResult> = record.nodes.iter().filter(|n| !is_ahead(&n.node_id)).collect();
    let text = match steps.as_slice() {
        [only] => single::text(&only.output_json),
        several => {
            let output = |n: &&v1::NodeResult| {
                (
                    n.node_id.clone(),
                    serde_json::from_str(&n.output_json).unwrap_or(Value::Null),
                )
            };
            Value::Object(several.iter().map(output).collect::<Map<_, _>>()).to_string()
        }
    };
    let reasons = steps.iter().filter_map(|n| n.finish_reason.as_deref());
    let finish_reason = reasons.fold(Finish::Stop.word(), |first, next| {
        if first == Finish::Stop.word() { next } else { first }
    });
    Ok(Answer {
        text,
        finish_reason: finish_reason.to_owned(),
        usage: record.usage.unwrap_or_default(),
        nodes: record.nodes,
    })
}

impl Answer {
    /// Tokens as OpenAI counts them.
    pub(crate) fn usage(&self) -> Value {
        openai::usage(self.usage.input_tokens, self.usage.output_tokens)
    }

    /// The non-standard field: where it ran and how sure the model was.
    pub(crate) fn extra(&self, plan: &Plan) -> Value {
        let node = |n: &v1::NodeResult| {
            json!({
                "id": n.node_id, "name": n.name, "target": n.target, "model": n.model,
                "confidence": n.confidence.as_ref().map(|c| c.score),
            })
        };
        let nodes: Vec<Value> = self.nodes.iter().map(node).collect();
        json!({"plan_id": plan.id, "trace_id": plan.trace_id, "cost_usd": self.usage.cost_usd, "nodes": nodes})
    }
}
