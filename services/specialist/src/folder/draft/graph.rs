//! Which kind a graph is of, where its exporter wrote down nothing of its own: what it takes and gives says so.
use super::{Draft, Export};
use crate::{
    encoder::outputs,
    folder::{
        Error,
        exported::Names,
        interface::{Interface, told},
        manifest::Kind,
        optimum,
    },
};
use std::fs;

impl Export<'_> {
    /// What transformers and `optimum` wrote, if anything: the graph says which kind it is.
    pub(super) fn by_graph(&self) -> Result<Draft, Error> {
        optimum::refused_by_name(|file| self.has(file), self.folder)?;
        if !self.has(optimum::MODEL) {
            return self.fault(optimum::MODEL, self.elsewhere());
        }
        let (interface, files) = self.graph(optimum::MODEL)?;
        match self.kind(&interface)? {
            Kind::Generate => self.by_optimum(&interface, files),
            kind => self.encoder(kind, &interface, files),
        }
    }

    /// Why there is no graph.
    fn elsewhere(&self) -> String {
        let here = fs::read_dir(self.folder).into_iter().flatten().flatten();
        let mut graphs: Vec<String> = here
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.ends_with(".onnx"))
            .collect();
        graphs.sort();
        match &graphs[..] {
            [] => "it is not there, nor is a genai_config.json: name the folder that onnxruntime_genai.models.builder or optimum wrote".into(),
            [..] => format!(
                "it is not there: a graph is read by this name, and the folder has {}; copy the one that is meant, with its tokenizer and \
                 configuration, to a folder of its own",
                graphs.join(", ")
            ),
        }
    }

    /// Which kind a graph without `genai_config.json` is of.
    fn kind(&self, interface: &Interface) -> Result<Kind, Error> {
        let gives = |name: &str| interface.outputs.iter().find(|port| port.name == name);
        let refused = |message: String| {
            Err(Error::Onnx {
                path: self.folder.join(optimum::MODEL),
                message,
            })
        };
        if interface.layers(&Names::default().past_key) > 0 {
            return Ok(Kind::Generate);
        }
        let reads = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];
        let inputs = interface.inputs.iter().map(|port| port.name.as_str());
        let strange: Vec<&str> = inputs.filter(|name| !reads.contains(name)).collect();
        if !strange.is_empty() {
            return refused(format!(
                "the graph has inputs that no model here is given: {}",
                told(&strange)
            ));
        }
        if outputs(Kind::Embed).iter().any(|name| gives(name).is_some()) {
            return Ok(Kind::Embed);
        }
        match gives("logits").map(|port| port.dims.len()) {
            // A shape that is not said is held to the labels when the model is loaded.
            Some(0 | 2) => Ok(Kind::Classify),
            Some(_) => refused(
                "it gives `logits` of each token and takes no past: a decoder is exported with `optimum-cli export onnx --task \
                 text-generation-with-past`; of a tagger the card says what its labels are and how they are put into words, so it is written by hand \
                 (copy from tests/fixtures/models/tiny_tag)"
                    .into(),
            ),
            None => {
                let all: Vec<&str> = interface.outputs.iter().map(|port| port.name.as_str()).collect();
                refused(format!(
                    "it gives {all:?}, and that is neither a classifier's `logits` nor an embedder's {:?}: of a tagger and a filler the card is written \
                     by hand (copy from tests/fixtures/models)",
                    outputs(Kind::Embed)
                ))
            }
        }
    }
}
