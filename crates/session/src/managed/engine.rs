//! What an engine offers on managed sessions: finds the session, checks whose it is, and asks its actor.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;
use wardian_protocol::{EventId, OrgId, SessionId};
use wardian_store::{
    EventQuery, EventRow, ForgetUser, Forgotten, Lease, NewEvent, NewManaged, NewSession, SessionQuery,
    SessionRecord,
};

use super::actor::{Actor, MAILBOX, Message};
use super::{
    Definition, NewManagedSession, Previews, SessionError, SessionUpdate, SessionUsage, SessionView,
    UserEvent, worker,
};
use crate::engine::{Engine, Inner, describe};
use crate::feed::Follower;
use crate::life::{Context, Input, Life, Rules};
use crate::request::Caller;

/// How often sessions are looked for that nobody looks after and that have something to do.
const WAKE_EVERY: Duration = Duration::from_secs(5);
/// Sessions woken at a time.
const WAKE_PAGE: u32 = 1000;

/// The actors of this server.
#[derive(Default)]
pub(crate) struct Actors {
    mailboxes: Mutex<HashMap<SessionId, mpsc::Sender<Message>>>,
    /// Sessions whose sandboxes have nothing to do, the longest first.
    warm: Mutex<VecDeque<SessionId>>,
    /// Held while an actor is made, so that a session gets one.
    making: tokio::sync::Mutex<()>,
}

