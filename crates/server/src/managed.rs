//! `/v1/sessions`: made, read, listed, changed, archived, deleted.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use serde_json::{Value, json};
use wardian_protocol::{AgentId, EnvironmentId, EventId, SessionId};
use wardian_session::{
    Definition, FieldError, NewManagedSession, SessionError, SessionUpdate, SessionView, UserEvent,
};
use wardian_store::{
    AgentRecord, CreatedRange, EnvironmentRecord, MAX_USER_BYTES, Order, SessionQuery, SessionStatus,
};

use crate::App;
use crate::auth::{Identity, reader, writer};
use crate::body::{read_json, read_nothing};
use crate::error::Error;
use crate::page::{Asked, ByTime, MAX_LIMIT};
use crate::query::{self, Query};
use crate::resources;
use crate::seed::Seed;
use crate::wire::event::MAX_EVENTS;
use crate::wire::session::{AskedAgent, AskedSession, AskedUpdate, read_create, read_update, session_json};
use crate::wire::{agent, metadata, tools};

/// The pair of a session's metadata that says whose it is.
const USER_PAIR: &str = "user_id";
/// Statuses that a list is asked for: all there are.
const MAX_STATUSES: usize = 4;
/// Ids that a new session makes: itself, its events, then its resources.
const FIRST_EVENT_ID: u32 = 1;

/// `POST /v1/sessions`
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(seed): Extension<Seed>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let asked = read_create(read_json(&app, request).await?).map_err(|errors| Error::fields(&errors))?;
    let session = resolve(&app, &identity, seed, asked).await?;
    let id = session.id.clone();
    let made = app.engine.create_session(&identity.caller(), session).await;
    made.map(|view| shown(&app, &view)).map_err(|error| session_error(error, id.as_str()))
}

/// Finds all that a new session names.
async fn resolve(
    app: &App,
    identity: &Identity,
    seed: Seed,
    asked: AskedSession,
) -> Result<NewManagedSession, Error> {
    let user = user_of(identity, asked.metadata.get(USER_PAIR))?;
    let (agent, snapshot) = find_agent(app, identity, asked.agent).await?;
    let environment = find_environment(app, identity, &asked.environment_id).await?;
    let first = FIRST_EVENT_ID + u32::try_from(MAX_EVENTS).unwrap_or(u32::MAX / 2);
    let resources = resources::of_new_session(app, identity, seed, first, asked.resources).await?;
    let initial_events = with_ids(seed, FIRST_EVENT_ID, asked.events);
    let definition = Definition {
        agent: snapshot,
        environment: environment.definition["config"].clone(),
        title: asked.title,
        metadata: asked.metadata,
        budget: asked.budget,
        resources,
        vault_ids: Vec::new(),
    };
    Ok(NewManagedSession {
        id: seed.id(0),
        user,
        agent_id: agent.id,
        agent_version: agent.version,
        environment_id: environment.id,
        definition,
        initial_events,
    })
}

/// Whose the session is: the key's user, or the one that its metadata names.
fn user_of(identity: &Identity, named: Option<&String>) -> Result<Option<String>, Error> {
    let wrong = |message: String| Error::fields(&[FieldError::new(format!("metadata.{USER_PAIR}"), message)]);
    match (identity.user(), named) {
        (Some(own), Some(named)) if own != named => {
            Err(wrong("expected the user that the key is bound to, or none".to_owned()))
        }
        (Some(own), _) => Ok(Some(own.to_owned())),
        (None, Some(named))
            if !(1..=MAX_USER_BYTES).contains(&named.len()) || named.chars().any(char::is_control) =>
        {
            Err(wrong(format!("expected 1 to {MAX_USER_BYTES} bytes without control characters")))
        }
        (None, Some(named)) => Ok(Some(named.clone())),
        (None, None) => Ok(None),
    }
}

/// The agent, and the session's own copy of it, with its overrides.
async fn find_agent(
    app: &App,
    identity: &Identity,
    asked: AskedAgent,
) -> Result<(AgentRecord, Value), Error> {
    let found = app.store.agent(identity.org(), &asked.id, asked.version).await?;
    let found = found.ok_or_else(|| {
        let id = asked.id.as_str();
        match asked.version {
            Some(version) => Error::not_found(format!("no agent {id:?} with a version {version}")),
            None => Error::no_such("agent", id),
        }
    })?;
    if found.archived_at.is_some() {
        return Err(Error::fields(&[FieldError::new("agent", "it is archived; name another one")]));
    }
    let inside = |errors: Vec<FieldError>| {
        let errors: Vec<_> = errors
            .into_iter()
            .map(|error| FieldError::new(format!("agent.{}", error.field), error.message))
            .collect();
        Error::fields(&errors)
    };
    let overrides = agent::Update::read(Value::Object(asked.overrides)).map_err(inside)?;
    let definition = overrides.apply(&found.definition).map_err(inside)?;
    let snapshot = agent_json(&found, &definition);
    Ok((found, snapshot))
}

