use super::*;
use crate::outcomes::Recorder;
use futures::FutureExt as _;

fn keeper(folder: &Path) -> Keeper {
    let state = State {
        bytes: AtomicU64::new(0),
        waiting: watch::Sender::new(0),
        broken: Mutex::default(),
        beside: AtomicUsize::new(0),
        max_bytes: 1 << 20,
        folder: folder.to_owned(),
    };
    Keeper {
        files: Files::open(folder).expect("opened"),
        state: Arc::new(state),
        held: Vec::new(),
        instruments: Instruments::default(),
    }
}

fn outcome(id: &str) -> v1::Outcome {
    v1::Outcome {
        outcome_id: id.into(),
        ..v1::Outcome::default()
    }
}

fn append(keeper: &mut Keeper, id: &str) -> oneshot::Receiver<()> {
    hold(keeper, &outcome(id).encode_to_vec())
}

fn hold(keeper: &mut Keeper, payload: &[u8]) -> oneshot::Receiver<()> {
    let mut frame = Vec::new();
    frame::write(payload, &mut frame);
    let (done, written) = oneshot::channel();
    keeper.held.push((frame, done));
    written
}

fn ids(keeper: &mut Keeper) -> Vec<String> {
    let (found, _) = keeper.read(Position::default(), usize::MAX).expect("read");
    found.into_iter().map(|(_, o)| o.outcome_id).collect()
}

#[tokio::test]
async fn a_reader_is_woken_by_what_is_written_and_never_by_its_own_reading() {
    let folder = tempfile::tempdir().expect("folder");
    let spool = Spool::open(folder.path(), 1 << 20, Instruments::default()).expect("opened");
    let mut waiting = spool.waiting();
    spool.append(&outcome("a")).await.expect("written");
    waiting.wait_for(|n| *n == 1).await.expect("told");
    for _ in 0..3 {
        let (found, _) = spool.read(Position::default(), 9).await.expect("read");
        assert_eq!(found.len(), 1);
    }
    // Commands are taken in order: this one's answer comes after the reads have been published.
    let (found, next) = spool.read(Position::default(), 9).await.expect("read");
    assert!(!waiting.has_changed().expect("alive"), "nothing is new");
    // As many acknowledged as written, in one group perhaps: there is something to read all the same.
    spool.acknowledge(vec![found[0].0]).await;
    spool.append(&outcome("b")).await.expect("written");
    waiting.changed().await.expect("told");
    assert_eq!(spool.read(next, 9).await.expect("read").0.len(), 1);
}

#[test]
fn what_the_disk_refuses_stays_in_memory_and_no_plan_is_taken_until_it_is_written() {
    let folder = tempfile::tempdir().expect("folder");
    let mut keeper = keeper(folder.path());
    let mut first = append(&mut keeper, "a");
    keeper.write();
    assert!(first.try_recv().is_ok(), "written");
    keeper.files.refuse_once();
    let mut second = append(&mut keeper, "b");
    keeper.write();
    assert!(second.try_recv().is_err(), "not written, and not said to be");
    let refused = keeper.state.room().expect_err("no plan is taken");
    assert!(refused.to_string().contains("mend the disk"), "{refused}");
    keeper.write();
    assert!(
        second.try_recv().is_ok() && keeper.state.room().is_ok(),
        "the disk takes it again"
    );
    drop(keeper);
    assert_eq!(ids(&mut self::keeper(folder.path())), ["a", "b"]);
}

#[test]
fn what_can_never_be_delivered_is_set_aside_and_what_lies_behind_it_is_read() {
    let folder = tempfile::tempdir().expect("folder");
    let mut keeper = keeper(folder.path());
    let nameless = v1::Outcome {
        node_id: "n".into(),
        ..v1::Outcome::default()
    };
    let nameless = nameless.encode_to_vec();
    let garbled: &[u8] = &[0xff; 9];
    let written = [
        append(&mut keeper, "a"),
        hold(&mut keeper, &nameless),
        hold(&mut keeper, garbled),
        hold(&mut keeper, &outcome(&"x".repeat(65)).encode_to_vec()),
        append(&mut keeper, "b"),
    ];
    keeper.write();
    drop((keeper, written));
    let mut keeper = self::keeper(folder.path());
    assert_eq!(keeper.files.waiting(), 5);
    // One at a time: a portion that holds nothing else is not the end.
    let (first, next) = keeper.read(Position::default(), 1).expect("read");
    let (second, next) = keeper.read(next, 1).expect("read");
    assert_eq!([&first[0].1.outcome_id, &second[0].1.outcome_id], ["a", "b"]);
    assert!(keeper.read(next, 1).expect("read").0.is_empty());
    assert_eq!(keeper.files.waiting(), 2, "the others wait no more");
    let aside = std::fs::read(folder.path().join("undeliverable")).expect("kept");
    let (frames, end, _) = frame::scan(&aside);
    assert_eq!((frames.len(), end), (3, aside.len()));
    assert_eq!(
        [&aside[frames[0].clone()], &aside[frames[1].clone()]],
        [&nameless, garbled]
    );
    keeper.files.acknowledge(&[first[0].0, second[0].0]);
    assert_eq!((keeper.files.waiting(), keeper.files.bytes()), (0, 0));
}

#[tokio::test]
async fn an_outcome_that_could_never_be_delivered_is_not_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let spool = Spool::open(folder.path(), 1 << 20, Instruments::default()).expect("opened");
    spool.append(&v1::Outcome::default()).await.expect_err("it has no id");
    spool.append(&outcome("a")).await.expect("written");
    let (found, _) = spool.read(Position::default(), 9).await.expect("read");
    assert_eq!(found.len(), 1);
}

/// Time is paused: every outcome's patience runs out at once.
#[tokio::test(start_paused = true)]
async fn outcomes_that_find_the_queue_full_are_written_though_nobody_waits_and_the_gateway_leaves() {
    let folder = tempfile::tempdir().expect("folder");
    let keeper = keeper(folder.path());
    let (commands, queue) = mpsc::channel(QUEUE);
    let thread = Arc::new(Mutex::new(None));
    let spool = Spool {
        commands,
        state: keeper.state.clone(),
        thread: thread.clone(),
    };
    let recorder = Recorder::Spooled(spool.clone());
    // The disk is stuck: nobody takes what is in the queue.
    let mut kept = Vec::new();
    let mut keep = async || {
        let id = kept.len().to_string();
        recorder.keep(outcome(&id)).await;
        kept.push(id);
    };
    for _ in 0..QUEUE + BESIDE - 1 {
        keep().await;
    }
    recorder.room().expect("a burst, so far");
    keep().await;
    let refused = recorder.room().expect_err("no plan is taken").to_string();
    assert!(refused.contains("look at the disk"), "{refused}");
    // A caller that is gone as soon as it has begun.
    assert!(recorder.keep(outcome("gone")).now_or_never().is_none());
    kept.push("gone".into());
    // The disk comes back as the gateway leaves.
    let closed = task::blocking("spool close", {
        let started = task::thread("outcome spool", move || keeper.run(queue)).expect("a thread");
        *thread.lock().expect("ours") = Some(started);
        drop((thread, recorder));
        move || spool.close()
    });
    closed.await.expect("closed");
    let mut found = ids(&mut self::keeper(folder.path()));
    found.sort();
    kept.sort();
    assert_eq!(found, kept);
}
