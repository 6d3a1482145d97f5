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
    /// A queue is full. Retryable.
    #[error("{message}")]
    Busy {
        /// What waits, and how much may.
        message: String,
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
    /// The admission queue is full, as `message` says.
    pub(crate) fn queue_full(waiting_tokens: usize, message: String) -> Self {
        // Prefill of a small model on one core is of the order of 5,000 tokens a second (1,200 to 9,000 were
        // measured on models of 5 to 28 million parameters).
        let seconds = (waiting_tokens as f64 / 5000.0).clamp(0.05, 5.0);
        Self::Busy {
            message,
            retry_after: Duration::from_secs_f64(seconds),
        }
    }

    /// A fault of one field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// What kit finds wrong with a request.
impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Invalid(mut violations) if violations.len() == 1 => {
                let violation = violations.remove(0);
                Self::invalid(violation.field, violation.description)
            }
            other => Self::invalid("request", other.to_string()),
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
