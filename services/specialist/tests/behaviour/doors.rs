//! shoal.v1.SpecialistService over the wire.
use crate::{stub::until, world::Served};
use shoal_kit::{deadline, status};
use shoal_proto::v1::{self, generate_response::Event, prompt::Content};
use std::time::{Duration, Instant};
use tonic::{Code, Status, Streaming};

fn ask(text: &str) -> v1::GenerateRequest {
    let prompt = v1::Prompt {
        content: Some(Content::Text(text.into())),
    };
    v1::GenerateRequest {
        task: "echo".into(),
        prompt: Some(prompt),
        ..Default::default()
    }
}

async fn collect(mut stream: Streaming<v1::GenerateResponse>) -> Result<(String, v1::GenerateDone), Status> {
    let mut text = String::new();
    while let Some(response) = stream.message().await? {
        match response.event.expect("set") {
            Event::Delta(delta) => text.push_str(&delta),
            Event::Done(done) => {
                assert!(stream.message().await?.is_none(), "nothing after the end");
                return Ok((text, done));
            }
        }
    }
    panic!("the stream ended without an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_streams_whole_text_with_usage_timings_and_confidence() {
    let served = Served::start("tiny_decoder", 4, |_| {}).await;
    let mut client = served.client();
    let (text, done) = collect(
        client
            .generate(ask("hello world"))
            .await
            .expect("accepted")
            .into_inner(),
    )
    .await
    .expect("answered");
    assert_eq!(text, done.text);
    assert_eq!(done.model, "tiny_decoder@1");
    assert_eq!(done.finish_reason(), v1::generate_done::FinishReason::Length);
    let usage = done.usage.expect("usage");
    assert_eq!((usage.input_tokens, usage.output_tokens), (16, 64));
    assert!((usage.cost_usd - (16.0 * 0.01 + 64.0 * 0.02) / 1e6).abs() < 1e-12);
    let confidence = done.confidence.expect("confidence");
    assert!(
        (confidence.score - confidence.mean_logprob.exp()).abs() < 1e-12
            && confidence.min_logprob <= confidence.mean_logprob
    );
    let timings = done.timings.expect("timings");
    assert!(
        timings.tokenize.is_some() && timings.queue.is_some() && timings.prefill.is_some() && timings.decode.is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_is_the_card() {
    let served = Served::start("tiny_decoder", 3, |_| {}).await;
    let card = served
        .client()
        .describe(v1::DescribeRequest {})
        .await
        .expect("described")
        .into_inner();
    assert_eq!(
        (card.name.as_str(), card.version, card.kind.as_str()),
        ("tiny_decoder", 1, "generate")
    );
    assert_eq!(
        (
            card.context_tokens,
            card.max_new_tokens,
            card.slots,
            card.provider.as_str()
        ),
        (256, 64, 3, "cpu")
    );
    assert!(card.resident_bytes > 1 << 20);
    let tasks: Vec<_> = card
        .tasks
        .iter()
        .map(|t| (t.task.as_str(), t.output_schema_json.is_empty(), t.confidence_threshold))
        .collect();
    assert_eq!(tasks, [("echo", true, 0.0), ("call", false, 0.5)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_told_by_field() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let mut client = served.client();
    let prompt = |content| Some(v1::Prompt { content: Some(content) });
    let sampling = |s| v1::GenerateRequest {
        sampling: Some(s),
        ..ask("x")
    };
    let lark = v1::Constraint {
        form: Some(v1::constraint::Form::Lark("start: nothing".into())),
    };
    let cases = [
        (
            "task",
            v1::GenerateRequest {
                task: "unheard of".into(),
                ..ask("x")
            },
        ),
        (
            "task",
            v1::GenerateRequest {
                task: String::new(),
                ..ask("x")
            },
        ),
        (
            "prompt",
            v1::GenerateRequest {
                prompt: None,
                ..ask("x")
            },
        ),
        (
            "prompt.json",
            v1::GenerateRequest {
                prompt: prompt(Content::Json("[1]".into())),
                ..ask("x")
            },
        ),
        (
            "prompt.json",
            v1::GenerateRequest {
                prompt: prompt(Content::Json("{".into())),
                ..ask("x")
            },
        ),
        (
            "prompt.messages",
            v1::GenerateRequest {
                prompt: prompt(Content::Messages(v1::prompt::Messages::default())),
                ..ask("x")
            },
        ),
        ("prompt", ask(&"long ".repeat(200))),
        ("prompt", ask(&"x".repeat(10 << 20))),
        (
            "priority",
            v1::GenerateRequest {
                priority: 77,
                ..ask("x")
            },
        ),
        (
            "sampling.max_tokens",
            sampling(v1::Sampling {
                max_tokens: Some(65),
                ..Default::default()
            }),
        ),
        (
            "sampling.temperature",
            sampling(v1::Sampling {
                temperature: Some(9.0),
                ..Default::default()
            }),
        ),
        (
            "sampling.stop",
            sampling(v1::Sampling {
                stop: vec!["s".into(); 9],
                ..Default::default()
            }),
        ),
        (
            "constraint",
            v1::GenerateRequest {
                constraint: Some(lark),
                ..ask("x")
            },
        ),
        (
            "constraint",
            v1::GenerateRequest {
                constraint: Some(v1::Constraint { form: None }),
                ..ask("x")
            },
        ),
    ];
    for (field, request) in cases {
        let status = client.generate(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        assert!(
            status.message().starts_with(&format!("{field}:")),
            "{field}: {}",
            status.message()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_a_malformed_and_a_short_deadline_end_the_call() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let mut client = served.client();
    collect(client.generate(ask("up?")).await.expect("accepted").into_inner())
        .await
        .expect("answered");
    let mut past = tonic::Request::new(ask("x"));
    deadline::set(&mut past, Duration::ZERO);
    // tonic's own timer may be first where nothing was decoded yet, and calls that CANCELLED.
    let code = client.generate(past).await.expect_err("refused").code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    let mut malformed = tonic::Request::new(ask("x"));
    malformed
        .metadata_mut()
        .insert("grpc-timeout", "soon".parse().expect("ascii"));
    let status = client.generate(malformed).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    // One slot and sixty answers of 64 tokens: most cannot be done in 30 ms, and none may take much longer than that.
    let short = Duration::from_millis(30);
    let calls = (0..60).map(async |i| {
        let (mut client, started) = (client.clone(), Instant::now());
        let mut request = tonic::Request::new(ask(&format!("prompt {i}")));
        deadline::set(&mut request, short);
        let ended = match client.generate(request).await {
            Ok(response) => collect(response.into_inner()).await.map(|_| ()),
            Err(status) => Err(status),
        };
        (ended, started.elapsed())
    });
    let ended = futures::future::join_all(calls).await;
    let expired: Vec<_> = ended
        .iter()
        .filter_map(|(e, took)| e.as_ref().err().map(|s| (s, *took)))
        .collect();
    assert!(expired.len() > 10, "only {} of 60 expired", expired.len());
    for (status, took) in expired {
        let tonics_own = status.code() == Code::Cancelled && status.message().contains("Timeout expired");
        assert!(tonics_own || status.code() == Code::DeadlineExceeded, "{status:?}");
        assert!(took < short + Duration::from_millis(1500), "{took:?}");
    }
    collect(
        client
            .generate(ask("still there?"))
            .await
            .expect("accepted")
            .into_inner(),
    )
    .await
    .expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_back() {
    let served = Served::start("tiny_decoder", 1, |c| c.queue_tokens = 40).await;
    let client = served.client();
    let calls = (0..30).map(
        async |i| match client.clone().generate(ask(&format!("prompt {i}"))).await {
            Ok(response) => collect(response.into_inner()).await.map(|_| ()),
            Err(status) => Err(status),
        },
    );
    let ended = futures::future::join_all(calls).await;
    let refused: Vec<_> = ended.iter().filter_map(|e| e.as_ref().err()).collect();
    assert!(
        !refused.is_empty() && refused.len() < 30,
        "{} of 30 refused",
        refused.len()
    );
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status::retry_after(status).is_some_and(|d| d > Duration::ZERO));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_call_frees_the_slot_for_the_next() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let mut client = served.client();
    for i in 0..20 {
        let mut stream = client
            .generate(ask(&format!("prompt {i}")))
            .await
            .expect("accepted")
            .into_inner();
        stream.message().await.expect("a delta");
    }
    let started = Instant::now();
    collect(client.generate(ask("last")).await.expect("accepted").into_inner())
        .await
        .expect("answered");
    assert!(started.elapsed() < Duration::from_secs(10));
    until("nothing is left", || true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_prompt_reaches_the_template_as_a_mapping() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let json = r#"{"methods": {"Rides_1": {"GetRide": ["destination", "seats"]}}, "turns": ["a cab please"]}"#;
    let request = v1::GenerateRequest {
        prompt: Some(v1::Prompt {
            content: Some(Content::Json(json.into())),
        }),
        ..ask("")
    };
    let (_, done) = collect(served.client().generate(request).await.expect("accepted").into_inner())
        .await
        .expect("answered");
    assert!(done.usage.expect("usage").input_tokens > 20);
}
