//! Layers, provenance, and what is refused before anything binds.
use super::MeshConfig;
use crate::environment;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

mod fits;
use fits::{fits, plain};

/// The file that is read when none is named.
pub const FILE: &str = "mesh.toml";

/// `SHOAL_GATEWAY__LISTEN` is `[gateway] listen`; a single underscore is part of a name.
const PREFIX: &str = "SHOAL_";

/// The standard's variables for where spans go, which win over the file; the more special one first.
pub(super) const OTLP: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The file, and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
        }
    }
}

/// A configuration that was checked, and where each of its values comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: MeshConfig,
    /// The file, if one was read.
    pub path: Option<PathBuf>,
    /// Origin of every value that is not a default, by dotted key: `gateway.listen`.
    pub origins: BTreeMap<String, Origin>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's word.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a wrong type.
    #[error("{path}:{line}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// An environment variable names no key, or its value has the wrong type.
    #[error("${name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// The values do not fit together.
    #[error("{origin}: {key}: {message}")]
    Unfit {
        /// Where the value comes from.
        origin: Origin,
        /// Dotted key.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl MeshConfig {
    /// Reads `file`, or `mesh.toml` in this folder, or nothing; then the environment.
    ///
    /// # Errors
    /// See [`Error`]: each names the line, the variable or the key.
    pub fn load(file: Option<&Path>) -> Result<Loaded, Error> {
        let default = PathBuf::from(FILE);
        let path = file
            .map(Path::to_owned)
            .or_else(|| default.is_file().then_some(default));
        let text = match &path {
            Some(path) => fs::read_to_string(path).map_err(|source| Error::Unreadable {
                path: path.clone(),
                source,
            })?,
            None => String::new(),
        };
        for name in OTLP {
            let Some(endpoint) = environment::var(name) else {
                continue;
            };
            plain(&endpoint).map_err(|said| Error::Variable {
                name: name.to_owned(),
                message: format!("`{endpoint}` {said}"),
            })?;
        }
        let (variables, others): (Vec<_>, Vec<_>) =
            environment::with_prefix(PREFIX).partition(|(name, _)| name.contains("__"));
        others.iter().try_for_each(|(name, _)| one_underscore(name))?;
        Self::layer(path, &text, &variables)
    }

    /// [`MeshConfig::load`] over given text and variables.
    ///
    /// # Errors
    /// As there.
    pub fn layer(path: Option<PathBuf>, text: &str, variables: &[(String, String)]) -> Result<Loaded, Error> {
        let shown = path.clone().unwrap_or_else(|| FILE.into());
        let malformed = |error: &toml::de::Error| Error::Malformed {
            path: shown.clone(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        };
        // Once typed, for errors that know their line; once untyped, to lay the environment over it.
        toml::from_str::<MeshConfig>(text).map_err(|error| malformed(&error))?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| malformed(&error))?;
        let mut origins = BTreeMap::new();
        note_lines(&table, text, &shown, &mut origins);
        // All are laid before any is checked: one alone may be half of a table.
        let mut config = laid(&table, variables).map_err(|error| at_fault(&table, variables, &error))?;
        for (name, _) in variables {
            origins.insert(keys(name, &table).join("."), Origin::Environment(name.clone()));
        }
        if let Some(folder) = path
            .as_deref()
            .and_then(Path::parent)
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            relative_to(&mut config, folder);
        }
        fits(&config).map_err(|(key, message)| Error::Unfit {
            origin: origin_of(&origins, &key),
            key,
            message,
        })?;
        Ok(Loaded { config, path, origins })
    }
}

impl Loaded {
    /// Where the value at the dotted `key` comes from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        origin_of(&self.origins, key)
    }
}

/// The key's own origin, or its nearest table's.
fn origin_of(origins: &BTreeMap<String, Origin>, key: &str) -> Origin {
    let mut at = key;
    loop {
        if let Some(origin) = origins.get(at) {
            return origin.clone();
        }
        match at.rsplit_once('.') {
            Some((parent, _)) => at = parent,
            None => break,
        }
    }
    // A table that a variable alone has made has no line: what is missing in it is missing because of that variable.
    let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
    let within = |(other, _): &(&String, &Origin)| other.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
    let made = origins.iter().find(within).map(|(_, origin)| origin.clone());
    made.filter(|origin| matches!(origin, Origin::Environment(_)))
        .unwrap_or(Origin::Default)
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count()
        + 1
}

