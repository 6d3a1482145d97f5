//! shoal.v1.SpecialistService.
use super::{
    door::{Door, Doors, failed, rpc_span, spoken},
    generate::{Generation, usage},
    request,
};
use crate::{
    encoder::{Answer, Encoded, labels},
    engine::queue::Urgency,
    error::{Error, refuse},
    folder::{Form, Held, Task, manifest::Kind},
    specialist::Ask,
    versions::Serving,
};
use futures::{Stream, StreamExt as _};
use shoal_kit::{deadline, propagate, telemetry::names};
use shoal_proto::{time::duration, v1};
use std::{pin::Pin, time::Instant};
use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument as _, Span};

/// Serves one specialist.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    doors: Doors,
}

impl Service {
    pub(crate) fn new(doors: Doors) -> Self {
        Self { doors }
    }

    fn call(&self) -> Call {
        Call {
            door: self.doors.open(),
        }
    }
}

/// One call, to one version.
#[derive(Debug)]
struct Call {
    door: Door,
}

impl Call {
    fn identify(&self, span: &Span) {
        let asked = self.door.specialist().folder().card.name.as_str();
        self.door.identify(span, asked);
    }

    async fn begin(
        &self,
        wire: v1::GenerateRequest,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<Generation, Error> {
        let specialist = self.door.specialist();
        let card = &specialist.folder().card;
        // What it is not for comes before what is wrong with the request.
        specialist.generates()?;
        specialist.task(&wire.task)?;
        let urgency = request::urgency(wire.priority, wire.slack.as_ref(), deadline)?;
        let ask = Ask {
            task: wire.task,
            sampling: request::sampling(wire.sampling, request::most(card))?,
            form: request::form(wire.constraint)?,
            urgency,
            prompt: specialist.prompt(wire.prompt, urgency).await?,
            span: span.clone(),
        };
        self.door.asked(span, || spoken(&ask.prompt));
        let ticket = specialist.generate(ask).await?;
        Ok(Generation::new(ticket, deadline, span.clone(), self.door.clone()))
    }

    async fn encode(&self, kind: Kind, texts: &[String], urgency: Urgency, span: &Span) -> Result<Encoded, Error> {
        self.door.asked(span, || serde_json::json!(texts).to_string());
        let encoder = self.door.specialist().encoder(kind)?;
        let encoded = encoder.encode(texts, urgency).instrument(span.clone()).await?;
        span.record(names::GEN_AI_INPUT_TOKENS, encoded.input_tokens);
        span.record(names::RPC_STATUS, "OK");
        Ok(encoded)
    }

    async fn embedded(
        &self,
        wire: &v1::EmbedRequest,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<Encoded, Error> {
        let urgency = request::urgency(wire.priority, wire.slack.as_ref(), deadline)?;
        self.encode(Kind::Embed, &wire.texts, urgency, span).await
    }

    async fn labels(
        &self,
        wire: &v1::ClassifyRequest,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<(Encoded, Vec<v1::Classification>), Error> {
        let specialist = self.door.specialist();
        specialist.encoder(Kind::Classify)?;
        let task = specialist.task(&wire.task)?;
        let urgency = request::urgency(wire.priority, wire.slack.as_ref(), deadline)?;
        let encoded = self.encode(Kind::Classify, &wire.texts, urgency, span).await?;
        let top_k = wire.top_k.max(1) as usize;
        let classify = specialist.folder().card.classify.as_ref();
        let label = |(name, score): (&str, f64)| v1::Label {
            name: name.to_owned(),
            score,
        };
        let results = encoded.answers.iter().map(|answer| {
            let (Answer::Labels(ranked), Some(classify)) = (answer, classify) else {
                return v1::Classification::default();
            };
            let named = labels::named(ranked, classify, &task.calibration);
            v1::Classification {
                labels: named.into_iter().take(top_k).map(label).collect(),
            }
        });
        let results: Vec<_> = results.collect();
        self.door.answered(span, || {
            let best = results.iter().filter_map(|r| r.labels.first());
            let best: Vec<&str> = best.map(|l| l.name.as_str()).collect();
            serde_json::json!(best).to_string()
        });
        Ok((encoded, results))
    }
}

/// When the caller stops waiting. A deadline that is already past ends the call here.
pub(super) fn until(metadata: &MetadataMap) -> Result<Option<Instant>, Error> {
    match deadline::of(metadata)? {
        Some(left) if left.is_zero() => Err(Error::Expired { generated: 0 }),
        // A timeout past the end of time is none.
        left => Ok(left.and_then(|left| Instant::now().checked_add(left))),
    }
}

/// The status of an error, which the call's span is marked with.
pub(super) fn told(span: &Span) -> impl Fn(Error) -> Status {
    let span = span.clone();
    move |error| {
        failed(&span, &error);
        refuse(error)
    }
}

#[tonic::async_trait]
impl v1::specialist_service_server::SpecialistService for Service {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<v1::GenerateResponse, Status>> + Send>>;

    async fn generate(&self, request: Request<v1::GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        let span = rpc_span!("generate", "LLM", "chat", "shoal.v1.SpecialistService/Generate");
        propagate::adopt(request.metadata(), &span);
        let call = self.call();
        call.identify(&span);
        let deadline = until(request.metadata()).map_err(told(&span))?;
        let generation = call.begin(request.into_inner(), deadline, &span).await;
        let stream = generation.map_err(told(&span))?.begun().await.stream();
        Ok(Response::new(Box::pin(stream.map(|item| item.map_err(refuse)))))
    }

    async fn classify(&self, request: Request<v1::ClassifyRequest>) -> Result<Response<v1::ClassifyResponse>, Status> {
        let span = rpc_span!("classify", "CHAIN", "classify", "shoal.v1.SpecialistService/Classify");
        propagate::adopt(request.metadata(), &span);
        let call = self.call();
        call.identify(&span);
        let deadline = until(request.metadata()).map_err(told(&span))?;
        let wire = request.into_inner();
        let labelled = call.labels(&wire, deadline, &span).await;
        let (encoded, results) = labelled.map_err(told(&span))?;
        Ok(Response::new(v1::ClassifyResponse {
            results,
            usage: Some(usage(encoded.input_tokens, 0, call.door.specialist())),
            timings: Some(timings(&encoded)),
            model: call.door.specialist().identity(),
        }))
    }

    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        let span = rpc_span!("embed", "EMBEDDING", "embeddings", "shoal.v1.SpecialistService/Embed");
        propagate::adopt(request.metadata(), &span);
        let call = self.call();
        call.identify(&span);
        let deadline = until(request.metadata()).map_err(told(&span))?;
        let wire = request.into_inner();
        let embedded = call.embedded(&wire, deadline, &span).await;
        let encoded = embedded.map_err(told(&span))?;
        let specialist = call.door.specialist();
        let (usage, timings) = (usage(encoded.input_tokens, 0, specialist), timings(&encoded));
        let results = encoded.answers.into_iter().map(|answer| match answer {
            Answer::Vector(values) => v1::Embedding { values },
            Answer::Labels(_) => v1::Embedding::default(),
        });
        Ok(Response::new(v1::EmbedResponse {
            results: results.collect(),
            usage: Some(usage),
            timings: Some(timings),
            model: specialist.identity(),
        }))
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let Serving { specialist, refused } = self.doors.serving();
        let folder = specialist.folder();
        let card = &folder.card;
        Ok(Response::new(v1::DescribeResponse {
            name: card.name.clone(),
            version: card.version,
            kind: card.kind.name().to_owned(),
            description: card.description.clone(),
            tasks: folder.tasks.iter().map(task_card).collect(),
            context_tokens: card.limits.context_tokens,
            max_new_tokens: card.limits.max_new_tokens,
            licence: card.licence.clone(),
            input_usd_per_million_tokens: card.price.input_usd_per_million_tokens,
            output_usd_per_million_tokens: card.price.output_usd_per_million_tokens,
            resident_bytes: resident_bytes(),
            provider: specialist.provider().name().to_owned(),
            slots: specialist
                .engine()
                .map_or(0, |e| u32::try_from(e.shape().slots).unwrap_or(u32::MAX)),
            refused: refused.map(|r| r.to_wire()),
        }))
    }
}

fn timings(encoded: &Encoded) -> v1::Timings {
    v1::Timings {
        tokenize: Some(duration(encoded.tokenize)),
        queue: Some(duration(encoded.queue)),
        prefill: Some(duration(encoded.run)),
        decode: Some(duration(std::time::Duration::ZERO)),
    }
}

fn task_card(task: &Task) -> v1::TaskCard {
    // A template is no grammar: there is nothing to tell before a request.
    let output_lark = match (&task.held, &task.output_schema) {
        (Held::To(Form::Lark(lark)), None) => lark.clone(),
        _ => String::new(),
    };
    v1::TaskCard {
        task: task.name.clone(),
        input_schema_json: task.input_schema.as_ref().map(ToString::to_string).unwrap_or_default(),
        output_schema_json: task.output_schema.as_ref().map(ToString::to_string).unwrap_or_default(),
        output_lark,
        confidence_threshold: task.confidence_threshold,
        scores: task.scores.clone().into_iter().collect(),
        scores_split: task.scores_split.clone(),
    }
}

/// Resident memory of this process; 0 where /proc does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
