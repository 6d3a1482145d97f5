//! `POST /v1/embeddings`, over a socket.
use crate::{
    http::{body, call},
    world::{Served, load},
};
use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use serde_json::{Value, json};
use shoal_specialist::{encoder::Answer, engine::queue::Urgency, folder::manifest::Kind};

fn post(extra: Value) -> String {
    let mut request = json!({"model": "tiny_embedder", "input": "play jazz"});
    let map = request.as_object_mut().expect("a map");
    map.extend(extra.as_object().expect("a map").clone());
    request.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_have_their_vectors_in_order_and_say_what_they_took() {
    let served = Served::start("tiny_embedder", 1, |_| {}).await;
    let texts = ["book a table for two".to_owned(), "play jazz".to_owned()];
    let specialist = load("tiny_embedder", 1);
    let encoder = specialist.encoder(Kind::Embed).expect("embeds");
    let wanted = encoder.encode(&texts, Urgency::default()).await.expect("encodes");
    let request = post(json!({"input": texts, "encoding_format": "float", "dimensions": 32, "user": "somebody"}));
    let (status, response) = call(&served, "POST", "/v1/embeddings", &request).await;
    assert_eq!(status, 200, "{response}");
    let told = body(&response);
    let tokens = wanted.input_tokens;
    assert_eq!(told["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    assert_eq!(
        (&told["object"], &told["model"]),
        (&json!("list"), &json!("tiny_embedder@1"))
    );
    for (i, wanted) in wanted.answers.iter().enumerate() {
        let entry = &told["data"][i];
        assert_eq!((&entry["object"], &entry["index"]), (&json!("embedding"), &json!(i)));
        let vector: Vec<f32> = serde_json::from_value(entry["embedding"].clone()).expect("numbers");
        let Answer::Vector(wanted) = wanted else {
            panic!("a vector")
        };
        let near = vector.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(vector.len() == 32 && near, "{vector:?}");
    }
    // As OpenAI's Python client asks, and as it reads.
    let request = post(json!({"input": texts, "encoding_format": "base64"}));
    let (_, packed) = call(&served, "POST", "/v1/embeddings", &request).await;
    let packed = body(&packed)["data"][1]["embedding"]
        .as_str()
        .expect("a text")
        .to_owned();
    let bytes = BASE64.decode(packed).expect("base64");
    let numbers = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let plain: Vec<f32> = serde_json::from_value(told["data"][1]["embedding"].clone()).expect("numbers");
    assert!(numbers.zip(&plain).filter(|(a, b)| (a - *b).abs() < 1e-5).count() == 32);
    // One text, of the task's name.
    let (status, one) = call(&served, "POST", "/v1/embeddings", &post(json!({"model": "embed"}))).await;
    assert_eq!((status, body(&one)["data"].as_array().map(Vec::len)), (200, Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_refused_in_openais_shape_by_field() {
    let served = Served::start("tiny_embedder", 1, |_| {}).await;
    let classifier = Served::start("tiny_classifier", 1, |_| {}).await;
    let long = "word ".repeat(400);
    for (at, wanted, request, said) in [
        (&served, 404, post(json!({"model": "gpt"})), "no model `gpt`"),
        (
            &classifier,
            400,
            post(json!({"model": "tiny_classifier"})),
            "does not embed",
        ),
        (&served, 400, post(json!({"input": []})), "input: give 1 to 64"),
        (
            &served,
            400,
            post(json!({"input": vec!["x"; 65]})),
            "input: give 1 to 64",
        ),
        (&served, 400, post(json!({"input": ["x", long]})), "input[1]: it has"),
        (
            &served,
            400,
            post(json!({"input": [[1, 2]]})),
            "neither a text nor a list of texts",
        ),
        (&served, 400, post(json!({"encoding_format": "hex"})), "send \"float\""),
        (&served, 400, post(json!({"dimensions": 16})), "vectors have 32"),
        (&served, 400, "{".to_owned(), "body"),
    ] {
        let (status, response) = call(at, "POST", "/v1/embeddings", &request).await;
        assert_eq!(status, wanted, "{request:.200}: {response}");
        let message = body(&response)["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(message.contains(said), "{message:?} lacks {said:?}");
    }
}
