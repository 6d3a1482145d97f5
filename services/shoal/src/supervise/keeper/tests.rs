//! A keeper with a shell script for its program and this test's own server for its health.
use super::*;
use shoal_kit::serve;
use std::{net::Ipv4Addr, os::unix::fs::PermissionsExt as _};

/// Longer than any of this takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Announces the server at GRPC, and leaves, saying so, when standard input ends.
const SCRIPT: &str = r#"#!/bin/sh
folder=$(dirname "$0")
printf '{"name":"fake","pid":%s,"grpc":"GRPC","http":"GRPC"}' $$ > "$folder/partial.$$"
mv "$folder/partial.$$" "$folder/fake.json"
echo "$@" >> "$folder/arguments"
while read -r _; do :; done
echo bye > "$folder/bye"
"#;

struct Bench {
    folder: tempfile::TempDir,
    /// Where the server is.
    address: SocketAddr,
    server: CancellationToken,
    outside: Outside,
    process: Process,
}

/// A script as the program and a healthy server for it.
async fn bench(script: &str) -> Bench {
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
    let program = folder.path().join("program");
    fs::write(&program, script.replace("GRPC", &address.to_string())).expect("script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let run = folder.path().to_owned();
    let outside = Outside {
        program,
        logs: Logs::Folder(run.clone()),
        run,
    };
    let addresses = Addresses { grpc: any, http: any };
    let process = Process {
        kind: Kind::Concierge,
        name: "fake".into(),
        addresses,
        drain: Duration::from_secs(2),
    };
    Bench {
        folder,
        address,
        server,
        outside,
        process,
    }
}

impl Bench {
    async fn start(&self) -> Result<Keeper> {
        let start = Keeper::start(self.process.clone(), "mesh.toml".into(), self.outside.clone());
        tokio::time::timeout(PATIENCE, start).await.expect("in time").1
    }

    fn pid(&self) -> Option<u32> {
        let text = fs::read(self.folder.path().join("fake.json")).ok()?;
        Some(serde_json::from_slice::<Announcement>(&text).ok()?.pid)
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(LOOK).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_load_that_fails_was_never_healthy_however_long_it_took() {
    let bench = bench(SCRIPT).await;
    let child = |script: &str| Command::new("sh").args(["-c", script]).spawn().expect("spawned");
    let nobody = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9);
    let mut healthy = None;
    let status = ended(&mut child("sleep 0.3; exit 3"), nobody, &mut healthy).await;
    assert!(status.contains('3') && healthy.is_none(), "{status}");
    // Where somebody says SERVING, the load is over.
    ended(&mut child("sleep 1"), bench.address, &mut healthy).await;
    assert!(healthy.is_some());
}

#[tokio::test]
async fn a_process_that_is_killed_comes_back_at_the_same_address_and_leaves_when_it_is_told() {
    let bench = bench(SCRIPT).await;
    let keeper = bench.start().await.expect("healthy");
    let first = bench.pid().expect("announced");
    let killed = std::process::Command::new("kill")
        .args(["-9", &first.to_string()])
        .status();
    assert!(killed.is_ok_and(|s| s.success()));
    until("a second process", || bench.pid().is_some_and(|pid| pid != first)).await;
    let arguments = fs::read_to_string(bench.folder.path().join("arguments")).expect("arguments");
    until("its arguments", || {
        fs::read_to_string(bench.folder.path().join("arguments")).is_ok_and(|a| a.lines().count() == 2)
    })
    .await;
    assert!(
        arguments.starts_with("concierge") || arguments.starts_with("fake"),
        "{arguments}"
    );
    let last = fs::read_to_string(bench.folder.path().join("arguments")).expect("arguments");
    let listen = format!("--listen {} --http-listen", keeper.addresses().grpc);
    assert!(last.lines().last().is_some_and(|l| l.contains(&listen)), "{last}");
    assert!(
        !bench.folder.path().join("bye").exists(),
        "nobody was told to leave yet"
    );
    keeper.stop().await;
    assert!(
        bench.folder.path().join("bye").exists(),
        "the process saw its standard input end, and was waited for"
    );
    bench.server.cancel();
}

#[tokio::test]
async fn a_process_that_ends_before_it_is_healthy_is_an_error_with_its_own_words_and_exit_code() {
    let script = "#!/bin/sh\necho 'a log line' >&2\necho 'shoal: the folder is gone\nput it back' >&2\nexit 64\n";
    let mut bench = bench(script).await;
    let failure = bench.start().await.expect_err("it ended");
    assert_eq!(failure.exit, Exit::Usage);
    let words = ":\n  the folder is gone\n  put it back";
    assert!(
        failure.message.contains(words) && failure.message.contains("fake.log"),
        "{failure}"
    );
    bench.outside.logs = Logs::Passing(bench.folder.path().to_owned());
    let failure = bench.start().await.expect_err("it ended");
    assert!(failure.message.ends_with(words), "{failure}");
}

#[tokio::test]
async fn a_process_that_takes_its_last_seconds_is_waited_for() {
    // What the gateway may take after its drain time.
    let slow = SCRIPT.replace("echo bye", "sleep 5; echo bye");
    let mut bench = bench(&slow).await;
    bench.process.drain = Duration::ZERO;
    bench.start().await.expect("healthy").stop().await;
    assert!(bench.folder.path().join("bye").exists());
}

#[tokio::test]
async fn a_process_that_ignores_the_end_of_its_input_is_killed_after_its_drain_time() {
    let stubborn = SCRIPT.replace("while read -r _; do :; done", "while :; do sleep 1; done");
    let mut bench = bench(&stubborn).await;
    bench.process.drain = Duration::ZERO;
    let keeper = bench.start().await.expect("healthy");
    let pid = bench.pid().expect("announced");
    tokio::time::timeout(PATIENCE, keeper.stop())
        .await
        .expect("killed in time");
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
    assert!(!bench.folder.path().join("bye").exists());
}
