//! One turn: a prompt, the model's replies, the tools that they call, the result. What comes next is decided in
//! [`crate::state`]; here it is done.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_protocol::frame::PermissionDenial;
use wardian_protocol::{ContentBlock, MessageParam, Role};

use crate::authorise::lock;
use crate::call::{Called, Partial, Spending, Whole, call_model, hooks_on};
use crate::client::Failure;
use crate::execute::{Past, ToolsEnd, run_tools};
use crate::frames::{PROTOCOL_VERSION, one_block, presentable};
use crate::meter::no_usage;
use crate::request::{Parts, body, without_breakpoints};
use crate::session::Session;
use crate::state::{End, Progress, ReplyFacts, Step};
use crate::transcript::{OpenReply, calls};
use crate::{Message, ResultMessage, UserMessage, random, words};

/// What a turn begins with.
pub(crate) enum Cause {
    Prompt(Box<UserMessage>),
    /// Nothing new: a restart interrupted it.
    Restart,
}

/// A reply to act on.
struct Ahead {
    whole: Box<Whole>,
    /// What its calls came to before a restart.
    past: Past,
    /// It is kept already, and counted.
    is_known: bool,
}

/// What a turn has come to so far.
struct Turn {
    began: Instant,
    progress: Progress,
    spending: Spending,
    denials: Vec<PermissionDenial>,
    /// The text of the last reply: what the turn's result is.
    result: String,
    stop_reason: Option<String>,
    api_error_status: Option<u16>,
}

impl Session {
    /// Takes a turn and gives its messages, from `system/init` to the result.
    pub(crate) async fn turn(&mut self, cause: Cause, stop: &CancellationToken) {
        let mut turn = Turn {
            began: Instant::now(),
            progress: Progress::default(),
            spending: Spending { usage: no_usage(), api_time: Duration::ZERO },
            denials: Vec::new(),
            result: String::new(),
            stop_reason: None,
            api_error_status: None,
        };
        if self.setup.state_events {
            self.setup.out.state("running").await;
        }
        self.setup.out.system("init", self.init_fields()).await;
        let reply = match cause {
            Cause::Restart => self.open.take(),
            Cause::Prompt(prompt) => {
                self.settle().await;
                self.hear_prompt(*prompt).await;
                None
            }
        };
        let mut end = self.drive(&mut turn, reply, stop).await;
        if self.setup.out.lost().is_some() {
            end = End::Unkept;
        }
        self.give_result(turn, end).await;
        if self.setup.state_events {
            self.setup.out.state("idle").await;
        }
    }

    /// `reply`: the one that a restart left open.
    async fn drive(&mut self, turn: &mut Turn, reply: Option<OpenReply>, stop: &CancellationToken) -> End {
        let limits = self.setup.limits;
        let mut ahead = match reply {
            Some(reply) => Some(self.reopen(reply, stop).await),
            None => None,
        };
        loop {
            if self.setup.out.lost().is_some() {
                return End::Unkept;
            }
            let Ahead { whole, past, is_known } = match ahead.take() {
                Some(ahead) => ahead,
                None => {
                    if let Some(end) = limits.before_call(self.spent()) {
                        return end;
                    }
                    match self.call(turn, stop).await {
                        Called::Replied(whole) => Ahead { whole, past: Past::default(), is_known: false },
                        Called::Failed(failure) => return self.api_error(turn, &failure).await,
                        Called::Interrupted(partial) => return self.interrupted(turn, partial).await,
                    }
                }
            };
            match self.take_in(turn, &whole, is_known).await {
                Step::RunTools => {
                    if let Some(end) = self.run_tools(turn, whole, past, stop).await {
                        return end;
                    }
                }
                Step::Continue => self.say(turn, words::GO_ON).await,
                Step::Resume => (),
                Step::End(end) => return self.last_words(turn, end).await,
            }
        }
    }

