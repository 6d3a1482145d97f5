//! Classify and embed.
use crate::{
    folders::Copy,
    http,
    world::{Served, load},
};
use shoal_proto::v1;
use shoal_specialist::{
    Error,
    encoder::{Answer, TEXTS},
    engine::queue::Urgency,
    folder::manifest::Kind,
};
use tonic::Code;

#[tokio::test]
async fn a_text_has_the_same_labels_alone_and_in_a_batch_of_longer_ones() {
    let specialist = load("tiny_classifier", 1);
    let encoder = specialist.encoder(Kind::Classify).expect("classifies");
    let texts: Vec<String> = ["play jazz", "book a table for two please, tomorrow at noon", "x"]
        .map(String::from)
        .into();
    let together = encoder
        .encode(&texts, Urgency::default())
        .await
        .expect("encodes")
        .answers;
    for (text, beside) in texts.iter().zip(together) {
        let alone = encoder
            .encode(std::slice::from_ref(text), Urgency::default())
            .await
            .expect("encodes")
            .answers;
        let (Answer::Labels(alone), Answer::Labels(beside)) = (&alone[0], &beside) else {
            panic!("labels")
        };
        for (a, b) in alone.iter().zip(beside) {
            assert!(
                a.0 == b.0 && (a.1 - b.1).abs() < 1e-5,
                "{text:?}: {alone:?} and {beside:?}"
            );
        }
        assert!((alone.iter().map(|l| l.1).sum::<f64>() - 1.0).abs() < 1e-9);
    }
}

