//! `shoal model add` as a shell sees it: exports of other people's tools come into service by it alone, and what cannot be served leaves nothing.
mod common;

use common::{ended, fetching_onnxruntime};
use serde_json::{Value, json};
use shoal_kit::{
    config::{self, MeshConfig},
    onnxruntime,
};
use shoal_specialist::{
    encoder::Encoded,
    engine::queue::Urgency,
    folder::{Folder, manifest::Kind},
    prompt::Prompt,
    sampling::Sampling,
    specialist::{Ask, Specialist},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/models")
        .join(name)
}

/// Where a user is: an exporter's folder `export`, the first version of a fixture without what is ours, and no models.
struct Desk(TempDir);

impl Desk {
    fn with(name: &str) -> Self {
        let desk = Self(tempfile::tempdir().expect("a folder"));
        let export = desk.path("export");
        fs::create_dir(&export).expect("made");
        for entry in fs::read_dir(fixture(name).join("1")).expect("readable") {
            let path = entry.expect("readable").path();
            if path.file_name().is_some_and(|file| file != "card.toml") {
                fs::copy(&path, export.join(path.file_name().expect("a name"))).expect("copied");
            }
        }
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("written");
    }

    /// `shoal` here, without what the environment may say of a mesh.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SHOAL_")) {
            command.env_remove(name);
        }
        command
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .args(line.split_whitespace());
        command
    }

    fn shoal(&self, line: &str) -> Output {
        self.command(line).output().expect("shoal runs")
    }

    /// Adds, and gives the lines for mesh.toml.
    #[track_caller]
    fn add(&self, more: &str) -> String {
        let output = self.shoal(&format!("model add export {more}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Is refused with 64, words, and nothing that was not there before.
    #[track_caller]
    fn refused(&self, more: &str, says: &[&str]) {
        let before = self.everything();
        let output = self.shoal(&format!("model add {more}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{more}: {said}");
        for part in says.iter().chain(&["nothing was added"]) {
            assert!(said.contains(part), "{more}: `{part}` is not in: {said}");
        }
        assert!(!said.contains(".adding-"), "a path that is gone is of no use: {said}");
        assert!(output.stdout.is_empty());
        assert_eq!(self.everything(), before, "{more}");
    }

    /// Every file and folder with its content.
    fn everything(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut all, mut folders) = (Vec::new(), vec![self.0.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                all.push((path.clone(), fs::read(&path).unwrap_or_default()));
            }
        }
        all.sort();
        all
    }

    fn load(&self, name: &str) -> Specialist {
        load(&self.path("models").join(name))
    }
}

fn load(folder: &Path) -> Specialist {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        let found = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {});
        found
            .unwrap_or_else(|e| panic!("these tests need ONNX Runtime: {e}"))
            .path
    });
    let config = config::Specialist {
        slots: 2,
        ..config::Specialist::default()
    };
    Specialist::load(folder, &config, library).expect("it loads")
}

async fn tokens(specialist: &Specialist, text: &str) -> Vec<u32> {
    let ask = Ask {
        task: "echo".into(),
        prompt: Prompt::Text(text.into()),
        sampling: Sampling::greedy(32),
        form: None,
        urgency: Urgency::default(),
        span: tracing::Span::none(),
    };
    let ticket = specialist.generate(ask).await.expect("admitted");
    ticket.complete().await.expect("answered").tokens
}

async fn encoded(specialist: &Specialist, kind: Kind) -> Encoded {
    let texts = ["play jazz".to_owned(), "book a table for two, please".to_owned()];
    let encoder = specialist.encoder(kind).expect("an encoder");
    encoder.encode(&texts, Urgency::default()).await.expect("encodes")
}

