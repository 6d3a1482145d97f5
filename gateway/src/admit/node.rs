//! One step as a typed plan brings it.
use super::{Admission, Faults, Known, Step, is_ahead, limits};
use crate::schema::{Allowance, Schema};
use serde_json::Value;
use shoal_plan::{
    Json, Kind, Template,
    graph::{Node, OnFailure},
    integers,
};
use shoal_proto::v1::{self, failure_policy::Action};
use std::sync::Arc;

/// Names that an error lists: enough to see the typo.
const TOLD: usize = 12;

/// A node that stands for one that could not be read, so that references to it are not wrong as well.
pub(super) fn placeholder(id: &str) -> Node {
    let nothing = Kind::Model {
        task: String::new(),
        input: Template::default(),
    };
    Node::new(id, nothing)
}

impl Admission<'_> {
    /// Reads one step, whatever is wrong with it; its schema is compiled within the allowance.
    pub(super) fn step(&self, wire: &v1::Node, path: &str, allowance: &mut Allowance, faults: &mut Faults) -> Step {
        let mut node = placeholder(&wire.id);
        let (mut sampling, mut schema) = (None, None);
        if is_ahead(&wire.id) {
            faults.add(
                format!("{path}.id"),
                format!(
                    "`{}` is what a call ahead of the plan's steps is called; choose another",
                    wire.id
                ),
            );
        }
        match &wire.kind {
            None => faults.add(format!("{path}.kind"), "set one of model and tool"),
            Some(v1::node::Kind::Model(model)) => {
                self.task(&model.task, &format!("{path}.model.task"), faults);
                match Template::parse(&model.input) {
                    Ok(input) => {
                        node.kind = Kind::Model {
                            task: model.task.clone(),
                            input,
                        }
                    }
                    Err(error) => faults.add(format!("{path}.model.input"), error.to_string()),
                }
                if let Some(wire) = &model.sampling {
                    limits::sampling(wire, &format!("{path}.model.sampling"), faults);
                    sampling = Some(wire.clone());
                }
                if !model.output_schema_json.is_empty() {
                    match Schema::within(allowance, &model.output_schema_json) {
                        Ok(compiled) => schema = Some(Arc::new(compiled)),
                        Err(said) => faults.add(format!("{path}.model.output_schema_json"), said),
                    }
                }
            }
            Some(v1::node::Kind::Tool(tool)) => {
                let field = format!("{path}.tool.arguments_json");
                let arguments = arguments(&tool.arguments_json, &field, faults);
                self.tool(&tool.name, arguments.as_ref(), &format!("{path}.tool"), faults);
                if let Some(arguments) = arguments {
                    node.kind = Kind::Tool {
                        name: tool.name.clone(),
                        arguments,
                    };
                }
            }
        }
        let (after, most) = (wire.after.len(), self.config.max_nodes);
        if after > most {
            let said = format!("{after} entries; a plan has at most {most} nodes ([gateway] max_nodes)");
            faults.add(format!("{path}.after"), said);
        } else {
            node.after.clone_from(&wire.after);
        }
        node.timeout = wire
            .timeout
            .as_ref()
            .map(|t| limits::positive(t, &format!("{path}.timeout"), faults));
        node.max_attempts = limits::attempts(wire.max_attempts, path, faults);
        node.on_failure = self.policy(wire, &format!("{path}.on_failure"), faults);
        node.human_facing = wire.human_facing;
        node.private = wire.private;
        Step {
            node,
            wire: wire.clone(),
            sampling,
            schema,
            conversation: None,
        }
    }

    fn policy(&self, wire: &v1::Node, path: &str, faults: &mut Faults) -> OnFailure {
        let Some(policy) = &wire.on_failure else {
            return OnFailure::Fail;
        };
        let Ok(action) = Action::try_from(policy.action) else {
            let said = format!("{} is no Action that this version knows; send 0 to 4", policy.action);
            faults.add(format!("{path}.action"), said);
            return OnFailure::Fail;
        };
        if action != Action::Default && !policy.default_json.is_empty() {
            faults.add(format!("{path}.default_json"), "is read with ACTION_DEFAULT alone");
        }
        if action != Action::FallBack && !policy.fallback_task.is_empty() {
            faults.add(format!("{path}.fallback_task"), "is read with ACTION_FALL_BACK alone");
        }
        match action {
            Action::Unspecified | Action::Fail => OnFailure::Fail,
            Action::Skip => OnFailure::Skip,
            Action::Default => match json(&policy.default_json) {
                Ok(value) => OnFailure::Default(value),
                Err(said) => {
                    faults.add(
                        format!("{path}.default_json"),
                        format!("must be a JSON value; text needs its quotes: {said}"),
                    );
                    OnFailure::Fail
                }
            },
            Action::FallBack => {
                if !matches!(wire.kind, Some(v1::node::Kind::Model(_))) {
                    faults.add(
                        format!("{path}.action"),
                        "ACTION_FALL_BACK is for model nodes: a tool's arguments are no model's input",
                    );
                }
                self.task(&policy.fallback_task, &format!("{path}.fallback_task"), faults);
                OnFailure::FallBack(policy.fallback_task.clone())
            }
        }
    }

    pub(super) fn task(&self, task: &str, field: &str, faults: &mut Faults) {
        let tasks = self.catalogue.tasks();
        if !tasks.contains(&task) {
            let there = if tasks.is_empty() {
                "none is routed".into()
            } else {
                list(tasks.iter().copied())
            };
            faults.add(
                field,
                format!("no task `{}` is routed; there are: {there}", short(task)),
            );
        }
    }

    /// A tool must be there; arguments that refer to nothing can be held to its schema already.
    pub(super) fn tool(&self, name: &str, arguments: Option<&Json>, path: &str, faults: &mut Faults) {
        if self.client_tools.contains(name) {
            return;
        }
        match self.catalogue.tool(name) {
            Known::Registered(Some(schema)) => {
                let filled = arguments
                    .filter(|a| a.references().is_empty())
                    .and_then(|a| a.fill(&|_| None).ok());
                if let Some(Err(said)) = filled.map(|a| schema.check(&a)) {
                    faults.add(
                        format!("{path}.arguments_json"),
                        format!("breaks the input schema of {name}: {said}"),
                    );
                }
            }
            Known::Registered(None) => {}
            Known::Unlisted(server) => {
                faults.unlisted.insert(server);
            }
            Known::Unknown(some) => {
                let there = if some.is_empty() {
                    "none is registered".into()
                } else {
                    list(some.iter().map(String::as_str))
                };
                faults.add(
                    format!("{path}.name"),
                    format!("no tool `{}` is registered; there are: {there}", short(name)),
                );
            }
        }
    }
}

/// The object of a tool call, its strings read as templates. Nothing at all is no arguments.
fn arguments(text: &str, field: &str, faults: &mut Faults) -> Option<Json> {
    if text.trim().is_empty() {
        return Some(Json::Object(Vec::new()));
    }
    let value = match json(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(_) => {
            faults.add(field, "must be a JSON object");
            return None;
        }
        Err(said) => {
            faults.add(field, said);
            return None;
        }
    };
    match Json::parse(&value) {
        Ok(json) => Some(json),
        Err(error) => {
            faults.add(field, error.to_string());
            None
        }
    }
}

/// A JSON value in which every integer is the one that was written.
fn json(text: &str) -> Result<Value, String> {
    let value = serde_json::from_str(text).map_err(|e| format!("is no JSON: {e}"))?;
    integers::fit(text).map_err(|e| e.to_string())?;
    Ok(value)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.len() <= TOLD {
        return names.join(", ");
    }
    format!("{} and {} more", names[..TOLD].join(", "), names.len() - TOLD)
}

fn short(name: &str) -> String {
    name.chars().take(80).collect()
}
