//! The shell scripts of deploy/ and loadtest/ where something goes wrong, with everything that they call put in place by the test: no engine, no
//! network, nothing of the checkout written.
use anyhow::{Context as _, Result};
use shoal_tests::root;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// A checkout of its own with the named files, and programs of its own in front of the system's.
struct Place {
    folder: TempDir,
}

impl Place {
    fn with(files: &[&str]) -> Result<Self> {
        let place = Self {
            folder: tempfile::tempdir()?,
        };
        for file in files {
            fs::create_dir_all(place.at(file).parent().context("a file has a folder")?)?;
            fs::copy(root().join(file), place.at(file))?;
        }
        fs::create_dir_all(place.at("bin"))?;
        Ok(place)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::create_dir_all(self.at(path).parent().context("a file has a folder")?)?;
        Ok(fs::write(self.at(path), text)?)
    }

    fn program(&self, path: &str, body: &str) -> Result<()> {
        self.write(path, &format!("#!/bin/sh\n{body}\n"))?;
        Ok(fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755))?)
    }

    fn script(&self, script: &str, args: &[&str]) -> Result<Command> {
        let path = format!("{}:{}", self.at("bin").display(), std::env::var("PATH")?);
        let mut command = Command::new("bash");
        command.arg(self.at(script)).args(args).current_dir(self.folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SHOAL_")) {
            command.env_remove(name);
        }
        command.env("PATH", path).env("XDG_CACHE_HOME", self.at("cache"));
        Ok(command)
    }

    /// All that deploy/make-stage lays out, with one model, and ONNX Runtime in the cache of the machine.
    fn to_stage() -> Result<Self> {
        let place = Self::with(&[
            "deploy/make-stage",
            "deploy/compose-test",
            "deploy/base-image",
            "deploy/compose.yaml",
            "deploy/compose.gpu.yaml",
            "deploy/Dockerfile",
            "services/kit/src/onnxruntime.rs",
        ])?;
        let version = shoal_kit::onnxruntime::VERSION;
        let library = format!("cache/shoal/onnxruntime-{version}/libonnxruntime.so.{version}");
        place.write(&library, "a library")?;
        place.write("services/concierge/data/services.json", "[]")?;
        place.write("services/concierge/data/tool_results.jsonl.gz", "")?;
        place.write("models/mine/1/card.toml", "")?;
        place.write("deploy/mesh.toml", "[specialist.mine]\nfolder = \"models/mine\"\n")?;
        place.program("shoal", "exit 0")?;
        place.program("bin/strip", "exit 0")?;
        Ok(place)
    }

    fn stage(&self, args: &[&str]) -> Result<Output> {
        let all = [&["--binary", "./shoal"], args].concat();
        Ok(self.script("deploy/make-stage", &all)?.output()?)
    }
}

fn left(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[test]
fn a_base_image_that_can_be_pulled_is_not_made() -> Result<()> {
    let place = Place::with(&["deploy/base-image"])?;
    place.program("bin/docker", "[ \"$1\" = pull ]")?;
    // Whoever is in the group `docker` need not be root, and making one would need that.
    place.program("bin/id", "echo 1000")?;
    let done = place.script("deploy/base-image", &["ubuntu:24.04"])?.output()?;
    assert!(done.status.success(), "{done:?}");
    place.program("bin/docker", "exit 1")?;
    let done = place.script("deploy/base-image", &["debian:trixie-slim"])?.output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("needs root"), "{done:?}");
    Ok(())
}

