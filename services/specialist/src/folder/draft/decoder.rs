//! A decoder, as either exporter writes it.
use super::{CONFIG, Draft, Export, GENAI, architecture};
use crate::folder::{Error, exported::Exported, genai, interface::Interface, manifest::Kind, optimum};

/// Tokens that a decoder's card allows where its model knows more. Each of some twenty rows may come to hold keys and values of as many: of 131,072, as
/// a Llama 3.2 of a billion weights knows, that is 8.6 GB a row in fp32.
const MOST_TOKENS: u64 = 4096;

/// What of a context an answer may take, where the exporter does not say: the rest is for the prompt.
const ANSWER: u32 = 4;

const GENERATION: &str = "generation_config.json";

impl Export<'_> {
    /// What `onnxruntime_genai.models.builder` wrote.
    pub(super) fn by_genai(&self, text: &str) -> Result<Draft, Error> {
        let path = self.folder.join(GENAI);
        let exported = genai::parse(text, &path, 1)?;
        let known = genai::positions(text, &path)?;
        let (interface, mut files) = self.graph(&exported.filename)?;
        files.push(GENAI.to_owned());
        let config = self.json(GENAI)?.unwrap_or_default();
        self.decoder(exported, &interface, known, files, architecture(&config["model"]))
    }

    /// What `optimum` wrote, of the graph that it calls by its usual name.
    pub(super) fn by_optimum(&self, interface: &Interface, mut files: Vec<String>) -> Result<Draft, Error> {
        let paths = [CONFIG, GENERATION].map(|name| self.folder.join(name));
        let Some(config) = self.text(CONFIG)? else {
            return Err(Error::Missing { path: paths[0].clone() });
        };
        let known = optimum::positions(&config, &paths[0])?;
        let generation = self.text(GENERATION)?;
        let read = (generation.as_deref(), paths[1].as_path());
        let exported = optimum::parse((&config, &paths[0]), read, interface, 1)?;
        files.push(CONFIG.to_owned());
        files.extend(generation.map(|_| GENERATION.to_owned()));
        let name = architecture(&self.json(CONFIG)?.unwrap_or_default());
        self.decoder(exported, interface, known, files, name)
    }

    fn decoder(
        &self,
        mut exported: Exported,
        interface: &Interface,
        known: u64,
        files: Vec<String>,
        architecture: String,
    ) -> Result<Draft, Error> {
        let model = self.folder.join(&exported.filename);
        interface.hold(&mut exported, 1, &model)?;
        let known = interface.switch(&exported).map_or(known, |first| first.min(known));
        let context_tokens = self.context(exported.source, Some(known), MOST_TOKENS)?;
        let generation = self.json(GENERATION)?.unwrap_or_default();
        let said = generation["max_new_tokens"]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok());
        let said = said.filter(|n| (1..context_tokens).contains(n));
        Ok(Draft {
            kind: Kind::Generate,
            architecture,
            context_tokens,
            known_tokens: Some(known),
            max_new_tokens: said.unwrap_or((context_tokens / ANSWER).max(1)),
            files,
            classify: None,
            embed: None,
        })
    }
}
