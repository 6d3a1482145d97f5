//! A target that generates without decoding: a specialist of kind "tag".
use crate::{
    routing::{pair, verdicts},
    support::{
        model::{Model, say},
        plan::{model, request},
    },
};
use serde_json::json;
use shoal_proto::v1::{
    self,
    decision::Verdict::{Chosen, Invalid},
    prompt::Content,
};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_as_a_generating_model_is_and_judged_by_the_nodes_form_not_held_to_it() {
    let tagger = |text: &'static str| {
        Model::new("small", "t", move |_, _| say(text)).card(|c| {
            c.kind = "tag".into();
            c.max_new_tokens = 0;
        })
    };
    let mut node = model("a", "t", "play jazz");
    if let Some(v1::node::Kind::Model(call)) = &mut node.kind {
        call.output_schema_json = r#"{"type":"object","required":["y"]}"#.into();
        call.sampling = Some(v1::Sampling {
            max_tokens: Some(7),
            ..v1::Sampling::default()
        });
    }
    let asked = v1::ExecutePlanRequest {
        limits: Some(v1::PlanLimits {
            max_tokens: 100,
            ..v1::PlanLimits::default()
        }),
        ..request(vec![node])
    };
    for (text, verdict, output) in [("{\"y\":1}", Chosen, 1), ("{\"x\":1}", Invalid, 2)] {
        let large = Model::new("large", "t", |_, _| say("{\"y\":2}"));
        let (small, _large, world) = pair(tagger(text), large, |m| m).await;
        let ran = world.run(asked.clone()).await;
        assert_eq!(verdicts(&ran)[0], ("small".to_owned(), verdict));
        assert_eq!(ran.output("a"), json!({"y": output}));
        let seen = &small.notes.seen()[0].request;
        assert!(seen.constraint.is_none(), "{seen:?}");
        // Of the budget it takes its prompt, and nothing for tokens that it will not write.
        let sampling = seen.sampling.as_ref().expect("bounded");
        assert_eq!((sampling.max_tokens, small.notes.count()), (Some(1), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_asked_as_an_object_whether_the_plan_or_an_earlier_node_says_it_and_a_text_as_a_text() {
    const READ: &str = r#"{"service":"Music","slots":["genre"],"system":"","user":"jazz \"now\" {or} never"}"#;
    for (input, wanted) in [
        (READ, Content::Json(READ.into())),
        ("${said}", Content::Json(READ.into())),
        ("play {jazz}", Content::Text("play {jazz}".into())),
    ] {
        let small = Model::new("small", "t", |seen, _| match seen.prompt().as_str() {
            "say it" => say(READ),
            _ => say("{}"),
        });
        let small = small.card(|c| {
            c.kind = "tag".into();
            c.max_new_tokens = 0;
        });
        let large = Model::new("large", "t", |_, _| say("nobody asks it"));
        let (small, large, world) = pair(small, large, |m| m).await;
        let mut last = model("a", "t", input);
        last.after = vec!["said".into()];
        let ran = world.run(request(vec![model("said", "t", "say it"), last])).await;
        assert_eq!(verdicts(&ran)[0], ("small".to_owned(), Chosen), "{input}");
        let seen = small.notes.seen();
        let asked: Vec<_> = seen.iter().filter_map(|s| s.request.prompt.clone()?.content).collect();
        assert_eq!(asked, [Content::Text("say it".into()), wanted]);
        assert_eq!(large.notes.count(), 0);
    }
}
