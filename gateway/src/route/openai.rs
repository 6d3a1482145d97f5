//! A question on the wire to an OpenAI-compatible endpoint: `POST {base_url}/chat/completions`.
use super::{
    question::{Question, Said},
    resolve::host_and_port,
};
use crate::telemetry;
use futures::{StreamExt as _, future::BoxFuture};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use shoal_kit::{config, propagate, status::Reason, telemetry::names};
use shoal_stack::{Call, Error};
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tonic::Status;
use tower::Service;
use tracing::{Instrument as _, Span, field::Empty, info_span};

mod body;
mod refusal;

/// Bytes of an answer at most. A context of a hundred thousand tokens is half a megabyte.
const ANSWER_BYTES: usize = 8 << 20;

/// An endpoint. It shows neither its key nor what it was asked.
#[derive(Clone)]
pub(crate) struct OpenAi {
    /// "host:port": what decisions and breakers call it.
    pub(crate) address: Arc<str>,
    url: Arc<str>,
    model: Arc<str>,
    key: Option<Key>,
    price: (f64, f64),
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
            client,
        }
    }

    async fn ask(self, question: Arc<Question>, left: Duration) -> Result<Said, Status> {
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
        if let Some(sink) = &question.sink {
            sink.begin();
        }
        let body = body::request(&question, &self.model).to_string();
        let sent = self
            .client
            .post(&*self.url)
            .headers(headers)
            .timeout(left)
            .body(body)
            .send()
            .await;
        let response = sent.map_err(|e| refusal::transport(&e))?;
        let (code, retry_after) = (response.status(), refusal::retry_after(response.headers()));
        let (mut bytes, mut pieces) = (Vec::new(), response.bytes_stream());
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.map_err(|e| refusal::transport(&e))?);
            if bytes.len() > ANSWER_BYTES {
                return Err(refusal::nonsense(&format!(
                    "its answer is larger than {ANSWER_BYTES} bytes"
                )));
            }
        }
        if !code.is_success() {
            let key = self.key.as_ref().map(|Key(key)| &**key);
            return Err(refusal::status(code, retry_after, &refusal::message(&bytes, key)));
        }
        let said = body::response(&bytes, self.price).map_err(|why| refusal::nonsense(&why))?;
        let span = Span::current();
        span.record(names::GEN_AI_RESPONSE_MODEL, said.model.as_str());
        if let Some(usage) = &said.usage {
            span.record(names::GEN_AI_INPUT_TOKENS, usage.input_tokens);
            span.record(names::GEN_AI_OUTPUT_TOKENS, usage.output_tokens);
        }
        Ok(said)
    }
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
            let left = call.deadline.saturating_duration_since(tokio::time::Instant::now());
            endpoint
                .ask(call.request, left)
                .await
                .map_err(|status| Error::call(&address, status))
        };
        Box::pin(attempt.instrument(span))
    }
}
