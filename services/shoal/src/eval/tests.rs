//! The scorer against what score.py printed (fixtures/score/make.py says how), and against its oddities one by one.
use super::{
    pyjson::{self, Value, parse},
    rows,
    score::{Row, Task, report, right, weight},
};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/score").join(name)
}

#[test]
fn every_figure_equals_that_of_score_py_to_the_digit() {
    let expected = std::fs::read_to_string(fixture("expected.jsonl")).expect("expected");
    assert_eq!(expected.lines().count(), Task::ALL.len());
    for (task, expected) in Task::ALL.into_iter().zip(expected.lines()) {
        let gold = rows::gold(&fixture(&format!("{}.gold.jsonl", task.name()))).expect("gold");
        let said = rows::predictions(&fixture(&format!("{}.predictions.jsonl", task.name()))).expect("predictions");
        let output = |id: &String| said.get(id).cloned().unwrap_or(Value::None);
        let rows: Vec<Row> = gold
            .into_iter()
            .map(|g| Row {
                output: output(&g.id),
                gold: g.row,
            })
            .collect();
        assert_eq!(report(task, &rows).expect("scored").to_string(), expected);
    }
}

#[test]
fn the_rows_weights_add_up_to_the_score_that_the_interval_is_of() {
    for task in Task::ALL {
        let gold = rows::gold(&fixture(&format!("{}.gold.jsonl", task.name()))).expect("gold");
        let said = rows::predictions(&fixture(&format!("{}.predictions.jsonl", task.name()))).expect("predictions");
        let row = |g: rows::Gold| Row {
            output: said.get(&g.id).cloned().unwrap_or(Value::None),
            gold: g.row,
        };
        let rows: Vec<Row> = gold.into_iter().map(row).filter(Row::seen).collect();
        let (hit, of) = rows.iter().fold((0, 0), |sum, row| {
            let (hit, of) = weight(task, row).expect("weighed");
            (sum.0 + hit, sum.1 + of)
        });
        #[expect(clippy::cast_precision_loss, reason = "forty rows")]
        let score = hit as f64 / of as f64;
        assert_eq!(
            report(task, &rows).expect("scored").figures[0].1,
            Some(score),
            "{}",
            task.name()
        );
    }
}

#[test]
fn words_name_the_interval_what_others_have_and_rows_of_unseen_services_apart() {
    let rows = [
        row(r#"{"id": "a", "target": "play"}"#, "\"play\""),
        row(r#"{"id": "b", "target": "book", "seen": false}"#, "\"play\""),
    ];
    let scored = report(Task::Route, &rows).expect("scored");
    let lines = super::words(&scored, Some((0.25, 1.0)), Some((0.0, 0.0)));
    assert_eq!(
        lines[1],
        "  score                1.0000  95 % between 0.2500 and 1.0000"
    );
    assert_eq!(lines[2], "  oos_recall           -");
    assert_eq!(
        lines[3],
        "  beside it            score/oos_recall: SVM 0.910/0.145, MLP 0.935/0.474, BERT 0.969/0.403"
    );
    assert_eq!(
        lines[5],
        "  score                0.0000  95 % between 0.0000 and 0.0000"
    );
    assert_eq!(
        super::bounded(scored, Some((0.25, 1.0)), None).to_string(),
        r#"{"task": "route", "rows": 1, "score": 1.0, "oos_recall": null, "score_low": 0.25, "score_high": 1.0, "missing": 0, "unseen": {"rows": 1, "score": 0.0, "oos_recall": null, "score_low": null, "score_high": null}}"#
    );
}

fn row(gold: &str, output: &str) -> Row {
    Row {
        gold: parse(gold).expect("gold"),
        output: parse(output).expect("output"),
    }
}

fn episode(nodes: &str, output: &str) -> bool {
    let gold = format!("{{\"id\": \"e\", \"cross\": true, \"target\": {nodes}}}");
    right(Task::Episode, &row(&gold, output)).expect("scored")
}

const FIND: &str = r#"[{"id": 1, "service": "S", "method": "Find", "parameters": {"city": "Oslo"}, "result": {"name": "Ro", "place": "Ro"}},
    {"id": 2, "service": "S", "method": "Book", "parameters": {"name": "${1.name}"}, "result": {}}]"#;

fn calls(first: i64, name: &str) -> String {
    format!(
        r#"[{{"id": {first}, "service": "S", "method": "Find", "parameters": {{"city": "oslo."}}}},
            {{"id": 7, "service": "S", "method": "Book", "parameters": {{"name": "{name}"}}}}]"#
    )
}

#[test]
fn a_reference_is_worth_the_value_that_was_recorded() {
    assert!(episode(FIND, &calls(1, "${1.name}")));
    assert!(
        episode(FIND, &calls(1, "${1.place}")),
        "another field with the same value"
    );
    assert!(episode(FIND, &calls(4, "${4.name}")), "another numbering");
    assert!(episode(FIND, &calls(1, "ro")), "the value itself");
    assert!(!episode(FIND, &calls(1, "${1.city}")), "a field that was not recorded");
    assert!(!episode(FIND, &calls(1, "${2.name}")), "a node that does not exist");
    assert!(
        !episode(FIND, &calls(1, "to ${1.name}")),
        "a reference inside other text"
    );
}

