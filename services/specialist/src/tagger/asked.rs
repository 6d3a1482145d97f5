//! What of a prompt is read: a text, or the fields of an object that the card's `[tag.input]` names.
use super::Spans;
use crate::{
    error::Error,
    folder::{Task, manifest::TagInput},
    one_run::{Reads as _, object},
    prompt::Prompt,
};
use jsonschema::Validator;
use serde_json::{Map, Value};

/// What a task's prompts are read for.
#[derive(Debug)]
pub(super) struct Input {
    /// `None`: they are texts.
    fields: Option<TagInput>,
    /// What an object must be, beyond its fields.
    schema: Option<Validator>,
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its runs are spans.
    pub(super) text: String,
    /// What was said before it: read, and never part of a span.
    pub(super) before: Option<String>,
    /// Names of the labels that may be found; `None`: all.
    pub(super) labels: Option<Vec<String>>,
}

impl Input {
    /// As the card says.
    ///
    /// # Errors
    /// jsonschema's, of the task's input schema.
    pub(super) fn of(fields: Option<&TagInput>, task: &Task) -> Result<Self, String> {
        let schema = task.input_schema.as_ref().map(jsonschema::validator_for).transpose();
        Ok(Self {
            fields: fields.cloned(),
            schema: schema.map_err(|e| e.to_string())?,
        })
    }

    /// Reads a prompt. Of a conversation it is what the user said last; a text is as good as the object that it writes.
    ///
    /// # Errors
    /// `Invalid`, with the field.
    pub(super) fn read(&self, prompt: Prompt) -> Result<Asked, Error> {
        let Some(fields) = &self.fields else {
            let text = object::said(prompt, Spans::NOUN)?.1;
            return Ok(Asked {
                text,
                ..Asked::default()
            });
        };
        let (place, object) = object::read(prompt, self.schema.as_ref(), Spans::NOUN, || told(fields))?;
        fields.read(place, object)
    }
}

impl TagInput {
    fn read(&self, place: &str, mut object: Map<String, Value>) -> Result<Asked, Error> {
        let fault =
            |name: &str, what: &str| Error::invalid(format!("{place}.{name}"), format!("{what}: {}", told(self)));
        let mut text = |name: &str| match object.remove(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(fault(name, "it is no text")),
            None => Err(fault(name, "it is missing")),
        };
        let (said, before) = (text(&self.text)?, self.before.as_deref().map(text).transpose()?);
        let labels = match self.labels.as_deref().map(|name| (name, object.remove(name))) {
            None => None,
            Some((_, Some(Value::Array(list)))) if list.iter().all(Value::is_string) => {
                Some(list.into_iter().filter_map(name).collect())
            }
            Some((name, Some(_))) => return Err(fault(name, "it is no list of texts")),
            Some((name, None)) => return Err(fault(name, "it is missing")),
        };
        Ok(Asked {
            text: said,
            before,
            labels,
        })
    }
}

fn name(of: Value) -> Option<String> {
    match of {
        Value::String(name) => Some(name),
        _ => None,
    }
}

