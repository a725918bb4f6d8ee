//! The one task that owns a managed session while it has anything to do: it alone writes to the session, and it alone
//! starts and ends the session's agent. What is to be done is decided in [`crate::life`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_gateway::Exchange;
use wardian_protocol::{EventId, NanoUsd};
use wardian_store::{NewEvent, SessionChange, SessionCommit, SessionRecord};

use super::worker::{self, Agent, News, Owner, Resume};
use super::{Definition, SessionError, SessionUpdate, UserEvent};
use crate::engine::{Inner, describe};
use crate::error::FieldError;
use crate::feed::{self, Feed};
use crate::life::{Command, Context, Input, Life, Rules, Spent, Step, Usage};
use crate::slots::{Slot, Ticket};
use crate::translate::{self, Heard};

/// Messages that wait for a session.
pub const MAILBOX: usize = 32;
/// How long an interrupted agent gets to stop its tools and say its result.
const INTERRUPT_GRACE: Duration = Duration::from_secs(10);
/// The pause before an agent that has died is started again, doubled each time.
const RESTART_PAUSE: Duration = Duration::from_millis(250);
/// Events in one commit.
const MAX_COMMIT_EVENTS: usize = 1000;

/// What is asked of a session's actor.
pub enum Message {
    /// Take these events.
    Post { events: Vec<(EventId, UserEvent)>, reply: Reply<Vec<Value>> },
    /// Change this.
    Update { update: SessionUpdate, reply: Reply<()> },
    /// Archive the session.
    Archive { reply: Reply<()> },
    /// Delete the session.
    Delete { reply: Reply<()> },
    /// Say where its turn is in line.
    Position { reply: Reply<Option<usize>> },
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
            is_stopping: false,
            cool: false,
            closed: None,
            record,
        })
    }

    /// Does what there is to do, until there is nothing.
    pub async fn run(mut self, mut mailbox: mpsc::Receiver<Message>) {
        let ended = self.work(&mut mailbox).await;
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
        let expiry = self.life.wake_at(jiff::Timestamp::MAX).map(|at| self.instant_of(at));
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
                self.ticket = None;
                self.slot = slot;
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
        self.ticket = None;
        self.slot = None;
        self.closed = Some(End::Rest);
        Ok(())
    }

    async fn message(&mut self, message: Message) -> Result<(), SessionError> {
        match message {
            Message::Post { events, reply } => {
                let posted = self.post(events).await;
                answer(reply, posted)
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
            Message::Position { reply } => {
                let position = self.ticket.as_ref().map(Ticket::position);
                answer(reply, Ok(position))
            }
            Message::Cool => {
                self.cool = true;
                Ok(())
            }
        }
    }

    async fn post(&mut self, events: Vec<(EventId, UserEvent)>) -> Result<Vec<Value>, SessionError> {
        if let Some(known) = self.known(&events).await? {
            return Ok(known);
        }
        if self.archived_at.is_some() {
            return Err(SessionError::Conflict("it is archived".to_owned()));
        }
        if self.life.status() == wardian_store::SessionStatus::Terminated {
            return Err(SessionError::Conflict("it is terminated".to_owned()));
        }
        if self.is_stopping {
            return Err(SessionError::Stopping);
        }
        self.life.check(&events).map_err(SessionError::Invalid)?;
        let needs_place = self.slot.is_none() && self.ticket.is_none();
        if needs_place && events.iter().any(|(_, event)| matches!(event, UserEvent::Message { .. })) {
            let queue = self.engine.slots.may_queue(&self.record.org_id, self.record.user_id.as_deref());
            queue.map_err(SessionError::Full)?;
        }
        let ids: Vec<EventId> = events.iter().map(|(id, _)| id.clone()).collect();
        let rows = self.take_showing(vec![Input::Posted(events)]).await?;
        // The rows by which they were accepted: the first of each.
        let accepted = ids.iter().filter_map(|id| rows.iter().find(|row| row["id"] == id.as_str()).cloned());
        Ok(accepted.collect())
    }

    /// What was answered before to the same events: the request is a repeated one.
    async fn known(&self, events: &[(EventId, UserEvent)]) -> Result<Option<Vec<Value>>, SessionError> {
        let Some((first, _)) = events.first() else { return Ok(Some(Vec::new())) };
        let (org, session) = (&self.record.org_id, &self.record.id);
        if self.engine.store.event(org, session, first).await.map_err(SessionError::Store)?.is_none() {
            return Ok(None);
        }
        let mut known = Vec::new();
        for (id, _) in events {
            if let Some(row) = self.engine.store.event(org, session, id).await.map_err(SessionError::Store)? {
                let mut row: Value = serde_json::from_str(&row.payload).unwrap_or_default();
                if row["type"] == "user.message" {
                    row["processed_at"] = Value::Null;
                }
                known.push(row);
            }
        }
        Ok(Some(known))
    }

    async fn update(&mut self, update: SessionUpdate) -> Result<(), SessionError> {
        let mut definition = self.definition.clone();
        let changed = apply(&mut definition, update, self.life.usage(), self.life.status())?;
        if definition == self.definition {
            return Ok(());
        }
        let budget_changed = definition.budget != self.definition.budget;
        let before = std::mem::replace(&mut self.definition, definition);
        self.rules.budget = self.definition.budget;
        self.rules.tools = worker::tools(&self.definition).as_ref().clone();
        let inputs = if budget_changed { vec![Input::BudgetChanged] } else { Vec::new() };
        let event = self.row("session.updated", changed);
        if let Err(error) = self.commit(inputs, vec![event], true).await {
            self.definition = before;
            return Err(error);
        }
        if let Some(agent) = &self.agent {
            agent.set_room(self.room());
            if before.resources != self.definition.resources {
                let laid = worker::lay_out(&self.engine, &self.owner(), &self.definition.resources).await;
                // The next sandbox tries again.
                if let Err(error) = laid {
                    tracing::error!(session_id = %self.record.id, error, "a session does not see its files");
                }
            }
        }
        Ok(())
    }

    async fn archive(&mut self) -> Result<(), SessionError> {
        self.must_rest()?;
        if self.archived_at.is_none() {
            self.archived_at = Some(self.engine.now());
            self.commit(Vec::new(), Vec::new(), true).await?;
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), SessionError> {
        self.must_rest()?;
        self.end_agent().await;
        let (org, id) = (&self.record.org_id, &self.record.id);
        self.engine.store.delete_session(org, id, self.fence).await.map_err(SessionError::Store)?;
        let event = self.row("session.deleted", json!({}));
        self.record.last_seq += 1;
        self.feed.publish(vec![news(self.record.last_seq, event.kind.as_str(), &event.payload)]);
        self.feed.end();
        self.closed = Some(End::Deleted);
        let folder = self.engine.folder.session_root(id);
        // It does not follow links.
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&folder)).await;
        let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        if !removed.is_ok_and(|removed| removed.is_ok() || removed.is_err_and(|error| gone(&error))) {
            tracing::error!(session_id = %id, "the folders of a deleted session could not be removed");
        }
        Ok(())
    }

    fn must_rest(&self) -> Result<(), SessionError> {
        match self.life.active_turn() {
            None if self.life.queued() == 0 => Ok(()),
            _ => Err(SessionError::Conflict("it is running; interrupt it first".to_owned())),
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
        self.take(vec![Input::Recovered { usage }]).await
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
                        match self.engine.slots.queue(org, user) {
                            Ok(ticket) => self.ticket = Some(ticket),
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
                Step::StartAgent { resume, go_on } => {
                    if self.not_before.is_some_and(|at| at > Instant::now()) {
                        return Ok(());
                    }
                    self.start_agent(Resume { conversation: resume, turn: go_on }).await?;
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
        Ok(())
    }

    fn owner(&self) -> Owner<'_> {
        Owner {
            org_id: &self.record.org_id,
            session_id: &self.record.id,
            user: self.record.user_id.as_deref(),
        }
    }

    async fn start_agent(&mut self, resume: Resume) -> Result<(), SessionError> {
        let owner = self.owner();
        let started =
            Agent::start(&self.engine, &owner, &self.definition, &self.rules.tools, self.room(), resume)
                .await;
        match started {
            Ok(agent) => {
                self.agent = Some(agent);
                let told = resume.turn.then_some(Input::AgentTold);
                self.turn_since = Some(Instant::now());
                self.take([Some(Input::AgentStarted), told].into_iter().flatten().collect()).await
            }
            Err(why) => self.agent_ended(why).await,
        }
    }

    /// Gives the agent its message, from the log.
    async fn tell(&mut self, message: &EventId) -> Result<(), SessionError> {
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
                Heard::Fact(fact) => inputs.push(Input::Fact(fact)),
                Heard::Reply(frame) => agent.write(&frame),
                Heard::Preview { is_message, kind, data } => previews.push_back((is_message, kind, data)),
                Heard::Raw(line) => raw.push(line),
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

    async fn agent_ended(&mut self, why: String) -> Result<(), SessionError> {
        self.ended(vec![Input::AgentEnded(why)]).await
    }

    async fn ended(&mut self, inputs: Vec<Input>) -> Result<(), SessionError> {
        self.interrupted_at = None;
        self.cool = false;
        self.take(inputs).await?;
        if self.life.status() == wardian_store::SessionStatus::Rescheduling {
            self.deaths += 1;
            let pause = RESTART_PAUSE * 2u32.saturating_pow(self.deaths.min(8) - 1);
            self.not_before = Some(Instant::now() + pause);
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

    /// What the session may still spend.
    fn room(&self) -> NanoUsd {
        let cap = self.engine.config.sessions.max_cost;
        let limit = self.definition.budget.map_or(cap, |budget| budget.min(cap));
        limit.saturating_sub(NanoUsd(self.life.usage().cost_nano)).max(NanoUsd::ZERO)
    }

    async fn take(&mut self, inputs: Vec<Input>) -> Result<(), SessionError> {
        self.commit(inputs, Vec::new(), false).await.map(|_| ())
    }

    async fn take_showing(&mut self, inputs: Vec<Input>) -> Result<Vec<Value>, SessionError> {
        self.commit(inputs, Vec::new(), false).await
    }

    async fn commit_raw(&mut self, inputs: Vec<Input>, raw: Vec<String>) -> Result<(), SessionError> {
        if raw.is_empty() {
            return self.take(inputs).await;
        }
        self.write(inputs, Vec::new(), false, raw).await.map(|_| ())
    }

    async fn commit(
        &mut self,
        inputs: Vec<Input>,
        events: Vec<NewEvent>,
        definition_too: bool,
    ) -> Result<Vec<Value>, SessionError> {
        self.write(inputs, events, definition_too, Vec::new()).await
    }

    /// Takes inputs in: what they lead to is durable, then told, then done. Returns the rows.
    async fn write(
        &mut self,
        inputs: Vec<Input>,
        mut events: Vec<NewEvent>,
        definition_too: bool,
        raw: Vec<String>,
    ) -> Result<Vec<Value>, SessionError> {
        let now = self.engine.now();
        let mut commands = Vec::new();
        for input in inputs {
            let mut random = crate::random_bits;
            let mut context = Context { now, rules: &self.rules, random: &mut random };
            let output = self.life.step(input, &mut context);
            let request_id = self.life.active_turn().cloned();
            let rows = output.rows.into_iter().map(|row| NewEvent {
                id: row.id,
                request_id: request_id.clone(),
                kind: row.kind.to_owned(),
                payload: row.payload,
                at: now,
            });
            events.extend(rows);
            if let Some(message) = output.taken {
                let mut payload = self.payload(&message).await?;
                payload["processed_at"] = json!(now);
                let kind = "user.message".to_owned();
                events.push(NewEvent { id: message, request_id, kind, payload, at: now });
            }
            commands.extend(output.commands);
        }
        let rows: Vec<Value> = events.iter().map(|event| event.payload.clone()).collect();
        self.store(events, definition_too, raw, now).await?;
        for command in commands {
            self.act(command).await?;
        }
        Ok(rows)
    }

    async fn store(
        &mut self,
        events: Vec<NewEvent>,
        definition_too: bool,
        mut raw: Vec<String>,
        now: jiff::Timestamp,
    ) -> Result<(), SessionError> {
        let state = serde_json::to_value(&self.life).expect("the state has string keys only");
        if events.is_empty() && raw.is_empty() && !definition_too && state == self.stored {
            return Ok(());
        }
        let definition = definition_too
            .then(|| serde_json::to_value(&self.definition).expect("a definition has string keys only"));
        let change = SessionChange {
            status: self.life.status(),
            active_run: self.life.active_turn().cloned(),
            state: state.clone(),
            wake_at: self.life.wake_at(now),
            definition,
            archived_at: self.archived_at,
            at: now,
        };
        let mut parts = chunked(events);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.append(part, None, Vec::new()).await?;
        }
        self.append(last, Some(change), std::mem::take(&mut raw)).await?;
        self.stored = state;
        Ok(())
    }

    async fn append(
        &mut self,
        events: Vec<NewEvent>,
        change: Option<SessionChange>,
        raw: Vec<String>,
    ) -> Result<(), SessionError> {
        let shown: Vec<(String, Value)> =
            events.iter().map(|event| (event.kind.clone(), event.payload.clone())).collect();
        let commit = SessionCommit {
            org_id: self.record.org_id.clone(),
            session_id: self.record.id.clone(),
            fence: self.fence,
            events,
            change,
            raw,
        };
        let last = self.engine.store.commit_session(commit).await.map_err(|error| match error {
            wardian_store::Error::Fenced => SessionError::Elsewhere,
            error => SessionError::Store(error),
        })?;
        let first = last + 1 - shown.len() as u64;
        self.record.last_seq = last;
        self.feed.publish(
            shown.iter().zip(first..).map(|((kind, payload), seq)| news(seq, kind, payload)).collect(),
        );
        Ok(())
    }

    async fn act(&mut self, command: Command) -> Result<(), SessionError> {
        match command {
            Command::Answer { request_id, answer } => {
                if let Some(agent) = &mut self.agent {
                    agent.write(&translate::answer(request_id, &answer));
                }
            }
            Command::AnswerCustom { request_id, event_id } => {
                let (content, is_error) = match event_id {
                    None => (vec![json!({"type": "text", "text": "Nobody gave a result in time."})], true),
                    Some(id) => {
                        let mut payload = self.payload(&id).await?;
                        let content = payload["content"].take();
                        let is_error = payload["is_error"].as_bool().unwrap_or(false);
                        (content.as_array().cloned().unwrap_or_default(), is_error)
                    }
                };
                if let Some(agent) = &mut self.agent
                    && let Some(frame) = agent.translator.custom_result(&request_id, &content, is_error)
                {
                    agent.write(&frame);
                }
            }
        }
        Ok(())
    }

    fn row(&self, kind: &str, fields: Value) -> NewEvent {
        let (id, at) = (EventId::from_random(crate::random_bits()), self.engine.now());
        let mut payload = json!({"id": id, "type": kind});
        if let (Value::Object(payload), Value::Object(fields)) = (&mut payload, fields) {
            payload.extend(fields);
            payload.insert("processed_at".to_owned(), json!(at));
        }
        NewEvent { id, request_id: None, kind: kind.to_owned(), payload, at }
    }

    /// When a time of the wall clock is, by the clock that is not set back.
    fn instant_of(&self, at: jiff::Timestamp) -> Instant {
        let wait = at.duration_since(self.engine.now());
        // A clock that was set is noticed within a minute.
        let wait = Duration::try_from(wait).unwrap_or(Duration::ZERO).min(Duration::from_secs(60));
        Instant::now() + wait
    }
}

fn news(seq: u64, kind: &str, payload: &Value) -> feed::News {
    feed::News { seq, kind: kind.into(), data: payload.to_string().into() }
}

/// Cuts events into as many as one commit takes.
fn chunked(mut events: Vec<NewEvent>) -> Vec<Vec<NewEvent>> {
    let mut parts = Vec::new();
    while events.len() > MAX_COMMIT_EVENTS {
        let rest = events.split_off(MAX_COMMIT_EVENTS);
        parts.push(std::mem::replace(&mut events, rest));
    }
    parts.push(events);
    parts
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
    // Who asked may have left.
    let _gone = reply.send(result);
    failed.map_or(Ok(()), Err)
}

fn refuse(message: Message) {
    match message {
        Message::Post { reply, .. } => drop(answer(reply, Err(SessionError::Stopping))),
        Message::Update { reply, .. } | Message::Archive { reply } | Message::Delete { reply } => {
            drop(answer(reply, Err(SessionError::Stopping)));
        }
        Message::Position { reply } => drop(answer(reply, Ok(None))),
        Message::Cool => (),
    }
}

/// Applies an update; returns the fields of the event that says so.
fn apply(
    definition: &mut Definition,
    update: SessionUpdate,
    usage: &Usage,
    status: wardian_store::SessionStatus,
) -> Result<Value, SessionError> {
    let mut changed = json!({});
    if let Some(title) = update.title {
        changed["title"] = json!(title);
        definition.title = title;
    }
    if !update.metadata.is_empty() {
        for (key, value) in update.metadata {
            match value {
                Some(value) => definition.metadata.insert(key, value),
                None => definition.metadata.remove(&key),
            };
        }
        if !definition.metadata.is_empty() {
            changed["metadata"] = json!(definition.metadata);
        }
    }
    if let Some(budget) = update.budget {
        let error = |message: &str| SessionError::Invalid(vec![FieldError::new("budget", message)]);
        match (definition.budget, budget) {
            (None, Some(_)) => {
                return Err(error("budget_create_only: the session was made without a budget"));
            }
            (_, Some(budget)) if budget.0 <= usage.cost_nano => {
                return Err(error("budget_not_raised: the session has cost as much already"));
            }
            (_, budget) => definition.budget = budget,
        }
        changed["budget"] = json!(budget.map(crate::life::budget));
    }
    if let Some(tools) = update.agent_tools {
        if status != wardian_store::SessionStatus::Idle {
            return Err(SessionError::Conflict(
                "it is running; its tools can be changed when it is idle".to_owned(),
            ));
        }
        definition.agent["tools"] = tools;
        changed["agent"] = definition.agent.clone();
    }
    definition.resources.extend(update.add_resources);
    if let Some(id) = update.remove_resource {
        definition.resources.retain(|resource| resource["id"] != id.as_str());
    }
    Ok(changed)
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
