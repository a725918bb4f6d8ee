//! The caller's own pairs of text, as agents, environments and sessions carry them.

use std::collections::BTreeMap;

use serde_json::Value;
use wardian_protocol::message::json_type;
use wardian_session::FieldError;

/// Pairs of one thing, as the stock API has it.
pub const MAX_PAIRS: usize = 16;
/// Characters of a key.
const MAX_KEY_CHARS: usize = 64;
/// Characters of a value.
const MAX_VALUE_CHARS: usize = 512;
/// Pairs of one request that are looked at: a patch may remove as many as there are, and set as many.
const MAX_PATCHED: usize = 2 * MAX_PAIRS;

/// The pairs.
pub type Metadata = BTreeMap<String, String>;
/// What is to change: with `None` the key is removed.
pub type Patch = BTreeMap<String, Option<String>>;

/// Reads the field `metadata` of something that is made.
pub fn read(value: Value, errors: &mut Vec<FieldError>) -> Metadata {
    let mut pairs = Metadata::new();
    for (key, value) in read_patch(value, errors) {
        match value {
            Some(value) => _ = pairs.insert(key, value),
            None => errors.push(FieldError::new(place(&key), "expected a string, found null")),
        }
    }
    check_number(pairs.len(), errors);
    pairs
}

/// Reads the field `metadata` of an update.
pub fn read_patch(value: Value, errors: &mut Vec<FieldError>) -> Patch {
    let map = match value {
        Value::Object(map) => map,
        other => {
            let message = format!("expected an object of strings, found {}", json_type(&other));
            errors.push(FieldError::new("metadata", message));
            return Patch::new();
        }
    };
    if map.len() > MAX_PATCHED {
        check_number(map.len(), errors);
        return Patch::new();
    }
    let mut patch = Patch::new();
    for (key, value) in map {
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
            let message = format!("expected keys of 1 to {MAX_KEY_CHARS} characters");
            errors.push(FieldError::new(place(&key), message));
            continue;
        }
        match value {
            Value::Null => _ = patch.insert(key, None),
            Value::String(text) if text.chars().count() <= MAX_VALUE_CHARS => {
                patch.insert(key, Some(text));
            }
            Value::String(_) => {
                let message = format!("expected at most {MAX_VALUE_CHARS} characters");
                errors.push(FieldError::new(place(&key), message));
            }
            other => {
                let message = format!("expected a string, found {}", json_type(&other));
                errors.push(FieldError::new(place(&key), message));
            }
        }
    }
    patch
}

/// Applies a patch, and says so if there are too many pairs afterwards.
pub fn apply(pairs: &mut Metadata, patch: Patch, errors: &mut Vec<FieldError>) {
    for (key, value) in patch {
        match value {
            Some(value) => _ = pairs.insert(key, value),
            None => _ = pairs.remove(&key),
        }
    }
    check_number(pairs.len(), errors);
}

fn check_number(number: usize, errors: &mut Vec<FieldError>) {
    if number > MAX_PAIRS {
        errors.push(FieldError::new("metadata", format!("{number} pairs; the limit is {MAX_PAIRS}")));
    }
}

fn place(key: &str) -> String {
    let shown: String = key.chars().take(MAX_KEY_CHARS).collect();
    format!("metadata.{shown}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors_of(value: Value) -> Vec<String> {
        let mut errors = Vec::new();
        read(value, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pairs_are_strings_within_their_limits() {
        assert_eq!(errors_of(json!({"a": "1", "é".repeat(64): "é".repeat(512), "empty": ""})), [""; 0]);
        let many: serde_json::Map<_, _> = (0..17).map(|number| (number.to_string(), json!("x"))).collect();
        assert_eq!(errors_of(Value::Object(many)), ["metadata: 17 pairs; the limit is 16"]);
        let hostile: serde_json::Map<_, _> =
            (0..10_000).map(|number| (number.to_string(), json!(1))).collect();
        assert_eq!(errors_of(Value::Object(hostile)), ["metadata: 10000 pairs; the limit is 16"]);
        for (value, error) in [
            (json!([]), "metadata: expected an object of strings, found a list"),
            (json!({"a": 1}), "metadata.a: expected a string, found a number"),
            (json!({"a": null}), "metadata.a: expected a string, found null"),
            (json!({"": "x"}), "metadata.: expected keys of 1 to 64 characters"),
            (json!({"a": "x".repeat(513)}), "metadata.a: expected at most 512 characters"),
        ] {
            assert_eq!(errors_of(value), [error]);
        }
        assert!(errors_of(json!({"k".repeat(65): "x"}))[0].ends_with("expected keys of 1 to 64 characters"));
    }

    #[test]
    fn a_patch_sets_and_removes() {
        let mut errors = Vec::new();
        let mut pairs: Metadata =
            [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let patch = read_patch(json!({"a": null, "b": "3", "c": "4", "d": null}), &mut errors);
        apply(&mut pairs, patch, &mut errors);
        assert_eq!((json!(pairs), errors.len()), (json!({"b": "3", "c": "4"}), 0));
        let more: serde_json::Map<_, _> = (0..15).map(|number| (number.to_string(), json!("x"))).collect();
        let patch = read_patch(Value::Object(more), &mut errors);
        apply(&mut pairs, patch, &mut errors);
        assert_eq!(errors[0].to_string(), "metadata: 17 pairs; the limit is 16");
    }
}
