//! The HTTP door's connections: taken, bounded while they are read, and let end.
//!
//! `axum::serve` gives hyper no timer, and hyper without one waits for a request's head for ever. So the loop is ours, over the same
//! parts. Nothing here bounds an answer: a completion may take as long as its plan's deadline says, and a stream of events longer.
use super::MAX_REQUEST_BYTES;
use crate::task;
use axum::{
    Json, Router,
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request, rejection::JsonRejection},
    http::StatusCode,
    serve::{Listener, ListenerExt as _},
};
use futures::StreamExt as _;
use http_body::{Frame, SizeHint};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use serde::de::DeserializeOwned;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How long a request's head may take: it is a few KiB, which any client sends in one go. It counts from the end of the answer
/// before, so it is also how long an idle connection is kept: a client that pools connections should keep them for less.
pub const HEAD: Duration = Duration::from_secs(30);

/// How long a request's body may take, all of it: 16 MiB in this time are 4.5 Mbit/s, and a prompt of some KiB comes over any
/// line. All of it, and not the pause between two pieces: a byte every now and then would hold a connection for ever.
pub const BODY: Duration = Duration::from_secs(30);

/// Serves until `shutdown`, then until the answers under way have ended.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let mut listener = undelayed(listener);
    let connections = GracefulShutdown::new();
    loop {
        let io = tokio::select! {
            (io, _) = listener.accept() => io,
            () = shutdown.cancelled() => break,
        };
        let connection = connection(io, router.clone());
        let connection = connections.watch(connection);
        task::spawn("http connection", async move {
            if let Err(error) = connection.await {
                debug!(%error, "an http connection broke");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Small answers leave at once: with Nagle's algorithm an event waits 40 ms for the ACK of the one before.
fn undelayed(listener: TcpListener) -> impl Listener<Io = TcpStream> {
    listener.tap_io(|io| {
        if let Err(error) = io.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
    })
}

/// HTTP/1 alone: what the door offers, and what has no preface that could be waited for without a bound.
fn connection<I>(
    io: I,
    router: Router,
) -> auto::Connection<'static, TokioIo<I>, TowerToHyperService<Router>, TokioExecutor>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
        .into_owned()
}

/// A request's JSON body, read within [`BODY`]. What every route that takes a body takes it with.
#[derive(Debug)]
pub struct Posted<T>(pub T);

/// Why there is no body.
#[derive(Debug)]
pub enum Unread {
    /// It did not come in time.
    Slow,
    /// It came, and is none that can be read.
    Rejected(JsonRejection),
}

impl Unread {
    /// 408 for one that did not come, 413 for one that is too large, 400 for the rest.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Rejected(why) if why.status() == StatusCode::PAYLOAD_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Rejected(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// For people.
    #[must_use]
    pub fn said(&self) -> String {
        match self {
            Self::Slow => format!("it did not arrive within {BODY:?}"),
            Self::Rejected(why) => why.body_text(),
        }
    }
}

impl axum::response::IntoResponse for Unread {
    fn into_response(self) -> axum::response::Response {
        (self.status(), self.said()).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Posted<T> {
    type Rejection = Unread;

    async fn from_request(request: Request, state: &S) -> Result<Self, Unread> {
        let (lent, mut rest) = Lent::of(request);
        let read = tokio::time::timeout(BODY, Json::<T>::from_request(lent, state)).await;
        let why = match read {
            Ok(Ok(Json(body))) => return Ok(Self(body)),
            Ok(Err(why)) => Unread::Rejected(why),
            Err(_) => return Err(Unread::Slow),
        };
        if why.status() == StatusCode::PAYLOAD_TOO_LARGE
            && let Ok(rest) = rest.try_recv()
        {
            task::spawn("rest of a body", tokio::time::timeout(BODY, discard(rest)));
        }
        Err(why)
    }
}

/// A request's body that comes back when its reader is done with it.
///
/// A connection that closes with bytes unread is reset, and a reset may overtake the answer that says why: what is too large is
/// read to its end and dropped, up to [`MAX_REQUEST_BYTES`] and for [`BODY`], so that a client that sent it all reads its 413.
struct Lent {
    body: Option<Body>,
    back: Option<oneshot::Sender<Body>>,
}

impl Lent {
    fn of(request: Request) -> (Request, oneshot::Receiver<Body>) {
        let (back, rest) = oneshot::channel();
        let lend = |body| {
            Body::new(Self {
                body: Some(body),
                back: Some(back),
            })
        };
        (request.map(lend), rest)
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        Pin::new(body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take()) {
            // Nobody waits for the rest of a body that was read: then it is dropped here.
            drop(back.send(body));
        }
    }
}

/// Reads and drops.
async fn discard(body: Body) {
    let mut frames = body.into_data_stream();
    let mut left = MAX_REQUEST_BYTES;
    while let Some(Ok(data)) = frames.next().await {
        match left.checked_sub(data.len()) {
            Some(rest) => left = rest,
            None => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        response::sse::{Event, Sse},
        routing::{get, post},
    };
    use futures::stream;
    use std::convert::Infallible;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        time::Instant,
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// The client's end of a connection to a router with one route of each kind.
    fn connect() -> DuplexStream {
        let events = || {
            let told = stream::iter(0..4).then(|n| async move {
                tokio::time::sleep(HEAD + BODY).await;
                Ok::<_, Infallible>(Event::default().data(format!("event {n}")))
            });
            async move { Sse::new(told) }
        };
        let router = Router::new()
            .route("/posted", post(async |Posted(_): Posted<serde_json::Value>| "read"))
            .route("/events", get(events));
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        task::spawn("connection under test", connection(theirs, router));
        ours
    }

    /// Sends `head`, then a byte each `pause`, until the other side ends; what it said, and how long it took.
    async fn trickle(head: &str, pause: Duration) -> (String, Duration) {
        let began = Instant::now();
        let (mut read, mut write) = tokio::io::split(connect());
        write.write_all(head.as_bytes()).await.expect("sent");
        let trickling = async {
            loop {
                tokio::time::sleep(pause).await;
                if write.write_all(b"x").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut said = String::new();
        tokio::select! {
            read = read.read_to_string(&mut said) => drop(read),
            () = trickling => {}
            () = tokio::time::sleep(HEAD * 100) => panic!("the connection is held: {said}"),
        }
        (said, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_or_comes_slowly_ends_the_connection() {
        for head in ["", "GET /events HTTP/1.1\r\nhost: x\r\nslow: "] {
            let (said, took) = trickle(head, SECOND).await;
            assert!(
                said.is_empty() && took <= HEAD + SECOND,
                "{head:?}: {said:?} after {took:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_or_comes_slowly_is_answered_408() {
        let head =
            "POST /posted HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n";
        for pause in [SECOND, BODY / 2, BODY * 10] {
            let (said, took) = trickle(head, pause).await;
            assert!(said.starts_with("HTTP/1.1 408 "), "{said:?}");
            assert!(took <= BODY + SECOND, "{took:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_read_to_its_end_so_that_its_answer_arrives() {
        // Longer than what a reset connection's other side would have taken into its buffers.
        let length = 8 << 20;
        let head = format!(
            "POST /posted HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut client = connect();
        client.write_all(head.as_bytes()).await.expect("sent");
        client
            .write_all(&vec![b'x'; length])
            .await
            .expect("all of it was taken");
        let mut said = String::new();
        client.read_to_string(&mut said).await.expect("told");
        assert!(said.starts_with("HTTP/1.1 413 "), "{said:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_events_is_cut_by_neither_bound() {
        let mut client = connect();
        let request = b"GET /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.expect("sent");
        let mut said = String::new();
        client.read_to_string(&mut said).await.expect("told");
        assert!(said.contains("event 0") && said.contains("event 3"), "{said}");
    }

    #[tokio::test]
    async fn a_connection_that_was_taken_does_not_delay_what_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let mut listener = undelayed(listener);
        let (client, (io, _)) = tokio::join!(TcpStream::connect(address), listener.accept());
        assert!(client.is_ok() && io.nodelay().expect("an option"));
    }
}
