//! What comes over the wire, made into steps and bounds that were checked against every rule. Pure: no clock, no I/O.
//!
//! Every breach is told at once, with the path of its field, before anything runs. [`node`] reads one step, [`limits`] the bounds,
//! [`planned`] a step that came as plan text, [`faults`] gathers what is wrong; this file puts them together.
use crate::{
    error::Error,
    schema::{Allowance, Schema},
};
use faults::{Faults, told};
use shoal_kit::config;
use shoal_plan::{Graph, Limits, graph, reference::is_id, text};
use shoal_proto::v1::{self, execute_plan_request::Source as Wire};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

mod faults;
mod limits;
mod node;
mod planned;

pub(crate) use faults::breaches;
pub(crate) use limits::{Bounds, message_bytes, node_bytes};
pub(crate) use planned::wire;

/// The node id of the planner's own call, in records and outcomes.
pub(crate) const PLANNER: &str = "planner";

/// The node id of the call that told a goal's intent.
pub(crate) const ROUTER: &str = "router";

/// The node id of the call of the planner that a goal's intent chose: what `PLANNER` made of the goal was set aside then.
pub(crate) const INTENT_PLANNER: &str = "intent-planner";

/// Calls that are made ahead of a plan's steps, in their order, and are none of them.
pub(crate) const AHEAD: [&str; 3] = [ROUTER, PLANNER, INTENT_PLANNER];

/// Whether this is the id of such a call.
pub(crate) fn is_ahead(node_id: &str) -> bool {
    AHEAD.contains(&node_id)
}

/// One step as it was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// What the graph holds.
    pub(crate) node: graph::Node,
    /// What the client is told.
    pub(crate) wire: v1::Node,
    /// How to decode, of a model step.
    pub(crate) sampling: Option<v1::Sampling>,
    /// What its answer must satisfy, beyond the card's own.
    pub(crate) schema: Option<Arc<Schema>>,
    /// A conversation that stands in for the input: what a chat completion brings.
    pub(crate) conversation: Option<Vec<v1::Message>>,
}

impl Step {
    /// The task, of a model step.
    pub(crate) fn task(&self) -> Option<&str> {
        match &self.node.kind {
            shoal_plan::Kind::Model { task, .. } => Some(task),
            shoal_plan::Kind::Tool { .. } => None,
        }
    }
}

/// What there is to call.
pub(crate) trait Catalogue {
    /// Tasks that a chain serves.
    fn tasks(&self) -> Vec<&str>;
    /// What is known of a tool.
    fn tool(&self, name: &str) -> Known;
}

/// What is known of a tool.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It is registered; its arguments must satisfy this.
    Registered(Option<Arc<Schema>>),
    /// Nobody offers it, but this server has not been asked yet.
    Unlisted(String),
    /// Nobody offers it. Some that are offered.
    Unknown(Vec<String>),
}

/// What an execution starts from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Steps that are known now; more may follow on a stream.
    Steps(Graph, Vec<Step>),
    /// The planner writes them.
    Goal(v1::Goal),
}

/// A request that may run.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) source: Source,
    pub(crate) bounds: Bounds,
    pub(crate) plan_id: Option<String>,
    pub(crate) detach: bool,
}

/// The rules of one request.
pub(crate) struct Admission<'a> {
    pub(crate) config: &'a config::Gateway,
    pub(crate) catalogue: &'a dyn Catalogue,
    /// Tools that the client answers itself.
    pub(crate) client_tools: &'a BTreeSet<String>,
}

