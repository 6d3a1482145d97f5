//! The loop against a gateway of its own, on a real wire.
use super::*;
use crate::{goals::Target, schedule::Arrivals};
use futures::{StreamExt as _, stream::BoxStream};
use serde_json::json;
use shoal_kit::{serve, status::Reason};
use shoal_proto::v1::{
    self, PlanEvent,
    execute_plan_request::Source,
    plan_event::Event,
    plan_service_server::{PlanService, PlanServiceServer},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

/// Holds every answer back until so many plans have come.
struct Fake {
    arrived: watch::Sender<usize>,
    held_until: usize,
    /// Streams that were dropped before their end.
    dropped: Arc<AtomicUsize>,
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn unknown<T>() -> Result<T, Status> {
    let message = "no such plan".into();
    Err(Reason::NotFound {
        reason: "PLAN_UNKNOWN",
        message,
    }
    .into())
}

fn event(event: Event) -> Result<PlanEvent, Status> {
    Ok(PlanEvent {
        event: Some(event),
        ..Default::default()
    })
}

#[tonic::async_trait]
impl PlanService for Fake {
    type ExecutePlanStream = BoxStream<'static, Result<PlanEvent, Status>>;
    type ExecutePlanStreamStream = BoxStream<'static, Result<PlanEvent, Status>>;
    type WatchPlanStream = BoxStream<'static, Result<PlanEvent, Status>>;

    /// "refuse" is refused, "fail" fails, "hang" gets not even headers; anything else is planned as itself and answers true.
    async fn execute_plan(
        &self,
        request: Request<v1::ExecutePlanRequest>,
    ) -> Result<Response<Self::ExecutePlanStream>, Status> {
        self.arrived.send_modify(|n| *n += 1);
        let Some(Source::Goal(goal)) = request.into_inner().source else {
            return unknown();
        };
        if goal.text == "refuse" {
            let retry_after = Duration::ZERO;
            return Err(Reason::Exhausted {
                message: "full".into(),
                retry_after,
            }
            .into());
        }
        if goal.text == "hang" {
            std::future::pending::<()>().await;
        }
        let (mut arrived, until) = (self.arrived.subscribe(), self.held_until);
        let gone = Dropped(self.dropped.clone());
        let model = v1::ModelCall {
            task: "tool_call".into(),
            input: goal.text.clone(),
            ..Default::default()
        };
        let node = v1::Node {
            id: "1".into(),
            kind: Some(v1::node::Kind::Model(model)),
            ..Default::default()
        };
        let added = event(Event::NodeAdded(v1::NodeAdded {
            node: Some(node),
            ..Default::default()
        }));
        let result = v1::NodeResult {
            node_id: "1".into(),
            output_json: "true".into(),
            ..Default::default()
        };
        let done = event(Event::NodeFinished(v1::NodeFinished { result: Some(result) }));
        let failed = goal.text == "fail";
        let end = futures::stream::once(async move {
            let _ = arrived.wait_for(|n| *n >= until).await;
            std::mem::forget(gone);
            let fault = failed.then(|| v1::Fault {
                code: 5,
                reason: "NO_MATCH".into(),
                ..Default::default()
            });
            let state = if failed {
                v1::State::Failed
            } else {
                v1::State::Succeeded
            };
            event(Event::Finished(v1::PlanFinished {
                state: state.into(),
                fault,
                ..Default::default()
            }))
        });
        Ok(Response::new(futures::stream::iter([added, done]).chain(end).boxed()))
    }

    async fn execute_plan_stream(
        &self,
        _: Request<Streaming<v1::ExecutePlanStreamRequest>>,
    ) -> Result<Response<Self::ExecutePlanStreamStream>, Status> {
        unknown()
    }

    async fn decompose(&self, _: Request<v1::DecomposeRequest>) -> Result<Response<v1::DecomposeResponse>, Status> {
        unknown()
    }

    async fn get_plan(&self, _: Request<v1::GetPlanRequest>) -> Result<Response<v1::GetPlanResponse>, Status> {
        unknown()
    }

    async fn watch_plan(&self, _: Request<v1::WatchPlanRequest>) -> Result<Response<Self::WatchPlanStream>, Status> {
        unknown()
    }

    async fn cancel_plan(&self, _: Request<v1::CancelPlanRequest>) -> Result<Response<v1::CancelPlanResponse>, Status> {
        unknown()
    }
}

const DEADLINE: Duration = Duration::from_secs(20);

/// A gateway that holds answers back until so many plans have come, and what counts them.
async fn gateway(held_until: usize, deadline: Duration) -> (Gateway, watch::Receiver<usize>, Arc<AtomicUsize>) {
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let bound = serve::bind(any, any).await.expect("bound");
    let address = bound.grpc_addr().expect("address").to_string();
    let (arrived, seen) = watch::channel(0);
    let dropped = Arc::new(AtomicUsize::new(0));
    let fake = Fake {
        arrived,
        held_until,
        dropped: dropped.clone(),
    };
    let named = serve::Process {
        name: "gateway".into(),
        version: "0".into(),
        provider: String::new(),
    };
    let server = serve::Server::new(named).add(PlanServiceServer::new(fake));
    task::spawn(
        "fake gateway",
        server.run(bound, CancellationToken::new(), Duration::ZERO),
    );
    (Gateway::at(&address, 256, deadline).expect("address"), seen, dropped)
}

fn goal(text: &str, wanted: Option<bool>) -> Goal {
    let goal = v1::Goal {
        text: text.into(),
        ..Default::default()
    };
    Goal {
        request: v1::ExecutePlanRequest {
            source: Some(Source::Goal(goal)),
            ..Default::default()
        },
        target: wanted.map(|w| Target::Steps(json!([{"input": text, "output": w}]))),
    }
}

fn load(rate: f64, count: u64, max_in_flight: u32) -> Load {
    Load {
        schedule: Schedule::new(Arrivals::Uniform, rate, 0, Duration::from_secs(60), Some(count)),
        max_in_flight,
    }
}

#[tokio::test]
async fn arrivals_do_not_wait_for_answers_and_a_stall_is_charged_from_the_scheduled_time() {
    // No plan is answered before all forty have come: a loop that waits for answers would never send the second.
    let (gateway, _, _) = gateway(40, DEADLINE).await;
    let tally = run(
        &load(200.0, 40, 256),
        &[goal("go", None)],
        &gateway,
        &CancellationToken::new(),
        &|_, _| (),
    )
    .await;
    let out = tally.to_json(200.0);
    assert_eq!(
        (&out["sent"], &out["succeeded"], &out["shed"]),
        (&json!(40), &json!(40), &json!(0))
    );
    assert!(out.get("interrupted").is_none(), "{out}");
    // The first waited for the last, 39 gaps of 5 ms later; the median plan for half of that.
    let ms = |key: &str| out["latency_ms"][key].as_f64().expect("a figure");
    assert!(ms("max") >= 190.0 && ms("p50") >= 90.0, "{out}");
}

#[tokio::test]
async fn arrivals_beyond_the_bound_are_shed_and_counted_and_not_sent() {
    let (gateway, seen, _) = gateway(usize::MAX, Duration::from_secs(1)).await;
    let tally = run(
        &load(500.0, 20, 4),
        &[goal("go", None)],
        &gateway,
        &CancellationToken::new(),
        &|_, _| (),
    )
    .await;
    let out = tally.to_json(500.0);
    assert_eq!(
        (&out["shed"], &out["sent"], &out["failed"]),
        (&json!(16), &json!(4), &json!(4)),
        "{out}"
    );
    assert_eq!(*seen.borrow(), 4);
    // A gateway that never says that the deadline is over is not waited for, and the wait is charged.
    assert_eq!(out["errors"], json!({"DEADLINE_EXCEEDED NO_ANSWER": 4}));
    assert!(
        out["latency_ms"]["p50"].as_f64().is_some_and(|ms| ms >= 1000.0),
        "{out}"
    );
}

#[tokio::test]
async fn a_gateway_that_sends_not_even_headers_is_waited_for_until_the_deadline_and_that_wait_counts() {
    let deadline = Duration::from_millis(300);
    let (gateway, _, _) = gateway(0, deadline).await;
    let stop = CancellationToken::new();
    let tally = run(
        &load(1000.0, 4, 256),
        &[goal("hang", None)],
        &gateway,
        &stop,
        &|_, _| (),
    )
    .await;
    let out = tally.to_json(1000.0);
    assert_eq!(out["errors"], json!({"DEADLINE_EXCEEDED NO_ANSWER": 4}), "{out}");
    assert!(out["latency_ms"]["p50"].as_f64().is_some_and(|ms| ms >= 290.0), "{out}");
}

#[tokio::test]
async fn goals_are_asked_in_turn_and_each_end_is_counted_by_its_cause() {
    let (gateway, _, _) = gateway(0, DEADLINE).await;
    let goals = [
        goal("right", Some(true)),
        goal("wrong", Some(false)),
        goal("fail", Some(true)),
        goal("refuse", None),
    ];
    let tally = run(
        &load(1000.0, 8, 256),
        &goals,
        &gateway,
        &CancellationToken::new(),
        &|_, _| (),
    )
    .await;
    let out = tally.to_json(1000.0);
    assert_eq!(
        (&out["succeeded"], &out["failed"], &out["right"]),
        (&json!(4), &json!(4), &json!(2)),
        "{out}"
    );
    let causes = out["errors"]
        .as_object()
        .expect("object")
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    assert!(causes.contains(&"NOT_FOUND NO_MATCH".to_owned()), "{out}");
    assert!(causes.iter().any(|c| c.starts_with("RESOURCE_EXHAUSTED")), "{out}");
}

#[tokio::test]
async fn an_interrupted_run_ends_at_once_and_gives_its_plans_up() {
    let (gateway, mut seen, dropped) = gateway(usize::MAX, DEADLINE).await;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    task::spawn("interrupt", async move {
        let _ = seen.wait_for(|n| *n >= 3).await;
        stopping.cancel();
    });
    let tally = run(
        &load(100.0, 1000, 256),
        &[goal("go", None)],
        &gateway,
        &stop,
        &|_, _| (),
    )
    .await;
    let out = tally.to_json(100.0);
    assert!(out["sent"].as_u64().is_some_and(|n| (3..1000).contains(&n)), "{out}");
    assert_eq!(out["errors"]["INTERRUPTED"], out["failed"]);
    assert_eq!(out["interrupted"], json!(true));
    let gave_up = async {
        while dropped.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gave_up)
        .await
        .expect("the gateway saw its streams end");
}

#[tokio::test]
async fn a_gateway_that_is_away_is_told_apart_from_one_that_answers() {
    let (gateway, _, _) = gateway(0, DEADLINE).await;
    gateway.answers().await.expect("somebody is there");
    let nobody = Gateway::at("127.0.0.1:1", 1, DEADLINE).expect("address");
    let error = nobody.answers().await.expect_err("nobody");
    assert!(error.to_string().contains("shoal up"), "{error}");
    assert!(Gateway::at("not an address", 1, DEADLINE).is_err());
}
