//! References to other nodes' outputs.
//!
//! `${find}` is the whole output of node `find`, `${find.address}` a field of it, `${find.rows.0.name}` a field of a field;
//! `$$` is a dollar sign, and a `$` before anything else is itself. Several may stand in one text. A reference that is a
//! text's whole content takes the value with its type; inside other text it takes the value's text. What a model is asked may be written as
//! a JSON object: its strings are such texts then ([`Template::fill_prompt`]).
use crate::integers;
use serde_json::{Map, Value};
use std::{collections::HashSet, fmt};

/// A reference to a node's output, or to a field of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The node's id.
    pub node: String,
    /// Field names (or list positions) from the output inwards; empty for the whole output.
    pub path: Vec<String>,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}", self.node)?;
        self.path.iter().try_for_each(|field| write!(f, ".{field}"))?;
        f.write_str("}")
    }
}

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// `${` without `}`.
    #[error("`${{` at byte {at} has no closing brace; write `$$` for a dollar sign")]
    Open {
        /// Byte offset.
        at: usize,
    },
    /// What stands in the braces is no reference.
    #[error("`${{{inner}}}` is no reference: write ${{node}} or ${{node.field}}")]
    Inner {
        /// What stands there.
        inner: String,
    },
}

/// Why a reference cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The node has no output (yet).
    #[error("{reference}: node `{}` has no output", reference.node)]
    Node {
        /// The reference.
        reference: Reference,
    },
    /// The output has no such field.
    #[error("{reference}: the output of `{}` has no `{field}`; it has {}", reference.node, there(fields, *more))]
    Field {
        /// The reference.
        reference: Reference,
        /// The first name that is not there.
        field: String,
        /// The first names that are.
        fields: Vec<String>,
        /// How many more there are.
        more: usize,
    },
}

/// Field names that an error lists at most: enough to see the typo.
const TOLD: usize = 16;

fn there(fields: &[String], more: usize) -> String {
    match (fields, more) {
        ([], _) => "no fields".to_owned(),
        (few, 0) => few.join(", "),
        (first, more) => format!("{} and {more} more", first.join(", ")),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Reference(Reference),
}

/// A text with references.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// For `${` without its brace, and for what is no reference inside.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (mut parts, mut plain, mut at) = (Vec::new(), String::new(), 0);
        while let Some(found) = text[at..].find('$') {
            plain.push_str(&text[at..at + found]);
            at += found;
            let rest = &text[at + 1..];
            if rest.starts_with('$') {
                plain.push('$');
                at += 2;
            } else if let Some(inside) = rest.strip_prefix('{') {
                let end = inside.find('}').ok_or(Malformed::Open { at })?;
                let reference = parse_inner(&inside[..end])?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Reference(reference));
                at += 2 + end + 1;
            } else {
                plain.push('$');
                at += 1;
            }
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// A text that refers to nothing, whatever stands in it.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        Self(if text.is_empty() {
            Vec::new()
        } else {
            vec![Part::Text(text.to_owned())]
        })
    }

    /// Every reference, in order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter().filter_map(|part| {
            if let Part::Reference(reference) = part {
                Some(reference)
            } else {
                None
            }
        })
    }

    /// Whether [`Template::fill`] would write so many bytes at most, about; what is missing has none. Ask before filling: a text of many
    /// references to a large output is a thousand times its own size. What is looked at is bounded by `most` and by the text.
    #[must_use]
    pub fn fits<'a>(&self, output: &impl Fn(&str) -> Option<&'a Value>, most: usize) -> bool {
        self.spend(output, most).is_some()
    }

    /// What is left of so many bytes once it is written.
    fn spend<'a>(&self, output: &impl Fn(&str) -> Option<&'a Value>, left: usize) -> Option<usize> {
        self.0.iter().try_fold(left, |left, part| match part {
            Part::Text(plain) => left.checked_sub(plain.len()),
            Part::Reference(reference) => match look_up(reference, output) {
                Ok(value) => spend(value, left),
                Err(_) => Some(left),
            },
        })
    }

    /// The text with its references filled: the value itself for a lone reference, else text.
    ///
    /// # Errors
    /// When a node or a field is not there.
    pub fn fill<'a>(&self, output: &impl Fn(&str) -> Option<&'a Value>) -> Result<Value, Missing> {
        if let [Part::Reference(reference)] = self.0.as_slice() {
            return look_up(reference, output).cloned();
        }
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Reference(reference) => match look_up(reference, output)? {
                    Value::String(value) => text.push_str(value),
                    value => text.push_str(&value.to_string()),
                },
            }
        }
        Ok(Value::String(text))
    }
}

impl Template {
    /// As [`Template::fill`], of what a model is asked: in a text that is a JSON object each string is filled by itself, so that whatever a
    /// value holds stays inside the string that refers to it.
    ///
    /// # Errors
    /// As [`Template::fill`].
    pub fn fill_prompt<'a>(&self, output: &impl Fn(&str) -> Option<&'a Value>) -> Result<Value, Missing> {
        match self.object() {
            Some(object) => object.fill(output),
            None => self.fill(output),
        }
    }

    /// The object that it is, if it refers to something; other text is read by whoever is asked.
    fn object(&self) -> Option<Json> {
        let [Part::Text(first), _, ..] = self.0.as_slice() else {
            return None;
        };
        if !first.trim_start().starts_with('{') {
            return None;
        }
        let written = self.to_string();
        integers::fit(&written).ok()?;
        let value: Value = serde_json::from_str(&written).ok()?;
        let object = Json::parse(&value).ok()?;
        // A key is no template, and an escape may spell a reference that nobody knew when the plan was let in.
        let known: HashSet<_> = self.references().collect();
        let found: HashSet<_> = object.references().into_iter().collect();
        (known == found).then_some(object)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(plain) => f.write_str(&plain.replace('$', "$$")),
            Part::Reference(reference) => write!(f, "{reference}"),
        })
    }
}

