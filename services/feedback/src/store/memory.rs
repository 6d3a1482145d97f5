//! An engine that forgets: the reference that the suite is also run against, and what tests of the layers above use.
use super::{Error, Filter, Judged, Position, Store, Word, micros};
use prost::Message as _;
use shoal_proto::v1;
use std::time::SystemTime;

/// Outcomes and feedback in two lists.
#[derive(Debug, Default)]
pub struct Memory {
    outcomes: Vec<(SystemTime, v1::Outcome)>,
    feedback: Vec<Word>,
}

impl Memory {
    fn about(&self, outcome: &v1::Outcome) -> Vec<Word> {
        let same = |o: &v1::Outcome| o.plan_id == outcome.plan_id && o.node_id == outcome.node_id;
        let latest = self.outcomes.iter().map(|(_, o)| o).rfind(|o| same(o));
        let latest = latest.is_some_and(|o| o.outcome_id == outcome.outcome_id);
        let about = |Word { said, .. }: &&Word| {
            said.plan_id == outcome.plan_id && (said.node_id.is_empty() || latest && said.node_id == outcome.node_id)
        };
        self.feedback.iter().filter(about).cloned().collect()
    }
}

impl Store for Memory {
    fn append(&mut self, outcomes: &[v1::Outcome], now: SystemTime) -> Result<(), Error> {
        for outcome in outcomes {
            if !self.outcomes.iter().any(|(_, o)| o.outcome_id == outcome.outcome_id) {
                self.outcomes.push((now, outcome.clone()));
            }
        }
        Ok(())
    }

    fn judge(&mut self, feedback: &v1::SubmitFeedbackRequest, now: SystemTime) -> Result<(), Error> {
        let (plan_id, node_id) = (&feedback.plan_id, &feedback.node_id);
        if !self
            .outcomes
            .iter()
            .any(|(_, o)| o.plan_id == *plan_id && (node_id.is_empty() || o.node_id == *node_id))
        {
            return Err(Error::NoOutcome {
                plan_id: plan_id.clone(),
                node_id: node_id.clone(),
            });
        }
        if !self
            .feedback
            .iter()
            .any(|known| known.said.feedback_id == feedback.feedback_id)
        {
            self.feedback.push(Word {
                recorded: now,
                said: feedback.clone(),
            });
        }
        Ok(())
    }

    fn of_plan(&mut self, plan_id: &str) -> Result<Vec<v1::Outcome>, Error> {
        let of = self.outcomes.iter().map(|(_, o)| o).filter(|o| o.plan_id == plan_id);
        Ok(of.cloned().collect())
    }

    fn page(&mut self, filter: &Filter, after: Position, rows: usize, bytes: usize) -> Result<Vec<Judged>, Error> {
        let passes = |recorded: &SystemTime, o: &v1::Outcome| {
            filter.name.as_ref().is_none_or(|name| *name == o.name)
                && filter.model.as_ref().is_none_or(|model| *model == o.model)
                && filter.after.is_none_or(|after| *recorded >= after)
                && filter.before.is_none_or(|before| *recorded < before)
        };
        let mut found: Vec<_> = self
            .outcomes
            .iter()
            .zip(1u64..)
            .filter(|((recorded, o), _)| passes(recorded, o))
            .map(|((recorded, o), row)| {
                let recorded_us = micros(*recorded);
                (Position { recorded_us, row }, o)
            })
            .filter(|(at, _)| *at > after)
            .collect();
        found.sort_by_key(|(at, _)| *at);
        let (mut page, mut taken) = (Vec::new(), 0);
        for (at, outcome) in found.into_iter().take(rows) {
            if taken >= bytes {
                break;
            }
            let feedback = self.about(outcome);
            taken += outcome.encoded_len() + feedback.iter().map(|word| word.said.encoded_len()).sum::<usize>();
            page.push(Judged {
                at,
                outcome: outcome.clone(),
                feedback,
            });
        }
        Ok(page)
    }
}
