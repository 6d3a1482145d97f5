//! The one table from "what is wrong" to `tonic::Status` with google.rpc details, and back.
//!
//! No other file of the workspace builds a `Status` (a house rule that is a test): so a code means one thing everywhere,
//! `RetryInfo` is there whenever a retry can help, and messages are capped (long ones hang a call in tonic).
use shoal_proto::v1;
use std::{fmt, time::Duration};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// `ErrorInfo.domain` of every error of the mesh.
pub const DOMAIN: &str = "shoal";

/// Bytes of a status message. HTTP/2 header lists are 16 KiB by default, and the message travels twice (in the header, and
/// in the details), percent-encoded up to threefold: 1 KiB leaves room.
const MESSAGE_BYTES: usize = 1024;

/// Violations that a status carries; the rest are counted in the message.
pub const VIOLATIONS: usize = 16;

/// What tonic says when the timer of a `grpc-timeout` strikes, on either side of the wire.
const TIMEOUT_EXPIRED: &str = "Timeout expired";

/// One fault in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field: `plan.nodes[3].model.input`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

/// What is wrong, named for what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Mend the request: `INVALID_ARGUMENT`.
    Invalid(Vec<Violation>),
    /// Name something that exists: `NOT_FOUND`.
    NotFound {
        /// UPPER_SNAKE_CASE.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Choose another id: `ALREADY_EXISTS`.
    AlreadyExists {
        /// UPPER_SNAKE_CASE.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Change the state of the world first: `FAILED_PRECONDITION`.
    Precondition {
        /// UPPER_SNAKE_CASE.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// Come back later: `RESOURCE_EXHAUSTED` with `RetryInfo`.
    Exhausted {
        /// For people: what is full.
        message: String,
        /// When a retry may succeed.
        retry_after: Duration,
    },
    /// Give more time: `DEADLINE_EXCEEDED`.
    Expired {
        /// For people.
        message: String,
    },
    /// The caller, or someone on its behalf, gave up: `CANCELLED`.
    Cancelled {
        /// For people.
        message: String,
    },
    /// Try again, elsewhere or later: `UNAVAILABLE` with `RetryInfo`.
    Unavailable {
        /// For people.
        message: String,
        /// When a retry may succeed.
        retry_after: Duration,
    },
    /// In the contract, not in the product: `UNIMPLEMENTED`.
    NotInThisVersion {
        /// The RPC.
        what: &'static str,
    },
    /// Our fault: `INTERNAL`.
    Internal {
        /// For people.
        message: String,
    },
}

/// A single field violation.
#[must_use]
pub fn invalid(field: &str, description: impl Into<String>) -> Reason {
    Reason::Invalid(vec![Violation {
        field: field.to_owned(),
        description: description.into(),
    }])
}

impl Reason {
    /// The gRPC code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::Precondition { .. } => Code::FailedPrecondition,
            Self::Exhausted { .. } => Code::ResourceExhausted,
            Self::Expired { .. } => Code::DeadlineExceeded,
            Self::Cancelled { .. } => Code::Cancelled,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::NotInThisVersion { .. } => Code::Unimplemented,
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// `ErrorInfo.reason`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::NotFound { reason, .. } | Self::AlreadyExists { reason, .. } | Self::Precondition { reason, .. } => {
                reason
            }
            Self::Exhausted { .. } => "FULL",
            Self::Expired { .. } => "DEADLINE",
            Self::Cancelled { .. } => "CANCELLED",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::NotInThisVersion { .. } => "NOT_IN_THIS_VERSION",
            Self::Internal { .. } => "INTERNAL",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(violations) => {
                for (i, v) in violations.iter().take(VIOLATIONS).enumerate() {
                    write!(f, "{}{}: {}", if i > 0 { "; " } else { "" }, v.field, v.description)?;
                }
                if violations.len() > VIOLATIONS {
                    write!(f, "; and {} more", violations.len() - VIOLATIONS)?;
                }
                Ok(())
            }
            Self::NotFound { message, .. }
            | Self::AlreadyExists { message, .. }
            | Self::Precondition { message, .. }
            | Self::Exhausted { message, .. }
            | Self::Expired { message }
            | Self::Cancelled { message }
            | Self::Unavailable { message, .. }
            | Self::Internal { message } => f.write_str(message),
            Self::NotInThisVersion { what } => write!(f, "{what} is in the contract, but not in this version"),
        }
    }
}

impl std::error::Error for Reason {}

impl From<Reason> for Status {
    fn from(reason: Reason) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.name(), DOMAIN, std::collections::HashMap::new());
        match &reason {
            Reason::Invalid(violations) => {
                let told = violations.iter().take(VIOLATIONS);
                details.set_bad_request(
                    told.map(|v| FieldViolation::new(cap(&v.field), cap(&v.description)))
                        .collect::<Vec<_>>(),
                );
            }
            Reason::Exhausted { retry_after, .. } | Reason::Unavailable { retry_after, .. } => {
                details.set_retry_info(Some(*retry_after));
            }
            _ => {}
        }
        Status::with_error_details(reason.code(), cap(&reason.to_string()), details)
    }
}

