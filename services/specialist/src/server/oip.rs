//! The Open Inference Protocol v2: text in, text out (labels, vectors), for clients that know no shoal.
use super::{
    generate::{Generation, call_span},
    grpc::until,
    request,
};
use crate::{
    encoder::{Answer, TEXTS},
    engine::queue::Class,
    error::{Error, refuse},
    folder::manifest::Kind,
    prompt::Prompt,
    specialist::{Ask, Specialist},
};
use futures::future::try_join_all;
use shoal_kit::{propagate, telemetry::names};
use shoal_proto::{
    oip::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
        ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
        grpc_inference_service_server::GrpcInferenceService, infer_parameter::ParameterChoice,
        model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
    },
    v1,
};
use std::{collections::HashMap, sync::Arc, time::Instant};
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

const INPUT: &str = "text_input";

/// Serves one specialist.
#[derive(Debug, Clone)]
pub(crate) struct Inference {
    specialist: Arc<Specialist>,
}

/// What comes out, one element a text.
enum Outputs {
    Texts(Vec<String>),
    Vectors(Vec<Vec<f32>>),
}

type Parameters = HashMap<String, InferParameter>;

impl Inference {
    pub(crate) fn new(specialist: Arc<Specialist>) -> Self {
        Self { specialist }
    }

    /// The task that a model's name stands for: the specialist's name, or one of its tasks.
    fn resolve(&self, name: &str, version: &str) -> Result<&str, Error> {
        let folder = self.specialist.folder();
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

    async fn infer(
        &self,
        wire: &ModelInferRequest,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<(Outputs, Parameters), Error> {
        let of_name = self.resolve(&wire.model_name, &wire.model_version)?;
        let texts = texts(wire)?;
        match self.specialist.folder().card.kind {
            Kind::Generate => self.texts(wire, of_name, texts, deadline, span).await,
            kind => {
                let encoded = self.specialist.encoder(kind)?.encode(&texts, deadline).await?;
                let labels = self
                    .specialist
                    .folder()
                    .card
                    .classify
                    .as_ref()
                    .map(|c| c.labels.as_slice())
                    .unwrap_or_default();
                let mut parameters = Parameters::from([int("input_tokens", encoded.input_tokens)]);
                if kind == Kind::Embed {
                    let vectors = encoded
                        .answers
                        .into_iter()
                        .map(|a| if let Answer::Vector(v) = a { v } else { Vec::new() });
                    return Ok((Outputs::Vectors(vectors.collect()), parameters));
                }
                let best = encoded.answers.iter().map(|a| {
                    if let Answer::Labels(l) = a {
                        l[0]
                    } else {
                        (usize::MAX, 0.0)
                    }
                });
                let best: Vec<_> = best.collect();
                let least = best.iter().map(|b| b.1).fold(1.0, f64::min);
                parameters.insert("confidence".into(), parameter(ParameterChoice::DoubleParam(least)));
                Ok((
                    Outputs::Texts(
                        best.iter()
                            .map(|b| labels.get(b.0).cloned().unwrap_or_default())
                            .collect(),
                    ),
                    parameters,
                ))
            }
        }
    }

    async fn texts(
        &self,
        wire: &ModelInferRequest,
        of_name: &str,
        texts: Vec<String>,
        deadline: Option<Instant>,
        span: &Span,
    ) -> Result<(Outputs, Parameters), Error> {
        let given = |name: &str| wire.parameters.get(name).and_then(|p| p.parameter_choice.as_ref());
        let task = match given("task") {
            Some(ParameterChoice::StringParam(task)) => task.clone(),
            Some(_) => return Err(Error::invalid("parameters.task", "it must be a string")),
            None => of_name.to_owned(),
        };
        let sampling = v1::Sampling {
            max_tokens: given("max_tokens")
                .map(|c| whole("max_tokens", c))
                .transpose()?
                .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            temperature: given("temperature").map(|c| real("temperature", c)).transpose()?,
            seed: given("seed").map(|c| whole("seed", c)).transpose()?,
            ..v1::Sampling::default()
        };
        let sampling = request::sampling(
            Some(sampling),
            self.specialist.folder().card.limits.max_new_tokens.max(1),
        )?;
        self.specialist.task(&task)?;
        let mut generations = Vec::with_capacity(texts.len());
        for text in texts {
            let ask = Ask {
                task: task.clone(),
                prompt: Prompt::Text(text),
                sampling: sampling.clone(),
                form: None,
                class: Class::Normal,
                deadline,
                span: span.clone(),
            };
            generations.push(Generation::new(self.specialist.generate(ask)?, deadline, span.clone()));
        }
        let done = try_join_all(generations.into_iter().map(Generation::complete)).await?;
        let least = done.iter().map(|d| d.confidence.score()).fold(1.0, f64::min);
        let (input, output) = (
            done.iter().map(|d| d.input_tokens).sum(),
            done.iter().map(|d| d.tokens.len()).sum(),
        );
        span.record(names::GEN_AI_INPUT_TOKENS, input);
        span.record(names::GEN_AI_OUTPUT_TOKENS, output);
        let confidence = ("confidence".to_owned(), parameter(ParameterChoice::DoubleParam(least)));
        let parameters = Parameters::from([int("input_tokens", input), int("output_tokens", output), confidence]);
        Ok((Outputs::Texts(done.into_iter().map(|d| d.text).collect()), parameters))
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter {
        parameter_choice: Some(choice),
    }
}

fn int(name: &str, value: usize) -> (String, InferParameter) {
    (
        name.to_owned(),
        parameter(ParameterChoice::Int64Param(i64::try_from(value).unwrap_or(i64::MAX))),
    )
}

fn whole(name: &str, choice: &ParameterChoice) -> Result<u64, Error> {
    let value = match choice {
        ParameterChoice::Int64Param(v) => u64::try_from(*v).ok(),
        ParameterChoice::Uint64Param(v) => Some(*v),
        _ => None,
    };
    value.ok_or_else(|| Error::invalid(format!("parameters.{name}"), "it must be an integer of 0 or more"))
}

fn real(name: &str, choice: &ParameterChoice) -> Result<f32, Error> {
    match choice {
        ParameterChoice::DoubleParam(v) => Ok(*v as f32),
        ParameterChoice::Int64Param(v) => Ok(*v as f32),
        _ => Err(Error::invalid(format!("parameters.{name}"), "it must be a number")),
    }
}

/// The texts of `text_input`, from whichever of the two places they were put in.
fn texts(wire: &ModelInferRequest) -> Result<Vec<String>, Error> {
    let [input] = &wire.inputs[..] else {
        return Err(Error::invalid(
            "inputs",
            format!("give one input, `{INPUT}`, not {}", wire.inputs.len()),
        ));
    };
    if input.name != INPUT || input.datatype != "BYTES" {
        return Err(Error::invalid(
            "inputs[0]",
            format!("it is `{}` {}; give `{INPUT}` BYTES", input.name, input.datatype),
        ));
    }
    let elements: Vec<&[u8]> = match (&wire.raw_input_contents[..], &input.contents) {
        ([raw], None) => split(raw)?,
        ([], Some(contents)) => contents.bytes_contents.iter().map(Vec::as_slice).collect(),
        _ => {
            return Err(Error::invalid(
                "raw_input_contents",
                "give the data once: there, or in the input's contents",
            ));
        }
    };
    let expected = input.shape.iter().try_fold(1i64, |n, d| n.checked_mul(*d));
    if expected != i64::try_from(elements.len()).ok() {
        return Err(Error::invalid(
            "inputs[0].shape",
            format!("{:?} is not the shape of {} elements", input.shape, elements.len()),
        ));
    }
    if elements.is_empty() || elements.len() > TEXTS {
        return Err(Error::invalid(
            "inputs[0].shape",
            format!("give 1 to {TEXTS} texts, not {}", elements.len()),
        ));
    }
    let text = |(i, bytes): (usize, &[u8])| {
        String::from_utf8(bytes.to_vec())
            .map_err(|e| Error::invalid(format!("inputs[0][{i}]"), format!("it is not UTF-8: {e}")))
    };
    elements.into_iter().enumerate().map(text).collect()
}

/// Elements, each after its length as a little-endian u32.
fn split(mut raw: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let cut = || {
        Error::invalid(
            "raw_input_contents[0]",
            "it ends inside an element: each is its length as a little-endian u32, then its bytes",
        )
    };
    let mut elements = Vec::new();
    while !raw.is_empty() {
        let (length, rest) = raw.split_first_chunk::<4>().ok_or_else(cut)?;
        let (element, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(cut)?;
        elements.push(element);
        raw = rest;
    }
    Ok(elements)
}

/// The output tensor, where the request had its input.
fn respond(outputs: Outputs, as_raw: bool) -> (InferOutputTensor, Vec<Vec<u8>>) {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let (name, datatype, shape, raw, contents) = match outputs {
        Outputs::Texts(texts) => {
            let raw = texts
                .iter()
                .flat_map(|t| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat())
                .collect();
            let shape = vec![count(texts.len())];
            let contents = InferTensorContents {
                bytes_contents: texts.into_iter().map(String::into_bytes).collect(),
                ..Default::default()
            };
            ("text_output", "BYTES", shape, raw, contents)
        }
        Outputs::Vectors(vectors) => {
            let shape = vec![count(vectors.len()), count(vectors.first().map_or(0, Vec::len))];
            let values = vectors.concat();
            let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (
                "embedding",
                "FP32",
                shape,
                raw,
                InferTensorContents {
                    fp32_contents: values,
                    ..Default::default()
                },
            )
        }
    };
    let contents = (!as_raw).then_some(contents);
    let tensor = InferOutputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape,
        parameters: Parameters::new(),
        contents,
    };
    (tensor, if as_raw { vec![raw] } else { Vec::new() })
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.specialist.engine().is_none_or(|e| !e.stopped().is_cancelled());
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let wire = request.into_inner();
        Ok(Response::new(ModelReadyResponse {
            ready: self.resolve(&wire.name, &wire.version).is_ok(),
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
        self.resolve(&wire.name, &wire.version).map_err(refuse)?;
        let card = &self.specialist.folder().card;
        let tensor = |name: &str, datatype: &str, shape: Vec<i64>| TensorMetadata {
            name: name.into(),
            datatype: datatype.into(),
            shape,
        };
        let output = match &card.embed {
            Some(embed) => tensor("embedding", "FP32", vec![-1, i64::from(embed.dimensions)]),
            None => tensor("text_output", "BYTES", vec![-1]),
        };
        Ok(Response::new(ModelMetadataResponse {
            name: wire.name,
            versions: vec![card.version.to_string()],
            platform: "onnxruntime_onnx".into(),
            inputs: vec![tensor(INPUT, "BYTES", vec![-1])],
            outputs: vec![output],
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let span = call_span!("model_infer", "inference.GRPCInferenceService/ModelInfer");
        propagate::adopt(request.metadata(), &span);
        span.record(names::GEN_AI_REQUEST_MODEL, self.specialist.folder().card.name.as_str());
        span.record(names::GEN_AI_RESPONSE_MODEL, self.specialist.identity());
        let deadline = until(request.metadata())?;
        let wire = request.into_inner();
        let inferred = self.infer(&wire, deadline, &span).instrument(span.clone()).await;
        let (outputs, parameters) = inferred.map_err(|error| {
            super::generate::failed(&span, &error);
            refuse(error)
        })?;
        span.record(names::RPC_STATUS, "OK");
        let (output, raw_output_contents) = respond(outputs, !wire.raw_input_contents.is_empty());
        Ok(Response::new(ModelInferResponse {
            model_name: wire.model_name,
            model_version: self.specialist.folder().card.version.to_string(),
            id: wire.id,
            parameters,
            outputs: vec![output],
            raw_output_contents,
        }))
    }
}
