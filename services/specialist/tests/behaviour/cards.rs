//! Cards and configurations that cannot be: refused by what they say, before ONNX Runtime is touched where that is possible.
use crate::{
    folders::{Copy, has},
    world::fixture,
};
use std::fs;

#[test]
fn insane_configurations_are_refused() {
    let genai = fs::read_to_string(fixture("tiny_decoder").join("1/genai_config.json")).expect("readable");
    for (from, to, wanted) in [
        (
            "\"context_length\": 256",
            "\"context_length\": 128",
            "lower [limits] context_tokens",
        ),
        ("\"eos_token_id\": 0", "\"eos_token_id\": []", "eos_token_id"),
        ("\"eos_token_id\": 0", "\"eos_token_id\": [0, 9999]", "eos_token_id"),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 0",
            "num_hidden_layers is 0",
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 3",
            "cannot share",
        ),
        ("\"head_size\": 16", "\"head_size\": 99999999", "head_size"),
        (
            "\"filename\": \"model.onnx\"",
            "\"filename\": \"../model.onnx\"",
            "leaves",
        ),
        ("\"filename\": \"model.onnx\"", "\"filename\": ", "does not parse"),
        (
            "\"filename\": \"model.onnx\"",
            "\"filename\": \"model.ort\"",
            "name an .onnx file",
        ),
    ] {
        let copy = Copy::of("tiny_decoder");
        assert!(genai.contains(from));
        copy.write("genai_config.json", genai.replacen(from, to, 1).as_bytes());
        has(&copy.refused(), &[wanted]);
    }
    for (file, from, to, wanted) in [
        ("specialist.toml", "tasks", "taskz", "unknown field `taskz`"),
        (
            "specialist.toml",
            "active_version = 1",
            "active_version = 2",
            "is missing",
        ),
        ("specialist.toml", "\"echo\"", "\"no spaces\"", "is no name"),
        ("1/card.toml", "[limits]", "[limitz]", "unknown field `limitz`"),
        (
            "1/card.toml",
            "version = 1",
            "version = 3",
            "make `name` and `version` agree",
        ),
        (
            "1/card.toml",
            "max_new_tokens = 64",
            "max_new_tokens = 256",
            "max_new_tokens",
        ),
        (
            "1/card.toml",
            "[output.call]",
            "[output.other]",
            "which specialist.toml does not serve",
        ),
        (
            "1/card.toml",
            "confidence_threshold = 0.5",
            "confidence_threshold = 5",
            "between 0 and 1",
        ),
        (
            "1/card.toml",
            "kind = \"generate\"",
            "kind = \"embed\"",
            "kind is \"embed\"",
        ),
        (
            "1/card.toml",
            "schema = \"output.schema.json\"",
            "",
            "names neither a schema nor a grammar",
        ),
        (
            "1/card.toml",
            "confidence_threshold = 0.5",
            "confidence_threshold = 0.5\nstatistic = \"mean_logprob\"\nknots = [[-1, 0.2], [-2, 0.4]]",
            "[calibration.call] knots[1] = [-2, 0.4]: x is under",
        ),
        (
            "1/card.toml",
            "confidence_threshold = 0.5",
            "confidence_threshold = 0.5\nstatistic = \"sum_logprob\"\nknots = [[-2, 0.4], [-1, 0.2]]",
            "[calibration.call] knots[1] = [-1, 0.2]: p is under",
        ),
        (
            "1/card.toml",
            "confidence_threshold = 0.5",
            "confidence_threshold = 0.5\nknots = [[-2, 0.4]]",
            "`knots` without `statistic`",
        ),
        (
            "1/card.toml",
            "confidence_threshold = 0.5",
            "confidence_threshold = 0.5\nstatistic = \"min_logprob\"",
            "`statistic` without `knots`",
        ),
        (
            "1/card.toml",
            "confidence_threshold = 0.5",
            "confidence_threshold = 0.5\nstatistic = \"median\"",
            "unknown variant `median`",
        ),
    ] {
        let copy = Copy::of("tiny_decoder");
        copy.edit(file, from, to);
        has(&copy.refused(), &[wanted]);
    }
}

