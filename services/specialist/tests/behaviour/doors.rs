//! shoal.v1.SpecialistService over the wire.
use crate::{folders::Copy, world::Served};
use shoal_proto::v1::{self, generate_response::Event, prompt::Content};
use std::time::{Duration, Instant};
use tonic::{Code, Status, Streaming};

pub(crate) fn ask(text: &str) -> v1::GenerateRequest {
    let prompt = v1::Prompt {
        content: Some(Content::Text(text.into())),
    };
    v1::GenerateRequest {
        task: "echo".into(),
        prompt: Some(prompt),
        ..Default::default()
    }
}

pub(crate) async fn collect(mut stream: Streaming<v1::GenerateResponse>) -> Result<(String, v1::GenerateDone), Status> {
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
    let started = Instant::now();
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
    assert!((confidence.sum_logprob - 64.0 * confidence.mean_logprob).abs() < 1e-9);
    let timings = done.timings.expect("timings");
    let parts = [timings.tokenize, timings.queue, timings.prefill, timings.decode].map(|part| {
        let part = part.expect("told");
        Duration::new(part.seconds as u64, part.nanos as u32)
    });
    let (sum, elapsed) = (parts.iter().sum::<Duration>(), started.elapsed());
    assert!(sum <= elapsed && parts[3] > parts[0], "{parts:?} in {elapsed:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_card_with_knots_makes_the_score_and_tells_its_schema_and_not_its_template() {
    let copy = Copy::of("tiny_decoder");
    copy.write("call.lark.jinja", b"start: {{ messages[-1].content | tojson }}");
    copy.write("echo.lark", b"start: /[a-z]{3}/");
    copy.edit(
        "1/card.toml",
        "schema = \"output.schema.json\"",
        "schema = \"output.schema.json\"\ngrammar = \"call.lark.jinja\"\n\n[output.echo]\ngrammar = \"echo.lark\"",
    );
    copy.edit(
        "1/card.toml",
        "confidence_threshold = 0.5",
        "confidence_threshold = 0.5\nstatistic = \"sum_logprob\"\nknots = [[-1000, 0.25], [0, 0.75]]\nexpected_calibration_error = 0.03\ncoverage = 1\naccuracy_kept = 0.9",
    );
    let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
    let request = v1::GenerateRequest {
        task: "call".into(),
        ..ask("say this")
    };
    let (text, done) = collect(served.client().generate(request).await.expect("accepted").into_inner())
        .await
        .expect("answered");
    assert_eq!(text, "say this");
    let confidence = done.confidence.expect("told");
    let wanted = 0.75 + confidence.sum_logprob / 2000.0;
    assert!(
        confidence.sum_logprob < -10.0 && (confidence.score - wanted).abs() < 1e-9,
        "{confidence:?}"
    );
    let (_, done) = collect(served.client().generate(ask("x")).await.expect("accepted").into_inner())
        .await
        .expect("answered");
    let plain = done.confidence.expect("told");
    assert!(
        (plain.score - plain.mean_logprob.exp()).abs() < 1e-12,
        "echo has no map"
    );

    let card = served
        .client()
        .describe(v1::DescribeRequest {})
        .await
        .expect("told")
        .into_inner();
    let [echo, call] = &card.tasks[..] else {
        panic!("two tasks")
    };
    assert_eq!(
        (echo.output_schema_json.as_str(), echo.output_lark.as_str()),
        ("", "start: /[a-z]{3}/")
    );
    assert!(call.output_schema_json.starts_with('{') && call.output_lark.is_empty());
}
