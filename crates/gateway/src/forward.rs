//! The way of one request: who asks, what for, may it, can it be paid, and then through.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use wardian_protocol::{ApiErrorKind, RequestId};

use crate::RefusedFor;
use crate::body::{ReplyBody, UpstreamBody};
use crate::budget::Shortfall;
use crate::charge::Reserved;
use crate::check::{self, Checked, Refused};
use crate::count;
use crate::door::DoorState;
use crate::exchange::{Exchange, Outcome};
use crate::headers;
use crate::meter::Meter;
use crate::observer;
use crate::reply::{self, Refusal};
use crate::route::Route;
use crate::upstream::{Failed, Outgoing};

/// The longest query; the only known one is `beta=true`, and lists of models have a few more.
const MAX_QUERY_BYTES: usize = 1024;

/// A body over this size is checked off the threads that serve the connections.
const LARGE_BODY_BYTES: usize = 256 * 1024;

/// How much of a refused request's body is read away, so that the client gets to read the answer.
const MAX_DRAINED_BYTES: usize = 128 * 1024 * 1024;

/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How the unit of body memory, a kibibyte, is counted.
const KIB: usize = 1024;

/// Serves one request. Whatever is wrong with it is answered; nothing is an error of the connection.
pub async fn serve(
    door: Arc<DoorState>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let route = Route::of(&parts.method, parts.uri.path());
    let mut exchange = Exchange::begin(Arc::clone(&door), door.new_id(), route);
    let id = exchange.id.clone();
    let (exchange, answer) = match prepare(&mut exchange, parts, &mut body).await {
        Ok(Prepared::Local) => return Ok(hello(exchange)),
        Ok(Prepared::Forward(outgoing, memory)) => {
            let sent = Box::pin(forward(&door, exchange, outgoing)).await;
            drop(memory);
            sent
        }
        Err(refusal) => (Some(exchange), Err(refusal)),
    };
    match (exchange, answer) {
        (Some(exchange), Ok(response)) => Ok(pass_on(exchange, response)),
        (exchange, Err(refusal)) => {
            if let Some(mut exchange) = exchange {
                refuse(&mut exchange, &refusal);
            }
            if !refusal.is_closing() {
                drain(&mut body).await;
            }
            Ok(refusal.into_response(&id))
        }
        (None, Ok(_)) => Ok(lost_track().into_response(&id)),
    }
}

/// What is to be done with a request.
enum Prepared {
    /// Answer it here.
    Local,
    /// Send it on. The permit is for the memory of its body.
    Forward(Outgoing, Option<OwnedSemaphorePermit>),
}

/// Everything that can refuse a request before a record of it is opened.
async fn prepare(exchange: &mut Exchange, parts: Parts, body: &mut Incoming) -> Result<Prepared, Refusal> {
    let door = Arc::clone(&exchange.door);
    if exchange.route == Route::Hello {
        return Ok(Prepared::Local);
    }
    if !door.key.opens(&parts.headers) {
        let message = "invalid key: it is not this sandbox's, or the sandbox is gone";
        return Err(Refusal::new(ApiErrorKind::AuthenticationError, message));
    }
    let target = target(&parts)?;
    match exchange.route {
        Route::Messages | Route::CountTokens => (),
        Route::Models => {
            let headers = Arc::new(parts.headers);
            let outgoing = Outgoing { method: Method::GET, target, headers, body: Bytes::new() };
            return Ok(Prepared::Forward(outgoing, None));
        }
        Route::Hello | Route::Unknown => {
            return Err(Refusal::new(ApiErrorKind::NotFoundError, "there is no such route here"));
        }
    }
    headers::check(&parts.headers).map_err(|bad| Refusal::invalid(bad.reason()))?;
    let (body, memory) = read_body(&door, &parts, body).await?;
    exchange.request_bytes = body.len();
    let checked = look_at(&door, exchange.route, body.clone()).await?;
    let headers = Arc::new(parts.headers);
    let outgoing = Outgoing { method: Method::POST, target, headers, body };
    match checked {
        Looked::Free(model) => exchange.model = Some(model),
        Looked::Metered(checked) => {
            exchange.model = Some(checked.model.clone());
            let now = (door.shared.config.clock)();
            let reserved = Reserved::new(door.shared.prices, checked, now);
            let reserved = reserve(&door, &exchange.id, reserved, &outgoing).await?;
            // No await may come between the two: the exchange gives back what it holds.
            exchange.hold(reserved);
        }
    }
    Ok(Prepared::Forward(outgoing, Some(memory)))
}

