//! What the trainer says came of it.
use crate::exit::{Exit, Failure, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Sources that are named to people; a flood has one or two, and report.json has all.
const NAMED: usize = 3;

/// Shares of right answers, 0 to 1, on the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Pair {
    pub(crate) incumbent: f64,
    pub(crate) candidate: f64,
}

/// What becomes of right answers in a chain, by the candidate's own threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Routed {
    /// It is sure enough of these to answer with them.
    pub(crate) kept: u64,
    /// These a larger tier would be asked instead.
    pub(crate) escalated: u64,
}

/// The trainer's last line. A dry run ends before there are figures.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Report {
    pub(crate) task: String,
    pub(crate) model: String,
    pub(crate) from_version: u32,
    pub(crate) to_version: u32,
    /// Rows to learn from.
    pub(crate) corrections: u64,
    /// Rows that were set aside.
    pub(crate) quarantined: u64,
    /// Of these, how many for which reason.
    #[serde(default)]
    pub(crate) reasons: BTreeMap<String, u64>,
    /// And how many of which source; of the empty name who gave none.
    #[serde(default)]
    pub(crate) sources: BTreeMap<String, u64>,
    pub(crate) held_out: Option<Pair>,
    /// Of the held-out corrections that the candidate has right.
    pub(crate) held_out_right: Option<Routed>,
    pub(crate) dev: Option<Pair>,
    pub(crate) accepted: Option<bool>,
    /// The gate's words.
    #[serde(default)]
    pub(crate) why: String,
    /// The staged version's folder.
    pub(crate) candidate: Option<PathBuf>,
    pub(crate) seconds: Option<f64>,
    /// Why an accepted candidate is not in service; ours, not the trainer's.
    #[serde(skip)]
    pub(crate) hindrance: Option<Failure>,
}

impl Report {
    /// The last object of `--json`; of a dry run, what there is.
    pub(crate) fn to_json(&self) -> Value {
        let pair = |p: Pair| json!({"incumbent": p.incumbent, "candidate": p.candidate});
        let mut out = json!({
            "task": self.task, "model": self.model, "from_version": self.from_version, "to_version": self.to_version,
            "corrections": self.corrections, "quarantined": self.quarantined,
        });
        if let (Some(held_out), Some(dev)) = (self.held_out, self.dev) {
            out["held_out"] = pair(held_out);
            out["dev"] = pair(dev);
        }
        match self.accepted {
            // Without figures, too: what would serve of it was too far from what was trained to be asked anything.
            Some(accepted) => {
                out["accepted"] = accepted.into();
                out["seconds"] = self.seconds.into();
            }
            None => {
                out["reasons"] = json!(self.reasons);
                out["sources"] = json!(self.sources);
            }
        }
        out
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let reasons: Vec<String> = self.reasons.iter().map(|(why, rows)| format!("{rows} {why}")).collect();
        let aside: Vec<String> = [reasons.join(", "), self.whose()]
            .into_iter()
            .filter(|words| !words.is_empty())
            .collect();
        let aside = if aside.is_empty() {
            String::new()
        } else {
            format!(" ({})", aside.join("; "))
        };
        let mut lines = vec![format!(
            "{}: {} corrections to learn from, {} in quarantine{aside}",
            self.task, self.corrections, self.quarantined
        )];
        let figures = |what: &str, p: Pair| format!("{what:<21} {:.3} -> {:.3}", p.incumbent, p.candidate);
        lines.extend(self.held_out.map(|p| figures("held-out corrections", p)));
        lines.extend(self.held_out_right.map(|right| {
            format!(
                "{:<21} {} kept by {} {}'s own threshold, {} go to the larger tier where the chain has one",
                "  of the right ones", right.kept, self.model, self.to_version, right.escalated
            )
        }));
        lines.extend(self.dev.map(|p| figures("dev", p)));
        if let Some(accepted) = self.accepted {
            let (seconds, model) = (self.seconds.unwrap_or_default(), &self.model);
            lines.push(match (accepted, &self.hindrance) {
                (true, None) => format!("accepted after {seconds:.0} s: {model} {} is active", self.to_version),
                (true, Some(_)) => format!("accepted after {seconds:.0} s, and not put in service"),
                (false, _) => format!("refused after {seconds:.0} s: {model} {} is active", self.from_version),
            });
        }
        lines
    }