/// The message's first kibibyte, cut at a character.
fn cap(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES {
        return message.to_owned();
    }
    format!("{}...", &message[..message.floor_char_boundary(MESSAGE_BYTES)])
}

/// The longest wait that a sender is believed. Who says more is wrong or means harm, and who waits for it has a deadline before that.
const LONGEST: Duration = Duration::from_secs(3600);

/// When the sender said that a retry may succeed: an hour at most.
#[must_use]
pub fn retry_after(status: &Status) -> Option<Duration> {
    let told = status.get_details_retry_info()?.retry_delay;
    told.map(|told| told.min(LONGEST))
}

/// `ErrorInfo.reason`, if the status carries one.
#[must_use]
pub fn error_reason(status: &Status) -> Option<String> {
    Some(status.get_details_error_info()?.reason)
}

/// Whether the timer of a `grpc-timeout` made this status, on our side of the wire: tonic's channel reads what we send, and strikes a rounding
/// error before a timer of ours would.
#[must_use]
pub fn timer_struck(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        if inner.is::<tonic::TimeoutExpired>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// Whether a status says that time has run out, whosever clock it was. A callee's tonic says CANCELLED when its own timer strikes first.
#[must_use]
pub fn says_timeout(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || (status.code() == Code::Cancelled && status.message() == TIMEOUT_EXPIRED)
}

/// The code's name as the gRPC specification writes it; `UNKNOWN` for numbers that it does not know.
#[must_use]
pub fn code_name(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|i| NAMES.get(i))
        .copied()
        .unwrap_or("UNKNOWN")
}

/// A status as a value inside an event or an outcome.
#[must_use]
pub fn to_fault(status: &Status) -> v1::Fault {
    let code = status.code() as i32;
    let reason = error_reason(status).unwrap_or_else(|| code_name(code).to_owned());
    v1::Fault {
        code,
        reason,
        message: cap(status.message()),
    }
}

/// A reason as a value inside an event or an outcome.
#[must_use]
pub fn fault(reason: &Reason) -> v1::Fault {
    v1::Fault {
        code: reason.code() as i32,
        reason: reason.name().to_owned(),
        message: cap(&reason.to_string()),
    }
}

/// A fault as the status of the call that reports it.
#[must_use]
pub fn from_fault(fault: &v1::Fault) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(&fault.reason, DOMAIN, std::collections::HashMap::new());
    if matches!(Code::from(fault.code), Code::ResourceExhausted | Code::Unavailable) {
        // The fault has lost its own delay: a second is the order of a queue's or a restart's time.
        details.set_retry_info(Some(Duration::from_secs(1)));
    }
    Status::with_error_details(Code::from(fault.code), cap(&fault.message), details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_reaches_the_caller_with_its_field() {
        let violations = (0..3).map(|i| Violation {
            field: format!("nodes[{i}].id"),
            description: "taken".into(),
        });
        let status = Status::from(Reason::Invalid(violations.collect()));
        let told = status.get_details_bad_request().expect("bad request").field_violations;
        assert_eq!(
            told.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(),
            ["nodes[0].id", "nodes[1].id", "nodes[2].id"]
        );
        assert!(status.message().contains("nodes[2].id: taken"));
    }

    #[test]
    fn ten_thousand_violations_and_a_long_message_stay_small_on_the_wire() {
        let violations = (0..10_000).map(|_| Violation {
            field: "x".repeat(5000),
            description: "\u{e9}".repeat(5000),
        });
        let status = Status::from(Reason::Invalid(violations.collect()));
        assert!(status.message().len() <= MESSAGE_BYTES + 3);
        assert!(status.details().len() < 40_000, "{}", status.details().len());
    }

    #[test]
    fn what_is_full_says_when_to_come_back() {
        let status = Status::from(Reason::Exhausted {
            message: "queue is full".into(),
            retry_after: Duration::from_millis(250),
        });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(retry_after(&status), Some(Duration::from_millis(250)));
        assert_eq!(error_reason(&status).as_deref(), Some("FULL"));
        // Ten thousand years, the most that the details carry.
        let never = Status::from(Reason::Exhausted {
            message: String::new(),
            retry_after: Duration::MAX,
        });
        assert_eq!(retry_after(&never), Some(LONGEST));
    }

    #[test]
    fn a_fault_keeps_code_and_reason_through_both_conversions() {
        let status = Status::from(Reason::NotFound {
            reason: "TOOL_UNKNOWN",
            message: "no tool `X.Y`".into(),
        });
        let back = from_fault(&to_fault(&status));
        assert_eq!(
            (back.code(), error_reason(&back).as_deref()),
            (Code::NotFound, Some("TOOL_UNKNOWN"))
        );
        assert_eq!(code_name(99), "UNKNOWN");
    }
}
