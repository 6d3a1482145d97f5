//! A plan_id that comes again after its plan is forgotten here, by a restart or because of `[gateway] plans_kept`: what is stored of
//! it answers, so that no tool runs a second time.
//!
//! Outcomes do not say whether their plan had ended, nor what its request was. So it is only told again where every step of the
//! request has succeeded with the very input that it would have now; whatever else is stored under the id is another plan's, or the
//! rest of one that was cut off, and GetPlan has it.
use crate::{
    admit::{Catalogue, Known, Source, Step, is_ahead},
    context::Context,
    error::Error,
    execute::derived,
    plans::{log::Log, rebuilt},
    route::Input,
};
use serde_json::Value;
use shoal_plan::{Kind, reference::is_id, text};
use shoal_proto::{
    time,
    v1::{self, plan_event::Event},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// How long a plan waits to hear whether it ran before. The answer is one look at an index; a store that is away must not keep
/// plans from running.
const PATIENCE: Duration = Duration::from_secs(1);

/// The events of the plan that this request was, if it ran before and is forgotten here. `streamed` and `client_tools` are as it
/// is opened with.
///
/// # Errors
/// `PlanTaken` if what is stored under its id is not all that it asks for; the store's, if it answers with one.
pub(super) async fn ran(
    context: &Context,
    request: &v1::ExecutePlanRequest,
    streamed: bool,
    client_tools: &BTreeSet<String>,
) -> Result<Option<Arc<Log>>, Error> {
    let plan_id = &request.plan_id;
    if !is_id(plan_id) || context.plans.get(plan_id).is_some() {
        return Ok(None);
    }
    let taken = |by: &'static str| Error::PlanTaken {
        plan_id: plan_id.clone(),
        by,
    };
    let outcomes = match context.stored.of(plan_id, PATIENCE).await {
        Ok(outcomes) => outcomes,
        Err(error @ Error::Away { .. }) => {
            tracing::warn!(plan_id, %error, "whether the plan ran before is not known, it runs");
            return Ok(None);
        }
        Err(Error::Unfit { .. }) => {
            return Err(taken(
                "a plan that ran before, of which more is stored than is read back",
            ));
        }
        Err(error) => return Err(error),
    };
    let acknowledged = u32::try_from(outcomes.len()).unwrap_or(u32::MAX);
    let Some(record) = rebuilt::of(plan_id, outcomes) else {
        return Ok(None);
    };
    // What is wrong with the request is said where every request's faults are.
    let Ok(admitted) = context.admission(client_tools).request(request.clone(), None, streamed) else {
        return Ok(None);
    };
    match &admitted.source {
        Source::Steps(_, steps) if same(steps, &record, &*context.registry) => {
            Ok(Some(told(steps, record, acknowledged)))
        }
        _ => Err(taken(
            "a plan that ran before, or a part of one; GetPlan has what is stored of it",
        )),
    }
}

/// Whether this is what is stored, whole: every step has succeeded, asked what it would be asked now, and so has each call that a
/// step yielded; and there is nothing else.
fn same(steps: &[Step], record: &v1::GetPlanResponse, tools: &dyn Catalogue) -> bool {
    let asked: BTreeSet<&str> = steps.iter().map(|s| s.node.id.as_str()).collect();
    let (own, others): (Vec<_>, Vec<_>) = record.nodes.iter().partition(|n| asked.contains(n.node_id.as_str()));
    let own: HashMap<&str, &v1::NodeResult> = own.into_iter().map(|n| (n.node_id.as_str(), n)).collect();
    let (mut outputs, mut calls) = (HashMap::new(), 0);
    for step in steps {
        let id = step.node.id.as_str();
        let Some(stored) = own.get(id) else { return false };
        let mut value = output(stored);
        if let Some((name, _)) = derived::yielded(step, &value) {
            let call = |n: &&&v1::NodeResult| n.kind == "tool" && n.name == name && n.depends_on == [id];
            match others.iter().find(call) {
                Some(call) => {
                    value = output(call);
                    calls += 1;
                }
                // Nobody offers that tool: the call was the step's output, and ran nowhere.
                None if matches!(tools.tool(&name), Known::Unknown(_)) => {}
                // It may have run, and how it ended is not known.
                None => return false,
            }
        }
        outputs.insert(id, value);
    }
    let done = |step: &Step| {
        own.get(step.node.id.as_str()).is_some_and(|stored| {
            let (kind, name, input) = now(step, &outputs);
            let asked = (stored.kind.as_str(), stored.name.as_str(), &stored.input_json);
            input.is_some_and(|input| asked == (kind, name, &input))
        })
    };
    // Of a record from outcomes, this says that no node failed or was cut off.
    record.state() == v1::State::Succeeded && calls == others.len() && steps.iter().all(done)
}

/// What a node left.
fn output(node: &v1::NodeResult) -> Value {
    serde_json::from_str(&node.output_json).unwrap_or_default()
}

/// What a step is, and what it would be asked with these outputs.
fn now<'a>(step: &'a Step, outputs: &HashMap<&str, Value>) -> (&'static str, &'a str, Option<String>) {
    let output = |id: &str| outputs.get(id);
    match &step.node.kind {
        Kind::Model { task, input } => {
            let filled = input.fill_prompt(&output).ok();
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
