//! Exports that no card is drafted of: each is refused by name, before anything of it is copied.
use crate::{
    drafts::Export,
    folders::has,
    graphs::{FLOAT, INT64, port},
    hostile::field,
    world::fixture,
};
use serde_json::json;
use shoal_specialist::folder::draft::{Draft, Said};
use std::{fs, os::unix::fs::symlink, path::Path};
use tempfile::TempDir;

#[test]
fn links_of_the_exporters_folder_are_followed_and_names_that_leave_it_are_not() {
    let (export, other) = (Export::of("foreign/llama_int4"), TempDir::new().expect("a folder"));
    // As a download cache keeps a snapshot.
    for entry in fs::read_dir(export.path()).expect("readable") {
        let path = entry.expect("readable").path();
        symlink(&path, other.path().join(path.file_name().expect("a name"))).expect("linked");
    }
    assert_eq!(
        Draft::of(other.path(), Said::default()).expect("a draft").files,
        export.draft().files
    );
    let text = fs::read_to_string(export.path().join("genai_config.json")).expect("readable");
    export.write("genai_config.json", text.replace("\"model.onnx\"", "\"../model.onnx\""));
    export.refused(&["`../model.onnx` leaves"]);
    let escaping = Export::of("foreign/llama_int4");
    let graph = fs::read(escaping.path().join("model.onnx")).expect("readable");
    let (from, to) = (b"model.onnx.data", b"../onnx.data.xx");
    let moved: Vec<u8> = (0..graph.len())
        .map(|at| {
            let start = (0..from.len()).find(|back| at >= *back && graph[at - back..].starts_with(from));
            start.map_or(graph[at], |back| to[back])
        })
        .collect();
    escaping.write("model.onnx", moved);
    escaping.refused(&["`../onnx.data.xx` leaves"]);
}

#[test]
fn folders_that_are_no_export_are_refused_by_what_they_are() {
    let refused = |path: &Path, parts: &[&str]| {
        has(
            &Draft::of(path, Said::default()).expect_err("refused").to_string(),
            parts,
        )
    };
    refused(&fixture("tiny_decoder/1"), &["card.toml", "a version of a specialist"]);
    refused(
        &fixture("tiny_decoder"),
        &["specialist.toml", "a specialist's own folder"],
    );
    refused(Path::new("/no/such/export"), &["/no/such/export is missing"]);
    refused(&fixture("tiny_decoder/1/card.toml"), &["is not a regular directory"]);
    let export = Export::of("foreign/optimum_llama");
    export.write("decoder_model_merged.onnx", b"");
    export.refused(&[
        "decoder_model_merged.onnx",
        "a merged decoder",
        "--task text-generation-with-past",
    ]);
    export.without("decoder_model_merged.onnx");
    let graph = fs::read(export.path().join("model.onnx")).expect("readable");
    export.without("model.onnx");
    export.refused(&["model.onnx", "nor is a genai_config.json"]);
    export.write("model_int8.onnx", &graph);
    export.refused(&["the folder has model_int8.onnx", "to a folder of its own"]);
    export.write("model.onnx", &graph);
    export.without("config.json");
    export.refused(&["config.json is missing"]);
    export.without("tokenizer.json");
    export.refused(&["tokenizer.json is missing"]);
    let export = Export::of("foreign/llama_int4");
    export.without("model.onnx.data");
    export.refused(&["model.onnx.data is missing"]);
    export.write("model.onnx", b"no graph");
    export.refused(&["model.onnx", "no ONNX file"]);
}

#[test]
fn graphs_of_no_kind_that_a_card_can_be_drafted_of_are_refused_by_name() {
    let export = Export::of("tiny_classifier");
    let with = |ports: &[Vec<u8>]| {
        let all = [
            &[
                port(11, "input_ids", INT64, &[0, 0]),
                port(11, "attention_mask", INT64, &[0, 0]),
            ],
            ports,
        ]
        .concat();
        export.write("model.onnx", field(7, &all.concat()));
    };
    let logits = |dims: &[u8]| port(12, "logits", FLOAT, dims);
    with(&[logits(&[0, 0, 9])]);
    export.refused(&["`logits` of each token", "text-generation-with-past", "tiny_tag"]);
    with(&[logits(&[0, 4]), port(11, "pixel_values", FLOAT, &[0])]);
    export.refused(&["`pixel_values`", "images or sound"]);
    with(&[port(12, "start_logits", FLOAT, &[0, 0])]);
    export.refused(&["start_logits", "neither a classifier's"]);
    for name in ["tiny_tag", "tiny_fill"] {
        let parts = if name == "tiny_tag" {
            "tag_logits"
        } else {
            "inputs that no model here is given"
        };
        Export::of(name).refused(&[parts]);
    }
    // A decoder that the engine would decode wrongly is refused as its finished folder would be.
    let export = Export::of("foreign/optimum_llama");
    let cache = [0, 2, 0, 16];
    let ports = [
        port(11, "input_ids", INT64, &[0, 0]),
        port(11, "attention_mask", INT64, &[0, 0]),
        port(11, "past_key_values.0.key", FLOAT, &cache),
        port(11, "past_key_values.0.value", FLOAT, &cache),
        port(11, "use_cache_branch", INT64, &[0]),
        port(12, "present.0.key", FLOAT, &cache),
        port(12, "present.0.value", FLOAT, &cache),
        port(12, "logits", FLOAT, &[0, 0, 144]),
    ];
    export.write("model.onnx", field(7, &ports.concat()));
    export.refused(&["`use_cache_branch`", "a merged decoder"]);
    export.write("config.json", json!({"is_encoder_decoder": true}).to_string());
    export.refused(&["is_encoder_decoder", "not supported"]);
}
