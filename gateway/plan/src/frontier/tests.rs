use super::*;
use crate::{
    graph::{Kind, Limits, Node},
    reference::Template,
};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    max_nodes: 1000,
    max_depth: 1000,
    max_fan_out: 1000,
};

/// Node `i` waits for `edges[i]`, all of them smaller than `i`.
fn graph(edges: &[Vec<usize>], skip: &[bool]) -> Graph {
    let nodes = edges.iter().zip(skip).enumerate().map(|(i, (waits, skip))| {
        let input = waits.iter().map(|d| format!("${{n{d}}}")).collect::<String>();
        let mut node = Node::new(
            format!("n{i}"),
            Kind::Model {
                task: "t".into(),
                input: Template::parse(&input).expect("template"),
            },
        );
        node.on_failure = if *skip { OnFailure::Skip } else { OnFailure::Fail };
        node
    });
    Graph::new(nodes.collect(), LIMITS).expect("acyclic")
}

fn dags() -> impl Strategy<Value = (Vec<Vec<usize>>, Vec<bool>, Vec<bool>, Vec<u8>)> {
    (1usize..24).prop_flat_map(|n| {
        let edges = (0..n)
            .map(|i| {
                prop::collection::btree_set(0..i.max(1), 0..=i.min(4))
                    .prop_map(move |s| s.into_iter().filter(|&d| d < i).collect::<Vec<_>>())
            })
            .collect::<Vec<_>>();
        (
            edges,
            prop::collection::vec(any::<bool>(), n),
            prop::collection::vec(prop::bool::weighted(0.2), n),
            prop::collection::vec(any::<u8>(), n * 2),
        )
    })
}

/// Runs to the end, `picks` choosing which running node ends next. Returns the order of starts.
fn drive(graph: &Graph, fails: &[bool], picks: &[u8], grown: bool) -> (Frontier, Vec<usize>) {
    let mut frontier = if grown {
        Frontier::default()
    } else {
        Frontier::new(graph)
    };
    let (mut joined, mut running, mut started) = (if grown { 0 } else { graph.len() }, Vec::new(), Vec::new());
    let mut picks = picks.iter().cycle();
    loop {
        // With nothing running only a new node can move the plan on.
        if joined < graph.len() && (running.is_empty() || picks.next().is_none_or(|p| p % 2 == 0)) {
            frontier.add(graph, joined);
            joined += 1;
        }
        while let Some(at) = frontier.start() {
            // What it waits for has an output, at the moment that it starts.
            assert!(
                graph
                    .dependencies(at)
                    .iter()
                    .all(|&d| frontier.state(d) == State::Succeeded),
                "node {at} started too early"
            );
            running.push(at);
            started.push(at);
        }
        if running.is_empty() {
            if joined == graph.len() {
                break;
            }
            continue;
        }
        let at = running.swap_remove(usize::from(*picks.next().unwrap_or(&0)) % running.len());
        if fails[at] {
            let ended = frontier.fail(graph, at);
            running.retain(|r| !ended.contains(r));
        } else {
            frontier.succeed(graph, at);
        }
    }
    (frontier, started)
}

proptest! {
    #[test]
    fn without_failures_every_node_runs_exactly_once_and_none_is_stuck((edges, skip, _, picks) in dags(), grown: bool) {
        let graph = graph(&edges, &skip);
        let (frontier, mut started) = drive(&graph, &vec![false; edges.len()], &picks, grown);
        started.sort_unstable();
        prop_assert_eq!(started, (0..edges.len()).collect::<Vec<_>>());
        prop_assert!(frontier.is_done() && !frontier.is_lost());
    }

    #[test]
    fn with_failures_every_node_ends_and_nothing_runs_without_its_inputs((edges, skip, fails, picks) in dags(), grown: bool) {
        let graph = graph(&edges, &skip);
        let (frontier, started) = drive(&graph, &fails, &picks, grown);
        prop_assert!(frontier.is_done());
        for (at, waits) in edges.iter().enumerate() {
            let state = frontier.state(at);
            prop_assert!(state.is_terminal());
            let barren = waits.iter().any(|&d| frontier.state(d) != State::Succeeded);
            if barren {
                prop_assert!(!started.contains(&at));
                prop_assert!(matches!(state, State::Skipped | State::Cancelled));
            } else if !frontier.is_lost() {
                prop_assert!(started.contains(&at));
            }
        }
        let fatal = started.iter().any(|&at| fails[at] && !skip[at] && frontier.state(at) == State::Failed);
        prop_assert_eq!(frontier.is_lost(), fatal);
    }
}

#[test]
fn a_node_is_ready_before_its_siblings_have_ended() {
    // 0 and 1 run; 2 waits for 0 only.
    let graph = graph(&[vec![], vec![], vec![0]], &[false; 3]);
    let mut frontier = Frontier::new(&graph);
    assert_eq!(
        (frontier.start(), frontier.start(), frontier.start()),
        (Some(0), Some(1), None)
    );
    frontier.succeed(&graph, 0);
    assert_eq!(frontier.start(), Some(2));
}

#[test]
fn a_skip_spreads_to_all_that_depends_and_no_further() {
    let graph = graph(&[vec![], vec![0], vec![1], vec![]], &[true, false, false, false]);
    let mut frontier = Frontier::new(&graph);
    assert_eq!(frontier.start(), Some(0));
    assert_eq!(frontier.fail(&graph, 0), [1, 2]);
    assert_eq!(frontier.start(), Some(3));
    frontier.succeed(&graph, 3);
    assert!(frontier.is_done() && !frontier.is_lost());
}

#[test]
#[should_panic(expected = "ends once")]
fn a_node_cannot_end_twice() {
    let graph = graph(&[vec![]], &[false]);
    let mut frontier = Frontier::new(&graph);
    frontier.start();
    frontier.succeed(&graph, 0);
    frontier.succeed(&graph, 0);
}

#[test]
fn a_node_that_joins_after_its_dependency_failed_is_skipped_at_once() {
    let mut graph = Graph::empty(LIMITS);
    let node = |id: &str, input: &str| {
        Node::new(
            id,
            Kind::Model {
                task: "t".into(),
                input: Template::parse(input).expect("template"),
            },
        )
    };
    let mut first = node("a", "");
    first.on_failure = OnFailure::Skip;
    graph.push(first).expect("a");
    let mut frontier = Frontier::new(&graph);
    frontier.start();
    frontier.fail(&graph, 0);
    let b = graph.push(node("b", "${a}")).expect("b");
    frontier.add(&graph, b);
    assert_eq!((frontier.state(b), frontier.is_done()), (State::Skipped, true));
}
