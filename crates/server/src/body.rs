//! Reads a body: bounded in size, in time, and over all requests together.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::App;
use crate::error::Error;

/// The unit in which memory for bodies is given out.
const UNIT_BYTES: usize = 1024;
/// Memory for all bodies together, in units: eight of the largest at one time. More wait.
pub const MEMORY_UNITS: usize = 256 * 1024;
/// The body of a route that takes none, such as `{}`.
const MAX_EMPTY_BYTES: usize = 1024;

/// A body that was read, and its share of the memory for bodies.
#[derive(Clone, Debug)]
pub struct Collected {
    /// What came.
    pub bytes: Bytes,
    _memory: Arc<OwnedSemaphorePermit>,
}

/// Reads the body of an authenticated request as JSON.
pub async fn read_json(app: &App, request: Request) -> Result<Value, Error> {
    check_type(request.headers())?;
    let body = take(app, request, app.config.max_body_bytes).await?;
    serde_json::from_slice(&body.bytes)
        .map_err(|error| Error::invalid(format!("the body is no JSON: {error}")))
}

/// Reads the body of a route that takes none; an empty object is none too.
pub async fn read_nothing(app: &App, request: Request) -> Result<(), Error> {
    let body = take(app, request, MAX_EMPTY_BYTES).await?;
    let text = body.bytes.trim_ascii();
    if text.is_empty() || text == b"{}" { Ok(()) } else { Err(Error::invalid("expected no body here")) }
}

/// The body: read now, unless a layer has read it already.
async fn take(app: &App, mut request: Request, limit: usize) -> Result<Collected, Error> {
    match request.extensions_mut().remove::<Collected>() {
        Some(collected) if collected.bytes.len() > limit => Err(Error::too_large(limit)),
        Some(collected) => Ok(collected),
        None => {
            let (parts, body) = request.into_parts();
            collect(app, &parts.headers, body, limit).await
        }
    }
}

/// Reads a body.
pub async fn collect(app: &App, headers: &HeaderMap, body: Body, limit: usize) -> Result<Collected, Error> {
    let announced = announced(headers)?;
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(Error::too_large(limit));
    }
    let reading = async {
        let units = announced.unwrap_or(limit).div_ceil(UNIT_BYTES).clamp(1, MEMORY_UNITS);
        let units = u32::try_from(units).expect("MEMORY_UNITS is far below 2^32");
        let memory = Arc::clone(&app.memory).acquire_many_owned(units).await;
        let memory = memory.expect("the semaphore is never closed");
        let bytes = gather(body, limit).await?;
        Ok::<_, Error>(Collected { bytes: bytes.into(), _memory: Arc::new(memory) })
    };
    tokio::time::timeout(app.config.body_timeout, reading).await.map_err(|_| Error::body_too_slow())?
}

fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Error::unsupported_type("expected a body without Content-Encoding"));
    }
    if media_type(headers).eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::unsupported_type("expected the header Content-Type: application/json"))
}

/// The media type of a body, without its parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// How long a body says that it is.
pub fn announced(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    match headers.get(header::CONTENT_LENGTH) {
        None => Ok(None),
        Some(length) => {
            let length = length.to_str().ok().and_then(|text| text.parse().ok());
            length.map(Some).ok_or_else(|| Error::invalid("expected a number as Content-Length"))
        }
    }
}

async fn gather(mut body: Body, limit: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::invalid("the body ended early"))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > limit {
                return Err(Error::too_large(limit));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}
