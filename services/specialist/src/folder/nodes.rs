//! What a graph's nodes and weights say of how it must be run, noted on `onnx`'s walk through its file.
use super::interface::Interface;
use std::collections::HashMap;

/// Positions after which a graph with two tables of rotary positions takes the second, where its file does not say: those of Phi-3 and Phi-4, of
/// which most such graphs are.
const SWITCH: u64 = 4096;

/// How the tables are called by the one exporter that writes two.
const TABLES: [&str; 2] = ["cos_cache", "sin_cache"];

/// One node, as far as it is looked at.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) operator: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    grouped_query: bool,
    dynamic_scales: bool,
    /// What each choice between two tables is made by.
    choices: Vec<String>,
    /// What is compared with, by the name of what comes out.
    compared: HashMap<String, String>,
    /// Whole numbers among the graph's own weights.
    numbers: HashMap<String, u64>,
    /// Rows of its table of rotary positions.
    table_rows: Option<u64>,
}

impl Nodes {
    /// Notes a node, of whichever graph in the file.
    ///
    /// # Errors
    /// In words, when no graph may have it.
    pub(super) fn note(&mut self, node: Node) -> Result<(), String> {
        match node.operator.as_str() {
            // Such a node names a compiled binary by path, which the provider would open.
            "EPContext" => {
                return Err(
                    "the graph has an EPContext node, which names files of its own: export it without one".into(),
                );
            }
            "GroupQueryAttention" => self.grouped_query = true,
            // DynamicQuantizeLinear, and what it is fused into (DynamicQuantizeMatMul, DynamicQuantizeLSTM).
            operator if operator.starts_with("DynamicQuantize") => self.dynamic_scales = true,
            "Greater" => {
                if let ([_, with], [output]) = (&node.inputs[..], &node.outputs[..]) {
                    self.compared.insert(output.clone(), with.clone());
                }
            }
            "If" if node.outputs.iter().any(|o| TABLES.contains(&o.as_str())) => self.choices.extend(node.inputs),
            _ => {}
        }
        Ok(())
    }

    /// Notes one of the graph's own weights: its first dimension, and what it is if it is a whole number.
    pub(super) fn weigh(&mut self, name: &str, rows: Option<u64>, number: Option<u64>) {
        if let Some(number) = number {
            self.numbers.insert(name.to_owned(), number);
        }
        if TABLES.contains(&name) {
            self.table_rows = rows;
        }
    }

    /// Says it of the graph.
    pub(super) fn tell(self, interface: &mut Interface) {
        let Self { compared, numbers, .. } = &self;
        let switch = |choice: &String| numbers.get(compared.get(choice)?).copied();
        interface.grouped_query = self.grouped_query;
        interface.dynamic_scales = self.dynamic_scales;
        interface.rotary_switch = self.choices.iter().map(|c| switch(c).unwrap_or(SWITCH)).min();
        interface.rotary_rows = self.table_rows;
    }
}
