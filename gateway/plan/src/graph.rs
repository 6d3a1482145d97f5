//! Nodes and edges. A graph that exists is executable: every rule was checked when it was built or grown, and every
//! breach is told at once, with the path of its field.
use crate::reference::is_id;
use std::collections::HashMap;

mod faults;
mod node;
use faults::fault;
pub use faults::{Fault, Faults};
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

impl Limits {
    /// Whether a plan may have so many nodes: asked before anybody looks at them.
    ///
    /// # Errors
    /// None at all, or too many.
    pub fn hold(&self, nodes: usize) -> Result<(), Fault> {
        let most = self.max_nodes;
        match nodes {
            0 => Err(fault("nodes", "a plan needs at least one node")),
            n if n > most => Err(fault(
                "nodes",
                format!("{n} nodes; at most {most} are allowed ([gateway] max_nodes)"),
            )),
            _ => Ok(()),
        }
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
    pub fn new(nodes: Vec<Node>, limits: Limits) -> Result<Self, Faults> {
        limits.hold(nodes.len())?;
        let mut faults = Faults::default();
        let mut positions = HashMap::new();
        for (i, node) in nodes.iter().enumerate() {
            if let Some(said) = bad_id(&node.id) {
                faults.add(|| fault(format!("nodes[{i}].id"), said));
            }
            if let Some(first) = positions.insert(node.id.clone(), i) {
                faults.add(|| taken(&format!("nodes[{i}]"), &node.id, first));
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
                    let said = format!("cycle: {} -> {first}", names.join(" -> "));
                    faults.add(|| fault(format!("nodes[{}]", cycle[0]), said));
                }
            }
        }
        graph.nodes = nodes;
        for i in 0..graph.depths.len() {
            graph.too_large(i, &mut faults);
        }
        faults.or(graph)
    }

    /// Adds a node that may reference only nodes that are there. Returns its position.
    ///
    /// # Errors
    /// Every breach; the graph is then as before.
    pub fn push(&mut self, node: Node) -> Result<usize, Faults> {
        let at = self.nodes.len();
        let field = format!("nodes[{at}]");
        if at >= self.limits.max_nodes {
            let said = format!("more than {} nodes ([gateway] max_nodes)", self.limits.max_nodes);
            return Err(fault("nodes", said).into());
        }
        let mut faults = Faults::default();
        if let Some(said) = bad_id(&node.id) {
            faults.add(|| fault(format!("{field}.id"), said));
        }
        if let Some(first) = self.positions.get(&node.id) {
            faults.add(|| taken(&field, &node.id, *first));
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
        self.too_large(at, &mut faults);
        for &d in &self.dependencies[at] {
            self.too_large(d, &mut faults);
        }
        if !faults.is_empty() {
            self.pop();
        }
        faults.or(at)
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

    fn resolve(&self, node: &Node, field: &str, faults: &mut Faults) -> Vec<usize> {
        let known = |id: &str| self.positions.get(id).copied();
        for reference in node.references().iter().filter(|r| known(&r.node).is_none()) {
            faults.add(|| {
                let said = format!("{reference} names no node that is there; `$$` is a dollar sign");
                fault(format!("{field}.{}", node.input_field()), said)
            });
        }
        for id in node.after.iter().filter(|id| known(id).is_none()) {
            faults.add(|| {
                let said = format!("`{}` names no node that is there", short(id));
                fault(format!("{field}.after"), said)
            });
        }
        node.depends_on().into_iter().filter_map(known).collect()
    }

    fn too_large(&self, at: usize, faults: &mut Faults) {
        let (deep, wide) = (self.depths[at], self.dependants[at].len());
        let Limits {
            max_depth, max_fan_out, ..
        } = self.limits;
        let said = if deep > max_depth {
            format!("is {deep} deep; at most {max_depth} is allowed ([gateway] max_depth)")
        } else if wide > max_fan_out {
            format!("{wide} nodes wait for it; at most {max_fan_out} may ([gateway] max_fan_out)")
        } else {
            return;
        };
        faults.add(|| fault(format!("nodes[{at}]"), said));
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
    (!is_id(id)).then(|| format!("`{}` must be 1 to 64 of A-Z a-z 0-9 _ -", short(id)))
}

fn taken(field: &str, id: &str, first: usize) -> Fault {
    fault(
        format!("{field}.id"),
        format!("`{}` is taken by nodes[{first}]", short(id)),
    )
}

/// As much of an id as an error repeats.
fn short(id: &str) -> String {
    id.chars().take(80).collect()
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
