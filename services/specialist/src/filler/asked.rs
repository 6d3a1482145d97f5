//! What of a prompt is read: the methods that there are, and a conversation, as one text. Pure.
use crate::{error::Error, folder::manifest::Filling};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};

/// Before each turn: whose it is.
const USER: &str = ">";
const SYSTEM: &str = "<";

/// An input as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// (service, method), by name.
    pub(super) methods: Vec<(String, String)>,
    /// (which of `methods`, name), in the order of the input.
    pub(super) parameters: Vec<(usize, String)>,
    /// The names, as words.
    pub(super) names: String,
    /// Bytes of `names` where each method's begins.
    pub(super) method_starts: Vec<usize>,
    /// The same of each parameter.
    pub(super) parameter_starts: Vec<usize>,
    /// The conversation.
    pub(super) text: String,
    /// The byte of `text` from which on a value may be a run of it.
    pub(super) runs_from: usize,
}

impl Asked {
    /// Reads an object, which stands at `place`.
    ///
    /// # Errors
    /// `Invalid`, with the field.
    pub(super) fn of(way: &Filling, place: &str, mut object: Map<String, Value>) -> Result<Self, Error> {
        let fault = |name: &str, what: &str| Error::invalid(format!("{place}.{name}"), what);
        let methods = object
            .remove(&way.methods)
            .and_then(|m| serde_json::from_value::<BTreeMap<String, BTreeMap<String, Vec<String>>>>(m).ok())
            .filter(|services| services.values().any(|methods| !methods.is_empty()))
            .ok_or_else(|| {
                fault(
                    &way.methods,
                    "give {service: {method: [parameter, ...]}} with at least one method",
                )
            })?;
        for names in methods.values().flat_map(BTreeMap::values) {
            let mut seen = HashSet::new();
            if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
                // An answer would have the argument twice, which no reader takes.
                let told = format!("a method names its parameter `{name}` twice");
                return Err(fault(&way.methods, &told));
            }
        }
        let turns = object.remove(&way.turns);
        let turns = turns
            .as_ref()
            .and_then(Value::as_array)
            .filter(|turns| !turns.is_empty());
        let told = "give a list of turns, each a text of the user or {\"speaker\": \"user\" or \"system\", \"text\"}";
        let turns = turns.ok_or_else(|| fault(&way.turns, told))?;
        let said = turns.iter().map(turn).collect::<Option<Vec<_>>>();
        let said = said.ok_or_else(|| fault(&way.turns, told))?;
        let last = said.last().map_or(0, String::len);
        let text = said.join(" ");
        let mut asked = Self {
            methods: Vec::new(),
            parameters: Vec::new(),
            names: String::new(),
            method_starts: Vec::new(),
            parameter_starts: Vec::new(),
            runs_from: if way.literal { text.len() - last } else { 0 },
            text,
        };
        for (service, methods) in methods {
            asked.names += &words(&service);
            asked.names += " : ";
            for (method, parameters) in methods {
                asked.method_starts.push(asked.names.len());
                asked.names += &words(&method);
                asked.names += " ( ";
                for name in parameters {
                    asked.parameter_starts.push(asked.names.len());
                    asked.names += &words(&name);
                    asked.names += " , ";
                    asked.parameters.push((asked.methods.len(), name));
                }
                asked.names += ") ";
                asked.methods.push((service.clone(), method));
            }
        }
        Ok(asked)
    }
}

/// What a caller should give.
pub(super) fn told(way: &Filling) -> String {
    format!(
        "give an object whose `{}` is {{service: {{method: [parameter, ...]}}}} and whose `{}` is a list of what was said",
        way.methods, way.turns
    )
}

fn turn(of: &Value) -> Option<String> {
    match of {
        Value::String(text) => Some(format!("{USER} {text}")),
        Value::Object(turn) => {
            let who = match turn.get("speaker")?.as_str()? {
                "user" => USER,
                "system" => SYSTEM,
                _ => return None,
            };
            Some(format!("{who} {}", turn.get("text")?.as_str()?))
        }
        _ => None,
    }
}

