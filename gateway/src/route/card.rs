//! What a specialist says of itself, in the form in which routing needs it.
use crate::schema::Schema;
use shoal_proto::v1;
use std::{collections::HashMap, sync::Arc};

/// A specialist's card.
#[derive(Debug, Default)]
pub(crate) struct Card {
    /// What was read, but for what changes all the time.
    wire: v1::DescribeResponse,
    /// "name@version".
    pub(crate) identity: String,
    /// "generate", "classify", "embed", "tag" or "fill".
    pub(crate) kind: String,
    pub(crate) tasks: HashMap<String, TaskCard>,
    pub(crate) max_new_tokens: u32,
    /// US dollars per million tokens: prompt, generated.
    pub(crate) price: (f64, f64),
}

/// What the card says of one task.
#[derive(Debug, Default, Clone)]
pub(crate) struct TaskCard {
    pub(crate) schema: Option<Arc<Schema>>,
    /// A grammar that its answers are held to.
    pub(crate) grammar: Option<String>,
    /// Under this score an answer is doubted; `None`: never.
    pub(crate) threshold: Option<f64>,
}

impl Card {
    /// Whether an answer is written token by token: else its tokens are the prompt's alone, and no form can be held while it is.
    pub(crate) fn decodes(&self) -> bool {
        self.kind == "generate"
    }

    /// Whether Describe still answers the same: then nothing needs to be compiled anew.
    pub(crate) fn says(&self, wire: &v1::DescribeResponse) -> bool {
        self.wire == lasting(wire.clone())
    }

    /// Reads Describe's answer. A schema that does not compile is said, and counts as none: the specialist holds to it anyway.
    pub(crate) fn of(wire: v1::DescribeResponse) -> Self {
        let identity = format!("{}@{}", wire.name, wire.version);
        let task = |card: v1::TaskCard| {
            let compiled = (!card.output_schema_json.is_empty()).then(|| Schema::compile(&card.output_schema_json));
            let schema = match compiled {
                Some(Ok(schema)) => Some(Arc::new(schema)),
                Some(Err(error)) => {
                    tracing::warn!(
                        model = identity,
                        task = card.task,
                        error,
                        "the card's output schema is not checked"
                    );
                    None
                }
                None => None,
            };
            let read = TaskCard {
                schema,
                grammar: Some(card.output_lark).filter(|g| !g.is_empty()),
                threshold: Some(card.confidence_threshold).filter(|t| *t > 0.0),
            };
            (card.task, read)
        };
        Self {
            tasks: wire.tasks.iter().cloned().map(task).collect(),
            kind: wire.kind.clone(),
            max_new_tokens: wire.max_new_tokens,
            price: (wire.input_usd_per_million_tokens, wire.output_usd_per_million_tokens),
            wire: lasting(wire),
            identity,
        }
    }
}

/// Without what says nothing of the version that serves.
fn lasting(wire: v1::DescribeResponse) -> v1::DescribeResponse {
    v1::DescribeResponse {
        resident_bytes: 0,
        refused: None,
        ..wire
    }
}
