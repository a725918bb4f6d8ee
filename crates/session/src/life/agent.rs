//! What an agent says, and what comes of it.

use serde_json::{Value, json};
use wardian_protocol::control::PermissionAnswer;
use wardian_protocol::{EventId, JsonMap, RequestId};
use wardian_store::SessionStatus;

use super::event;
use super::{
    Answer, CallKind, Command, Context, Fact, Life, MAX_FAILURES, MAX_OPEN_CALLS, MAX_TURN_BYTES,
    MAX_TURN_ROWS, OpenCall, Output, Process, Question, Row, Spent, Stop, Wait,
};
use crate::managed::Confirmation;
use crate::tools::{self, Judgement, ToolKind};

const EXPIRED: &str = "Nobody confirmed this call in time, so it was denied.";
/// How an agent says that it has no transcript to go on from. source: the agent protocol reference, section 2.7.
const NO_CONVERSATION: &str = "No conversation found";
const DENIED: &str = "The user denied this call.";

impl Life {
    pub(super) fn hear(&mut self, fact: Fact, context: &mut Context<'_>, output: &mut Output) {
        // What an agent says between turns means nothing.
        if self.turn.is_none() || self.process.stop.is_some() {
            return;
        }
        match fact {
            Fact::Began => self.began(context, output),
            Fact::Text { id, text } => {
                let fields = json!({"content": [{"type": "text", "text": text}]});
                self.say(id, "agent.message", fields, text.len(), context, output);
            }
            Fact::Thinking { id } => self.say(id, "agent.thinking", json!({}), 0, context, output),
            Fact::Call { call, name, input } => self.call(call, &name, &input, context, output),
            Fact::Outcome { call, content, is_error } => {
                self.outcome(&call, content, is_error, context, output);
            }
            Fact::Asked { request_id, call, input } => {
                self.asked(request_id, call, &input, CallKind::Toolset, output);
            }
            Fact::CustomCalled { request_id, call, input } => {
                self.asked(request_id, call, &input, CallKind::Custom, output);
            }
            Fact::Withdrawn { request_id } => {
                self.process.questions.retain(|_, question| question.request_id != request_id);
            }
            Fact::Retrying { is_rate_limit } => {
                let (kind, message) = if is_rate_limit {
                    ("model_rate_limited_error", "the model request was rate-limited; it is tried again")
                } else {
                    ("model_overloaded_error", "the model did not answer well; the request is tried again")
                };
                if self.may_say(0) {
                    output.error(kind, message, "retrying", context);
                }
            }
            Fact::Compacted => {
                if self.may_say(0) {
                    output.event("agent.thread_context_compacted", json!({}), context);
                }
            }
            Fact::Ended(Stop::Failed { message, .. })
                if !self.process.has_begun && message.starts_with(NO_CONVERSATION) =>
            {
                self.conversation_is_gone(context, output);
            }
            Fact::Ended(stop) => self.process.stop = Some(stop),
        }
    }

    /// The agent has taken the message, or gone on with the turn.
    fn began(&mut self, context: &mut Context<'_>, output: &mut Output) {
        let Some(turn) = &mut self.turn else { return };
        self.process.has_begun = true;
        if !turn.begun {
            turn.begun = true;
            output.taken = Some(turn.message.clone());
        }
        self.become_running(context, output);
    }

    /// The transcript was never written, or the agent removed it: the turn begins again, in a new conversation.
    fn conversation_is_gone(&mut self, context: &mut Context<'_>, output: &mut Output) {
        self.has_transcript = false;
        self.last_frame = None;
        self.process.is_spent = true;
        self.process.is_told = false;
        self.drop_calls(context, output);
    }

