//! What is written down of a candidate, and what a model that does not know the task is told of it. Pure.
use crate::{
    error::Error,
    route::{
        card::TaskCard,
        pass::Obstacle,
        target::{Target, Tier},
    },
};
use shoal_proto::{
    time,
    v1::{self, decision::Verdict},
};
use shoal_stack::hedge::Hedged;
use std::time::Duration;

/// A decision without an answer.
pub(super) fn decision(target: &Target, verdict: Verdict, reason: String, elapsed: Duration) -> v1::Decision {
    v1::Decision {
        target: target.name.to_string(),
        endpoint: String::new(),
        verdict: verdict.into(),
        reason,
        confidence: None,
        threshold: None,
        elapsed: Some(time::duration(elapsed)),
    }
}

/// A reason, and that the answer was one of two attempts, if it was.
pub(super) fn with_hedge(reason: String, hedged: Option<&Hedged>) -> String {
    match hedged {
        Some(hedged) => format!("{reason}; {hedged}"),
        None => reason,
    }
}

/// Why a call came to nothing. Of one whose time was over before the node's, whose time that was.
pub(super) fn failure(target: &Target, error: shoal_stack::Error, took: Duration, others: bool) -> Error {
    match (error, &target.tier) {
        (shoal_stack::Error::Expired, Tier::Endpoint(config)) if took >= config.timeout => Error::Expired {
            what: format!(
                "it did not answer within {:?} ([endpoint.{}] timeout)",
                config.timeout, target.name
            ),
        },
        (shoal_stack::Error::Expired, _) if others => Error::Expired {
            what: format!(
                "it did not answer within {} ms, its share of what was left",
                took.as_millis()
            ),
        },
        (other, _) => other.into(),
    }
}

/// Where a call failed, if it got anywhere.
pub(super) fn address(error: &shoal_stack::Error) -> String {
    match error {
        shoal_stack::Error::Call { address, .. } | shoal_stack::Error::Attempt { address, .. } => address.to_string(),
        _ => String::new(),
    }
}

/// Every target was passed over.
pub(super) fn nobody(task: &str, obstacles: &[(String, Obstacle)]) -> Error {
    let told: Vec<String> = obstacles
        .iter()
        .map(|(target, o)| format!("{target}: {}", o.reason()))
        .collect();
    let what = format!("nobody can be asked for task `{task}`: {}", told.join("; "));
    let any = |is: fn(&Obstacle) -> bool| obstacles.iter().any(|(_, o)| is(o));
    if any(|o| matches!(o, Obstacle::Spent(_))) {
        return Error::Full {
            what,
            retry_after: Duration::ZERO,
        };
    }
    if any(|o| matches!(o, Obstacle::Broken(_))) {
        return Error::Away { what };
    }
    if any(|o| matches!(o, Obstacle::Late(_))) {
        return Error::Expired { what };
    }
    Error::Unfit {
        reason: "NO_TARGET",
        what,
    }
}

/// What a model that was not trained on the task is told of it.
pub(super) fn instructions(task: &str, card: Option<&TaskCard>) -> String {
    let mut told = format!(
        "You do one step of an agent's plan: the task `{task}`. Answer with its result alone: no explanation, no code fence."
    );
    if let Some(grammar) = card.and_then(|c| c.grammar.as_deref()) {
        told.push_str("\nYour answer must match this grammar (Lark):\n");
        told.push_str(grammar);
    }
    told
}
