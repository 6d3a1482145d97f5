//! The house rules of ARCHITECTURE.md as tests over the manifests and the sources.
use anyhow::{Context as _, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Who may import whom, as ARCHITECTURE.md's table of rooms says too. Nothing imports `shoal-tests`.
const EDGES: [(&str, &[&str]); 11] = [
    ("shoal-proto", &[]),
    ("shoal-plan", &[]),
    ("shoal-kit", &["shoal-proto"]),
    ("shoal-stack", &["shoal-proto", "shoal-kit"]),
    ("shoal-specialist", &["shoal-proto", "shoal-kit"]),
    ("shoal-feedback", &["shoal-proto", "shoal-kit", "shoal-plan"]),
    ("shoal-concierge", &["shoal-proto", "shoal-kit"]),
    ("shoal-loadtest", &["shoal-proto", "shoal-kit", "shoal-specialist"]),
    (
        "shoal-gateway",
        &["shoal-proto", "shoal-kit", "shoal-stack", "shoal-plan"],
    ),
    (
        "shoal",
        &[
            "shoal-proto",
            "shoal-kit",
            "shoal-plan",
            "shoal-gateway",
            "shoal-specialist",
            "shoal-feedback",
            "shoal-concierge",
        ],
    ),
    (
        "shoal-tests",
        &[
            "shoal",
            "shoal-proto",
            "shoal-kit",
            "shoal-plan",
            "shoal-stack",
            "shoal-gateway",
            "shoal-specialist",
            "shoal-feedback",
            "shoal-concierge",
        ],
    ),
];

/// Lines of a file at most. STYLE says 250 and tolerates 400; past that a file is two files.
const LINES: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every .rs file of the workspace's packages, by path relative to the root.
fn sources() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = ["proto", "services", "gateway", "loadtest", "tests"]
        .iter()
        .map(|f| root().join(f))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root())?.to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(&path)?);
            }
        }
    }
    Ok(found)
}

/// The part of a source that is neither a comment nor a test module at its end.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    body.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs") || path.contains("/examples/")
}

/// Files outside `allowed` whose code names one of `words`.
fn named_outside(words: &[&str], allowed: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let hits = sources()?
        .into_iter()
        .filter(|(path, _)| !is_test(path) && !allowed(path))
        .filter_map(|(path, text)| {
            let code = code(&text);
            let word = words.iter().find(|word| names(&code, word))?;
            Some(format!("{path} names `{word}`"))
        });
    Ok(hits.collect())
}

/// Whether `word` stands in `code`, and not as the end of a longer name: `transport::` does not name `ort::`.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn crates_import_only_along_the_allowed_edges() -> Result<()> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()?;
    let names: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    for package in &metadata.packages {
        let may = allowed
            .get(package.name.as_str())
            .with_context(|| format!("{} has no line in EDGES", package.name))?;
        for dependency in package.dependencies.iter().filter(|d| names.contains(&d.name)) {
            assert!(
                may.contains(&dependency.name.as_str()),
                "{} must not import {}",
                package.name,
                dependency.name
            );
        }
    }
    assert_eq!(names.len(), EDGES.len(), "a package left the workspace: mend EDGES");
    Ok(())
}

#[test]
fn the_table_of_rooms_tells_the_same_edges() -> Result<()> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let full = |room: &str| match room {
        "shoal" => room.to_owned(),
        room => format!("shoal-{room}"),
    };
    let mut told = BTreeMap::new();
    for row in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [_, package, _, may] = cells[..]
            && package.starts_with("shoal")
        {
            let may: BTreeSet<String> = match may {
                "nothing of ours" => BTreeSet::new(),
                rooms => rooms.split(", ").map(full).collect(),
            };
            told.insert(package.to_owned(), may);
        }
    }
    for (package, may) in EDGES {
        let may: BTreeSet<String> = may.iter().map(|m| (*m).to_owned()).collect();
        assert_eq!(told.remove(package), Some(may), "ARCHITECTURE.md's row of {package}");
    }
    assert!(told.is_empty(), "rooms without a line in EDGES: {told:?}");
    Ok(())
}

#[test]
fn onnx_runtime_is_named_in_one_module() -> Result<()> {
    let hits = named_outside(&["ort::", "ort_sys::", "use ort"], |path| {
        path.starts_with("services/specialist/src/runtime/") || path == "services/specialist/src/runtime.rs"
    })?;
    assert!(hits.is_empty(), "{hits:#?}");
    Ok(())
}

#[test]
fn a_status_is_built_in_one_table() -> Result<()> {
    let makers = [
        "Status::new(",
        "Status::invalid_argument(",
        "Status::internal(",
        "Status::not_found(",
        "Status::unavailable(",
        "Status::unimplemented(",
        "Status::resource_exhausted(",
        "Status::failed_precondition(",
        "Status::deadline_exceeded(",
        "Status::cancelled(",
        "Status::aborted(",
        "Status::unknown(",
        "Status::with_error_details(",
    ];
    let hits = named_outside(&makers, |path| path == "services/kit/src/status.rs")?;
    assert!(hits.is_empty(), "{hits:#?}");
    Ok(())
}

#[test]
fn the_environment_is_read_in_one_place() -> Result<()> {
    let hits = named_outside(&["env::var(", "env::vars(", "env::var_os(", "env::vars_os("], |path| {
        path == "services/kit/src/environment.rs" || path.ends_with("build.rs")
    })?;
    assert!(hits.is_empty(), "{hits:#?}");
    Ok(())
}

