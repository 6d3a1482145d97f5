//! A plan's spans: one trace from the client's, every node and attempt in its place, and no content unless it is switched on.
use crate::support::{
    endpoint::Endpoint,
    model::{Act, Model, say, unsure},
    plan::{Ran, goal, model, request},
    tools::{self, Reply},
    until,
    world::Mesh,
};
use opentelemetry::trace::SpanId;
use shoal_kit::{config, telemetry};
use shoal_proto::v1::State;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};
use tonic::Request;
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
};

#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    id: u64,
    parent: Option<u64>,
    fields: HashMap<String, String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}").trim_matches('"').to_owned();
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Every span that closes, with the name of the span that it stood in.
#[derive(Clone, Default)]
struct Recorder {
    open: Arc<Mutex<HashMap<u64, Seen>>>,
    closed: Arc<Mutex<Vec<Seen>>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context
            .span(id)
            .and_then(|span| span.parent().map(|p| p.id().into_u64()));
        let mut seen = Seen {
            name: attributes.metadata().name(),
            id: id.into_u64(),
            parent,
            ..Seen::default()
        };
        attributes.record(&mut seen);
        self.open.lock().expect("whole").insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.open.lock().expect("whole").get_mut(&id.into_u64()) {
            values.record(seen);
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        if let Some(seen) = self.open.lock().expect("whole").remove(&id.into_u64()) {
            self.closed.lock().expect("whole").push(seen);
        }
    }
}

impl Recorder {
    fn of_plan(&self, plan_id: &str) -> Option<(Seen, Vec<Seen>)> {
        let closed = self.closed.lock().expect("whole").clone();
        let plan = closed
            .iter()
            .find(|s| s.name == "plan" && s.field("shoal.plan.id") == plan_id)?
            .clone();
        Some((plan, closed))
    }

    /// The names of the spans from the plan's down to each that fits.
    fn paths(&self, plan_id: &str, leaf: &str) -> Vec<Vec<&'static str>> {
        let Some((plan, closed)) = self.of_plan(plan_id) else {
            return Vec::new();
        };
        let up = |seen: &Seen| closed.iter().find(|s| Some(s.id) == seen.parent).cloned();
        let path = |leaf: &Seen| {
            let (mut names, mut at) = (vec![leaf.name], leaf.clone());
            while let Some(parent) = up(&at) {
                names.push(parent.name);
                at = parent;
            }
            names.reverse();
            (at.id == plan.id).then_some(names)
        };
        closed.iter().filter(|s| s.name == leaf).filter_map(path).collect()
    }
}

