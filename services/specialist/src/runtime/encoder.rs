//! An encoder: one padded batch in, one tensor out, or several.
use super::{Error, Options, open};
use ort::{
    session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue},
    value::Tensor,
};
use shoal_kit::config::Provider;
use std::{borrow::Cow, path::Path};

/// Bytes of a graph that one thread runs, whatever it may have: a second one, awake, took as much processor time as all that the first did for a
/// classifier of 100 KB, and did nothing for it.
const SMALL: u64 = 1 << 20;

/// Whether a graph is small, with its weights, which may lie in any other file of its folder: the texts beside it are not counted.
fn is_small(model: &Path) -> bool {
    let Some(files) = model.parent().and_then(|folder| std::fs::read_dir(folder).ok()) else {
        return false;
    };
    let of_the_graph = files.flatten().filter(|file| {
        let path = file.path();
        path.extension()
            .is_none_or(|e| e != "json" && e != "toml" && e != "jinja")
    });
    let bytes = of_the_graph.filter_map(|file| Some(file.metadata().ok()?.len()));
    bytes.sum::<u64>() < SMALL
}

/// One of a batch's outputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    /// `[rows, labels]`, `[rows, dimensions]`, `[rows, columns, dimensions]` or `[rows, columns, tags]`.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

/// Texts that run together: `ids` and `mask` are `[rows, columns]`, right-padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Padded {
    pub rows: usize,
    pub columns: usize,
    pub ids: Vec<i64>,
    pub mask: Vec<i64>,
}

impl Padded {
    pub(crate) fn of(texts: &[&[u32]]) -> Self {
        let columns = texts.iter().map(|ids| ids.len()).max().unwrap_or(1);
        let padded = |of: fn(u32) -> i64| {
            let row = move |ids: &&[u32]| {
                let filled: Vec<i64> = ids.iter().map(|id| of(*id)).collect();
                filled.into_iter().chain(std::iter::repeat(0)).take(columns)
            };
            texts.iter().flat_map(row).collect()
        };
        Self {
            rows: texts.len(),
            columns,
            ids: padded(i64::from),
            mask: padded(|_| 1),
        }
    }
}

/// An input beside the text: which, how many a row, and `[rows, that many]`.
pub(crate) type Beside = (&'static str, usize, Vec<i64>);

/// A session over `input_ids`, `attention_mask`, if the graph has it `token_type_ids`, and what else its kind reads.
pub(crate) struct OrtEncoder {
    session: Session,
    token_types: bool,
    outputs: Vec<String>,
    options: RunOptions<NoSelectedOutputs>,
}

impl OrtEncoder {
    /// Opens a checked model. `beside` are inputs that its kind has and others have not. `outputs` are the tensors to take; for each its
    /// names, of which the first that the graph has counts.
    pub(crate) fn open(
        library: &Path,
        model: &Path,
        beside: &[&str],
        outputs: &[&[&str]],
        options: &Options,
    ) -> Result<Self, Error> {
        let session = if is_small(model) {
            let alone = Options {
                intra_op_threads: 1,
                spin: false,
                ..options.clone()
            };
            open(library, model, &alone)?
        } else {
            open(library, model, options)?
        };
        let refuse = |message: String| Error::Model {
            model: model.to_owned(),
            message,
        };
        for input in session.inputs() {
            let of_all = ["input_ids", "attention_mask", "token_type_ids"];
            if !of_all.contains(&input.name()) && !beside.contains(&input.name()) {
                return Err(refuse(format!(
                    "the graph has input `{}`, which this engine does not know",
                    input.name()
                )));
            }
        }
        if let Some(missing) = beside
            .iter()
            .find(|name| session.inputs().iter().all(|i| i.name() != **name))
        {
            return Err(refuse(format!(
                "the graph has no input `{missing}`: export it for its card's kind"
            )));
        }
        let has = |name: &str| session.outputs().iter().any(|o| o.name() == name);
        let named = |names: &&[&str]| {
            let found = names.iter().find(|name| has(name)).map(|name| (*name).to_owned());
            found.ok_or_else(|| {
                refuse(format!(
                    "the graph has no output of the names {names:?}: export it for its card's kind"
                ))
            })
        };
        let outputs = outputs.iter().map(named).collect::<Result<_, _>>()?;
        let token_types = session.inputs().iter().any(|i| i.name() == "token_type_ids");
        let on_cpu = options.provider == Provider::Cpu;
        let mut options = RunOptions::new()?;
        // What the library makes of a device's arena has not been tried: there it keeps what it took.
        if on_cpu {
            options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        }
        Ok(Self {
            session,
            token_types,
            outputs,
            options,
        })
    }

    /// From here on a run keeps the memory that it took for the next one, which need not ask for it anew. Until then each gives it back: a proof
    /// reads the longest text that there may be, attention takes memory with the square of that, and ONNX Runtime's arena never shrinks by itself. Of
    /// 1,024 tokens a filler of 12 MB held 215 MB at rest, and holds 68 so.
    pub(crate) fn proven(&mut self) -> Result<(), Error> {
        self.options = RunOptions::new()?;
        Ok(())
    }

    /// Whether the graph tells the texts of a pair apart by types, which are all 0 here.
    pub(crate) fn reads_types(&self) -> bool {
        self.token_types
    }

    /// Runs a batch. Gives the outputs in the order in which they were named.
    pub(crate) fn run(&mut self, batch: &Padded, beside: Vec<Beside>) -> Result<Vec<Output>, Error> {
        let (rows, shape) = (batch.rows, [batch.rows, batch.columns]);
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
            (
                "input_ids".into(),
                Tensor::from_array((shape, batch.ids.clone()))?.into(),
            ),
            (
                "attention_mask".into(),
                Tensor::from_array((shape, batch.mask.clone()))?.into(),
            ),
        ];
        if self.token_types {
            inputs.push((
                "token_type_ids".into(),
                Tensor::from_array((shape, vec![0i64; batch.ids.len()]))?.into(),
            ));
        }
        for (name, columns, values) in beside {
            inputs.push((name.into(), Tensor::from_array(([rows, columns], values))?.into()));
        }
        let outputs = self.session.run_with_options(inputs, &self.options)?;
        let extract = |name: &String| {
            let value = outputs
                .get(name)
                .ok_or_else(|| Error::Run(format!("no output `{name}` came back")))?;
            let (shape, values) = value.try_extract_tensor::<f32>()?;
            Ok(Output {
                shape: shape.iter().map(|d| usize::try_from(*d).unwrap_or(0)).collect(),
                values: values.to_vec(),
            })
        };
        self.outputs.iter().map(extract).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_in_a_file_of_their_own_make_a_graph_large() {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join("model.onnx");
        let write = |name: &str, bytes: u64| {
            std::fs::write(folder.path().join(name), vec![0; bytes as usize]).expect("written")
        };
        write("model.onnx", 1000);
        write("tokenizer.json", 2 * SMALL);
        assert!(is_small(&model));
        write("weights.bin", SMALL);
        assert!(!is_small(&model));
        assert!(!is_small(Path::new("no/such/folder/model.onnx")));
    }
}
