//! What is taught: a request and its call become others like it, by values of other requests in place of its own; and the committed
//! samples as task data.
use crate::{
    demo::goals,
    exit::{Failure, Result},
};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Every third row of the sample is judged by, the others are rehearsed with the steps of the sample's plans.
const DEV: usize = 3;

/// A request in words that nobody wrote in the model's corpus and a house may have of its own: `wx` is what airmen say for weather. What
/// a good model still gets wrong in its corpus is over single names, and there is nothing in it that could be learned.
pub(super) fn shorthand() -> Json {
    json!({
        "id": "shorthand",
        "task": "tool_call",
        "input": "wx Oslo tonight",
        "target": {"tool": "GetWeather", "arguments": {"city": "Oslo", "timeRange": "tonight"}},
    })
}

/// At most `count` rows that ask the same of other names, each different; none of a row whose values do not stand in its text once each.
pub(super) fn variants(row: &Json, rows: &[Json], count: usize) -> Vec<Json> {
    let text = row["input"].as_str().unwrap_or_default();
    let Some(spans) = spans(text, &row["target"]["arguments"]) else {
        return Vec::new();
    };
    let pools: BTreeMap<&str, Vec<&str>> = spans.iter().map(|s| (s.key, pool(rows, s.key))).collect();
    if pools.values().any(Vec::is_empty) {
        return Vec::new();
    }
    // Pools of different lengths, walked in step, meet in all their pairs; with equal lengths the strides part them.
    let longest = pools.values().map(Vec::len).max().unwrap_or_default();
    let mut seen = BTreeSet::from([text.to_owned()]);
    let mut found = Vec::new();
    for turn in 0..longest * longest {
        if found.len() == count {
            break;
        }
        let other = |at: usize, key: &str| {
            let pool = &pools[key];
            pool[(turn * (at + 1) + turn / pool.len()) % pool.len()]
        };
        let (mut new, mut end, mut arguments) = (String::new(), 0, Map::new());
        for (at, span) in spans.iter().enumerate() {
            let value = other(at, span.key);
            new.push_str(&text[end..span.start]);
            new.push_str(value);
            end = span.start + span.value.len();
            arguments.insert(span.key.to_owned(), value.into());
        }
        new.push_str(&text[end..]);
        if seen.insert(new.clone()) {
            let mut variant = row.clone();
            variant["input"] = new.into();
            variant["target"]["arguments"] = arguments.into();
            found.push(variant);
        }
    }
    found
}

/// Writes the committed samples as the task data of a retraining, without the request that is taught; returns the folder.
pub(super) fn sample(goal: &Json, folder: &Path) -> Result<PathBuf> {
    let (mut train, mut dev) = (Vec::new(), Vec::new());
    for (at, row) in goals::requests().into_iter().filter(|row| row != goal).enumerate() {
        if at % DEV == 0 { dev.push(row) } else { train.push(row) }
    }
    let kept: BTreeSet<&str> = [goal]
        .into_iter()
        .chain(&dev)
        .filter_map(|row| row["input"].as_str())
        .collect();
    let steps = goals::steps()
        .into_iter()
        .filter(|row| row["input"].as_str().is_some_and(|text| !kept.contains(text)));
    train.extend(steps);
    let written = fs::create_dir_all(folder).and_then(|()| {
        for (split, rows) in [("train", &train), ("dev", &dev)] {
            let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
            fs::write(folder.join(format!("tool_call.{split}.jsonl")), lines)?;
        }
        Ok(())
    });
    written.map_err(|e| Failure::usage(format!("cannot write {}: {e}", folder.display())))?;
    Ok(folder.to_owned())
}

struct Span<'a> {
    key: &'a str,
    value: &'a str,
    start: usize,
}

/// Where the arguments stand, in the order of the text; `None` unless each stands there once, apart from the others.
fn spans<'a>(text: &str, arguments: &'a Json) -> Option<Vec<Span<'a>>> {
    let mut spans = Vec::new();
    for (key, value) in arguments.as_object()? {
        let value = value.as_str()?;
        let mut at = text.match_indices(value);
        let (start, _) = at.next()?;
        if at.next().is_some() {
            return None;
        }
        spans.push(Span { key, value, start });
    }
    spans.sort_by_key(|s| s.start);
    let apart = spans.windows(2).all(|w| w[0].start + w[0].value.len() <= w[1].start);
    (apart && !spans.is_empty()).then_some(spans)
}

/// The distinct values that other rows have for an argument, as they come.
fn pool<'a>(rows: &'a [Json], key: &str) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let values = rows.iter().filter_map(|row| row["target"]["arguments"][key].as_str());
    values.filter(|value| seen.insert(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_asks_the_same_with_other_names_that_all_stand_in_it() {
        let rows = goals::requests();
        let mut varied = 0;
        for row in &rows {
            let found = variants(row, &rows, 20);
            let texts: BTreeSet<&str> = found.iter().filter_map(|v| v["input"].as_str()).collect();
            assert_eq!(texts.len(), found.len(), "each is different");
            varied += usize::from(found.len() == 20);
            for variant in &found {
                let (text, target) = (variant["input"].as_str().expect("text"), &variant["target"]);
                assert_ne!(Some(text), row["input"].as_str());
                assert_eq!(target["tool"], row["target"]["tool"]);
                let arguments = target["arguments"].as_object().expect("arguments");
                assert_eq!(
                    arguments.len(),
                    row["target"]["arguments"].as_object().expect("arguments").len()
                );
                assert!(
                    arguments.values().all(|v| v.as_str().is_some_and(|v| text.contains(v))),
                    "{variant}"
                );
            }
        }
        assert!(
            varied > rows.len() / 2,
            "{varied} of {} rows have 20 variants",
            rows.len()
        );
    }

    #[test]
    fn the_sample_keeps_what_is_judged_by_and_what_is_taught_out_of_what_is_rehearsed() {
        let folder = tempfile::tempdir().expect("folder");
        let goal = goals::requests().remove(1);
        sample(&goal, folder.path()).expect("written");
        let read = |split: &str| {
            let text = fs::read_to_string(folder.path().join(format!("tool_call.{split}.jsonl"))).expect("read");
            let rows = text
                .lines()
                .map(|line| serde_json::from_str::<Json>(line).expect("a row"));
            rows.map(|row| row["input"].as_str().expect("text").to_owned())
                .collect::<BTreeSet<_>>()
        };
        let (train, dev) = (read("train"), read("dev"));
        assert!(train.len() > 300 && dev.len() > 60, "{} and {}", train.len(), dev.len());
        assert!(train.is_disjoint(&dev));
        assert!(
            goal["input"]
                .as_str()
                .is_some_and(|text| !train.contains(text) && !dev.contains(text))
        );
    }

    #[test]
    fn a_value_that_stands_twice_or_nowhere_has_no_variants() {
        let rows = goals::requests();
        for (text, arguments) in [
            ("play play", serde_json::json!({"track": "play"})),
            ("play jazz", serde_json::json!({"genre": "rock"})),
            ("play jazz", serde_json::json!({"genre": ["play", "jazz"]})),
            ("play jazz", serde_json::json!({"genre": "play jazz", "track": "jazz"})),
            ("play jazz", serde_json::json!({})),
        ] {
            let row = serde_json::json!({"input": text, "target": {"tool": "PlayMusic", "arguments": arguments}});
            assert!(variants(&row, &rows, 5).is_empty(), "{row}");
        }
    }
}
