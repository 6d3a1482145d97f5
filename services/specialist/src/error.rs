//! What a call can end with, named for what the caller can do; [`shoal_kit::status`] turns it into a gRPC status.
use shoal_kit::status::{self, Reason};
use std::time::Duration;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Mend the request. A retry cannot help.
    #[error("{field}: {description}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What is wrong and what would be right.
        description: String,
    },
    /// Ask another model. A retry cannot help.
    #[error("{message}")]
    Unsupported {
        /// What this model does and what it does not.
        message: String,
    },
    /// No such model here.
    #[error("{message}")]
    Unknown {
        /// What was asked for and what there is.
        message: String,
    },
    /// The admission queue is full. Retryable.
    #[error(
        "the queue is full: {waiting_tokens} prompt tokens wait, and {queue_tokens} may ([specialist] queue_tokens)"
    )]
    Busy {
        /// Prompt tokens waiting.
        waiting_tokens: usize,
        /// How many may.
        queue_tokens: usize,
        /// When a retry may succeed.
        retry_after: Duration,
    },
    /// The deadline passed. Give more time.
    #[error("the deadline passed after {generated} generated tokens")]
    Expired {
        /// Tokens generated until then.
        generated: usize,
    },
    /// The process is shutting down. Retryable elsewhere.
    #[error("the specialist is shutting down")]
    Closing,
    /// The model or the runtime broke. Ours to mend.
    #[error("{message}")]
    Broken {
        /// What happened.
        message: String,
    },
}

impl Error {
    /// A fault of one field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            description: description.into(),
        }
    }
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid { field, description } => status::invalid(&field, description),
            Error::Unsupported { .. } => Self::Precondition {
                reason: "KIND_MISMATCH",
                message,
            },
            Error::Unknown { .. } => Self::NotFound {
                reason: "MODEL_UNKNOWN",
                message,
            },
            Error::Busy { retry_after, .. } => Self::Exhausted { message, retry_after },
            Error::Expired { .. } => Self::Expired { message },
            Error::Closing => Self::Unavailable {
                message,
                retry_after: Duration::from_secs(1),
            },
            Error::Broken { .. } => Self::Internal { message },
        }
    }
}

/// The one way from here to a gRPC status.
pub(crate) fn refuse(error: Error) -> tonic::Status {
    Reason::from(error).into()
}
