//! Reads the fields of one JSON object and, at the end, refuses those that nobody asked for.

use std::time::Duration;

use serde_json::Value;
use wardian_protocol::message::json_type;

use super::{MAX_DELAY, Object, ScriptError};

/// The longest name that is compared with the known ones or shown in an error.
const MAX_NAME_BYTES: usize = 60;

/// The fields of one object that were not read yet.
pub(super) struct Fields {
    at: String,
    map: Object,
    known: Vec<&'static str>,
}

impl Fields {
    /// The fields of `value`, which stands at `at`.
    pub(super) fn of(value: Value, at: &str) -> Result<Self, ScriptError> {
        match value {
            Value::Object(map) => Ok(Self { at: at.to_owned(), map, known: Vec::new() }),
            other => Err(ScriptError::field(at, format!("expected an object, found {}", json_type(&other)))),
        }
    }

    /// Refuses what was not read.
    pub(super) fn finish(self) -> Result<(), ScriptError> {
        let Some(name) = self.map.keys().next() else { return Ok(()) };
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        let hint = nearest(name, &self.known).map_or_else(
            || format!("known are {}", self.known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(ScriptError::field(self.at, format!("unknown field `{shown}`; {hint}")))
    }

    /// Where these fields stand, for errors.
    pub(super) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }

    /// The field as it stands; `null` counts as absent.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        // `shift_remove` keeps the order of what is left, for the error that names the first unknown one.
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn wrong(&self, name: &str, expected: &str, found: &Value) -> ScriptError {
        ScriptError::field(self.at(name), format!("expected {expected}, found {}", json_type(found)))
    }

    pub(super) fn opt_string(&mut self, name: &'static str) -> Result<Option<String>, ScriptError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    pub(super) fn string(&mut self, name: &'static str) -> Result<String, ScriptError> {
        self.opt_string(name)?.ok_or_else(|| ScriptError::field(&self.at, format!("`{name}` is missing")))
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, ScriptError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(name, "true or false", &other)),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn opt_number(
        &mut self,
        name: &'static str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, ScriptError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Some(number) => Err(ScriptError::field(
                self.at(name),
                format!("expected a number from {least} to {most}, found {number}"),
            )),
            None => Err(self.wrong(name, &format!("a whole number from {least} to {most}"), &value)),
        }
    }

    /// A length or a count that indexes memory.
    pub(super) fn opt_size(
        &mut self,
        name: &'static str,
        least: usize,
        most: usize,
    ) -> Result<Option<usize>, ScriptError> {
        let number = self.opt_number(name, least as u64, most as u64)?;
        Ok(number.map(|number| usize::try_from(number).expect("at most `most`, which is a usize")))
    }

    pub(super) fn delay(&mut self, name: &'static str) -> Result<Duration, ScriptError> {
        let most = u64::try_from(MAX_DELAY.as_millis()).expect("an hour is few milliseconds");
        Ok(Duration::from_millis(self.opt_number(name, 0, most)?.unwrap_or(0)))
    }

    pub(super) fn opt_object(&mut self, name: &'static str) -> Result<Option<Object>, ScriptError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong(name, "an object", &other)),
        }
    }

    pub(super) fn opt_list(
        &mut self,
        name: &'static str,
        most: usize,
    ) -> Result<Option<Vec<Value>>, ScriptError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() <= most => Ok(Some(list)),
            Some(Value::Array(list)) => Err(ScriptError::field(
                self.at(name),
                format!("expected at most {most} entries, found {}", list.len()),
            )),
            Some(other) => Err(self.wrong(name, "a list", &other)),
        }
    }

    pub(super) fn list(&mut self, name: &'static str, most: usize) -> Result<Vec<Value>, ScriptError> {
        self.opt_list(name, most)?.ok_or_else(|| ScriptError::field(&self.at, format!("`{name}` is missing")))
    }

    pub(super) fn opt_strings(&mut self, name: &'static str) -> Result<Option<Vec<String>>, ScriptError> {
        let at = self.at(name);
        let Some(list) = self.opt_list(name, 1000)? else { return Ok(None) };
        let texts = list.into_iter().map(|value| match value {
            Value::String(text) => Ok(text),
            other => Err(ScriptError::field(&at, format!("expected strings, found {}", json_type(&other)))),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// Response headers: names and values that HTTP can carry.
    pub(super) fn headers(&mut self, name: &'static str) -> Result<http::HeaderMap, ScriptError> {
        let at = self.at(name);
        let mut headers = http::HeaderMap::new();
        for (header, value) in self.opt_object(name)?.unwrap_or_default() {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                other => {
                    return Err(ScriptError::field(
                        format!("{at}.{header}"),
                        format!("expected a string, found {}", json_type(&other)),
                    ));
                }
            };
            let parsed = header.parse::<http::HeaderName>().ok().zip(text.parse::<http::HeaderValue>().ok());
            let (header, value) = parsed.ok_or_else(|| {
                ScriptError::field(format!("{at}.{header}"), "not a header that HTTP can carry")
            })?;
            if matches!(header.as_str(), "content-length" | "transfer-encoding" | "connection") {
                return Err(ScriptError::field(
                    format!("{at}.{header}"),
                    "the server sets this header itself",
                ));
            }
            headers.append(header, value);
        }
        Ok(headers)
    }
}

/// The known name nearest to a mistyped one, if any is near enough to be what was meant.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (near, distance) = nearest_of(name, known)?;
    (distance <= 1 + near.len() / 4).then_some(near)
}

/// The known name nearest to another, and how many letters are between them. Nothing is near a very long name.
pub(super) fn nearest_of<'a>(name: &str, known: &[&'a str]) -> Option<(&'a str, usize)> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    known.iter().map(|near| (*near, edit_distance(name, near))).min_by_key(|(_, distance)| *distance)
}

/// Levenshtein's distance, by characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_only_when_it_is_near() {
        let known = ["tool_use", "text", "delay_ms"];
        assert_eq!(nearest("tool_uses", &known), Some("tool_use"));
        assert_eq!(nearest("delayms", &known), Some("delay_ms"));
        assert_eq!(nearest("texts", &known), Some("text"));
        assert_eq!(nearest("banana", &known), None);
        assert_eq!(nearest(&"t".repeat(10_000), &known), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