/// An agent as a session shows it.
fn agent_json(agent: &AgentRecord, definition: &Value) -> Value {
    let mut shown = json!({"id": agent.id, "type": "agent", "version": agent.version});
    if let (Value::Object(shown), Value::Object(definition)) = (&mut shown, definition) {
        let fields = definition.iter().filter(|(name, _)| *name != "metadata");
        shown.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
    }
    shown
}

async fn find_environment(
    app: &App,
    identity: &Identity,
    id: &EnvironmentId,
) -> Result<EnvironmentRecord, Error> {
    let found = app.store.environment(identity.org(), id).await?;
    let found = found.ok_or_else(|| Error::no_such("environment", id.as_str()))?;
    if found.archived_at.is_some() {
        let message = "it is archived; name another one".to_owned();
        return Err(Error::fields(&[FieldError::new("environment_id", message)]));
    }
    Ok(found)
}

/// Events with the ids that a repeated request gives them again.
pub fn with_ids(seed: Seed, first: u32, events: Vec<UserEvent>) -> Vec<(EventId, UserEvent)> {
    (first..).zip(events).map(|(number, event)| (seed.id(number), event)).collect()
}

/// `GET /v1/sessions/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    query::none(request.uri().query())?;
    let (text, id) = session_id(path)?;
    let view = app.engine.get_session(&identity.caller(), &id).await;
    view.map(|view| shown(&app, &view)).map_err(|error| session_error(error, &text))
}

/// `POST /v1/sessions/{id}`
pub async fn update(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let (text, id) = session_id(path)?;
    let caller = identity.caller();
    let before = app.engine.get_session(&caller, &id).await.map_err(|error| session_error(error, &text))?;
    let asked = read_update(read_json(&app, request).await?).map_err(|errors| Error::fields(&errors))?;
    let update = check_update(asked, &before).map_err(|errors| Error::fields(&errors))?;
    let view = app.engine.update_session(&caller, &id, update).await;
    view.map(|view| shown(&app, &view)).map_err(|error| session_error(error, &text))
}

/// What of an update is wrong for this session.
fn check_update(asked: AskedUpdate, before: &SessionView) -> Result<SessionUpdate, Vec<FieldError>> {
    let mut errors = Vec::new();
    let definition = &before.definition;
    if let Some(user) = asked.metadata.get(USER_PAIR)
        && user.as_ref() != definition.metadata.get(USER_PAIR)
    {
        let message = "a session's user is set when it is made";
        errors.push(FieldError::new(format!("metadata.{USER_PAIR}"), message));
    }
    metadata::apply(&mut definition.metadata.clone(), asked.metadata.clone(), &mut errors);
    match (asked.budget, definition.budget) {
        (Some(Some(_)), None) => errors.push(FieldError::new(
            "budget",
            "a session that was made without a budget, or whose budget was removed, gets none (budget_create_only)",
        )),
        (Some(Some(limit)), Some(_)) if limit <= before.usage.cost => errors.push(FieldError::new(
            "budget.max_list_cost",
            "expected more than the session has cost already (budget_not_raised)",
        )),
        _ => {}
    }
    let mut agent = asked.agent;
    if agent.get("mcp_servers").and_then(Value::as_array).is_some_and(|servers| !servers.is_empty()) {
        let message = "MCP servers are not supported yet; leave it out or empty";
        errors.push(FieldError::new("agent.mcp_servers", message));
    }
    let agent_tools =
        agent.swap_remove("tools").map(|list| Value::Array(tools::read(list, "agent.tools", &mut errors)));
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(SessionUpdate {
        title: asked.title,
        metadata: asked.metadata,
        budget: asked.budget,
        agent_tools,
        ..SessionUpdate::default()
    })
}

/// `GET /v1/sessions`
pub async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    let (query, asked) = read_list(request.uri().query(), &identity)?;
    let views = app.engine.list_sessions(&identity.caller(), query).await;
    let views = views.map_err(|error| session_error(error, ""))?;
    let now = (app.config.clock)();
    let key = |view: &SessionView| (view.created_at, view.id.as_str().to_owned());
    Ok(Json(asked.answer(views, true, key, |view| session_json(view, now))))
}

