//! A tagger at every door: asked as a generating model is, and answering with what its tables and its templates say.
use crate::{
    doors::collect,
    folders::Copy,
    http::{body, call},
    oip,
    world::{Served, answer, ask, load, until},
};
use serde_json::{Value, json};
use shoal_kit::{deadline, status};
use shoal_proto::{
    oip::{ModelInferRequest, infer_parameter::ParameterChoice},
    v1::{self, prompt::Content},
};
use shoal_specialist::sampling::Sampling;
use std::{sync::atomic::Ordering, time::Duration};
use tonic::Code;

const JAZZ: &str = "Play jazz, by  Miles DAVIS.";
const JAZZ_CALL: &str = r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz", "artist": "Miles DAVIS"}}"#;
const TABLE: &str = "book a table for two in New York";
const TABLE_CALL: &str = r#"{"tool": "BookRestaurant", "arguments": {"party_size": "two", "city": "New York"}}"#;

fn request(task: &str, text: &str) -> v1::GenerateRequest {
    v1::GenerateRequest {
        task: task.into(),
        prompt: Some(v1::Prompt {
            content: Some(Content::Text(text.into())),
        }),
        ..Default::default()
    }
}

pub(crate) async fn generated(served: &Served, request: v1::GenerateRequest) -> v1::GenerateDone {
    let stream = served.client().generate(request).await.expect("accepted").into_inner();
    let (deltas, done) = collect(stream).await.expect("answered");
    assert_eq!(deltas, done.text);
    done
}

/// Natural log of a logit's share: `rest` are the others.
fn log(logit: f64, rest: &[f64]) -> f64 {
    logit - (logit.exp() + rest.iter().map(|l| l.exp()).sum::<f64>()).ln()
}