#[tokio::test]
async fn vectors_have_the_cards_length_and_do_not_depend_on_the_batch() {
    let specialist = load("tiny_embedder", 1);
    let encoder = specialist.encoder(Kind::Embed).expect("embeds");
    let texts: Vec<String> = [
        "play jazz",
        "a much longer text that pads the other one with many tokens",
    ]
    .map(String::from)
    .into();
    let together = encoder.encode(&texts, Urgency::default()).await.expect("encodes");
    let alone = encoder.encode(&texts[..1], Urgency::default()).await.expect("encodes");
    let (Answer::Vector(beside), Answer::Vector(alone)) = (&together.answers[0], &alone.answers[0]) else {
        panic!("vectors")
    };
    assert_eq!(alone.len(), 32);
    assert!((alone.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4);
    assert!(alone.iter().zip(beside).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[tokio::test]
async fn too_many_texts_none_and_one_too_long_are_refused_by_field() {
    let specialist = load("tiny_embedder", 1);
    let encoder = specialist.encoder(Kind::Embed).expect("embeds");
    let long = ["fine".to_owned(), "word ".repeat(400)];
    for (texts, wanted) in [
        (vec![], "texts"),
        (vec!["x".to_owned(); 65], "texts"),
        (long.to_vec(), "texts[1]"),
    ] {
        match encoder.encode(&texts, Urgency::default()).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{other:?}"),
        }
    }
    let past = std::time::Instant::now();
    assert!(matches!(
        encoder.encode(&["x".to_owned()], Urgency::until(Some(past))).await,
        Err(Error::Expired { .. })
    ));
}

#[tokio::test]
async fn an_encoder_classifies_over_the_wire_and_says_that_it_does_not_generate() {
    let served = Served::start("tiny_classifier", 1, |_| {}).await;
    let mut client = served.client();
    let request = v1::ClassifyRequest {
        texts: vec!["play jazz".into(), "rain?".into()],
        top_k: 2,
        ..Default::default()
    };
    let response = client.classify(request).await.expect("classifies").into_inner();
    assert_eq!(response.model, "tiny_classifier@1");
    assert_eq!(
        response.results.iter().map(|r| r.labels.len()).collect::<Vec<_>>(),
        [2, 2]
    );
    assert!(response.results[0].labels[0].score >= response.results[0].labels[1].score);
    assert!(response.usage.expect("usage").input_tokens > 0);
    // However much may be generated: that is not what is wrong with it.
    for max_tokens in [None, Some(9999)] {
        let refused = client.generate(v1::GenerateRequest {
            prompt: Some(v1::Prompt {
                content: Some(v1::prompt::Content::Text("x".into())),
            }),
            sampling: Some(v1::Sampling {
                max_tokens,
                ..Default::default()
            }),
            ..Default::default()
        });
        assert_eq!(refused.await.expect_err("refused").code(), Code::FailedPrecondition);
    }
    let chat = http::chat(serde_json::json!({"model": "tiny_classifier", "max_tokens": 9999}));
    let (status, said) = http::call(&served, "POST", "/v1/chat/completions", &chat).await;
    assert_eq!(
        (status, &http::body(&said)["error"]["code"]),
        (400, &serde_json::json!("KIND_MISMATCH"))
    );
    let refused = client
        .embed(v1::EmbedRequest {
            texts: vec!["x".into()],
            ..Default::default()
        })
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn many_texts_are_read_as_one_is() {
    let specialist = load("tiny_embedder", 1);
    let encoder = specialist.encoder(Kind::Embed).expect("embeds");
    // 64 texts of 320 bytes: over what is read on the request's own thread.
    let texts = vec![" reserve".repeat(40); TEXTS];
    let whole = encoder.encode(&texts, Urgency::default()).await.expect("encodes");
    let alone = encoder.encode(&texts[..1], Urgency::default()).await.expect("encodes");
    assert_eq!(
        (whole.answers.len(), whole.input_tokens),
        (TEXTS, TEXTS * alone.input_tokens)
    );
}

#[test]
fn a_model_that_does_not_give_what_the_card_says_is_refused_at_load() {
    for (fixture, from, to, wanted) in [
        (
            "tiny_classifier",
            "\"oos\"]",
            "\"oos\", \"more\"]",
            "the card says 5 numbers a text",
        ),
        (
            "tiny_embedder",
            "dimensions = 32",
            "dimensions = 16",
            "the card says 16 numbers a text",
        ),
        (
            "tiny_embedder",
            "context_tokens = 128",
            "context_tokens = 129",
            "does not run on 129 tokens",
        ),
    ] {
        let copy = Copy::of(fixture);
        copy.edit("1/card.toml", from, to);
        let told = copy.load(1).expect_err("refused").to_string();
        assert!(told.contains(wanted), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_makes_the_score_of_a_label_and_puts_an_unsure_one_behind() {
    let plain = Served::start("tiny_classifier", 1, |_| {}).await;
    let ask = |top_k| v1::ClassifyRequest {
        texts: vec!["play jazz".into()],
        top_k,
        ..Default::default()
    };
    let labels = |response: v1::ClassifyResponse| response.results[0].labels.clone();
    let raw = labels(plain.client().classify(ask(4)).await.expect("classifies").into_inner());
    let copy = Copy::of("tiny_classifier");
    let manifest = std::fs::read_to_string(copy.path("specialist.toml")).expect("readable");
    let task = manifest
        .split("tasks = [\"")
        .nth(1)
        .expect("tasks")
        .split('"')
        .next()
        .expect("a task");
    let best = &raw[0].name;
    copy.edit(
        "1/card.toml",
        "[training]",
        &format!(
            "[classify.thresholds]\n{best} = 0.9\n\n[calibration.{task}]\nconfidence_threshold = 0.5\nstatistic = \"sum_logprob\"\nknots = [[-4, 0], [0.0, 0.8]]\n\n[training]"
        ),
    );
    let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
    let calibrated = labels(served.client().classify(ask(4)).await.expect("classifies").into_inner());
    assert_eq!(
        calibrated.last().map(|l| &l.name),
        Some(best),
        "its 0.8 at most is under its threshold"
    );
    assert_eq!(calibrated[0].name, raw[1].name);
    for label in &calibrated {
        let raw = raw.iter().find(|l| l.name == label.name).expect("the same labels");
        let wanted = (0.8 * (1.0 + raw.score.ln() / 4.0)).max(0.0);
        assert!((label.score - wanted).abs() < 1e-6, "{label:?} of {raw:?}");
    }
}