    async fn call(&mut self, turn: &mut Turn, stop: &CancellationToken) -> Called {
        let Self { setup, history, .. } = self;
        let model = lock(&setup.live).model.clone();
        let write = |max_tokens| {
            body(&Parts {
                model: &model,
                max_tokens,
                system: &setup.system,
                tools: &setup.definitions,
                history,
                thinking: setup.thinking,
                effort: setup.effort.as_deref(),
                session_id: &setup.out.session_id,
            })
        };
        call_model(setup, &mut turn.spending, setup.max_tokens(&model), write, stop).await
    }

    /// Makes the reply that a restart left open one to act on: its hooks run again, for nobody knows what they said.
    async fn reopen(&self, reply: OpenReply, stop: &CancellationToken) -> Ahead {
        let OpenReply { content, stop_reason, answered, started } = reply;
        let past = Past { started, answered };
        let open = content.iter().filter(|block| !past.settles(block));
        let hooks = open.filter_map(|block| hooks_on(&self.setup, block)).collect::<Vec<_>>();
        let verdicts = tokio::select! {
            biased;
            () = stop.cancelled() => HashMap::new(),
            verdicts = join_all(hooks) => verdicts.into_iter().collect(),
        };
        let message = wardian_protocol::Message {
            id: String::new(),
            kind: "message".to_owned(),
            role: Role::Assistant,
            model: String::new(),
            content,
            stop_reason,
            stop_sequence: None,
            usage: no_usage(),
            extra: wardian_protocol::JsonMap::new(),
        };
        Ahead { whole: Box::new(Whole { message, verdicts }), past, is_known: true }
    }

    async fn take_in(&mut self, turn: &mut Turn, whole: &Whole, is_known: bool) -> Step {
        let reply = &whole.message;
        let tool_calls =
            reply.content.iter().filter(|block| matches!(block, ContentBlock::ToolUse { .. })).count();
        turn.stop_reason.clone_from(&reply.stop_reason);
        turn.result = text_of(&reply.content);
        let facts = ReplyFacts { stop_reason: reply.stop_reason.as_deref(), tool_calls, spent: self.spent() };
        let step = turn.progress.after_reply(self.setup.limits, &facts);
        // What was refused would be refused again if it stayed in the conversation; an empty message the API refuses.
        let keep = step != Step::End(End::Refused) && !reply.content.is_empty();
        if keep {
            self.remember(&reply.content);
        }
        if !is_known {
            self.setup.keep_reply_end(keep, reply.stop_reason.as_deref()).await;
        }
        step
    }

    fn remember(&mut self, content: &[ContentBlock]) {
        let content = content.iter().map(presentable).collect();
        self.history.push(MessageParam::new(Role::Assistant, content));
    }

    async fn run_tools(
        &mut self,
        turn: &mut Turn,
        whole: Box<Whole>,
        past: Past,
        stop: &CancellationToken,
    ) -> Option<End> {
        let executed = run_tools(&self.setup, &whole.message, whole.verdicts, past, stop).await;
        turn.progress.user_messages += executed.messages;
        turn.denials.extend(executed.denials);
        let context: Vec<ContentBlock> = executed.context.into_iter().map(ContentBlock::text).collect();
        if !context.is_empty() {
            self.setup.out.keep_context(context.clone()).await;
        }
        self.hear(executed.results.into_iter().chain(context).collect());
        match executed.ended {
            ToolsEnd::Done => turn.progress.after_tools(self.setup.limits),
            ToolsEnd::Interrupted => {
                self.say(turn, words::INTERRUPTED_TOOLS).await;
                Some(End::AbortedTools)
            }
            ToolsEnd::HookStopped => {
                turn.result.clear();
                Some(End::HookStopped)
            }
            ToolsEnd::Deferred => Some(End::Deferred),
        }
    }

