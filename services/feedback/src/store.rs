//! What keeps outcomes. Any engine must pass `suite`, which is run against each.
use shoal_proto::v1;
use std::time::{SystemTime, UNIX_EPOCH};

pub mod memory;
pub mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Make room, then send it again; nothing of the batch was kept.
    #[error("the store is full: {0}")]
    Full(String),
    /// Record the outcome first.
    #[error("no outcome of plan `{plan_id}`{} is stored", if node_id.is_empty() { String::new() } else { format!(", node `{node_id}`,") })]
    NoOutcome {
        /// The plan.
        plan_id: String,
        /// The node, or empty.
        node_id: String,
    },
    /// Look at the disk or the file.
    #[error("the store cannot be used: {0}")]
    Broken(String),
}

/// Which outcomes an export takes.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this task or tool.
    pub name: Option<String>,
    /// Only this "name@version".
    pub model: Option<String>,
    /// Recorded here at or after, by the time that [`Store::append`] was given.
    pub after: Option<SystemTime>,
    /// Recorded here before.
    pub before: Option<SystemTime>,
}

/// A place in the store's order: by when an outcome was recorded, then by arrival. What arrives later stands behind, unless the
/// clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When, in microseconds since 1970.
    pub recorded_us: i64,
    /// The how manieth to arrive, from 1.
    pub row: u64,
}

impl Position {
    /// Before every outcome.
    pub const START: Self = Self {
        recorded_us: i64::MIN,
        row: 0,
    };
}

/// A word on a node or a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// When it was recorded.
    pub recorded: SystemTime,
    /// The word.
    pub said: v1::SubmitFeedbackRequest,
}

/// An outcome and what was said of it, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Where it stands.
    pub at: Position,
    /// The outcome.
    pub outcome: v1::Outcome,
    /// Feedback on its whole plan, and on its node. A node that fell back has two outcomes: what was said of the node is of the
    /// later one alone.
    pub feedback: Vec<Word>,
}

/// An engine. Calls block; one thread owns it.
pub trait Store: Send {
    /// Keeps every outcome that is not there yet, by `outcome_id`, as recorded at `now`. When it returns `Ok`, all of them survive a
    /// power cut.
    ///
    /// # Errors
    /// Then none of the batch was kept.
    fn append(&mut self, outcomes: &[v1::Outcome], now: SystemTime) -> Result<(), Error>;

    /// Keeps a word on a node or a plan, by `feedback_id`, as recorded at `now`; as durable as [`Store::append`].
    ///
    /// # Errors
    /// [`Error::NoOutcome`] if there is nothing that it could be about.
    fn judge(&mut self, feedback: &v1::SubmitFeedbackRequest, now: SystemTime) -> Result<(), Error>;

    /// A plan's outcomes, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn of_plan(&mut self, plan_id: &str) -> Result<Vec<v1::Outcome>, Error>;

    /// At most `rows` outcomes that pass the filter and stand after `after`, oldest first: fewer once they and what was said of them
    /// have `bytes`, and never none where there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn page(&mut self, filter: &Filter, after: Position, rows: usize, bytes: usize) -> Result<Vec<Judged>, Error>;
}

/// Microseconds since 1970; 0 for what is before.
fn micros(t: SystemTime) -> i64 {
    let since = t.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