impl Engine {
    /// Makes a session with its first events. An id that this caller's session has already gives that session: the
    /// request is a repeated one.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn create_session(
        &self,
        caller: &Caller,
        new: NewManagedSession,
    ) -> Result<SessionView, SessionError> {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() {
            return Err(SessionError::Stopping);
        }
        if let Some(user) = &caller.user_id
            && new.user.as_ref() != Some(user)
        {
            return Err(SessionError::NotFound);
        }
        let has_work = !new.initial_events.is_empty();
        if has_work {
            inner.slots.may_queue(&caller.org_id, new.user.as_deref()).map_err(SessionError::Full)?;
        }
        let id = new.id.clone();
        let session = inner.new_session(caller, new)?;
        match inner.store.create_session(session).await {
            Ok(()) => inner.config.metrics.session_created(),
            Err(wardian_store::Error::Exists { .. }) => {
                return self.get_session(caller, &id).await.map_err(|_| SessionError::Exists);
            }
            Err(error) => return Err(SessionError::Store(error)),
        }
        if has_work {
            inner.wake(&caller.org_id, &id).await;
        }
        self.get_session(caller, &id).await
    }

    /// The session of this id.
    ///
    /// # Errors
    /// [`SessionError::NotFound`] for one that does not exist and for one of somebody else.
    pub async fn get_session(&self, caller: &Caller, id: &SessionId) -> Result<SessionView, SessionError> {
        let record = self.inner.find(caller, id).await?;
        let mut views = self.inner.views(&caller.org_id, vec![record]).await?;
        views.pop().ok_or(SessionError::Internal)
    }

    /// The sessions of the caller's org, or of its user where it is bound to one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_sessions(
        &self,
        caller: &Caller,
        mut query: SessionQuery,
    ) -> Result<Vec<SessionView>, SessionError> {
        if let Some(user) = &caller.user_id {
            query.user_id = Some(user.clone());
        }
        let records = self.inner.store.sessions(&caller.org_id, query).await.map_err(SessionError::Store)?;
        self.inner.views(&caller.org_id, records).await
    }

    /// Changes a session.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn update_session(
        &self,
        caller: &Caller,
        id: &SessionId,
        update: SessionUpdate,
    ) -> Result<SessionView, SessionError> {
        self.inner.ask(caller, id, |reply| Message::Update { update: update.clone(), reply }).await?;
        self.get_session(caller, id).await
    }

    /// Archives a session that is not running. One that is archived stays as it is.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn archive_session(
        &self,
        caller: &Caller,
        id: &SessionId,
    ) -> Result<SessionView, SessionError> {
        self.inner.ask(caller, id, |reply| Message::Archive { reply }).await?;
        self.get_session(caller, id).await
    }

    /// Deletes a session that is not running, with its log and its folders. What it has cost stays.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn delete_session(&self, caller: &Caller, id: &SessionId) -> Result<(), SessionError> {
        self.inner.ask(caller, id, |reply| Message::Delete { reply }).await
    }

    /// Posts events, all or none; returns them as they were accepted, durably. Events whose ids are in the log already are
    /// returned as they were then, and change nothing.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn send_events(
        &self,
        caller: &Caller,
        id: &SessionId,
        events: Vec<(EventId, UserEvent)>,
    ) -> Result<Vec<serde_json::Value>, SessionError> {
        let trace = crate::watch::current_trace();
        let post = |reply| Message::Post { events: events.clone(), trace: trace.clone(), reply };
        self.inner.ask(caller, id, post).await
    }

    /// Lists a session's events, each once.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn list_events(
        &self,
        caller: &Caller,
        id: &SessionId,
        query: EventQuery,
    ) -> Result<Vec<EventRow>, SessionError> {
        self.inner.find(caller, id).await?;
        self.inner.store.list_events(&caller.org_id, id, query).await.map_err(SessionError::Store)
    }

    /// Follows a session from after the row `from`, or from now.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn follow(
        &self,
        caller: &Caller,
        id: &SessionId,
        from: Option<u64>,
        previews: Previews,
    ) -> Result<Follower, SessionError> {
        // Registered first: what is written while the session is looked up is not missed.
        let feed = self.inner.feeds.of(id, 0);
        let record = self.inner.find(caller, id).await?;
        let feed_now = self.inner.feeds.of(id, record.last_seq);
        drop(feed);
        let seen = from.unwrap_or(record.last_seq).min(record.last_seq);
        let store = Arc::clone(&self.inner.store);
        Ok(Follower::new(store, caller.org_id.clone(), id.clone(), feed_now, seen, previews))
    }

    /// Forgets a user: sessions with their logs and folders, files, keys. The caller removes the bytes of the files.
    ///
    /// # Errors
    /// [`SessionError::Conflict`] while a session of the user is running.
    pub async fn forget_user(&self, caller: &Caller, user: &str) -> Result<Forgotten, SessionError> {
        let mut forgotten = Forgotten::default();
        let done = self.forget_rows(caller, user, &mut forgotten).await;
        for session in &forgotten.sessions {
            self.inner.bury(session).await;
        }
        done.map(|()| forgotten)
    }

    async fn forget_rows(
        &self,
        caller: &Caller,
        user: &str,
        forgotten: &mut Forgotten,
    ) -> Result<(), SessionError> {
        let inner = &self.inner;
        loop {
            let step = inner.store.forget_user(&caller.org_id, user).await.map_err(SessionError::Store)?;
            let (gone, in_use) = match step {
                ForgetUser::Forgotten(gone) => (gone, None),
                ForgetUser::InUse { session, gone } => (gone, Some(session)),
            };
            forgotten.sessions.extend(gone.sessions);
            forgotten.files.extend(gone.files);
            forgotten.keys += gone.keys;
            let Some(id) = in_use else { return Ok(()) };
            // One that is looked after, by this process or another, is deleted by who does.
            match self.delete_session(caller, &id).await {
                Ok(()) => forgotten.sessions.push(id),
                Err(SessionError::NotFound) => inner.must_be_gone(&caller.org_id, &id).await?,
                Err(SessionError::Conflict(_)) => return Err(user_is_busy(&id)),
                Err(error) => return Err(error),
            }
        }
    }

    /// How many turns wait in line.
    #[must_use]
    pub fn queued_turns(&self) -> usize {
        self.inner.slots.waiting()
    }

    /// How many sessions are looked after now; an idle one without a sandbox takes no memory and is not among them.
    #[must_use]
    pub fn live_sessions(&self) -> usize {
        self.inner.actors.lock().len()
    }

    /// Looks after sessions that nobody looks after and that have something to do: after a crash, when the store works
    /// again, when an approval has expired.
    pub(crate) fn start_waker(&self) {
        // It does not keep the engine alive.
        let (inner, stopping) = (Arc::downgrade(&self.inner), self.inner.stopping.clone());
        self.inner.tasks.spawn(async move {
            loop {
                let Some(engine) = inner.upgrade() else { return };
                engine.wake_due().await;
                drop(engine);
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(WAKE_EVERY) => (),
                }
            }
        });
    }
}

impl Inner {
    fn new_session(&self, caller: &Caller, new: NewManagedSession) -> Result<NewSession, SessionError> {
        let now = self.now();
        let mut life = Life::new();
        life.check(&new.initial_events).map_err(SessionError::Invalid)?;
        let rules = Rules {
            tools: worker::tools(&new.definition).as_ref().clone(),
            approval_ttl: self.config.sessions.approval_ttl,
            budget: new.definition.budget,
        };
        let mut random = crate::random_bits;
        let mut context = Context { now, rules: &rules, random: &mut random };
        let output = life.step(Input::Posted(new.initial_events), &mut context);
        let events = output.rows.into_iter().map(|row| NewEvent {
            id: row.id,
            request_id: life.active_turn().cloned(),
            kind: row.kind.to_owned(),
            payload: row.payload,
            at: now,
        });
        let events: Vec<NewEvent> = events.collect();
        // The session is made idle and nobody's, and taken by its actor at once: it has something to do.
        let wake_at = life.wake_at(now);
        let state = serde_json::to_value(&life).expect("the state has string keys only");
        let definition: Definition = new.definition;
        Ok(NewSession {
            id: new.id,
            org_id: caller.org_id.clone(),
            user_id: new.user,
            created_at: now,
            managed: Some(NewManaged {
                agent_id: new.agent_id,
                agent_version: new.agent_version,
                environment_id: new.environment_id,
                definition: serde_json::to_value(&definition).expect("a definition has string keys only"),
                state,
                events,
                wake_at,
            }),
        })
    }

