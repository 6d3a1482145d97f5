//! A decoder over slots: prefill one row, step all rows together.
use super::{
    Error, Options,
    apart::Apart,
    in_place::InPlace,
    kv::Kv,
    layout::{Layout, Names},
    open, open_mover,
    shared_kv::Placement,
};
use crate::{
    engine::{Decoder, Row, Shape},
    folder::{
        Folder,
        exported::{Exported, Number, Past},
    },
};
use half::f16;
use ort::{memory::AllocationDevice, session::Session};
use shoal_kit::config::Provider;
use std::{
    ffi::CString,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};
use tracing::info;

/// Prompt tokens of one run at most: it bounds the logits of a prefill (512 rows of a 32,000-token vocabulary are 64 MB), and how long a cancelled
/// prompt keeps on reading. Where a prompt is cut depends on what decodes beside it and how long that takes, and with it the last bit of its logits.
const CHUNK: usize = 512;

/// See [`crate::engine::Decoder`].
pub(crate) struct OrtDecoder {
    kv: Box<dyn Kv>,
    shape: Shape,
}

impl OrtDecoder {
    /// Opens the folder's model with `slots` rows to decode in, and `prompt_slots` to read prompts in.
    pub(crate) fn open(
        library: &Path,
        folder: &Folder,
        (slots, prompt_slots): (usize, usize),
        options: &Options,
    ) -> Result<Self, Error> {
        let device = match options.provider {
            Provider::Cpu => None,
            Provider::Cuda => Some(AllocationDevice::CUDA),
        };
        Self::open_on(device, library, folder, (slots, prompt_slots), options)
    }

    /// Nanoseconds inside ONNX Runtime's own runs, as they add up.
    pub(crate) fn inside(&self) -> Arc<AtomicU64> {
        self.kv.inside()
    }

    /// With the KV buffer in a device's memory, or in the host's.
    fn open_on(
        device: Option<AllocationDevice<'static>>,
        library: &Path,
        folder: &Folder,
        (slots, prompt_slots): (usize, usize),
        options: &Options,
    ) -> Result<Self, Error> {
        let model = &folder.model;
        let refuse = |message: String| Error::Model {
            model: model.clone(),
            message,
        };
        let exported = folder
            .exported
            .as_ref()
            .ok_or_else(|| refuse("a decoder needs genai_config.json, or config.json of an optimum export".into()))?;
        if device.is_some() && exported.past != Past::InPlace {
            return Err(refuse(
                "its past and present are apart, which provider = \"cuda\" does not serve: export it with onnxruntime_genai.models.builder \
                 `-e cuda`, or set provider = \"cpu\""
                    .into(),
            ));
        }
        let session = open(library, model, options).map_err(|e| half_refused(e, exported.number))?;
        let context_tokens = folder.card.limits.context_tokens as usize;
        let layout = Layout {
            rows: slots + prompt_slots,
            kv_heads: exported.kv_heads,
            positions: context_tokens,
            head_size: exported.head_size,
            vocabulary: exported.vocabulary,
            chunk: CHUNK.min(context_tokens),
            last_only: last_only(&session, &exported.names.logits),
        };
        let kv: Box<dyn Kv> = match (exported.past, exported.number) {
            (Past::InPlace, number) => {
                let names = names(&session, exported).map_err(refuse)?;
                let placement = match device {
                    None => Placement::Host { as_they_lie: true },
                    // The CUDA provider has attention over a KV buffer for half precision alone, and leaves that of an fp32 graph to the CPU's
                    // kernel (onnxruntime 1.31, group_query_attention.cc): on the device its buffer would travel to the host and back in every step.
                    Some(device) if device == AllocationDevice::CUDA && number == Number::Single => {
                        info!(model = %model.display(), "fp32 caches stay in host memory: CUDA attends in fp16 alone; export with -p fp16 -e cuda for speed");
                        Placement::Host { as_they_lie: false }
                    }
                    Some(device) => {
                        let mover = open_mover(library, names.caches.len(), number, options)?;
                        Placement::Device(device, mover)
                    }
                };
                match number {
                    Number::Single => Box::new(InPlace::<f32>::new(session, layout, names, placement)?),
                    Number::Half => Box::new(InPlace::<f16>::new(session, layout, names, placement)?),
                }
            }
            (Past::Apart { padded }, Number::Single) => Box::new(Apart::<f32>::new(session, layout, exported, padded)?),
            (Past::Apart { padded }, Number::Half) => Box::new(Apart::<f16>::new(session, layout, exported, padded)?),
        };
        let shape = Shape {
            slots,
            prompt_slots,
            position_bytes: 2 * exported.layers * exported.kv_heads * exported.head_size * bytes(exported.number),
            context_tokens,
            vocabulary: exported.vocabulary,
            chunk: layout.chunk,
            together: kv.together(),
        };
        let mut decoder = Self { kv, shape };
        decoder.prove(exported.eos[0]).map_err(|e| {
            let told = match exported.past {
                Past::InPlace => format!(
                    "it does not decode in place over one KV buffer ({e}): export it with onnxruntime_genai.models.builder, whose attention \
                     shares past and present"
                ),
                Past::Apart { .. } => format!(
                    "it does not go on from its own keys and values ({e}): export it with optimum for the task text-generation-with-past"
                ),
            };
            half_refused(refuse(told), exported.number)
        })?;
        Ok(decoder)
    }

