//! `shoal-loadtest table`: the figures of result files as a table, and the section of a page that it stands in. Pure but for [`run`].
use super::{
    figure::{FIGURES, Figure},
    report::failed_checks,
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the section begins and ends.
const BEGIN: &str = "<!-- figures: made by `shoal-loadtest table`, not by hand -->";
const END: &str = "<!-- end of figures -->";

/// Reads results and gives the table, or writes it into `page`.
///
/// # Errors
/// A file that is none of ours, or a page without the section.
pub(crate) fn run(results: &[PathBuf], page: Option<&Path>) -> Result<Option<String>> {
    let read = |path: &PathBuf| -> Result<Value> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        // A run's whole standard output will do: the object is its last line.
        let last = text.trim_end().lines().next_back().unwrap_or_default();
        let object: Value = serde_json::from_str(&text)
            .or_else(|_| serde_json::from_str(last))
            .with_context(|| path.display().to_string())?;
        if !object["figures"].is_object() {
            bail!("{}: it has no figures", path.display());
        }
        Ok(object)
    };
    let objects: Vec<Value> = results.iter().map(read).collect::<Result<_>>()?;
    let table = table(&objects);
    let Some(page) = page else { return Ok(Some(table)) };
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let text = replaced(&text, &table).with_context(|| page.display().to_string())?;
    fs::write(page, text).with_context(|| page.display().to_string())?;
    Ok(None)
}

/// The head of every table.
const HEAD: &str =
    "| figure | name | measured | 95 % interval | rounds | bar | stretch | |\n|---|---|---|---|---|---|---|---|\n";

/// The table of the first model that each command was run on, with all figures; then one for each other model, with those that it has; and under
/// each what its runs were on. Of several runs of one command on one model that have a figure the last counts.
fn table(objects: &[Value]) -> String {
    // "models/NAME" and "NAME@VERSION" are one model.
    let model = |object: &Value| {
        let model = object["settings"]["model"].as_str().unwrap_or_default();
        let name = model.rsplit('/').next().unwrap_or_default();
        name.split('@').next().unwrap_or_default().to_owned()
    };
    // What was typed behind the command says nothing of what it is.
    let command = |object: &Value| {
        let typed = object["settings"]["command"].as_str().unwrap_or_default();
        typed.split(' ').nth(1).map(str::to_owned)
    };
    let first = |object: &Value| {
        let first = objects.iter().find(|other| command(other) == command(object));
        first.is_some_and(|first| model(first) == model(object))
    };
    let (main, others): (Vec<&Value>, Vec<&Value>) = objects.iter().partition(|object| first(object));
    let mut out = String::from(HEAD);
    for figure in &FIGURES {
        out.push_str(&row(figure, latest(&main, figure)));
    }
    out.push_str(&provenances(&main));
    let mut models: Vec<String> = others.iter().map(|object| model(object)).collect();
    models.sort();
    models.dedup();
    for wanted in models {
        let runs: Vec<&Value> = others.iter().copied().filter(|o| model(o) == wanted).collect();
        let rows = FIGURES
            .iter()
            .filter_map(|figure| Some(row(figure, Some(latest(&runs, figure)?))));
        out.push_str(&format!("\nThe same on {wanted}:\n\n{HEAD}"));
        out.extend(rows);
        out.push_str(&provenances(&runs));
    }
    out
}

/// The last run that has a figure, and the figure.
fn latest<'a>(objects: &[&'a Value], figure: &Figure) -> Option<(&'a Value, &'a Value)> {
    let of = |object: &&'a Value| (*object, &object["figures"][figure.name.key()]);
    objects.iter().rev().map(of).find(|(_, found)| found.is_object())
}

fn provenances(objects: &[&Value]) -> String {
    let lines = objects.iter().map(|object| format!("\n{}\n", provenance(object)));
    lines.collect()
}

/// A figure and the object that it is of.
fn row(figure: &Figure, found: Option<(&Value, &Value)>) -> String {
    let sound = found.is_none_or(|(object, _)| failed_checks(object).is_empty());
    let found = found.map(|(_, figure)| figure);
    let number = |key: &str| found.and_then(|f| f[key].as_f64());
    let (words, key) = (figure.name.words(), figure.name.key());
    let (bar, stretch) = (figure.written(figure.bar), figure.written(figure.stretch));
    let (Some(value), Some(low), Some(high)) = (number("value"), number("low"), number("high")) else {
        return format!("| {words} | `{key}` | not measured | | | {bar} | {stretch} | |\n");
    };
    let verdict = match (figure.reaches(value, figure.bar), figure.reaches(value, figure.stretch)) {
        _ if !sound => "void",
        (_, true) => "stretch",
        (true, false) => "bar",
        (false, false) => "missed",
    };
    let rounds = found.map(|f| f["rounds"].to_string()).unwrap_or_default();
    // Fewer than six rounds have no 95 % interval.
    let few = if number("coverage").is_some_and(|c| c < 0.95) {
        " (range)"
    } else {
        ""
    };
    let (value, low, high) = (figure.written(value), figure.written(low), figure.written(high));
    format!("| {words} | `{key}` | {value} | {low} to {high}{few} | {rounds} | {bar} | {stretch} | {verdict} |\n")
}

