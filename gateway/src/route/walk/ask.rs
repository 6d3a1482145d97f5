//! Before an answer: who can be asked, with which part of the budget, and the question as that target is asked it.
use super::{Walk, decide};
use crate::route::{
    budget::{Need, Reservation},
    card::Card,
    keep,
    pass::{self, Facts, Obstacle},
    question::{Means, Question, Said},
    target::{Target, Tier, Within},
};
use rand::Rng as _;
use shoal_stack::hedge::Answered;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long room is waited for while somebody else could be asked: a burst is over by then, an overload is not.
const PATIENCE: Duration = Duration::from_secs(1);

/// New tokens that an endpoint is assumed to generate where nobody says: what budgets reckon with.
const ENDPOINT_TOKENS: u32 = 1024;

/// How a target with this card is asked.
fn means(card: Option<&Card>) -> Means {
    if card.is_some_and(|c| c.kind == "classify") {
        Means::Classify
    } else {
        Means::Generate
    }
}

/// What a candidate is given of the time that is left where others could be asked after it: whoever is asked second should have as much as who
/// was asked first.
pub(super) fn share(left: Duration) -> Duration {
    left / 2
}

impl<'a> Walk<'a> {
    /// Whether somebody after this candidate can be asked, as far as anybody knows now.
    pub(super) fn others(&self, at: usize) -> bool {
        let rest = self.route.chain.get(at + 1..).unwrap_or_default();
        let left = self.time_left();
        rest.iter().any(|target| {
            let card = self.registry.card(&target.name);
            self.obstacle(target, card.as_deref(), left).is_none()
        })
    }

    /// The card; a specialist that was never reached is asked for it now, since thresholds and forms are in it.
    pub(super) async fn card(&self, target: &Target) -> Option<Arc<Card>> {
        match self.registry.card(&target.name) {
            Some(card) => Some(card),
            None => {
                let asked = keep::describe(target, self.registry);
                tokio::time::timeout_at(self.ask.deadline, asked).await.ok().flatten()
            }
        }
    }

    /// The card of the version that answered, which is not the one that was asked if a switch came between. A version that is not
    /// known is asked for once; where its card cannot be had, the other's is better than none.
    pub(super) async fn card_of(
        &self,
        target: &Target,
        card: Option<Arc<Card>>,
        address: &Arc<str>,
        model: &str,
    ) -> Option<Arc<Card>> {
        if card.as_ref().is_none_or(|c| c.identity == model) {
            return card;
        }
        let version = self.registry.version(&target.name, model);
        let asked = version.get_or_init(|| keep::describe_version(target, self.registry, address, model));
        // Not to the deadline's end: the answer is there, and is to be taken before it.
        let left = self.ask.deadline.saturating_duration_since(Instant::now());
        let found = tokio::time::timeout(keep::PATIENCE.min(left / 2), asked).await;
        if self.registry.card(&target.name).is_none_or(|c| c.identity != model) {
            target.stale.notify_one();
        }
        found.ok().cloned().flatten().or(card)
    }

    /// What is left to the node.
    pub(super) fn time_left(&self) -> Duration {
        self.ask.deadline.saturating_duration_since(Instant::now())
    }

    /// What speaks against asking a target that is given so much time.
    pub(super) fn obstacle(&self, target: &Target, card: Option<&Card>, time: Duration) -> Option<Obstacle> {
        let serves = match &target.tier {
            Tier::Endpoint(_) => true,
            Tier::Specialist { tasks, .. } if !tasks.is_empty() => tasks.iter().any(|t| t == self.ask.task),
            Tier::Specialist { .. } => card.is_none_or(|c| c.tasks.contains_key(self.ask.task)),
        };
        pass::obstacle(&Facts {
            unusable: target.unusable.clone(),
            serves,
            embeds: card.is_some_and(|c| c.kind == "embed"),
            external: target.external(),
            machine_only: target.machine_only(),
            private: self.ask.private,
            human_facing: self.ask.human_facing,
            broken: target.broken(),
            least: target.pace.least(self.ask.task),
            time,
        })
    }

    /// This target's share of the plan's budget.
    pub(super) async fn reserve(&self, target: &Target, card: Option<&Card>) -> Result<Reservation<'a>, String> {
        let wanted = self.ask.sampling.and_then(|s| s.max_tokens);
        let most = card.map_or(ENDPOINT_TOKENS, |c| c.max_new_tokens);
        let need = Need {
            input_bytes: self.ask.input.bytes(),
            max_new_tokens: if card.is_some_and(|c| !c.decodes()) {
                1
            } else {
                wanted.unwrap_or(most)
            },
            price: target.price().or(card.map(|c| c.price)).unwrap_or_default(),
        };
        self.ask.budget.reserve(need).await
    }

    /// The question as this target is asked it; `most` are the new tokens that the budget allows, if it has a say.
    pub(super) fn question(&self, target: &Target, card: Option<&Card>, most: Option<u32>, last: bool) -> Question {
        let means = means(card);
        let mut sampling = self.ask.sampling.cloned();
        if let (Means::Generate, Some(most)) = (means, most) {
            sampling.get_or_insert_default().max_tokens = Some(most);
        }
        // One seed for all attempts: what was drawn and told before a connection broke is drawn again.
        if let (Tier::Specialist { .. }, Some(sampling)) = (&target.tier, &mut sampling)
            && sampling.temperature.is_some_and(|t| t > 0.0)
        {
            sampling.seed.get_or_insert_with(|| rand::rng().random());
        }
        let of_task = self.registry.task_card(self.ask.task);
        let own = card.and_then(|c| c.tasks.get(self.ask.task));
        let (form, instructions) = match &target.tier {
            // A card's own form is the specialist's default; the node's stands in where there is none.
            Tier::Specialist { .. } if own.is_some_and(|t| t.schema.is_some() || t.grammar.is_some()) => (None, None),
            // An answer that is not decoded is judged by the node's form, and cannot be held to it.
            Tier::Specialist { .. } if card.is_some_and(|c| !c.decodes()) => (None, None),
            Tier::Specialist { .. } => (self.ask.schema.cloned(), None),
            Tier::Endpoint(_) => {
                let form = of_task
                    .as_ref()
                    .and_then(|t| t.schema.clone())
                    .or(self.ask.schema.cloned());
                (form, Some(decide::instructions(self.ask.task, of_task.as_ref())))
            }
        };
        Question {
            task: self.ask.task.to_owned(),
            input: self.ask.input.clone(),
            means,
            sampling,
            form,
            priority: self.ask.priority,
            lost: Arc::default(),
            instructions,
            // An endpoint that is asked again may word it otherwise.
            sink: self
                .ask
                .listener
                .sink(last && matches!(target.tier, Tier::Specialist { .. })),
        }
    }

    /// Asks one target, waiting for room as long as that makes sense.
    pub(super) async fn answer(
        &self,
        target: &Target,
        question: Question,
        others: bool,
    ) -> Result<Answered<Said>, shoal_stack::Error> {
        let (began, left) = (Instant::now(), self.time_left());
        let within = Within {
            deadline: if others { began + share(left) } else { self.ask.deadline },
            // A fallback is somebody else, too.
            patience: if others || self.ask.has_fallback {
                began + PATIENCE.min(left / 4)
            } else {
                self.ask.deadline
            },
            start_by: self.ask.start_by,
            max_attempts: self.ask.max_attempts,
        };
        target.ask(question, within).await
    }
}
