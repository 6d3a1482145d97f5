//! Specialists that share a machine, each a process on a shipped model.
use anyhow::{Context as _, Result};
use shoal_tests::{command, root, specialist::Specialist};
use std::{fs, time::Duration};

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

/// What is left to be done after a start.
const SETTLE: Duration = Duration::from_secs(2);

/// What runs once a second runs five times in it.
const IDLE: Duration = Duration::from_secs(5);

/// Of one core, all six together. Measured: 0.4 % in a debug build on a busy machine.
const SHARE: f64 = 0.02;

fn table(name: &str, model: &str, more: &str) -> Result<String> {
    let folder = root().join("models").join(model).canonicalize()?;
    Ok(format!(
        "[specialist.{name}]\nfolder = {:?}\n{more}\n",
        folder.display().to_string()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn six_idle_specialists_use_no_processor_time_to_speak_of() -> Result<()> {
    let models = ["compose", "tool_call", "planner", "route", "compose", "tool_call"];
    let mut configuration = "[telemetry]\nlog = \"warn\"\n".to_owned();
    for (i, model) in models.iter().enumerate() {
        // Two threads each, which wait awake within a run: if they did after one, it would show.
        configuration += &table(&format!("s{i}"), model, "intra_op_threads = 2\nspin = true")?;
    }
    let names: Vec<String> = (0..models.len()).map(|i| format!("s{i}")).collect();
    let starts = names.iter().map(|name| Specialist::start(BINARY, name, &configuration));
    let all = futures::future::try_join_all(starts).await?;
    tokio::time::sleep(SETTLE).await;
    let used = || all.iter().map(Specialist::cpu_ticks).sum::<Result<u64>>();
    // What never rests shows in every window; a tick that a start or the kernel has left to one shows in that alone.
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let before = used()?;
        tokio::time::sleep(IDLE).await;
        let share = (used()? - before) as f64 / 100.0 / IDLE.as_secs_f64();
        eprintln!("{share} of one core");
        least = least.min(share);
        if least < SHARE {
            break;
        }
    }
    assert!(least < SHARE, "six idle specialists used {least} of one core");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn a_background_specialist_is_behind_others_on_its_cores_with_every_thread_but_the_one_that_loads() -> Result<()>
{
    let configuration = table("s", "compose", "background = true\ncpus = [0]")?;
    let specialist = Specialist::start(BINARY, "s", &configuration).await?;
    let mut threads = 0;
    for entry in fs::read_dir(format!("/proc/{}/task", specialist.pid()?))? {
        let folder = entry?.path();
        // One that ended meanwhile has nothing to say.
        let (Ok(stat), Ok(status)) = (
            fs::read_to_string(folder.join("stat")),
            fs::read_to_string(folder.join("status")),
        ) else {
            continue;
        };
        let (_, rest) = stat.rsplit_once(')').context("a name")?;
        // Field 41 of proc_pid_stat(5), the policy: 5 is SCHED_IDLE.
        let behind = if stat.contains("(loader)") { "0" } else { "5" };
        assert_eq!(rest.split_whitespace().nth(38), Some(behind), "{stat}");
        let cores = status
            .lines()
            .find_map(|l| l.strip_prefix("Cpus_allowed_list:"))
            .context("a line")?;
        assert_eq!(cores.trim(), "0", "{status}");
        threads += 1;
    }
    assert!(threads > 2, "{threads} threads");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_is_not_there_is_refused_before_anything_is_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mesh.toml");
    fs::write(&file, table("s", "compose", "cpus = [1023]")?)?;
    let file = file.display().to_string();
    let done = command::run(BINARY, folder.path(), &["specialist", "s", "--config", &file], &[]).await?;
    assert_eq!(done.code, Some(64), "{done:?}");
    assert!(
        done.err.contains("cpus = [1023]") && done.err.contains("leave them out"),
        "{done:?}"
    );
    Ok(())
}
