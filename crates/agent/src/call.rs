//! One model call: the request, its retries, and the reply as it streams in.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use wardian_protocol::sse::SseEvent;
use wardian_protocol::stream::{Assembler, StreamEvent};
use wardian_protocol::{ContentBlock, Usage};

use crate::client::{Failure, Reply, retry};
use crate::frames::{one_block, presentable};
use crate::hook::{HookEvent, HookOutcome};
use crate::session::Setup;
use crate::{random, schema};

/// A refusal for money that leaves less than this many tokens is not worth another try.
const MIN_MAX_TOKENS: u64 = 256;
/// How long the end of the stream may take after the end of the reply, so that the connection can be kept.
const STREAM_END_TIMEOUT: Duration = Duration::from_millis(250);

/// How a model call ended.
pub(crate) enum Called {
    /// With a whole reply.
    Replied(Box<Whole>),
    /// With nothing to go on from.
    Failed(Box<Failure>),
    /// The turn was stopped; with what the reply held by then, if it had begun.
    Interrupted(Option<Box<Partial>>),
}

/// What an interrupted reply held.
pub(crate) struct Partial {
    /// The blocks that were given, and maybe a text under way.
    pub(crate) message: wardian_protocol::Message,
    /// How many blocks were given.
    pub(crate) given: usize,
    /// How many blocks had begun.
    pub(crate) begun: usize,
}

/// A whole reply.
pub(crate) struct Whole {
    pub(crate) message: wardian_protocol::Message,
    /// What hooks said of its calls, by the call's id.
    pub(crate) verdicts: HashMap<String, HookOutcome>,
}

/// What the calls of a turn used.
#[derive(Debug, Default)]
pub(crate) struct Spending {
    pub(crate) usage: Usage,
    pub(crate) api_time: Duration,
}

/// Calls the model. `body` writes the request for a number of reply tokens.
pub(crate) async fn call_model(
    setup: &Setup,
    spending: &mut Spending,
    mut max_tokens: u64,
    body: impl Fn(u64) -> Bytes,
    stop: &CancellationToken,
) -> Called {
    let first_try = Instant::now();
    let mut request = body(max_tokens);
    let mut clamped = false;
    let mut attempt = 0;
    loop {
        setup.out.system("status", json!({"status": "requesting"})).await;
        let began = Instant::now();
        let mut reading = Reading::new(setup, stop);
        let ended = reading.run(request.clone()).await;
        spending.api_time += began.elapsed();
        reading.settle(spending);
        let failure = match ended {
            Ended::Whole(whole) => return Called::Replied(whole),
            Ended::Interrupted => return Called::Interrupted(reading.partial()),
            Ended::Failed(failure) if reading.shown => return Called::Failed(failure),
            Ended::Failed(failure) => failure,
        };
        if let Some(fitting) = failure.max_tokens_that_fit()
            && !clamped
            && (MIN_MAX_TOKENS..max_tokens).contains(&fitting)
        {
            clamped = true;
            max_tokens = fitting;
            request = body(max_tokens);
            continue;
        }
        attempt += 1;
        let (now, elapsed, chance) = ((setup.out.clock)(), first_try.elapsed(), random::chance());
        let Some(wait) = retry::delay(&setup.retry, &failure, attempt, elapsed, now, chance) else {
            return Called::Failed(failure);
        };
        announce_retry(setup, attempt, wait, &failure).await;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Called::Interrupted(None),
            () = tokio::time::sleep(wait) => (),
        }
    }
}

async fn announce_retry(setup: &Setup, attempt: u32, wait: Duration, failure: &Failure) {
    let fields = json!({
        "attempt": attempt,
        "max_retries": setup.retry.max_retries,
        "retry_delay_ms": u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        "error_status": failure.status(),
        "error": failure.assistant_error(),
    });
    setup.out.system("api_retry", fields).await;
}

enum Ended {
    Whole(Box<Whole>),
    Interrupted,
    Failed(Box<Failure>),
}

