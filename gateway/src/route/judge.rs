//! Whether an answer is taken. Pure.
use super::question::{Finish, Means, Said};
use crate::schema::Schema;
use serde_json::Value;
use shoal_plan::integers;

/// What else an answer's text must be: a plan, for a planner.
pub(crate) type Accept = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// What an answer must pass.
#[derive(Clone, Copy)]
pub(crate) struct Bar<'a> {
    pub(crate) means: Means,
    /// The card's form, then the node's own.
    pub(crate) schemas: [Option<&'a Schema>; 2],
    pub(crate) accept: Option<&'a Accept>,
    /// The decoder was held to a grammar, which is a form that was satisfied.
    pub(crate) grammar: bool,
    /// Under this score the answer is doubted.
    pub(crate) threshold: Option<f64>,
}

/// What an answer is worth.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// The answer as a value, whatever the verdict.
    pub(crate) value: Value,
    /// Whether it satisfied its form; `None` if there is none to satisfy.
    pub(crate) valid: Option<bool>,
}

/// Each with its reason, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Sure(String),
    Unsure(String),
    Invalid(String),
}

/// Judges what a target said.
pub(crate) fn judge(said: &Said, bar: Bar<'_>) -> Judged {
    let parsed = serde_json::from_str::<Value>(&said.text);
    let formed = bar.schemas.iter().any(Option::is_some);
    let label = bar.means == Means::Classify;
    // Read, a larger integer would be another number, and a tool would be called with it.
    let large = integers::fit(&said.text).err().filter(|_| parsed.is_ok() && !label);
    let value = match &parsed {
        // A form says that it is JSON; without one, an object or a list is what it looks like, and `7` is a text.
        Ok(value) if !label && large.is_none() && (formed || value.is_object() || value.is_array()) => value.clone(),
        _ => Value::String(said.text.clone()),
    };
    let breach = match large.filter(|_| formed) {
        Some(large) => Some(format!("the answer cannot be carried on: {large}")),
        None => breach(said, bar, parsed.as_ref().map_err(ToString::to_string), &value),
    };
    let valid = (formed || bar.accept.is_some() || bar.grammar).then_some(breach.is_none());
    let verdict = match breach {
        Some(why) => Verdict::Invalid(why),
        None => doubt(said, bar.threshold),
    };
    Judged { verdict, value, valid }
}

/// What is wrong with an answer.
fn breach(said: &Said, bar: Bar<'_>, parsed: Result<&Value, String>, value: &Value) -> Option<String> {
    for schema in bar.schemas.into_iter().flatten() {
        let checked = match (bar.means, &parsed) {
            (Means::Classify, _) => schema.check(value),
            (Means::Generate, Ok(parsed)) => schema.check(parsed),
            (Means::Generate, Err(error)) => Err(format!("it is no JSON: {error}")),
        };
        if let Err(why) = checked {
            return Some(format!("the answer breaks its schema: {why}"));
        }
    }
    let accept = bar.accept?;
    // The lines that are there may be a plan, and are not the one that was meant.
    if said.finish != Finish::Stop {
        return Some(format!("the planner's text was cut off ({})", said.finish.word()));
    }
    accept(&said.text).err()
}

fn doubt(said: &Said, threshold: Option<f64>) -> Verdict {
    match (&said.confidence, threshold) {
        (Some(confidence), Some(threshold)) if confidence.score < threshold => Verdict::Unsure(format!(
            "confidence {} under threshold {}",
            short(confidence.score),
            short(threshold)
        )),
        (Some(confidence), Some(threshold)) => Verdict::Sure(format!(
            "confidence {} at or over threshold {}",
            short(confidence.score),
            short(threshold)
        )),
        (Some(confidence), None) => Verdict::Sure(format!("confidence {}, no threshold", short(confidence.score))),
        (None, _) => Verdict::Sure("it does not say how sure it is".into()),
    }
}

