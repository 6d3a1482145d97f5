use super::*;
use proptest::prelude::*;
use serde_json::json;

const PLAN: &str = r#"1. Restaurants_2.FindRestaurants(category="Coffeehouse", location="Newark")
2. Restaurants_2.ReserveRestaurant(restaurant_name=$1.restaurant_name, location="Newark", number_of_seats="2", time="11:30")
3. RideSharing_1.GetRide(destination=$1.address, note="for ${2.name} at $$5", riders=[1, "$1.x"])
4. tool_call: play some jazz while we wait"#;

#[test]
fn a_plan_is_read_with_its_edges_and_written_back_the_same() {
    let nodes = parse(PLAN).expect("plan");
    let edges: Vec<_> = nodes.iter().map(|n| (n.id.as_str(), n.depends_on())).collect();
    assert_eq!(
        edges,
        [("1", vec![]), ("2", vec!["1"]), ("3", vec!["1", "2"]), ("4", vec![])]
    );
    // `$1.x` inside a string is text: only `${1.x}` refers there, and the printer writes the dollar as `$$`.
    let written: Vec<_> = nodes.iter().map(print).collect();
    assert_eq!(parse(&written.join("\n")).expect("again"), nodes);
    assert_eq!(written[1], PLAN.lines().nth(1).expect("line 2"));
}

#[test]
fn steps_come_as_soon_as_their_line_ends_however_the_text_is_cut() {
    let mut lines = Lines::default();
    let mut seen = Vec::new();
    for (i, c) in PLAN.char_indices() {
        for node in lines.push(&c.to_string()).expect("plan") {
            assert_eq!(PLAN.as_bytes()[i], b'\n');
            seen.push(node);
        }
    }
    assert_eq!(seen.len(), 3);
    seen.extend(lines.finish().expect("last"));
    assert_eq!(seen, parse(PLAN).expect("plan"));
}

#[test]
fn what_a_model_garbles_is_told_with_line_and_column() {
    for (text, line, column, said) in [
        ("", 1, 1, "empty"),
        ("\n \n", 1, 1, "empty"),
        ("play jazz", 1, 1, "step number `1.`"),
        ("1. tool_call: a\n3. tool_call: b", 2, 1, "step number `2.`"),
        ("1.tool_call: a", 1, 2, "`. `"),
        ("1. : a", 1, 4, "`task: text`"),
        ("1. tool_call:  ", 1, 16, "the task's text"),
        ("1. A.B(", 1, 8, "an argument's name"),
        ("1. A.B(x=", 1, 10, "a value"),
        ("1. A.B(x=\"a\" y=\"b\")", 1, 14, "`,` or `)`"),
        ("1. A.B(x=\"a\", x=\"b\")", 1, 15, "given twice"),
        ("1. A.B(x=\"a", 1, 10, "no JSON value"),
        ("1. A.B(x=98765432109876543210)", 1, 10, "as a string"),
        ("1. A.B(y=1, x=[-98765432109876543210])", 1, 15, "as a string"),
        ("1. A.B() and more", 1, 10, "the end of the line"),
        ("1. A.B(x=$1.f)", 1, 10, "only an earlier step"),
        ("1. A.B(x=$2)", 1, 10, "only an earlier step"),
        ("1. A.B(x=\"${9.f}\")", 1, 10, "only an earlier step"),
        ("1. tool_call: to ${1.x}", 1, 15, "only an earlier step"),
        ("1. A.B(x=$)", 1, 10, "no reference"),
        ("1. A.B(x=\"${a b}\")", 1, 10, "no reference"),
    ] {
        let garbled = parse(text).expect_err(text);
        assert_eq!((garbled.line, garbled.column), (line, column), "{text:?}: {garbled}");
        assert!(garbled.message.contains(said), "{text:?}: {garbled}");
    }
}

#[test]
fn steps_take_the_shapes_of_the_task_data() {
    let nodes = parse("1. Banks_2.CheckBalance(account_type=\"checking $$5\")\n2. Banks_2.Pay(amount=$1.balance)\n3. tool_call: pay $5").expect("plan");
    assert_eq!(
        task_shape(&nodes),
        json!([
            {"id": 1, "service": "Banks_2", "method": "CheckBalance", "parameters": {"account_type": "checking $5"}},
            {"id": 2, "service": "Banks_2", "method": "Pay", "parameters": {"amount": "${1.balance}"}},
            {"task": "tool_call", "input": "pay $5"},
        ])
    );
}

#[test]
fn a_megabyte_is_read_in_time_that_grows_with_it_alone() {
    // Well under a second each on a free machine, in a debug build too; as squares they took 22 s and 33 s of a release build.
    let patience = std::time::Duration::from_secs(8);
    let began = std::time::Instant::now();
    assert!(
        parse(&"\n".repeat(1 << 20))
            .expect_err("no step")
            .message
            .contains("empty")
    );
    assert!(began.elapsed() < patience, "{:?} for lines", began.elapsed());
    let arguments: Vec<String> = (0..100_000).map(|i| format!("a{i}=1")).collect();
    let (text, began) = (format!("1. S.M({})", arguments.join(",")), std::time::Instant::now());
    assert_eq!(parse(&text).expect("a step").len(), 1);
    assert!(began.elapsed() < patience, "{:?} for arguments", began.elapsed());
}

#[test]
fn no_more_steps_are_read_than_somebody_takes_and_the_first_that_is_too_many() {
    let text: String = (1..=1000).map(|i| format!("{i}. t: x\n")).collect();
    assert_eq!(parse_past(256, &(text.clone() + "nonsense")).expect("257").len(), 257);
    assert_eq!(parse_past(1000, &text).expect("all").len(), 1000);
    assert!(parse_past(1000, "1. t: x\nnonsense").is_err());
    assert!(parse_past(1000, "").is_err());
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(|s| Value::from(s.replace('$', "$$")))
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..3).prop_map(|m| json!(m))
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_a_plan_or_garbled_and_never_a_panic(text in "(?s).{0,120}") {
        let _ = parse(&text);
    }

    #[test]
    fn near_plans_never_panic_either(text in "([0-9]{1,2}\\. [A-Za-z.]{0,6}[:(]?[a-z=$\"{}.,)\\\\0-9 ]{0,30}\n?){0,4}") {
        let _ = parse(&text);
    }

    #[test]
    fn what_is_written_is_read_back(fields in prop::collection::btree_map("[a-z_]{1,8}", values(), 0..4), input in "[a-zA-Z0-9,'?é$ ]{0,30}[a-z]") {
        let tool = Node::new("1", Kind::Tool { name: "S_1.M".into(), arguments: Json::parse(&json!(fields)).expect("escaped") });
        let model = Node::new("2", Kind::Model { task: "tool_call".into(), input: Template::parse(input.trim()).expect("no braces") });
        let text = format!("{}\n{}", print(&tool), print(&model));
        prop_assert_eq!(parse(&text).expect("printed"), vec![tool, model]);
    }
}
