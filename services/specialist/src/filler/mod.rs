//! Fillers: a conversation to calls of the methods that the request names, in one run of an encoder, and those to an answer by the
//! folder's own template. Schema-guided, as dialogue state trackers are (Rastogi et al., arXiv 1909.05855).
//!
//! `Conversation` reads a request (`asked`: methods and turns as one text; `read`: the tokens, and which stand for what); `decode`
//! makes calls of the logits, with what [`slots`] knows; [`answer`] puts them into words. Queue and runs are `one_run`'s. A method or a
//! parameter that the request does not name cannot come out, and a reference reaches only an earlier call.

pub mod answer;
mod asked;
mod decode;
mod read;
pub mod slots;

pub use decode::{Call, Fill};

use crate::{
    encoder::prove,
    error::Error,
    folder::{Folder, Task, manifest::Filling},
    one_run::{Limits, OneRun, Prepared, RUN_TOKENS, Reads, Runs, object},
    prompt::{self, Prompt},
    runtime::{Beside, Options, OrtEncoder, Output, Padded},
    sampling::Choice,
    specialist::LoadError,
    tagger::answer::Templates,
};
use asked::Asked;
use decode::{Logits, Rows, SOURCES};
use jsonschema::Validator;
use read::Given;
use serde_json::{Map, Value};
use shoal_kit::config;
use slots::Slots;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};
use tokenizers::Tokenizer;

/// Inputs of the graph beside the text: the tokens of methods' names `[rows, M]`, of parameters' `[rows, P]`, and the method of each
/// parameter `[rows, P]`.
const METHOD_AT: &str = "method_at";
const PARAMETER_AT: &str = "parameter_at";
const PARAMETER_OF: &str = "parameter_of";

/// Its outputs, as [`Logits`] has them.
const OUTPUTS: [&str; 8] = ["called", "order", "source", "value", "first", "last", "origin", "field"];

/// A filler: its handle, and the owner thread behind it.
pub(crate) type Filler = OneRun<Conversation>;

/// Tries the templates, opens the model and proves it on texts made up for it, then starts the owner thread.
pub(crate) fn load(
    folder: &Folder,
    tokenizer: Tokenizer,
    config: &config::Specialist,
    library: &Path,
    options: &Options,
) -> Result<Filler, LoadError> {
    let fault = |file: &str, message: String| LoadError::File {
        model: folder.identity(),
        file: file.to_owned(),
        message,
    };
    let ways = &folder.card.fill;
    let slots = folder.text(slots::FILE).unwrap_or_default();
    let slots = Slots::parse(slots).map_err(|e| fault(slots::FILE, e))?;
    let mut templates = Templates::new().map_err(|e| fault("card.toml", e.to_string()))?;
    for task in &folder.tasks {
        let file = task.template.as_deref().unwrap_or_default();
        let source = folder.text(file).unwrap_or_default();
        let references = ways.get(&task.name).is_some_and(|way| way.references);
        answer::add(&mut templates, file, source, &task.name, references).map_err(|e| fault(file, e))?;
    }
    let reads = Conversation::of(folder).map_err(|(file, e)| fault(&file, e))?;
    let outputs: Vec<&[&str]> = OUTPUTS.iter().map(std::slice::from_ref).collect();
    let beside = [METHOD_AT, PARAMETER_AT, PARAMETER_OF];
    let mut runs = Fills {
        model: OrtEncoder::open(library, &folder.model, &beside, &outputs, options)?,
        slots,
        ways: ways.clone(),
        templates,
    };
    let limits = Limits::of(folder, config.queue_tokens);
    if runs.model.reads_types() {
        let why =
            "the graph reads token_type_ids, which would be 0 for names and conversation alike: export it without";
        return Err(fault("model.onnx", why.into()));
    }
    let proven = prove(&tokenizer, limits, |batch| {
        // The first token stands for a method and its parameter.
        let names = vec![(&[0][..], &[0][..], &[0][..]); batch.rows];
        let said = runs.logits(&batch, &names)?;
        let (of, tokens) = (said.row(batch.rows - 1), batch.last_tokens());
        let (first, last) = (&of.first.values[..tokens], &of.last.values[..tokens]);
        let (source, value, origin) = (of.source.values, of.value.values, of.origin.values);
        Ok([of.called, of.order, source, value, first, last, origin, of.field.values].concat())
    });
    proven.map_err(|e| fault("model.onnx", e))?;
    runs.model.proven(RUN_TOKENS);
    let tasks = folder.tasks.iter().map(Prepared::of).collect();
    Ok(OneRun::over(&folder.identity(), tokenizer, limits, tasks, reads, runs)?)
}

