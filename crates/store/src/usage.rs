//! Model usage: one record a model request, opened before a byte goes upstream and settled once.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use wardian_protocol::{NanoUsd, OrgId, RequestId, SessionId, Usage};

use crate::record::Named;

/// Tokens by class, and the uses that have a fee. Sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Prompt tokens neither read from nor written to the cache.
    pub input_tokens: u64,
    /// Reply tokens.
    pub output_tokens: u64,
    /// Prompt tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Prompt tokens written to the cache for five minutes.
    pub cache_write_5m_tokens: u64,
    /// Prompt tokens written to the cache for an hour.
    pub cache_write_1h_tokens: u64,
    /// Web searches of the API's own tool.
    pub web_search_requests: u64,
}

impl From<&Usage> for Tokens {
    fn from(usage: &Usage) -> Self {
        let (cache_write_5m_tokens, cache_write_1h_tokens) = usage.cache_writes();
        let web_search_requests =
            usage.server_tool_use.as_ref().and_then(|tools| tools.web_search_requests).unwrap_or(0);
        Self {
            input_tokens: usage.input_tokens.unwrap_or(0),
            output_tokens: usage.output_tokens.unwrap_or(0),
            cache_read_tokens: usage.cache_read_input_tokens.unwrap_or(0),
            cache_write_5m_tokens,
            cache_write_1h_tokens,
            web_search_requests,
        }
    }
}

impl Tokens {
    /// Adds another count, class by class.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_read_tokens: self.cache_read_tokens.saturating_add(other.cache_read_tokens),
            cache_write_5m_tokens: self.cache_write_5m_tokens.saturating_add(other.cache_write_5m_tokens),
            cache_write_1h_tokens: self.cache_write_1h_tokens.saturating_add(other.cache_write_1h_tokens),
            web_search_requests: self.web_search_requests.saturating_add(other.web_search_requests),
        }
    }
}

/// A model request about to be sent.
#[derive(Clone, Debug)]
pub struct UsageStart {
    /// The model request's own id.
    pub id: RequestId,
    /// The org that pays.
    pub org_id: OrgId,
    /// The session's user.
    pub user_id: Option<String>,
    /// The session that it is for.
    pub session_id: SessionId,
    /// The run that it is part of.
    pub run_id: RequestId,
    /// The process that will settle it.
    pub owner: String,
    /// The model asked for.
    pub model: String,
    /// What it can cost at most; charged if nobody lives to settle it.
    pub bound: NanoUsd,
    /// When it was sent. Its UTC day is the day that it counts for.
    pub at: Timestamp,
}

/// How the cost of a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// From the usage that the API reported at the end.
    Exact,
    /// From what came before the stream was cut.
    Estimated,
    /// At the bound: nothing better is known.
    AtBound,
}

impl Named for Settled {
    const WHAT: &'static str = "settlement";
    const ALL: &'static [(Self, &'static str)] =
        &[(Self::Exact, "exact"), (Self::Estimated, "estimated"), (Self::AtBound, "at_bound")];
}

/// A model request that is over.
#[derive(Clone, Debug)]
pub struct UsageEnd {
    /// The id that it was opened with.
    pub id: RequestId,
    /// The org that it was opened with.
    pub org_id: OrgId,
    /// The model that answered; `None` where no answer named one.
    pub model: Option<String>,
    /// The API's own id of the request.
    pub upstream_id: Option<String>,
    /// The HTTP status of the answer; 0 where none came.
    pub status: u16,
    /// Tokens by class.
    pub tokens: Tokens,
    /// What it cost.
    pub cost: NanoUsd,
    /// The price table that the cost was found with.
    pub price_version: String,
    /// Whether the model had no price of its own.
    pub unpriced: bool,
    /// How the cost was found.
    pub settled: Settled,
    /// When it was over.
    pub at: Timestamp,
}

/// A key that usage rows can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// One row a user.
    User,
    /// One row a session.
    Session,
    /// One row a model: the one that answered, else the one asked for.
    Model,
    /// One row a UTC day of the start.
    Day,
}

/// Which usage to add up, and by what.
#[derive(Clone, Debug, Default)]
pub struct UsageQuery {
    /// Only this user's.
    pub user_id: Option<String>,
    /// Only this session's.
    pub session_id: Option<SessionId>,
    /// Only this run's.
    pub run_id: Option<RequestId>,
    /// Only this model's.
    pub model: Option<String>,
    /// Only what started at or after this time.
    pub from: Option<Timestamp>,
    /// Only what started before this time.
    pub to: Option<Timestamp>,
    /// The keys of a row, in the order that rows are sorted by. Empty: one row with the total, even of nothing.
    pub group_by: Vec<GroupBy>,
}

/// Usage added up. A key that was not grouped by is `None`, and so is the user of sessions without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// The user.
    pub user_id: Option<String>,
    /// The session.
    pub session_id: Option<SessionId>,
    /// The model.
    pub model: Option<String>,
    /// The UTC day.
    pub day: Option<Date>,
    /// Model requests, settled or not.
    pub requests: u64,
    /// Those of them that are not settled yet; `reserved` is for these.
    pub open_requests: u64,
    /// Those of them whose cost is an estimate or the bound.
    pub inexact_requests: u64,
    /// Those of them whose model had no price of its own.
    pub unpriced_requests: u64,
    /// Tokens by class, of the settled ones.
    pub tokens: Tokens,
    /// Cost of the settled ones.
    pub cost: NanoUsd,
    /// Bounds of the open ones.
    pub reserved: NanoUsd,
}
