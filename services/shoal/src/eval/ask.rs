//! One row put to the mesh, and its answer in the shape of the row's target.
use super::score::Task;
use crate::{
    client::Mesh,
    json,
    run::{self, of_goal},
    view::{PlanView, Show},
};
use serde_json::{Map, Value};
use shoal_kit::status;
use shoal_proto::v1::{self, ExecutePlanRequest, node::Kind};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// One row's bound: the gateway's own default deadline.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a row is put again while the mesh says that it is full.
const FULL_TRIES: u32 = 20;

/// The node id of a plan of one node.
const ONLY: &str = "1";

/// What came of a row.
#[derive(Debug)]
pub struct Answer {
    /// In the shape of the target; null if there is none.
    pub output: Value,
    /// Why it is not whole.
    pub trouble: Option<String>,
}

/// Puts one row to the mesh.
///
/// # Errors
/// The mesh is away. Every other failure is an answer, a wrong one.
pub async fn ask(mesh: &Mesh, task: Task, row: &Value) -> Result<Answer, Status> {
    let mut tries = 0;
    loop {
        match once(mesh, task, row).await {
            Err(status) if status.code() == Code::ResourceExhausted && tries < FULL_TRIES => {
                tries += 1;
                tokio::time::sleep(status::retry_after(&status).unwrap_or(Duration::from_millis(200))).await;
            }
            Err(status) if status.code() == Code::Unavailable => return Err(status),
            Err(status) => {
                let why = format!("{}: {}", status::code_name(status.code().into()), status.message());
                return Ok(Answer {
                    output: Value::Null,
                    trouble: Some(why),
                });
            }
            Ok(answer) => return Ok(answer),
        }
    }
}

async fn once(mesh: &Mesh, task: Task, row: &Value) -> Result<Answer, Status> {
    let input = &row["input"];
    match task {
        Task::Episode => {
            let plan = mesh
                .decompose(conversation(input), PATIENCE)
                .await?
                .plan
                .unwrap_or_default();
            Ok(Answer {
                output: episode_output(&plan),
                trouble: None,
            })
        }
        Task::Plan => {
            let plan = watch(
                mesh,
                of_goal(v1::Goal {
                    text: text(input),
                    ..Default::default()
                }),
            )
            .await?;
            Ok(Answer {
                output: plan_output(&plan),
                trouble: trouble(&plan),
            })
        }
        _ => {
            let plan = watch(mesh, one_node(task, input)).await?;
            Ok(Answer {
                output: only_output(&plan),
                trouble: trouble(&plan),
            })
        }
    }
}

async fn watch(mesh: &Mesh, request: ExecutePlanRequest) -> Result<PlanView, Status> {
    let stream = mesh.execute(request).await?;
    run::collect(stream, &mut Silent, None, &CancellationToken::new()).await
}

struct Silent;

impl Show for Silent {
    fn event(&mut self, _: &v1::PlanEvent, _: &PlanView, _: Option<usize>) {}
    fn end(&mut self, _: &PlanView) {}
}

/// A conversation with the methods that its plan may call: `{"methods": {service: {method: [parameter]}}, "turns": [..]}`.
#[must_use]
pub fn conversation(input: &Value) -> v1::Goal {
    let strings = |v: &Value| v.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let services = input["methods"].as_object().into_iter().flatten();
    let methods = services.flat_map(|(service, methods)| {
        methods
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(method, parameters)| v1::MethodSignature {
                service: service.clone(),
                method: method.clone(),
                parameters: strings(parameters),
            })
    });
    v1::Goal {
        text: String::new(),
        turns: strings(&input["turns"]),
        methods: methods.collect(),
    }
}

/// A plan of one model node that is asked exactly this input.
#[must_use]
pub fn one_node(task: Task, input: &Value) -> ExecutePlanRequest {
    let model = v1::ModelCall {
        task: task.name().into(),
        input: escape(&text(input)),
        ..Default::default()
    };
    let node = v1::Node {
        id: ONLY.into(),
        kind: Some(Kind::Model(model)),
        ..Default::default()
    };
    let source = Some(v1::execute_plan_request::Source::Plan(v1::Plan { nodes: vec![node] }));
    ExecutePlanRequest {
        source,
        ..Default::default()
    }
}

/// Text as it is, anything else as JSON.
fn text(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

/// Text that a plan takes literally.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

fn unescape(text: &str) -> String {
    text.replace("$$", "$")
}

/// `[{"task", "input", "output"}]` of the model nodes that the planner wrote, in its order. A tool node is none: it was yielded by one.
#[must_use]
pub fn plan_output(plan: &PlanView) -> Value {
    // The planner's own call is no step of its plan.
    let steps = plan.nodes.iter().filter(|n| n.id != "planner" && n.kind == "model");
    let step = |n: &crate::view::NodeView| {
        let output = n.result.as_ref().map_or(Value::Null, |r| json::value(&r.output_json));
        serde_json::json!({"task": n.name, "input": unescape(&n.input), "output": output})
    };
    steps.map(step).collect()
}

/// The output of a plan of one node; null if it has none. The node may have brought others along (a call that is a registered tool).
#[must_use]
pub fn only_output(plan: &PlanView) -> Value {
    let node = plan.nodes.iter().find(|n| n.id == ONLY).and_then(|n| n.result.as_ref());
    node.map_or(Value::Null, |r| json::value(&r.output_json))
}

/// `[{"id", "service", "method", "parameters"}]` of a plan; `id` is a number where the plan's is one.
#[must_use]
pub fn episode_output(plan: &v1::Plan) -> Value {
    plan.nodes.iter().map(call).collect()
}

fn call(node: &v1::Node) -> Value {
    let id = node
        .id
        .parse::<u64>()
        .map_or_else(|_| Value::from(node.id.clone()), Value::from);
    let (name, arguments) = match &node.kind {
        Some(Kind::Tool(tool)) => (tool.name.as_str(), json::value(&tool.arguments_json)),
        Some(Kind::Model(model)) => (model.task.as_str(), Value::Object(Map::new())),
        None => ("", Value::Null),
    };
    let (service, method) = name.split_once('.').unwrap_or((name, ""));
    serde_json::json!({"id": id, "service": service, "method": method, "parameters": literal(arguments)})
}

/// Arguments with `$$` as the dollar sign that it stands for.
fn literal(arguments: Value) -> Value {
    match arguments {
        Value::String(s) => unescape(&s).into(),
        Value::Array(items) => items.into_iter().map(literal).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(k, v)| (k, literal(v)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

/// Why a plan's answer is not whole.
fn trouble(plan: &PlanView) -> Option<String> {
    let Some(finished) = &plan.finished else {
        return Some("the plan's events broke off".into());
    };
    let fault = finished.fault.as_ref()?;
    Some(format!("{}: {}", status::code_name(fault.code), fault.message))
}

#[cfg(test)]
mod tests;
