//! Encoders as other exporters write them, each a graph of a few nodes with what is particular to its kind.
use crate::{
    folders::{Copy, has},
    graphs::{FLOAT, INT64, model, node, port, table, whole},
    hostile::field,
    world::{answer, ask, fixture},
};
use serde_json::json;
use shoal_specialist::{
    encoder::{Answer, Encoder},
    engine::queue::Urgency,
    folder::manifest::Kind,
    sampling::Sampling,
};
use std::fs;

/// Tokens of the fixtures' vocabulary, and labels of the classifier.
const VOCABULARY: u64 = 334;
const LABELS: u64 = 4;

/// The token `<|output|>`, which no text has.
const PAD: i64 = 3;

fn texts() -> Vec<String> {
    ["play jazz", "book a table for two please, tomorrow at noon", "x"]
        .map(String::from)
        .into()
}

/// What is said of each text beside the others, and alone.
async fn both_ways(encoder: &Encoder) -> (Vec<Answer>, Vec<Answer>) {
    let texts = texts();
    let together = encoder.encode(&texts, Urgency::default()).await.expect("encodes");
    let mut alone = Vec::new();
    for text in &texts {
        let one = std::slice::from_ref(text);
        alone.extend(encoder.encode(one, Urgency::default()).await.expect("encodes").answers);
    }
    (together.answers, alone)
}

/// A classifier of a decoder's shape: it looks for the last token that is not its padding, and attention_mask is nothing to it.
fn last_token() -> Copy {
    let copy = Copy::of("tiny_classifier");
    let ids = |at, name| port(at, name, INT64, &[0, 0]);
    let parts = [
        node("Equal", &["input_ids", "pad"], &["is_pad"], &[]),
        node("Not", &["is_pad"], &["is_text"], &[]),
        node("Cast", &["is_text"], &["ones"], &[("to", u64::from(INT64))]),
        node("ReduceSum", &["ones", "one"], &["count"], &[("keepdims", 1)]),
        node("Sub", &["count", "one"], &["at"], &[]),
        node("GatherElements", &["input_ids", "at"], &["last"], &[("axis", 1)]),
        node("Gather", &["table", "last"], &["said"], &[]),
        node("Squeeze", &["said", "one"], &["logits"], &[]),
        whole("pad", &[], &[PAD]),
        whole("one", &[1], &[1]),
        table("table", VOCABULARY, LABELS, |id, label| {
            ((id * 7 + label * 3) % 11) as f32
        }),
        ids(11, "input_ids"),
        ids(11, "attention_mask"),
        port(12, "logits", FLOAT, &[0, LABELS as u8]),
    ];
    copy.write("model.onnx", &model(&parts));
    copy
}

#[tokio::test]
async fn a_classifier_that_looks_for_padding_is_given_its_own_or_refused() {
    let copy = last_token();
    let refused = copy.load(1).expect_err("filled up with token 0").to_string();
    has(
        &refused,
        &["model.onnx of tiny_classifier@1", "beside a longer one", "pad_token"],
    );
    for pad in [json!("<|output|>"), json!({"content": "<|output|>", "lstrip": false})] {
        copy.write(
            "tokenizer_config.json",
            json!({"pad_token": pad}).to_string().as_bytes(),
        );
        let specialist = copy.load(1).expect("it is told apart from text");
        let (together, alone) = both_ways(specialist.encoder(Kind::Classify).expect("classifies")).await;
        assert_eq!(together, alone);
    }
    // What the tokenizer itself says comes first.
    let text = fs::read_to_string(copy.path("1/tokenizer.json")).expect("readable");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    tokenizer["padding"] = json!({"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|end|>"});
    copy.write("tokenizer.json", tokenizer.to_string().as_bytes());
    has(
        &copy.load(1).expect_err("token 0 again").to_string(),
        &["beside a longer one"],
    );
}

#[tokio::test]
async fn a_dynamically_quantised_classifier_runs_each_text_alone() {
    let copy = Copy::of("tiny_classifier");
    // Every fifth token, that of padding too, is a hundred times what the others are: where one runs, those are rounded to tens.
    let parts = [
        node("Gather", &["table", "input_ids"], &["x"], &[]),
        node("DynamicQuantizeLinear", &["x"], &["small", "scale", "zero"], &[]),
        node("DequantizeLinear", &["small", "scale", "zero"], &["y"], &[]),
        node("Cast", &["attention_mask"], &["mask"], &[("to", u64::from(FLOAT))]),
        node("Unsqueeze", &["mask", "two"], &["weights"], &[]),
        node("Mul", &["y", "weights"], &["weighed"], &[]),
        node("ReduceSum", &["weighed", "one"], &["logits"], &[("keepdims", 0)]),
        whole("one", &[1], &[1]),
        whole("two", &[1], &[2]),
        table("table", VOCABULARY, LABELS, |id, label| {
            let value = ((id * 7 + label * 3) % 11) as f32;
            if id % 5 == 0 { value * 100.0 } else { value }
        }),
        port(11, "input_ids", INT64, &[0, 0]),
        port(11, "attention_mask", INT64, &[0, 0]),
        port(12, "logits", FLOAT, &[0, LABELS as u8]),
    ];
    copy.write("model.onnx", &model(&parts));
    let specialist = copy.load(1).expect("loads");
    let (together, alone) = both_ways(specialist.encoder(Kind::Classify).expect("classifies")).await;
    assert_eq!(together, alone);
}

