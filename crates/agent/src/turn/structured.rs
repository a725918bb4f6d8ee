//! A turn that shall end with structured output.

use super::Turn;
use crate::execute::Executed;
use crate::session::Session;
use crate::state::End;
use crate::structured::{MAX_ATTEMPTS, NAME};
use crate::words;

/// How far a turn has come with it.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) given: Option<serde_json::Value>,
    /// Answers that did not fit.
    attempts: u32,
    /// What was wrong with the last one.
    problem: String,
    /// The model was reminded.
    reminded: bool,
}

impl Output {
    /// The text of the result's `errors`.
    pub(super) fn error(&self) -> String {
        format!("no valid structured output after {} attempts; the last: {}", self.attempts, self.problem)
    }
}

impl Session {
    /// Ends the turn if its answer was given, or given up.
    pub(super) fn structured(&self, turn: &mut Turn, executed: &Executed) -> Option<End> {
        let tool = self.setup.structured.as_ref()?;
        if let Some(given) = tool.take() {
            turn.ends_with(given.to_string());
            turn.output.given = Some(given);
            return Some(End::Completed);
        }
        for text in executed.failures_of(NAME) {
            turn.output.attempts += 1;
            turn.output.problem = text.to_owned();
        }
        (turn.output.attempts >= MAX_ATTEMPTS).then_some(End::Unstructured)
    }

    /// Reminds a model, once, that would end without the answer. Whether it did.
    pub(super) async fn remind_of_output(&mut self, turn: &mut Turn) -> bool {
        let is_due = self.setup.structured.is_some() && !turn.output.reminded;
        if !is_due || turn.progress.after_tools(self.setup.limits).is_some() {
            return false;
        }
        turn.output.reminded = true;
        self.say(turn, words::OUTPUT_MISSING).await;
        true
    }
}
