//! A graph's inputs and outputs, as its file declares them, held against what the folder says and what the engine binds.
use super::{
    Error,
    exported::{Exported, Number, Past},
};
use std::path::Path;

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Port {
    pub(super) name: String,
    /// TensorProto.DataType; 0: not a tensor, or not said.
    pub(super) element: u64,
    /// `None` where a dimension is open.
    pub(super) dims: Vec<Option<u64>>,
}

/// What a graph takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Interface {
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// A node of it is a GroupQueryAttention, which puts a row's new key behind that row's own past, wherever other rows end.
    pub(super) grouped_query: bool,
    /// What it multiplies is scaled by the largest number of all that runs together, neighbours and padding included.
    pub(super) dynamic_scales: bool,
    /// Positions after which it takes another table of rotary positions, for every row that runs.
    pub(super) rotary_switch: Option<u64>,
    /// Rows of its table of rotary positions.
    pub(super) rotary_rows: Option<u64>,
}

/// TensorProto.DataType of onnx.proto3.
const FLOAT: u64 = 1;
pub(super) const INT64: u64 = 7;
const FLOAT16: u64 = 10;

/// Why an input or output that the engine does not bind is there: words in its name, and what they mean.
const STRANGERS: [(&[&str], &str); 8] = [
    (
        &["use_cache_branch"],
        "of a merged decoder, which chooses between two branches: export one without `--legacy`, as a single model.onnx",
    ),
    (
        &["encoder_", "decoder_input_ids"],
        "of an encoder-decoder, which is not supported",
    ),
    (
        &["pixel_values", "image", "vision", "audio", "speech", "input_features"],
        "of a model of images or sound, which is not supported",
    ),
    (
        &["inputs_embeds"],
        "of a decoder whose embeddings are a graph of their own, which is not supported",
    ),
    (
        &["lora"],
        "of a LoRA adapter that is chosen as it runs, which is not supported: merge it into the weights, then export",
    ),
    (
        &["beam", "cache_indirection"],
        "of a decoder that wants beam search, which is not supported",
    ),
    (
        &["block_table", "slot_mapping", "cumulative_sequence"],
        "of paged attention, which is not supported: export without it",
    ),
    (
        &[".conv", ".recurrent", "ssm", "conv_state"],
        "a state that is not keys and values, which is not supported",
    ),
];

/// Outputs beside logits and present that do no harm: they are not computed unless asked for.
const HARMLESS: [&str; 2] = ["hidden_states", "attentions"];

