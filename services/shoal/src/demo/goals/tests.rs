//! The goals against what the task data and the shipped world have.
use super::*;

#[test]
fn there_are_enough_goals_and_edges_of_each_kind() {
    assert!(
        joined().len() + trips().len() >= 12,
        "{} and {}",
        joined().len(),
        trips().len()
    );
    assert_eq!(single().len(), SINGLES + BEYOND);
    let references: usize = trips()
        .iter()
        .map(|g| g.target().to_string().matches("${").count())
        .sum();
    assert!(references >= 4, "{references} references");
}

#[test]
fn conversations_go_to_the_planner_with_their_methods_and_each_other_task_has_something_to_say() {
    let talks = talks();
    assert_eq!(talks.len(), TALKS);
    for talk in talks {
        let Some(Source::Goal(goal)) = &talk.request.source else {
            panic!("a goal")
        };
        assert!(!goal.turns.is_empty() && !goal.methods.is_empty(), "{}", talk.id());
    }
    let others = others();
    for task in [Task::Extract, Task::Compose, Task::Summarize] {
        let of_task: Vec<&Goal> = others.iter().filter(|g| g.kind == Kind::Step(task)).collect();
        assert_eq!(of_task.len(), OTHERS, "{}", task.name());
        assert!(
            of_task
                .iter()
                .all(|g| g.title().chars().count() < TOLD + 60 && !g.target().to_string().is_empty())
        );
    }
}

#[test]
fn a_conversation_is_written_as_plan_text_with_its_references_and_dollar_signs() {
    let calls: Vec<Json> = serde_json::from_str(
        r#"[{"id": 1, "service": "S_1", "method": "Find", "parameters": {"price": "$5", "say": "a \"b\""}},
            {"id": 2, "service": "R_1", "method": "Ride", "parameters": {"to": "${1.address}", "note": "${1.x} or so"}}]"#,
    )
    .expect("calls");
    assert_eq!(
        plan_text(&calls),
        "1. S_1.Find(price=\"$$5\", say=\"a \\\"b\\\"\")\n2. R_1.Ride(to=$1.address, note=\"$${1.x} or so\")\n"
    );
    let plan = typed(&calls);
    let Some(node::Kind::Tool(tool)) = &plan.nodes[1].kind else {
        panic!("a tool node")
    };
    assert_eq!(tool.arguments_json, r#"{"to":"${1.address}","note":"$${1.x} or so"}"#);
    assert_eq!(plan.nodes[1].id, "2");
}

/// Executes a goal's calls one after the other against the concierge's own data; says what each was asked and answered.
fn by_the_world(goal: &Goal, world: &shoal_concierge::World) -> Vec<(Json, Json)> {
    let mut answers: Vec<(Json, Json)> = Vec::new();
    let calls = goal.target().as_array().cloned().unwrap_or_default();
    for call in &calls {
        let mut asked = call["parameters"].as_object().cloned().unwrap_or_default();
        for value in asked.values_mut() {
            if let Some((id, field)) = value.as_str().and_then(whole_reference).and_then(|r| r.split_once('.')) {
                let from: usize = id.parse().expect("an id");
                *value = answers[from - 1].1[field].clone();
            }
        }
        let answer = world.answer(&name(call), &asked);
        let answer = answer.unwrap_or_else(|refusal| panic!("{}: {}: {refusal:?}", goal.id(), name(call)));
        answers.push((Json::from(asked), answer));
    }
    answers
}

#[test]
fn every_conversation_can_be_executed_against_the_shipped_world() {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../concierge/data");
    let world = shoal_concierge::World::load(&data.join("services.json"), &data.join("tool_results.jsonl.gz"));
    let world = world.expect("the shipped world");
    for goal in trips() {
        let asked = by_the_world(&goal, &world);
        let dependent = goal.target().to_string().matches("${").count();
        assert!(dependent > 0 && asked.len() > 1, "{}", goal.id());
    }
}
