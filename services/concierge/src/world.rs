//! What was recorded, and what it answers.
//!
//! A query gives its first recorded row that equals every argument. A transaction gives its recorded row if there is one;
//! else its arguments, merged into the first row of another method of its service that agrees with them (the row that they came
//! from); and where its service has no other method, its arguments alone: an order is confirmed as it was given.
//! Values are compared lower-cased with white space collapsed; "dontcare" agrees with everything.
use anyhow::Context as _;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead as _, BufReader, Read},
    path::Path,
};

/// Verbs of methods that change the world. GetRide orders a cab, though its name sounds like a question.
const TRANSACTIONS: [&str; 9] = [
    "Reserve", "Book", "Buy", "Schedule", "Add", "Transfer", "Rent", "Play", "GetRide",
];

/// A value that agrees with everything.
const ANY: &str = "dontcare";

#[derive(Debug, Deserialize)]
struct Service {
    description: String,
    slots: BTreeMap<String, Slot>,
    methods: BTreeMap<String, Method>,
}

#[derive(Debug, Deserialize)]
struct Slot {
    description: String,
    values: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Method {
    description: String,
    required: Vec<String>,
    optional: Map<String, Value>,
    returns: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Recorded {
    service: String,
    method: String,
    result: Map<String, Value>,
}

/// One recorded row, and its values as they are compared.
#[derive(Debug)]
struct Row {
    result: Map<String, Value>,
    folded: HashMap<String, String>,
}

/// Why a call has no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such tool.
    Unknown,
    /// The arguments break the method's schema: (argument, what is wrong).
    Invalid(Vec<(String, String)>),
    /// Nothing recorded fits.
    NoMatch,
}

/// A tool as it is listed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// "Service.Method".
    pub name: String,
    /// One line.
    pub description: String,
    /// JSON Schema of the arguments.
    pub input: Value,
    /// JSON Schema of the result.
    pub output: Value,
    /// Whether a second call changes nothing more.
    pub idempotent: bool,
}

/// Every service and every row.
#[derive(Debug)]
pub struct World {
    services: BTreeMap<String, Service>,
    rows: HashMap<(String, String), Vec<Row>>,
}