    /// One prefill, and one step that must go on from it as a second prefill does: a graph that does not append in place
    /// fails here, at load, and not in its first caller's answer.
    fn prove(&mut self, token: u32) -> Result<(), String> {
        let told = |e: Error| e.to_string();
        let whole = self.prefill(0, 0, &[token, token]).map_err(told)?.to_vec();
        self.prefill(0, 0, &[token]).map_err(told)?;
        let stepped = self.step(&[Row { token, length: 1 }]).map_err(told)?;
        let furthest = whole
            .iter()
            .zip(stepped)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        // Kernels for one and for two tokens add in another order; a wrong cache is off by as much as logits differ.
        let scale = whole.iter().map(|l| l.abs()).fold(1.0, f32::max);
        if whole.iter().any(|l| l.is_nan()) || furthest.is_nan() || furthest > 0.05 * scale {
            return Err(format!(
                "logits of a step are off by {furthest} from those of a prefill"
            ));
        }
        Ok(())
    }
}

impl Decoder for OrtDecoder {
    type Error = Error;

    fn shape(&self) -> Shape {
        self.shape
    }

    fn prefill(&mut self, slot: usize, past: usize, tokens: &[u32]) -> Result<&[f32], Error> {
        self.kv.prefill(slot, past, tokens)
    }

    fn prefill_together(&mut self, first: usize, prompts: &[&[u32]]) -> Result<&[f32], Error> {
        self.kv.prefill_together(first, prompts)
    }

    fn step(&mut self, rows: &[Row]) -> Result<&[f32], Error> {
        self.kv.step(rows)
    }

    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Error> {
        self.kv.copy_row(from, to, length)
    }
}

/// Bytes of a key's or value's number.
fn bytes(number: Number) -> usize {
    match number {
        Number::Single => size_of::<f32>(),
        Number::Half => size_of::<f16>(),
    }
}

/// The provider's own words on a graph in half precision, with what to do about it.
fn half_refused(error: Error, number: Number) -> Error {
    match (error, number) {
        (Error::Model { model, message }, Number::Half) => Error::Model {
            model,
            message: format!(
                "{message}: this export computes in fp16, and the provider does not have all of it; export with `-p fp32` or `-p int4`, for `-e cpu`"
            ),
        },
        (error, _) => error,
    }
}

/// The names as the C API takes them. What the folder's check found in the file is what the session has.
fn names(session: &Session, exported: &Exported) -> Result<Names, String> {
    let named = |name: &str| CString::new(name).map_err(|_| format!("tensor name {name:?} has a NUL"));
    let names = &exported.names;
    let has = session.inputs().iter().any(|i| i.name() == names.position_ids);
    let pairs = names.caches(exported.layers);
    Ok(Names {
        ids: named(&names.input_ids)?,
        mask: named(&names.attention_mask)?,
        positions: has.then(|| named(&names.position_ids)).transpose()?,
        logits: named(&names.logits)?,
        caches: pairs
            .map(|(past, present)| Ok((named(&past)?, named(&present)?)))
            .collect::<Result<_, String>>()?,
    })
}

