//! Reconcile: from what there is and what is wanted to the next thing to do. The only code that decides about the
//! lifecycle of a session's agent and sandbox.

use wardian_protocol::EventId;
use wardian_store::SessionStatus;

use super::Life;

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Get in line for a place among the turns at once.
    TakeSlot,
    /// Give the place back.
    GiveSlot,
    /// Make a sandbox and start an agent in it.
    StartAgent {
        /// Whether it goes on with the conversation that it had.
        resume: bool,
    },
    /// Give the agent the turn's message; one that has begun the turn before goes on with it.
    Tell(EventId),
    /// Tell the agent to stop its turn.
    Interrupt,
    /// End the agent and its sandbox.
    StopAgent,
}

impl Life {
    /// What to do next; none when it is for something to happen.
    #[must_use]
    pub fn next_step(&self) -> Option<Step> {
        let process = &self.process;
        let Some(turn) = self.turn.as_ref().filter(|_| self.wants_agent()) else {
            let is_parked = self.turn.as_ref().is_some_and(|turn| turn.parked);
            let is_over = self.status == SessionStatus::Terminated;
            return if process.has_slot {
                Some(Step::GiveSlot)
            } else if process.is_up && (process.is_stale || process.is_draining || is_parked || is_over) {
                Some(Step::StopAgent)
            } else {
                None
            };
        };
        if !process.has_slot {
            return Some(Step::TakeSlot);
        }
        if !process.is_up {
            return Some(Step::StartAgent { resume: self.has_transcript });
        }
        if process.is_spent {
            return Some(Step::StopAgent);
        }
        if !process.is_told {
            return Some(Step::Tell(turn.message.clone()));
        }
        (turn.interrupted && !process.is_interrupted).then_some(Step::Interrupt)
    }
}
