//! shoal.v1.PlanService.
use super::{
    again,
    open::{self, Entrance},
};
use crate::{
    context::Context,
    decompose::once,
    error::Error,
    execute::join::Arrivals,
    plans::{Opening, Plan, rebuilt, record},
};
use futures::{StreamExt as _, stream::BoxStream};
use shoal_kit::{deadline, propagate, serve};
use shoal_plan::reference::is_id;
use shoal_proto::v1::{self, execute_plan_stream_request::Message, plan_service_server::PlanService};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};
use tracing::Instrument as _;

/// One question to feedback, of somebody who wants to know nothing else. It reads an index.
const STORED: Duration = Duration::from_secs(5);

type Events = BoxStream<'static, Result<v1::PlanEvent, Status>>;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Plans(pub(crate) Arc<Context>);

/// The events of a plan that this caller executes: dropping them cancels it, as far as nobody else executes it and it was not
/// detached.
fn executed(plan: Arc<Plan>) -> Events {
    let attached = plan.clone().attach();
    let events = plan.log.clone().watch(0).map(|event| Ok((*event).clone()));
    // A stream whose client sent something wrong ends by saying what, field by field.
    let end = futures::stream::once(async move {
        drop(attached);
        plan.refused().map(|error| Err(Status::from(error)))
    });
    Box::pin(events.chain(end.filter_map(std::future::ready)))
}

fn left(metadata: &MetadataMap) -> Result<Option<Duration>, Error> {
    open::past(deadline::of(metadata)?)
}

/// What is left now, of what was left to a call when it came.
fn still(left: Option<Duration>, came: Instant) -> Result<Option<Duration>, Error> {
    match left.map(|left| left.saturating_sub(came.elapsed())) {
        Some(Duration::ZERO) => Err(Error::Expired {
            what: "grpc-timeout ran out before the plan had begun".into(),
        }),
        left => Ok(left),
    }
}

#[tonic::async_trait]
impl PlanService for Plans {
    type ExecutePlanStream = Events;
    type ExecutePlanStreamStream = Events;
    type WatchPlanStream = Events;

    async fn execute_plan(&self, request: Request<v1::ExecutePlanRequest>) -> Result<Response<Events>, Status> {
        let span = open::span("shoal.v1.PlanService/ExecutePlan");
        propagate::adopt(request.metadata(), &span);
        let (came, left) = (Instant::now(), left(request.metadata())?);
        let request = request.into_inner();
        if let Some(log) = again::ran(&self.0, &request, false, &BTreeSet::new()).await? {
            return Ok(Response::new(log.watch(0).map(|event| Ok((*event).clone())).boxed()));
        }
        let entrance = Entrance::whole(span, still(left, came)?);
        let plan = open::open(&self.0, request, false, entrance)?;
        Ok(Response::new(executed(plan)))
    }

    async fn execute_plan_stream(
        &self,
        request: Request<Streaming<v1::ExecutePlanStreamRequest>>,
    ) -> Result<Response<Events>, Status> {
        let span = open::span("shoal.v1.PlanService/ExecutePlanStream");
        propagate::adopt(request.metadata(), &span);
        let (came, left) = (Instant::now(), left(request.metadata())?);
        let mut incoming = request.into_inner();
        // A client that opens nothing holds nothing: its own deadline, or ours, ends the wait.
        let first = tokio::time::timeout(left.unwrap_or(self.0.config.default_deadline), incoming.message());
        let first = first.await.map_err(|_| Error::Expired {
            what: "no `open` came".into(),
        })?;
        let first = first.map_err(|status| match serve::unreadable(&status) {
            Some(reason) => Status::from(reason),
            None => status,
        })?;
        let Some(Message::Open(opening)) = first.and_then(|f| f.message) else {
            return Err(Error::invalid("message", "the first message must be `open`").into());
        };
        let client_tools = client_tools(opening.client_tools)?;
        let request = opening.request.unwrap_or_default();
        if again::ran(&self.0, &request, true, &client_tools).await?.is_some() {
            return Err(Error::PlanTaken {
                plan_id: request.plan_id,
                by: "a plan that ran before; a streamed one cannot be joined, GetPlan has what is stored of it",
            }
            .into());
        }
        let bytes = prost::Message::encoded_len(&request);
        let entrance = Entrance {
            span,
            left: still(left, came)?,
            client_tools,
            arrivals: Arrivals::from_client(incoming.boxed(), bytes),
        };
        let plan = open::open(&self.0, request, true, entrance)?;
        Ok(Response::new(executed(plan)))
    }

