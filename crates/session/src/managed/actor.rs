//! The one task that owns a managed session while it has anything to do: it alone writes to the session, and it alone
//! starts and ends the session's agent. What is to be done is decided in [`crate::life`].

mod ask;
mod commit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::SpanContext;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_gateway::Exchange;
use wardian_protocol::{EventId, NanoUsd, RequestId};
use wardian_store::{SessionRecord, SessionStatus};

use super::worker::{self, Agent, Money, News, NotStarted, Owner, Resume};
use super::{Definition, SessionError, SessionUpdate, UserEvent};
use crate::engine::{Inner, describe};
use crate::feed::Feed;
use crate::life::{Fact, Input, Life, Rules, Spent, Step, Stop, Usage};
use crate::metrics::Start;
use crate::slots::{Slot, Ticket};
use crate::translate::{self, Heard};
use crate::watch::{Turn, TurnWatch};

/// Messages that wait for a session.
pub const MAILBOX: usize = 32;
/// How long an interrupted agent gets to stop its tools and say its result.
const INTERRUPT_GRACE: Duration = Duration::from_secs(10);
/// The pause before an agent that has died is started again, doubled each time.
const RESTART_PAUSE: Duration = Duration::from_millis(250);
/// What is asked of a session's actor.
pub enum Message {
    /// Take these events.
    Post { events: Vec<(EventId, UserEvent)>, trace: SpanContext, reply: Reply<Vec<Value>> },
    /// Change this.
    Update { update: SessionUpdate, reply: Reply<()> },
    /// Archive the session.
    Archive { reply: Reply<()> },
    /// Delete the session.
    Delete { reply: Reply<()> },
    /// Give the sandbox back if it has nothing to do: others need the room.
    Cool,
}

type Reply<T> = oneshot::Sender<Result<T, SessionError>>;

/// Why an actor ends.
enum End {
    /// Nothing is left to do.
    Rest,
    /// The session is deleted.
    Deleted,
}

pub struct Actor {
    engine: Arc<Inner>,
    record: SessionRecord,
    fence: u64,
    definition: Definition,
    archived_at: Option<jiff::Timestamp>,
    rules: Rules,
    life: Life,
    /// The state as it was last stored, and when it is to be looked at.
    stored: Value,
    feed: Arc<Feed>,
    agent: Option<Agent>,
    slot: Option<Slot>,
    ticket: Option<Ticket>,
    idle_since: Option<Instant>,
    interrupted_at: Option<Instant>,
    turn_since: Option<Instant>,
    not_before: Option<Instant>,
    deaths: u32,
    /// Since when its turn is in line.
    queued_at: Option<Instant>,
    /// The turn that is watched.
    watch: Option<(RequestId, TurnWatch)>,
    /// The request that asked last.
    trace: SpanContext,
    /// Its status as it is counted.
    counted: Option<SessionStatus>,
    is_stopping: bool,
    cool: bool,
    closed: Option<End>,
}

impl Actor {
    /// An actor of a session that was just leased.
    ///
    /// # Errors
    /// When what is stored cannot be read.
    pub async fn new(engine: Arc<Inner>, record: SessionRecord, fence: u64) -> Result<Self, SessionError> {
        let managed = record.managed.clone().ok_or(SessionError::NotFound)?;
        let read = |what, error: serde_json::Error| {
            tracing::error!(session_id = %record.id, %error, "{what} of a session cannot be read");
            SessionError::Internal
        };
        let definition: Definition =
            serde_json::from_value(managed.definition).map_err(|error| read("the definition", error))?;
        let life: Life =
            serde_json::from_value(managed.state.clone()).map_err(|error| read("the state", error))?;
        let rules = Rules {
            tools: worker::tools(&definition).as_ref().clone(),
            approval_ttl: engine.config.sessions.approval_ttl,
            budget: definition.budget,
        };
        let feed = engine.feeds.of(&record.id, record.last_seq);
        Ok(Self {
            engine,
            fence,
            definition,
            archived_at: managed.archived_at,
            rules,
            life,
            stored: managed.state,
            feed,
            agent: None,
            slot: None,
            ticket: None,
            idle_since: None,
            interrupted_at: None,
            turn_since: None,
            not_before: None,
            deaths: 0,
            queued_at: None,
            watch: None,
            trace: crate::watch::current_trace(),
            counted: None,
            is_stopping: false,
            cool: false,
            closed: None,
            record,
        })
    }