#[test]
fn a_stage_that_fails_keeps_what_an_earlier_one_fetched_and_leaves_nothing_beside_it() -> Result<()> {
    let place = Place::to_stage()?;
    place.write("deploy/stage/lib-cuda/libonnxruntime.so", "300 MB")?;
    place.write(
        "deploy/mesh.toml",
        "folder = \"models/mine\"\nfolder = \"models/none\"\n",
    )?;
    let before = left(&place.at("deploy"))?;
    for _ in 0..2 {
        let done = place.stage(&[])?;
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains("models/none"), "{done:?}");
    }
    assert_eq!(left(&place.at("deploy"))?, before);
    place.write("deploy/mesh.toml", "folder = \"models/mine\"\n")?;
    let done = place.stage(&[])?;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        left(&place.at("deploy/stage"))?,
        ["bin", "concierge", "lib", "lib-cuda", "mesh.toml", "models"]
    );
    let kept = fs::read_to_string(place.at("deploy/stage/lib-cuda/libonnxruntime.so"))?;
    assert_eq!(kept, "300 MB");
    Ok(())
}

#[test]
fn a_folder_that_is_no_stage_is_not_replaced_by_one() -> Result<()> {
    let place = Place::to_stage()?;
    place.write("home/letter", "dear")?;
    for into in ["home", "home/"] {
        let done = place.stage(&["--into", into])?;
        assert!(!done.status.success(), "{done:?}");
    }
    assert_eq!(left(&place.at("home"))?, ["letter"]);
    for _ in 0..2 {
        let done = place.stage(&["--into", "other/stage/"])?;
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(left(&place.at("other"))?, ["stage"]);
    Ok(())
}

#[test]
fn the_compose_test_leaves_what_was_staged_before_it() -> Result<()> {
    let place = Place::to_stage()?;
    place.write("deploy/stage/bin/shoal", "a build of an hour")?;
    // An engine that has the base image, and no mesh.
    place.program(
        "bin/docker",
        "case $1-$2 in info-* | compose-version | image-inspect) ;; *) exit 1 ;; esac",
    )?;
    let before = left(&place.at("deploy"))?;
    let done = place
        .script("deploy/compose-test", &["--binary", "./shoal"])?
        .output()?;
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        said.contains("staged") && said.contains("FAIL compose.yaml is valid"),
        "{done:?}"
    );
    assert_eq!(left(&place.at("deploy"))?, before);
    let kept = fs::read_to_string(place.at("deploy/stage/bin/shoal"))?;
    assert_eq!(kept, "a build of an hour");
    Ok(())
}

#[test]
fn peers_are_set_up_once_what_a_half_made_venv_lacked_is_there() -> Result<()> {
    let place = Place::with(&["loadtest/peers/setup"])?;
    // As `python3 -m venv` leaves it where Debian has no python3-venv: an interpreter, and no pip.
    place.program("target/peers/venv/bin/python", "[ \"$1\" = -c ]")?;
    place.program("made", "exit 0")?;
    let made = place.at("made");
    place.program(
        "bin/python3",
        &format!(
            "mkdir -p \"$3/bin\" && cp {0} \"$3/bin/python\" && cp {0} \"$3/bin/pip\"",
            made.display()
        ),
    )?;
    let done = place
        .script("loadtest/peers/setup", &[])?
        .env("PYTHON", "python3")
        .output()?;
    assert!(done.status.success(), "{done:?}");
    Ok(())
}

#[test]
fn the_gpu_check_finds_what_cargo_built_by_any_profile_and_into_any_folder() -> Result<()> {
    let place = Place::with(&["deploy/gpu-check", "deploy/gpu-shapes.py"])?;
    for folder in ["models", "services/concierge/data", "tests/data"] {
        fs::create_dir_all(place.at(folder))?;
    }
    place.write("mesh.toml", "")?;
    place.program(
        "bin/cargo",
        "mkdir -p built/debug && touch built/debug/shoal built/debug/shoal-loadtest",
    )?;
    place.program("bin/uname", "echo x86_64")?;
    // Shapes are exported, and then there is no package index.
    place.program("bin/python3", "[ \"$1\" != -m ]")?;
    let done = place
        .script("deploy/gpu-check", &["build", "--profile", "dev"])?
        .current_dir(place.at("models"))
        .env("CARGO_TARGET_DIR", "built")
        .env_remove("PYTHON")
        .output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("pip cannot fetch"), "{done:?}");
    assert!(place.at("target/gpu-check/tree/bin/shoal").is_file());
    Ok(())
}
