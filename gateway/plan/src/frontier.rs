//! Which nodes may start now. A node starts the moment its own dependencies have outputs, never by level.
//!
//! ```text
//!             start()           succeed()
//! Pending ──▶ Running ────────▶ Succeeded     its dependants wait for one less
//!    │           │ fail()
//!    │           ├────────────▶ Failed        with `Fail`: the plan is lost; with `Skip`: what depends on it is skipped
//!    │ skip      │ abort()
//!    ▼           ▼
//! Skipped     Cancelled
//! ```
//!
//! `Default` and `FallBack` are not seen here: by them the executor turns a failure into an output, and calls `succeed`.
use crate::graph::{Graph, OnFailure};
use std::collections::VecDeque;

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started.
    Pending,
    /// Started, not ended.
    Running,
    /// Ended with an output.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Never to be started, since something that it needs has no output.
    Skipped,
    /// Stopped, or never to be started, since the plan ended.
    Cancelled,
}

impl State {
    /// Whether nothing more can happen to the node.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// The execution state of a graph.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    states: Vec<State>,
    waits: Vec<usize>,
    ready: VecDeque<usize>,
    open: usize,
    lost: bool,
}

impl Frontier {
    /// For every node that the graph has now.
    #[must_use]
    pub fn new(graph: &Graph) -> Self {
        let mut frontier = Self::default();
        (0..graph.len()).for_each(|at| frontier.add(graph, at));
        frontier
    }

    /// Takes in the node at `at`, which must be the next position; it is skipped at once if what it needs has no output.
    pub fn add(&mut self, graph: &Graph, at: usize) {
        debug_assert_eq!(at, self.states.len(), "nodes join in the graph's order");
        let mut waits = 0;
        let mut barren = false;
        for &d in graph.dependencies(at) {
            match self.states.get(d) {
                Some(State::Succeeded) => {}
                Some(State::Failed | State::Skipped | State::Cancelled) => barren = true,
                _ => waits += 1,
            }
        }
        self.waits.push(waits);
        let state = if self.lost {
            State::Cancelled
        } else if barren {
            State::Skipped
        } else {
            State::Pending
        };
        self.states.push(state);
        if state == State::Pending {
            self.open += 1;
            if waits == 0 {
                self.ready.push_back(at);
            }
        }
    }

    /// The next node that may start, now running; in the order in which nodes became ready.
    pub fn start(&mut self) -> Option<usize> {
        let at = self.ready.pop_front()?;
        self.states[at] = State::Running;
        Some(at)
    }

    /// The running node at `at` has an output.
    ///
    /// # Panics
    /// When it is not running: a node ends once.
    pub fn succeed(&mut self, graph: &Graph, at: usize) {
        self.end(at, State::Succeeded);
        // A dependant that has not joined yet counts its dependencies when it does.
        for &d in graph.dependants(at) {
            let Some(waits) = self.waits.get_mut(d) else { continue };
            *waits -= 1;
            if *waits == 0 && self.states[d] == State::Pending {
                self.ready.push_back(d);
            }
        }
    }

    /// The running node at `at` has none. Returns what became terminal by it: skipped dependants, or, if the plan is lost,
    /// every node that was open; of those, the ones that were running must be stopped by the caller.
    ///
    /// # Panics
    /// When it is not running.
    pub fn fail(&mut self, graph: &Graph, at: usize) -> Vec<usize> {
        self.end(at, State::Failed);
        if graph.node(at).on_failure == OnFailure::Skip {
            return self.skip_dependants(graph, at);
        }
        self.abort()
    }

    /// The plan ends now: every open node is cancelled and returned.
    pub fn abort(&mut self) -> Vec<usize> {
        self.lost = true;
        self.ready.clear();
        self.open = 0;
        let open = (0..self.states.len())
            .filter(|&at| !self.states[at].is_terminal())
            .collect::<Vec<_>>();
        open.iter().for_each(|&at| self.states[at] = State::Cancelled);
        open
    }

    fn skip_dependants(&mut self, graph: &Graph, at: usize) -> Vec<usize> {
        let (mut skipped, mut next) = (Vec::new(), vec![at]);
        while let Some(at) = next.pop() {
            for &d in graph.dependants(at) {
                if self.states.get(d) == Some(&State::Pending) {
                    self.states[d] = State::Skipped;
                    self.open -= 1;
                    skipped.push(d);
                    next.push(d);
                }
            }
        }
        skipped.sort_unstable();
        skipped
    }

    fn end(&mut self, at: usize, state: State) {
        assert_eq!(
            self.states[at],
            State::Running,
            "node {at} ends once, and only after it was started"
        );
        self.states[at] = state;
        self.open -= 1;
    }

    /// Where the node at `at` is.
    ///
    /// # Panics
    /// When it never joined.
    #[must_use]
    pub fn state(&self, at: usize) -> State {
        self.states[at]
    }

    /// Whether every node that joined is terminal.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// Whether a node failed whose failure the plan does not survive, or the plan was aborted.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests;
