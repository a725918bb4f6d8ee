//! Sessions as the API writes them: what may be asked for, and what is shown.

use jiff::Timestamp;
use serde_json::{Value, json};
use wardian_protocol::{AgentId, EnvironmentId, JsonMap, NanoUsd};
use wardian_session::{FieldError, SessionUsage, SessionView, UserEvent};
use wardian_store::SessionStatus;

use super::Fields;
use super::event::{Taken, read_events};
use super::metadata::{self, Metadata, Patch};
use super::money::{amount_json, budget_json, read_budget};
use super::resource::MAX_RESOURCES;

/// The longest title, in characters: a line that a list can show.
const MAX_TITLE_CHARS: usize = 500;

/// The fields of an agent that a session may have otherwise.
const OVERRIDES: [&str; 5] = ["mcp_servers", "model", "skills", "system", "tools"];

/// A session that is asked for.
#[derive(Debug, PartialEq)]
pub struct AskedSession {
    /// The agent.
    pub agent: AskedAgent,
    /// Where it runs.
    pub environment_id: EnvironmentId,
    /// A title.
    pub title: Option<String>,
    /// Pairs.
    pub metadata: Metadata,
    /// The most that it may cost.
    pub budget: Option<NanoUsd>,
    /// What to mount, unchecked.
    pub resources: Vec<Value>,
    /// What to begin with.
    pub events: Vec<UserEvent>,
}

/// Which agent, and with which fields of its own replaced.
#[derive(Debug, PartialEq)]
pub struct AskedAgent {
    /// The agent.
    pub id: AgentId,
    /// Which version; the newest if none is named.
    pub version: Option<u64>,
    /// Fields that replace the agent's, unchecked; a null clears.
    pub overrides: JsonMap,
}

/// Reads the body of `POST /v1/sessions`.
pub fn read_create(body: Value) -> Result<AskedSession, Vec<FieldError>> {
    let mut errors = Vec::new();
    let asked = read_create_fields(body, &mut errors);
    match asked {
        Some(asked) if errors.is_empty() => Ok(asked),
        _ => Err(errors),
    }
}

fn read_create_fields(body: Value, errors: &mut Vec<FieldError>) -> Option<AskedSession> {
    let mut nested = Vec::new();
    let mut fields = Fields::of(body, "", errors)?;
    let agent = match fields.value("agent") {
        Some(value) => read_agent(value, &mut nested),
        None => {
            fields.error("agent", "expected an agent's id, or an object with one");
            None
        }
    };
    let environment = "an environment's id, `env_…`";
    let environment_id =
        fields.parsed("environment_id", environment, |value| value.as_str()?.parse::<EnvironmentId>().ok());
    if environment_id.is_none() && !fields.failed("environment_id") {
        fields.error("environment_id", format!("expected {environment}"));
    }
    let title = fields.value("title").and_then(|value| read_title(value, &mut nested));
    let metadata =
        fields.value("metadata").map(|value| metadata::read(value, &mut nested)).unwrap_or_default();
    let budget = fields.value("budget").and_then(|value| read_budget(value, "budget", &mut nested));
    let resources = fields.list("resources").unwrap_or_default();
    if resources.len() > MAX_RESOURCES {
        fields.error("resources", format!("{} resources; the limit is {MAX_RESOURCES}", resources.len()));
    }
    let events = fields.list("initial_events").unwrap_or_default();
    let events = read_events(events, "initial_events", Taken::Initial, &mut nested);
    refuse_vaults(&mut fields);
    fields.finish();
    errors.append(&mut nested);
    let (agent, environment_id) = (agent?, environment_id?);
    Some(AskedSession { agent, environment_id, title, metadata, budget, resources, events })
}

fn refuse_vaults(fields: &mut Fields<'_>) {
    if fields.list("vault_ids").is_some_and(|ids| !ids.is_empty()) {
        fields.error("vault_ids", "vaults are not supported; leave it out or empty");
    }
}

