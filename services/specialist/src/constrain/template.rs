//! A grammar made of the request: a card's `[output.TASK] grammar = "NAME.lark.jinja"` is a Jinja template of a Lark grammar,
//! rendered for each request with the chat template's variables, in its environment, and compiled for that request.
//!
//! # What its author must know
//! A value that is some words of the input is `%regex` over a text; method and parameter names are literals in a loop:
//!
//! ```text
//! start: "{\"tool\":\"play\",\"arguments\":{" [pair ("," pair)*] "}}"
//! pair: NAME ":" VALUE
//! NAME: "\"artist\"" | "\"album\""
//! VALUE: ("\"" WORDS "\"") & /"([^"\\ ]|\\.)(([^"\\]|\\.)*([^"\\ ]|\\.))?"/
//! WORDS: %regex { "substring_words": {{ (messages[-1].content | replace("\n", " ") | tojson)[1:-1] | tojson }} }
//! ```
//!
//! - **Into the grammar only through `tojson`.** It quotes for Lark's literals and for `%regex` alike. Text inside a JSON string
//!   of the answer stands there escaped, so its span is of the escaped text: `(text | tojson)[1:-1] | tojson`.
//! - **Chunks.** `substring_words` cuts a text into runs of letters, digits and `_`; of white space; and of everything else. A
//!   span is any run of whole chunks, so it may begin or end with a space, and cannot take `U.S.` out of `U.S.,`.
//!   `substring_chars` cuts everywhere (twice the time to compile, milliseconds still); `substring_chunks` takes a list.
//! - **A span may be empty.** All three match nothing at all. Forbid it, and a blank at either end, by an intersection:
//!   `SPAN: WORDS & /[^ ](.*[^ ])?/` for plain text, the one above for a JSON string.
//! - **A newline in the input is a newline in a span.** Where it separates, replace it before `tojson`; `.` in an intersection
//!   excludes it. In escaped text it is `\n`, which is cut behind its backslash (as `\t` is): `n` and the word behind it are one
//!   chunk, and a span may end with the backslash, which makes the closing quotation mark a part of the string. The
//!   intersection above forbids that: what it lets through is JSON whatever the input.
//! - **Terminals are greedy.** Rules (`lower`) are sequences of terminals (`UPPER`, literals), and a terminal goes on for as long
//!   as any text of it can: one that may hold its own end swallows it (`"\"" SPAN "\""` over a text with quotation marks, a step
//!   that ends at a newline over a text with newlines). Quotation marks belong into the terminal, as in `VALUE` above: within
//!   one terminal there is nothing greedy. Escaped text outside one works too, for no chunk of it begins with a bare `"`.
//! - **A loop that does not run leaves the empty text.** `NAME:` without a literal is a terminal that matches nothing at all, not
//!   an error.
//! - **No U+007F in a literal.** Lark's literals exclude it, and `tojson` does not escape it; `%regex` takes it.
//! - **Both sides render it.** Constructs that Python's jinja2 and this environment render alike are pinned by a test over
//!   `tests/reference/templates.json`: loops, `items()`, `join`, `set`, macros, slices, `namespace`, `replace`, `tojson`.
//!
//! A template that does not compile as Jinja, or names a filter that there is not, fails the load. So does one that renders for
//! an ordinary request and makes no grammar of it: the request is made up from the task's input schema, else it is a line of
//! text, and counts as ordinary if rendering meets nothing undefined. What a real request cannot be rendered or compiled for is
//! `INVALID_ARGUMENT`.
use super::{Compiler, Grammar, RENDERED_BYTES};
use crate::{
    error::Error,
    folder::Form,
    prompt::{CHAT, Prompt, Templates},
};
use minijinja::ErrorKind;
use serde_json::{Map, Value, json};