    /// Does what there is to do, until there is nothing.
    pub async fn run(mut self, mut mailbox: mpsc::Receiver<Message>) {
        let ended = self.work(&mut mailbox).await;
        self.left_line();
        self.engine.config.metrics.session_status(self.counted.take(), None);
        // First the agent: the next actor may start another.
        self.end_agent().await;
        mailbox.close();
        match ended {
            Ok(End::Rest) => {
                while let Ok(message) = mailbox.try_recv() {
                    refuse(message);
                }
                let released =
                    self.engine.store.release_session(&self.record.org_id, &self.record.id, self.fence);
                if let Err(error) = released.await {
                    tracing::warn!(session_id = %self.record.id, error = describe(&error), "a session was not given back");
                }
            }
            Ok(End::Deleted) => (),
            Err(error) => {
                tracing::error!(
                    session_id = %self.record.id, error = describe(&error),
                    "a session stops: what happens to it cannot be stored; it goes on when it can"
                );
                while let Ok(message) = mailbox.try_recv() {
                    refuse(message);
                }
            }
        }
    }

    async fn work(&mut self, mailbox: &mut mpsc::Receiver<Message>) -> Result<End, SessionError> {
        self.recover().await?;
        loop {
            self.reconcile().await?;
            if let Some(end) = self.closed.take() {
                return Ok(end);
            }
            if self.life.is_at_rest() && mailbox.is_empty() {
                return Ok(End::Rest);
            }
            self.wait(mailbox).await?;
        }
    }

    /// Takes the next thing that happens in.
    async fn wait(&mut self, mailbox: &mut mpsc::Receiver<Message>) -> Result<(), SessionError> {
        enum Next {
            Message(Message),
            Agent(News),
            Called(Option<Slot>),
            Stale,
            Killed,
            TimeUp,
            Restart,
            Expired,
            Draining,
            Parked,
        }
        let sessions = self.engine.config.sessions;
        let is_idle = self.agent.is_some() && self.slot.is_none();
        let stale_at = self
            .idle_since
            .filter(|_| is_idle)
            .map(|since| if self.cool { since } else { since + sessions.idle_timeout });
        let kill_at = self.interrupted_at.map(|at| at + INTERRUPT_GRACE);
        let turn_end = self.turn_since.filter(|_| self.slot.is_some()).map(|at| at + sessions.turn_timeout);
        let expiry = self.life.next_expiry().map(|at| self.instant_of(at));
        let (stopping, ending) = (self.engine.stopping.clone(), self.engine.ending.clone());
        let next = tokio::select! {
            biased;
            () = ending.cancelled() => Next::Parked,
            () = cancelled_once(&stopping, self.is_stopping) => Next::Draining,
            Some(message) = mailbox.recv() => Next::Message(message),
            slot = called(&mut self.ticket) => Next::Called(slot),
            () = at(kill_at) => Next::Killed,
            () = at(turn_end) => Next::TimeUp,
            () = at(stale_at) => Next::Stale,
            () = at(self.not_before) => Next::Restart,
            () = at(expiry) => Next::Expired,
            news = next_news(&mut self.agent) => Next::Agent(news),
        };
        match next {
            Next::Message(message) => self.message(message).await,
            Next::Agent(news) => self.news(news).await,
            Next::Called(slot) => {
                self.left_line();
                self.slot = slot;
                self.turn_since = Some(Instant::now());
                self.take(vec![Input::SlotTaken]).await
            }
            Next::Stale => self.take(vec![Input::AgentStale]).await,
            Next::Killed => {
                self.interrupted_at = None;
                self.stop_agent("the agent did not stop its turn in time").await
            }
            Next::TimeUp => {
                self.turn_since = None;
                self.take(vec![Input::TimeUp]).await
            }
            Next::Restart => {
                self.not_before = None;
                Ok(())
            }
            Next::Expired => self.take(vec![Input::Tick]).await,
            Next::Draining => {
                self.is_stopping = true;
                self.take(vec![Input::Draining]).await
            }
            Next::Parked => self.park().await,
        }
    }

    /// The server stops now.
    async fn park(&mut self) -> Result<(), SessionError> {
        self.take(vec![Input::Draining, Input::AgentStops]).await?;
        let last = self.end_agent().await;
        self.take(last.into_iter().filter_map(heard_exchange).collect()).await?;
        self.take(vec![Input::AgentEnded(String::new()), Input::Parked]).await?;
        self.left_line();
        self.slot = None;
        self.closed = Some(End::Rest);
        Ok(())
    }

