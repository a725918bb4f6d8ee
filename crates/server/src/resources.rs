//! `/v1/sessions/{id}/resources`: the files that a session is given.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use jiff::Timestamp;
use serde_json::{Value, json};
use wardian_protocol::{ResourceId, SessionId};
use wardian_session::{FieldError, GIVEN, MAX_COPY_BYTES, SessionUpdate};

use crate::App;
use crate::auth::{Identity, reader, writer};
use crate::body::read_json;
use crate::error::Error;
use crate::files;
use crate::managed::{session_error, session_id};
use crate::page::{self, ByTime};
use crate::path::ids_of;
use crate::query::{self, Query};
use crate::seed::Seed;
use crate::wire::resource::{self, AskedFile, MAX_RESOURCES};

/// The two ids of a path, as it gives them.
type Ids = Result<Path<(String, String)>, PathRejection>;

/// `POST /v1/sessions/{id}/resources`
pub async fn add(
    State(app): State<Arc<App>>,
    Extension(seed): Extension<Seed>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let body = read_json(&app, request).await?;
    let (text, session) = session_id(path)?;
    let kept = of_session(&app, &identity, &session, &text).await?;
    let id: ResourceId = seed.id(0);
    if let Some(resource) = kept.iter().find(|resource| resource["id"] == id.as_str()) {
        // A first try made it before its process died.
        return Ok(Json(resource.clone()));
    }
    let add_resources = resolve(&app, &identity, seed, 0, vec![(String::new(), body)], &kept).await?;
    let added = add_resources.first().cloned().unwrap_or_default();
    let update = SessionUpdate { add_resources, ..SessionUpdate::default() };
    let updated = app.engine.update_session(&identity.caller(), &session, update).await;
    updated.map_err(|error| session_error(error, &text))?;
    Ok(Json(added))
}

/// The resources of a session that is made.
pub async fn of_new_session(
    app: &App,
    identity: &Identity,
    seed: Seed,
    first: u32,
    asked: Vec<Value>,
) -> Result<Vec<Value>, Error> {
    let asked = asked.into_iter().enumerate().map(|(index, value)| (format!("resources[{index}]."), value));
    resolve(app, identity, seed, first, asked.collect(), &[]).await
}

/// Checks resources that are asked for, each with what stands before its fields' names, and gives them their ids.
async fn resolve(
    app: &App,
    identity: &Identity,
    seed: Seed,
    first: u32,
    asked: Vec<(String, Value)>,
    kept: &[Value],
) -> Result<Vec<Value>, Error> {
    let mut errors = Vec::new();
    let mut new: Vec<(String, AskedFile)> = Vec::with_capacity(asked.len().min(MAX_RESOURCES));
    for (place, value) in asked {
        let file = resource::read(value, &place, &mut errors);
        new.extend(file.map(|file| (place, file)));
    }
    resource::check_paths(kept, &new, &mut errors);
    if !errors.is_empty() {
        return Err(Error::fields(&errors));
    }
    let now = (app.config.clock)();
    let mut resources = Vec::with_capacity(new.len());
    for (number, (place, asked)) in (first..).zip(new) {
        let file = files::find(app, identity, &asked.file_id).await?;
        if file.expires_at.is_some_and(|at| at <= now) {
            let message = "this file's time is over";
            return Err(Error::fields(&[FieldError::new(format!("{place}file_id"), message)]));
        }
        let copied = !asked.mount_path.starts_with(GIVEN);
        if copied && file.size_bytes > MAX_COPY_BYTES {
            let message = format!(
                "a file of more than {MAX_COPY_BYTES} bytes is not copied into the workspace; take a path below {GIVEN}"
            );
            return Err(Error::fields(&[FieldError::new(format!("{place}mount_path"), message)]));
        }
        resources.push(resource::render(&seed.id(number), &asked, now));
    }
    Ok(resources)
}

/// `GET /v1/sessions/{id}/resources`: the oldest first.
pub async fn list(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    let (text, session) = session_id(path)?;
    let mut query = Query::read(request.uri().query())?;
    let list = json!(["resources", identity.org(), session]);
    let asked = page::Asked::<ByTime>::read(&mut query, &list, page::MAX_LIMIT);
    query.finish()?;
    let mut rows = of_session(&app, &identity, &session, &text).await?;
    if let Some((at, id)) = &asked.after {
        // In the order in which they were given; if that one is gone, what was given later.
        let after = rows.iter().position(|row| row["id"] == id.as_str()).map(|index| index + 1);
        let later = || rows.iter().position(|row| key(row).0 > *at);
        rows.drain(..after.or_else(later).unwrap_or(rows.len()));
    }
    rows.truncate(usize::try_from(asked.fetch()).unwrap_or(usize::MAX));
    Ok(Json(asked.answer(rows, false, key, Value::clone)))
}

fn key(resource: &Value) -> ByTime {
    let text = |name: &str| resource[name].as_str().unwrap_or_default().to_owned();
    (text("created_at").parse().unwrap_or(Timestamp::UNIX_EPOCH), text("id"))
}

/// `GET /v1/sessions/{id}/resources/{resource}`
pub async fn get(State(app): State<Arc<App>>, path: Ids, request: Request) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    query::none(request.uri().query())?;
    let (session, id) = ids_of(("session", "resource"), path)?;
    Ok(Json(find(&app, &identity, &session, &id).await?))
}

/// `POST /v1/sessions/{id}/resources/{resource}`: a file has nothing that could change.
pub async fn update(State(app): State<Arc<App>>, path: Ids, request: Request) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    read_json(&app, request).await?;
    let (session, id) = ids_of(("session", "resource"), path)?;
    find(&app, &identity, &session, &id).await?;
    let message = "a file has no token; repositories are not supported yet";
    Err(Error::fields(&[FieldError::new("authorization_token", message)]))
}

/// `DELETE /v1/sessions/{id}/resources/{resource}`
pub async fn delete(State(app): State<Arc<App>>, path: Ids, request: Request) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let (session, id) = ids_of(("session", "resource"), path)?;
    find(&app, &identity, &session, &id).await?;
    let update = SessionUpdate { remove_resource: Some(id.clone()), ..SessionUpdate::default() };
    let updated = app.engine.update_session(&identity.caller(), &session, update).await;
    updated.map_err(|error| session_error(error, session.as_str()))?;
    Ok(Json(json!({"id": id, "type": "session_resource_deleted"})))
}

async fn find(app: &App, identity: &Identity, session: &SessionId, id: &ResourceId) -> Result<Value, Error> {
    let resources = of_session(app, identity, session, session.as_str()).await?;
    let found = resources.into_iter().find(|resource| resource["id"] == id.as_str());
    found.ok_or_else(|| Error::no_such("resource", id.as_str()))
}

/// All resources of a session that the caller may see.
async fn of_session(app: &App, identity: &Identity, id: &SessionId, text: &str) -> Result<Vec<Value>, Error> {
    let view = app.engine.get_session(&identity.caller(), id).await;
    Ok(view.map_err(|error| session_error(error, text))?.definition.resources)
}
