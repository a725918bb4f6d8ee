//! The `tools` of an agent: what is asked for, and what it is with all defaults.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wardian_protocol::message::json_type;
use wardian_session::FieldError;

use super::Fields;

/// The one toolset.
pub const TOOLSET: &str = "agent_toolset_20260401";
/// Its tools.
const BUILT_IN: [&str; 8] = ["bash", "edit", "read", "write", "glob", "grep", WEB_FETCH, WEB_SEARCH];
const WEB_FETCH: &str = "web_fetch";
const WEB_SEARCH: &str = "web_search";
/// Tools of an agent, the toolset's own included, as the stock API has it.
const MAX_TOOLS: usize = 256;
/// Characters of a custom tool's name, as the stock API has it.
const MAX_NAME_CHARS: usize = 128;
/// Characters of a custom tool's description: models read it with every request.
const MAX_DESCRIPTION_CHARS: usize = 16 * 1024;
/// JSON text of a custom tool's input schema, for the same reason.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Errors of one list that are told.
const MAX_ERRORS: usize = 20;
/// What is said of the two tools that need a network.
const NO_WEB: &str = "not supported yet: sandboxes have no network; leave it out or disable it";

/// Reads the field `name`, a list of tools; what comes back has every default filled in.
pub fn read(value: Value, name: &str, errors: &mut Vec<FieldError>) -> Vec<Value> {
    let list = match value {
        Value::Array(list) => list,
        other => {
            let message = format!("expected a list, found {}", json_type(&other));
            errors.push(FieldError::new(name, message));
            return Vec::new();
        }
    };
    let toolsets = list.iter().filter(|tool| tool["type"] == TOOLSET).count();
    let number = list.len() - toolsets + toolsets * BUILT_IN.len();
    if number > MAX_TOOLS {
        errors.push(FieldError::new(name, format!("{number} tools; the limit is {MAX_TOOLS}")));
        return Vec::new();
    }
    let mut names: BTreeSet<String> = BTreeSet::new();
    let mut tools = Vec::with_capacity(list.len());
    let before = errors.len();
    for (index, tool) in list.into_iter().enumerate() {
        if errors.len() - before >= MAX_ERRORS {
            break;
        }
        tools.extend(read_tool(tool, &format!("{name}[{index}]."), &mut names, errors));
    }
    tools
}

fn read_tool(
    tool: Value,
    place: &str,
    names: &mut BTreeSet<String>,
    errors: &mut Vec<FieldError>,
) -> Option<Value> {
    let mut nested = Vec::new();
    let mut fields = Fields::of(tool, place, errors)?;
    let kind = fields.string("type");
    let tool = match kind.as_deref() {
        Some(TOOLSET) => {
            if !names.insert(BUILT_IN[0].to_owned()) {
                fields.error(
                    "type",
                    format!("a second `{TOOLSET}`, or a custom tool of the name of one of its tools"),
                );
            }
            names.extend(BUILT_IN.map(str::to_owned));
            read_toolset(&mut fields, place, &mut nested)
        }
        Some("custom") => read_custom(&mut fields, names),
        Some("mcp_toolset") => {
            fields.error("type", "MCP servers are not supported yet; leave it out");
            return None;
        }
        _ => {
            if !fields.failed("type") {
                fields.error("type", format!("expected `{TOOLSET}` or `custom`"));
            }
            return None;
        }
    };
    fields.finish();
    errors.append(&mut nested);
    tool
}

fn read_custom(fields: &mut Fields<'_>, names: &mut BTreeSet<String>) -> Option<Value> {
    let name = fields.string("name");
    let description = fields.string("description");
    let schema = fields.value("input_schema");
    match &name {
        Some(name) if !is_name(name) => {
            fields.error(
                "name",
                format!("expected 1 to {MAX_NAME_CHARS} letters, digits, underscores and hyphens"),
            );
        }
        Some(name) if !names.insert(name.clone()) => fields.error("name", format!("a second tool `{name}`")),
        None if !fields.failed("name") => fields.error("name", "expected a name"),
        Some(_) | None => {}
    }
    match &description {
        Some(text) if text.chars().count() > MAX_DESCRIPTION_CHARS => {
            fields.error("description", format!("expected at most {MAX_DESCRIPTION_CHARS} characters"));
        }
        None if !fields.failed("description") => {
            fields.error("description", "expected what the tool does, in words for the model");
        }
        Some(_) | None => {}
    }
    match &schema {
        Some(schema) => check_schema(schema, fields),
        None => fields.error("input_schema", "expected a JSON schema of an object"),
    }
    Some(json!({"type": "custom", "name": name?, "description": description?, "input_schema": schema?}))
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_NAME_CHARS).contains(&name.len()) && name.bytes().all(plain)
}

