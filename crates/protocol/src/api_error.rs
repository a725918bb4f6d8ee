//! The error envelope of the Anthropic APIs: `{"type":"error","error":{"type","message"},"request_id"}`.
//!
//! source: `platform.claude.com/docs/en/api/errors`, and the gateway reference, section 4.

use serde::{Deserialize, Serialize};

/// The stable type of an API error, with the HTTP status it goes with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiErrorKind {
    /// 400: the request is wrong.
    InvalidRequestError,
    /// 401: no key, or a wrong one.
    AuthenticationError,
    /// 402; our budget refusals carry it with 429, which is what stock clients show and do not retry.
    BillingError,
    /// 403: the key may not do this.
    PermissionError,
    /// 404: no such thing, or not yours.
    NotFoundError,
    /// 409: in conflict with what is.
    ConflictError,
    /// 413: the body is too large.
    RequestTooLarge,
    /// 429: too fast, or no place.
    RateLimitError,
    /// 500: our fault, or the upstream's.
    ApiError,
    /// 504: it took too long.
    TimeoutError,
    /// 529: the model is overloaded.
    OverloadedError,
    /// A type this version does not know.
    #[serde(untagged)]
    Other(String),
}

impl ApiErrorKind {
    /// The HTTP status that the API sends with this type.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::InvalidRequestError => 400,
            Self::AuthenticationError => 401,
            Self::BillingError => 402,
            Self::PermissionError => 403,
            Self::NotFoundError => 404,
            Self::ConflictError => 409,
            Self::RequestTooLarge => 413,
            Self::RateLimitError => 429,
            Self::ApiError | Self::Other(_) => 500,
            Self::TimeoutError => 504,
            Self::OverloadedError => 529,
        }
    }

    /// The type as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::InvalidRequestError => "invalid_request_error",
            Self::AuthenticationError => "authentication_error",
            Self::BillingError => "billing_error",
            Self::PermissionError => "permission_error",
            Self::NotFoundError => "not_found_error",
            Self::ConflictError => "conflict_error",
            Self::RequestTooLarge => "request_too_large",
            Self::RateLimitError => "rate_limit_error",
            Self::ApiError => "api_error",
            Self::TimeoutError => "timeout_error",
            Self::OverloadedError => "overloaded_error",
            Self::Other(kind) => kind,
        }
    }
}

/// The whole envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiError {
    /// Always `error`.
    #[serde(rename = "type")]
    pub envelope: String,
    /// What went wrong.
    pub error: ApiErrorBody,
    /// The id under which the request was logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// The inner object of the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiErrorBody {
    /// The stable type.
    #[serde(rename = "type")]
    pub kind: ApiErrorKind,
    /// For people.
    pub message: String,
    /// For programs; an addition of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
}

impl ApiError {
    /// An envelope without details.
    #[must_use]
    pub fn new(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        let error = ApiErrorBody { kind, message: message.into(), details: None };
        Self { envelope: "error".to_owned(), error, request_id: None }
    }

    /// The same with details for programs.
    #[must_use]
    pub fn with_details(mut self, details: serde_json::Value) -> Self {
        self.error.details = Some(details);
        self
    }

    /// The same with the id of the request.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }
}
