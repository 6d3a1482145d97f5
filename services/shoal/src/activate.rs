//! `shoal activate`: which version of a specialist serves, and the switch to another.
use crate::{
    exit::{Failure, Result},
    output, plan_file, supervise,
};
use clap::Args;
use serde_json::{Value, json};
use shoal_kit::{
    config::{self, MeshConfig},
    task,
};
use shoal_proto::v1;
use shoal_specialist::folder::{
    Folder, Version,
    manifest::{Card, Manifest, Scores},
};
use std::{path::PathBuf, time::Duration};

mod switch;
mod watch;
pub(crate) use switch::activate;

/// What `shoal activate` takes.
#[derive(Args, Debug)]
pub struct ActivateArgs {
    /// Which specialist: its table [specialist.NAME] in the configuration
    pub name: String,
    /// The version that is to serve; without it, show the versions that there are, with their scores
    // Not `version`, which every command has as a flag.
    #[arg(id = "number", value_name = "VERSION")]
    pub version: Option<u32>,
    /// The configuration file [default: mesh.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long to wait until a process that runs serves it, in seconds, or as 500ms, 30s, 5m; 0 does not wait
    #[arg(long, value_parser = wait, value_name = "SECONDS", default_value = "60", requires = "number")]
    pub wait: Duration,
    /// {model, running, seconds}, or without VERSION {name, active_version, serving, refused, versions}, instead of words
    #[arg(long)]
    pub json: bool,
}

fn wait(text: &str) -> Result<Duration, String> {
    let unit = if text.ends_with(|c: char| c.is_ascii_digit()) {
        "s"
    } else {
        ""
    };
    plan_file::duration(&format!("{text}{unit}"))
}

/// The command.
pub(crate) async fn command(args: ActivateArgs) -> Result<()> {
    let config = supervise::some(MeshConfig::load(args.config.as_deref())?)?;
    let name = args.name.as_str();
    let specialist = config.specialist.get(name).ok_or_else(|| {
        let known: Vec<&str> = config.specialist.keys().map(String::as_str).collect();
        Failure::usage(format!(
            "no [specialist.{name}] in the configuration; there are: {}",
            known.join(", ")
        ))
    })?;
    match args.version {
        Some(version) => change(name, specialist, version, &args).await,
        None => list(name, specialist, args.json).await,
    }
}

async fn change(name: &str, specialist: &config::Specialist, version: u32, args: &ActivateArgs) -> Result<()> {
    let done = activate(name, specialist, version, args.wait).await?;
    if args.json {
        let seconds = done.took.map(|t| t.as_secs_f64());
        output::line(json!({"model": done.model, "running": done.running, "seconds": seconds}).to_string());
        return Ok(());
    }
    output::line(done.words());
    Ok(())
}

async fn list(name: &str, specialist: &config::Specialist, as_json: bool) -> Result<()> {
    let folder = switch::folder(name, specialist)?;
    let read = task::blocking("model cards", move || {
        Ok::<_, shoal_specialist::folder::Error>((Folder::manifest(&folder)?, Folder::versions(&folder)?))
    });
    let (manifest, versions) = read
        .await
        .map_err(|e| Failure::internal(format!("the reading of the cards broke off: {e}")))?
        .map_err(|e| Failure::usage(format!("specialist {name}: {e}")))?;
    let card = watch::serving(specialist, &manifest.name).await;
    if as_json {
        output::line(as_value(&manifest, &versions, card.as_ref()).to_string());
    } else {
        table(&manifest, &versions, card.as_ref()).iter().for_each(output::line);
    }
    Ok(())
}

fn as_value(manifest: &Manifest, versions: &[Version], card: Option<&v1::DescribeResponse>) -> Value {
    let scores = |card: &Card| {
        let task = |(task, scores): (&String, &Scores)| {
            let told = json!({"split": scores.split, "rows": scores.rows, "metrics": scores.metrics()});
            (task.clone(), told)
        };
        Value::Object(card.scores.iter().map(task).collect())
    };
    let version = |v: &Version| match &v.card {
        Ok(card) => json!({"version": v.version, "description": card.description, "scores": scores(card)}),
        Err(fault) => json!({"version": v.version, "fault": fault.to_string()}),
    };
    let refused = card.and_then(|c| c.refused.as_ref());
    json!({
        "name": manifest.name,
        "active_version": manifest.active_version,
        "serving": card.map(|c| c.version),
        "refused": refused.map(|r| json!({"version": r.version, "reason": r.reason})),
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
    })
}

