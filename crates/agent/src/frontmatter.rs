//! Markdown files that begin with fields in YAML between two lines of `---`: agents, skills, commands.
//!
//! They come from the working directory, so from anybody: they are bounded, anchors are not followed, and what is no
//! YAML is read line by line as far as it goes, for many such files have a colon too many in their description.

use std::io;
use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::tools::file::{self, OpenError, ReadError};

/// The longest file that is read: what is written for a model fits many times.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The longest fields that are read.
const MAX_FIELDS_BYTES: usize = 64 * 1024;
/// How deep fields may be nested: hooks and servers need four.
const MAX_DEPTH: usize = 16;

/// A file with fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Document {
    pub(crate) fields: Map<String, Value>,
    /// What follows the fields.
    pub(crate) body: String,
}

impl Document {
    /// Reads a plain file. Blocks. `root`: what it must lie in, wherever links lead.
    pub(crate) fn read(path: &Path, root: Option<&Path>) -> io::Result<Self> {
        let (mut opened, _) = file::open_regular(path).map_err(|error| match error {
            OpenError::Io(error) => error,
            OpenError::Missing => io::ErrorKind::NotFound.into(),
            OpenError::Folder | OpenError::Special(_) | OpenError::Process => {
                io::Error::other("it is no plain file")
            }
        })?;
        if let Some(root) = root {
            // Of what is open: a link that is changed meanwhile leads nowhere else.
            let is_inside = file::real_path(&opened)?.starts_with(std::fs::canonicalize(root)?);
            if !is_inside {
                return Err(io::Error::other("it is a link that leads out of its folder"));
            }
        }
        let read = file::read_whole(&mut opened, MAX_FILE_BYTES, &CancellationToken::new());
        let bytes = read.map_err(|error| match error {
            ReadError::Io(error) => error,
            ReadError::TooLarge => io::Error::other(format!("it is over {MAX_FILE_BYTES} bytes")),
            ReadError::Stopped => io::ErrorKind::Interrupted.into(),
        })?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Reads a text. One without fields is all body.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        let Some((yaml, body)) = split(&text) else {
            return Self { fields: Map::new(), body: text };
        };
        let fields = match fields(yaml) {
            Some(fields) => fields,
            None => line_by_line(yaml),
        };
        Self { fields, body: body.to_owned() }
    }

    /// A field's text; a number or a truth value as it is written.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        written(self.fields.get(name)?)
    }

    /// A field that is a list, or a text with commas. `None`: it is not there, or null.
    pub(crate) fn list(&self, name: &str) -> Option<Vec<String>> {
        match self.fields.get(name)? {
            Value::Array(items) => Some(items.iter().filter_map(written).collect()),
            Value::Null => None,
            one => Some(outside_parentheses(&written(one)?)),
        }
    }

    /// A field that says yes or no.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match self.text(name)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// A field that is a whole number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The parts of a list with commas; those within parentheses do not part: `Bash(git add, git commit), Read`.
pub(crate) fn outside_parentheses(text: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let parts = text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => (),
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The fields and the body. `None`: there are no fields.
fn split(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once('\n')?;
    if first.trim_end() != "---" {
        return None;
    }
    let mut at = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return Some((&rest[..at], &rest[at + line.len()..]));
        }
        at += line.len();
        if at > MAX_FIELDS_BYTES {
            return None;
        }
    }
    None
}

/// Something that is being filled.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

impl Open {
    fn add(&mut self, value: Value) {
        match self {
            Self::List(items) => items.push(value),
            Self::Map(map, key) => match key.take() {
                Some(key) => {
                    map.insert(key, value);
                }
                None => *key = Some(written(&value).unwrap_or_default()),
            },
        }
    }
}

/// The fields of the first document. `None`: it is no YAML, or uses more of it than is understood here.
fn fields(yaml: &str) -> Option<Map<String, Value>> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(yaml) {
        let done = match event.ok()?.0 {
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= MAX_DEPTH => return None,
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop()? {
                Open::List(items) => Value::Array(items),
                Open::Map(map, _) => Value::Object(map),
            },
            // What an anchor names can grow without bounds.
            Event::Alias(_) => return None,
            Event::StreamEnd | Event::DocumentEnd => return Some(Map::new()),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
        };
        match (open.last_mut(), done) {
            (Some(within), done) => within.add(done),
            (None, Value::Object(map)) => return Some(map),
            (None, _) => return None,
        }
    }
    None
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        text => text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}

