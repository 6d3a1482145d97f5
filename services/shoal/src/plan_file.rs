//! A typed plan in a file people write: YAML (JSON is YAML too), every key checked.
//!
//! ```yaml
//! limits: {deadline: 30s, max_tokens: 4000, max_cost_usd: 0.01, priority: interactive}
//! nodes:
//!   - id: find
//!     tool: Restaurants_2.FindRestaurants
//!     arguments: {category: Coffeehouse, location: Newark}
//!   - id: ride
//!     tool: RideSharing_1.GetRide
//!     arguments: {destination: "${find.address}", number_of_riders: "2", shared_ride: "True"}
//!     timeout: 5s
//!     on_failure: skip            # or: fail, {default: VALUE}, {fall_back: TASK}
//!   - id: music
//!     model: tool_call
//!     input: play some jazz while we wait
//!     after: [ride]
//! ```
use crate::exit::{Failure, Result};
use serde::Deserialize;
use serde_json::Value;
use shoal_proto::{time, v1};
use std::{path::Path, time::Duration};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    id: String,
    #[serde(default)]
    limits: Limits,
    nodes: Vec<Node>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    deadline: Option<Span>,
    max_tokens: u64,
    max_cost_usd: f64,
    priority: Priority,
}

/// The queueing class.
#[derive(Debug, Default, Clone, Copy, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Priority {
    /// A person waits.
    Interactive,
    /// An agent waits.
    #[default]
    Normal,
    /// Nobody waits.
    Batch,
}

impl From<Priority> for v1::Priority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Interactive => v1::Priority::Interactive,
            Priority::Normal => v1::Priority::Normal,
            Priority::Batch => v1::Priority::Batch,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    id: String,
    tool: Option<String>,
    arguments: Option<serde_json::Map<String, Value>>,
    model: Option<String>,
    input: Option<Value>,
    output_schema: Option<Value>,
    sampling: Option<Sampling>,
    #[serde(default)]
    after: Vec<String>,
    timeout: Option<Span>,
    #[serde(default)]
    max_attempts: u32,
    on_failure: Option<OnFailure>,
    #[serde(default)]
    human_facing: bool,
    #[serde(default)]
    private: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampling {
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    repetition_penalty: Option<f32>,
    #[serde(default)]
    stop: Vec<String>,
}

/// A word, or an object of one key: one that is read by trying each shape would take further keys, and say of none what is wrong.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
enum OnFailure {
    Fail,
    Skip,
    Default(Value),
    FallBack(String),
}

impl TryFrom<Value> for OnFailure {
    type Error = String;

    fn try_from(said: Value) -> Result<Self, String> {
        let only = said.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next());
        match (said.as_str(), only.map(|(key, value)| (key.as_str(), value))) {
            (Some("fail"), _) => Ok(Self::Fail),
            (Some("skip"), _) => Ok(Self::Skip),
            (_, Some(("default", value))) => Ok(Self::Default(value.clone())),
            (_, Some(("fall_back", Value::String(task)))) => Ok(Self::FallBack(task.clone())),
            _ => Err(format!(
                "`on_failure` is {said}: write fail, skip, {{default: VALUE}} or {{fall_back: TASK}}"
            )),
        }
    }
}

/// A duration written as "500ms", "30s", "5m" or "1h".
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Span)
    }
}

/// Reads "500ms", "30s", "1.5m" or "1h".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no duration: write 500ms, 30s, 5m or 1h");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refused)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(refused()),
    };
    let number: f64 = number.trim().parse().map_err(|_| refused())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| refused())
}

/// Reads a plan file: plan text if its name ends in `.plan`, else YAML or JSON.
///
/// # Errors
/// Exit 64, with the file and, for YAML, the line.
pub(crate) fn read(path: &Path) -> Result<v1::ExecutePlanRequest> {
    let refused = |what: &dyn std::fmt::Display| Failure::usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| refused(&e))?;
    if path.extension().is_some_and(|e| e == "plan") {
        let source = Some(v1::execute_plan_request::Source::PlanText(text));
        return Ok(v1::ExecutePlanRequest {
            source,
            ..Default::default()
        });
    }
    parse(&text).map_err(|e| refused(&e))
}

fn parse(text: &str) -> Result<v1::ExecutePlanRequest, String> {
    let file: File = serde_yaml_ng::from_str(text).map_err(|e| e.to_string())?;
    let nodes = file.nodes.into_iter().map(node).collect::<Result<Vec<_>, _>>()?;
    Ok(v1::ExecutePlanRequest {
        source: Some(v1::execute_plan_request::Source::Plan(v1::Plan { nodes })),
        plan_id: file.id,
        limits: Some(v1::PlanLimits {
            deadline: file.limits.deadline.map(|Span(d)| time::duration(d)),
            max_tokens: file.limits.max_tokens,
            max_cost_usd: file.limits.max_cost_usd,
            priority: v1::Priority::from(file.limits.priority).into(),
        }),
        detach: false,
    })
}

fn node(n: Node) -> Result<v1::Node, String> {
    let id = n.id;
    let kind = match (n.tool, n.model) {
        (Some(name), None) if n.input.is_none() && n.sampling.is_none() && n.output_schema.is_none() => {
            let arguments_json = Value::Object(n.arguments.unwrap_or_default()).to_string();
            v1::node::Kind::Tool(v1::ToolCall { name, arguments_json })
        }
        (None, Some(task)) if n.arguments.is_none() => v1::node::Kind::Model(v1::ModelCall {
            task,
            input: match n.input.ok_or_else(|| format!("node {id}: `model` needs `input`"))? {
                Value::String(text) => text,
                json => json.to_string(),
            },
            sampling: n.sampling.map(sampling),
            output_schema_json: n.output_schema.map(|s| s.to_string()).unwrap_or_default(),
        }),
        _ => {
            return Err(format!(
                "node {id}: give either `tool` with `arguments`, or `model` with `input`"
            ));
        }
    };
    Ok(v1::Node {
        kind: Some(kind),
        after: n.after,
        timeout: n.timeout.map(|Span(d)| time::duration(d)),
        max_attempts: n.max_attempts,
        on_failure: n.on_failure.map(on_failure),
        human_facing: n.human_facing,
        private: n.private,
        id,
    })
}

fn sampling(s: Sampling) -> v1::Sampling {
    let Sampling {
        max_tokens,
        temperature,
        top_k,
        top_p,
        seed,
        repetition_penalty,
        stop,
    } = s;
    v1::Sampling {
        max_tokens,
        temperature,
        top_k,
        top_p,
        seed,
        repetition_penalty,
        stop,
    }
}

fn on_failure(policy: OnFailure) -> v1::FailurePolicy {
    use v1::failure_policy::Action;
    let of = |action: Action| v1::FailurePolicy {
        action: action.into(),
        ..Default::default()
    };
    match policy {
        OnFailure::Fail => of(Action::Fail),
        OnFailure::Skip => of(Action::Skip),
        OnFailure::Default(default) => v1::FailurePolicy {
            default_json: default.to_string(),
            ..of(Action::Default)
        },
        OnFailure::FallBack(task) => v1::FailurePolicy {
            fallback_task: task,
            ..of(Action::FallBack)
        },
    }
}

#[cfg(test)]
mod tests;