    async fn message(&mut self, message: Message) -> Result<(), SessionError> {
        match message {
            Message::Post { events, trace, reply } => {
                self.trace = trace;
                match self.known(&events).await {
                    Ok(None) => answer(reply, self.post(events).await),
                    // Nothing was changed, so that a store that cannot be read now is no reason to stop.
                    Ok(Some(known)) => tell(reply, Ok(known)),
                    Err(error) => tell(reply, Err(error)),
                }
            }
            Message::Update { update, reply } => {
                let updated = self.update(update).await;
                answer(reply, updated)
            }
            Message::Archive { reply } => {
                let archived = self.archive().await;
                answer(reply, archived)
            }
            Message::Delete { reply } => {
                let deleted = self.delete().await;
                answer(reply, deleted)
            }
            Message::Cool => {
                self.cool = true;
                Ok(())
            }
        }
    }

    /// Puts right what an owner before left, if it was cut off.
    async fn recover(&mut self) -> Result<(), SessionError> {
        let ids = [self.record.id.clone()];
        let used = self.engine.store.session_usage(&self.record.org_id, &ids).await;
        let used = used.map_err(SessionError::Store)?;
        let usage = used.first().map_or_else(Usage::default, |(_, row)| Usage {
            tokens: row.tokens,
            cost_nano: row.cost.0,
            active_ms: 0,
        });
        // What has expired meanwhile is looked at before the session can come to rest.
        self.take(vec![Input::Recovered { usage }, Input::Tick]).await
    }

    /// Does what is to be done, step by step, until it is for something to happen.
    async fn reconcile(&mut self) -> Result<(), SessionError> {
        while let Some(step) = self.life.next_step() {
            if self.closed.is_some() {
                return Ok(());
            }
            match step {
                Step::TakeSlot => {
                    if self.ticket.is_none() {
                        let (org, user) = (&self.record.org_id, self.record.user_id.as_deref());
                        match self.engine.slots.queue(org, user, &self.record.id) {
                            Ok(ticket) => {
                                self.ticket = Some(ticket);
                                self.queued_at = Some(Instant::now());
                                self.engine.config.metrics.queued();
                            }
                            // The line is full of those who came before; this one is tried again.
                            Err(_) => self.not_before = Some(Instant::now() + RESTART_PAUSE),
                        }
                    }
                    return Ok(());
                }
                Step::GiveSlot => {
                    self.slot = None;
                    self.turn_since = None;
                    self.idle_since = Some(Instant::now());
                    self.engine.cool_others(&self.record.id, self.agent.is_some());
                    self.take(vec![Input::SlotReleased]).await?;
                }
                Step::StartAgent { resume } => {
                    if self.not_before.is_some_and(|at| at > Instant::now()) {
                        return Ok(());
                    }
                    self.start_agent(resume).await?;
                }
                Step::Tell(message) => self.tell(&message).await?,
                Step::Interrupt => {
                    if let Some(agent) = &mut self.agent {
                        agent.write(&translate::interrupt());
                    }
                    self.interrupted_at = Some(Instant::now());
                    self.take(vec![Input::AgentInterrupted]).await?;
                }
                Step::StopAgent => {
                    self.take(vec![Input::AgentStops]).await?;
                    self.stop_agent("").await?;
                }
            }
        }
        self.idle_since.get_or_insert_with(Instant::now);
        if self.life.message().is_none() {
            self.interrupted_at = None;
        }
        Ok(())
    }

    /// The turn has its place, or wants none any more.
    fn left_line(&mut self) {
        self.ticket = None;
        if let Some(since) = self.queued_at.take() {
            self.engine.config.metrics.queue_wait(since.elapsed());
        }
    }

