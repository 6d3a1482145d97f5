//! A plan_id that comes again after its plan is forgotten: told again if all of it is stored, and never run a second time.
use crate::{
    recorded::{echo, mesh},
    support::{
        model::{Act, Model, say},
        ms,
        plan::{model, plan_text, request, tool, within},
        store::{self, Disk},
        stream,
        tools::{self, Reply},
        until,
        world::Mesh,
    },
};
use serde_json::json;
use shoal_kit::status;
use shoal_proto::v1::{self, State, tool_result::Outcome};
use std::sync::Arc;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_ran_before_a_restart_is_told_again_and_nothing_of_it_runs_twice() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let feedback = store::start(&disk);
    let named = |input: &str, second: &str| v1::ExecutePlanRequest {
        plan_id: "daily".into(),
        ..request(vec![model("a", "echo", input), model("b", "echo", second)])
    };
    let world = mesh(&echo, &feedback.url()).start().await;
    let ran = world.run(named("x", "${a}")).await;
    until("both are stored", || disk.of("daily").len() == 2).await;
    world.stop().await;
    let next = mesh(&echo, &feedback.url()).start().await;
    let again = next.run(named("x", "${a}")).await;
    assert_eq!((again.state(), again.plan_id().as_str()), (State::Succeeded, "daily"));
    assert_eq!(
        (again.output("b"), echo.notes.count()),
        (ran.output("b"), 2),
        "nobody is asked again"
    );
    assert_eq!(again.node("b").outcome_id, ran.node("b").outcome_id);
    // Another input, another step, or one step more: another plan.
    let more = v1::ExecutePlanRequest {
        plan_id: "daily".into(),
        ..request(vec![
            model("a", "echo", "x"),
            model("b", "echo", "${a}"),
            model("c", "echo", "z"),
        ])
    };
    // And so is a part of it.
    let less = v1::ExecutePlanRequest {
        plan_id: "daily".into(),
        ..request(vec![model("a", "echo", "x")])
    };
    for other in [named("y", "${a}"), named("x", "z"), more, less] {
        let refused = next.open(other).await.expect_err("taken");
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
        assert!(refused.message().contains("GetPlan"), "{refused:?}");
    }
    assert_eq!(echo.notes.count(), 2);
    // A store that is away keeps no plan from running.
    feedback.kill();
    assert_eq!(next.run(named("x", "${a}")).await.state(), State::Succeeded);
    assert_eq!(echo.notes.count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_cut_off_is_not_run_again_under_its_id() {
    let disk = Arc::new(Disk::default());
    let feedback = store::start(&disk);
    let hang = Model::new("echo", "echo", |seen, _| match seen.prompt().as_str() {
        "x" => say("done"),
        _ => Act::Hang,
    })
    .start();
    let request = || v1::ExecutePlanRequest {
        plan_id: "cut".into(),
        ..within(
            request(vec![model("a", "echo", "x"), model("b", "echo", "${a}")]),
            ms(300),
        )
    };
    let world = mesh(&hang, &feedback.url()).start().await;
    assert_eq!(world.run(request()).await.state(), State::Cancelled);
    until("both are stored", || disk.of("cut").len() == 2).await;
    world.stop().await;
    let next = mesh(&hang, &feedback.url()).start().await;
    assert_eq!(
        next.open(request()).await.expect_err("taken").code(),
        Code::AlreadyExists
    );
    assert_eq!(hang.notes.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_call_left_no_outcome_is_not_told_as_done_and_one_whose_call_ended_is() {
    let (disk, caller) = (
        Arc::new(Disk::default()),
        Model::new("caller", "tool_call", |seen, _| match seen.prompt().as_str() {
            "play" => say(r#"{"tool":"PlayMusic","arguments":{}}"#),
            "find" => say(r#"{"tool":"S.Find","arguments":{"a":"b"}}"#),
            _ => say(r#"{"tool":"S.Book","arguments":{"a":"b"}}"#),
        })
        .start(),
    );
    let feedback = store::start(&disk);
    let tools = tools::start(&[("S.Find", true), ("S.Book", false)], |call, _| {
        match call.name.as_str() {
            "S.Find" => Reply::Text("{\"street\":\"Elm\"}".into()),
            _ => Reply::Never,
        }
    });
    let mesh = Mesh::new()
        .specialist("caller", &caller.server.url())
        .task("tool_call", &["caller"])
        .tools(&tools.server.url())
        .feedback(&feedback.url());
    let named = |plan_id: &str, request: v1::ExecutePlanRequest| v1::ExecutePlanRequest {
        plan_id: plan_id.into(),
        ..request
    };
    // The second step's tool is the first one's own: it is a step, and no call that another has yielded.
    let whole = || plan_text("1. tool_call: find\n2. S.Find(a=$1.street)\n3. tool_call: play");
    let book = || request(vec![model("4", "tool_call", "book a table")]);
    let world = mesh.clone().start().await;
    let ran = world.run(named("whole", whole())).await;
    assert_eq!(ran.state(), State::Succeeded, "{ran:?}");
    let _running = world.open(named("cut", book())).await.expect("admitted");
    until("what has ended is stored, and the booking runs", || {
        disk.all().len() == 5 && tools.notes.arguments("S.Book").len() == 1
    })
    .await;
    // A gateway that is killed tells nobody; this one is left alone instead, and the next one knows what is stored.
    let next = mesh.start().await;
    let refused = next.open(named("cut", book())).await.expect_err("taken");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    let again = next.run(named("whole", whole())).await;
    assert_eq!(
        (again.state(), again.output("1-call"), again.output("3")),
        (State::Succeeded, json!({"street": "Elm"}), ran.output("3"))
    );
    assert_eq!(
        (caller.notes.count(), tools.notes.seen().len()),
        (3, 3),
        "nobody is asked again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_plan_that_ran_before_is_refused_whatever_it_is_opened_with() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let feedback = store::start(&disk);
    let named = |plan_id: &str, nodes: Vec<v1::Node>| v1::ExecutePlanRequest {
        plan_id: plan_id.into(),
        ..request(nodes)
    };
    let empty = || named("empty", Vec::new());
    let own = || named("own", vec![tool("t", "My.Tool", json!({}))]);
    let world = mesh(&echo, &feedback.url()).start().await;
    let client = stream::open(&world, empty(), &[]).await.expect("opened");
    client.step(model("a", "echo", "x")).await;
    assert!(client.rest().await.1.is_none());
    let mut client = stream::open(&world, own(), &["My.Tool"]).await.expect("opened");
    let asked = client.requested().await;
    client
        .result(&asked.call_id, Some(Outcome::OutputJson("7".into())))
        .await;
    assert!(client.rest().await.1.is_none());
    until("both are stored", || disk.all().len() == 2).await;
    world.stop().await;
    let next = mesh(&echo, &feedback.url()).start().await;
    for (again, client_tools) in [(empty(), &[][..]), (own(), &["My.Tool"][..])] {
        let refused = stream::open(&next, again, client_tools).await.err().expect("taken");
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    }
    assert_eq!(echo.notes.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_which_more_is_stored_than_is_read_back_is_not_run_again() {
    let (disk, echo) = (Arc::new(Disk::default()), echo());
    let feedback = store::start(&disk);
    let named = || v1::ExecutePlanRequest {
        plan_id: "large".into(),
        ..request(vec![model("a", "echo", &"x".repeat(5000))])
    };
    let world = mesh(&echo, &feedback.url()).start().await;
    assert_eq!(world.run(named()).await.state(), State::Succeeded);
    until("it is stored", || disk.of("large").len() == 1).await;
    world.stop().await;
    let next = mesh(&echo, &feedback.url()).stored_bytes(4096).start().await;
    let refused = next.open(named()).await.expect_err("taken");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    let unread = next.record("large").await.expect_err("too large");
    assert_eq!(
        (unread.code(), status::error_reason(&unread).as_deref()),
        (Code::FailedPrecondition, Some("RECORD_TOO_LARGE"))
    );
    assert_eq!(echo.notes.count(), 1);
    // Nothing is stored of another one.
    let other = v1::ExecutePlanRequest {
        plan_id: "other".into(),
        ..named()
    };
    assert_eq!(next.run(other).await.state(), State::Succeeded);
}