    /// The sources with most rows in quarantine, quoted: a name is whatever somebody sent.
    fn whose(&self) -> String {
        let mut sources: Vec<_> = self.sources.iter().collect();
        sources.sort_by_key(|(_, rows)| Reverse(**rows));
        let more = sources.len().saturating_sub(NAMED);
        let mut words: Vec<String> = sources
            .into_iter()
            .take(NAMED)
            .map(|(name, rows)| match name.as_str() {
                "" => format!("{rows} without a source"),
                name => format!("{rows} of {name:?}"),
            })
            .collect();
        words.extend((more > 0).then(|| format!("and of {more} more")));
        words.join(", ")
    }

    /// An error of its own kind for a refused candidate; for an accepted one, what kept it from being served.
    ///
    /// # Errors
    /// [`Exit::NotBetter`], or the hindrance.
    pub(crate) fn verdict(&self, work: &Path) -> Result<()> {
        if let Some(hindrance) = &self.hindrance {
            return Err(hindrance.clone());
        }
        if self.accepted == Some(false) {
            return Err(Failure {
                exit: Exit::NotBetter,
                message: format!(
                    "the candidate is refused: {}; {} {} stays active, and the candidate is in {}",
                    self.why,
                    self.model,
                    self.from_version,
                    work.display()
                ),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"task": "tool_call", "model": "m", "from_version": 1, "to_version": 2, "corrections": 24, "quarantined": 3,
        "reasons": {"duplicate": 2, "schema": 1}, "sources": {"ann": 1, "m\u001b": 2}, "held_out": {"incumbent": 0.1, "candidate": 0.8}, "held_out_right": {"kept": 9, "escalated": 2}, "dev": {"incumbent": 0.7, "candidate": 0.6},
        "accepted": false, "why": "tool_call on dev lost more than 0.5%", "candidate": "w/candidate/2", "seconds": 61.5}"#;

    #[test]
    fn the_object_has_the_ten_keys_and_a_refusal_its_own_exit_code_and_reason() {
        let report: Report = serde_json::from_str(FULL).expect("report");
        assert_eq!(
            report.to_json().to_string(),
            r#"{"task":"tool_call","model":"m","from_version":1,"to_version":2,"corrections":24,"quarantined":3,"held_out":{"incumbent":0.1,"candidate":0.8},"dev":{"incumbent":0.7,"candidate":0.6},"accepted":false,"seconds":61.5}"#
        );
        let refused = report.verdict(Path::new("w")).expect_err("refused");
        assert_eq!(refused.exit, Exit::NotBetter);
        assert!(refused.message.contains("lost more than"), "{refused}");
        let lines = report.lines().join("\n");
        assert!(
            lines.contains(r#"3 in quarantine (2 duplicate, 1 schema; 2 of "m\u{1b}", 1 of "ann")"#),
            "{lines}"
        );
        assert!(lines.contains("m 1 is active"), "{lines}");
        assert!(
            lines.contains("9 kept by m 2's own threshold, 2 go to the larger tier"),
            "{lines}"
        );
    }

    #[test]
    fn a_candidate_that_was_accepted_and_is_not_served_is_not_called_active() {
        let mut report: Report = serde_json::from_str(&FULL.replace("false", "true")).expect("report");
        assert!(report.lines().join("\n").contains("m 2 is active"));
        report.hindrance = Some(Failure::refused("rolled back"));
        let lines = report.lines().join("\n");
        assert!(
            lines.contains("not put in service") && !lines.contains("active"),
            "{lines}"
        );
        assert!(
            report
                .verdict(Path::new("w"))
                .is_err_and(|f| f.message == "rolled back")
        );
    }

    #[test]
    fn a_dry_run_says_why_rows_were_set_aside_and_refuses_nothing() {
        let dry = r#"{"task": "t", "model": "m", "from_version": 1, "to_version": 2, "corrections": 0, "quarantined": 1, "reasons": {"schema": 1}, "sources": {"ann": 1}}"#;
        let mut report: Report = serde_json::from_str(dry).expect("report");
        assert_eq!(report.to_json()["reasons"]["schema"], 1);
        assert_eq!(report.to_json()["sources"], json!({"ann": 1}));
        assert!(report.verdict(Path::new("w")).is_ok());
        assert_eq!(report.lines().len(), 1);
        report.sources = BTreeMap::from([(String::new(), 4)]);
        assert!(report.lines()[0].ends_with("(1 schema; 4 without a source)"));
        report.sources.extend((0..9).map(|i| (format!("s{i}"), 2 + i)));
        let said = report.lines().join("\n");
        assert!(
            said.ends_with(r#"(1 schema; 10 of "s8", 9 of "s7", 8 of "s6", and of 7 more)"#),
            "{said}"
        );
    }
}