/// `name: text` a line; lines that are indented go on with the one before.
fn line_by_line(yaml: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut last: Option<String> = None;
    for line in yaml.lines() {
        let goes_on = line.starts_with([' ', '\t', '-']) || line.trim().is_empty();
        let named = line.split_once(':').filter(|(name, _)| !goes_on && is_name(name));
        match (named, &last) {
            (Some((name, text)), _) => {
                fields.insert(name.to_owned(), Value::String(unquoted(text.trim()).to_owned()));
                last = Some(name.to_owned());
            }
            (None, Some(name)) => {
                if let Some(Value::String(text)) = fields.get_mut(name) {
                    text.push('\n');
                    text.push_str(line.trim());
                }
            }
            (None, None) => (),
        }
    }
    for value in fields.values_mut() {
        if let Value::String(text) = value {
            *text = text.trim().to_owned();
        }
    }
    fields
}

fn unquoted(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields_of(text: &str) -> Value {
        Value::Object(Document::parse(text).fields)
    }

    #[test]
    fn fields_and_body() {
        let document = Document::parse(
            "---\nname: reviewer\ndescription: >-\n  Reads\n  code\ntools: Read, Bash(git add, x)\nmodel: \"7\"\n\
             maxTurns: 7\nbackground: yes\nskills:\n  - a\n  - b\n---\nYou review.\n",
        );
        assert_eq!(document.text("name").as_deref(), Some("reviewer"));
        assert_eq!(document.text("description").as_deref(), Some("Reads code"));
        assert_eq!(document.list("tools").unwrap(), ["Read", "Bash(git add, x)"]);
        assert_eq!(document.list("skills").unwrap(), ["a", "b"]);
        assert_eq!(document.number("maxTurns"), Some(7));
        assert_eq!(document.flag("background"), Some(true));
        assert_eq!(document.list("none"), None);
        assert_eq!(document.body, "You review.\n");
    }

    #[test]
    fn what_is_odd_is_read_as_far_as_it_goes() {
        for (text, expected) in [
            ("no fields\n---\n", json!({})),
            ("---\nname: x\n", json!({})),
            ("---\n---\nbody", json!({})),
            ("---\n- a\n---\n", json!({})),
            ("---\r\nname: x\r\n---\r\nbody", json!({"name": "x"})),
            ("\u{feff}---\nname: x\n---\n", json!({"name": "x"})),
            (
                "---\nhooks:\n  Stop:\n    - hooks: [{type: command}]\n---\n",
                json!({"hooks": {"Stop": [{"hooks": [{"type": "command"}]}]}}),
            ),
            // No YAML: a colon and a space within a plain text.
            (
                "---\nname: x\ndescription: Use this: always. user: \"hi\"\n  more: of it\nmodel: 'opus'\n---\n",
                json!({"name": "x", "description": "Use this: always. user: \"hi\"\nmore: of it", "model": "opus"}),
            ),
            // Anchors are not followed.
            ("---\na: &x [1]\nb: *x\n---\n", json!({"a": "&x [1]", "b": "*x"})),
        ] {
            assert_eq!(fields_of(text), expected, "{text:?}");
        }
    }

    #[test]
    fn hostile_fields_end_soon() {
        let deep = format!("---\na: {}\n---\n", "[".repeat(10_000));
        let long = format!("---\na: {}\n---\nbody", "x".repeat(2 * MAX_FIELDS_BYTES));
        let bomb = format!("---\na: &a [x]\n{}---\n", "b: &b [*a, *a]\n".repeat(1_000));
        for text in [deep, long, bomb, "---\na: \"\n---\n".to_owned(), "---\n\0\u{1}\n---\n".to_owned()] {
            let _ = Document::parse(&text);
        }
    }
}
