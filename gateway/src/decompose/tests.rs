use super::{
    intent::{Fork, Routed, Turn},
    *,
};
use crate::admit::{Catalogue, Known};
use serde_json::json;
use shoal_kit::config::MeshConfig;
use std::{collections::BTreeSet, sync::Arc};

struct Mesh;

impl Catalogue for Mesh {
    fn tasks(&self) -> Vec<&str> {
        vec!["plan", "tool_call"]
    }
    fn tool(&self, name: &str) -> Known {
        if name == "S.M" {
            Known::Registered(None)
        } else {
            Known::Unknown(vec!["S.M".into()])
        }
    }
}

fn signature(service: &str, method: &str, parameters: &[&str]) -> v1::MethodSignature {
    v1::MethodSignature {
        service: service.into(),
        method: method.into(),
        parameters: parameters.iter().map(|p| (*p).to_owned()).collect(),
    }
}

#[test]
fn a_goal_in_words_goes_as_it_is_and_a_conversation_with_its_methods_in_order() {
    let config = MeshConfig::default();
    let registry = Registry::build(&config).expect("registry");
    let words = v1::Goal {
        text: "play jazz".into(),
        ..v1::Goal::default()
    };
    assert_eq!(
        question(&words, &config.gateway, &registry),
        ("plan", Input::Text("play jazz".into()))
    );
    let conversation = v1::Goal {
        turns: vec!["hi".into(), "a table".into()],
        methods: vec![
            signature("B", "Y", &["p", "q"]),
            signature("A", "X", &[]),
            signature("B", "Z", &["r"]),
        ],
        ..v1::Goal::default()
    };
    let (task, input) = question(&conversation, &config.gateway, &registry);
    assert_eq!(task, "episode");
    assert_eq!(
        input.text(),
        r#"{"methods":{"B":{"Y":["p","q"],"Z":["r"]},"A":{"X":[]}},"turns":["hi","a table"]}"#
    );
    assert_eq!(input.json()["methods"]["B"], json!({"Y": ["p", "q"], "Z": ["r"]}));
}

#[test]
fn a_text_is_runnable_only_if_every_step_of_it_could_run() {
    let config = MeshConfig::default().gateway;
    let none = BTreeSet::new();
    let admission = Admission {
        config: &config,
        catalogue: &Mesh,
        client_tools: &none,
    };
    let any = v1::Goal::default();
    let only_n = v1::Goal {
        methods: vec![signature("S", "N", &[])],
        ..v1::Goal::default()
    };
    assert_eq!(runnable("1. tool_call: a\n2. S.M(x=$1.y)", &any, &admission), Ok(()));
    for (text, goal, says) in [
        ("hello", &any, "line 1"),
        ("1. nobody: a", &any, "no task `nobody`"),
        ("1. S.Unknown()", &any, "no tool `S.Unknown`"),
        ("1. S.M()", &only_n, "none of the goal's methods"),
    ] {
        let said = runnable(text, goal, &admission).expect_err(text);
        assert!(said.contains(says), "{text}: {said}");
    }
}

/// A mesh that maps two intents, with one service registered.
fn intents() -> (config::Gateway, Registry) {
    let mut config = MeshConfig::default();
    for (label, task, services) in [
        ("book_flight", "episode", vec!["Flights_1".to_owned()]),
        ("book_hotel", "episode", vec!["Hotels_1".to_owned()]),
        ("weather", "tool_call", vec![]),
        ("play_music", "plan", vec![]),
    ] {
        let intent = config::Intent {
            task: task.into(),
            services,
        };
        config.gateway.intents.insert(label.into(), intent);
    }
    let registry = Registry::build(&config).expect("registry");
    let server = Arc::new(crate::tools::Server::new(
        "s",
        &config::ToolServer::default(),
        &config.gateway,
    ));
    let tool = |name: &str| crate::tools::Tool {
        name: name.into(),
        server: server.clone(),
        idempotent: true,
        input: None,
        output: None,
        parameters: vec!["origin".into()],
    };
    registry.set_tools("s", vec![tool("Flights_1.Search"), tool("Flights_10.Search")]);
    (config.gateway, registry)
}

fn words(text: &str) -> v1::Goal {
    v1::Goal {
        text: text.into(),
        ..v1::Goal::default()
    }
}

