//! The drawing. Pure: a record in, lines out.
use super::{
    critical::{critical_path, end, ran},
    edges,
};
use crate::{
    json::{self, seconds},
    output,
    view::{colour, milliseconds},
};
use shoal_proto::v1::{GetPlanResponse, NodeResult};

/// Columns of the time axis: with the id, the name and the figures beside it, a line fits in 120.
const WIDTH: usize = 40;

/// The record as lines; `coloured` for a terminal.
#[must_use]
pub fn waterfall(record: &GetPlanResponse, coloured: bool) -> Vec<String> {
    let path = critical_path(&record.nodes);
    let total = record
        .nodes
        .iter()
        .map(end)
        .fold(seconds(record.elapsed.as_ref()), f64::max);
    let mut lines = vec![heading(record)];
    if let Some(fault) = &record.fault {
        lines.push(format!(
            "  {}: {}",
            shoal_kit::status::code_name(fault.code),
            fault.message
        ));
    }
    if record.from_outcomes {
        lines.push("  rebuilt from the feedback store: only nodes that ended are known".into());
    }
    lines.push(String::new());
    let rows: Vec<Vec<String>> = record
        .nodes
        .iter()
        .enumerate()
        .map(|(i, n)| row(n, path.contains(&i), total))
        .collect();
    let table = output::table(&["  node", "step", &axis(total), "took", "target", "tokens"], &rows);
    for (index, line) in table.into_iter().enumerate() {
        let node = index
            .checked_sub(1)
            .and_then(|i| record.nodes.get(i))
            .filter(|_| coloured);
        lines.push(node.map_or(line.clone(), |n| {
            let style = colour(n.state);
            format!("{style}{line}{style:#}")
        }));
    }
    lines.push(String::new());
    if !path.is_empty() {
        let ids: Vec<&str> = path.iter().map(|i| record.nodes[*i].node_id.as_str()).collect();
        let busy: f64 = path.iter().map(|i| seconds(record.nodes[*i].elapsed.as_ref())).sum();
        lines.push(format!(
            "critical path (*): {}, {} of {}",
            ids.join(" -> "),
            milliseconds(busy.min(total)),
            milliseconds(total)
        ));
    }
    let edges: Vec<String> = edges(record)
        .into_iter()
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect();
    lines.push(if edges.is_empty() {
        "edges: none".into()
    } else {
        format!("edges: {}", edges.join(", "))
    });
    lines.push("where each node ran, and why:".into());
    lines.extend(record.nodes.iter().flat_map(reasons));
    lines
}

fn heading(record: &GetPlanResponse) -> String {
    let usage = record.usage.unwrap_or_default();
    format!(
        "plan {} {} in {}, {}+{} tokens, ${:.6}, trace {}",
        record.plan_id,
        json::state(record.state),
        milliseconds(seconds(record.elapsed.as_ref())),
        usage.input_tokens,
        usage.output_tokens,
        usage.cost_usd,
        record.trace_id,
    )
}

/// "0 ms ... 812 ms", as wide as the bars.
fn axis(total: f64) -> String {
    let last = milliseconds(total);
    format!("0 ms{last:>width$}", width = WIDTH - 4)
}

fn row(node: &NodeResult, critical: bool, total: f64) -> Vec<String> {
    let usage = node.usage.unwrap_or_default();
    let tokens = usage.input_tokens + usage.output_tokens;
    let ran = ran(node);
    vec![
        format!("{} {}", if critical { '*' } else { ' ' }, node.node_id),
        format!("{} {}", node.kind, node.name),
        if ran {
            bar(seconds(node.started_after.as_ref()), end(node), total)
        } else {
            String::new()
        },
        if ran {
            milliseconds(seconds(node.elapsed.as_ref()))
        } else {
            json::state(node.state).into()
        },
        node.target.clone(),
        if tokens > 0 {
            format!("{}+{}", usage.input_tokens, usage.output_tokens)
        } else {
            String::new()
        },
    ]
}

/// The node's span on the axis: at least one column, never past the end.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "columns, 0 to 40"
)]
fn bar(start: f64, end: f64, total: f64) -> String {
    let column = |t: f64| {
        if total > 0.0 {
            (t / total * WIDTH as f64).round().clamp(0.0, WIDTH as f64) as usize
        } else {
            0
        }
    };
    let from = column(start).min(WIDTH - 1);
    let to = column(end).max(from + 1);
    format!("{}{}", "·".repeat(from), "█".repeat(to - from))
}

/// The node's decisions in words.
fn reasons(node: &NodeResult) -> Vec<String> {
    let at = if node.endpoint.is_empty() {
        String::new()
    } else {
        format!(" at {}", node.endpoint)
    };
    let model = if node.model.is_empty() {
        String::new()
    } else {
        format!(" ({})", node.model)
    };
    let place = if node.target.is_empty() {
        "nowhere".to_owned()
    } else {
        format!("{}{model}{at}", node.target)
    };
    let mut lines = vec![format!(
        "  {} {}: {} on {place}",
        node.node_id,
        node.name,
        json::state(node.state)
    )];
    for d in &node.decisions {
        let took = d
            .elapsed
            .as_ref()
            .map_or(String::new(), |e| format!(" after {}", milliseconds(seconds(Some(e)))));
        let why = if d.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", d.reason)
        };
        lines.push(format!("      {} {}{took}{why}", d.target, json::verdict(d.verdict)));
    }
    if let Some(fault) = &node.fault {
        lines.push(format!(
            "      {}: {}",
            shoal_kit::status::code_name(fault.code),
            fault.message
        ));
    }
    lines
}

#[cfg(test)]
mod tests;
