//! `Idempotency-Key`: a POST that is sent again does nothing again, and gets the answer that the first one got.
//!
//! A key belongs to one API key, so that nobody meets what another sent. Who sends one comes back for the answer: the
//! request goes on when its client leaves, and its answer is kept for a day. What failed for a reason that may pass, with
//! 429 or 5xx, is forgotten and may be tried again. When the process dies half-way, the next try has the same [`Seed`], and
//! so makes the things that it makes under the same ids.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use sha2::{Digest, Sha256};
use tracing::Instrument;
use wardian_protocol::{KeyId, OrgId, RequestId};
use wardian_store::{Idempotent, IdempotentRequest, MAX_ANSWER_BYTES, MAX_IDEMPOTENCY_KEY_BYTES};

use crate::App;
use crate::auth::{Identity, writer};
use crate::body;
use crate::error::Error;
use crate::seed::Seed;
use crate::upload::{self, Received};

/// The header.
pub const HEADER: &str = "idempotency-key";
/// Says of an answer that it is an earlier one.
const REPLAYED: &str = "idempotent-replayed";
/// How long answers are kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Characters of a path that are kept with its answer. Each is ASCII, and no route's ids need more.
const MAX_PATH: usize = 200;
/// When to ask again for an answer that is not there yet.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What every request passes on its way to a route. A POST gets a [`Seed`] among its extensions, from which all ids that
/// it makes have to come.
pub async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Result<Response, Error> {
    if request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    if !request.headers().contains_key(HEADER) {
        request.extensions_mut().insert(Seed::random());
        return Ok(next.run(request).await);
    }
    let identity = writer(&app, &request).await?;
    let key = read_key(request.headers())?;
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let path = request.uri().path().to_owned();
    let (request, sha256) = read_body(&app, &identity, &route, request).await?;
    let claim = Claim { org_id: identity.org().clone(), key_id: identity.key_id().clone(), key };
    let asked = IdempotentRequest {
        org_id: claim.org_id.clone(),
        key_id: claim.key_id.clone(),
        // The path itself, so that it is known whose answer this is; what is cut off is in the hash.
        route: format!("POST {}", path.chars().take(MAX_PATH).collect::<String>()),
        key: claim.key.clone(),
        request_sha256: sha256,
        seed: crate::random_bits(),
        owner: app.engine.owner().to_owned(),
        at: (app.config.clock)(),
    };
    // Its own task, the claim included: the client may leave at any time, and a claim that nobody works on would never end.
    let tasks = app.tasks.clone();
    let done = tasks.spawn(once(app, claim, asked, request, next).in_current_span());
    done.await.map_err(|error| Error::internal("an internal error", &error))?
}

/// Does it, or says what came of it before.
async fn once(
    app: Arc<App>,
    claim: Claim,
    asked: IdempotentRequest,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    let seed = match app.store.begin_idempotent(asked).await? {
        Idempotent::New { seed } => Seed::kept(seed, false),
        Idempotent::Again { seed } => Seed::kept(seed, true),
        Idempotent::Done { status, body } => return Ok(replay(status, body)),
        Idempotent::InProgress => {
            let error =
                Error::conflict("a request with this Idempotency-Key is under way; its answer will be kept");
            return Err(error.with_wait(ASK_AGAIN));
        }
        Idempotent::Mismatch => {
            return Err(Error::contradiction(
                "this Idempotency-Key was sent with another request; take a new key for a new request",
            ));
        }
    };
    request.extensions_mut().insert(seed);
    Ok(perform(app, claim, request, next).await)
}

/// Whose key it is.
struct Claim {
    org_id: OrgId,
    key_id: KeyId,
    key: String,
}

