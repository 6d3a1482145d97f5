//! Output held to a form: it always parses and always validates, however unlikely the model finds it.
use crate::world::{answer, ask, load};
use serde_json::{Value, json};
use shoal_specialist::{
    Error,
    constrain::FORM_BYTES,
    engine::{Finish, queue::Urgency},
    folder::Form,
    sampling::Sampling,
    specialist::Ask,
};

fn hot(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.5,
        seed,
        ..Sampling::greedy(60)
    }
}

fn held(form: Form, seed: u64) -> Ask {
    Ask {
        form: Some(form),
        ..ask("echo", "hello world", hot(seed))
    }
}

#[tokio::test]
async fn the_cards_schema_holds_by_default() {
    let specialist = load("tiny_decoder", 8);
    let task = specialist.task("call").expect("served");
    let schema = task.output_schema.as_ref().expect("the card names one");
    let validator = jsonschema::validator_for(schema).expect("a schema");
    let answers = (0..24).map(|seed| answer(&specialist, ask("call", "book a table", hot(seed))));
    let mut complete = 0;
    for done in futures::future::join_all(answers).await {
        if done.finish == Finish::Stop {
            let value: Value = serde_json::from_str(&done.text).unwrap_or_else(|e| panic!("{:?}: {e}", done.text));
            assert!(validator.is_valid(&value), "{value}");
            complete += 1;
        }
    }
    assert!(complete >= 12, "only {complete} of 24 came to an end");
}

#[tokio::test]
async fn a_callers_schema_and_grammar_hold_too() {
    let specialist = load("tiny_decoder", 8);
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "yy"]}}, "required": ["a", "b"], "additionalProperties": false});
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let mut complete = 0;
    for seed in 0..8 {
        let done = answer(&specialist, held(Form::Schema(schema.clone()), seed)).await;
        // A hot sampler may fill its tokens up with the blanks that JSON allows.
        if done.finish == Finish::Stop {
            let value = serde_json::from_str(&done.text).unwrap_or_else(|e| panic!("{:?}: {e}", done.text));
            assert!(validator.is_valid(&value), "{value}");
            complete += 1;
        }
        let lark =
            "start: \"call \" name \"(\" [arg (\", \" arg)*] \")\"\nname: /[A-Z][a-z]{1,5}/\narg: \"é\" | \"b\"\n";
        let done = answer(&specialist, held(Form::Lark(lark.into()), seed)).await;
        let inside = done
            .text
            .strip_prefix("call ")
            .unwrap_or_else(|| panic!("{:?}", done.text));
        assert!(
            done.finish == Finish::Length || inside.ends_with(')'),
            "{:?}",
            done.text
        );
    }
    assert!(complete >= 5, "only {complete} of 8 came to an end");
}

#[tokio::test]
async fn guidance_options_inside_a_schema_are_honoured() {
    let specialist = load("tiny_decoder", 2);
    let tight = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a", "b"],
        "additionalProperties": false, "x-guidance": {"item_separator": ",", "key_separator": ":", "whitespace_flexible": false}});
    for seed in 0..6 {
        let done = answer(&specialist, held(Form::Schema(tight.clone()), seed)).await;
        assert!(!done.text.contains([' ', '\n', '\t']), "{:?}", done.text);
    }
}

#[tokio::test]
async fn an_answer_that_max_tokens_cuts_says_length_and_one_that_just_fits_says_stop() {
    let specialist = load("tiny_decoder", 2);
    let form = Form::Lark("start: \"abcdefghijklmnopqrstuvwxyz\"".into());
    let whole = answer(&specialist, held(form.clone(), 1)).await;
    assert_eq!(
        (whole.finish, whole.text.as_str()),
        (Finish::Stop, "abcdefghijklmnopqrstuvwxyz")
    );
    let with = |max_tokens| Ask {
        form: Some(form.clone()),
        ..ask("echo", "hello world", Sampling { max_tokens, ..hot(1) })
    };
    let fits = answer(&specialist, with(whole.tokens.len())).await;
    assert_eq!((fits.finish, fits.text), (Finish::Stop, whole.text.clone()));
    let cut = answer(&specialist, with(whole.tokens.len() - 1)).await;
    assert_eq!(cut.finish, Finish::Length);
    assert!(whole.text.starts_with(&cut.text));
}

