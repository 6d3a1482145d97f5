//! What can be told of the containers without an engine: deploy/compose-test asks the rest of a mesh that runs.
use anyhow::{Context as _, Result};
use serde_yaml_ng::Value;
use shoal_tests::root;
use std::{collections::BTreeMap, fs};

/// The services of a compose file, each with what it merges; what a specialist merges merges in turn.
fn services(file: &str) -> Result<BTreeMap<String, Value>> {
    let mut compose: Value = serde_yaml_ng::from_str(&fs::read_to_string(root().join("deploy").join(file))?)?;
    compose.apply_merge()?;
    compose.apply_merge()?;
    let services = compose.get("services").context("a mesh has services")?;
    Ok(serde_yaml_ng::from_value(services.clone())?)
}

#[test]
fn one_service_builds_an_image_and_the_others_neither_build_nor_pull_it() -> Result<()> {
    for file in ["compose.yaml", "compose.gpu.yaml"] {
        let mut builders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let services = services(file)?;
        for (name, service) in &services {
            let image = service["image"].as_str().with_context(|| name.clone())?;
            if service.get("build").is_some() {
                builders.entry(image.to_owned()).or_default().push(name.clone());
            }
        }
        for (image, builders) in builders {
            // Compose v2 exports all of them at once, and a second one of the same tag is refused.
            assert_eq!(builders.len(), 1, "{file}: {builders:?} all build {image}");
            for (name, service) in &services {
                if service["image"].as_str() == Some(&image) && !builders.contains(name) {
                    assert_eq!(service["pull_policy"].as_str(), Some("never"), "{file}: {name}");
                }
            }
        }
    }
    Ok(())
}

/// docker-compose 1.29 looks for a service's image before it looks at the next service's, in order of start, and pulls one that is not there.
#[test]
fn the_service_that_builds_waits_for_none_and_stands_before_all_others_that_do_not() -> Result<()> {
    let text = fs::read_to_string(root().join("deploy/compose.yaml"))?;
    let at = |name: &str| text.find(&format!("\n  {name}:\n"));
    let services = services("compose.yaml")?;
    let waits = |name: &str| services[name].get("depends_on").is_some();
    let builder = services.iter().find(|(_, service)| service.get("build").is_some());
    let (builder, _) = builder.context("somebody builds the image")?;
    assert!(!waits(builder), "{builder} starts first");
    for name in services.keys().filter(|name| *name != builder && !waits(name)) {
        assert!(at(builder) < at(name), "{name} stands before {builder}");
    }
    Ok(())
}

#[test]
fn whoever_is_told_to_bring_the_mesh_up_is_told_whether_to_build_the_image() -> Result<()> {
    let mut told = 0;
    for page in [
        "README.md",
        "deploy/README.md",
        "deploy/compose.yaml",
        "deploy/compose.gpu.yaml",
    ] {
        let text = fs::read_to_string(root().join(page))?;
        for line in text
            .lines()
            .filter(|line| line.contains("compose") && line.contains(".yaml up"))
        {
            told += 1;
            // Without either, `up` starts the image that is there, whatever make-stage has laid out since.
            assert!(
                line.contains("--build") || line.contains("--no-build"),
                "{page}: {line}"
            );
        }
    }
    assert!(told >= 6, "{told} lines");
    Ok(())
}