    /// Begins to watch the turn, if it is not watched yet.
    fn watch_turn(&mut self, start: Start) {
        let Some(id) = self.life.active_turn() else { return };
        if self.watch.as_ref().is_some_and(|(watched, _)| watched == id) {
            return;
        }
        let turn = Turn {
            session_id: &self.record.id,
            agent: self.definition.agent["name"].as_str(),
            parent: self.trace.clone(),
            start,
        };
        let watch = TurnWatch::begin(&self.engine.config.metrics, self.engine.config.tracer.as_ref(), turn);
        if let Some(agent) = &self.agent {
            agent.set_trace(watch.trace());
        }
        self.watch = Some((id.clone(), watch));
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            org_id: &self.record.org_id,
            session_id: &self.record.id,
            user: self.record.user_id.as_deref(),
        }
    }

    async fn start_agent(&mut self, resume: bool) -> Result<(), SessionError> {
        let owner = self.owner();
        let resume = if resume { Resume::After(self.life.last_frame()) } else { Resume::No };
        let started =
            Agent::start(&self.engine, &owner, &self.definition, &self.rules.tools, self.money(), resume)
                .await;
        match started {
            Ok(agent) => {
                if let Some((_, watch)) = &self.watch {
                    agent.set_trace(watch.trace());
                }
                self.agent = Some(agent);
                self.watch_turn(Start::Cold);
                self.turn_since = Some(Instant::now());
                self.take(vec![Input::AgentStarted]).await
            }
            Err(NotStarted::Failed(why)) => self.not_started(why).await,
            Err(NotStarted::Refused(message)) => {
                let stop = Stop::Failed { status: None, message };
                self.take(vec![Input::Fact(Fact::Ended(stop))]).await
            }
        }
    }

    /// Gives the agent its message, from the log. One that it has had already, by its id, it takes as the order to go on.
    async fn tell(&mut self, message: &EventId) -> Result<(), SessionError> {
        self.watch_turn(Start::Warm);
        let payload = self.payload(message).await?;
        let content = payload["content"].as_array().cloned().unwrap_or_default();
        if let Some(agent) = &mut self.agent {
            agent.write(&translate::prompt(&content, worker::uuid(message.as_str())));
        }
        self.turn_since = Some(Instant::now());
        self.interrupted_at = None;
        self.take(vec![Input::AgentTold]).await
    }

    async fn payload(&self, event: &EventId) -> Result<Value, SessionError> {
        let found = self.engine.store.event(&self.record.org_id, &self.record.id, event).await;
        let row = found.map_err(SessionError::Store)?.ok_or(SessionError::Internal)?;
        serde_json::from_str(&row.payload).map_err(|_| SessionError::Internal)
    }

    async fn news(&mut self, news: News) -> Result<(), SessionError> {
        match news {
            News::Progress => Ok(()),
            News::Exchange(exchange) => self.take(heard_exchange(exchange).into_iter().collect()).await,
            News::Ended(why) => self.stop_agent(&why).await,
            News::Output(chunk) => self.hear(&chunk).await,
        }
    }

    async fn hear(&mut self, chunk: &[u8]) -> Result<(), SessionError> {
        let Some(agent) = &mut self.agent else { return Ok(()) };
        let heard = agent.translator.hear(chunk, &self.rules.tools, &mut crate::random_bits);
        let mut inputs = Vec::new();
        let mut raw = Vec::new();
        let mut refused = None;
        let mut previews = VecDeque::new();
        for heard in heard {
            match heard {
                Heard::Fact(fact) => {
                    if let Some((_, watch)) = &mut self.watch {
                        observe(watch, &fact);
                    }
                    inputs.push(Input::Fact(fact));
                }
                Heard::Reply(frame) => agent.write(&frame),
                Heard::Preview { is_message, kind, data } => previews.push_back((is_message, kind, data)),
                Heard::Frame(uuid) => inputs.push(Input::FrameSeen(uuid)),
                Heard::Raw(line) => {
                    if self.life.may_say(line.len()) {
                        raw.push(line);
                    }
                }
                Heard::Refused(why) => refused = Some(why),
            }
        }
        // Before the rows of this piece, since they come before their events.
        if self.feed.has_previewers() {
            for (is_message, kind, data) in previews {
                self.feed.preview(is_message, kind, data);
            }
        }
        self.commit_raw(inputs, raw).await?;
        match refused {
            Some(why) => self.stop_agent(&format!("the agent refused to begin: {why}")).await,
            None => Ok(()),
        }
    }

    /// Ends the agent, hears what the gateway has to say of its requests, and says that it is gone.
    async fn stop_agent(&mut self, why: &str) -> Result<(), SessionError> {
        let last = self.end_agent().await;
        let mut inputs: Vec<Input> = last.into_iter().filter_map(heard_exchange).collect();
        inputs.push(Input::AgentEnded(why.to_owned()));
        self.ended(inputs).await
    }

    /// No sandbox or no process could be made: tried again, with longer and longer pauses.
    async fn not_started(&mut self, why: String) -> Result<(), SessionError> {
        self.deaths += 1;
        self.not_before = Some(Instant::now() + pause(self.deaths));
        self.take(vec![Input::AgentNotStarted(why)]).await
    }

    async fn ended(&mut self, inputs: Vec<Input>) -> Result<(), SessionError> {
        self.interrupted_at = None;
        self.cool = false;
        self.take(inputs).await?;
        if self.life.status() == SessionStatus::Rescheduling {
            self.deaths += 1;
            self.not_before = Some(Instant::now() + pause(self.deaths));
        } else {
            self.deaths = 0;
        }
        Ok(())
    }

    async fn end_agent(&mut self) -> Vec<Exchange> {
        match self.agent.take() {
            Some(agent) => agent.end().await,
            None => Vec::new(),
        }
    }

    /// The most that the session may cost, and what it has. With no agent, every request is settled and heard of.
    fn money(&self) -> Money {
        let cap = self.engine.config.sessions.max_cost;
        let limit = self.definition.budget.map_or(cap, |budget| budget.min(cap));
        Money { limit, spent: NanoUsd(self.life.usage().cost_nano) }
    }

    /// When a time of the wall clock is, by the clock that is not set back.
    fn instant_of(&self, at: jiff::Timestamp) -> Instant {
        let wait = at.duration_since(self.engine.now());
        // A clock that was set is noticed within a minute.
        let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO).min(Duration::from_secs(60));
        Instant::now() + wait
    }
}

