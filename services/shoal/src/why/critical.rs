//! The critical path: the chain of nodes that decided how long the plan took.
use crate::json::seconds;
use shoal_proto::v1::{NodeResult, State};
use std::collections::HashSet;

/// Indices into `nodes`, first to last: from the node that ended last back over, at each, the dependency that ended last; a node
/// that waits for none waited for the calls ahead of the steps, if there were any. Nodes that never ran are on no path.
#[must_use]
pub fn critical_path(nodes: &[NodeResult]) -> Vec<usize> {
    let ran = |i: &usize| ran(&nodes[*i]);
    let latest = |among: &mut dyn Iterator<Item = usize>| {
        among
            .filter(ran)
            .max_by(|a, b| end(&nodes[*a]).total_cmp(&end(&nodes[*b])))
    };
    let mut path = Vec::new();
    let mut seen = HashSet::new();
    let mut at = latest(&mut (0..nodes.len()));
    while let Some(index) = at {
        // A record that names a cycle (it cannot come from our gateway) must not hang us.
        if !seen.insert(index) {
            break;
        }
        path.push(index);
        let node = &nodes[index];
        let awaited = |i: &usize| node.depends_on.contains(&nodes[*i].node_id);
        at = latest(&mut (0..nodes.len()).filter(awaited)).or_else(|| ahead(nodes, node));
    }
    path.reverse();
    path
}

/// The call ahead of the steps that a node without dependencies waited for, by the ids that a gateway gives them: two that are asked at
/// once, and the planner that the intent chose, once both had answered.
fn ahead(nodes: &[NodeResult], node: &NodeResult) -> Option<usize> {
    let find = |id: &str| nodes.iter().position(|n| n.node_id == id && ran(n));
    let (router, planner, chosen) = (find("router"), find("planner"), find("intent-planner"));
    match node.node_id.as_str() {
        "router" | "planner" => return None,
        "intent-planner" => {}
        _ if chosen.is_some() => return chosen,
        _ => {}
    }
    // A planner may write on while its steps run. The router's answer was waited for only if it was there before.
    let last = |router: &usize| {
        let answered = end(&nodes[*router]);
        answered <= seconds(node.started_after.as_ref()) && planner.is_none_or(|p| end(&nodes[p]) < answered)
    };
    router.filter(last).or(planner)
}

/// Whether the node started at all.
pub(super) fn ran(node: &NodeResult) -> bool {
    node.elapsed.is_some() && !matches!(node.state(), State::Skipped | State::Pending)
}

/// Seconds from the plan's acceptance to the node's end.
pub(super) fn end(node: &NodeResult) -> f64 {
    seconds(node.started_after.as_ref()) + seconds(node.elapsed.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Duration;

    fn node(id: &str, start_ms: i32, took_ms: i32, depends_on: &[&str]) -> NodeResult {
        let ms = |n: i32| {
            Some(Duration {
                seconds: i64::from(n / 1000),
                nanos: n % 1000 * 1_000_000,
            })
        };
        NodeResult {
            node_id: id.into(),
            kind: "tool".into(),
            name: format!("S.{id}"),
            state: State::Succeeded.into(),
            target: "concierge".into(),
            started_after: ms(start_ms),
            elapsed: ms(took_ms),
            depends_on: depends_on.iter().map(|d| (*d).to_owned()).collect(),
            ..Default::default()
        }
    }

    fn ids(nodes: &[NodeResult]) -> Vec<&str> {
        critical_path(nodes)
            .into_iter()
            .map(|i| nodes[i].node_id.as_str())
            .collect()
    }

    #[test]
    fn a_skewed_diamond_is_decided_by_its_slow_side() {
        let nodes = [
            node("a", 0, 10, &[]),
            node("fast", 10, 5, &["a"]),
            node("slow", 10, 90, &["a"]),
            node("d", 100, 20, &["fast", "slow"]),
            node("aside", 0, 50, &[]),
        ];
        assert_eq!(ids(&nodes), ["a", "slow", "d"]);
    }

    #[test]
    fn the_planner_comes_before_every_root_and_what_never_ran_is_on_no_path() {
        let mut skipped = node("3", 0, 0, &["2"]);
        skipped.state = State::Skipped.into();
        let nodes = [
            node("planner", 0, 40, &[]),
            node("1", 30, 20, &[]),
            node("2", 50, 30, &["1"]),
            skipped,
        ];
        assert_eq!(ids(&nodes), ["planner", "1", "2"]);
        assert!(critical_path(&[]).is_empty());
    }

    #[test]
    fn of_the_calls_ahead_the_one_that_was_waited_for_is_on_the_path() {
        let of = |router: i32, chosen: Option<i32>, step: i32| {
            let mut nodes = vec![node("router", 0, router, &[]), node("planner", 0, 20, &[])];
            nodes.extend(chosen.map(|start| node("intent-planner", start, 30, &[])));
            nodes.push(node("1", step, 10, &[]));
            ids(&nodes).join(" ")
        };
        assert_eq!(of(10, None, 21), "planner 1");
        assert_eq!(of(40, None, 41), "router 1", "a single step waits for its intent");
        assert_eq!(of(25, None, 21), "planner 1", "a second step does not");
        assert_eq!(of(10, Some(21), 52), "planner intent-planner 1");
        assert_eq!(of(40, Some(41), 72), "router intent-planner 1");
    }

    #[test]
    fn a_cycle_in_a_record_ends() {
        assert_eq!(ids(&[node("a", 0, 10, &["b"]), node("b", 0, 5, &["a"])]), ["b", "a"]);
    }
}
