//! The Open Inference Protocol v2: a task is a model, `text_input` goes in, `text_output` comes out. Each text is a plan of one node.
use super::{open, single};
use crate::{context::Context, error::Error};
use futures::future::try_join_all;
use shoal_kit::{
    deadline,
    oip::{self, Output, Parameters},
    propagate,
};
use shoal_proto::oip::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest,
    ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse, grpc_inference_service_server::GrpcInferenceService,
    model_metadata_response::TensorMetadata,
};
use shoal_proto::v1;
use std::{sync::Arc, time::Duration};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

/// The one version of a task: which model's version answers is the router's business, and the outcome says it.
const VERSION: &str = "1";

/// Texts of one inference at most: as many as a specialist takes.
const TEXTS: usize = 64;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Inference(pub(crate) Arc<Context>);

impl Inference {
    /// Whether that is a task that a chain serves.
    fn resolve(&self, name: &str, version: &str) -> Result<(), Error> {
        if !version.is_empty() && version != VERSION {
            return Err(unknown(format!(
                "version `{version}` is not served; version {VERSION} is"
            )));
        }
        if self.0.registry.route(name).is_none() {
            let tasks = crate::admit::Catalogue::tasks(&*self.0.registry).join(", ");
            return Err(unknown(format!("no model `{name}` here; tasks are models: {tasks}")));
        }
        Ok(())
    }

    /// Whether somebody of the task's chain can be asked now.
    fn ready(&self, name: &str) -> bool {
        let route = self.0.registry.route(name);
        route.is_some_and(|r| {
            r.chain
                .iter()
                .any(|t| t.unusable.is_none() && !t.endpoints.list().is_empty() && !t.broken())
        })
    }

    async fn infer(&self, wire: &ModelInferRequest, left: Option<Duration>) -> Result<Vec<v1::NodeResult>, Error> {
        self.resolve(&wire.model_name, &wire.model_version)?;
        oip::wants(wire, &output())?;
        let texts = oip::texts(wire, TEXTS)?;
        let given = &wire.parameters;
        if oip::text_of(given, "task")?.is_some_and(|task| task != wire.model_name) {
            let told = format!(
                "tasks are models here, and the model is `{}`: name the task as the model, or leave this out",
                wire.model_name
            );
            return Err(Error::invalid("parameters.task", told));
        }
        let sampling = v1::Sampling {
            max_tokens: oip::whole_of(given, "max_tokens")?.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            temperature: oip::real_of(given, "temperature")?.map(|t| t as f32),
            seed: oip::whole_of(given, "seed")?,
            ..v1::Sampling::default()
        };
        let one = async |text: String| {
            let asked = single::Asked {
                task: wire.model_name.clone(),
                text,
                sampling: sampling.clone(),
                ..single::Asked::default()
            };
            // A span of its own below the call's: each text is a plan.
            let plan = single::begin(
                &self.0,
                asked,
                open::span("inference.GRPCInferenceService/ModelInfer"),
                left,
            )?;
            let _attached = plan.clone().attach();
            single::result(&plan).await
        };
        try_join_all(texts.into_iter().map(one)).await
    }
}

/// The one output of every task.
fn output() -> TensorMetadata {
    oip::tensor(oip::TEXT_OUTPUT, "BYTES", &[-1])
}

fn unknown(message: String) -> Error {
    Error::Passed(v1::Fault {
        code: tonic::Code::NotFound as i32,
        reason: "MODEL_UNKNOWN".into(),
        message,
    })
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = !self.0.leaving.is_cancelled();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let wire = request.into_inner();
        let ready = self.resolve(&wire.name, &wire.version).is_ok() && self.ready(&wire.name);
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "shoal".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: Vec::new(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let wire = request.into_inner();
        self.resolve(&wire.name, &wire.version)?;
        Ok(Response::new(ModelMetadataResponse {
            name: wire.name,
            versions: vec![VERSION.into()],
            platform: "shoal_mesh".into(),
            inputs: vec![oip::tensor(oip::TEXT_INPUT, "BYTES", &[-1])],
            outputs: vec![output()],
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let span = tracing::info_span!(
            "model_infer",
            otel.name = "inference.GRPCInferenceService/ModelInfer",
            otel.kind = "server"
        );
        propagate::adopt(request.metadata(), &span);
        let left = open::past(deadline::of(request.metadata()).map_err(Error::from)?)?;
        let wire = request.into_inner();
        let results = self.infer(&wire, left).instrument(span).await?;
        let sum = |count: fn(&v1::Usage) -> u64| {
            let sum: u64 = results.iter().filter_map(|r| r.usage.as_ref()).map(count).sum();
            oip::count(usize::try_from(sum).unwrap_or(usize::MAX))
        };
        let least = results
            .iter()
            .filter_map(|r| r.confidence.as_ref())
            .map(|c| c.score)
            .reduce(f64::min);
        let mut parameters = Parameters::from([
            ("input_tokens".to_owned(), sum(|u| u.input_tokens)),
            ("output_tokens".to_owned(), sum(|u| u.output_tokens)),
        ]);
        parameters.extend(least.map(|least| ("confidence".to_owned(), oip::number(least))));
        let texts = results.iter().map(|r| single::text(&r.output_json)).collect();
        Ok(Response::new(oip::respond(
            wire,
            VERSION,
            Output::Texts(texts),
            parameters,
        )))
    }
}