    async fn decompose(
        &self,
        request: Request<v1::DecomposeRequest>,
    ) -> Result<Response<v1::DecomposeResponse>, Status> {
        let span = open::span("shoal.v1.PlanService/Decompose");
        propagate::adopt(request.metadata(), &span);
        let context = self.0.clone();
        let left = left(request.metadata())?;
        let goal = request.into_inner().goal;
        context.admission(&BTreeSet::new()).decomposition(goal.as_ref())?;
        if context.leaving.is_cancelled() {
            return Err(serve::draining("the gateway").into());
        }
        context.recorder.room()?;
        let _place = context.plans.place()?;
        let most = left
            .unwrap_or(context.config.default_deadline)
            .min(context.config.max_deadline);
        let opening = Opening {
            plan_id: uuid::Uuid::now_v7().to_string(),
            trace_id: propagate::trace_id(&span),
            deadline: most,
            content: 0,
            detach: false,
        };
        let planned = Box::pin(once::decompose(context, goal.unwrap_or_default(), opening)).instrument(span);
        Ok(Response::new(planned.await?))
    }

    async fn get_plan(&self, request: Request<v1::GetPlanRequest>) -> Result<Response<v1::GetPlanResponse>, Status> {
        let plan_id = request.into_inner().plan_id;
        Ok(Response::new(self.record(&plan_id).await?))
    }

    async fn watch_plan(&self, request: Request<v1::WatchPlanRequest>) -> Result<Response<Events>, Status> {
        let v1::WatchPlanRequest {
            plan_id,
            after_sequence,
        } = request.into_inner();
        let plan = self.known(&plan_id)?.ok_or(Error::EventsUnknown { plan_id })?;
        let events = plan.log.clone().watch(after_sequence).map(|event| Ok((*event).clone()));
        Ok(Response::new(events.boxed()))
    }

    async fn cancel_plan(
        &self,
        request: Request<v1::CancelPlanRequest>,
    ) -> Result<Response<v1::CancelPlanResponse>, Status> {
        let v1::CancelPlanRequest { plan_id, reason } = request.into_inner();
        let state = match self.known(&plan_id)? {
            Some(plan) => {
                let why: String = if reason.is_empty() {
                    "cancelled by CancelPlan".into()
                } else {
                    reason.chars().take(500).collect()
                };
                plan.cancel(Error::Cancelled { why });
                plan.ended().await;
                plan.state()
            }
            // What has ended and is forgotten has ended all the same.
            None => self.record(&plan_id).await?.state(),
        };
        Ok(Response::new(v1::CancelPlanResponse { state: state.into() }))
    }
}

impl Plans {
    fn known(&self, plan_id: &str) -> Result<Option<Arc<Plan>>, Error> {
        if !is_id(plan_id) {
            return Err(Error::invalid("plan_id", "must be 1 to 64 of A-Z a-z 0-9 _ -"));
        }
        Ok(self.0.plans.get(plan_id))
    }

    /// A plan's record, from memory or from what is stored of it.
    async fn record(&self, plan_id: &str) -> Result<v1::GetPlanResponse, Error> {
        if let Some(plan) = self.known(plan_id)? {
            return Ok(record::of(&plan));
        }
        let unknown = || Error::PlanUnknown {
            plan_id: plan_id.to_owned(),
        };
        let stored = self.0.stored.of(plan_id, STORED).await?;
        rebuilt::of(plan_id, stored).ok_or_else(unknown)
    }
}

/// Names of tools that a client answers itself.
fn client_tools(names: Vec<String>) -> Result<BTreeSet<String>, Error> {
    /// As many as a plan may have nodes, by default: each would be called once.
    const MOST: usize = 256;
    if names.len() > MOST {
        return Err(Error::invalid(
            "open.client_tools",
            format!("{} names; at most {MOST} are taken", names.len()),
        ));
    }
    let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || name.len() > 128 || !name.bytes().all(word) {
            let field = format!("open.client_tools[{i}]");
            return Err(Error::invalid(
                field,
                "must be 1 to 128 of A-Z a-z 0-9 _ - and a point, as in Service.Method",
            ));
        }
    }
    Ok(names.into_iter().collect())
}
