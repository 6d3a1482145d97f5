//! What went wrong, for people: the commonest wrong tools, calls, intents and slots.
use super::{
    norm::{self, norm},
    pyjson::Value,
    score::{Row, Task},
};
use std::collections::BTreeMap;

/// Lines of each list at most.
const SHOWN: usize = 10;

/// Counts of named mistakes.
#[derive(Default)]
struct Counts(BTreeMap<String, usize>);

impl Counts {
    fn add(&mut self, mistake: String) {
        *self.0.entry(mistake).or_default() += 1;
    }

    /// The commonest first, equal counts by name.
    fn lines(self, title: &str) -> Vec<String> {
        let mut all: Vec<(String, usize)> = self.0.into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rest = all.len().saturating_sub(SHOWN);
        let heading = (!all.is_empty()).then(|| title.to_owned());
        let shown = all
            .into_iter()
            .take(SHOWN)
            .map(|(mistake, n)| format!("  {n:>5}  {mistake}"));
        let more = (rest > 0).then(|| format!("         and {rest} more kinds"));
        heading.into_iter().chain(shown).chain(more).collect()
    }
}

/// The commonest mistakes of a task's rows.
pub(super) fn lines(task: Task, rows: &[Row]) -> Vec<String> {
    let (mut names, mut slots) = (Counts::default(), Counts::default());
    for row in rows {
        let none = Value::None;
        let target = row.gold.get("target").unwrap_or(&none);
        match task {
            Task::ToolCall => tool_call(target, &row.output, &mut names, &mut slots),
            Task::Plan => {
                let (gold, said) = (steps(target), steps(&row.output));
                if gold.len() != said.len() {
                    names.add(format!("{} steps, planned as {}", gold.len(), said.len()));
                }
                gold.iter()
                    .zip(&said)
                    .for_each(|(g, s)| tool_call(g, s, &mut names, &mut slots));
            }
            Task::Route if !target.equals(&row.output) => {
                names.add(format!("{} -> {}", norm::str_of(target), norm::str_of(&row.output)));
            }
            Task::Extract => compare(target, &row.output, "", &mut slots),
            Task::Summarize | Task::Episode => called(target, &row.output, &mut names, &mut slots),
            Task::Route | Task::Compose => {}
        }
    }
    let mut all = names.lines("wrong, commonest first:");
    all.extend(slots.lines("values, commonest first:"));
    all
}

fn steps(v: &Value) -> Vec<&Value> {
    match v {
        Value::List(items) => items.iter().map(|s| s.get("output").unwrap_or(&Value::None)).collect(),
        _ => Vec::new(),
    }
}

fn tool_call(gold: &Value, said: &Value, tools: &mut Counts, slots: &mut Counts) {
    let tool = |v: &Value| v.get("tool").map_or_else(|| "no call".to_owned(), norm::str_of);
    let (want, got) = (tool(gold), tool(said));
    if norm::text(&want) == norm::text(&got) {
        let arguments = |v: &Value| v.get("arguments").cloned().unwrap_or(Value::None);
        compare(&arguments(gold), &arguments(said), &format!("{want}."), slots);
    } else {
        tools.add(format!("{want} -> {got}"));
    }
}

/// Slot by slot: missing, invented, another value.
fn compare(gold: &Value, said: &Value, prefix: &str, slots: &mut Counts) {
    let entries = |v: &Value| if let Value::Dict(e) = v { e.clone() } else { Vec::new() };
    for (slot, value) in entries(gold) {
        match said.get(&slot) {
            None => slots.add(format!("{prefix}{slot} missing")),
            Some(other) if norm(other) != norm(&value) => slots.add(format!("{prefix}{slot} has another value")),
            Some(_) => {}
        }
    }
    for (slot, _) in entries(said).into_iter().filter(|(slot, _)| gold.get(slot).is_none()) {
        slots.add(format!("{prefix}{slot} invented"));
    }
}

/// Call by call, the last of a name standing for it.
fn called(gold: &Value, said: &Value, names: &mut Counts, slots: &mut Counts) {
    let calls = |v: &Value| -> BTreeMap<String, Value> {
        let Value::List(items) = v else { return BTreeMap::new() };
        let part = |c: &Value, key| c.get(key).map_or_else(String::new, norm::str_of);
        let parameters = |c: &Value| c.get("parameters").cloned().unwrap_or(Value::None);
        items
            .iter()
            .map(|c| (format!("{}.{}", part(c, "service"), part(c, "method")), parameters(c)))
            .collect()
    };
    let (gold, said) = (calls(gold), calls(said));
    for (name, parameters) in &gold {
        match said.get(name) {
            None => names.add(format!("{name} missing")),
            Some(other) => compare(parameters, other, &format!("{name}."), slots),
        }
    }
    for name in said.keys().filter(|n| !gold.contains_key(*n)) {
        names.add(format!("{name} invented"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::pyjson::parse;

    fn row(target: &str, output: &str) -> Row {
        let gold = parse(&format!("{{\"id\": \"r\", \"target\": {target}}}")).expect("gold");
        Row {
            gold,
            output: parse(output).expect("output"),
        }
    }

    #[test]
    fn wrong_tools_and_slots_are_counted_commonest_first() {
        let play = r#"{"tool": "Play", "arguments": {"artist": "A", "year": "1"}}"#;
        let rows = [
            row(play, r#"{"tool": "Book", "arguments": {}}"#),
            row(play, "null"),
            row(play, r#"{"tool": "Book"}"#),
            row(
                play,
                r#"{"tool": "play", "arguments": {"artist": "B", "genre": "g", "year": "1."}}"#,
            ),
        ];
        assert_eq!(
            lines(Task::ToolCall, &rows),
            [
                "wrong, commonest first:",
                "      2  Play -> Book",
                "      1  Play -> no call",
                "values, commonest first:",
                "      1  Play.artist has another value",
                "      1  Play.genre invented",
            ]
        );
    }
}
