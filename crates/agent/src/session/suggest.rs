//! What the user may say next: asked of the model after a turn, by a request that begins as the turn's own requests did, so
//! that it costs little.
//!
//! source: the types of the SDKs (`promptSuggestions`), and the official CLI, observed.

use std::pin::pin;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wardian_policy::PermissionMode;
use wardian_protocol::{ContentBlock, Role};

use super::Session;
use super::inbox::Inbox;
use crate::authorise::lock;
use crate::query::Command;
use crate::{Message, random, words};

/// Replies of the model that must be there: after the first one nobody knows what the user is after.
const MIN_REPLIES: usize = 2;
/// The most tokens of a suggestion, besides a budget for thinking.
const MAX_TOKENS: u64 = 2_000;
/// How long one may take: the end of a session waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// What somebody types in a breath.
const MAX_WORDS: usize = 12;
/// The same in characters.
const MAX_CHARS: usize = 100;

impl Session {
    /// Suggests the next prompt, if that is wanted and nothing else is to be done. What is asked meanwhile is answered; a
    /// prompt, or an interrupt, ends it.
    pub(super) async fn suggest(
        &self,
        inbox: &mut Inbox,
        commands: &mut mpsc::Receiver<Command>,
        cancel: &CancellationToken,
    ) {
        if !self.may_suggest() {
            return;
        }
        let stop = cancel.child_token();
        let mut asked = pin!(self.setup.ask_about(&self.history, words::SUGGEST, MAX_TOKENS, &stop));
        let mut late = pin!(sleep(PATIENCE));
        let suggestion = loop {
            tokio::select! {
                biased;
                Some(command) = commands.recv() => {
                    let ends = matches!(command, Command::Interrupt { .. });
                    inbox.take_in(command, &self.setup.live, None);
                    self.answer_asks();
                    if ends || self.queue.len() > 0 {
                        stop.cancel();
                    }
                }
                reply = &mut asked => break reply.and_then(|content| suggested(&content)),
                // What has ended in the background is the model's to hear of first.
                () = self.setup.tasks.changed(), if !stop.is_cancelled() => if self.setup.tasks.has_agents() {
                    stop.cancel();
                },
                // It is not dropped: what it cost so far is counted.
                () = &mut late, if !stop.is_cancelled() => stop.cancel(),
            }
        };
        if let Some(suggestion) = suggestion.filter(|_| !stop.is_cancelled()) {
            let frame = json!({
                "type": "prompt_suggestion",
                "suggestion": suggestion,
                "uuid": random::uuid(),
                "session_id": self.setup.out.session_id,
            });
            self.setup.out.send(Message::Other(frame)).await;
        }
    }

    fn may_suggest(&self) -> bool {
        let replies = self.history.iter().filter(|message| message.role == Role::Assistant);
        self.setup.prompt_suggestions
            && self.ended_well
            && self.queue.len() == 0
            && !self.setup.tasks.has_agents()
            && replies.take(MIN_REPLIES).count() == MIN_REPLIES
            && lock(&self.setup.live).policy.mode != PermissionMode::Plan
            && self.setup.limits.before_call(self.spent()).is_none()
    }
}

/// What a reply suggests.
fn suggested(content: &[ContentBlock]) -> Option<String> {
    let mut said = String::new();
    for block in content {
        match block {
            ContentBlock::Text { text, .. } => said.push_str(text),
            // It does not suggest, it works.
            ContentBlock::ToolUse { .. } => return None,
            ContentBlock::Thinking { .. } | ContentBlock::ToolResult { .. } | ContentBlock::Other(_) => (),
        }
    }
    fitting(&said).map(str::to_owned)
}

/// Single words that are whole prompts.
const WHOLE: &[&str] = &[
    "yes", "no", "ok", "okay", "sure", "yep", "continue", "go", "proceed", "commit", "push", "retry", "undo",
    "stop", "deploy", "test", "merge",
];
/// What models say where there is nothing to suggest, or where they speak for themselves.
const NO_PROMPTS: &[&str] = &[
    "done",
    "nothing",
    "none",
    "silence",
    "no suggestion",
    "n/a",
    "error:",
    "api error:",
    "let me ",
    "i'll ",
    "i’ll ",
    "here's",
    "here is",
    "thanks",
    "thank you",
    "looks good",
    "great",
    "perfect",
    "(",
    "[",
];

/// The text as a prompt that somebody could type.
fn fitting(text: &str) -> Option<&str> {
    let text = text.trim();
    let text = text.strip_prefix("Suggestion:").unwrap_or(text).trim();
    let lower = text.to_lowercase();
    let words = text.split_whitespace().count();
    let is_word =
        words == 1 && (text.starts_with('/') || WHOLE.contains(&lower.trim_end_matches(['.', '!'])));
    let has_sentences = [". ", "! ", "? "].iter().any(|end| text.contains(end));
    let is_prompt = (is_word || (2..=MAX_WORDS).contains(&words))
        && text.chars().count() <= MAX_CHARS
        && !text.chars().any(char::is_control)
        && !text.contains("**")
        && !has_sentences
        && !NO_PROMPTS.iter().any(|no| lower.starts_with(no));
    is_prompt.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn only_what_somebody_could_type_is_suggested() {
        let twelve = "one two three four five six seven eight nine ten eleven twelve";
        for text in [
            "run the tests",
            "commit",
            "Yes",
            "/compact",
            "Now what?",
            "run `make`",
            "push it!",
            "a b",
            twelve,
        ] {
            assert_eq!(fitting(&format!(" {text}\n")), Some(text));
        }
        assert_eq!(fitting("Suggestion: run it"), Some("run it"));
        let long = "x".repeat(60);
        for text in [
            "",
            " ",
            "banana",
            "nothing",
            "No suggestion.",
            "(silence)",
            "done",
            "Done. Next",
            "peel. Then cut",
            "a\nb c",
            "**run it**",
            "Let me look at it",
            "Looks good to me!",
            "Error: it failed",
            "esc \u{1b}[31m red",
            &format!("{twelve} more"),
            &format!("{long} {long}"),
        ] {
            assert_eq!(fitting(text), None, "{text}");
        }
    }
}
