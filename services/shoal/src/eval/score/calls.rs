//! `plan` and `summarize`: several calls.
use std::collections::{BTreeMap, BTreeSet};

use super::{F1, Figures, Malformed, Norm, Row, Share, as_list, flat, name, norm};
use crate::eval::pyjson::Value;

/// Every step's call right, and the goal split as people split it.
pub(super) fn plan(rows: &[&Row]) -> Result<Figures, Malformed> {
    let (mut whole, mut splits) = (Share::default(), Share::default());
    for row in rows {
        let Value::List(target) = row.target()? else {
            return Err(row.malformed("target"));
        };
        let gold = |key: &'static str| {
            let of = |step: &Value| step.get(key).map(norm).ok_or_else(|| row.malformed(key));
            target.iter().map(of).collect::<Result<Vec<Norm>, _>>()
        };
        let said = |key: &str, missing: &Norm| {
            as_list(&row.output)
                .iter()
                .map(|s| s.get(key).map_or_else(|| missing.clone(), norm))
                .collect::<Vec<_>>()
        };
        splits.add(gold("input")? == said("input", &Norm::Text(String::new())));
        whole.add(gold("output")? == said("output", &Norm::Map(BTreeMap::new())));
    }
    Ok(vec![("score", whole.value()), ("splits", splits.value())])
}

/// Micro F1 over calls and their parameters.
pub(super) fn summarize(rows: &[&Row]) -> Result<Figures, Malformed> {
    let (mut f1, mut exact) = (F1::default(), Share::default());
    for row in rows {
        let (gold, said) = (parts(row.target()?), parts(&row.output));
        f1.add(&gold, &said);
        exact.add(gold == said);
    }
    Ok(vec![("score", f1.value()), ("exact", exact.value())])
}

/// One row's part in `summarize`'s F1.
pub(super) fn made(row: &Row) -> Result<F1, Malformed> {
    let mut calls = F1::default();
    calls.add(&parts(row.target()?), &parts(&row.output));
    Ok(calls)
}

/// Every call's name with each of its parameters, and once alone.
fn parts(v: &Value) -> BTreeSet<(String, String, Option<Norm>)> {
    let mut out = BTreeSet::new();
    for call in as_list(v) {
        out.insert((name(call), String::new(), None));
        out.extend(
            flat(call.get("parameters"))
                .into_iter()
                .map(|(k, value)| (name(call), k, Some(value))),
        );
    }
    out
}
