//! An engine that forgets: the reference that the suite is also run against, and what tests of the layers above use.
use super::{Error, Filter, Judged, Store};
use shoal_proto::{time, v1};

/// Outcomes and feedback in two lists.
#[derive(Debug, Default)]
pub struct Memory {
    outcomes: Vec<v1::Outcome>,
    feedback: Vec<v1::SubmitFeedbackRequest>,
}

impl Memory {
    fn about(&self, outcome: &v1::Outcome) -> Vec<v1::SubmitFeedbackRequest> {
        let about = |f: &&v1::SubmitFeedbackRequest| {
            f.plan_id == outcome.plan_id && (f.node_id.is_empty() || f.node_id == outcome.node_id)
        };
        self.feedback.iter().filter(about).cloned().collect()
    }
}

impl Store for Memory {
    fn append(&mut self, outcomes: &[v1::Outcome]) -> Result<(), Error> {
        for outcome in outcomes {
            if !self.outcomes.iter().any(|known| known.outcome_id == outcome.outcome_id) {
                self.outcomes.push(outcome.clone());
            }
        }
        Ok(())
    }

    fn judge(&mut self, feedback: &v1::SubmitFeedbackRequest) -> Result<(), Error> {
        let (plan_id, node_id) = (&feedback.plan_id, &feedback.node_id);
        if !self
            .outcomes
            .iter()
            .any(|o| o.plan_id == *plan_id && (node_id.is_empty() || o.node_id == *node_id))
        {
            return Err(Error::NoOutcome {
                plan_id: plan_id.clone(),
                node_id: node_id.clone(),
            });
        }
        if !self
            .feedback
            .iter()
            .any(|known| known.feedback_id == feedback.feedback_id)
        {
            self.feedback.push(feedback.clone());
        }
        Ok(())
    }

    fn of_plan(&mut self, plan_id: &str) -> Result<Vec<v1::Outcome>, Error> {
        Ok(self.outcomes.iter().filter(|o| o.plan_id == plan_id).cloned().collect())
    }

    fn page(&mut self, filter: &Filter, row: u64, limit: usize) -> Result<Vec<Judged>, Error> {
        let passes = |o: &v1::Outcome| {
            let at = o.finished_at.as_ref().and_then(time::system_time);
            filter.name.as_ref().is_none_or(|name| *name == o.name)
                && filter.model.as_ref().is_none_or(|model| *model == o.model)
                && filter.after.is_none_or(|after| at.is_some_and(|at| at >= after))
                && filter.before.is_none_or(|before| at.is_some_and(|at| at < before))
        };
        let rows = self
            .outcomes
            .iter()
            .zip(1u64..)
            .filter(|(o, at)| *at > row && passes(o))
            .take(limit);
        Ok(rows
            .map(|(o, row)| Judged {
                row,
                outcome: o.clone(),
                feedback: self.about(o),
            })
            .collect())
    }
}