    /// A session that cannot be deleted as a managed one: a run of it is under way, or it has gone meanwhile.
    async fn must_be_gone(&self, org: &OrgId, id: &SessionId) -> Result<(), SessionError> {
        match self.store.session(org, id).await.map_err(SessionError::Store)? {
            Some(_) => Err(user_is_busy(id)),
            None => Ok(()),
        }
    }

    /// Removes what lies on the disk for a session that is deleted, and ends its followers.
    pub(crate) async fn bury(&self, id: &SessionId) {
        self.feeds.of(id, 0).end();
        let folder = self.folder.session_root(id);
        // It does not follow links.
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(session_id = %id, %error, "the folders of a deleted session could not be removed");
        }
    }

    /// The session, if it is the caller's.
    async fn find(&self, caller: &Caller, id: &SessionId) -> Result<SessionRecord, SessionError> {
        let found = self.store.session(&caller.org_id, id).await.map_err(SessionError::Store)?;
        let own = |session: &SessionRecord| {
            session.managed.is_some() && (caller.user_id.is_none() || session.user_id == caller.user_id)
        };
        found.filter(own).ok_or(SessionError::NotFound)
    }

    async fn views(
        &self,
        org: &OrgId,
        records: Vec<SessionRecord>,
    ) -> Result<Vec<SessionView>, SessionError> {
        let ids: Vec<SessionId> = records.iter().map(|record| record.id.clone()).collect();
        let used = if ids.is_empty() { Vec::new() } else { self.usage_of(org, &ids).await? };
        let used: HashMap<SessionId, SessionUsage> = used.into_iter().collect();
        let mut views = Vec::with_capacity(records.len());
        for record in records {
            let usage = used.get(&record.id).copied().unwrap_or_default();
            // Not asked of the session's actor, which may be busy.
            let position = self.slots.position(&record.id);
            views.push(view(record, usage, position)?);
        }
        Ok(views)
    }

    async fn usage_of(
        &self,
        org: &OrgId,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionUsage)>, SessionError> {
        let used = self.store.session_usage(org, ids).await.map_err(SessionError::Store)?;
        let sum = |(id, row): (SessionId, wardian_store::UsageRow)| {
            (id, SessionUsage { tokens: row.tokens, cost: row.cost, active: Duration::ZERO })
        };
        Ok(used.into_iter().map(sum).collect())
    }

    /// Asks a session's actor; makes one where there is none.
    async fn ask<T>(
        self: &Arc<Self>,
        caller: &Caller,
        id: &SessionId,
        message: impl Fn(oneshot::Sender<Result<T, SessionError>>) -> Message,
    ) -> Result<T, SessionError> {
        self.find(caller, id).await?;
        // An actor may come to rest while it is being asked; the next one then takes the question.
        for _ in 0..3 {
            let (reply, answer) = oneshot::channel();
            let mut question = Some(message(reply));
            let mailbox = self.mailbox(&caller.org_id, id, &mut question).await?;
            if let Some(question) = question
                && mailbox.send(question).await.is_err()
            {
                self.actors.forget(id, &mailbox);
                continue;
            }
            match answer.await {
                Ok(Err(SessionError::Stopping)) if !self.stopping.is_cancelled() => {
                    self.actors.forget(id, &mailbox);
                }
                Ok(answer) => return answer,
                Err(_) => self.actors.forget(id, &mailbox),
            }
        }
        Err(if self.stopping.is_cancelled() { SessionError::Stopping } else { SessionError::Internal })
    }

    /// The mailbox of the session's actor. One is made if there is none: it begins with `first` in its mailbox, or it
    /// would come to rest before it could be asked.
    async fn mailbox(
        self: &Arc<Self>,
        org: &OrgId,
        id: &SessionId,
        first: &mut Option<Message>,
    ) -> Result<mpsc::Sender<Message>, SessionError> {
        if let Some(mailbox) = self.actors.living(id) {
            return Ok(mailbox);
        }
        let _making = self.actors.making.lock().await;
        if let Some(mailbox) = self.actors.living(id) {
            return Ok(mailbox);
        }
        if self.stopping.is_cancelled() {
            return Err(SessionError::Stopping);
        }
        let leased = self.store.lease_session(org, id, &self.config.owner, self.now()).await;
        let (fence, record) = match leased.map_err(SessionError::Store)? {
            Lease::Taken { fence, record } => (fence, record),
            Lease::Held => return Err(SessionError::Elsewhere),
            Lease::Missing => return Err(SessionError::NotFound),
        };
        let actor = Actor::new(Arc::clone(self), record, fence).await?;
        let (mailbox, messages) = mpsc::channel(MAILBOX);
        if let Some(first) = first.take() {
            mailbox.try_send(first).expect("an empty mailbox has room");
        }
        self.actors.lock().insert(id.clone(), mailbox.clone());
        let (inner, own_id) = (Arc::clone(self), id.clone());
        let own_mailbox = mailbox.downgrade();
        let span = tracing::info_span!("session", session_id = %id);
        self.tasks.spawn(
            async move {
                actor.run(messages).await;
                inner.actors.remove_dead(&own_id, &own_mailbox);
            }
            .instrument(span),
        );
        Ok(mailbox)
    }

    async fn wake(self: &Arc<Self>, org: &OrgId, id: &SessionId) {
        if let Err(error) = self.mailbox(org, id, &mut None).await {
            tracing::warn!(session_id = %id, error = describe(&error), "a session with something to do was not woken");
        }
    }

    async fn wake_due(self: &Arc<Self>) {
        match self.store.due_sessions(self.now(), WAKE_PAGE).await {
            Ok(due) => {
                for session in due {
                    if self.actors.living(&session.session_id).is_none() && !self.stopping.is_cancelled() {
                        self.wake(&session.org_id, &session.session_id).await;
                    }
                }
            }
            Err(error) => {
                tracing::error!(
                    error = describe(&error),
                    "sessions with something to do could not be looked for"
                );
            }
        }
    }

    /// A session came to have nothing to do; where too many sandboxes are kept so, the one that has waited longest goes.
    pub(crate) fn cool_others(&self, id: &SessionId, is_warm: bool) {
        let coldest = {
            let mut warm = self.actors.warm.lock().unwrap_or_else(PoisonError::into_inner);
            warm.retain(|other| other != id);
            if is_warm {
                warm.push_back(id.clone());
            }
            let is_over = warm.len() > self.config.sessions.warm_sandboxes;
            if is_over { warm.pop_front() } else { None }
        };
        if let Some(coldest) = coldest
            && let Some(mailbox) = self.actors.living(&coldest)
        {
            // A mailbox that is full belongs to a session that has something to do.
            let _busy = mailbox.try_send(Message::Cool);
        }
    }
}

