//! A process whose parent is gone, whatever it is at.
use shoal_kit::onnxruntime;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Longer than a start takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_specialist_that_hangs_before_it_serves_leaves_with_its_parent() {
    let folder = tempfile::tempdir().expect("folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/route");
    let config = format!("[onnxruntime]\ncache = \"cache\"\n[specialist.s]\nfolder = {model:?}\n");
    fs::write(folder.path().join("mesh.toml"), config).expect("written");
    // Somebody who fetches ONNX Runtime and never gets done with it: others wait for it.
    let cache = folder
        .path()
        .join(format!("cache/onnxruntime-{}", onnxruntime::VERSION));
    fs::create_dir_all(&cache).expect("cache");
    let fetching = fs::File::create(cache.join("lock")).expect("lock");
    fetching.lock().expect("locked");

    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args([
            "specialist",
            "s",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ])
        .arg("--exit-with-parent")
        .env_remove("ORT_DYLIB_PATH")
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("shoal runs");
    drop(child.stdin.take());
    let began = Instant::now();
    let status = loop {
        match child.try_wait().expect("waited for") {
            Some(status) => break Some(status),
            None if began.elapsed() > PATIENCE => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    // Before anything is said of it, so that a failed test leaves no process either.
    let _ = child.kill();
    let said = child.wait_with_output().expect("ended").stderr;
    assert!(
        status.is_some_and(|status| status.success()),
        "{status:?}: {}",
        String::from_utf8_lossy(&said)
    );
}
