use super::*;
use proptest::prelude::*;
use serde_json::json;

fn fill(text: &str, outputs: &Value) -> Result<Value, Missing> {
    Template::parse(text).expect("template").fill(&|id| outputs.get(id))
}

#[test]
fn a_lone_reference_takes_the_value_with_its_type() {
    let outputs = json!({"find": {"seats": 4, "rows": [{"name": "Ada"}]}});
    assert_eq!(fill("${find.seats}", &outputs), Ok(json!(4)));
    assert_eq!(fill("${find}", &outputs), Ok(outputs["find"].clone()));
    assert_eq!(fill("${find.rows.0.name}", &outputs), Ok(json!("Ada")));
}

#[test]
fn several_references_in_one_text_are_all_filled() {
    let outputs = json!({"a": {"x": "Newark", "n": 2}, "b": "noon"});
    assert_eq!(
        fill("to ${a.x} at ${b} for ${a.n}, $$5, $6", &outputs),
        Ok(json!("to Newark at noon for 2, $5, $6"))
    );
}

#[test]
fn a_missing_field_is_named_with_those_that_are_there() {
    let said = fill("${a.street}", &json!({"a": {"address": 1, "city": 2}}))
        .expect_err("missing")
        .to_string();
    assert_eq!(
        said,
        "${a.street}: the output of `a` has no `street`; it has address, city"
    );
    assert!(matches!(fill("${b}", &json!({})), Err(Missing::Node { .. })));
}

#[test]
fn what_is_no_reference_is_refused() {
    assert_eq!(Template::parse("x ${a"), Err(Malformed::Open { at: 2 }));
    for bad in ["${}", "${a b}", "${a.}", "${.a}", "${a..b}"] {
        assert!(matches!(Template::parse(bad), Err(Malformed::Inner { .. })), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_and_never_panics(text in "\\PC{0,60}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
        }
    }

    #[test]
    fn text_without_references_comes_out_as_it_went_in(text in "[^$]{0,40}") {
        let filled = Template::parse(&text).expect("no dollar").fill(&|_| None);
        prop_assert_eq!(filled, Ok(Value::String(text)));
    }

    #[test]
    fn references_in_nested_json_are_all_found(names in prop::collection::vec("[a-z]{1,8}", 1..6)) {
        let value = json!({"l": names.iter().map(|n| json!({"k": format!("x${{{n}.f}}y")})).collect::<Vec<_>>()});
        let json = Json::parse(&value).expect("templates");
        let found: Vec<_> = json.references().into_iter().map(|r| r.node.clone()).collect();
        prop_assert_eq!(found, names);
        prop_assert_eq!(json.written(), value);
    }
}

#[test]
fn the_size_is_known_before_anything_is_filled() {
    let large = json!({"a": {"x": "y".repeat(1000)}, "b": [1, true, null, "z"]});
    let get = |id: &str| large.get(id);
    let bomb = Template::parse(&"${a.x}".repeat(1000)).expect("template");
    assert!(!bomb.fits(&get, 1_000_000) && bomb.fits(&get, 1_010_000));
    let without_gone = Json::parse(&json!({"k": ["${a.x} and ${b}", 7]})).expect("templates");
    let filled = without_gone.fill(&get).expect("filled").to_string().len();
    assert!(!without_gone.fits(&get, filled - 32), "{filled}");
    let call = Json::parse(&json!({"k": ["${a.x} and ${b}", 7], "m": {"n": "${gone}"}})).expect("templates");
    assert!(call.fits(&get, 1200), "what is missing weighs nothing");
}

#[test]
fn asking_for_the_size_of_many_references_to_a_large_output_takes_no_time() {
    let list = Value::from(vec![7; 100_000]);
    let get = |id: &str| (id == "a").then_some(&list);
    let began = std::time::Instant::now();
    // A walk of the list for each of them took seconds, and a list of names for each that is missing minutes.
    let (whole, missing) = ("${a}".repeat(20_000), "${a.x}".repeat(20_000));
    assert!(!Template::parse(&whole).expect("template").fits(&get, 1 << 20));
    let missing = Template::parse(&missing).expect("template");
    assert!(missing.fits(&get, 1 << 20));
    assert!(
        began.elapsed() < std::time::Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let said = missing.fill(&get).expect_err("missing").to_string();
    assert!(
        said.contains("has no `x`; it has 0, 1, ") && said.ends_with("15 and 99984 more"),
        "{said}"
    );
}

/// A model's input, filled.
fn prompt(text: &str, outputs: &Value) -> Value {
    let template = Template::parse(text).expect("template");
    template.fill_prompt(&|id| outputs.get(id)).expect("filled")
}

#[test]
fn a_prompt_that_is_an_object_is_filled_string_by_string() {
    let outputs = json!({"1": "say \"hi\"\n", "2": {"n": 7}});
    assert_eq!(
        prompt(
            r#"{"text": "${1}", "of": ["a ${2.n}", "${2}"], "cost": "$$5"}"#,
            &outputs
        ),
        json!({"text": "say \"hi\"\n", "of": ["a 7", {"n": 7}], "cost": "$5"})
    );
    // No object of strings: a bare reference is a value's text, as in any text.
    assert_eq!(prompt(r#"{"n": ${2.n}}"#, &outputs), json!(r#"{"n": 7}"#));
    // An escape that spells a reference, and a key that is one, are none that the plan's order knows of.
    for text in [r#"{"a": "${2.n}", "b": "\u0024{1}"}"#, r#"{"${1}": 1, "b": "${2.n}"}"#] {
        assert!(prompt(text, &outputs).is_string(), "{text}");
    }
    assert_eq!(prompt("it is ${2.n}", &outputs), json!("it is 7"));
}

proptest! {
    #[test]
    fn no_value_leaves_the_string_that_refers_to_it(said in "\\PC{0,30}|[\"\\\\,:{}a-z]{0,30}") {
        let outputs = json!({"1": said.clone()});
        let filled = prompt(r#"{"text": "so: ${1}", "labels": ["a"]}"#, &outputs);
        prop_assert_eq!(filled, json!({"text": format!("so: {said}"), "labels": ["a"]}));
    }
}
