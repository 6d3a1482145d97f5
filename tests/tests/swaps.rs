//! Versions of a shipped decoder that come and go fifty times while it answers: nothing fails, and the memory comes back.
use anyhow::{Context as _, Result, ensure};
use shoal_proto::v1::{self, generate_response::Event};
use shoal_tests::{root, specialist::Specialist};
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

const MODEL: &str = "compose";

/// Swaps before memory is measured, so that the allocator has what it needs for two versions; and swaps after that, after which it has no more.
const WARM: u32 = 6;
const SWAPS: u32 = 50;

/// One swap, on a machine that does something else besides: half a second until it is looked for, and the load.
const SWAP: Duration = Duration::from_secs(60);

/// Between two requests of the load: light, some ten a second.
const PAUSE: Duration = Duration::from_millis(100);

/// From the switch until the version before is gone: it is looked for at each look, once its last call has ended.
const GONE: Duration = Duration::from_secs(30);

/// The share by which resident memory may be more.
const SHARE: f64 = 0.10;

/// Two versions of the shipped folder that differ in nothing but their number.
fn two_versions(to: &Path) -> Result<()> {
    let from = root().join("models").join(MODEL);
    fs::copy(from.join("specialist.toml"), to.join("specialist.toml"))?;
    for version in ["1", "2"] {
        fs::create_dir(to.join(version))?;
        for file in fs::read_dir(from.join("1"))? {
            let file = file?;
            fs::copy(file.path(), to.join(version).join(file.file_name()))?;
        }
        let card = to.join(version).join("card.toml");
        let text = fs::read_to_string(&card)?.replacen("version = 1", &format!("version = {version}"), 1);
        fs::write(card, text)?;
    }
    Ok(())
}

/// As `shoal activate` writes it: a reader never finds half of it.
fn activate(folder: &Path, version: u32) -> Result<()> {
    let file = folder.join("specialist.toml");
    let text = fs::read_to_string(&file)?;
    let kept = text.lines().filter(|l| !l.starts_with("active_version"));
    let text = kept.fold(String::new(), |all, line| all + line + "\n");
    let part = folder.join("part");
    fs::write(&part, format!("{text}active_version = {version}\n"))?;
    Ok(fs::rename(part, file)?)
}

/// A process that serves the folder, and has answered.
async fn start(folder: &Path, keep_previous: &str) -> Result<Specialist> {
    let folder = folder.display().to_string();
    let configuration =
        format!("[specialist.{MODEL}]\nfolder = {folder:?}\nslots = 4\nkeep_previous = {keep_previous:?}\n");
    let specialist = Specialist::start(BINARY, MODEL, &configuration).await?;
    ask(&specialist).await?;
    Ok(specialist)
}

/// One short answer; which version gave it.
async fn ask(specialist: &Specialist) -> Result<String> {
    let acts = r#"{"service": "Media_2", "acts": [{"act": "REQUEST", "slot": "genre"}]}"#;
    let request = v1::GenerateRequest {
        prompt: Some(v1::Prompt {
            content: Some(v1::prompt::Content::Json(acts.into())),
        }),
        ..Default::default()
    };
    let mut events = specialist.client()?.generate(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        if let Some(Event::Done(done)) = event.event {
            return Ok(done.model);
        }
    }
    anyhow::bail!("an answer has an end")
}

