//! What is wrong with a request: the first breaches in words, the rest as a number.
use crate::error::Error;
use shoal_kit::status::{VIOLATIONS, Violation};
use shoal_plan::graph;
use std::collections::BTreeSet;

/// Breaches that are told in words; of the rest, how many they are.
pub(super) const TOLD: usize = VIOLATIONS;

/// Breaches so far, and tool servers that could not be asked.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) violations: Vec<Violation>,
    more: usize,
    pub(super) unlisted: BTreeSet<String>,
}

impl Faults {
    pub(super) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.violations.len() == TOLD {
            self.more += 1;
            return;
        }
        self.violations.push(Violation {
            field: field.into(),
            description: description.into(),
        });
    }

    /// What is wrong, with a last violation that says how many more there are.
    fn all(mut self) -> Vec<Violation> {
        if self.more > 0 {
            self.violations.truncate(TOLD - 1);
            self.violations.push(Violation {
                field: "request".into(),
                description: format!("has {} more faults", self.more + 1),
            });
        }
        self.violations
    }

    /// Whether there is nothing wrong. A tool that nobody offers is only known to be wrong once every server has been asked.
    ///
    /// # Errors
    /// Every breach, or the servers that must be asked first.
    pub(super) fn verdict(self) -> Result<(), Error> {
        if !self.violations.is_empty() {
            return Err(Error::Invalid(self.all()));
        }
        if self.unlisted.is_empty() {
            return Ok(());
        }
        let servers: Vec<String> = self.unlisted.into_iter().collect();
        Err(Error::Away {
            what: format!(
                "tool servers that have not answered yet may offer the tools of this plan: {}",
                servers.join(", ")
            ),
        })
    }
}

/// The value, or its breaches with their fields renamed.
pub(super) fn told<T>(
    checked: Result<T, graph::Faults>,
    faults: &mut Faults,
    rename: impl Fn(&str) -> String,
) -> Option<T> {
    checked
        .map_err(|breaches| {
            for breach in breaches.told() {
                faults.add(rename(&breach.field), breach.description.clone());
            }
            faults.more += breaches.more();
        })
        .ok()
}

/// A graph's breaches as an error, for steps that join later.
pub(crate) fn breaches(faults: graph::Faults, rename: impl Fn(&str) -> String) -> Error {
    let mut all = Faults::default();
    told::<()>(Err(faults), &mut all, rename);
    Error::Invalid(all.all())
}