fn target(parts: &Parts) -> Result<PathAndQuery, Refusal> {
    let target = parts.uri.path_and_query().cloned();
    let target = target.ok_or_else(|| Refusal::invalid("the request has no path"))?;
    match target.query() {
        Some(query) if query.len() > MAX_QUERY_BYTES => Err(Refusal::invalid("the query is too long")),
        _ => Ok(target),
    }
}

/// Reads the body whole: it must be checked before any of it goes on.
async fn read_body(
    door: &DoorState,
    parts: &Parts,
    body: &mut Incoming,
) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let limit = door.shared.config.limits.body_bytes;
    let too_large = || {
        let message = format!("the request is over {} MB", limit / (KIB * KIB));
        Refusal::new(ApiErrorKind::RequestTooLarge, message)
    };
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let expected = announced.unwrap_or(limit);
    if expected > limit {
        return Err(too_large());
    }
    let reading = async {
        let memory = door.body_memory(expected.div_ceil(KIB)).await?;
        let mut read = BytesMut::with_capacity(announced.unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| Refusal::invalid("the body could not be read to its end").closing())?;
            let Ok(bytes) = frame.into_data() else { continue };
            if read.len() + bytes.len() > limit {
                return Err(too_large());
            }
            read.extend_from_slice(&bytes);
        }
        Ok((read.freeze(), memory))
    };
    let patience = door.shared.config.timeouts.request_body;
    timeout(patience, reading).await.unwrap_or_else(|_| {
        let message = format!("the body did not come within {} s", patience.as_secs());
        let status = StatusCode::REQUEST_TIMEOUT;
        Err(Refusal::with_status(status, ApiErrorKind::TimeoutError, message).closing())
    })
}

/// What a checked body is.
enum Looked {
    /// Free; names this model.
    Free(String),
    /// To be paid.
    Metered(Checked),
}

async fn look_at(door: &Arc<DoorState>, route: Route, body: Bytes) -> Result<Looked, Refusal> {
    let size = body.len();
    let state = Arc::clone(door);
    let look = move || {
        let (models, prices) = (state.grant.models.as_deref(), state.shared.prices);
        match route {
            Route::Messages => check::messages(&body, models, prices).map(Looked::Metered),
            Route::CountTokens | Route::Models | Route::Hello | Route::Unknown => {
                check::count_tokens(&body, models, prices).map(Looked::Free)
            }
        }
    };
    let looked = if size > LARGE_BODY_BYTES {
        door.tracker.spawn_blocking_on(look, &door.runtime).await.map_err(|_| lost_track())?
    } else {
        look()
    };
    looked.map_err(|refused| match refused {
        Refused::Invalid(message) | Refused::NotAllowed(message) => Refusal::invalid(message),
        Refused::Model(message) => Refusal::new(ApiErrorKind::PermissionError, message),
    })
}

/// Reserves the bound with the door's budget. Where only other requests are in the way, waits a moment; then has the
/// prompt's tokens counted, since the bound by its length is several times too high.
async fn reserve(
    door: &DoorState,
    id: &RequestId,
    mut reserved: Reserved,
    outgoing: &Outgoing,
) -> Result<Reserved, Refusal> {
    let (budget, shared) = (&door.budget, &door.shared);
    let patience = shared.config.timeouts.reservation;
    let Err(first) = budget.reserve_or_wait(reserved.bound, patience).await else { return Ok(reserved) };
    if first.spent < first.limit
        && let Some(tokens) = count::count(shared, outgoing).await
    {
        reserved.counted(shared.prices, tokens);
        if budget.reserve_or_wait(reserved.bound, patience).await.is_ok() {
            return Ok(reserved);
        }
    }
    let Err(shortfall) = budget.reserve(reserved.bound) else { return Ok(reserved) };
    budget.note_refusal();
    let now = (shared.config.clock)();
    let fits = reserved.max_tokens_that_fit(shared.prices, shortfall.available());
    if let Some(observer) = &door.observer {
        let Shortfall { limit, spent, reserved: held, bound } = shortfall;
        let reason = RefusedFor::Budget { limit, spent, reserved: held, needed: bound };
        let (id, model) = (id.clone(), reserved.model);
        observer.refuse(observer::Exchange::Refused { id, model, reason, at: now }).await;
    }
    Err(Refusal::budget(&shortfall, fits, now))
}

