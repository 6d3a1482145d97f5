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
mod tests {
    use super::*;
    use shoal_proto::v1::{Decision, State, Usage, decision::Verdict};

    fn ms(n: i32) -> Option<prost_types::Duration> {
        Some(prost_types::Duration {
            seconds: 0,
            nanos: n * 1_000_000,
        })
    }

    fn node(id: &str, start: i32, took: i32, depends_on: &[&str]) -> NodeResult {
        NodeResult {
            node_id: id.into(),
            kind: "tool".into(),
            name: "S.M".into(),
            state: State::Succeeded.into(),
            target: "concierge".into(),
            started_after: ms(start),
            elapsed: ms(took),
            depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_plan_is_drawn_with_its_critical_path_edges_and_reasons() {
        let mut escalated = node("2", 0, 50, &[]);
        escalated.kind = "model".into();
        escalated.name = "tool_call".into();
        escalated.target = "large".into();
        escalated.usage = Some(Usage {
            input_tokens: 9,
            output_tokens: 4,
            cost_usd: 0.0,
        });
        let unsure = "confidence 0.61 under threshold 0.83";
        escalated.decisions = vec![
            Decision {
                target: "small".into(),
                verdict: Verdict::Unsure.into(),
                reason: unsure.into(),
                elapsed: ms(20),
                ..Default::default()
            },
            Decision {
                target: "large".into(),
                verdict: Verdict::Chosen.into(),
                ..Default::default()
            },
        ];
        let record = GetPlanResponse {
            plan_id: "p-1".into(),
            state: State::Succeeded.into(),
            trace_id: "ab".repeat(16),
            nodes: vec![node("1", 0, 25, &[]), escalated, node("3", 50, 50, &["1", "2"])],
            elapsed: ms(100),
            usage: Some(Usage {
                input_tokens: 9,
                output_tokens: 4,
                cost_usd: 0.0,
            }),
            ..Default::default()
        };
        let lines = waterfall(&record, false);
        assert_eq!(
            lines[0],
            format!(
                "plan p-1 succeeded in 100 ms, 9+4 tokens, $0.000000, trace {}",
                "ab".repeat(16)
            )
        );
        assert!(lines[2].starts_with("  node  step             0 ms"), "{}", lines[2]);
        assert!(
            lines[3].starts_with(&format!("  1     tool S.M         {}", "█".repeat(10))),
            "{}",
            lines[3]
        );
        assert!(
            lines[4].starts_with(&format!("* 2     model tool_call  {} ", "█".repeat(20))),
            "{}",
            lines[4]
        );
        assert!(
            lines[5].contains(&format!("{}{} ", "·".repeat(20), "█".repeat(20))),
            "{}",
            lines[5]
        );
        assert!(
            lines.contains(&"critical path (*): 2 -> 3, 100 ms of 100 ms".to_owned()),
            "{lines:#?}"
        );
        assert!(lines.contains(&"edges: 1 -> 3, 2 -> 3".to_owned()), "{lines:#?}");
        assert!(
            lines.contains(&format!("      small unsure after 20 ms: {unsure}")),
            "{lines:#?}"
        );
        assert!(
            lines.contains(&"  2 tool_call: succeeded on large".to_owned()),
            "{lines:#?}"
        );
    }

    #[test]
    fn a_plan_without_nodes_or_time_is_drawn_too() {
        let lines = waterfall(&GetPlanResponse::default(), true);
        assert!(lines.contains(&"edges: none".to_owned()));
        assert_eq!(bar(0.0, 0.0, 0.0), "█");
        assert_eq!(bar(1.0, 1.0, 1.0).chars().count(), WIDTH);
    }
}
