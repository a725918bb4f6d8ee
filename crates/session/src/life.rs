//! A managed session as data: `(state, input) -> (state, rows, commands)`. No I/O, no clock, no dice.
//!
//! What is durable of it is written in the same transaction as the rows of the step that changed it, so that after a
//! crash it says exactly what the log says. What belongs to the agent's process alone (`Process`) is not, and is empty
//! after a crash, like the process.
//!
//! Everything that comes out of the sandbox is hostile input. What it can reach is bounded: rows of a turn, open calls,
//! questions; and meaning: only calls that the host has seen can be asked about, an answer fits one call and its exact
//! input and is given once to a process, and money is not read at all.

mod agent;
mod client;
mod event;
mod input;
mod step;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wardian_protocol::{EventId, NanoUsd, RequestId};
use wardian_store::{SessionStatus, Tokens};

use crate::managed::Confirmation;
use crate::tools::Tools;

pub use event::{Row, budget, money};
pub use input::{Command, Fact, Input, Output, Spent, Stop};
pub use step::Step;

/// Messages that wait in one session.
pub const MAX_QUEUED: usize = 100;
/// Calls of one turn without a result. An agent has a handful; a hostile one gets no further.
pub const MAX_OPEN_CALLS: usize = 256;
/// Rows that one turn stores. A long one has a few thousand; what comes after is counted and dropped.
pub const MAX_TURN_ROWS: u64 = 20_000;
/// Bytes that one turn stores, for the same reason.
pub const MAX_TURN_BYTES: u64 = 64 * 1024 * 1024;
/// How often in a row an agent may die without a result before its session is terminated.
pub const MAX_FAILURES: u32 = 3;

/// A managed session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Life {
    pub(crate) status: SessionStatus,
    /// Messages that were accepted and that no turn has taken yet.
    queue: VecDeque<EventId>,
    turn: Option<Turn>,
    /// Calls of the turn without a result, by the model's id of the call.
    calls: BTreeMap<String, OpenCall>,
    /// What was last announced as blocking.
    announced: BTreeSet<EventId>,
    /// Requests to the model that have begun and not ended, with the events that said so.
    spans: BTreeMap<RequestId, EventId>,
    /// Whether an agent was given a message in this session, so that there should be a transcript to go on from.
    has_transcript: bool,
    /// The last message of the agent that the log knows of.
    last_frame: Option<String>,
    /// Deaths of the agent since the last turn that ended.
    failures: u32,
    usage: Usage,
    /// When the session last became running.
    running_since: Option<Timestamp>,
    #[serde(skip)]
    process: Process,
}

/// A turn under way. It also lasts while the session waits for its client, or for money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Turn {
    id: RequestId,
    /// The message that it answers.
    message: EventId,
    started_at: Timestamp,
    /// Whether the agent has taken the message.
    begun: bool,
    /// Whether the client wants it to stop.
    interrupted: bool,
    /// Whether it waits for a higher budget.
    parked: bool,
    /// Whether the client was told that the session runs.
    is_announced: bool,
    /// Whether the gateway refused a request for want of money.
    budget_refused: bool,
    rows: u64,
    bytes: u64,
    /// Only counted: what is dropped must not be a reason to write.
    #[serde(skip)]
    dropped: u64,
}

/// A call of a tool that has no result yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OpenCall {
    event_id: EventId,
    kind: CallKind,
    /// SHA-256 of its input as hexadecimal digits: an approval is for exactly this.
    input_sha256: String,
    wait: Option<Wait>,
    /// Whether the host lets it run without the client.
    allowed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum CallKind {
    Toolset,
    Custom,
}

/// A call that waits for the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wait {
    expires_at: Timestamp,
    answer: Option<Answer>,
}

/// What the client, or the clock, has said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Confirmed(Confirmation),
    /// The event that carries the result of a custom tool; its content is in the log.
    Result {
        event_id: EventId,
    },
    Expired,
}

