//! Templates, as Hugging Face writes and renders them: Jinja with Python's methods, trimmed blocks, `tojson` in Python's
//! spacing, `raise_exception`, `strftime_now`. The chat template makes the prompt; a task's grammar template ([`crate::constrain::template`])
//! is rendered in the same environment with the same variables: `messages` (each `role` and `content`; content is text or a
//! mapping), `task`, `bos_token`, `eos_token`, `add_generation_prompt`. Fuel bounds what a template can be made to do.
use super::{Prompt, python_json};
use crate::{error::Error, folder::Folder};
use chrono::Utc;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value, context, syntax::SyntaxConfig};
use serde_json::Value as Json;
use std::fmt::Write as _;

/// Instructions and data of one rendering: a turn of a conversation costs about 50, 64 bytes of text 1. The largest prompt that
/// a context of 100,000 tokens can hold is some 10,000 units of text.
const FUEL: u64 = 1_000_000;

/// Bytes of a rendered prompt, whatever fuel says.
pub(crate) const RENDERED_BYTES: usize = 16 << 20;

/// The chat template's file.
pub(crate) const CHAT: &str = "chat_template.jinja";

/// Where every template of a folder is rendered; it has none yet.
pub(crate) fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    // A file named `x.json.jinja` would have each value escaped as JSON: a name says nothing here, as in transformers.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // transformers' settings.
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_filter("tojson", python_json::filter);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// The date, in Python's directives. transformers takes the machine's own time; here it is UTC, so that all replicas of a model say the same.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let mut date = String::new();
    write!(date, "{}", Utc::now().format(format)).map_err(|_| {
        let told = format!("strftime_now: {format:?} has a directive that is not known");
        minijinja::Error::new(ErrorKind::InvalidOperation, told)
    })?;
    Ok(date)
}

/// A model's templates, compiled.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl Templates {
    /// The folder's template: `chat_template.jinja`, or the one in `tokenizer_config.json`, as older exporters write it.
    ///
    /// # Errors
    /// In words, when there is none or it does not compile.
    pub fn of(folder: &Folder) -> Result<Self, String> {
        let config: Json = match folder.text("tokenizer_config.json") {
            Some(text) => {
                serde_json::from_str(text).map_err(|e| format!("tokenizer_config.json does not parse: {e}"))?
            }
            None => Json::Null,
        };
        let source = folder
            .text(CHAT)
            .map(str::to_owned)
            .or_else(|| config["chat_template"].as_str().map(str::to_owned));
        let source = source.ok_or(
            "there is no chat_template.jinja, and none in tokenizer_config.json: export the tokenizer with one",
        )?;
        let token = |key: &str| {
            let entry = &config[key];
            entry
                .as_str()
                .or_else(|| entry["content"].as_str())
                .unwrap_or_default()
                .to_owned()
        };
        Self::compile(source, token("bos_token"), token("eos_token")).map_err(|e| format!("it does not compile: {e:#}"))
    }

    /// Compiles a chat template.
    ///
    /// # Errors
    /// minijinja's, with the line.
    pub fn compile(source: String, bos: String, eos: String) -> Result<Self, minijinja::Error> {
        let mut environment = environment()?;
        environment.add_template_owned(CHAT, source)?;
        Ok(Self { environment, bos, eos })
    }

    /// Compiles one more template, under its file's name.
    ///
    /// # Errors
    /// minijinja's, with the line.
    pub fn add(&mut self, file: &str, source: &str) -> Result<(), minijinja::Error> {
        self.environment.add_template_owned(file.to_owned(), source.to_owned())
    }

    /// The prompt's text.
    ///
    /// # Errors
    /// `Invalid` when the template refuses the prompt.
    pub fn chat(&self, prompt: &Prompt, task: &str) -> Result<String, Error> {
        let rendered = self
            .render(CHAT, prompt, task)
            .map_err(|e| Error::invalid("prompt", format!("the model's chat template refuses it: {e}")))?;
        if rendered.len() > RENDERED_BYTES {
            return Err(Error::invalid(
                "prompt",
                format!(
                    "the chat template makes {} bytes of it; {RENDERED_BYTES} are read",
                    rendered.len()
                ),
            ));
        }
        Ok(rendered)
    }

    /// Renders the template of this name.
    ///
    /// # Errors
    /// minijinja's.
    pub fn render(&self, file: &str, prompt: &Prompt, task: &str) -> Result<String, minijinja::Error> {
        self.environment
            .get_template(file)?
            .render(self.variables(prompt, task))
    }

    /// The same, but what is undefined is an error wherever it is used: whether a template was made for such a prompt.
    ///
    /// # Errors
    /// minijinja's.
    pub fn render_strictly(&self, file: &str, prompt: &Prompt, task: &str) -> Result<String, minijinja::Error> {
        let mut environment = self.environment.clone();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.get_template(file)?.render(self.variables(prompt, task))
    }

    fn variables(&self, prompt: &Prompt, task: &str) -> Value {
        let message =
            |role: &str, content: Value| Value::from_pairs([("role", Value::from(role)), ("content", content)]);
        let messages: Vec<Value> = match prompt {
            Prompt::Text(text) => vec![message("user", text.as_str().into())],
            Prompt::Json(map) => vec![message("user", mapping(map))],
            Prompt::Messages(list) => list
                .iter()
                .map(|(role, content)| message(role, content.as_str().into()))
                .collect(),
        };
        context! {
            messages => Value::from_iter(messages),
            task => task,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => true,
        }
    }
}