    /// Says something to the model in the user's place.
    async fn say(&mut self, turn: &mut Turn, text: &str) {
        let block = ContentBlock::text(text);
        self.setup.out.user(vec![block.clone()], None, true).await;
        turn.progress.user_messages += 1;
        self.hear(vec![block]);
    }

    /// Adds to what the user's side says.
    pub(crate) fn hear(&mut self, content: Vec<ContentBlock>) {
        match self.history.last_mut() {
            // Two user messages in a row would be one to the API; make them one, so that the next request agrees.
            Some(last) if last.role == Role::User => last.content.extend(content),
            Some(_) | None => self.history.push(MessageParam::new(Role::User, content)),
        }
    }

    async fn hear_prompt(&mut self, prompt: UserMessage) {
        let mut content = prompt.message.content;
        without_breakpoints(&mut content);
        let uuid = prompt.uuid.unwrap_or_else(random::uuid);
        self.setup.hooks.begin_prompt(&uuid);
        let mode = lock(&self.setup.live).policy.mode.as_str();
        let message = MessageParam::new(Role::User, content);
        self.take_checkpoint(&uuid).await;
        if std::mem::take(&mut self.is_new) {
            self.open_conversation().await;
        }
        // Where it cannot be kept the turn ends before anything is done.
        let _ = self.setup.out.keep_prompt(&uuid, &message, mode).await;
        self.prompts.insert(uuid);
        self.hear(message.content);
    }

    /// Answers the calls that an earlier turn, or a restart, left open: they are not run. Gives how many there were.
    async fn settle(&mut self) -> u64 {
        let mut past = Past::default();
        if let Some(OpenReply { content, started, answered, stop_reason: _ }) = self.open.take() {
            self.history.push(MessageParam::new(Role::Assistant, content));
            past = Past { started, answered };
        }
        let last = self.history.last().filter(|last| last.role == Role::Assistant);
        let calls: Vec<String> =
            last.map(|last| calls(&last.content).map(str::to_owned).collect()).unwrap_or_default();
        let mut results = Vec::new();
        let mut given = 0;
        for id in calls {
            if let Some(result) = past.answered.remove(&id) {
                results.push(result);
                continue;
            }
            let text =
                if past.started.contains(&id) { words::INTERRUPTED_BY_RESTART } else { words::NOT_RUN };
            let result = ContentBlock::tool_result(id, text, true);
            let note = Value::String(format!("Error: {text}"));
            self.setup.out.user(vec![result.clone()], Some(note), false).await;
            results.push(result);
            given += 1;
        }
        if !results.is_empty() {
            self.hear(results);
        }
        given
    }

    async fn api_error(&mut self, turn: &mut Turn, failure: &Failure) -> End {
        turn.result = failure.describe();
        turn.stop_reason = Some("stop_sequence".to_owned());
        turn.api_error_status = failure.status();
        self.setup.keep_reply_end(false, None).await;
        let request_id = failure.request_id.as_deref();
        self.setup.out.synthetic(&turn.result, failure.assistant_error(), request_id).await;
        End::ApiError
    }

    async fn last_words(&mut self, turn: &mut Turn, end: End) -> End {
        let text = match end {
            End::Refused => "The model refused to answer this.",
            End::ContextFull => "The conversation no longer fits into the model's context window.",
            End::Completed
            | End::MaxTurns
            | End::Budget
            | End::ApiError
            | End::AbortedStreaming
            | End::AbortedTools
            | End::HookStopped
            | End::Deferred
            | End::Unkept => return end,
        };
        text.clone_into(&mut turn.result);
        self.setup.out.synthetic(text, "invalid_request", None).await;
        end
    }