/// An identifier as words: `FindEvents` and `find_events` are both two.
fn words(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut before = ' ';
    for c in name.chars() {
        let seam = c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit());
        if (c == '_' && before != '_') || seam {
            words.push(' ');
        }
        if c != '_' {
            words.push(c);
        }
        before = c;
    }
    words.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn way() -> Filling {
        Filling {
            methods: "methods".into(),
            turns: "turns".into(),
            references: true,
            called: 0.5,
            input: None,
            single: false,
            literal: false,
        }
    }

    fn read(object: Value) -> Result<Asked, Error> {
        Asked::of(&way(), "prompt.json", object.as_object().expect("an object").clone())
    }

    #[test]
    fn names_are_words_and_stand_where_they_begin() {
        for (name, wanted) in [
            ("FindEvents", "Find Events"),
            ("city_of__event", "city of event"),
            ("Hotels_1", "Hotels 1"),
            ("_HTTPPort2Go_", "HTTPPort2 Go"),
            ("", ""),
        ] {
            assert_eq!(words(name), wanted);
        }
        let asked = read(json!({
            "methods": {"Z_1": {"PayBill": ["due_date"]}, "A_1": {"GoTo": ["x", "yZ"], "Ask": []}},
            "turns": ["Hi.", {"speaker": "system", "text": "What?"}, {"speaker": "user", "text": "Go"}],
        }))
        .expect("good");
        assert_eq!(
            asked.names,
            "A 1 : Ask ( ) Go To ( x , y Z , ) Z 1 : Pay Bill ( due date , ) "
        );
        let at = |starts: &[usize]| {
            starts
                .iter()
                .map(|s| asked.names[*s..].split(' ').next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(at(&asked.method_starts), ["Ask", "Go", "Pay"]);
        assert_eq!(at(&asked.parameter_starts), ["x", "y", "due"]);
        let of: Vec<_> = asked
            .parameters
            .iter()
            .map(|(m, name)| (asked.methods[*m].1.as_str(), name.as_str()))
            .collect();
        assert_eq!(of, [("GoTo", "x"), ("GoTo", "yZ"), ("PayBill", "due_date")]);
        assert_eq!((asked.text.as_str(), asked.runs_from), ("> Hi. < What? > Go", 0));
    }

    #[test]
    fn literal_values_are_of_the_last_turn() {
        let literal = Filling { literal: true, ..way() };
        for (turns, wanted) in [(json!(["Hí.", "Go on"]), "> Go on"), (json!(["Go"]), "> Go")] {
            let object = json!({"methods": {"A": {"B": []}}, "turns": turns});
            let asked =
                Asked::of(&literal, "prompt.json", object.as_object().expect("an object").clone()).expect("good");
            assert_eq!(&asked.text[asked.runs_from..], wanted);
        }
    }

    #[test]
    fn what_is_missing_or_something_else_is_refused_by_its_field() {
        let good = json!({"methods": {"A": {"B": []}}, "turns": ["x"], "more": 1});
        assert!(read(good.clone()).is_ok());
        for (name, bad) in [
            ("methods", json!({})),
            ("methods", json!({"A": {}})),
            ("methods", json!({"A": {"B": [1]}})),
            ("methods", json!(null)),
            ("methods", json!({"A": {"B": ["x", "y", "x"]}})),
            ("turns", json!([])),
            ("turns", json!([1])),
            ("turns", json!([{"speaker": "dog", "text": "x"}])),
            ("turns", json!([{"speaker": "user"}])),
        ] {
            let mut changed = good.clone();
            changed[name] = bad;
            let Err(Error::Invalid { field, .. }) = read(changed.clone()) else {
                panic!("{changed} was read")
            };
            assert_eq!(field, format!("prompt.json.{name}"));
        }
    }
}
