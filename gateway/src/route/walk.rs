//! Along a task's chain, from the smallest target to the largest, until an answer is taken. Every candidate leaves a decision.
//!
//! A target is left when the call fails, when the answer breaks its form, or when its confidence is under the threshold. The last
//! one that can be asked has nobody to hand over to: its doubt is told and its answer taken. And a doubted answer is better than
//! none: if all who come after it fail, it is taken after all.
use super::{
    Input, Registry, Sink, Trail,
    budget::{Budget, Reservation},
    judge::Accept,
    lost::Lost,
    pass::Obstacle,
    question::Finish,
    registry::Route,
    target::Target,
};
use crate::{error::Error, schema::Schema, telemetry::Instruments};
use shoal_proto::{
    time,
    v1::{self, decision},
};
use shoal_stack::hedge::Answered;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

mod ask;
mod decide;
mod weigh;
use weigh::Heard;

/// Hears of a node's way as it goes.
pub(crate) trait Listener: Send + Sync {
    /// The first target is asked.
    fn asked(&self, target: &str);
    /// A target was left for the next, which is asked now.
    fn left(&self, from: &str, to: &str, decision: &v1::Decision);
    /// Who hears the answer as it is decoded; `last` says that nobody else can take over, and that who is asked again says the same.
    fn sink(&self, last: bool) -> Option<Arc<dyn Sink>>;
}

/// What is asked, and within which bounds.
pub(crate) struct Ask<'a> {
    pub(crate) task: &'a str,
    pub(crate) input: &'a Input,
    pub(crate) sampling: Option<&'a v1::Sampling>,
    pub(crate) schema: Option<&'a Arc<Schema>>,
    pub(crate) human_facing: bool,
    pub(crate) private: bool,
    pub(crate) priority: v1::Priority,
    /// Attempts at each target.
    pub(crate) max_attempts: u32,
    /// The latest start with which the plan still ends in time, as far as anybody knows.
    pub(crate) start_by: Instant,
    pub(crate) deadline: Instant,
    /// A failure has a fallback: nobody needs to be asked who will hardly answer in time.
    pub(crate) has_fallback: bool,
    pub(crate) budget: &'a Budget,
    pub(crate) accept: Option<&'a Accept>,
    pub(crate) listener: &'a dyn Listener,
    pub(crate) trail: &'a Trail,
}

/// An answer that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) value: serde_json::Value,
    pub(crate) finish: Finish,
    pub(crate) valid: Option<bool>,
    pub(crate) target: String,
    pub(crate) endpoint: String,
    pub(crate) model: String,
    pub(crate) timings: Option<v1::Timings>,
    pub(crate) confidence: Option<v1::Confidence>,
}

/// Walks the task's chain, and ends at the deadline by itself.
///
/// # Errors
/// The last failure, or why nobody could be asked.
pub(crate) async fn walk(registry: &Registry, instruments: &Instruments, ask: Ask<'_>) -> Result<Answer, Error> {
    let Some(route) = registry.route(ask.task) else {
        return Err(Error::Unfit {
            reason: "TASK_UNKNOWN",
            what: format!("no task `{}` is routed", ask.task),
        });
    };
    let mut walk = Walk {
        registry,
        instruments,
        ask,
        route,
        doubted: None,
        left: None,
        failure: None,
        obstacles: Vec::new(),
    };
    for (at, target) in route.chain.iter().enumerate() {
        if Instant::now() >= walk.ask.deadline {
            walk.failure.get_or_insert(shoal_stack::Error::Expired.into());
            break;
        }
        let (began, deadline) = (Instant::now(), walk.ask.deadline);
        match timeout_at(deadline, walk.candidate(at, target)).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            // Here and not around the walk: what it holds by now, a doubted answer too, must outlive the candidate.
            Err(_) => walk.expired(target, began.elapsed()),
        }
    }
    walk.end()
}

struct Walk<'a> {
    registry: &'a Registry,
    instruments: &'a Instruments,
    ask: Ask<'a>,
    route: &'a Route,
    /// An answer that was doubted, and why.
    doubted: Option<(Answer, v1::Decision)>,
    /// The decision that ended the target that was left last, and why in a word.
    left: Option<(v1::Decision, &'static str)>,
    failure: Option<Error>,
    /// Why targets were passed over.
    obstacles: Vec<(String, Obstacle)>,
}

