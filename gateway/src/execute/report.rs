//! A node's events, as it goes.
use crate::{
    admit::is_ahead,
    decompose::Draft,
    plans::Plan,
    route::{Sink, walk::Listener},
};
use shoal_proto::v1::{self, plan_event::Event};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// Tells a plan's log what happens to one node.
pub(crate) struct Report {
    plan: Arc<Plan>,
    node_id: String,
    started: AtomicBool,
    /// Some target's text has been told: no other target's is, so that what a watcher puts together is never a mix.
    told: Arc<AtomicBool>,
    /// A call ahead of the plan's steps is none of them, and no event of it: GetPlan has it.
    ahead: bool,
    /// Of the planner: where its steps are read.
    draft: Option<Arc<Draft>>,
}

impl Report {
    pub(crate) fn new(plan: Arc<Plan>, node_id: &str) -> Self {
        Self {
            plan,
            node_id: node_id.to_owned(),
            started: AtomicBool::new(false),
            told: Arc::default(),
            ahead: is_ahead(node_id),
            draft: None,
        }
    }

    /// A planner's report, and the draft that its text is read from while nobody can take over from it.
    pub(crate) fn planner(plan: Arc<Plan>, node_id: &str) -> (Self, Arc<Draft>) {
        let draft = Arc::new(Draft::default());
        let report = Self {
            draft: Some(draft.clone()),
            ..Self::new(plan, node_id)
        };
        (report, draft)
    }

    /// Whose.
    pub(crate) fn node_id(&self) -> &str {
        &self.node_id
    }

    fn deltas(&self) -> Deltas {
        Deltas {
            plan: self.plan.clone(),
            node_id: self.node_id.clone(),
            told: self.told.clone(),
            heard: Mutex::default(),
        }
    }

    /// The node has started, whatever else happens to it; told once.
    pub(crate) fn start(&self, target: &str) {
        if self.ahead {
            self.plan.ahead_is(&self.node_id, |call| {
                call.state = v1::State::Running.into();
                target.clone_into(&mut call.target);
            });
        } else if !self.started.swap(true, Ordering::AcqRel) {
            self.plan.log.push(Event::NodeStarted(v1::NodeStarted {
                node_id: self.node_id.clone(),
                target: target.to_owned(),
            }));
        }
    }

    /// The client is asked to run a tool.
    pub(crate) fn requested(&self, call_id: &str, name: &str, arguments_json: String) {
        self.plan.log.push(Event::ToolRequested(v1::ToolRequested {
            call_id: call_id.to_owned(),
            node_id: self.node_id.clone(),
            name: name.to_owned(),
            arguments_json,
        }));
    }
}

impl Listener for Report {
    fn asked(&self, target: &str) {
        self.start(target);
    }

    fn left(&self, from: &str, to: &str, decision: &v1::Decision) {
        if self.ahead {
            self.plan.ahead_is(&self.node_id, |call| {
                to.clone_into(&mut call.target);
                call.decisions.push(decision.clone());
            });
            return;
        }
        self.plan.log.push(Event::NodeEscalated(v1::NodeEscalated {
            node_id: self.node_id.clone(),
            from: from.to_owned(),
            to: to.to_owned(),
            decision: Some(decision.clone()),
        }));
    }

    fn sink(&self, last: bool) -> Option<Arc<dyn Sink>> {
        if let Some(draft) = &self.draft {
            return last.then(|| draft.clone() as Arc<dyn Sink>);
        }
        if self.ahead {
            return None;
        }
        let fresh = !self.told.load(Ordering::Acquire);
        fresh.then(|| Arc::new(self.deltas()) as Arc<dyn Sink>)
    }
}

/// One target's text as NodeDelta events. A second attempt that says the same adds only what is new; one that says something else
/// is not told: the node's end has its text.
struct Deltas {
    plan: Arc<Plan>,
    node_id: String,
    told: Arc<AtomicBool>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    told: String,
    /// How much of `told` this attempt has repeated.
    at: usize,
    diverged: bool,
}

impl Heard {
    /// What of a piece is new.
    fn fresh(&mut self, piece: &str) -> Option<String> {
        let known = self.told.get(self.at..).unwrap_or_default();
        if self.diverged {
            return None;
        }
        if known.starts_with(piece) {
            self.at += piece.len();
            return None;
        }
        let Some(fresh) = piece.strip_prefix(known) else {
            self.diverged = true;
            return None;
        };
        let fresh = fresh.to_owned();
        self.told.push_str(&fresh);
        self.at = self.told.len();
        Some(fresh)
    }
}

impl Sink for Deltas {
    fn begin(&self) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.at, heard.diverged) = (0, false);
    }

    fn delta(&self, text: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = heard.fresh(text) {
            self.told.store(true, Ordering::Release);
            self.plan.log.push(Event::NodeDelta(v1::NodeDelta {
                node_id: self.node_id.clone(),
                text,
            }));
        }
    }

    fn heard(&self) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        !heard.told.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(attempts: &[Vec<&str>]) -> String {
        let mut heard = Heard::default();
        let mut told = String::new();
        for pieces in attempts {
            (heard.at, heard.diverged) = (0, false);
            pieces.iter().for_each(|p| told.extend(heard.fresh(p)));
        }
        told
    }

    #[test]
    fn a_second_attempt_is_told_only_as_far_as_it_says_the_same_and_more() {
        assert_eq!(told(&[vec!["ab", "c"], vec!["a", "bcd", "e"]]), "abcde");
        assert_eq!(told(&[vec!["abc"], vec!["abX", "Y"]]), "abc");
        assert_eq!(told(&[vec!["abc"], vec!["x"], vec!["abcd"]]), "abcd");
    }

    proptest! {
        #[test]
        fn however_the_text_is_cut_and_cut_off_the_whole_of_it_is_told_once(text in "[a-cé]{0,30}", cuts in prop::collection::vec((0usize..40, 1usize..5), 1..4)) {
            let chars: Vec<char> = text.chars().collect();
            let mut attempts: Vec<Vec<String>> = cuts.iter().map(|(end, width)| {
                chars[..(*end).min(chars.len())].chunks(*width).map(|c| c.iter().collect()).collect()
            }).collect();
            attempts.push(vec![text.clone()]);
            let attempts: Vec<Vec<&str>> = attempts.iter().map(|a| a.iter().map(String::as_str).collect()).collect();
            prop_assert_eq!(told(&attempts), text);
        }
    }
}
