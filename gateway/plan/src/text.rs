//! Plan text: one step a line, `$1` or `$1.field` referring to an earlier step.
//!
//! ```text
//! 1. Restaurants_2.FindRestaurants(category="Coffeehouse", location="Newark")
//! 2. RideSharing_1.GetRide(destination=$1.address, number_of_riders="2")
//! 3. tool_call: play some jazz while we wait
//! ```
//!
//! Step N is node id N. A value is a JSON value or a reference; inside its strings, and in a model step's text, `${N.f}` is a
//! reference and `$$` a dollar sign. [`Lines`] parses while a planner still writes.
use crate::{
    graph::{Kind, Node},
    reference::{Json, Template},
};
use serde_json::Value;

mod parse;
pub use parse::step;

/// Why a text is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Garbled {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What was expected and what stands there.
    pub message: String,
}

/// Takes text in pieces of any size and gives a step for each line that is whole.
#[derive(Debug, Default)]
pub struct Lines {
    pending: String,
    line: usize,
    steps: usize,
}

impl Lines {
    /// Takes a piece; gives the steps of the lines that it completed.
    ///
    /// # Errors
    /// At the first line that is no step; steps before it in the same piece are lost to the caller, whose plan has failed.
    pub fn push(&mut self, piece: &str) -> Result<Vec<Node>, Garbled> {
        let Some(end) = piece.rfind('\n') else {
            self.pending.push_str(piece);
            return Ok(Vec::new());
        };
        let (whole, rest) = piece.split_at(end + 1);
        let mut lines = std::mem::replace(&mut self.pending, rest.to_owned());
        lines.push_str(whole);
        let mut steps = Vec::new();
        for line in lines.split_inclusive('\n') {
            steps.extend(self.take(line)?);
        }
        Ok(steps)
    }

    /// The end of the text: the last line needs no line feed.
    ///
    /// # Errors
    /// When it is no step, or there was none at all.
    pub fn finish(mut self) -> Result<Option<Node>, Garbled> {
        let line = std::mem::take(&mut self.pending);
        let last = self.take(&line)?;
        if self.steps == 0 {
            return Err(Garbled {
                line: 1,
                column: 1,
                message: "the plan is empty; write `1. task: text` or `1. Service.Method(...)`".into(),
            });
        }
        Ok(last)
    }

    fn take(&mut self, line: &str) -> Result<Option<Node>, Garbled> {
        self.line += 1;
        if line.trim().is_empty() {
            return Ok(None);
        }
        let node = step(line.trim_end_matches(['\n', '\r']), self.line, self.steps + 1)?;
        self.steps += 1;
        Ok(Some(node))
    }
}

/// The steps of a whole text.
///
/// # Errors
/// At the first line that is no step.
pub fn parse(text: &str) -> Result<Vec<Node>, Garbled> {
    parse_past(usize::MAX, text)
}

/// The steps of a whole text, read no further than the first step past `most`: whoever takes no more need not hold what a megabyte of
/// short lines comes to.
///
/// # Errors
/// At the first line that is no step, as far as it is read.
pub fn parse_past(most: usize, text: &str) -> Result<Vec<Node>, Garbled> {
    let mut lines = Lines::default();
    let mut steps = Vec::new();
    for line in text.split_inclusive('\n') {
        steps.extend(lines.push(line)?);
        if steps.len() > most {
            return Ok(steps);
        }
    }
    steps.extend(lines.finish()?);
    Ok(steps)
}

/// A node as a line, without its line feed. Ids that are no numbers are written as they are: such a line is for people.
#[must_use]
pub fn print(node: &Node) -> String {
    match &node.kind {
        // A line feed inside a text would end the step.
        Kind::Model { task, input } => format!("{}. {task}: {}", node.id, input.to_string().replace(['\n', '\r'], " ")),
        Kind::Tool { name, arguments } => {
            let written: Vec<String> = match arguments {
                Json::Object(fields) => fields
                    .iter()
                    .map(|(name, value)| format!("{name}={}", print_value(value)))
                    .collect(),
                _ => Vec::new(),
            };
            format!("{}. {name}({})", node.id, written.join(", "))
        }
    }
}

fn print_value(value: &Json) -> String {
    let written = value.written();
    if let (Json::Text(template), Value::String(text)) = (value, &written) {
        let mut references = template.references();
        if let (Some(only), None) = (references.next(), references.next())
            && *text == only.to_string()
            && only.node.bytes().all(|b| b.is_ascii_digit())
        {
            return format!("${}", &text[2..text.len() - 1]);
        }
    }
    written.to_string()
}

/// A plan's steps in the shapes of the task data: `{"task", "input"}` for a model step, `{"id", "service", "method",
/// "parameters"}` for a tool step, references as `${N.f}`.
#[must_use]
pub fn task_shape(nodes: &[Node]) -> Value {
    nodes
        .iter()
        .map(|node| match &node.kind {
            Kind::Model { task, input } => serde_json::json!({"task": task, "input": literal(input)}),
            Kind::Tool { name, arguments } => {
                let (service, method) = name.split_once('.').unwrap_or(("", name));
                let id = node.id.parse::<u64>().map_or_else(|_| Value::from(node.id.clone()), Value::from);
                serde_json::json!({"id": id, "service": service, "method": method, "parameters": unescape(arguments.written())})
            }
        })
        .collect()
}

/// A template's text with `$$` as the one dollar that it means; references stay.
fn literal(template: &Template) -> String {
    template.to_string().replace("$$", "$")
}

fn unescape(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("$$", "$")),
        Value::Array(list) => list.into_iter().map(unescape).collect(),
        Value::Object(object) => Value::Object(object.into_iter().map(|(k, v)| (k, unescape(v))).collect()),
        plain => plain,
    }
}

#[cfg(test)]
mod tests;
