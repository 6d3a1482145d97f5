//! Grammars made of the request: `[output.TASK] grammar = "NAME.lark.jinja"`, from the folder to the answer.
use crate::{
    folders::Copy,
    world::{answer, ask},
};
use serde_json::{Value, json};
use shoal_specialist::{
    Error,
    engine::Finish,
    folder::Form,
    prompt::Prompt,
    sampling::Sampling,
    specialist::{Ask, Specialist},
};

/// Plan text whose texts are spans of the goal.
const PLAN: &str = r#"start: step ("\n" step)*
step: NUMBER ". tool_call: " TEXT
NUMBER: /[1-9]/
TEXT: WORDS & /[^ ](.*[^ ])?/
WORDS: %regex { "substring_words": {{ messages[-1].content | replace("\n", " ") | tojson }} }
"#;

/// One call whose values are spans of the utterance, as JSON.
const CALL: &str = r#"{%- set said = (messages[-1].content | replace("\n", " ") | tojson)[1:-1] -%}
start: "{\"tool\":\"play\",\"arguments\":{" [pair ("," pair)*] "}}"
pair: NAME ":" VALUE
NAME: "\"artist\"" | "\"album\""
VALUE: ("\"" WORDS "\"") & /"([^"\\ ]|\\.)(([^"\\]|\\.)*([^"\\ ]|\\.))?"/
WORDS: %regex { "substring_words": {{ said | tojson }} }
"#;

/// A call of the methods that the request names; made for mappings alone.
const METHODS: &str = r#"{%- set c = messages[-1].content -%}
start: METHOD "(" [NAME "=" VALUE] ")"
METHOD: {% for service, methods in c.methods.items() %}{% set last = loop.last %}{% for method in methods %}{{ (service ~ "." ~ method) | tojson }}{% if not (last and loop.last) %} | {% endif %}{% endfor %}{% endfor +%}
NAME: {% for name in c.names %}{{ name | tojson }}{% if not loop.last %} | {% endif %}{% endfor +%}
VALUE: "\"" WORDS "\""
WORDS: %regex { "substring_words": {{ ((c.turns | join(" ")) | tojson)[1:-1] | tojson }} }
"#;

fn hot(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.3,
        seed,
        ..Sampling::greedy(60)
    }
}

/// The tiny decoder whose task `echo` has this grammar.
fn folder(file: &str, grammar: &str) -> Copy {
    let copy = Copy::of("tiny_decoder");
    copy.write(file, grammar.as_bytes());
    copy.edit(
        "1/card.toml",
        "[output.call]",
        &format!("[output.echo]\ngrammar = \"{file}\"\n\n[output.call]"),
    );
    copy
}

fn loaded(grammar: &str) -> Specialist {
    folder("form.lark.jinja", grammar).load(8).expect("loads")
}

fn refused(grammar: &str) -> String {
    match folder("form.lark.jinja", grammar).load(1) {
        Ok(_) => panic!("loaded"),
        Err(error) => error.to_string(),
    }
}

/// Whether `span` is whole chunks of `text`, as `substring_words` cuts it.
fn is_span(span: &str, text: &str) -> bool {
    let kind = |c: char| {
        if c.is_whitespace() {
            0
        } else {
            1 + usize::from(c.is_alphanumeric() || c == '_')
        }
    };
    text.match_indices(span).any(|(at, _)| {
        let before = text[..at].chars().last().zip(span.chars().next());
        let after = span.chars().last().zip(text[at + span.len()..].chars().next());
        [before, after].into_iter().flatten().all(|(a, b)| kind(a) != kind(b))
    })
}

#[tokio::test]
async fn every_step_of_plan_text_says_words_of_the_goal() {
    let specialist = loaded(PLAN);
    let goal = "play some jazz by Zoë,\nand book \"two\" seats";
    let said = goal.replace('\n', " ");
    let answers = (0..12).map(|seed| answer(&specialist, ask("echo", goal, hot(seed))));
    let mut stopped = 0;
    for done in futures::future::join_all(answers).await {
        let whole = done.finish == Finish::Stop;
        stopped += usize::from(whole);
        let lines: Vec<&str> = done.text.split('\n').collect();
        for line in &lines[..lines.len() - usize::from(!whole)] {
            let (number, text) = line.split_once(". tool_call: ").unwrap_or_else(|| panic!("{line:?}"));
            assert!(
                number.len() == 1 && is_span(text, &said) && text.trim() == text,
                "{line:?} of {said:?}"
            );
        }
    }
    assert!(stopped >= 6, "only {stopped} of 12 came to an end");
}

