//! A call's spans: `prefill` and `decode` are its children, though another thread makes them, and carry what UIs read.
#[expect(dead_code, reason = "what one test needs of it")]
#[path = "../behaviour/world.rs"]
mod world;

use shoal_proto::v1;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
};
use world::{Served, fixture, until};

#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: HashMap<&'static str, String>,
    id: u64,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields
            .insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

#[derive(Clone, Default)]
struct Recorder {
    open: Arc<Mutex<HashMap<u64, Seen>>>,
    /// Ids are used again, so what closed is kept apart.
    closed: Arc<Mutex<Vec<Seen>>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context
            .span(id)
            .and_then(|span| span.parent().map(|p| p.id().into_u64()));
        let mut seen = Seen {
            name: attributes.metadata().name(),
            parent,
            ..Seen::default()
        };
        attributes.record(&mut seen);
        self.open.lock().expect("whole").insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.open.lock().expect("whole").get_mut(&id.into_u64()) {
            values.record(seen);
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        if let Some(mut seen) = self.open.lock().expect("whole").remove(&id.into_u64()) {
            seen.id = id.into_u64();
            self.closed.lock().expect("whole").push(seen);
        }
    }
}

impl Recorder {
    fn find(&self, wanted: impl Fn(&Seen) -> bool) -> Option<Seen> {
        self.closed.lock().expect("whole").iter().find(|s| wanted(s)).cloned()
    }

    async fn closed(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        until(what, || self.find(&wanted).is_some()).await;
        self.find(&wanted).expect("closed")
    }
}

fn request(text: &str, max_tokens: u32) -> v1::GenerateRequest {
    v1::GenerateRequest {
        task: "echo".into(),
        prompt: Some(v1::Prompt {
            content: Some(v1::prompt::Content::Text(text.into())),
        }),
        sampling: Some(v1::Sampling {
            max_tokens: Some(max_tokens),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn ask(served: &Served, request: v1::GenerateRequest) -> String {
    let mut stream = served.client().generate(request).await.expect("accepted").into_inner();
    let mut text = String::new();
    while let Some(response) = stream.message().await.expect("a message") {
        if let Some(v1::generate_response::Event::Done(done)) = response.event {
            text = done.text;
        }
    }
    text
}

/// One test and a binary of its own: a process has one subscriber, and a callsite that another test's thread meets while it is being set
/// may be switched off for good.
#[tokio::test(flavor = "multi_thread")]
async fn prefill_and_decode_are_children_of_the_call_are_counted_and_say_what_was_asked_only_if_they_may() {
    let recorder = Recorder::default();
    let subscriber = tracing_subscriber::registry().with(recorder.clone());
    tracing::subscriber::set_global_default(subscriber).expect("the only one of this binary");
    let served = Served::start("tiny_decoder", 2, |_| {}).await;
    let output = ask(&served, request("the one secret call of this test", 7)).await;
    // Other tests of this binary may be at work: a decode of six steps is ours alone.
    let steps = |n: &'static str| {
        move |seen: &Seen| seen.name == "decode" && seen.fields.get("shoal.decode.steps").is_some_and(|s| s == n)
    };
    let decode = recorder.closed("decode is closed", steps("6")).await;
    assert_eq!(decode.fields["gen_ai.usage.output_tokens"], "7");
    assert_eq!(decode.fields["gen_ai.provider.name"], "shoal");
    let parent = decode.parent.expect("a child");
    let call = recorder
        .closed("the call is closed", |s| s.name == "generate" && s.id == parent)
        .await;
    assert_eq!(call.fields["rpc.method"], "shoal.v1.SpecialistService/Generate");
    assert_eq!(call.fields["rpc.response.status_code"], "OK");
    assert_eq!(call.fields["gen_ai.response.model"], "tiny_decoder@1");
    assert_eq!(call.fields["gen_ai.usage.output_tokens"], "7");
    let prefill = recorder
        .find(|s| s.name == "prefill" && s.parent == Some(parent))
        .expect("a sibling");
    assert_eq!(
        prefill.fields["gen_ai.usage.input_tokens"],
        call.fields["gen_ai.usage.input_tokens"]
    );
    // Nothing of prompt or answer is anywhere: content is off unless it is switched on.
    let told = |what: &str| recorder.find(|s| s.fields.values().any(|v| v.contains(what)));
    assert!(told("secret").is_none() && told(&format!("{output:?}")).is_none());
    assert!(!call.fields.contains_key("input.value") && !call.fields.contains_key("output.value"));

    let refused = served.client().generate(request("too many tokens", 9999)).await;
    assert!(refused.is_err());
    let failed = |s: &Seen| {
        s.fields
            .get("rpc.response.status_code")
            .is_some_and(|c| c == "INVALID_ARGUMENT")
    };
    let failed = recorder.closed("the refused call is closed", failed).await;
    assert_eq!(
        (failed.name, failed.fields["otel.status_code"].as_str()),
        ("generate", "ERROR")
    );

    // A tagger's run is its prefill; there is no decoding to tell of.
    let tagger = Served::start("tiny_tag", 1, |_| {}).await;
    let tagged = v1::GenerateRequest {
        task: "call".into(),
        ..request("play jazz", 1)
    };
    ask(&tagger, tagged).await;
    let of_tagger = |name: &'static str| {
        move |s: &Seen| s.name == name && s.fields.values().any(|v| v == "tiny_tag" || v == "tiny_tag@1")
    };
    let call = recorder.closed("the call is closed", of_tagger("generate")).await;
    assert_eq!(call.fields["gen_ai.usage.output_tokens"], "0");
    let prefill = recorder.closed("its run is closed", of_tagger("prefill")).await;
    assert!(prefill.parent.is_some() && prefill.fields["gen_ai.usage.input_tokens"] == "4");
    assert!(recorder.find(of_tagger("decode")).is_none());

    let told = shoal_kit::config::Telemetry {
        content: true,
        ..Default::default()
    };
    let served = Served::folder(&fixture("tiny_decoder"), 1, |_| {}, &told).await;
    let output = ask(&served, request("an open call", 9)).await;
    let decode = recorder.closed("decode is closed", steps("8")).await;
    let call = recorder
        .closed("the call is closed", |s| {
            s.name == "generate" && Some(s.id) == decode.parent
        })
        .await;
    assert_eq!(call.fields["input.value"], "an open call");
    assert_eq!(call.fields["output.value"], format!("{output:?}").trim_matches('"'));
    assert!(!decode.fields.contains_key("output.value"), "once is enough");
}