/// The schema goes to the model as it is; what the model API would refuse, agent by agent, is refused here.
fn check_schema(schema: &Value, fields: &mut Fields<'_>) {
    let Value::Object(map) = schema else {
        fields.error("input_schema", format!("expected an object, found {}", json_type(schema)));
        return;
    };
    if map.get("type") != Some(&json!("object")) {
        fields.error("input_schema.type", "expected `object`");
    }
    if map.get("properties").is_some_and(|properties| !properties.is_object() && !properties.is_null()) {
        fields.error("input_schema.properties", "expected an object");
    }
    let strings = |list: &Value| list.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    if map.get("required").is_some_and(|required| !required.is_null() && !strings(required)) {
        fields.error("input_schema.required", "expected a list of strings");
    }
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        fields.error("input_schema", format!("expected at most {MAX_SCHEMA_BYTES} bytes"));
    }
}

/// Whether a tool may be used, and who is asked.
#[derive(Clone, Debug)]
struct Config {
    enabled: bool,
    policy: Value,
}

fn read_toolset(fields: &mut Fields<'_>, place: &str, errors: &mut Vec<FieldError>) -> Option<Value> {
    let mut default = Config { enabled: true, policy: json!({"type": "always_allow"}) };
    if let Some(value) = fields.value("default_config") {
        default = read_default(value, &format!("{place}default_config."), &default, errors)?;
    }
    let mut configs: Vec<Value> = Vec::new();
    let asked = fields.list("configs").unwrap_or_default();
    if asked.len() > BUILT_IN.len() {
        fields.error("configs", format!("{} configs; the toolset has {} tools", asked.len(), BUILT_IN.len()));
        return None;
    }
    for (index, value) in asked.into_iter().enumerate() {
        let place = format!("{place}configs[{index}].");
        let Some(config) = read_config(value, &place, &default, errors) else { continue };
        if configs.iter().any(|other| other["name"] == config["name"]) {
            errors.push(FieldError::new(format!("{place}name"), "a second config of this tool"));
        }
        configs.push(config);
    }
    // Whoever leaves them to the default sees that they are off.
    for name in [WEB_FETCH, WEB_SEARCH] {
        if !configs.iter().any(|config| config["name"] == name) {
            configs.push(render(name, &Config { enabled: false, ..default.clone() }));
        }
    }
    let default = json!({"enabled": default.enabled, "permission_policy": default.policy});
    Some(json!({"type": TOOLSET, "configs": configs, "default_config": default}))
}

fn read_default(value: Value, place: &str, default: &Config, errors: &mut Vec<FieldError>) -> Option<Config> {
    let mut nested = Vec::new();
    let mut fields = Fields::of(value, place, errors)?;
    let enabled = fields.boolean("enabled").unwrap_or(default.enabled);
    let policy = read_policy(&mut fields, place, &mut nested);
    fields.finish();
    errors.append(&mut nested);
    Some(Config { enabled, policy: policy.unwrap_or_else(|| default.policy.clone()) })
}

fn read_config(value: Value, place: &str, default: &Config, errors: &mut Vec<FieldError>) -> Option<Value> {
    let mut nested = Vec::new();
    let mut fields = Fields::of(value, place, errors)?;
    let name = fields.word("name", &BUILT_IN.map(|name| (name, name)));
    let kind = fields.string("type");
    if name.is_none() && !fields.failed("name") {
        fields.error("name", format!("expected one of {}", BUILT_IN.join(", ")));
    }
    if let (Some(name), Some(kind)) = (name, kind)
        && name != kind
    {
        fields.error("type", format!("expected `{name}`, as its name says"));
    }
    let enabled = fields.boolean("enabled");
    let policy = read_policy(&mut fields, place, &mut nested);
    let web = matches!(name, Some(WEB_FETCH | WEB_SEARCH));
    if web {
        if enabled == Some(true) {
            fields.error("enabled", NO_WEB);
        }
        for option in
            ["allowed_domains", "blocked_domains", "max_content_tokens", "url_sources", "user_location"]
        {
            if fields.value(option).is_some() {
                fields.error(option, NO_WEB);
            }
        }
    }
    fields.finish();
    errors.append(&mut nested);
    let config = Config {
        enabled: enabled.unwrap_or(default.enabled) && !web,
        policy: policy.unwrap_or_else(|| default.policy.clone()),
    };
    Some(render(name?, &config))
}

fn read_policy(fields: &mut Fields<'_>, place: &str, errors: &mut Vec<FieldError>) -> Option<Value> {
    let value = fields.value("permission_policy")?;
    let mut fields = Fields::of(value, &format!("{place}permission_policy."), errors)?;
    let words = ["always_allow", "always_ask", "auto"].map(|word| (word, word));
    let kind = fields.word("type", &words);
    if kind.is_none() && !fields.failed("type") {
        fields.error("type", "expected `always_allow`, `always_ask` or `auto`");
    }
    fields.finish();
    Some(json!({"type": kind?}))
}

fn render(name: &str, config: &Config) -> Value {
    let mut rendered =
        json!({"type": name, "name": name, "enabled": config.enabled, "permission_policy": config.policy});
    if name == WEB_FETCH {
        rendered["url_sources"] = Value::Null;
    }
    rendered
}

#[cfg(test)]
mod tests;
