//! A goal on its way to steps: its planner and, where intents are mapped, the router are asked at once, and whoever is followed says what joins.
use super::{
    driver::{Driver, Ending, Key},
    join::{self, renamed},
    node::{End, Run},
    report::Report,
};
use crate::{
    admit::{INTENT_PLANNER, PLANNER, ROUTER},
    context::Context,
    decompose::{
        self,
        intent::{self, Fork, Routed, Turn},
    },
    error::Error,
    route::judge::Accept,
};
use shoal_plan::{Node, text};
use shoal_proto::v1;
use std::sync::Arc;

impl Driver {
    /// Asks the goal's planner, and beside it what the goal is about, if anybody is there to ask.
    pub(super) fn goal(&mut self, goal: v1::Goal) {
        self.methods.clone_from(&goal.methods);
        if let Some(task) = intent::task(&goal, &self.context.config) {
            let job = join::router(self.context.clone(), self.run.clone(), task, &goal.text);
            self.fork = Some(Fork::Asked(goal.clone()));
            self.push(Key::Router, job);
        }
        self.ask(PLANNER, goal);
    }

    /// Asks a planner.
    fn ask(&mut self, id: &str, goal: v1::Goal) {
        let context = self.context.clone();
        let question = decompose::question(&goal, &context.config, &context.registry);
        let (report, draft) = Report::planner(self.run.plan.clone(), id);
        let accept = runnable(context.clone(), self.run.clone(), goal.clone());
        let job = join::planner(context.clone(), self.run.clone(), question, accept, report);
        self.arrivals.expect(goal, draft);
        self.push(Key::Planner, job);
    }

    /// The intent is known, or is not.
    pub(super) fn routed(&mut self, end: End) -> Result<(), Ending> {
        let context = self.context.clone();
        let intent = intent::sure(&end.result, &context.config);
        if let Some(Fork::Asked(goal)) = self.fork.take() {
            let routed = intent.and_then(|intent| intent::routed(&goal, intent, &context.config, &context.registry));
            self.fork = routed.map(Fork::Sure);
        }
        self.run.plan.ahead_ends(end.result);
        self.advance().map_err(lost)
    }

    /// A planner has ended: what it wrote is all there is.
    pub(super) fn planned(&mut self, end: End) -> Result<(), Ending> {
        self.run.plan.ahead_ends(end.result);
        let text = end.output.map_err(lost)?.as_str().unwrap_or_default().to_owned();
        let Some(writing) = &mut self.arrivals.planner else {
            return Ok(());
        };
        let nodes = text::parse(&text).map_err(|g| {
            lost(Error::Garbled {
                why: g.to_string(),
                text: text.clone(),
            })
        })?;
        let (told, joined) = (writing.draft.steps(0).0, writing.joined);
        let same = nodes.len() >= joined && nodes.iter().zip(told.iter().take(joined)).all(|(a, b)| a == b);
        if !same {
            let why = "its whole text is not what it wrote line by line".to_owned();
            return Err(lost(Error::Garbled { why, text }));
        }
        writing.whole = Some(nodes);
        self.advance().map_err(lost)
    }

    /// Lets the steps join that the planner has finished, unless they wait for the goal's intent, or have lost to it.
    pub(super) fn advance(&mut self) -> Result<(), Error> {
        let Some(writing) = &mut self.arrivals.planner else {
            self.overruled();
            return Ok(());
        };
        let (nodes, garbled) = match &writing.whole {
            Some(nodes) => (nodes.get(writing.joined..).unwrap_or_default().to_vec(), None),
            None => writing.draft.steps(writing.joined),
        };
        let (found, ended) = (writing.joined + nodes.len(), writing.whole.is_some());
        let turn = self.fork.as_ref().map_or(Turn::Plan, |fork| fork.turn(found, ended));
        match turn {
            Turn::Wait => {}
            Turn::Follow => return self.follow(),
            Turn::Plan => {
                if found > 1 {
                    self.overruled();
                }
                self.join_planned(nodes)?;
                if ended {
                    self.arrivals.planner = None;
                }
            }
        }
        garbled.map_or(Ok(()), |why| Err(self.garbled(why)))
    }

    /// The goal is one request of its intent: that says what becomes of it.
    fn follow(&mut self) -> Result<(), Error> {
        self.arrivals.planner = None;
        let Some(Fork::Sure(routed)) = self.fork.take() else {
            return Ok(());
        };
        self.run.plan.ahead_is(ROUTER, |call| intent::note(call, true));
        match routed {
            Routed::Goal(goal) => {
                self.ask(INTENT_PLANNER, goal);
                Ok(())
            }
            Routed::Step(node) => {
                let step = self.context.admission(self.run.client.names()).written(&node)?;
                self.join(step, |field| format!("goal.{field}"))
            }
        }
    }

    /// An intent, if there is one, comes to nothing: the goal is more than one request.
    fn overruled(&mut self) {
        if self.fork.take_if(|fork| matches!(fork, Fork::Sure(_))).is_some() {
            self.run.plan.ahead_is(ROUTER, |call| intent::note(call, false));
        }
    }

    fn join_planned(&mut self, nodes: Vec<Node>) -> Result<(), Error> {
        for node in nodes {
            let Some(writing) = &mut self.arrivals.planner else {
                return Ok(());
            };
            writing.joined += 1;
            let goal = writing.goal.clone();
            let said = format!("step {}", node.id);
            let admitted = decompose::allowed(&goal, &node)
                .map_err(|why| Error::Broken { what: why })
                .and_then(|()| self.context.admission(self.run.client.names()).written(&node));
            let joined = admitted.and_then(|step| self.join(step, |field| renamed(field, &said)));
            match joined {
                Ok(()) => {}
                // The text cannot be known to be wrong while a tool server has not been asked.
                Err(away @ Error::Away { .. }) => return Err(away),
                Err(error) => return Err(self.garbled(error.to_string())),
            }
        }
        Ok(())
    }

    fn garbled(&self, why: String) -> Error {
        let writing = self.arrivals.planner.as_ref();
        let text = writing.map(|w| w.draft.text()).unwrap_or_default();
        Error::Garbled { why, text }
    }
}

fn lost(error: Error) -> Ending {
    Ending::Lost(error.fault())
}

/// What a planner that executes is held to: its text must be a plan that could run.
fn runnable(context: Arc<Context>, run: Arc<Run>, goal: v1::Goal) -> Box<Accept> {
    Box::new(move |text| decompose::runnable(text, &goal, &context.admission(run.client.names())))
}