#[test]
fn every_task_and_thread_has_a_name() -> Result<()> {
    let hits = named_outside(&["tokio::spawn(", "thread::spawn(", "task::spawn_blocking("], |path| {
        path == "services/kit/src/task.rs"
    })?;
    assert!(hits.is_empty(), "{hits:#?}");
    Ok(())
}

#[test]
fn unsafe_code_stands_in_the_runtime_alone_and_argues_for_itself() -> Result<()> {
    for (path, text) in sources()?.into_iter().filter(|(path, _)| !is_test(path)) {
        let blocks = code(&text).matches("unsafe {").count();
        if blocks == 0 {
            continue;
        }
        assert!(
            path.starts_with("services/specialist/src/runtime"),
            "{path} holds unsafe code"
        );
        let argued = text.matches("// SAFETY:").count();
        assert!(
            argued >= blocks,
            "{path}: {blocks} unsafe blocks, {argued} `// SAFETY:` comments"
        );
    }
    Ok(())
}

#[test]
fn no_file_is_a_drawer_or_too_long() -> Result<()> {
    for (path, text) in sources()? {
        let name = path.rsplit('/').next().unwrap_or_default();
        assert!(
            !["utils.rs", "common.rs", "types.rs", "helpers.rs"].contains(&name),
            "{path}: name it for what it does"
        );
        let lines = text.lines().count();
        assert!(
            lines <= LINES,
            "{path} has {lines} lines; past {LINES} a file is two files"
        );
    }
    Ok(())
}

#[test]
fn a_lint_is_expected_with_a_reason_and_never_just_allowed() -> Result<()> {
    let hits: Vec<_> = sources()?
        .into_iter()
        .filter(|(path, text)| path != "tests/tests/house.rs" && text.contains("#[allow("))
        .map(|(path, _)| path)
        .collect();
    assert!(hits.is_empty(), "write #[expect(.., reason = \"..\")]: {hits:#?}");
    Ok(())
}

#[test]
fn every_message_field_and_rpc_of_the_contract_is_documented() -> Result<()> {
    for file in ["common", "plan", "specialist", "tool", "feedback", "mesh"] {
        let text = fs::read_to_string(root().join(format!("proto/shoal/v1/{file}.proto")))?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (i, line) in lines.iter().enumerate() {
            let declares = ["message ", "enum ", "service ", "rpc ", "oneof "]
                .iter()
                .any(|word| line.starts_with(word));
            let is_field =
                line.ends_with(';') && line.contains(" = ") && !line.starts_with("//") && !line.starts_with("syntax");
            if declares || is_field {
                assert!(
                    i > 0 && lines[i - 1].starts_with("//"),
                    "proto/shoal/v1/{file}.proto:{}: `{line}` has no comment",
                    i + 1
                );
            }
        }
    }
    Ok(())
}

/// What makes an instrument. A counter is the one that the exporter ends with `_total`.
const INSTRUMENTS: [(&str, bool); 5] = [
    ("64_counter(", true),
    ("64_up_down_counter(", false),
    ("64_gauge(", false),
    ("64_histogram(", false),
    // Of the specialist's observable gauges.
    ("observe(", false),
];

/// The names that a scrape has of the instruments of a source: `shoal_plans`, a counter, is `shoal_plans_total`, and
/// `shoal.specialist.step.duration`, with the unit `s`, is `shoal_specialist_step_duration_seconds`.
fn exported(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (maker, counts) in INSTRUMENTS {
        for (at, _) in source.match_indices(maker) {
            let rest = &source[at + maker.len()..];
            let given = rest.split([',', ')']).next().unwrap_or_default();
            // By a constant, or by itself.
            let constant = format!("const {given}: &str = ");
            let value = source.split_once(&constant).map_or(given, |(_, value)| value);
            let Some(name) = value.strip_prefix('"').and_then(|value| value.split('"').next()) else {
                continue;
            };
            let builder = rest.split(".build()").next().unwrap_or_default();
            let seconds = maker != "observe(" && builder.contains(".with_unit(\"s\")");
            let (unit, total) = (
                if seconds { "_seconds" } else { "" },
                if counts { "_total" } else { "" },
            );
            names.push(format!("{}{unit}{total}", name.replace('.', "_")));
        }
    }
    names
}

#[test]
fn every_metric_that_the_readme_names_is_recorded() -> Result<()> {
    let text = fs::read_to_string(root().join("README.md"))?;
    let quoted = text.split('`').skip(1).step_by(2);
    let told: BTreeSet<&str> = quoted
        .filter(|word| word.starts_with("shoal_") && !word.contains(' '))
        .collect();
    let recorded: BTreeSet<String> = sources()?
        .iter()
        .filter(|(path, _)| !is_test(path))
        .flat_map(|(_, source)| exported(&code(source)))
        .collect();
    assert!(told.len() > 10, "{told:?}");
    for name in told {
        assert!(recorded.contains(name), "{name} is in README.md, and no scrape has it");
    }
    for name in ["shoal_plans", "shoal_specialist_slots_live_total", "shoal_task"] {
        assert!(!recorded.contains(name), "{name} is no name of a scrape");
    }
    Ok(())
}
