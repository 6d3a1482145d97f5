//! What any engine must do. A later one (PostgreSQL) is added by one more call of [`run`].
use super::{Error, Filter, Store};
use shoal_proto::v1::{self, submit_feedback_request::Value};
use std::{
    any::Any,
    time::{Duration, UNIX_EPOCH},
};

pub(crate) fn outcome(id: &str, plan: &str, node: &str) -> v1::Outcome {
    v1::Outcome {
        outcome_id: id.into(),
        plan_id: plan.into(),
        node_id: node.into(),
        kind: "model".into(),
        name: "tool_call".into(),
        model: "tool_call@1".into(),
        input_json: "\"play jazz\"".into(),
        output_json: r#"{"tool":"PlayMusic","arguments":{}}"#.into(),
        state: v1::State::Succeeded as i32,
        finished_at: Some(prost_types::Timestamp {
            seconds: 1000,
            nanos: 0,
        }),
        ..v1::Outcome::default()
    }
}

pub(crate) fn feedback(id: &str, plan: &str, node: &str, value: Value) -> v1::SubmitFeedbackRequest {
    v1::SubmitFeedbackRequest {
        feedback_id: id.into(),
        plan_id: plan.into(),
        node_id: node.into(),
        value: Some(value),
        source: String::new(),
    }
}

/// Runs every rule against a fresh store; what `fresh` returns first is kept until the store is gone.
pub(crate) fn run(fresh: impl Fn() -> (Box<dyn Any>, Box<dyn Store>)) {
    for rule in [
        ids_are_kept_once,
        order_is_arrival,
        feedback_needs_an_outcome_and_is_kept_once,
        filters_and_pages,
    ] {
        let (_guard, mut store) = fresh();
        rule(store.as_mut());
    }
}

fn ids_are_kept_once(store: &mut dyn Store) {
    let first = outcome("a", "p", "1");
    let other = v1::Outcome {
        output_json: "\"changed\"".into(),
        ..first.clone()
    };
    store.append(&[first.clone(), first.clone()]).expect("append");
    store.append(&[other]).expect("a second copy is no error");
    assert_eq!(store.of_plan("p").expect("read"), [first], "the first copy stands");
}

fn order_is_arrival(store: &mut dyn Store) {
    for i in (0..20).rev() {
        store
            .append(&[outcome(&format!("o{i}"), "p", &i.to_string())])
            .expect("append");
    }
    let nodes: Vec<_> = store
        .of_plan("p")
        .expect("read")
        .into_iter()
        .map(|o| o.node_id)
        .collect();
    assert_eq!(nodes, (0..20).rev().map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(store.of_plan("other").expect("read").is_empty());
}

fn feedback_needs_an_outcome_and_is_kept_once(store: &mut dyn Store) {
    let on_node = feedback("f1", "p", "1", Value::Success(false));
    assert!(matches!(store.judge(&on_node), Err(Error::NoOutcome { .. })));
    store
        .append(&[outcome("a", "p", "1"), outcome("b", "p", "2")])
        .expect("append");
    store.judge(&on_node).expect("node");
    store.judge(&on_node).expect("the same again");
    let on_plan = feedback("f2", "p", "", Value::Rating(0.9));
    store.judge(&on_plan).expect("plan");
    assert!(matches!(
        store.judge(&feedback("f3", "p", "9", Value::Success(true))),
        Err(Error::NoOutcome { .. })
    ));
    let page = store.page(&Filter::default(), 0, 10).expect("page");
    assert_eq!(page[0].feedback, [on_node, on_plan.clone()]);
    assert_eq!(page[1].feedback, [on_plan]);
}

fn filters_and_pages(store: &mut dyn Store) {
    let at = |i: i64| {
        Some(prost_types::Timestamp {
            seconds: i,
            nanos: 500_000_000,
        })
    };
    let rows: Vec<_> = (0..10i64)
        .map(|i| v1::Outcome {
            name: if i % 2 == 0 { "even" } else { "odd" }.into(),
            model: format!("m@{}", i % 3),
            finished_at: at(i),
            ..outcome(&format!("o{i}"), "p", &i.to_string())
        })
        .collect();
    store.append(&rows).expect("append");
    let mut ids = |filter: Filter| -> Vec<String> {
        let (mut found, mut row) = (Vec::new(), 0);
        loop {
            let page = store.page(&filter, row, 2).expect("page");
            let Some(last) = page.last() else { return found };
            row = last.row;
            found.extend(page.into_iter().map(|j| j.outcome.node_id));
        }
    };
    let second = |n: u64| Some(UNIX_EPOCH + Duration::from_secs(n));
    assert_eq!(
        ids(Filter {
            name: Some("odd".into()),
            ..Filter::default()
        }),
        ["1", "3", "5", "7", "9"]
    );
    assert_eq!(
        ids(Filter {
            model: Some("m@0".into()),
            ..Filter::default()
        }),
        ["0", "3", "6", "9"]
    );
    assert_eq!(
        ids(Filter {
            after: second(3),
            before: second(6),
            ..Filter::default()
        }),
        ["3", "4", "5"]
    );
    assert_eq!(ids(Filter::default()).len(), 10);
}

#[test]
fn memory_passes_the_suite() {
    run(|| (Box::new(()), Box::<super::memory::Memory>::default()));
}