/// How a filler reads requests.
pub(crate) struct Conversation {
    ways: BTreeMap<String, Filling>,
    schemas: HashMap<String, Validator>,
    inputs: Templates,
}

impl Conversation {
    /// As the card says of the tasks; the error is of the file named.
    fn of(folder: &Folder) -> Result<Self, (String, String)> {
        let mut inputs = Templates::new().map_err(|e| ("card.toml".into(), e.to_string()))?;
        for file in folder.card.fill.values().filter_map(|way| way.input.as_ref()) {
            let source = folder.text(file).unwrap_or_default();
            inputs.add(file, source).map_err(|e| (file.clone(), e))?;
        }
        let schema = |task: &Task| {
            let schema = jsonschema::validator_for(task.input_schema.as_ref()?);
            Some(match schema {
                Ok(schema) => Ok((task.name.clone(), schema)),
                Err(e) => Err((format!("input schema of task {}", task.name), e.to_string())),
            })
        };
        Ok(Self {
            ways: folder.card.fill.clone(),
            schemas: folder.tasks.iter().filter_map(schema).collect::<Result<_, _>>()?,
            inputs,
        })
    }

    /// The object that a template makes of a prompt, and the field that the prompt stands in.
    fn made(
        &self,
        file: &str,
        prompt: Prompt,
        schema: Option<&Validator>,
    ) -> Result<(&'static str, Map<String, Value>), Error> {
        let render = |input: &Value| {
            let input = prompt::jinja(input);
            self.inputs.render(file, minijinja::context! { input })
        };
        let (place, made) = match (prompt, schema) {
            // It says what an object has, and so that it is one.
            (prompt, Some(_)) | (prompt @ Prompt::Json(_), None) => {
                let told = || format!("`{file}` of the model reads an object");
                let (place, object) = object::read(prompt, schema, Self::NOUN, told)?;
                (place, render(&Value::Object(object)))
            }
            (prompt, None) => {
                let (place, text) = object::said(prompt, Self::NOUN)?;
                // A text is a text, whatever it looks like; where the template wants an object, it is the object that it writes.
                let object = serde_json::from_str(&text).map(Value::Object).ok();
                let made = render(&Value::String(text));
                match (made, object) {
                    (Err(_), Some(object)) => (place, render(&object)),
                    (made, _) => (place, made),
                }
            }
        };
        let told = |e: String| Error::invalid(place, format!("`{file}` of the model makes nothing of it: {e}"));
        let made = made.map_err(|e| told(format!("{e:#}")))?;
        let object = serde_json::from_str(&made).map_err(|e| told(e.to_string()))?;
        Ok((place, object))
    }
}

impl Reads for Conversation {
    type Asked = Asked;
    type Given = Given;
    const NOUN: &'static str = "filler";

    fn asked(&self, task: &str, prompt: Prompt) -> Result<Asked, Error> {
        let way = way(&self.ways, task).map_err(|message| Error::Broken { message })?;
        let schema = self.schemas.get(task);
        let Some(file) = &way.input else {
            let (place, object) = object::read(prompt, schema, Self::NOUN, || asked::told(way))?;
            return Asked::of(way, place, object);
        };
        let (place, object) = self.made(file, prompt, schema)?;
        Asked::of(way, place, object).map_err(|error| match error {
            // Of its fields the caller knows nothing.
            Error::Invalid { description, .. } => Error::invalid(
                place,
                format!("what `{file}` of the model makes of it does not fit: {description}"),
            ),
            other => other,
        })
    }

    fn bytes(asked: &Asked) -> usize {
        asked.names.len() + asked.text.len()
    }

    fn given(&self, tokenizer: &Tokenizer, asked: Asked, context: usize) -> Result<Given, String> {
        read::tokenize(tokenizer, asked, context)
    }

    fn ids(given: &Given) -> &[u32] {
        &given.ids
    }
}

/// How a task is read and decoded: a folder's check saw to it that each has its own.
fn way<'a>(ways: &'a BTreeMap<String, Filling>, task: &str) -> Result<&'a Filling, String> {
    ways.get(task).ok_or_else(|| format!("the card has no [fill.{task}]"))
}

