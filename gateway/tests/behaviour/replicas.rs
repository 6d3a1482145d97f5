//! Replicas that come and go: found by name, sharing the load, and no plan lost with one of them.
use crate::support::{
    model::{Act, Model, Specialist, say, slow, unsure},
    ms,
    plan::{model, request, tool},
    process::anywhere,
    tools::{self, Reply},
    until,
    world::Mesh,
};
use futures::future::{BoxFuture, join_all};
use shoal_gateway::Lookup;
use shoal_kit::status::Reason;
use shoal_proto::v1::State;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A name service of the test's own.
#[derive(Debug, Default)]
struct Zone(Mutex<Vec<SocketAddr>>);

impl Zone {
    fn set(&self, replicas: &[&Specialist]) {
        self.lists(replicas.iter().map(|r| r.server.address).collect());
    }

    fn lists(&self, addresses: Vec<SocketAddr>) {
        *self.0.lock().expect("zone") = addresses;
    }
}

impl Lookup for Zone {
    fn lookup<'a>(&'a self, host: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        assert_eq!(host, "replicas");
        let now = self.0.lock().expect("zone").clone();
        Box::pin(async move {
            if now.is_empty() {
                Err(io::Error::other("no such name"))
            } else {
                Ok(now)
            }
        })
    }
}

