//! `/v1/environments`: what a session's sandbox is like.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use serde_json::{Value, json};
use wardian_protocol::{EnvironmentId, OrgId};
use wardian_store::{
    CreatedRange, DeleteEnvironment, EnvironmentQuery, EnvironmentRecord, NewEnvironment, Order,
    UpdateEnvironment,
};

use crate::App;
use crate::auth::{reader, writer};
use crate::body::{read_json, read_nothing};
use crate::error::Error;
use crate::page::{self, ByTime};
use crate::path::id_of;
use crate::query::{self, Query};
use crate::seed::Seed;
use crate::wire::environment::{self, Wrong};

/// `POST /v1/environments`
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(seed): Extension<Seed>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let body = read_json(&app, request).await?;
    let definition = environment::read_new(body, app.config.max_networking).map_err(refusal)?;
    let id: EnvironmentId = seed.id(0);
    let (org_id, created_at) = (identity.org().clone(), (app.config.clock)());
    let new = NewEnvironment { id: id.clone(), org_id, definition, created_at };
    match app.store.create_environment(new).await {
        Err(wardian_store::Error::Exists { .. }) if seed.is_again() => {}
        made => made?,
    }
    Ok(Json(render(&find(&app, identity.org(), &id).await?)))
}

/// `GET /v1/environments/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    query::none(request.uri().query())?;
    let id = id_of("environment", path)?;
    Ok(Json(render(&find(&app, identity.org(), &id).await?)))
}

/// `POST /v1/environments/{id}`
pub async fn update(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let body = read_json(&app, request).await?;
    let id: EnvironmentId = id_of("environment", path)?;
    let current = find(&app, identity.org(), &id).await?;
    let definition =
        environment::update(body, &current.definition, app.config.max_networking).map_err(refusal)?;
    let at = (app.config.clock)();
    match app.store.update_environment(identity.org(), &id, definition, at).await? {
        UpdateEnvironment::Updated(record) => Ok(Json(render(&record))),
        UpdateEnvironment::Archived => {
            let error = Error::invalid("this environment is archived: it cannot be changed");
            Err(error.with_code("environment_archived"))
        }
        UpdateEnvironment::Missing => Err(Error::no_such("environment", id.as_str())),
    }
}

/// `POST /v1/environments/{id}/archive`
pub async fn archive(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    read_nothing(&app, request).await?;
    let id: EnvironmentId = id_of("environment", path)?;
    let archived = app.store.archive_environment(identity.org(), &id, (app.config.clock)()).await?;
    Ok(Json(render(&archived.ok_or_else(|| Error::no_such("environment", id.as_str()))?)))
}

/// `DELETE /v1/environments/{id}`
pub async fn delete(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let id: EnvironmentId = id_of("environment", path)?;
    match app.store.delete_environment(identity.org(), &id).await? {
        DeleteEnvironment::Deleted => Ok(Json(json!({"id": id, "type": "environment_deleted"}))),
        DeleteEnvironment::InUse => {
            let message = "sessions use this environment; archive or delete them first, or archive it";
            Err(Error::conflict(message).finally())
        }
        DeleteEnvironment::Missing => Err(Error::no_such("environment", id.as_str())),
    }
}

/// `GET /v1/environments`: the newest first.
pub async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    let mut query = Query::read(request.uri().query())?;
    let include_archived = query.boolean("include_archived").unwrap_or(false);
    let list = json!(["environments", identity.org(), include_archived]);
    let asked = page::Asked::<ByTime>::read(&mut query, &list, page::MAX_LIMIT);
    query.finish()?;
    let created = CreatedRange::default();
    let query = EnvironmentQuery { created, include_archived, page: asked.store_page(Order::Desc) };
    let rows = app.store.environments(identity.org(), query).await?;
    Ok(Json(asked.answer(rows, false, |row| (row.created_at, row.id.to_string()), render)))
}

async fn find(app: &App, org_id: &OrgId, id: &EnvironmentId) -> Result<EnvironmentRecord, Error> {
    let found = app.store.environment(org_id, id).await?;
    found.ok_or_else(|| Error::no_such("environment", id.as_str()))
}

fn refusal(wrong: Wrong) -> Error {
    match wrong {
        Wrong::Fields(errors) => {
            let error = Error::fields(&errors);
            let metadata = errors.iter().all(|error| error.field.starts_with("metadata"));
            if metadata { error.with_code("invalid_metadata") } else { error }
        }
        Wrong::KindChange => Error::invalid("config.type: it cannot change; this environment is `cloud`")
            .with_code("invalid_config_type_change"),
    }
}

/// An environment as clients see it.
pub fn render(environment: &EnvironmentRecord) -> Value {
    let mut shown = json!({
        "id": environment.id,
        "type": "environment",
        "scope": "organization",
        "created_at": environment.created_at,
        "updated_at": environment.updated_at,
        "archived_at": environment.archived_at,
    });
    if let (Value::Object(shown), Value::Object(definition)) = (&mut shown, &environment.definition) {
        shown.extend(definition.clone());
    }
    shown
}
