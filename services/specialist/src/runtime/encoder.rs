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

/// Texts that run together: `ids` and `mask` are `[rows, columns]`, right-padded; where `mask` is 0, so is `ids`, and the model's own token is put there.
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

    /// Tokens of the last text.
    pub(crate) fn last_tokens(&self) -> usize {
        let last = self.mask.chunks(self.columns.max(1)).next_back();
        last.map_or(0, |mask| mask.iter().filter(|m| **m == 1).count())
    }
}

/// An input beside the text: which, how many a row, and `[rows, that many]`.
pub(crate) type Beside = (&'static str, usize, Vec<i64>);

/// What a run does with the memory that it took, by how many tokens it has.
struct Memory {
    keeping: RunOptions<NoSelectedOutputs>,
    giving_back: RunOptions<NoSelectedOutputs>,
    /// Tokens, padding included, of a run that keeps it at most.
    kept_tokens: usize,
}

impl Memory {
    fn of(&self, tokens: usize) -> &RunOptions<NoSelectedOutputs> {
        if tokens <= self.kept_tokens {
            &self.keeping
        } else {
            &self.giving_back
        }
    }
}

/// A session over `input_ids`, `attention_mask`, if the graph has them `token_type_ids` and `position_ids`, and what else its kind reads.
pub(crate) struct OrtEncoder {
    session: Session,
    token_types: bool,
    positions: bool,
    pad_token: i64,
    outputs: Vec<String>,
    memory: Memory,
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
                steps: false,
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
            let of_all = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];
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
        let takes = |name: &str| session.inputs().iter().any(|i| i.name() == name);
        let (token_types, positions) = (takes("token_type_ids"), takes("position_ids"));
        let mut giving_back = RunOptions::new()?;
        // What the library makes of a device's arena has not been tried: there it keeps what it took.
        if options.provider == Provider::Cpu {
            giving_back.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        }
        Ok(Self {
            session,
            token_types,
            positions,
            pad_token: i64::from(options.pad_token),
            outputs,
            memory: Memory {
                keeping: RunOptions::new()?,
                giving_back,
                kept_tokens: 0,
            },
        })
    }

    /// From here on a run of so many tokens keeps the memory that it took for the next one, which need not ask for it anew. A longer one gives it
    /// back, and until then each does: attention takes memory with the square of a text's length, a proof reads the longest that there may be, and
    /// ONNX Runtime's arena never shrinks by itself. Of 1,024 tokens a filler of 12 MB held 215 MB at rest, and holds 68 so.
    pub(crate) fn proven(&mut self, kept_tokens: usize) {
        self.memory.kept_tokens = kept_tokens;
    }

    /// Whether the graph tells the texts of a pair apart by types, which are all 0 here.
    pub(crate) fn reads_types(&self) -> bool {
        self.token_types
    }

    /// Runs a batch. Gives the outputs in the order in which they were named.
    pub(crate) fn run(&mut self, batch: &Padded, beside: Vec<Beside>) -> Result<Vec<Output>, Error> {
        let (rows, shape) = (batch.rows, [batch.rows, batch.columns]);
        let filled = |(id, mask): (&i64, &i64)| if *mask == 1 { *id } else { self.pad_token };
        let ids: Vec<i64> = batch.ids.iter().zip(&batch.mask).map(filled).collect();
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
            ("input_ids".into(), Tensor::from_array((shape, ids))?.into()),
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
        if self.positions {
            let columns = i64::try_from(batch.columns).unwrap_or(i64::MAX);
            let positions: Vec<i64> = (0..rows).flat_map(|_| 0..columns).collect();
            inputs.push(("position_ids".into(), Tensor::from_array((shape, positions))?.into()));
        }
        for (name, columns, values) in beside {
            inputs.push((name.into(), Tensor::from_array(([rows, columns], values))?.into()));
        }
        let outputs = self
            .session
            .run_with_options(inputs, self.memory.of(rows * batch.columns))?;
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
    fn a_run_keeps_its_memory_once_the_model_is_proven_and_only_up_to_so_many_tokens() {
        let library =
            shoal_kit::onnxruntime::locate(&Default::default(), &|_| {}).expect("this test needs ONNX Runtime");
        let model =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tiny_embedder/1/model.onnx");
        let options = Options {
            provider: Provider::Cpu,
            intra_op_threads: 1,
            spin: false,
            steps: false,
            gpu_mem_limit_bytes: 0,
            pad_token: 0,
        };
        let opened = OrtEncoder::open(&library.path, &model, &[], &[&["last_hidden_state"]], &options);
        let mut encoder = opened.expect("opens");
        let keeps =
            |encoder: &OrtEncoder, tokens| std::ptr::eq(encoder.memory.of(tokens), &raw const encoder.memory.keeping);
        assert!(!keeps(&encoder, 1), "the proof's runs give it back");
        encoder.proven(512);
        assert!(keeps(&encoder, 512) && !keeps(&encoder, 513));
        // Either way it runs.
        for tokens in [7, 100] {
            encoder.proven(50);
            let batch = Padded::of(&[&vec![5; tokens]]);
            encoder.run(&batch, Vec::new()).expect("runs");
        }
    }

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
