//! A plan's last events: what was still open, and the plan itself.
use super::{
    driver::{Driver, Ending, Key, Underway},
    node::{Run, counted},
    result::{About, Ended, never, result},
};
use crate::{
    context::Context,
    error::Error,
    outcomes::outcome::{self, Beyond},
    plans::Plan,
};
use futures::future::join_all;
use shoal_plan::frontier::State;
use shoal_proto::{
    time,
    v1::{self, plan_event::Event},
};
use std::sync::{Arc, atomic::Ordering};

/// Tells the end of a plan whose driver has not: a panic in it must not leave watchers waiting for ever.
pub(super) struct Closing(pub(super) Arc<Context>, pub(super) Arc<Plan>);

impl Drop for Closing {
    fn drop(&mut self) {
        let Self(context, plan) = self;
        if !plan.log.closed() {
            let what = "the plan's driver has ended before the plan; this is a fault of the gateway".to_owned();
            tracing::error!(plan_id = plan.id, "{what}");
            plan.log.push(Event::Finished(v1::PlanFinished {
                state: v1::State::Failed.into(),
                fault: Some(Error::Broken { what }.fault()),
                elapsed: Some(time::duration(plan.began.elapsed())),
                ..v1::PlanFinished::default()
            }));
        }
        context.plans.ended(plan);
    }
}

impl Driver {
    /// Ends what is open, and tells the plan's end.
    pub(super) async fn finish(&mut self, ending: Ending) {
        let (state, fault) = match ending {
            Ending::Done => (v1::State::Succeeded, None),
            Ending::Lost(fault) => (v1::State::Failed, Some(fault)),
            Ending::Cut(fault) => (v1::State::Cancelled, Some(fault)),
        };
        if let Some(fault) = &fault {
            self.close(state, fault).await;
        }
        let plan = &self.run.plan;
        let elapsed = plan.began.elapsed();
        // The driver's task runs in the plan's span.
        let span = tracing::Span::current();
        span.record(crate::telemetry::STATE, crate::telemetry::word(state));
        if state != v1::State::Succeeded {
            span.record("otel.status_code", "ERROR");
        }
        let (nodes, seconds) = (self.graph.len(), elapsed.as_secs_f64());
        match &fault {
            // A busy gateway ends hundreds a second: what went well is in the metrics and the traces.
            None => tracing::debug!(plan_id = plan.id, nodes, seconds, "plan succeeded"),
            Some(fault) => {
                let state = crate::telemetry::word(state);
                tracing::info!(
                    plan_id = plan.id,
                    state,
                    nodes,
                    seconds,
                    fault = fault.message,
                    "plan did not succeed"
                );
            }
        }
        plan.log.push(Event::Finished(v1::PlanFinished {
            state: state.into(),
            fault,
            usage: Some(self.usage),
            elapsed: Some(time::duration(elapsed)),
            outcomes_acknowledged: plan.acknowledged.load(Ordering::Relaxed),
        }));
    }

    /// Every node that was open is cancelled: those that ran leave an outcome, those that waited do not.
    async fn close(&mut self, state: v1::State, fault: &v1::Fault) {
        let sibling = Error::Cancelled {
            why: format!("the plan failed: {}", fault.message),
        };
        let why = if state == v1::State::Failed {
            sibling.fault()
        } else {
            fault.clone()
        };
        // A lost frontier has been aborted already; its nodes are told all the same.
        let mut open = self.frontier.abort();
        if open.is_empty() {
            open = (0..self.steps.len())
                .filter(|at| self.frontier.state(*at) == State::Cancelled)
                .collect();
        }
        let mut underway: Vec<(Key, Underway)> = self.underway.drain().collect();
        underway.sort_by_key(|(key, _)| *key);
        let ran: Vec<usize> = underway
            .iter()
            .filter_map(|(key, _)| match key {
                Key::Node(at) | Key::Call(at) => Some(*at),
                Key::Router | Key::Planner => None,
            })
            .collect();
        let ended = underway.iter().map(|(_, u)| cut(&self.context, &self.run, u, &why));
        let results = join_all(ended).await;
        for ((key, _), result) in underway.iter().zip(results) {
            self.usage = crate::plans::record::sum([self.usage, result.usage.unwrap_or_default()].iter());
            match key {
                Key::Router | Key::Planner => self.run.plan.ahead_ends(result),
                Key::Node(_) | Key::Call(_) => self.told(result),
            }
        }
        for at in open.into_iter().filter(|at| !ran.contains(at)) {
            let about = self.about_at(at);
            self.told(never(&about, v1::State::Cancelled, why.clone()));
        }
    }

    /// The node at `at` never runs, because what it needs has no output.
    pub(super) fn told_skipped(&self, at: usize) {
        let about = self.about_at(at);
        let barren = |d: &&usize| self.frontier.state(**d) != State::Succeeded;
        let missing = self
            .graph
            .dependencies(at)
            .iter()
            .find(barren)
            .map(|d| self.graph.node(*d).id.as_str());
        let why = Error::Unfit {
            reason: "SKIPPED",
            what: format!("node `{}`, which it needs, has no output", missing.unwrap_or_default()),
        };
        let state = if self.frontier.is_lost() {
            v1::State::Cancelled
        } else {
            v1::State::Skipped
        };
        self.told(never(&about, state, why.fault()));
    }

    fn told(&self, result: v1::NodeResult) {
        self.run
            .plan
            .log
            .push(Event::NodeFinished(v1::NodeFinished { result: Some(result) }));
    }

    fn about_at(&self, at: usize) -> About {
        let depends_on = self
            .graph
            .node(at)
            .depends_on()
            .into_iter()
            .map(str::to_owned)
            .collect();
        self.about(&self.steps[at], depends_on)
    }
}

/// The result of something that was running, and its outcome. What had ended, and is being kept, stays as it ended.
async fn cut(context: &Context, run: &Run, underway: &Underway, why: &v1::Fault) -> v1::NodeResult {
    let (plan, about) = (&run.plan, &underway.about);
    if let Some(ended) = underway.progress.ended() {
        counted(context, run, about, ended.state());
        return ended.clone();
    }
    let told = result(plan, about, &underway.trail.so_far(), &Ended::Cancelled(why));
    if !told.outcome_id.is_empty() {
        let kept = underway.progress.kept(&told);
        let outcome = outcome::of(&plan.id, &plan.trace_id, &kept, Beyond::default());
        context.recorder.keep(outcome).await;
    }
    counted(context, run, about, v1::State::Cancelled);
    told
}
