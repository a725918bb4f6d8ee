//! What a run comes to.

use std::collections::BTreeMap;

use serde::Serialize;
use wardian_protocol::{NanoUsd, RequestId, SessionId};

/// What a run comes to; the answer of `POST /v1/x/run`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// The session; a later run with it works in the same workspace.
    pub session_id: SessionId,
    /// How it ended.
    pub status: RunStatus,
    /// What the agent said last; of a command its last result frame, or else what it printed.
    pub result: Option<String>,
    /// Whether the task failed.
    pub is_error: bool,
    /// Of a command; 128 and the signal's number when a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Of a command: what it printed, cut at [`crate::state::MAX_CAPTURED_BYTES`] with a line that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// Of a command, and of an agent that ended without a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Why the model stopped, as the agent says; none of a command.
    pub stop_reason: Option<String>,
    /// Rounds, as the agent counts them: one, and one for each message that went back to the model. Of a command, which
    /// is not asked: its model requests.
    pub num_turns: u64,
    /// Tokens of all models, counted by the gateway.
    pub usage: TokenCounts,
    /// Tokens and money by model, counted by the gateway.
    pub model_usage: BTreeMap<String, ModelSpending>,
    /// Money, counted by the gateway.
    pub cost_usd: NanoUsd,
    /// What is new, other or gone in the workspace.
    pub files_changed: Vec<FileChange>,
    /// The id under which all of this was recorded.
    pub request_id: RequestId,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// The agent ended its turn; a command exited with 0.
    Completed,
    /// The agent reported an error or ended without a result; a command exited with another code.
    Failed,
    /// The turns were used up.
    MaxTurns,
    /// The money was used up: the gateway refused a request, or the agent stopped before.
    BudgetReached,
    /// The time was used up.
    TimedOut,
    /// The caller left or asked to stop.
    Cancelled,
    /// The server died meanwhile. Only in the store: nobody waits for this report.
    Interrupted,
}

impl RunStatus {
    /// The status as it stands on the wire and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::MaxTurns => "max_turns",
            Self::BudgetReached => "budget_reached",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Tokens by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// Prompt tokens, neither read from nor written to the cache.
    pub input_tokens: u64,
    /// Reply tokens.
    pub output_tokens: u64,
    /// Prompt tokens written to the cache.
    pub cache_creation_input_tokens: u64,
    /// Prompt tokens read from the cache.
    pub cache_read_input_tokens: u64,
    /// Web searches, which have a fee.
    pub web_search_requests: u64,
}

impl TokenCounts {
    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cache_creation_input_tokens: self
                .cache_creation_input_tokens
                .saturating_add(other.cache_creation_input_tokens),
            cache_read_input_tokens: self
                .cache_read_input_tokens
                .saturating_add(other.cache_read_input_tokens),
            web_search_requests: self.web_search_requests.saturating_add(other.web_search_requests),
        }
    }
}

/// Tokens and money of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelSpending {
    /// Requests that the model answered.
    pub requests: u64,
    /// Tokens by class.
    #[serde(flatten)]
    pub tokens: TokenCounts,
    /// Money.
    pub cost_usd: NanoUsd,
}

/// What a run has spent, counted by the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// Money.
    pub cost: NanoUsd,
    /// Tokens and money by model.
    pub by_model: BTreeMap<String, ModelSpending>,
    /// Whether a request was refused because the money was used up.
    pub budget_refused: bool,
}

impl Spending {
    /// Tokens of all models.
    #[must_use]
    pub fn tokens(&self) -> TokenCounts {
        self.by_model.values().fold(TokenCounts::default(), |sum, spent| sum.plus(spent.tokens))
    }
}

/// What happened to one file of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path in the workspace.
    pub path: String,
    /// `added`, `modified` or `deleted`.
    pub kind: &'static str,
}