/// Names of inputs or outputs, each with why it is there where that is known.
pub(super) fn told(names: &[&str]) -> String {
    let one = |name: &&str| {
        let why = STRANGERS
            .iter()
            .find(|(words, _)| words.iter().any(|w| name.contains(w)));
        why.map_or_else(|| format!("`{name}`"), |(_, why)| format!("`{name}` ({why})"))
    };
    names.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn element(element: u64) -> String {
    match element {
        FLOAT => "float32".into(),
        INT64 => "int64".into(),
        FLOAT16 => "float16".into(),
        6 => "int32".into(),
        11 => "float64".into(),
        16 => "bfloat16".into(),
        3 => "int8".into(),
        2 => "uint8".into(),
        17..=20 => "float8".into(),
        other => format!("of ONNX's type {other}"),
    }
}

impl Interface {
    /// How many layers have a cache of that name, from layer 0 on without a gap.
    pub(super) fn layers(&self, pattern: &str) -> usize {
        let has = |layer: usize| {
            let name = pattern.replace("%d", &layer.to_string());
            self.inputs.iter().any(|p| p.name == name)
        };
        (0..self.inputs.len()).take_while(|layer| has(*layer)).count()
    }

    /// The four dimensions of an input; open ones where it has another number of them, or is not there.
    pub(super) fn dims(&self, name: &str) -> [Option<u64>; 4] {
        let found = self.inputs.iter().find(|p| p.name == name);
        found.and_then(|p| p.dims.clone().try_into().ok()).unwrap_or_default()
    }

    /// Refuses a graph that is not what `exported` says or that wants what the engine does not bind, and fills in what the graph alone says.
    pub(super) fn hold(&self, exported: &mut Exported, context_tokens: u32, model: &Path) -> Result<(), Error> {
        let held = self.same_for_all(exported, u64::from(context_tokens));
        held.and_then(|()| self.held(exported)).map_err(|message| Error::Onnx {
            path: model.to_owned(),
            message,
        })
    }

    /// Refuses what would make a row's answer depend on what decodes beside it.
    fn same_for_all(&self, exported: &Exported, context_tokens: u64) -> Result<(), String> {
        if self.dynamic_scales {
            return Err(
                "the graph is quantised dynamically (DynamicQuantizeLinear): one scale is taken over all that runs together, so that tokens would \
                 depend on who decodes beside them; export with weights alone in int8 or int4 (`-p int8`, `-p int4`), or in fp32"
                    .into(),
            );
        }
        match self.switch(exported) {
            Some(switch) if context_tokens > switch => Err(format!(
                "rope scaling of type `longrope`: after {switch} positions the graph takes another table, for every row that runs, and keys of the \
                 first one are kept: lower [limits] context_tokens to {switch}"
            )),
            _ => Ok(()),
        }
    }

    /// Positions after which it takes its second table of rotary positions, if it has two.
    pub(super) fn switch(&self, exported: &Exported) -> Option<u64> {
        // Or both lie in one table, the second, of all positions, behind the first. Those are of thousands: a context_length that somebody has
        // lowered by hand makes no second table.
        let positions = exported.context_length as u64;
        let behind = self.rotary_rows.and_then(|rows| rows.checked_sub(positions));
        let behind = behind.filter(|first| *first > 0 && first.is_multiple_of(1024));
        self.rotary_switch.or(behind)
    }

    fn held(&self, exported: &mut Exported) -> Result<(), String> {
        let names = exported.names.clone();
        let caches: Vec<(String, String)> = names.caches(exported.layers).collect();
        let pasts = caches.iter().map(|(past, _)| past.as_str());
        let presents = caches.iter().map(|(_, present)| present.as_str());
        // What it is is said before what it lacks.
        let bound: Vec<&str> = [&names.input_ids, &names.attention_mask, &names.position_ids]
            .into_iter()
            .map(String::as_str)
            .chain(pasts)
            .collect();
        let given: Vec<&str> = presents.chain([names.logits.as_str()]).collect();
        let strange = |ports: &[Port], known: &[&str]| -> Vec<String> {
            let unknown = ports.iter().filter(|p| !known.contains(&p.name.as_str()));
            unknown.map(|p| p.name.clone()).collect()
        };
        let inputs = strange(&self.inputs, &bound);
        if !inputs.is_empty() {
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            return Err(format!(
                "the graph has inputs that this engine does not know: {}",
                told(&inputs)
            ));
        }
        let outputs = strange(&self.outputs, &given);
        let outputs: Vec<&str> = outputs
            .iter()
            .map(String::as_str)
            .filter(|name| !HARMLESS.iter().any(|h| name.starts_with(h)))
            .collect();
        if !outputs.is_empty() {
            return Err(format!(
                "the graph has outputs that this engine does not know: {}",
                told(&outputs)
            ));
        }
        for name in [&names.input_ids, &names.attention_mask] {
            find(&self.inputs, name)?.typed(&[INT64])?;
        }
        let positions = match find(&self.inputs, &names.position_ids) {
            Ok(port) => port.typed(&[INT64]).map(|()| true)?,
            Err(_) => false,
        };
        let logits = find(&self.outputs, &names.logits)?;
        logits.typed(&[FLOAT, FLOAT16])?;
        if logits
            .dims
            .last()
            .is_some_and(|d| d.is_some_and(|d| d != exported.vocabulary as u64))
        {
            return Err(format!(
                "logits have shape {}, {} says vocab_size {}: they are not of one export",
                logits.shape(),
                exported.source,
                exported.vocabulary
            ));
        }
        for (past, present) in &caches {
            for port in [find(&self.inputs, past)?, find(&self.outputs, present)?] {
                port.typed(&[FLOAT, FLOAT16])?;
                if port.element != logits.element {
                    return Err(format!(
                        "`{}` is {} and `{}` {}: keys, values and logits must be of one type; export with one precision",
                        port.name,
                        element(port.element),
                        logits.name,
                        element(logits.element)
                    ));
                }
                // A present's shape is often left open where it was traced.
                let agrees = |at: usize, size: usize| port.dims[at].is_none_or(|d| d == size as u64);
                if port.dims.len() != 4 || !agrees(1, exported.kv_heads) || !agrees(3, exported.head_size) {
                    let (heads, size) = (exported.kv_heads, exported.head_size);
                    return Err(format!(
                        "`{}` has shape {}, {} says [rows, {heads}, positions, {size}]: export again",
                        port.name,
                        port.shape(),
                        exported.source
                    ));
                }
            }
        }
        exported.number = if logits.element == FLOAT16 {
            Number::Half
        } else {
            Number::Single
        };
        if let Past::Apart { padded } = &mut exported.past {
            *padded = positions && !self.grouped_query;
        }
        Ok(())
    }
}

fn find<'a>(ports: &'a [Port], name: &str) -> Result<&'a Port, String> {
    ports.iter().find(|p| p.name == name).ok_or_else(|| {
        let all: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
        format!(
            "the graph has no `{name}`, only {all:?}: export it with onnxruntime_genai.models.builder, or with optimum for the task \
             text-generation-with-past"
        )
    })
}

impl Port {
    fn typed(&self, wanted: &[u64]) -> Result<(), String> {
        if wanted.contains(&self.element) {
            return Ok(());
        }
        let wanted: Vec<String> = wanted.iter().map(|w| element(*w)).collect();
        Err(format!(
            "`{}` is {}, this engine binds {}: export with `-p fp32`, `-p int8` or `-p int4`, for `-e cpu`",
            self.name,
            element(self.element),
            wanted.join(" or ")
        ))
    }

    fn shape(&self) -> String {
        let dims: Vec<String> = self
            .dims
            .iter()
            .map(|d| d.map_or("?".into(), |d| d.to_string()))
            .collect();
        format!("[{}]", dims.join(", "))
    }
}
