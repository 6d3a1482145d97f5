//! The drawing, line by line.
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