#[tokio::test]
async fn class_and_spans_are_put_into_the_words_of_each_tasks_template() {
    let specialist = load("tiny_tag", 1);
    let said = async |task: &str, text: &str| answer(&specialist, ask(task, text, Sampling::greedy(1))).await.text;
    for (text, wanted) in [
        (JAZZ, JAZZ_CALL),
        (TABLE, TABLE_CALL),
        // A city is nothing that PlayMusic may have; a word in pieces is one span; a label twice is one argument.
        (
            "play ROCKY and jazz in Oslo",
            r#"{"tool": "PlayMusic", "arguments": {"genre": "ROCKY and jazz"}}"#,
        ),
        // "cafe" surely continues a city: it has one begin before it, and never begins one.
        (
            "book in Café",
            r#"{"tool": "BookRestaurant", "arguments": {"city": "in Café"}}"#,
        ),
        (
            "play \"jazz\"",
            r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz"}}"#,
        ),
        ("", r#"{"tool": "PlayMusic", "arguments": {}}"#),
    ] {
        assert_eq!(said("call", text).await, wanted, "{text:?}");
    }
    assert_eq!(said("steps", JAZZ).await, "1. genre: jazz\n2. artist: Miles DAVIS\n");
    assert_eq!(said("steps", "play").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_one_delta_with_usage_timings_and_a_confidence_that_can_be_worked_out() {
    let served = Served::start("tiny_tag", 1, |_| {}).await;
    let mut stream = served
        .client()
        .generate(request("call", "play jazz by miles davis"))
        .await
        .expect("accepted")
        .into_inner();
    let mut events = Vec::new();
    while let Some(response) = stream.message().await.expect("a message") {
        events.push(response.event.expect("set"));
    }
    let [
        v1::generate_response::Event::Delta(delta),
        v1::generate_response::Event::Done(done),
    ] = &events[..]
    else {
        panic!("a delta and the end: {events:?}")
    };
    assert_eq!((delta, done.model.as_str()), (&done.text, "tiny_tag@1"));
    assert_eq!(done.finish_reason(), v1::generate_done::FinishReason::Stop);
    let usage = done.usage.expect("usage");
    assert_eq!((usage.input_tokens, usage.output_tokens), (7, 0));
    assert!((usage.cost_usd - 7.0 * 0.01 / 1e6).abs() < 1e-15);
    let timings = done.timings.expect("timings");
    assert!(timings.prefill.is_some_and(|d| d.nanos > 0) && timings.tokenize.is_some_and(|d| d.nanos > 0));
    assert_eq!(timings.decode.map(|d| (d.seconds, d.nanos)), Some((0, 0)));

    // The class, then "play", "jazz", "by", "miles", "davis": the tables of shoal_trainer.fixtures.
    let outside = log(4.0, &[0.0; 8]);
    let begins = log(6.0, &[4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let davis = log(6.0, &[5.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let choices = [log(4.0, &[0.0]), outside, begins, outside, begins, davis];
    let confidence = done.confidence.expect("confidence");
    let sum: f64 = choices.iter().sum();
    for (name, is, wanted) in [
        ("sum", confidence.sum_logprob, sum),
        ("mean", confidence.mean_logprob, sum / 6.0),
        ("min", confidence.min_logprob, davis),
        ("margin", confidence.margin, 1.0),
        ("score", confidence.score, 0.9 + sum / 10.0),
    ] {
        assert!((is - wanted).abs() < 1e-6, "{name}: {is}, not {wanted}");
    }
    // The other task's card has no map.
    let plain = generated(&served, request("steps", "play jazz by miles davis")).await;
    assert!((plain.confidence.expect("told").score - (sum / 6.0).exp()).abs() < 1e-6);
    let counters = &served.counters;
    assert_eq!(counters.prompt_tokens.load(Ordering::Relaxed), 14);
    assert_eq!(counters.tokens.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_tells_the_kind_and_the_schema_and_other_calls_are_of_another_kind() {
    let served = Served::start("tiny_tag", 3, |_| {}).await;
    let mut client = served.client();
    let card = client
        .describe(v1::DescribeRequest {})
        .await
        .expect("told")
        .into_inner();
    assert_eq!(
        (card.kind.as_str(), card.context_tokens, card.max_new_tokens, card.slots),
        ("tag", 32, 0, 0)
    );
    let tasks: Vec<_> = card
        .tasks
        .iter()
        .map(|t| {
            (
                t.task.as_str(),
                t.output_schema_json.starts_with('{'),
                t.output_lark.as_str(),
                t.confidence_threshold,
            )
        })
        .collect();
    assert_eq!(tasks, [("call", true, "", 0.5), ("steps", false, "", 0.0)]);
    let texts = vec!["x".to_owned()];
    let (mut classify, mut embed) = (v1::ClassifyRequest::default(), v1::EmbedRequest::default());
    (classify.texts, embed.texts) = (texts.clone(), texts);
    let classified = client.classify(classify).await;
    assert_eq!(classified.expect_err("refused").code(), Code::FailedPrecondition);
    let embedded = client.embed(embed).await;
    assert_eq!(embedded.expect_err("refused").code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn sampling_has_nothing_to_act_on_and_a_form_is_its_own() {
    let served = Served::start("tiny_tag", 1, |_| {}).await;
    let with = |sampling: v1::Sampling| v1::GenerateRequest {
        sampling: Some(sampling),
        ..request("call", JAZZ)
    };
    let bounded = with(v1::Sampling {
        max_tokens: Some(1),
        temperature: Some(1.5),
        seed: Some(7),
        ..Default::default()
    });
    assert_eq!(generated(&served, bounded).await.text, JAZZ_CALL);
    let cut = with(v1::Sampling {
        stop: vec![", \"artist\"".into()],
        ..Default::default()
    });
    assert_eq!(
        generated(&served, cut).await.text,
        r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz""#
    );
    let messages = [("user", TABLE), ("user", JAZZ), ("assistant", TABLE)].map(|(role, content)| v1::Message {
        role: role.into(),
        content: content.into(),
    });
    let conversation = v1::GenerateRequest {
        prompt: Some(v1::Prompt {
            content: Some(Content::Messages(v1::prompt::Messages {
                messages: messages.into(),
            })),
        }),
        ..request("call", "")
    };
    assert_eq!(generated(&served, conversation).await.text, JAZZ_CALL);

    let form = |form| v1::GenerateRequest {
        constraint: Some(v1::Constraint { form: Some(form) }),
        ..request("call", JAZZ)
    };
    let own = served
        .client()
        .describe(v1::DescribeRequest {})
        .await
        .expect("told")
        .into_inner();
    let own = own.tasks[0].output_schema_json.clone();
    for harmless in [v1::constraint::Form::None(true), v1::constraint::Form::JsonSchema(own)] {
        assert_eq!(generated(&served, form(harmless)).await.text, JAZZ_CALL);
    }
    let schema = r#"{"type": "object", "required": ["x"]}"#;
    let json_prompt = v1::GenerateRequest {
        prompt: Some(v1::Prompt {
            content: Some(Content::Json("{}".into())),
        }),
        ..request("call", "")
    };
    let long = with(v1::Sampling {
        stop: vec!["s".into(); 9],
        ..Default::default()
    });
    for (field, request) in [
        ("constraint", form(v1::constraint::Form::JsonSchema(schema.into()))),
        ("constraint", form(v1::constraint::Form::Lark("start: /x/".into()))),
        (
            "prompt.json: a tagger whose card has no [tag.input] reads no object",
            json_prompt,
        ),
        ("prompt", request("call", &"play ".repeat(31))),
        ("prompt", request("call", &"x".repeat(1 << 20))),
        ("sampling.stop", long),
        ("task", request("nobody", "x")),
        ("task", request("", "x")),
    ] {
        let status = served.client().generate(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        assert!(
            status.message().starts_with(&format!("{field}:")),
            "{field}: {}",
            status.message()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_inference_protocol_has_a_text_for_a_text() {
    let served = Served::start("tiny_tag", 1, |_| {}).await;
    // With `max_tokens`, as clients of generating models send it.
    let wire = ModelInferRequest {
        model_name: "call".into(),
        ..oip::request(&[TABLE, JAZZ], false)
    };
    let response = oip::client(&served)
        .model_infer(wire)
        .await
        .expect("infers")
        .into_inner();
    let texts = &response.outputs[0].contents.as_ref().expect("contents").bytes_contents;
    assert_eq!(texts, &[TABLE_CALL.as_bytes().to_vec(), JAZZ_CALL.as_bytes().to_vec()]);
    let whole = |name: &str| response.parameters[name].parameter_choice.clone();
    assert_eq!(whole("output_tokens"), Some(ParameterChoice::Int64Param(0)));
    assert_eq!(whole("input_tokens"), Some(ParameterChoice::Int64Param(10 + 9)));
    assert!(matches!(whole("confidence"), Some(ParameterChoice::DoubleParam(c)) if c > 0.5 && c < 0.9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_completion_is_the_answer_plain_and_streamed() {
    let served = Served::start("tiny_tag", 1, |_| {}).await;
    let chat = |model: &str, more: Value| {
        let mut request = json!({"model": model, "messages": [{"role": "user", "content": JAZZ}], "max_tokens": 16});
        request
            .as_object_mut()
            .expect("a map")
            .extend(more.as_object().expect("a map").clone());
        request.to_string()
    };
    let asked = async |request: String| call(&served, "POST", "/v1/chat/completions", &request).await;
    for more in [
        json!({}),
        json!({"response_format": {"type": "text"}}),
        json!({"response_format": {"type": "json_object"}}),
    ] {
        let (status, plain) = asked(chat("call", more)).await;
        let plain = body(&plain);
        assert_eq!(
            (status, &plain["choices"][0]["message"]["content"]),
            (200, &json!(JAZZ_CALL)),
            "{plain}"
        );
        assert_eq!(plain["choices"][0]["finish_reason"], "stop");
        assert_eq!(
            plain["usage"],
            json!({"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9})
        );
        assert!(
            plain["shoal"]["confidence"]["score"]
                .as_f64()
                .is_some_and(|s| s > 0.5 && s < 0.9)
        );
    }
    let (_, streamed) = asked(chat(
        "call",
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    ))
    .await;
    let events: Vec<&str> = streamed.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
    let (last, chunks) = events.split_last().expect("events");
    let chunks: Vec<Value> = chunks.iter().map(|e| serde_json::from_str(e).expect("JSON")).collect();
    let texts: Vec<&str> = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
        .filter(|t| !t.is_empty())
        .collect();
    assert_eq!((*last, &texts[..]), ("[DONE]", &[JAZZ_CALL][..]));
    assert_eq!(chunks.last().expect("usage")["usage"]["total_tokens"], 9);
    // What would be a promise that nobody keeps is refused.
    let schema = json!({"type": "object", "required": ["x"]});
    for (model, format) in [
        ("steps", json!({"type": "json_object"})),
        (
            "call",
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
        ),
    ] {
        let (status, refused) = asked(chat(model, json!({"response_format": format}))).await;
        assert_eq!(status, 400, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_deadline_and_a_full_queue_end_the_call_and_the_next_is_served() {
    let served = Served::start("tiny_tag", 1, |c| c.queue_tokens = 8).await;
    let client = served.client();
    generated(&served, request("call", JAZZ)).await;
    let mut past = tonic::Request::new(request("call", JAZZ));
    deadline::set(&mut past, Duration::ZERO);
    let code = client.clone().generate(past).await.expect_err("refused").code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    // A run takes less than a millisecond: it takes a crowd to find another's text waiting.
    let mut tries = 0;
    let refused = loop {
        let calls = (0..100).map(async |_| {
            let stream = client.clone().generate(request("call", JAZZ)).await?.into_inner();
            collect(stream).await.map(|(text, _)| assert_eq!(text, JAZZ_CALL))
        });
        let ended = futures::future::join_all(calls).await;
        if let Some(refused) = ended.into_iter().find_map(Result::err) {
            break refused;
        }
        tries += 1;
        assert!(tries < 100, "nobody was refused");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(status::retry_after(&refused).is_some_and(|d| d > Duration::ZERO));
    let counters = &served.counters;
    until("nothing waits", || counters.queue_tokens.load(Ordering::Relaxed) == 0).await;
    assert_eq!(generated(&served, request("call", TABLE)).await.text, TABLE_CALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_have_the_answers_that_each_has_alone() {
    let served = Served::start("tiny_tag", 1, |_| {}).await;
    let texts: Vec<String> = (0..60)
        .map(|i| format!("{JAZZ} {}", "and rocky ".repeat(i % 8)))
        .collect();
    let mut alone = Vec::new();
    for text in &texts {
        alone.push(generated(&served, request("call", text)).await);
    }
    let together = texts.iter().map(|text| generated(&served, request("call", text)));
    for (one, beside) in alone.iter().zip(futures::future::join_all(together).await) {
        assert_eq!((&one.text, one.confidence), (&beside.text, beside.confidence));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fails_for_a_text_alone_is_our_fault_and_told() {
    let copy = Copy::of("tiny_tag");
    copy.write(
        "steps.answer.jinja",
        b"{% if 'boom' in input %}{{ raise_exception('no words for it') }}{% endif %}fine",
    );
    let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
    let stream = served
        .client()
        .generate(request("steps", "boom"))
        .await
        .expect("accepted")
        .into_inner();
    let status = collect(stream).await.expect_err("no answer");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("steps.answer.jinja") && status.message().contains("no words for it"));
    assert_eq!(generated(&served, request("steps", "x")).await.text, "fine");
}
