//! What a benchmark says: one object, figures first. Pure.
use super::{
    figure::Name,
    stats::{Summary, median, rounded},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Figures and what they were made of, round by round.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: BTreeMap<Name, Vec<f64>>,
    details: BTreeMap<String, Vec<f64>>,
    facts: Map<String, Value>,
    checks: BTreeMap<String, bool>,
}

impl Report {
    /// One round's value of a figure.
    pub(crate) fn figure(&mut self, name: Name, value: f64) {
        self.figures.entry(name).or_default().push(value);
    }

    /// One round's value of what a figure was made of: tokens/s of ours, of a peer's.
    pub(crate) fn detail(&mut self, name: &str, value: f64) {
        self.details.entry(name.to_owned()).or_default().push(value);
    }

    /// What is so for the whole run: settings of a peer.
    pub(crate) fn fact(&mut self, name: &str, value: Value) {
        self.facts.insert(name.to_owned(), value);
    }

    /// Which ONNX Runtime is ours; said before any [`Self::peer`].
    pub(crate) fn ours(&mut self, onnxruntime: Option<String>) {
        self.fact(OURS, onnxruntime.into());
    }

    /// How a peer is set up, as it says itself. With another ONNX Runtime than ours it is the libraries that are compared.
    pub(crate) fn peer(&mut self, name: &str, settings: &Value) {
        let theirs = settings["onnxruntime"].as_str();
        let ours = self.facts.get(OURS).and_then(Value::as_str);
        self.check(
            "every side has the same ONNX Runtime",
            theirs.is_some() && theirs == ours,
        );
        self.fact(name, settings.clone());
    }

    /// What was so in every round and need not have been: once false, it stays false.
    pub(crate) fn always(&mut self, name: &str, so: bool) {
        let was = self.facts.get(name).and_then(Value::as_bool).unwrap_or(true);
        self.facts.insert(name.to_owned(), (was && so).into());
    }

    /// What must hold in every round for the figures to compare like with like: once false, it stays false.
    pub(crate) fn check(&mut self, name: &str, holds: bool) {
        *self.checks.entry(name.to_owned()).or_insert(true) &= holds;
    }

    /// The object. A figure without a finite value in every round is null, and not left out.
    pub(crate) fn to_json(&self, machine: Value, settings: Value) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, values)| (name.key(), Summary::of(values).map_or(Value::Null, Summary::to_json)))
            .collect();
        let details: Map<String, Value> = self
            .details
            .iter()
            .map(|(name, values)| {
                let rounds: Vec<f64> = values.iter().copied().map(rounded).collect();
                (
                    name.clone(),
                    json!({"median": rounded(median(values)), "rounds": rounds}),
                )
            })
            .collect();
        json!({
            "figures": figures, "details": details, "facts": self.facts, "checks": self.checks, "settings": settings,
            "machine": machine,
            "interval": "order statistics of the rounds; `coverage` is the probability that it holds the median",
        })
    }
}

/// The fact that says which ONNX Runtime is ours.
const OURS: &str = "onnxruntime of ours";

/// The checks of an object that did not hold: its figures compare what is not alike.
pub(crate) fn failed_checks(object: &Value) -> Vec<&str> {
    let checks = object["checks"].as_object().into_iter().flatten();
    checks
        .filter(|(_, held)| **held == Value::Bool(false))
        .map(|(name, _)| name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_figures_with_their_intervals_and_what_they_are_made_of() {
        let mut report = Report::default();
        for round in [1.0, 1.2, 1.1] {
            report.figure(Name::SingleVsGenai, round);
            report.detail("single tokens/s", round * 100.0);
            report.check("equal", round < 1.15);
        }
        report.figure(Name::StepOverhead, f64::NAN);
        report.check("counts", true);
        for so in [true, false, true] {
            report.always("the same tokens", so);
        }
        let object = report.to_json(json!({"cores": 2}), json!({"threads": 2}));
        let figure = &object["figures"]["single_vs_genai"];
        assert_eq!(
            (&figure["value"], &figure["low"], &figure["high"], &figure["rounds"]),
            (&json!(1.1), &json!(1.0), &json!(1.2), &json!(3))
        );
        assert_eq!(object["figures"]["step_overhead"], Value::Null);
        assert_eq!(object["details"]["single tokens/s"]["median"], json!(110.0));
        assert_eq!(
            (&object["checks"]["equal"], &object["checks"]["counts"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(failed_checks(&object), ["equal"]);
        assert_eq!(object["facts"]["the same tokens"], json!(false));
        assert_eq!(object["machine"]["cores"], json!(2));
    }

    #[test]
    fn figures_beside_a_peer_with_another_onnx_runtime_are_void() {
        let object = |ours: Option<&str>| {
            let mut report = Report::default();
            report.ours(ours.map(str::to_owned));
            report.peer("genai", &json!({"onnxruntime": "1.32.0", "intra_op_threads": 2}));
            report.to_json(json!({}), json!({}))
        };
        let same = object(Some("1.32.0"));
        assert_eq!(failed_checks(&same), Vec::<&str>::new());
        assert_eq!(same["facts"]["genai"]["intra_op_threads"], json!(2));
        assert_eq!(same["facts"]["onnxruntime of ours"], json!("1.32.0"));
        for other in [Some("1.23.1"), None] {
            assert_eq!(failed_checks(&object(other)), ["every side has the same ONNX Runtime"]);
        }
    }
}