impl Actors {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, mpsc::Sender<Message>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self, id: &SessionId) -> Option<mpsc::Sender<Message>> {
        self.lock().get(id).filter(|mailbox| !mailbox.is_closed()).cloned()
    }

    fn forget(&self, id: &SessionId, mailbox: &mpsc::Sender<Message>) {
        let mut mailboxes = self.lock();
        if mailboxes.get(id).is_some_and(|own| own.same_channel(mailbox)) {
            mailboxes.remove(id);
        }
    }

    fn remove_dead(&self, id: &SessionId, mailbox: &mpsc::WeakSender<Message>) {
        if let Some(mailbox) = mailbox.upgrade() {
            self.forget(id, &mailbox);
        }
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != id);
    }
}

fn user_is_busy(id: &SessionId) -> SessionError {
    SessionError::Conflict(format!(
        "session {id} of this user is running: interrupt it or wait for its end, then ask again; some of what the user had \
         may be gone already"
    ))
}

fn view(
    record: SessionRecord,
    mut usage: SessionUsage,
    queue_position: Option<usize>,
) -> Result<SessionView, SessionError> {
    let managed = record.managed.ok_or(SessionError::Internal)?;
    let unreadable = |error: serde_json::Error| {
        tracing::error!(session_id = %record.id, %error, "what is stored of a session cannot be read");
        SessionError::Internal
    };
    let definition: Definition = serde_json::from_value(managed.definition).map_err(unreadable)?;
    let life: Life = serde_json::from_value(managed.state).map_err(unreadable)?;
    usage.active = Duration::from_millis(life.usage().active_ms);
    Ok(SessionView {
        id: record.id,
        org_id: record.org_id,
        user: record.user_id,
        status: life.status(),
        agent_id: managed.agent_id,
        agent_version: managed.agent_version,
        environment_id: managed.environment_id,
        definition,
        usage,
        last_seq: record.last_seq,
        queue_position,
        created_at: record.created_at,
        updated_at: record.updated_at,
        archived_at: managed.archived_at,
    })
}
