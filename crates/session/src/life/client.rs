//! What a client may say to a session, and what comes of it.

use serde_json::{Value, json};
use wardian_protocol::EventId;
use wardian_store::{MAX_APPEND_BYTES, MAX_EVENT_BYTES, SessionStatus};

use super::{Answer, CallKind, Context, Life, MAX_QUEUED, OpenCall, Output, Row, Wait, event};
use crate::error::FieldError;
use crate::managed::{Confirmation, UserEvent};

/// Beside the contents, for ids, times and confirmations of a whole request.
const ROOM_BYTES: usize = 2 << 20;
/// The largest content of one event that a client posts, as JSON: it fits a row of the log, with what stands beside it.
pub const MAX_POSTED_BYTES: usize = MAX_EVENT_BYTES - (64 << 10);

impl Life {
    /// Whether the session can take these events now; every one that it cannot is named.
    ///
    /// # Errors
    /// One [`FieldError`] for each event that means nothing here.
    pub fn check(&self, events: &[(EventId, UserEvent)]) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut queued = self.queue.len();
        let mut answered: Vec<&EventId> = Vec::new();
        let mut bytes = 0usize;
        for (index, (_, event)) in events.iter().enumerate() {
            let (size, rows) = size_of(event);
            bytes = bytes.saturating_add(size.saturating_mul(rows));
            if size > MAX_POSTED_BYTES {
                let message = format!("{size} bytes as JSON; the limit of one event is {MAX_POSTED_BYTES}");
                errors.push(FieldError::new(format!("events[{index}].content"), message));
            }
            let mut wrong = |field: &str, message: &str| {
                errors.push(FieldError::new(format!("events[{index}].{field}"), message));
            };
            match event {
                UserEvent::Interrupt => (),
                UserEvent::Message { .. } => {
                    queued += 1;
                    if queued > MAX_QUEUED {
                        wrong("type", "as many messages wait in this session as may; wait for it to be idle");
                    }
                }
                UserEvent::ToolConfirmation { tool_use_id, .. } => {
                    if !self.waits_for(tool_use_id, CallKind::Toolset) || answered.contains(&tool_use_id) {
                        wrong("tool_use_id", "no tool call with this id waits for a confirmation");
                    }
                    answered.push(tool_use_id);
                }
                UserEvent::CustomToolResult { custom_tool_use_id: id, .. } => {
                    if !self.waits_for(id, CallKind::Custom) || answered.contains(&id) {
                        wrong("custom_tool_use_id", "no custom tool call with this id waits for a result");
                    }
                    answered.push(id);
                }
            }
        }
        if bytes > MAX_APPEND_BYTES - ROOM_BYTES {
            let message = format!("{bytes} bytes to write for one request; send fewer events at a time");
            errors.push(FieldError::new("events", message));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn waits_for(&self, id: &EventId, kind: CallKind) -> bool {
        self.status != SessionStatus::Terminated
            && self.calls.values().any(|call| {
                call.event_id == *id
                    && call.kind == kind
                    && call.wait.as_ref().is_some_and(|wait| wait.answer.is_none())
            })
    }

    pub(super) fn post(
        &mut self,
        events: Vec<(EventId, UserEvent)>,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        for (id, event) in events {
            let (kind, fields) = rendered(&event);
            output.rows.push(Row::accepted(id.clone(), kind, fields.clone()));
            match event {
                // The agent takes it later; the row that says so comes then.
                UserEvent::Message { .. } => self.queue.push_back(id),
                UserEvent::Interrupt => {
                    output.rows.push(Row::processed(id, kind, context.now, fields));
                    self.interrupt(context, output);
                }
                UserEvent::ToolConfirmation { tool_use_id, result } => {
                    output.rows.push(Row::processed(id, kind, context.now, fields));
                    self.answer(&tool_use_id, Answer::Confirmed(result), context, output);
                }
                UserEvent::CustomToolResult { custom_tool_use_id, .. } => {
                    output.rows.push(Row::processed(id.clone(), kind, context.now, fields));
                    let answer = Answer::Result { event_id: id };
                    self.answer(&custom_tool_use_id, answer, context, output);
                }
            }
        }
    }

    /// Notes the answer; it is given to the agent when the agent asks, or now if it has asked.
    pub(super) fn answer(
        &mut self,
        id: &EventId,
        answer: Answer,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        let waiting = |call: &&mut OpenCall| call.event_id == *id;
        let Some(call) = self.calls.values_mut().find(waiting) else { return };
        let Some(wait @ Wait { answer: None, .. }) = &mut call.wait else { return };
        wait.answer = Some(answer);
        self.become_running(context, output);
        self.give_answers(output);
    }

    /// A message that waits is forgotten where no turn runs yet; a turn is told to stop.
    fn interrupt(&mut self, context: &mut Context<'_>, output: &mut Output) {
        match &mut self.turn {
            None => {
                if !self.queue.is_empty() {
                    self.queue.clear();
                    self.become_idle(&json!({"type": "end_turn"}), Value::Null, context, output);
                }
            }
            Some(turn) if turn.parked => self.end_turn("end_turn", Value::Null, context, output),
            Some(turn) => turn.interrupted = true,
        }
    }
}

/// How large an event's content is as JSON, and in how many rows it is written at once: what was not refused before the
/// state changed must not fail to be stored.
fn size_of(event: &UserEvent) -> (usize, usize) {
    let content = |content: &[Value]| content.iter().map(|block| block.to_string().len() + 1).sum();
    match event {
        UserEvent::Message { content: blocks } => (content(blocks), 1),
        UserEvent::CustomToolResult { content: blocks, .. } => (content(blocks), 2),
        UserEvent::Interrupt | UserEvent::ToolConfirmation { .. } => (0, 0),
    }
}

/// The event as it stands in the log, without its id and time.
fn rendered(event: &UserEvent) -> (&'static str, Value) {
    match event {
        UserEvent::Message { content } => ("user.message", json!({"content": content})),
        UserEvent::Interrupt => ("user.interrupt", json!({})),
        UserEvent::ToolConfirmation { tool_use_id, result } => {
            let mut fields = json!({"tool_use_id": tool_use_id});
            match result {
                Confirmation::Allow => fields["result"] = "allow".into(),
                Confirmation::Deny { message } => {
                    fields["result"] = "deny".into();
                    fields["deny_message"] = json!(message);
                }
            }
            ("user.tool_confirmation", fields)
        }
        UserEvent::CustomToolResult { custom_tool_use_id, content, is_error } => {
            let content = event::content(Value::Array(content.clone()));
            let fields =
                json!({"custom_tool_use_id": custom_tool_use_id, "content": content, "is_error": is_error});
            ("user.custom_tool_result", fields)
        }
    }
}