impl Admission<'_> {
    /// Bounds of every graph.
    pub(crate) fn graph_limits(&self) -> Limits {
        Limits {
            max_nodes: self.config.max_nodes,
            max_depth: self.config.max_depth,
            max_fan_out: self.config.max_fan_out,
        }
    }

    /// A whole request. With `open`, an empty plan is allowed: steps follow. `left` is what the caller's `grpc-timeout` leaves.
    ///
    /// # Errors
    /// Every breach.
    pub(crate) fn request(
        &self,
        request: v1::ExecutePlanRequest,
        left: Option<Duration>,
        open: bool,
    ) -> Result<Admitted, Error> {
        let mut faults = Faults::default();
        let bounds = limits::bounds(request.limits.as_ref(), left, self.config, &mut faults);
        if !request.plan_id.is_empty() && !is_id(&request.plan_id) {
            faults.add("plan_id", "must be 1 to 64 of A-Z a-z 0-9 _ -");
        }
        let size = limits::bytes(&request);
        if size > self.config.max_input_bytes {
            faults.add("source", self.too_large(size));
        }
        let source = match request.source {
            // What is too large is not looked at: that is what the limit is for.
            _ if size > self.config.max_input_bytes => None,
            None => {
                faults.add("source", "set one of plan, plan_text and goal");
                None
            }
            Some(Wire::Plan(plan)) => self.plan(&plan, open, &mut faults),
            Some(Wire::PlanText(text)) => self.plan_text(&text, &mut faults),
            Some(Wire::Goal(goal)) => {
                self.goal(&goal, "goal", &mut faults);
                Some(Source::Goal(goal))
            }
        };
        faults.verdict()?;
        let source = source.ok_or_else(|| Error::Broken {
            what: "a plan without a fault has no steps".into(),
        })?;
        Ok(Admitted {
            source,
            bounds,
            plan_id: Some(request.plan_id).filter(|id| !id.is_empty()),
            detach: request.detach,
        })
    }

    /// Whether texts of that size together, which came under `field`, are taken.
    ///
    /// # Errors
    /// `Invalid` if not.
    pub(crate) fn sized(&self, field: &str, size: usize) -> Result<(), Error> {
        if size > self.config.max_input_bytes {
            return Err(Error::invalid(field, self.too_large(size)));
        }
        Ok(())
    }

    fn too_large(&self, size: usize) -> String {
        let most = self.config.max_input_bytes;
        format!("{size} bytes, lists with their entries; at most {most} are taken ([gateway] max_input_bytes)")
    }

    fn plan(&self, plan: &v1::Plan, open: bool, faults: &mut Faults) -> Option<Source> {
        let limits = self.graph_limits();
        if plan.nodes.is_empty() && open {
            return Some(Source::Steps(Graph::empty(limits), Vec::new()));
        }
        told(
            limits.hold(plan.nodes.len()).map_err(graph::Faults::from),
            faults,
            |field| format!("plan.{field}"),
        )?;
        let mut allowance = Allowance::default();
        let steps: Vec<Step> = (0..)
            .zip(&plan.nodes)
            .map(|(i, wire)| self.step(wire, &format!("plan.nodes[{i}]"), &mut allowance, faults))
            .collect();
        let graph = Graph::new(steps.iter().map(|s| s.node.clone()).collect(), limits);
        let graph = told(graph, faults, |field| format!("plan.{field}"))?;
        Some(Source::Steps(graph, steps))
    }

    fn plan_text(&self, text: &str, faults: &mut Faults) -> Option<Source> {
        let limits = self.graph_limits();
        let nodes = match text::parse_past(limits.max_nodes, text) {
            Ok(nodes) => nodes,
            Err(garbled) => {
                faults.add("plan_text", garbled.to_string());
                return None;
            }
        };
        if nodes.len() > limits.max_nodes {
            let said = format!("more than {} steps ([gateway] max_nodes)", limits.max_nodes);
            faults.add("plan_text", said);
            return None;
        }
        for node in &nodes {
            self.planned(node, &format!("plan_text step {}", node.id), faults);
        }
        let steps = nodes.iter().cloned().map(planned::step).collect();
        let graph = told(Graph::new(nodes, limits), faults, |field| format!("plan_text {field}"))?;
        Some(Source::Steps(graph, steps))
    }

    /// A goal, of an execution or of a decomposition.
    fn goal(&self, goal: &v1::Goal, field: &str, faults: &mut Faults) {
        let task = if goal.turns.is_empty() {
            &self.config.plan_task
        } else {
            &self.config.episode_task
        };
        if goal.turns.is_empty() && goal.text.trim().is_empty() {
            faults.add(
                format!("{field}.text"),
                "say what is to be done, or give the turns of a conversation",
            );
        }
        if !self.catalogue.tasks().contains(&task.as_str()) {
            faults.add(
                field,
                format!("no task `{task}` is routed, and it plans goals: name a planner in [task.{task}] chain"),
            );
        }
        for (i, method) in goal.methods.iter().enumerate() {
            let word = |text: &str| {
                !text.is_empty()
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            };
            if !word(&method.service) || !word(&method.method) || !method.parameters.iter().all(|p| word(p)) {
                faults.add(
                    format!("{field}.methods[{i}]"),
                    "service, method and parameters must be of A-Z a-z 0-9 _ -",
                );
            }
        }
    }

    /// What `Decompose` takes.
    ///
    /// # Errors
    /// Every breach.
    pub(crate) fn decomposition(&self, goal: Option<&v1::Goal>) -> Result<(), Error> {
        let mut faults = Faults::default();
        match goal {
            None => faults.add("goal", "must be set"),
            Some(goal) => {
                let size = limits::goal_bytes(goal);
                if size > self.config.max_input_bytes {
                    faults.add("goal", self.too_large(size));
                } else {
                    self.goal(goal, "goal", &mut faults);
                }
            }
        }
        faults.verdict()
    }

    /// A step that joins a running plan; `number` counts those that were sent before it, and the allowance is that of all of them.
    ///
    /// # Errors
    /// Every breach of its own; the graph has its own say when it joins.
    pub(crate) fn further(&self, wire: &v1::Node, number: usize, allowance: &mut Allowance) -> Result<Step, Error> {
        let mut faults = Faults::default();
        let step = self.step(wire, &format!("step[{number}]"), allowance, &mut faults);
        faults.verdict()?;
        Ok(step)
    }

    /// A step that the planner wrote.
    ///
    /// # Errors
    /// Every breach of its own.
    pub(crate) fn written(&self, node: &graph::Node) -> Result<Step, Error> {
        let mut faults = Faults::default();
        self.planned(node, &format!("step {}", node.id), &mut faults);
        faults.verdict()?;
        Ok(planned::step(node.clone()))
    }
}

#[cfg(test)]
mod tests;
