//! What requests say, held to the contract's limits and filled with its defaults.
use crate::{
    constrain::FORM_BYTES,
    engine::queue::{Class, Urgency},
    error::Error,
    folder::{
        Form,
        manifest::{Card, Kind},
    },
    sampling::Sampling,
};
use shoal_proto::{time::std_duration, v1};
use std::time::Instant;

/// Stop strings of a request.
const STOPS: usize = 8;
/// Bytes of one.
const STOP_BYTES: usize = 64;

/// Bytes of a schema as it is written: four times what it may have without blanks, which is held to later. Parsing it is done on the thread of the
/// request, where a longer one would hold up all others.
const SCHEMA_BYTES: usize = 4 * FORM_BYTES;

/// New tokens that a request may want at most.
pub(super) fn most(card: &Card) -> u32 {
    match card.kind {
        // It writes none: whoever bounds them, as OpenAI's clients do, is served all the same.
        Kind::Tag | Kind::Fill => u32::MAX,
        _ => card.limits.max_new_tokens,
    }
}

/// Reads `sampling`; `most` is the card's limit of new tokens.
pub(super) fn sampling(wire: Option<v1::Sampling>, most: u32) -> Result<Sampling, Error> {
    let wire = wire.unwrap_or_default();
    let max_tokens = wire.max_tokens.unwrap_or(most);
    if max_tokens == 0 || max_tokens > most {
        return Err(Error::invalid(
            "sampling.max_tokens",
            format!("{max_tokens} is not 1 to {most}, the card's limit"),
        ));
    }
    let temperature = within("sampling.temperature", wire.temperature.unwrap_or(0.0), 0.0, 2.0)?;
    let top_p = within("sampling.top_p", wire.top_p.unwrap_or(1.0), 0.0, 1.0)?;
    let repetition_penalty = within(
        "sampling.repetition_penalty",
        wire.repetition_penalty.unwrap_or(1.0),
        0.0,
        2.0,
    )?;
    for (field, value) in [
        ("sampling.top_p", top_p),
        ("sampling.repetition_penalty", repetition_penalty),
    ] {
        if value == 0.0 {
            return Err(Error::invalid(field, "it must be over 0"));
        }
    }
    if wire.stop.len() > STOPS {
        return Err(Error::invalid(
            "sampling.stop",
            format!("{} stop strings; at most {STOPS}", wire.stop.len()),
        ));
    }
    if let Some(i) = wire.stop.iter().position(|s| s.is_empty() || s.len() > STOP_BYTES) {
        return Err(Error::invalid(
            format!("sampling.stop[{i}]"),
            format!("it has {} bytes, not 1 to {STOP_BYTES}", wire.stop[i].len()),
        ));
    }
    Ok(Sampling {
        max_tokens: max_tokens as usize,
        temperature,
        top_k: wire.top_k.unwrap_or(0) as usize,
        top_p,
        seed: wire.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0),
        repetition_penalty,
        stop: wire.stop,
    })
}

fn within(field: &str, value: f32, least: f32, most: f32) -> Result<f32, Error> {
    // NaN lies in no range.
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::invalid(
        field,
        format!("{value} is not between {least} and {most}"),
    ))
}

/// Reads `constraint`; `None`: what the card says.
pub(super) fn form(wire: Option<v1::Constraint>) -> Result<Option<Form>, Error> {
    let Some(constraint) = wire else { return Ok(None) };
    Ok(match constraint.form {
        None => {
            return Err(Error::invalid(
                "constraint",
                "set one of `json_schema`, `lark` and `none`, or leave it out",
            ));
        }
        Some(v1::constraint::Form::None(true)) => Some(Form::Free),
        Some(v1::constraint::Form::None(false)) => None,
        Some(v1::constraint::Form::Lark(lark)) => Some(Form::Lark(lark)),
        Some(v1::constraint::Form::JsonSchema(schema)) => {
            if schema.len() > SCHEMA_BYTES {
                let told = format!("{} bytes; at most {SCHEMA_BYTES} are read", schema.len());
                return Err(Error::invalid("constraint.json_schema", told));
            }
            let schema = serde_json::from_str(&schema)
                .map_err(|e| Error::invalid("constraint.json_schema", format!("it is no JSON: {e}")))?;
            Some(Form::Schema(schema))
        }
    })
}

