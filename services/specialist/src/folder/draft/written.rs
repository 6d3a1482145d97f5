//! The two TOML files as they are written.
use super::Draft;
use crate::folder::{
    Error, inspect,
    manifest::{Classify, Embed, Kind, Limits, Manifest, Output, Price},
};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// What a card says that no exporter knows.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The specialist's name.
    pub name: &'a str,
    /// Which version it is.
    pub version: u32,
    /// SPDX id.
    pub licence: &'a str,
    /// Tasks that it serves.
    pub tasks: &'a [String],
    /// What the answers to each of them are held to; the files are in the version's folder.
    pub output: Option<&'a Output>,
}

/// A card without what only training knows.
#[derive(Serialize)]
struct Card<'a> {
    name: &'a str,
    version: u32,
    kind: Kind,
    description: String,
    licence: &'a str,
    limits: Limits,
    price: Price,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    output: BTreeMap<&'a str, &'a Output>,
    classify: Option<&'a Classify>,
    embed: Option<&'a Embed>,
    files: BTreeMap<&'a str, String>,
}

impl Manifest {
    /// As it stands in the file at `path`.
    ///
    /// # Errors
    /// When a name is none, or there is no task, or one twice.
    pub fn text(&self, path: &Path) -> Result<String, Error> {
        self.check(path)?;
        text(self, path)
    }
}

impl Draft {
    /// `card.toml` of `version`, the folder where the files are, each listed with its sum.
    ///
    /// # Errors
    /// When one is not there as a regular file with no other name, or cannot be read.
    pub fn card(&self, about: &About<'_>, version: &Path) -> Result<String, Error> {
        let forms = about.output.into_iter().flat_map(|o| [&o.schema, &o.grammar]);
        let mut files = BTreeMap::new();
        for name in self.files.iter().chain(forms.flatten()) {
            files.insert(name.as_str(), inspect::sha256(version, name)?.1);
        }
        let held = about.output.into_iter();
        let card = Card {
            name: about.name,
            version: about.version,
            kind: self.kind,
            description: format!("{}, as it was exported", self.architecture),
            licence: about.licence,
            limits: Limits {
                context_tokens: self.context_tokens,
                max_new_tokens: self.max_new_tokens,
            },
            price: Price::default(),
            output: held
                .flat_map(|o| about.tasks.iter().map(move |task| (task.as_str(), o)))
                .collect(),
            classify: self.classify.as_ref(),
            embed: self.embed.as_ref(),
            files,
        };
        text(&card, &version.join("card.toml"))
    }
}

fn text(value: &impl Serialize, path: &Path) -> Result<String, Error> {
    toml::to_string(value).map_err(|e| Error::Syntax {
        path: path.to_owned(),
        message: e.to_string(),
    })
}