    /// Ends a turn that was stopped while the model replied: what it had said stays said, its calls are not run.
    async fn interrupted(&mut self, turn: &mut Turn, partial: Option<Box<Partial>>) -> End {
        if partial.is_none() {
            self.setup.keep_reply_end(false, None).await;
        }
        if let Some(partial) = partial {
            let Partial { message, given, begun } = *partial;
            for block in message.content.iter().skip(given) {
                let frame = one_block(&message, block.clone(), message.usage.clone());
                self.setup.out.assistant(frame, json!({"aborted": true})).await;
            }
            if self.setup.include_partial_messages {
                self.close_stream(&message.id, given, begun).await;
            }
            let keep = !message.content.is_empty();
            if keep {
                self.remember(&message.content);
            }
            self.setup.keep_reply_end(keep, message.stop_reason.as_deref()).await;
        }
        turn.progress.user_messages += self.settle().await;
        self.say(turn, words::INTERRUPTED).await;
        End::AbortedStreaming
    }

    /// Ends the raw stream for those who follow it.
    async fn close_stream(&self, message_id: &str, given: usize, begun: usize) {
        let out = &self.setup.out;
        for index in given..begun {
            let event = json!({"type": "content_block_stop", "index": index});
            out.stream_event(event, Some(message_id), json!({})).await;
        }
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": null, "stop_sequence": null}});
        out.stream_event(delta, Some(message_id), json!({})).await;
        let abandoned: Vec<usize> = (given..begun).collect();
        let more = json!({"abandoned_blocks": abandoned});
        out.stream_event(json!({"type": "message_stop"}), Some(message_id), more).await;
    }

    async fn give_result(&mut self, turn: Turn, end: End) {
        let subtype = end.subtype();
        let meter = self.setup.meter().clone();
        let mut result = ResultMessage {
            subtype: subtype.to_owned(),
            is_error: end.is_error(),
            duration_ms: millis(turn.began.elapsed()),
            duration_api_ms: millis(turn.spending.api_time),
            num_turns: turn.progress.num_turns(),
            result: (subtype == "success").then_some(turn.result),
            stop_reason: turn.stop_reason,
            session_id: self.setup.out.session_id.clone(),
            total_cost_usd: meter.total(),
            usage: turn.spending.usage,
            model_usage: meter.by_model().clone(),
            permission_denials: turn.denials,
            errors: end.errors(self.setup.limits),
            terminal_reason: Some(end.terminal_reason().to_owned()),
            uuid: Some(random::uuid()),
            extra: wardian_protocol::JsonMap::new(),
        };
        result.extra.insert("api_error_status".to_owned(), turn.api_error_status.into());
        result.extra.insert("result_index".to_owned(), self.results.into());
        self.results += 1;
        let result = Message::Result(Box::new(result));
        self.setup.out.keep_turn_end(&result).await;
        self.setup.out.send(result).await;
    }

    fn init_fields(&self) -> Value {
        let setup = &self.setup;
        let (mode, model) = {
            let live = lock(&setup.live);
            (live.policy.mode, live.model.clone())
        };
        let tools: Vec<&str> = setup.tools.iter().map(|offered| offered.tool.name()).collect();
        json!({
            "cwd": setup.context.cwd,
            "tools": tools,
            "mcp_servers": setup.mcp_servers,
            "model": model,
            "permissionMode": mode.as_str(),
            "slash_commands": [],
            "apiKeySource": setup.api_key_source,
            "claude_code_version": PROTOCOL_VERSION,
            "wardian_version": env!("CARGO_PKG_VERSION"),
            "output_style": "default",
            "agents": [],
            "skills": [],
            "plugins": [],
            "capabilities": [],
            "additional_directories": setup.additional_directories,
        })
    }
}

fn text_of(content: &[ContentBlock]) -> String {
    let text = |block: &ContentBlock| match block {
        ContentBlock::Text { text, .. } => Some(text.clone()),
        ContentBlock::Thinking { .. }
        | ContentBlock::ToolUse { .. }
        | ContentBlock::ToolResult { .. }
        | ContentBlock::Other(_) => None,
    };
    content.iter().filter_map(text).collect::<Vec<_>>().join("")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
