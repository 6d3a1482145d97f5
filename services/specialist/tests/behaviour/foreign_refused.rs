//! Exports that this engine would decode wrongly, or not at all: each refused by the name of what it wants, before ONNX Runtime is touched.
use crate::{
    folders::{Copy, has},
    graphs::{BRAIN, FLOAT, HALF, INT64, node, port, table, whole},
    hostile::field,
};
use serde_json::{Value, json};
use std::fs;

/// Merges `change` into a JSON file of a fixture's copy, and gives the words of the refusal.
fn changed(name: &str, file: &str, change: &Value) -> String {
    let copy = Copy::of(&format!("foreign/{name}"));
    let text = fs::read_to_string(copy.path(&format!("1/{file}"))).expect("readable");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    merge(&mut json, change);
    copy.write(file, json.to_string().as_bytes());
    copy.refused()
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

#[test]
fn a_genai_configuration_of_more_than_a_decoder_is_refused_by_name() {
    let decoder = |section: Value| json!({"model": {"decoder": section}});
    for (change, wanted) in [
        (
            json!({"model": {"vision": {"filename": "v.onnx"}}}),
            ["section `vision`", "a model of images"],
        ),
        (
            json!({"model": {"speech": {"filename": "s.onnx"}}}),
            ["section `speech`", "a model of sound"],
        ),
        (
            json!({"model": {"embedding": {"filename": "e.onnx"}}}),
            ["section `embedding`", "a graph of their own"],
        ),
        (
            json!({"model": {"encoder": {"filename": "e.onnx"}}}),
            ["section `encoder`", "an encoder-decoder"],
        ),
        (
            decoder(json!({"pipeline": [{"a": {}}]})),
            ["`pipeline`", "export it as one"],
        ),
        (
            decoder(json!({"sliding_window": {"window_size": 64, "layers": [0]}})),
            ["sliding window of 64", "lower [limits] context_tokens to 64"],
        ),
        (
            json!({"search": {"num_beams": 4}}),
            ["num_beams is 4", "beam search is not supported"],
        ),
    ] {
        has(&changed("llama_fp32", "genai_config.json", &change), &wanted);
    }
    // A window that the card's context never fills is none.
    let wide = decoder(json!({"sliding_window": {"window_size": 256}}));
    has(
        &changed("llama_fp32", "genai_config.json", &wide),
        &["ONNX Runtime at /nonexistent"],
    );
}

#[test]
fn an_optimum_configuration_of_another_kind_of_model_is_refused_by_name() {
    for (change, wanted) in [
        (
            json!({"is_encoder_decoder": true}),
            ["is_encoder_decoder", "not supported"],
        ),
        (
            json!({"vision_config": {}}),
            ["section `vision_config`", "language model alone"],
        ),
        (
            json!({"sliding_window": 100}),
            ["sliding window of 100", "context_tokens to 100"],
        ),
        (
            json!({"max_position_embeddings": 128}),
            ["knows 128 positions", "lower [limits]"],
        ),
        (
            json!({"max_position_embeddings": null}),
            ["n_positions", "export the model again"],
        ),
        (json!({"num_attention_heads": 3}), ["3 attention heads", "cannot share"]),
        (
            json!({"vocab_size": 150}),
            ["config.json says vocab_size 150", "logits have shape"],
        ),
        (
            json!({"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 64}}),
            ["`longrope` changes after 64", "context_tokens to 64"],
        ),
        (
            json!({"rope_scaling": {"rope_type": null, "type": "dynamic", "original_max_position_embeddings": null}, "original_max_position_embeddings": 32}),
            ["`dynamic` changes after 32", "context_tokens to 32"],
        ),
    ] {
        has(&changed("optimum_llama", "config.json", &change), &wanted);
    }
    for (change, wanted) in [
        (json!({"num_beams": 2}), "num_beams is 2"),
        (json!({"eos_token_id": []}), "eos_token_id []"),
        (json!({"eos_token_id": [0, 500]}), "eos_token_id [0, 500]"),
    ] {
        has(&changed("optimum_llama", "generation_config.json", &change), &[wanted]);
    }
    // Off is off, and what the graph has as it was traced is right for as long as the card allows.
    for change in [
        json!({"sliding_window": 100, "use_sliding_window": false}),
        json!({"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 256}}),
    ] {
        has(
            &changed("optimum_llama", "config.json", &change),
            &["ONNX Runtime at /nonexistent"],
        );
    }
}

#[test]
fn optimum_exports_in_several_files_are_refused_by_the_files_name() {
    for (file, wanted) in [
        ("decoder_model_merged.onnx", "a merged decoder"),
        ("decoder_with_past_model.onnx", "a decoder in two files"),
        ("encoder_model.onnx", "an encoder-decoder"),
    ] {
        let copy = Copy::of("foreign/optimum_llama");
        copy.write(file, b"");
        has(&copy.refused(), &[file, wanted, "--task text-generation-with-past"]);
    }
    let copy = Copy::of("foreign/optimum_llama");
    copy.edit(
        "1/card.toml",
        "\"generation_config.json\" =",
        "\"chat_template.jinja\" =",
    );
    assert!(!copy.refused().contains("/nonexistent"));
}

/// A graph of one layer, with `more` beside what every decoder has.
fn graph(key: u8, value: u8, logits: u8, more: &[Vec<u8>]) -> Vec<u8> {
    let cache = [0, 2, 0, 16];
    let ports = [
        port(11, "input_ids", INT64, &[0, 0]),
        port(11, "attention_mask", INT64, &[0, 0]),
        port(11, "past_key_values.0.key", key, &cache),
        port(11, "past_key_values.0.value", value, &cache),
        port(12, "present.0.key", key, &cache),
        port(12, "present.0.value", value, &cache),
        port(12, "logits", logits, &[0, 0, 144]),
    ];
    field(7, &[ports.concat(), more.concat()].concat())
}

fn refused(model: &[u8]) -> String {
    let copy = Copy::of("foreign/optimum_llama");
    copy.write("model.onnx", model);
    copy.refused()
}

#[test]
fn inputs_and_outputs_that_are_not_bound_are_refused_by_name() {
    // What follows differs from this in one thing.
    has(
        &refused(&graph(FLOAT, FLOAT, FLOAT, &[])),
        &["ONNX Runtime at /nonexistent"],
    );
    for (input, why) in [
        ("use_cache_branch", "a merged decoder"),
        ("encoder_hidden_states", "an encoder-decoder"),
        ("pixel_values", "images or sound"),
        ("audio_embeds", "images or sound"),
        ("inputs_embeds", "embeddings are a graph of their own"),
        ("layers.0.q_proj.lora_A", "merge it into the weights"),
        ("beam_idx", "beam search"),
        ("block_table", "paged attention"),
        ("past.0.conv", "not keys and values"),
        ("token_type_ids", "inputs that this engine does not know"),
    ] {
        let words = refused(&graph(FLOAT, FLOAT, FLOAT, &[port(11, input, INT64, &[0])]));
        has(&words, &[&format!("`{input}`"), why]);
    }
    for output in ["present.0.recurrent", "cross_attention"] {
        let words = refused(&graph(FLOAT, FLOAT, FLOAT, &[port(12, output, FLOAT, &[0])]));
        has(
            &words,
            &["outputs that this engine does not know", &format!("`{output}`")],
        );
    }
    let hidden = graph(FLOAT, FLOAT, FLOAT, &[port(12, "hidden_states.1", FLOAT, &[0, 0, 64])]);
    has(&refused(&hidden), &["ONNX Runtime at /nonexistent"]);
    // A weight that an old file lists among its inputs is none.
    let weight = [port(11, "w", FLOAT, &[4]), field(5, &field(8, b"w"))];
    has(
        &refused(&graph(FLOAT, FLOAT, FLOAT, &weight)),
        &["ONNX Runtime at /nonexistent"],
    );
}

#[test]
fn numbers_that_are_not_bound_are_refused_by_name() {
    has(
        &refused(&graph(HALF, HALF, HALF, &[])),
        &["ONNX Runtime at /nonexistent"],
    );
    has(
        &refused(&graph(BRAIN, BRAIN, BRAIN, &[])),
        &["`logits` is bfloat16", "float32 or float16", "`-p fp32`"],
    );
    has(
        &refused(&graph(HALF, HALF, FLOAT, &[])),
        &["`past_key_values.0.key` is float16 and `logits` float32", "of one type"],
    );
    has(
        &refused(&graph(FLOAT, 3, FLOAT, &[])),
        &["`past_key_values.0.value` is int8"],
    );
}

#[test]
fn a_graph_whose_answers_would_depend_on_what_decodes_beside_them_is_refused_by_name() {
    for operator in ["DynamicQuantizeLinear", "DynamicQuantizeMatMul"] {
        let words = refused(&graph(FLOAT, FLOAT, FLOAT, &[node(operator, &["x"], &["y"], &[])]));
        has(&words, &["quantised dynamically", "`-p int4`"]);
    }
}

#[test]
fn a_second_table_of_rotary_positions_is_refused_from_where_it_begins() {
    let two = |first: i64| {
        let choice = [
            node("Greater", &["length", "first"], &["long"], &[]),
            node("If", &["long"], &["cos_cache", "sin_cache"], &[]),
            whole("first", &[], &[first]),
        ];
        refused(&graph(FLOAT, FLOAT, FLOAT, &choice))
    };
    // The card allows 256 tokens.
    has(&two(64), &["`longrope`", "after 64 positions", "context_tokens to 64"]);
    has(&two(255), &["context_tokens to 255"]);
    has(&two(256), &["ONNX Runtime at /nonexistent"]);
    // A file that does not say where is one of 4,096 positions.
    let copy = Copy::of("foreign/optimum_llama");
    copy.write(
        "model.onnx",
        &graph(
            FLOAT,
            FLOAT,
            FLOAT,
            &[node("If", &["long"], &["cos_cache", "sin_cache"], &[])],
        ),
    );
    has(&copy.refused(), &["ONNX Runtime at /nonexistent"]);
    let config = fs::read_to_string(copy.path("1/config.json")).expect("readable");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    merge(&mut config, &json!({"max_position_embeddings": 8192}));
    copy.write("config.json", config.to_string().as_bytes());
    copy.edit("1/card.toml", "context_tokens = 256", "context_tokens = 4097");
    has(&copy.refused(), &["`longrope`", "context_tokens to 4096"]);
    // Both in one, the second behind the first, as the builder writes it for DirectML.
    let behind = |rows: u64| {
        let cache = table("cos_cache", rows, 1, |_, _| 1.0);
        copy.write("model.onnx", &graph(FLOAT, FLOAT, FLOAT, &[cache]));
        copy.refused()
    };
    has(&behind(8192 + 4096), &["`longrope`", "context_tokens to 4096"]);
    has(&behind(8192), &["ONNX Runtime at /nonexistent"]);
}
