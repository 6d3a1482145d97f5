//! shoal.v1.SpecialistService.
use super::{
    generate::{Generation, call_span, failed, usage},
    request,
};
use crate::{
    encoder::{Answer, Encoded},
    error::{Error, refuse},
    folder::{Form, Task, manifest::Kind},
    prompt::Prompt,
    specialist::{Ask, Specialist},
};
use futures::{Stream, StreamExt as _};
use shoal_kit::{deadline, propagate, telemetry::names};
use shoal_proto::{time::duration, v1};
use std::{pin::Pin, sync::Arc, time::Instant};
use tonic::{Request, Response, Status, metadata::MetadataMap};
use tracing::{Instrument as _, Span};

/// Serves one specialist.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    specialist: Arc<Specialist>,
}

impl Service {
    pub(crate) fn new(specialist: Arc<Specialist>) -> Self {
        Self { specialist }
    }

    fn identify(&self, span: &Span) {
        span.record(names::GEN_AI_REQUEST_MODEL, self.specialist.folder().card.name.as_str());
        span.record(names::GEN_AI_RESPONSE_MODEL, self.specialist.identity());
    }

    fn begin(&self, wire: v1::GenerateRequest, deadline: Option<Instant>, span: Span) -> Result<Generation, Error> {
        let most = self.specialist.folder().card.limits.max_new_tokens;
        if self.specialist.folder().card.kind == Kind::Generate {
            self.specialist.task(&wire.task)?;
        }
        let ask = Ask {
            task: wire.task,
            sampling: request::sampling(wire.sampling, most.max(1))?,
            form: request::form(wire.constraint)?,
            class: request::class(wire.priority)?,
            prompt: Prompt::from_wire(wire.prompt)?,
            deadline,
            span: span.clone(),
        };
        Ok(Generation::new(self.specialist.generate(ask)?, deadline, span))
    }

    async fn encode(
        &self,
        kind: Kind,
        texts: &[String],
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<Encoded, Error> {
        let encoded = self.specialist.encoder(kind)?.encode(texts, deadline).await?;
        span.record(names::GEN_AI_INPUT_TOKENS, encoded.input_tokens);
        span.record(names::RPC_STATUS, "OK");
        Ok(encoded)
    }
}

/// When the caller stops waiting. A deadline that is already past ends the call here.
pub(super) fn until(metadata: &MetadataMap) -> Result<Option<Instant>, Status> {
    match deadline::of(metadata)? {
        Some(left) if left.is_zero() => Err(refuse(Error::Expired { generated: 0 })),
        // A timeout past the end of time is none.
        left => Ok(left.and_then(|left| Instant::now().checked_add(left))),
    }
}

fn told(span: &Span) -> impl FnOnce(Error) -> Status {
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
        let span = call_span!("generate", "shoal.v1.SpecialistService/Generate");
        propagate::adopt(request.metadata(), &span);
        self.identify(&span);
        let deadline = until(request.metadata())?;
        let generation = span
            .in_scope(|| self.begin(request.into_inner(), deadline, span.clone()))
            .map_err(told(&span))?;
        let stream = generation
            .stream(self.specialist.clone())
            .map(|item| item.map_err(refuse));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn classify(&self, request: Request<v1::ClassifyRequest>) -> Result<Response<v1::ClassifyResponse>, Status> {
        let span = call_span!("classify", "shoal.v1.SpecialistService/Classify");
        propagate::adopt(request.metadata(), &span);
        self.identify(&span);
        let deadline = until(request.metadata())?;
        let wire = request.into_inner();
        let encoder = self
            .specialist
            .encoder(Kind::Classify)
            .and_then(|_| self.specialist.task(&wire.task).map(|_| ()));
        encoder.map_err(told(&span))?;
        let encoded = self
            .encode(Kind::Classify, &wire.texts, deadline, &span)
            .instrument(span.clone())
            .await
            .map_err(told(&span))?;
        let names = self
            .specialist
            .folder()
            .card
            .classify
            .as_ref()
            .map(|c| c.labels.as_slice())
            .unwrap_or_default();
        let top_k = wire.top_k.max(1) as usize;
        let results = encoded.answers.iter().map(|answer| {
            let Answer::Labels(labels) = answer else {
                return v1::Classification::default();
            };
            let label = |(i, score): &(usize, f64)| v1::Label {
                name: names.get(*i).cloned().unwrap_or_default(),
                score: *score,
            };
            v1::Classification {
                labels: labels.iter().take(top_k).map(label).collect(),
            }
        });
        Ok(Response::new(v1::ClassifyResponse {
            results: results.collect(),
            usage: Some(usage(encoded.input_tokens, 0, &self.specialist)),
            timings: Some(timings(&encoded)),
            model: self.specialist.identity(),
        }))
    }

    async fn embed(&self, request: Request<v1::EmbedRequest>) -> Result<Response<v1::EmbedResponse>, Status> {
        let span = call_span!("embed", "shoal.v1.SpecialistService/Embed");
        propagate::adopt(request.metadata(), &span);
        self.identify(&span);
        span.record(names::GEN_AI_OPERATION, "embeddings");
        let deadline = until(request.metadata())?;
        let wire = request.into_inner();
        let encoded = self
            .encode(Kind::Embed, &wire.texts, deadline, &span)
            .instrument(span.clone())
            .await
            .map_err(told(&span))?;
        let (usage, timings) = (usage(encoded.input_tokens, 0, &self.specialist), timings(&encoded));
        let results = encoded.answers.into_iter().map(|answer| match answer {
            Answer::Vector(values) => v1::Embedding { values },
            Answer::Labels(_) => v1::Embedding::default(),
        });
        let model = self.specialist.identity();
        Ok(Response::new(v1::EmbedResponse {
            results: results.collect(),
            usage: Some(usage),
            timings: Some(timings),
            model,
        }))
    }

    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let folder = self.specialist.folder();
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
            provider: self.specialist.provider().name().to_owned(),
            slots: self
                .specialist
                .engine()
                .map_or(0, |e| u32::try_from(e.shape().slots).unwrap_or(u32::MAX)),
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
    let (output_schema_json, output_lark) = match &task.form {
        Form::Free => (String::new(), String::new()),
        Form::Schema(schema) => (schema.to_string(), String::new()),
        Form::Lark(lark) => (String::new(), lark.clone()),
    };
    v1::TaskCard {
        task: task.name.clone(),
        input_schema_json: task.input_schema.as_ref().map(ToString::to_string).unwrap_or_default(),
        output_schema_json,
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
