//! What an agent says once a conversation's calls have been made: a reply to each, and a hand-over note of all.
use super::{
    goals::{Goal, Kind},
    judge,
};
use crate::{
    eval::{ask, score::Task},
    json,
    view::PlanView,
};
use serde_json::{Value as Json, json};
use shoal_proto::v1::{self, ExecutePlanRequest, State, execute_plan_request::Source, node};

/// Fields of an answer that a reply tells, at most: as many as most of the corpus' replies do.
const TOLD: usize = 4;

/// A plan of one reply to each call that was answered, from the answers of this very run. `None`: no call was.
pub(super) fn replies(talk: &Goal, plan: &PlanView) -> Option<Goal> {
    let inputs: Vec<Json> = plan.nodes.iter().filter_map(acts).collect();
    let node = |(i, input): (usize, &Json)| {
        let model = v1::ModelCall {
            task: Task::Compose.name().into(),
            input: ask::escape(&input.to_string()),
            ..Default::default()
        };
        v1::Node {
            id: (i + 1).to_string(),
            kind: Some(node::Kind::Model(model)),
            ..Default::default()
        }
    };
    let nodes: Vec<v1::Node> = inputs.iter().enumerate().map(node).collect();
    if nodes.is_empty() {
        return None;
    }
    let request = ExecutePlanRequest {
        source: Some(Source::Plan(v1::Plan { nodes })),
        ..Default::default()
    };
    let row = json!({"id": talk.id(), "task": Task::Compose.name(), "input": inputs, "target": null});
    Some(Goal::new(Kind::Reply, request, row))
}

/// The acts of a reply that tells what a call was answered.
fn acts(node: &crate::view::NodeView) -> Option<Json> {
    let result = node
        .result
        .as_ref()
        .filter(|r| r.state() == State::Succeeded && r.kind == "tool")?;
    let (service, _) = node.name.split_once('.')?;
    let answer = json::value(&result.output_json);
    let told = answer
        .as_object()?
        .iter()
        .filter_map(|(slot, value)| Some((slot, value.as_str()?)));
    let acts: Vec<Json> = told
        .filter(|(_, value)| !matches!(*value, "True" | "False"))
        .take(TOLD)
        .map(|(slot, value)| json!({"act": "OFFER", "slot": slot, "values": [value]}))
        .collect();
    (!acts.is_empty()).then(|| json!({"service": service, "acts": acts}))
}

/// A plan of the note that the next one at the desk gets: the user's turns and the replies, to the calls that were made. `None`: there
/// is no reply.
pub(super) fn note(talk: &Goal, plan: &PlanView, replies: &PlanView) -> Option<Goal> {
    let said = replies.nodes.iter().filter_map(|n| n.result.as_ref());
    let said: Vec<Json> = said
        .map(|r| json::value(&r.output_json))
        .filter(Json::is_string)
        .collect();
    if said.is_empty() {
        return None;
    }
    let input = talk.input();
    let turn = |speaker: &'static str| move |text: &Json| json!({"speaker": speaker, "text": text});
    let user = input["turns"].as_array().into_iter().flatten().map(turn("user"));
    let dialogue: Vec<Json> = user.chain(said.iter().map(turn("system"))).collect();
    let input = json!({"methods": input["methods"], "dialogue": dialogue});
    let request = ask::one_node(Task::Summarize, &input);
    let row =
        json!({"id": talk.id(), "task": Task::Summarize.name(), "input": input, "target": judge::calls_made(plan)});
    Some(Goal::new(Kind::Note, request, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{demo::goals, view::NodeView};

    fn answered(name: &str, output: &Json) -> NodeView {
        let result = v1::NodeResult {
            state: State::Succeeded.into(),
            kind: "tool".into(),
            input_json: json!({"city": "Oslo"}).to_string(),
            output_json: output.to_string(),
            ..Default::default()
        };
        NodeView {
            name: name.into(),
            result: Some(result),
            ..Default::default()
        }
    }

    fn plan(nodes: Vec<NodeView>) -> PlanView {
        PlanView {
            nodes,
            ..Default::default()
        }
    }

    #[test]
    fn each_answered_call_has_a_reply_that_must_say_it_and_the_note_is_of_all_that_was_said() {
        let talk = &goals::talks()[0];
        let rows = json!({"a": "$1", "b": "True", "c": "2", "d": "3", "e": "4", "f": "5", "g": 6});
        let made = plan(vec![
            answered("Hotels_1.Find", &rows),
            answered("bad", &rows),
            answered("X.Y", &json!({})),
        ]);
        let goal = replies(talk, &made).expect("one call has something to tell");
        let Some(Source::Plan(asked)) = &goal.request.source else {
            panic!("a typed plan")
        };
        let Some(node::Kind::Model(model)) = &asked.nodes[0].kind else {
            panic!("a model node")
        };
        assert!(
            asked.nodes.len() == 1
                && model.input.contains("$$1")
                && !model.input.contains("True")
                && !model.input.contains("\"5\"")
        );
        let said = |text: &str| {
            let mut node = answered("compose", &json!(text));
            node.id = "1".into();
            plan(vec![node])
        };
        assert!(judge::right(&goal, &said("It is $1, 2, 3 and 4.")) && !judge::right(&goal, &said("It is $1.")));
        let note = note(talk, &made, &said("It is \"$1\".")).expect("a reply");
        let turns = note.input()["dialogue"].as_array().expect("a list").clone();
        assert_eq!(
            turns.last(),
            Some(&json!({"speaker": "system", "text": "It is \"$1\"."}))
        );
        assert_eq!(turns.len(), talk.input()["turns"].as_array().expect("a list").len() + 1);
        assert_eq!(note.target()[0]["parameters"], json!({"city": "Oslo"}));
        assert!(super::note(talk, &made, &plan(Vec::new())).is_none() && replies(talk, &plan(Vec::new())).is_none());
    }
}
