//! Taggers: a text to a class and spans in one run of an encoder, and those to an answer by the folder's own template.
//!
//! `Spans` reads a request (`asked`: its text, or an object's fields; `read`: the tokens, where they stand); [`path`] finds the
//! likeliest class and spans that go together; [`answer`] puts them into words. Queue and runs are `one_run`'s. Confidence is
//! of the class and of each token's tag.

pub mod answer;
mod asked;
pub mod path;
mod read;
#[cfg(test)]
mod tests;

use crate::{
    encoder::prove,
    error::Error,
    folder::{Folder, Task, manifest::TagInput},
    one_run::{Limits, OneRun, Prepared, RUN_TOKENS, Reads, Runs},
    prompt::Prompt,
    runtime::{Options, OrtEncoder, Output, Padded},
    sampling::Choice,
    specialist::LoadError,
};
use answer::{Answers, Found};
use asked::{Asked, Input};
use path::Tagset;
use read::Text;
use shoal_kit::config;
use std::{collections::HashMap, path::Path, sync::Arc};
use tokenizers::Tokenizer;

/// The output of tags: ours, or as optimum names it for the task token-classification.
const TAG_LOGITS: [&str; 2] = ["tag_logits", "logits"];

/// A tagger: its handle, and the owner thread behind it.
pub(crate) type Tagger = OneRun<Spans>;

/// Tries the templates, opens the model and proves it on texts made up for it, then starts the owner thread.
pub(crate) fn load(
    folder: &Folder,
    tokenizer: Tokenizer,
    config: &config::Specialist,
    library: &Path,
    options: &Options,
) -> Result<Tagger, LoadError> {
    let fault = |file: &str, message: String| LoadError::File {
        model: folder.identity(),
        file: file.to_owned(),
        message,
    };
    let card = folder.card.tag.as_ref();
    let card = card.ok_or_else(|| fault("card.toml", "it has no [tag]".into()))?;
    let tagset = Arc::new(Tagset::of(card));
    let mut answers = Answers::new().map_err(|e| fault("card.toml", e.to_string()))?;
    for task in &folder.tasks {
        let file = task.template.as_deref().unwrap_or_default();
        let source = folder.text(file).unwrap_or_default();
        answers
            .add(file, source, &task.name, &tagset)
            .map_err(|e| fault(file, e))?;
    }
    let reads = Spans::of(tagset.clone(), card.input.as_ref(), &folder.tasks)
        .map_err(|(task, e)| fault(&format!("input schema of task {task}"), e))?;
    let outputs: &[&[&str]] = match tagset.classes() {
        0 => &[&TAG_LOGITS],
        _ => &[&TAG_LOGITS, &["class_logits"]],
    };
    let mut model = OrtEncoder::open(library, &folder.model, &[], outputs, options)?;
    let limits = Limits::of(folder, config.queue_tokens);
    if model.reads_types() && card.input.as_ref().is_some_and(|input| input.before.is_some()) {
        let why =
            "the graph reads token_type_ids, which would be 0 for what is said before a text too: export it without";
        return Err(fault("model.onnx", why.into()));
    }
    let proven = prove(&tokenizer, limits, |batch| {
        let said = logits(&mut model, &batch, &tagset)?;
        Ok(said.last(&batch, &tagset))
    });
    proven.map_err(|e| fault("model.onnx", e))?;
    model.proven(RUN_TOKENS);
    let shape = tagset.clone();
    let tasks = folder.tasks.iter().map(Prepared::of).collect();
    let runs = Tags {
        model: move |batch: Padded| logits(&mut model, &batch, &shape),
        tagset,
        answers,
    };
    Ok(OneRun::over(&folder.identity(), tokenizer, limits, tasks, reads, runs)?)
}

/// Runs a batch.
fn logits(model: &mut OrtEncoder, batch: &Padded, tagset: &Tagset) -> Result<Logits, String> {
    let outputs = model.run(batch, Vec::new()).map_err(|e| e.to_string())?;
    Logits::of(outputs, batch.rows, batch.columns, tagset)
}

/// How a tagger reads requests.
pub(crate) struct Spans {
    tagset: Arc<Tagset>,
    inputs: HashMap<String, Input>,
}

impl Spans {
    /// As the card says of the tasks; the error is of the task named.
    fn of(tagset: Arc<Tagset>, fields: Option<&TagInput>, tasks: &[Task]) -> Result<Self, (String, String)> {
        let input = |task: &Task| {
            let input = Input::of(fields, task).map_err(|e| (task.name.clone(), e));
            input.map(|input| (task.name.clone(), input))
        };
        Ok(Self {
            tagset,
            inputs: tasks.iter().map(input).collect::<Result<_, _>>()?,
        })
    }
}

