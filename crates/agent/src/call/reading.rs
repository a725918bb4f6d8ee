//! A reply as it streams in: its blocks as messages, its raw events, what it used.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use wardian_protocol::ContentBlock;
use wardian_protocol::sse::SseEvent;
use wardian_protocol::stream::{Assembler, Delta, StreamEvent};

use super::{Partial, Whole};
use crate::client::{Failure, Reply};
use crate::frames::{one_block, presentable};
use crate::hook::{HookEvent, HookOutcome};
use crate::models::api_name;
use crate::request::ModelRequest;
use crate::schema;
use crate::session::Setup;
use crate::spending::{Spending, millis};

/// How long the end of the stream may take after the end of the reply, so that the connection can be kept.
const STREAM_END_TIMEOUT: Duration = Duration::from_millis(250);
/// What a token is taken for where nobody has counted: so many characters of thinking.
const THINKING_CHARS_A_TOKEN: u64 = 4;
/// The same of a text that was cut before it was counted; a little too many rather than too few.
const CUT_CHARS_A_TOKEN: u64 = 3;

/// How a reply ended.
pub(super) enum Ended {
    Whole(Box<Whole>),
    Interrupted,
    Failed(Box<Failure>),
}

/// A reply as it streams in.
pub(super) struct Reading<'a> {
    setup: &'a Setup,
    spending: &'a mut Spending,
    stop: &'a CancellationToken,
    assembler: Assembler,
    request_id: Option<String>,
    hooks: FuturesUnordered<BoxFuture<'static, (String, HookOutcome)>>,
    verdicts: HashMap<String, HookOutcome>,
    /// What was shown in place of texts, by the block's place.
    shown: HashMap<usize, String>,
    /// How many blocks were given as messages.
    given: usize,
    /// When the block under way began.
    block_began: Instant,
    /// What the thinking so far is taken to come to.
    thinking_tokens: u64,
    /// Whether the reply is whole.
    stopped: bool,
}

impl<'a> Reading<'a> {
    pub(super) fn new(setup: &'a Setup, stop: &'a CancellationToken, spending: &'a mut Spending) -> Self {
        Self {
            setup,
            spending,
            stop,
            assembler: Assembler::default(),
            request_id: None,
            hooks: FuturesUnordered::new(),
            verdicts: HashMap::new(),
            shown: HashMap::new(),
            given: 0,
            block_began: Instant::now(),
            thinking_tokens: 0,
            stopped: false,
        }
    }

    pub(super) async fn run(&mut self, request: &ModelRequest) -> Ended {
        let mut ended = self.follow(request).await;
        if let Ended::Failed(failure) = &mut ended {
            failure.request_id = failure.request_id.take().or_else(|| self.request_id.clone());
        }
        ended
    }

