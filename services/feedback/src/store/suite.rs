//! What any engine must do. A later one (PostgreSQL) is added by one more call of [`run`].
use super::{Error, Filter, Judged, Position, Store, Word};
use shoal_proto::v1::{self, submit_feedback_request::Value};
use std::{
    any::Any,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// When things are recorded where it does not matter.
pub(crate) const NOW: SystemTime = UNIX_EPOCH;

/// Seconds after 1970.
pub(crate) fn second(n: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(n)
}

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
        node_feedback_is_of_the_nodes_latest_outcome,
        filters_and_pages,
        times_are_those_of_recording,
        pages_are_bounded_in_bytes,
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
    store.append(&[first.clone(), first.clone()], NOW).expect("append");
    store.append(&[other], NOW).expect("a second copy is no error");
    assert_eq!(store.of_plan("p").expect("read"), [first], "the first copy stands");
}

fn order_is_arrival(store: &mut dyn Store) {
    for i in (0..20).rev() {
        store
            .append(&[outcome(&format!("o{i}"), "p", &i.to_string())], NOW)
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
    assert!(matches!(store.judge(&on_node, NOW), Err(Error::NoOutcome { .. })));
    store
        .append(&[outcome("a", "p", "1"), outcome("b", "p", "2")], NOW)
        .expect("append");
    store.judge(&on_node, second(5)).expect("node");
    store.judge(&on_node, second(6)).expect("the same again");
    let on_plan = feedback("f2", "p", "", Value::Rating(0.9));
    store.judge(&on_plan, second(7)).expect("plan");
    assert!(matches!(
        store.judge(&feedback("f3", "p", "9", Value::Success(true)), NOW),
        Err(Error::NoOutcome { .. })
    ));
    let word = |said, at| Word {
        recorded: second(at),
        said,
    };
    let (on_node, on_plan) = (word(on_node, 5), word(on_plan, 7));
    let page = all(store);
    assert_eq!(page[0].feedback, [on_node, on_plan.clone()]);
    assert_eq!(page[1].feedback, [on_plan]);
}

fn all(store: &mut dyn Store) -> Vec<Judged> {
    store
        .page(&Filter::default(), Position::START, usize::MAX, usize::MAX)
        .expect("page")
}

fn node_feedback_is_of_the_nodes_latest_outcome(store: &mut dyn Store) {
    // A node that failed and fell back to another task; another plan's node of the same name.
    let outcomes = [
        outcome("first", "p", "1"),
        outcome("other", "q", "1"),
        outcome("second", "p", "1"),
    ];
    store.append(&outcomes, NOW).expect("append");
    let on_node = feedback("f1", "p", "1", Value::CorrectionJson("1".into()));
    let on_plan = feedback("f2", "p", "", Value::Success(false));
    store.judge(&on_node, NOW).expect("node");
    store.judge(&on_plan, NOW).expect("plan");
    let said: Vec<Vec<_>> = all(store)
        .into_iter()
        .map(|j| j.feedback.into_iter().map(|word| word.said.feedback_id).collect())
        .collect();
    assert_eq!(said, [vec!["f2"], vec![], vec!["f1", "f2"]]);
}

fn times_are_those_of_recording(store: &mut dyn Store) {
    let ids = |store: &mut dyn Store, after: Option<u64>, before: Option<u64>| -> Vec<String> {
        let filter = Filter {
            after: after.map(second),
            before: before.map(second),
            ..Filter::default()
        };
        let page = store.page(&filter, Position::START, 10, usize::MAX).expect("page");
        page.into_iter().map(|j| j.outcome.outcome_id).collect()
    };
    store.append(&[outcome("a", "p", "1")], second(2000)).expect("append");
    assert_eq!(ids(store, None, Some(3000)), ["a"]);
    // It waited in a spool: it ended when the other did, and is recorded now.
    store
        .append(&[outcome("late", "p", "2")], second(3000))
        .expect("append");
    store
        .append(&[outcome("a", "p", "1")], second(4000))
        .expect("a second copy");
    assert_eq!(ids(store, None, Some(3000)), ["a"], "not the same as before");
    assert_eq!(ids(store, Some(3000), None), ["late"], "in no increment");
    assert_eq!(ids(store, Some(2000), Some(3001)), ["a", "late"]);
    assert!(ids(store, Some(3001), None).is_empty());
}

fn pages_are_bounded_in_bytes(store: &mut dyn Store) {
    let large = |i: usize| v1::Outcome {
        input_json: "x".repeat(1000),
        ..outcome(&format!("o{i}"), "p", &i.to_string())
    };
    store
        .append(&(0..6).map(large).collect::<Vec<_>>(), NOW)
        .expect("append");
    let words = feedback("f", "p", "4", Value::Comment("x".repeat(3000)));
    store.judge(&words, NOW).expect("judge");
    let (mut sizes, mut after) = (Vec::new(), Position::START);
    loop {
        let page = store.page(&Filter::default(), after, 10, 2500).expect("page");
        let Some(last) = page.last() else { break };
        after = last.at;
        sizes.push(page.len());
    }
    assert_eq!(
        sizes,
        [3, 2, 1],
        "a page ends with the outcome that fills it, words included"
    );
    let page = store.page(&Filter::default(), Position::START, 10, 1).expect("page");
    assert_eq!(page.len(), 1, "one is always taken");
}

fn filters_and_pages(store: &mut dyn Store) {
    let rows: Vec<_> = (0..10i64)
        .map(|i| v1::Outcome {
            name: if i % 2 == 0 { "even" } else { "odd" }.into(),
            model: format!("m@{}", i % 3),
            ..outcome(&format!("o{i}"), "p", &i.to_string())
        })
        .collect();
    for (row, at) in rows.iter().zip(0..) {
        let at = second(at) + Duration::from_millis(500);
        store.append(std::slice::from_ref(row), at).expect("append");
    }
    let mut ids = |filter: Filter| -> Vec<String> {
        let (mut found, mut after) = (Vec::new(), Position::START);
        loop {
            let page = store.page(&filter, after, 2, usize::MAX).expect("page");
            let Some(last) = page.last() else { return found };
            after = last.at;
            found.extend(page.into_iter().map(|j| j.outcome.node_id));
        }
    };
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
            after: Some(second(3)),
            before: Some(second(6)),
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
