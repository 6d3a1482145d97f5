//! The definition of every task's metric: score.py, to the digit.
//!
//! Pure: rows in, figures out. One file per family of tasks below; what they share is here. Where Python's meaning is odd it
//! is kept: a missing key normalises to "none", two episodes that both name a call twice are equal (`None == None`).
//! BLEU is always there, as in score.py where sacrebleu is installed.
mod bleu;
mod calls;
mod episode;
mod ratio;
mod slots;
mod words;

use ratio::{F1, Share};
use std::{collections::BTreeSet, fmt, str::FromStr};

use super::{
    norm::{self, Norm, norm},
    pyjson::Value,
};

/// What can be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// An utterance to one call.
    ToolCall,
    /// A goal to its steps and each step's call.
    Plan,
    /// An utterance to one of 150 intents, or `oos`.
    Route,
    /// A user's turn to slot values.
    Extract,
    /// Dialogue acts to a reply.
    Compose,
    /// A dialogue to the calls made in it.
    Summarize,
    /// A conversation to the DAG of calls that serves it.
    Episode,
}

impl Task {
    /// Every task, in the order of score.py.
    pub const ALL: [Task; 7] = [
        Task::ToolCall,
        Task::Plan,
        Task::Route,
        Task::Extract,
        Task::Compose,
        Task::Summarize,
        Task::Episode,
    ];

    /// Its name on the command line, in files and in mesh.toml.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Task::ToolCall => "tool_call",
            Task::Plan => "plan",
            Task::Route => "route",
            Task::Extract => "extract",
            Task::Compose => "compose",
            Task::Summarize => "summarize",
            Task::Episode => "episode",
        }
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Task::ALL.into_iter().find(|t| t.name() == s).ok_or_else(|| {
            format!(
                "unknown task \"{s}\"; the tasks are {}",
                Task::ALL.map(Task::name).join(", ")
            )
        })
    }
}

/// One row of the task file and what was answered.
#[derive(Clone, Debug)]
pub struct Row {
    /// The whole row: `{"id", "task", "input", "target", ..}`.
    pub gold: Value,
    /// The answer in the shape of the target; `None` if there is none.
    pub output: Value,
}

impl Row {
    fn target(&self) -> Result<&Value, Malformed> {
        self.field("target")
    }

    fn field(&self, key: &'static str) -> Result<&Value, Malformed> {
        self.gold.get(key).ok_or_else(|| self.malformed(key))
    }

    fn malformed(&self, what: &str) -> Malformed {
        Malformed {
            id: self.gold.get("id").map(norm::str_of).unwrap_or_default(),
            what: what.to_owned(),
        }
    }

    /// Whether its service occurs in the training data; rows without the mark count as seen.
    pub(super) fn seen(&self) -> bool {
        self.gold.get("seen").is_none_or(Value::truthy)
    }
}

/// A row of the task file lacks what its task must have. (An answer is never malformed: it is wrong.)
#[derive(Debug, thiserror::Error)]
#[error("row \"{id}\" of the task file has no usable `{what}`")]
pub struct Malformed {
    /// The row.
    pub id: String,
    /// The key.
    pub what: String,
}

/// Named figures in score.py's order; `None` is a share of nothing.
pub type Figures = Vec<(&'static str, Option<f64>)>;

/// What score.py prints.
#[derive(Clone, Debug)]
pub struct Report {
    /// The task.
    pub task: Task,
    /// Rows of seen services.
    pub rows: usize,
    /// Their figures.
    pub figures: Figures,
    /// Rows without an answer, seen or not.
    pub missing: usize,
    /// The rest, if there is any.
    pub unseen: Option<(usize, Figures)>,
}

/// Scores rows.
///
/// # Errors
/// A row of the task file lacks what its task must have.
pub fn report(task: Task, rows: &[Row]) -> Result<Report, Malformed> {
    let (known, rest): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|r| r.seen());
    Ok(Report {
        task,
        rows: known.len(),
        figures: figures(task, &known)?,
        missing: rows.iter().filter(|r| matches!(r.output, Value::None)).count(),
        unseen: if rest.is_empty() {
            None
        } else {
            Some((rest.len(), figures(task, &rest)?))
        },
    })
}

