//! Files of rows, read as score.py reads them.
use super::pyjson::{self, Value};
use crate::exit::{Failure, Result};
use flate2::read::MultiGzDecoder;
use std::{collections::BTreeMap, fs, io::Read as _, num::NonZeroUsize, path::Path};

/// One row of a task file.
#[derive(Debug, Clone)]
pub(super) struct Gold {
    /// Its id.
    pub(super) id: String,
    /// For scoring.
    pub(super) row: Value,
    line: String,
}

impl Gold {
    /// For asking: the row must be strict JSON, because it goes over the wire.
    pub(super) fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.line)
            .map_err(|e| Failure::usage(format!("row \"{}\" cannot be asked: {e}", self.id)))
    }
}

/// Reads a task file; every row must be usable.
pub(super) fn gold(path: &Path) -> Result<Vec<Gold>> {
    let text = read(path)?;
    let mut rows = Vec::new();
    for (number, line) in lines(&text).enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let refused = |what: String| Failure::usage(format!("{}:{}: {what}", path.display(), number + 1));
        let row = pyjson::parse(line).map_err(|e| refused(e.to_string()))?;
        let Some(Value::Str(id)) = row.get("id") else {
            return Err(refused("the row has no text `id`".into()));
        };
        rows.push(Gold {
            id: id.clone(),
            row,
            line: line.to_owned(),
        });
    }
    Ok(rows)
}

/// So many of the rows, evenly spaced, as the trainer takes its `--dev-rows` (data.py, `spread`); all of them where there are no more.
pub(super) fn spread<T>(rows: Vec<T>, count: Option<NonZeroUsize>) -> Vec<T> {
    let (all, count) = (rows.len(), count.map_or(rows.len(), NonZeroUsize::get));
    if count >= all {
        return rows;
    }
    let mut taken = 0;
    let due = |(at, row)| {
        (at == taken * all / count).then(|| {
            taken += 1;
            row
        })
    };
    rows.into_iter().enumerate().filter_map(due).collect()
}

/// Reads a file of `{"id", "output"}` rows.
pub(super) fn predictions(path: &Path) -> Result<BTreeMap<String, Value>> {
    outputs(lines(&read(path)?))
}

/// Outputs by id: lines that are no such row are passed over, the last of an id wins, and one that nests deeper than 50 is missing.
pub(super) fn outputs<'a>(lines: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, Value>> {
    let mut out = BTreeMap::new();
    for row in lines.filter_map(|line| pyjson::parse(line).ok()) {
        if let Some(Value::Str(id)) = row.get("id") {
            let output = row.get("output").cloned().unwrap_or(Value::None);
            out.insert(id.clone(), if output.too_deep() { Value::None } else { output });
        }
    }
    Ok(out)
}

fn read(path: &Path) -> Result<String> {
    let refused = |e: std::io::Error| Failure::usage(format!("{}: {e}", path.display()));
    let mut bytes = fs::read(path).map_err(refused)?;
    if path.extension().is_some_and(|e| e == "gz") {
        let mut whole = Vec::new();
        MultiGzDecoder::new(bytes.as_slice())
            .read_to_end(&mut whole)
            .map_err(refused)?;
        bytes = whole;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lines as Python's text files have them: a lone carriage return ends one too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_rows_is_spread_over_all_of_them() {
        let of = |rows: usize, count| spread((0..rows).collect(), NonZeroUsize::new(count));
        // As Python has it: [rows[i * len(rows) // count] for i in range(count)].
        assert_eq!(of(10, 4), [0, 2, 5, 7]);
        assert_eq!(of(7, 3), [0, 2, 4]);
        assert_eq!(of(5, 1), [0]);
        assert_eq!(
            (of(3, 3), of(3, 9), of(3, 0)),
            (vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2])
        );
        // Rows that are grouped by answer, twenty each: of each group as many.
        let groups: Vec<usize> = of(3000, 600).iter().map(|row| row / 20).collect();
        assert!((0..150).all(|group| groups.iter().filter(|g| **g == group).count() == 4));
    }

    #[test]
    fn lines_end_as_in_python_and_bad_rows_are_passed_over() {
        let text = "{\"id\": \"a\", \"output\": 1}\r{\"id\": \"b\"}\r\nnonsense\n[1]\n{\"id\": 7, \"output\": 1}\n{\"id\": \"a\", \"output\": 2}";
        let outputs = outputs(lines(text)).expect("outputs");
        assert_eq!(outputs.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(outputs["a"], Value::Int("2".into()));
        assert_eq!(outputs["b"], Value::None);
    }
}
