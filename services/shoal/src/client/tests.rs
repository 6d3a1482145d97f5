//! The client against a gateway of its own, on a real wire.
use super::*;
use crate::{
    eval::{ask, score::Task},
    run,
    view::{PlanView, Show},
};
use futures::{StreamExt as _, stream::BoxStream};
use serde_json::json;
use shoal_kit::{config, serve, status::Reason, task};
use shoal_proto::v1::{
    PlanEvent, State,
    execute_plan_request::Source,
    node::Kind,
    plan_event::Event,
    plan_service_server::{PlanService, PlanServiceServer},
};
use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};
use tonic::Response;

#[test]
fn a_server_that_listens_everywhere_is_reached_by_loopback() {
    assert_eq!(
        reachable("0.0.0.0:7400".parse().expect("address")),
        "http://127.0.0.1:7400"
    );
    assert_eq!(reachable("[::]:7400".parse().expect("address")), "http://[::1]:7400");
    assert_eq!(
        reachable("10.0.0.7:7400".parse().expect("address")),
        "http://10.0.0.7:7400"
    );
    assert_eq!(with_scheme("gateway:7400"), "http://gateway:7400");
    assert_eq!(with_scheme("http://gateway:7400"), "http://gateway:7400");
}

/// What the fake gateway does and has seen.
#[derive(Default)]
struct Fake {
    /// Refusals left before a plan is taken.
    full: AtomicU32,
    traceparents: Mutex<Vec<String>>,
    cancelled: CancellationToken,
}

/// A plan of one node answers with what it was asked; a goal runs until it is cancelled.
struct Gateway(Arc<Fake>);

fn unknown<T>() -> Result<T, Status> {
    Err(Reason::NotFound {
        reason: "PLAN_UNKNOWN",
        message: "no such plan".into(),
    }
    .into())
}

fn event(sequence: u64, event: Event) -> Result<PlanEvent, Status> {
    Ok(PlanEvent {
        plan_id: "p".into(),
        sequence,
        time: None,
        event: Some(event),
    })
}

fn finished(sequence: u64, state: State) -> Result<PlanEvent, Status> {
    event(
        sequence,
        Event::Finished(v1::PlanFinished {
            state: state.into(),
            ..Default::default()
        }),
    )
}

#[tonic::async_trait]
impl PlanService for Gateway {
    type ExecutePlanStream = BoxStream<'static, Result<PlanEvent, Status>>;
    type ExecutePlanStreamStream = BoxStream<'static, Result<PlanEvent, Status>>;
    type WatchPlanStream = BoxStream<'static, Result<PlanEvent, Status>>;

    async fn execute_plan(
        &self,
        request: Request<v1::ExecutePlanRequest>,
    ) -> Result<Response<Self::ExecutePlanStream>, Status> {
        let traceparent = request
            .metadata()
            .get("traceparent")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        self.0.traceparents.lock().expect("lock").push(traceparent.to_owned());
        if self
            .0
            .full
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok()
        {
            return Err(Reason::Exhausted {
                message: "full".into(),
                retry_after: Duration::from_millis(1),
            }
            .into());
        }
        let accepted = event(
            1,
            Event::Accepted(v1::PlanAccepted {
                trace_id: "t".into(),
                deadline: None,
            }),
        );
        let Some(Source::Plan(plan)) = request.into_inner().source else {
            let cancelled = self.0.cancelled.clone();
            let end = futures::stream::once(async move {
                cancelled.cancelled().await;
                finished(2, State::Cancelled)
            });
            return Ok(Response::new(futures::stream::iter([accepted]).chain(end).boxed()));
        };
        let Some(Kind::Model(model)) = plan.nodes[0].kind.clone() else {
            return unknown();
        };
        let result = v1::NodeResult {
            node_id: plan.nodes[0].id.clone(),
            state: State::Succeeded.into(),
            output_json: json!({"task": model.task, "asked": model.input}).to_string(),
            ..Default::default()
        };
        let done = event(2, Event::NodeFinished(v1::NodeFinished { result: Some(result) }));
        Ok(Response::new(
            futures::stream::iter([accepted, done, finished(3, State::Succeeded)]).boxed(),
        ))
    }

    async fn execute_plan_stream(
        &self,
        _: Request<Streaming<v1::ExecutePlanStreamRequest>>,
    ) -> Result<Response<Self::ExecutePlanStreamStream>, Status> {
        unknown()
    }

    async fn decompose(&self, _: Request<v1::DecomposeRequest>) -> Result<Response<v1::DecomposeResponse>, Status> {
        Err(Reason::Precondition {
            reason: "PLAN_TEXT_GARBLED",
            message: "1. what".into(),
        }
        .into())
    }