fn provenance(object: &Value) -> String {
    let (machine, settings) = (&object["machine"], &object["settings"]);
    let word = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let void = match &failed_checks(object)[..] {
        [] => String::new(),
        failed => format!(" Void, for this did not hold: {}.", failed.join("; ")),
    };
    let device = machine["device"].as_str();
    let device = device.map_or_else(String::new, |device| format!("{device}, with "));
    let peer = &object["facts"]["mlserver"]["intra_op_threads"];
    let classifier = object["facts"]["classifier"].as_str().map_or_else(String::new, |classifier| {
        format!(
            " What classifies is {classifier}, with as many in MLServer as are fastest there ({peer}); a graph under 1 MiB has one in a specialist."
        )
    });
    format!(
        "`{}`: {} on {device}{}, {} cores, {} MB, Linux {}, {} threads inside an operator on every side.{classifier}{void}",
        word(&settings["command"]),
        word(&settings["model"]),
        word(&machine["processor"]),
        machine["cores"],
        machine["memory_mb"],
        word(&machine["kernel"]),
        settings["intra_op_threads"],
    )
}

/// The page with another table between the marks.
fn replaced(page: &str, table: &str) -> Result<String> {
    let (Some(begin), Some(end)) = (page.find(BEGIN), page.find(END)) else {
        bail!("it has no section between `{BEGIN}` and `{END}`");
    };
    Ok(format!(
        "{}{BEGIN}\n\n{table}\n{}",
        &page[..begin],
        &page[end.max(begin)..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({
            "figures": {
                "single_vs_genai": {"value": 1.02, "low": 1.0, "high": 1.05, "rounds": 7, "coverage": 0.984},
                "step_overhead": {"value": 0.07, "low": 0.06, "high": 0.08, "rounds": 3, "coverage": 0.75},
            },
            "machine": {"processor": "X", "cores": 2, "memory_mb": 24000, "kernel": "6"},
            "settings": {"command": "shoal-loadtest engine", "model": "bench_decoder@1", "intra_op_threads": 2},
        })
    }

    #[test]
    fn a_figure_is_held_against_its_bars() {
        let table = table(&[object()]);
        assert!(
            table.contains("| `single_vs_genai` | 1.02 | 1.00 to 1.05 | 7 | 0.97 | 1.10 | bar |"),
            "{table}"
        );
        assert!(table.contains("| `step_overhead` | 7.0 % | 6.0 % to 8.0 % (range) | 3 | 5.0 % | 2.0 % | missed |"));
        assert_eq!(table.matches("not measured").count(), FIGURES.len() - 2);
        assert!(table.contains("`shoal-loadtest engine`: bench_decoder@1 on X, 2 cores"));
    }

    #[test]
    fn figures_of_sides_that_did_not_do_the_same_are_void() {
        let mut object = object();
        object["checks"] = json!({"same tokens": false, "as many": true});
        let table = table(&[object]);
        assert!(
            table.contains("| 0.97 | 1.10 | void |") && table.contains("| 5.0 % | 2.0 % | void |"),
            "{table}"
        );
        assert!(table.contains("did not hold: same tokens."), "{table}");
    }

    #[test]
    fn a_figure_of_a_device_names_it() {
        let mut object = object();
        object["machine"]["device"] = json!("NVIDIA X");
        let table = table(&[object]);
        assert!(
            table.contains("bench_decoder@1 on NVIDIA X, with X, 2 cores"),
            "{table}"
        );
    }

    #[test]
    fn the_last_run_counts_and_what_it_lacks_comes_from_those_before() {
        let mut later = object();
        later["figures"] =
            json!({"single_vs_genai": {"value": 1.2, "low": 1.1, "high": 1.3, "rounds": 9, "coverage": 0.96}});
        let table = table(&[object(), later]);
        assert!(table.contains("| 1.20 | 1.10 to 1.30 | 9 | 0.97 | 1.10 | stretch |") && table.contains("| 7.0 % |"));
    }

    #[test]
    fn another_model_has_a_table_of_its_own_with_what_was_measured_on_it() {
        let mut shipped = object();
        shipped["settings"] = json!({"command": "shoal-loadtest engine --model models/compose", "model": "models/compose", "intra_op_threads": 2});
        shipped["figures"] =
            json!({"single_vs_genai": {"value": 1.57, "low": 1.4, "high": 1.6, "rounds": 7, "coverage": 0.984}});
        shipped["facts"] = json!({"classifier": "models/route", "mlserver": {"intra_op_threads": 2}});
        let table = table(&[shipped.clone(), object()]);
        assert!(
            table.contains("The same on bench_decoder:"),
            "the first named is the first: {table}"
        );
        let table = super::table(&[object(), shipped]);
        let (first, second) = table.split_once("The same on compose:").expect("two tables");
        assert!(first.contains("| 1.02 |") && first.contains("not measured") && !first.contains("1.57"));
        assert!(
            second.contains("| 1.57 | 1.40 to 1.60 |") && !second.contains("step_overhead"),
            "{second}"
        );
        assert!(second.contains("What classifies is models/route, with as many in MLServer as are fastest there (2);"));
    }

    #[test]
    fn only_the_section_of_a_page_is_written_and_again_gives_the_same() {
        let page = format!("# A\n\n{BEGIN}\nold\n{END}\n\nafter\n");
        let once = replaced(&page, "| t |\n").expect("a section");
        assert!(once.starts_with("# A\n\n<!--") && once.ends_with("-->\n\nafter\n") && !once.contains("old"));
        assert_eq!(replaced(&once, "| t |\n").expect("a section"), once);
        assert!(replaced("# A\n", "").is_err());
    }

    #[test]
    fn a_file_that_is_no_result_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.json");
        for text in ["", "{}", "hello\n{\"rate\": 5}"] {
            fs::write(&path, text).expect("written");
            let error = format!("{:#}", run(std::slice::from_ref(&path), None).expect_err(text));
            assert!(error.contains("a.json"), "{error}");
        }
        fs::write(&path, format!("words\n{}\n", object())).expect("written");
        assert!(
            run(&[path], None)
                .expect("a result")
                .is_some_and(|t| t.contains("1.02"))
        );
    }
}
