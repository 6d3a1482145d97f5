//! From an admitted request to a running plan.
use crate::{
    admit::{Admitted, Source},
    context::Context,
    error::Error,
    execute::driver::Driver,
    execute::join::Arrivals,
    plans::{Begun, Opening, Plan},
};
use prost::Message as _;
use shoal_kit::{
    propagate, serve, task,
    telemetry::{CONTENT_BYTES, cut, names},
};
use shoal_proto::v1;
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};
use tracing::{Instrument as _, Span, field::Empty, info_span};

/// A plan's span. Its parent must be set before it is opened with.
pub(crate) fn span(method: &'static str) -> Span {
    info_span!(
        "plan",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        { names::OPENINFERENCE_KIND } = "AGENT",
        { names::GEN_AI_OPERATION } = "invoke_agent",
        { names::RPC_SYSTEM } = "grpc",
        { names::RPC_METHOD } = method,
        { names::PLAN_ID } = Empty,
        { crate::telemetry::STATE } = Empty,
        { names::INPUT_VALUE } = Empty,
    )
}

/// What comes with a request besides what it says.
pub(crate) struct Entrance {
    pub(crate) span: Span,
    /// What the caller's grpc-timeout leaves.
    pub(crate) left: Option<Duration>,
    /// Tools that the client answers itself.
    pub(crate) client_tools: BTreeSet<String>,
    /// What still comes from the client.
    pub(crate) arrivals: Arrivals,
}

impl Entrance {
    /// Of a request that brings everything with it.
    pub(crate) fn whole(span: Span, left: Option<Duration>) -> Self {
        Self {
            span,
            left,
            client_tools: BTreeSet::new(),
            arrivals: Arrivals::none(),
        }
    }
}

/// Admits a request and begins its plan, or finds the plan that the same request began.
///
/// # Errors
/// Every breach of the rules, or what is full.
pub(crate) fn open(
    context: &Arc<Context>,
    request: v1::ExecutePlanRequest,
    streamed: bool,
    entrance: Entrance,
) -> Result<Arc<Plan>, Error> {
    let content = content(&request, &entrance.client_tools);
    let admitted = context
        .admission(&entrance.client_tools)
        .request(request, entrance.left, streamed);
    begin(context, admitted, content, streamed, entrance)
}

/// Begins a plan that was admitted, or not.
pub(crate) fn begin(
    context: &Arc<Context>,
    admitted: Result<Admitted, Error>,
    content: u64,
    streamed: bool,
    entrance: Entrance,
) -> Result<Arc<Plan>, Error> {
    let begun = admitted.and_then(|admitted| begin_admitted(context, admitted, content, streamed, entrance));
    begun.inspect_err(|error| context.instruments.plan_refused(&error.fault().reason))
}

fn begin_admitted(
    context: &Arc<Context>,
    admitted: Admitted,
    content: u64,
    streamed: bool,
    entrance: Entrance,
) -> Result<Arc<Plan>, Error> {
    if context.leaving.is_cancelled() {
        return Err(serve::draining("the gateway").into());
    }
    let known = admitted
        .plan_id
        .as_ref()
        .is_some_and(|id| context.plans.get(id).is_some());
    if streamed && known {
        return Err(Error::PlanTaken {
            plan_id: admitted.plan_id.unwrap_or_default(),
            by: "another plan; a streamed one cannot be joined, WatchPlan shows its events",
        });
    }
    if !known {
        context.recorder.room()?;
    }
    let opening = Opening {
        plan_id: admitted
            .plan_id
            .clone()
            .unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        trace_id: propagate::trace_id(&entrance.span),
        deadline: admitted.bounds.deadline,
        content,
        detach: admitted.detach,
    };
    let (plan, place) = match context.plans.begin(opening)? {
        Begun::Same(plan) => return Ok(plan),
        Begun::New(plan, place) => (plan, place),
    };
    entrance.span.record(names::PLAN_ID, plan.id.as_str());
    if let (true, Source::Goal(goal)) = (context.content, &admitted.source) {
        let said = if goal.turns.is_empty() {
            goal.text.clone()
        } else {
            goal.turns.join("\n")
        };
        entrance.span.record(names::INPUT_VALUE, cut(&said, CONTENT_BYTES));
    }
    let driver = entrance.span.in_scope(|| {
        Driver::new(
            context.clone(),
            plan.clone(),
            place,
            admitted,
            entrance.client_tools,
            entrance.arrivals,
        )
    });
    // Boxed: the driver's future holds the graph, and moves once, into its task.
    let running = Box::pin(driver.run()).instrument(entrance.span.clone());
    entrance.span.in_scope(|| task::spawn("plan driver", running));
    Ok(plan)
}

/// What was sent, hashed: source, bounds and client tools. Detaching is not content: a client that comes back may want to stay.
pub(crate) fn content(request: &v1::ExecutePlanRequest, client_tools: &BTreeSet<String>) -> u64 {
    let said = v1::ExecutePlanRequest {
        plan_id: String::new(),
        detach: false,
        ..request.clone()
    };
    let mut hasher = DefaultHasher::new();
    (said.encode_to_vec(), client_tools).hash(&mut hasher);
    hasher.finish()
}

/// A caller's deadline that is already past.
pub(crate) fn past(left: Option<Duration>) -> Result<Option<Duration>, Error> {
    match left {
        Some(left) if left.is_zero() => Err(Error::Expired {
            what: "grpc-timeout is zero: the deadline was past before the call came".into(),
        }),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_was_past_before_the_call_came_is_refused() {
        let fault = past(Some(Duration::ZERO)).expect_err("past").fault();
        assert_eq!(fault.code, tonic::Code::DeadlineExceeded as i32);
        assert_eq!(
            past(Some(Duration::from_millis(1))).expect("some left"),
            Some(Duration::from_millis(1))
        );
        assert_eq!(past(None).expect("no deadline"), None);
    }

    #[test]
    fn the_same_request_under_another_id_is_the_same_content_and_any_other_is_not() {
        let request = |text: &str, plan_id: &str| v1::ExecutePlanRequest {
            source: Some(v1::execute_plan_request::Source::PlanText(text.into())),
            plan_id: plan_id.into(),
            ..v1::ExecutePlanRequest::default()
        };
        let none = BTreeSet::new();
        let detached = v1::ExecutePlanRequest {
            detach: true,
            ..request("1. t: a", "x")
        };
        assert_eq!(content(&request("1. t: a", "x"), &none), content(&detached, &none));
        assert_ne!(
            content(&request("1. t: a", "x"), &none),
            content(&request("1. t: b", "x"), &none)
        );
        assert_ne!(
            content(&request("1. t: a", "x"), &none),
            content(&request("1. t: a", "x"), &BTreeSet::from(["T.M".to_owned()]))
        );
    }
}