#[test]
fn a_reference_reaches_only_an_earlier_step() {
    let reversed = r#"[{"id": 2, "service": "S", "method": "Book", "parameters": {"name": "${1.name}"}},
        {"id": 1, "service": "S", "method": "Find", "parameters": {"city": "Oslo"}}]"#;
    assert!(!episode(FIND, reversed));
    let straight = r#"[{"id": 1, "service": "S", "method": "Find", "parameters": {"city": "Oslo"}},
        {"id": 2, "service": "S", "method": "Book", "parameters": {"name": "${1.name}"}}]"#;
    assert!(episode(FIND, straight));
}

#[test]
fn two_episodes_that_name_a_call_twice_are_equal_as_none_is_equal_to_none() {
    let twice = |city: &str| {
        let node = |id: u8| {
            format!(r#"{{"id": {id}, "service": "S", "method": "M", "parameters": {{"c": "{city}"}}, "result": {{}}}}"#)
        };
        format!("[{}, {}]", node(1), node(2))
    };
    assert!(episode(&twice("Oslo"), &twice("Bergen")));
    assert!(!episode(FIND, &twice("Oslo")));
    assert!(!episode(&twice("Oslo"), "[]"));
}

#[test]
fn a_missing_tool_reads_none_and_a_missing_output_is_counted() {
    let gold = r#"{"id": "t", "target": {"tool": "None", "arguments": {}}}"#;
    let report = report(Task::ToolCall, &[row(gold, "{}"), row(gold, "null")])
        .expect("scored")
        .to_string();
    let expected = r#"{"task": "tool_call", "rows": 2, "score": 0.0, "tool": 1.0, "argument_f1": 1.0, "missing": 1}"#;
    assert_eq!(report, expected);
}

#[test]
fn rows_of_unseen_services_stand_apart_and_a_share_of_nothing_is_null() {
    let rows = [
        row(r#"{"id": "a", "target": "oos", "seen": false}"#, "\"oos\""),
        row(r#"{"id": "b", "target": "weather"}"#, "\"Weather\""),
    ];
    let expected = r#"{"task": "route", "rows": 1, "score": 0.0, "oos_recall": null, "missing": 0, "unseen": {"rows": 1, "score": null, "oos_recall": 1.0}}"#;
    assert_eq!(report(Task::Route, &rows).expect("scored").to_string(), expected);
}

#[test]
fn a_task_file_without_what_the_task_needs_is_refused_by_name() {
    let error = report(Task::Episode, &[row(r#"{"id": "e1", "target": [{"id": 1}]}"#, "null")]).expect_err("refused");
    assert!(
        error.to_string().contains("e1") && error.to_string().contains("result"),
        "{error}"
    );
}

#[test]
fn json_is_read_as_python_reads_it() {
    assert_eq!(parse("-0"), Ok(Value::Int("0".into())));
    assert_eq!(parse("[1e400]"), Ok(Value::List(vec![Value::Float(f64::INFINITY)])));
    assert_eq!(
        parse(r#"{"a": 1, "b": 2, "a": 3}"#).expect("json").get("a"),
        Some(&Value::Int("3".into()))
    );
    assert_eq!(parse(r#""\ud83d\ude00""#), Ok(Value::Str("😀".into())));
    assert!(matches!(parse("NaN"), Ok(Value::Float(f)) if f.is_nan()));
    for bad in [
        "",
        "01",
        "1.",
        "-",
        "[1,]",
        "{\"a\" 1}",
        "\"\t\"",
        "'a'",
        "nul",
        "1 2",
        "\u{feff}1",
        "\"\\ud8\"",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    assert!(parse(&("[".repeat(994) + &"]".repeat(994))).is_ok());
    assert!(parse(&("[".repeat(995) + &"]".repeat(995))).is_err());
    assert!(parse(&"1".repeat(4300)).is_ok() && parse(&"1".repeat(4301)).is_err());
}

#[test]
fn text_is_compared_as_score_py_compares_it() {
    use super::norm::{float, str_of, text};
    assert_eq!(text("  San\u{a0}Jose \u{1c}?! ,."), "san jose");
    assert_eq!(
        (float(1e16), float(1e-5), float(0.0001), float(-0.0)),
        ("1e+16".into(), "1e-05".into(), "0.0001".into(), "-0.0".into())
    );
    let value = parse(r#"{"a": [null, true, 1.0, "it's", "\"'", "\u200b\n", "\ud800"]}"#).expect("json");
    assert_eq!(
        str_of(&value),
        r#"{'a': [None, True, 1.0, "it's", '"\'', '\u200b\n', '\ud800']}"#
    );
    let deep = |n| pyjson::parse(&("[".repeat(n) + &"]".repeat(n))).expect("json");
    assert!(
        !deep(51).too_deep() && deep(52).too_deep(),
        "a value at level 50 is the last that counts"
    );
}

#[test]
fn a_call_that_a_step_yielded_is_no_step_of_the_plan() {
    let node = |id: &str, kind: &str, name: &str| crate::view::NodeView {
        id: id.into(),
        kind: kind.into(),
        name: name.into(),
        input: "play some jazz".into(),
        ..Default::default()
    };
    let plan = crate::view::PlanView {
        nodes: vec![
            node("planner", "model", "plan"),
            node("1", "model", "tool_call"),
            node("1-call", "tool", "PlayMusic"),
        ],
        ..Default::default()
    };
    let steps = super::ask::plan_output(&plan);
    assert_eq!(
        steps,
        serde_json::json!([{"task": "tool_call", "input": "play some jazz", "output": null}])
    );
}
