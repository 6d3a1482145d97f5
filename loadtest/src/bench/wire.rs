//! `shoal-loadtest specialist`: a specialist process of its own, over gRPC, beside MLServer and beside the same model in this process.
use super::{
    Bench,
    caller::{Caller, framed, message},
    figure::Name,
    in_turn,
    inside::Inside,
    peer::{Peer, needed},
    process::{Served, binary},
    report::Report,
    runtime,
    stats::median,
    workload::{ROWS, text},
};
use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use shoal_kit::{channel, oip};
use shoal_proto::{
    oip::{
        InferTensorContents, ModelInferRequest, ModelInferResponse, ModelReadyRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient, model_infer_request::InferInputTensor,
    },
    v1::{self, specialist_service_client::SpecialistServiceClient},
};
use shoal_specialist::folder::Folder;
use std::{
    fs,
    future::Future,
    path::Path,
    time::{Duration, Instant},
};
use tonic::transport::Channel;

/// First tokens a round and side: what gRPC adds is a tenth of a prefill that varies by as much, so it takes many to see it.
const FIRST_TOKENS: usize = 200;

/// Rounds ahead: texts that nobody has asked yet.
const OTHERS: usize = 1000;

/// How long requests are counted, a round and side.
const WINDOW: Duration = Duration::from_millis(1500);

/// How long MLServer may take until its model is ready.
const READY: Duration = Duration::from_secs(60);

/// One answer; the longest are first tokens.
const CALL: Duration = Duration::from_secs(30);

/// Both servers of a classifier, and what they are asked.
struct Classifiers {
    served: Served,
    peer: Peer,
    ours: Classifier,
    theirs: Classifier,
}

/// A server of the Open Inference Protocol, and the model that it is asked for.
struct Classifier {
    caller: Caller,
    model: String,
}