/// A filler's model, and how its logits become answers.
struct Fills {
    model: OrtEncoder,
    slots: Slots,
    ways: BTreeMap<String, Filling>,
    templates: Templates,
}

/// What the model says of a batch, all finite, in the order of [`OUTPUTS`].
struct Said {
    outputs: Vec<Output>,
}

/// Of a row: the tokens of methods and of parameters, and the method of each parameter.
type Names<'a> = (&'a [usize], &'a [usize], &'a [usize]);

impl Fills {
    /// Runs a batch.
    fn logits(&mut self, batch: &Padded, rows: &[Names<'_>]) -> Result<Said, String> {
        let most = |of: fn(&Names<'_>) -> usize| rows.iter().map(of).max().unwrap_or(1).max(1);
        let (methods, parameters) = (most(|r| r.0.len()), most(|r| r.1.len()));
        let beside = |name, width: usize, of: fn(&Names<'_>) -> Vec<i64>| -> Beside {
            let padded = |row| of(row).into_iter().chain(std::iter::repeat(0)).take(width);
            (name, width, rows.iter().flat_map(padded).collect())
        };
        let beside = vec![
            beside(METHOD_AT, methods, |r| indices(r.0)),
            beside(PARAMETER_AT, parameters, |r| indices(r.1)),
            beside(PARAMETER_OF, parameters, |r| indices(r.2)),
        ];
        let (rows, columns) = (batch.rows, batch.columns);
        let outputs = self.model.run(batch, beside);
        let outputs = outputs.map_err(|e| e.to_string())?;
        let wanted = [
            vec![rows, methods],
            vec![rows, methods],
            vec![rows, parameters, SOURCES],
            vec![rows, parameters, self.slots.values.len()],
            vec![rows, parameters, columns],
            vec![rows, parameters, columns],
            vec![rows, parameters, methods],
            vec![rows, parameters, 1 + self.slots.fields.len()],
        ];
        for ((output, name), shape) in outputs.iter().zip(OUTPUTS).zip(&wanted) {
            if output.shape != *shape {
                return Err(format!(
                    "the model gave {name} {:?} for {rows} texts of {columns} tokens; {} makes them {shape:?}",
                    output.shape,
                    slots::FILE
                ));
            }
            if output.values.iter().any(|v| !v.is_finite()) {
                return Err(format!("the model gave {name} that are not finite"));
            }
        }
        Ok(Said { outputs })
    }
}

fn indices(of: &[usize]) -> Vec<i64> {
    of.iter().map(|x| i64::try_from(*x).unwrap_or(0)).collect()
}

impl Said {
    /// Logits of one row.
    fn row(&self, row: usize) -> Logits<'_> {
        let part = |i: usize| {
            let output = &self.outputs[i];
            let size: usize = output.shape[1..].iter().product();
            Rows {
                values: &output.values[row * size..(row + 1) * size],
                width: output.shape.last().copied().unwrap_or(1),
            }
        };
        Logits {
            called: part(0).values,
            order: part(1).values,
            source: part(2),
            value: part(3),
            first: part(4),
            last: part(5),
            origin: part(6),
            field: part(7),
        }
    }
}

impl Runs for Fills {
    type Given = Given;
    type Said = Said;

    fn run(&mut self, batch: Padded, given: &[&Given]) -> Result<Said, String> {
        let of: Vec<Vec<usize>> = given
            .iter()
            .map(|g| g.asked.parameters.iter().map(|p| p.0).collect())
            .collect();
        let rows = given
            .iter()
            .zip(&of)
            .map(|(g, of)| (&g.method_at[..], &g.parameter_at[..], &of[..]));
        self.logits(&batch, &rows.collect::<Vec<_>>())
    }

    fn works(&mut self) -> Result<(), String> {
        // The token stands for a method and its parameter.
        self.logits(&Padded::of(&[&[0]]), &[(&[0], &[0], &[0])]).map(drop)
    }

    fn answer(&self, said: &Said, row: usize, given: &Given, task: &Prepared) -> Result<(String, Vec<Choice>), String> {
        let (calls, choices) = decode::read(&self.slots, way(&self.ways, &task.name)?, given, &said.row(row));
        let answer = answer::render(&self.templates, &task.template, &task.name, &calls);
        Ok((answer.map_err(|e| format!("{e:#}"))?, choices))
    }
}