/// Opens the record and sends the request.
async fn forward(
    door: &Arc<DoorState>,
    exchange: Box<Exchange>,
    outgoing: Outgoing,
) -> (Option<Box<Exchange>>, Result<Response<Incoming>, Refusal>) {
    let opening = door.tracker.spawn_on(exchange.open(), &door.runtime);
    let Ok((mut exchange, opened)) = opening.await else { return (None, Err(lost_track())) };
    if let Err(error) = opened {
        tracing::error!(
            request_id = %exchange.id,
            error = &error as &dyn std::error::Error,
            "failed to open the record of a model request; it is refused",
        );
        let message = "the request cannot be recorded now, so it was not sent";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let refusal = Refusal::with_status(status, ApiErrorKind::ApiError, message).retry_after(1);
        return (Some(exchange), Err(refusal));
    }
    exchange.announce().await;
    exchange.sent();
    let patience = door.shared.config.timeouts.response_head;
    let answer = door.shared.upstream.send(outgoing, patience).await;
    let answer = answer.map_err(|failed| {
        exchange.outcome = Outcome::UpstreamLost;
        unanswered(&mut exchange, &failed)
    });
    (Some(exchange), answer)
}

fn unanswered(exchange: &mut Exchange, failed: &Failed) -> Refusal {
    tracing::warn!(
        request_id = %exchange.id,
        error = failed as &dyn std::error::Error,
        "failed to get a reply from the model API",
    );
    match failed {
        Failed::Connect(_) => {
            exchange.not_sent();
            let message = "the model API cannot be reached";
            Refusal::with_status(StatusCode::BAD_GATEWAY, ApiErrorKind::ApiError, message)
        }
        Failed::Lost(_) => {
            let message = "the model API broke the connection off before it answered";
            Refusal::with_status(StatusCode::BAD_GATEWAY, ApiErrorKind::ApiError, message)
        }
        Failed::TimedOut(_) => {
            Refusal::new(ApiErrorKind::TimeoutError, "the model API did not answer in time")
        }
    }
}

/// Gives the upstream's reply to the client, and the exchange to the reply.
fn pass_on(mut exchange: Box<Exchange>, response: Response<Incoming>) -> Response<ReplyBody> {
    let (mut parts, incoming) = response.into_parts();
    let config = &exchange.door.shared.config;
    let patience = config.timeouts.response_idle;
    let meter = Meter::for_reply(&parts.headers, config.limits.metered_bytes);
    let upstream_id = parts.headers.get("request-id").and_then(|value| value.to_str().ok());
    exchange.upstream_id = upstream_id.map(|id| id.chars().take(128).collect());
    exchange.answered(parts.status.as_u16(), meter);
    if parts.status.is_redirection() || parts.status.is_informational() {
        let message = "the model API answered with a redirect or an upgrade, which is not followed";
        let refusal = Refusal::with_status(StatusCode::BAD_GATEWAY, ApiErrorKind::ApiError, message);
        let id = exchange.id.clone();
        refuse(&mut exchange, &refusal);
        return refusal.into_response(&id);
    }
    parts.headers = headers::reply(&parts.headers);
    reply::stamp(&mut parts.headers, &exchange.id);
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    let body = UpstreamBody::new(incoming, exchange, patience);
    Response::from_parts(parts, ReplyBody::Upstream(Box::new(body)))
}

fn hello(mut exchange: Box<Exchange>) -> Response<ReplyBody> {
    exchange.status = StatusCode::OK.as_u16();
    exchange.outcome = Outcome::Local;
    let mut response = Response::new(ReplyBody::Whole(Full::default()));
    reply::stamp(response.headers_mut(), &exchange.id);
    response
}

fn refuse(exchange: &mut Exchange, refusal: &Refusal) {
    if exchange.outcome == Outcome::Aborted {
        exchange.door.shared.config.metrics.refused(refusal.kind());
    }
    exchange.status = refusal.status().as_u16();
    exchange.error = Some(refusal.kind().to_owned());
    if exchange.outcome == Outcome::Aborted {
        exchange.outcome = Outcome::Refused;
    }
}

fn lost_track() -> Refusal {
    Refusal::new(ApiErrorKind::ApiError, "the gateway failed; the request was not sent")
}

/// Reads a refused request's body away: a client that is still writing would not get to read the answer.
async fn drain(body: &mut Incoming) {
    let draining = async {
        let mut drained = 0;
        while drained < MAX_DRAINED_BYTES
            && !body.is_end_stream()
            && let Some(Ok(frame)) = body.frame().await
        {
            drained += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Either way the answer goes out; the connection is closed if the body is not at its end.
    let _: Result<(), _> = timeout(DRAIN_TIMEOUT, draining).await;
}
