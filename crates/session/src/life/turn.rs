//! Turns: how they begin, wait, and end.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wardian_protocol::{EventId, RequestId};
use wardian_store::SessionStatus;

use super::{Answer, Context, Life, OpenCall, Output, Stop, Turn, Usage, event};

impl Life {
    /// Makes the next message a turn, if there is none. It may still have to wait in line.
    pub(super) fn begin_turn(&mut self, context: &mut Context<'_>) {
        let may_begin = self.status != SessionStatus::Terminated && !self.process.is_draining;
        if self.turn.is_some() || !may_begin {
            return;
        }
        let Some(message) = self.queue.pop_front() else { return };
        self.turn = Some(Turn {
            id: RequestId::from_random((context.random)()),
            message,
            started_at: context.now,
            begun: false,
            interrupted: false,
            parked: false,
            is_announced: false,
            budget_refused: false,
            rows: 0,
            bytes: 0,
            dropped: 0,
        });
        self.process.is_told = false;
        self.process.is_interrupted = false;
        self.process.is_stale = false;
        self.process.answered.clear();
        self.status = SessionStatus::Running;
    }

    /// What follows from where things stand: the turn's end, or that it waits for its client.
    pub(super) fn settle(&mut self, context: &mut Context<'_>, output: &mut Output) {
        let Some(turn) = &mut self.turn else { return };
        // A new message takes the place of a turn that waits for money.
        if turn.parked && !self.queue.is_empty() {
            self.drop_turn(context, output);
            return;
        }
        if !self.spans.is_empty() {
            return;
        }
        if let Some(stop) = self.process.stop.take() {
            return self.turn_ended(stop, context, output);
        }
        if turn.interrupted && !self.process.is_up {
            // Nobody is there to be told.
            return self.end_turn("end_turn", Value::Null, context, output);
        }
        if self.is_blocked() && !self.turn.as_ref().is_some_and(|turn| turn.interrupted) {
            let ids: BTreeSet<EventId> = self.waiting().map(|(_, call)| call.event_id.clone()).collect();
            if self.announced != ids {
                let stop_reason = json!({"type": "requires_action", "event_ids": ids});
                self.announced = ids;
                self.become_idle(&stop_reason, Value::Null, context, output);
            }
        }
    }

    fn turn_ended(&mut self, stop: Stop, context: &mut Context<'_>, output: &mut Output) {
        let Some(turn) = &mut self.turn else { return };
        self.failures = 0;
        let failed = matches!(stop, Stop::Failed { .. } | Stop::Budget);
        if turn.interrupted {
            return self.end_turn("end_turn", Value::Null, context, output);
        }
        if failed && turn.budget_refused || stop == Stop::Budget {
            turn.parked = true;
            turn.budget_refused = false;
            self.process.is_spent = true;
            // A turn that has ended has no calls that wait; an agent that says otherwise does not wake it.
            self.drop_calls(context, output);
            output.event("session.usage", event::usage(&self.usage, context.rules), context);
            return self.become_idle(&json!({"type": "budget_reached"}), Value::Null, context, output);
        }
        match stop {
            Stop::EndTurn | Stop::Budget => self.end_turn("end_turn", Value::Null, context, output),
            Stop::Refusal { explanation } => {
                let details = json!({"type": "refusal", "category": null, "explanation": explanation});
                self.end_turn("refusal", details, context, output);
            }
            Stop::MaxTurns => {
                let message = "the turn reached its limit of rounds between model and tools";
                output.error("tool_use_limit_reached_error", message, "exhausted", context);
                self.end_turn("retries_exhausted", Value::Null, context, output);
            }
            Stop::Failed { status, message } => {
                let kind = match status {
                    Some(429) => "model_rate_limited_error",
                    Some(503 | 529) => "model_overloaded_error",
                    Some(402) => "billing_error",
                    Some(_) => "model_request_failed_error",
                    None => "unknown_error",
                };
                output.error(kind, &message, "exhausted", context);
                // source: the API's `retry_status: exhausted`: queued inputs are flushed.
                self.queue.clear();
                self.end_turn("retries_exhausted", Value::Null, context, output);
            }
        }
    }

    /// Ends the turn; the session is idle unless another message waits.
    pub(super) fn end_turn(
        &mut self,
        stop_reason: &'static str,
        details: Value,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        self.drop_turn(context, output);
        output.ended.get_or_insert((stop_reason, stop_reason == "retries_exhausted"));
        output.event("session.usage", event::usage(&self.usage, context.rules), context);
        if self.queue.is_empty() || stop_reason != "end_turn" {
            self.become_idle(&json!({"type": stop_reason}), details, context, output);
        } else {
            self.stop_clock(context);
            self.status = SessionStatus::Idle;
        }
    }

