//! What a goal's intent makes of it. Pure but for the registry's list of tools.
//!
//! ```text
//! goal --+--> planner --+--> more than one step, or no such intent ----------> the planner's steps
//!        '--> router ---'--> one step, and an intent that is sure and mapped --> one step of the intent's task,
//!                                                                               or its planner, with its services' tools
//! ```
//!
//! Where `[gateway.intents]` has any, a goal in words is put to its planner and, at the same time, to `[gateway] route_task`: a classifier that
//! costs milliseconds and says what kind of request this is. The table says which task such a request is for, and which services its
//! planner may then call: those that the goal names among them, if it names any.
//! An intent is that of one request, and a goal may hold several: the classifier then names one of them, as sure of itself as ever,
//! and what follows it loses the others without a word. So an intent is followed only where the planner found a single step.
//! An intent that nobody mapped, one that the classifier is not sure of, and a classifier that is away change nothing. A planner that fails
//! fails the goal, as if nobody else had been asked: how many requests it holds is then not known.
use crate::{route::Registry, tools::Tool};
use shoal_kit::config::{self, Intent};
use shoal_plan::{Kind, Node, Template};
use shoal_proto::v1::{self, decision::Verdict};
use std::time::Duration;

/// How long the classifier may take. It takes milliseconds; the goal goes on without it then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What is done with a goal whose intent is followed.
#[derive(Debug, PartialEq)]
pub(crate) enum Routed {
    /// Another planner is asked this.
    Goal(v1::Goal),
    /// The goal is one step of the intent's task.
    Step(Box<Node>),
}

/// A goal in words between its planner and its intent, until one of them is followed.
#[derive(Debug)]
pub(crate) enum Fork {
    /// The router has not answered.
    Asked(v1::Goal),
    /// The goal is this, if it is one request.
    Sure(Routed),
}

/// What a planner's steps come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// They may yet be set aside: they do not join.
    Wait,
    /// They are the plan.
    Plan,
    /// They are one request, and the intent's.
    Follow,
}

impl Fork {
    /// Of so many steps, which are all if the planner has ended. A second step is enough to know: nobody waits for the router then.
    pub(crate) fn turn(&self, steps: usize, ended: bool) -> Turn {
        match self {
            _ if steps > 1 => Turn::Plan,
            Self::Sure(_) if ended => Turn::Follow,
            Self::Asked(_) | Self::Sure(_) => Turn::Wait,
        }
    }
}

/// The task that tells a goal's intent, if this goal has one to tell: a conversation is for its own planner.
pub(crate) fn task<'a>(goal: &v1::Goal, config: &'a config::Gateway) -> Option<&'a str> {
    (goal.turns.is_empty() && !config.intents.is_empty()).then_some(config.route_task.as_str())
}

/// The intent that the classifier's answer is sure of.
pub(crate) fn sure<'a>(answer: &v1::NodeResult, config: &'a config::Gateway) -> Option<&'a Intent> {
    // Whoever failed left no text that is a JSON string.
    let label: String = serde_json::from_str(&answer.output_json).ok()?;
    let doubted = answer.decisions.iter().any(|d| {
        let under = d
            .confidence
            .zip(d.threshold)
            .is_some_and(|(score, least)| score < least);
        d.target == answer.target && under
    });
    config.intents.get(&label).filter(|_| !doubted)
}

/// Notes with the classifier's answer whether its intent was followed: GetPlan and Decompose tell it. Its outcome has left by then.
pub(crate) fn note(answer: &mut v1::NodeResult, followed: bool) {
    let said = match followed {
        true => "followed: the planner found one step",
        false => "not followed: the planner found more than one step",
    };
    if let Some(chosen) = answer.decisions.iter_mut().rfind(|d| d.verdict() == Verdict::Chosen) {
        let before = if chosen.reason.is_empty() { "" } else { "; " };
        chosen.reason.push_str(before);
        chosen.reason.push_str(said);
    }
}

/// What becomes of a goal that is one request of this intent; none if that is what its planner makes of it.
pub(crate) fn routed(
    goal: &v1::Goal,
    intent: &Intent,
    config: &config::Gateway,
    registry: &Registry,
) -> Option<Routed> {
    if intent.task == config.plan_task {
        return None;
    }
    if intent.task != config.episode_task {
        let input = Template::plain(&goal.text);
        let task = intent.task.clone();
        return Some(Routed::Step(Box::new(Node::new("1", Kind::Model { task, input }))));
    }
    let methods = methods(&intent.services, &goal.methods, registry);
    // Where no tool server offers these services now, or the goal allows none of them, nothing could be planned with them.
    (!methods.is_empty()).then(|| {
        Routed::Goal(v1::Goal {
            turns: vec![goal.text.clone()],
            methods,
            ..v1::Goal::default()
        })
    })
}

/// What the services' registered tools look like to a planner: where the goal names methods, those of them alone, in its own words.
fn methods(services: &[String], named: &[v1::MethodSignature], registry: &Registry) -> Vec<v1::MethodSignature> {
    let signature = |tool: &Tool| {
        let (service, method) = tool.name.split_once('.')?;
        services.iter().any(|s| s == service).then(|| v1::MethodSignature {
            service: service.to_owned(),
            method: method.to_owned(),
            parameters: tool.parameters.clone(),
        })
    };
    let offered: Vec<_> = registry.tools().iter().filter_map(|tool| signature(tool)).collect();
    if named.is_empty() {
        return offered;
    }
    let is_offered = |m: &&v1::MethodSignature| {
        offered
            .iter()
            .any(|o| (&o.service, &o.method) == (&m.service, &m.method))
    };
    named.iter().filter(is_offered).cloned().collect()
}