/// Whether the graph gives logits of the last position only: `[rows, 1, vocabulary]`.
fn last_only(session: &Session, logits: &str) -> bool {
    let outlet = session.outputs().iter().find(|o| o.name() == logits);
    let shape = outlet.and_then(|o| o.dtype().tensor_shape());
    shape.is_some_and(|dims| dims.len() == 3 && dims[1] == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Together;
    use shoal_kit::{config, onnxruntime};

    fn open(name: &str, device: Option<AllocationDevice<'static>>, slots: usize) -> OrtDecoder {
        let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {})
            .expect("this test needs ONNX Runtime")
            .path;
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/models")
            .join(name);
        let folder = Folder::open(&path).expect("a good folder");
        let options = Options {
            provider: Provider::Cpu,
            intra_op_threads: 1,
            spin: false,
            steps: false,
            gpu_mem_limit_bytes: 0,
            pad_token: 0,
        };
        OrtDecoder::open_on(device, &library, &folder, (slots, 1), &options).expect("opens")
    }

    #[test]
    fn prompts_that_are_read_in_one_run_go_on_as_each_by_itself() {
        let alike = |name: &str, a: &[f32], b: &[f32]| {
            let furthest = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let scale = b.iter().map(|l| l.abs()).fold(1.0, f32::max);
            assert!(
                a.len() == b.len() && furthest < 1e-4 * scale,
                "{name}: off by {furthest}"
            );
        };
        let mut padded = 0;
        for name in [
            "tiny_decoder",
            "foreign/llama_fp32",
            "foreign/qwen2_fp32",
            "foreign/qwen3_fp32",
            "foreign/phi3_fp32",
        ] {
            let mut prompts: [&[u32]; 3] = [&[1, 7, 9, 2], &[1, 9], &[3, 8, 11, 2, 5, 4, 6]];
            let mut decoder = open(name, None, 4);
            match decoder.shape().together {
                Together::Never => panic!("{name}: one buffer in host memory"),
                Together::Equal => prompts.iter_mut().for_each(|p| *p = &p[..2]),
                Together::Padded => padded += 1,
            }
            let vocabulary = decoder.shape().vocabulary;
            // Behind a row that decodes, as in an engine.
            decoder.prefill(0, 0, &[5, 6]).expect("prefills");
            let together = decoder.prefill_together(1, &prompts).expect("prefills").to_vec();
            let row = |(token, length): (u32, usize)| Row { token, length };
            let lengths = std::iter::once(2).chain(prompts.iter().map(|p| p.len()));
            let rows: Vec<Row> = [7, 9, 4, 3].into_iter().zip(lengths).map(row).collect();
            let stepped = decoder.step(&rows).expect("steps").to_vec();
            for (i, prompt) in prompts.iter().enumerate() {
                let alone = decoder.prefill(0, 0, prompt).expect("prefills").to_vec();
                alike(name, &together[i * vocabulary..(i + 1) * vocabulary], &alone);
                let alone = decoder
                    .step(&[Row {
                        token: rows[i + 1].token,
                        length: prompt.len(),
                    }])
                    .expect("steps");
                alike(name, &stepped[(i + 1) * vocabulary..(i + 2) * vocabulary], alone);
            }
        }
        assert!(padded > 0, "some graph gives the logits of every position");
    }

    /// The path of a GPU, walked on the CPU: its buffer comes from the provider's allocator and its rows move by the mover graph.
    #[test]
    fn a_row_moved_in_device_memory_goes_on_as_one_moved_in_host_memory() {
        let run = |device: Option<AllocationDevice<'static>>| {
            let mut decoder = open("tiny_decoder", device, 2);
            let prompts: [&[u32]; 3] = [&[1, 72, 70, 2, 80], &[1, 90, 2], &[1, 80, 81, 82, 2, 83, 84]];
            for (slot, prompt) in prompts.iter().enumerate() {
                decoder.prefill(slot, 0, prompt).expect("prefills");
            }
            decoder.copy_row(2, 0, prompts[2].len()).expect("moves");
            let rows = [Row { token: 70, length: 7 }, Row { token: 71, length: 3 }];
            decoder.step(&rows).expect("steps").to_vec()
        };
        let (host, device) = (run(None), run(Some(AllocationDevice::CPU)));
        assert_eq!(host.len(), 2 * 334);
        assert!(host.iter().zip(&device).all(|(h, d)| (h - d).abs() < 1e-6));
    }
}
