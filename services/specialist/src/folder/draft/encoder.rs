//! Of an encoder: its labels, or how its token vectors become one.
use super::{CONFIG, Draft, Export, architecture};
use crate::{
    encoder::{PROVEN_TOKENS, outputs},
    folder::{
        Error,
        interface::Interface,
        manifest::{Classify, Embed, Kind, Pooling},
        optimum,
    },
};
use serde_json::Value;

/// Where sentence-transformers say how token vectors become one.
const POOLING: &str = "1_Pooling/config.json";

/// Where they say what a text goes through.
const MODULES: &str = "modules.json";

/// How they call each way.
const WAYS: [(&str, Pooling); 3] = [
    ("pooling_mode_mean_tokens", Pooling::Mean),
    ("pooling_mode_cls_token", Pooling::Cls),
    ("pooling_mode_lasttoken", Pooling::Last),
];

impl Export<'_> {
    /// A classifier or an embedder.
    pub(super) fn encoder(&self, kind: Kind, interface: &Interface, mut files: Vec<String>) -> Result<Draft, Error> {
        let config = self.text(CONFIG)?;
        let path = self.folder.join(CONFIG);
        let known = match config.as_deref() {
            Some(text) => optimum::encoder_positions(text, &path)?,
            None if self.said.context_tokens.is_some() => None,
            None => {
                return self.fault(
                    CONFIG,
                    "it is not there, and nothing else says how long a text the model takes: export the model with it, or say it with --context-tokens"
                        .into(),
                );
            }
        };
        files.extend(config.map(|_| CONFIG.to_owned()));
        let config = self.json(CONFIG)?.unwrap_or_default();
        let (classify, embed) = match kind {
            Kind::Classify => (Some(self.labels(&config)?), None),
            _ => (None, Some(self.vectors(&config, interface)?)),
        };
        Ok(Draft {
            kind,
            architecture: architecture(&config),
            // As many as a load proves: attention takes the square of a text's length.
            context_tokens: self.context(CONFIG, known, PROVEN_TOKENS as u64)?,
            known_tokens: known,
            max_new_tokens: 0,
            files,
            classify,
            embed,
        })
    }

    /// `id2label` of `config.json`.
    fn labels(&self, config: &Value) -> Result<Classify, Error> {
        if config["problem_type"] == "multi_label_classification" {
            return self.fault(
                CONFIG,
                "it is of a classifier that gives several labels at once: scores here are a softmax, of which one label has the most".into(),
            );
        }
        let named = config["id2label"].as_object();
        let count = named.map_or(0, serde_json::Map::len);
        let label = |id: usize| Some(named?.get(&id.to_string())?.as_str()?.to_owned());
        match (0..count).map(label).collect::<Option<Vec<_>>>() {
            Some(labels) if !labels.is_empty() => Ok(Classify {
                labels,
                thresholds: Default::default(),
            }),
            _ => self.fault(
                CONFIG,
                "a classifier's labels are read from its `id2label`, which must name them from \"0\" on: export the model with it".into(),
            ),
        }
    }

    fn vectors(&self, config: &Value, interface: &Interface) -> Result<Embed, Error> {
        let given = |name: &&str| interface.outputs.iter().find(|port| port.name == **name);
        let port = outputs(Kind::Embed).iter().find_map(given);
        // Of the whole text, and what the modules would do is in the graph.
        let whole = port.is_some_and(|port| port.name == "sentence_embedding");
        let size = port.and_then(|port| *port.dims.last()?);
        let size = size.or_else(|| config["hidden_size"].as_u64());
        let Some(dimensions) = size.and_then(|size| u32::try_from(size).ok()) else {
            return self.fault(
                CONFIG,
                "neither the graph's output nor `hidden_size` says how long a vector is: export the model again".into(),
            );
        };
        let (listed, normalise) = self.modules()?;
        if let Some(other) = listed.filter(|_| !whole) {
            return self.fault(
                MODULES,
                format!("a text goes through `{other}` too, which the graph has not: export the model with `sentence_embedding` as its output"),
            );
        }
        let pooling = match (self.said.pooling, whole) {
            (Some(pooling), _) => pooling,
            (None, true) => Pooling::Mean,
            (None, false) => self.pooling()?,
        };
        Ok(Embed {
            pooling,
            normalise,
            dimensions,
        })
    }

    /// The first module that an engine of token vectors has not, and whether vectors are brought to unit length. Without the file they are: whoever compares
    /// vectors does so by their angle.
    fn modules(&self) -> Result<(Option<String>, bool), Error> {
        let Some(modules) = self.json(MODULES)? else {
            return Ok((None, true));
        };
        let kinds = modules.as_array().into_iter().flatten();
        let kinds: Vec<&str> = kinds
            .filter_map(|module| module["type"].as_str()?.rsplit('.').next())
            .collect();
        let other = kinds
            .iter()
            .find(|kind| !["Transformer", "Pooling", "Normalize"].contains(*kind));
        Ok((other.map(|kind| (*kind).to_owned()), kinds.contains(&"Normalize")))
    }

    fn pooling(&self) -> Result<Pooling, Error> {
        let Some(said) = self.json(POOLING)? else {
            return self.fault(
                POOLING,
                "it is not there, and nothing else says how token vectors become one: say it with --pooling mean, cls or last, as the model's own \
                 page has it"
                    .into(),
            );
        };
        let on: Vec<&str> = said
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| key.starts_with("pooling_mode") && **value == Value::Bool(true))
            .map(|(key, _)| key.as_str())
            .collect();
        match WAYS.iter().find(|(key, _)| on == [*key]) {
            Some((_, pooling)) => Ok(*pooling),
            None => self.fault(
                POOLING,
                format!("it pools by {on:?}: one of mean, cls and last token is supported"),
            ),
        }
    }
}
