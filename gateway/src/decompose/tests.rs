use super::*;
use crate::admit::{Catalogue, Known};
use serde_json::json;
use shoal_kit::config::MeshConfig;
use std::collections::BTreeSet;

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