/// The methods that are asked.
const GENERATE: &str = "/shoal.v1.SpecialistService/Generate";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Measures; gives the object.
///
/// # Errors
/// When something is missing, or a side has no answer.
pub(crate) async fn run(bench: &Bench, shoal: Option<&Path>, classifier: &Path) -> Result<Value> {
    let shoal = binary(shoal)?;
    let mut report = Report::default();
    report.ours(runtime::version().await?);
    let first = if bench.wants(Name::FirstTokenAddedUs) {
        let served = Served::start(&shoal, &bench.model, bench.threads).await?;
        Some((Inside::load(&bench.model, bench.threads).await?, served))
    } else {
        None
    };
    let classifiers = if bench.wants(Name::ClassifyVsMlserver) {
        Some(Classifiers::start(bench, &shoal, classifier, &mut report).await?)
    } else {
        None
    };
    let bar = bench.progress();
    for round in 0..=bench.rounds {
        // Round 0 warms up.
        let mut scratch = Report::default();
        let into = if round == 0 { &mut scratch } else { &mut report };
        if let Some((inside, served)) = &first {
            Box::pin(first_token(inside, served, round, into)).await?;
        }
        if let Some(classifiers) = &classifiers {
            classifiers.measure(round, into).await?;
        }
        if bench.wants(Name::RssBeyondWeightsMb) {
            at_rest(&shoal, bench, into).await?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let model = bench.model.display().to_string();
    Ok(report.to_json(bench.machine.clone(), bench.settings(&model, ROWS)))
}

/// Texts of one kind asked in turn, here and over gRPC; and here and over gRPC by tonic's own channel, which has a queue and a task between a call and its
/// connection. Of two in turn each comes as often behind itself as behind the other: whoever computed last has the cores' caches.
async fn first_token(inside: &Inside, served: &Served, round: usize, report: &mut Report) -> Result<()> {
    let caller = Caller::connect(&served.grpc, GENERATE).await?;
    let client = SpecialistServiceClient::new(channel::connect_lazy(&served.grpc)?);
    let (mut here, mut there, mut by_tonic) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..FIRST_TOKENS {
        let text = text(round * FIRST_TOKENS + i);
        let over_grpc = Box::pin(in_time(over_grpc(&caller, &text)));
        let (a, b) = in_turn(i, inside.first_token_of(&text), over_grpc).await?;
        here.push(a);
        there.push(b);
    }
    let here = median(&here);
    report.figure(Name::FirstTokenAddedUs, (median(&there) - here) * 1e6);
    report.detail("first token in process us", here * 1e6);
    report.detail("first token over gRPC us", median(&there) * 1e6);
    let mut here = Vec::new();
    for i in 0..FIRST_TOKENS {
        // Not this round's texts nor those before: the beginning of what was asked is kept.
        let text = text((OTHERS + round) * FIRST_TOKENS + i);
        let over_tonic = Box::pin(in_time(over_tonic(client.clone(), &text)));
        let (a, b) = in_turn(i, inside.first_token_of(&text), over_tonic).await?;
        here.push(a);
        by_tonic.push(b);
    }
    let added = median(&by_tonic) - median(&here);
    report.detail("first token over gRPC by tonic's channel, added us", added * 1e6);
    Ok(())
}

/// For an answer of one token.
fn generate(text: &str) -> v1::GenerateRequest {
    v1::GenerateRequest {
        prompt: Some(v1::Prompt {
            content: Some(v1::prompt::Content::Text(text.to_owned())),
        }),
        sampling: Some(v1::Sampling {
            max_tokens: Some(1),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Seconds until the first event of an answer of one token.
async fn over_grpc(caller: &Caller, text: &str) -> Result<f64> {
    let frame = framed(&generate(text));
    let started = Instant::now();
    let mut answer = caller.ask(frame).await?;
    answer.part().await?.context("an answer has an end")?;
    let seconds = started.elapsed().as_secs_f64();
    // To its end: a dropped stream is a cancelled request, and the next one would wait for that.
    while answer.part().await?.is_some() {}
    Ok(seconds)
}

/// The same by a generated client.
async fn over_tonic(mut client: SpecialistServiceClient<Channel>, text: &str) -> Result<f64> {
    let request = generate(text);
    let started = Instant::now();
    let mut events = client.generate(request).await?.into_inner();
    events.message().await?.context("an answer has an end")?;
    let seconds = started.elapsed().as_secs_f64();
    while events.message().await?.is_some() {}
    Ok(seconds)
}

async fn in_time(call: impl Future<Output = Result<f64>>) -> Result<f64> {
    tokio::time::timeout(CALL, call)
        .await
        .map_err(|_| anyhow!("no answer over gRPC within {CALL:?}"))?
}

impl Classifiers {
    async fn start(bench: &Bench, shoal: &Path, folder: &Path, report: &mut Report) -> Result<Self> {
        needed(folder)?;
        let opened = Folder::open(folder)?;
        let version = opened.model.parent().context("a model lies in a folder")?;
        let (peer, theirs) = fastest(version, bench.threads, report).await?;
        report.peer("mlserver", peer.settings());
        report.fact("classifier", json!(folder));
        let served = Served::start(shoal, folder, bench.threads).await?;
        let ours = Classifier::at(&served.grpc, opened.manifest.name.clone()).await?;
        let (a, b) = (ours.classify(&text(0)).await?, theirs.classify(&text(0)).await?);
        report.check(
            "both classifiers gave the same label",
            label(&a) == label(&b) && label(&a).is_some(),
        );
        Ok(Self {
            served,
            peer,
            ours,
            theirs,
        })
    }

    async fn measure(&self, round: usize, report: &mut Report) -> Result<()> {
        let ours = costed(self.ours.rate(), || self.served.cpu_seconds());
        let theirs = costed(self.theirs.rate(), || self.peer.cpu_seconds());
        let ((ours, our_cost), (theirs, their_cost)) = in_turn(round, ours, theirs).await?;
        report.figure(Name::ClassifyVsMlserver, ours / theirs);
        // Their caller is on the same cores: for the faster side it takes a fifth of them.
        report.detail("classify ours, processor us a request", our_cost * 1e6);
        report.detail("classify MLServer, processor us a request", their_cost * 1e6);
        report.detail("classify ours requests/s", ours);
        report.detail("classify MLServer requests/s", theirs);
        Ok(())
    }
}

/// Requests a second, and the seconds of the server's processor time that each took.
async fn costed(rate: impl Future<Output = Result<f64>>, used: impl Fn() -> Result<f64>) -> Result<(f64, f64)> {
    let (before, started) = (used()?, Instant::now());
    let rate = rate.await?;
    let requests = rate * started.elapsed().as_secs_f64();
    Ok((rate, (used()? - before) / requests))
}

/// MLServer as it is fastest here: batching gathers requests that one at a time might have been done with already, and a second thread inside an
/// operator may be in the way of the server's own; so all are tried.
async fn fastest(version: &Path, threads: usize, report: &mut Report) -> Result<(Peer, Classifier)> {
    let mut best: Option<(f64, Peer, Classifier)> = None;
    let (many, one) = (threads, 1);
    for (batch, threads) in [("16", many), ("1", many), ("16", one), ("1", one)] {
        let peer = Peer::start(
            "MLServer",
            "mlserver",
            "classifier.py",
            version,
            threads,
            &["--batch", batch],
        )
        .await?;
        let word = |key: &str| peer.settings()[key].as_str().unwrap_or_default().to_owned();
        let server = Classifier::at(&format!("http://{}", word("grpc")), word("model")).await?;
        // The first warms it up.
        server.rate().await?;
        let rate = server.rate().await?;
        report.fact(
            &format!("mlserver requests/s with batches of {batch} and {threads} threads"),
            json!(rate.round()),
        );
        if best.as_ref().is_none_or(|(most, ..)| rate > *most) {
            best = Some((rate, peer, server));
        }
    }
    best.map(|(_, peer, server)| (peer, server))
        .context("one of them is the fastest")
}

impl Classifier {
    /// Waits until the model is there, and connects.
    async fn at(server: &str, model: String) -> Result<Self> {
        let mut client = GrpcInferenceServiceClient::new(channel::connect_lazy(server)?);
        let end = Instant::now() + READY;
        loop {
            let request = ModelReadyRequest {
                name: model.clone(),
                ..Default::default()
            };
            match client.model_ready(request).await {
                Ok(answer) if answer.get_ref().ready => break,
                answer => ensure!(Instant::now() < end, "not ready within {READY:?}: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let caller = Caller::connect(server, INFER).await?;
        Ok(Self { caller, model })
    }

    fn request(&self, text: &str) -> Bytes {
        let contents = InferTensorContents {
            bytes_contents: vec![text.as_bytes().to_vec()],
            ..Default::default()
        };
        framed(&ModelInferRequest {
            model_name: self.model.clone(),
            inputs: vec![InferInputTensor {
                name: oip::TEXT_INPUT.into(),
                datatype: "BYTES".into(),
                shape: vec![1],
                contents: Some(contents),
                ..Default::default()
            }],
            ..Default::default()
        })
    }

    async fn classify(&self, text: &str) -> Result<ModelInferResponse> {
        let answer = tokio::time::timeout(CALL, self.caller.call(self.request(text))).await;
        message(&answer.map_err(|_| anyhow!("no label within {CALL:?}"))??)
    }

    /// Requests a second with 16 open at once. Closed: a server that is slower is asked less, and neither is overloaded.
    async fn rate(&self) -> Result<f64> {
        let started = Instant::now();
        let one = |caller: usize| async move {
            let request = self.request(&text(caller));
            let mut answered = 0_u32;
            while started.elapsed() < WINDOW {
                self.caller.call(request.clone()).await?;
                answered += 1;
            }
            Ok::<u32, anyhow::Error>(answered)
        };
        let all = futures::future::try_join_all((0..ROWS).map(one));
        let answered = tokio::time::timeout(WINDOW + CALL, all).await;
        let answered = answered.map_err(|_| anyhow!("no label within {CALL:?}"))??;
        Ok(f64::from(answered.iter().sum::<u32>()) / started.elapsed().as_secs_f64())
    }
}

/// The label in an answer, from whichever of the two places it is in.
fn label(answer: &ModelInferResponse) -> Option<Vec<u8>> {
    if let Some(raw) = answer.raw_output_contents.first() {
        return raw.get(4..).map(<[u8]>::to_vec);
    }
    let contents = answer.outputs.first()?.contents.as_ref()?;
    contents.bytes_contents.first().cloned()
}

/// Starts a specialist and looks at its memory once it serves and nobody has asked anything. The KV buffer's pages are not there yet (they are the
/// operating system's zeroes until a sequence writes them), so all that is taken off is the weights: taking off the whole buffer as well would
/// count memory that was never used.
#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
async fn at_rest(shoal: &Path, bench: &Bench, report: &mut Report) -> Result<()> {
    let folder = &bench.model;
    let model = Folder::open(folder)?.model;
    let data = model.with_extension("onnx.data");
    let weights: u64 = [&model, &data]
        .iter()
        .filter_map(|p| fs::metadata(p).ok())
        .map(|m| m.len())
        .sum();
    let served = Served::start(shoal, folder, bench.threads).await?;
    let resident = served.resident_bytes()?;
    report.figure(Name::RssBeyondWeightsMb, (resident as f64 - weights as f64) / 1e6);
    report.detail("specialist at rest, resident MB", resident as f64 / 1e6);
    report.detail("weights MB", weights as f64 / 1e6);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_proto::oip::model_infer_response::InferOutputTensor;

    #[test]
    fn a_label_is_read_from_either_place() {
        let contents = InferTensorContents {
            bytes_contents: vec![b"oos".to_vec()],
            ..Default::default()
        };
        let output = InferOutputTensor {
            contents: Some(contents),
            ..Default::default()
        };
        let mut answer = ModelInferResponse {
            outputs: vec![output],
            ..Default::default()
        };
        assert_eq!(label(&answer).as_deref(), Some(b"oos".as_slice()));
        answer.raw_output_contents = vec![b"\x03\0\0\0oos".to_vec()];
        assert_eq!(label(&answer).as_deref(), Some(b"oos".as_slice()));
        assert_eq!(label(&ModelInferResponse::default()), None);
    }
}
