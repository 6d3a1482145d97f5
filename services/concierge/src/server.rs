//! The wire: `shoal.v1.ToolService` over a [`World`].
use crate::world::{Refusal, World};
use serde_json::Value;
use shoal_kit::{
    propagate,
    serve::MAX_REQUEST_BYTES,
    status::{self, Reason, Violation},
    telemetry::names,
};
use shoal_proto::v1::{self, tool_service_server::ToolServiceServer};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};
use tonic::{Request, Response, Status};
use tracing::info_span;

/// Answers remembered by idempotency key. A retry follows its first attempt within seconds; ten thousand answers are minutes
/// of a busy gateway, and a few megabytes.
const REMEMBERED: usize = 10_000;

/// A key is 1 to this many bytes.
const KEY_BYTES: usize = 128;

pub(crate) fn service(world: World) -> ToolServiceServer<Concierge> {
    ToolServiceServer::new(Concierge {
        world,
        done: Mutex::default(),
    })
    .max_decoding_message_size(MAX_REQUEST_BYTES)
}

/// The service.
pub(crate) struct Concierge {
    world: World,
    done: Mutex<Done>,
}

/// What transactions answered, by (tool, key); the oldest is forgotten first.
#[derive(Default)]
struct Done {
    answers: HashMap<(String, String), String>,
    order: VecDeque<(String, String)>,
}

impl Done {
    fn remember(&mut self, key: (String, String), answer: &str) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.answers.insert(key, answer.to_owned());
    }
}

#[tonic::async_trait]
impl v1::tool_service_server::ToolService for Concierge {
    async fn list_tools(&self, _: Request<v1::ListToolsRequest>) -> Result<Response<v1::ListToolsResponse>, Status> {
        let tools = self.world.tools().into_iter().map(|tool| v1::Tool {
            name: tool.name,
            description: tool.description,
            input_schema_json: tool.input.to_string(),
            output_schema_json: tool.output.to_string(),
            idempotent: tool.idempotent,
        });
        Ok(Response::new(v1::ListToolsResponse { tools: tools.collect() }))
    }

    async fn call_tool(&self, request: Request<v1::CallToolRequest>) -> Result<Response<v1::CallToolResponse>, Status> {
        let span = info_span!(
            "tool",
            otel.name = format!("execute_tool {}", request.get_ref().name),
            otel.kind = "server",
            { names::GEN_AI_OPERATION } = "execute_tool",
            { names::GEN_AI_TOOL_NAME } = request.get_ref().name,
            { names::OPENINFERENCE_KIND } = "TOOL",
        );
        propagate::adopt(request.metadata(), &span);
        let _inside = span.enter();
        let result_json = self.call(request.get_ref())?;
        Ok(Response::new(v1::CallToolResponse { result_json }))
    }
}

impl Concierge {
    fn call(&self, call: &v1::CallToolRequest) -> Result<String, Reason> {
        if call.idempotency_key.len() > KEY_BYTES {
            return Err(status::invalid(
                "idempotency_key",
                format!("is longer than {KEY_BYTES} bytes"),
            ));
        }
        let arguments: Value = serde_json::from_str(&call.arguments_json)
            .map_err(|error| status::invalid("arguments_json", format!("is not JSON: {error}")))?;
        let arguments = arguments
            .as_object()
            .ok_or_else(|| status::invalid("arguments_json", "must be a JSON object"))?;
        let key = (!call.idempotency_key.is_empty() && World::is_transaction(&call.name))
            .then(|| (call.name.clone(), call.idempotency_key.clone()));
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = key.as_ref().and_then(|key| done.answers.get(key)) {
            return Ok(answer.clone());
        }
        let answer = self
            .world
            .answer(&call.name, arguments)
            .map_err(|refusal| reason(&call.name, refusal))?
            .to_string();
        if let Some(key) = key {
            done.remember(key, &answer);
        }
        Ok(answer)
    }
}

fn reason(tool: &str, refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Unknown => Reason::NotFound {
            reason: "TOOL_UNKNOWN",
            message: format!("no tool `{tool}`; ListTools names those there are"),
        },
        Refusal::NoMatch => Reason::NotFound {
            reason: "NO_MATCH",
            message: format!("nothing recorded for {tool} fits these arguments"),
        },
        Refusal::Invalid(faults) => {
            let violation = |(name, description)| Violation {
                field: format!("arguments_json.{name}"),
                description,
            };
            Reason::Invalid(faults.into_iter().map(violation).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_proto::v1::tool_service_server::ToolService as _;
    use std::path::Path;
    use tonic::Code;

    fn concierge() -> Concierge {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let world =
            World::load(&data.join("services.json"), &data.join("tool_results.jsonl.gz")).expect("shipped data");
        Concierge {
            world,
            done: Mutex::default(),
        }
    }

    async fn call(concierge: &Concierge, name: &str, arguments: &str, key: &str) -> Result<String, Status> {
        let request = v1::CallToolRequest {
            name: name.into(),
            arguments_json: arguments.into(),
            idempotency_key: key.into(),
        };
        Ok(concierge
            .call_tool(Request::new(request))
            .await?
            .into_inner()
            .result_json)
    }

    #[tokio::test]
    async fn the_same_key_gives_the_same_answer_even_to_other_arguments() {
        let concierge = concierge();
        let ride = |n: u32| format!(r#"{{"destination": "Here", "number_of_riders": "{n}", "shared_ride": "True"}}"#);
        let first = call(&concierge, "RideSharing_1.GetRide", &ride(1), "k")
            .await
            .expect("first");
        assert_eq!(
            call(&concierge, "RideSharing_1.GetRide", &ride(2), "k")
                .await
                .expect("retry"),
            first
        );
        assert_ne!(
            call(&concierge, "RideSharing_1.GetRide", &ride(2), "other")
                .await
                .expect("another"),
            first
        );
    }

    #[tokio::test]
    async fn refusals_have_codes_and_reasons() {
        let concierge = concierge();
        let find = "Restaurants_1.FindRestaurants";
        for (name, arguments, code, reason) in [
            ("No.Tool", "{}", Code::NotFound, "TOOL_UNKNOWN"),
            (
                find,
                r#"{"cuisine": "Martian", "city": "Mars"}"#,
                Code::NotFound,
                "NO_MATCH",
            ),
            (find, "{}", Code::InvalidArgument, "INVALID_REQUEST"),
            (find, "[]", Code::InvalidArgument, "INVALID_REQUEST"),
            (find, "{", Code::InvalidArgument, "INVALID_REQUEST"),
        ] {
            let refused = call(&concierge, name, arguments, "").await.expect_err(arguments);
            assert_eq!(
                (refused.code(), status::error_reason(&refused).as_deref()),
                (code, Some(reason)),
                "{refused}"
            );
        }
    }
}
