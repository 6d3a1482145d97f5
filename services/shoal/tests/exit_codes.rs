//! The binary as a shell sees it: exit codes, what stands on which stream, and that nothing is served before it is known to work.
use serde_json::Value;
use shoal_feedback::store::{Store as _, sqlite::Sqlite};
use shoal_kit::{config, serve, task};
use shoal_proto::v1;
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output, Stdio},
    time::SystemTime,
};
use tokio_util::sync::CancellationToken;

/// `shoal` in a folder of its own, without what the environment may say of a mesh.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    let ours = std::env::vars()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("SHOAL_"));
    ours.for_each(|name| {
        command.env_remove(name);
    });
    command.env_remove("ORT_DYLIB_PATH").current_dir(folder).args(arguments);
    command
}

fn shoal(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().expect("shoal runs")
}

/// The exit code, and standard error, which must name `says`.
#[track_caller]
fn refused(output: &Output, code: i32, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(says), "`{says}` is not in: {said}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join("mesh.toml"), config).expect("written");
    folder
}

#[test]
fn a_wrong_command_line_or_configuration_leaves_with_64_and_says_where() {
    let typo = folder("[gateway]\nlissten = \"127.0.0.1:1\"\n");
    for arguments in [
        &["config", "check"][..],
        &["up"],
        &["gateway"],
        &["status"],
        &["run", "x"],
    ] {
        let output = shoal(typo.path(), arguments);
        refused(&output, 64, "mesh.toml:2");
        refused(&output, 64, "lissten");
    }
    let empty = folder("");
    refused(&shoal(empty.path(), &["frobnicate"]), 64, "frobnicate");
    refused(&shoal(empty.path(), &["run", "no/such.yaml"]), 64, "no/such.yaml");
    refused(
        &shoal(empty.path(), &["specialist", "nobody"]),
        64,
        "[specialist.nobody]",
    );
    refused(&shoal(empty.path(), &["demo"]), 64, "mesh.toml");
    fs::write(
        empty.path().join("bad.yaml"),
        "nodes: [{id: a, tool: S.M, argumnets: {}}]",
    )
    .expect("written");
    refused(&shoal(empty.path(), &["run", "bad.yaml"]), 64, "argumnets");
}

#[test]
fn a_mesh_that_is_away_leaves_with_69_and_says_how_to_start_one() {
    let empty = folder("");
    for arguments in [
        &["status", "--json"][..],
        &["run", "play some jazz"],
        &["decompose", "play some jazz"],
        &["why", "p"],
        &["health"],
        &["feedback", "export"],
        &["feedback", "submit", "p", "--right"],
    ] {
        let there = if arguments[0] == "feedback" {
            "--feedback"
        } else {
            "--gateway"
        };
        let mut all = arguments.to_vec();
        if arguments[0] != "health" {
            all.push(there);
        }
        all.push("127.0.0.1:1");
        let says = if arguments[0] == "health" {
            "127.0.0.1:1"
        } else {
            "shoal up"
        };
        let output = shoal(empty.path(), &all);
        refused(&output, 69, says);
        let said = String::from_utf8_lossy(&output.stderr);
        if arguments[0] == "feedback" {
            refused(&output, 69, "the feedback service does not answer");
            assert!(
                said.contains("--feedback") && !said.contains("--gateway") && !said.contains("--local"),
                "{said}"
            );
        }
    }
}

#[test]
fn an_address_that_asks_for_tls_is_refused_and_nothing_is_sent_there() {
    let empty = tempfile::tempdir().expect("folder");
    for arguments in [
        &["why", "p", "--gateway", "https://127.0.0.1:1"][..],
        &["feedback", "export", "--feedback", "HTTPS://127.0.0.1:1"],
    ] {
        refused(&shoal(empty.path(), arguments), 64, "asks for TLS");
    }
}

#[test]
fn what_cannot_be_served_is_found_before_anything_binds() {
    let folder = folder(
        "[gateway]\nspool = \"file/spool\"\n[feedback]\nstore = \"file/outcomes.sqlite\"\n[concierge]\nresults = \"none.jsonl\"\n\
         [specialist.s]\nfolder = \"none\"\n[onnxruntime]\npath = \"none.so\"\n",
    );
    fs::write(folder.path().join("file"), "in the way").expect("written");
    for (arguments, says) in [
        (&["gateway"][..], "spool"),
        (&["feedback"], "[feedback] store"),
        (&["concierge"], "[concierge]"),
        (&["specialist", "s"], "[specialist.s]"),
    ] {
        let announced = [
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--announce",
            "there.json",
        ];
        refused(&shoal(folder.path(), &[arguments, &announced].concat()), 64, says);
        assert!(
            !folder.path().join("there.json").exists(),
            "{arguments:?} bound and said so"
        );
    }
    refused(&shoal(folder.path(), &["onnxruntime"]), 64, "none.so");
}