/// What a session has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens by class.
    pub tokens: Tokens,
    /// What they cost, in nano-dollars.
    pub cost_nano: i64,
    /// Milliseconds in which it was running.
    pub active_ms: u64,
}

/// What belongs to the agent's process, and to this server.
#[derive(Clone, Debug, Default, PartialEq)]
struct Process {
    is_up: bool,
    has_slot: bool,
    /// Whether the turn's message, or the order to go on, was given to it.
    is_told: bool,
    is_interrupted: bool,
    /// Whether it has begun a turn.
    has_begun: bool,
    /// Whether the last try to start one failed.
    is_failing: bool,
    /// Whether it has ended the turn for its part, though the turn is to go on: another process has to.
    is_spent: bool,
    /// Whether its end is our own doing.
    is_stopping: bool,
    /// Whether it has idled for long enough.
    is_stale: bool,
    /// Questions that it waits for, by call.
    questions: BTreeMap<String, Question>,
    /// Calls that it had an answer for.
    answered: BTreeSet<String>,
    /// How its turn ended, as long as requests to the model are still under way.
    stop: Option<Stop>,
    /// Nothing new is begun.
    is_draining: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Question {
    request_id: String,
    input_sha256: String,
}

/// What a session goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The agent's tools and who decides about them.
    pub tools: Tools,
    /// How long a call waits for its client.
    pub approval_ttl: Duration,
    /// The session's own budget.
    pub budget: Option<NanoUsd>,
}

/// What a step may need beside the state.
pub struct Context<'a> {
    /// The time.
    pub now: Timestamp,
    /// What the session goes by.
    pub rules: &'a Rules,
    /// Gives random bits for ids.
    pub random: &'a mut (dyn FnMut() -> [u8; 16] + Send),
}

impl Context<'_> {
    fn event_id(&mut self) -> EventId {
        EventId::from_random((self.random)())
    }
}

impl Life {
    /// A session in which nothing has happened.
    #[must_use]
    pub fn new() -> Self {
        Self {
            status: SessionStatus::Idle,
            queue: VecDeque::new(),
            turn: None,
            calls: BTreeMap::new(),
            announced: BTreeSet::new(),
            spans: BTreeMap::new(),
            has_transcript: false,
            last_frame: None,
            failures: 0,
            usage: Usage::default(),
            running_since: None,
            process: Process::default(),
        }
    }

    /// Takes an input in: what is to be stored, and then to be done.
    pub fn step(&mut self, input: Input, context: &mut Context<'_>) -> Output {
        let mut output = Output::default();
        match input {
            Input::Posted(events) => self.post(events, context, &mut output),
            Input::SlotTaken => self.process.has_slot = true,
            Input::SlotReleased => self.process.has_slot = false,
            Input::AgentStarted => {
                self.process = Process { is_up: true, ..self.process.without_agent() };
            }
            Input::AgentTold => {
                self.process.is_told = true;
                self.has_transcript = true;
            }
            Input::AgentInterrupted => self.process.is_interrupted = true,
            Input::AgentStops => self.process.is_stopping = true,
            Input::AgentStale => self.process.is_stale = true,
            Input::AgentNotStarted(why) => self.agent_not_started(&why, context, &mut output),
            Input::AgentEnded(why) => self.agent_ended(&why, context, &mut output),
            Input::Fact(fact) => self.hear(fact, context, &mut output),
            Input::FrameSeen(uuid) => {
                if self.may_keep() {
                    self.last_frame = Some(uuid);
                }
            }
            Input::RequestStarted { id } => self.request_started(id, context, &mut output),
            Input::RequestEnded { id, is_error, spent } => {
                self.request_ended(&id, is_error, &spent, context, &mut output);
            }
            Input::BudgetRefused => {
                if let Some(turn) = &mut self.turn {
                    turn.budget_refused = true;
                }
            }
            Input::BudgetChanged => self.budget_changed(),
            Input::Tick => self.expire(context, &mut output),
            Input::TimeUp => self.time_up(context, &mut output),
            Input::Recovered { usage } => self.recover(usage, context, &mut output),
            Input::Draining => self.process.is_draining = true,
            Input::Parked => self.park(context, &mut output),
        }
        self.settle(context, &mut output);
        self.begin_turn(context);
        output
    }

