//! `episode`: a DAG of calls, compared after its references have been replaced by what was recorded.
use std::collections::{BTreeMap, BTreeSet};

use super::{F1, Figures, Malformed, Norm, Row, Share, as_list, name, norm};
use crate::eval::pyjson::Value;

/// Whole plan right, calls, edges, and whole plan right where it crosses services.
pub(super) fn episode(rows: &[&Row]) -> Result<Figures, Malformed> {
    let (mut whole, mut nodes, mut edge, mut cross) =
        (Share::default(), F1::default(), F1::default(), Share::default());
    for row in rows {
        let Value::List(target) = row.target()? else {
            return Err(row.malformed("target"));
        };
        let mut results: BTreeMap<String, &Value> = BTreeMap::new();
        for node in target {
            results.insert(
                name(node),
                node.get("result").ok_or_else(|| row.malformed("target[].result"))?,
            );
        }
        let said = as_list(&row.output);
        let right = resolved(target, &results) == resolved(said, &results);
        whole.add(right);
        let names = |calls: &[Value]| calls.iter().map(name).collect::<BTreeSet<_>>();
        nodes.add(&names(target), &names(said));
        edge.add(&edges(target), &edges(said));
        if row.field("cross")?.truthy() {
            cross.add(right);
        }
    }
    Ok(vec![
        ("score", whole.value()),
        ("nodes_f1", nodes.value()),
        ("edges_f1", edge.value()),
        ("cross", cross.value()),
    ])
}

/// A parameter of a call. `reference` is the name of the earlier call ("" if there is none of that id) and the field.
struct Parameter<'a> {
    call: String,
    name: &'a str,
    value: &'a Value,
    reference: Option<(String, &'a str)>,
}

/// Every parameter in order. A reference reaches only a node written before it.
fn parameters(nodes: &[Value]) -> Vec<Parameter<'_>> {
    let mut by_id: BTreeMap<u32, String> = BTreeMap::new();
    let mut out = Vec::new();
    for node in nodes {
        if let Some(Value::Dict(entries)) = node.get("parameters") {
            for (parameter, value) in entries {
                let reference = match value {
                    Value::Str(s) => reference(s),
                    _ => None,
                };
                let reference = reference.map(|(id, field)| (by_id.get(&id).cloned().unwrap_or_default(), field));
                out.push(Parameter {
                    call: name(node),
                    name: parameter,
                    value,
                    reference,
                });
            }
        }
        // An id that is no integer of the four digits that a reference can write is never reached.
        if let Some(Value::Int(digits)) = node.get("id")
            && let Ok(id) = digits.parse()
        {
            by_id.insert(id, name(node));
        }
    }
    out
}

/// `\$\{([0-9]{1,4})\.(\w+)\}`, the whole string. `\w` is a letter, a number or an underscore; a combining mark, which Python
/// leaves out and Rust counts among letters, is in no field name of the task data.
pub(in crate::eval) fn reference(s: &str) -> Option<(u32, &str)> {
    let (id, field) = s.strip_prefix("${")?.strip_suffix('}')?.split_once('.')?;
    let digits = (1..=4).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
    let word = !field.is_empty() && field.chars().all(|c| c == '_' || c.is_alphanumeric());
    if digits && word {
        Some((id.parse().ok()?, field))
    } else {
        None
    }
}

/// (earlier call, field, call, parameter) of every reference that reaches something.
fn edges(nodes: &[Value]) -> BTreeSet<(String, String, String, String)> {
    let reaching = parameters(nodes).into_iter().filter_map(|p| {
        let (from, field) = p.reference?;
        (!from.is_empty()).then(|| (from, field.to_owned(), p.call, p.name.to_owned()))
    });
    reaching.collect()
}

/// Every call with its references replaced by what the recorded call of that name returned; `None` where a call occurs twice.
fn resolved(nodes: &[Value], results: &BTreeMap<String, &Value>) -> Option<BTreeMap<String, BTreeMap<String, Norm>>> {
    let mut out: BTreeMap<String, BTreeMap<String, Norm>> = BTreeMap::new();
    for node in nodes {
        if out.insert(name(node), BTreeMap::new()).is_some() {
            return None;
        }
    }
    for p in parameters(nodes) {
        let value = match &p.reference {
            None => norm(p.value),
            Some((call, field)) => match results.get(call).and_then(|r| r.get(field)) {
                Some(recorded) => norm(recorded),
                None => Norm::List(vec![Norm::Text("unresolved".into())]),
            },
        };
        out.get_mut(&p.call)?.insert(p.name.to_owned(), value);
    }
    Some(out)
}