/// As many digits as tell two scores apart, and no zeros after them.
fn short(score: f64) -> String {
    let text = format!("{score:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_proto::v1;

    fn said(text: &str, score: Option<f64>) -> Said {
        Said {
            text: text.into(),
            confidence: score.map(|score| v1::Confidence {
                score,
                ..v1::Confidence::default()
            }),
            ..Said::default()
        }
    }

    const FREE: Bar<'static> = Bar {
        means: Means::Generate,
        schemas: [None, None],
        accept: None,
        grammar: false,
        threshold: None,
    };

    #[test]
    fn doubt_is_under_the_threshold_and_told_with_both_numbers() {
        let bar = Bar {
            threshold: Some(0.83),
            ..FREE
        };
        assert_eq!(
            judge(&said("x", Some(0.61)), bar).verdict,
            Verdict::Unsure("confidence 0.61 under threshold 0.83".into())
        );
        assert!(matches!(judge(&said("x", Some(0.83)), bar).verdict, Verdict::Sure(_)));
        assert!(
            matches!(judge(&said("x", None), bar).verdict, Verdict::Sure(_)),
            "nothing to compare"
        );
        assert!(matches!(judge(&said("x", Some(0.01)), FREE).verdict, Verdict::Sure(_)));
    }

    #[test]
    fn a_broken_schema_counts_before_doubt_and_each_schema_counts() {
        let card = Schema::compile(r#"{"type":"object"}"#).expect("schema");
        let own = Schema::compile(r#"{"required":["a"]}"#).expect("schema");
        let bar = Bar {
            schemas: [Some(&card), Some(&own)],
            threshold: Some(0.9),
            ..FREE
        };
        for (text, valid) in [
            ("{\"a\":1}", true),
            ("{}", false),
            ("[]", false),
            ("{\"a\":", false),
            ("plain", false),
        ] {
            let judged = judge(&said(text, Some(0.95)), bar);
            assert_eq!(
                (judged.valid, matches!(judged.verdict, Verdict::Sure(_))),
                (Some(valid), valid),
                "{text}"
            );
        }
        assert!(matches!(
            judge(&said("{}", Some(0.1)), bar).verdict,
            Verdict::Invalid(_)
        ));
    }

    #[test]
    fn an_answer_is_a_value_as_far_as_it_looks_like_one() {
        for (text, value) in [
            ("{\"a\":1}", json!({"a": 1})),
            ("[1]", json!([1])),
            ("7", json!("7")),
            ("null", json!("null")),
            ("jazz", json!("jazz")),
        ] {
            let judged = judge(&said(text, None), FREE);
            assert_eq!((judged.value, judged.valid), (value, None), "{text}");
        }
        let number = Schema::compile(r#"{"type":"number"}"#).expect("schema");
        let formed = Bar {
            schemas: [None, Some(&number)],
            ..FREE
        };
        assert_eq!(judge(&said("7", None), formed).value, json!(7));
        // An account's number is not to become the nearest float.
        let large = r#"{"account":98765432109876543210}"#;
        assert_eq!(judge(&said(large, None), FREE).value, json!(large));
        let judged = judge(&said("98765432109876543210", None), formed);
        assert!(
            matches!(&judged.verdict, Verdict::Invalid(why) if why.contains("as a string")),
            "{judged:?}"
        );
        let label = Bar {
            means: Means::Classify,
            ..FREE
        };
        assert_eq!(judge(&said("{}", None), label).value, json!("{}"), "a label is a text");
    }

    #[test]
    fn a_planner_must_also_write_a_plan() {
        let accept = |text: &str| {
            if text.starts_with('1') {
                Ok(())
            } else {
                Err("line 1, column 1: expected a step".to_owned())
            }
        };
        let bar = Bar {
            accept: Some(&accept),
            ..FREE
        };
        assert_eq!(judge(&said("1. t: x", None), bar).valid, Some(true));
        for finish in [Finish::Length, Finish::Filtered] {
            let cut = Said {
                finish,
                ..said("1. t: x\n", None)
            };
            assert!(matches!(judge(&cut, bar).verdict, Verdict::Invalid(why) if why.contains("cut off")));
            assert!(
                matches!(judge(&cut, FREE).verdict, Verdict::Sure(_)),
                "any other text is told as cut"
            );
        }
        let garbled = judge(&said("hello", None), bar);
        assert_eq!(
            (garbled.valid, garbled.verdict),
            (
                Some(false),
                Verdict::Invalid("line 1, column 1: expected a step".into())
            )
        );
    }
}