async fn perform(app: Arc<App>, claim: Claim, request: Request, next: Next) -> Response {
    let request_id = request.extensions().get::<RequestId>().cloned();
    let outcome = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let Ok(mut response) = outcome else {
        forget(&app, &claim).await;
        return Error::internal("an internal error", &Panicked).into_response();
    };
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        forget(&app, &claim).await;
        return response;
    }
    if let (Some(error), Some(request_id)) = (response.extensions_mut().remove::<Error>(), request_id) {
        response = error.render(&request_id);
    }
    keep(&app, &claim, response).await
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

/// Stores an answer and passes it on.
async fn keep(app: &App, claim: &Claim, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let Ok(body) = Limited::new(body, MAX_ANSWER_BYTES).collect().await else {
        // It was done, so it must not be done again: what is kept is that there is no answer to repeat.
        let error = Error::conflict("this was done, but its answer is too large to be kept");
        let rendered = error.render(&RequestId::from_random(crate::random_bits()));
        let body = rendered.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        finish(app, claim, StatusCode::CONFLICT, body.unwrap_or_default().to_vec()).await;
        return error.into_response();
    };
    let bytes = body.to_bytes();
    finish(app, claim, parts.status, bytes.to_vec()).await;
    Response::from_parts(parts, Body::from(bytes))
}

async fn finish(app: &App, claim: &Claim, status: StatusCode, body: Vec<u8>) {
    let at = (app.config.clock)();
    let kept = app
        .store
        .finish_idempotent(&claim.org_id, &claim.key_id, &claim.key, status.as_u16(), body, at)
        .await;
    if let Err(error) = kept {
        tracing::error!(%error, "the answer to a request with an Idempotency-Key could not be kept");
    }
}

async fn forget(app: &App, claim: &Claim) {
    let forgotten = app.store.abandon_idempotent(&claim.org_id, &claim.key_id, &claim.key).await;
    if let Err(error) = forgotten {
        tracing::error!(%error, "a request with an Idempotency-Key that failed could not be forgotten");
    }
}

fn replay(status: u16, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn read_key(headers: &HeaderMap) -> Result<String, Error> {
    let expected = || {
        let most = MAX_IDEMPOTENCY_KEY_BYTES;
        Error::invalid(format!("expected one Idempotency-Key of 1 to {most} visible ASCII characters"))
    };
    let mut keys = headers.get_all(HEADER).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(expected()) };
    let visible = key.as_bytes().iter().all(u8::is_ascii_graphic);
    if !visible || !(1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()) {
        return Err(expected());
    }
    key.to_str().map(str::to_owned).map_err(|_| expected())
}

/// Reads the body, for the handler too, and says what makes this request this one. A form's boundary is another each time
/// that a client sends it; its parts count.
async fn read_body(
    app: &Arc<App>,
    identity: &Identity,
    route: &str,
    request: Request,
) -> Result<(Request, [u8; 32]), Error> {
    let place = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let digest = Sha256::new().chain_update(place).chain_update([0]);
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, Body::empty());
    let digest = if route == upload::ROUTE {
        let upload = upload::receive(app, identity.org(), request.headers(), body).await?;
        let digest = digest.chain_update(upload.identity());
        request.extensions_mut().insert(Received::new(upload));
        digest
    } else {
        let collected = body::collect(app, request.headers(), body, app.config.max_body_bytes).await?;
        let digest = digest.chain_update(&collected.bytes);
        request.extensions_mut().insert(collected);
        digest
    };
    Ok((request, digest.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_visible_word() {
        let read = |keys: &[&str]| {
            let mut headers = HeaderMap::new();
            for key in keys {
                headers.append(HEADER, HeaderValue::from_bytes(key.as_bytes()).unwrap());
            }
            read_key(&headers).ok()
        };
        let longest = "k".repeat(255);
        for good in ["1", "8e03978e-40d5-43e8-bc93-6894a57f9324", "a/b?c=\"d\"", &longest] {
            assert_eq!(read(&[good]).as_deref(), Some(good));
        }
        let long = "k".repeat(256);
        for wrong in ["", "a b", "é", "a\tb", &long] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
        assert_eq!(read(&["a", "a"]), None);
    }
}
