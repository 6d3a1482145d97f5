//! From a goal to steps: the planner is asked like any model, and what it writes joins the graph line by line while it still writes.
//!
//! That holds where nobody else can take over from the planner that writes. Where somebody could, because the text may turn out
//! garbled or doubtful, its steps wait for its end: a step that has run cannot be taken back.
use crate::{
    admit::Admission,
    error::Error,
    route::{Input, Registry},
};
use serde_json::{Map, Value};
use shoal_kit::config;
use shoal_plan::{Graph, Node, text};
use shoal_proto::v1;

pub(crate) mod draft;
pub(crate) mod intent;
pub(crate) mod once;

pub(crate) use draft::Draft;

/// The task that plans a goal, and what its model is asked.
pub(crate) fn question<'a>(goal: &v1::Goal, config: &'a config::Gateway, registry: &Registry) -> (&'a str, Input) {
    if goal.turns.is_empty() {
        return (&config.plan_task, Input::Text(goal.text.clone()));
    }
    let mut methods = Map::new();
    let mut add = |service: &str, method: &str, parameters: &[String]| {
        let of_service = methods.entry(service).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(of_service) = of_service {
            of_service.insert(method.to_owned(), parameters.into());
        }
    };
    if goal.methods.is_empty() {
        for tool in registry.tools() {
            if let Some((service, method)) = tool.name.split_once('.') {
                add(service, method, &tool.parameters);
            }
        }
    } else {
        goal.methods
            .iter()
            .for_each(|m| add(&m.service, &m.method, &m.parameters));
    }
    let content = Map::from_iter([
        ("methods".to_owned(), Value::Object(methods)),
        ("turns".to_owned(), Value::from(goal.turns.clone())),
    ]);
    (&config.episode_task, Input::Json(content))
}

/// Whether a goal that names these methods lets its plan call a tool: one that names none lets it call any.
pub(crate) fn may_call(methods: &[v1::MethodSignature], tool: &str) -> bool {
    let named = |m: &v1::MethodSignature| tool.split_once('.') == Some((&*m.service, &*m.method));
    methods.is_empty() || methods.iter().any(named)
}

/// Whether a goal allows a step: it names the methods that may be called, if it names any.
pub(crate) fn allowed(goal: &v1::Goal, node: &Node) -> Result<(), String> {
    let shoal_plan::Kind::Tool { name, .. } = &node.kind else {
        return Ok(());
    };
    if may_call(&goal.methods, name) {
        return Ok(());
    }
    Err(format!(
        "step {} calls {name}, which is none of the goal's methods",
        node.id
    ))
}

/// Whether a text is a plan that could run: what the planner's answer is held to.
///
/// # Errors
/// In words.
pub(crate) fn runnable(written: &str, goal: &v1::Goal, admission: &Admission<'_>) -> Result<(), String> {
    let limits = admission.graph_limits();
    let nodes = text::parse_past(limits.max_nodes, written).map_err(|garbled| garbled.to_string())?;
    let mut graph = Graph::empty(limits);
    for node in nodes {
        allowed(goal, &node)?;
        match admission.written(&node) {
            // Whether the text is wrong is not known while a tool server has not been asked; when the step joins, that is told.
            Ok(_) | Err(Error::Away { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
        graph.push(node).map_err(|faults| {
            faults
                .told()
                .iter()
                .map(|f| f.description.clone())
                .collect::<Vec<_>>()
                .join("; ")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