impl Reads for Spans {
    type Asked = Asked;
    type Given = Text;
    const NOUN: &'static str = "tagger";

    fn asked(&self, task: &str, prompt: Prompt) -> Result<Asked, Error> {
        let input = self.inputs.get(task).ok_or_else(|| Error::Broken {
            message: format!("task {task} was not prepared"),
        })?;
        input.read(prompt)
    }

    fn bytes(asked: &Asked) -> usize {
        asked.text.len() + asked.before.as_ref().map_or(0, String::len)
    }

    fn given(&self, tokenizer: &Tokenizer, asked: Asked, context: usize) -> Result<Text, String> {
        read::tokenize(tokenizer, asked, &self.tagset, context)
    }

    fn ids(given: &Text) -> &[u32] {
        &given.ids
    }
}

/// A tagger's model, and how its logits become answers.
struct Tags<M> {
    model: M,
    tagset: Arc<Tagset>,
    answers: Answers,
}

impl<M: FnMut(Padded) -> Result<Logits, String> + Send + 'static> Runs for Tags<M> {
    type Given = Text;
    type Said = (Logits, usize);

    fn run(&mut self, batch: Padded, _: &[&Text]) -> Result<Self::Said, String> {
        let columns = batch.columns;
        Ok(((self.model)(batch)?, columns))
    }

    fn works(&mut self) -> Result<(), String> {
        (self.model)(Padded::of(&[&[0]])).map(drop)
    }

    fn answer(
        &self,
        (logits, columns): &Self::Said,
        row: usize,
        text: &Text,
        task: &Prepared,
    ) -> Result<(String, Vec<Choice>), String> {
        let (width, classes) = (self.tagset.tags(), self.tagset.classes());
        let tags = &logits.tags[row * columns * width..(row + 1) * columns * width];
        let classes = &logits.classes[row * classes..(row + 1) * classes];
        let rows: Vec<&[f32]> = text
            .tokens
            .iter()
            .map(|t| &tags[t.at * width..(t.at + 1) * width])
            .collect();
        let reading = path::read(&self.tagset, &rows, classes, text.wanted.as_deref());
        let spans = path::spans(&reading.tags);
        let slice = |span: &path::Span| {
            let (first, last) = (text.tokens[span.tokens.start], text.tokens[span.tokens.end - 1]);
            // Tokens stand in the order of the text; of a tokenizer that has them otherwise, nothing is between them.
            let words = text.text.get(first.start..last.end).unwrap_or_default();
            (self.tagset.label(span.label), words)
        };
        let found = Found {
            class: reading.class.and_then(|class| self.tagset.class(class)),
            spans: spans.iter().map(slice).collect(),
            input: &text.text,
            task: &task.name,
        };
        let answer = self.answers.render(&task.template, &found);
        Ok((answer.map_err(|e| format!("{e:#}"))?, reading.choices))
    }
}

/// What the model says of a batch, all finite.
struct Logits {
    /// `[rows, columns, tags]`.
    tags: Vec<f32>,
    /// `[rows, classes]`.
    classes: Vec<f32>,
}

impl Logits {
    /// What is said of the last text, padding left out.
    fn last(&self, batch: &Padded, tagset: &Tagset) -> Vec<f32> {
        let (row, width, classes) = (batch.rows - 1, tagset.tags(), tagset.classes());
        let tags = &self.tags[row * batch.columns * width..][..batch.last_tokens() * width];
        [tags, &self.classes[row * classes..]].concat()
    }

    /// Holds the model's outputs to the card: `tag_logits`, then `class_logits` if there are classes.
    fn of(outputs: Vec<Output>, rows: usize, columns: usize, tagset: &Tagset) -> Result<Self, String> {
        let wanted = [
            ("tag_logits", vec![rows, columns, tagset.tags()]),
            ("class_logits", vec![rows, tagset.classes()]),
        ];
        for (output, (name, shape)) in outputs.iter().zip(&wanted) {
            if output.shape != *shape {
                return Err(format!(
                    "the model gave {name} {:?} for {rows} texts of {columns} tokens; the card's [tag] makes them {shape:?}",
                    output.shape
                ));
            }
            if output.values.iter().any(|v| !v.is_finite()) {
                return Err(format!("the model gave {name} that are not finite"));
            }
        }
        let mut values = outputs.into_iter().map(|o| o.values);
        Ok(Self {
            tags: values.next().unwrap_or_default(),
            classes: values.next().unwrap_or_default(),
        })
    }
}
