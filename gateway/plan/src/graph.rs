//! Nodes and edges. A graph that exists is executable: every rule was checked when it was built or grown, and every
//! breach is told at once, with the path of its field.
use crate::reference::is_id;
use std::collections::HashMap;

mod node;
pub use node::{Kind, Node, OnFailure};

/// Bounds of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes.
    pub max_nodes: usize,
    /// Nodes on the longest path.
    pub max_depth: usize,
    /// Nodes that wait for one node.
    pub max_fan_out: usize,
}

/// One breach of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field: `nodes[3].model.input`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

fn fault(field: impl Into<String>, description: impl Into<String>) -> Fault {
    Fault {
        field: field.into(),
        description: description.into(),
    }
}

/// Nodes, and for each which it waits for and which wait for it, by position.
#[derive(Debug, Clone)]
pub struct Graph {
    limits: Limits,
    nodes: Vec<Node>,
    positions: HashMap<String, usize>,
    dependencies: Vec<Vec<usize>>,
    dependants: Vec<Vec<usize>>,
    depths: Vec<usize>,
}

impl Graph {
    /// A graph to be grown.
    #[must_use]
    pub fn empty(limits: Limits) -> Self {
        Self {
            limits,
            nodes: Vec::new(),
            positions: HashMap::new(),
            dependencies: Vec::new(),
            dependants: Vec::new(),
            depths: Vec::new(),
        }
    }

    /// A whole graph, in which a node may reference any other.
    ///
    /// # Errors
    /// Every breach: no nodes or too many, bad or taken ids, unknown references, cycles, too deep, too wide.
    pub fn new(nodes: Vec<Node>, limits: Limits) -> Result<Self, Vec<Fault>> {
        if nodes.is_empty() {
            return Err(vec![fault("nodes", "a plan needs at least one node")]);
        }
        if nodes.len() > limits.max_nodes {
            let said = format!(
                "{} nodes; at most {} are allowed ([gateway] max_nodes)",
                nodes.len(),
                limits.max_nodes
            );
            return Err(vec![fault("nodes", said)]);
        }
        let mut faults = Vec::new();
        let mut positions = HashMap::new();
        for (i, node) in nodes.iter().enumerate() {
            faults.extend(bad_id(&node.id).map(|said| fault(format!("nodes[{i}].id"), said)));
            if let Some(first) = positions.insert(node.id.clone(), i) {
                faults.push(fault(
                    format!("nodes[{i}].id"),
                    format!("`{}` is taken by nodes[{first}]", node.id),
                ));
            }
        }
        let mut graph = Self {
            positions,
            ..Self::empty(limits)
        };
        for (i, node) in nodes.iter().enumerate() {
            graph
                .dependencies
                .push(graph.resolve(node, &format!("nodes[{i}]"), &mut faults));
        }
        if faults.is_empty() {
            graph.dependants = reverse(&graph.dependencies);
            match order(&graph.dependencies, &graph.dependants) {
                Ok(order) => graph.depths = depths(&order, &graph.dependencies),
                Err(cycle) => {
                    let names: Vec<&str> = cycle.iter().map(|&i| nodes[i].id.as_str()).collect();
                    let first = names.first().copied().unwrap_or_default();
                    faults.push(fault(
                        format!("nodes[{}]", cycle[0]),
                        format!("cycle: {} -> {first}", names.join(" -> ")),
                    ));
                }
            }
        }
        graph.nodes = nodes;
        (0..graph.depths.len()).for_each(|i| faults.extend(graph.too_large(i, &format!("nodes[{i}]"))));
        if faults.is_empty() { Ok(graph) } else { Err(faults) }
    }