/// What a caller should give.
fn told(fields: &TagInput) -> String {
    let mut told = format!("give an object whose `{}` is the text that is tagged", fields.text);
    if let Some(before) = &fields.before {
        told += &format!(", `{before}` the text said before it");
    }
    if let Some(labels) = &fields.labels {
        told += &format!(", `{labels}` a list of the labels to find");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn input(fields: Option<(&str, Option<&str>, Option<&str>)>) -> Input {
        let fields = fields.map(|(text, before, labels)| TagInput {
            text: text.to_owned(),
            before: before.map(str::to_owned),
            labels: labels.map(str::to_owned),
        });
        Input { fields, schema: None }
    }

    fn all() -> Input {
        input(Some(("user", Some("system"), Some("slots"))))
    }

    fn object(value: &Value) -> Prompt {
        Prompt::Json(value.as_object().expect("an object").clone())
    }

    fn turns(turns: &[(&str, &str)]) -> Prompt {
        Prompt::Messages(turns.iter().map(|(r, c)| ((*r).to_owned(), (*c).to_owned())).collect())
    }

    fn field(refused: Result<Asked, Error>) -> String {
        match refused {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_a_conversation_it_is_what_the_user_said_last_and_an_object_is_refused_by_who_reads_texts() {
        let plain = input(None);
        let said = [
            ("system", "s"),
            ("user", "a"),
            ("user", "{\"b\": 1}"),
            ("assistant", "c"),
        ];
        let read = plain.read(turns(&said)).expect("a text");
        assert_eq!(
            (read.text.as_str(), read.before, read.labels),
            ("{\"b\": 1}", None, None)
        );
        assert_eq!(field(plain.read(turns(&said[..1]))), "prompt.messages");
        let refused = plain.read(object(&json!({}))).expect_err("no text");
        assert!(refused.to_string().contains("no [tag.input]"), "{refused}");
    }

    #[test]
    fn what_is_not_there_or_is_something_else_is_refused_by_its_field() {
        let good = json!({"service": 7, "slots": [], "system": "", "user": "u"});
        let read = all().read(object(&good)).expect("an object of its fields");
        let wanted = Asked {
            text: "u".into(),
            before: Some(String::new()),
            labels: Some(Vec::new()),
        };
        assert_eq!(read, wanted);
        for (name, bad) in [
            ("user", json!(null)),
            ("user", json!(["u"])),
            ("system", json!(null)),
            ("system", json!(1)),
            ("slots", json!("city")),
            ("slots", json!(["city", 1])),
            ("slots", json!(null)),
        ] {
            let mut changed = good.clone();
            changed[name] = bad;
            assert_eq!(field(all().read(object(&changed))), format!("prompt.json.{name}"));
            assert_eq!(
                field(all().read(Prompt::Text(changed.to_string()))),
                format!("prompt.text.{name}")
            );
            changed.as_object_mut().expect("an object").remove(name);
            let last = [("user", changed.to_string())];
            let said: Vec<_> = last.iter().map(|(r, c)| (*r, c.as_str())).collect();
            assert_eq!(field(all().read(turns(&said))), format!("prompt.messages.{name}"));
        }
    }

    #[test]
    fn a_text_that_is_no_object_is_told_which_fields_are_read() {
        for text in ["play jazz", "", "[1]", "\"user\"", "{\"user\": \"u\""] {
            let refused = all()
                .read(Prompt::Text(text.into()))
                .expect_err("no object")
                .to_string();
            assert!(
                refused.starts_with("prompt.text: it is no JSON object")
                    && ["`user`", "`system`", "`slots`"].iter().all(|f| refused.contains(f)),
                "{refused}"
            );
        }
        let text_alone = input(Some(("user", None, None)));
        let refused = text_alone
            .read(Prompt::Text("x".into()))
            .expect_err("no object")
            .to_string();
        assert!(!refused.contains("system") && !refused.contains("slots"), "{refused}");
    }

    proptest! {
        #[test]
        fn an_object_is_read_alike_however_it_comes(
            user in ".*", system in ".*", slots in prop::collection::vec(".{0,8}", 0..4), which in 0..4usize,
        ) {
            let given = json!({"user": user, "system": system, "slots": slots});
            let (before, labels) = ((which & 1 > 0).then_some("system"), (which & 2 > 0).then_some("slots"));
            let input = input(Some(("user", before, labels)));
            let wanted = Asked {
                text: user,
                before: before.map(|_| system),
                labels: labels.map(|_| slots),
            };
            let written = given.to_string();
            for prompt in [object(&given), Prompt::Text(format!(" {written}\n")), turns(&[("user", &written)])] {
                prop_assert_eq!(input.read(prompt).expect("read"), wanted.clone());
            }
        }
    }
}
