//! What is wrong before anything binds ends with exit 64 and says what to do.
use anyhow::Result;
use shoal_tests::{command, root};
use std::path::Path;

const BINARY: &str = env!("CARGO_BIN_EXE_shoal-under-test");

/// Runs `args` with a configuration, and gives exit code and words.
async fn said(config: &str, args: &[&str]) -> Result<(Option<i32>, String)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mesh.toml");
    std::fs::write(&file, config)?;
    let path = file.display().to_string();
    let mut all = args.to_vec();
    all.extend(["--config", &path]);
    let done = command::run(BINARY, folder.path(), &all, &[]).await?;
    Ok((done.code, done.err + &done.out))
}

async fn refused(config: &str, args: &[&str], words: &[&str]) -> Result<()> {
    let (code, text) = said(config, args).await?;
    assert_eq!(code, Some(64), "{args:?}: {text}");
    assert!(
        words.iter().all(|w| text.contains(w)),
        "{args:?} does not say {words:?}: {text}"
    );
    assert!(!text.contains("panicked"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_typo_in_the_configuration_is_refused_with_its_line() -> Result<()> {
    for command in [
        vec!["gateway"],
        vec!["feedback"],
        vec!["concierge"],
        vec!["up"],
        vec!["config", "check"],
    ] {
        refused(
            "[gateway]\n\nlisten_on = \"127.0.0.1:1\"\n",
            &command,
            &["mesh.toml:3", "listen_on"],
        )
        .await?;
    }
    refused("[gateway]\nmax_nodes = 0\n", &["gateway"], &["max_nodes"]).await?;
    refused("[task.tool_call]\nchain = [\"nobody\"]\n", &["gateway"], &["nobody"]).await
}

#[tokio::test]
async fn a_variable_that_cannot_be_meant_so_is_refused_by_its_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, value, words) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "http://host:port"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c:4317", "TLS"),
        ("SHOAL_GATEWAY_LISTEN", "127.0.0.1:1", "SHOAL_GATEWAY__LISTEN"),
    ] {
        for args in [vec!["config", "check"], vec!["feedback"], vec!["status"]] {
            let done = command::run(BINARY, folder.path(), &args, &[(name, value)]).await?;
            assert_eq!(done.code, Some(64), "{name} {args:?}: {done:?}");
            assert!(
                done.err.contains(&format!("${name}")) && done.err.contains(words) && !done.err.contains("panicked"),
                "{args:?}: {}",
                done.err
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn where_no_configuration_is_no_mesh_is_started() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for args in [
        vec!["up"],
        vec!["run", "play jazz", "--local"],
        vec!["activate", "tool_call"],
    ] {
        let done = command::run(BINARY, folder.path(), &args, &[]).await?;
        assert_eq!(done.code, Some(64), "{args:?}: {done:?}");
        assert!(
            done.err.contains("mesh.toml") && done.err.contains("--config"),
            "{args:?}: {}",
            done.err
        );
    }
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0, "nothing was made");
    let done = command::run(BINARY, folder.path(), &["config", "check"], &[]).await?;
    assert!(done.code == Some(0) && done.err.contains("no mesh.toml"), "{done:?}");
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_refused_and_names_the_key() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let config = format!("[gateway]\nfeedback = \"\"\nlisten = \"{address}\"\nhttp_listen = \"127.0.0.1:0\"\n");
    refused(&config, &["gateway"], &[&address.to_string(), "listen"]).await?;
    let config = format!("[feedback]\nlisten = \"{address}\"\nhttp_listen = \"127.0.0.1:0\"\n");
    refused(&config, &["feedback"], &[&address.to_string(), "listen"]).await
}

#[tokio::test]
async fn a_store_or_a_spool_that_cannot_be_written_is_refused() -> Result<()> {
    let ports = "listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n";
    // A file stands where a folder is needed: not even root can write below it.
    refused(
        &format!("[feedback]\nstore = \"mesh.toml/x.sqlite\"\n{ports}"),
        &["feedback"],
        &["mesh.toml"],
    )
    .await?;
    refused(
        &format!("[gateway]\nspool = \"mesh.toml/spool\"\n{ports}"),
        &["gateway"],
        &["mesh.toml"],
    )
    .await
}

#[tokio::test]
async fn a_model_folder_that_is_missing_or_corrupt_is_refused() -> Result<()> {
    let config = "[specialist.x]\nfolder = \"not/there\"\n";
    refused(config, &["specialist", "x"], &["not/there", "folder"]).await?;
    let bad = tempfile::tempdir()?;
    copy(&root().join("tests/fixtures/models/tiny_decoder"), bad.path())?;
    std::fs::write(bad.path().join("1/model.onnx"), b"garbage")?;
    let config = format!("[specialist.x]\nfolder = \"{}\"\n", bad.path().display());
    refused(&config, &["specialist", "x"], &["model.onnx", "sha256"]).await?;
    refused("", &["specialist", "nobody"], &["nobody"]).await
}

#[tokio::test]
async fn cuda_that_is_not_there_is_refused_clearly() -> Result<()> {
    if Path::new("/dev/nvidia0").exists() {
        eprintln!("skipped: needs a machine without an NVIDIA GPU");
        return Ok(());
    }
    let folder = root().join("tests/fixtures/models/tiny_decoder").canonicalize()?;
    let config = format!(
        "[specialist.x]\nfolder = \"{}\"\nprovider = \"cuda\"\nlisten = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"\n",
        folder.display()
    );
    refused(&config, &["specialist", "x"], &["CUDA"]).await
}

#[tokio::test]
async fn a_plan_file_that_is_none_is_refused_before_a_mesh_is_asked() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bad.yaml");
    std::fs::write(&file, "nodes:\n  - {id: a, tool: X.Y, argumentz: {}}\n")?;
    let done = command::run(BINARY, folder.path(), &["run", "bad.yaml"], &[]).await?;
    assert_eq!(done.code, Some(64), "{done:?}");
    assert!(
        done.err.contains("argumentz") && done.err.contains("bad.yaml"),
        "{}",
        done.err
    );
    std::fs::write(&file, b"\xff\xfe")?;
    let done = command::run(BINARY, folder.path(), &["run", "bad.yaml"], &[]).await?;
    assert_eq!(done.code, Some(64), "{done:?}");
    Ok(())
}

#[tokio::test]
async fn a_mesh_that_is_not_there_is_told_apart_from_one_that_refuses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let done = command::run(
        BINARY,
        folder.path(),
        &["run", "play jazz", "--gateway", "127.0.0.1:9"],
        &[],
    )
    .await?;
    assert_eq!(done.code, Some(69), "{done:?}");
    assert!(done.err.contains("shoal up"), "{}", done.err);
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
