//! What an answer must say: `[output.TASK] required = "FILE"`, from the folder to the answer.
use crate::{
    folders::Copy,
    stub::{self, Stub},
    world::{answer, ask, load_with, shipped},
};
use serde_json::{Value, json};
use shoal_specialist::{
    constrain::{Compiler, Required},
    engine::{Event, Finish, Request},
    folder::Form,
    prompt::Prompt,
    sampling::Sampling,
    specialist::{Ask, Specialist},
    vocabulary::Vocabulary,
};
use tokenizers::Tokenizer;

/// The answer may end after "yes", and may not before what the prompt says.
const GRAMMAR: &str = r#"start: "yes" (" and " /[a-z]+/ ".")*"#;
const REQUIRED: &str = r#"[{"text": {{ messages[-1].content | tojson }}, "say": [{{ (" and " ~ messages[-1].content ~ ".") | tojson }}]}]"#;

/// The tiny decoder whose task `echo` is held to these.
fn folder(grammar: &str, required: &str) -> Copy {
    let copy = Copy::of("tiny_decoder");
    copy.write("form.lark", grammar.as_bytes());
    copy.write("said.jinja", required.as_bytes());
    copy.edit(
        "1/card.toml",
        "[output.call]",
        "[output.echo]\ngrammar = \"form.lark\"\nrequired = \"said.jinja\"\n\n[output.call]",
    );
    copy
}

fn loaded(grammar: &str, required: &str) -> Specialist {
    folder(grammar, required).load(4).expect("loads")
}

#[tokio::test]
async fn an_answer_does_not_end_before_it_has_said_what_it_must() {
    let specialist = loaded(GRAMMAR, REQUIRED);
    for seed in 0..6 {
        let sampling = Sampling {
            temperature: if seed == 0 { 0.0 } else { 1.5 },
            seed,
            ..Sampling::greedy(60)
        };
        let done = answer(&specialist, ask("echo", "never", sampling)).await;
        if done.finish == Finish::Stop {
            assert!(done.text.contains(" and never."), "{}", done.text);
        }
    }
}

