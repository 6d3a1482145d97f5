//! Versions that are switched while calls run. Version 2 is the fixture with another chat template: other prompts, other texts.
use crate::{
    doors::{ask, collect},
    folders::Copy,
    http,
    world::{self, Served},
};
use shoal_proto::{
    oip::{
        ModelInferRequest, ModelMetadataRequest, ModelReadyRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient,
    },
    v1::{self, mesh_service_client::MeshServiceClient},
};
use shoal_specialist::{sampling::Sampling, specialist::Specialist};
use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const PROMPTS: [&str; 4] = [
    "hello world",
    "the quick brown fox",
    "a",
    "what is the weather in Oslo?",
];

/// Tokens of an answer: some decode steps, so that a switch meets rows that decode.
const TOKENS: usize = 24;

/// From a new number in specialist.toml to the switch: half a second until it is looked at, and the load, on a machine that does
/// something else besides.
const SWITCH: Duration = Duration::from_secs(60);

impl Copy {
    /// Writes specialist.toml as `shoal activate` does: a reader never finds half of it.
    pub(crate) fn activate(&self, version: u32) {
        let text = fs::read_to_string(self.path("specialist.toml")).expect("readable");
        let kept: String = text
            .lines()
            .filter(|l| !l.starts_with("active_version"))
            .fold(String::new(), |t, l| t + l + "\n");
        fs::write(self.path("partial"), format!("{kept}active_version = {version}\n")).expect("written");
        fs::rename(self.path("partial"), self.path("specialist.toml")).expect("renamed");
    }
}

/// A fixture in two versions, the first active.
pub(crate) fn two(fixture: &str) -> Copy {
    let copy = Copy::of(fixture);
    copy.duplicate("1", "2");
    copy.edit("2/card.toml", "version = 1", "version = 2");
    copy
}

/// The decoder, whose second version says other things and costs ten times as much.
pub(crate) fn two_decoders() -> Copy {
    let copy = two("tiny_decoder");
    let template = fs::read_to_string(copy.path("2/chat_template.jinja")).expect("readable");
    copy.write_in(
        "2",
        "chat_template.jinja",
        template.replace("<|input|>", "<|input|>second: ").as_bytes(),
    );
    copy.edit(
        "2/card.toml",
        "input_usd_per_million_tokens = 0.01",
        "input_usd_per_million_tokens = 0.1",
    );
    copy
}

pub(crate) fn request(prompt: &str) -> v1::GenerateRequest {
    v1::GenerateRequest {
        sampling: Some(v1::Sampling {
            max_tokens: Some(TOKENS as u32),
            ..Default::default()
        }),
        ..ask(prompt)
    }
}

/// What each version says to each prompt, asked of a model that is loaded alone.
async fn texts(copy: &Copy) -> BTreeMap<(String, String), String> {
    let mut texts = BTreeMap::new();
    for version in [1, 2] {
        copy.activate(version);
        let alone: Specialist = copy.load(1).expect("loads");
        for prompt in PROMPTS {
            let done = world::answer(&alone, world::ask("echo", prompt, Sampling::greedy(TOKENS))).await;
            texts.insert((alone.identity(), prompt.to_owned()), done.text);
        }
    }
    copy.activate(1);
    for prompt in PROMPTS {
        let of = |version: u32| &texts[&(format!("tiny_decoder@{version}"), prompt.to_owned())];
        assert_ne!(
            of(1),
            of(2),
            "{prompt:?}: a test that cannot tell them apart shows nothing"
        );
    }
    texts
}

pub(crate) async fn describe(served: &Served) -> v1::DescribeResponse {
    let described = served.client().describe(v1::DescribeRequest {}).await;
    described.expect("described").into_inner()
}

