//! What keeps outcomes. Any engine must pass `suite`, which is run against each.
use shoal_proto::v1;
use std::time::SystemTime;

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
    /// Recorded at or after.
    pub after: Option<SystemTime>,
    /// Recorded before.
    pub before: Option<SystemTime>,
}

/// An outcome and what was said of it, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Position in the store's order of arrival, from 1.
    pub row: u64,
    /// The outcome.
    pub outcome: v1::Outcome,
    /// Feedback on its node, and on its whole plan.
    pub feedback: Vec<v1::SubmitFeedbackRequest>,
}

/// An engine. Calls block; one thread owns it.
pub trait Store: Send {
    /// Keeps every outcome that is not there yet, by `outcome_id`. When it returns `Ok`, all of them survive a power cut.
    ///
    /// # Errors
    /// Then none of the batch was kept.
    fn append(&mut self, outcomes: &[v1::Outcome]) -> Result<(), Error>;

    /// Keeps a word on a node or a plan, by `feedback_id`; as durable as [`Store::append`].
    ///
    /// # Errors
    /// [`Error::NoOutcome`] if there is nothing that it could be about.
    fn judge(&mut self, feedback: &v1::SubmitFeedbackRequest) -> Result<(), Error>;

    /// A plan's outcomes, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn of_plan(&mut self, plan_id: &str) -> Result<Vec<v1::Outcome>, Error>;

    /// At most `limit` outcomes that pass the filter, of rows after `row`, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn page(&mut self, filter: &Filter, row: u64, limit: usize) -> Result<Vec<Judged>, Error>;
}