    /// Where the session is.
    #[must_use]
    pub const fn status(&self) -> SessionStatus {
        self.status
    }

    /// The turn under way, for the store; none while the session is idle.
    #[must_use]
    pub fn active_turn(&self) -> Option<&RequestId> {
        let is_active = matches!(self.status, SessionStatus::Running | SessionStatus::Rescheduling);
        self.turn.as_ref().filter(|_| is_active).map(|turn| &turn.id)
    }

    /// What it has used.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The last message of the agent that the log knows of.
    #[must_use]
    pub fn last_frame(&self) -> Option<String> {
        self.last_frame.clone()
    }

    /// How many messages wait behind the turn under way.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The message of the turn under way.
    #[must_use]
    pub fn message(&self) -> Option<&EventId> {
        self.turn.as_ref().map(|turn| &turn.message)
    }

    /// When the session is to be looked at even if nothing happens: now for one that has something to do, so that it is
    /// found after a crash; later for one that waits for its client.
    #[must_use]
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        // Messages that wait behind a turn wait for it; others, for a server that is not about to stop.
        let is_new = self.turn.is_none() && !self.queue.is_empty();
        if self.has_work() || is_new { Some(now) } else { self.next_expiry() }
    }

    /// When the next call that waits for the client is denied.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries().min()
    }

    /// Whether nothing is left to do or to wait for in this process.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !self.process.is_up && !self.process.has_slot && !self.wants_agent()
    }

    /// Whether the agent runs.
    #[must_use]
    pub const fn has_agent(&self) -> bool {
        self.process.is_up
    }

    fn expiries(&self) -> impl Iterator<Item = Timestamp> {
        let waits = self.calls.values().filter_map(|call| call.wait.as_ref());
        waits.filter(|wait| wait.answer.is_none()).map(|wait| wait.expires_at)
    }

    /// Calls that wait for the client.
    fn waiting(&self) -> impl Iterator<Item = (&String, &OpenCall)> {
        let waits = |call: &OpenCall| call.wait.as_ref().is_some_and(|wait| wait.answer.is_none());
        self.calls.iter().filter(move |(_, call)| waits(call))
    }

    /// Whether all that the turn still does is to wait for its client. An agent that has asked nothing yet is about to do
    /// something. One that has asked and has no answer does nothing but that: calls that change something run one after
    /// the other, so that those behind it, asked for or allowed, have not begun.
    fn is_blocked(&self) -> bool {
        let mut waiting = self.waiting();
        let is_blocked = if self.process.is_up {
            waiting.any(|(id, _)| self.process.questions.contains_key(id))
        } else {
            !self.calls.is_empty() && (waiting.count() == self.calls.len() || !self.announced.is_empty())
        };
        is_blocked && self.spans.is_empty()
    }

    /// Whether there is work for an agent that this server does.
    fn wants_agent(&self) -> bool {
        let is_new = self.turn.as_ref().is_some_and(|turn| !turn.begun) && !self.process.is_told;
        self.has_work() && !(self.process.is_draining && is_new)
    }

    /// Whether there is work for an agent.
    fn has_work(&self) -> bool {
        match (self.status, &self.turn) {
            (SessionStatus::Terminated, _) => false,
            (_, None) => false,
            (_, Some(turn)) => !turn.parked && (!self.is_blocked() || turn.interrupted),
        }
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

impl Process {
    /// What stays when the agent's process is another, or none.
    fn without_agent(&self) -> Self {
        Self { has_slot: self.has_slot, is_draining: self.is_draining, ..Self::default() }
    }
}
