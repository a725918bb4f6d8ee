//! `DELETE /v1/x/users/{id}`: forgets a user.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use serde_json::{Value, json};
use wardian_protocol::OrgId;
use wardian_store::{MAX_USER_BYTES, Scope};

use crate::App;
use crate::auth::{Identity, authenticate};
use crate::error::Error;
use crate::managed::session_error;
use crate::query;

/// The handler. A user that never was is forgotten, too: the answer tells nobody who was there.
pub async fn delete(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = authenticate(&app, request.headers(), request.extensions().get()).await?;
    identity.require(&[Scope::Admin])?;
    if identity.user().is_some() {
        return Err(Error::forbidden("a key that is bound to a user cannot forget users"));
    }
    query::none(request.uri().query())?;
    let user = path.map(|Path(user)| user).unwrap_or_default();
    if user.is_empty() || user.len() > MAX_USER_BYTES || user.chars().any(char::is_control) {
        let expected =
            format!("expected a user's id of 1 to {MAX_USER_BYTES} bytes without control characters");
        return Err(Error::invalid(expected));
    }
    // What was begun is ended, whether the client waits or not.
    let task = app.tasks.spawn(forget(Arc::clone(&app), identity, user));
    let answer = task.await.map_err(|error| Error::internal("an internal error", &error))??;
    Ok(Json(answer))
}

async fn forget(app: Arc<App>, identity: Identity, user: String) -> Result<Value, Error> {
    let forgotten = app.engine.forget_user(&identity.caller(), &user).await;
    // Also after a refusal: rows of files may be gone by then.
    remove_bytes(&app, identity.org()).await?;
    let forgotten = forgotten.map_err(|error| session_error(error, ""))?;
    let (sessions, files) = (forgotten.sessions.len(), forgotten.files.len());
    tracing::info!(sessions, files, keys = forgotten.keys, "a user is forgotten");
    Ok(json!({
        "id": user,
        "type": "user_forgotten",
        "sessions": sessions,
        "files": files,
        "keys": forgotten.keys,
    }))
}

/// Removes all bytes of the organisation that have no row: those of this user, and of a try before that was cut off.
async fn remove_bytes(app: &App, org_id: &OrgId) -> Result<(), Error> {
    let named = app.blobs.named(org_id).await.map_err(|error| Error::storage(&error))?;
    app.blobs.remove_unknown(app.store.as_ref(), named).await;
    Ok(())
}
