//! `/v1/agents`: agents and their versions.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use serde_json::{Value, json};
use wardian_protocol::{AgentId, OrgId};
use wardian_store::{
    AgentQuery, AgentRecord, CreatedRange, MAX_DEFINITION_BYTES, NewAgent, Order, UpdateAgent,
};

use crate::App;
use crate::auth::{reader, writer};
use crate::body::{read_json, read_nothing};
use crate::error::Error;
use crate::page::{self, ByTime};
use crate::path::id_of;
use crate::query::{self, Query};
use crate::seed::Seed;
use crate::wire::agent::{self, Update};

/// How often an update without a version is tried again when others update the agent at the same time.
const MAX_TRIES: usize = 10;

/// `POST /v1/agents`
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(seed): Extension<Seed>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let body = read_json(&app, request).await?;
    let definition = agent::read_new(body).map_err(|errors| Error::fields(&errors))?;
    check_size(&definition)?;
    let id: AgentId = seed.id(0);
    let (org_id, created_at) = (identity.org().clone(), (app.config.clock)());
    match app.store.create_agent(NewAgent { id: id.clone(), org_id, definition, created_at }).await {
        Err(wardian_store::Error::Exists { .. }) if seed.is_again() => {}
        made => made?,
    }
    Ok(Json(render(&find(&app, identity.org(), &id, Some(1)).await?)))
}

/// `GET /v1/agents/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    let mut query = Query::read(request.uri().query())?;
    let version = query.optional("version", "a whole number of at least 1", |text| {
        text.parse().ok().filter(|version| *version >= 1)
    });
    query.finish()?;
    let id = id_of("agent", path)?;
    Ok(Json(render(&find(&app, identity.org(), &id, version).await?)))
}

/// `POST /v1/agents/{id}`: makes a new version.
pub async fn update(
    State(app): State<Arc<App>>,
    Extension(seed): Extension<Seed>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let body = read_json(&app, request).await?;
    let update = Update::read(body).map_err(|errors| Error::fields(&errors))?;
    let id = id_of("agent", path)?;
    for _ in 0..MAX_TRIES {
        let current = find(&app, identity.org(), &id, None).await?;
        let definition = update.apply(&current.definition).map_err(|errors| Error::fields(&errors))?;
        check_size(&definition)?;
        // A first try may have made the version before its process died.
        let done = seed.is_again() && definition == current.definition;
        let expected = if done { None } else { Some(update.version.unwrap_or(current.version)) };
        let at = (app.config.clock)();
        match app.store.update_agent(identity.org(), &id, expected, definition, at).await? {
            UpdateAgent::Updated(record) => return Ok(Json(render(&record))),
            UpdateAgent::WrongVersion { .. } if update.version.is_none() => {}
            UpdateAgent::WrongVersion { current } => {
                let message = format!("version: the agent's current version is {current}");
                return Err(Error::conflict(message).finally());
            }
            UpdateAgent::Archived => {
                return Err(Error::invalid("this agent is archived: it cannot be changed"));
            }
            UpdateAgent::Missing => return Err(Error::no_such("agent", id.as_str())),
        }
    }
    Err(Error::conflict("others update this agent at the same time; try again"))
}

/// `POST /v1/agents/{id}/archive`
pub async fn archive(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    read_nothing(&app, request).await?;
    let id: AgentId = id_of("agent", path)?;
    let archived = app.store.archive_agent(identity.org(), &id, (app.config.clock)()).await?;
    Ok(Json(render(&archived.ok_or_else(|| Error::no_such("agent", id.as_str()))?)))
}

/// `GET /v1/agents`: the newest first.
pub async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    let mut query = Query::read(request.uri().query())?;
    let created = CreatedRange {
        gte: query.time("created_at[gte]"),
        lte: query.time("created_at[lte]"),
        ..CreatedRange::default()
    };
    let include_archived = query.boolean("include_archived").unwrap_or(false);
    let list = json!(["agents", identity.org(), created.gte, created.lte, include_archived]);
    let asked = page::Asked::<ByTime>::read(&mut query, &list, page::MAX_LIMIT);
    query.finish()?;
    let query = AgentQuery { created, include_archived, page: asked.store_page(Order::Desc) };
    let rows = app.store.agents(identity.org(), query).await?;
    Ok(Json(asked.answer(rows, false, |row| (row.created_at, row.id.to_string()), render)))
}

/// `GET /v1/agents/{id}/versions`: the newest first.
pub async fn versions(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    let id: AgentId = id_of("agent", path)?;
    let mut query = Query::read(request.uri().query())?;
    let list = json!(["agent versions", identity.org(), id]);
    let asked = page::Asked::<u64>::read(&mut query, &list, page::MAX_LIMIT);
    query.finish()?;
    let rows = app.store.agent_versions(identity.org(), &id, asked.after, asked.fetch()).await?;
    let rows = rows.ok_or_else(|| Error::no_such("agent", id.as_str()))?;
    Ok(Json(asked.answer(rows, false, |row| row.version, render)))
}

/// Each field has its limit, and all together have one more: that of what is stored.
fn check_size(definition: &Value) -> Result<(), Error> {
    let size = definition.to_string().len();
    if size <= MAX_DEFINITION_BYTES {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the agent has {size} bytes; the limit is {MAX_DEFINITION_BYTES} with all its tools"
    )))
}

async fn find(app: &App, org_id: &OrgId, id: &AgentId, version: Option<u64>) -> Result<AgentRecord, Error> {
    let found = app.store.agent(org_id, id, version).await?;
    match (found, version) {
        (Some(agent), _) => Ok(agent),
        (None, Some(version)) if app.store.agent(org_id, id, None).await?.is_some() => {
            Err(Error::not_found(format!("agent {id} has no version {version}")))
        }
        (None, _) => Err(Error::no_such("agent", id.as_str())),
    }
}

/// An agent as clients see it.
pub fn render(agent: &AgentRecord) -> Value {
    let mut shown = json!({
        "id": agent.id,
        "type": "agent",
        "version": agent.version,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
        "archived_at": agent.archived_at,
    });
    if let (Value::Object(shown), Value::Object(definition)) = (&mut shown, &agent.definition) {
        shown.extend(definition.clone());
    }
    shown
}
