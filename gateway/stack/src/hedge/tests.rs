use super::*;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tower::{service_fn, util::BoxCloneService};

const MS: Duration = Duration::from_millis(1);

/// A request whose attempts may tell something on the way.
#[derive(Debug, Clone, Default)]
struct Asked {
    told: Arc<AtomicBool>,
    quiet: bool,
}

type Inner = BoxCloneService<Call<Asked>, (Arc<str>, u32), (Option<Arc<str>>, Error)>;

/// What an endpoint does: answers or fails after a while, having told something at half time or not.
#[derive(Debug, Clone, Copy)]
struct Act {
    millis: u32,
    fails: bool,
    tells: bool,
}

const FAST: Act = act(1);

const fn act(millis: u32) -> Act {
    Act {
        millis,
        fails: false,
        tells: false,
    }
}

/// A target with the endpoints `a` and `b`, or with `a` alone. First attempts go to `a`.
struct World {
    service: Hedge<Asked, Inner>,
    acts: Arc<Mutex<[Act; 2]>>,
    calls: [Arc<AtomicU32>; 2],
    dropped: Arc<AtomicU32>,
    reached: Arc<Mutex<Option<Instant>>>,
}

/// Notices an attempt that is let go.
struct Running(Arc<AtomicU32>, bool);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_add(u32::from(!self.1), Ordering::SeqCst);
    }
}

