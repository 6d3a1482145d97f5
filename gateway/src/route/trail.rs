//! What is known of a node's way so far. The node's future writes it; whoever drops that future still has it, so that a cancelled
//! node's outcome says where it had got to.
use shoal_proto::v1;
use std::sync::{Mutex, PoisonError};

/// What has happened so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    /// Every candidate, in order.
    pub(crate) decisions: Vec<v1::Decision>,
    /// Over all answers.
    pub(crate) usage: v1::Usage,
    /// Asked now, or asked last.
    pub(crate) target: String,
    /// Filled in: a JSON value.
    pub(crate) input_json: String,
    /// The first target that was left for what it said, and what that was: a JSON value.
    pub(crate) first_said: Option<(String, String)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trail(Mutex<Way>);

impl Trail {
    /// Reads or writes. The closure must be short: the node's end waits for it.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Way) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything so far.
    pub(crate) fn so_far(&self) -> Way {
        self.with(|way| way.clone())
    }

    /// What a smaller model had said than the one that answered; empty if nothing escalated.
    pub(crate) fn escalated_from(&self, answered: &str) -> String {
        let said = self.with(|way| way.first_said.clone());
        said.filter(|(target, _)| target != answered)
            .map(|(_, said)| said)
            .unwrap_or_default()
    }

    /// Notes a decision.
    pub(crate) fn decide(&self, decision: v1::Decision) {
        self.with(|way| way.decisions.push(decision));
    }

    /// Notes what an answer has cost.
    pub(crate) fn spend(&self, usage: &v1::Usage) {
        self.with(|way| {
            way.usage.input_tokens = way.usage.input_tokens.saturating_add(usage.input_tokens);
            way.usage.output_tokens = way.usage.output_tokens.saturating_add(usage.output_tokens);
            way.usage.cost_usd += usage.cost_usd;
        });
    }
}