    /// Whether the turn has not yet stored its share.
    pub(super) fn may_keep(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.rows < MAX_TURN_ROWS && turn.bytes < MAX_TURN_BYTES)
    }

    /// Whether the turn may store another row of so many bytes; else it is counted and dropped. Also for lines of the raw
    /// log: an agent that floods is not written down for ever, at the cost of everybody's disk.
    pub fn may_say(&mut self, bytes: usize) -> bool {
        let may_keep = self.may_keep();
        let Some(turn) = &mut self.turn else { return false };
        if !may_keep {
            turn.dropped = turn.dropped.saturating_add(1);
            return false;
        }
        turn.rows += 1;
        turn.bytes = turn.bytes.saturating_add(bytes as u64);
        true
    }

    fn say(
        &mut self,
        id: EventId,
        kind: &'static str,
        fields: Value,
        bytes: usize,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        if self.may_say(bytes) {
            output.rows.push(Row::processed(id, kind, context.now, fields));
        }
    }

    fn call(
        &mut self,
        call: String,
        name: &str,
        input: &Value,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        if self.calls.contains_key(&call)
            || self.calls.len() >= MAX_OPEN_CALLS
            || call.len() > tools::MAX_CALL_ID_BYTES
            || !self.may_say(input.to_string().len())
        {
            return;
        }
        let event_id = context.event_id();
        let input_sha256 = tools::digest(input);
        let waits = |context: &Context<'_>| {
            let ttl = jiff::SignedDuration::try_from(context.rules.approval_ttl).unwrap_or_default();
            let expires_at = context.now.saturating_add(ttl).unwrap_or(jiff::Timestamp::MAX);
            Some(Wait { expires_at, answer: None })
        };
        let (kind, wait, allowed) = match context.rules.tools.judge(name, input) {
            ToolKind::Custom { name } => {
                let fields = json!({"name": name, "input": input});
                let row = Row::processed(event_id.clone(), "agent.custom_tool_use", context.now, fields);
                output.rows.push(row);
                (CallKind::Custom, waits(context), false)
            }
            ToolKind::Toolset { name, input, judgement } => {
                let mut fields = json!({
                    "name": name, "input": input, "evaluated_permission": judgement.as_str(),
                });
                if let Some(evaluation) = judgement.evaluation() {
                    fields["evaluation"] = evaluation;
                }
                let row = Row::processed(event_id.clone(), "agent.tool_use", context.now, fields);
                output.rows.push(row);
                match judgement {
                    Judgement::AlwaysAllow => (CallKind::Toolset, None, true),
                    Judgement::AlwaysAsk | Judgement::AutoAsk => (CallKind::Toolset, waits(context), false),
                    Judgement::AutoAllow | Judgement::AutoDeny | Judgement::NotEnabled => {
                        (CallKind::Toolset, None, false)
                    }
                }
            }
        };
        self.calls.insert(call, OpenCall { event_id, kind, input_sha256, wait, allowed });
    }

    fn outcome(
        &mut self,
        call: &str,
        content: Value,
        is_error: bool,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        let Some(open) = self.calls.remove(call) else { return };
        self.process.questions.remove(call);
        // The client brought the result of a custom tool itself.
        if open.kind == CallKind::Toolset && self.may_say(content.to_string().len()) {
            let fields = json!({
                "tool_use_id": open.event_id, "content": event::content(content), "is_error": is_error,
            });
            output.event("agent.tool_result", fields, context);
        }
    }

    /// A question about a call: it must be one that was seen, with the input that was seen, and is answered once.
    fn asked(
        &mut self,
        request_id: String,
        call: String,
        input: &Value,
        kind: CallKind,
        output: &mut Output,
    ) {
        let input_sha256 = tools::digest(input);
        let question = Question { request_id, input_sha256 };
        let is_known = self.calls.get(&call).is_some_and(|open| open.kind == kind);
        if !is_known || self.process.questions.contains_key(&call) || self.process.answered.contains(&call) {
            return refuse(question, kind, "this call is not known, or was answered before", output);
        }
        self.process.questions.insert(call, question);
        self.give_answers(output);
    }

    /// Gives the agent every answer that there is for its questions.
    pub(super) fn give_answers(&mut self, output: &mut Output) {
        let Process { questions, answered, .. } = &mut self.process;
        questions.retain(|call, question| {
            let Some(open) = self.calls.get(call) else { return false };
            let reply = match (&open.wait, open.allowed) {
                _ if open.input_sha256 != question.input_sha256 => {
                    Err("the input is another than the one that was shown")
                }
                (None, true) => Ok(allow()),
                (None, false) => Err("the permission policy of this session does not allow this call"),
                (Some(Wait { answer: None, .. }), _) => return true,
                (Some(Wait { answer: Some(answer), .. }), _) => Ok(match answer {
                    Answer::Confirmed(Confirmation::Allow) => allow(),
                    Answer::Confirmed(Confirmation::Deny { message }) => {
                        deny(message.as_deref().unwrap_or(DENIED))
                    }
                    Answer::Expired if open.kind == CallKind::Toolset => deny(EXPIRED),
                    Answer::Expired | Answer::Result { .. } => {
                        let event_id = match answer {
                            Answer::Result { event_id } => Some(event_id.clone()),
                            Answer::Expired | Answer::Confirmed(_) => None,
                        };
                        let request_id = question.request_id.clone();
                        output.commands.push(Command::AnswerCustom { request_id, event_id });
                        answered.insert(call.clone());
                        return false;
                    }
                }),
            };
            match reply {
                Ok(answer) => {
                    let request_id = question.request_id.clone();
                    output.commands.push(Command::Answer { request_id, answer });
                }
                Err(why) => refuse(question.clone(), open.kind, why, output),
            }
            answered.insert(call.clone());
            false
        });
    }

    pub(super) fn request_started(&mut self, id: RequestId, context: &mut Context<'_>, output: &mut Output) {
        // What was refused before was asked again with less.
        if let Some(turn) = &mut self.turn {
            turn.budget_refused = false;
        }
        let event_id = context.event_id();
        output.rows.push(Row::processed(
            event_id.clone(),
            "span.model_request_start",
            context.now,
            json!({}),
        ));
        self.spans.insert(id, event_id);
    }

    pub(super) fn request_ended(
        &mut self,
        id: &RequestId,
        is_error: bool,
        spent: &Spent,
        context: &mut Context<'_>,
        output: &mut Output,
    ) {
        self.usage.tokens = self.usage.tokens.plus(spent.tokens);
        self.usage.cost_nano = self.usage.cost_nano.saturating_add(spent.cost.0);
        if let Some(started) = self.spans.remove(id) {
            end_span(&started, is_error, spent, context, output);
        }
    }

    /// Ends the spans of requests that nobody will hear of again.
    pub(super) fn close_spans(&mut self, context: &mut Context<'_>, output: &mut Output) {
        for (_, started) in std::mem::take(&mut self.spans) {
            end_span(&started, true, &Spent::default(), context, output);
        }
    }

    /// Tried again for as long as it takes: it is nothing that the session did.
    pub(super) fn agent_not_started(&mut self, why: &str, context: &mut Context<'_>, output: &mut Output) {
        let is_news = !std::mem::replace(&mut self.process.is_failing, true);
        if self.has_work() && is_news {
            output.error("unknown_error", why, "retrying", context);
            self.reschedule(context, output);
        }
    }

    pub(super) fn agent_ended(&mut self, why: &str, context: &mut Context<'_>, output: &mut Output) {
        let next = self.process.without_agent();
        let was = std::mem::replace(&mut self.process, next);
        self.close_spans(context, output);
        // A result that was heard counts, whatever became of the process after it.
        if let Some(stop) = was.stop {
            self.process.stop = Some(stop);
            return;
        }
        let Some(turn) = &mut self.turn else { return };
        // Nothing is lost with an agent that only waited.
        if was.is_stopping || turn.parked || self.status == SessionStatus::Idle {
            return;
        }
        if turn.interrupted {
            return self.end_turn("end_turn", Value::Null, context, output);
        }
        self.failures += 1;
        if self.failures >= MAX_FAILURES {
            let message = format!("the agent ended {MAX_FAILURES} times without a result: {why}");
            output.error("unknown_error", &message, "terminal", context);
            self.drop_turn(context, output);
            output.ended = Some(("terminated", true));
            self.queue.clear();
            self.stop_clock(context);
            self.status = SessionStatus::Terminated;
            output.event("session.status_terminated", json!({}), context);
        } else {
            output.error("unknown_error", why, "retrying", context);
            self.reschedule(context, output);
        }
    }
}