#[tokio::test]
async fn free_text_is_free_where_the_card_names_a_schema() {
    let specialist = load("tiny_decoder", 2);
    let free = Ask {
        form: Some(Form::Free),
        ..ask("call", "hello", Sampling::greedy(16))
    };
    let done = answer(&specialist, free).await;
    assert!(
        serde_json::from_str::<Value>(&done.text).is_err(),
        "random weights speak no JSON: {:?}",
        done.text
    );
}

#[tokio::test]
async fn a_form_that_does_not_compile_is_the_callers_to_mend() {
    let specialist = load("tiny_decoder", 1);
    let long = format!("start: \"{}\"", "x".repeat(FORM_BYTES));
    for bad in [
        Form::Lark("start: missing".into()),
        Form::Lark(String::new()),
        Form::Schema(json!({"type": "nonsense"})),
        Form::Lark(long),
    ] {
        match specialist.generate(held(bad.clone(), 0)).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, "constraint"),
            other => panic!("{bad:?}: {other:?}"),
        }
    }
}

/// Definitions that each lead to the next, as many as a form may hold.
fn chain(start: &str, link: impl Fn(usize) -> String, end: impl Fn(usize) -> String) -> String {
    let mut text = start.to_owned();
    for i in 0.. {
        let next = link(i);
        if text.len() + next.len() + end(i).len() > FORM_BYTES {
            text += &end(i);
            break;
        }
        text += &next;
    }
    text
}

#[tokio::test]
async fn a_form_that_recurses_for_ever_or_explodes_is_answered_and_takes_nothing_with_it() {
    let specialist = load("tiny_decoder", 2);
    let rules = chain(
        "start: a0\n",
        |i| format!("a{i}:a{}\n", i + 1),
        |i| format!("a{i}:\"y\"\n"),
    );
    let tokens = chain(
        "start: A0\n",
        |i| format!("A{i}:\"x\"A{}\n", i + 1),
        |i| format!("A{i}:\"y\"\n"),
    );
    let refs = |link: fn(usize) -> String| {
        let text = chain("{\"$ref\":\"#/$defs/a0\",\"$defs\":{", link, |i| {
            format!("\"a{i}\":{{\"type\":\"null\"}}}}}}")
        });
        Form::Schema(serde_json::from_str(&text).expect("JSON"))
    };
    let repeats = chain(
        "start:a0\n",
        |i| format!("a{i}:(a{})+\n", i + 1),
        |i| format!("a{i}:\"y\"\n"),
    );
    let forms = [
        ("repeats", Form::Lark(repeats)),
        ("rules", Form::Lark(rules)),
        ("tokens", Form::Lark(tokens)),
        (
            "refs",
            refs(|i| format!("\"a{i}\":{{\"$ref\":\"#/$defs/a{}\"}},", i + 1)),
        ),
        (
            "items",
            refs(|i| format!("\"a{i}\":{{\"items\":{{\"$ref\":\"#/$defs/a{}\"}}}},", i + 1)),
        ),
        (
            "any of",
            refs(|i| format!("\"a{i}\":{{\"anyOf\":[{{\"$ref\":\"#/$defs/a{}\"}},{{}}]}},", i + 1)),
        ),
        (
            "counted patterns joined",
            Form::Lark("start: A\nA: /(.*a.{300})/ & /(.*b.{299}c?)/ & /.*c.{200}.*/\n".into()),
        ),
        (
            "nested groups",
            Form::Lark(format!("start: {}\"x\"{}", "(".repeat(9000), ")".repeat(9000))),
        ),
    ];
    for (name, form) in forms {
        match specialist.generate(held(form, 0)).await {
            // Its answer may well end in an error of the grammar's own limits; it must end.
            Ok(ticket) => drop(ticket.complete().await),
            Err(Error::Invalid { field, .. }) => assert_eq!(field, "constraint"),
            Err(other) => panic!("{name}: {other:?}"),
        }
    }
    let done = answer(&specialist, held(Form::Lark("start: \"still here\"".into()), 0)).await;
    assert_eq!(done.text, "still here");
}

#[tokio::test]
async fn a_deadline_holds_while_a_form_is_compiled() {
    let specialist = load("tiny_decoder", 1);
    let late = Ask {
        urgency: Urgency::until(Some(std::time::Instant::now())),
        ..held(Form::Lark("start: \"x\"".into()), 0)
    };
    assert!(matches!(
        specialist.generate(late).await,
        Err(Error::Expired { generated: 0 })
    ));
}