#[test]
fn text_files_of_other_families_are_refused_by_name() {
    let copy = Copy::of("tiny_decoder");
    copy.write("tokenizer.json", b"{}");
    has(&copy.refused(), &["tokenizer.json of tiny_decoder@1"]);
    let copy = Copy::of("foreign/llama_fp32");
    let larger = fs::read(fixture("tiny_decoder").join("1/tokenizer.json")).expect("readable");
    copy.write("tokenizer.json", &larger);
    has(
        &copy.refused(),
        &["it has 334 tokens, the model 144 logits", "they are not of one export"],
    );
    let copy = Copy::of("tiny_decoder");
    copy.write("chat_template.jinja", b"{% for x in %}");
    has(&copy.refused(), &["chat_template.jinja", "does not compile"]);
    for (source, wanted) in [
        (
            "{% if tools %}{{ tools }}{% endif %}{{ moon_phase('%d') }}",
            "moon_phase",
        ),
        ("{{ messages[0].content | sideways }}", "sideways"),
        (
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
            "fuel",
        ),
    ] {
        let copy = Copy::of("tiny_decoder");
        copy.write("chat_template.jinja", source.as_bytes());
        has(&copy.refused(), &["chat_template.jinja", "it does not render", wanted]);
    }
    // What it refuses of one prompt it may make of another, and what nobody gave is not there.
    for source in [
        "{{ raise_exception('give a system message') }}",
        "{{ tools.first.name }}",
        "{{ strftime_now('%d %B %Y') }}",
    ] {
        let copy = Copy::of("tiny_decoder");
        copy.write("chat_template.jinja", source.as_bytes());
        has(&copy.refused(), &["ONNX Runtime at /nonexistent"]);
    }
    let copy = Copy::of("tiny_decoder");
    copy.write("output.schema.json", br#"{"type": "nonsense"}"#);
    has(&copy.refused(), &["output form", "task call"]);
}

#[test]
fn a_classifiers_thresholds_are_of_its_labels_and_its_labels_differ() {
    for (from, to, wanted) in [
        (
            "[training]",
            "[classify.thresholds]\nnobody = 0.5\n[training]",
            "\"nobody\" = 0.5: give one of the labels",
        ),
        (
            "[training]",
            "[classify.thresholds]\noos = 1.5\n[training]",
            "a score between 0 and 1",
        ),
        ("\"weather\"", "\"oos\"", "names `oos` twice"),
        (
            "[\"play_music\", \"book_table\", \"weather\", \"oos\"]",
            "[\"relevant\"]",
            "labels has `relevant` alone: scores are a softmax over the labels",
        ),
    ] {
        let copy = Copy::of("tiny_classifier");
        copy.edit("1/card.toml", from, to);
        has(&copy.refused(), &[wanted]);
    }
}

#[test]
fn shapes_that_are_not_the_configurations_are_refused_before_anybody_asks() {
    let genai = fs::read_to_string(fixture("tiny_decoder").join("1/genai_config.json")).expect("readable");
    for (from, to, wanted) in [
        ("\"head_size\": 16", "\"head_size\": 8", "it does not decode in place"),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 1",
            "genai_config.json says [rows, 1, positions, 16]: export again",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "the graph has no `past_key_values.2.key`",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
            "inputs that this engine does not know",
        ),
        (
            "\"vocab_size\": 334",
            "\"vocab_size\": 335",
            "genai_config.json says vocab_size 335",
        ),
        (
            "\"vocab_size\": 334",
            "\"vocab_size\": 300",
            "they are not of one export",
        ),
    ] {
        let copy = Copy::of("tiny_decoder");
        assert!(genai.contains(from), "{from}");
        copy.write("genai_config.json", genai.replacen(from, to, 1).as_bytes());
        let told = copy.load(2).expect_err("refused").to_string();
        has(&told, &[wanted]);
    }
    // External data cut short, with a true sum: the range of some tensor is not there.
    let copy = Copy::of("tiny_decoder");
    let data = fs::read(copy.path("1/model.onnx.data")).expect("readable");
    copy.write("model.onnx.data", &data[..data.len() / 2]);
    has(&copy.refused(), &["wants bytes", "of `model.onnx.data`, which has"]);
}
