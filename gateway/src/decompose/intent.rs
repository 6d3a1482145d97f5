//! What a goal's intent makes of it. Pure but for the registry's list of tools.
//!
//! Where `[gateway.intents]` has any, a goal in words is first asked of `[gateway] route_task`: a classifier that costs milliseconds and
//! says what kind of request this is. The table says which task such a request is for, and which services its planner may then call:
//! those that the goal names among them, if it names any.
//! An intent that nobody mapped, one that the classifier is not sure of, and a classifier that is away change nothing: the goal goes
//! to `plan_task`, as if nobody had been asked.
use crate::{route::Registry, tools::Tool};
use shoal_kit::config::{self, Intent};
use shoal_plan::{Kind, Node, Template};
use shoal_proto::v1;
use std::time::Duration;

/// How long the classifier may take. It takes milliseconds; the goal goes on without it then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be done with a goal.
#[derive(Debug, PartialEq)]
pub(crate) enum Routed {
    /// A planner is asked this.
    Goal(v1::Goal),
    /// The goal is one step of the intent's task, and no planner is asked.
    Step(Box<Node>),
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

/// What becomes of a goal with this intent.
pub(crate) fn routed(goal: v1::Goal, intent: Option<&Intent>, config: &config::Gateway, registry: &Registry) -> Routed {
    match intent {
        Some(intent) if intent.task == config.episode_task => {
            let methods = methods(&intent.services, &goal.methods, registry);
            if methods.is_empty() {
                // No tool server offers these services now, or the goal allows none of them: nothing could be planned with them.
                return Routed::Goal(goal);
            }
            Routed::Goal(v1::Goal {
                turns: vec![goal.text],
                methods,
                ..v1::Goal::default()
            })
        }
        Some(intent) if intent.task != config.plan_task => {
            let input = Template::plain(&goal.text);
            let task = intent.task.clone();
            Routed::Step(Box::new(Node::new("1", Kind::Model { task, input })))
        }
        _ => Routed::Goal(goal),
    }
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
