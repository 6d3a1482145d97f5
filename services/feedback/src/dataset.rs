//! Pure: an outcome and what was said of it become a training row, or none.
//!
//! A correction is taken over the answer (the latest wins), then a demonstration. What somebody called wrong, or rated under a
//! half, is not successful unless it was corrected.
use crate::store::{Judged, Word};
use serde_json::{Value, json};
use shoal_proto::{
    time,
    v1::{self, submit_feedback_request::Value as Said},
};
use std::collections::HashMap;

/// Which rows are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) successful_only: bool,
    pub(crate) corrected_only: bool,
}

/// Under this rating an answer is not one to learn from.
const GOOD: f64 = 0.5;

/// The row's JSON, or `None` if it is not wanted or has nothing to learn from. `plan` are the outcomes of the same plan.
pub(crate) fn row(
    judged: &Judged,
    plan: &[v1::Outcome],
    wanted: Wanted,
    format: v1::export_dataset_request::Format,
) -> Option<String> {
    let outcome = &judged.outcome;
    let (better, word) = better(judged).unzip();
    if wanted.corrected_only && better.is_none() || wanted.successful_only && better.is_none() && !succeeded(judged) {
        return None;
    }
    let answer = better.map_or_else(|| value(&outcome.output_json), value)?;
    let input = value(&outcome.input_json)?;
    let row = match format {
        v1::export_dataset_request::Format::Task => {
            let target = target(outcome, answer, better.is_some(), plan);
            let mut row = json!({"id": outcome.outcome_id, "task": outcome.name, "input": input, "target": target});
            if let Some(Word { recorded, said }) = word {
                row["source"] = said.source.as_str().into();
                row["corrected_at"] = time::timestamp(*recorded).to_string().into();
            }
            row
        }
        _ => json!({
            "messages": [{"role": "user", "content": said(&input)}, {"role": "assistant", "content": said(&answer)}],
            "metadata": {
                "outcome_id": outcome.outcome_id, "plan_id": outcome.plan_id, "node_id": outcome.node_id, "task": outcome.name,
                "model": outcome.model, "corrected": better.is_some(),
            },
        }),
    };
    Some(row.to_string())
}

/// What should have been said, and the word that says so, if anybody did.
fn better(judged: &Judged) -> Option<(&str, &Word)> {
    let latest = |pick: fn(&Said) -> Option<&str>| {
        let mut node = judged
            .feedback
            .iter()
            .rev()
            .filter(|f| f.said.node_id == judged.outcome.node_id);
        node.find_map(|f| Some((f.said.value.as_ref().and_then(pick)?, f)))
    };
    latest(|s| {
        if let Said::CorrectionJson(text) = s {
            Some(text)
        } else {
            None
        }
    })
    .or_else(|| {
        latest(|s| {
            if let Said::DemonstrationJson(text) = s {
                Some(text)
            } else {
                None
            }
        })
    })
}

fn succeeded(judged: &Judged) -> bool {
    let bad = |said: &Said| matches!(said, Said::Success(false)) || matches!(said, Said::Rating(r) if *r < GOOD);
    judged.outcome.state == v1::State::Succeeded as i32
        && judged.outcome.valid != Some(false)
        && !judged.feedback.iter().filter_map(|f| f.said.value.as_ref()).any(bad)
}

