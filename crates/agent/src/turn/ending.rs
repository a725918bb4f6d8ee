//! Ends of a turn that are not the model's own: errors, limits, the user's stop.

use std::ops::Range;

use serde_json::{Map, Value, json};
use wardian_protocol::{JsonMap, Usage};

use super::result::whole;
use super::{ApiFailure, Turn, text_of};
use crate::call::{Partial, Whole};
use crate::client::Failure;
use crate::frames::one_block;
use crate::session::{Session, Setup};
use crate::state::End;
use crate::words;

/// A reply whose raw events the model will not end.
struct OpenReply {
    id: String,
    usage: Usage,
    /// The blocks that have no end yet.
    open: Range<usize>,
    /// The first block of which nothing was given.
    void_from: usize,
}

impl Setup {
    /// Ends an interrupted reply for those who follow the raw stream.
    async fn stop_reply(&self, reply: OpenReply) {
        let OpenReply { id, usage, open, void_from } = reply;
        self.stop_blocks(&id, open).await;
        let delta = json!({
            "type": "message_delta",
            "delta": {"container": null, "stop_details": null, "stop_reason": null, "stop_sequence": null},
            "context_management": null,
            "usage": whole(usage),
        });
        self.out.stream_event(delta, Some(&id), Map::new()).await;
        self.stop_message(&id, void_from).await;
    }
}

impl Session {
    pub(super) async fn api_error(&mut self, turn: &mut Turn, failure: &Failure) -> End {
        turn.ends_with(failure.describe());
        turn.stop_reason = Some("stop_sequence".to_owned());
        let kind = failure.error_type();
        self.setup.keep_reply_end(false, None).await;
        let mut more = turn.spending.marks();
        more.insert("error".to_owned(), failure.assistant_error().into());
        more.insert("is_api_error_message".to_owned(), true.into());
        let told = [
            ("request_id", failure.request_id.clone().map(Value::from)),
            ("api_error_status", failure.status().map(Value::from)),
            ("api_error_type", kind.clone().map(Value::from)),
            ("api_error", failure.is_lost().then(|| "connection_failed".into())),
        ];
        more.extend(told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        self.setup.out.synthetic(&turn.result, "stop_sequence", more).await;
        self.setup.hooks.stop_failed(failure.assistant_error(), &turn.result).await;
        turn.api_error = Some(ApiFailure { status: failure.status(), kind, lost: failure.is_lost() });
        failure.end()
    }

    /// Says why a reply is the last one, where the model itself did not.
    pub(super) async fn last_words(&mut self, turn: &mut Turn, end: End, whole: &Whole) -> End {
        let text = match end {
            End::Refused => "The model refused to answer this.",
            End::ContextFull => "The conversation no longer fits into the model's context window.",
            End::Completed
            | End::MaxTurns
            | End::Budget
            | End::ApiError
            | End::PromptTooLong
            | End::RequestTooLarge
            | End::AbortedStreaming
            | End::AbortedTools
            | End::CutStreaming
            | End::CutTools
            | End::HookStopped
            | End::StopHookPrevented
            | End::PromptRefused
            | End::Deferred
            | End::Unstructured
            | End::Unkept => return end,
        };
        turn.ends_with(text.to_owned());
        let id = whole.message.id.clone();
        if end == End::Refused {
            let fields = json!({
                "original_model": whole.message.model,
                "request_id": whole.request_id,
                "api_refusal_category": null,
                "api_refusal_explanation": null,
                "content": "",
            });
            self.setup.out.system("model_refusal_no_fallback", fields).await;
        }
        let mut more = turn.spending.marks();
        more.insert("error".to_owned(), "invalid_request".into());
        more.insert("is_api_error_message".to_owned(), true.into());
        if end == End::Refused {
            more.insert("refused_message_id".to_owned(), id.into());
        }
        more.extend(whole.request_id.clone().map(|id| ("request_id".to_owned(), id.into())));
        self.setup.out.synthetic(text, turn.stop_reason.as_deref().unwrap_or("stop_sequence"), more).await;
        self.setup.hooks.stop_failed("invalid_request", text).await;
        end
    }

    /// Ends a turn for a prompt that cannot wait, while the model replied: what it had said is the result.
    pub(super) async fn cut(&mut self, turn: &mut Turn, partial: Option<Box<Partial>>) -> End {
        let said = partial.as_ref().map(|partial| text_of(&partial.message.content));
        turn.ends_with(said.unwrap_or_default());
        let open = self.stopped(turn, partial).await;
        if let Some(message) = open.filter(|_| self.setup.include_partial_messages) {
            self.setup.stop_reply(message).await;
        }
        End::CutStreaming
    }

    /// Ends a turn that was stopped while the model replied: what it had said stays said, its calls are not run.
    pub(super) async fn interrupted(&mut self, turn: &mut Turn, partial: Option<Box<Partial>>) -> End {
        let open = self.stopped(turn, partial).await;
        self.note(turn, words::INTERRUPTED).await;
        if let Some(message) = open.filter(|_| self.setup.include_partial_messages) {
            self.setup.stop_reply(message).await;
        }
        End::AbortedStreaming
    }

    /// Gives what a stopped reply held, and answers its calls. What is left open of the raw stream is the caller's to end.
    async fn stopped(&mut self, turn: &mut Turn, partial: Option<Box<Partial>>) -> Option<OpenReply> {
        if partial.is_none() {
            self.setup.keep_reply_end(false, None).await;
        }
        let mut open = None;
        if let Some(partial) = partial {
            let Partial { message, given, begun, request_id } = *partial;
            for block in message.content.iter().skip(given) {
                let frame = one_block(&message, block.clone(), message.usage.clone());
                let mut more = turn.spending.marks();
                more.insert("aborted".to_owned(), true.into());
                more.extend(request_id.clone().map(|id| ("request_id".to_owned(), id.into())));
                self.setup.out.assistant(frame, more).await;
            }
            let void_from = message.content.len();
            open = Some(OpenReply {
                id: message.id.clone(),
                usage: message.usage.clone(),
                open: given..begun,
                void_from,
            });
            let keep = !message.content.is_empty();
            if keep {
                self.remember(&message.content);
            }
            self.setup.keep_reply_end(keep, message.stop_reason.as_deref()).await;
        }
        turn.progress.user_messages += self.settle().await;
        open
    }

    /// Takes up a reply that broke off: what was given of it stays said, its calls are not run, and the model is asked
    /// to go on.
    pub(super) async fn broken(&mut self, turn: &mut Turn, partial: Partial) {
        turn.breaks += 1;
        let Partial { mut message, given, begun, request_id: _ } = partial;
        message.content.truncate(given);
        if self.setup.include_partial_messages {
            self.setup.stop_blocks(&message.id, given..begun).await;
            self.setup.stop_message(&message.id, given).await;
        }
        self.remember(&message.content);
        self.setup.keep_reply_end(true, None).await;
        turn.progress.user_messages += self.settle().await;
        self.say(turn, words::BROKEN_OFF).await;
    }

    /// Asks the model once more for a reply that a safety check of the API stopped.
    pub(super) async fn retell(&mut self, turn: &mut Turn, whole: &Whole) {
        let told = json!({"content": words::REFUSAL_NOTICE, "level": "notice"});
        self.setup.out.system("informational", told).await;
        let id = whole.message.id.clone();
        let more = JsonMap::from_iter([("refused_message_id".to_owned(), id.into())]);
        self.say_with(turn, words::REFUSED, true, more).await;
    }
}
