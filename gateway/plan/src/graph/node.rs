//! One step of a plan.
use crate::reference::{Json, Reference, Template};
use std::{collections::BTreeSet, time::Duration};

/// What a failed node does to the plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum OnFailure {
    /// The plan fails, and what still runs is cancelled.
    #[default]
    Fail,
    /// What depends on the node is skipped; the rest goes on.
    Skip,
    /// This value stands in for the output.
    Default(serde_json::Value),
    /// This task gets the same input instead.
    FallBack(String),
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A task for a model.
    Model {
        /// The task.
        task: String,
        /// What it is asked.
        input: Template,
    },
    /// A call to a tool.
    Tool {
        /// "Service.Method".
        name: String,
        /// An object.
        arguments: Json,
    },
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique in the graph.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Nodes that must have succeeded first, beyond those referenced.
    pub after: Vec<String>,
    /// Its own bound.
    pub timeout: Option<Duration>,
    /// Attempts at most; `None` for the kind's default.
    pub max_attempts: Option<u32>,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// A person reads its output.
    pub human_facing: bool,
    /// Its content must not leave the mesh.
    pub private: bool,
}

impl Node {
    /// A node with every default.
    #[must_use]
    pub fn new(id: impl Into<String>, kind: Kind) -> Self {
        Self {
            id: id.into(),
            kind,
            after: Vec::new(),
            timeout: None,
            max_attempts: None,
            on_failure: OnFailure::Fail,
            human_facing: false,
            private: false,
        }
    }

    /// Every reference in its input.
    #[must_use]
    pub fn references(&self) -> Vec<&Reference> {
        match &self.kind {
            Kind::Model { input, .. } => input.references().collect(),
            Kind::Tool { arguments, .. } => arguments.references(),
        }
    }

    /// Ids that it waits for, each once, in order of first mention.
    #[must_use]
    pub fn depends_on(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let mentioned = self
            .references()
            .into_iter()
            .map(|r| r.node.as_str())
            .chain(self.after.iter().map(String::as_str));
        mentioned.filter(|id| seen.insert(*id)).collect()
    }

    pub(super) fn input_field(&self) -> &'static str {
        match self.kind {
            Kind::Model { .. } => "model.input",
            Kind::Tool { .. } => "tool.arguments_json",
        }
    }
}