/// Waits until Describe says what is wanted.
pub(crate) async fn until(
    served: &Served,
    what: &str,
    wanted: impl Fn(&v1::DescribeResponse) -> bool,
) -> v1::DescribeResponse {
    let end = Instant::now() + SWITCH;
    loop {
        let now = describe(served).await;
        if wanted(&now) {
            return now;
        }
        assert!(Instant::now() < end, "never: {what}: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn switch(served: &Served, copy: &Copy, version: u32) {
    copy.activate(version);
    let what = format!("version {version} serves");
    let now = until(served, &what, |now| now.version == version).await;
    assert_eq!(now.refused, None);
}

/// Calls without a pause from so many callers, each held to the truth. Gives what each took, by model.
async fn load(
    served: &Served,
    callers: usize,
    texts: &BTreeMap<(String, String), String>,
    stop: &AtomicBool,
    models: &(AtomicUsize, AtomicUsize),
) -> Vec<Duration> {
    let one = async |caller: usize| {
        let (mut client, mut took) = (served.client(), Vec::new());
        for call in caller.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let prompt = PROMPTS[call % PROMPTS.len()];
            let began = Instant::now();
            let stream = client
                .generate(request(prompt))
                .await
                .expect("no call fails")
                .into_inner();
            let (text, done) = collect(stream).await.expect("no answer fails");
            took.push(began.elapsed());
            let wanted = texts.get(&(done.model.clone(), prompt.to_owned()));
            assert_eq!(Some(&text), wanted, "{} says to {prompt:?}", done.model);
            let usage = done.usage.expect("told");
            let price = if done.model.ends_with("@2") { 0.1 } else { 0.01 };
            let cost = (usage.input_tokens as f64 * price + usage.output_tokens as f64 * 0.02) / 1e6;
            assert!(
                (usage.cost_usd - cost).abs() < 1e-12,
                "{} costs {}",
                done.model,
                usage.cost_usd
            );
            let count = if done.model.ends_with("@2") {
                &models.1
            } else {
                &models.0
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        took
    };
    let took = futures::future::join_all((0..callers).map(one)).await;
    took.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_switches_under_load_fail_no_call_hold_none_up_and_mix_no_versions() {
    let copy = two_decoders();
    let texts = texts(&copy).await;
    // Each is loaded anew.
    let served = Served::folder(
        copy.root(),
        8,
        |c| c.keep_previous = Duration::ZERO,
        &Default::default(),
    )
    .await;
    describe(&served).await;
    let (stop, models) = (AtomicBool::new(false), Default::default());
    let calm = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (calm, ()) = tokio::join!(load(&served, 6, &texts, &stop, &models), calm);
    stop.store(false, Ordering::Relaxed);
    let switches = async {
        for version in [2, 1].into_iter().cycle().take(10) {
            switch(&served, &copy, version).await;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (took, ()) = tokio::join!(load(&served, 6, &texts, &stop, &models), switches);
    let (first, second) = (models.0.into_inner(), models.1.into_inner());
    assert!(first > 20 && second > 20, "{first} and {second}");
    let slowest = |took: &[Duration]| took.iter().max().copied().expect("calls");
    // A version that takes over has a core's work to do beside the calls while it loads: on one core they run at half their speed
    // then. Ten times the slowest calm call, and half a second for a scheduler that has other guests, is far above that, and far
    // under the deadlines that callers set.
    let (calm, switching) = (slowest(&calm), slowest(&took));
    let bound = calm * 10 + Duration::from_millis(500);
    eprintln!(
        "{} calls, the slowest {switching:?}; {calm:?} without switches",
        took.len()
    );
    assert!(switching < bound, "{switching:?}, over {bound:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_were_admitted_before_a_switch_end_on_the_version_that_they_began_on() {
    let copy = two_decoders();
    let texts = texts(&copy).await;
    let served = Arc::new(Served::folder(copy.root(), 1, |_| {}, &Default::default()).await);
    describe(&served).await;
    copy.activate(2);
    // One slot, and always two hundred calls before it: when the switch comes, most of them still wait.
    let (old, new) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut calls = tokio::task::JoinSet::new();
    let late = loop {
        while calls.len() < 200 && new.load(Ordering::SeqCst) == 0 {
            let (mut client, texts, old, new) = (served.client(), texts.clone(), old.clone(), new.clone());
            calls.spawn(async move {
                let stream = client
                    .generate(request(PROMPTS[0]))
                    .await
                    .expect("no call fails")
                    .into_inner();
                let (text, done) = collect(stream).await.expect("no answer fails");
                assert_eq!(text, texts[&(done.model.clone(), PROMPTS[0].to_owned())]);
                match done.model.as_str() {
                    "tiny_decoder@2" => drop(new.fetch_add(1, Ordering::SeqCst)),
                    _ => drop(old.fetch_add(1, Ordering::SeqCst)),
                }
            });
        }
        calls.join_next().await.expect("some run").expect("no call fails");
        if new.load(Ordering::SeqCst) > 0 {
            break old.load(Ordering::SeqCst);
        }
    };
    while let Some(ended) = calls.join_next().await {
        ended.expect("no call fails");
    }
    let old = old.load(Ordering::SeqCst);
    assert!(
        old > late,
        "{late} of {old} had ended when the new version first answered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_tells_the_version_that_serves() {
    let copy = two_decoders();
    let served = Served::folder(copy.root(), 2, |_| {}, &Default::default()).await;
    let channel = shoal_kit::channel::connect_lazy(&served.grpc).expect("a URI");
    let (mut oip, mut mesh) = (
        GrpcInferenceServiceClient::new(channel.clone()),
        MeshServiceClient::new(channel),
    );
    for version in [1, 2, 1] {
        switch(&served, &copy, version).await;
        let (own, other) = (version.to_string(), (3 - version).to_string());
        let identity = format!("tiny_decoder@{version}");
        let metadata = ModelMetadataRequest {
            name: "echo".into(),
            version: own.clone(),
        };
        let metadata = oip.model_metadata(metadata).await.expect("told").into_inner();
        assert_eq!(metadata.versions, std::slice::from_ref(&own));
        for (asked, ready) in [(&own, true), (&other, false)] {
            let request = ModelReadyRequest {
                name: "echo".into(),
                version: asked.clone(),
            };
            assert_eq!(oip.model_ready(request).await.expect("told").into_inner().ready, ready);
        }
        let infer: ModelInferRequest = crate::oip::request(&["hello"], false);
        assert_eq!(
            oip.model_infer(infer)
                .await
                .expect("answered")
                .into_inner()
                .model_version,
            own
        );
        let status = mesh
            .get_status(v1::GetStatusRequest {})
            .await
            .expect("told")
            .into_inner();
        assert_eq!(status.processes[0].version, identity);
        let (code, said) = http::call(
            &served,
            "POST",
            "/v1/chat/completions",
            &http::chat(serde_json::json!({})),
        )
        .await;
        assert_eq!((code, &http::body(&said)["model"]), (200, &serde_json::json!(identity)));
        let price = describe(&served).await.input_usd_per_million_tokens;
        assert_eq!(price, if version == 2 { 0.1 } else { 0.01 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encoders_switch_too() {
    for fixture in ["tiny_classifier", "tiny_embedder"] {
        let copy = two(fixture);
        let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
        let mut client = served.client();
        for version in [1, 2, 1] {
            switch(&served, &copy, version).await;
            let texts = vec!["hello".to_owned()];
            let model = if fixture == "tiny_classifier" {
                let request = v1::ClassifyRequest {
                    texts,
                    ..Default::default()
                };
                client.classify(request).await.expect("labelled").into_inner().model
            } else {
                client
                    .embed(v1::EmbedRequest {
                        texts,
                        ..Default::default()
                    })
                    .await
                    .expect("embedded")
                    .into_inner()
                    .model
            };
            assert_eq!(model, format!("{fixture}@{version}"));
        }
    }
}
