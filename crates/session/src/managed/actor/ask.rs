//! What is asked of a session by its clients.

use serde_json::{Value, json};
use wardian_protocol::EventId;
use wardian_store::SessionStatus;

use super::commit::news;
use super::{Actor, End};
use crate::error::FieldError;
use crate::life::{Input, Usage};
use crate::managed::{Definition, SessionError, SessionUpdate, UserEvent, files, worker};

impl Actor {
    pub(super) async fn post(
        &mut self,
        events: Vec<(EventId, UserEvent)>,
    ) -> Result<Vec<Value>, SessionError> {
        if self.archived_at.is_some() {
            return Err(SessionError::Conflict("it is archived".to_owned()));
        }
        if self.life.status() == SessionStatus::Terminated {
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
    pub(super) async fn known(
        &self,
        events: &[(EventId, UserEvent)],
    ) -> Result<Option<Vec<Value>>, SessionError> {
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

    pub(super) async fn update(&mut self, update: SessionUpdate) -> Result<(), SessionError> {
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
            agent.set_limit(self.money().limit);
            if before.resources != self.definition.resources {
                let (org, id) = (&self.record.org_id, &self.record.id);
                // The next sandbox tries again, and says why the turn cannot be.
                if let Err(error) = files::bring(&self.engine, org, id, &self.definition).await {
                    tracing::warn!(session_id = %id, %error, "a session does not see its files");
                }
            }
            // Its tools and rules are those that it was started with; the next message starts one with the new.
            if before.agent["tools"] != self.definition.agent["tools"] {
                self.take(vec![Input::AgentStale]).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn archive(&mut self) -> Result<(), SessionError> {
        self.must_rest()?;
        if self.archived_at.is_none() {
            self.archived_at = Some(self.engine.now());
            self.commit(Vec::new(), Vec::new(), true).await?;
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self) -> Result<(), SessionError> {
        self.must_rest()?;
        self.end_agent().await;
        let (org, id) = (&self.record.org_id, &self.record.id);
        self.engine.store.delete_session(org, id, self.fence).await.map_err(SessionError::Store)?;
        let event = self.row("session.deleted", json!({}));
        self.record.last_seq += 1;
        self.feed.publish(vec![news(self.record.last_seq, event.kind.as_str(), &event.payload)]);
        self.closed = Some(End::Deleted);
        self.engine.bury(id).await;
        Ok(())
    }

    fn must_rest(&self) -> Result<(), SessionError> {
        match self.life.active_turn() {
            None if self.life.queued() == 0 => Ok(()),
            _ => Err(SessionError::Conflict("it is running; interrupt it first".to_owned())),
        }
    }
}

/// Applies an update; returns the fields of the event that says so.
fn apply(
    definition: &mut Definition,
    update: SessionUpdate,
    usage: &Usage,
    status: SessionStatus,
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
        if status != SessionStatus::Idle {
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