fn parse_inner(inner: &str) -> Result<Reference, Malformed> {
    let mut segments = inner.split('.').map(str::to_owned);
    let node = segments.next().unwrap_or_default();
    let path: Vec<String> = segments.collect();
    if !is_id(&node) || path.iter().any(String::is_empty) {
        return Err(Malformed::Inner {
            inner: inner.chars().take(80).collect(),
        });
    }
    Ok(Reference { node, path })
}

/// Whether `text` may be a node's id: 1 to 64 of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn look_up<'a>(reference: &Reference, output: &impl Fn(&str) -> Option<&'a Value>) -> Result<&'a Value, Missing> {
    let mut value = output(&reference.node).ok_or_else(|| Missing::Node {
        reference: reference.clone(),
    })?;
    for field in &reference.path {
        let inner = match value {
            Value::Object(object) => object.get(field),
            Value::Array(list) => field.parse().ok().and_then(|i: usize| list.get(i)),
            _ => None,
        };
        value = inner.ok_or_else(|| {
            let (fields, all): (Vec<String>, _) = match value {
                Value::Object(object) => (object.keys().take(TOLD).cloned().collect(), object.len()),
                Value::Array(list) => ((0..list.len().min(TOLD)).map(|i| i.to_string()).collect(), list.len()),
                _ => (Vec::new(), 0),
            };
            Missing::Field {
                reference: reference.clone(),
                field: field.clone(),
                more: all - fields.len(),
                fields,
            }
        })?;
    }
    Ok(value)
}

/// What is left of so many bytes once a value is written as text, about, without writing it.
fn spend(value: &Value, left: usize) -> Option<usize> {
    match value {
        Value::Null | Value::Bool(_) => left.checked_sub(5),
        Value::Number(_) => left.checked_sub(24),
        Value::String(text) => left.checked_sub(text.len() + 2),
        Value::Array(list) => {
            let left = left.checked_sub(list.len() + 2)?;
            list.iter().try_fold(left, |left, v| spend(v, left))
        }
        Value::Object(object) => {
            let left = left.checked_sub(2)?;
            let mut fields = object.iter();
            fields.try_fold(left, |left, (k, v)| spend(v, left.checked_sub(k.len() + 4)?))
        }
    }
}

/// A JSON value whose strings are templates.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// Null, a boolean or a number.
    Plain(Value),
    /// A string.
    Text(Template),
    /// A list.
    List(Vec<Json>),
    /// An object, in its order. Keys are no templates.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads every string of a value.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn parse(value: &Value) -> Result<Self, Malformed> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(text)?),
            Value::Array(list) => Self::List(list.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(object) => Self::Object(
                object
                    .iter()
                    .map(|(k, v)| Ok((k.clone(), Self::parse(v)?)))
                    .collect::<Result<_, Malformed>>()?,
            ),
            plain => Self::Plain(plain.clone()),
        })
    }

    /// Every reference, in order.
    #[must_use]
    pub fn references(&self) -> Vec<&Reference> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Text(template) => template.references().collect(),
            Self::List(list) => list.iter().flat_map(Self::references).collect(),
            Self::Object(object) => object.iter().flat_map(|(_, v)| v.references()).collect(),
        }
    }

    /// As [`Template::fits`], for every string of the value.
    #[must_use]
    pub fn fits<'a>(&self, output: &impl Fn(&str) -> Option<&'a Value>, most: usize) -> bool {
        self.spend(output, most).is_some()
    }

    fn spend<'a>(&self, output: &impl Fn(&str) -> Option<&'a Value>, left: usize) -> Option<usize> {
        match self {
            Self::Plain(value) => spend(value, left),
            Self::Text(template) => template.spend(output, left),
            Self::List(list) => list.iter().try_fold(left, |left, v| v.spend(output, left)),
            Self::Object(object) => {
                let mut fields = object.iter();
                fields.try_fold(left, |left, (k, v)| v.spend(output, left.checked_sub(k.len())?))
            }
        }
    }

    /// The value with its references filled.
    ///
    /// # Errors
    /// When a node or a field is not there.
    pub fn fill<'a>(&self, output: &impl Fn(&str) -> Option<&'a Value>) -> Result<Value, Missing> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => template.fill(output)?,
            Self::List(list) => Value::Array(list.iter().map(|v| v.fill(output)).collect::<Result<_, _>>()?),
            Self::Object(object) => {
                let fields = object.iter().map(|(k, v)| Ok((k.clone(), v.fill(output)?)));
                Value::Object(fields.collect::<Result<Map<_, _>, Missing>>()?)
            }
        })
    }

    /// The value with its references as they are written.
    #[must_use]
    pub fn written(&self) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => Value::String(template.to_string()),
            Self::List(list) => Value::Array(list.iter().map(Self::written).collect()),
            Self::Object(object) => Value::Object(object.iter().map(|(k, v)| (k.clone(), v.written())).collect()),
        }
    }
}

#[cfg(test)]
mod tests;
