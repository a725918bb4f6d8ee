//! `/v1/files`: files that sessions are given, and their bytes.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::response::Response;
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;
use wardian_protocol::{FileId, SessionId};
use wardian_store::{FileQuery, FileRecord, NewFile, Order};

use crate::App;
use crate::auth::{Identity, reader, writer};
use crate::error::Error;
use crate::page::{self, ByTime};
use crate::path::id_of;
use crate::query::{self, Query};
use crate::seed::Seed;
use crate::upload::{self, Received, Upload};

/// Ids in one question, as the stock API has it.
const MAX_IDS: usize = 100;
/// Bytes of an answer that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// `POST /v1/files`
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(seed): Extension<Seed>,
    mut request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let received = request.extensions_mut().remove::<Received>().and_then(|received| received.take());
    let upload = match received {
        Some(upload) => upload,
        None => {
            let (parts, body) = request.into_parts();
            upload::receive(&app, identity.org(), &parts.headers, body).await?
        }
    };
    // What gets its name now gets its row too, whether the client waits or not.
    let task = app.tasks.spawn(keep(Arc::clone(&app), identity, seed, upload));
    let file = task.await.map_err(|error| Error::internal("an internal error", &error))??;
    Ok(Json(render(&file)))
}

/// Names the bytes and makes the row.
async fn keep(app: Arc<App>, identity: Identity, seed: Seed, upload: Upload) -> Result<FileRecord, Error> {
    let id: FileId = seed.id(0);
    let org_id = identity.org();
    let _naming = app.blobs.naming().await;
    if seed.is_again()
        && let Some(file) = app.store.file(org_id, &id).await?
    {
        return Ok(file);
    }
    upload::check_quota(&app, app.store.file_bytes(org_id).await?, upload.size_bytes)?;
    let created_at = (app.config.clock)();
    let expires_at = upload.expires_in.and_then(|expires_in| created_at.checked_add(expires_in).ok());
    let new = NewFile {
        id: id.clone(),
        org_id: org_id.clone(),
        user_id: identity.user().map(str::to_owned),
        filename: upload.filename,
        mime_type: upload.mime_type,
        size_bytes: upload.size_bytes,
        created_at,
        expires_at,
        session_id: None,
    };
    app.blobs.name(upload.bytes, org_id, &id).await.map_err(|error| Error::storage(&error))?;
    match app.store.create_file(new).await {
        Ok(()) => {}
        // Whether the row is there is not known; the next start removes the bytes if it is not.
        Err(error @ wardian_store::Error::Closed) => return Err(error.into()),
        Err(error) => {
            app.blobs.remove(org_id, &id).await;
            return Err(error.into());
        }
    }
    let made = app.store.file(org_id, &id).await?;
    made.ok_or_else(|| Error::no_such("file", id.as_str()))
}

/// `GET /v1/files/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    query::none(request.uri().query())?;
    Ok(Json(render(&find(&app, &identity, &id_of("file", path)?).await?)))
}

/// `GET /v1/files/{id}/content`
pub async fn content(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let identity = reader(&app, &request).await?;
    query::none(request.uri().query())?;
    let id = id_of("file", path)?;
    let file = find(&app, &identity, &id).await?;
    let expired =
        || Error::not_found("this file's time is over: its content is gone").with_code("file_expired");
    if file.expires_at.is_some_and(|at| at <= (app.config.clock)()) {
        return Err(expired());
    }
    let bytes = app.blobs.open(&file.org_id, &id).await.map_err(|error| Error::storage(&error))?;
    // Deleted in this very moment, or lost.
    let bytes = bytes.ok_or_else(|| Error::no_such("file", id.as_str()))?;
    let mut response = Response::new(Body::from_stream(ReaderStream::with_capacity(bytes, READ_BYTES)));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_str(&file.mime_type);
    headers
        .insert(header::CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(file.size_bytes));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&file.filename));
    // Whatever it is, no browser shall run it as this server's.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    Ok(response)
}

/// `DELETE /v1/files/{id}`
pub async fn delete(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let identity = writer(&app, &request).await?;
    query::none(request.uri().query())?;
    let id = id_of("file", path)?;
    let file = find(&app, &identity, &id).await?;
    if !app.store.delete_file(&file.org_id, &id).await? {
        return Err(Error::no_such("file", id.as_str()));
    }
    app.blobs.remove(&file.org_id, &id).await;
    Ok(Json(json!({"id": id, "type": "file_deleted"})))
}

/// `GET /v1/files`: the newest first, or those of a list of ids.
pub async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, Error> {
    let identity = reader(&app, &request).await?;
    let mut query = Query::read(request.uri().query())?;
    // What is no id resolves to no file, and such are left out.
    let ids = query.list("ids", "a file's id", MAX_IDS, |text| Some(text.to_owned()));
    let session_id =
        query.optional("scope_id", "a session's id, `sesn_…`", |text| SessionId::from_str(text).ok());
    let list = json!(["files", identity.org(), identity.user(), session_id]);
    let mut asked = page::Asked::<ByTime>::read(&mut query, &list, page::MAX_LIMIT);
    if ids.is_some() && (asked.is_explicit || asked.after.is_some()) {
        query.error("ids", "expected neither `page` nor `limit` beside it");
    }
    query.finish()?;
    let mut wanted = Vec::new();
    if let Some(ids) = ids {
        asked.limit = page::MAX_LIMIT;
        wanted = ids.iter().filter_map(|id| FileId::from_str(id).ok()).collect();
        if wanted.is_empty() {
            return Ok(Json(asked.answer(Vec::new(), false, key, render)));
        }
    }
    let user_id = identity.user().map(str::to_owned);
    let query = FileQuery { ids: wanted, session_id, user_id, page: asked.store_page(Order::Desc) };
    let rows = app.store.files(identity.org(), query).await?;
    Ok(Json(asked.answer(rows, false, key, render)))
}

fn key(file: &FileRecord) -> (Timestamp, String) {
    (file.created_at, file.id.to_string())
}

/// A file that the caller may see. A key that is bound to a user sees that user's.
pub async fn find(app: &App, identity: &Identity, id: &FileId) -> Result<FileRecord, Error> {
    let found = app.store.file(identity.org(), id).await?;
    found
        .filter(|file| identity.user().is_none_or(|own| file.user_id.as_deref() == Some(own)))
        .ok_or_else(|| Error::no_such("file", id.as_str()))
}

/// How a browser names what it saves; what a header cannot hold is spelled out (RFC 6266).
fn disposition(filename: &str) -> HeaderValue {
    let plain: String = filename
        .chars()
        .map(|character| match character {
            '"' | '\\' => '_',
            ' '..='~' => character,
            _ => '_',
        })
        .collect();
    let mut encoded = String::new();
    for byte in filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::from_str(&format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"))
        .unwrap_or(HeaderValue::from_static("attachment"))
}

/// A file as clients see it.
pub fn render(file: &FileRecord) -> Value {
    let scope = file.session_id.as_ref().map(|id| json!({"type": "session", "id": id}));
    json!({
        "id": file.id,
        "type": "file",
        "filename": file.filename,
        "mime_type": file.mime_type,
        "size_bytes": file.size_bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "downloadable": true,
        "scope": scope,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_header() {
        let value = disposition("a\"b\\c; é\r\n.txt");
        assert_eq!(
            value.to_str().unwrap(),
            "attachment; filename=\"a_b_c; ___.txt\"; filename*=UTF-8''a%22b%5Cc%3B%20%C3%A9%0D%0A.txt"
        );
    }
}
