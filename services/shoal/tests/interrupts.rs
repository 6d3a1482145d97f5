//! A command that is told to stop while it waits for something.
mod common;

use common::{ended, fetching_onnxruntime};
use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn shoal(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.args(arguments).current_dir(folder).env_remove("ORT_DYLIB_PATH");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[track_caller]
fn refused(output: &Output, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?}: {said}", output.status);
    assert!(said.contains(says), "`{says}` is not in: {said}");
}

/// Whether this process was started by something like nohup: its children ignore SIGHUP then.
fn hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[test]
fn a_question_that_is_not_answered_ends_with_a_signal() {
    let folder = tempfile::tempdir().expect("folder");
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = silent.local_addr().expect("address").to_string();
    let mut signals = vec!["-INT", "-TERM"];
    if !hangup_ignored() {
        signals.push("-HUP");
    }
    for signal in signals {
        let arguments = ["decompose", "play some jazz", "--gateway", &address];
        let child = shoal(folder.path(), &arguments).spawn().expect("shoal runs");
        // It asks: from here on it waits for an answer that nobody gives.
        let (mut connection, _) = silent.accept().expect("connected");
        connection.read_exact(&mut [0; 16]).expect("it has said something");
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.is_ok_and(|s| s.success()));
        let began = Instant::now();
        refused(&ended(child), "interrupted");
        // A connection that is silent is given up after nine seconds.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    }
}

#[test]
fn a_mesh_that_still_looks_for_onnx_runtime_ends_when_it_is_told() {
    let folder = tempfile::tempdir().expect("folder");
    let config = "[onnxruntime]\ncache = \"cache\"\n[specialist.s]\nfolder = \"s\"\n";
    fs::write(folder.path().join("mesh.toml"), config).expect("written");
    let _fetching = fetching_onnxruntime(folder.path());
    let mut up = shoal(folder.path(), &["up", "--free-ports", "--exit-with-parent"]);
    let mut child = up.stdin(Stdio::piped()).spawn().expect("shoal runs");
    drop(child.stdin.take());
    refused(&ended(child), "stopped before every process was healthy");
}

#[test]
fn a_mesh_for_one_call_leaves_no_folder_of_its_own() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("data");
    fs::write(folder.path().join("mesh.toml"), "").expect("written");
    let output = shoal(folder.path(), &["status", "--local"])
        .output()
        .expect("shoal runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let names = fs::read_dir(&data)
        .expect("data")
        .map(|e| e.expect("entry").file_name());
    let left: Vec<_> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("spool-local-") || name.starts_with("run-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