#[tokio::test]
async fn an_embedder_that_is_told_positions_has_them_for_each_row() {
    let copy = Copy::of("tiny_embedder");
    let parts = [
        node("Cast", &["input_ids"], &["id"], &[("to", u64::from(FLOAT))]),
        node("Cast", &["position_ids"], &["place"], &[("to", u64::from(FLOAT))]),
        node("Unsqueeze", &["id", "two"], &["ids"], &[]),
        node("Unsqueeze", &["place", "two"], &["places"], &[]),
        node("Concat", &["ids", "places"], &["last_hidden_state"], &[("axis", 2)]),
        whole("two", &[1], &[2]),
        port(11, "input_ids", INT64, &[0, 0]),
        port(11, "attention_mask", INT64, &[0, 0]),
        port(11, "position_ids", INT64, &[0, 0]),
        port(12, "last_hidden_state", FLOAT, &[0, 0, 2]),
    ];
    copy.write("model.onnx", &model(&parts));
    copy.edit("1/card.toml", "pooling = \"mean\"", "pooling = \"last\"");
    copy.edit("1/card.toml", "normalise = true", "normalise = false");
    copy.edit("1/card.toml", "dimensions = 32", "dimensions = 2");
    let specialist = copy.load(1).expect("loads");
    let encoder = specialist.encoder(Kind::Embed).expect("embeds");
    let (together, alone) = both_ways(encoder).await;
    assert_eq!(together, alone);
    let mut places = Vec::new();
    let mut lengths = Vec::new();
    for (text, answer) in texts().iter().zip(&alone) {
        let Answer::Vector(vector) = answer else {
            panic!("a vector")
        };
        places.push(vector[1]);
        let one = encoder.encode(std::slice::from_ref(text), Urgency::default()).await;
        lengths.push(one.expect("encodes").input_tokens as f32 - 1.0);
    }
    assert_eq!(places, lengths, "the last token's");
}

/// The tagger whose output is called as optimum calls it.
fn plain_tagger() -> Copy {
    let copy = Copy::of("tiny_tag");
    let mut graph = fs::read(fixture("tiny_tag/1/model.onnx")).expect("readable");
    let name = b"tag_logits";
    let found: Vec<usize> = (0..graph.len()).filter(|at| graph[*at..].starts_with(name)).collect();
    assert_eq!(found.len(), 2, "a node's output and the graph's");
    found.iter().for_each(|at| graph[*at..*at + 3].copy_from_slice(b"its"));
    // A second part of a message is joined to the first.
    let more = [
        node("Identity", &["its_logits"], &["logits"], &[]),
        port(12, "logits", FLOAT, &[0, 0, 9]),
    ];
    graph.extend(field(7, &more.concat()));
    copy.write("model.onnx", &graph);
    copy
}

#[tokio::test]
async fn a_tagger_may_call_its_output_logits() {
    let specialist = plain_tagger().load(1).expect("loads");
    let done = answer(
        &specialist,
        ask("call", "Play jazz, by  Miles DAVIS.", Sampling::greedy(1)),
    )
    .await;
    let wanted = r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz", "artist": "Miles DAVIS"}}"#;
    assert_eq!(done.text, wanted);
}

#[test]
fn a_card_allows_an_encoder_no_more_tokens_than_its_configuration_has_positions() {
    // The fixture's card allows 128.
    for (config, wanted) in [
        (json!({"max_position_embeddings": 127}), "the model knows 127 positions"),
        (json!({"n_positions": 100}), "the model knows 100 positions"),
        (
            json!({"model_type": "xlm-roberta", "max_position_embeddings": 129, "pad_token_id": 1}),
            "the model knows 127 positions",
        ),
        (json!({"max_position_embeddings": 128}), "ONNX Runtime at /nonexistent"),
        (
            json!({"model_type": "roberta", "max_position_embeddings": 130, "pad_token_id": 1}),
            "ONNX Runtime at /nonexistent",
        ),
        (json!({"model_type": "t5"}), "ONNX Runtime at /nonexistent"),
    ] {
        let copy = Copy::of("tiny_embedder");
        copy.write("config.json", config.to_string().as_bytes());
        has(&copy.refused(), &[wanted]);
    }
}
