//! How much a schema is once its references are followed. Forty definitions of two references each are a trillion subschemas to a
//! validator, and a text of two kilobytes. A pattern is a program: it weighs by what it may take once it is compiled.
use serde_json::Value;
use std::collections::HashMap;

/// Subschemas at most, each counted as often as it is referred to: large schemas that people write have some thousands.
const WEIGHT: u64 = 50_000;

/// What the schemas of one request may weigh together: as many as a plan has nodes by default, each with a pattern or two.
const TOGETHER: u64 = 6 * WEIGHT;

/// A pattern's weight, its text aside: what the largest that is taken holds of memory is what this many subschemas hold.
const PATTERN: u64 = 500;

/// Levels at most, references included: JSON itself may be nested 128 deep here, and a validator's stack is a thread's.
const DEPTH: usize = 256;

/// What schemas that come together may still weigh.
#[derive(Debug)]
pub(crate) struct Allowance(u64);

impl Default for Allowance {
    fn default() -> Self {
        Self(TOGETHER)
    }
}

impl Allowance {
    /// Takes a schema's weight off.
    ///
    /// # Errors
    /// When there is not so much left.
    pub(super) fn take(&mut self, weight: u64) -> Result<(), String> {
        self.0 = self.0.checked_sub(weight).ok_or_else(|| {
            format!(
                "has {weight} subschemas, and {} of {TOGETHER} are left to it beside the others that came with it; a pattern counts as {PATTERN} and its length",
                self.0
            )
        })?;
        Ok(())
    }
}

/// Who wrote a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// Anybody who may send a plan: its patterns weigh.
    Anybody,
    /// Who runs the mesh, or a tool server or model that mesh.toml names: its patterns are as any other text.
    Operator,
}

/// Its weight, if a validator can be expected to come to an end with it soon.
///
/// # Errors
/// In words.
pub(super) fn bounded(schema: &Value, author: Author) -> Result<u64, String> {
    let mut walk = Walk {
        root: schema,
        author,
        known: HashMap::new(),
    };
    let weight = walk.weigh(schema, 0)?;
    if weight > WEIGHT {
        return Err(format!(
            "has more than {WEIGHT} subschemas once its references are followed; a pattern counts as {PATTERN} and its length"
        ));
    }
    Ok(weight)
}

struct Walk<'a> {
    root: &'a Value,
    author: Author,
    /// By reference: its target's weight, or `None` while that is being weighed, which is a schema that contains itself.
    known: HashMap<&'a str, Option<u64>>,
}

impl<'a> Walk<'a> {
    /// A pattern's weight. A class of letters takes a kilobyte a byte to be read at all.
    fn pattern(&self, text: &str) -> u64 {
        match self.author {
            Author::Anybody => PATTERN.saturating_add(text.len().try_into().unwrap_or(u64::MAX)),
            Author::Operator => 1,
        }
    }

    fn weigh(&mut self, value: &'a Value, depth: usize) -> Result<u64, String> {
        if depth > DEPTH {
            return Err(format!(
                "is more than {DEPTH} levels deep once its references are followed"
            ));
        }
        let mut weight = 1u64;
        match value {
            Value::Array(list) => {
                for inner in list {
                    weight = weight.saturating_add(self.weigh(inner, depth + 1)?);
                }
            }
            Value::Object(object) => {
                for (key, inner) in object {
                    let more = match (key.as_str(), inner.as_str()) {
                        ("$ref" | "$dynamicRef" | "$recursiveRef", Some(reference)) => self.follow(reference, depth)?,
                        ("pattern", Some(text)) => self.pattern(text),
                        ("patternProperties", None) => {
                            let keys = inner.as_object().into_iter().flat_map(serde_json::Map::keys);
                            let patterns = keys.map(|key| self.pattern(key)).fold(0, u64::saturating_add);
                            patterns.saturating_add(self.weigh(inner, depth + 1)?)
                        }
                        _ => self.weigh(inner, depth + 1)?,
                    };
                    weight = weight.saturating_add(more);
                }
            }
            _ => {}
        }
        Ok(weight)
    }

    fn follow(&mut self, reference: &'a str, depth: usize) -> Result<u64, String> {
        match self.known.get(reference) {
            Some(Some(weight)) => return Ok(*weight),
            // It contains itself: how often is the instance's to say.
            Some(None) => return Ok(1),
            None => {}
        }
        let Some(target) = self.target(reference) else {
            return Err(format!(
                "refers to `{reference}`; only references like `#/$defs/name` are followed"
            ));
        };
        self.known.insert(reference, None);
        let weight = self.weigh(target, depth + 1)?;
        self.known.insert(reference, Some(weight));
        Ok(weight)
    }

    /// The value at a reference into this document, or this document for `#`.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        self.root.pointer(reference.strip_prefix('#')?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Definitions `a0` to `a{n}`, each of which refers to the next so often.
    fn chain(n: usize, times: usize) -> Value {
        let mut defs = serde_json::Map::new();
        for i in 0..n {
            let next = json!({"$ref": format!("#/$defs/a{}", i + 1)});
            defs.insert(format!("a{i}"), json!({"allOf": vec![next; times]}));
        }
        defs.insert(format!("a{n}"), json!({"type": "object"}));
        json!({"$defs": defs, "$ref": "#/$defs/a0"})
    }

    #[test]
    fn a_schema_that_multiplies_itself_or_is_a_long_way_down_is_refused_at_once() {
        assert!(bounded(&chain(10, 2), Author::Anybody).is_ok());
        assert!(
            bounded(&chain(40, 2), Author::Anybody)
                .expect_err("a trillion")
                .contains("subschemas")
        );
        assert!(
            bounded(&chain(3000, 1), Author::Anybody)
                .expect_err("deep")
                .contains("levels")
        );
    }

    #[test]
    fn a_pattern_weighs_what_hundreds_of_subschemas_do() {
        let patterns = |n: usize| json!({"anyOf": vec![json!({"pattern": "^a$"}); n]});
        let keys = |n: usize| json!({"patternProperties": (0..n).map(|i| (format!("^{i}$"), json!(true))).collect::<serde_json::Map<_, _>>()});
        for (few, many) in [(patterns(90), patterns(110)), (keys(90), keys(110))] {
            assert!(bounded(&few, Author::Anybody).is_ok());
            assert!(bounded(&many, Author::Anybody).expect_err("many").contains("pattern"));
        }
        assert!(bounded(&json!({"pattern": "a".repeat(50_000)}), Author::Anybody).is_err());
    }

    #[test]
    fn what_people_write_passes_and_what_points_elsewhere_does_not() {
        let tree = json!({"$defs": {"node": {"properties": {"left": {"$ref": "#/$defs/node"}, "right": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"});
        assert!(bounded(&tree, Author::Anybody).is_ok());
        assert!(
            bounded(&json!({"properties": {"$ref": {"type": "string"}}}), Author::Anybody).is_ok(),
            "a property of that name"
        );
        assert!(
            bounded(&json!({"$ref": "http://example.com/x"}), Author::Anybody)
                .expect_err("elsewhere")
                .contains("only references")
        );
        let large = json!({"anyOf": (0..2000).map(|i| json!({"const": i})).collect::<Vec<_>>()});
        assert!(bounded(&large, Author::Anybody).is_ok());
    }
}