/// What becomes of a goal that is one request of this label.
fn routed(goal: &v1::Goal, label: &str, (config, registry): &(config::Gateway, Registry)) -> Option<Routed> {
    let intent = config.intents.get(label)?;
    intent::routed(goal, intent, config, registry)
}

#[test]
fn an_intent_makes_of_a_goal_a_conversation_with_its_services_tools_or_one_step_or_nothing_new() {
    let mesh = intents();
    let goal = words("to ${1.x} for $5");
    let flight = v1::Goal {
        turns: vec!["to ${1.x} for $5".into()],
        methods: vec![signature("Flights_1", "Search", &["origin"])],
        ..v1::Goal::default()
    };
    assert_eq!(routed(&goal, "book_flight", &mesh), Some(Routed::Goal(flight)));
    let Some(Routed::Step(step)) = routed(&goal, "weather", &mesh) else {
        panic!("one step")
    };
    assert_eq!(
        (text::print(&step).as_str(), step.depends_on().len()),
        ("1. tool_call: to $${1.x} for $$5", 0)
    );
    // Planned as before: the task that plans anyway, services that nobody offers now, a label that nobody mapped.
    for label in ["play_music", "book_hotel", "tell_joke"] {
        assert_eq!(routed(&goal, label, &mesh), None, "{label}");
    }
}

#[test]
fn an_intents_services_add_nothing_to_the_methods_that_a_goal_names() {
    let mesh = intents();
    let naming = |service: &str, method: &str| v1::Goal {
        methods: vec![signature(service, method, &["to"]), signature("Else_1", "Do", &[])],
        ..words("fly")
    };
    let narrowed = v1::Goal {
        turns: vec!["fly".into()],
        methods: vec![signature("Flights_1", "Search", &["to"])],
        ..v1::Goal::default()
    };
    let goal = naming("Flights_1", "Search");
    assert_eq!(routed(&goal, "book_flight", &mesh), Some(Routed::Goal(narrowed)));
    for (service, method) in [("Flights_1", "Book"), ("Flights_10", "Search")] {
        let goal = naming(service, method);
        assert_eq!(
            routed(&goal, "book_flight", &mesh),
            None,
            "none of the intent's is left"
        );
    }
}

#[test]
fn an_intent_waits_for_the_planners_end_or_its_second_step_and_is_followed_only_where_there_is_none() {
    let (asked, sure) = (Fork::Asked(words("fly")), Fork::Sure(Routed::Goal(words("fly"))));
    for (steps, ended, of_asked, of_sure) in [
        (0, false, Turn::Wait, Turn::Wait),
        (1, false, Turn::Wait, Turn::Wait),
        (1, true, Turn::Wait, Turn::Follow),
        (2, false, Turn::Plan, Turn::Plan),
        (3, true, Turn::Plan, Turn::Plan),
    ] {
        let turns = (asked.turn(steps, ended), sure.turn(steps, ended));
        assert_eq!(turns, (of_asked, of_sure), "{steps}, {ended}");
    }
}

#[test]
fn only_a_goal_in_words_has_an_intent_to_ask_for_and_only_a_sure_answer_is_one() {
    let (config, _) = intents();
    assert_eq!(intent::task(&words("fly"), &config), Some("route"));
    let conversation = v1::Goal {
        turns: vec!["fly".into()],
        ..v1::Goal::default()
    };
    assert_eq!(intent::task(&conversation, &config), None);
    assert_eq!(intent::task(&words("fly"), &config::Gateway::default()), None);
    let answer = |label: &str, confidence: Option<f64>| v1::NodeResult {
        target: "route".into(),
        output_json: label.into(),
        decisions: vec![v1::Decision {
            target: "route".into(),
            confidence,
            threshold: Some(0.6),
            ..v1::Decision::default()
        }],
        ..v1::NodeResult::default()
    };
    for (label, confidence, sure) in [
        ("\"weather\"", Some(0.6), true),
        ("\"weather\"", None, true),
        ("\"weather\"", Some(0.59), false),
        ("\"oos\"", Some(0.9), false),
        ("", None, false),
    ] {
        assert_eq!(
            intent::sure(&answer(label, confidence), &config).is_some(),
            sure,
            "{label} {confidence:?}"
        );
    }
}
