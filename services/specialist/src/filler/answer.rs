//! Templates that put a filler's calls into words: `[output.TASK] template = "NAME.answer.jinja"` of a card.
//!
//! They are rendered as a tagger's are ([`crate::tagger::answer`] says how), with these variables:
//!
//! - `calls`: in their order, each with `service`, `method` and `parameters`; a parameter has `name` and either `text`, or `call` (the number
//!   of an earlier call, from 1) and `field`. Of a task without `references` (the card's `[fill.TASK]`) each has `text`.
//! - `task`: the task.
//!
//! What a parameter does not have is undefined, and an error where it is used: ask `{% if p.call is defined %}`.
use super::decode::{Call, Fill};
use crate::tagger::answer::Templates;
use minijinja::{Error, Value, context};

/// Compiles a template, under its file's name, and tries it on calls of each form that the task may have: with `references`, or without.
///
/// # Errors
/// What is wrong with it, for its author.
pub(super) fn add(
    templates: &mut Templates,
    file: &str,
    source: &str,
    task: &str,
    references: bool,
) -> Result<(), String> {
    templates.add(file, source)?;
    let parameter = |fill: Fill| ("name".to_owned(), fill);
    let mut forms = vec![Vec::new(), vec![parameter(Fill::Text("a \"word\"".into())); 2]];
    if references {
        forms.push(vec![parameter(Fill::Reference(1, "field".into()))]);
    }
    let call = |parameters: &Vec<(String, Fill)>| Call {
        service: "Service_1".into(),
        method: "Method".into(),
        parameters: parameters.clone(),
    };
    let calls: Vec<Call> = forms.iter().map(call).collect();
    for n in 1..=calls.len() {
        let tried = render(templates, file, task, &calls[..n]);
        tried.map_err(|e| format!("it does not render {n} calls: {e:#}"))?;
    }
    Ok(())
}

/// The answer that the template of this name makes.
///
/// # Errors
/// minijinja's, and when it is far too long.
pub(super) fn render(templates: &Templates, file: &str, task: &str, calls: &[Call]) -> Result<String, Error> {
    let parameter = |(name, fill): &(String, Fill)| match fill {
        Fill::Text(text) => Value::from_pairs([("name", Value::from(name)), ("text", Value::from(text))]),
        Fill::Reference(call, field) => Value::from_pairs([
            ("name", Value::from(name)),
            ("call", Value::from(*call)),
            ("field", Value::from(field)),
        ]),
    };
    let call = |call: &Call| {
        Value::from_pairs([
            ("service", Value::from(&call.service)),
            ("method", Value::from(&call.method)),
            (
                "parameters",
                call.parameters.iter().map(parameter).collect::<Vec<Value>>().into(),
            ),
        ])
    };
    let calls = calls.iter().map(call).collect::<Vec<Value>>();
    templates.render(file, context! { calls, task })
}
