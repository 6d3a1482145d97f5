//! One line of plan text.
use super::Garbled;
use crate::{
    graph::{Kind, Node},
    integers,
    reference::{Json, Template},
};
use serde_json::Value;
use std::collections::HashSet;

/// Characters of a line that an error repeats at most.
const SHOWN: usize = 40;

/// Parses a line that must be step `number`; `line` is for errors.
///
/// # Errors
/// With the column and what was expected there.
pub fn step(text: &str, line: usize, number: usize) -> Result<Node, Garbled> {
    let mut cursor = Cursor { text, at: 0, line };
    cursor.skip_blanks();
    let digits = cursor.take_while(|c| c.is_ascii_digit());
    if digits.parse() != Ok(number) {
        cursor.at -= digits.len();
        return Err(cursor.expected(&format!("step number `{number}.`")));
    }
    cursor.take(". ", "`. ` after the step number")?;
    let name = cursor.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if name.is_empty() {
        return Err(cursor.expected("`task: text` or `Service.Method(name=\"value\")`"));
    }
    let node = if cursor.rest().starts_with(':') {
        cursor.at += 1;
        cursor.skip_blanks();
        let start = cursor.at;
        let input = cursor.rest().trim_end();
        if input.is_empty() {
            return Err(cursor.expected("the task's text"));
        }
        let input = Template::parse(input).map_err(|error| cursor.garbled(start, error.to_string()))?;
        checked(&cursor, start, input.references().map(|r| r.node.as_str()), number)?;
        Node::new(
            number.to_string(),
            Kind::Model {
                task: name.to_owned(),
                input,
            },
        )
    } else {
        cursor.take("(", "`:` or `(` after the name")?;
        let arguments = Json::Object(arguments(&mut cursor, number)?);
        cursor.skip_blanks();
        if !cursor.rest().is_empty() {
            return Err(cursor.expected("the end of the line"));
        }
        Node::new(
            number.to_string(),
            Kind::Tool {
                name: name.to_owned(),
                arguments,
            },
        )
    };
    Ok(node)
}

/// `name=value, name=value)`.
fn arguments(cursor: &mut Cursor<'_>, number: usize) -> Result<Vec<(String, Json)>, Garbled> {
    let mut fields: Vec<(String, Json)> = Vec::new();
    let mut taken = HashSet::new();
    cursor.skip_blanks();
    if cursor.rest().starts_with(')') {
        cursor.at += 1;
        return Ok(fields);
    }
    loop {
        cursor.skip_blanks();
        let start = cursor.at;
        let name = cursor.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        if name.is_empty() {
            return Err(cursor.expected("an argument's name"));
        }
        if !taken.insert(name) {
            return Err(cursor.garbled(start, format!("argument `{name}` is given twice")));
        }
        cursor.take("=", "`=` after the argument's name")?;
        fields.push((name.to_owned(), value(cursor, number)?));
        cursor.skip_blanks();
        if cursor.rest().starts_with(')') {
            cursor.at += 1;
            return Ok(fields);
        }
        cursor.take(",", "`,` or `)` after a value")?;
    }
}

/// `$1.field`, or a JSON value.
fn value(cursor: &mut Cursor<'_>, number: usize) -> Result<Json, Garbled> {
    let start = cursor.at;
    let json = if cursor.rest().starts_with('$') {
        cursor.at += 1;
        let inner = cursor.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        let template =
            Template::parse(&format!("${{{inner}}}")).map_err(|error| cursor.garbled(start, error.to_string()))?;
        Json::Text(template)
    } else {
        let value = if cursor.rest().starts_with(['"', '[', '{']) {
            let mut values = serde_json::Deserializer::from_str(cursor.rest()).into_iter::<Value>();
            let value = values.next();
            cursor.at += values.byte_offset();
            value.unwrap_or(Ok(Value::Null))
        } else {
            // A stream of values wants a blank after a bare one; here it ends at the comma or the bracket.
            match cursor.take_while(|c| !matches!(c, ',' | ')' | ' ' | '\t')) {
                "" => return Err(cursor.expected("a value")),
                bare => serde_json::from_str(bare),
            }
        };
        let value = value.map_err(|error| cursor.garbled(start, format!("no JSON value and no reference: {error}")))?;
        integers::fit(&cursor.text[start..cursor.at]).map_err(|error| cursor.garbled(start, error.to_string()))?;
        Json::parse(&value).map_err(|error| cursor.garbled(start, error.to_string()))?
    };
    checked(
        cursor,
        start,
        json.references().into_iter().map(|r| r.node.as_str()),
        number,
    )?;
    Ok(json)
}

/// A reference reaches only an earlier step.
fn checked<'a>(
    cursor: &Cursor<'_>,
    at: usize,
    mut nodes: impl Iterator<Item = &'a str>,
    number: usize,
) -> Result<(), Garbled> {
    match nodes.find(|node| {
        !node
            .parse::<usize>()
            .is_ok_and(|n| (1..number).contains(&n) && n.to_string() == **node)
    }) {
        Some(node) => Err(cursor.garbled(
            at,
            format!("step {number} refers to `{node}`; a reference reaches only an earlier step"),
        )),
        None => Ok(()),
    }
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blanks(&mut self) {
        self.take_while(|c| c == ' ' || c == '\t');
    }

    fn take(&mut self, token: &str, what: &str) -> Result<(), Garbled> {
        if !self.rest().starts_with(token) {
            return Err(self.expected(what));
        }
        self.at += token.len();
        Ok(())
    }

    fn expected(&self, what: &str) -> Garbled {
        let shown: String = self.rest().chars().take(SHOWN).collect();
        let found = if shown.is_empty() {
            "the line ends".to_owned()
        } else {
            format!("here stands `{shown}`")
        };
        self.garbled(self.at, format!("expected {what}, {found}"))
    }

    fn garbled(&self, at: usize, message: String) -> Garbled {
        Garbled {
            line: self.line,
            column: self.text[..at].chars().count() + 1,
            message,
        }
    }
}
