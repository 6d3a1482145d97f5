//! Templates that put what a tagger read into words: `[output.TASK] template = "NAME.answer.jinja"` of a card.
//!
//! # What its author must know
//! It is rendered in the environment of chat templates (Jinja with Python's methods, trimmed blocks, `raise_exception`; `tojson`
//! writes what Python's `json.dumps(x, ensure_ascii=False)` does), with these variables:
//!
//! - `class`: the class's name; `none` of a model without classes.
//! - `spans`: in the order of the text, each with `label` and `text`. The text is as it stands in the input, case and all.
//! - `input`: the text that was read: of an object, the field that is `[tag.input] text`.
//! - `task`: the task.
//!
//! ```text
//! {"tool": {{ class | tojson }}, "arguments": {
//! {%- for label in spans | map(attribute="label") | unique %}
//! {{- label | tojson }}: {{ spans | selectattr("label", "equalto", label) | map(attribute="text") | join(" ") | tojson }}
//! {{- ", " if not loop.last }}
//! {%- endfor %}}}
//! ```
//!
//! - **What is undefined is an error** wherever it is used.
//! - **Into JSON only through `tojson`.** A span may hold a quotation mark.
//! - **A model may find nothing, or a label twice.** A request may ask for fewer labels than the model has (`[tag.input] labels`).
//!   Each class is tried at load with no span, with one of each label that it may have, and with two; a template that fails then
//!   fails the load. What fails all the same with a caller's text is `INTERNAL`.
//! - **Nothing holds an answer to the schema beside it** (`[output.TASK] schema`) but this template. The schema says what the answer
//!   is: the gateway checks answers against it.
use super::path::Tagset;
use crate::prompt::{RENDERED_BYTES, environment};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

/// What was read of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// The class's name.
    pub class: Option<&'a str>,
    /// (label, text), in the order of the text.
    pub spans: Vec<(&'a str, &'a str)>,
    /// The text.
    pub input: &'a str,
    /// The task.
    pub task: &'a str,
}

/// A folder's answer templates, compiled: a tagger's and a filler's.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// None yet.
    ///
    /// # Errors
    /// minijinja's.
    pub fn new() -> Result<Self, Error> {
        let mut environment = environment()?;
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        Ok(Self { environment })
    }

    /// Compiles a template, under its file's name.
    ///
    /// # Errors
    /// What is wrong with it, for its author.
    pub fn add(&mut self, file: &str, source: &str) -> Result<(), String> {
        self.environment
            .add_template_owned(file.to_owned(), source.to_owned())
            .map_err(|e| format!("it does not compile: {e:#}"))
    }

    /// The answer that the template of this name makes of its variables.
    ///
    /// # Errors
    /// minijinja's, and when it is far too long.
    pub fn render(&self, file: &str, variables: Value) -> Result<String, Error> {
        let answer = self.environment.get_template(file)?.render(variables)?;
        if answer.len() > RENDERED_BYTES {
            let told = format!("an answer of {} bytes; at most {RENDERED_BYTES} are made", answer.len());
            return Err(Error::new(ErrorKind::InvalidOperation, told));
        }
        Ok(answer)
    }
}

/// A tagger's answer templates.
#[derive(Debug)]
pub struct Answers {
    templates: Templates,
}

impl Answers {
    /// None yet.
    ///
    /// # Errors
    /// minijinja's.
    pub fn new() -> Result<Self, Error> {
        let templates = Templates::new()?;
        Ok(Self { templates })
    }

    /// Compiles a template, under its file's name, and tries it on what may be read for `task`.
    ///
    /// # Errors
    /// What is wrong with it, for its author.
    pub fn add(&mut self, file: &str, source: &str, task: &str, tagset: &Tagset) -> Result<(), String> {
        self.templates.add(file, source)?;
        for (class, labels) in tagset.allowed() {
            for times in 0..3 {
                let spans = labels.iter().flat_map(|label| vec![(*label, "a \"word\""); times]);
                let found = Found {
                    class,
                    spans: spans.collect(),
                    input: "a line of text",
                    task,
                };
                self.render(file, &found).map_err(|e| {
                    let of = class.map(|c| format!(" of class {c}")).unwrap_or_default();
                    format!("it does not render a text{of} with each label {times} times: {e:#}")
                })?;
            }
        }
        Ok(())
    }

    /// The answer that the template of this name makes.
    ///
    /// # Errors
    /// As [`Templates::render`].
    pub fn render(&self, file: &str, found: &Found<'_>) -> Result<String, Error> {
        let span = |(label, text): &(&str, &str)| {
            Value::from_pairs([("label", Value::from(*label)), ("text", Value::from(*text))])
        };
        let variables = context! {
            class => found.class,
            spans => found.spans.iter().map(span).collect::<Vec<Value>>(),
            input => found.input,
            task => found.task,
        };
        self.templates.render(file, variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::manifest::Tag;

    fn tagset() -> Tagset {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        Tagset::of(&Tag {
            classes: names(&["play", "book"]),
            labels: names(&["genre", "city"]),
            allowed: [("play".to_owned(), names(&["genre"]))].into(),
            input: None,
        })
    }

    fn rendered(source: &str, spans: &[(&str, &str)]) -> String {
        let mut answers = Answers::new().expect("an environment");
        answers
            .add("x.json.jinja", source, "call", &tagset())
            .expect("a good template");
        let found = Found {
            class: Some("play"),
            spans: spans.to_vec(),
            input: "some \"jazz\"",
            task: "call",
        };
        answers.render("x.json.jinja", &found).expect("renders")
    }

    #[test]
    fn the_filters_that_answers_are_made_with_are_there_and_nothing_is_escaped_unasked() {
        let spans = [("genre", "jazz é"), ("city", "Oslo"), ("genre", "\"rock\"")];
        let grouped = "{{ class }} {{ task }} {% for label in spans | map(attribute=\"label\") | unique %}\
             {{ label | tojson }}: {{ spans | selectattr(\"label\", \"equalto\", label) | map(attribute=\"text\") | list | tojson }}\
             {{ \", \" if not loop.last }}{% endfor %}";
        assert_eq!(
            rendered(grouped, &spans),
            r#"play call "genre": ["jazz é", "\"rock\""], "city": ["Oslo"]"#
        );
        let by = "{% for label, own in spans | groupby(\"label\") %}{{ label }}={{ own | map(attribute=\"text\") | join(\"+\") }};{% endfor %}{{ input }}";
        assert_eq!(rendered(by, &spans), "city=Oslo;genre=jazz é+\"rock\";some \"jazz\"");
        assert_eq!(rendered("{{ spans | length }}{{ class is none }}", &[]), "0False");
    }

    #[test]
    fn a_template_that_fails_for_what_may_be_read_is_refused_with_the_reason() {
        for (source, wanted) in [
            ("{% for x in %}", "does not compile"),
            ("{{ span.text }}", "undefined"),
            ("{{ spans[0].text }}", "of class play with each label 0 times"),
            (
                "{% if spans | length > 2 %}{{ nobody }}{% endif %}",
                "of class book with each label 2 times",
            ),
            ("{{ class | sideways }}", "sideways"),
            (
                "{% if class == 'book' %}{{ raise_exception('not this') }}{% endif %}",
                "not this",
            ),
            (
                "{{ spans | map(attribute='start') | list }}{{ spans[1].start }}",
                "undefined",
            ),
            (
                "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
                "fuel",
            ),
        ] {
            let mut answers = Answers::new().expect("an environment");
            let told = answers.add("x.jinja", source, "call", &tagset()).expect_err(source);
            assert!(told.contains(wanted), "{source}: {told}");
        }
    }
}
