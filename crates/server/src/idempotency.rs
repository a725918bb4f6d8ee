//! `Idempotency-Key`: a POST that is sent again does nothing again, and gets the answer that the first one got.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::Method;

use crate::App;
use crate::error::Error;
use crate::seed::Seed;

/// The header.
const HEADER: &str = "idempotency-key";

/// What every request passes on its way to a route. A POST gets a [`Seed`] among its extensions, from which all ids that
/// it makes have to come.
pub async fn layer(
    State(_app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Error> {
    if request.method() != Method::POST {
        return Ok(next.run(request).await);
    }
    if request.headers().contains_key(HEADER) {
        return Err(Error::invalid("the header Idempotency-Key is not supported yet: leave it out"));
    }
    request.extensions_mut().insert(Seed::random());
    Ok(next.run(request).await)
}