/// Swaps so many times, each to the version that does not serve, and sees it answer.
async fn swap(specialist: &Specialist, folder: &Path, times: u32) -> Result<()> {
    for i in 0..times {
        let version = 2 - i % 2;
        activate(folder, version)?;
        let (wanted, end) = (format!("{MODEL}@{version}"), Instant::now() + SWAP);
        while ask(specialist).await? != wanted {
            ensure!(Instant::now() < end, "{wanted} does not serve within {SWAP:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Looks at resident memory, of which the least counts: what a request takes while it runs is none of a version's.
const LOOKS: u32 = 10;

/// Resident KiB once the last version but one is gone, and its thread with it. The process's other threads say nothing: tokio keeps those that
/// have blocked for as long as something blocks now and then, and this process looks at its folder again and again.
async fn settled(specialist: &Specialist) -> Result<u64> {
    let end = Instant::now() + GONE;
    while specialist.threads("engine")? != 1 {
        ensure!(
            Instant::now() < end,
            "{} versions are loaded {GONE:?} after the switch",
            specialist.threads("engine")?
        );
        tokio::time::sleep(PAUSE).await;
    }
    let mut least = u64::MAX;
    for _ in 0..LOOKS {
        tokio::time::sleep(PAUSE).await;
        least = least.min(specialist.status("VmRSS")?);
    }
    Ok(least)
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_swaps_under_load_fail_no_request_and_leave_no_memory_behind() -> Result<()> {
    let folder = tempfile::tempdir()?;
    two_versions(folder.path())?;
    // What comes back is loaded each time.
    let specialist = start(folder.path(), "0s").await?;
    let (stop, answers) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = async {
        while !stop.load(Ordering::Relaxed) {
            ask(&specialist)
                .await
                .context("a request failed while versions were swapped")?;
            answers.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    let swaps = async {
        swap(&specialist, folder.path(), WARM).await?;
        let before = settled(&specialist).await?;
        swap(&specialist, folder.path(), SWAPS).await?;
        let after = settled(&specialist).await?;
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok((before, after))
    };
    let ((before, after), ()) = tokio::try_join!(swaps, load)?;
    let answers = answers.into_inner();
    eprintln!("{before} KiB resident after {WARM} swaps, {after} after {SWAPS} more; {answers} answers of the load");
    assert!(answers >= SWAPS, "{answers} answers are no load");
    let more = (after as f64 - before as f64) / before as f64;
    assert!(more < SHARE, "{before} KiB became {after}");
    Ok(())
}

/// Whether a version came to serve in this way.
async fn came(specialist: &Specialist, version: u32, how: &str) -> Result<bool> {
    let metrics = specialist.metrics().await?;
    let of = [format!("model=\"{MODEL}@{version}\""), format!("outcome=\"{how}\"")];
    let mut versions = metrics
        .lines()
        .filter(|line| line.starts_with("shoal_specialist_versions"));
    Ok(versions.any(|line| of.iter().all(|word| line.contains(word))))
}

/// A rollback, from the file to the first answer, which an agent in trouble waits for.
const ROLLBACK: Duration = Duration::from_secs(1);

/// How long the version before is kept here: longer than a busy machine takes from the rollback to what is looked at after it.
const KEPT: &str = "5s";

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_answers_within_a_second_and_what_it_would_go_back_to_is_given_up_in_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    two_versions(folder.path())?;
    let specialist = start(folder.path(), KEPT).await?;
    swap(&specialist, folder.path(), 1).await?;
    let began = Instant::now();
    activate(folder.path(), 1)?;
    while ask(&specialist).await? != format!("{MODEL}@1") {
        ensure!(began.elapsed() < ROLLBACK, "no answer of version 1 within {ROLLBACK:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    ensure!(
        began.elapsed() < ROLLBACK,
        "{:?} until version 1 answered",
        began.elapsed()
    );
    ensure!(came(&specialist, 1, "resumed").await?, "it was loaded again");
    eprintln!("{:?} from the file to the first answer", began.elapsed());
    ensure!(specialist.threads("engine")? == 2, "version 2 may be wanted again");
    settled(&specialist).await?;
    // It is gone by now.
    swap(&specialist, folder.path(), 1).await?;
    ensure!(!came(&specialist, 2, "resumed").await?, "it was given up");
    // And a version whose files were written again is not what it was.
    let card = folder.path().join("1/card.toml");
    fs::write(&card, fs::read(&card)?)?;
    activate(folder.path(), 1)?;
    let end = Instant::now() + SWAP;
    while !came(&specialist, 1, "switched").await? {
        ensure!(Instant::now() < end, "version 1 was not loaded again within {SWAP:?}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
