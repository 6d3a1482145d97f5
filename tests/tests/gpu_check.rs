//! deploy/gpu-check where there is no GPU: that it parses, knows its GPUs, and says that it is skipped. `deploy/gpu-check dry-run` tries the rest.
use anyhow::Result;
use shoal_tests::root;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
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
fn of_several_gpus_the_first_that_may_be_seen_is_asked_about() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::copy(root().join("deploy/gpu-check"), at("gpu-check"))?;
    // A tree of nothing, as it was carried.
    let packed = "tar -cf part.000 --files-from /dev/null && sha256sum part.000 >SHA256SUMS";
    let packed = Command::new("bash")
        .args(["-c", packed])
        .current_dir(&folder)
        .status()?;
    assert!(packed.success());
    let several =
        "#!/bin/sh\ncase $* in *'-i 1 '*) echo 'card one' ;; *query*) printf 'card zero\\ncard one\\n' ;; esac\n";
    fs::create_dir(at("bin"))?;
    fs::write(at("bin/nvidia-smi"), several)?;
    fs::set_permissions(at("bin/nvidia-smi"), fs::Permissions::from_mode(0o755))?;
    let done = Command::new("bash")
        .args(["gpu-check", "run"])
        .current_dir(&folder)
        .env("PATH", format!("{}:{}", at("bin").display(), std::env::var("PATH")?))
        .env("CUDA_VISIBLE_DEVICES", "1,0")
        .env_remove("BANDWIDTH")
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("the memory bandwidth of 'card one' is not"), "{done:?}");
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