impl World {
    /// Reads `services.json` and the rows (JSON lines, gzipped if the name ends in .gz).
    ///
    /// # Errors
    /// With file and line.
    pub fn load(services: &Path, results: &Path) -> anyhow::Result<Self> {
        let open = |path: &Path| File::open(path).with_context(|| format!("cannot read {}", path.display()));
        let services =
            serde_json::from_reader(BufReader::new(open(services)?)).with_context(|| services.display().to_string())?;
        let gzipped = results.extension().is_some_and(|e| e == "gz");
        let file = open(results)?;
        let reader: Box<dyn Read> = if gzipped {
            Box::new(GzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let mut world = Self {
            services,
            rows: HashMap::new(),
        };
        for (number, line) in BufReader::with_capacity(1 << 16, reader).lines().enumerate() {
            let place = || format!("{}:{}", results.display(), number + 1);
            let line = line.with_context(place)?;
            if !line.trim().is_empty() {
                world.record(serde_json::from_str(&line).with_context(place)?);
            }
        }
        Ok(world)
    }

    fn record(&mut self, recorded: Recorded) {
        let folded = recorded
            .result
            .iter()
            .map(|(slot, value)| (slot.clone(), fold(value)))
            .collect();
        let row = Row {
            result: recorded.result,
            folded,
        };
        self.rows
            .entry((recorded.service, recorded.method))
            .or_default()
            .push(row);
    }

    /// How many services there are.
    #[must_use]
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }

    /// Every tool.
    #[must_use]
    pub fn tools(&self) -> Vec<Listed> {
        let each = |name: &str, service: &Service, method: &str, m: &Method| Listed {
            name: format!("{name}.{method}"),
            description: format!("{} ({})", m.description, service.description),
            input: input_schema(service, m),
            output: json!({"type": "object", "properties": properties(service, m.returns.iter())}),
            idempotent: !is_transaction(method),
        };
        self.services
            .iter()
            .flat_map(|(name, s)| s.methods.iter().map(move |(method, m)| each(name, s, method, m)))
            .collect()
    }

    /// Whether a second call of the tool changes something more.
    #[must_use]
    pub fn is_transaction(tool: &str) -> bool {
        is_transaction(tool.split_once('.').map_or("", |(_, method)| method))
    }

    /// Answers a call.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn answer(&self, tool: &str, arguments: &Map<String, Value>) -> Result<Value, Refusal> {
        let (service, method) = tool.split_once('.').ok_or(Refusal::Unknown)?;
        let about = self.services.get(service).ok_or(Refusal::Unknown)?;
        check(about.methods.get(method).ok_or(Refusal::Unknown)?, arguments)?;
        let wanted: Vec<(&str, String)> = arguments
            .iter()
            .map(|(slot, value)| (slot.as_str(), fold(value)))
            .filter(|(_, value)| value != ANY)
            .collect();
        let key = |method: &str| (service.to_owned(), method.to_owned());
        let own = self.rows.get(&key(method)).into_iter().flatten();
        if let Some(row) = own.clone().find(|row| row.agrees(&wanted, true)) {
            return Ok(Value::Object(row.result.clone()));
        }
        if !is_transaction(method) {
            return Err(Refusal::NoMatch);
        }
        let others: Vec<&String> = about
            .methods
            .keys()
            .filter(|other| *other != method && !is_transaction(other))
            .collect();
        if others.is_empty() {
            return Ok(Value::Object(arguments.clone()));
        }
        let came_from = others
            .iter()
            .flat_map(|other| self.rows.get(&key(other)).into_iter().flatten())
            .find(|row| row.agrees(&wanted, false));
        let mut merged = came_from.ok_or(Refusal::NoMatch)?.result.clone();
        merged.extend(
            arguments
                .iter()
                .filter(|(_, v)| fold(v) != ANY)
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        Ok(Value::Object(merged))
    }
}

impl Row {
    /// Whether the row equals every wanted value; with `all`, a slot that the row lacks does not agree, else it is passed
    /// over, as long as one slot is shared.
    fn agrees(&self, wanted: &[(&str, String)], all: bool) -> bool {
        let mut shared = wanted.is_empty();
        for (slot, value) in wanted {
            match self.folded.get(*slot) {
                Some(recorded) if recorded == value => shared = true,
                Some(_) => return false,
                None if all => return false,
                None => {}
            }
        }
        shared
    }
}

fn is_transaction(method: &str) -> bool {
    TRANSACTIONS.iter().any(|verb| method.starts_with(verb))
}

fn fold(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.to_lowercase(),
        other => other.to_string().to_lowercase(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn check(method: &Method, arguments: &Map<String, Value>) -> Result<(), Refusal> {
    let known = |name: &String| method.required.contains(name) || method.optional.contains_key(name);
    let missing = method
        .required
        .iter()
        .filter(|name| !arguments.contains_key(*name))
        .map(|name| (name.clone(), "is required".to_owned()));
    let unknown = arguments.keys().filter(|name| !known(name)).map(|name| {
        let there: Vec<&str> = method
            .required
            .iter()
            .chain(method.optional.keys())
            .map(String::as_str)
            .collect();
        (
            name.clone(),
            format!("is no parameter; there are: {}", there.join(", ")),
        )
    });
    let shape = arguments
        .iter()
        .filter(|(name, value)| known(name) && !(value.is_string() || value.is_number() || value.is_boolean()))
        .map(|(name, _)| (name.clone(), "must be a string".to_owned()));
    let faults: Vec<_> = missing.chain(unknown).chain(shape).collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Refusal::Invalid(faults))
    }
}

fn properties<'a>(service: &Service, slots: impl Iterator<Item = &'a String>) -> Value {
    let one = |slot: &String| match service.slots.get(slot) {
        Some(about) if about.values.is_empty() => json!({"type": "string", "description": about.description}),
        Some(about) => json!({"type": "string", "description": about.description, "examples": about.values}),
        None => json!({"type": "string"}),
    };
    Value::Object(slots.map(|slot| (slot.clone(), one(slot))).collect())
}

fn input_schema(service: &Service, method: &Method) -> Value {
    json!({
        "type": "object",
        "properties": properties(service, method.required.iter().chain(method.optional.keys())),
        "required": method.required,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests;