fn read_agent(value: Value, errors: &mut Vec<FieldError>) -> Option<AskedAgent> {
    const EXPECTED: &str = "expected an agent's id, `agent_…`";
    if let Value::String(text) = &value {
        let id = text.parse().ok();
        if id.is_none() {
            errors.push(FieldError::new("agent", EXPECTED));
        }
        return Some(AskedAgent { id: id?, version: None, overrides: JsonMap::new() });
    }
    let mut fields = Fields::of(value, "agent.", errors)?;
    let kind = fields.word("type", &[("agent", false), ("agent_with_overrides", true)]);
    if kind.is_none() && !fields.failed("type") {
        fields.error("type", "expected `agent` or `agent_with_overrides`");
    }
    let id = fields.string("id").and_then(|text| text.parse().ok());
    if id.is_none() && !fields.failed("id") {
        fields.error("id", EXPECTED);
    }
    let version = fields
        .parsed("version", "a whole number above 0", |value| value.as_u64().filter(|version| *version > 0));
    let mut overrides = JsonMap::new();
    if kind == Some(true) {
        for name in OVERRIDES {
            if let Some(value) = fields.patch(name) {
                overrides.insert(name.to_owned(), value.unwrap_or_default());
            }
        }
    }
    fields.finish();
    Some(AskedAgent { id: id?, version, overrides })
}

fn read_title(value: Value, errors: &mut Vec<FieldError>) -> Option<String> {
    match value {
        Value::String(title) if title.chars().count() <= MAX_TITLE_CHARS => Some(title),
        _ => {
            errors.push(FieldError::new(
                "title",
                format!("expected a text of at most {MAX_TITLE_CHARS} characters"),
            ));
            None
        }
    }
}

/// A change that is asked for.
#[derive(Debug, Default, PartialEq)]
pub struct AskedUpdate {
    /// The title; inner `None` removes it.
    pub title: Option<Option<String>>,
    /// Pairs to set, and with `None` to remove.
    pub metadata: Patch,
    /// The budget; inner `None` removes it.
    pub budget: Option<Option<NanoUsd>>,
    /// `tools` and `mcp_servers` that replace the agent's, unchecked.
    pub agent: JsonMap,
}

/// Reads the body of `POST /v1/sessions/{id}`.
pub fn read_update(body: Value) -> Result<AskedUpdate, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut nested = Vec::new();
    let mut asked = AskedUpdate::default();
    if let Some(mut fields) = Fields::of(body, "", &mut errors) {
        asked.title =
            fields.patch("title").map(|title| title.and_then(|title| read_title(title, &mut nested)));
        asked.metadata = fields
            .value("metadata")
            .map(|value| metadata::read_patch(value, &mut nested))
            .unwrap_or_default();
        asked.budget = fields
            .patch("budget")
            .map(|budget| budget.and_then(|budget| read_budget(budget, "budget", &mut nested)));
        if let Some(agent) = fields.value("agent") {
            asked.agent = read_agent_update(agent, &mut nested);
        }
        refuse_vaults(&mut fields);
        fields.finish();
    }
    errors.append(&mut nested);
    if errors.is_empty() { Ok(asked) } else { Err(errors) }
}

fn read_agent_update(value: Value, errors: &mut Vec<FieldError>) -> JsonMap {
    let mut update = JsonMap::new();
    if let Some(mut fields) = Fields::of(value, "agent.", errors) {
        for name in ["tools", "mcp_servers"] {
            if let Some(list) = fields.list(name) {
                update.insert(name.to_owned(), Value::Array(list));
            }
        }
        fields.finish();
    }
    update
}

/// A session as its owner sees it.
pub fn session_json(view: &SessionView, now: Timestamp) -> Value {
    let definition = &view.definition;
    let ended = if view.status == SessionStatus::Terminated { view.updated_at } else { now };
    let duration = ended.duration_since(view.created_at).as_secs_f64().max(0.0);
    json!({
        "id": view.id,
        "type": "session",
        "status": view.status,
        "title": definition.title,
        "agent": definition.agent,
        "environment_id": view.environment_id,
        "budget": budget_json(definition.budget),
        "usage": usage_json(&view.usage),
        "stats": {"active_seconds": seconds(view.usage.active.as_secs_f64()), "duration_seconds": seconds(duration)},
        "resources": definition.resources,
        "metadata": definition.metadata,
        "vault_ids": definition.vault_ids,
        "outcome_evaluations": [],
        "deployment_id": null,
        "queue_position": view.queue_position,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
        "archived_at": view.archived_at,
    })
}

fn usage_json(usage: &SessionUsage) -> Value {
    let tokens = &usage.tokens;
    json!({
        "input_tokens": tokens.input_tokens,
        "output_tokens": tokens.output_tokens,
        "cache_read_input_tokens": tokens.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h_tokens,
        },
        "active_seconds": seconds(usage.active.as_secs_f64()),
        "list_cost": amount_json(usage.cost),
        "server_tool_use": {"web_search_requests": tokens.web_search_requests, "web_fetch_requests": 0},
    })
}

/// Seconds to the millisecond; more is noise.
fn seconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