    /// Adds a node that may reference only nodes that are there. Returns its position.
    ///
    /// # Errors
    /// Every breach; the graph is then as before.
    pub fn push(&mut self, node: Node) -> Result<usize, Vec<Fault>> {
        let at = self.nodes.len();
        let field = format!("nodes[{at}]");
        if at >= self.limits.max_nodes {
            return Err(vec![fault(
                "nodes",
                format!("more than {} nodes ([gateway] max_nodes)", self.limits.max_nodes),
            )]);
        }
        let mut faults = Vec::new();
        faults.extend(bad_id(&node.id).map(|said| fault(format!("{field}.id"), said)));
        if let Some(first) = self.positions.get(&node.id) {
            faults.push(fault(
                format!("{field}.id"),
                format!("`{}` is taken by nodes[{first}]", node.id),
            ));
        }
        let dependencies = self.resolve(&node, &field, &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        dependencies.iter().for_each(|&d| self.dependants[d].push(at));
        self.depths
            .push(1 + dependencies.iter().map(|&d| self.depths[d]).max().unwrap_or(0));
        self.positions.insert(node.id.clone(), at);
        self.dependencies.push(dependencies);
        self.dependants.push(Vec::new());
        self.nodes.push(node);
        let mut faults: Vec<Fault> = self.too_large(at, &field).into_iter().collect();
        faults.extend(
            self.dependencies[at]
                .iter()
                .filter_map(|&d| self.too_large(d, &format!("nodes[{d}]"))),
        );
        if faults.is_empty() {
            return Ok(at);
        }
        self.pop();
        Err(faults)
    }

    /// Takes back the last push.
    fn pop(&mut self) {
        if let Some(node) = self.nodes.pop() {
            self.positions.remove(&node.id);
        }
        self.depths.pop();
        self.dependants.pop();
        for d in self.dependencies.pop().unwrap_or_default() {
            self.dependants[d].pop();
        }
    }

    fn resolve(&self, node: &Node, field: &str, faults: &mut Vec<Fault>) -> Vec<usize> {
        let known = |id: &str| self.positions.get(id).copied();
        for reference in node.references().iter().filter(|r| known(&r.node).is_none()) {
            let said = format!("{reference} names no node that is there; `$$` is a dollar sign");
            faults.push(fault(format!("{field}.{}", node.input_field()), said));
        }
        for id in node.after.iter().filter(|id| known(id).is_none()) {
            faults.push(fault(
                format!("{field}.after"),
                format!("`{id}` names no node that is there"),
            ));
        }
        node.depends_on().into_iter().filter_map(known).collect()
    }

    fn too_large(&self, at: usize, field: &str) -> Option<Fault> {
        let (deep, wide) = (self.depths[at], self.dependants[at].len());
        if deep > self.limits.max_depth {
            return Some(fault(
                field,
                format!(
                    "is {deep} deep; at most {} is allowed ([gateway] max_depth)",
                    self.limits.max_depth
                ),
            ));
        }
        (wide > self.limits.max_fan_out).then(|| {
            fault(
                field,
                format!(
                    "{wide} nodes wait for it; at most {} may ([gateway] max_fan_out)",
                    self.limits.max_fan_out
                ),
            )
        })
    }

    /// All nodes, in order of joining.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node at a position.
    ///
    /// # Panics
    /// When `at` is no position that this graph gave.
    #[must_use]
    pub fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// Where the node of that id is.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        self.positions.get(id).copied()
    }

    /// Positions that a node waits for.
    ///
    /// # Panics
    /// As [`Graph::node`].
    #[must_use]
    pub fn dependencies(&self, at: usize) -> &[usize] {
        &self.dependencies[at]
    }

    /// Positions that wait for a node.
    ///
    /// # Panics
    /// As [`Graph::node`].
    #[must_use]
    pub fn dependants(&self, at: usize) -> &[usize] {
        &self.dependants[at]
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

fn bad_id(id: &str) -> Option<String> {
    (!is_id(id)).then(|| {
        format!(
            "`{}` must be 1 to 64 of A-Z a-z 0-9 _ -",
            id.chars().take(80).collect::<String>()
        )
    })
}

fn reverse(dependencies: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut dependants = vec![Vec::new(); dependencies.len()];
    for (at, waits) in dependencies.iter().enumerate() {
        waits.iter().for_each(|&d| dependants[d].push(at));
    }
    dependants
}

/// Positions in an order in which every node comes after what it waits for (Kahn 1962), or the positions of a cycle.
fn order(dependencies: &[Vec<usize>], dependants: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut waits: Vec<usize> = dependencies.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..waits.len()).filter(|&i| waits[i] == 0).collect();
    let mut next = 0;
    while let Some(&at) = order.get(next) {
        next += 1;
        for &d in &dependants[at] {
            waits[d] -= 1;
            if waits[d] == 0 {
                order.push(d);
            }
        }
    }
    let Some(start) = waits.iter().position(|&w| w > 0) else {
        return Ok(order);
    };
    // Walking backwards along what still waits must meet a node twice: from there on it is the cycle.
    let (mut path, mut at) = (Vec::new(), start);
    while !path.contains(&at) {
        path.push(at);
        at = dependencies[at]
            .iter()
            .copied()
            .find(|&d| waits[d] > 0)
            .unwrap_or(start);
    }
    let from = path.iter().position(|&p| p == at).unwrap_or(0);
    Err(path[from..].iter().rev().copied().collect())
}

fn depths(order: &[usize], dependencies: &[Vec<usize>]) -> Vec<usize> {
    let mut depths = vec![0; dependencies.len()];
    for &at in order {
        depths[at] = 1 + dependencies[at].iter().map(|&d| depths[d]).max().unwrap_or(0);
    }
    depths
}

#[cfg(test)]
mod tests;
