//! A task of a model that answers in one run, ready for requests.
use crate::{
    error::Error,
    folder::{Form, Task},
    sampling::calibration::Calibration,
};
use serde_json::{Value, json};

/// What a request of a task needs.
pub(crate) struct Prepared {
    pub(crate) name: String,
    /// File of its answer template.
    pub(crate) template: String,
    schema: Option<Value>,
    pub(crate) calibration: Calibration,
}

impl Prepared {
    pub(crate) fn of(task: &Task) -> Self {
        Self {
            name: task.name.clone(),
            template: task.template.clone().unwrap_or_default(),
            schema: task.output_schema.clone(),
            calibration: task.calibration.clone(),
        }
    }

    /// A form that a request wants: one that the template's answers have anyway is as good as none.
    pub(super) fn check(&self, form: Option<&Form>, noun: &str) -> Result<(), Error> {
        let harmless = match form {
            None | Some(Form::Free) => true,
            Some(Form::Lark(_)) => false,
            Some(Form::Schema(asked)) => self.schema.as_ref().is_some_and(|own| asks_no_more(asked, own)),
        };
        if harmless {
            return Ok(());
        }
        Err(Error::invalid(
            "constraint",
            format!(
                "a {noun}'s answer has the form of its folder alone: send none for task {}, or the schema that Describe tells",
                self.name
            ),
        ))
    }
}

/// Whether every answer of the schema `own` is one of `asked`, as far as that is plain: it is the same schema, or its type alone.
fn asks_no_more(asked: &Value, own: &Value) -> bool {
    asked == own || (own["type"].is_string() && *asked == json!({"type": own["type"]}))
}
