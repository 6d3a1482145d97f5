//! A question on the wire to one replica of a specialist.
use super::question::{Finish, Means, Question, Said};
use crate::telemetry;
use futures::future::BoxFuture;
use shoal_kit::{
    deadline, propagate,
    status::{self, Reason},
    telemetry::names,
};
use shoal_proto::{
    time::duration,
    v1::{
        self, generate_done::FinishReason, generate_response::Event, specialist_service_client::SpecialistServiceClient,
    },
};
use shoal_stack::{Call, Error};
use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Request, Status, transport::Channel};
use tower::Service;
use tracing::{Instrument as _, field::Empty, info_span};

/// One replica.
#[derive(Debug, Clone)]
pub(crate) struct Specialist {
    address: Arc<str>,
    channel: Option<Channel>,
}

impl Specialist {
    pub(crate) fn new(address: Arc<str>, channel: Option<Channel>) -> Self {
        Self { address, channel }
    }
}

impl Service<Call<Arc<Question>>> for Specialist {
    type Response = Said;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Said, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // A lazy channel queues a call until it is connected; whether it should is the breaker's and the deadline's to say.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<Arc<Question>>) -> Self::Future {
        let span = info_span!(
            "attempt",
            otel.kind = "internal",
            { telemetry::SERVER_ADDRESS } = &*self.address,
            { telemetry::ATTEMPT } = call.attempt,
            { names::RPC_STATUS } = Empty,
        );
        let (address, channel) = (self.address.clone(), self.channel.clone());
        let attempt = async move {
            let Some(channel) = channel else {
                return Err(Error::call(&address, away("its address is gone".into())));
            };
            let client = SpecialistServiceClient::new(channel);
            let said = match call.request.means {
                Means::Generate => generate(client, &call).await,
                Means::Classify => classify(client, &call).await,
            };
            said.map_err(|status| Error::call(&address, truncated(status)))
        };
        Box::pin(attempt.instrument(span))
    }
}

fn away(message: String) -> Status {
    Reason::Unavailable {
        message,
        retry_after: Duration::from_secs(1),
    }
    .into()
}

/// A peer that dies in mid-stream can look like one that ended the stream without a status, which tonic calls UNKNOWN: no server of
/// ours says that, and another replica can be tried.
fn truncated(status: Status) -> Status {
    let bare = status.code() == Code::Unknown && status::error_reason(&status).is_none();
    if bare {
        away(format!("the connection broke: {}", status.message()))
    } else {
        status
    }
}

/// The request, with what is left of the time and the trace's context.
fn timed<T>(message: T, until: Instant) -> Request<T> {
    let mut request = Request::new(message);
    deadline::set(&mut request, until.saturating_duration_since(Instant::now()));
    propagate::inject(request.metadata_mut());
    request
}

/// What is left until it must start for the plan to end in time.
fn slack(call: &Call<Arc<Question>>) -> Option<prost_types::Duration> {
    Some(duration(call.start_by.saturating_duration_since(Instant::now())))
}

async fn generate(mut client: SpecialistServiceClient<Channel>, call: &Call<Arc<Question>>) -> Result<Said, Status> {
    let question = &call.request;
    let constraint = question.form.as_ref().map(|schema| v1::Constraint {
        form: Some(v1::constraint::Form::JsonSchema(schema.value().to_string())),
    });
    let request = v1::GenerateRequest {
        task: question.task.clone(),
        prompt: Some(question.input.prompt()),
        sampling: question.sampling.clone(),
        constraint,
        priority: question.priority.into(),
        slack: slack(call),
    };
    if let Some(sink) = &question.sink {
        sink.begin();
    }
    let mut attempt = question.lost.attempt();
    let mut stream = client.generate(timed(request, call.deadline)).await?.into_inner();
    while let Some(response) = stream.message().await? {
        call.heard.store(true, Ordering::Relaxed);
        match response.event {
            Some(Event::Delta(text)) => {
                attempt.says(text.len());
                if let Some(sink) = &question.sink {
                    sink.delta(&text);
                }
            }
            Some(Event::Done(done)) => {
                attempt.whole();
                let finish = match done.finish_reason() {
                    FinishReason::Length => Finish::Length,
                    FinishReason::Stop | FinishReason::Unspecified => Finish::Stop,
                };
                return Ok(Said {
                    text: done.text,
                    finish,
                    usage: done.usage,
                    timings: done.timings,
                    confidence: done.confidence,
                    model: done.model,
                });
            }
            None => {}
        }
    }
    Err(away("the answer ended before it was done".into()))
}

async fn classify(mut client: SpecialistServiceClient<Channel>, call: &Call<Arc<Question>>) -> Result<Said, Status> {
    let request = v1::ClassifyRequest {
        texts: vec![call.request.input.text()],
        // The second is for the margin.
        top_k: 2,
        task: call.request.task.clone(),
        priority: call.request.priority.into(),
        slack: slack(call),
    };
    let response = client.classify(timed(request, call.deadline)).await?.into_inner();
    let labels = response
        .results
        .into_iter()
        .next()
        .map(|c| c.labels)
        .unwrap_or_default();
    let [best, others @ ..] = labels.as_slice() else {
        return Err(away("it gave no label".into()));
    };
    let log = |score: f64| score.max(f64::MIN_POSITIVE).ln();
    let confidence = v1::Confidence {
        score: best.score,
        mean_logprob: log(best.score),
        min_logprob: log(best.score),
        sum_logprob: log(best.score),
        margin: others.first().map_or(0.0, |second| log(best.score) - log(second.score)),
    };
    Ok(Said {
        text: best.name.clone(),
        finish: Finish::Stop,
        usage: response.usage,
        timings: response.timings,
        confidence: Some(confidence),
        model: response.model,
    })
}
