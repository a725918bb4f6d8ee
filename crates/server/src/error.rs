//! The one error of the API, and the one shape that it has on the wire.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use wardian_protocol::api_error::{ApiError, ApiErrorKind};
use wardian_protocol::{RequestId, SessionId};
use wardian_session::{FieldError, RunError, RunReport, RunStatus};

/// Why a request was not done: a status, a stable type, words for people, details for programs.
#[derive(Clone, Debug)]
pub struct Error(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    status: StatusCode,
    kind: ApiErrorKind,
    message: String,
    details: Option<Value>,
    retry_after: Option<Duration>,
    /// Stock clients try some statuses again; this tells them not to.
    final_answer: bool,
    /// For the log only.
    cause: Option<String>,
}

impl Error {
    fn new(status: StatusCode, kind: ApiErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let (details, retry_after, final_answer, cause) = (None, None, false, None);
        Self(Box::new(Parts { status, kind, message, details, retry_after, final_answer, cause }))
    }

    /// 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ApiErrorKind::InvalidRequestError, message)
    }

    /// 400 that names fields.
    pub fn fields(errors: &[FieldError]) -> Self {
        let message = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let list: Vec<Value> =
            errors.iter().map(|error| json!({"field": error.field, "message": error.message})).collect();
        Self::invalid(message).with_details(json!({"fields": list}))
    }

    /// 401: the same for no key, a malformed, an unknown, a wrong and a revoked one.
    pub fn unauthenticated() -> Self {
        let message = "expected an API key of this server in the header x-api-key or as a bearer token";
        Self::new(StatusCode::UNAUTHORIZED, ApiErrorKind::AuthenticationError, message)
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ApiErrorKind::PermissionError, message)
    }

    /// 404: no such thing, or not yours.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ApiErrorKind::NotFoundError, message)
    }

    /// 404 for an id: no such thing, or somebody else's; both read alike.
    pub fn no_such(what: &str, id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        Self::not_found(format!("no {what} {shown:?}"))
    }

    /// 409: in conflict with what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, ApiErrorKind::ConflictError, message)
    }

    /// 422: it reads well, and contradicts what was said before.
    pub fn contradiction(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, ApiErrorKind::InvalidRequestError, message)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "this route has other methods";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, ApiErrorKind::InvalidRequestError, message)
    }

    /// 408: the body did not come in time.
    pub fn body_too_slow() -> Self {
        let message = "the body did not come in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, ApiErrorKind::TimeoutError, message)
    }

    /// 413.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is over {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ApiErrorKind::RequestTooLarge, message)
    }

    /// 415.
    pub fn unsupported_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ApiErrorKind::InvalidRequestError, message)
    }

    /// 429: come back later.
    pub fn slow_down(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, ApiErrorKind::RateLimitError, message).with_wait(retry_after)
    }

    /// 500: the cause goes to the log only.
    pub fn internal(message: impl Into<String>, cause: &dyn std::error::Error) -> Self {
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, ApiErrorKind::ApiError, message);
        error.0.cause = Some(describe(cause));
        error
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ApiErrorKind::OverloadedError, message)
            .with_wait(Duration::from_secs(5))
    }

    fn with_details(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The disk did not do it: 503 if it is full, else 500.
    pub fn storage(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::unavailable("the storage is full; nothing was done")
            }
            _ => Self::internal("the storage failed", error),
        }
    }

    /// Adds the code by which stock clients tell errors of one status apart.
    pub fn with_code(mut self, code: &'static str) -> Self {
        let details = self.0.details.get_or_insert_with(|| json!({}));
        details["error_code"] = json!(code);
        self
    }

    /// Adds how long to wait before the next try.
    pub fn with_wait(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// Tells stock clients not to try again.
    pub fn finally(mut self) -> Self {
        self.0.final_answer = true;
        self
    }

    /// What failed, for the log.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The envelope.
    pub fn envelope(&self, request_id: &RequestId) -> ApiError {
        let envelope =
            ApiError::new(self.0.kind.clone(), self.0.message.clone()).with_request_id(request_id.as_str());
        match &self.0.details {
            Some(details) => envelope.with_details(details.clone()),
            None => envelope,
        }
    }

    /// The answer as it goes out.
    pub fn render(&self, request_id: &RequestId) -> Response {
        let body = serde_json::to_vec(&self.envelope(request_id)).expect("the envelope has string keys only");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if self.0.final_answer {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Error {
    /// Leaves the error for the layer that knows the request's id and renders it.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        response.extensions_mut().insert(self);
        response
    }
}

impl From<wardian_store::Error> for Error {
    fn from(error: wardian_store::Error) -> Self {
        match error {
            wardian_store::Error::Full => Self::unavailable("the storage is full; nothing was done"),
            wardian_store::Error::Busy => Self::unavailable("the storage is busy; nothing was done"),
            wardian_store::Error::TooLarge { .. } => {
                Self::invalid("this question has too many answers; narrow it or group by less")
            }
            other => Self::internal("the storage failed", &other),
        }
    }
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Invalid(fields) => Self::fields(&fields),
            RunError::SessionNotFound(id) => Self::session_not_found(id.as_str()),
            RunError::SessionBusy(id) => {
                Self::conflict(format!("session {id} has a run under way; wait for its end"))
            }
            RunError::Full(full) => Self::slow_down(full.to_string(), Duration::from_secs(5)),
            RunError::Stopping => Self::unavailable("this server is stopping"),
            RunError::Store(error) => error.into(),
            RunError::Sandbox(wardian_sandbox::Error::Capacity { what, limit }) => Self::slow_down(
                format!("no room for another sandbox: {what} ({limit})"),
                Duration::from_secs(5),
            ),
            RunError::Sandbox(error) => Self::internal("the sandbox failed", &error),
            RunError::Gateway(error) => Self::internal("the gateway failed", &error),
            RunError::Folder(error) => Self::internal("the session's folders failed", &error),
            error @ RunError::Internal => Self::internal("an internal error", &error),
        }
    }
}

impl Error {
    /// 404 for a session: no such one, or somebody else's.
    pub fn session_not_found(id: &str) -> Self {
        Self::no_such("session", id)
    }

    /// The error that a run's end is, if it is one. The report is in the details.
    pub fn of_report(report: &RunReport) -> Option<Self> {
        let details = json!({"session_id": report.session_id, "report": report});
        match report.status {
            RunStatus::Completed | RunStatus::Failed | RunStatus::MaxTurns => None,
            RunStatus::BudgetReached => {
                let message = format!("the run's budget is used up; it has cost {}", report.cost_usd);
                let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ApiErrorKind::BillingError, message);
                Some(error.finally().with_details(details))
            }
            RunStatus::TimedOut => {
                let session: &SessionId = &report.session_id;
                let message = format!("the run's time is over; session {session} can go on");
                let error = Self::new(StatusCode::GATEWAY_TIMEOUT, ApiErrorKind::TimeoutError, message);
                Some(error.finally().with_details(details))
            }
            RunStatus::Cancelled | RunStatus::Interrupted => Some(
                Self::unavailable("the run was cancelled: this server is stopping").with_details(details),
            ),
        }
    }
}

pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
