//! Versions that cannot serve, and one that is not to any more.
use crate::{
    doors::collect,
    folders::has,
    versions::{describe, request, switch, two, two_decoders, until},
    world::{self, Served},
};
use shoal_proto::oip::{ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient};
use std::{fs, path::Path};

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_serve_is_refused_with_its_reason_and_the_old_one_goes_on() {
    let copy = two_decoders();
    let served = Served::folder(copy.root(), 2, |_| {}, &Default::default()).await;
    let still_one = async || {
        let (_, done) = collect(
            served
                .client()
                .generate(request("x"))
                .await
                .expect("taken")
                .into_inner(),
        )
        .await
        .expect("answered");
        assert_eq!(done.model, "tiny_decoder@1");
        let mut oip = GrpcInferenceServiceClient::new(shoal_kit::channel::connect_lazy(&served.grpc).expect("a URI"));
        let ready = oip.server_ready(ServerReadyRequest {}).await.expect("told");
        assert!(ready.into_inner().ready);
    };
    let refused = async |version: u32, words: &[&str]| {
        let now = until(&served, words[0], |now| {
            let refused = now.refused.as_ref();
            refused.is_some_and(|r| r.version == version && r.reason.contains(words[0]))
        })
        .await;
        assert_eq!(now.version, 1);
        has(&now.refused.expect("refused").reason, words);
        still_one().await;
    };
    // Not there; not what its card says; what only the load finds.
    copy.activate(3);
    refused(3, &["is missing"]).await;
    let template = fs::read(copy.path("2/chat_template.jinja")).expect("readable");
    fs::write(copy.path("2/chat_template.jinja"), "{% for x in %}").expect("written");
    copy.activate(2);
    refused(2, &["has sha256"]).await;
    copy.write_in("2", "chat_template.jinja", b"{% for x in %}");
    copy.activate(2);
    refused(2, &["does not compile", "tiny_decoder@2"]).await;
    // Half a file, as some editors write it.
    fs::write(copy.path("specialist.toml"), "name = ").expect("written");
    refused(0, &["does not parse"]).await;
    fs::write(
        copy.path("specialist.toml"),
        "name = \"tiny_decoder\"\ntasks = [\"echo\"]\nactive_version = 2\n",
    )
    .expect("written");
    refused(2, &["the tasks echo, this process serves echo, call"]).await;
    // Mended, and written again: it is tried again.
    fs::write(
        copy.path("specialist.toml"),
        "name = \"tiny_decoder\"\ntasks = [\"echo\", \"call\"]\n",
    )
    .expect("written");
    copy.write_in("2", "chat_template.jinja", &template);
    switch(&served, &copy, 2).await;
    // And a rollback clears what was refused in between.
    copy.activate(3);
    until(&served, "version 3 is refused", |now| now.refused.is_some()).await;
    copy.activate(2);
    until(&served, "nothing is refused", |now| now.refused.is_none()).await;
    switch(&served, &copy, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_another_kind_is_refused() {
    let copy = two("tiny_classifier");
    copy.replace("2", "tiny_embedder");
    copy.edit("2/card.toml", "name = \"tiny_embedder\"", "name = \"tiny_classifier\"");
    copy.edit("2/card.toml", "version = 1", "version = 2");
    let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
    describe(&served).await;
    copy.activate(2);
    let now = until(&served, "it is refused", |now| now.refused.is_some()).await;
    assert_eq!((now.version, now.kind.as_str()), (1, "classify"));
    has(
        &now.refused.expect("refused").reason,
        &["of kind \"embed\"", "of \"classify\"", "restart"],
    );
}

/// Whether this process has the file open.
fn is_open(path: &Path) -> bool {
    let open = fs::read_dir("/proc/self/fd").expect("Linux tells what is open");
    open.flatten()
        .any(|file| fs::read_link(file.path()).is_ok_and(|to| to == path))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_taken_back_while_it_loads_never_serves() {
    let copy = two("tiny_decoder");
    copy.duplicate("1", "3");
    copy.edit("3/card.toml", "version = 1", "version = 3");
    // Its check takes long enough to be met at it.
    copy.write_in("2", "weights.bin", &vec![0; 64 << 20]);
    let served = Served::folder(copy.root(), 1, |_| {}, &Default::default()).await;
    describe(&served).await;
    let large = fs::canonicalize(copy.path("2/weights.bin")).expect("written");
    copy.activate(2);
    world::until("version 2 is being checked", || is_open(&large)).await;
    copy.activate(1);
    world::until("it is checked", || !is_open(&large)).await;
    // Versions are tried one after the other: when the third serves, nothing is left of the second.
    copy.activate(3);
    until(&served, "version 3 serves", |now| {
        assert_ne!(now.version, 2, "it was taken back");
        now.version == 3
    })
    .await;
}
