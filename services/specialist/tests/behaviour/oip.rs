//! The Open Inference Protocol, as its clients speak it.
use crate::{folders::Copy, world::Served};
use shoal_proto::oip::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelReadyRequest, ServerLiveRequest, ServerMetadataRequest, ServerReadyRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use tonic::{Code, transport::Channel};

pub(crate) fn client(served: &Served) -> GrpcInferenceServiceClient<Channel> {
    GrpcInferenceServiceClient::new(shoal_kit::channel::connect_lazy(&served.grpc).expect("a URI"))
}

pub(crate) fn request(texts: &[&str], raw: bool) -> ModelInferRequest {
    let packed: Vec<u8> = texts
        .iter()
        .flat_map(|t| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat())
        .collect();
    let contents = InferTensorContents {
        bytes_contents: texts.iter().map(|t| t.as_bytes().to_vec()).collect(),
        ..Default::default()
    };
    let input = InferInputTensor {
        name: "text_input".into(),
        datatype: "BYTES".into(),
        shape: vec![texts.len() as i64],
        contents: (!raw).then_some(contents),
        ..Default::default()
    };
    let max = InferParameter {
        parameter_choice: Some(ParameterChoice::Int64Param(12)),
    };
    ModelInferRequest {
        model_name: "echo".into(),
        id: "42".into(),
        parameters: [("max_tokens".to_owned(), max)].into(),
        inputs: vec![input],
        raw_input_contents: if raw { vec![packed] } else { Vec::new() },
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_go_in_and_come_out_in_whichever_place_the_client_uses() {
    let served = Served::start("tiny_decoder", 4, |_| {}).await;
    let mut client = client(&served);
    assert!(
        client
            .server_live(ServerLiveRequest {})
            .await
            .expect("live")
            .into_inner()
            .live
    );
    assert!(
        client
            .server_ready(ServerReadyRequest {})
            .await
            .expect("ready")
            .into_inner()
            .ready
    );
    let texts = ["hello world", "", "é and more"];
    let contents = client
        .model_infer(request(&texts, false))
        .await
        .expect("infers")
        .into_inner();
    let raw = client
        .model_infer(request(&texts, true))
        .await
        .expect("infers")
        .into_inner();
    let (plain, packed) = (&contents.outputs[0], &raw.raw_output_contents[0]);
    assert_eq!(
        (plain.name.as_str(), plain.datatype.as_str(), &plain.shape[..]),
        ("text_output", "BYTES", &[3i64][..])
    );
    let elements = &plain.contents.as_ref().expect("contents").bytes_contents;
    let wanted: Vec<u8> = elements
        .iter()
        .flat_map(|e| [&(e.len() as u32).to_le_bytes(), e.as_slice()].concat())
        .collect();
    assert_eq!(packed, &wanted, "greedy: the same text both ways");
    assert!(contents.raw_output_contents.is_empty() && raw.outputs[0].contents.is_none());
    assert_eq!(
        (raw.id.as_str(), raw.model_name.as_str(), raw.model_version.as_str()),
        ("42", "echo", "1")
    );
    assert_eq!(
        raw.parameters["output_tokens"].parameter_choice,
        Some(ParameterChoice::Int64Param(36))
    );
    assert!(raw.parameters.contains_key("confidence") && raw.parameters.contains_key("input_tokens"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_says_what_goes_in_and_out_and_unknown_models_are_not_found() {
    let served = Served::start("tiny_embedder", 1, |_| {}).await;
    let mut client = client(&served);
    assert_eq!(
        client
            .server_metadata(ServerMetadataRequest {})
            .await
            .expect("told")
            .into_inner()
            .name,
        "shoal"
    );
    let named = |name: &str, version: &str| ModelMetadataRequest {
        name: name.into(),
        version: version.into(),
    };
    let metadata = client
        .model_metadata(named("tiny_embedder", "1"))
        .await
        .expect("told")
        .into_inner();
    assert_eq!(
        (metadata.inputs[0].name.as_str(), metadata.outputs[0].name.as_str()),
        ("text_input", "embedding")
    );
    assert_eq!(metadata.outputs[0].shape, [-1, 32]);
    for bad in [named("nobody", ""), named("tiny_embedder", "9")] {
        let ready = client.model_ready(ModelReadyRequest {
            name: bad.name.clone(),
            version: bad.version.clone(),
        });
        assert!(!ready.await.expect("told").into_inner().ready);
        assert_eq!(
            client.model_metadata(bad).await.expect_err("unknown").code(),
            Code::NotFound
        );
    }
    let request = ModelInferRequest {
        model_name: "tiny_embedder".into(),
        ..request(&["a", "bc"], true)
    };
    let response = client.model_infer(request).await.expect("infers").into_inner();
    assert_eq!(
        (response.outputs[0].shape.clone(), response.raw_output_contents[0].len()),
        (vec![2, 32], 2 * 32 * 4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_parameter_names_is_the_one_that_a_classifier_is_asked_for_and_must_be_there() {
    let copy = Copy::of("tiny_classifier");
    copy.edit("specialist.toml", "\"route\"", "\"route\", \"urgent\"");
    // Whatever the text, this task's score says by which map it was made.
    copy.edit(
        "1/card.toml",
        "[training]",
        "[calibration.urgent]\nconfidence_threshold = 0.5\nstatistic = \"sum_logprob\"\nknots = [[-9, 0.125], [0, 0.125]]\n\n[training]",
    );
    let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
    let embedder = Served::start("tiny_embedder", 1, |_| {}).await;
    let asked = |model: &str, task: &str| {
        let named = InferParameter {
            parameter_choice: Some(ParameterChoice::StringParam(task.into())),
        };
        ModelInferRequest {
            model_name: model.into(),
            parameters: [("task".to_owned(), named)].into(),
            ..request(&["play jazz"], false)
        }
    };
    // One over the other: the parameter says more than the model's name.
    for model in ["tiny_classifier", "route"] {
        let answer = client(&served)
            .model_infer(asked(model, "urgent"))
            .await
            .expect("infers");
        let confidence = answer.into_inner().parameters["confidence"].parameter_choice.clone();
        assert_eq!(confidence, Some(ParameterChoice::DoubleParam(0.125)), "{model}");
    }
    for (at, wire) in [
        (&served, asked("tiny_classifier", "nobody")),
        (&embedder, asked("tiny_embedder", "nobody")),
    ] {
        let refused = client(at).model_infer(wire).await.expect_err("no such task");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("`nobody` is no task"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_protocol_is_refused_by_field() {
    let served = Served::start("tiny_decoder", 1, |_| {}).await;
    let mut client = client(&served);
    let mut cases = vec![];
    let mut case = |change: fn(&mut ModelInferRequest)| {
        let mut wire = request(&["hello"], true);
        change(&mut wire);
        cases.push(wire);
    };
    case(|w| w.inputs.clear());
    case(|w| w.inputs[0].name = "prompt".into());
    case(|w| w.inputs[0].datatype = "FP32".into());
    case(|w| w.inputs[0].shape = vec![2]);
    case(|w| w.inputs[0].shape = vec![-1]);
    case(|w| w.raw_input_contents[0].truncate(3));
    case(|w| w.raw_input_contents[0][0] = 200);
    case(|w| w.raw_input_contents[0][5] = 0xff);
    case(|w| w.raw_input_contents.clear());
    case(|w| {
        w.parameters
            .insert(
                "max_tokens".into(),
                InferParameter {
                    parameter_choice: Some(ParameterChoice::Int64Param(-1)),
                },
            )
            .map_or((), drop)
    });
    for wire in cases {
        let status = client.model_infer(wire.clone()).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{wire:?}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_texts_do_not_fit_the_queue_at_once_is_answered_in_their_order() {
    // Two and a half of these prompts may wait.
    let served = Served::start("tiny_decoder", 1, |c| c.queue_tokens = 40).await;
    let mut client = client(&served);
    let texts: Vec<String> = (0..20).map(|i| format!("hello {i:02}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answered = client.model_infer(request(&texts, false)).await;
    let answered = answered.expect("nobody else is here").into_inner();
    let elements = |response: &ModelInferResponse| {
        let contents = response.outputs[0].contents.as_ref();
        contents.expect("contents").bytes_contents.clone()
    };
    let mut alone = Vec::new();
    for text in texts {
        let one = client.model_infer(request(&[text], false)).await.expect("infers");
        alone.extend(elements(&one.into_inner()));
    }
    assert_eq!(elements(&answered), alone);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_the_model_has_may_be_asked_for_by_name_and_no_other() {
    for (model, output) in [("echo", "text_output"), ("tiny_embedder", "embedding")] {
        let fixture = if model == "echo" { "tiny_decoder" } else { model };
        let served = Served::start(fixture, 1, |_| {}).await;
        let wanting = |names: &[&str]| {
            let named = |name: &&str| InferRequestedOutputTensor {
                name: (*name).to_owned(),
                ..Default::default()
            };
            ModelInferRequest {
                model_name: model.into(),
                outputs: names.iter().map(named).collect(),
                ..request(&["hello"], false)
            }
        };
        let mut client = client(&served);
        let infers = client
            .model_infer(wanting(&[output]))
            .await
            .expect("infers")
            .into_inner();
        assert_eq!((infers.outputs.len(), infers.outputs[0].name.as_str()), (1, output));
        let refused = client.model_infer(wanting(&[output, "logits"])).await;
        let refused = refused.expect_err("there is no such output");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().contains("logits") && refused.message().contains(output),
            "{refused}"
        );
    }
}
