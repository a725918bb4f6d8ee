//! One source of settings.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::args::Complaint;

/// The largest settings file, in bytes: people write them.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The settings of one source.
#[derive(Debug)]
pub(super) struct Layer {
    /// As the protocol names it.
    pub(super) name: &'static str,
    pub(super) settings: Map<String, Value>,
    /// Whether it may widen what is allowed.
    pub(super) trusted: bool,
    /// Whether a setting that is not known is an error: whoever wrote it wrote it for this run.
    pub(super) strict: bool,
    /// Whether an administrator speaks.
    pub(super) is_managed: bool,
}

impl Layer {
    pub(super) fn file(name: &'static str, path: &Path, trusted: bool) -> Result<Option<Self>, Complaint> {
        let told = |what: String| format!("failed to read {}: {what}", path.display());
        let Some(text) = read_file(path).map_err(|error| told(error.to_string()))? else { return Ok(None) };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let settings = parse(&text).map_err(told)?;
        Ok(Some(Self { name, settings, trusted, strict: false, is_managed: false }))
    }

    /// Has the paths of its rules that begin with `/` begin here: `Read(/x)` of the user's settings is about a file
    /// beside them. source: the official CLI, observed.
    pub(super) fn below(mut self, root: Option<&Path>) -> Self {
        let permissions = self.settings.get_mut("permissions").and_then(Value::as_object_mut);
        let (Some(root), Some(permissions)) = (root, permissions) else { return self };
        for kind in ["allow", "ask", "deny"] {
            let rules = permissions.get_mut(kind).and_then(Value::as_array_mut);
            for rule in rules.into_iter().flatten() {
                if let Some(rooted) = rule.as_str().and_then(|rule| rooted(rule, root)) {
                    *rule = rooted.into();
                }
            }
        }
        self
    }

    pub(super) fn managed(self) -> Self {
        Self { is_managed: true, ..self }
    }

    /// `--settings`: JSON, or a file of it.
    pub(super) fn given(given: &str) -> Result<Self, Complaint> {
        let text = if given.trim_start().starts_with('{') { given.to_owned() } else { text_of(given)? };
        Ok(Self {
            name: "flagSettings",
            settings: parse(&text)?,
            trusted: true,
            strict: true,
            is_managed: false,
        })
    }

    /// `--managed-settings`: what an embedding program forbids. It can allow nothing, and where the machine has an
    /// administrator of its own, it does not count.
    pub(super) fn embedder(given: &str, has_administrator: bool) -> Result<Option<Self>, Complaint> {
        let mut settings = parse(given)?;
        if has_administrator {
            return Ok(None);
        }
        if let Some(permissions) = settings.get_mut("permissions").and_then(Value::as_object_mut) {
            permissions.shift_remove("allow");
            permissions.shift_remove("additionalDirectories");
            permissions.shift_remove("defaultMode");
        }
        for widening in ["hooks", "env", "apiKeyHelper"] {
            settings.shift_remove(widening);
        }
        let disables = settings.shift_remove("disableAllHooks");
        if disables.is_some_and(|value| value != false && value != "false") {
            settings.insert("allowManagedHooksOnly".to_owned(), true.into());
        }
        Ok(Some(Self { name: "policySettings", settings, trusted: true, strict: true, is_managed: true }))
    }
}

/// The text of a file; `None` where there is none.
pub(super) fn read_file(path: &Path) -> io::Result<Option<String>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !metadata.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(path).map(Some)
}

fn rooted(rule: &str, root: &Path) -> Option<String> {
    let (tool, rest) = rule.split_once("(/")?;
    if rest.starts_with('/') || !is_about_files(tool) {
        return None;
    }
    let mut escaped = String::new();
    for letter in root.to_string_lossy().chars() {
        escaped.extend(matches!(letter, '*' | '?' | '[' | ']' | '{' | '}' | '\\').then_some('\\'));
        escaped.push(letter);
    }
    Some(format!("{tool}(/{escaped}/{rest}"))
}

fn is_about_files(tool: &str) -> bool {
    matches!(tool, "Read" | "Edit" | "Write" | "NotebookEdit" | "Glob" | "Grep")
}

fn text_of(path: &str) -> Result<String, Complaint> {
    let told = |what: String| format!("failed to read {path}: {what}");
    match read_file(Path::new(path)) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(told("there is no such file".to_owned())),
        Err(error) => Err(told(error.to_string())),
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, Complaint> {
    let settings: Value =
        serde_json::from_str(text).map_err(|error| format!("settings are no JSON: {error}"))?;
    match settings {
        Value::Object(settings) => Ok(settings),
        _ => Err("settings must be an object".to_owned()),
    }
}
