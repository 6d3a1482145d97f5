//! Critical path and slack, from durations that someone measured or expects (the critical-path method, Kelley 1959).
use crate::graph::Graph;
use std::time::Duration;

/// For each node, the longest time from its start to the end of the plan, itself included.
#[must_use]
pub fn to_the_end(graph: &Graph, duration: impl Fn(usize) -> Duration) -> Vec<Duration> {
    let mut longest: Vec<Option<Duration>> = vec![None; graph.len()];
    for start in 0..graph.len() {
        // Depth first, without recursion: a plan may be as deep as its limit says.
        let mut stack = vec![start];
        while let Some(&at) = stack.last() {
            let open: Vec<usize> = graph
                .dependants(at)
                .iter()
                .copied()
                .filter(|&d| longest[d].is_none())
                .collect();
            if open.is_empty() {
                let after = graph
                    .dependants(at)
                    .iter()
                    .filter_map(|&d| longest[d])
                    .max()
                    .unwrap_or_default();
                longest[at] = Some(duration(at) + after);
                stack.pop();
            } else {
                stack.extend(open);
            }
        }
    }
    longest.into_iter().map(Option::unwrap_or_default).collect()
}

/// How long the plan takes if every node starts as soon as it can.
#[must_use]
pub fn critical_path(graph: &Graph, duration: impl Fn(usize) -> Duration) -> Duration {
    to_the_end(graph, duration).into_iter().max().unwrap_or_default()
}

/// How much later than now the node at `at` may start, if `left` is the time to the plan's deadline; zero if it is late.
#[must_use]
pub fn slack(to_the_end: &[Duration], at: usize, left: Duration) -> Duration {
    left.saturating_sub(to_the_end.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        graph::{Kind, Limits, Node},
        reference::Template,
    };

    fn diamond() -> Graph {
        let node = |id: &str, input: &str| {
            Node::new(
                id,
                Kind::Model {
                    task: "t".into(),
                    input: Template::parse(input).expect("template"),
                },
            )
        };
        let nodes = vec![
            node("top", ""),
            node("slow", "${top}"),
            node("fast", "${top}"),
            node("end", "${slow} ${fast}"),
        ];
        Graph::new(
            nodes,
            Limits {
                max_nodes: 9,
                max_depth: 9,
                max_fan_out: 9,
            },
        )
        .expect("valid")
    }

    #[test]
    fn the_longest_path_counts_and_the_short_side_has_slack() {
        let seconds = [1, 10, 2, 3].map(Duration::from_secs);
        let graph = diamond();
        assert_eq!(critical_path(&graph, |at| seconds[at]), Duration::from_secs(14));
        let ends = to_the_end(&graph, |at| seconds[at]);
        assert_eq!(ends, [14, 13, 5, 3].map(Duration::from_secs));
        assert_eq!(slack(&ends, 2, Duration::from_secs(13)), Duration::from_secs(8));
        assert_eq!(slack(&ends, 1, Duration::from_secs(5)), Duration::ZERO);
    }
}