fn value(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

fn said(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A planner answers with plan text, and its rows want steps: `{"task", "input"}`, each with the output that its node had in
/// the same plan, if that node is of its task: where a goal's intent was followed, the steps are not the planner's. A correction is taken as it is, and so is a text with a line that is no `task: text`: a tool's arguments may hold a
/// colon and a space as well.
fn target(outcome: &v1::Outcome, answer: Value, corrected: bool, plan: &[v1::Outcome]) -> Value {
    let Some(text) = answer.as_str().filter(|_| outcome.node_id == "planner" && !corrected) else {
        return answer;
    };
    let outputs: HashMap<(&str, &str), &str> = plan
        .iter()
        .map(|o| ((o.node_id.as_str(), o.name.as_str()), o.output_json.as_str()))
        .collect();
    let step = |line: &str| {
        let (number, rest) = line.split_once(". ")?;
        let (task, input) = rest.split_once(": ").filter(|(task, _)| is_name(task))?;
        // As it stands in the goal: plan text writes a dollar sign twice.
        let mut step = json!({"task": task, "input": input.replace("$$", "$")});
        if let Some(output) = outputs.get(&(number, task)).and_then(|json| value(json)) {
            step["output"] = output;
        }
        Some(step)
    };
    text.lines()
        .map(step)
        .collect::<Option<Vec<_>>>()
        .map_or_else(|| answer.clone(), Value::Array)
}

/// What the plan text takes for a name.
fn is_name(text: &str) -> bool {
    let of_names = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    !text.is_empty() && text.bytes().all(of_names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        Position,
        suite::{feedback, outcome, second},
    };
    use v1::export_dataset_request::Format;

    const ALL: Wanted = Wanted {
        successful_only: false,
        corrected_only: false,
    };

    fn judged(values: Vec<Said>) -> Judged {
        let feedback = values
            .into_iter()
            .enumerate()
            .map(|(i, v)| Word {
                recorded: second(10 + i as u64),
                said: feedback(&format!("f{i}"), "p", "1", v),
            })
            .collect();
        Judged {
            at: Position::START,
            outcome: outcome("a", "p", "1"),
            feedback,
        }
    }

    fn parsed(judged: &Judged, wanted: Wanted, format: Format) -> Option<Value> {
        row(judged, &[], wanted, format).map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    #[test]
    fn a_row_has_the_task_datas_shape_or_the_chat_shape() {
        let task = parsed(&judged(vec![]), ALL, Format::Task).expect("row");
        assert_eq!(
            task,
            json!({"id": "a", "task": "tool_call", "input": "play jazz", "target": {"tool": "PlayMusic", "arguments": {}}})
        );
        let chat = parsed(&judged(vec![]), ALL, Format::Chat).expect("row");
        assert_eq!(chat["messages"][0], json!({"role": "user", "content": "play jazz"}));
        assert_eq!(
            chat["messages"][1],
            json!({"role": "assistant", "content": r#"{"tool":"PlayMusic","arguments":{}}"#})
        );
    }

    #[test]
    fn the_latest_correction_is_taken_over_the_answer_and_over_a_demonstration() {
        let said = vec![
            Said::CorrectionJson("1".into()),
            Said::CorrectionJson("2".into()),
            Said::DemonstrationJson("3".into()),
        ];
        assert_eq!(
            parsed(&judged(said), ALL, Format::Task).expect("row")["target"],
            json!(2)
        );
        assert_eq!(
            parsed(&judged(vec![Said::DemonstrationJson("3".into())]), ALL, Format::Task).expect("row")["target"],
            json!(3)
        );
    }

    #[test]
    fn a_corrected_row_says_who_corrected_it_and_when() {
        let mut judged = judged(vec![
            Said::CorrectionJson("1".into()),
            Said::CorrectionJson("2".into()),
            Said::Success(true),
        ]);
        for (word, source) in judged.feedback.iter_mut().zip(["ann", "bob", "eve"]) {
            source.clone_into(&mut word.said.source);
        }
        let row = parsed(&judged, ALL, Format::Task).expect("row");
        assert_eq!((&row["target"], &row["source"]), (&json!(2), &json!("bob")));
        assert_eq!(row["corrected_at"], json!("1970-01-01T00:00:11Z"));
    }

    #[test]
    fn what_was_called_wrong_is_not_successful_unless_it_was_corrected() {
        let only = Wanted {
            successful_only: true,
            corrected_only: false,
        };
        assert!(parsed(&judged(vec![]), only, Format::Task).is_some());
        assert!(parsed(&judged(vec![Said::Success(false)]), only, Format::Task).is_none());
        assert!(parsed(&judged(vec![Said::Rating(0.2)]), only, Format::Task).is_none());
        assert!(
            parsed(
                &judged(vec![Said::Success(false), Said::CorrectionJson("{}".into())]),
                only,
                Format::Task
            )
            .is_some()
        );
        let corrected = Wanted {
            successful_only: false,
            corrected_only: true,
        };
        assert!(parsed(&judged(vec![]), corrected, Format::Task).is_none());
    }

    /// The target of a planner's row that answered with `text`, where node 1 has an outcome.
    fn planned(text: &str) -> Value {
        planned_beside(text, outcome("b", "p", "1"))
    }

    /// The same of a plan with this node.
    fn planned_beside(text: &str, node: v1::Outcome) -> Value {
        let planner = v1::Outcome {
            name: "plan".into(),
            output_json: json!(text).to_string(),
            ..outcome("a", "p", "planner")
        };
        let judged = Judged {
            at: Position::START,
            outcome: planner,
            feedback: vec![],
        };
        let row = row(&judged, &[node], ALL, Format::Task).expect("row");
        serde_json::from_str::<Value>(&row).expect("JSON")["target"].clone()
    }

    #[test]
    fn a_planners_text_becomes_steps_with_the_outputs_of_their_nodes() {
        assert_eq!(
            planned("1. tool_call: play jazz\n2. to.you-2: book: a table for $$5"),
            json!([
                {"task": "tool_call", "input": "play jazz", "output": {"tool": "PlayMusic", "arguments": {}}},
                {"task": "to.you-2", "input": "book: a table for $5"},
            ])
        );
    }

    #[test]
    fn a_step_that_the_goals_intent_put_in_the_planners_place_is_no_output_of_the_planners() {
        let hotels = v1::Outcome {
            kind: "tool".into(),
            name: "Hotels_1.SearchHotel".into(),
            ..outcome("b", "p", "1")
        };
        let steps = planned_beside("1. tool_call: a room in Oslo", hotels);
        assert_eq!(steps, json!([{"task": "tool_call", "input": "a room in Oslo"}]));
    }

    #[test]
    fn a_text_with_a_step_that_is_a_tools_call_is_kept_as_it_is() {
        for text in [
            r#"1. Media_1.FindMovies(title="Star Wars: Episode IV")"#,
            "1. tool_call: play jazz\n2. Media_1.FindMovies(title=\"Star Wars: Episode IV\")",
            "1. : play jazz",
            "play jazz",
        ] {
            assert_eq!(planned(text), json!(text));
        }
    }
}
