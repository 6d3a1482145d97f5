//! A process whose parent is gone, whatever it is at.
mod common;

use common::{ended, fetching_onnxruntime};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

#[test]
fn a_specialist_that_hangs_before_it_serves_leaves_with_its_parent() {
    let folder = tempfile::tempdir().expect("folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/route");
    let config = format!("[onnxruntime]\ncache = \"cache\"\n[specialist.s]\nfolder = {model:?}\n");
    fs::write(folder.path().join("mesh.toml"), config).expect("written");
    let _fetching = fetching_onnxruntime(folder.path());
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
    let output = ended(child);
    assert!(
        output.status.success(),
        "{:?}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