/// Whether one answer is wholly right, by the same definition that `score` (or, where `score` is an F1, its exact sibling) uses.
///
/// # Errors
/// The row lacks what its task must have.
pub fn right(task: Task, row: &Row) -> Result<bool, Malformed> {
    let rows = [row];
    let figures = figures(task, &rows)?;
    let exact = figures
        .iter()
        .find(|(name, _)| *name == "exact")
        .or_else(|| figures.first());
    Ok(exact.is_some_and(|(_, value)| value.is_none_or(|v| v >= 1.0)))
}

/// What one row adds to `score`: score is the sum of the first over the sum of the second. An F1 counts twice what both sides
/// have over what each has; a share counts one or nothing over one, or over nothing where the row is not of its kind.
///
/// # Errors
/// The row lacks what its task must have.
pub fn weight(task: Task, row: &Row) -> Result<(u64, u64), Malformed> {
    match task {
        Task::Extract => slots::found(row).map(F1::weight),
        Task::Summarize => calls::made(row).map(F1::weight),
        _ => {
            let figures = figures(task, &[row])?;
            let score = figures.first().and_then(|(_, value)| *value);
            Ok(score.map_or((0, 0), |right| (u64::from(right >= 1.0), 1)))
        }
    }
}

fn figures(task: Task, rows: &[&Row]) -> Result<Figures, Malformed> {
    match task {
        Task::ToolCall => slots::tool_call(rows),
        Task::Plan => calls::plan(rows),
        Task::Route => words::route(rows),
        Task::Extract => slots::extract(rows),
        Task::Compose => words::compose(rows),
        Task::Summarize => calls::summarize(rows),
        Task::Episode => episode::episode(rows),
    }
}

impl fmt::Display for Report {
    /// One JSON object with Python's spacing and number format.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, figures: &Figures| {
            figures.iter().try_for_each(|(name, value)| match value {
                Some(v) => write!(f, ", \"{name}\": {}", norm::float(*v)),
                None => write!(f, ", \"{name}\": null"),
            })
        };
        write!(f, "{{\"task\": \"{}\", \"rows\": {}", self.task.name(), self.rows)?;
        write(f, &self.figures)?;
        write!(f, ", \"missing\": {}", self.missing)?;
        if let Some((rows, figures)) = &self.unseen {
            write!(f, ", \"unseen\": {{\"rows\": {rows}")?;
            write(f, figures)?;
            write!(f, "}}")?;
        }
        write!(f, "}}")
    }
}

/// The set of an object's entries, values normalised; empty for anything else.
fn flat(v: Option<&Value>) -> BTreeSet<(String, Norm)> {
    match v {
        Some(Value::Dict(entries)) => entries.iter().map(|(k, x)| (k.clone(), norm(x))).collect(),
        _ => BTreeSet::new(),
    }
}

/// The objects of a list that holds nothing else; empty for anything else.
fn as_list(v: &Value) -> &[Value] {
    match v {
        Value::List(items) if items.iter().all(|x| matches!(x, Value::Dict(_))) => items,
        _ => &[],
    }
}

/// `norm` of what a key may hold: a missing key reads as `None`, which normalises to "none".
fn norm_or_none(v: Option<&Value>) -> Norm {
    v.map_or_else(|| Norm::Text("none".into()), norm)
}

/// "Service.Method" of a call; what is not there reads "None", as Python formats it.
fn name(call: &Value) -> String {
    let part = |key| call.get(key).map_or_else(|| "None".to_owned(), norm::str_of);
    format!("{}.{}", part("service"), part("method"))
}
