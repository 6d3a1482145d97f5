//! The versions that a folder holds, by their cards. Weights are not looked at: that is for the one that is to serve.
use super::{
    Error, Folder, inspect,
    manifest::{self, Card, Manifest},
};
use std::{fs, path::Path};

/// One version of a specialist, as its card says.
#[derive(Debug)]
pub struct Version {
    /// The folder's name.
    pub version: u32,
    /// The card, or what is wrong with it.
    pub card: Result<Card, Error>,
}

impl Folder {
    /// The version folders under `path`, ascending. What is not named by a number is none.
    ///
    /// # Errors
    /// When `specialist.toml` is at fault, or the folder cannot be read.
    pub fn versions(path: &Path) -> Result<Vec<Version>, Error> {
        let manifest = Self::manifest(path)?;
        let unreadable = |source| Error::Unreadable {
            path: path.to_owned(),
            source,
        };
        let mut versions = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let Some(name) = name.to_str() else { continue };
            // `01` is no version: the card's number, written out, is the folder's name.
            let Some(version) = name.parse::<u32>().ok().filter(|v| v.to_string() == name) else {
                continue;
            };
            let card = card(path, &manifest, version);
            versions.push(Version { version, card });
        }
        versions.sort_by_key(|v| v.version);
        Ok(versions)
    }
}

fn card(path: &Path, manifest: &Manifest, version: u32) -> Result<Card, Error> {
    let folder = inspect::directory(path, &version.to_string())?;
    let card: Card = manifest::read(&folder, "card.toml")?;
    let manifest = Manifest {
        active_version: version,
        ..manifest.clone()
    };
    card.check(&manifest, &folder.join("card.toml"))?;
    Ok(card)
}
