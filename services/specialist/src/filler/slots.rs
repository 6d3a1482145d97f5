//! `slots.json`: what a filler's calls may hold.
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The file's name, beside the model.
pub const FILE: &str = "slots.json";

/// Known values, which slots may have them, and what calls return.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slots {
    /// Texts, in the order of the model's `value` logits.
    pub values: Vec<String>,
    /// Which of `values` a `Service.parameter` may have.
    pub slots: BTreeMap<String, Vec<usize>>,
    /// Names of fields that earlier calls return, in the order of the model's `field` logits, behind the parameter's own name.
    pub fields: Vec<String>,
    /// Fields that a call of a `Service.method` returns, where that is known.
    pub returns: BTreeMap<String, Vec<String>>,
}

impl Slots {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        for (slot, ids) in &read.slots {
            if !slot.contains('.') {
                return Err(format!("slot `{slot}` is not of the form Service.parameter"));
            }
            if let Some(id) = ids.iter().find(|id| **id >= read.values.len()) {
                return Err(format!("slot `{slot}` has value {id}; there are {}", read.values.len()));
            }
        }
        Ok(read)
    }

    /// Whether a call may return a field: one that was never seen may return any.
    #[must_use]
    pub fn may_return(&self, service: &str, method: &str, field: &str) -> bool {
        let known = self.returns.get(&format!("{service}.{method}"));
        known.is_none_or(|fields| fields.iter().any(|f| f == field))
    }

    /// Values that a parameter of a service may have, by index: of a service that was never seen those of the name in other
    /// services. Empty where none is known.
    #[must_use]
    pub fn known(&self, service: &str, parameter: &str) -> Vec<usize> {
        if let Some(ids) = self.slots.get(&format!("{service}.{parameter}")) {
            return ids.clone();
        }
        let of_name =
            |(slot, _): &(&String, &Vec<usize>)| slot.split_once('.').is_some_and(|(_, name)| name == parameter);
        let found: BTreeSet<usize> = self
            .slots
            .iter()
            .filter(of_name)
            .flat_map(|(_, ids)| ids)
            .copied()
            .collect();
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_its_own_values_or_those_of_its_name_or_none() {
        let text = r#"{"values": ["a", "b", "c"], "slots": {"X_1.city": [0], "Y_1.city": [2, 0], "Y_1.size": []}, "fields": [], "returns": {"X_1.Find": ["name"]}}"#;
        let slots = Slots::parse(text).expect("good");
        assert_eq!(slots.known("X_1", "city"), [0]);
        assert_eq!(slots.known("Z_9", "city"), [0, 2]);
        assert!(slots.known("Y_1", "size").is_empty() && slots.known("X_1", "date").is_empty());
        assert!(slots.may_return("X_1", "Find", "name") && !slots.may_return("X_1", "Find", "city"));
        assert!(slots.may_return("X_1", "Get", "city"));
    }

    #[test]
    fn a_file_that_does_not_hold_together_is_refused() {
        for (text, wanted) in [
            (
                r#"{"values": ["a"], "slots": {"X.y": [1]}, "fields": [], "returns": {}}"#,
                "there are 1",
            ),
            (
                r#"{"values": [], "slots": {"y": []}, "fields": [], "returns": {}}"#,
                "Service.parameter",
            ),
            (r#"{"values": [], "slots": {}, "fields": []}"#, "returns"),
            (
                r#"{"values": [], "slots": {}, "fields": [], "returns": {}, "x": 1}"#,
                "unknown field",
            ),
        ] {
            let told = Slots::parse(text).expect_err(text);
            assert!(told.contains(wanted), "{told}");
        }
    }
}
