//! One turn: a prompt, the model's replies, the tools that they call, the result. What comes next is decided in
//! [`crate::state`]; here it is done.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_protocol::frame::PermissionDenial;
use wardian_protocol::{ContentBlock, MessageParam, Role};

use crate::authorise::lock;
use crate::call::{Called, Partial, Spending, Whole, call_model};
use crate::client::Failure;
use crate::execute::{ToolsEnd, run_tools};
use crate::frames::{PROTOCOL_VERSION, one_block, presentable};
use crate::meter::no_usage;
use crate::request::{Parts, body, without_breakpoints};
use crate::session::{Session, opening};
use crate::state::{End, Progress, ReplyFacts, Step};
use crate::{Message, ResultMessage, UserMessage, random, words};

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
    pub(crate) async fn turn(&mut self, prompt: UserMessage, stop: &CancellationToken) {
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
        let mut content = prompt.message.content;
        without_breakpoints(&mut content);
        let content = opening(&self.history, content);
        self.history.push(MessageParam::new(Role::User, content));
        let end = self.drive(&mut turn, stop).await;
        self.give_result(turn, end).await;
        if self.setup.state_events {
            self.setup.out.state("idle").await;
        }
    }

    async fn drive(&mut self, turn: &mut Turn, stop: &CancellationToken) -> End {
        let limits = self.setup.limits;
        loop {
            if let Some(end) = limits.before_call(self.meter.total()) {
                return end;
            }
            let whole = match self.call(turn, stop).await {
                Called::Replied(whole) => whole,
                Called::Failed(failure) => return self.api_error(turn, &failure).await,
                Called::Interrupted(partial) => return self.interrupted(turn, partial).await,
            };
            match self.take_in(turn, &whole) {
                Step::RunTools => {
                    if let Some(end) = self.run_tools(turn, whole, stop).await {
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
        let Self { setup, history, meter, results: _ } = self;
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
        call_model(setup, meter, &mut turn.spending, setup.max_tokens(&model), write, stop).await
    }

    fn take_in(&mut self, turn: &mut Turn, whole: &Whole) -> Step {
        let reply = &whole.message;
        let tool_calls =
            reply.content.iter().filter(|block| matches!(block, ContentBlock::ToolUse { .. })).count();
        turn.stop_reason.clone_from(&reply.stop_reason);
        turn.result = text_of(&reply.content);
        let facts =
            ReplyFacts { stop_reason: reply.stop_reason.as_deref(), tool_calls, spent: self.meter.total() };
        let step = turn.progress.after_reply(self.setup.limits, &facts);
        // What was refused would be refused again if it stayed in the conversation; an empty message the API refuses.
        if step != Step::End(End::Refused) && !reply.content.is_empty() {
            self.remember(&reply.content);
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
        stop: &CancellationToken,
    ) -> Option<End> {
        let executed = run_tools(&self.setup, &whole.message, whole.verdicts, stop).await;
        turn.progress.user_messages += executed.messages;
        turn.denials.extend(executed.denials);
        let mut content = executed.results;
        content.extend(executed.context.into_iter().map(ContentBlock::text));
        self.history.push(MessageParam::new(Role::User, content));
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
        match self.history.last_mut() {
            // Two user messages in a row would be one to the API; make them one, so that the next request agrees.
            Some(last) if last.role == Role::User => last.content.push(block),
            Some(_) | None => self.history.push(MessageParam::new(Role::User, vec![block])),
        }
    }

    async fn api_error(&mut self, turn: &mut Turn, failure: &Failure) -> End {
        turn.result = failure.describe();
        turn.stop_reason = Some("stop_sequence".to_owned());
        turn.api_error_status = failure.status();
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
            | End::Deferred => return end,
        };
        text.clone_into(&mut turn.result);
        self.setup.out.synthetic(text, "invalid_request", None).await;
        end
    }

    /// Ends a turn that was stopped while the model replied: what it had said stays said, its calls are not run.
    async fn interrupted(&mut self, turn: &mut Turn, partial: Option<Box<Partial>>) -> End {
        if let Some(partial) = partial {
            let Partial { message, given, begun } = *partial;
            for block in message.content.iter().skip(given) {
                let frame = one_block(&message, block.clone(), message.usage.clone());
                self.setup.out.assistant(frame, json!({"aborted": true})).await;
            }
            if self.setup.include_partial_messages {
                self.close_stream(&message.id, given, begun).await;
            }
            if !message.content.is_empty() {
                self.remember(&message.content);
            }
        }
        let answers = opening(&self.history, Vec::new());
        if !answers.is_empty() {
            for answer in &answers {
                let note = Value::String(format!("Error: {}", words::NOT_RUN));
                self.setup.out.user(vec![answer.clone()], Some(note), false).await;
                turn.progress.user_messages += 1;
            }
            self.history.push(MessageParam::new(Role::User, answers));
        }
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
        let mut result = ResultMessage {
            subtype: subtype.to_owned(),
            is_error: end.is_error(),
            duration_ms: millis(turn.began.elapsed()),
            duration_api_ms: millis(turn.spending.api_time),
            num_turns: turn.progress.num_turns(),
            result: (subtype == "success").then_some(turn.result),
            stop_reason: turn.stop_reason,
            session_id: self.setup.out.session_id.clone(),
            total_cost_usd: self.meter.total(),
            usage: turn.spending.usage,
            model_usage: self.meter.by_model().clone(),
            permission_denials: turn.denials,
            errors: end.errors(self.setup.limits),
            terminal_reason: Some(end.terminal_reason().to_owned()),
            uuid: Some(random::uuid()),
            extra: wardian_protocol::JsonMap::new(),
        };
        result.extra.insert("api_error_status".to_owned(), turn.api_error_status.into());
        result.extra.insert("result_index".to_owned(), self.results.into());
        self.results += 1;
        self.setup.out.send(Message::Result(Box::new(result))).await;
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
            "mcp_servers": [],
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
