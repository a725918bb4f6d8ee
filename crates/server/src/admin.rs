//! The admin listener: metrics and health, for probes and Prometheus. It asks for no key, so it is apart from the API and on
//! a loopback address unless the operator wrote another.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;

use crate::error::Error;
use crate::{App, health, origin};

/// Writes all metrics in the text format of Prometheus.
type Scrape = dyn Fn() -> Result<String, String> + Send + Sync;

/// Where the admin listener is, and what it shows.
#[derive(Clone)]
pub struct Admin {
    pub(crate) listener: Arc<TcpListener>,
    scrape: Arc<Scrape>,
}

impl Admin {
    /// An admin listener that shows what `scrape` writes: the text format of Prometheus, or why there is none.
    pub fn new(
        listener: TcpListener,
        scrape: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Self { listener: Arc::new(listener), scrape: Arc::new(scrape) }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Admin").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// The content type that Prometheus knows its text format by.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The routes.
pub fn routes(app: Arc<App>, admin: &Admin) -> Router {
    let scrape = Arc::clone(&admin.scrape);
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(move || metrics(Arc::clone(&scrape))))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// No web page may read this through a browser of the operator.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match origin::check(&app.config, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => plain(error),
    }
}

fn plain(error: Error) -> Response {
    let mut response = error.into_response();
    match response.extensions_mut().remove::<Error>() {
        Some(error) => error.render(&wardian_protocol::RequestId::from_random(crate::random_bits())),
        None => response,
    }
}

async fn metrics(scrape: Arc<Scrape>) -> Response {
    match scrape() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(why) => {
            tracing::error!(why, "failed to write the metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response()
        }
    }
}