    async fn follow(&mut self, request: &ModelRequest) -> Ended {
        let headers = request.headers(&self.setup.headers);
        let posted = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ended::Interrupted,
            posted = self.setup.client.post(request.body.clone(), &headers) => posted,
        };
        let mut reply = match posted {
            Ok(reply) => reply,
            Err(failure) => return Ended::Failed(failure),
        };
        self.request_id = reply.request_id.take();
        loop {
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ended::Interrupted,
                Some((id, verdict)) = self.hooks.next(), if !self.hooks.is_empty() => {
                    self.verdicts.insert(id, verdict);
                    continue;
                }
                event = reply.next() => event,
            };
            match event {
                Err(failure) => return Ended::Failed(failure),
                Ok(None) => break,
                Ok(Some(event)) => {
                    if let Err(failure) = self.take_in(&event).await {
                        return Ended::Failed(failure);
                    }
                }
            }
            if self.stopped {
                drain(&mut reply).await;
                break;
            }
        }
        self.finish().await
    }

    async fn take_in(&mut self, event: &SseEvent) -> Result<(), Box<Failure>> {
        let parsed = StreamEvent::parse(event)?;
        if matches!(parsed, StreamEvent::Ping {}) {
            return Ok(());
        }
        if matches!(parsed, StreamEvent::MessageStart { .. }) && self.assembler.so_far().is_some() {
            return Err(Failure::malformed("the reply began twice"));
        }
        let completed = self.assembler.push(&parsed)?;
        let raw = self.notice(&parsed).await;
        if let Some(index) = completed {
            self.give(index).await;
        }
        if self.setup.include_partial_messages {
            let event: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
            let id = self.assembler.so_far().map(|message| message.id.clone());
            self.setup.out.stream_event(event, id.as_deref(), raw).await;
        }
        self.stopped = matches!(parsed, StreamEvent::MessageStop {});
        Ok(())
    }

    /// Keeps the time of an event, and estimates thinking. Gives what is told with the raw event.
    async fn notice(&mut self, event: &StreamEvent) -> Map<String, Value> {
        let mut told = Map::new();
        match event {
            StreamEvent::MessageStart { message } => {
                self.spending.times.streams(&message.usage);
                self.spending.begun.push(message.id.clone());
                let since = millis(self.spending.times.began.elapsed());
                told.insert("ttft_ms".to_owned(), since.into());
            }
            StreamEvent::ContentBlockStart { .. } => {
                self.spending.times.has_content();
                self.block_began = Instant::now();
            }
            StreamEvent::ContentBlockDelta { delta: Delta::ThinkingDelta { thinking }, .. } => {
                let more = (thinking.chars().count() as u64).div_ceil(THINKING_CHARS_A_TOKEN);
                self.thinking_tokens = self.thinking_tokens.saturating_add(more);
                let fields =
                    json!({"estimated_tokens": self.thinking_tokens, "estimated_tokens_delta": more});
                self.setup.out.system("thinking_tokens", fields).await;
            }
            StreamEvent::ContentBlockDelta { .. }
            | StreamEvent::ContentBlockStop { .. }
            | StreamEvent::MessageDelta { .. }
            | StreamEvent::MessageStop {}
            | StreamEvent::Ping {}
            | StreamEvent::Error { .. }
            | StreamEvent::Other(_) => (),
        }
        told
    }

    /// Gives a finished block as a message, and lets the hooks see it if it is a call.
    async fn give(&mut self, index: usize) {
        let Some(message) = self.assembler.so_far() else { return };
        let Some(block) = message.content.get(index) else { return };
        let frame = one_block(message, presentable(block), message.usage.clone());
        let hooks = hooks_on(self.setup, block);
        let shown = match block {
            ContentBlock::Text { text, .. } => tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                shown = self.setup.hooks.displayed(&self.spending.turn_id, text) => shown,
            },
            ContentBlock::Thinking { .. }
            | ContentBlock::ToolUse { .. }
            | ContentBlock::ToolResult { .. }
            | ContentBlock::Other(_) => None,
        };
        let mut more = self.spending.marks();
        if let Some(id) = &self.request_id {
            more.insert("request_id".to_owned(), id.clone().into());
        }
        if matches!(block, ContentBlock::Thinking { .. }) {
            let took = millis(self.block_began.elapsed());
            more.insert("thinking_duration_ms".to_owned(), took.into());
        }
        if let ContentBlock::ToolUse { id, name, .. } = block
            && let Some(meta) = self.setup.servers.call_meta(id, name)
        {
            more.insert("tool_use_meta".to_owned(), json!([meta]));
        }
        self.given = self.given.max(index + 1);
        self.shown.extend(shown.clone().map(|text| (index, text)));
        self.setup.out.assistant_shown_as(frame, more, shown).await;
        self.hooks.extend(hooks);
    }

    /// Whether anything of the reply was given as a message: then it cannot be asked for again.
    pub(super) const fn has_given(&self) -> bool {
        self.given > 0
    }

    /// Ends the raw stream of a reply of which nothing will be given.
    pub(super) async fn abandon(&mut self) {
        let Some(message) = self.assembler.so_far().filter(|_| self.setup.include_partial_messages) else {
            return;
        };
        let (setup, begun) = (self.setup, message.content.len());
        setup.stop_blocks(&message.id, 0..begun).await;
        setup.stop_message(&message.id, 0).await;
    }

    async fn finish(&mut self) -> Ended {
        let Some(message) = self.assembler.so_far().filter(|_| self.stopped).cloned() else {
            return Ended::Failed(Failure::lost("the reply ended early"));
        };
        while !self.hooks.is_empty() {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ended::Interrupted,
                Some((id, verdict)) = self.hooks.next() => {
                    self.verdicts.insert(id, verdict);
                }
            }
        }
        let (verdicts, shown) = (std::mem::take(&mut self.verdicts), std::mem::take(&mut self.shown));
        Ended::Whole(Box::new(Whole { message, verdicts, shown, request_id: self.request_id.clone() }))
    }

    /// Counts what was used, however the reply ended: it was paid for. What a cut reply had written is estimated.
    pub(super) fn settle(&self, asked: &str, whole: bool) {
        let Some(message) = self.assembler.so_far() else { return };
        let mut usage = message.usage.clone();
        if !whole {
            let written: usize = message.content.iter().map(written).sum();
            let tokens = (written as u64).div_ceil(CUT_CHARS_A_TOKEN);
            usage.output_tokens = usage.output_tokens.max(Some(tokens));
        }
        let date = (self.setup.out.clock)().strftime("%Y-%m-%d").to_string();
        // A suffix of ours is none of the API's.
        let model = if message.model == api_name(asked) { asked } else { &message.model };
        self.setup.meter().record(model, &usage, &date);
    }

    /// What the reply holds so far, if it has begun.
    pub(super) fn partial(&self) -> Option<Box<Partial>> {
        let mut message = self.assembler.so_far()?.clone();
        let begun = message.content.len();
        let under_way = message.content.get(self.given).cloned();
        message.content.truncate(self.given);
        if let Some(ContentBlock::Text { text, .. }) = &under_way
            && !text.is_empty()
        {
            message.content.extend(under_way);
        }
        let request_id = self.request_id.clone();
        Some(Box::new(Partial { message, given: self.given, begun, request_id }))
    }
}

