//! Nodes that start: their input filled in, their future among those that run.
use super::{
    derived,
    driver::{Driver, Key, Underway},
    node::{self, Job},
    report::Report,
    result::About,
};
use crate::{
    admit::{Catalogue, Known, Step},
    decompose,
    error::Error,
    route::Input,
};
use serde_json::Value;
use shoal_plan::{Kind, slack, text};
use shoal_proto::v1::{self, plan_event::Event};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

impl Driver {
    /// Starts whatever the frontier says can start.
    pub(super) fn start_ready(&mut self) {
        let mut to_the_end = Vec::new();
        while let Some(at) = self.frontier.start() {
            if to_the_end.is_empty() {
                to_the_end =
                    slack::to_the_end(&self.graph, |at| self.context.registry.usual(&self.graph.node(at).kind));
            }
            let start_by = self.start_by(&to_the_end, at);
            let step = self.steps[at].clone();
            let input = self.filled(&step);
            let fall_back_input = input.as_ref().ok().map(|v| Input::of(v.clone()));
            let about = self.about(
                &step,
                self.graph
                    .node(at)
                    .depends_on()
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
            );
            if let Some(input) = fall_back_input
                .clone()
                .filter(|_| step.task() == Some(derived::CALL_TASK))
            {
                self.asked.insert(at, input);
            }
            let report = Report::new(self.run.plan.clone(), &about.node_id);
            self.launch(Key::Node(at), step, about, start_by, (input, fall_back_input), report);
        }
    }

    /// When a node must start for the plan to end in time, if everything after it takes as long as it usually does.
    fn start_by(&self, to_the_end: &[Duration], at: usize) -> Instant {
        let now = Instant::now();
        let left = self.run.plan.deadline.saturating_duration_since(now);
        now + slack::slack(to_the_end, at, left)
    }

    /// The references of a step, filled from what earlier nodes really answered.
    fn filled(&self, step: &Step) -> Result<Value, Error> {
        let output = |id: &str| self.outputs.get(id);
        let most = self.context.config.max_input_bytes;
        let fits = match &step.node.kind {
            Kind::Model { input, .. } => input.fits(&output, most),
            Kind::Tool { arguments, .. } => arguments.fits(&output, most),
        };
        if !fits {
            return Err(Error::Unfit {
                reason: "INPUT_TOO_LARGE",
                what: format!(
                    "with its references filled in, the input has more than {most} bytes ([gateway] max_input_bytes)"
                ),
            });
        }
        let filled = match &step.node.kind {
            Kind::Model { input, .. } => input.fill_prompt(&output),
            Kind::Tool { arguments, .. } => arguments.fill(&output),
        };
        filled.map_err(|missing| Error::Unfit {
            reason: "REFERENCE_MISSING",
            what: missing.to_string(),
        })
    }

    pub(super) fn about(&self, step: &Step, depends_on: Vec<String>) -> About {
        let (kind, name) = match &step.node.kind {
            Kind::Model { task, .. } => ("model", task),
            Kind::Tool { name, .. } => ("tool", name),
        };
        About {
            node_id: step.node.id.clone(),
            kind,
            name: name.clone(),
            depends_on,
            began: Instant::now(),
            outcome_id: self.context.recorder.id(),
        }
    }

    fn launch(
        &mut self,
        key: Key,
        step: Arc<Step>,
        about: About,
        start_by: Instant,
        (input, fall_back_input): (Result<Value, Error>, Option<Input>),
        report: Report,
    ) {
        let job = Job {
            context: self.context.clone(),
            run: self.run.clone(),
            step,
            about,
            start_by,
            input,
            fall_back_input,
            accept: None,
            report,
            trail: Arc::default(),
            progress: Arc::default(),
        };
        self.push(key, job);
    }

    pub(super) fn push(&mut self, key: Key, job: Job) {
        let underway = Underway {
            about: job.about.clone(),
            trail: job.trail.clone(),
            progress: job.progress.clone(),
        };
        self.underway.insert(key, underway);
        self.running.push(Box::pin(async move { (key, node::run(job).await) }));
    }

    /// Whether the node's answer is a call that now runs in its place.
    pub(super) fn yielded(&mut self, at: usize, output: &Value) -> bool {
        let parent = self.steps[at].clone();
        let Some((name, arguments)) = derived::yielded(&parent, output) else {
            return false;
        };
        // A server that has not been asked yet may offer it: then it runs, and is away.
        let nobodys = || matches!(Catalogue::tool(&*self.context.registry, &name), Known::Unknown(_));
        let offered = self.run.client.names().contains(&name) || !nobodys();
        if !offered || !decompose::may_call(&self.methods, &name) {
            return false;
        }
        let id = derived::id(&parent.node.id, at, |id| {
            self.graph.position(id).is_some() || self.derived_ids.contains(id)
        });
        let Some(step) = derived::step(&parent, id.clone(), name, &arguments) else {
            return false;
        };
        self.derived_ids.insert(id);
        let step = Arc::new(step);
        let about = self.about(&step, vec![parent.node.id.clone()]);
        self.run.plan.log.push(Event::NodeAdded(v1::NodeAdded {
            node: Some(step.wire.clone()),
            depends_on: about.depends_on.clone(),
            text: text::print(&step.node),
        }));
        let report = Report::new(self.run.plan.clone(), &about.node_id);
        let fall_back_input = self.asked.remove(&at);
        let registry = &self.context.registry;
        // The call takes the place of the node that yielded it: what comes after that one comes after it.
        let usual = |node: usize| match node {
            node if node == at => registry.usual(&step.node.kind),
            node => registry.usual(&self.graph.node(node).kind),
        };
        let start_by = self.start_by(&slack::to_the_end(&self.graph, usual), at);
        self.launch(
            Key::Call(at),
            step,
            about,
            start_by,
            (Ok(arguments), fall_back_input),
            report,
        );
        true
    }
}
