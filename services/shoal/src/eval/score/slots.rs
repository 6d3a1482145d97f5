//! `tool_call` and `extract`: values by name.
use super::{F1, Figures, Malformed, Row, Share, flat, norm, norm_or_none};
use crate::eval::pyjson::Value;

/// Whole call, tool, and the arguments' micro F1.
pub(super) fn tool_call(rows: &[&Row]) -> Result<Figures, Malformed> {
    let (mut whole, mut tool, mut arguments) = (Share::default(), Share::default(), F1::default());
    for row in rows {
        let target = row.target()?;
        let gold_tool = target.get("tool").ok_or_else(|| row.malformed("target.tool"))?;
        let gold_arguments = target
            .get("arguments")
            .ok_or_else(|| row.malformed("target.arguments"))?;
        whole.add(norm(target) == norm(&row.output));
        tool.add(norm(gold_tool) == norm_or_none(row.output.get("tool")));
        arguments.add(&flat(Some(gold_arguments)), &flat(row.output.get("arguments")));
    }
    Ok(vec![
        ("score", whole.value()),
        ("tool", tool.value()),
        ("argument_f1", arguments.value()),
    ])
}

/// Micro F1 of slot values, and how often nothing is made of nothing.
pub(super) fn extract(rows: &[&Row]) -> Result<Figures, Malformed> {
    let (mut slots, mut exact, mut invented, mut empty) =
        (F1::default(), Share::default(), Share::default(), Share::default());
    for row in rows {
        let target = row.target()?;
        slots.add(&flat(Some(target)), &flat(Some(&row.output)));
        if target.truthy() {
            exact.add(norm(target) == norm(&row.output));
        } else {
            invented.add(matches!(&row.output, Value::Dict(entries) if !entries.is_empty()));
        }
        empty.add(!target.truthy());
    }
    Ok(vec![
        ("score", slots.value()),
        ("exact_nonempty", exact.value()),
        ("false_extraction", invented.value()),
        ("always_empty_exact", empty.value()),
    ])
}

/// One row's part in `extract`'s F1.
pub(super) fn found(row: &Row) -> Result<F1, Malformed> {
    let mut slots = F1::default();
    slots.add(&flat(Some(row.target()?)), &flat(Some(&row.output)));
    Ok(slots)
}