fn read_list(text: Option<&str>, identity: &Identity) -> Result<(SessionQuery, Asked<ByTime>), Error> {
    let mut query = Query::read(text)?;
    let agent_id: Option<AgentId> =
        query.optional("agent_id", "an agent's id, `agent_…`", |text| text.parse().ok());
    let agent_version: Option<u64> = query.optional("agent_version", "a whole number above 0", |text| {
        text.parse().ok().filter(|version| *version > 0)
    });
    let statuses =
        query.list("statuses", "`idle`, `running`, `rescheduling` or `terminated`", MAX_STATUSES, |text| {
            serde_json::from_value::<SessionStatus>(json!(text)).ok()
        });
    let created = created_range(&mut query);
    let include_archived = query.boolean("include_archived").unwrap_or(false);
    let order = order(&mut query, Order::Desc);
    for (name, what) in [("deployment_id", "deployments"), ("memory_store_id", "memory stores")] {
        if query.optional(name, "a text", |text| Some(text.to_owned())).is_some() {
            query.error(name, format!("{what} are not supported; leave it out"));
        }
    }
    let statuses = statuses.unwrap_or_default();
    let binding = json!([
        "sessions",
        identity.org(),
        identity.user(),
        agent_id,
        agent_version,
        statuses,
        [created.gt, created.gte, created.lt, created.lte],
        include_archived,
        order == Order::Asc,
    ]);
    let asked: Asked<ByTime> = Asked::read(&mut query, &binding, MAX_LIMIT);
    query.finish()?;
    let page = asked.store_page(order);
    // It narrows the agent that is asked for; alone it says nothing.
    let agent_version = agent_version.filter(|_| agent_id.is_some());
    let user_id = identity.user().map(str::to_owned);
    let query = SessionQuery { agent_id, agent_version, statuses, created, include_archived, user_id, page };
    Ok((query, asked))
}

/// The four bounds on when something was made.
pub fn created_range(query: &mut Query) -> CreatedRange {
    CreatedRange {
        gt: query.time("created_at[gt]"),
        gte: query.time("created_at[gte]"),
        lt: query.time("created_at[lt]"),
        lte: query.time("created_at[lte]"),
    }
}

/// Which way a list goes.
pub fn order(query: &mut Query, default: Order) -> Order {
    let asked = query.optional("order", "`asc` or `desc`", |text| match text {
        "asc" => Some(Order::Asc),
        "desc" => Some(Order::Desc),
        _ => None,
    });
    asked.unwrap_or(default)
}

/// `POST /v1/sessions/{id}/archive`
pub async fn archive(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    read_nothing(&app, request).await?;
    let (text, id) = session_id(path)?;
    let view = app.engine.archive_session(&identity.caller(), &id).await;
    view.map(|view| shown(&app, &view)).map_err(|error| session_error(error, &text))
}

/// `DELETE /v1/sessions/{id}`
pub async fn delete(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let (text, id) = session_id(path)?;
    let deleted = app.engine.delete_session(&identity.caller(), &id).await;
    deleted.map_err(|error| session_error(error, &text))?;
    Ok(Json(json!({"id": id, "type": "session_deleted"})))
}

/// The session that a path names, and the text that stood there.
pub fn session_id(path: Result<Path<String>, PathRejection>) -> Result<(String, SessionId), Error> {
    let text = path.map(|Path(text)| text).unwrap_or_default();
    let id = text.parse().map_err(|_| Error::session_not_found(&text))?;
    Ok((text, id))
}

fn shown(app: &App, view: &SessionView) -> Json<Value> {
    Json(session_json(view, (app.config.clock)()))
}

/// Why a session did not do it. `text`: what the client called it.
pub fn session_error(error: SessionError, text: &str) -> Error {
    match error {
        SessionError::NotFound => Error::session_not_found(text),
        SessionError::Exists => Error::conflict(format!("session {text} exists already")),
        SessionError::Invalid(fields) => Error::fields(&fields),
        SessionError::Conflict(why) => Error::conflict(why),
        SessionError::Full(full) => Error::slow_down(full.to_string(), Duration::from_secs(5)),
        SessionError::Stopping => Error::unavailable("this server is stopping"),
        SessionError::Elsewhere => Error::unavailable("another server runs this session; try again"),
        SessionError::Store(error) => error.into(),
        error @ SessionError::Internal => Error::internal("an internal error", &error),
    }
}