fn end_span(
    started: &EventId,
    is_error: bool,
    spent: &Spent,
    context: &mut Context<'_>,
    output: &mut Output,
) {
    let tokens = &spent.tokens;
    let written = tokens.cache_write_5m_tokens.saturating_add(tokens.cache_write_1h_tokens);
    let fields = json!({
        "model_request_start_id": started, "is_error": is_error,
        "model_usage": {
            "input_tokens": tokens.input_tokens, "output_tokens": tokens.output_tokens,
            "cache_read_input_tokens": tokens.cache_read_tokens, "cache_creation_input_tokens": written,
        },
    });
    output.event("span.model_request_end", fields, context);
}

fn allow() -> PermissionAnswer {
    PermissionAnswer::Allow { updated_input: None, extra: JsonMap::new() }
}

fn deny(message: &str) -> PermissionAnswer {
    PermissionAnswer::Deny { message: message.to_owned(), interrupt: false, extra: JsonMap::new() }
}

fn refuse(question: Question, kind: CallKind, why: &str, output: &mut Output) {
    let request_id = question.request_id;
    output.commands.push(match kind {
        CallKind::Toolset => Command::Answer { request_id, answer: deny(why) },
        CallKind::Custom => Command::AnswerCustom { request_id, event_id: None },
    });
}