/// Notes each leaf's line. Spans would need a second parser; headers and keys are enough, since one key stands on one line.
fn note_lines(table: &Table, text: &str, path: &Path, origins: &mut BTreeMap<String, Origin>) {
    let mut section = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let key = if let Some(header) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            section = header.replace('"', "").trim().to_owned();
            section.clone()
        } else if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            [section.as_str(), key.trim().trim_matches('"')]
                .iter()
                .filter(|s| !s.is_empty())
                .copied()
                .collect::<Vec<_>>()
                .join(".")
        } else {
            continue;
        };
        let known = key.split('.').try_fold(None::<&Value>, |at, part| match at {
            None => table.get(part).map(Some),
            Some(value) => value.get(part).map(Some),
        });
        if known.is_some() {
            origins.insert(key, Origin::File(path.to_owned(), index + 1));
        }
    }
}

/// `gateway`, `listen` of `SHOAL_GATEWAY__LISTEN`. A name that the file has is meant however it is written there: variables are in capitals.
fn keys(variable: &str, file: &Table) -> Vec<String> {
    let mut at = Some(file);
    let parts = variable[PREFIX.len()..].split("__");
    let key = |part: &str| {
        let known = at.and_then(|table| table.keys().find(|key| key.eq_ignore_ascii_case(part)));
        let key = known.cloned().unwrap_or_else(|| part.to_lowercase());
        at = at.and_then(|table| table.get(&key)).and_then(Value::as_table);
        key
    };
    parts.map(key).collect()
}

/// Refuses a variable that would be a key's with one more underscore: it would have no effect, and nobody would say so. Others with our prefix are
/// somebody else's (a cluster names its services in variables like `SHOAL_GATEWAY_SERVICE_HOST`).
fn one_underscore(variable: &str) -> Result<(), Error> {
    // Not TOML: it leaves out the keys that are not set.
    let known = serde_json::to_value(MeshConfig::default()).unwrap_or_default();
    let told = variable[PREFIX.len()..].to_lowercase();
    let Some((section, key)) = told.split_once('_') else {
        return Ok(());
    };
    let is_key = known.get(section).and_then(|table| table.get(key)).is_some();
    if !is_key {
        return Ok(());
    }
    let (section, key) = (section.to_uppercase(), key.to_uppercase());
    Err(Error::Variable {
        name: variable.to_owned(),
        message: format!("has no effect: a table and its key are parted by two underscores, {PREFIX}{section}__{key}"),
    })
}

/// The file's values under those of the variables.
fn laid<'a>(
    file: &Table,
    variables: impl IntoIterator<Item = &'a (String, String)>,
) -> Result<MeshConfig, toml::de::Error> {
    let mut table = file.clone();
    for (name, value) in variables {
        set(&mut table, &keys(name, file), value);
    }
    Value::Table(table).try_into()
}

/// Which variable is wrong, where all together are: the one without which the others fit, or else the first that does not fit alone.
fn at_fault(file: &Table, variables: &[(String, String)], error: &toml::de::Error) -> Error {
    let named = |name: &str, error: &toml::de::Error| Error::Variable {
        name: name.to_owned(),
        message: error.message().to_owned(),
    };
    for (name, _) in variables {
        if laid(file, variables.iter().filter(|(other, _)| other != name)).is_ok() {
            return named(name, error);
        }
    }
    let alone = |variable: &(String, String)| laid(file, [variable]).err().map(|error| named(&variable.0, &error));
    let first = variables.iter().find_map(alone);
    first.unwrap_or_else(|| named(variables.first().map_or("", |(name, _)| name.as_str()), error))
}

fn set(table: &mut Table, keys: &[String], value: &str) {
    let [key, rest @ ..] = keys else { return };
    if rest.is_empty() {
        // `7`, `true` and `["a"]` are what TOML says they are; everything else is text.
        let typed = format!("v = {value}")
            .parse::<Table>()
            .ok()
            .and_then(|mut t| t.remove("v"));
        let typed = typed
            .filter(|v| !matches!(v, Value::Datetime(_)))
            .unwrap_or_else(|| Value::String(value.to_owned()));
        table.insert(key.clone(), typed);
    } else if let Value::Table(inner) = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new())) {
        set(inner, rest, value);
    }
}

fn relative_to(config: &mut MeshConfig, folder: &Path) {
    let mut paths = vec![
        &mut config.gateway.spool,
        &mut config.feedback.store,
        &mut config.concierge.services,
        &mut config.concierge.results,
    ];
    paths.extend(config.onnxruntime.path.as_mut());
    paths.extend(config.onnxruntime.cache.as_mut());
    paths.extend(config.specialist.values_mut().filter_map(|s| s.folder.as_mut()));
    for path in paths {
        *path = folder.join(&*path);
    }
}

#[cfg(test)]
mod tests;
