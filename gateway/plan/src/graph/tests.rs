use super::*;
use crate::reference::Template;

const LIMITS: Limits = Limits {
    max_nodes: 256,
    max_depth: 64,
    max_fan_out: 64,
};

fn model(id: &str, input: &str) -> Node {
    Node::new(
        id,
        Kind::Model {
            task: "t".into(),
            input: Template::parse(input).expect("template"),
        },
    )
}

fn refusal(nodes: Vec<Node>) -> Vec<(String, String)> {
    Graph::new(nodes, LIMITS)
        .expect_err("refused")
        .told()
        .iter()
        .map(|f| (f.field.clone(), f.description.clone()))
        .collect()
}

#[test]
fn edges_come_from_references_and_after_each_once() {
    let mut last = model("c", "${a.x} ${b} ${a.y}");
    last.after = vec!["b".into()];
    let graph = Graph::new(vec![last, model("a", ""), model("b", "${a}")], LIMITS).expect("valid");
    assert_eq!(graph.node(0).depends_on(), ["a", "b"]);
    assert_eq!((graph.dependencies(0), graph.dependants(1)), (&[1, 2][..], &[0, 2][..]));
}

#[test]
fn a_cycle_is_named_in_its_direction() {
    let said = refusal(vec![
        model("free", ""),
        model("a", "${c}"),
        model("b", "${a}"),
        model("c", "${b} ${free}"),
    ]);
    assert_eq!(said.len(), 1);
    // b waits for a, c for b, a for c.
    let cycle = said[0].1.strip_prefix("cycle: ").expect("cycle");
    assert!(
        ["a -> b -> c -> a", "b -> c -> a -> b", "c -> a -> b -> c"].contains(&cycle),
        "{cycle}"
    );
    assert!(refusal(vec![model("a", "${a}")])[0].1.contains("cycle: a -> a"));
}

#[test]
fn every_breach_is_told_at_once_with_its_field() {
    let mut after = model("x", "");
    after.after = vec!["nowhere".into()];
    let said = refusal(vec![
        model("a", "${ghost.f}"),
        model("a", ""),
        model("bad id", ""),
        after,
    ]);
    let fields: Vec<_> = said.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        ["nodes[1].id", "nodes[2].id", "nodes[0].model.input", "nodes[3].after"]
    );
    assert!(said[2].1.contains("${ghost.f}"), "{said:?}");
}

#[test]
fn nothing_and_ten_thousand_nodes_are_refused() {
    assert!(refusal(vec![])[0].1.contains("at least one"));
    let many = (0..10_000).map(|i| model(&format!("n{i}"), "")).collect();
    assert!(refusal(many)[0].1.contains("10000 nodes"));
}

#[test]
fn too_deep_and_too_wide_are_refused_by_node() {
    let chain = (0..70).map(|i| {
        model(
            &format!("n{i}"),
            &if i == 0 {
                String::new()
            } else {
                format!("${{n{}}}", i - 1)
            },
        )
    });
    assert!(refusal(chain.collect())[0].1.contains("65 deep"));
    let fan = std::iter::once(model("hub", "")).chain((0..65).map(|i| model(&format!("n{i}"), "${hub}")));
    assert_eq!(refusal(fan.collect())[0].0, "nodes[0]");
}

#[test]
fn a_grown_graph_references_only_what_is_there_and_is_unchanged_by_a_refusal() {
    let mut graph = Graph::empty(Limits {
        max_nodes: 4,
        max_depth: 2,
        max_fan_out: 1,
    });
    graph.push(model("a", "")).expect("first");
    assert!(graph.push(model("b", "${later}")).is_err());
    assert!(graph.push(model("a", "")).is_err());
    graph.push(model("b", "${a}")).expect("second");
    assert!(
        graph.push(model("c", "${b}")).expect_err("too deep").told()[0]
            .description
            .contains("3 deep")
    );
    assert!(graph.push(model("c", "${a}")).expect_err("too wide").told()[0].field == "nodes[0]");
    assert_eq!(
        (graph.len(), graph.dependants(0), graph.position("c")),
        (2, &[1][..], None)
    );
    graph.push(model("c", "")).expect("third");
}

#[test]
fn a_million_breaches_are_told_by_the_first_of_them_and_their_number() {
    let mut after = model("a", "");
    after.after = vec![String::new(); 1_000_000];
    let faults = Graph::new(vec![after.clone()], LIMITS).expect_err("refused");
    assert_eq!((faults.told().len(), faults.more()), (16, 1_000_000 - 16));
    assert_eq!(Graph::empty(LIMITS).push(after).expect_err("refused"), faults);
}
