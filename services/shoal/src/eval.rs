//! `shoal eval`: rows of the task data through the running mesh, scored as score.py scores them.
//!
//! Rooms: `rows` reads files, [`ask`] puts one row to the mesh and brings the answer into the target's shape, [`score`] is
//! the definition of every metric, `interval` how sure it is, `beside` what others have, `confusion` says what went wrong. [`pyjson`]
//! and [`norm`] carry Python's meaning of JSON and of text, on which the definition stands.
pub mod ask;
mod beside;
mod confusion;
mod interval;
pub mod norm;
pub mod pyjson;
mod rows;
pub mod score;

use crate::{
    client::{ConnectArgs, Session},
    exit::{Failure, Result},
    output,
};
use ask::Answer;
use clap::Args;
use futures::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use score::{Row, Task};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
};
use tracing::Instrument as _;

/// What `shoal eval` takes.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// tool_call, plan, route, extract, compose, summarize or episode
    pub task: Task,
    /// Rows of that task: {"id", "task", "input", "target"}, JSON lines, gzipped if the name ends in .gz
    pub file: PathBuf,
    /// One JSON object with score.py's keys, and the interval as score_low and score_high, instead of words
    #[arg(long)]
    pub json: bool,
    /// Only N of the rows, evenly spaced and the same each time: a file may be grouped by answer, and its first rows hold few of them
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// Rows in flight at once
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Write {"id", "output"} a row to this file: what score.py takes
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Score this file of {"id", "output"} rows and ask nobody
    #[arg(long, value_name = "FILE", conflicts_with_all = ["predictions", "local", "gateway"])]
    pub from: Option<PathBuf>,
    /// Which mesh.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// The command.
pub(crate) async fn eval(args: EvalArgs) -> Result<()> {
    let gold = rows::spread(rows::gold(&args.file)?, args.limit);
    if gold.is_empty() {
        return Err(Failure::usage(format!("{} has no rows", args.file.display())));
    }
    let outputs = match &args.from {
        Some(file) => rows::predictions(file)?,
        None => asked(&args, &gold).await?,
    };
    let rows: Vec<Row> = gold
        .into_iter()
        .map(|g| Row {
            output: outputs.get(&g.id).cloned().unwrap_or(pyjson::Value::None),
            gold: g.row,
        })
        .collect();
    let report =
        score::report(args.task, &rows).map_err(|e| Failure::usage(format!("{}: {e}", args.file.display())))?;
    let (seen, unseen): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|r| r.seen());
    let interval = |rows: &[&Row]| interval::interval(args.task, rows).ok().flatten();
    let (seen, unseen) = (interval(&seen), interval(&unseen));
    if args.json {
        output::line(bounded(report, seen, unseen).to_string());
        return Ok(());
    }
    words(&report, seen, unseen).iter().for_each(output::line);
    confusion::lines(args.task, &rows).iter().for_each(output::line);
    Ok(())
}

/// Puts every row to the mesh; answers by id.
async fn asked(args: &EvalArgs, gold: &[rows::Gold]) -> Result<BTreeMap<String, pyjson::Value>> {
    let asks = gold
        .iter()
        .map(|g| Ok((g.id.clone(), g.json()?)))
        .collect::<Result<Vec<_>>>()?;
    // Before anybody is asked: answers that cannot be written down are an hour lost.
    let unwritable = |file: &PathBuf, e: io::Error| Failure::usage(format!("cannot write {}: {e}", file.display()));
    let mut written = match &args.predictions {
        // What an earlier run wrote there stays until there is something in its place.
        Some(file) => {
            let opened = File::options().write(true).create(true).truncate(false).open(file);
            Some((file, opened.map_err(|e| unwritable(file, e))?))
        }
        None => None,
    };
    let session = Session::open(&args.connect, "eval").await?;
    let bar = ProgressBar::new(gold.len() as u64)
        .with_style(style())
        .with_message(args.task.name());
    let each = stream::iter(asks).map(|(id, row)| {
        let span = tracing::info_span!("shoal eval", otel.kind = "client", row = id);
        let (mesh, bar, task) = (&session.mesh, &bar, args.task);
        async move {
            let answer = ask::ask(mesh, task, &row).await;
            bar.inc(1);
            answer.map(|a| (id, a))
        }
        .instrument(span)
    });
    let mut each = each.buffer_unordered(usize::from(args.concurrency));
    let (mut lines, mut trouble) = (BTreeMap::new(), BTreeMap::<String, usize>::new());
    let stopped = loop {
        let next = tokio::select! {
            next = each.next() => next,
            () = session.stop.cancelled() => break Some(Failure::refused("interrupted: nothing is scored")),
        };
        match next {
            None => break None,
            Some(Ok((id, Answer { output, trouble: why }))) => {
                if let Some(why) = why {
                    *trouble.entry(why).or_default() += 1;
                }
                lines.insert(id.clone(), serde_json::json!({"id": id, "output": output}).to_string());
            }
            // A mesh that is away gives no figures: those of half a file would look like all of it.
            Some(Err(status)) => break Some(Failure::from(status)),
        }
    };
    drop(each);
    bar.finish_and_clear();
    session.close().await;
    if let Some(failure) = stopped {
        return Err(failure);
    }
    for (why, rows) in &trouble {
        eprintln!("shoal: {rows} rows got no whole answer: {why}");
    }
    if let Some((file, open)) = &mut written {
        let text: String = gold
            .iter()
            .filter_map(|g| lines.get(&g.id))
            .map(|l| format!("{l}\n"))
            .collect();
        let written = open.set_len(0).and_then(|()| open.write_all(text.as_bytes()));
        written.map_err(|e| unwritable(file, e))?;
    }
    // Scored from the very lines that score.py would read.
    rows::outputs(lines.values().map(String::as_str))
}

/// A 95 % interval, if there is one.
type Interval = Option<(f64, f64)>;

/// The report with the interval's ends among its figures, named as in a model's card.
fn bounded(mut report: score::Report, seen: Interval, unseen: Interval) -> score::Report {
    let ends = |interval: Interval| {
        [
            ("score_low", interval.map(|i| i.0)),
            ("score_high", interval.map(|i| i.1)),
        ]
    };
    report.figures.extend(ends(seen));
    if let Some((_, figures)) = &mut report.unseen {
        figures.extend(ends(unseen));
    }
    report
}

fn words(report: &score::Report, seen: Interval, unseen: Interval) -> Vec<String> {
    let figures = |figures: &score::Figures, interval: Interval| {
        let line = |(name, value): &(&str, Option<f64>)| {
            let value = value.map_or("-".into(), |v| format!("{v:.4}"));
            let chance = interval.filter(|_| *name == "score");
            let chance = chance.map_or(String::new(), |(low, high)| {
                format!("  95 % between {low:.4} and {high:.4}")
            });
            format!("  {name:<20} {value}{chance}")
        };
        figures.iter().map(line).collect::<Vec<_>>()
    };
    let mut lines = vec![format!(
        "{}: {} rows, {} without an answer",
        report.task.name(),
        report.rows,
        report.missing
    )];
    lines.extend(figures(&report.figures, seen));
    let others = beside::beside(report.task);
    if !others.is_empty() {
        lines.push(format!("  {:<20} {others}", "beside it"));
    }
    if let Some((rows, of_unseen)) = &report.unseen {
        lines.push(format!("services never seen in training: {rows} rows"));
        lines.extend(figures(of_unseen, unseen));
    }
    lines
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} [{bar:40.cyan/dim}] {pos}/{len} {per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests;
