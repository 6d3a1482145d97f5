//! What the demo's plans add up to.
use super::{Kind, judge::Fault};
use crate::{
    exit::{Failure, Result},
    json::seconds,
    view::{PlanView, milliseconds},
};
use serde_json::{Value, json};
use shoal_proto::v1::{Outcome, State};
use std::{collections::BTreeMap, path::Path};

/// One plan that has run.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) kind: Kind,
    pub(super) plan: PlanView,
    pub(super) right: bool,
    /// A node's answer came from an endpoint: the larger tier.
    pub(super) larger: bool,
    pub(super) fault: Option<Fault>,
}

impl Ran {
    fn succeeded(&self) -> bool {
        self.plan
            .finished
            .as_ref()
            .is_some_and(|f| f.state() == State::Succeeded)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Summary {
    ran: Vec<Ran>,
    /// Counted in the store.
    outcomes_acknowledged: usize,
    /// How many of those each target answered: specialists, endpoints and tool servers by their names in the configuration.
    answered: BTreeMap<String, usize>,
}

impl Summary {
    pub(super) fn add(&mut self, ran: Ran) {
        self.ran.push(ran);
    }

    /// What the store has of these plans, the calls of planners and of the router included.
    pub(super) fn keep(&mut self, stored: &[Outcome]) {
        self.outcomes_acknowledged = stored.len();
        for outcome in stored.iter().filter(|o| o.state() == State::Succeeded) {
            *self.answered.entry(outcome.target.clone()).or_default() += 1;
        }
    }

    pub(super) fn plan_ids(&self) -> impl Iterator<Item = &str> {
        self.ran
            .iter()
            .map(|r| r.plan.plan_id.as_str())
            .filter(|id| !id.is_empty())
    }

    /// Outcomes that events told of: each must reach the store.
    pub(super) fn outcomes_sent(&self) -> usize {
        let results = self
            .ran
            .iter()
            .flat_map(|r| &r.plan.nodes)
            .filter_map(|n| n.result.as_ref());
        results.filter(|r| !r.outcome_id.is_empty()).count()
    }

    fn count(&self, of: impl Fn(&Ran) -> bool) -> usize {
        self.ran.iter().filter(|r| of(r)).count()
    }

    fn edges(&self) -> usize {
        self.ran.iter().map(|r| r.plan.edges()).sum()
    }

    /// The last object of `--json`.
    pub(super) fn to_json(&self) -> Value {
        let traces: Vec<&str> = self
            .ran
            .iter()
            .map(|r| r.plan.trace_id.as_str())
            .filter(|t| !t.is_empty())
            .collect();
        json!({
            "plans": self.ran.len(), "succeeded": self.count(Ran::succeeded), "right": self.count(|r| r.right),
            "dependent_edges": self.edges(), "outcomes_acknowledged": self.outcomes_acknowledged, "answered": self.answered, "trace_ids": traces,
        })
    }

    /// For people.
    pub(super) fn lines(&self, store: &Path, otlp: Option<&str>) -> Vec<String> {
        let kind = |wanted: &dyn Fn(Kind) -> bool, name: &str| {
            let of = |r: &&Ran| wanted(r.kind);
            let all: Vec<&Ran> = self.ran.iter().filter(of).collect();
            let right = all.iter().filter(|r| r.right).count();
            format!("  {name:<22} {right} of {} right", all.len())
        };
        let nodes = || {
            self.ran
                .iter()
                .flat_map(|r| &r.plan.nodes)
                .filter_map(|n| Some((n.kind.as_str(), n.result.as_ref()?)))
        };
        let of_kind = |wanted: &'static str| {
            nodes()
                .filter(move |(k, _)| *k == wanted)
                .map(|(_, r)| seconds(r.elapsed.as_ref()))
        };
        let plans = self
            .ran
            .iter()
            .filter_map(|r| r.plan.finished.as_ref())
            .map(|f| seconds(f.elapsed.as_ref()));
        let larger = self.ran.iter().filter(|r| r.larger).count();
        let mut lines = vec![
            String::new(),
            format!(
                "{} plans, {} succeeded, {} right, {} dependent edges",
                self.ran.len(),
                self.count(Ran::succeeded),
                self.count(|r| r.right),
                self.edges()
            ),
            kind(&|k| k == Kind::Joined, "joined requests"),
            kind(&|k| k == Kind::Trip, "people's own plans"),
            kind(&|k| k == Kind::Talk, "conversations"),
            kind(&|k| matches!(k, Kind::Reply | Kind::Note), "replies and notes"),
            kind(&|k| k == Kind::Single, "single requests"),
            kind(&|k| matches!(k, Kind::Step(_)), "steps of other tasks"),
            format!("  {:<22} {larger} of {}", "to the larger model", self.ran.len()),
            format!(
                "median latency: {} a plan, {} a model node, {} a tool node",
                p50(plans),
                p50(of_kind("model")),
                p50(of_kind("tool"))
            ),
            format!(
                "{} outcomes acknowledged, in {}",
                self.outcomes_acknowledged,
                store.display()
            ),
        ];
        if !self.answered.is_empty() {
            let each = self.answered.iter().map(|(target, times)| format!("{target} {times}"));
            lines.push(format!("answered by {}", each.collect::<Vec<_>>().join(", ")));
        }
        lines.push(match otlp {
            Some(endpoint) => format!("traces went to {endpoint}; look them up by the trace ids above"),
            None => "traces stayed here: set OTEL_EXPORTER_OTLP_ENDPOINT=http://HOST:4317 to see them in a tracing UI"
                .into(),
        });
        for ran in &self.ran {
            match &ran.fault {
                Some(Fault::Model(why)) => {
                    lines.push(format!("plan {} failed by a model's answer: {why}", ran.plan.plan_id))
                }
                Some(Fault::Mesh(why)) => lines.push(format!("plan {} failed: {why}", ran.plan.plan_id)),
                None => {}
            }
        }
        lines
    }

    /// Exit 0 unless a plan failed for a cause that is not a model's answer, or an outcome is missing from the store.
    pub(super) fn verdict(&self) -> Result<()> {
        for ran in &self.ran {
            if let Some(Fault::Mesh(why)) = &ran.fault {
                return Err(Failure::refused(format!("plan {} failed: {why}", ran.plan.plan_id)));
            }
        }
        let (sent, stored) = (self.outcomes_sent(), self.outcomes_acknowledged);
        if stored < sent {
            return Err(Failure::unavailable(format!(
                "only {stored} of at least {sent} outcomes reached the store"
            )));
        }
        Ok(())
    }
}

/// The median.
fn p50(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).map_or("-".into(), |v| milliseconds(*v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::NodeView;
    use shoal_proto::v1::{NodeResult, PlanFinished};

    fn ran(state: State, right: bool, fault: Option<Fault>) -> Ran {
        let result = NodeResult {
            outcome_id: "o".into(),
            ..Default::default()
        };
        let node = NodeView {
            depends_on: vec!["1".into()],
            result: Some(result),
            ..Default::default()
        };
        let plan = PlanView {
            plan_id: "p".into(),
            trace_id: "t".into(),
            nodes: vec![node],
            finished: Some(PlanFinished {
                state: state.into(),
                ..Default::default()
            }),
        };
        Ran {
            kind: Kind::Trip,
            plan,
            right,
            larger: false,
            fault,
        }
    }

    #[test]
    fn the_object_has_the_seven_keys_and_a_wrong_answer_is_no_failure() {
        let mut summary = Summary::default();
        let outcome = |target: &str, state: State| Outcome {
            target: target.into(),
            state: state.into(),
            ..Default::default()
        };
        let (good, bad) = (outcome("route", State::Succeeded), outcome("route", State::Failed));
        summary.keep(&[good.clone(), bad, outcome("large", State::Succeeded), good]);
        summary.add(ran(State::Succeeded, true, None));
        summary.add(ran(State::Failed, false, Some(Fault::Model("garbled".into()))));
        assert_eq!(
            summary.to_json().to_string(),
            r#"{"plans":2,"succeeded":1,"right":1,"dependent_edges":2,"outcomes_acknowledged":4,"answered":{"large":1,"route":2},"trace_ids":["t","t"]}"#
        );
        assert!(summary.verdict().is_ok());
        let lines = summary.lines(Path::new("store"), None);
        assert!(lines.contains(&"answered by large 1, route 2".to_owned()), "{lines:?}");
    }

    #[test]
    fn a_failure_of_the_mesh_or_a_lost_outcome_fails_the_demo() {
        let mut lost = Summary {
            outcomes_acknowledged: 0,
            ..Default::default()
        };
        lost.add(ran(State::Succeeded, true, None));
        assert!(lost.verdict().is_err_and(|f| f.message.contains("0 of at least 1")));
        let mut failed = Summary {
            outcomes_acknowledged: 1,
            ..Default::default()
        };
        failed.add(ran(State::Failed, false, Some(Fault::Mesh("specialist away".into()))));
        assert!(failed.verdict().is_err_and(|f| f.message.contains("specialist away")));
    }
}