/// One test, for a process has one subscriber.
#[tokio::test(flavor = "multi_thread")]
async fn one_trace_holds_the_plan_its_planner_nodes_attempts_and_tools_and_says_what_was_asked_only_if_it_may() {
    let recorder = Recorder::default();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let traced =
        tracing_opentelemetry::layer().with_tracer(opentelemetry::trace::TracerProvider::tracer(&provider, "test"));
    let subscriber = tracing_subscriber::registry().with(recorder.clone()).with(traced);
    tracing::subscriber::set_global_default(subscriber).expect("the only one of this binary");

    let endpoint = Endpoint::saying("from the endpoint").await;
    let planner = Model::new("planner", "plan", |_, _| {
        say("1. t: the secret step\n2. S.M(a=\"${1}\")")
    })
    .start();
    let small = Model::new("small", "t", |_, n| {
        if n == 0 {
            Act::Break("x".into())
        } else {
            unsure("a secret answer", 0.1)
        }
    })
    .threshold(0.5)
    .start();
    let tools = tools::start(&[("S.M", true)], |_, _| {
        Reply::Text("{\"said\":\"a secret result\"}".into())
    });
    let mesh = Mesh::new()
        .specialist("planner", &planner.server.url())
        .specialist("small", &small.server.url())
        .endpoint("large", &endpoint.base_url, |_| {})
        .tools(&tools.server.url())
        .task("plan", &["planner"])
        .task("t", &["small", "large"]);
    let world = mesh.clone().start().await;

    let (trace_id, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let mut call = Request::new(goal("the secret goal"));
    call.metadata_mut().insert(
        "traceparent",
        format!("00-{trace_id}-{parent}-01").parse().expect("ascii"),
    );
    let stream = world.plans().execute_plan(call).await.expect("admitted").into_inner();
    let ran = Ran::through(stream).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    let accepted = ran.events[0].event.clone();
    let Some(shoal_proto::v1::plan_event::Event::Accepted(accepted)) = accepted else {
        panic!("{accepted:?}")
    };
    assert_eq!(accepted.trace_id, trace_id, "the client's trace goes on");

    let id = ran.plan_id();
    until("the plan's span is closed", || recorder.of_plan(&id).is_some()).await;
    let mut attempts = recorder.paths(&id, "attempt");
    attempts.sort();
    // The planner's, two of the small one (the first broke off), the endpoint's, the tool's: each in its call in its node.
    assert_eq!(attempts, vec![vec!["plan", "node", "call", "attempt"]; 5]);
    let (plan, closed) = recorder.of_plan(&id).expect("closed");
    assert_eq!(
        (plan.field("openinference.span.kind"), plan.field("shoal.state")),
        ("AGENT", "succeeded")
    );
    let node = |node: &str| {
        let found = closed
            .iter()
            .find(|s| s.name == "node" && s.field("shoal.node.id") == node && s.parent == Some(plan.id));
        found.unwrap_or_else(|| panic!("no span of {node}")).clone()
    };
    let first = node("1");
    assert_eq!(
        (first.field("shoal.target"), first.field("gen_ai.response.model")),
        ("large", "large-1")
    );
    // Of the attempt that broke off an estimate, its prompt's fifteen bytes; then ten, and a hundred.
    assert_eq!(
        (first.field("gen_ai.usage.input_tokens"), first.field("shoal.task")),
        ("114", "t")
    );
    assert_eq!(
        (
            node("2").field("openinference.span.kind"),
            node("2").field("gen_ai.tool.name")
        ),
        ("TOOL", "S.M")
    );
    assert_eq!(node("planner").field("otel.name"), "planner plan");

    // Callees hang under the attempt that called them, in the same trace.
    for seen in planner.notes.seen().iter().chain(&small.notes.seen()) {
        assert!(
            seen.traceparent.starts_with(&format!("00-{trace_id}-")),
            "{}",
            seen.traceparent
        );
    }
    let parents: Vec<String> = small
        .notes
        .seen()
        .iter()
        .map(|s| s.traceparent[36..52].to_owned())
        .collect();
    assert_ne!(parents[0], parents[1], "each attempt is a span of its own");
    assert!(
        parents
            .iter()
            .all(|p| SpanId::from_hex(p).is_ok_and(|s| s != SpanId::INVALID))
    );
    assert!(
        endpoint.seen()[0].0["traceparent"]
            .to_str()
            .expect("ascii")
            .contains(trace_id)
    );

    // Nothing of what was asked or said is on any span: it is off unless it is switched on.
    let secret = |s: &&Seen| {
        s.fields
            .values()
            .any(|v| v.contains("secret") || v.contains("from the endpoint"))
    };
    assert_eq!(closed.iter().find(secret).map(|s| format!("{s:?}")), None);
    let telling = mesh
        .change(|c| {
            c.telemetry = config::Telemetry {
                content: true,
                ..config::Telemetry::default()
            }
        })
        .start()
        .await;
    let ran = telling.run(request(vec![model("a", "t", "the open question")])).await;
    until("the plan's span is closed", || {
        recorder.of_plan(&ran.plan_id()).is_some()
    })
    .await;
    let (plan, closed) = recorder.of_plan(&ran.plan_id()).expect("closed");
    let told = closed
        .iter()
        .find(|s| s.name == "node" && s.parent == Some(plan.id))
        .expect("a node");
    assert_eq!(
        (
            told.field(telemetry::names::INPUT_VALUE),
            told.field(telemetry::names::OUTPUT_VALUE)
        ),
        ("the open question", "from the endpoint")
    );
}