#[tokio::test]
async fn a_decoder_is_in_service_by_the_command_and_its_lines_alone_and_says_what_transformers_says() {
    // Of each exporter, both ways to take a past, each precision; the other fixtures' cards are drafted in services/specialist.
    for name in [
        "llama_int4",
        "qwen2_fp16_positions",
        "phi3_int8",
        "optimum_phi3",
        "optimum_qwen3_no_positions",
    ] {
        let desk = Desk::with(&format!("foreign/{name}"));
        let lines = desk.add("--name mine --task echo --licence Apache-2.0");
        let mesh = MeshConfig::layer(None, &lines, &[]).expect("a configuration").config;
        assert_eq!(
            mesh.specialist["mine"].folder.as_deref(),
            Some(Path::new("models/mine")),
            "{lines}"
        );
        assert_eq!(mesh.task["echo"].chain, ["mine"]);
        let specialist = desk.load("mine");
        assert_eq!(
            (
                specialist.identity().as_str(),
                specialist.folder().card.licence.as_str()
            ),
            ("mine@1", "Apache-2.0")
        );
        let expected = fs::read_to_string(fixture("foreign").join(name).join("expected.json")).expect("committed");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        for row in expected["rows"].as_array().expect("rows") {
            let wanted: Vec<u32> = serde_json::from_value(row["tokens"].clone()).expect("ids");
            assert_eq!(
                tokens(&specialist, row["text"].as_str().expect("text")).await,
                wanted,
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn encoders_are_as_the_cards_that_people_wrote_have_them() {
    let desk = Desk::with("tiny_classifier");
    let labels = json!({"0": "play_music", "1": "book_table", "2": "weather", "3": "oos"});
    desk.write(
        "export/config.json",
        json!({"id2label": labels, "max_position_embeddings": 128}).to_string(),
    );
    desk.write(
        "mesh.toml",
        "[specialist.a]\nfolder = \"a\"\n[task.route]\nchain = [\"a\"]\n",
    );
    let lines = desk.add("--name mine --task route");
    assert!(
        lines.contains("# [task.route] is there") && lines.contains("chain = [\"a\", \"mine\"]"),
        "{lines}"
    );
    let (ours, theirs) = (desk.load("mine"), load(&fixture("tiny_classifier")));
    assert_eq!(
        encoded(&ours, Kind::Classify).await.answers,
        encoded(&theirs, Kind::Classify).await.answers
    );
    assert_eq!(ours.folder().card.classify.as_ref().map(|c| c.labels.len()), Some(4));

    let desk = Desk::with("tiny_embedder");
    desk.refused("export --name mine --task embed", &["config.json", "--context-tokens"]);
    desk.refused(
        "export --name mine --task embed --context-tokens 128",
        &["--pooling mean, cls or last"],
    );
    let output = desk.shoal("model add export --name mine --task embed --context-tokens 128 --pooling mean --json");
    let told: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(
        (&told["model"], &told["kind"], &told["folder"]),
        (&json!("mine@1"), &json!("embed"), &json!("models/mine"))
    );
    assert!(
        told["mesh_toml"]
            .as_str()
            .is_some_and(|lines| !lines.contains("[task.")),
        "{told}"
    );
    let (ours, theirs) = (desk.load("mine"), load(&fixture("tiny_embedder")));
    assert_eq!(
        encoded(&ours, Kind::Embed).await.answers,
        encoded(&theirs, Kind::Embed).await.answers
    );
}

#[test]
fn what_cannot_be_served_is_refused_by_name_and_leaves_nothing() {
    let desk = Desk::with("foreign/optimum_llama");
    desk.write(
        "mesh.toml",
        "[endpoint.large]\nbase_url = \"http://h:1/v1\"\nmodel = \"m\"\n",
    );
    // ONNX Runtime is never asked.
    desk.write("export/decoder_with_past_model.onnx", "");
    desk.refused(
        "export --name mine --task t",
        &["decoder_with_past_model.onnx", "a decoder in two files"],
    );
    fs::remove_file(desk.path("export/decoder_with_past_model.onnx")).expect("removed");
    for (line, says) in [
        ("export --name mine", "--task TASK"),
        ("export --name ../mine --task t", "`../mine` is no name"),
        ("export --name mine --task t --task t", "a task twice"),
        (
            "export --name gateway --task t",
            "specialist.gateway is the name of another process",
        ),
        (
            "export --name large --task t",
            "endpoint.large is also the name of a specialist",
        ),
        ("nowhere --name mine --task t", "nowhere is missing"),
        ("export --name mine --task t --schema nowhere.json", "nowhere.json"),
        ("export --name mine --task t --models no/such/place", "no/such/place"),
    ] {
        desk.refused(line, &[says]);
    }
    // What only the checks of a whole folder see.
    desk.write("schema.json", "{\"type\": ");
    desk.refused(
        "export --name mine --task t --schema schema.json",
        &["export/output.schema.json does not parse"],
    );
    // What only a load sees, in a process of its own: a schema that is none, a tokenizer of another model, no chat template.
    desk.write("schema.json", "{\"type\": \"nothing\"}");
    desk.refused(
        "export --name mine --task t --schema schema.json",
        &["output form of task t"],
    );
    fs::remove_file(desk.path("export/chat_template.jinja")).expect("removed");
    desk.refused("export --name mine --task t", &["no chat_template.jinja"]);
    // And what only ONNX Runtime sees.
    let desk = Desk::with("foreign/llama_fp16_apart");
    desk.refused(
        "export --name mine --task t",
        &["does not go on from its own keys and values", "`-p int4`"],
    );
    fs::create_dir(desk.path("models")).expect("made");
    desk.refused("export --name mine --task t", &["computes in fp16"]);
}

#[test]
fn another_version_goes_beside_the_first_and_nothing_is_written_over() {
    let desk = Desk::with("foreign/llama_fp32");
    desk.add("--name mine --task a --task b");
    desk.write(
        "mesh.toml",
        "[specialist.mine]\nfolder = \"models/mine\"\n[task.a]\nchain = [\"mine\"]\n",
    );
    desk.refused(
        "export --name mine --task a --task b",
        &["models/mine is there already (versions: 1)", "--version 2"],
    );
    desk.refused(
        "export --name mine --version 1",
        &["models/mine/1 is there already", "nothing is written over"],
    );
    desk.refused(
        "export --name mine --version 2 --task c",
        &["is of specialist mine for a, b"],
    );
    desk.refused(
        "models/mine/1 --name other --task a",
        &["card.toml", "a version of a specialist"],
    );
    assert_eq!(desk.add("--name mine --version 2"), "", "the configuration has it");
    let folder = Folder::open_version(&desk.path("models/mine"), 2).expect("it can be served");
    assert_eq!(
        (folder.card.version, folder.manifest.tasks),
        (2, vec!["a".to_owned(), "b".to_owned()])
    );
    let manifest = Folder::manifest(&desk.path("models/mine")).expect("a manifest");
    assert_eq!(manifest.active_version, 1, "who serves is another command's business");
    assert!(desk.shoal("activate mine 2").status.success());
    // A version of another kind would be refused by the process that runs.
    let other = Desk::with("tiny_embedder");
    fs::rename(other.path("export"), desk.path("embedder")).expect("moved");
    desk.refused(
        "embedder --name mine --version 3 --context-tokens 128 --pooling mean",
        &["kind \"embed\"", "kind \"generate\""],
    );
    // Somebody's own folder of that name is theirs.
    fs::create_dir(desk.path("models/theirs")).expect("made");
    desk.refused(
        "export --name theirs --task a",
        &["models/theirs is there", "specialist.toml is missing"],
    );
}

#[test]
fn an_interrupt_leaves_nothing() {
    let desk = Desk::with("foreign/llama_fp32");
    desk.write("mesh.toml", "[onnxruntime]\ncache = \"cache\"\n");
    // All is copied and checked by then, and it waits for what would load it.
    let _fetching = fetching_onnxruntime(desk.0.path());
    let before = desk.everything();
    let mut adding = desk.command("model add export --name mine --task t");
    adding.env_remove("ORT_DYLIB_PATH");
    let child = adding
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("shoal runs");
    let staged = desk.path("models/.adding-mine/mine/1/card.toml");
    let began = Instant::now();
    while !staged.exists() && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.is_ok_and(|status| status.success()));
    let output = ended(child);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted; nothing was added"), "{said}");
    assert_eq!(desk.everything(), before);
}
