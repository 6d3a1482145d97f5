//! The one task of a plan: it owns the graph, asks the frontier for what may start, and starts it at once.
use super::{
    join::{Arrival, Arrivals},
    node::{End, Run},
    progress::Progress,
    result::About,
};
use crate::{
    admit::{Admitted, Source, Step, breaches},
    context::Context,
    decompose::intent::Fork,
    error::Error,
    plans::{Plan, Running},
    route::{Input, Trail, budget::Budget},
    tools::client::ClientTools,
};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use serde_json::Value;
use shoal_plan::{Frontier, Graph, text};
use shoal_proto::{
    time,
    v1::{self, plan_event::Event},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};
use tokio::time::{Instant, sleep_until};

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// The call that tells a goal's intent.
    Router,
    /// A planner's own call: of two, one has ended before the other begins.
    Planner,
    /// The node at a position of the graph.
    Node(usize),
    /// The call that the node there has yielded.
    Call(usize),
}

/// Something that runs, as it is seen from outside.
pub(super) struct Underway {
    pub(super) about: About,
    pub(super) trail: Arc<Trail>,
    pub(super) progress: Arc<Progress>,
}

/// How a plan ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// Every node has ended, and no failure was fatal.
    Done,
    /// A failure that the plan does not survive.
    Lost(v1::Fault),
    /// Somebody gave up, or the deadline ran out.
    Cut(v1::Fault),
}

/// See the module.
pub(crate) struct Driver {
    pub(super) context: Arc<Context>,
    pub(super) run: Arc<Run>,
    pub(super) graph: Graph,
    pub(super) frontier: Frontier,
    pub(super) steps: Vec<Arc<Step>>,
    /// Ids of derived calls: no later step may take them.
    pub(super) derived_ids: BTreeSet<String>,
    pub(super) outputs: HashMap<String, Value>,
    pub(super) underway: HashMap<Key, Underway>,
    pub(super) usage: v1::Usage,
    /// What the nodes that yielded a call were asked: their fallback's input, should the call fail.
    pub(super) asked: HashMap<usize, Input>,
    pub(super) running: FuturesUnordered<BoxFuture<'static, (Key, End)>>,
    pub(super) arrivals: Arrivals,
    /// What the goal's intent may yet make of it.
    pub(super) fork: Option<Fork>,
    /// What the caller's goal says that the plan may call; nothing said, anything.
    pub(super) methods: Vec<v1::MethodSignature>,
    place: Running,
}

impl Driver {
    /// A plan that was admitted. `client` are the tools that its client answers, `arrivals` what still comes from it.
    pub(crate) fn new(
        context: Arc<Context>,
        plan: Arc<Plan>,
        place: Running,
        admitted: Admitted,
        client: BTreeSet<String>,
        arrivals: Arrivals,
    ) -> Self {
        let run = Arc::new(Run {
            budget: Budget::new(admitted.bounds.max_tokens, admitted.bounds.max_cost_usd),
            client: ClientTools::new(client),
            priority: admitted.bounds.priority,
            plan,
        });
        let mut driver = Self {
            graph: Graph::empty(context.admission(run.client.names()).graph_limits()),
            frontier: Frontier::default(),
            steps: Vec::new(),
            derived_ids: BTreeSet::new(),
            outputs: HashMap::new(),
            underway: HashMap::new(),
            usage: v1::Usage::default(),
            asked: HashMap::new(),
            running: FuturesUnordered::new(),
            arrivals,
            fork: None,
            methods: Vec::new(),
            place,
            context,
            run,
        };
        driver.open(admitted.source);
        driver
    }

    /// Tells what is known at the beginning.
    fn open(&mut self, source: Source) {
        let plan = self.run.plan.clone();
        let deadline = plan.deadline.saturating_duration_since(plan.began);
        plan.log.push(Event::Accepted(v1::PlanAccepted {
            trace_id: plan.trace_id.clone(),
            deadline: Some(time::timestamp(
                plan.accepted_at.checked_add(deadline).unwrap_or(SystemTime::UNIX_EPOCH),
            )),
        }));
        match source {
            Source::Steps(graph, steps) => {
                self.frontier = Frontier::new(&graph);
                self.graph = graph;
                steps.into_iter().for_each(|step| self.tell(Arc::new(step)));
            }
            Source::Goal(goal) => self.goal(goal),
        }
    }

