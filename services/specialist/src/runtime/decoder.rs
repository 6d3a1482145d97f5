//! A decoder over slots: prefill one row, step all rows together.
use super::{
    Error, Options,
    layout::{Layout, Names, Precision},
    open, open_mover,
    shared_kv::{Placement, SharedKv},
};
use crate::{
    engine::{Decoder, Row, Shape},
    folder::{Folder, genai::Genai},
};
use ort::{
    memory::AllocationDevice,
    session::Session,
    value::{Outlet, TensorElementType, ValueType},
};
use shoal_kit::config::Provider;
use std::{
    ffi::CString,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};
use tracing::info;

/// Prompt tokens of one run: it bounds the logits of a prefill (512 rows of a 32,000-token vocabulary are 64 MB), and how
/// long a cancelled prompt keeps on reading. A constant, so that the same prompt is always cut in the same places.
const CHUNK: usize = 512;

/// See [`crate::engine::Decoder`].
pub(crate) struct OrtDecoder {
    kv: SharedKv,
    shape: Shape,
    last_only: bool,
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
        let genai = folder
            .genai
            .as_ref()
            .ok_or_else(|| refuse("a decoder needs genai_config.json".into()))?;
        let session = open(library, model, options)?;
        let (names, cache) = names(&session, genai).map_err(refuse)?;
        let placement = match device {
            None => Placement::Host,
            // The CUDA provider has attention over a KV buffer for half precision alone, and leaves that of an fp32 graph to the CPU's kernel
            // (onnxruntime 1.31, group_query_attention.cc): on the device its buffer would travel to the host and back in every step.
            Some(device) if device == AllocationDevice::CUDA && cache == Precision::Single => {
                info!(model = %model.display(), "fp32 caches stay in host memory: CUDA attends in fp16 alone; export with -p fp16 -e cuda for speed");
                Placement::Host
            }
            Some(device) => Placement::Device(device, open_mover(library, names.caches.len(), cache, options)?),
        };
        let logits = find(session.outputs(), &genai.names.logits).map_err(refuse)?;
        let dims = dims(logits).unwrap_or_default();
        if dims.last().is_some_and(|d| *d >= 0 && *d != genai.vocabulary as i64) {
            return Err(refuse(format!(
                "logits have shape {dims:?}, genai_config.json says vocab_size {}",
                genai.vocabulary
            )));
        }
        let last_only = dims.len() == 3 && dims[1] == 1;
        let context_tokens = folder.card.limits.context_tokens as usize;
        let layout = Layout {
            rows: slots + prompt_slots,
            kv_heads: genai.kv_heads,
            positions: context_tokens,
            head_size: genai.head_size,
            vocabulary: genai.vocabulary,
            chunk: CHUNK.min(context_tokens),
            cache,
            logits: floats(logits).map_err(refuse)?,
            last_only,
        };
        let shape = Shape {
            slots,
            prompt_slots,
            position_bytes: names.caches.len() * genai.kv_heads * genai.head_size * cache.bytes(),
            context_tokens,
            vocabulary: genai.vocabulary,
            chunk: layout.chunk,
        };
        let kv = SharedKv::new(session, layout, names, placement)?;
        let mut decoder = Self { kv, shape, last_only };
        decoder.prove(genai.eos[0]).map_err(|e| {
            let wanted = "export it with onnxruntime_genai.models.builder, whose attention shares past and present";
            refuse(format!(
                "it does not decode in place over one KV buffer ({e}): {wanted}"
            ))
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
        let (columns, total) = (tokens.len(), past + tokens.len());
        let inputs = self.kv.inputs(1, columns, total);
        for (i, token) in tokens.iter().enumerate() {
            inputs.ids[i] = i64::from(*token);
            inputs.positions[i] = (past + i) as i64;
        }
        inputs.mask.fill(1);
        let vocabulary = self.shape.vocabulary;
        let logits = self.kv.run(slot, 1, columns, total)?;
        Ok(if self.last_only {
            logits
        } else {
            &logits[(columns - 1) * vocabulary..]
        })
    }

    fn step(&mut self, rows: &[Row]) -> Result<&[f32], Error> {
        let total = 1 + rows.iter().map(|r| r.length).max().unwrap_or(0);
        let inputs = self.kv.inputs(rows.len(), 1, total);
        inputs.mask.fill(0);
        for (i, row) in rows.iter().enumerate() {
            inputs.ids[i] = i64::from(row.token);
            inputs.positions[i] = row.length as i64;
            inputs.mask[i * total..=i * total + row.length].fill(1);
        }
        self.kv.run(0, rows.len(), 1, total)
    }

    fn copy_row(&mut self, from: usize, to: usize, length: usize) -> Result<(), Error> {
        self.kv.copy_row(from, to, length)
    }
}

/// Finds every tensor that the loop binds and what the caches hold, and refuses types and shapes that it cannot bind.
fn names(session: &Session, genai: &Genai) -> Result<(Names, Precision), String> {
    let (inputs, outputs) = (session.inputs(), session.outputs());
    let named = |name: &str| CString::new(name).map_err(|_| format!("tensor name {name:?} has a NUL"));
    for (name, wanted) in [
        (&genai.names.input_ids, TensorElementType::Int64),
        (&genai.names.attention_mask, TensorElementType::Int64),
    ] {
        typed(find(inputs, name)?, wanted)?;
    }
    floats(find(outputs, &genai.names.logits)?)?;
    let mut precision = None;
    let mut caches = Vec::with_capacity(genai.layers * 2);
    for layer in 0..genai.layers {
        let of = |pattern: &str| pattern.replace("%d", &layer.to_string());
        let pairs = [
            (&genai.names.past_key, &genai.names.present_key),
            (&genai.names.past_value, &genai.names.present_value),
        ];
        for (past, present) in pairs {
            let (past, present) = (of(past), of(present));
            let (input, output) = (find(inputs, &past)?, find(outputs, &present)?);
            for outlet in [input, output] {
                let found = floats(outlet)?;
                if *precision.get_or_insert(found) != found {
                    return Err(format!(
                        "`{}` is of another precision than the caches before",
                        outlet.name()
                    ));
                }
                let dims = dims(outlet).unwrap_or_default();
                let fits = dims.len() == 4 && agrees(dims[1], genai.kv_heads) && agrees(dims[3], genai.head_size);
                if !fits {
                    let (heads, size) = (genai.kv_heads, genai.head_size);
                    return Err(format!(
                        "`{}` has shape {dims:?}, genai_config.json says [rows, {heads}, positions, {size}]: export again",
                        outlet.name()
                    ));
                }
            }
            caches.push((named(&past)?, named(&present)?));
        }
    }
    let positions = match find(inputs, &genai.names.position_ids) {
        Ok(outlet) => {
            typed(outlet, TensorElementType::Int64)?;
            Some(named(&genai.names.position_ids)?)
        }
        Err(_) => None,
    };
    let bound = 2 + usize::from(positions.is_some()) + caches.len();
    if inputs.len() != bound {
        let all: Vec<_> = inputs.iter().map(Outlet::name).collect();
        return Err(format!("the graph has inputs that this engine does not know: {all:?}"));
    }
    let names = Names {
        ids: named(&genai.names.input_ids)?,
        mask: named(&genai.names.attention_mask)?,
        positions,
        logits: named(&genai.names.logits)?,
        caches,
    };
    Ok((names, precision.ok_or("the graph has no layers")?))
}

fn agrees(dim: i64, size: usize) -> bool {
    dim < 0 || dim == size as i64
}

fn find<'a>(outlets: &'a [Outlet], name: &str) -> Result<&'a Outlet, String> {
    outlets.iter().find(|o| o.name() == name).ok_or_else(|| {
        let all: Vec<_> = outlets.iter().map(Outlet::name).collect();
        format!("the graph has no `{name}`, only {all:?}: export it with onnxruntime_genai.models.builder")
    })
}

