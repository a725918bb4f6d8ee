//! An agent's definition: what is asked for, what it is with all defaults, and how an update changes it.

use serde_json::{Value, json};
use wardian_protocol::message::json_type;
use wardian_session::FieldError;
use wardian_session::plan::resolve_model;

use super::{Fields, metadata, tools};

/// Characters of a name, as the stock API has it.
const MAX_NAME_CHARS: usize = 256;
/// Characters of a description, as the stock API has it.
const MAX_DESCRIPTION_CHARS: usize = 2048;
/// Characters of a system prompt, as the stock API has it.
const MAX_SYSTEM_CHARS: usize = 100_000;
/// What of the stock API no session does yet.
const NOT_YET: &str = "not supported yet; leave it out";

/// Reads the body of a create.
pub fn read_new(body: Value) -> Result<Value, Vec<FieldError>> {
    let mut definition = json!({
        "name": null, "description": null, "model": null, "system": null, "tools": [], "metadata": {},
        "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"},
    });
    let mut errors = Vec::new();
    if let Some(mut fields) = Fields::of(body, "", &mut errors) {
        let mut nested = Vec::new();
        read_fields(&mut fields, &mut definition, &mut nested);
        if let Some(value) = fields.value("metadata") {
            definition["metadata"] = json!(metadata::read(value, &mut nested));
        }
        for name in ["name", "model"] {
            let wrong = fields.failed(name) || nested.iter().any(|error| error.field.starts_with(name));
            if definition[name].is_null() && !wrong {
                fields.error(name, format!("expected a {name}"));
            }
        }
        fields.finish();
        errors.append(&mut nested);
    }
    if errors.is_empty() { Ok(definition) } else { Err(errors) }
}

/// What an update asks for.
#[derive(Clone, Debug)]
pub struct Update {
    /// The version that it is meant for; none: whichever is the newest.
    pub version: Option<u64>,
    body: Value,
}

impl Update {
    /// Reads the body of an update, as far as that is possible without the agent.
    pub fn read(body: Value) -> Result<Self, Vec<FieldError>> {
        let mut update = Self { version: None, body: body.clone() };
        let mut errors = Vec::new();
        if let Some(mut fields) = Fields::of(body, "", &mut errors) {
            update.version = fields.parsed("version", "a whole number of at least 1", |value| {
                value.as_u64().filter(|version| *version >= 1)
            });
        }
        if errors.is_empty() { Ok(update) } else { Err(errors) }
    }

    /// The definition after the update.
    pub fn apply(&self, current: &Value) -> Result<Value, Vec<FieldError>> {
        let mut definition = current.clone();
        let mut errors = Vec::new();
        if let Some(mut fields) = Fields::of(self.body.clone(), "", &mut errors) {
            let mut nested = Vec::new();
            fields.value("version");
            read_fields(&mut fields, &mut definition, &mut nested);
            if let Some(Some(value)) = fields.patch("metadata") {
                let mut pairs = pairs_of(current);
                let patch = metadata::read_patch(value, &mut nested);
                metadata::apply(&mut pairs, patch, &mut nested);
                definition["metadata"] = json!(pairs);
            }
            fields.finish();
            errors.append(&mut nested);
        }
        if errors.is_empty() { Ok(definition) } else { Err(errors) }
    }
}

/// The metadata of something that is stored.
pub fn pairs_of(stored: &Value) -> metadata::Metadata {
    serde_json::from_value(stored["metadata"].clone()).unwrap_or_default()
}

/// All fields but `metadata`: those that stand in the body replace what the definition has.
fn read_fields(fields: &mut Fields<'_>, definition: &mut Value, errors: &mut Vec<FieldError>) {
    match fields.patch("name") {
        Some(Some(Value::String(name))) if (1..=MAX_NAME_CHARS).contains(&name.chars().count()) => {
            definition["name"] = json!(name);
        }
        Some(_) => fields.error("name", format!("expected a text of 1 to {MAX_NAME_CHARS} characters")),
        None => {}
    }
    for (name, max) in [("description", MAX_DESCRIPTION_CHARS), ("system", MAX_SYSTEM_CHARS)] {
        if let Some(value) = fields.patch(name)
            && let Some(text) = read_text(value, name, max, fields)
        {
            definition[name] = text;
        }
    }
    match fields.patch("model") {
        Some(Some(value)) => {
            if let Some(model) = read_model(value, "model", errors) {
                definition["model"] = model;
            }
        }
        Some(None) => fields.error("model", "expected a model; it cannot be cleared"),
        None => {}
    }
    match fields.patch("tools") {
        Some(Some(value)) => definition["tools"] = json!(tools::read(value, "tools", errors)),
        Some(None) => definition["tools"] = json!([]),
        None => {}
    }
    refuse_lists(fields, &["mcp_servers", "skills"]);
    if fields.value("multiagent").is_some() {
        fields.error("multiagent", NOT_YET);
    }
    if let Some(identity) = fields.value("execution_identity")
        && identity != json!({"type": "service_account"})
    {
        fields.error("execution_identity", "only {\"type\": \"service_account\"} is supported");
    }
}

/// Lists that have to be empty until something makes use of them.
pub fn refuse_lists(fields: &mut Fields<'_>, names: &[&'static str]) {
    for name in names {
        if fields.list(name).is_some_and(|list| !list.is_empty()) {
            fields.error(name, NOT_YET);
        }
    }
}

/// Reads a system prompt: null or empty clears it.
#[expect(dead_code, reason = "sessions that override it come next")]
pub fn read_system(value: Option<Value>, fields: &mut Fields<'_>) -> Option<Value> {
    read_text(value, "system", MAX_SYSTEM_CHARS, fields)
}

fn read_text(value: Option<Value>, name: &str, max: usize, fields: &mut Fields<'_>) -> Option<Value> {
    match value {
        None => Some(Value::Null),
        Some(Value::String(text)) if text.is_empty() => Some(Value::Null),
        Some(Value::String(text)) if text.chars().count() <= max => Some(json!(text)),
        Some(Value::String(_)) => {
            fields.error(name, format!("expected at most {max} characters"));
            None
        }
        Some(other) => {
            fields.error(name, format!("expected a string, found {}", json_type(&other)));
            None
        }
    }
}

/// Reads a model, which is a name or an object with settings; what comes back is the object.
pub fn read_model(value: Value, name: &str, errors: &mut Vec<FieldError>) -> Option<Value> {
    let place = format!("{name}.");
    let (id, at) = match value {
        Value::String(id) => (Some(id), name.to_owned()),
        other => {
            let mut fields = Fields::of(other, &place, errors)?;
            let id = fields.string("id");
            if id.is_none() && !fields.failed("id") {
                fields.error("id", "expected a model's name");
            }
            if fields.value("effort").is_some() {
                fields.error("effort", NOT_YET);
            }
            if fields.value("inference_geo").is_some() {
                fields.error("inference_geo", NOT_YET);
            }
            if fields.word("speed", &[("standard", true), ("fast", false)]) == Some(false) {
                fields.error("speed", "`fast` is not supported yet; leave it out");
            }
            fields.finish();
            (id, format!("{place}id"))
        }
    };
    match resolve_model(&id?) {
        Ok(id) => Some(json!({"id": id, "speed": "standard"})),
        Err(error) => {
            errors.push(FieldError::new(at, error.message));
            None
        }
    }
}

#[cfg(test)]
mod tests;
