//! Reads a body as JSON: bounded in size, in time, and over all requests together.

use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::App;
use crate::error::Error;

/// The unit in which memory for bodies is given out.
const UNIT_BYTES: usize = 1024;
/// Memory for all bodies together, in units: eight of the largest at one time. More wait.
pub const MEMORY_UNITS: usize = 256 * 1024;

/// Reads the body of an authenticated request.
pub async fn read_json(app: &App, request: Request) -> Result<Value, Error> {
    check_type(request.headers())?;
    let limit = app.config.max_body_bytes;
    let announced = announced(request.headers())?;
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(Error::too_large(limit));
    }
    let reading = async {
        let units = announced.unwrap_or(limit).div_ceil(UNIT_BYTES).clamp(1, MEMORY_UNITS);
        let units = u32::try_from(units).expect("MEMORY_UNITS is far below 2^32");
        let memory = app.memory.acquire_many(units).await.expect("the semaphore is never closed");
        let bytes = collect(request.into_body(), limit).await?;
        Ok::<_, Error>((bytes, memory))
    };
    let (bytes, _memory) = tokio::time::timeout(app.config.body_timeout, reading)
        .await
        .map_err(|_| Error::body_too_slow())??;
    serde_json::from_slice(&bytes).map_err(|error| Error::invalid(format!("the body is no JSON: {error}")))
}

fn check_type(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Error::unsupported_type("expected a body without Content-Encoding"));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::unsupported_type("expected the header Content-Type: application/json"))
}

fn announced(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    match headers.get(header::CONTENT_LENGTH) {
        None => Ok(None),
        Some(length) => {
            let length = length.to_str().ok().and_then(|text| text.parse().ok());
            length.map(Some).ok_or_else(|| Error::invalid("expected a number as Content-Length"))
        }
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Vec<u8>, Error> {
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
