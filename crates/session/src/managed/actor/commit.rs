//! Writes: what a step leads to is durable first, then told to those who follow, then done.

use serde_json::{Value, json};
use wardian_protocol::EventId;
use wardian_store::{NewEvent, SessionChange, SessionCommit};

use super::Actor;
use crate::feed;
use crate::life::{Command, Context, Input};
use crate::managed::SessionError;
use crate::translate;

/// Events in one commit.
const MAX_COMMIT_EVENTS: usize = 1000;

impl Actor {
    pub(super) async fn take(&mut self, inputs: Vec<Input>) -> Result<(), SessionError> {
        self.commit(inputs, Vec::new(), false).await.map(|_| ())
    }

    pub(super) async fn take_showing(&mut self, inputs: Vec<Input>) -> Result<Vec<Value>, SessionError> {
        self.commit(inputs, Vec::new(), false).await
    }

    pub(super) async fn commit_raw(
        &mut self,
        inputs: Vec<Input>,
        raw: Vec<String>,
    ) -> Result<(), SessionError> {
        if raw.is_empty() {
            return self.take(inputs).await;
        }
        self.write(inputs, Vec::new(), false, raw).await.map(|_| ())
    }

    pub(super) async fn commit(
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
            if let Some((outcome, failed)) = output.ended
                && let Some((_, watch)) = self.watch.take()
            {
                watch.end(outcome, failed);
            }
        }
        let status = Some(self.life.status());
        self.engine.config.metrics.session_status(std::mem::replace(&mut self.counted, status), status);
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

    pub(super) fn row(&self, kind: &str, fields: Value) -> NewEvent {
        let (id, at) = (EventId::from_random(crate::random_bits()), self.engine.now());
        let mut payload = json!({"id": id, "type": kind});
        if let (Value::Object(payload), Value::Object(fields)) = (&mut payload, fields) {
            payload.extend(fields);
            payload.insert("processed_at".to_owned(), json!(at));
        }
        NewEvent { id, request_id: None, kind: kind.to_owned(), payload, at }
    }
}

pub(super) fn news(seq: u64, kind: &str, payload: &Value) -> feed::News {
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
