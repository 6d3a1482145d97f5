//! A tagger that reads an object: the text, what was said before it, and the labels that may be found.
use crate::{
    folders::Copy,
    http::{body, call},
    oip,
    tagged::generated,
    world::Served,
};
use serde_json::{Value, json};
use shoal_proto::{
    oip::{ModelInferRequest, infer_parameter::ParameterChoice},
    v1::{self, prompt::Content},
};
use tonic::Code;

const ALL: [&str; 4] = ["genre", "artist", "city", "party_size"];

fn object(system: &str, user: &str, slots: &[&str]) -> Value {
    json!({"service": "Music", "slots": slots, "system": system, "user": user})
}

fn request(task: &str, content: Content) -> v1::GenerateRequest {
    v1::GenerateRequest {
        task: task.into(),
        prompt: Some(v1::Prompt { content: Some(content) }),
        ..Default::default()
    }
}

fn json_prompt(task: &str, object: &Value) -> v1::GenerateRequest {
    request(task, Content::Json(object.to_string()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_is_read_and_never_tagged_and_only_asked_labels_are_found() {
    let served = Served::start("tiny_tag_pair", 1, |_| {}).await;
    for (system, user, slots, called, extracted) in [
        (
            "Play ROCK by Miles?",
            "jazz, by  Miles DAVIS in Oslo",
            &ALL[..],
            r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz", "artist": "Miles DAVIS"}}"#,
            r#"{"genre":"jazz","artist":"Miles DAVIS"}"#,
        ),
        // The same text after another: its class comes from there, and no place of "rock" or "two" is in the answer.
        (
            "book a table for two",
            "jazz, by  Miles DAVIS in Oslo",
            &ALL,
            r#"{"tool": "BookRestaurant", "arguments": {"city": "Oslo"}}"#,
            r#"{"city":"Oslo"}"#,
        ),
        // A label that is not asked is not found, and one that the class may not have is not found for being asked.
        (
            "play",
            "jazz by miles davis in oslo",
            &["city", "artist"],
            r#"{"tool": "PlayMusic", "arguments": {"artist": "miles davis"}}"#,
            r#"{"artist":"miles davis"}"#,
        ),
        (
            "play",
            "jazz by miles davis",
            &["Genre", "label", "genre", "genre"],
            r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz"}}"#,
            r#"{"genre":"jazz"}"#,
        ),
        (
            "play",
            "jazz by miles davis",
            &[],
            r#"{"tool": "PlayMusic", "arguments": {}}"#,
            "{}",
        ),
        (
            "Café 北",
            "book in \"Café\" for two",
            &ALL,
            r#"{"tool": "BookRestaurant", "arguments": {"city": "\"Café", "party_size": "two"}}"#,
            r#"{"city":"\"Café","party_size":"two"}"#,
        ),
        (
            "",
            "play jazz and rocky",
            &ALL,
            r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz and rocky"}}"#,
            r#"{"genre":"jazz"}"#,
        ),
        ("play jazz", "", &ALL, r#"{"tool": "PlayMusic", "arguments": {}}"#, "{}"),
    ] {
        let given = object(system, user, slots);
        let done = generated(&served, json_prompt("call", &given)).await;
        assert_eq!(done.text, called, "{given}");
        let done = generated(&served, json_prompt("extract", &given)).await;
        assert_eq!(done.text, extracted, "{given}");
    }
    // [CLS] play [SEP] jazz [SEP]
    let usage = generated(&served, json_prompt("call", &object("play", "jazz", &ALL)))
        .await
        .usage;
    assert_eq!(usage.expect("told").input_tokens, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_as_text_is_the_object_at_every_door() {
    let served = Served::start("tiny_tag_pair", 1, |_| {}).await;
    let (first, second) = (object("play", "jazz", &ALL), object("book", "oslo for two", &["city"]));
    let (jazz, oslo) = (r#"{"genre":"jazz"}"#, r#"{"city":"oslo"}"#);
    let said = [
        ("user", second.to_string()),
        ("user", first.to_string()),
        ("assistant", "{}".into()),
    ];
    let messages = said.map(|(role, content)| v1::Message {
        role: role.into(),
        content,
    });
    for content in [
        Content::Text(format!("  {first}")),
        Content::Messages(v1::prompt::Messages {
            messages: messages.into(),
        }),
    ] {
        assert_eq!(generated(&served, request("extract", content)).await.text, jazz);
    }
    let wire = ModelInferRequest {
        model_name: "extract".into(),
        ..oip::request(&[&second.to_string(), &first.to_string()], false)
    };
    let inferred = oip::client(&served)
        .model_infer(wire)
        .await
        .expect("infers")
        .into_inner();
    let texts = &inferred.outputs[0].contents.as_ref().expect("contents").bytes_contents;
    assert_eq!(texts, &[oslo.as_bytes().to_vec(), jazz.as_bytes().to_vec()]);
    let tokens = inferred.parameters["input_tokens"].parameter_choice.clone();
    assert_eq!(tokens, Some(ParameterChoice::Int64Param(7 + 5)));
    let refused = ModelInferRequest {
        model_name: "extract".into(),
        ..oip::request(&["play jazz"], false)
    };
    let refused = oip::client(&served).model_infer(refused).await.expect_err("no object");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("`slots` a list of the labels to find"),
        "{refused}"
    );

    let chat = json!({"model": "extract", "messages": [{"role": "user", "content": first.to_string()}]});
    let (status, plain) = call(&served, "POST", "/v1/chat/completions", &chat.to_string()).await;
    let content = &body(&plain)["choices"][0]["message"]["content"];
    assert_eq!((status, content), (200, &json!(jazz)), "{plain}");
    let chat = json!({"model": "extract", "messages": [{"role": "user", "content": "play jazz"}]});
    let (status, plain) = call(&served, "POST", "/v1/chat/completions", &chat.to_string()).await;
    assert!(
        status == 400 && plain.contains("it is no JSON object"),
        "{status}: {plain}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_by_its_field_and_both_texts_take_of_the_context() {
    let served = Served::start("tiny_tag_pair", 1, |_| {}).await;
    let good = object("play", "jazz", &ALL);
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        json_prompt("call", &changed)
    };
    // 3 special tokens, 20 and 9 are 32: one more is too many, wherever it is.
    let (long, most) = ("rock ".repeat(20), "jazz ".repeat(9));
    let fits = generated(&served, json_prompt("call", &object(&long, &most, &ALL))).await;
    assert_eq!(fits.usage.expect("told").input_tokens, 32);
    let (longer, more) = (format!("{long} a"), format!("{most} a"));
    for (field, request) in [
        ("prompt.json.user", json_prompt("call", &json!({}))),
        ("prompt.json.user", with("user", json!(1))),
        ("prompt.json.system", with("system", json!(null))),
        ("prompt.json.slots", with("slots", json!({"genre": true}))),
        ("prompt.json.slots", with("slots", json!(["genre", null]))),
        ("prompt.json", request("call", Content::Json("[]".into()))),
        ("prompt.text", request("call", Content::Text("play jazz".into()))),
        ("prompt.text", request("call", Content::Text("[{}]".into()))),
        ("prompt.text.user", request("call", Content::Text("{}".into()))),
        ("prompt", json_prompt("call", &object(&longer, &most, &ALL))),
        ("prompt", json_prompt("call", &object(&long, &more, &ALL))),
        (
            "prompt",
            json_prompt("call", &object(&"x".repeat(1 << 20), "jazz", &ALL)),
        ),
    ] {
        let status = served.client().generate(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        let told = status.message();
        assert!(told.starts_with(&format!("{field}:")), "{field}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_alone_may_be_read_of_an_object_and_a_schema_holds_it() {
    let copy = Copy::of("tiny_tag_pair");
    copy.write(
        "call.input.json",
        br#"{"type": "object", "properties": {"service": {"enum": ["Music"]}}, "required": ["service"]}"#,
    );
    copy.edit("1/card.toml", "before = \"system\"\nlabels = \"slots\"\n", "");
    copy.edit(
        "1/card.toml",
        "[output.call]",
        "[input.call]\nschema = \"call.input.json\"\n\n[output.call]",
    );
    let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
    let given = json!({"service": "Music", "user": "play jazz"});
    let done = generated(&served, json_prompt("call", &given)).await;
    assert_eq!(done.text, r#"{"tool": "PlayMusic", "arguments": {"genre": "jazz"}}"#);
    assert_eq!(done.usage.expect("told").input_tokens, 4, "[CLS] play jazz [SEP]");
    let other = json!({"service": "Film", "user": "play jazz"});
    for (field, content) in [
        ("prompt.json", Content::Json(other.to_string())),
        ("prompt.text", Content::Text(other.to_string())),
    ] {
        let status = served
            .client()
            .generate(request("call", content))
            .await
            .expect_err("refused");
        let told = status.message();
        assert!(
            told.starts_with(&format!("{field}: it breaks the task's input schema at `/service`")),
            "{told}"
        );
    }
    assert_eq!(
        generated(&served, json_prompt("extract", &other)).await.text,
        r#"{"genre":"jazz"}"#
    );
    let card = served
        .client()
        .describe(v1::DescribeRequest {})
        .await
        .expect("told")
        .into_inner();
    assert!(card.tasks[0].input_schema_json.contains("Music") && card.tasks[1].input_schema_json.is_empty());
}
