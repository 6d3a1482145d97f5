//! The demo's goals: rows of the task data's samples, taken by position, none picked to fit.
use crate::{
    eval::{
        ask,
        pyjson::{self, Value},
        score::Task,
    },
    run,
};
use serde_json::Value as Json;
use shoal_proto::v1::{self, ExecutePlanRequest, execute_plan_request::Source, node};

const PLAN: &str = include_str!("../../../../tests/data/plan.sample.jsonl");
const EPISODE: &str = include_str!("../../../../tests/data/episode.sample.jsonl");
const TOOL_CALL: &str = include_str!("../../../../tests/data/tool_call.sample.jsonl");
const ROUTE: &str = include_str!("../../../../tests/data/route.sample.jsonl");
const EXTRACT: &str = include_str!("../../../../tests/data/extract.sample.jsonl");
const COMPOSE: &str = include_str!("../../../../tests/data/compose.sample.jsonl");
const SUMMARIZE: &str = include_str!("../../../../tests/data/summarize.sample.jsonl");

/// Joined requests: the first rows that join at least two.
const JOINED: usize = 8;

/// Conversations: the first row of each kind (the list of methods called) whose plan crosses services and refers back.
const TRIPS: usize = 5;

/// Conversations that the planner plans itself: the first rows.
const TALKS: usize = 3;

/// Rows of each of the other tasks: a user's turn to slots, acts to a reply, a dialogue to its hand-over note. The first ones that
/// have something to find, and something to say.
const OTHERS: usize = 2;

/// A plan that starts so asks for a flight on the day of a weather report. The concierge gives its first report of the city, and for
/// that day no flight was recorded in most of these conversations: they can be planned, and not executed.
const NOT_RECORDED: &str = "Weather_1.GetWeather";

/// Characters of an input that a title shows: two lines of a terminal.
const TOLD: usize = 160;

/// Single requests at most, in search of one that the specialist hands on: at the calibrated thresholds one in four or more is.
const SINGLES: usize = 12;

/// Requests for other services at most, if the specialist was sure of all those: what people ask an assistant for, from roll a
/// dice to credit scores, and hardly ever what its seven tools do.
const BEYOND: usize = 12;

/// Which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests joined in one sentence: planner, then parallel calls.
    Joined,
    /// A conversation whose plan has edges across services, as people planned it.
    Trip,
    /// A conversation that the planner plans.
    Talk,
    /// What is said of such a conversation's answers, once its plan has run.
    Reply,
    /// The hand-over note of it.
    Note,
    /// One step of another task.
    Step(Task),
    /// One request, perhaps too much for the specialist.
    Single,
    /// A request that no tool of the specialist can do, so that nobody wrote down a right call.
    Beyond,
}

/// One goal.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub(super) kind: Kind,
    pub(super) request: ExecutePlanRequest,
    /// The row, for scoring.
    pub(super) row: Value,
    json: Json,
}

impl Goal {
    /// The row's id.
    pub(super) fn id(&self) -> &str {
        self.json["id"].as_str().unwrap_or_default()
    }

    /// One of a row that was made here.
    pub(super) fn new(kind: Kind, request: ExecutePlanRequest, json: Json) -> Self {
        let row = pyjson::parse(&json.to_string()).unwrap_or(Value::None);
        Self {
            kind,
            request,
            row,
            json,
        }
    }

    /// The row's input.
    pub(super) fn input(&self) -> &Json {
        &self.json["input"]
    }

    /// How the row is scored.
    pub(super) fn task(&self) -> Task {
        match self.kind {
            Kind::Joined => Task::Plan,
            Kind::Trip | Kind::Talk => Task::Episode,
            Kind::Reply => Task::Compose,
            Kind::Note => Task::Summarize,
            Kind::Step(task) => task,
            Kind::Single | Kind::Beyond => Task::ToolCall,
        }
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        match self.kind {
            Kind::Joined => format!("joined requests: {}", self.json["input"].as_str().unwrap_or_default()),
            Kind::Trip | Kind::Talk => {
                let turns = self.json["input"]["turns"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Json::as_str);
                let whose = if self.kind == Kind::Trip {
                    "people planned"
                } else {
                    "planned here"
                };
                format!("conversation, {whose}: {}", turns.collect::<Vec<_>>().join(" / "))
            }
            Kind::Reply => format!("its answers, as replies: {}", self.told()),
            Kind::Note => "its hand-over note".to_owned(),
            Kind::Step(task) => format!("one step, {}: {}", task.name(), self.told()),
            Kind::Single => format!("one request: {}", self.json["input"].as_str().unwrap_or_default()),
            Kind::Beyond => format!("beyond the tools: {}", self.json["input"].as_str().unwrap_or_default()),
        }
    }