fn table(manifest: &Manifest, versions: &[Version], card: Option<&v1::DescribeResponse>) -> Vec<String> {
    let refused = card.and_then(|c| c.refused.as_ref());
    let state = |version: u32| {
        let states = [
            (version == manifest.active_version, "active"),
            (card.is_some_and(|c| c.version == version), "serves"),
            (refused.is_some_and(|r| r.version == version), "refused"),
        ];
        let states: Vec<&str> = states
            .into_iter()
            .filter_map(|(is, state)| is.then_some(state))
            .collect();
        if states.is_empty() {
            "-".to_owned()
        } else {
            states.join(", ")
        }
    };
    let rows: Vec<Vec<String>> = versions
        .iter()
        .map(|v| vec![v.version.to_string(), state(v.version), scores(v)])
        .collect();
    let mut lines = output::table(&["version", "state", "scores"], &rows);
    lines.extend(refused.map(|r| format!("version {} was refused: {}", r.version, r.reason)));
    lines
}

/// "tool_call 0.675 on 200 rows of dev (argument_f1 0.8439, tool 0.98)"; a card without the metric `score` has all in brackets.
fn scores(version: &Version) -> String {
    let card = match &version.card {
        Ok(card) => card,
        Err(fault) => return format!("its card is at fault: {fault}"),
    };
    let task = |(task, scores): (&String, &Scores)| {
        let mut metrics = scores.metrics();
        let score = metrics.remove("score").map(|s| format!(" {s}")).unwrap_or_default();
        let others: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!(" ({})", others.join(", "))
        };
        format!("{task}{score} on {} rows of {}{others}", scores.rows, scores.split)
    };
    let tasks: Vec<String> = card.scores.iter().map(task).collect();
    if tasks.is_empty() {
        "none in its card".to_owned()
    } else {
        tasks.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> (Manifest, Vec<Version>) {
        let text = r#"
            name = "a"
            version = 1
            kind = "generate"
            description = "d"
            licence = "Apache-2.0"
            limits = {context_tokens = 8, max_new_tokens = 4}
            files = {}
            scores = {x = {split = "dev", rows = 200, score = 0.675, tool = 0.98}}"#;
        let card: Card = toml::from_str(text).expect("a card");
        let manifest = Manifest {
            name: "a".into(),
            tasks: vec!["x".into()],
            active_version: 2,
        };
        let missing = shoal_specialist::folder::Error::Missing {
            path: "2/card.toml".into(),
        };
        let version = |version, card| Version { version, card };
        (manifest, vec![version(1, Ok(card)), version(2, Err(missing))])
    }

    #[test]
    fn the_list_tells_what_is_active_what_serves_and_what_was_refused() {
        let (manifest, versions) = versions();
        let card = v1::DescribeResponse {
            version: 1,
            refused: Some(v1::Refused {
                version: 2,
                reason: "a file is missing".into(),
                time: None,
            }),
            ..Default::default()
        };
        let lines = table(&manifest, &versions, Some(&card));
        assert!(lines[1].contains("serves") && lines[1].contains("x 0.675 on 200 rows of dev (tool 0.98)"));
        assert!(
            lines[2].contains("active, refused") && lines[2].contains("its card is at fault"),
            "{lines:?}"
        );
        assert_eq!(lines[3], "version 2 was refused: a file is missing");
        let value = as_value(&manifest, &versions, Some(&card));
        assert_eq!((&value["active_version"], &value["serving"]), (&json!(2), &json!(1)));
        assert_eq!(
            value["versions"][0]["scores"]["x"]["metrics"],
            json!({"score": 0.675, "tool": 0.98})
        );
        assert_eq!(as_value(&manifest, &versions, None)["serving"], Value::Null);
    }

    #[test]
    fn a_wait_is_in_seconds_unless_it_says_otherwise() {
        assert_eq!(wait("90"), Ok(Duration::from_secs(90)));
        assert_eq!(wait("0"), Ok(Duration::ZERO));
        assert_eq!(wait("500ms"), Ok(Duration::from_millis(500)));
        assert!(wait("soon").is_err());
    }
}