fn mapping(map: &serde_json::Map<String, Json>) -> Value {
    Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), jinja(value))))
}

/// JSON as a template sees it.
pub(crate) fn jinja(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (None, Some(u)) => Value::from(u),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(list) => Value::from_iter(list.iter().map(jinja)),
        Json::Object(map) => mapping(map),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> Templates {
        Templates::compile(source.to_owned(), "<s>".into(), "</s>".into()).expect("compiles")
    }

    #[test]
    fn it_renders_a_chatml_template_as_transformers_does() {
        let source = "{%- for m in messages %}\n    {{- '<|' + m['role'] + '|>' + m.content.strip() + eos_token }}\n{%- endfor %}\n{% if add_generation_prompt %}\n{{- '<|assistant|>' }}\n{%- endif %}\n";
        let prompt = Prompt::messages(vec![
            ("system".into(), " be brief ".into()),
            ("user".into(), "hi".into()),
        ])
        .expect("valid");
        assert_eq!(
            template(source).chat(&prompt, "t").expect("renders"),
            "<|system|>be brief</s><|user|>hi</s><|assistant|>"
        );
    }

    #[test]
    fn a_json_prompt_is_a_mapping_in_its_own_order_and_tojson_is_pythons() {
        let Ok(Json::Object(map)) = serde_json::from_str(r#"{"z": "a<b>'é'", "a": [1, 2.5, null, true], "o": {}}"#)
        else {
            panic!()
        };
        let rendered = template("{{ task }}|{{ messages[0].content | tojson }}|{{ messages[0].content.z }}")
            .chat(&Prompt::Json(map), "t");
        assert_eq!(
            rendered.expect("renders"),
            r#"t|{"z": "a<b>'é'", "a": [1, 2.5, null, true], "o": {}}|a<b>'é'"#
        );
    }

    #[test]
    fn what_the_template_refuses_is_the_callers_to_mend() {
        let refusing = template("{{ raise_exception('only one turn') }}");
        let error = refusing.chat(&Prompt::Text("x".into()), "t").expect_err("refused");
        assert!(error.to_string().contains("only one turn"), "{error}");
    }

    #[test]
    fn a_template_may_say_what_day_it_is() {
        let dated = |format: &str| {
            let source = format!("{{{{ strftime_now('{format}') }}}}");
            template(&source).chat(&Prompt::Text("x".into()), "t")
        };
        // Around midnight it is one of two days.
        let days = [0, 1].map(|_| (Utc::now(), dated("%d %B %Y, %A").expect("renders")));
        assert!(
            days.iter()
                .any(|(now, said)| now.format("%d %B %Y, %A").to_string() == *said),
            "{days:?}"
        );
        let told = dated("%Q").expect_err("no directive").to_string();
        assert!(told.contains("\"%Q\""), "{told}");
    }

    #[test]
    fn a_template_that_never_ends_runs_out_of_fuel() {
        let endless = template("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}");
        assert!(endless.chat(&Prompt::Text("x".into()), "t").is_err());
    }
}