    /// The input on one line, cut where it is long.
    fn told(&self) -> String {
        let input = self.json["input"].to_string();
        match input.char_indices().nth(TOLD) {
            Some((end, _)) => format!("{} ...", &input[..end]),
            None => input,
        }
    }

    /// The row with what each of its calls was really answered, by name, in place of what was recorded then.
    pub(super) fn answered(&self, answer: impl Fn(&str) -> Json) -> Value {
        let mut json = self.json.clone();
        for call in json["target"].as_array_mut().into_iter().flatten() {
            call["result"] = answer(&name(call));
        }
        pyjson::parse(&json.to_string()).unwrap_or(Value::None)
    }

    /// What people wrote down as right.
    pub(super) fn target(&self) -> &Json {
        &self.json["target"]
    }
}

fn rows(text: &str) -> impl Iterator<Item = (Value, Json)> {
    text.lines()
        .filter_map(|line| Some((pyjson::parse(line).ok()?, serde_json::from_str(line).ok()?)))
}

/// Requests joined in one sentence, as goals in words.
pub(super) fn joined() -> Vec<Goal> {
    let several = |json: &Json| json["target"].as_array().is_some_and(|t| t.len() > 1);
    let goal = |(row, json): (Value, Json)| {
        let text = json["input"].as_str().unwrap_or_default().to_owned();
        let request = run::of_goal(v1::Goal {
            text,
            ..Default::default()
        });
        Goal {
            kind: Kind::Joined,
            request,
            row,
            json,
        }
    };
    rows(PLAN)
        .filter(|(_, json)| several(json))
        .take(JOINED)
        .map(goal)
        .collect()
}

/// Single requests, as plans of one node: such as the specialist is for, then such as it is not.
pub(super) fn single() -> Vec<Goal> {
    let goal = |kind| {
        move |(row, json): (Value, Json)| {
            let request = ask::one_node(Task::ToolCall, &json["input"]);
            Goal {
                kind,
                request,
                row,
                json,
            }
        }
    };
    let own = rows(TOOL_CALL).take(SINGLES).map(goal(Kind::Single));
    own.chain(rows(ROUTE).take(BEYOND).map(goal(Kind::Beyond))).collect()
}

/// Single requests with their calls, all of the sample's.
pub(super) fn requests() -> Vec<Json> {
    rows(TOOL_CALL).map(|(_, json)| json).collect()
}

/// The steps of the sample's plans, as requests with their calls.
pub(super) fn steps() -> Vec<Json> {
    let step = |(id, at, step): (Json, usize, Json)| {
        let id = format!("{}-{at}", id.as_str().unwrap_or_default());
        serde_json::json!({"id": id, "task": "tool_call", "input": step["input"], "target": step["output"]})
    };
    let of_row = |(_, json): (Value, Json)| {
        let steps = json["target"].as_array().cloned().unwrap_or_default();
        steps
            .into_iter()
            .enumerate()
            .map(move |(at, step)| (json["id"].clone(), at, step))
    };
    rows(PLAN).flat_map(of_row).map(step).collect()
}

/// A row of `requests`, or one like it, as a goal.
pub(super) fn single_of(json: Json) -> Goal {
    let request = ask::one_node(Task::ToolCall, &json["input"]);
    Goal::new(Kind::Single, request, json)
}

/// Conversations, with the methods that their planner may use.
pub(super) fn talks() -> Vec<Goal> {
    let goal = |(row, json): (Value, Json)| Goal {
        kind: Kind::Talk,
        request: run::of_goal(ask::conversation(&json["input"])),
        row,
        json,
    };
    rows(EPISODE).take(TALKS).map(goal).collect()
}