    /// Runs to the plan's last event.
    pub(crate) async fn run(mut self) {
        let _closing = super::end::Closing(self.context.clone(), self.run.plan.clone());
        let ending = self.drive().await;
        // Dropping what runs is what cancels it, before anybody is told.
        self.running.clear();
        self.finish(ending).await;
        drop(self.place);
    }

    async fn drive(&mut self) -> Ending {
        let plan = self.run.plan.clone();
        let expired = |plan: &Plan| {
            let after = plan.deadline.saturating_duration_since(plan.began);
            let what = format!("the plan's deadline of {after:?} ran out");
            Ending::Cut(Error::Expired { what }.fault())
        };
        loop {
            self.start_ready();
            if self.arrivals.closed() && self.running.is_empty() && self.frontier.is_done() {
                return Ending::Done;
            }
            let ended = tokio::select! {
                // The deadline first: a node that failed because of it has not failed by itself.
                biased;
                () = sleep_until(plan.deadline) => return expired(&plan),
                why = plan.cancelled() => return Ending::Cut(why.fault()),
                Some((key, end)) = self.running.next() => self.ended(key, end),
                arrival = self.arrivals.next() => self.arrived(arrival),
            };
            if let Err(ending) = ended {
                let late = Instant::now() >= plan.deadline;
                return if late { expired(&plan) } else { ending };
            }
        }
    }

    /// Takes a step into the list and tells of it; the graph has it already.
    fn tell(&mut self, step: Arc<Step>) {
        self.run.plan.log.push(Event::NodeAdded(v1::NodeAdded {
            node: Some(step.wire.clone()),
            depends_on: step.node.depends_on().into_iter().map(str::to_owned).collect(),
            text: text::print(&step.node),
        }));
        self.steps.push(step);
    }

    /// A step joins the graph, and starts as soon as it can.
    pub(super) fn join(&mut self, step: Step, field: impl Fn(&str) -> String) -> Result<(), Error> {
        if self.derived_ids.contains(&step.node.id) {
            return Err(Error::invalid(
                field("id"),
                format!("`{}` is taken by a call that a node has yielded", step.node.id),
            ));
        }
        let at = self
            .graph
            .push(step.node.clone())
            .map_err(|faults| breaches(faults, &field))?;
        self.tell(Arc::new(step));
        self.frontier.add(&self.graph, at);
        if self.frontier.state(at).is_terminal() {
            self.told_skipped(at);
        }
        Ok(())
    }

    /// Something has ended by itself.
    fn ended(&mut self, key: Key, end: End) -> Result<(), Ending> {
        self.underway.remove(&key);
        let usage = end.result.usage.unwrap_or_default();
        self.usage = crate::plans::record::sum([self.usage, usage].iter());
        if key == Key::Router {
            return self.routed(end);
        }
        if key == Key::Planner {
            return self.planned(end);
        }
        let (node_id, fault) = (end.result.node_id.clone(), end.result.fault.clone());
        self.run.plan.log.push(Event::NodeFinished(v1::NodeFinished {
            result: Some(end.result),
        }));
        let (Key::Node(at) | Key::Call(at)) = key else {
            return Ok(());
        };
        match end.output {
            Ok(output) => {
                if key == Key::Node(at) && self.yielded(at, &output) {
                    return Ok(());
                }
                self.outputs.insert(self.steps[at].node.id.clone(), output);
                self.frontier.succeed(&self.graph, at);
                Ok(())
            }
            Err(_) => {
                let closed = self.frontier.fail(&self.graph, at);
                if self.frontier.is_lost() {
                    let mut fault = fault.unwrap_or_default();
                    fault.message = format!("node `{node_id}`: {}", fault.message);
                    return Err(Ending::Lost(fault));
                }
                closed.into_iter().for_each(|at| self.told_skipped(at));
                Ok(())
            }
        }
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<(), Ending> {
        match self.take(arrival) {
            Ok(()) => Ok(()),
            Err(error @ Error::Cancelled { .. }) => Err(Ending::Cut(error.fault())),
            Err(error @ Error::Invalid(_)) => {
                let fault = error.fault();
                self.run.plan.refuse(error);
                Err(Ending::Lost(fault))
            }
            Err(error) => Err(Ending::Lost(error.fault())),
        }
    }
}
