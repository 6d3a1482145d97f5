//! Other exporters' folders: the 32 greedy tokens of each are those that transformers gives (`shoal_trainer/foreign.py` made both), alone
//! and among others.
use crate::{
    folders::{Copy, has},
    world::{answer, ask, config, fixture, library, load, load_with},
};
use futures::future::join_all;
use serde_json::{Value, json};
use shoal_kit::config::Provider;
use shoal_specialist::{
    folder::{
        Folder,
        exported::{Number, Past},
    },
    prompt::Prompt,
    sampling::Sampling,
    specialist::Specialist,
};
use std::fs;

const APART: Past = Past::Apart { padded: true };

/// Every folder, how its graph takes the past, and what it computes in.
const FOLDERS: [(&str, Past, Number); 21] = [
    ("llama_fp32", Past::InPlace, Number::Single),
    ("qwen2_fp32", Past::InPlace, Number::Single),
    ("qwen3_fp32", Past::InPlace, Number::Single),
    ("phi3_fp32", Past::InPlace, Number::Single),
    ("llama_int8", Past::InPlace, Number::Single),
    ("qwen2_int8", Past::InPlace, Number::Single),
    ("qwen3_int8", Past::InPlace, Number::Single),
    ("phi3_int8", Past::InPlace, Number::Single),
    ("llama_int4", Past::InPlace, Number::Single),
    ("qwen2_int4", Past::InPlace, Number::Single),
    ("qwen3_int4", Past::InPlace, Number::Single),
    ("phi3_int4", Past::InPlace, Number::Single),
    ("llama_fp16", Past::InPlace, Number::Half),
    ("qwen2_fp16_positions", Past::InPlace, Number::Half),
    ("qwen3_fp16_positions", Past::InPlace, Number::Half),
    ("phi3_fp16_positions", Past::InPlace, Number::Half),
    ("optimum_llama", APART, Number::Single),
    ("optimum_qwen2", APART, Number::Single),
    ("optimum_phi3", APART, Number::Single),
    ("optimum_llama_fp16", APART, Number::Half),
    (
        "optimum_qwen3_no_positions",
        Past::Apart { padded: false },
        Number::Single,
    ),
];

struct Wanted {
    text: String,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
}

fn wanted(name: &str) -> Vec<Wanted> {
    let path = fixture("foreign").join(name).join("expected.json");
    let all: Value = serde_json::from_str(&fs::read_to_string(path).expect("committed")).expect("JSON");
    let numbers = |v: &Value| -> Vec<u32> { serde_json::from_value(v.clone()).expect("ids") };
    let row = |row: &Value| Wanted {
        text: row["text"].as_str().expect("text").to_owned(),
        prompt: numbers(&row["prompt"]),
        tokens: numbers(&row["tokens"]),
    };
    let rows: Vec<Wanted> = all["rows"].as_array().expect("rows").iter().map(row).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.tokens.len() == 32));
    rows
}

async fn tokens(specialist: &Specialist, text: &str, most: usize) -> Vec<u32> {
    answer(specialist, ask("echo", text, Sampling::greedy(most)))
        .await
        .tokens
}

#[test]
fn a_graphs_own_inputs_say_how_it_takes_the_past() {
    for (name, past, number) in FOLDERS {
        let folder = Folder::open(&fixture("foreign").join(name)).expect("a good folder");
        let exported = folder.exported.expect("it generates");
        assert_eq!((exported.past, exported.number), (past, number), "{name}");
        assert_eq!(
            (
                exported.layers,
                exported.kv_heads,
                exported.head_size,
                exported.vocabulary
            ),
            (2, 2, 16, 144),
            "{name}"
        );
    }
    let here = fs::read_dir(fixture("foreign")).expect("readable").count();
    // And the two that are refused.
    assert_eq!(here, FOLDERS.len() + 2, "a folder that no test reads");
}

#[tokio::test]
async fn thirty_two_greedy_tokens_of_every_export_equal_transformers() {
    for (name, ..) in FOLDERS {
        let specialist = load(&format!("foreign/{name}"), 2);
        for row in wanted(name) {
            let (prompt, _) = specialist
                .tokenize(&Prompt::Text(row.text.clone()), "echo")
                .expect("tokenizes");
            assert_eq!(prompt, row.prompt, "{name}: {}", row.text);
            assert_eq!(
                tokens(&specialist, &row.text, 32).await,
                row.tokens,
                "{name}: {}",
                row.text
            );
        }
    }
}

#[tokio::test]
async fn rows_that_come_and_go_at_their_own_lengths_are_as_alone() {
    for (name, ..) in FOLDERS {
        // Fewer slots than calls, and calls that end one after another: rows wait, join, move and leave. Two with one text are of equal length.
        let specialist = load(&format!("foreign/{name}"), 4);
        let rows = wanted(name);
        let calls = [
            (0, 32),
            (1, 32),
            (0, 32),
            (2, 11),
            (1, 5),
            (2, 32),
            (0, 17),
            (2, 1),
            (1, 23),
        ];
        let answers = join_all(calls.map(|(row, most)| tokens(&specialist, &rows[row].text, most))).await;
        for ((row, most), answer) in calls.into_iter().zip(answers) {
            assert_eq!(
                answer,
                rows[row].tokens[..most],
                "{name}: {most} tokens of {}",
                rows[row].text
            );
        }
    }
}

