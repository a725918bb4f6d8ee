//! What a run comes to, as far as its agent's side can tell.

use serde_json::{Value, json};

use super::RunState;
use crate::report::RunStatus;

/// What came of a run, as far as the agent's side can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// How it ended.
    pub status: RunStatus,
    /// What the agent said last.
    pub result: Option<String>,
    /// Of a command.
    pub exit_code: Option<i32>,
    /// Of a command.
    pub stdout: Option<String>,
    /// Of a command, and of an agent without a result.
    pub stderr: Option<String>,
    /// Why the model stopped, as the agent says.
    pub stop_reason: Option<String>,
    /// As the agent says; none of a command.
    pub num_turns: Option<u64>,
    /// What was thrown away.
    pub counts: Counts,
}

/// What an agent said and nobody listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows stored.
    pub rows: u64,
    /// Bytes stored, about.
    pub bytes: u64,
    /// Frames over the cap.
    pub dropped: u64,
    /// Lines that are no frame: too long, no JSON, no UTF-8, malformed.
    pub rejected: u64,
    /// Answers that nobody asked for, second answers, withdrawals of nothing, second results.
    pub unasked: u64,
}

impl Counts {
    /// For the log.
    #[must_use]
    pub fn to_json(self) -> Value {
        json!({"rows": self.rows, "dropped": self.dropped, "rejected": self.rejected, "unasked": self.unasked})
    }
}

impl RunState {
    /// What came of it. Status and error of a command go by its exit code; what it claims in frames is only text.
    #[must_use]
    pub fn conclude(&self, budget_refused: bool) -> Conclusion {
        match &self.opening {
            Some(_) => self.conclude_agent(budget_refused),
            None => self.conclude_command(budget_refused),
        }
    }

    fn conclude_agent(&self, budget_refused: bool) -> Conclusion {
        let status = match (&self.stopped, &self.result) {
            (Some(stopped), _) => *stopped,
            (None, Some(result)) => match result.subtype.as_str() {
                "error_max_turns" => RunStatus::MaxTurns,
                "error_max_budget_usd" => RunStatus::BudgetReached,
                _ if result.is_error && budget_refused => RunStatus::BudgetReached,
                _ if result.is_error => RunStatus::Failed,
                _ => RunStatus::Completed,
            },
            (None, None) if budget_refused => RunStatus::BudgetReached,
            (None, None) => RunStatus::Failed,
        };
        let result = self.result.as_ref();
        let text = result.and_then(|result| {
            let errors = (!result.errors.is_empty()).then(|| result.errors.join("\n"));
            result.result.clone().or(errors)
        });
        let stderr = (result.is_none() && !self.stderr.is_empty()).then(|| self.stderr.text());
        Conclusion {
            status,
            result: text.or_else(|| self.refused.clone()),
            exit_code: None,
            stdout: None,
            stderr,
            stop_reason: result.and_then(|result| result.stop_reason.clone()),
            num_turns: Some(result.map_or(0, |result| result.num_turns)),
            counts: self.counts,
        }
    }

    fn conclude_command(&self, budget_refused: bool) -> Conclusion {
        let status = match (self.stopped, self.exit_code) {
            (Some(stopped), _) => stopped,
            (None, _) if budget_refused => RunStatus::BudgetReached,
            (None, Some(0)) => RunStatus::Completed,
            (None, _) => RunStatus::Failed,
        };
        let stdout = self.stdout.text();
        Conclusion {
            status,
            result: Some(self.last_text.clone().unwrap_or_else(|| stdout.trim_end().to_owned())),
            exit_code: self.exit_code,
            stdout: Some(stdout),
            stderr: Some(self.stderr.text()),
            stop_reason: None,
            num_turns: None,
            counts: self.counts,
        }
    }
}
