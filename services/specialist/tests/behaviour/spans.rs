//! A call's spans: `prefill` and `decode` are its children, though another thread makes them, and carry what UIs read.
use crate::{stub::until, world::Served};
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

#[tokio::test(flavor = "multi_thread")]
async fn prefill_and_decode_are_children_of_the_call_and_are_counted() {
    let recorder = Recorder::default();
    let subscriber = tracing_subscriber::registry().with(recorder.clone());
    tracing::subscriber::set_global_default(subscriber).expect("the only one of this binary");
    let served = Served::start("tiny_decoder", 2, |_| {}).await;
    let text = "the one call of this test".to_owned();
    let prompt = v1::Prompt {
        content: Some(v1::prompt::Content::Text(text)),
    };
    let sampling = v1::Sampling {
        max_tokens: Some(7),
        ..Default::default()
    };
    let request = v1::GenerateRequest {
        task: "echo".into(),
        prompt: Some(prompt),
        sampling: Some(sampling),
        ..Default::default()
    };
    let mut stream = served.client().generate(request).await.expect("accepted").into_inner();
    while stream.message().await.expect("a message").is_some() {}
    drop(stream);
    // Other tests of this binary may be at work: a decode of six steps is ours alone.
    let ours = |seen: &Seen| seen.name == "decode" && seen.fields.get("shoal.decode.steps").is_some_and(|n| n == "6");
    let find = |f: &dyn Fn(&Seen) -> bool| recorder.closed.lock().expect("whole").iter().find(|s| f(s)).cloned();
    until("decode is closed", || find(&ours).is_some()).await;
    let decode = find(&ours).expect("closed");
    assert_eq!(decode.fields["gen_ai.usage.output_tokens"], "7");
    assert_eq!(decode.fields["gen_ai.provider.name"], "shoal");
    let parent = decode.parent.expect("a child");
    let is_parent = |seen: &Seen| seen.name == "generate" && seen.id == parent;
    until("the call is closed", || find(&is_parent).is_some()).await;
    let call = find(&is_parent).expect("closed");
    assert_eq!(call.fields["rpc.method"], "shoal.v1.SpecialistService/Generate");
    assert_eq!(call.fields["rpc.response.status_code"], "OK");
    assert_eq!(call.fields["gen_ai.response.model"], "tiny_decoder@1");
    assert_eq!(call.fields["gen_ai.usage.output_tokens"], "7");
    let prefill = find(&|seen| seen.name == "prefill" && seen.parent == Some(parent)).expect("a sibling");
    assert_eq!(
        prefill.fields["gen_ai.usage.input_tokens"],
        call.fields["gen_ai.usage.input_tokens"]
    );
}
