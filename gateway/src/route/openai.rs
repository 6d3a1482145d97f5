//! A question on the wire to an OpenAI-compatible endpoint: `POST {base_url}/chat/completions`.
use super::{
    lost::Attempt,
    question::{Question, Said, Sink},
};
use crate::telemetry;
use bytes::{Buf as _, Bytes};
use eventsource_stream::{EventStreamError, Eventsource as _};
use futures::{Stream, StreamExt as _, future::BoxFuture};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use shoal_kit::{config, propagate, resolve::host_and_port, status::Reason, telemetry::names};
use shoal_stack::{Call, Error};
use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tonic::Status;
use tower::Service;
use tracing::{Instrument as _, Span, field::Empty, info_span};

mod body;
mod refusal;
mod streamed;

use streamed::{Broken, Streamed};

/// Bytes of an answer at most. A context of a hundred thousand tokens is half a megabyte.
const ANSWER_BYTES: usize = 8 << 20;

/// Bytes between two events at most: one carries a token or some, in a few hundred. They are read again whenever more of them come, so that a
/// hostile one of many megabytes would hold up whoever reads.
const EVENT_BYTES: usize = 1 << 20;

/// How long the end of a body may come behind the end of its answer, for the connection to be used again.
const LAST_BYTES: Duration = Duration::from_millis(10);

/// An endpoint. It shows neither its key nor what it was asked.
#[derive(Clone)]
pub(crate) struct OpenAi {
    /// "host:port": what decisions and breakers call it.
    pub(crate) address: Arc<str>,
    url: Arc<str>,
    model: Arc<str>,
    key: Option<Key>,
    price: (f64, f64),
    /// Whether answers come in pieces where somebody hears them.
    stream: bool,
    client: reqwest::Client,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("url", &self.url)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// An API key: sent, and never said.
#[derive(Clone)]
struct Key(Arc<str>);

impl OpenAi {
    pub(crate) fn new(config: &config::Endpoint, key: Option<String>, client: reqwest::Client) -> Self {
        let base = config.base_url.trim_end_matches('/');
        let address = host_and_port(base).map_or_else(|| base.to_owned(), |(host, port)| format!("{host}:{port}"));
        Self {
            address: address.into(),
            url: format!("{base}/chat/completions").into(),
            model: config.model.as_str().into(),
            key: key.map(|k| Key(k.into())),
            price: (
                config.input_usd_per_million_tokens,
                config.output_usd_per_million_tokens,
            ),
            stream: config.stream,
            client,
        }
    }

    async fn ask(self, question: Arc<Question>, heard: Arc<AtomicBool>) -> Result<Said, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        propagate::inject_headers(&mut headers);
        if let Some(Key(key)) = &self.key {
            let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| Reason::Precondition {
                reason: "API_KEY_MALFORMED",
                message: "the API key holds characters that no header may hold ([endpoint] api_key_env)".into(),
            })?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let sink = question.sink.as_ref().filter(|_| self.stream);
        if let Some(sink) = &question.sink {
            sink.begin();
        }
        let body = body::request(&question, &self.model, sink.is_some()).to_string();
        // Without a time of its own: who calls has one, ends with it, and says so.
        let sent = self.client.post(&*self.url).headers(headers).body(body).send().await;
        let response = sent.map_err(|e| refusal::transport(&e))?;
        let (code, retry_after) = (response.status(), refusal::retry_after(response.headers()));
        let said = match sink.filter(|_| code.is_success() && in_pieces(response.headers())) {
            Some(sink) => {
                let mut attempt = question.lost.attempt();
                let said = self.heard_in_pieces(response, &**sink, &heard, &mut attempt).await?;
                attempt.whole();
                said
            }
            None => {
                let (mut bytes, mut pieces) = (Vec::new(), pin!(pieces(response)));
                while let Some(piece) = pieces.next().await {
                    bytes.extend_from_slice(&piece?);
                    if bytes.len() > ANSWER_BYTES {
                        let told = format!("its answer is larger than {ANSWER_BYTES} bytes");
                        return Err(refusal::nonsense(&told));
                    }
                }
                if !code.is_success() {
                    return Err(refusal::status(
                        code,
                        retry_after,
                        &refusal::message(&bytes, self.key()),
                    ));
                }
                // One that was asked for pieces and answers whole is heard at its end.
                body::response(&bytes, self.price).map_err(|why| refusal::nonsense(&why))?
            }
        };
        let span = Span::current();
        span.record(names::GEN_AI_RESPONSE_MODEL, said.model.as_str());
        if let Some(usage) = &said.usage {
            span.record(names::GEN_AI_INPUT_TOKENS, usage.input_tokens);
            span.record(names::GEN_AI_OUTPUT_TOKENS, usage.output_tokens);
        }
        Ok(said)
    }