impl World {
    fn new(endpoints: usize, share: f64) -> Self {
        let acts = Arc::new(Mutex::new([FAST; 2]));
        let calls: [Arc<AtomicU32>; 2] = Default::default();
        let (dropped, reached) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(None)));
        let (a, c, d, r) = (acts.clone(), calls.clone(), dropped.clone(), reached.clone());
        let inner: Inner = BoxCloneService::new(service_fn(move |call: Call<Asked>| {
            let at = usize::from(call.tried.iter().any(|t| &**t == "a") && endpoints > 1);
            let address: Arc<str> = ["a", "b"][at].into();
            call.sent_to.set(address.clone()).expect("sent once");
            let n = c[at].fetch_add(1, Ordering::SeqCst);
            let act = a.lock().expect("acts")[at];
            let running = Running(d.clone(), false);
            *r.lock().expect("reached") = Some(Instant::now());
            async move {
                // All of it moves in here: naming a field alone would leave the rest outside.
                let mut running = running;
                tokio::time::sleep(MS * act.millis / 2).await;
                if act.tells && !call.request.quiet {
                    call.request.told.store(true, Ordering::SeqCst);
                }
                tokio::time::sleep(MS * act.millis / 2).await;
                running.1 = true;
                if act.fails {
                    return Err((
                        Some(address),
                        Error::NoEndpoint {
                            target: "t".into(),
                            known: 0,
                        },
                    ));
                }
                Ok((address, n))
            }
        }));
        let spare: Spare = Arc::new(move |tried| tried.len() < endpoints);
        let limits = Limits { share, quantile: 0.95 };
        let telling = Telling {
            told: |asked: &Asked| asked.told.load(Ordering::SeqCst),
            quiet: |asked| Asked {
                quiet: true,
                ..asked.clone()
            },
        };
        Self {
            service: HedgeLayer::new("t".into(), limits, telling, spare, Pace::default()).layer(inner),
            acts,
            calls,
            dropped,
            reached,
        }
    }

    fn acts(&self, a: Act, b: Act) {
        *self.acts.lock().expect("acts") = [a, b];
    }

    fn calls(&self) -> [u32; 2] {
        [0, 1].map(|at| self.calls[at].load(Ordering::SeqCst))
    }

    async fn call(&self, change: impl FnOnce(&mut Call<Asked>)) -> Result<Answered<u32>, (Vec<Arc<str>>, Error)> {
        let mut call = Call {
            idempotent: true,
            work: "work".into(),
            ..Call::new(Asked::default(), Instant::now() + MS * 60_000, 2)
        };
        change(&mut call);
        self.service.clone().oneshot(call).await
    }

    /// Has seen that answers take ten milliseconds, and saved up for hedges.
    async fn seasoned(endpoints: usize, share: f64) -> Self {
        let world = Self::new(endpoints, share);
        world.acts(act(10), act(10));
        for _ in 0..60 {
            world.call(|_| {}).await.expect("answered");
        }
        world.calls.iter().for_each(|c| c.store(0, Ordering::SeqCst));
        world
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_hedged_and_the_fast_endpoints_answer_taken_and_the_slow_one_let_go() {
    let world = World::seasoned(2, 0.05).await;
    world.acts(act(5000), act(10));
    let began = Instant::now();
    let answered = world.call(|_| {}).await.expect("answered");
    assert!(began.elapsed() < MS * 30, "{:?}", began.elapsed());
    let hedged = answered.hedged.expect("hedged");
    assert_eq!((&*answered.address, &*hedged.first, hedged.won), ("b", "a", true));
    assert_eq!(
        hedged.to_string(),
        format!("hedged after {} ms: a was too slow", hedged.after.as_millis())
    );
    assert_eq!((world.calls(), world.dropped.load(Ordering::SeqCst)), ([1, 1], 1));
}

#[tokio::test(start_paused = true)]
async fn a_first_that_answers_all_the_same_is_taken_and_the_second_let_go() {
    let world = World::seasoned(2, 0.05).await;
    world.acts(act(14), act(500));
    let answered = world.call(|_| {}).await.expect("answered");
    assert_eq!((&*answered.address, answered.hedged.map(|h| h.won)), ("a", Some(false)));
    assert_eq!((world.calls(), world.dropped.load(Ordering::SeqCst)), ([1, 1], 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_hedged_that_may_not_run_twice_or_has_nowhere_or_no_time_to_go() {
    let slow = |world: &World| world.acts(act(1000), FAST);
    let alone = World::seasoned(1, 1.0).await;
    slow(&alone);
    alone.call(|_| {}).await.expect("answered");
    assert_eq!(alone.calls(), [1, 0], "a single endpoint");
    type Change = fn(&mut Call<Asked>);
    let cases: [(&str, Change); 4] = [
        ("not idempotent", |c| c.idempotent = false),
        ("no attempt left", |c| c.max_attempts = 1),
        ("too few answers of this kind were seen", |c| c.work = "other".into()),
        ("no time for an answer is left", |c| {
            c.deadline = Instant::now() + MS * 15
        }),
    ];
    for (why, change) in cases {
        let world = World::seasoned(2, 1.0).await;
        slow(&world);
        world.call(change).await.expect("answered");
        assert_eq!(world.calls(), [1, 0], "{why}");
    }
    let off = World::seasoned(2, 0.0).await;
    slow(&off);
    off.call(|_| {}).await.expect("answered");
    assert_eq!(off.calls(), [1, 0], "switched off");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_deadline() {
    let world = World::seasoned(2, 1.0).await;
    world.acts(act(5000), act(5000));
    for left in 1..40 {
        let deadline = Instant::now() + MS * left;
        drop(world.call(|c| c.deadline = deadline).await);
        assert!(world.reached.lock().expect("reached").is_some_and(|at| at < deadline));
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_holds_when_everything_is_slow() {
    let world = World::seasoned(2, 0.05).await;
    for _ in 0..400 {
        // Ever slower: each is slow beside those before it.
        let millis = world.acts.lock().expect("acts")[0].millis + 10;
        world.acts(act(millis), act(millis));
        world.call(|_| {}).await.expect("answered");
    }
    let [first, second] = world.calls();
    assert_eq!(first, 400);
    assert!((15..=23).contains(&second), "{second} hedges of 460 calls");
}

#[tokio::test(start_paused = true)]
async fn what_was_told_already_is_not_contradicted() {
    let tells = |millis, fails| Act {
        tells: true,
        fails,
        millis,
    };
    // It has told something before it is slow: no hedge.
    let world = World::seasoned(2, 1.0).await;
    world.acts(tells(18, false), FAST);
    assert_eq!(world.call(|_| {}).await.expect("answered").hedged, None);
    // It tells something while the hedge runs: the hedge's answer is for nothing, unless the first fails.
    for (fails, taken) in [(false, "a"), (true, "b")] {
        let world = World::seasoned(2, 1.0).await;
        world.acts(tells(40, fails), act(30));
        let answered = world.call(|_| {}).await.expect("answered");
        assert_eq!((&*answered.address, world.calls()), (taken, [1, 1]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_fails_leaves_it_to_the_other_and_both_failures_name_both_addresses() {
    let failing = |millis| Act {
        fails: true,
        ..act(millis)
    };
    for (a, b, taken) in [(failing(20), act(50), "b"), (act(50), failing(5), "a")] {
        let world = World::seasoned(2, 1.0).await;
        world.acts(a, b);
        assert_eq!(&*world.call(|_| {}).await.expect("answered").address, taken);
    }
    let world = World::seasoned(2, 1.0).await;
    world.acts(failing(20), failing(20));
    let (tried, _) = world.call(|_| {}).await.expect_err("failed");
    assert_eq!(tried, ["a".into(), "b".into()]);
}
