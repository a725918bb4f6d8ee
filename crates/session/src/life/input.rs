//! What happens to a session, and what is to be done about it.

use serde_json::Value;
use wardian_protocol::control::PermissionAnswer;
use wardian_protocol::{EventId, NanoUsd, RequestId};
use wardian_store::Tokens;

use super::{Row, Usage};
use crate::managed::UserEvent;

/// What happens to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Its client posted these; [`super::Life::check`] has let them through.
    Posted(Vec<(EventId, UserEvent)>),
    /// A place among the turns at once was taken for it.
    SlotTaken,
    /// The place was given back.
    SlotReleased,
    /// An agent's process was started in a sandbox.
    AgentStarted,
    /// It was given the turn's message, or told to go on with the turn.
    AgentTold,
    /// It was told to stop its turn.
    AgentInterrupted,
    /// Its end was asked for.
    AgentStops,
    /// It has had nothing to do for long enough.
    AgentStale,
    /// No sandbox or no process could be made, which is the host's fault; the text is for people.
    AgentNotStarted(String),
    /// Its process or its sandbox is gone; the text is for people.
    AgentEnded(String),
    /// It said something.
    Fact(Fact),
    /// It said the message with this id.
    FrameSeen(String),
    /// A request to the model began, says the gateway.
    RequestStarted {
        /// Which.
        id: RequestId,
    },
    /// It ended.
    RequestEnded {
        /// Which.
        id: RequestId,
        /// Whether it failed.
        is_error: bool,
        /// What it used.
        spent: Spent,
    },
    /// The gateway refused a request for want of money.
    BudgetRefused,
    /// The budget is another.
    BudgetChanged,
    /// Time has passed.
    Tick,
    /// The turn has lasted as long as it may.
    TimeUp,
    /// This server has just taken the session, from the store.
    Recovered {
        /// What the session has used, as the store has it.
        usage: Usage,
    },
    /// The server stops: nothing new is begun.
    Draining,
    /// The server stops now: what is under way goes on at the next start.
    Parked,
}

/// Tokens and money of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Tokens by class.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoUsd,
}

/// What an agent says, in our words. It may lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// It has taken the message, or gone on with the turn.
    Began,
    /// A text of the model.
    Text {
        /// The event's id, which previews may have carried already.
        id: EventId,
        /// The text.
        text: String,
    },
    /// The model has thought.
    Thinking {
        /// The event's id.
        id: EventId,
    },
    /// The model calls a tool.
    Call {
        /// The model's id of the call.
        call: String,
        /// The tool as the agent knows it.
        name: String,
        /// What it is to do.
        input: Value,
    },
    /// A call has its result.
    Outcome {
        /// Which.
        call: String,
        /// A text, or a list of blocks.
        content: Value,
        /// Whether it failed.
        is_error: bool,
    },
    /// It asks whether a call may run.
    Asked {
        /// The question.
        request_id: String,
        /// The call.
        call: String,
        /// What it is to do.
        input: Value,
    },
    /// It asks for the result of a custom tool.
    CustomCalled {
        /// The question.
        request_id: String,
        /// The call.
        call: String,
        /// What it is to do.
        input: Value,
    },
    /// It needs no answer any more.
    Withdrawn {
        /// The question.
        request_id: String,
    },
    /// The API is slow or refuses; it tries again.
    Retrying {
        /// Whether for a rate limit; else for overload.
        is_rate_limit: bool,
    },
    /// It has shortened its context.
    Compacted,
    /// Its turn ended.
    Ended(Stop),
}

/// How a turn ended, as the agent says.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// The model was done.
    EndTurn,
    /// The model refused.
    Refusal {
        /// Words about it.
        explanation: Option<String>,
    },
    /// Too many rounds between model and tools.
    MaxTurns,
    /// The agent's own count of money.
    Budget,
    /// A request to the model failed, for good.
    Failed {
        /// The HTTP status, where there was one.
        status: Option<u64>,
        /// Words about it.
        message: String,
    },
}

/// What a step leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// To be stored, with the state, before anything else is done.
    pub rows: Vec<Row>,
    /// The message that the agent has just taken: its event is stored once more, after the rows, with the time.
    pub taken: Option<EventId>,
    /// To be done then.
    pub commands: Vec<Command>,
    /// How the turn ended, in one of few words, and whether that is a failure; none while it goes on or waits.
    pub ended: Option<(&'static str, bool)>,
}

/// What the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The answer to a question whether a call may run.
    Answer {
        /// The question.
        request_id: String,
        /// The answer.
        answer: PermissionAnswer,
    },
    /// The result of a custom tool: the content of this event of the log.
    AnswerCustom {
        /// The question.
        request_id: String,
        /// The event; none when nobody answered in time.
        event_id: Option<EventId>,
    },
}
