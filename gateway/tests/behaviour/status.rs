//! What runs where, as one command asks for it.
use crate::support::{
    model::{Model, down, say},
    plan::{model, request},
    store::{self, Disk},
    tools::{self, Reply},
    world::Mesh,
};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_says_what_runs_where_and_who_is_away() {
    let disk = Arc::new(Disk::default());
    let feedback = store::start(&disk);
    let tools = tools::start(&[("S.M", true)], |_, _| Reply::Text("{}".into()));
    let (broken, gone) = (
        Model::new("broken", "t", |_, _| down()).start(),
        Model::new("gone", "u", |_, _| say("x")).start(),
    );
    let world = Mesh::new()
        .specialist("broken", &broken.server.url())
        .specialist("gone", &gone.server.url())
        .task("t", &["broken"])
        .task("u", &["gone"])
        .tools(&tools.server.url())
        .feedback(&feedback.url())
        .start()
        .await;
    let states =
        |all: Vec<shoal_proto::v1::ProcessStatus>| all.into_iter().map(|p| (p.name, p.state)).collect::<Vec<_>>();
    let all = world.status().await;
    assert_eq!(all[0].name, "gateway");
    assert!(
        all.iter().all(|p| p.pid == std::process::id() && !p.version.is_empty()),
        "{all:?}"
    );
    let specialist = all.iter().find(|p| p.name == "broken").expect("listed");
    assert_eq!(
        (specialist.address.as_str(), specialist.provider.as_str()),
        (broken.server.address.to_string().as_str(), "cpu")
    );
    let names: Vec<String> = all.iter().map(|p| p.name.clone()).collect();
    assert_eq!(names, ["gateway", "feedback", "concierge", "broken", "gone"]);
    assert!(states(all).iter().all(|(_, state)| state == "serving"));
    for _ in 0..4 {
        world.run(request(vec![model("a", "t", "x")])).await;
    }
    gone.server.kill();
    feedback.kill();
    let told = states(world.status().await);
    let of = |name: &str| {
        told.iter()
            .find(|(n, _)| n == name)
            .map(|(_, s)| s.as_str())
            .expect("listed")
    };
    assert_eq!(
        (of("gateway"), of("feedback"), of("concierge"), of("broken"), of("gone")),
        ("serving", "unreachable", "serving", "open", "unreachable")
    );
}