/// Reads `priority` and `slack`, of a call that must end at `deadline`.
pub(super) fn urgency(
    priority: i32,
    slack: Option<&prost_types::Duration>,
    deadline: Option<Instant>,
) -> Result<Urgency, Error> {
    let slack = slack.map(|wire| {
        let negative = || {
            Error::invalid(
                "slack",
                "it is no duration from zero on: a call that is late already has none",
            )
        };
        std_duration(wire).ok_or_else(negative)
    });
    Ok(Urgency {
        class: class(priority)?,
        deadline,
        // A slack past the end of time is none.
        start_by: slack.transpose()?.and_then(|slack| Instant::now().checked_add(slack)),
    })
}

/// Reads `priority`. A value that this version does not know is refused, never guessed.
fn class(wire: i32) -> Result<Class, Error> {
    match v1::Priority::try_from(wire) {
        Ok(v1::Priority::Unspecified | v1::Priority::Normal) => Ok(Class::Normal),
        Ok(v1::Priority::Interactive) => Ok(Class::Interactive),
        Ok(v1::Priority::Batch) => Ok(Class::Batch),
        Err(_) => Err(Error::invalid(
            "priority",
            format!("{wire} is no Priority that this version knows; send 0 to 3"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_held_and_names_its_field() {
        let refused = |change: fn(&mut v1::Sampling)| {
            let mut wire = v1::Sampling::default();
            change(&mut wire);
            sampling(Some(wire), 100).expect_err("refused").to_string()
        };
        assert!(refused(|s| s.max_tokens = Some(101)).starts_with("sampling.max_tokens"));
        assert!(refused(|s| s.max_tokens = Some(0)).starts_with("sampling.max_tokens"));
        assert!(refused(|s| s.temperature = Some(2.1)).starts_with("sampling.temperature"));
        assert!(refused(|s| s.temperature = Some(f32::NAN)).starts_with("sampling.temperature"));
        assert!(refused(|s| s.top_p = Some(0.0)).starts_with("sampling.top_p"));
        assert!(refused(|s| s.repetition_penalty = Some(-1.0)).starts_with("sampling.repetition_penalty"));
        assert!(refused(|s| s.stop = vec!["x".into(); 9]).starts_with("sampling.stop"));
        assert!(refused(|s| s.stop = vec!["x".into(), "y".repeat(65)]).starts_with("sampling.stop[1]"));
        assert!(refused(|s| s.stop = vec![String::new()]).starts_with("sampling.stop[0]"));
        let defaults = sampling(None, 100).expect("defaults");
        assert_eq!(
            defaults,
            Sampling {
                seed: defaults.seed,
                ..Sampling::greedy(100)
            }
        );
    }

    #[test]
    fn a_schema_is_refused_by_its_bytes_before_it_is_parsed() {
        let form = |schema: String| {
            form(Some(v1::Constraint {
                form: Some(v1::constraint::Form::JsonSchema(schema)),
            }))
        };
        // No JSON, and it is not looked at.
        let refused = form("{".repeat(SCHEMA_BYTES + 1)).expect_err("refused").to_string();
        assert!(refused.contains("at most 131072 are read"), "{refused}");
        let blanks = format!("{{{}}}", " ".repeat(SCHEMA_BYTES - 2));
        assert!(matches!(form(blanks), Ok(Some(Form::Schema(_)))));
    }

    #[test]
    fn a_slack_is_a_time_to_begin_by_and_a_negative_one_is_refused() {
        let slack = |seconds, nanos| prost_types::Duration { seconds, nanos };
        let (now, deadline) = (Instant::now(), Some(Instant::now()));
        let none = urgency(0, None, deadline).expect("none is said");
        assert_eq!(
            (none.class, none.deadline, none.start_by),
            (Class::Normal, deadline, None)
        );
        let some = urgency(3, Some(&slack(2, 0)), None).expect("two seconds");
        let ahead = some.start_by.expect("said").duration_since(now).as_secs_f64();
        assert!(some.class == Class::Batch && (2.0..3.0).contains(&ahead), "{some:?}");
        assert_eq!(
            urgency(0, Some(&slack(i64::MAX, 0)), None).map(|u| u.start_by),
            Ok(None)
        );
        for wrong in [slack(-1, 0), slack(0, -1), slack(0, 1_000_000_000)] {
            let refused = urgency(0, Some(&wrong), None).expect_err("refused").to_string();
            assert!(refused.starts_with("slack: "), "{refused}");
        }
    }

    #[test]
    fn a_priority_from_the_future_is_refused() {
        assert_eq!(class(0), Ok(Class::Normal));
        assert_eq!(class(1), Ok(Class::Interactive));
        assert!(class(4).is_err() && class(-1).is_err());
    }
}