/// Steps of the tasks that no other goal here has.
pub(super) fn others() -> Vec<Goal> {
    let of = |task: Task, text: &'static str| {
        let spoken = move |json: &Json| task != Task::Compose || json["input"].to_string().contains("\"values\"");
        let found = |json: &Json| json["target"].as_object().is_none_or(|slots| !slots.is_empty());
        let goal = move |(row, json): (Value, Json)| Goal {
            kind: Kind::Step(task),
            request: ask::one_node(task, &json["input"]),
            row,
            json,
        };
        rows(text)
            .filter(move |(_, json)| spoken(json) && found(json))
            .take(OTHERS)
            .map(goal)
    };
    of(Task::Extract, EXTRACT)
        .chain(of(Task::Compose, COMPOSE))
        .chain(of(Task::Summarize, SUMMARIZE))
        .collect()
}

/// Conversations, by the plan that people wrote: by turns as plan text and as typed plans.
pub(super) fn trips() -> Vec<Goal> {
    let mut kinds: Vec<Vec<String>> = Vec::new();
    let mut goals = Vec::new();
    for (row, json) in
        rows(EPISODE).filter(|(_, json)| json["cross"] == true && json["target"].to_string().contains("${"))
    {
        let calls = json["target"].as_array().cloned().unwrap_or_default();
        let kind: Vec<String> = calls.iter().map(name).collect();
        let recorded = kind.first().is_some_and(|first| first != NOT_RECORDED);
        if goals.len() == TRIPS || kinds.contains(&kind) || !recorded {
            continue;
        }
        kinds.push(kind);
        let source = if goals.len() % 2 == 0 {
            Source::PlanText(plan_text(&calls))
        } else {
            Source::Plan(typed(&calls))
        };
        let request = ExecutePlanRequest {
            source: Some(source),
            ..Default::default()
        };
        goals.push(Goal {
            kind: Kind::Trip,
            request,
            row,
            json,
        });
    }
    goals
}

fn name(call: &Json) -> String {
    let part = |key: &str| call[key].as_str().unwrap_or_default();
    format!("{}.{}", part("service"), part("method"))
}

fn parameters(call: &Json) -> impl Iterator<Item = (&String, &str)> {
    call["parameters"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k, v.as_str().unwrap_or_default()))
}

/// Calls of the task data as plan text.
fn plan_text(calls: &[Json]) -> String {
    let step = |call: &Json| {
        let arguments = parameters(call).map(|(name, value)| match whole_reference(value) {
            Some(reference) => format!("{name}=${reference}"),
            None => format!("{name}={}", Json::from(ask::escape(value))),
        });
        format!(
            "{}. {}({})\n",
            call["id"],
            name(call),
            arguments.collect::<Vec<_>>().join(", ")
        )
    };
    calls.iter().map(step).collect()
}

/// Calls of the task data as a typed plan.
fn typed(calls: &[Json]) -> v1::Plan {
    let node = |call: &Json| {
        let value = |v: &str| {
            if whole_reference(v).is_some() {
                v.to_owned()
            } else {
                ask::escape(v)
            }
        };
        let arguments: serde_json::Map<String, Json> = parameters(call)
            .map(|(name, v)| (name.clone(), Json::from(value(v))))
            .collect();
        let tool = v1::ToolCall {
            name: name(call),
            arguments_json: Json::from(arguments).to_string(),
        };
        v1::Node {
            id: call["id"].to_string(),
            kind: Some(node::Kind::Tool(tool)),
            ..Default::default()
        }
    };
    v1::Plan {
        nodes: calls.iter().map(node).collect(),
    }
}

/// "1.name" of "${1.name}".
fn whole_reference(value: &str) -> Option<&str> {
    let inner = value.strip_prefix("${")?.strip_suffix('}')?;
    let (id, field) = inner.split_once('.')?;
    let fits = !id.is_empty()
        && id.bytes().all(|b| b.is_ascii_digit())
        && field.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    fits.then_some(inner)
}

#[cfg(test)]
mod tests;