/// A reply as it streams in.
struct Reading<'a> {
    setup: &'a Setup,
    stop: &'a CancellationToken,
    assembler: Assembler,
    request_id: Option<String>,
    hooks: FuturesUnordered<BoxFuture<'static, (String, HookOutcome)>>,
    verdicts: HashMap<String, HookOutcome>,
    /// How many blocks were given as messages.
    given: usize,
    /// Whether anything of the reply was seen outside: then it cannot be asked for again.
    shown: bool,
    /// Whether the reply is whole.
    stopped: bool,
}

impl<'a> Reading<'a> {
    fn new(setup: &'a Setup, stop: &'a CancellationToken) -> Self {
        Self {
            setup,
            stop,
            assembler: Assembler::default(),
            request_id: None,
            hooks: FuturesUnordered::new(),
            verdicts: HashMap::new(),
            given: 0,
            shown: false,
            stopped: false,
        }
    }

    async fn run(&mut self, request: Bytes) -> Ended {
        let posted = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ended::Interrupted,
            posted = self.setup.client.post(request) => posted,
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
        if let Some(index) = completed {
            self.give(index).await;
        }
        if self.setup.include_partial_messages {
            self.shown |= matches!(parsed, StreamEvent::ContentBlockStart { .. });
            let raw: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
            let id = self.assembler.so_far().map(|message| message.id.clone());
            self.setup.out.stream_event(raw, id.as_deref(), json!({})).await;
        }
        self.stopped = matches!(parsed, StreamEvent::MessageStop {});
        Ok(())
    }

    /// Gives a finished block as a message, and lets the hooks see it if it is a call.
    async fn give(&mut self, index: usize) {
        let Some(message) = self.assembler.so_far() else { return };
        let Some(block) = message.content.get(index) else { return };
        let frame = one_block(message, presentable(block), message.usage.clone());
        let hooks = hooks_on(self.setup, block);
        self.shown = true;
        self.given = self.given.max(index + 1);
        self.setup.out.assistant(frame, self.request_id_field()).await;
        self.hooks.extend(hooks);
    }

    fn request_id_field(&self) -> Value {
        self.request_id.as_ref().map_or_else(|| json!({}), |id| json!({"request_id": id}))
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
        Ended::Whole(Box::new(Whole { message, verdicts: std::mem::take(&mut self.verdicts) }))
    }

    /// Counts what was used, however the reply ended: it was paid for.
    fn settle(&self, spending: &mut Spending) {
        let Some(message) = self.assembler.so_far() else { return };
        let date = (self.setup.out.clock)().strftime("%Y-%m-%d").to_string();
        self.setup.meter().record(&message.model, &message.usage, &date);
        crate::meter::add_usage(&mut spending.usage, &message.usage);
    }

    fn partial(&self) -> Option<Box<Partial>> {
        let mut message = self.assembler.so_far()?.clone();
        let begun = message.content.len();
        let under_way = message.content.get(self.given).cloned();
        message.content.truncate(self.given);
        if let Some(ContentBlock::Text { text, .. }) = &under_way
            && !text.is_empty()
        {
            message.content.extend(under_way);
        }
        Some(Box::new(Partial { message, given: self.given, begun }))
    }
}

/// Lets the hooks see a call.
pub(crate) fn hooks_on(
    setup: &Setup,
    block: &ContentBlock,
) -> Option<BoxFuture<'static, (String, HookOutcome)>> {
    let ContentBlock::ToolUse { id, name, input, .. } = block else { return None };
    let tool = setup.tool(name)?;
    if !setup.hooks.listens(HookEvent::PreToolUse) || !schema::problems(&tool.schema, input).is_empty() {
        return None;
    }
    let (hooks, id, name) = (setup.hooks.clone(), id.clone(), name.clone());
    let fields = json!({"tool_name": name, "tool_input": input, "tool_use_id": id});
    Some(Box::pin(async move { (id, hooks.run(HookEvent::PreToolUse, &name, fields).await) }))
}

/// Reads the end of a stream whose reply is whole, so that its connection can be used again.
async fn drain(reply: &mut Reply) {
    let end = async { while let Ok(Some(_)) = reply.next().await {} };
    // Where the end does not come, the connection is dropped instead.
    let _ = timeout(STREAM_END_TIMEOUT, end).await;
}