#[tokio::test]
async fn it_ends_where_its_grammar_says_all_and_at_its_limit_and_at_a_stop_string() {
    let specialist = loaded(r#"start: "yes""#, REQUIRED);
    let done = answer(&specialist, ask("echo", "never", Sampling::greedy(60))).await;
    assert_eq!((done.text.as_str(), done.finish), ("yes", Finish::Stop));

    let specialist = loaded(r#"start: "yes" (" and never.")?"#, REQUIRED);
    let whole = answer(&specialist, ask("echo", "never", Sampling::greedy(60))).await;
    assert_eq!((whole.text.as_str(), whole.finish), ("yes and never.", Finish::Stop));
    let short = answer(
        &specialist,
        ask("echo", "never", Sampling::greedy(whole.tokens.len() - 1)),
    )
    .await;
    assert_eq!(short.finish, Finish::Length);
    assert!(whole.text.starts_with(&short.text), "{}", short.text);

    let sampling = Sampling {
        stop: vec![" nev".into()],
        ..Sampling::greedy(60)
    };
    let mut ticket = specialist
        .generate(ask("echo", "never", sampling))
        .await
        .expect("admitted");
    let mut sent = String::new();
    let done = loop {
        match ticket.next().await {
            Event::Delta(text) => sent.push_str(&text),
            Event::Done(done) => break done,
            Event::Failed(error) => panic!("{error}"),
        }
    };
    assert_eq!(
        (sent.as_str(), done.text.as_str(), done.finish),
        ("yes and", "yes and", Finish::Stop)
    );
}

#[tokio::test]
async fn a_request_with_a_form_of_its_own_must_say_nothing() {
    let specialist = loaded(GRAMMAR, REQUIRED);
    let own = Ask {
        form: Some(Form::Lark(r#"start: "no" (" and never.")?"#.into())),
        ..ask("echo", "ever", Sampling::greedy(60))
    };
    assert!(!answer(&specialist, own).await.text.contains("and ever"));
}

#[tokio::test]
async fn a_template_that_makes_no_list_is_refused_where_it_is_found() {
    let told = folder(GRAMMAR, r#"{"text": "x"}"#)
        .load(1)
        .map(drop)
        .expect_err("no list")
        .to_string();
    assert!(told.contains("said.jinja") && told.contains("no JSON list"), "{told}");
    let told = folder(GRAMMAR, "{% if %}")
        .load(1)
        .map(drop)
        .expect_err("no template")
        .to_string();
    assert!(told.contains("said.jinja"), "{told}");
    // Only some requests make none: those are refused.
    let specialist = loaded(GRAMMAR, r#"{{ "[]" if messages[-1].content != "odd" else "[" }}"#);
    let refused = specialist.generate(ask("echo", "odd", Sampling::greedy(9))).await;
    let told = refused.map(drop).expect_err("refused").to_string();
    assert!(told.contains("said.jinja"), "{told}");
    answer(&specialist, ask("echo", "even", Sampling::greedy(9))).await;
}

/// Over a model whose every next token is known.
#[tokio::test]
async fn the_model_goes_on_after_a_sentence_and_its_confidence_tells_of_it() {
    let prompt = [3, 1, 4];
    let eos = stub::alone(&prompt, 6)[5];
    let say: Vec<u32> = (1..=26).filter(|t| *t != eos).take(3).collect();
    let list = r#"[{"text": "1", "say": ["say"]}]"#;

    let (mut history, mut wanted, mut forced) = (prompt.to_vec(), Vec::new(), false);
    while wanted.len() < 40 {
        let next = stub::following(&history);
        let told = match next == eos {
            true if forced => break,
            true => say.clone(),
            false => vec![next],
        };
        forced |= next == eos;
        history.extend(&told);
        wanted.extend(told);
    }
    wanted.truncate(40);

    let engine = stub::ending(Stub::new(2), 1000, eos);
    let ask = |required| Request {
        required,
        ..stub::request(&prompt, 40, None)
    };
    let helped = Required::parse(list, |_| say.clone()).expect("a list");
    let done = engine
        .submit(ask(helped))
        .expect("admitted")
        .complete()
        .await
        .expect("answered");
    assert!(forced && done.tokens == wanted, "{:?} {wanted:?}", done.tokens);
    assert!(
        (done.confidence.to_wire().margin + 1.0).abs() < 1e-6,
        "another token was likelier"
    );
    let free = engine.submit(ask(Required::default())).expect("admitted");
    let free = free.complete().await.expect("answered");
    assert!(free.tokens.len() < 6 && free.confidence.to_wire().margin > 0.9);
}

#[test]
fn a_sentence_has_no_control_token_whatever_it_reads_like() {
    let root = Copy::of("tiny_decoder");
    let text = std::fs::read_to_string(root.path("1/tokenizer.json")).expect("there");
    let vocabulary = Vocabulary::from_tokenizer_json(&text).expect("parses");
    let tokenizer = Tokenizer::from_bytes(&text).expect("a tokenizer");
    let special: Vec<(u32, String)> = vocabulary
        .pieces()
        .iter()
        .zip(0..)
        .filter(|(piece, _)| piece.special)
        .map(|(piece, id)| (id, String::from_utf8_lossy(&piece.bytes).into_owned()))
        .collect();
    assert!(!special.is_empty());
    let eos: Vec<u32> = special.iter().map(|(id, _)| *id).take(1).collect();
    let compiler = Compiler::new(&vocabulary, tokenizer, &eos, vocabulary.pieces().len()).expect("compiles");
    for (_, name) in &special {
        let said = format!("a{name} b");
        let tokens = compiler.tokens(&said);
        assert!(
            tokens.iter().all(|t| special.iter().all(|(id, _)| id != t)),
            "{tokens:?}"
        );
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|t| vocabulary.piece(*t).expect("known").bytes.clone())
            .collect();
        assert_eq!(bytes, said.as_bytes());
    }
}

/// Its wording changes with every training, and is not held here.
#[tokio::test]
async fn the_shipped_compose_says_every_value() {
    let specialist = load_with(&shipped("compose"), 1, 0);
    let cars = [
        ("pickup_location", "Intercity Terminal"),
        ("pickup_date", "March 10th"),
        ("type", "Full-size"),
        ("car_name", "Cherokee"),
    ];
    // Nobody ever said these, and of so many a model of five million parameters forgets some.
    let odd = [
        ("pickup_location", "Zyx-77 Quay"),
        ("pickup_date", "the 31st of Brumaire"),
        ("pickup_time", "29:61"),
        ("dropoff_date", "never"),
        ("type", "Ovoid"),
        ("car_name", "Qwertz 9000"),
        ("total_price", "$0.07"),
    ];
    for offered in [&cars[..], &odd[..]] {
        let acts: Vec<Value> = offered
            .iter()
            .map(|(slot, value)| json!({"act": "OFFER", "slot": slot, "values": [value]}))
            .collect();
        let Value::Object(acts) = json!({"service": "RentalCars_1", "acts": acts}) else {
            unreachable!()
        };
        let ask = Ask {
            prompt: Prompt::Json(acts),
            ..ask("compose", "", Sampling::greedy(128))
        };
        let done = answer(&specialist, ask).await;
        let said = done.text.to_lowercase();
        for (_, value) in offered {
            assert!(said.contains(&value.to_lowercase()), "{value} is not in: {}", done.text);
        }
        assert_eq!(done.finish, Finish::Stop, "{}", done.text);
    }
}
