//! The Open Inference Protocol v2: text in, text out (labels, vectors), for clients that know no shoal.
use super::{
    door::{Door, Doors, rpc_span},
    generate::Generation,
    grpc::{told, until},
    request,
};
use crate::{
    encoder::{Answer, TEXTS, labels},
    engine::{Done, queue::Urgency},
    error::{Error, refuse},
    folder::manifest::Kind,
    prompt::Prompt,
    specialist::Ask,
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use serde_json::json;
use shoal_kit::{
    oip::{self, Output, Parameters},
    propagate,
    telemetry::names,
};
use shoal_proto::{
    oip::{
        ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
        ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
        ServerReadyRequest, ServerReadyResponse, grpc_inference_service_server::GrpcInferenceService,
        model_metadata_response::TensorMetadata,
    },
    v1,
};
use std::time::Instant;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

/// Serves one specialist.
#[derive(Debug, Clone)]
pub(crate) struct Inference {
    doors: Doors,
}

impl Inference {
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
    /// The task that a model's name stands for: the specialist's name, or one of its tasks.
    fn resolve(&self, name: &str, version: &str) -> Result<&str, Error> {
        let folder = self.door.specialist().folder();
        let unknown = |message: String| Err(Error::Unknown { message });
        if !version.is_empty() && version != folder.card.version.to_string() {
            return unknown(format!(
                "version `{version}` is not served; version {} is",
                folder.card.version
            ));
        }
        if let Some(task) = folder.tasks.iter().find(|t| t.name == name) {
            return Ok(&task.name);
        }
        if name == folder.card.name {
            return Ok("");
        }
        unknown(format!("no model `{name}` here; there is `{}`", folder.card.name))
    }

    /// What comes out.
    fn output(&self) -> TensorMetadata {
        match &self.door.specialist().folder().card.embed {
            Some(embed) => oip::tensor(oip::EMBEDDING, "FP32", &[-1, i64::from(embed.dimensions)]),
            None => oip::tensor(oip::TEXT_OUTPUT, "BYTES", &[-1]),
        }
    }

    async fn infer(
        &self,
        wire: &ModelInferRequest,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<(Output, Parameters), Error> {
        let of_name = self.resolve(&wire.model_name, &wire.model_version)?;
        let texts = oip::texts(wire, TEXTS)?;
        oip::wants(wire, &self.output())?;
        let task = oip::text_of(&wire.parameters, "task")?.unwrap_or(of_name);
        self.door.asked(span, || json!(texts).to_string());
        let (output, parameters) = match self.door.specialist().folder().card.kind {
            Kind::Generate | Kind::Tag | Kind::Fill => self.generate(wire, task, texts, deadline, span).await?,
            Kind::Classify => self.classify(task, &texts, deadline).await?,
            Kind::Embed => self.embed(task, &texts, deadline).await?,
        };
        if let Output::Texts(texts) = &output {
            self.door.answered(span, || json!(texts).to_string());
        }
        Ok((output, parameters))
    }

    async fn embed(
        &self,
        task: &str,
        texts: &[String],
        deadline: Option<Instant>,
    ) -> Result<(Output, Parameters), Error> {
        let encoder = self.door.specialist().encoder(Kind::Embed)?;
        // A vector is the same for each task: none need be named, but one that is must be there.
        if !task.is_empty() {
            self.door.specialist().task(task)?;
        }
        let encoded = encoder.encode(texts, Urgency::until(deadline)).await?;
        let vector = |answer| match answer {
            Answer::Vector(vector) => vector,
            Answer::Labels(_) => Vec::new(),
        };
        let parameters = Parameters::from([("input_tokens".into(), oip::count(encoded.input_tokens))]);
        let vectors = encoded.answers.into_iter().map(vector).collect();
        Ok((Output::Vectors(vectors), parameters))
    }

    async fn classify(
        &self,
        task: &str,
        texts: &[String],
        deadline: Option<Instant>,
    ) -> Result<(Output, Parameters), Error> {
        let specialist = self.door.specialist();
        let encoder = specialist.encoder(Kind::Classify)?;
        let task = specialist.task(task)?;
        let encoded = encoder.encode(texts, Urgency::until(deadline)).await?;
        let Some(classify) = &specialist.folder().card.classify else {
            return Err(Error::Broken {
                message: "the card of a classifier has lost its labels".into(),
            });
        };
        let best = encoded.answers.iter().map(|answer| match answer {
            Answer::Labels(ranked) => labels::named(ranked, classify, &task.calibration)
                .first()
                .map_or(("", 0.0), |best| *best),
            Answer::Vector(_) => ("", 0.0),
        });
        let best: Vec<(&str, f64)> = best.collect();
        let least = best.iter().map(|b| b.1).fold(1.0, f64::min);
        let parameters = Parameters::from([
            ("input_tokens".into(), oip::count(encoded.input_tokens)),
            ("confidence".into(), oip::number(least)),
        ]);
        let labels = best.into_iter().map(|(name, _)| name.to_owned()).collect();
        Ok((Output::Texts(labels), parameters))
    }

    async fn generate(
        &self,
        wire: &ModelInferRequest,
        task: &str,
        texts: Vec<String>,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<(Output, Parameters), Error> {
        let specialist = self.door.specialist();
        let given = &wire.parameters;
        let sampling = v1::Sampling {
            max_tokens: oip::whole_of(given, "max_tokens")?.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            temperature: oip::real_of(given, "temperature")?.map(|t| t as f32),
            seed: oip::whole_of(given, "seed")?,
            ..v1::Sampling::default()
        };
        let sampling = request::sampling(Some(sampling), request::most(&specialist.folder().card))?;
        specialist.task(task)?;
        let ask = |text: &str| Ask {
            task: task.to_owned(),
            prompt: Prompt::Text(text.to_owned()),
            sampling: sampling.clone(),
            form: None,
            urgency: Urgency::until(deadline),
            span: span.clone(),
        };
        let done = self.answers(&texts, ask).await?;
        let least = done.iter().map(|d| d.confidence.score()).fold(1.0, f64::min);
        let (input, output) = (
            done.iter().map(|d| d.input_tokens).sum(),
            done.iter().map(|d| d.tokens.len()).sum(),
        );
        span.record(names::GEN_AI_INPUT_TOKENS, input);
        span.record(names::GEN_AI_OUTPUT_TOKENS, output);
        let parameters = Parameters::from([
            ("input_tokens".into(), oip::count(input)),
            ("output_tokens".into(), oip::count(output)),
            ("confidence".into(), oip::number(least)),
        ]);
        Ok((Output::Texts(done.into_iter().map(|d| d.text).collect()), parameters))
    }

    /// Each text's answer. Where a text does not fit the queue, what fills it may be this call's own: it comes once one of those is done, and only a
    /// queue full of others' refuses the call. One that fails drops the others, and their slots.
    async fn answers(&self, texts: &[String], ask: impl Fn(&str) -> Ask) -> Result<Vec<Done>, Error> {
        let mut done: Vec<Option<Done>> = texts.iter().map(|_| None).collect();
        let mut running = FuturesUnordered::new();
        for (place, text) in texts.iter().enumerate() {
            let generation = loop {
                match self.begin(ask(text)).await {
                    Ok(generation) => break generation,
                    Err(busy @ Error::Busy { .. }) => match running.next().await {
                        Some((at, answer)) => done[at] = Some(answer?),
                        None => return Err(busy),
                    },
                    Err(error) => return Err(error),
                }
            };
            running.push(async move { (place, generation.complete().await) });
        }
        while let Some((at, answer)) = running.next().await {
            done[at] = Some(answer?);
        }
        Ok(done.into_iter().flatten().collect())
    }

    async fn begin(&self, ask: Ask) -> Result<Generation, Error> {
        let (deadline, span) = (ask.urgency.deadline, ask.span.clone());
        let ticket = self.door.specialist().generate(ask).await?;
        // One text's answer is not the call's: what the span says of it is said by `generate`.
        let silent = Door::clone(&self.door).silent();
        Ok(Generation::new(ticket, deadline, span, silent))
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = !self.call().door.specialist().stopped().is_cancelled();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let wire = request.into_inner();
        let call = self.call();
        let running = !call.door.specialist().stopped().is_cancelled();
        Ok(Response::new(ModelReadyResponse {
            ready: running && call.resolve(&wire.name, &wire.version).is_ok(),
        }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let (name, version) = ("shoal".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Ok(Response::new(ServerMetadataResponse {
            name,
            version,
            extensions: Vec::new(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let wire = request.into_inner();
        let call = self.call();
        call.resolve(&wire.name, &wire.version).map_err(refuse)?;
        Ok(Response::new(ModelMetadataResponse {
            name: wire.name,
            versions: vec![call.door.specialist().folder().card.version.to_string()],
            platform: "onnxruntime_onnx".into(),
            inputs: vec![oip::tensor(oip::TEXT_INPUT, "BYTES", &[-1])],
            outputs: vec![call.output()],
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let span = rpc_span!(
            "model_infer",
            "LLM",
            "chat",
            "inference.GRPCInferenceService/ModelInfer"
        );
        propagate::adopt(request.metadata(), &span);
        let call = self.call();
        call.door.identify(&span, &request.get_ref().model_name);
        let deadline = until(request.metadata()).map_err(told(&span))?;
        let wire = request.into_inner();
        let inferred = call.infer(&wire, deadline, &span).instrument(span.clone()).await;
        let (output, parameters) = inferred.map_err(told(&span))?;
        span.record(names::RPC_STATUS, "OK");
        let version = call.door.specialist().folder().card.version.to_string();
        Ok(Response::new(oip::respond(wire, &version, output, parameters)))
    }
}
