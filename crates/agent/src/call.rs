//! One model call: the request, its retries, and the reply as it streams in.

use std::collections::HashMap;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wardian_protocol::ContentBlock;

use crate::client::{Failure, FailureKind, retry};
use crate::hook::HookOutcome;
use crate::random;
use crate::request::ModelRequest;
use crate::session::Setup;
use crate::spending::{Spending, millis};

mod reading;

pub(crate) use reading::hooks_on;
use reading::{Ended, Reading};

/// A refusal for money that leaves less than this many tokens is not worth another try.
const MIN_MAX_TOKENS: u64 = 256;
/// How often an overloaded model is asked again where another can take its place. source: observed of the official CLI.
const RETRIES_BEFORE_FALLBACK: u32 = 2;

/// How a model call ended.
pub(crate) enum Called {
    /// With a whole reply.
    Replied(Box<Whole>),
    /// With the beginning of a reply, which broke off.
    Broken(Box<Partial>, Box<Failure>),
    /// With nothing to go on from.
    Failed(Box<Failure>),
    /// The turn was stopped; with what the reply held by then, if it had begun.
    Interrupted(Option<Box<Partial>>),
}

/// What an unfinished reply held.
pub(crate) struct Partial {
    /// The blocks that were given, and maybe a text under way.
    pub(crate) message: wardian_protocol::Message,
    /// How many blocks were given.
    pub(crate) given: usize,
    /// How many blocks had begun.
    pub(crate) begun: usize,
    /// The API's id for the request.
    pub(crate) request_id: Option<String>,
}

/// A whole reply.
pub(crate) struct Whole {
    pub(crate) message: wardian_protocol::Message,
    /// What hooks said of its calls, by the call's id.
    pub(crate) verdicts: HashMap<String, HookOutcome>,
    /// What was shown in place of texts, by the block's place.
    pub(crate) shown: HashMap<usize, String>,
    /// The API's id for the request.
    pub(crate) request_id: Option<String>,
}

impl Whole {
    /// Its text as it was shown; `None`: as it is.
    pub(crate) fn shown_text(&self) -> Option<String> {
        let text = |(index, block): (usize, &ContentBlock)| match block {
            ContentBlock::Text { text, .. } => Some(self.shown.get(&index).unwrap_or(text).clone()),
            ContentBlock::Thinking { .. }
            | ContentBlock::ToolUse { .. }
            | ContentBlock::ToolResult { .. }
            | ContentBlock::Other(_) => None,
        };
        (!self.shown.is_empty()).then(|| self.message.content.iter().enumerate().filter_map(text).collect())
    }
}

/// Calls the model. `body` writes the request for a number of reply tokens; `has_fallback`: another model can take its
/// place.
pub(crate) async fn call_model(
    setup: &Setup,
    spending: &mut Spending,
    mut max_tokens: u64,
    body: impl Fn(u64) -> ModelRequest,
    has_fallback: bool,
    stop: &CancellationToken,
) -> Called {
    let first_try = Instant::now();
    let mut request = body(max_tokens);
    let mut clamped = false;
    let mut attempt = 0;
    if setup.include_partial_messages {
        setup.out.system("status", json!({"status": "requesting"})).await;
    }
    loop {
        let began = Instant::now();
        spending.times.requested((setup.out.clock)());
        let mut reading = Reading::new(setup, stop, spending);
        let ended = reading.run(&request).await;
        setup.meter().add_api_time(began.elapsed());
        reading.settle(&request.model, matches!(ended, Ended::Whole(_)));
        let took_ms = millis(began.elapsed());
        let failure = match ended {
            Ended::Whole(whole) => {
                spending.api_time += began.elapsed();
                tell_reply(&whole, took_ms);
                return Called::Replied(whole);
            }
            Ended::Interrupted => {
                tracing::debug!(took_ms, "model call: interrupted");
                return Called::Interrupted(reading.partial());
            }
            Ended::Failed(failure) if reading.has_given() => {
                tell_failure(&failure, took_ms, "model call: broke off");
                if !retry::retryable(&failure) {
                    return Called::Failed(failure);
                }
                return match reading.partial() {
                    Some(partial) => Called::Broken(partial, failure),
                    None => Called::Failed(failure),
                };
            }
            Ended::Failed(failure) => {
                tell_failure(&failure, took_ms, "model call: failed");
                reading.abandon().await;
                failure
            }
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
        if has_fallback && attempt > retries_before_fallback(&failure) {
            return Called::Failed(failure);
        }
        let (now, elapsed, chance) = ((setup.out.clock)(), first_try.elapsed(), random::chance());
        let Some(wait) = retry::delay(&setup.retry, &failure, attempt, elapsed, now, chance) else {
            return Called::Failed(failure);
        };
        let fields = json!({
            "attempt": attempt,
            "max_retries": setup.retry.max_retries,
            "retry_delay_ms": millis(wait),
            "error_status": failure.status(),
            "error": failure.retry_error(),
        });
        tracing::debug!(attempt, delay_ms = millis(wait), "model call: again");
        setup.out.system("api_retry", fields).await;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Called::Interrupted(None),
            () = tokio::time::sleep(wait) => spending.api_time += began.elapsed(),
        }
    }
}

/// Logs a reply: nothing of what it says.
fn tell_reply(whole: &Whole, took_ms: u64) {
    let message = &whole.message;
    tracing::debug!(
        status = 200,
        took_ms,
        model = %message.model,
        stop_reason = message.stop_reason.as_deref(),
        blocks = message.content.len(),
        input_tokens = message.usage.input_tokens,
        output_tokens = message.usage.output_tokens,
        request_id = whole.request_id.as_deref(),
        "model call"
    );
}

/// Logs a failure. What the API says of it may repeat the request, and is left out.
fn tell_failure(failure: &Failure, took_ms: u64, what: &str) {
    let why = failure.is_lost().then_some(failure.message.as_str());
    let (status, error, request_id) =
        (failure.status(), failure.assistant_error(), failure.request_id.as_deref());
    tracing::warn!(status, error, took_ms, request_id, why, "{what}");
}

/// How often a failure is tried again while another model waits.
fn retries_before_fallback(failure: &Failure) -> u32 {
    match (&failure.kind, failure.fallback_trigger()) {
        (_, Some("overloaded")) => RETRIES_BEFORE_FALLBACK,
        (FailureKind::Status { .. } | FailureKind::InStream { .. }, Some(_)) => 0,
        (_, Some(_) | None) => u32::MAX,
    }
}
