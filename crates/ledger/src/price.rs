//! The price table and what it says.

use wardian_protocol::{NanoUsd, Usage};

/// What models cost, by date.
#[derive(Clone, Debug)]
pub struct PriceTable {
    version: String,
}

/// One model of the table.
#[derive(Clone, Debug)]
pub struct ModelPrice {
    /// The most tokens that prompt and reply have together.
    pub context_window: u64,
    /// The most tokens that it writes in one reply, where that is known.
    pub max_output: Option<u64>,
}

/// What one reply cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The amount, rounded up once.
    pub nano: NanoUsd,
    /// The version of the table that gave it.
    pub price_version: String,
    /// Whether a price was missing and a conservative one stood in.
    pub unpriced: bool,
}

/// What is known of a request before it is sent: enough for an upper bound of its cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestBound {
    /// The body's length. `u64::MAX` when the body refers to tokens that are not in it (a URL, a file id) or has
    /// images or documents, whose tokens do not follow from their bytes: the whole context window is then reserved.
    pub body_bytes: u64,
    /// The prompt's tokens, when they were counted.
    pub input_tokens: Option<u64>,
    /// The request's `max_tokens`.
    pub max_tokens: u64,
    /// The most web searches that the request allows; `None` when it has no such tool.
    pub web_searches: Option<u64>,
    /// The most model calls that the request may lead to; 0 counts as 1. Over 1 (tools that the API runs), each call
    /// reserves the whole context window.
    pub iterations: u64,
    /// Whether it is certain that the request does not ask for fast mode (no `speed`, or `standard`).
    pub standard_speed: bool,
}

/// Why a text is no price table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not JSON of the table's shape.
    #[error("read the price table: {0}")]
    Malformed(String),
}

impl PriceTable {
    /// The table compiled in.
    #[must_use]
    pub fn embedded() -> &'static Self {
        static TABLE: std::sync::LazyLock<PriceTable> =
            std::sync::LazyLock::new(|| PriceTable { version: "2026-11-22".to_owned() });
        &TABLE
    }

    /// Reads a table.
    ///
    /// # Errors
    /// [`PriceError`] names what is wrong.
    pub fn parse(_json: &str) -> Result<Self, PriceError> {
        Err(PriceError::Malformed("not yet".to_owned()))
    }

    /// The table's version, to be kept with each amount.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The model id behind an alias such as `sonnet`; anything else is itself.
    #[must_use]
    pub fn resolve_alias<'a>(&'a self, name: &'a str) -> &'a str {
        name
    }

    /// The model of that id or alias, if the table has it.
    #[must_use]
    pub fn model(&self, _id: &str) -> Option<&ModelPrice> {
        None
    }

    /// What a reply of `model` (the reply's own id) cost by the prices of the day `at` (`YYYY-MM-DD`).
    #[must_use]
    pub fn cost(&self, _model: &str, _usage: &Usage, _at: &str) -> Cost {
        Cost { nano: NanoUsd::ZERO, price_version: self.version.clone(), unpriced: true }
    }

    /// The most that a request to `model` can cost by the prices of the day `at`.
    #[must_use]
    pub fn bound(&self, _model: &str, _request: &RequestBound, _at: &str) -> NanoUsd {
        NanoUsd::ZERO
    }

    /// The largest `max_tokens`, no larger than the request's, whose bound is within `available`; 0 when none is.
    #[must_use]
    pub fn max_tokens_that_fit(
        &self,
        _model: &str,
        request: &RequestBound,
        _available: NanoUsd,
        _at: &str,
    ) -> u64 {
        request.max_tokens
    }
}
