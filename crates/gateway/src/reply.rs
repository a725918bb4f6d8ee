//! Replies that the gateway makes itself, all in the shape that stock clients read.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::json;
use wardian_protocol::{ApiError, ApiErrorKind, RequestId};

use crate::body::ReplyBody;
use crate::budget::Shortfall;

/// Our own id of a request; the upstream's stands in `request-id`.
pub const REQUEST_ID: &str = "x-wardian-request-id";

/// When a client that was refused for money is told to come back. A run's budget is never filled up again; clients show
/// the time and want one.
const BUDGET_RETRY_SECONDS: i64 = 3600;

/// Why a request gets no further, and what the client is told.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: Box<ApiError>,
    headers: HeaderMap,
}

impl Refusal {
    /// A refusal with the status that belongs to `kind`.
    pub fn new(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with_status(status, kind, message)
    }

    /// A refusal with another status.
    pub fn with_status(status: StatusCode, kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self { status, error: Box::new(ApiError::new(kind, message)), headers: HeaderMap::new() }
    }

    /// 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::InvalidRequestError, message)
    }

    /// Tells the client how long to wait before it asks again.
    #[must_use]
    pub fn retry_after(mut self, seconds: i64) -> Self {
        self.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        self
    }

    /// Closes the connection, because the rest of the request is not worth reading.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        self
    }

    /// Whether the rest of the request is not worth reading.
    pub fn is_closing(&self) -> bool {
        self.headers.contains_key(header::CONNECTION)
    }

    /// The refusal for want of money, in the shape that stock clients show and do not retry. `fits` is the largest
    /// `max_tokens` with which the request would be let through now.
    pub fn budget(shortfall: &Shortfall, fits: u64, now: Timestamp) -> Self {
        let message = format!(
            "this run's budget does not suffice: limit {}, spent {}, reserved by other requests {}, needed {} at most",
            shortfall.limit, shortfall.spent, shortfall.reserved, shortfall.bound,
        );
        let details = json!({
            "scope": "run",
            "limit_usd": shortfall.limit.as_usd(),
            "spent_usd": shortfall.spent.as_usd(),
            "reserved_usd": shortfall.reserved.as_usd(),
            "needed_usd": shortfall.bound.as_usd(),
            "max_tokens": fits,
        });
        let mut refusal =
            Self::with_status(StatusCode::TOO_MANY_REQUESTS, ApiErrorKind::BillingError, message)
                .retry_after(BUDGET_RETRY_SECONDS);
        refusal.error = Box::new(refusal.error.with_details(details));
        let fixed = [
            ("x-should-retry", "false"),
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-overage-utilization", "1"),
            ("anthropic-ratelimit-unified-overage-period", "run"),
            ("anthropic-ratelimit-unified-overage-disabled-reason", "org_spend_cap_reached"),
        ];
        for (name, value) in fixed {
            refusal.headers.insert(name, HeaderValue::from_static(value));
        }
        let reset = now.as_second().saturating_add(BUDGET_RETRY_SECONDS);
        refusal.headers.insert("anthropic-ratelimit-unified-reset", HeaderValue::from(reset));
        refusal
    }

    /// The status that the client gets.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The type of the error, for the log.
    pub fn kind(&self) -> &str {
        self.error.error.kind.as_str()
    }

    /// The error as JSON.
    pub fn into_json(self, id: &RequestId) -> Bytes {
        let error = self.error.with_request_id(id.as_str());
        serde_json::to_vec(&error).expect("texts, numbers and JSON values always serialize").into()
    }

    /// The reply.
    pub fn into_response(self, id: &RequestId) -> Response<ReplyBody> {
        let (status, headers) = (self.status, self.headers.clone());
        let mut response = Response::new(ReplyBody::Whole(Full::new(self.into_json(id))));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        stamp(response.headers_mut(), id);
        // Clients show this one; the upstream never saw the request.
        if let Some(ours) = response.headers().get(REQUEST_ID).cloned() {
            response.headers_mut().insert("request-id", ours);
        }
        response
    }
}

/// Adds our own id to a reply.
pub fn stamp(headers: &mut HeaderMap, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
}