fn typed(outlet: &Outlet, wanted: TensorElementType) -> Result<(), String> {
    match outlet.dtype() {
        ValueType::Tensor { ty, .. } if *ty == wanted => Ok(()),
        other => Err(format!(
            "`{}` is {other}, this engine binds {wanted}: export with `-p fp32` or `-p int4 -e cpu`, or for CUDA with `-p fp16 -e cuda`",
            outlet.name()
        )),
    }
}

/// The precision of a tensor of floats; any other type is refused.
fn floats(outlet: &Outlet) -> Result<Precision, String> {
    match outlet.dtype() {
        ValueType::Tensor { ty, .. } if *ty == TensorElementType::Float16 => Ok(Precision::Half),
        _ => typed(outlet, TensorElementType::Float32).map(|()| Precision::Single),
    }
}

fn dims(outlet: &Outlet) -> Option<Vec<i64>> {
    Some(outlet.dtype().tensor_shape()?.iter().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_kit::{config, onnxruntime};

    /// The path of a GPU, walked on the CPU: its buffer comes from the provider's allocator and its rows move by the mover graph.
    #[test]
    fn a_row_moved_in_device_memory_goes_on_as_one_moved_in_host_memory() {
        let library = onnxruntime::locate(&config::OnnxRuntime::default(), &|_| {})
            .expect("this test needs ONNX Runtime")
            .path;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tiny_decoder");
        let folder = Folder::open(&path).expect("a good folder");
        let options = Options {
            provider: Provider::Cpu,
            intra_op_threads: 1,
            spin: false,
            gpu_mem_limit_bytes: 0,
        };
        let run = |device: Option<AllocationDevice<'static>>| {
            let mut decoder = OrtDecoder::open_on(device, &library, &folder, (2, 1), &options).expect("opens");
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
