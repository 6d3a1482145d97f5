//! What the gateway refuses or fails with, named for what the caller can do, and the one way from there to the wire.
use shoal_kit::status::{self, Reason, Violation};
use shoal_proto::v1;
use std::time::Duration;
use tonic::{Code, Status};

/// Why there is no plan, no answer or no node's output.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Mend the request; a retry cannot help. Every breach at once.
    #[error("{}", Reason::Invalid(.0.clone()))]
    Invalid(Vec<Violation>),
    /// Name a plan that this gateway or the feedback store knows.
    #[error(
        "no plan `{plan_id}`: it never was, or it is forgotten ([gateway] plans_kept) and no outcome of it is stored"
    )]
    PlanUnknown {
        /// As asked.
        plan_id: String,
    },
    /// Ask for what is stored of it instead.
    #[error(
        "the events of plan `{plan_id}` are not here: it never was, or they are forgotten ([gateway] plans_kept); GetPlan has what is stored of it"
    )]
    EventsUnknown {
        /// As asked.
        plan_id: String,
    },
    /// Choose another id, or send what was sent under it.
    #[error("plan_id `{plan_id}` is taken by {by}; choose another, or leave it out")]
    PlanTaken {
        /// As asked.
        plan_id: String,
        /// By what.
        by: &'static str,
    },
    /// Come back later: retryable.
    #[error("{what}")]
    Full {
        /// What is full, and which key sets its size.
        what: String,
        /// When a retry may succeed.
        retry_after: Duration,
    },
    /// Try again, elsewhere or later: retryable.
    #[error("{what}")]
    Away {
        /// Who cannot be reached.
        what: String,
    },
    /// Give more time.
    #[error("{what}")]
    Expired {
        /// What ran out.
        what: String,
    },
    /// Somebody gave up.
    #[error("{why}")]
    Cancelled {
        /// Who, and why.
        why: String,
    },
    /// Ask another planner, or write the plan yourself.
    #[error("the planner's text is no plan: {why}; it wrote: {text}")]
    Garbled {
        /// Line, column and what was expected.
        why: String,
        /// What the planner wrote.
        text: String,
    },
    /// The answer breaks its schema, whoever was asked.
    #[error("{what}")]
    OutputInvalid {
        /// Where and how.
        what: String,
    },
    /// Change something first: the configuration, the plan, the tool.
    #[error("{what}")]
    Unfit {
        /// UPPER_SNAKE_CASE.
        reason: &'static str,
        /// What, and what to do.
        what: String,
    },
    /// In the contract, not in the product.
    #[error("{0} is in the contract, but not in this version")]
    NotInThisVersion(&'static str),
    /// Ours to mend.
    #[error("{what}")]
    Broken {
        /// What happened.
        what: String,
    },
    /// Somebody else's error, passed on with its code and reason.
    #[error("{}", .0.message)]
    Passed(v1::Fault),
}

impl Error {
    /// One breach.
    pub(crate) fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation {
            field: field.into(),
            description: description.into(),
        }])
    }

    /// As a value inside an event or an outcome.
    #[must_use]
    pub fn fault(&self) -> v1::Fault {
        match self.reason() {
            Ok(reason) => status::fault(&reason),
            Err(passed) => passed.clone(),
        }
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Away { .. } => true,
            Self::Passed(fault) => matches!(Code::from(fault.code), Code::Unavailable | Code::ResourceExhausted),
            _ => false,
        }
    }

    /// The total mapping: a reason of the house's table, or the fault that is passed on.
    fn reason(&self) -> Result<Reason, &v1::Fault> {
        let message = self.to_string();
        Ok(match self {
            Self::Invalid(violations) => Reason::Invalid(violations.clone()),
            Self::PlanUnknown { .. } => Reason::NotFound {
                reason: "PLAN_UNKNOWN",
                message,
            },
            Self::EventsUnknown { .. } => Reason::NotFound {
                reason: "EVENTS_UNKNOWN",
                message,
            },
            Self::PlanTaken { .. } => Reason::AlreadyExists {
                reason: "PLAN_ID_TAKEN",
                message,
            },
            Self::Full { retry_after, .. } => Reason::Exhausted {
                message,
                retry_after: *retry_after,
            },
            Self::Away { .. } => Reason::Unavailable {
                message,
                retry_after: RETRY,
            },
            Self::Expired { .. } => Reason::Expired { message },
            Self::Cancelled { .. } => Reason::Cancelled { message },
            Self::Garbled { .. } => Reason::Precondition {
                reason: "PLAN_TEXT_GARBLED",
                message,
            },
            Self::OutputInvalid { .. } => Reason::Precondition {
                reason: "OUTPUT_INVALID",
                message,
            },
            Self::Unfit { reason, .. } => Reason::Precondition { reason, message },
            Self::NotInThisVersion(what) => Reason::NotInThisVersion { what },
            Self::Broken { .. } => Reason::Internal { message },
            Self::Passed(fault) => return Err(fault),
        })
    }
}

/// When to come back to a peer that is away: about a process's restart.
const RETRY: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error.reason() {
            Ok(reason) => reason.into(),
            Err(passed) => status::from_fault(passed),
        }
    }
}

impl From<Reason> for Error {
    /// What the house refuses before this crate sees it: a malformed timeout, a server that leaves.
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Invalid(violations) => Self::Invalid(violations),
            other => Self::Passed(status::fault(&other)),
        }
    }
}

impl From<shoal_stack::Error> for Error {
    fn from(error: shoal_stack::Error) -> Self {
        use shoal_stack::Error as Stack;
        let what = error.to_string();
        match error {
            Stack::Shed { .. } => Self::Full {
                what: format!("{what} (max_in_flight)"),
                retry_after: RETRY,
            },
            Stack::Expired => Self::Expired { what },
            Stack::NoEndpoint { .. } => Self::Away { what },
            Stack::Attempt { .. } => Self::Expired { what },
            Stack::Call { address, status } => {
                let mut fault = status::to_fault(&status);
                fault.message = format!("{address}: {}", fault.message);
                Self::Passed(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callees_code_and_reason_come_through_and_its_address_is_named() {
        let said = Status::from(Reason::NotFound {
            reason: "NO_MATCH",
            message: "nothing fits".into(),
        });
        let fault = Error::from(shoal_stack::Error::call(&"10.0.0.7:1".into(), said)).fault();
        assert_eq!(
            (fault.code, fault.reason.as_str(), fault.message.as_str()),
            (Code::NotFound as i32, "NO_MATCH", "10.0.0.7:1: nothing fits")
        );
        let status = Status::from(Error::Passed(fault));
        assert_eq!(status::error_reason(&status).as_deref(), Some("NO_MATCH"));
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        for error in [
            Error::Away { what: "x".into() },
            Error::Full {
                what: "x".into(),
                retry_after: RETRY,
            },
        ] {
            assert!(error.retryable());
            assert!(status::retry_after(&Status::from(error)).is_some());
        }
        assert!(!Error::invalid("f", "d").retryable());
    }
}
