//! Cards of exports that have none: what a fixture's committed card says is what is drafted of its files alone.
use crate::{
    folders::has,
    world::{fixture, library},
};
use serde_json::json;
use shoal_kit::config::Specialist as Config;
use shoal_specialist::{
    folder::{
        Error, Folder,
        draft::{About, Draft, Said},
        manifest::{Embed, Kind, Manifest, Output, Pooling},
    },
    specialist::Specialist,
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// An exporter's folder: the first version of a fixture without what is ours.
pub(crate) struct Export(TempDir);

impl Export {
    pub(crate) fn of(name: &str) -> Self {
        let export = Self(TempDir::new().expect("a folder"));
        for entry in fs::read_dir(fixture(name).join("1")).expect("readable") {
            let path = entry.expect("readable").path();
            let file = path.file_name().expect("a name");
            if !file.to_string_lossy().ends_with(".schema.json") && file != "card.toml" {
                fs::copy(&path, export.path().join(file)).expect("copied");
            }
        }
        export
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub(crate) fn without(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("removed");
    }

    #[track_caller]
    pub(crate) fn draft(&self) -> Draft {
        Draft::of(self.path(), Said::default()).expect("a draft")
    }

    #[track_caller]
    pub(crate) fn refused(&self, parts: &[&str]) {
        has(
            &Draft::of(self.path(), Said::default())
                .expect_err("refused")
                .to_string(),
            parts,
        );
    }

    fn with_tokens(&self, context_tokens: u32) -> Result<Draft, Error> {
        let said = Said {
            context_tokens: Some(context_tokens),
            ..Said::default()
        };
        Draft::of(self.path(), said)
    }
}

/// A specialist's folder `made` of the export, by its draft.
fn made(export: &Export, draft: &Draft, tasks: &[&str], output: Option<&Output>) -> (TempDir, PathBuf) {
    let root = TempDir::new().expect("a folder");
    let version = root.path().join("1");
    fs::create_dir(&version).expect("made");
    let forms = output.into_iter().flat_map(|o| [&o.schema, &o.grammar]).flatten();
    for file in draft.files.iter().chain(forms) {
        fs::copy(export.path().join(file), version.join(file)).expect("copied");
    }
    let tasks: Vec<String> = tasks.iter().map(|t| (*t).to_owned()).collect();
    let about = About {
        name: "mine",
        version: 1,
        licence: "MIT",
        tasks: &tasks,
        output,
    };
    let card = draft.card(&about, &version).expect("a card");
    fs::write(version.join("card.toml"), card).expect("written");
    let manifest = Manifest {
        name: "mine".into(),
        tasks: tasks.clone(),
        active_version: 1,
    };
    let text = manifest.text(Path::new("specialist.toml")).expect("a manifest");
    fs::write(root.path().join("specialist.toml"), text).expect("written");
    let path = root.path().to_owned();
    (root, path)
}

#[test]
fn a_decoders_card_is_what_people_wrote_of_the_same_files() {
    let foreign = fs::read_dir(fixture("foreign")).expect("readable");
    let foreign = foreign.map(|e| format!("foreign/{}", e.expect("readable").file_name().to_string_lossy()));
    let names: Vec<String> = foreign.chain(["tiny_decoder".to_owned()]).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let export = Export::of(&name);
        let draft = export.draft();
        let (_held, path) = made(&export, &draft, &["t"], None);
        let folder = Folder::open(&path).expect("it can be served");
        let mut wanted = Folder::open(&fixture(&name)).expect("a good folder");
        wanted.card.files.remove("output.schema.json");
        assert_eq!(folder.card.kind, Kind::Generate, "{name}");
        assert_eq!(folder.card.files, wanted.card.files, "{name}");
        assert_eq!(
            (folder.card.limits.context_tokens, folder.card.limits.max_new_tokens),
            (wanted.card.limits.context_tokens, wanted.card.limits.max_new_tokens),
            "{name}"
        );
        assert_eq!(folder.exported, wanted.exported, "{name}");
        assert!(
            draft.architecture.len() > 3 && draft.architecture != "a model",
            "{name}: {}",
            draft.architecture
        );
    }
}

/// `config.json` of a classifier, as transformers write it.
fn labels(names: &[&str]) -> String {
    let labels: serde_json::Map<String, serde_json::Value> = names
        .iter()
        .enumerate()
        .map(|(id, name)| (id.to_string(), json!(name)))
        .collect();
    json!({"architectures": ["BertForSequenceClassification"], "id2label": labels, "max_position_embeddings": 128, "model_type": "bert"}).to_string()
}

#[test]
fn a_classifiers_labels_are_its_configurations() {
    let export = Export::of("tiny_classifier");
    export.refused(&["config.json", "--context-tokens"]);
    has(
        &export.with_tokens(128).expect_err("refused").to_string(),
        &["config.json", "id2label"],
    );
    export.write("config.json", labels(&["play_music", "book_table", "weather", "oos"]));
    let draft = export.draft();
    let wanted = Folder::open(&fixture("tiny_classifier")).expect("a good folder").card;
    assert_eq!(
        draft.classify.as_ref().map(|c| &c.labels),
        wanted.classify.as_ref().map(|c| &c.labels)
    );
    assert_eq!(
        (draft.kind, draft.context_tokens, draft.max_new_tokens),
        (Kind::Classify, 128, 0)
    );
    let (_held, path) = made(&export, &draft, &["route"], None);
    let config = Config::default();
    Specialist::load(&path, &config, library())
        .expect("it loads")
        .encoder(Kind::Classify)
        .expect("it classifies");
    // One more than the graph has is told where the graph is run.
    export.write("config.json", labels(&["a", "b", "c", "d", "e"]));
    let (_held, path) = made(&export, &export.draft(), &["route"], None);
    has(
        &Specialist::load(&path, &config, library())
            .expect_err("refused")
            .to_string(),
        &["5 numbers a text"],
    );
    for (config, wanted) in [
        (json!({"id2label": {"0": "a", "2": "b"}}), "from \"0\" on"),
        (
            json!({"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"}),
            "several labels at once",
        ),
    ] {
        export.write("config.json", config.to_string());
        export.refused(&[wanted]);
    }
}

#[test]
fn how_an_embedder_pools_is_read_or_asked_for_and_never_guessed() {
    let export = Export::of("tiny_embedder");
    export.refused(&["config.json", "--context-tokens"]);
    export.write(
        "config.json",
        json!({"architectures": ["BertModel"], "max_position_embeddings": 128}).to_string(),
    );
    export.refused(&["1_Pooling/config.json", "--pooling mean, cls or last"]);
    let told = |pooling| {
        let said = Said {
            pooling,
            ..Said::default()
        };
        Draft::of(export.path(), said)
            .expect("a draft")
            .embed
            .expect("it embeds")
    };
    let is = |embed: Embed| (embed.pooling, embed.normalise, embed.dimensions);
    assert_eq!(is(told(Some(Pooling::Last))), (Pooling::Last, true, 32));
    export.write(
        "1_Pooling/config.json",
        json!({"word_embedding_dimension": 32, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})
            .to_string(),
    );
    assert_eq!(is(told(None)), (Pooling::Cls, true, 32));
    let module =
        |kind: &str| json!({"idx": 0, "name": "0", "path": "", "type": format!("sentence_transformers.models.{kind}")});
    export.write(
        "modules.json",
        json!([module("Transformer"), module("Pooling")]).to_string(),
    );
    assert_eq!(is(told(None)), (Pooling::Cls, false, 32));
    export.write(
        "modules.json",
        json!([module("Transformer"), module("Pooling"), module("Dense")]).to_string(),
    );
    export.refused(&["modules.json", "`Dense`", "sentence_embedding"]);
    export.without("modules.json");
    export.write(
        "1_Pooling/config.json",
        json!({"pooling_mode_max_tokens": true}).to_string(),
    );
    export.refused(&["pooling_mode_max_tokens", "mean, cls and last"]);
    export.write(
        "1_Pooling/config.json",
        json!({"pooling_mode_mean_tokens": true}).to_string(),
    );
    let draft = export.draft();
    assert_eq!((draft.context_tokens, draft.known_tokens), (128, Some(128)));
    let (_held, path) = made(&export, &draft, &["embed"], None);
    Specialist::load(&path, &Config::default(), library())
        .expect("it loads")
        .encoder(Kind::Embed)
        .expect("it embeds");
    // An encoder's first position is behind its padding in some families.
    export.write(
        "config.json",
        json!({"model_type": "roberta", "max_position_embeddings": 130, "pad_token_id": 1}).to_string(),
    );
    assert_eq!(export.draft().context_tokens, 128);
    export.write("config.json", json!({"model_type": "t5"}).to_string());
    assert_eq!(
        (export.draft().context_tokens, export.draft().known_tokens),
        (1024, None),
        "it knows no end"
    );
}

#[test]
fn what_a_model_knows_and_its_answers_bound_what_a_card_allows() {
    let export = Export::of("foreign/optimum_llama");
    let config = fs::read_to_string(export.path().join("config.json")).expect("readable");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let with = |change: serde_json::Value| {
        let mut config = config.clone();
        config
            .as_object_mut()
            .expect("an object")
            .extend(change.as_object().expect("an object").clone());
        export.write("config.json", config.to_string());
        let draft = export.draft();
        (draft.context_tokens, draft.max_new_tokens)
    };
    assert_eq!(with(json!({"max_position_embeddings": 131072})), (4096, 1024));
    assert_eq!(with(json!({"sliding_window": 100})), (100, 25));
    assert_eq!(
        with(json!({"sliding_window": 100, "use_sliding_window": false})),
        (256, 64)
    );
    let long = json!({"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 64}});
    assert_eq!(with(long), (64, 16));
    export.write(
        "generation_config.json",
        json!({"eos_token_id": 0, "max_new_tokens": 99}).to_string(),
    );
    assert_eq!(with(json!({})), (256, 99));
    assert_eq!(export.with_tokens(100).expect("a draft").max_new_tokens, 99);
    has(
        &export.with_tokens(257).expect_err("refused").to_string(),
        &["config.json", "knows 256 positions", "--context-tokens"],
    );
    // More than there is room for is no limit.
    export.write(
        "generation_config.json",
        json!({"eos_token_id": 0, "max_new_tokens": 4000}).to_string(),
    );
    assert_eq!(with(json!({})), (256, 64));
    let genai = Export::of("foreign/llama_fp32");
    let text = fs::read_to_string(genai.path().join("genai_config.json")).expect("readable");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["model"]["decoder"]["sliding_window"] = json!({"window_size": 64});
    genai.write("genai_config.json", json.to_string());
    assert_eq!(genai.draft().context_tokens, 64);
}

#[test]
fn answers_are_held_to_the_form_that_is_given() {
    let export = Export::of("tiny_decoder");
    fs::copy(
        fixture("tiny_decoder/1/output.schema.json"),
        export.path().join("output.schema.json"),
    )
    .expect("copied");
    let output = Output {
        schema: Some("output.schema.json".into()),
        ..Output::default()
    };
    let (_held, path) = made(&export, &export.draft(), &["a", "b"], Some(&output));
    let folder = Folder::open(&path).expect("it can be served");
    assert!(folder.tasks.iter().all(|task| task.output_schema.is_some()));
    assert!(folder.card.files.contains_key("output.schema.json"));
}