    /// An answer as it comes.
    async fn heard_in_pieces(
        &self,
        response: reqwest::Response,
        sink: &dyn Sink,
        heard: &AtomicBool,
        attempt: &mut Attempt<'_>,
    ) -> Result<Said, Status> {
        let waiting = AtomicUsize::new(0);
        let mut events = pin!(readable(pieces(response), &waiting).eventsource());
        let mut answer = Streamed::default();
        let broken = |why: Broken, told: &str| match why {
            Broken::Nonsense(why) => refusal::nonsense(&why),
            Broken::Failed(code) => refusal::broke_off(code, &refusal::message(told.as_bytes(), self.key())),
            Broken::Cut => refusal::broke_off(None, "it ended before it said why"),
        };
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                // What broke is not the answer.
                Err(_) if answer.is_whole() => break,
                Err(EventStreamError::Transport(status)) => return Err(status),
                Err(other) => {
                    let told = format!("its answer is no stream of events: {other}");
                    return Err(refusal::nonsense(&told));
                }
            };
            waiting.store(0, Ordering::Relaxed);
            heard.store(true, Ordering::Relaxed);
            let text = answer.take(&event.data).map_err(|why| broken(why, &event.data))?;
            attempt.says(text.len());
            if !text.is_empty() {
                sink.delta(&text);
            }
            if answer.is_done() {
                // A body that is dropped before its end takes the connection along.
                let _ = tokio::time::timeout(LAST_BYTES, events.next()).await;
                break;
            }
        }
        answer.said(self.price).map_err(|why| broken(why, ""))
    }

    fn key(&self) -> Option<&str> {
        self.key.as_ref().map(|Key(key)| &**key)
    }
}

/// Whether an answer is a stream of events.
fn in_pieces(headers: &HeaderMap) -> bool {
    const KIND: &str = "text/event-stream";
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let begins = kind.and_then(|kind| kind.trim_start().get(..KIND.len()));
    begins.is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

/// The bytes of a body.
fn pieces(response: reqwest::Response) -> impl Stream<Item = Result<Bytes, Status>> {
    let read = response.bytes_stream();
    read.map(|piece| piece.map_err(|e| refusal::transport(&e)))
}

/// What the reader of events can bear of a body: `waiting` counts the bytes since the last event, and there is no mark of the byte order, which is
/// legal at the beginning and on which the reader panics (eventsource-stream 0.2.3).
fn readable(
    pieces: impl Stream<Item = Result<Bytes, Status>>,
    waiting: &AtomicUsize,
) -> impl Stream<Item = Result<Bytes, Status>> {
    const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
    let mut at = 0;
    pieces.map(move |piece| {
        let mut piece = piece?;
        while let (Some(mark), Some(byte)) = (MARK.get(at), piece.first()) {
            if byte != mark {
                at = MARK.len();
                break;
            }
            piece.advance(1);
            at += 1;
        }
        if waiting.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > EVENT_BYTES {
            let told = format!("an event of its answer is larger than {EVENT_BYTES} bytes");
            return Err(refusal::nonsense(&told));
        }
        Ok(piece)
    })
}

impl Service<Call<Arc<Question>>> for OpenAi {
    type Response = Said;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Said, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<Arc<Question>>) -> Self::Future {
        // Nobody on the other side writes spans into our trace: this one is the model's.
        let span = info_span!(
            "attempt",
            otel.kind = "client",
            { names::OPENINFERENCE_KIND } = "LLM",
            { names::GEN_AI_OPERATION } = "chat",
            { names::GEN_AI_PROVIDER } = "openai",
            { names::GEN_AI_REQUEST_MODEL } = &*self.model,
            { names::GEN_AI_RESPONSE_MODEL } = Empty,
            { names::GEN_AI_INPUT_TOKENS } = Empty,
            { names::GEN_AI_OUTPUT_TOKENS } = Empty,
            { telemetry::SERVER_ADDRESS } = &*self.address,
            { telemetry::ATTEMPT } = call.attempt,
        );
        let (endpoint, address) = (self.clone(), self.address.clone());
        let attempt = async move {
            endpoint
                .ask(call.request, call.heard)
                .await
                .map_err(|status| Error::call(&address, status))
        };
        Box::pin(attempt.instrument(span))
    }
}
