//! How a request to the model fails.

use serde_json::Value;
use wardian_protocol::ApiErrorKind;
use wardian_protocol::api_error::ApiErrorBody;
use wardian_protocol::stream::StreamError;

use crate::state::End;

/// Why a request, or the reply to it, came to nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// For people.
    pub(crate) message: String,
    /// The header `retry-after`, as it came.
    pub(crate) retry_after: Option<String>,
    /// The header `x-should-retry`.
    pub(crate) should_retry: Option<bool>,
    /// `error.details`, an addition of Wardian's gateway.
    pub(crate) details: Option<Value>,
    pub(crate) request_id: Option<String>,
}

/// What kind of failure it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FailureKind {
    /// The API answered with an error status.
    Status { status: u16, kind: Option<ApiErrorKind> },
    /// The API reported an error inside the stream.
    InStream { kind: ApiErrorKind },
    /// No connection, or one that was lost.
    Lost,
    /// A reply that makes no sense.
    Malformed,
    /// The request could not even be tried.
    Local,
    /// There is no key.
    NotLoggedIn,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
            should_retry: None,
            details: None,
            request_id: None,
        }
    }

    pub(crate) fn lost(message: impl Into<String>) -> Box<Self> {
        Box::new(Self::new(FailureKind::Lost, message))
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Box<Self> {
        Box::new(Self::new(FailureKind::Malformed, message))
    }

    /// There is no key. Programs compare the words (reference, section 2.7).
    pub(crate) fn not_logged_in() -> Box<Self> {
        Box::new(Self::new(FailureKind::NotLoggedIn, "Not logged in · Please run /login"))
    }

    pub(crate) fn local(message: impl Into<String>) -> Box<Self> {
        Box::new(Self::new(FailureKind::Local, message))
    }

    /// The HTTP status, or the one that the API uses for what it reported inside the stream.
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.kind {
            FailureKind::Status { status, .. } => Some(*status),
            FailureKind::InStream { kind } => Some(kind.status()),
            FailureKind::Lost | FailureKind::Malformed | FailureKind::Local | FailureKind::NotLoggedIn => {
                None
            }
        }
    }

    fn api_kind(&self) -> Option<&ApiErrorKind> {
        match &self.kind {
            FailureKind::Status { kind, .. } => kind.as_ref(),
            FailureKind::InStream { kind } => Some(kind),
            FailureKind::Lost | FailureKind::Malformed | FailureKind::Local | FailureKind::NotLoggedIn => {
                None
            }
        }
    }

    /// The `max_tokens` that would still fit into the budget, where Wardian's gateway refused a request for money.
    pub(crate) fn max_tokens_that_fit(&self) -> Option<u64> {
        if self.status() != Some(429) || self.api_kind() != Some(&ApiErrorKind::BillingError) {
            return None;
        }
        self.details.as_ref()?.get("max_tokens")?.as_u64()
    }

    /// The API's own name for it.
    pub(crate) fn error_type(&self) -> Option<String> {
        self.api_kind().map(|kind| kind.as_str().to_owned())
    }

    /// Whether there was no connection, or it was lost.
    pub(crate) const fn is_lost(&self) -> bool {
        matches!(self.kind, FailureKind::Lost)
    }

    /// How the turn ends that it ends.
    pub(crate) fn end(&self) -> End {
        match self.status() {
            Some(400) if self.is_too_long() => End::PromptTooLong,
            Some(413) => End::RequestTooLarge,
            Some(_) | None => End::ApiError,
        }
    }

    /// Why another model may take this one's place, in the protocol's word; none: it would fail the same.
    pub(crate) fn fallback_trigger(&self) -> Option<&'static str> {
        match self.status() {
            Some(529) => Some("overloaded"),
            Some(404) => Some("model_not_found"),
            Some(500..) => Some("server_error"),
            Some(_) | None => None,
        }
    }

    /// source: the messages of the Messages API.
    pub(crate) fn is_too_long(&self) -> bool {
        self.message.starts_with("prompt is too long") || self.message.contains("exceed context limit")
    }

    fn is_out_of_credit(&self) -> bool {
        self.api_kind() == Some(&ApiErrorKind::BillingError)
            || (self.status() == Some(400) && self.message.contains("credit balance is too low"))
    }

    /// The `error` of the assistant message that reports it. source: the protocol reference, sections 1.3 and 2.7, and
    /// observed of the official CLI.
    pub(crate) fn assistant_error(&self) -> &'static str {
        if self.is_out_of_credit() {
            return "billing_error";
        }
        match (&self.kind, self.status()) {
            (FailureKind::NotLoggedIn, _) | (_, Some(401 | 403)) => "authentication_failed",
            (_, Some(402)) => "billing_error",
            (_, Some(400)) if self.is_too_long() => "invalid_request",
            (_, Some(413)) => "invalid_request",
            (_, Some(404)) => "model_not_found",
            (_, Some(429)) => "rate_limit",
            (FailureKind::Lost, _) | (_, Some(500..)) => "server_error",
            (_, Some(_) | None) => "unknown",
        }
    }

    /// The `error` of the message that announces another try.
    pub(crate) fn retry_error(&self) -> &'static str {
        match (&self.kind, self.status()) {
            (_, Some(529)) => "overloaded",
            (FailureKind::Lost, _) => "unknown",
            (_, Some(_) | None) => self.assistant_error(),
        }
    }

    /// One line for the user.
    pub(crate) fn describe(&self) -> String {
        let message = &self.message;
        match (&self.kind, self.api_kind()) {
            (FailureKind::Status { status, .. }, Some(kind)) => {
                format!("API Error: {status} {}: {message}", kind.as_str())
            }
            (FailureKind::Status { status, .. }, None) => format!("API Error: {status} {message}"),
            (FailureKind::InStream { kind }, _) => {
                format!("API Error: {} within the reply: {message}", kind.as_str())
            }
            (FailureKind::Lost, _) => format!("API Error: the connection was lost: {message}"),
            (FailureKind::Malformed, _) => format!("API Error: the reply makes no sense: {message}"),
            (FailureKind::Local, _) => format!("API Error: {message}"),
            (FailureKind::NotLoggedIn, _) => message.clone(),
        }
    }
}

impl From<StreamError> for Box<Failure> {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Api(ApiErrorBody { kind, message, details }) => {
                Self::new(Failure { details, ..Failure::new(FailureKind::InStream { kind }, message) })
            }
            StreamError::Truncated => Failure::lost("the reply ended early"),
            StreamError::Malformed(message) => Failure::malformed(message),
        }
    }
}