#[tokio::test]
async fn every_value_of_a_json_call_is_words_of_the_utterance_whatever_they_are() {
    let specialist = loaded(CALL);
    for said in [
        "play \"Kind of Blue\" by O'Hara \\ now",
        "日本 の ジャズ 🙂 please",
        "x",
        "a\tb c\u{1}d",
    ] {
        let answers = (0..8).map(|seed| answer(&specialist, ask("echo", said, hot(seed))));
        for done in futures::future::join_all(answers).await {
            if done.finish != Finish::Stop {
                continue;
            }
            let call: Value = serde_json::from_str(&done.text).unwrap_or_else(|e| panic!("{:?}: {e}", done.text));
            assert_eq!(call["tool"], "play");
            for value in call["arguments"].as_object().expect("a map").values() {
                let value = value.as_str().expect("text");
                // A control character is cut behind its backslash: still JSON, though not always a span.
                assert!(
                    !value.trim().is_empty() && (is_span(value, said) || said.contains('\t')),
                    "{value:?} of {said:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn names_come_from_the_request_and_a_template_for_mappings_is_not_refused_for_a_probe_of_text() {
    let specialist = loaded(METHODS);
    let content = json!({"methods": {"Rides_1": {"GetRide": ["to"]}, "Café \"1\"": {"Böök": []}}, "names": ["to", "a b"], "turns": ["to Newark", "now"]});
    let Value::Object(map) = content else { panic!("a map") };
    for seed in 0..8 {
        let asked = Ask {
            prompt: Prompt::Json(map.clone()),
            ..ask("echo", "", hot(seed))
        };
        let text = answer(&specialist, asked).await.text;
        assert!(
            text.starts_with("Rides_1.GetRide(") || text.starts_with("Café \"1\".Böök("),
            "{text:?}"
        );
    }
    // What of it is no grammar is told too.
    let Value::Object(odd) = json!({"methods": {"A\u{7f}": {"B": []}}, "names": ["to"], "turns": []}) else {
        panic!("a map")
    };
    let asked = Ask {
        prompt: Prompt::Json(odd),
        ..ask("echo", "", hot(0))
    };
    let error = specialist.generate(asked).await.expect_err("refused");
    assert!(error.to_string().contains("does not compile for it"), "{error}");
    // A text has no methods: that is the request's fault, and its answer says which form could not be made.
    let error = specialist
        .generate(ask("echo", "just text", hot(0)))
        .await
        .expect_err("refused");
    assert!(
        matches!(&error, Error::Invalid { field, .. } if field == "prompt"),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("form.lark.jinja cannot be made of it"),
        "{error}"
    );
}

#[tokio::test]
async fn a_schema_beside_a_grammar_is_told_and_the_grammar_holds() {
    let copy = Copy::of("tiny_decoder");
    copy.write("call.lark", b"start: \"{\\\"fixed\\\": true}\"\n");
    copy.edit(
        "1/card.toml",
        "schema = \"output.schema.json\"",
        "schema = \"output.schema.json\"\ngrammar = \"call.lark\"",
    );
    let specialist = copy.load(1).expect("loads");
    assert!(specialist.task("call").expect("served").output_schema.is_some());
    let done = answer(&specialist, ask("call", "hello", hot(1))).await;
    assert_eq!((done.text.as_str(), done.finish), ("{\"fixed\": true}", Finish::Stop));
}

#[tokio::test]
async fn a_requests_own_form_wins_over_the_template() {
    let specialist = loaded(PLAN);
    let own = |form| Ask {
        form: Some(form),
        ..ask("echo", "play some jazz", hot(3))
    };
    let done = answer(&specialist, own(Form::Lark("start: \"mine\"".into()))).await;
    assert_eq!(done.text, "mine");
    let free = answer(&specialist, own(Form::Free)).await;
    assert!(!free.text.contains("tool_call"), "{:?}", free.text);
}

#[test]
fn a_template_that_is_broken_whatever_the_request_fails_the_load() {
    let broken = [
        (
            "{% for x in %}",
            "form.lark.jinja of tiny_decoder@1: it does not compile",
        ),
        ("start: {{ messages[-1].content | tolark }}", "unknown filter"),
        ("start: {{ shout(messages) }}", "unknown function"),
        (
            "{% for a in range(90000) %}{% for b in range(90000) %}x{% endfor %}{% endfor %}",
            "out of fuel",
        ),
        (
            "start: WORD\nWORDS: %regex { \"substring_words\": {{ messages[-1].content | tojson }} }",
            "does not compile for it",
        ),
        ("", "does not compile for it"),
    ];
    for (grammar, wanted) in broken {
        let told = refused(grammar);
        assert!(told.contains(wanted), "{grammar}: {told}");
    }
}

#[test]
fn the_probe_is_made_up_from_the_input_schema() {
    let typo = METHODS.replace("VALUE: ", "VALU: ");
    let schema = json!({"type": "object", "$defs": {"names": {"type": "array", "items": {"type": "string"}}}, "properties": {
        "methods": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": {"$ref": "#/$defs/names"}}},
        "names": {"$ref": "#/$defs/names"}, "turns": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    }});
    let with_schema = |grammar: &str| {
        let copy = folder("form.lark.jinja", grammar);
        copy.write("input.schema.json", schema.to_string().as_bytes());
        copy.edit(
            "1/card.toml",
            "[limits]",
            "[input.echo]\nschema = \"input.schema.json\"\n\n[limits]",
        );
        copy.load(1).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(with_schema(METHODS), Ok(()));
    assert!(
        with_schema(&typo)
            .expect_err("refused")
            .contains("does not compile for it")
    );
    // Without the schema nobody can tell: a line of text is no request for it.
    folder("form.lark.jinja", &typo).load(1).map(drop).expect("loads");
}

#[tokio::test]
async fn a_form_that_grows_past_all_measure_is_refused() {
    let specialist = loaded(
        "start: {% for i in range(600) %}{{ messages[-1].content | tojson }}{% if not loop.last %} | {% endif %}{% endfor %}\n",
    );
    let error = specialist
        .generate(ask("echo", &"word ".repeat(60), hot(0)))
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("a grammar has at most 131072"), "{error}");
    answer(&specialist, ask("echo", "word", hot(0))).await;
}
