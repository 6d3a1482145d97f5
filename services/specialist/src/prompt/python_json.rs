//! JSON as Python's `json.dumps(x, ensure_ascii=False)` writes it, spaces after `,` and `:` included: models were trained on
//! prompts written that way, and another spacing is other tokens. Not covered: integers over 64 bits, which arrive here as
//! floats.
use minijinja::{
    Error, ErrorKind, Value,
    value::{Kwargs, ValueKind},
};
use std::fmt::Write as _;

/// Nesting of a value: JSON from the wire is bounded at 128 by its parser.
const DEPTH: usize = 256;

/// The `tojson` filter of transformers' chat templates: `indent` is the one option read, others are passed over.
pub(super) fn filter(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = String::new();
    dump(value, indent, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

fn dump(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    let refuse = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    if depth > DEPTH {
        return Err(refuse(format!("a value nested over {DEPTH} deep")));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => {
            let _ = write!(out, "{value}");
        }
        ValueKind::Number => float(f64::try_from(value.clone())?, out),
        ValueKind::String => string(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            nest('[', ']', items.len(), indent, depth, out, |i, out| {
                dump(&items[i], indent, depth + 1, out)
            })?;
        }
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter()?.collect();
            nest('{', '}', keys.len(), indent, depth, out, |i, out| {
                string(&keys[i].to_string(), out);
                out.push_str(": ");
                dump(&value.get_item(&keys[i])?, indent, depth + 1, out)
            })?;
        }
        other => return Err(refuse(format!("a value of kind {other} is no JSON"))),
    }
    Ok(())
}

fn nest(
    open: char,
    close: char,
    items: usize,
    indent: Option<usize>,
    depth: usize,
    out: &mut String,
    mut item: impl FnMut(usize, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let newline = |depth: usize, out: &mut String| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    out.push(open);
    for i in 0..items {
        if i > 0 {
            out.push_str(if indent.is_some() { "," } else { ", " });
        }
        newline(depth + 1, out);
        item(i, out)?;
    }
    if items > 0 {
        newline(depth, out);
    }
    out.push(close);
    Ok(())
}

/// Python's repr: the same shortest digits as Rust's, and an exponent from the same sizes on, with its sign and two digits.
fn float(number: f64, out: &mut String) {
    let text = format!("{number:?}");
    match text.split_once('e') {
        _ if number.is_nan() => out.push_str("NaN"),
        _ if number.is_infinite() => out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" }),
        None => out.push_str(&text),
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
        }
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
