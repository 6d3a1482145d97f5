//! What tonic itself says of a message that it cannot read, in the house's words: text that is not UTF-8, a message that is too
//! large. tonic calls them INTERNAL and OUT_OF_RANGE; they are the caller's to mend, so they are INVALID_ARGUMENT like every other
//! fault of a request.
use crate::status::{self, Reason};
use http::Response;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

/// The reason, if that status is tonic's word for a message that it cannot read. Statuses of our own carry details; those do not.
#[must_use]
pub fn unreadable(status: &Status) -> Option<Reason> {
    if !status.details().is_empty() {
        return None;
    }
    let said = status.message();
    let what = match status.code() {
        Code::Internal if said.contains("failed to decode Protobuf") => {
            format!("cannot be read: {said}; text must be UTF-8")
        }
        Code::OutOfRange if said.contains("message length too large") => format!("is too large: {said}"),
        _ => return None,
    };
    Some(status::invalid("message", what))
}

/// Mends answers that say so in their headers, as answers do whose request was never handled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UnreadableLayer;

impl<S> Layer<S> for UnreadableLayer {
    type Service = Unreadable<S>;
    fn layer(&self, inner: S) -> Unreadable<S> {
        Unreadable { inner }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub(super) struct Unreadable<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for Unreadable<S>
where
    S: Service<http::Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            let told = Status::from_header_map(response.headers())
                .as_ref()
                .and_then(unreadable);
            Ok(match told {
                Some(reason) => Status::from(reason).into_http(),
                None => response,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tonics_own_words_are_read_so() {
        let ours = Status::from(Reason::Internal {
            message: "failed to decode Protobuf message".into(),
        });
        assert_eq!(unreadable(&ours), None);
        let theirs = status::from_fault(&status::fault(&Reason::Cancelled { message: "x".into() }));
        assert_eq!(unreadable(&theirs), None);
    }
}
