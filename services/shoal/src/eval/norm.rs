//! Python's `str(v)` and score.py's `norm(v)`.
use std::{collections::BTreeMap, fmt::Write as _};

use super::pyjson::Value;

/// A value as score.py compares it: every leaf is text, lowercased, white space collapsed, end punctuation dropped.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Norm {
    /// A leaf.
    Text(String),
    /// A list keeps its order.
    List(Vec<Norm>),
    /// An object does not.
    Map(BTreeMap<String, Norm>),
}

/// score.py's `norm`.
#[must_use]
pub fn norm(v: &Value) -> Norm {
    match v {
        Value::Dict(entries) => Norm::Map(entries.iter().map(|(k, x)| (k.clone(), norm(x))).collect()),
        Value::List(items) => Norm::List(items.iter().map(norm).collect()),
        leaf => Norm::Text(text(&str_of(leaf))),
    }
}

/// `norm` of a string.
#[must_use]
pub fn text(s: &str) -> String {
    let lower = s.to_lowercase();
    let mut out = String::with_capacity(lower.len());
    for word in lower.split(is_space).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out.truncate(out.trim_end_matches([' ', '.', '?', '!', ',']).len());
    out
}

/// What `str.split()` splits at: Unicode white space and the four information separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str(v)`.
#[must_use]
pub fn str_of(v: &Value) -> String {
    match v {
        Value::Str(s) => s.clone(),
        Value::None => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Int(digits) => digits.clone(),
        Value::Float(f) => float(*f),
        Value::List(items) => {
            let inner: Vec<String> = items.iter().map(repr).collect();
            format!("[{}]", inner.join(", "))
        }
        Value::Dict(entries) => {
            let inner: Vec<String> = entries
                .iter()
                .map(|(k, x)| format!("{}: {}", quoted(k), repr(x)))
                .collect();
            format!("{{{}}}", inner.join(", "))
        }
    }
}

fn repr(v: &Value) -> String {
    match v {
        Value::Str(s) => quoted(s),
        other => str_of(other),
    }
}

/// `repr` of a string: single quotes unless it holds some and no double ones; what cannot be printed is escaped.
fn quoted(s: &str) -> String {
    let quote = if s.contains('\'') && !s.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in s.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                // A lone surrogate, as `pyjson` keeps it, is escaped by its own number.
                let code = if (0x10_D800..0x10_E000).contains(&code) {
                    code - 0x10_0000
                } else {
                    code
                };
                let _ = match code {
                    0..=0xFF => write!(out, "\\x{code:02x}"),
                    0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// Python's `str.isprintable` of one character, by the table behind Rust's own `{:?}` (the same categories; a code point that
/// one of the two languages' Unicode versions does not know yet may differ).
fn printable(c: char) -> bool {
    if c == ' ' || matches!(c, '"' | '\'') {
        return true;
    }
    // After another character, `{:?}` leaves a combining mark alone, as Python does.
    !c.is_whitespace() && format!("{:?}", format!("a{c}")) == format!("\"a{c}\"")
}

/// `repr` of a float: the shortest digits that read back, as Rust's, but an exponent has a sign and two digits.
#[must_use]
pub fn float(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let text = format!("{f:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}
