//! JSON Schemas that others wrote: compiled once, checked often, never followed out of this process.
use jsonschema::PatternOptions;
use serde_json::Value;
use std::fmt;

mod weight;
mod work;
pub(crate) use weight::Allowance;
use weight::Author;

/// Breaches that a message tells; the rest would only be noise to whoever mends the first ones.
const TOLD: usize = 3;

/// Bytes of one compiled pattern, and of what its engine keeps while it looks. What people write, dates and ids and names, takes a
/// tenth of it; a letter of any script takes some 30 KiB, and two hundred of them in a row megabytes and a quarter of a second.
const PATTERN_BYTES: usize = 256 << 10;

/// A compiled schema.
pub(crate) struct Schema {
    value: Value,
    validator: jsonschema::Validator,
    recursive: bool,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.value)
    }
}

impl Schema {
    /// Reads and compiles one of a tool server or a model that mesh.toml names. References to other documents are refused, so are schemas
    /// that multiply themselves by references, and patterns run on an engine without backtracking.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        let value = json(text)?;
        let recursive = weight::bounded(&value, Author::Operator)?.recursive;
        Self::built(value, PatternOptions::regex(), recursive)
    }

    /// Reads and compiles one of several that came together from anybody who may send a plan: as [`Schema::compile`], and patterns that take
    /// much memory are refused.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn within(allowance: &mut Allowance, text: &str) -> Result<Self, String> {
        let value = json(text)?;
        let weighed = weight::bounded(&value, Author::Anybody)?;
        allowance.take(weighed.weight)?;
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES);
        Self::built(value, patterns, weighed.recursive)
    }

    fn built(value: Value, patterns: PatternOptions<jsonschema::Regex>, recursive: bool) -> Result<Self, String> {
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .build(&value)
            .map_err(|e| format!("is no JSON Schema: {e}"))?;
        Ok(Self {
            value,
            validator,
            recursive,
        })
    }

    /// The schema itself.
    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// Whether `instance` satisfies it.
    ///
    /// # Errors
    /// The first breaches, each with its place; or that a schema that refers to itself would take too long to tell.
    pub(crate) fn check(&self, instance: &Value) -> Result<(), String> {
        if self.recursive {
            work::bounded(&self.value, instance)?;
        }
        let breaches: Vec<String> = self
            .validator
            .iter_errors(instance)
            .take(TOLD)
            .map(|e| {
                let place = e.instance_path().to_string();
                let at = if place.is_empty() { "the value" } else { place.as_str() };
                let said: String = e.to_string().chars().take(200).collect();
                format!("{at}: {said}")
            })
            .collect();
        if breaches.is_empty() {
            Ok(())
        } else {
            Err(breaches.join("; "))
        }
    }

    /// Names of an object schema's properties, in its order.
    pub(crate) fn properties(&self) -> Vec<String> {
        let properties = self.value.get("properties").and_then(Value::as_object);
        properties.map(|p| p.keys().cloned().collect()).unwrap_or_default()
    }
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| format!("is no JSON: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_breach_is_told_with_its_place() {
        let schema = Schema::compile(r#"{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}"#)
            .expect("schema");
        assert!(schema.check(&json!({"n": 1})).is_ok());
        assert!(schema.check(&json!({"n": "x"})).expect_err("wrong").contains("/n"));
        assert!(schema.check(&json!({})).expect_err("missing").contains("the value"));
        assert_eq!(schema.properties(), ["n"]);
    }

    #[test]
    fn what_is_no_schema_or_points_elsewhere_is_refused() {
        assert!(Schema::compile("{").expect_err("text").contains("no JSON"));
        assert!(Schema::compile(r#"{"type": 7}"#).is_err());
        assert!(Schema::compile(r#"{"$ref": "http://example.com/x.json"}"#).is_err());
        // A pattern that takes a backtracking engine for ever is linear here.
        let slow = Schema::compile(r#"{"type":"string","pattern":"^(a+)+$"}"#).expect("schema");
        assert!(slow.check(&json!(format!("{}!", "a".repeat(50_000)))).is_err());
    }

    #[test]
    fn patterns_that_take_much_memory_are_refused_at_once_and_a_date_is_not() {
        let alone = |text: &str| Schema::within(&mut Allowance::default(), text);
        let date = alone(r#"{"type":"string","pattern":"^\\d{4}-\\d{2}-\\d{2}$"}"#).expect("a date");
        assert!(date.check(&json!("2024-02-29")).is_ok() && date.check(&json!("soon")).is_err());
        alone(r#"{"pattern":"^\\p{Lu}[\\p{L}' -]*$"}"#).expect("a name");
        let many = |n: usize, pattern: &dyn Fn(usize) -> String| {
            let properties: serde_json::Map<_, _> = (0..n)
                .map(|i| (format!("p{i}"), json!({"pattern": pattern(i)})))
                .collect();
            json!({"properties": properties}).to_string()
        };
        let began = std::time::Instant::now();
        assert!(alone(&many(60, &|i| format!("\\p{{L}}{{200}}{i}"))).is_err());
        assert!(alone(&many(2000, &|i| format!("[a-z]{{9}}{i}"))).is_err());
        assert!(alone(&many(1, &|_| "\\p{L}".repeat(100_000))).is_err());
        // Sixty of these took fifteen seconds.
        assert!(
            began.elapsed() < std::time::Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        alone(&many(60, &|i| format!("[a-z]{{9}}{i}"))).expect("sixty small ones");
        // Whom mesh.toml names may write more.
        Schema::compile(&many(200, &|i| format!("[a-z]{{9}}{i}"))).expect("a tool's");
        Schema::compile(r#"{"pattern":"^\\p{L}{1,64}$"}"#).expect("a tool's");
    }

    #[test]
    fn schemas_that_come_together_share_what_they_may_weigh() {
        let mut allowance = Allowance::default();
        let one = json!({"enum": (0..40_000).collect::<Vec<_>>()}).to_string();
        let fit = (0..100)
            .take_while(|_| Schema::within(&mut allowance, &one).is_ok())
            .count();
        assert!((2..20).contains(&fit), "{fit}");
    }

    #[test]
    fn what_a_schema_that_refers_to_itself_would_take_days_to_check_is_refused_at_once() {
        let on = json!({"properties": {"a": {"$ref": "#/$defs/s"}}});
        let text = json!({"$ref": "#/$defs/s", "$defs": {"s": {"allOf": [on, on]}}}).to_string();
        let schema = Schema::within(&mut Allowance::default(), &text).expect("schema");
        let nested = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"a": inner}));
        assert_eq!(schema.check(&nested(10)), Ok(()));
        assert!(schema.check(&nested(40)).is_err());
    }

    /// A schema whose every level of an instance is some sixty of its own, and an instance of so many.
    fn deep(levels: usize) -> (Schema, Value) {
        let wrap = |inner: Value| (0..30).fold(inner, |inner, _| json!({"allOf": [inner]}));
        let on = wrap(json!({"properties": {"a": {"$ref": "#"}}}));
        let mut whole = wrap(json!({"$ref": "#/$defs/on"}));
        whole["$defs"] = json!({"on": on});
        let schema = Schema::within(&mut Allowance::default(), &whole.to_string()).expect("schema");
        (schema, (0..levels).fold(json!({}), |inner, _| json!({"a": inner})))
    }

    #[test]
    fn the_deepest_way_through_a_schema_that_is_taken_fits_a_workers_stack() {
        let (schema, fits) = deep(12);
        assert_eq!(schema.check(&fits), Ok(()));
        let (schema, deeper) = deep(120);
        assert!(schema.check(&deeper).expect_err("deep").contains("levels"));
    }

    #[test]
    fn a_schema_that_refers_to_itself_without_end_ends() {
        for text in [
            r##"{"$ref": "#"}"##,
            r##"{"allOf": [{"$ref": "#"}]}"##,
            r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##,
            r##"{"not": {"$ref": "#"}}"##,
            r##"{"anyOf": [{"$ref": "#"}, {"type": "string"}]}"##,
            r##"{"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}]}"##,
            r##"{"if": {"$ref": "#"}, "then": true}"##,
        ] {
            eprintln!("{text}");
            if let Ok(schema) = Schema::compile(text) {
                drop(schema.check(&json!({"a": [1, 2]})));
            }
        }
    }
}