/// The pause after so many failures in a row: from a quarter of a second to half a minute.
fn pause(failures: u32) -> Duration {
    RESTART_PAUSE * 2u32.saturating_pow(failures.clamp(1, 8) - 1)
}

/// What of an agent's words is counted.
fn observe(watch: &mut TurnWatch, fact: &Fact) {
    match fact {
        Fact::Text { .. } | Fact::Thinking { .. } => watch.heard(),
        Fact::Call { call, name, .. } => {
            watch.heard();
            watch.tool_started(call, name, None);
        }
        Fact::Outcome { call, is_error, .. } => watch.tool_ended(call, *is_error),
        Fact::Began
        | Fact::Asked { .. }
        | Fact::CustomCalled { .. }
        | Fact::Withdrawn { .. }
        | Fact::Retrying { .. }
        | Fact::Compacted
        | Fact::Ended(_) => (),
    }
}

fn heard_exchange(exchange: Exchange) -> Option<Input> {
    Some(match exchange {
        Exchange::Started { id, .. } => Input::RequestStarted { id },
        Exchange::Ended { id, is_error, tokens, cost, .. } => {
            Input::RequestEnded { id, is_error, spent: Spent { tokens, cost } }
        }
        Exchange::Refused { .. } => Input::BudgetRefused,
    })
}

/// Tells who asked. A failure of the store ends the actor too.
fn answer<T>(reply: Reply<T>, result: Result<T, SessionError>) -> Result<(), SessionError> {
    let failed = match &result {
        Err(SessionError::Store(error)) => Some(SessionError::Store(error.clone())),
        Err(SessionError::Elsewhere) => Some(SessionError::Elsewhere),
        Ok(_) | Err(_) => None,
    };
    tell(reply, result)?;
    failed.map_or(Ok(()), Err)
}

/// Tells who asked, and goes on.
fn tell<T>(reply: Reply<T>, result: Result<T, SessionError>) -> Result<(), SessionError> {
    // Who asked may have left.
    let _gone = reply.send(result);
    Ok(())
}

fn refuse(message: Message) {
    match message {
        Message::Post { reply, .. } => drop(answer(reply, Err(SessionError::Stopping))),
        Message::Update { reply, .. } | Message::Archive { reply } | Message::Delete { reply } => {
            drop(answer(reply, Err(SessionError::Stopping)));
        }
        Message::Cool => (),
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn cancelled_once(token: &CancellationToken, was_heard: bool) {
    if was_heard { std::future::pending().await } else { token.cancelled().await }
}

async fn called(ticket: &mut Option<Ticket>) -> Option<Slot> {
    match ticket {
        Some(ticket) => ticket.called().await,
        None => std::future::pending().await,
    }
}

async fn next_news(agent: &mut Option<Agent>) -> News {
    match agent {
        Some(agent) => agent.next().await,
        None => std::future::pending().await,
    }
}
