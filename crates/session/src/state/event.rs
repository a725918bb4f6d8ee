//! What happens to a run, and what is to be done about it.

use serde_json::Value;
use wardian_protocol::HostFrame;
use wardian_protocol::control::{CanUseTool, PermissionAnswer};

/// What happens to a run.
#[derive(Debug)]
pub enum Event {
    /// The agent's process has started.
    Begun,
    /// It wrote to its standard output.
    Stdout(Vec<u8>),
    /// Its standard output ended.
    StdoutEnded,
    /// It wrote to its standard error.
    Stderr(Vec<u8>),
    /// A question was answered.
    Answered {
        /// Which.
        request_id: String,
        /// How.
        answer: PermissionAnswer,
    },
    /// The run's time is over.
    TimeUp,
    /// The caller wants no more.
    Cancelled,
    /// The time that [`Effect::StartGrace`] gave is over.
    GraceOver,
    /// The agent's process ended; `128 + n` for signal `n`.
    Exited(i32),
}

/// What is to be done about it. Rows are stored before anything else of the same step is done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Keep this in the session's log.
    Store(Row),
    /// Pass this to the caller.
    Show(Show),
    /// Write this to the agent.
    Write(Box<HostFrame>),
    /// Close the agent's input: it ends when it is done.
    CloseInput,
    /// Ask somebody whether a tool may be used.
    Ask {
        /// The question's id.
        request_id: String,
        /// The question.
        question: Box<CanUseTool>,
    },
    /// The question needs no answer any more.
    Withdraw {
        /// The question's id.
        request_id: String,
    },
    /// Give the agent a while to end by itself, then say [`Event::GraceOver`].
    StartGrace(Grace),
    /// End the agent and all that it started.
    Kill,
}

/// How long the agent gets, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// To stop its turn and say so.
    Interrupt,
    /// To exit after its result.
    Exit,
}

/// A row of the session's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its type.
    pub kind: &'static str,
    /// What happened.
    pub payload: Value,
}

/// What the caller sees.
#[derive(Clone, Debug, PartialEq)]
pub enum Show {
    /// A message of the agent, still to be stamped.
    Message(Value),
    /// The agent's result, to be stamped with the final figures after the gateway's door has closed.
    FinalMessage(Value),
    /// Output of a command.
    Output {
        /// Which stream.
        stream: Stream,
        /// What it wrote.
        text: String,
    },
}

/// An output stream of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
