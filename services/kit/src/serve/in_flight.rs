//! How many calls a process is answering: from the request's arrival to the end of its response's body, so that a stream
//! counts for as long as it flows. What asks about the process (health, reflection, status) is not work and not counted.
use http_body::{Body, Frame, SizeHint};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};
use tower::{Layer, Service};

/// The count.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<AtomicU64>);

impl InFlight {
    /// Calls being answered now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The counter itself, for whoever reports it.
    #[must_use]
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.0.clone()
    }

    fn enter(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.0.clone())
    }
}

/// One call's share of the count, given back on drop: an abandoned call is never counted for ever.
#[derive(Debug)]
struct Held(Arc<AtomicU64>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts what passes.
#[derive(Debug, Clone)]
pub struct InFlightLayer(InFlight);

impl InFlightLayer {
    /// Counts into `count`.
    #[must_use]
    pub fn new(count: InFlight) -> Self {
        Self(count)
    }
}

impl<S> Layer<S> for InFlightLayer {
    type Service = Counted<S>;
    fn layer(&self, inner: S) -> Self::Service {
        Counted {
            inner,
            count: self.0.clone(),
        }
    }
}

/// The middleware.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    count: InFlight,
}

impl<S, B, R> Service<http::Request<B>> for Counted<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<CountedBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let path = request.uri().path();
        let work = !path.starts_with("/grpc.") && !path.starts_with("/shoal.v1.MeshService/");
        let held = work.then(|| self.count.enter());
        let response = self.inner.call(request);
        Box::pin(async move {
            Ok(response.await?.map(|inner| CountedBody {
                inner: Box::pin(inner),
                held,
            }))
        })
    }
}

/// A body that holds the call's share until its end.
#[derive(Debug)]
pub struct CountedBody<B> {
    inner: Pin<Box<B>>,
    held: Option<Held>,
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(self.inner.as_mut().poll_frame(cx));
        if frame.is_none() {
            self.held = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
