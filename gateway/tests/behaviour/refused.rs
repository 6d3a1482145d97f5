//! Bad input over the wire: a specific error, at once, and the gateway goes on.
use crate::support::{
    model::{Model, say},
    plan::{model, plan_text, request},
    world::{Mesh, World},
};
use shoal_kit::status;
use shoal_proto::v1;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_types::StatusExt as _;

async fn world() -> World {
    let echo = Model::new("echo", "echo", |_, _| say("ok")).start();
    let mesh = Mesh::new()
        .specialist("echo", &echo.server.url())
        .task("echo", &["echo"]);
    // It goes before anybody is asked: these plans are refused, or only opened.
    mesh.start().await
}

fn fields(status: &Status) -> Vec<String> {
    let told = status.get_details_bad_request().expect("details").field_violations;
    told.into_iter().map(|v| v.field).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_breach_of_a_plan_reaches_its_sender_with_its_field() {
    let world = world().await;
    let mut future = model("b", "echo", "x");
    future.on_failure = Some(v1::FailurePolicy {
        action: 99,
        ..v1::FailurePolicy::default()
    });
    let refused = world
        .refused(request(vec![model("a", "nobody", "${ghost}"), future]))
        .await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        fields(&refused),
        [
            "plan.nodes[0].model.task",
            "plan.nodes[1].on_failure.action",
            "plan.nodes[0].model.input"
        ]
    );
    assert_eq!(status::error_reason(&refused).as_deref(), Some("INVALID_REQUEST"));
    for (bad, says) in [
        (request(Vec::new()), "at least one node"),
        (
            request(vec![model("a", "echo", "${b}"), model("b", "echo", "${a}")]),
            "cycle",
        ),
        (
            request((0..10_000).map(|i| model(&format!("n{i}"), "echo", "x")).collect()),
            "10000 nodes",
        ),
        (plan_text("1. echo(x=\"y\"\n2. nonsense"), "line 1, column"),
        (
            request(vec![model("a", "echo", &"x".repeat(2 << 20))]),
            "max_input_bytes",
        ),
        (v1::ExecutePlanRequest::default(), "plan_text and goal"),
    ] {
        let refused = world.refused(bad).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{says}: {refused:?}");
        assert!(refused.message().contains(says), "{says}: {refused:?}");
    }
    assert!(
        world.open(request(vec![model("a", "echo", "x")])).await.is_ok(),
        "it goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_are_refused_unread() {
    let world = world().await;
    let refused = world
        .refused(request(vec![model("a", "echo", &"x".repeat(100 << 20))]))
        .await;
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("too large"), "{refused:?}");
    assert_eq!(fields(&refused), ["message"]);
    assert!(
        world.open(request(vec![model("a", "echo", "x")])).await.is_ok(),
        "it goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_entries_of_a_list_are_refused_in_few_words() {
    let world = world().await;
    let mut node = model("a", "echo", "x");
    node.after = vec![String::new(); 1_000_000];
    let refused = world.refused(request(vec![node])).await;
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!((1..=17).contains(&fields(&refused).len()), "{refused:?}");
    assert!(refused.message().contains("max_input_bytes"), "{refused:?}");
    // More than some twice of that is not read.
    let refused = world
        .refused(request(vec![model("a", "echo", &"x".repeat(4 << 20))]))
        .await;
    assert_eq!(fields(&refused), ["message"]);
}

/// Sends bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(from);
        let bytes = bytes::Buf::copy_to_bytes(from, length);
        Ok(Some(bytes.to_vec()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf8_and_bytes_that_are_no_message_are_the_senders_to_mend() {
    let world = world().await;
    // plan_text, of two bytes that no text has; and a length that lies.
    for bytes in [vec![0x12, 0x02, 0xff, 0xfe], vec![0x0a, 0xff, 0x01]] {
        let mut grpc = Grpc::new(world.channel.clone());
        grpc.ready().await.expect("ready");
        let path = "/shoal.v1.PlanService/ExecutePlan".parse().expect("path");
        let answer = grpc.server_streaming(Request::new(bytes.clone()), path, Raw).await;
        let refused = answer.map(drop).expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{bytes:?}: {refused:?}");
        assert_eq!(fields(&refused), ["message"]);
        // The same on a stream, whose first message it is.
        let mut grpc = Grpc::new(world.channel.clone());
        grpc.ready().await.expect("ready");
        let path = "/shoal.v1.PlanService/ExecutePlanStream".parse().expect("path");
        let stream = Request::new(futures::stream::iter([vec![0x0a, 0x04, 0x0a, 0x02, 0x12, 0xff]]));
        let refused = grpc.streaming(stream, path, Raw).await.map(drop).expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
}
