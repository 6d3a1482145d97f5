//! A filler: what it makes of conversations is what the trainer's own reading makes of them, whoever runs beside.
use crate::{
    doors::collect,
    folders::{Copy, has},
    world::{Served, answer, ask, fixture, load, load_with, shipped},
};
use serde_json::{Value, json};
use shoal_proto::v1::{self, prompt::Content};
use shoal_specialist::sampling::Sampling;
use tonic::Code;

/// What the trainer wrote beside the fixture: inputs, answers, and the log probability of each choice.
fn expected() -> Vec<Value> {
    let text = std::fs::read_to_string(fixture("tiny_fill").join("expected.json")).expect("beside the fixture");
    serde_json::from_str(&text).expect("a list")
}

fn text(of: &Value) -> String {
    of["text"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn conversations_become_the_calls_that_the_trainer_reads_in_them() {
    let specialist = load("tiny_fill", 1);
    let all = expected();
    for row in &all {
        let done = answer(
            &specialist,
            ask("calls", &row["input"].to_string(), Sampling::greedy(1)),
        )
        .await;
        assert_eq!(done.text, text(row));
        let logs: Vec<f64> = row["logprobs"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        assert!(
            (done.confidence.mean() - mean).abs() < 2e-3,
            "{} {mean}",
            done.confidence.mean()
        );
    }
    let said = all.iter().map(text).collect::<String>();
    assert!(
        said.contains("=$1.") && said.contains("Where, and when"),
        "references and runs are among them: {said}"
    );
}

#[tokio::test]
async fn a_long_dialogue_is_summed_up_as_a_short_one_is_and_one_that_never_ends_is_refused() {
    let turn = |speaker: &str, text: &str| json!({"speaker": speaker, "text": text});
    let dialogue = |chat: usize| {
        let booking = [
            turn("user", "My car did not start today, so can you find me a cab?"),
            turn("system", "Sure, how many people will be riding, and where to?"),
            turn(
                "user",
                "It is just me. To the California State Capitol Museum, please, and a shared ride is fine.",
            ),
            turn("system", "Your cab is on its way."),
        ];
        let more = [
            turn("user", "Thank you. How has your day been so far?"),
            turn(
                "system",
                "It has been a quiet day, thanks for asking. Is there anything else that you need?",
            ),
        ];
        let turns = booking.into_iter().chain(more.into_iter().cycle().take(2 * chat));
        let methods = json!({"RideSharing_1": {"GetRide": ["destination", "number_of_riders", "shared_ride"]}});
        json!({"methods": methods, "dialogue": turns.collect::<Vec<_>>()}).to_string()
    };
    for name in ["summarize", "generalist"] {
        let specialist = load_with(&shipped(name), 1, 0);
        let asked = async |chat| {
            specialist
                .generate(ask("summarize", &dialogue(chat), Sampling::greedy(1)))
                .await
        };
        let short = asked(0).await.expect("accepted").complete().await.expect("answered");
        let call: Value = serde_json::from_str(&short.text).expect("JSON");
        let wanted =
            json!({"destination": "California State Capitol Museum", "number_of_riders": "1", "shared_ride": "True"});
        assert_eq!(call[0]["parameters"], wanted, "{name}");
        let long = asked(26).await.expect("accepted").complete().await.expect("answered");
        assert!(long.input_tokens > 900 && long.text == short.text, "{name}: {long:?}");
        let error = asked(40).await.expect_err("too long").to_string();
        has(&error, &["1 to 1024 fit"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_that_run_together_have_each_its_own_answer() {
    let served = Served::start("tiny_fill", 1, |_| {}).await;
    let all = expected();
    let asked = (0..24).map(|i| {
        let (row, mut client) = (all[i % all.len()].clone(), served.client());
        tokio::spawn(async move {
            let request = v1::GenerateRequest {
                task: "calls".into(),
                prompt: Some(v1::Prompt {
                    content: Some(Content::Json(row["input"].to_string())),
                }),
                ..Default::default()
            };
            let stream = client.generate(request).await.expect("accepted").into_inner();
            let (_, done) = collect(stream).await.expect("answered");
            assert_eq!(done.text, text(&row));
        })
    });
    for one in asked.collect::<Vec<_>>() {
        one.await.expect("equal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_conversation_is_refused_by_its_field() {
    let served = Served::start("tiny_fill", 1, |_| {}).await;
    for (given, field) in [
        (json!("a cab, please").to_string(), "prompt.text"),
        (json!({"turns": ["x"]}).to_string(), "prompt.text.methods"),
        (
            json!({"methods": {"A": {"B": []}}, "turns": "x"}).to_string(),
            "prompt.text.turns",
        ),
        (
            json!({"methods": {"A": {"B": []}}, "turns": ["a ".repeat(300)]}).to_string(),
            "prompt",
        ),
    ] {
        let request = v1::GenerateRequest {
            task: "calls".into(),
            prompt: Some(v1::Prompt {
                content: Some(Content::Text(given)),
            }),
            ..Default::default()
        };
        let refused = served.client().generate(request).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(field), "{field}: {}", refused.message());
    }
}

#[test]
fn a_folder_that_could_not_answer_is_refused_before_it_serves() {
    let card = |from: &str, to: &str| {
        let copy = Copy::of("tiny_fill");
        copy.edit("1/card.toml", from, to);
        copy.refused()
    };
    has(&card("max_new_tokens = 0", "max_new_tokens = 8"), &["decodes nothing"]);
    has(
        &card("turns = \"turns\"", "turns = \"methods\""),
        &["[fill.calls]", "two fields"],
    );
    has(&card("kind = \"fill\"", "kind = \"generate\""), &["[fill.TASK]"]);
    has(
        &card("references = true", "references = true\ncalled = 1.0"),
        &["[fill.calls] called is 1"],
    );
    has(
        &card("[fill.calls]", "[fill.other]"),
        &["task `other`", "does not serve"],
    );
    let copy = Copy::of("tiny_fill");
    copy.edit("specialist.toml", "\"calls\",", "\"calls\", \"more\",");
    has(&copy.refused(), &["no [fill.more]"]);
    let files = |name: &str, content: &[u8]| {
        let copy = Copy::of("tiny_fill");
        copy.write(name, content);
        copy.load(1).expect_err("refused").to_string()
    };
    has(&files("slots.json", b"{}"), &["slots.json", "values"]);
    has(
        &files(
            "slots.json",
            br#"{"values": ["1"], "slots": {}, "fields": [], "returns": {}}"#,
        ),
        &["model.onnx", "value", "slots.json makes"],
    );
    has(
        &files("calls.answer.jinja", b"{{ calls[0].parameters[0].text }}"),
        &["calls.answer.jinja", "1 calls"],
    );
}

#[tokio::test]
async fn one_model_serves_several_tasks_each_read_and_decoded_in_its_own_way() {
    let copy = Copy::of("tiny_fill");
    copy.edit("specialist.toml", "\"calls\",", "\"calls\", \"plain\",");
    copy.edit(
        "1/card.toml",
        "[output.calls]",
        "[fill.plain]\nmethods = \"offered\"\nturns = \"said\"\nreferences = false\n\n[output.plain]\ntemplate = \"calls.answer.jinja\"\n\n[output.calls]",
    );
    let specialist = copy.load(1).expect("loads");
    let (mut same, mut referring) = (0, 0);
    for row in &expected() {
        let (input, text) = (&row["input"], text(row));
        let plain = json!({"offered": input["methods"], "said": input["turns"]});
        let done = answer(&specialist, ask("plain", &plain.to_string(), Sampling::greedy(1))).await;
        if text.contains("=$") {
            referring += 1;
            assert!(!done.text.contains("=$"), "{}", done.text);
        } else {
            same += 1;
            assert_eq!(done.text, text);
        }
    }
    assert!(same > 0 && referring > 0);
}

/// tiny_fill with two tasks more, of one call and of runs of the last turn: `plain`, of an object, and `worded`, of whatever `template` makes one of.
fn worded(template: &str) -> Copy {
    let copy = Copy::of("tiny_fill");
    copy.write("worded.input.jinja", template.as_bytes());
    copy.edit("specialist.toml", "\"calls\",", "\"calls\", \"plain\", \"worded\",");
    let way = "methods = \"methods\"\nturns = \"turns\"\nreferences = false\nsingle = true\nliteral = true\n";
    let output = |task: &str| format!("[output.{task}]\ntemplate = \"calls.answer.jinja\"\n");
    let (plain, worded) = (output("plain"), output("worded"));
    copy.edit(
        "1/card.toml",
        "[output.calls]",
        &format!("[fill.plain]\n{way}\n[fill.worded]\ninput = \"worded.input.jinja\"\n{way}\n{plain}\n{worded}\n[output.calls]"),
    );
    copy
}

#[tokio::test]
async fn an_input_of_another_form_is_read_as_what_the_cards_template_makes_of_it() {
    let methods = json!({"Cabs_1": {"FindStop": ["near_to", "riders"], "GetRide": ["to"]}});
    let template = format!(
        "{{\"methods\": {}, \"turns\": [\"Hello.\", {{{{ input | tojson }}}}]}}",
        methods.to_string().replace("}}", "} }")
    );
    let of_texts = worded(&template).load(1).expect("loads");
    let of_objects = worded(&template.replace("input |", "input.said |"))
        .load(1)
        .expect("loads");
    let (mut said, mut filled) = (std::collections::BTreeSet::new(), 0);
    for text in [
        "a cab to Oslo at noon",
        "Where does the \"42\" stop?",
        "two riders, from Bergen",
        "{no JSON",
        // Of a task of texts it is a text.
        "{\"speaker\": \"system\", \"text\": \"a cab\"}",
    ] {
        let object = json!({"methods": methods, "turns": ["Hello.", text]}).to_string();
        let plain = answer(&of_texts, ask("plain", &object, Sampling::greedy(1))).await;
        for (specialist, given) in [
            (&of_texts, text.to_owned()),
            (&of_objects, json!({"said": text}).to_string()),
        ] {
            let worded = answer(specialist, ask("worded", &given, Sampling::greedy(1))).await;
            assert_eq!((&worded.text, worded.input_tokens), (&plain.text, plain.input_tokens));
        }
        assert_eq!(plain.text.lines().count(), 1, "one call: {}", plain.text);
        assert!(!plain.text.contains("Hello"), "a value of another turn: {}", plain.text);
        filled += plain.text.matches('=').count();
        said.insert(plain.text);
    }
    assert!(said.len() > 1 && filled > 0, "{said:?}");
    for given in ["{\"other\": 1}", "no object", "{\"said\": 5}"] {
        let refused = of_objects.generate(ask("worded", given, Sampling::greedy(1))).await;
        let refused = refused.expect_err("refused").to_string();
        if given.ends_with("5}") {
            has(
                &refused,
                &[
                    "prompt.text: what `worded.input.jinja`",
                    "does not fit",
                    "list of turns",
                ],
            );
        } else {
            has(&refused, &["prompt.text: `worded.input.jinja`", "makes nothing of it"]);
        }
    }
}

#[tokio::test]
async fn a_template_of_inputs_that_cannot_be_one_is_its_folders_fault() {
    let broken = worded("{{ input").load(1).expect_err("refused").to_string();
    has(&broken, &["worded.input.jinja", "does not compile"]);
    let no_json = worded("{{ input }}").load(1).expect("loads");
    let error = no_json.generate(ask("worded", "hello", Sampling::greedy(1))).await;
    has(&error.expect_err("no object").to_string(), &["worded.input.jinja"]);
    let copy = worded("{{ input | tojson }}");
    copy.edit("1/card.toml", "references = false", "references = true");
    has(&copy.refused(), &["[fill.plain]", "references"]);
    let copy = worded("{{ input | tojson }}");
    copy.edit("1/card.toml", "input = \"worded", "input = \"other");
    has(&copy.refused(), &["other.input.jinja"]);
}
