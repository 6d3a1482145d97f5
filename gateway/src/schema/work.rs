//! How much work an instance is under a schema that refers to itself: how often such a schema is gone through is the instance's to say, and
//! two parts that both go on to the same field double it with each level.
use serde_json::Value;
use std::{collections::HashSet, ptr};

/// Subschemas that one instance is held to at most, each as often as it is come to: a tenth of a second of a validator's. A tree of ten
/// thousand values, each of which may be any of thirty forms, takes a third of it.
const VISITS: usize = 1 << 20;

/// Levels of subschemas at most, of all levels of the instance together: each is some frames on a thread's stack.
const LEVELS: usize = 1 << 10;

/// Whether a validator can be expected to come to an end soon.
///
/// # Errors
/// In words.
pub(super) fn bounded(schema: &Value, instance: &Value) -> Result<(), String> {
    let mut walk = Walk {
        root: schema,
        left: VISITS,
        underway: HashSet::new(),
    };
    walk.visit(schema, instance, 0)
}

struct Walk<'a> {
    root: &'a Value,
    left: usize,
    /// References that are being followed, each with what is held to it: one that comes back to itself ends there.
    underway: HashSet<(*const Value, *const Value)>,
}

impl Walk<'_> {
    fn spend(&mut self, visits: usize) -> Result<(), String> {
        let left = self.left.checked_sub(visits);
        self.left = left.ok_or_else(|| {
            format!("the schema refers to itself, and more than {VISITS} of its parts would have to be held to this")
        })?;
        Ok(())
    }

    fn visit(&mut self, schema: &Value, instance: &Value, level: usize) -> Result<(), String> {
        if level > LEVELS {
            return Err(format!(
                "the schema refers to itself, and is more than {LEVELS} levels deep on the way through this"
            ));
        }
        self.spend(1)?;
        let Value::Object(keywords) = schema else {
            return Ok(());
        };
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                    let target = reference.strip_prefix('#').and_then(|at| self.root.pointer(at));
                    let Some(target) = target else { continue };
                    let step = (ptr::from_ref(target), ptr::from_ref(instance));
                    if self.underway.insert(step) {
                        self.visit(target, instance, level + 1)?;
                        self.underway.remove(&step);
                    }
                }
                ("enum" | "required", Value::Array(list)) => self.spend(list.len())?,
                ("not" | "if" | "then" | "else", part) => self.visit(part, instance, level + 1)?,
                ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                    parts
                        .iter()
                        .try_for_each(|part| self.visit(part, instance, level + 1))?;
                }
                ("dependentSchemas" | "dependencies", Value::Object(parts)) => {
                    parts
                        .values()
                        .try_for_each(|part| self.visit(part, instance, level + 1))?;
                }
                _ => self.inwards(keywords, (keyword, value), instance, level + 1)?,
            }
        }
        Ok(())
    }

    /// A keyword that holds an instance's fields or items to something.
    fn inwards(
        &mut self,
        keywords: &serde_json::Map<String, Value>,
        (keyword, value): (&str, &Value),
        instance: &Value,
        level: usize,
    ) -> Result<(), String> {
        let named = |key: &String| keywords.get("properties").is_some_and(|p| p.get(key).is_some());
        match (keyword, value, instance) {
            ("properties", Value::Object(parts), Value::Object(fields)) => {
                self.spend(parts.len())?;
                let mut there = parts.iter().filter_map(|(key, part)| Some((part, fields.get(key)?)));
                there.try_for_each(|(part, field)| self.visit(part, field, level))
            }
            // Which of them match is not looked at.
            ("patternProperties", Value::Object(parts), Value::Object(fields)) => {
                let mut all = parts
                    .values()
                    .flat_map(|part| fields.values().map(move |field| (part, field)));
                all.try_for_each(|(part, field)| self.visit(part, field, level))
            }
            ("additionalProperties" | "unevaluatedProperties", part, Value::Object(fields)) => {
                let mut others = fields.iter().filter(|(key, _)| !named(key));
                others.try_for_each(|(_, field)| self.visit(part, field, level))
            }
            ("propertyNames", part, Value::Object(fields)) => {
                let mut names = fields.keys().map(|_| &Value::Null);
                names.try_for_each(|name| self.visit(part, name, level))
            }
            ("items" | "prefixItems", Value::Array(parts), Value::Array(items)) => {
                let mut pairs = parts.iter().zip(items);
                pairs.try_for_each(|(part, item)| self.visit(part, item, level))
            }
            ("items" | "additionalItems" | "unevaluatedItems" | "contains", part, Value::Array(items)) => {
                items.iter().try_for_each(|item| self.visit(part, item, level))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// So many objects in one another, each the field `a` of the one before.
    fn nested(depth: usize) -> Value {
        (0..depth).fold(json!({}), |inner, _| json!({"a": inner}))
    }

    #[test]
    fn what_doubles_with_each_level_is_refused_where_it_is_deep_and_what_does_not_is_taken() {
        let on = json!({"properties": {"a": {"$ref": "#/$defs/s"}}});
        let schema = |s: Value| json!({"$ref": "#/$defs/s", "$defs": {"s": s}});
        let twice = [
            schema(json!({"allOf": [on, on]})),
            schema(json!({"anyOf": [on, {"oneOf": [on]}]})),
            schema(
                json!({"properties": {"a": {"$ref": "#/$defs/s"}}, "patternProperties": {"a": {"$ref": "#/$defs/s"}}}),
            ),
            schema(json!({"if": on, "else": {"additionalProperties": {"$ref": "#/$defs/s"}}})),
        ];
        for schema in twice {
            assert_eq!(bounded(&schema, &nested(10)), Ok(()), "{schema}");
            assert!(
                bounded(&schema, &nested(120)).expect_err("deep").contains("parts"),
                "{schema}"
            );
        }
        assert_eq!(bounded(&schema(on), &nested(120)), Ok(()));
        let tree = schema(json!({"properties": {"l": {"$ref": "#/$defs/s"}, "r": {"$ref": "#/$defs/s"}}}));
        let full = (0..12).fold(json!({}), |inner, _| json!({"l": inner, "r": inner}));
        assert_eq!(bounded(&tree, &full), Ok(()));
        let list = schema(json!({"items": {"$ref": "#/$defs/s"}}));
        let deep = (0..120).fold(json!([]), |inner, _| json!([inner]));
        assert_eq!(bounded(&list, &deep), Ok(()));
    }

    #[test]
    fn what_comes_back_to_itself_without_going_inwards_ends() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"not": {"$ref": "#"}}]}),
        ] {
            assert_eq!(bounded(&schema, &nested(120)), Ok(()), "{schema}");
        }
    }

    #[test]
    fn what_would_take_more_than_a_stack_is_refused() {
        let inner = json!({"properties": {"a": {"$ref": "#"}}});
        let schema = (0..100).fold(inner, |inner, _| json!({"allOf": [inner]}));
        assert_eq!(bounded(&schema, &nested(4)), Ok(()));
        assert!(bounded(&schema, &nested(120)).expect_err("deep").contains("levels"));
    }
}
