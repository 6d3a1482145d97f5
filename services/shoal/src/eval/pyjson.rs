//! JSON as Python's `json.loads` reads it.
//!
//! score.py defines the metrics, so a file must be read the way Python reads it: `NaN` and `Infinity` are numbers, integers
//! have any length (up to 4,300 digits), a lone surrogate is a character, the last of two equal keys wins, and nesting ends
//! where Python's recursion limit ends it. `serde_json` differs in each of these.
use std::collections::HashMap;

/// A JSON value with Python's types.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of any size, in canonical decimal digits.
    Int(String),
    /// A float; may be infinite or not a number.
    Float(f64),
    /// Text. A lone surrogate U+D800..U+DFFF is kept as U+10D800..U+10DFFF (private use), because Rust text has no surrogates.
    Str(String),
    /// A list.
    List(Vec<Value>),
    /// An object in order of first mention, keys unique.
    Dict(Vec<(String, Value)>),
}

/// Not JSON in Python's eyes: `json.loads` would raise `ValueError` or `RecursionError`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message} at byte {at}")]
pub struct Error {
    /// What is wrong.
    pub message: &'static str,
    /// Where.
    pub at: usize,
}

/// Containers inside each other at most: CPython 3.11's default recursion limit of 1,000 less the frames that score.py itself
/// and the json package stand on. It matters only for a row that nests about a thousand deep.
const MAX_NESTING: usize = 994;

/// `sys.get_int_max_str_digits()`.
const MAX_INTEGER_DIGITS: usize = 4300;

impl Value {
    /// The value of a key, if this is an object that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Dict(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Python's `bool(v)`.
    #[must_use]
    pub fn truthy(&self) -> bool {
        match self {
            Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(digits) => digits != "0",
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Dict(entries) => !entries.is_empty(),
        }
    }

    /// Python's `a == b`: numbers of different types are compared by value, objects without regard to order.
    #[must_use]
    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::None, Value::None) => true,
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.equals(y)),
            (Value::Dict(a), Value::Dict(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| other.get(k).is_some_and(|w| v.equals(w)))
            }
            (Value::Int(a), Value::Int(b)) => a == b,
            _ => matches!((self.number(), other.number()), (Some(a), Some(b)) if a == b),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Int(digits) => digits.parse().ok(),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }

    /// Whether anything lies more than 50 levels down, the value itself being level 0: score.py takes such an output as missing.
    #[must_use]
    pub fn too_deep(&self) -> bool {
        fn deep(v: &Value, level: usize) -> bool {
            level > 50
                || match v {
                    Value::List(items) => items.iter().any(|x| deep(x, level + 1)),
                    Value::Dict(entries) => entries.iter().any(|(_, x)| deep(x, level + 1)),
                    _ => false,
                }
        }
        deep(self, 0)
    }
}

impl From<&serde_json::Value> for Value {
    fn from(v: &serde_json::Value) -> Self {
        match v {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) if n.is_f64() => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::Number(n) => Value::Int(n.to_string()),
            serde_json::Value::String(s) => Value::Str(s.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Value::from).collect()),
            serde_json::Value::Object(map) => Value::Dict(map.iter().map(|(k, v)| (k.clone(), v.into())).collect()),
        }
    }
}

/// Reads one JSON text.
///
/// # Errors
/// Where Python's `json.loads` raises.
pub fn parse(text: &str) -> Result<Value, Error> {
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        nesting: 0,
    };
    parser.space();
    let value = parser.value()?;
    parser.space();
    if parser.at < parser.bytes.len() {
        Err(parser.error("extra data"))
    } else {
        Ok(value)
    }
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    nesting: usize,
}

impl Parser<'_> {
    fn error(&self, message: &'static str) -> Error {
        Error { message, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self) -> Result<Value, Error> {
        match self.peek() {
            Some(b'"') => Ok(Value::Str(self.string()?)),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'n') if self.take("null") => Ok(Value::None),
            Some(b't') if self.take("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.take("false") => Ok(Value::Bool(false)),
            Some(b'N') if self.take("NaN") => Ok(Value::Float(f64::NAN)),
            Some(b'I') if self.take("Infinity") => Ok(Value::Float(f64::INFINITY)),
            Some(b'-') if self.take("-Infinity") => Ok(Value::Float(f64::NEG_INFINITY)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.error("expecting value")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Error>) -> Result<Value, Error> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.error("maximum recursion depth exceeded"));
        }
        self.at += 1;
        let value = read(self);
        self.nesting -= 1;
        value
    }

    fn array(&mut self) -> Result<Value, Error> {
        let mut items = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            items.push(self.value()?);
            self.space();
            if self.take("]") {
                return Ok(Value::List(items));
            }
            if !self.take(",") {
                return Err(self.error("expecting ',' delimiter"));
            }
        }
    }

    fn object(&mut self) -> Result<Value, Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        self.space();
        if self.take("}") {
            return Ok(Value::Dict(entries));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("expecting property name enclosed in double quotes"));
            }
            let key = self.string()?;
            self.space();
            if !self.take(":") {
                return Err(self.error("expecting ':' delimiter"));
            }
            self.space();
            let value = self.value()?;
            if let Some(place) = places.get(&key) {
                entries[*place].1 = value;
            } else {
                places.insert(key.clone(), entries.len());
                entries.push((key, value));
            }
            self.space();
            if self.take("}") {
                return Ok(Value::Dict(entries));
            }
            if !self.take(",") {
                return Err(self.error("expecting ',' delimiter"));
            }
        }
    }

    fn number(&mut self) -> Result<Value, Error> {
        let start = self.at;
        let negative = self.take("-");
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => {
                return Err(Error {
                    message: "expecting value",
                    at: start,
                });
            }
        }
        let integer_end = self.at;
        if self.peek() == Some(b'.') && self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.bytes.get(self.at + 1), Some(b'+' | b'-')));
            if self.bytes.get(self.at + 1 + sign).is_some_and(u8::is_ascii_digit) {
                self.at += 1 + sign;
                self.digits();
            }
        }
        let text = &self.text[start..self.at];
        if self.at > integer_end {
            return Ok(Value::Float(text.parse().map_err(|_| self.error("not a number"))?));
        }
        if self.at - start - usize::from(negative) > MAX_INTEGER_DIGITS {
            return Err(self.error("integer of more than 4300 digits"));
        }
        Ok(Value::Int(if text == "-0" { "0".into() } else { text.into() }))
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|b| b != b'"' && b != b'\\' && b >= 0x20) {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.error("invalid control character")),
                None => return Err(self.error("unterminated string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        self.at += 1;
        let kind = self.peek().ok_or_else(|| self.error("unterminated string"))?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                let resume = self.at;
                if (0xD800..0xDC00).contains(&first) && self.take("\\u") {
                    match self.hex() {
                        Ok(second) if (0xDC00..0xE000).contains(&second) => {
                            return Ok(astral(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)));
                        }
                        _ => self.at = resume,
                    }
                }
                if (0xD800..0xE000).contains(&first) {
                    astral(0x10_0000 + first)
                } else {
                    astral(first)
                }
            }
            _ => return Err(self.error("invalid escape")),
        })
    }

    fn hex(&mut self) -> Result<u32, Error> {
        let digits = self
            .bytes
            .get(self.at..self.at + 4)
            .filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.ok_or_else(|| self.error("invalid \\uXXXX escape"))?;
        self.at += 4;
        Ok(digits
            .iter()
            .fold(0, |n, d| n * 16 + char::from(*d).to_digit(16).unwrap_or(0)))
    }
}

/// The character of a code point that is known not to be a surrogate.
fn astral(code: u32) -> char {
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}
