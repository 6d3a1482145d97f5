//! What a node's failure means to itself: the two policies that turn a failure into an output. The other two are the frontier's.
use super::{
    node::{Job, deadline, walk_for},
    result::{About, Ended, Got, result},
};
use crate::{
    error::Error,
    outcomes::outcome::{self, Beyond},
    route::trail::Way,
};
use shoal_plan::graph::OnFailure;
use shoal_proto::v1;

/// How a node came out, its policy applied.
pub(super) enum Came {
    /// With its own output, or its fallback's.
    Got(Got),
    /// With the value that stands in; this was its failure.
    Default(serde_json::Value, Error),
    /// With nothing.
    Failed(Error),
    /// With nothing, though it fell back: what is told, and how the fallback itself failed.
    BothFailed(Error, Error),
}

/// How a node fell back: the task that was asked instead and what it was asked, and the node's way up to there, which is an outcome
/// of its own.
pub(super) struct Fell {
    task: String,
    input_json: String,
    before: Way,
}

impl Fell {
    /// What is kept of the fallback alone: under its own task's name, whose training data it is.
    pub(super) fn alone(&self, told: &v1::NodeResult) -> v1::NodeResult {
        let (all, before) = (told.usage.unwrap_or_default(), self.before.usage);
        v1::NodeResult {
            // The node itself may have been a call, with arguments.
            kind: "model".into(),
            name: self.task.clone(),
            input_json: self.input_json.clone(),
            decisions: told
                .decisions
                .get(self.before.decisions.len()..)
                .unwrap_or_default()
                .to_vec(),
            usage: Some(v1::Usage {
                input_tokens: all.input_tokens.saturating_sub(before.input_tokens),
                output_tokens: all.output_tokens.saturating_sub(before.output_tokens),
                cost_usd: (all.cost_usd - before.cost_usd).max(0.0),
            }),
            ..told.clone()
        }
    }
}

/// Applies the node's policy to its failure.
pub(super) async fn apply(job: &Job, error: Error) -> Came {
    match &job.step.node.on_failure {
        OnFailure::Default(value) => Came::Default(value.clone(), error),
        OnFailure::FallBack(task) => {
            let Some(input) = &job.fall_back_input else {
                return Came::Failed(error);
            };
            // First: from here on whoever cuts the node off must not keep its first part once more.
            job.progress.fall_back(Fell {
                task: task.clone(),
                input_json: input.json().to_string(),
                before: job.trail.so_far(),
            });
            keep_first(job, &error).await;
            match walk_for(job, task, input, false, deadline(job)).await {
                Ok(answer) => Came::Got(Got::answer(answer, &job.trail)),
                Err(second) => Came::BothFailed(both(error, &second), second),
            }
        }
        OnFailure::Fail | OnFailure::Skip => Came::Failed(error),
    }
}

/// The failure that is told is the node's own; that the fallback failed as well is added.
fn both(first: Error, second: &Error) -> Error {
    let mut fault = first.fault();
    fault.message = format!("{}; and its fallback: {second}", fault.message);
    Error::Passed(fault)
}

/// The failed part is an outcome of its own: what it was asked and how it failed is worth as much as what the fallback said.
async fn keep_first(job: &Job, error: &Error) {
    let id = job.context.recorder.id();
    if id.is_empty() {
        return;
    }
    let way = job.trail.so_far();
    let about = About {
        outcome_id: id,
        ..job.about.clone()
    };
    let failed = result(&job.run.plan, &about, &way, &Ended::Failed(error));
    let beyond = Beyond {
        valid: invalid(&failed),
        escalated_from: String::new(),
    };
    job.context
        .recorder
        .keep(outcome::of(&job.run.plan.id, &job.run.plan.trace_id, &failed, beyond))
        .await;
}

/// `Some(false)` where the last word on a failed node was that its answer broke its form.
pub(super) fn invalid(failed: &v1::NodeResult) -> Option<bool> {
    let last = failed.decisions.last()?.verdict();
    (last == v1::decision::Verdict::Invalid).then_some(false)
}