/// Replicas on loopback addresses of their own, on one port: as a name service lists them.
fn replicas(count: u8, millis: u64) -> Vec<Specialist> {
    let start = |ip: [u8; 4], port: u16| {
        Model::new("small", "t", move |_, _| slow(millis))
            .at(SocketAddr::new(IpAddr::from(ip), port))
            .start()
    };
    let first = start([127, 0, 0, 1], anywhere().port());
    let port = first.server.address.port();
    let others = (2..=count).map(|n| start([127, 0, 0, n], port));
    std::iter::once(first).chain(others).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_stands_for_all_its_replicas_and_they_share_the_load() {
    let (zone, three) = (Arc::new(Zone::default()), replicas(3, 20));
    zone.set(&three.iter().collect::<Vec<_>>());
    let world = Mesh::new()
        .specialist("small", "http://replicas:7")
        .task("t", &["small"])
        .lookup(zone)
        .start()
        .await;
    for _ in 0..10 {
        let nodes = (0..12).map(|i| model(&format!("n{i}"), "t", "x")).collect();
        assert_eq!(world.run(request(nodes)).await.state(), State::Succeeded);
    }
    let counts: Vec<usize> = three.iter().map(|r| r.notes.count()).collect();
    assert!(counts.iter().all(|n| *n > 15), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_fails_no_plan() {
    let (zone, three) = (Arc::new(Zone::default()), replicas(3, 15));
    zone.set(&three.iter().collect::<Vec<_>>());
    let world = Arc::new(
        Mesh::new()
            .specialist("small", "http://replicas:7")
            .task("t", &["small"])
            .lookup(zone.clone())
            .start()
            .await,
    );
    let until_then = Instant::now() + Duration::from_secs(2);
    let client = |world: Arc<crate::support::world::World>| async move {
        let mut plans = 0;
        while Instant::now() < until_then {
            let ran = world
                .run(request(vec![model("a", "t", "x"), model("b", "t", "${a}")]))
                .await;
            assert_eq!(ran.state(), State::Succeeded, "{ran:#?}");
            plans += 1;
        }
        plans
    };
    let clients = join_all((0..6).map(|_| tokio::spawn(client(world.clone()))));
    let killer = async {
        tokio::time::sleep(ms(500)).await;
        // While it works: its name is still listed for a while, as with any name service.
        three[1].server.kill();
        tokio::time::sleep(ms(700)).await;
        zone.set(&[&three[0], &three[2]]);
    };
    let (clients, ()) = tokio::join!(clients, killer);
    let plans: usize = clients.into_iter().map(|c| c.expect("every plan succeeded")).sum();
    assert!(
        plans > 50 && three[1].notes.count() > 5,
        "{plans}, {}",
        three[1].notes.count()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_joins_is_called_and_one_that_leaves_is_not() {
    let (zone, two) = (Arc::new(Zone::default()), replicas(2, 5));
    zone.set(&[&two[0]]);
    let world = Mesh::new()
        .specialist("small", "http://replicas:7")
        .task("t", &["small"])
        .lookup(zone.clone())
        .start()
        .await;
    let one = || world.run(request(vec![model("a", "t", "x")]));
    one().await;
    assert_eq!((two[0].notes.count(), two[1].notes.count()), (1, 0));
    zone.set(&[&two[1]]);
    let end = Instant::now() + Duration::from_secs(20);
    while two[1].notes.count() == 0 {
        assert!(Instant::now() < end, "the new one is never called");
        assert_eq!(one().await.state(), State::Succeeded);
        tokio::time::sleep(ms(50)).await;
    }
    let before = two[0].notes.count();
    for _ in 0..10 {
        one().await;
    }
    assert_eq!(two[0].notes.count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_specialist_that_comes_late_is_found_and_its_threshold_holds_from_the_first_call_on() {
    let address = {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .expect("port")
            .local_addr()
            .expect("address")
            .port();
        SocketAddr::new(anywhere().ip(), port)
    };
    let large = Model::new("large", "t", |_, _| say("large")).start();
    let world = Mesh::new()
        .specialist("small", &format!("http://{address}"))
        .specialist("large", &large.server.url())
        .task("t", &["small", "large"])
        .start()
        .await;
    assert_eq!(
        world.run(request(vec![model("a", "t", "x")])).await.output("a"),
        "large"
    );
    let small = Model::new("small", "t", |_, _| unsure("small", 0.2))
        .threshold(0.5)
        .at(address)
        .start();
    let end = Instant::now() + Duration::from_secs(20);
    while small.notes.count() == 0 {
        assert!(Instant::now() < end, "it is never found");
        let ran = world.run(request(vec![model("a", "t", "x")])).await;
        assert_eq!(ran.output("a"), "large", "a doubted answer is never taken: {ran:?}");
        tokio::time::sleep(ms(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_waits_for_room_and_none_of_it_fails() {
    let small = Model::new("small", "t", |_, _| slow(10)).start();
    let world = Mesh::new()
        .specialist("small", &small.server.url())
        .task("t", &["small"])
        .change(|c| c.specialist.get_mut("small").expect("small").max_in_flight = 4)
        .start()
        .await;
    let nodes = (0..60).map(|i| model(&format!("n{i}"), "t", "x")).collect();
    let ran = world.run(request(nodes)).await;
    assert_eq!(ran.state(), State::Succeeded, "{:?}", ran.finished());
    until("all have ended", || small.notes.live() == 0).await;
    assert_eq!(small.notes.count(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sole_specialist_that_is_full_is_waited_for_and_no_attempt_is_burnt() {
    let full = |n: usize| n < 6;
    let small = Model::new("small", "t", move |_, n| {
        if full(n) {
            Act::Fail(Reason::Exhausted {
                message: "the queue is full".into(),
                retry_after: ms(60),
            })
        } else {
            say("in")
        }
    })
    .start();
    let world = Mesh::new()
        .specialist("small", &small.server.url())
        .task("t", &["small"])
        .start()
        .await;
    let began = Instant::now();
    let ran = world.run(request(vec![model("a", "t", "x")])).await;
    assert_eq!((ran.state(), ran.output("a")), (State::Succeeded, "in".into()));
    assert_eq!((ran.decisions("a").len(), small.notes.count()), (1, 7));
    assert!(
        began.elapsed() >= ms(360),
        "it came back too soon: {:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_become_slow_is_hedged_and_the_decision_says_so() {
    let zone = Arc::new(Zone::default());
    let stuck = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let start = |ip: [u8; 4], port: u16, may_stick: bool| {
        let stuck = stuck.clone();
        Model::new("small", "t", move |_, _| {
            let hangs = may_stick && stuck.load(std::sync::atomic::Ordering::SeqCst);
            if hangs { Act::Hang } else { slow(10) }
        })
        .at(SocketAddr::new(IpAddr::from(ip), port))
        .start()
    };
    let first = start([127, 0, 0, 1], anywhere().port(), true);
    let port = first.server.address.port();
    let second = start([127, 0, 0, 2], port, false);
    zone.set(&[&first, &second]);
    let world = Mesh::new()
        .specialist("small", &format!("http://replicas:{port}"))
        .task("t", &["small"])
        .lookup(zone)
        .start()
        .await;
    let nodes = |n: usize| (0..n).map(|i| model(&format!("n{i}"), "t", "x")).collect::<Vec<_>>();
    for _ in 0..10 {
        assert_eq!(world.run(request(nodes(10))).await.state(), State::Succeeded);
    }
    stuck.store(true, std::sync::atomic::Ordering::SeqCst);
    // The first call that meets the stuck replica is hedged: it would have waited for half of the plan's minute.
    let began = Instant::now();
    let reason = loop {
        assert!(began.elapsed() < Duration::from_secs(20), "never hedged");
        let ran = world.run(request(nodes(1))).await;
        assert_eq!(ran.state(), State::Succeeded);
        let (_, _, reason) = ran.decisions("n0").remove(0);
        // On a busy machine the other one may be hedged too, and answer all the same.
        if reason.contains("too slow") {
            break reason;
        }
    };
    assert!(reason.contains("hedged") && reason.contains("127.0.0.1"), "{reason}");
    until("the slow one is let go", || first.notes.live() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hangs_when_it_is_asked_for_its_card_does_not_hide_the_card_of_another() {
    let zone = Arc::new(Zone::default());
    let doubted = || Model::new("small", "t", |_, _| unsure("small", 0.2)).threshold(0.5);
    let mute = doubted().mute().start();
    let port = mute.server.address.port();
    // After the one that hangs in the order of addresses.
    let speaks = doubted()
        .at(SocketAddr::new(IpAddr::from([127, 0, 0, 2]), port))
        .start();
    let large = Model::new("large", "t", |_, _| say("large")).start();
    zone.set(&[&mute, &speaks]);
    let world = Mesh::new()
        .specialist("small", "http://replicas:7")
        .specialist("large", &large.server.url())
        .task("t", &["small", "large"])
        .lookup(zone)
        .start()
        .await;
    let ran = world.run(request(vec![model("a", "t", "x")])).await;
    assert_eq!(
        (ran.state(), ran.output("a")),
        (State::Succeeded, "large".into()),
        "the threshold of the card counts: {:?}",
        ran.decisions("a")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_server_that_hangs_when_it_is_asked_for_its_tools_does_not_hide_the_list_of_another() {
    let zone = Arc::new(Zone::default());
    let reply = |_: &shoal_proto::v1::CallToolRequest, _| Reply::Text("{}".into());
    let mute = tools::mute_at(anywhere(), &[("S.M", true)], reply);
    let second = SocketAddr::new(IpAddr::from([127, 0, 0, 2]), mute.server.address.port());
    let _speaks = tools::start_at(second, &[("S.M", true)], reply);
    zone.lists(vec![mute.server.address, second]);
    let world = Mesh::new().tools("http://replicas:7").lookup(zone).start().await;
    let ran = world.run(request(vec![tool("a", "S.M", serde_json::json!({}))])).await;
    assert_eq!(ran.state(), State::Succeeded, "{:?}", ran.finished());
}
