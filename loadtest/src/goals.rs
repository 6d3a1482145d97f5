//! What is asked: rows of the task data, or plan text.
use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use shoal_proto::v1::{self, execute_plan_request::Source, node::Kind};
use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

/// One thing to ask, again and again.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// What is sent.
    pub(crate) request: v1::ExecutePlanRequest,
    /// What is right, if it can be compared.
    pub(crate) target: Option<Target>,
}

/// An answer that people wrote down.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Target {
    /// `[{"task", "input", "output"}]`, one a node, in order.
    Steps(Value),
    /// The output of the only node.
    Output(Value),
}

/// The node id of a plan of one node.
pub(crate) const ONLY: &str = "1";

/// Reads files of goals, in their order.
///
/// # Errors
/// A file that cannot be read, has no goal, or has a row that is none; the line is in the message.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Goal>> {
    let mut goals = Vec::new();
    for path in files {
        let before = goals.len();
        let text = text(path).with_context(|| path.display().to_string())?;
        if path.extension().is_some_and(|e| e == "plan") {
            goals.push(of_plan_text(text));
        } else if is_rows(path) {
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let goal = of_row(line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
                goals.push(goal);
            }
        } else {
            bail!(
                "{}: give task data (.jsonl, .jsonl.gz) or plan text (.plan)",
                path.display()
            );
        }
        ensure!(goals.len() > before, "{}: holds no goal", path.display());
    }
    Ok(goals)
}

fn is_rows(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
}

fn text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path)?;
    if path.extension().is_none_or(|e| e != "gz") {
        return Ok(String::from_utf8(bytes)?);
    }
    let mut text = String::new();
    MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text)?;
    Ok(text)
}

fn of_plan_text(text: String) -> Goal {
    Goal {
        request: request(Source::PlanText(text)),
        target: None,
    }
}

fn of_row(line: &str) -> Result<Goal> {
    let row: Value = serde_json::from_str(line)?;
    let (input, target) = (&row["input"], row["target"].clone());
    let task = row["task"].as_str().context("the row has no `task`")?;
    ensure!(!input.is_null(), "the row has no `input`");
    let of_goal = |goal| request(Source::Goal(goal));
    Ok(match task {
        "plan" => Goal {
            request: of_goal(v1::Goal {
                text: in_words(input),
                ..Default::default()
            }),
            target: target.is_array().then_some(Target::Steps(target)),
        },
        "episode" => Goal {
            request: of_goal(conversation(input)),
            target: None,
        },
        task => Goal {
            request: one_node(task, input),
            target: (task == "tool_call" && target.is_object()).then_some(Target::Output(target)),
        },
    })
}

fn request(source: Source) -> v1::ExecutePlanRequest {
    v1::ExecutePlanRequest {
        source: Some(source),
        ..Default::default()
    }
}

/// `{"methods": {service: {method: [parameter]}}, "turns": [..]}`.
fn conversation(input: &Value) -> v1::Goal {
    let strings = |v: &Value| v.as_array().into_iter().flatten().map(in_words).collect::<Vec<_>>();
    let mut methods = Vec::new();
    for (service, of_service) in input["methods"].as_object().into_iter().flatten() {
        for (method, parameters) in of_service.as_object().into_iter().flatten() {
            methods.push(v1::MethodSignature {
                service: service.clone(),
                method: method.clone(),
                parameters: strings(parameters),
            });
        }
    }
    v1::Goal {
        text: String::new(),
        turns: strings(&input["turns"]),
        methods,
    }
}

/// A plan of one model node that is asked exactly this: a dollar sign in a row is no reference.
fn one_node(task: &str, input: &Value) -> v1::ExecutePlanRequest {
    let model = v1::ModelCall {
        task: task.to_owned(),
        input: in_words(input).replace('$', "$$"),
        ..Default::default()
    };
    let node = v1::Node {
        id: ONLY.into(),
        kind: Some(Kind::Model(model)),
        ..Default::default()
    };
    request(Source::Plan(v1::Plan { nodes: vec![node] }))
}

/// Text as it is, anything else as JSON.
fn in_words(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        (folder, path)
    }

    #[test]
    fn every_sample_of_the_task_data_can_be_asked() {
        for task in [
            "plan",
            "episode",
            "tool_call",
            "route",
            "extract",
            "compose",
            "summarize",
        ] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/data/{task}.sample.jsonl"));
            let goals = read(&[path]).expect(task);
            let judged = goals.iter().filter(|g| g.target.is_some()).count();
            let can_be_judged = matches!(task, "plan" | "tool_call");
            assert_eq!(judged, if can_be_judged { goals.len() } else { 0 }, "{task}");
        }
    }

    #[test]
    fn a_row_becomes_what_its_task_says() {
        let plan = of_row(r#"{"id": "a", "task": "plan", "input": "do $1", "target": []}"#).expect("a goal");
        assert!(matches!(plan.request.source, Some(Source::Goal(g)) if g.text == "do $1"));
        let call = of_row(r#"{"task": "tool_call", "input": "costs $5", "target": {"tool": "T"}}"#).expect("a goal");
        let Some(Source::Plan(nodes)) = call.request.source else {
            panic!("a plan")
        };
        assert!(
            matches!(&nodes.nodes[0].kind, Some(Kind::Model(m)) if m.input == "costs $$5" && m.task == "tool_call")
        );
        let episode =
            r#"{"task": "episode", "input": {"turns": ["hi"], "methods": {"S": {"M": ["p"]}}}, "target": []}"#;
        let Some(Source::Goal(goal)) = of_row(episode).expect("a goal").request.source else {
            panic!("a goal")
        };
        assert_eq!((goal.turns.len(), goal.methods[0].method.as_str()), (1, "M"));
    }

    #[test]
    fn plan_text_and_compressed_rows_are_read() {
        let (_folder, plan) = written("trip.plan", b"1. S.M(a=\"b\")\n");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"{\"task\": \"plan\", \"input\": \"x\", \"target\": []}\n\n")
            .expect("compressed");
        let (_other, rows) = written("rows.jsonl.gz", &gz.finish().expect("compressed"));
        let goals = read(&[plan, rows]).expect("goals");
        assert!(matches!(&goals[0].request.source, Some(Source::PlanText(t)) if t.starts_with("1. S.M")));
        assert_eq!(goals.len(), 2);
    }

    #[test]
    fn what_is_no_goal_is_refused_with_its_line() {
        for (name, bytes, says) in [
            (
                "a.jsonl",
                &b"{\"task\": \"plan\", \"input\": \"x\"}\nnonsense\n"[..],
                "a.jsonl:2",
            ),
            ("b.jsonl", b"{\"input\": \"x\"}\n", "`task`"),
            ("c.jsonl", b"{\"task\": \"plan\"}\n", "`input`"),
            ("d.jsonl", b"\n", "no goal"),
            ("e.yaml", b"nodes: []", "plan text"),
            ("f.jsonl", b"\xff\xfe", "utf-8"),
        ] {
            let (_folder, path) = written(name, bytes);
            let error = format!("{:#}", read(&[path]).expect_err(name));
            assert!(error.contains(says), "{name}: {error}");
        }
        assert!(read(&[PathBuf::from("no/such.jsonl")]).is_err());
    }
}
