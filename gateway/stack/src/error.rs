//! Why a call did not succeed. One enum for the whole stack, so that mapping it to the wire is one total function.
use shoal_kit::status::{says_timeout, timer_struck};
use std::{error::Error as _, sync::Arc, time::Duration};
use tonic::Code;

/// How much earlier than ours a callee's clock may strike: a rounded `grpc-timeout`, and the way back.
const MARGIN: Duration = Duration::from_millis(20);

/// Named for what the layer above can do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Too many calls are open to the target; come back later.
    #[error("{target} is at its concurrency limit")]
    Shed {
        /// Which target.
        target: Arc<str>,
    },
    /// The call's deadline is over; nothing more can be tried.
    #[error("the deadline ran out")]
    Expired,
    /// No endpoint may be called: none is known, or every breaker is open.
    #[error("no endpoint of {target} can be called ({known} known)")]
    NoEndpoint {
        /// Which target.
        target: Arc<str>,
        /// How many there are, all of them broken off.
        known: usize,
    },
    /// One attempt took longer than an attempt may.
    #[error("{address} did not answer within {after:?}")]
    Attempt {
        /// Where.
        address: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// The callee answered with an error, or the connection broke.
    #[error("{address}: {status}")]
    Call {
        /// Where.
        address: Arc<str>,
        /// What it said.
        status: Arc<tonic::Status>,
    },
}

impl Error {
    /// A callee's answer.
    #[must_use]
    pub fn call(address: &Arc<str>, status: tonic::Status) -> Self {
        Self::Call {
            address: address.clone(),
            status: Arc::new(status),
        }
    }

    /// Whether another attempt, perhaps elsewhere, may succeed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Attempt { .. } | Self::NoEndpoint { .. } => true,
            Self::Call { status, .. } => {
                matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) || transport(status)
            }
            Self::Shed { .. } | Self::Expired => false,
        }
    }

    /// When to come back to a callee that is full and has said so: it has done nothing of the call.
    #[must_use]
    pub fn full(&self) -> Option<Duration> {
        match self {
            Self::Call { status, .. } if status.code() == Code::ResourceExhausted => {
                // No time is what one says who cannot tell.
                shoal_kit::status::retry_after(status).filter(|told| !told.is_zero())
            }
            _ => None,
        }
    }

    /// Whether the time that the callee was given is over: told by our side of the wire, or, at the very end of that time, by the
    /// callee. A callee that says so earlier speaks of a deadline of its own, which is an answer.
    #[must_use]
    pub(crate) fn timed_out(&self, left: Duration) -> bool {
        match self {
            Self::Call { status, .. } => timer_struck(status) || (says_timeout(status) && left < MARGIN),
            _ => false,
        }
    }

    /// Whether it speaks against the endpoint: what a breaker counts and a balancer penalises. A request that is refused as
    /// wrong says nothing about who refused it.
    #[must_use]
    pub fn endpoint_fault(&self) -> bool {
        match self {
            Self::Attempt { .. } => true,
            Self::Call { status, .. } => {
                matches!(
                    status.code(),
                    Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss
                ) || transport(status)
            }
            Self::Shed { .. } | Self::Expired | Self::NoEndpoint { .. } => false,
        }
    }
}

/// A status that the callee sent has no source; one that tonic made of a broken connection has.
fn transport(status: &tonic::Status) -> bool {
    status.source().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::status::{Reason, from_fault};

    fn call(status: tonic::Status) -> Error {
        Error::call(&"a".into(), status)
    }

    #[test]
    fn a_callees_clock_counts_as_ours_at_the_very_end_only() {
        let said = |message: &str| {
            let fault = shoal_proto::v1::Fault {
                code: Code::Cancelled as i32,
                message: message.into(),
                ..shoal_proto::v1::Fault::default()
            };
            call(from_fault(&fault))
        };
        assert!(said("Timeout expired").timed_out(Duration::ZERO));
        assert!(!said("Timeout expired").timed_out(MARGIN * 2));
        assert!(!said("somebody gave up").timed_out(Duration::ZERO));
    }

    #[test]
    fn only_who_says_when_to_come_back_is_waited_for() {
        let full = |retry_after| {
            let message = "full".to_owned();
            call(Reason::Exhausted { message, retry_after }.into()).full()
        };
        assert_eq!(full(MARGIN), Some(MARGIN));
        assert_eq!(full(Duration::ZERO), None);
    }
}
