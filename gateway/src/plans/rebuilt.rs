//! A record of a plan that this gateway does not hold, from what the feedback store keeps of it: only ended nodes are known.
use super::record::sum;
use crate::admit::AHEAD;
use shoal_proto::{time, v1};
use std::time::Duration;

/// The record; `None` if nothing is stored.
pub(crate) fn of(plan_id: &str, outcomes: Vec<v1::Outcome>) -> Option<v1::GetPlanResponse> {
    let first = outcomes.first()?;
    let trace_id = first.trace_id.clone();
    let usage = sum(outcomes.iter().filter_map(|o| o.usage.as_ref()));
    let elapsed = outcomes.iter().map(ended_after).max().unwrap_or_default();
    let accepted_at = outcomes.iter().find_map(|o| {
        let finished = o.finished_at.as_ref().and_then(time::system_time)?;
        finished.checked_sub(ended_after(o)).map(time::timestamp)
    });
    let mut nodes: Vec<v1::NodeResult> = Vec::new();
    for outcome in outcomes {
        let result = node(outcome);
        // A node that fell back has two outcomes; the later one is its end.
        match nodes.iter_mut().find(|n| n.node_id == result.node_id) {
            Some(known) => *known = result,
            None => nodes.push(result),
        }
    }
    // Stable: the steps keep their order.
    nodes.sort_by_key(|n| AHEAD.iter().position(|id| *id == n.node_id).unwrap_or(AHEAD.len()));
    let bad = nodes.iter().find(|n| n.state() == v1::State::Failed);
    let bad = bad.or_else(|| nodes.iter().find(|n| n.state() == v1::State::Cancelled));
    Some(v1::GetPlanResponse {
        plan_id: plan_id.to_owned(),
        // A plan may survive a failed node by the node's policy, which no outcome tells: the worst of its nodes is what is known.
        state: bad.map_or(v1::State::Succeeded, v1::NodeResult::state).into(),
        trace_id,
        fault: bad.and_then(|n| n.fault.clone()),
        accepted_at,
        elapsed: Some(time::duration(elapsed)),
        usage: Some(usage),
        nodes,
        from_outcomes: true,
    })
}

fn duration(wire: Option<&prost_types::Duration>) -> Duration {
    wire.and_then(time::std_duration).unwrap_or_default()
}

fn ended_after(outcome: &v1::Outcome) -> Duration {
    duration(outcome.started_after.as_ref()).saturating_add(duration(outcome.elapsed.as_ref()))
}

fn node(o: v1::Outcome) -> v1::NodeResult {
    v1::NodeResult {
        node_id: o.node_id,
        kind: o.kind,
        name: o.name,
        state: o.state,
        endpoint: o.decisions.last().map(|d| d.endpoint.clone()).unwrap_or_default(),
        target: o.target,
        model: o.model,
        output_json: o.output_json,
        input_json: o.input_json,
        fault: o.fault,
        usage: o.usage,
        timings: o.timings,
        confidence: o.confidence,
        decisions: o.decisions,
        started_after: o.started_after,
        elapsed: o.elapsed,
        depends_on: o.depends_on,
        outcome_id: o.outcome_id,
        // No outcome tells it.
        finish_reason: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::{INTENT_PLANNER, PLANNER, ROUTER};
    use std::time::UNIX_EPOCH;

    fn outcome(node_id: &str, start: u64, took: u64, state: v1::State) -> v1::Outcome {
        v1::Outcome {
            plan_id: "p".into(),
            node_id: node_id.into(),
            trace_id: "ab".into(),
            state: state.into(),
            started_after: Some(time::duration(Duration::from_secs(start))),
            elapsed: Some(time::duration(Duration::from_secs(took))),
            finished_at: Some(time::timestamp(UNIX_EPOCH + Duration::from_secs(1000 + start + took))),
            usage: Some(v1::Usage {
                input_tokens: 1,
                ..v1::Usage::default()
            }),
            ..v1::Outcome::default()
        }
    }

    #[test]
    fn ended_nodes_make_a_record_with_the_calls_ahead_first_and_a_fall_backs_last_word() {
        let outcomes = vec![
            outcome("1", 2, 1, v1::State::Failed),
            outcome(INTENT_PLANNER, 1, 1, v1::State::Succeeded),
            outcome(PLANNER, 0, 1, v1::State::Succeeded),
            outcome(ROUTER, 0, 1, v1::State::Succeeded),
            outcome("1", 3, 4, v1::State::Succeeded),
        ];
        let record = of("p", outcomes).expect("stored");
        let ids: Vec<_> = record.nodes.iter().map(|n| n.node_id.as_str()).collect();
        assert_eq!(
            (ids, record.state()),
            (vec![ROUTER, PLANNER, INTENT_PLANNER, "1"], v1::State::Succeeded)
        );
        assert!(record.from_outcomes);
        assert_eq!(record.elapsed, Some(time::duration(Duration::from_secs(7))));
        assert_eq!(
            record.accepted_at,
            Some(time::timestamp(UNIX_EPOCH + Duration::from_secs(1000)))
        );
        assert_eq!(record.usage.expect("usage").input_tokens, 5);
        assert!(of("p", Vec::new()).is_none());
    }
}
