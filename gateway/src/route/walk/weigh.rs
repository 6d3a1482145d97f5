//! After an answer: whether it is taken, doubted, or none at all.
use super::{Answer, Walk, decide};
use crate::{
    error::Error,
    route::{
        card::Card,
        judge::{self, Bar, Judged, Verdict},
        question::{Means, Said},
        target::{Target, Tier},
    },
};
use shoal_proto::v1::{self, decision};
use shoal_stack::hedge::Hedged;
use std::{sync::Arc, time::Duration};

/// An answer as it came.
pub(super) struct Heard<'a> {
    pub(super) address: &'a Arc<str>,
    pub(super) said: Said,
    pub(super) means: Means,
    pub(super) hedged: Option<Hedged>,
    pub(super) took: Duration,
}

impl Walk<'_> {
    /// Judges an answer: taken, doubted, or no answer at all.
    pub(super) fn weigh(
        &mut self,
        target: &Target,
        card: Option<&Card>,
        heard: Heard<'_>,
        others: bool,
    ) -> Option<Answer> {
        let Heard {
            address,
            said,
            means,
            hedged,
            took,
        } = heard;
        let of_task = self.registry.task_card(self.ask.task);
        let own = card.and_then(|c| c.tasks.get(self.ask.task)).cloned();
        let form = match target.tier {
            Tier::Specialist { .. } => own.clone(),
            Tier::Endpoint(_) => of_task,
        };
        // The task's own word first: with 0 it says that no answer is doubted, whatever the card says.
        let threshold = self.route.threshold.or(own.and_then(|t| t.threshold));
        let threshold = threshold.filter(|t| *t > 0.0);
        let Judged { verdict, value, valid } = judge::judge(
            &said,
            Bar {
                means,
                schemas: [
                    form.as_ref().and_then(|t| t.schema.as_deref()),
                    self.ask.schema.map(|s| &**s),
                ],
                accept: self.ask.accept,
                grammar: matches!(target.tier, Tier::Specialist { .. })
                    && form.as_ref().is_some_and(|t| t.grammar.is_some()),
                threshold,
            },
        );
        let decision = |verdict, reason: String| v1::Decision {
            endpoint: address.to_string(),
            confidence: said.confidence.as_ref().map(|c| c.score),
            threshold,
            ..decide::decision(target, verdict, decide::with_hedge(reason, hedged.as_ref()), took)
        };
        let answer = Answer {
            value,
            finish: said.finish,
            valid,
            target: target.name.to_string(),
            endpoint: address.to_string(),
            model: said.model.clone(),
            timings: said.timings,
            confidence: said.confidence,
        };
        match verdict {
            Verdict::Invalid(why) => {
                self.note_said(&answer);
                self.failure = Some(match self.ask.accept {
                    Some(_) => Error::Garbled {
                        why: why.clone(),
                        text: said.text.clone(),
                    },
                    None => Error::OutputInvalid {
                        what: format!("{}: {why}", target.name),
                    },
                });
                self.leave(decision(decision::Verdict::Invalid, why), "invalid");
                None
            }
            Verdict::Unsure(why) if self.route.escalate && others => {
                self.note_said(&answer);
                let decision = decision(decision::Verdict::Unsure, why);
                self.doubted = Some((answer, decision.clone()));
                self.leave(decision, "unsure");
                None
            }
            Verdict::Unsure(why) => {
                let why = if self.route.escalate {
                    format!("{why}, and nobody else can be asked")
                } else {
                    format!("{why}; doubt alone moves nothing on (escalate = false)")
                };
                self.ask.trail.decide(decision(decision::Verdict::Chosen, why));
                Some(answer)
            }
            Verdict::Sure(why) => {
                self.ask.trail.decide(decision(decision::Verdict::Chosen, why));
                Some(answer)
            }
        }
    }

    fn note_said(&self, answer: &Answer) {
        let said = (answer.target.clone(), answer.value.to_string());
        self.ask.trail.with(|way| {
            way.first_said.get_or_insert(said);
        });
    }
}