/// A call under way. However it ends, also by whoever drops it, what its attempts that came to no answer have used is counted then.
struct Losing<'a> {
    reservation: &'a Reservation<'a>,
    trail: &'a Trail,
    instruments: &'a Instruments,
    target: &'a str,
    prompt: usize,
    lost: Arc<Lost>,
}

impl Drop for Losing<'_> {
    fn drop(&mut self) {
        if let Some(usage) = self.reservation.lose(self.prompt, self.lost.so_far()) {
            self.trail.spend(&usage);
            self.instruments.used(self.target, &usage);
        }
    }
}

impl<'a> Walk<'a> {
    /// One candidate: its answer, if it is taken.
    async fn candidate(&mut self, at: usize, target: &Target) -> Option<Answer> {
        let card = self.card(target).await;
        let others = self.others(at);
        let time = if others {
            ask::share(self.time_left())
        } else {
            self.time_left()
        };
        if let Some(obstacle) = self.obstacle(target, card.as_deref(), time)
            && (obstacle.is_final() || others || self.ask.has_fallback)
            && !(matches!(obstacle, Obstacle::Late(_)) && target.pace.probe(self.ask.task))
        {
            self.pass_over(target, obstacle);
            return None;
        }
        let reservation = match self.reserve(target, card.as_deref()).await {
            Ok(reservation) => reservation,
            Err(why) => {
                self.pass_over(target, Obstacle::Spent(why));
                return None;
            }
        };
        let question = self.question(target, card.as_deref(), reservation.max_new_tokens, !others);
        let (means, prompt) = (question.means, question.bytes());
        match &self.left {
            None => self.ask.listener.asked(&target.name),
            Some((decision, why)) => {
                self.instruments.escalated(self.ask.task, &decision.target, why);
                self.ask.listener.left(&decision.target, &target.name, decision);
            }
        }
        self.ask
            .trail
            .with(|way| target.name.to_string().clone_into(&mut way.target));
        let began = Instant::now();
        let answer = {
            let _losing = Losing {
                reservation: &reservation,
                trail: self.ask.trail,
                instruments: self.instruments,
                target: &target.name,
                prompt,
                lost: question.lost.clone(),
            };
            self.answer(target, question, others).await
        };
        match answer {
            Ok(Answered {
                address,
                answer: said,
                hedged,
            }) => {
                let usage = reservation.settle(said.usage, (prompt, said.text.len()));
                self.ask.trail.spend(&usage);
                self.instruments.used(&target.name, &usage);
                let took = began.elapsed();
                let card = self.card_of(target, card, &address, &said.model).await;
                let said = Heard {
                    address: &address,
                    said,
                    means,
                    hedged,
                    took,
                };
                self.weigh(target, card.as_deref(), said, others)
            }
            Err(error) => {
                drop(reservation);
                let endpoint = decide::address(&error);
                let took = began.elapsed();
                let error = decide::failure(target, error, took, others);
                let decision = v1::Decision {
                    endpoint,
                    ..decide::decision(target, decision::Verdict::Failed, error.to_string(), took)
                };
                self.leave(decision, "failed");
                self.failure = Some(error);
                None
            }
        }
    }

    /// The deadline struck before the candidate had decided anything.
    fn expired(&mut self, target: &Target, elapsed: Duration) {
        let error = Error::from(shoal_stack::Error::Expired);
        let decision = decide::decision(target, decision::Verdict::Failed, error.to_string(), elapsed);
        self.leave(decision, "failed");
        self.failure = Some(error);
    }

    fn leave(&mut self, decision: v1::Decision, why: &'static str) {
        self.ask.trail.decide(decision.clone());
        self.left = Some((decision, why));
    }

    fn pass_over(&mut self, target: &Target, obstacle: Obstacle) {
        let reason = obstacle.reason().to_owned();
        self.ask.trail.decide(decide::decision(
            target,
            decision::Verdict::PassedOver,
            reason,
            Duration::ZERO,
        ));
        self.obstacles.push((target.name.to_string(), obstacle));
    }

    /// Nobody's answer was taken on the way.
    fn end(self) -> Result<Answer, Error> {
        if let Some((answer, doubt)) = self.doubted {
            let reason = format!("taken after all: {}, and nobody after it had an answer", doubt.reason);
            self.ask.trail.decide(v1::Decision {
                verdict: decision::Verdict::Chosen.into(),
                reason,
                elapsed: Some(time::duration(Duration::ZERO)),
                ..doubt
            });
            return Ok(answer);
        }
        Err(self
            .failure
            .unwrap_or_else(|| decide::nobody(self.ask.task, &self.obstacles)))
    }
}