#[test]
fn a_port_in_use_leaves_with_64_and_names_the_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    let folder = folder("");
    let arguments = ["--listen", address.as_str(), "--http-listen", "127.0.0.1:0"];
    for process in ["feedback", "gateway"] {
        let output = shoal(folder.path(), &[&[process][..], &arguments].concat());
        refused(&output, 64, "listen");
        refused(&output, 64, &address);
    }
}

#[test]
fn eval_of_a_file_asks_nobody_and_its_object_is_that_of_score_py_with_the_interval() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/score");
    let expected = fs::read_to_string(fixtures.join("expected.jsonl")).expect("expected");
    let folder = folder("");
    for (task, expected) in [
        "tool_call",
        "plan",
        "route",
        "extract",
        "compose",
        "summarize",
        "episode",
    ]
    .into_iter()
    .zip(expected.lines())
    {
        let [gold, said] =
            ["gold", "predictions"].map(|of| fixtures.join(format!("{task}.{of}.jsonl")).display().to_string());
        let output = shoal(folder.path(), &["eval", task, &gold, "--from", &said, "--json"]);
        assert_eq!(output.status.code(), Some(0));
        let mut ours: Value = serde_json::from_slice(&output.stdout).expect("one object");
        let expected: Value = serde_json::from_str(expected).expect("an object");
        bounded(&mut ours);
        bounded(&mut ours["unseen"]);
        assert_eq!(ours, expected);
    }
}

/// Takes the interval out of the figures; the score must lie in it.
fn bounded(figures: &mut Value) {
    let figures = figures.as_object_mut().expect("figures");
    let mut end = |name: &str| figures.remove(name).and_then(|end| end.as_f64());
    let (low, high) = (end("score_low").expect("low"), end("score_high").expect("high"));
    let score = figures["score"].as_f64().expect("a score");
    assert!(low <= score && score <= high, "{low} to {high}: {figures:?}");
}

#[test]
fn the_effective_configuration_is_shown_with_its_origins() {
    let folder = folder("[gateway]\nmax_nodes = 7\n");
    let output = shoal(folder.path(), &["config", "check", "--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(shown["gateway.max_nodes"]["value"], 7);
    let origin = shown["gateway.max_nodes"]["origin"].as_str().unwrap_or_default();
    assert!(origin.ends_with("mesh.toml:2"), "{origin}");
    assert_eq!(shown["gateway.max_depth"]["origin"], "default");
}

/// Outcomes of two kilobytes each: more than a pipe holds.
const ROWS: usize = 500;

/// A feedback service with [`ROWS`] outcomes, until the token is cancelled or the test is over; and its address.
async fn feedback(folder: &Path) -> (String, CancellationToken) {
    let config = config::Feedback {
        store: folder.join("outcomes.sqlite"),
        ..config::Feedback::default()
    };
    let row = |i: usize| v1::Outcome {
        outcome_id: format!("o{i}"),
        plan_id: "p".into(),
        node_id: i.to_string(),
        name: "t".into(),
        input_json: format!("{:?}", "x".repeat(2048)),
        output_json: "1".into(),
        ..v1::Outcome::default()
    };
    let mut store = Sqlite::open(&config.store).expect("open");
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    store.append(&rows, SystemTime::now()).expect("append");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = serve::bind(any, any).await.expect("bound");
    let address = bound.grpc_addr().expect("address").to_string();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    task::spawn("feedback under test", async move {
        shoal_feedback::run(&config, bound, stopped).await
    });
    (address, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_reader_and_what_cannot_be_written_leaves_with_74() {
    let folder = folder("");
    let (address, stop) = feedback(folder.path()).await;
    let export = ["feedback", "export", "--feedback", address.as_str()];
    let whole = shoal(folder.path(), &export);
    assert_eq!(whole.status.code(), Some(0));
    assert_eq!(whole.stdout.iter().filter(|byte| **byte == b'\n').count(), ROWS);
    assert!(String::from_utf8_lossy(&whole.stderr).contains("500 rows"));

    // As `| head -1` does.
    let mut reading = command(folder.path(), &export);
    let reading = reading.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut reading = reading.spawn().expect("shoal runs");
    let mut first = String::new();
    let out = reading.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut first).expect("a line");
    assert!(first.starts_with('{') && first.ends_with("}\n"), "{first}");
    let ended = reading.wait_with_output().expect("ended");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(!said.contains("rows"), "it went on to the end: {said}");

    if cfg!(target_os = "linux") {
        for arguments in [&export[..], &["config", "check"]] {
            let full = File::options().write(true).open("/dev/full").expect("/dev/full");
            let mut writing = command(folder.path(), arguments);
            let output = writing.stdout(full).output().expect("shoal runs");
            refused(&output, 74, "cannot write to standard output");
            assert!(!String::from_utf8_lossy(&output.stderr).contains("rows"));
        }
    }
    stop.cancel();
}
