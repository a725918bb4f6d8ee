//! `GET /v1/x/sessions/{id}`: where a session is in its life.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use serde_json::{Value, json};
use wardian_protocol::SessionId;
use wardian_store::Scope;

use crate::App;
use crate::auth::authenticate;
use crate::error::Error;

/// The handler. A session of another organisation or user is answered like one that does not exist.
pub async fn session(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = authenticate(&app, request.headers(), request.extensions().get()).await?;
    identity.require(&[Scope::Read, Scope::Sessions, Scope::Admin])?;
    let text = path.map(|Path(text)| text).unwrap_or_default();
    let missing = || Error::session_not_found(&text);
    let id = SessionId::from_str(&text).map_err(|_| missing())?;
    let found = app.store.session(identity.org(), &id).await?;
    let session = found
        .filter(|session| identity.user().is_none_or(|own| session.user_id.as_deref() == Some(own)))
        .ok_or_else(missing)?;
    let mut body = json!({
        "id": session.id,
        "type": "session",
        "status": session.status,
        "user": session.user_id,
        "runs": session.runs,
        "active_run": session.active_run,
        "last_seq": session.last_seq,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
    });
    // Where it lies on the host is for its administrator.
    if identity.has(Scope::Admin) {
        body["workspace"] = json!(app.engine.workspace(&session.id));
    }
    Ok(Json(body))
}
