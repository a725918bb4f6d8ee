//! Every route of the API on one page, and what every request passes on its way to one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::{HeaderValue, Method};
use opentelemetry::Context;
use opentelemetry::trace::FutureExt;
use tracing::Instrument;
use wardian_protocol::RequestId;

use crate::App;
use crate::error::Error;
use crate::{
    agents, environments, events, files, health, idempotency, managed, openapi, origin, resources, run,
    sessions, stream, trace, usage, users,
};

/// The routes. Each handler but the two of health asks for a key first.
pub fn routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/v1/agents", get(agents::list).post(agents::create))
        .route("/v1/agents/{id}", get(agents::get).post(agents::update))
        .route("/v1/agents/{id}/archive", post(agents::archive))
        .route("/v1/agents/{id}/versions", get(agents::versions))
        .route("/v1/environments", get(environments::list).post(environments::create))
        .route(
            "/v1/environments/{id}",
            get(environments::get).post(environments::update).delete(environments::delete),
        )
        .route("/v1/environments/{id}/archive", post(environments::archive))
        .route("/v1/files", get(files::list).post(files::create))
        .route("/v1/files/{id}", get(files::get).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/openapi.json", get(openapi::openapi))
        .route("/v1/x/run", post(run::run))
        .route("/v1/x/usage", get(usage::usage))
        .route("/v1/x/sessions/{id}", get(sessions::session))
        .route("/v1/x/users/{id}", delete(users::delete))
        .route("/v1/sessions", get(managed::list).post(managed::create))
        .route("/v1/sessions/{id}", get(managed::get).post(managed::update).delete(managed::delete))
        .route("/v1/sessions/{id}/archive", post(managed::archive))
        .route("/v1/sessions/{id}/resources", get(resources::list).post(resources::add))
        .route(
            "/v1/sessions/{id}/resources/{resource}",
            get(resources::get).post(resources::update).delete(resources::delete),
        )
        .route("/v1/sessions/{id}/events", get(events::list).post(events::send))
        .route("/v1/sessions/{id}/events/stream", get(stream::stream))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), idempotency::layer))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

async fn unknown_route(request: Request) -> Error {
    let path: String = request.uri().path().chars().take(200).collect();
    Error::not_found(format!("no route {} {path}", request.method()))
}

async fn wrong_method() -> Error {
    Error::method_not_allowed()
}

/// Gives the request its id, checks where it comes from, renders errors, and writes one line to the log.
async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let request_id = RequestId::from_random(crate::random_bits());
    request.extensions_mut().insert(request_id.clone());
    let (method, path) = (request.method().clone(), loggable(request.uri().path()));
    let context = trace::begin(app.config.tracer.as_ref(), &request, &request_id);
    let trace_id = trace::id(&context);
    let span = tracing::info_span!("request", %request_id, %method, path, trace_id);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let begun = tokio::time::Instant::now();
    async {
        let mut response = match origin::check(&app.config, &request) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        };
        if let Some(error) = response.extensions_mut().remove::<Error>() {
            if let Some(cause) = error.cause() {
                tracing::error!(cause, "the request failed");
            }
            let headers = std::mem::take(response.headers_mut());
            response = error.render(&request_id);
            response.headers_mut().extend(headers);
        }
        finish(&mut response, &request_id);
        trace::end(&Context::current(), response.status().as_u16(), response.headers_mut());
        let (status, elapsed) = (response.status().as_u16(), begun.elapsed());
        let route = route.as_ref().map(MatchedPath::as_str);
        app.config.metrics.answered(&method, route, status, elapsed);
        log(&method, status, u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        response
    }
    .instrument(span)
    .with_context(context)
    .await
}

fn finish(response: &mut Response, request_id: &RequestId) {
    let headers = response.headers_mut();
    let id = HeaderValue::from_str(request_id.as_str()).expect("an id is letters, digits and an underscore");
    headers.insert("request-id", id);
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
}

fn log(method: &Method, status: u16, elapsed_ms: u64) {
    match status {
        500.. => tracing::error!(status, elapsed_ms, "{method} answered"),
        _ => tracing::info!(status, elapsed_ms, "{method} answered"),
    }
}

/// The path as it may stand in a log: hostile ones are long.
fn loggable(path: &str) -> String {
    path.chars().take(200).collect()
}
