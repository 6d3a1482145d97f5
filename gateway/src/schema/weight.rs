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

/// A schema that was weighed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighed {
    pub(super) weight: u64,
    /// It contains itself: how often is the instance's to say, and [`super::work`]'s to bound.
    pub(super) recursive: bool,
}

/// Its weight, if a validator can be expected to come to an end with it soon.
///
/// # Errors
/// In words.
pub(super) fn bounded(schema: &Value, author: Author) -> Result<Weighed, String> {
    let mut walk = Walk {
        root: schema,
        author,
        known: HashMap::new(),
        recursive: false,
        elsewhere: false,
    };
    let weight = walk.weigh(schema, 0)?;
    if weight > WEIGHT {
        return Err(format!(
            "has more than {WEIGHT} subschemas once its references are followed; a pattern counts as {PATTERN} and its length"
        ));
    }
    Ok(Weighed {
        weight,
        recursive: walk.recursive,
    })
}

struct Walk<'a> {
    root: &'a Value,
    author: Author,
    /// By reference: its target's weight, or `None` while that is being weighed, which is a schema that contains itself.
    known: HashMap<&'a str, Option<u64>>,
    recursive: bool,
    /// Inside a part with an `$id` of its own: what a reference means there is not looked up here.
    elsewhere: bool,
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
                let outside = self.elsewhere;
                self.elsewhere |= self.is_elsewhere(value);
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
                self.elsewhere = outside;
            }
            _ => {}
        }
        Ok(weight)
    }

    fn follow(&mut self, reference: &'a str, depth: usize) -> Result<u64, String> {
        match self.known.get(reference) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => {
                self.recursive = true;
                return Ok(1);
            }
            None => {}
        }
        let target = self.target(reference).filter(|_| !self.elsewhere);
        let Some(target) = target else {
            return Err(format!(
                "refers to `{reference}`; only references like `#/$defs/name` are followed, and none into or from within a part with an `$id` of its own"
            ));
        };
        self.known.insert(reference, None);
        let weight = self.weigh(target, depth + 1)?;
        self.known.insert(reference, Some(weight));
        Ok(weight)
    }

    /// The value at a reference into this document, or this document for `#`.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let path = reference.strip_prefix('#')?;
        let ways = path.match_indices('/').map(|(at, _)| &path[..at]);
        let mut passed = ways.filter_map(|way| self.root.pointer(way));
        (!passed.any(|part| self.is_elsewhere(part))).then(|| self.root.pointer(path))?
    }

    /// Whether it is a document of its own within this one. It is by draft 4's `id` too, where that is the draft.
    fn is_elsewhere(&self, part: &Value) -> bool {
        let draft = self.root.get("$schema").and_then(Value::as_str);
        let key = match draft {
            Some(draft) if draft.contains("draft-04") => "id",
            _ => "$id",
        };
        let named = part
            .get(key)
            .and_then(Value::as_str)
            .is_some_and(|id| !id.starts_with('#'));
        named && !std::ptr::eq(part, self.root)
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
    fn what_a_reference_means_inside_a_part_with_an_id_of_its_own_is_not_guessed() {
        let mut whole = json!({"$id": "http://example.com/whole", "$defs": {"part": chain(40, 2), "a0": true}, "$ref": "#/$defs/part"});
        for i in 0..=40 {
            whole["$defs"][format!("a{i}")] = json!(true);
        }
        for (schema, id) in [(None, "$id"), (Some("http://json-schema.org/draft-04/schema#"), "id")] {
            let mut whole = whole.clone();
            whole["$defs"]["part"][id] = json!("http://example.com/part");
            if let Some(schema) = schema {
                whole["$schema"] = json!(schema);
            }
            assert!(bounded(&whole, Author::Anybody).expect_err("inside").contains("$id"));
            whole["$ref"] = json!("#/$defs/part/$defs/a0");
            assert!(bounded(&whole, Author::Anybody).expect_err("into").contains("$id"));
        }
        let names =
            json!({"properties": {"$id": {"type": "string"}, "a": {"$id": "http://example.com/a", "type": "string"}}});
        assert!(bounded(&names, Author::Anybody).is_ok());
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