/// The grammar of one request. Call it on a deep stack (see the parent's docs).
///
/// # Errors
/// `Invalid` when the template refuses the prompt, or makes of it what is no grammar.
pub fn compile(
    compiler: &Compiler,
    templates: &Templates,
    file: &str,
    prompt: &Prompt,
    task: &str,
) -> Result<Option<Grammar>, Error> {
    let refused = |what: String| Error::invalid("prompt", format!("the task's output form {file} {what}"));
    let lark = templates
        .render(file, prompt, task)
        .map_err(|e| refused(format!("cannot be made of it: {e}")))?;
    if lark.len() > RENDERED_BYTES {
        return Err(refused(format!(
            "has {} bytes of it; a grammar has at most {RENDERED_BYTES}",
            lark.len()
        )));
    }
    compiler
        .compile(&Form::Lark(lark))
        .map_err(|e| refused(format!("does not compile for it: {e}")))
}

/// Looks for what is wrong with a template whatever the request; `make` makes of an ordinary prompt what it is for. `Ok` with words:
/// nothing was found, but nothing was proven.
///
/// # Errors
/// What is wrong, for the template's author.
pub fn probe(
    templates: &Templates,
    file: &str,
    task: &str,
    input: Option<&Value>,
    make: impl FnOnce(&Prompt) -> Result<(), Error>,
) -> Result<Option<String>, String> {
    let prompt = ordinary(input);
    match templates.render_strictly(file, &prompt, task) {
        Err(e) if whatever_the_request(e.kind()) => Err(format!("it does not render: {e}")),
        Err(e) => Ok(Some(format!("not tried at load: {e}"))),
        Ok(_) => make(&prompt).map(|()| None).map_err(|e| e.to_string()),
    }
}

/// Looks for what is wrong with the chat template whatever the request. It is rendered as for a request, and not strictly: most look for what only
/// some callers give (`tools`, `documents`), and a strict rendering would end there.
///
/// # Errors
/// What is wrong, for the template's author.
pub(crate) fn probe_chat(templates: &Templates, task: &str, input: Option<&Value>) -> Result<(), String> {
    match templates.render(CHAT, &ordinary(input), task) {
        Err(e) if whatever_the_request(e.kind()) => Err(format!("it does not render: {e}")),
        // It may want another prompt, or none of the kind that was made up.
        Err(_) | Ok(_) => Ok(()),
    }
}

/// A prompt as the task's input schema has it, else a line of text.
fn ordinary(input: Option<&Value>) -> Prompt {
    match input.map(|schema| example(schema, schema, 0)) {
        Some(Value::Object(map)) => Prompt::Json(map),
        _ => Prompt::Text("a line of text".into()),
    }
}

fn whatever_the_request(kind: ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(
        kind,
        K::SyntaxError | K::TemplateNotFound | K::UnknownFilter | K::UnknownTest | K::UnknownFunction | K::OutOfFuel
    )
}

/// Levels of a made-up input: a recursive schema must end.
const DEPTH: usize = 8;

/// A value that a schema of the plain sort allows: types, properties, items, enums, `$ref`s into itself. Near enough for a
/// template to have something to loop over.
fn example(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > DEPTH {
        return Value::Null;
    }
    let of = |schema: &Value| example(schema, root, depth + 1);
    if let Some(target) = schema["$ref"].as_str().and_then(|r| root.pointer(r.strip_prefix('#')?)) {
        return of(target);
    }
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    if let Some(first) = ["anyOf", "oneOf", "allOf"].iter().find_map(|k| schema[*k].get(0)) {
        return of(first);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("string") => json!("text"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("array") => json!([of(&schema["items"])]),
        None if schema.get("properties").is_none() => json!("text"),
        _ => {
            let mut map: Map<String, Value> = Map::new();
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                map.insert(name.clone(), of(schema));
            }
            let others = schema["patternProperties"].as_object().and_then(|p| p.values().next());
            if let Some(schema) = others.or(schema.get("additionalProperties")).filter(|s| s.is_object()) {
                map.insert("Name_1".into(), of(schema));
            }
            Value::Object(map)
        }
    }
}