    /// Forgets the turn. Calls without a result have one in the log: that they were interrupted.
    pub(super) fn drop_turn(&mut self, context: &mut Context<'_>, output: &mut Output) {
        self.turn = None;
        self.process.is_spent = false;
        self.announced.clear();
        self.process.stop = None;
        self.process.is_told = false;
        self.drop_calls(context, output);
    }

    /// Ends the calls that have no result.
    pub(super) fn drop_calls(&mut self, context: &mut Context<'_>, output: &mut Output) {
        for call in std::mem::take(&mut self.calls).into_values() {
            let OpenCall { event_id, kind: super::CallKind::Toolset, .. } = call else { continue };
            let text = "The call was interrupted.";
            let content = json!([{"type": "text", "text": text}]);
            let fields = json!({"tool_use_id": event_id, "content": content, "is_error": true});
            output.event("agent.tool_result", fields, context);
        }
    }

    pub(super) fn become_running(&mut self, context: &mut Context<'_>, output: &mut Output) {
        self.announced.clear();
        // A turn is running in the store from its beginning; its client is told when the agent has taken it.
        let Some(turn) = &mut self.turn else { return };
        if self.status == SessionStatus::Running && turn.is_announced {
            return;
        }
        turn.is_announced = true;
        self.start_clock(context);
        self.status = SessionStatus::Running;
        output.event("session.status_running", json!({}), context);
    }

    pub(super) fn become_idle(
        &mut self,
        stop_reason: &Value,
        details: Value,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        self.stop_clock(context);
        self.status = SessionStatus::Idle;
        output.event(
            "session.status_idle",
            json!({"stop_reason": stop_reason, "stop_details": details}),
            context,
        );
    }

    /// The turn goes on in another sandbox.
    pub(super) fn reschedule(&mut self, context: &mut Context<'_>, output: &mut Output) {
        self.stop_clock(context);
        self.status = SessionStatus::Rescheduling;
        output.event("session.status_rescheduled", json!({}), context);
    }

    /// Puts right what a process that is gone left: its turn goes on, its requests are over.
    pub(super) fn recover(&mut self, usage: Usage, context: &mut Context<'_>, output: &mut Output) {
        self.usage.tokens = usage.tokens;
        self.usage.cost_nano = usage.cost_nano;
        self.close_spans(context, output);
        let Some(turn) = &self.turn else { return };
        if turn.parked {
            return;
        }
        if turn.interrupted {
            return self.end_turn("end_turn", Value::Null, context, output);
        }
        // One that no agent has begun has only waited, and waits on.
        if self.status == SessionStatus::Running && turn.is_announced && !self.is_blocked() {
            self.reschedule(context, output);
        }
    }

    /// The server stops: a turn under way goes on at its next start.
    pub(super) fn park(&mut self, context: &mut Context<'_>, output: &mut Output) {
        self.close_spans(context, output);
        let is_announced = self.turn.as_ref().is_some_and(|turn| turn.is_announced);
        if is_announced && self.status == SessionStatus::Running {
            self.reschedule(context, output);
        }
    }

    pub(super) fn budget_changed(&mut self) {
        let Some(turn) = self.turn.as_mut().filter(|turn| turn.parked) else { return };
        turn.parked = false;
        turn.is_announced = false;
        self.process.is_told = false;
        self.status = SessionStatus::Running;
    }

    /// The turn has lasted too long.
    pub(super) fn time_up(&mut self, context: &mut Context<'_>, output: &mut Output) {
        let Some(turn) = self.turn.as_mut().filter(|turn| !turn.interrupted && !turn.parked) else { return };
        turn.interrupted = true;
        output.error("unknown_error", "the turn's time is over", "exhausted", context);
    }

    /// Denies what nobody has answered in time.
    pub(super) fn expire(&mut self, context: &mut Context<'_>, output: &mut Output) {
        let is_over = |call: &&OpenCall| {
            call.wait.as_ref().is_some_and(|wait| wait.answer.is_none() && wait.expires_at <= context.now)
        };
        let ids: Vec<EventId> =
            self.calls.values().filter(is_over).map(|call| call.event_id.clone()).collect();
        for id in ids {
            self.answer(&id, Answer::Expired, context, output);
        }
    }

    fn start_clock(&mut self, context: &Context<'_>) {
        self.running_since.get_or_insert(context.now);
    }

    pub(super) fn stop_clock(&mut self, context: &Context<'_>) {
        if let Some(since) = self.running_since.take() {
            // A clock that was set back counts nothing.
            let passed = context.now.duration_since(since).as_millis();
            self.usage.active_ms = self.usage.active_ms.saturating_add(u64::try_from(passed).unwrap_or(0));
        }
    }
}
