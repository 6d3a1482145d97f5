//! A plan_id that comes again after its plan is forgotten here, by a restart or because of `[gateway] plans_kept`: what is stored of
//! it answers, so that no tool runs a second time.
//!
//! Outcomes do not say whether their plan had ended, nor what its request was. So it is only told again where every step of the
//! request has succeeded with the very input that it would have now; whatever else is stored under the id is another plan's, or the
//! rest of one that was cut off, and GetPlan has it.
use crate::{
    admit::{Source, Step, is_ahead},
    context::Context,
    error::Error,
    plans::{log::Log, rebuilt},
    route::Input,
};
use serde_json::Value;
use shoal_kit::deadline;
use shoal_plan::{Kind, reference::is_id, text};
use shoal_proto::{
    time,
    v1::{self, feedback_service_client::FeedbackServiceClient, plan_event::Event},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tonic::Request;

/// How long a plan waits to hear whether it ran before. The answer is one look at an index; a store that is away must not keep
/// plans from running.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a plan's stored outcomes at most: as many as a client of ours decodes.
const STORED_BYTES: usize = 64 << 20;

/// What is stored of a plan.
///
/// # Errors
/// `Away` if feedback does not say so within `patience`; where there is no feedback, nothing is stored.
pub(super) async fn outcomes(context: &Context, plan_id: &str, patience: Duration) -> Result<Vec<v1::Outcome>, Error> {
    let Some(feedback) = context.feedback.clone() else {
        return Ok(Vec::new());
    };
    let mut request = Request::new(v1::ListOutcomesRequest {
        plan_id: plan_id.to_owned(),
    });
    deadline::set(&mut request, patience);
    let mut client = FeedbackServiceClient::new(feedback).max_decoding_message_size(STORED_BYTES);
    let away = |what: String| Error::Away {
        what: format!("this gateway does not hold plan `{plan_id}`, and feedback cannot be asked: {what}"),
    };
    let answer = tokio::time::timeout(patience, client.list_outcomes(request)).await;
    let stored = answer
        .map_err(|_| away("it does not answer".into()))?
        .map_err(|status| away(status.message().to_owned()))?;
    Ok(stored.into_inner().outcomes)
}

/// The events of the plan that this request was, if it ran before and is forgotten here.
///
/// # Errors
/// `PlanTaken` if what is stored under its id is not all that it asks for.
pub(super) async fn ran(context: &Context, request: &v1::ExecutePlanRequest) -> Result<Option<Arc<Log>>, Error> {
    let plan_id = &request.plan_id;
    if !is_id(plan_id) || context.plans.get(plan_id).is_some() {
        return Ok(None);
    }
    let outcomes = match outcomes(context, plan_id, PATIENCE).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            tracing::warn!(plan_id, %error, "whether the plan ran before is not known, it runs");
            return Ok(None);
        }
    };
    let acknowledged = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
    let Some(record) = rebuilt::of(plan_id, outcomes) else {
        return Ok(None);
    };
    // What is wrong with the request is said where every request's faults are.
    let Ok(admitted) = context
        .admission(&BTreeSet::new())
        .request(request.clone(), None, false)
    else {
        return Ok(None);
    };
    match &admitted.source {
        Source::Steps(_, steps) if same(steps, &record) => Ok(Some(told(steps, record, acknowledged))),
        _ => Err(Error::PlanTaken {
            plan_id: plan_id.clone(),
            by: "a plan that ran before, or a part of one; GetPlan has what is stored of it",
        }),
    }
}

/// Whether every step has succeeded, asked what it would be asked now.
fn same(steps: &[Step], record: &v1::GetPlanResponse) -> bool {
    let asked: BTreeSet<&str> = steps.iter().map(|s| s.node.id.as_str()).collect();
    let mut outputs = HashMap::new();
    let (own, calls): (Vec<_>, Vec<_>) = record.nodes.iter().partition(|n| asked.contains(n.node_id.as_str()));
    // Last those of calls that a node yielded, which stand for their parent's.
    for node in own.iter().chain(&calls) {
        let output: Value = serde_json::from_str(&node.output_json).unwrap_or_default();
        match node.depends_on.as_slice() {
            [parent] if !asked.contains(node.node_id.as_str()) => outputs.insert(parent.as_str(), output),
            _ => outputs.insert(node.node_id.as_str(), output),
        };
    }
    let done = |step: &Step| {
        let stored = own.iter().find(|n| n.node_id == step.node.id);
        stored.is_some_and(|stored| {
            let (kind, name, input) = now(step, &outputs);
            let asked = (stored.kind.as_str(), stored.name.as_str(), &stored.input_json);
            stored.state() == v1::State::Succeeded && input.is_some_and(|input| asked == (kind, name, &input))
        })
    };
    record.state() == v1::State::Succeeded && steps.iter().all(done)
}

/// What a step is, and what it would be asked with these outputs.
fn now<'a>(step: &'a Step, outputs: &HashMap<&str, Value>) -> (&'static str, &'a str, Option<String>) {
    let output = |id: &str| outputs.get(id);
    match &step.node.kind {
        Kind::Model { task, input } => {
            let filled = input.fill(&output).ok();
            ("model", task, filled.map(|value| Input::of(value).json().to_string()))
        }
        Kind::Tool { name, arguments } => {
            let filled = arguments.fill(&output).ok();
            ("tool", name, filled.map(|value| value.to_string()))
        }
    }
}

/// The events, as far as outcomes tell them.
fn told(steps: &[Step], record: v1::GetPlanResponse, outcomes_acknowledged: u32) -> Arc<Log> {
    let log = Log::new(&record.plan_id);
    let ended = record.accepted_at.as_ref().and_then(time::system_time);
    let elapsed = record.elapsed.as_ref().and_then(time::std_duration).unwrap_or_default();
    log.push(Event::Accepted(v1::PlanAccepted {
        trace_id: record.trace_id,
        deadline: ended.and_then(|at| at.checked_add(elapsed)).map(time::timestamp),
    }));
    for step in steps {
        log.push(Event::NodeAdded(v1::NodeAdded {
            node: Some(step.wire.clone()),
            depends_on: step.node.depends_on().into_iter().map(str::to_owned).collect(),
            text: text::print(&step.node),
        }));
    }
    for result in record.nodes.into_iter().filter(|n| !is_ahead(&n.node_id)) {
        log.push(Event::NodeFinished(v1::NodeFinished { result: Some(result) }));
    }
    log.push(Event::Finished(v1::PlanFinished {
        state: record.state,
        fault: record.fault,
        usage: record.usage,
        elapsed: record.elapsed,
        outcomes_acknowledged,
    }));
    Arc::new(log)
}