#[tokio::test]
async fn what_a_prompt_left_behind_is_gone_on_from() {
    for name in [
        "llama_fp16",
        "optimum_llama",
        "optimum_llama_fp16",
        "optimum_qwen3_no_positions",
    ] {
        let specialist = load_with(&fixture("foreign").join(name), 2, 2);
        for row in wanted(name).iter().flat_map(|row| [row, row, row]) {
            assert_eq!(
                tokens(&specialist, &row.text, 32).await,
                row.tokens,
                "{name}: {}",
                row.text
            );
        }
    }
}

#[tokio::test]
async fn any_of_several_end_tokens_ends_a_text() {
    for (name, file) in [
        ("qwen2_fp32", "genai_config.json"),
        ("optimum_llama", "generation_config.json"),
    ] {
        let row = wanted(name).remove(0);
        let end = row.tokens[9];
        let before: Vec<u32> = row.tokens.iter().copied().take_while(|token| *token != end).collect();
        let copy = Copy::of(&format!("foreign/{name}"));
        let text = fs::read_to_string(copy.path(&format!("1/{file}"))).expect("readable");
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        let ends = match file {
            "genai_config.json" => &mut json["model"]["eos_token_id"],
            _ => &mut json["eos_token_id"],
        };
        *ends = serde_json::json!([0, 2, end]);
        copy.write(file, json.to_string().as_bytes());
        let specialist = copy.load(2).expect("loads");
        assert_eq!(tokens(&specialist, &row.text, 32).await, before, "{name}");
    }
    let folder = Folder::open(&fixture("foreign/qwen2_fp32")).expect("a good folder");
    assert_eq!(
        folder.exported.expect("it generates").eos,
        [0, 2],
        "as the builder writes a list"
    );
}

#[test]
fn an_fp16_graph_that_the_cpu_provider_cannot_run_is_refused_by_name() {
    for (name, past, why) in [
        // The builder's fp16 graph for CPUs: past and present apart, and ONNX Runtime fails as soon as there is a past.
        ("llama_fp16_apart", APART, "does not go on from its own keys and values"),
        // Its graph of Qwen3 for CUDA: the norms of queries and keys are inputs of the attention, which the CPU's does not take.
        (
            "qwen3_fp16",
            Past::InPlace,
            "q_norm_weight / k_norm_weight inputs are not supported",
        ),
    ] {
        let path = fixture("foreign").join(name);
        let exported = Folder::open(&path).expect("a good folder").exported;
        let exported = exported.expect("it generates");
        assert_eq!((exported.past, exported.number), (past, Number::Half), "{name}");
        let error = Specialist::load(&path, &config(2), library()).expect_err("refused");
        has(
            &error.to_string(),
            &[why, "computes in fp16", "`-p fp32` or `-p int4`, for `-e cpu`"],
        );
    }
}

#[test]
fn a_past_that_is_apart_is_refused_on_cuda_by_name() {
    let config = shoal_kit::config::Specialist {
        provider: Provider::Cuda,
        ..config(2)
    };
    let error = Specialist::load(&fixture("foreign/optimum_llama"), &config, library()).expect_err("refused");
    has(
        &error.to_string(),
        &["past and present are apart", "-e cuda", "provider = \"cpu\""],
    );
}

/// A tokenizer's file keeps how it was last used: what `save_pretrained` writes after a call that cut and padded.
#[test]
fn a_prompt_is_neither_cut_nor_padded_by_what_the_tokenizer_was_last_used_with() {
    let prompt = Prompt::Text("the quick brown fox jumps over the lazy dog".into());
    let read = |copy: &Copy| {
        let specialist = copy.load(1).expect("loads");
        let task = specialist.folder().tasks[0].name.clone();
        specialist.tokenize(&prompt, &task).expect("fits").0
    };
    for name in ["tiny_decoder", "tiny_tag"] {
        let copy = Copy::of(name);
        let whole = read(&copy);
        let text = fs::read_to_string(copy.path("1/tokenizer.json")).expect("readable");
        let mut tokenizer: Value = serde_json::from_str(&text).expect("JSON");
        tokenizer["truncation"] =
            json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
        tokenizer["padding"] = json!({
            "strategy": {"Fixed": 100}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        });
        copy.write("tokenizer.json", tokenizer.to_string().as_bytes());
        assert_eq!(read(&copy), whole, "{name}");
        assert!(whole.len() > 4 && whole.len() < 100, "{name}: {whole:?}");
    }
}

#[test]
fn rows_that_no_memory_holds_are_refused_in_words_and_end_no_process() {
    for name in ["llama_fp32", "optimum_llama", "optimum_llama_fp16"] {
        let path = fixture("foreign").join(name);
        // Four petabytes and more.
        let refused = Specialist::load(&path, &config(1 << 40), library());
        let refused = refused.expect_err("no machine has so much").to_string();
        has(&refused, &["MiB of memory are not to be had", "lower `slots`"]);
    }
}