/// Lets the hooks see a call.
pub(crate) fn hooks_on(
    setup: &Setup,
    block: &ContentBlock,
) -> Option<BoxFuture<'static, (String, HookOutcome)>> {
    let ContentBlock::ToolUse { id, name, input, .. } = block else { return None };
    let name = setup.real_name(name);
    let tool = setup.tool(name)?;
    if !setup.hooks.listens(HookEvent::PreToolUse) || !schema::problems(&tool.schema, input).is_empty() {
        return None;
    }
    let (hooks, id, name) = (setup.hooks.clone(), id.clone(), name.to_owned());
    let (input, server) = (input.clone(), setup.servers.origin(&name).map(|origin| origin.provenance()));
    Some(Box::pin(async move {
        let outcome = hooks.before_call(&name, &id, &input, server).await;
        (id, outcome)
    }))
}

/// Reads the end of a stream whose reply is whole, so that its connection can be used again.
async fn drain(reply: &mut Reply) {
    let end = async { while let Ok(Some(_)) = reply.next().await {} };
    // Where the end does not come, the connection is dropped instead.
    let _ = timeout(STREAM_END_TIMEOUT, end).await;
}

/// How many characters of a block the model wrote.
fn written(block: &ContentBlock) -> usize {
    match block {
        ContentBlock::Text { text, .. } => text.chars().count(),
        ContentBlock::Thinking { thinking, .. } => thinking.chars().count(),
        ContentBlock::ToolUse { input, .. } => input.to_string().chars().count(),
        ContentBlock::ToolResult { .. } | ContentBlock::Other(_) => 0,
    }
}

impl Setup {
    /// Ends blocks in the raw stream that the model will not end.
    pub(crate) async fn stop_blocks(&self, message_id: &str, blocks: std::ops::Range<usize>) {
        for index in blocks {
            let event = json!({"type": "content_block_stop", "index": index});
            self.out.stream_event(event, Some(message_id), Map::new()).await;
        }
    }

    /// Ends a reply in the raw stream that the model will not end; its blocks from `from` on are void.
    pub(crate) async fn stop_message(&self, message_id: &str, from: usize) {
        let mut more = Map::new();
        let void = json!({"api_message_id": message_id, "from_block_index": from});
        more.insert("abandoned_blocks".to_owned(), void);
        self.out.stream_event(json!({"type": "message_stop"}), Some(message_id), more).await;
    }
}
