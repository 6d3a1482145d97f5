//! A mesh with a shell script for its program.
use super::*;
use crate::exit::Exit;
use shoal_kit::{serve, task};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
};

/// Longer than any of this takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Every process notes its id. DYING ends at once, by its own words a matter of configuration. STUCK loads for ever and does not look at its standard input; the others announce the server at GRPC, and say
/// so when they are told to leave.
const SCRIPT: &str = r#"#!/bin/sh
folder=$(dirname "$0")
name=$1
[ "$1" = specialist ] && name=$2
echo $$ > "$folder/partial.$$" && mv "$folder/partial.$$" "$folder/$name.pid"
[ "$name" = STUCK ] && exec sleep 600
[ "$name" = DYING ] && echo 'shoal: no such folder' >&2 && exit 64
printf '{"name":"%s","pid":%s,"grpc":"GRPC","http":"GRPC"}' "$name" $$ > "$folder/partial.$$"
mv "$folder/partial.$$" "$folder/run/$name.json"
while read -r _; do :; done
echo bye > "$folder/$name.bye"
"#;

/// A mesh of feedback, the specialist `slow` and the gateway, not started; its folder, and what ends the server that answers for them.
async fn mesh(stuck: &str, dying: &str) -> (tempfile::TempDir, Mesh, Outside, CancellationToken) {
    let folder = tempfile::tempdir().expect("tempdir");
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let bound = serve::bind(any, any).await.expect("bound");
    let address = bound.grpc_addr().expect("address");
    let server = CancellationToken::new();
    let named = serve::Process {
        name: "fake".into(),
        version: "0".into(),
        provider: String::new(),
    };
    task::spawn(
        "fake server",
        serve::Server::new(named).run(bound, server.clone(), Duration::ZERO),
    );
    let held = RunFolder::take(folder.path()).expect("run");
    let run = held.path().to_owned();
    // Where the script finds it.
    std::os::unix::fs::symlink(&run, folder.path().join("run")).expect("linked");
    let program = folder.path().join("program");
    let script = SCRIPT
        .replace("GRPC", &address.to_string())
        .replace("STUCK", stuck)
        .replace("DYING", dying);
    fs::write(&program, script).expect("script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let text = "[specialist.slow]\nfolder = \"models/slow\"\n";
    let mesh = Mesh {
        config: MeshConfig::layer(None, text, &[]).expect("valid").config,
        addresses: Vec::new(),
        logs: folder.path().to_owned(),
        keepers: Vec::new(),
        run: held,
    };
    let outside = Outside {
        program,
        run,
        logs: Logs::Folder(folder.path().to_owned()),
    };
    (folder, mesh, outside, server)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

/// Whether the process that wrote its id here has left.
fn gone(written: &Path) -> bool {
    let pid = fs::read_to_string(written).expect("started");
    !Path::new("/proc").join(pid.trim()).exists()
}

/// Cancels a start once `stuck` loads and `also` is there, and returns the folder when none of both is any more.
async fn cancelled_while(stuck: &str, also: &str) -> tempfile::TempDir {
    let (folder, mesh, outside, server) = mesh(stuck, "nobody").await;
    let cancel = CancellationToken::new();
    let start = task::spawn("start", mesh.bring_up(outside, cancel.clone()));
    let [stuck, also] = [stuck, also].map(|name| folder.path().join(format!("{name}.pid")));
    until("both have started", || stuck.exists() && also.exists()).await;
    cancel.cancel();
    let ended = tokio::time::timeout(PATIENCE, start).await.expect("in time");
    let failure = ended.expect("no panic").expect_err("it was cancelled");
    assert!(failure.message.contains("stopped before"), "{failure}");
    until("none is left", || gone(&stuck) && gone(&also)).await;
    server.cancel();
    folder
}

#[tokio::test]
async fn the_first_that_fails_is_told_while_others_still_load() {
    let (folder, mesh, outside, server) = mesh("slow", "feedback").await;
    let start = mesh.bring_up(outside, CancellationToken::new());
    let failure = tokio::time::timeout(PATIENCE, start)
        .await
        .expect("in time")
        .expect_err("one has failed");
    assert!(
        failure.exit == Exit::Usage && failure.message.contains("no such folder"),
        "{failure}"
    );
    let slow = folder.path().join("slow.pid");
    until("none is left", || !slow.exists() || gone(&slow)).await;
    server.cancel();
}

#[tokio::test]
async fn a_start_that_is_cancelled_while_a_process_still_loads_leaves_none() {
    cancelled_while("slow", "feedback").await;
}

#[tokio::test]
async fn a_start_that_is_cancelled_with_healthy_processes_ends_them_as_a_mesh_that_runs_does() {
    // The gateway is started once all others are healthy.
    let folder = cancelled_while("gateway", "slow").await;
    for name in ["feedback", "slow"] {
        assert!(
            folder.path().join(format!("{name}.bye")).exists(),
            "{name} was told to leave, and waited for"
        );
    }
}
