//! What feedback keeps of a plan, read back for a plan that this gateway does not hold.
use crate::error::Error;
use shoal_kit::{deadline, status};
use shoal_proto::v1::{self, feedback_service_client::FeedbackServiceClient};
use std::time::Duration;
use tonic::{Code, Request, Status, transport::Channel};

/// Bytes of a plan's outcomes that are read back at most: a plan of the default `[gateway] max_nodes` may have a quarter of a
/// megabyte in each. They come as one message, which is held whole.
pub(crate) const MOST_BYTES: usize = 64 << 20;

/// The way to what is stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Nobody, if no outcome is kept.
    pub(crate) feedback: Option<Channel>,
    pub(crate) most_bytes: usize,
}

impl Stored {
    /// The outcomes of a plan, oldest first; none where there is no feedback.
    ///
    /// # Errors
    /// `Away` if feedback does not answer within `patience`, `Unfit` if more is stored than is read back, else what it answers.
    pub(crate) async fn of(&self, plan_id: &str, patience: Duration) -> Result<Vec<v1::Outcome>, Error> {
        let Some(feedback) = self.feedback.clone() else {
            return Ok(Vec::new());
        };
        let mut request = Request::new(v1::ListOutcomesRequest {
            plan_id: plan_id.to_owned(),
        });
        deadline::set(&mut request, patience);
        let mut client = FeedbackServiceClient::new(feedback).max_decoding_message_size(self.most_bytes);
        let answer = tokio::time::timeout(patience, client.list_outcomes(request)).await;
        let stored = answer
            .map_err(|_| away(plan_id, "it does not answer"))?
            .map_err(|status| self.unread(plan_id, &status))?;
        Ok(stored.into_inner().outcomes)
    }

    /// Why there is no answer. Only somebody who was not heard is away: an answer that cannot be used is one.
    fn unread(&self, plan_id: &str, status: &Status) -> Error {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => away(plan_id, status.message()),
            // A connection that broke in the middle: what a server of ours says has a reason.
            Code::Unknown | Code::Cancelled if status::error_reason(status).is_none() => {
                away(plan_id, status.message())
            }
            // Our own client's word on a message past its limit.
            Code::OutOfRange => Error::Unfit {
                reason: "RECORD_TOO_LARGE",
                what: format!(
                    "feedback keeps more of plan `{plan_id}` than the {} bytes that are read back",
                    self.most_bytes
                ),
            },
            _ => {
                let mut fault = status::to_fault(status);
                fault.message = format!("feedback: {}", fault.message);
                Error::Passed(fault)
            }
        }
    }
}

fn away(plan_id: &str, what: &str) -> Error {
    Error::Away {
        what: format!("this gateway does not hold plan `{plan_id}`, and feedback cannot be asked: {what}"),
    }
}
