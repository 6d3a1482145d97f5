//! The Open Inference Protocol: tasks are models.
use crate::doors::served;
use shoal_proto::oip::{
    InferParameter, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, ServerLiveRequest,
    ServerMetadataRequest, ServerReadyRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use tonic::Code;

fn infer(model: &str, texts: &[&str]) -> ModelInferRequest {
    let element = |t: &&str| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat();
    ModelInferRequest {
        model_name: model.into(),
        id: "42".into(),
        parameters: [(
            "max_tokens".to_owned(),
            InferParameter {
                parameter_choice: Some(ParameterChoice::Int64Param(7)),
            },
        )]
        .into(),
        inputs: vec![InferInputTensor {
            name: "text_input".into(),
            datatype: "BYTES".into(),
            shape: vec![texts.len() as i64],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![texts.iter().flat_map(element).collect()],
        ..ModelInferRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_models_of_the_inference_protocol() {
    let (echo, _planner, world) = served().await;
    let mut client = GrpcInferenceServiceClient::new(world.channel.clone());
    assert!(
        client
            .server_live(ServerLiveRequest {})
            .await
            .expect("told")
            .into_inner()
            .live
    );
    assert!(
        client
            .server_ready(ServerReadyRequest {})
            .await
            .expect("told")
            .into_inner()
            .ready
    );
    assert_eq!(
        client
            .server_metadata(ServerMetadataRequest {})
            .await
            .expect("told")
            .into_inner()
            .name,
        "shoal"
    );
    let ready = |name: &str| ModelReadyRequest {
        name: name.into(),
        version: String::new(),
    };
    assert!(
        client
            .model_ready(ready("echo"))
            .await
            .expect("told")
            .into_inner()
            .ready
    );
    assert!(
        !client
            .model_ready(ready("nobody"))
            .await
            .expect("told")
            .into_inner()
            .ready
    );
    let metadata = client
        .model_metadata(ModelMetadataRequest {
            name: "echo".into(),
            version: "1".into(),
        })
        .await
        .expect("told")
        .into_inner();
    assert_eq!(
        (metadata.inputs[0].name.as_str(), metadata.outputs[0].name.as_str()),
        ("text_input", "text_output")
    );
    let answer = client
        .model_infer(infer("echo", &["a $1", "é"]))
        .await
        .expect("inferred")
        .into_inner();
    let expected: Vec<u8> = ["said a $1", "said é"]
        .iter()
        .flat_map(|t| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat())
        .collect();
    assert_eq!(
        (
            &answer.raw_output_contents[0],
            answer.outputs[0].shape.as_slice(),
            answer.id.as_str()
        ),
        (&expected, &[2i64][..], "42")
    );
    assert_eq!(
        answer.parameters["output_tokens"].parameter_choice,
        Some(ParameterChoice::Int64Param(10))
    );
    assert_eq!(
        echo.notes.seen()[0]
            .request
            .sampling
            .as_ref()
            .and_then(|s| s.max_tokens),
        Some(7)
    );
    for (bad, code) in [
        (infer("nobody", &["x"]), Code::NotFound),
        (infer("echo", &[]), Code::InvalidArgument),
        (infer("echo", &["x"; 65]), Code::InvalidArgument),
        (
            ModelInferRequest {
                model_version: "9".into(),
                ..infer("echo", &["x"])
            },
            Code::NotFound,
        ),
        (
            ModelInferRequest {
                outputs: vec![InferRequestedOutputTensor {
                    name: "scores".into(),
                    ..Default::default()
                }],
                ..infer("echo", &["x"])
            },
            Code::InvalidArgument,
        ),
        (
            ModelInferRequest {
                parameters: [(
                    "task".to_owned(),
                    InferParameter {
                        parameter_choice: Some(ParameterChoice::StringParam("other".into())),
                    },
                )]
                .into(),
                ..infer("echo", &["x"])
            },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(client.model_infer(bad).await.expect_err("refused").code(), code);
    }
}