    async fn get_plan(&self, _: Request<v1::GetPlanRequest>) -> Result<Response<v1::GetPlanResponse>, Status> {
        unknown()
    }

    async fn watch_plan(&self, _: Request<v1::WatchPlanRequest>) -> Result<Response<Self::WatchPlanStream>, Status> {
        unknown()
    }

    async fn cancel_plan(&self, _: Request<v1::CancelPlanRequest>) -> Result<Response<v1::CancelPlanResponse>, Status> {
        self.0.cancelled.cancel();
        Ok(Response::new(v1::CancelPlanResponse {
            state: State::Cancelled.into(),
        }))
    }
}

async fn mesh() -> (Mesh, Arc<Fake>) {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let bound = serve::bind(any, any).await.expect("bound");
    let url = format!("http://{}", bound.grpc_addr().expect("address"));
    let fake = Arc::new(Fake::default());
    let named = serve::Process {
        name: "gateway".into(),
        version: "0".into(),
        provider: String::new(),
    };
    let server = serve::Server::new(named).add(PlanServiceServer::new(Gateway(fake.clone())));
    task::spawn(
        "fake gateway",
        server.run(bound, CancellationToken::new(), Duration::ZERO),
    );
    (Mesh::at(&url).expect("url"), fake)
}

/// Presses Ctrl-C at the first event.
struct Impatient(CancellationToken);

impl Show for Impatient {
    fn event(&mut self, _: &PlanEvent, _: &PlanView, _: Option<usize>) {
        self.0.cancel();
    }
    fn end(&mut self, _: &PlanView) {}
}

#[tokio::test]
async fn a_row_is_asked_again_while_the_mesh_is_full_and_answered_in_its_targets_shape() {
    let (mesh, fake) = mesh().await;
    fake.full.store(3, Ordering::SeqCst);
    let answer = ask::ask(&mesh, Task::Route, &json!({"id": "r", "input": "costs $5"}))
        .await
        .expect("answered");
    assert_eq!(answer.output, json!({"task": "route", "asked": "costs $$5"}));
    assert!(answer.trouble.is_none());
    assert_eq!(fake.traceparents.lock().expect("lock").len(), 4);
}

#[tokio::test]
async fn a_refused_row_is_a_missing_answer_and_a_mesh_that_is_away_is_an_error() {
    let (mesh, _) = mesh().await;
    let row = json!({"id": "e", "input": {"turns": ["hi"], "methods": {}}});
    let answer = ask::ask(&mesh, Task::Episode, &row).await.expect("an answer");
    assert!(answer.output.is_null());
    assert!(answer.trouble.is_some_and(|t| t.contains("FAILED_PRECONDITION")));
    let nobody = Mesh::at("http://127.0.0.1:1").expect("url");
    let away = ask::ask(&nobody, Task::Episode, &row).await.expect_err("away");
    assert_eq!(away.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn an_interrupted_client_cancels_its_plan_and_waits_for_its_end() {
    let (mesh, fake) = mesh().await;
    let stop = CancellationToken::new();
    let mut impatient = Impatient(stop.clone());
    let stream = mesh
        .execute(run::of_goal(v1::Goal {
            text: "for ever".into(),
            ..Default::default()
        }))
        .await
        .expect("taken");
    let plan = tokio::time::timeout(
        Duration::from_secs(20),
        run::collect(stream, &mut impatient, Some(&mesh), &stop),
    );
    let plan = plan.await.expect("ended").expect("events");
    assert!(fake.cancelled.is_cancelled(), "the gateway was told");
    assert_eq!(plan.finished.map(|f| f.state()), Some(State::Cancelled));
}

#[tokio::test]
async fn the_clients_span_is_the_root_of_the_plans_trace() {
    // The only test of this crate that sets telemetry up: it may be done once a process.
    let guard = telemetry::init(
        "client-test",
        &config::Telemetry {
            log: "off".into(),
            ..Default::default()
        },
    );
    let (mesh, fake) = mesh().await;
    let span = tracing::info_span!("root");
    let trace_id = propagate::trace_id(&span);
    let request = ask::one_node(Task::Route, &json!("x"));
    let stream = tracing::Instrument::instrument(mesh.execute(request), span)
        .await
        .expect("taken");
    drop(stream);
    let seen = fake.traceparents.lock().expect("lock").clone();
    assert!(
        seen[0].starts_with(&format!("00-{trace_id}-")) && trace_id.bytes().any(|b| b != b'0'),
        "{seen:?} {trace_id}"
    );
    drop(guard);
}
