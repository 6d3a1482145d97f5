//! deploy/gpu-check where there is no GPU: that it parses, knows its GPUs, and says that it is skipped. `deploy/gpu-check dry-run` tries the rest.
use anyhow::Result;
use shoal_tests::root;
use std::{
    fs,
    process::{Command, Output},
};

fn script(args: &[&str]) -> Result<Output> {
    let mut command = Command::new("bash");
    Ok(command.arg(root().join("deploy/gpu-check")).args(args).output()?)
}

#[test]
fn the_script_parses_and_knows_the_bandwidth_of_gpus_by_name() -> Result<()> {
    let parses = Command::new("bash")
        .arg("-n")
        .arg(root().join("deploy/gpu-check"))
        .status()?;
    assert!(parses.success());
    for (name, known) in [
        ("NVIDIA H100 80GB HBM3", "3350"),
        ("NVIDIA H100 PCIe", "2000"),
        ("NVIDIA H100 NVL", "3900"),
        ("NVIDIA H200", "4800"),
        ("NVIDIA GH200 480GB", "4000"),
        ("NVIDIA A100-SXM4-80GB", "2039"),
        ("Tesla T4", "320"),
    ] {
        let done = script(&["bandwidth", name])?;
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), known, "{name}");
    }
    assert!(!script(&["bandwidth", "a card of no name"])?.status.success());
    Ok(())
}

#[test]
fn without_a_gpu_it_says_skipped_and_writes_nothing() -> Result<()> {
    if Command::new("nvidia-smi")
        .output()
        .is_ok_and(|done| done.status.success())
    {
        eprintln!("skipped: needs a machine without a GPU");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let into = folder.path().join("results");
    let done = script(&["run", "--into", &into.display().to_string()])?;
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.starts_with("skipped: needs an NVIDIA GPU"),
        "{done:?}"
    );
    assert_eq!(fs::read_dir(&into)?.count(), 0);
    Ok(())
}
