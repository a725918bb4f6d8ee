//! Reads JSON objects field by field: every field that is wrong is named, and one that is not known is named with the
//! nearest that is.

pub mod agent;
pub mod environment;
pub mod event;
pub mod metadata;
pub mod money;
pub mod resource;
pub mod session;
pub mod tools;

use serde_json::Value;
use wardian_protocol::JsonMap;
use wardian_protocol::message::json_type;
use wardian_session::FieldError;

/// How many unknown fields are named; a hostile body has a million.
const MAX_UNKNOWN_NAMED: usize = 10;

/// The fields of an object, taken out one by one.
#[derive(Debug)]
pub struct Fields<'e> {
    /// What stands before the names: `limits.`, `files[2].`.
    prefix: String,
    map: JsonMap,
    asked: Vec<&'static str>,
    errors: &'e mut Vec<FieldError>,
}

impl<'e> Fields<'e> {
    /// The fields of a value, which has to be an object.
    pub fn of(value: Value, prefix: &str, errors: &'e mut Vec<FieldError>) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { prefix: prefix.to_owned(), map, asked: Vec::new(), errors }),
            other => {
                let name = prefix.trim_end_matches('.');
                let name = if name.is_empty() { "body" } else { name };
                errors
                    .push(FieldError::new(name, format!("expected an object, found {}", json_type(&other))));
                None
            }
        }
    }

    /// A field, unless it is missing or null.
    pub fn value(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.map.swap_remove(name).filter(|value| !value.is_null())
    }

    /// A field of a patch: missing says nothing, null clears.
    pub fn patch(&mut self, name: &'static str) -> Option<Option<Value>> {
        self.asked.push(name);
        let value = self.map.swap_remove(name)?;
        Some(if value.is_null() { None } else { Some(value) })
    }

    /// A string.
    pub fn string(&mut self, name: &'static str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            other => self.wrong(name, "a string", &other),
        }
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(flag) => Some(flag),
            other => self.wrong(name, "a boolean", &other),
        }
    }

    /// A list.
    pub fn list(&mut self, name: &'static str) -> Option<Vec<Value>> {
        match self.value(name)? {
            Value::Array(values) => Some(values),
            other => self.wrong(name, "a list", &other),
        }
    }

    /// A list of strings.
    pub fn strings(&mut self, name: &'static str) -> Option<Vec<String>> {
        let values = self.list(name)?;
        let mut strings = Vec::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            match value {
                Value::String(text) => strings.push(text),
                other => {
                    self.error(
                        &format!("{name}[{index}]"),
                        format!("expected a string, found {}", json_type(&other)),
                    );
                    return None;
                }
            }
        }
        Some(strings)
    }

    /// What `read` makes of a field's value; `None` from it means that `expected` was not met.
    pub fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(name)?;
        let parsed = read(&value);
        if parsed.is_none() {
            self.error(name, format!("expected {expected}"));
        }
        parsed
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            let shown: String = text.chars().take(40).collect();
            self.error(name, format!("{shown:?}: expected {}", known.join(" or ")));
        }
        found
    }

    /// Says what is wrong with a field.
    pub fn error(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(format!("{}{name}", self.prefix), message));
    }

    /// Whether something was wrong with a field.
    pub fn failed(&self, name: &str) -> bool {
        let whole = |error: &FieldError| error.field.strip_prefix(&self.prefix) == Some(name);
        self.errors.iter().any(whole)
    }

    /// Names what nobody asked for.
    pub fn finish(self) {
        for name in self.map.keys().take(MAX_UNKNOWN_NAMED) {
            let shown: String = name.chars().take(60).collect();
            let message = match nearest(&shown, &self.asked) {
                Some(known) => format!("unknown field; did you mean `{known}`?"),
                None => format!("unknown field; known are {}", self.asked.join(", ")),
            };
            self.errors.push(FieldError::new(format!("{}{shown}", self.prefix), message));
        }
    }

    fn wrong<T>(&mut self, name: &str, expected: &str, found: &Value) -> Option<T> {
        self.error(name, format!("expected {expected}, found {}", json_type(found)));
        None
    }
}

/// The known name that a typing error away.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, nearest) = known.iter().map(|known| (distance(name, known), *known)).min()?;
    (distance <= 1 + nearest.len() / 4).then_some(nearest)
}

/// Insertions, deletions and changes from one text to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, from) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, to) in other.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["prompt", "max_turns", "session_id"];
        assert_eq!(nearest("promt", &known), Some("prompt"));
        assert_eq!(nearest("maxTurns", &known), Some("max_turns"));
        assert_eq!(nearest("sessionId", &known), Some("session_id"));
        assert_eq!(nearest("temperature", &known), None);
    }
}
