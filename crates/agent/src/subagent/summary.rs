//! What a running subagent does, in a line: the model that it runs on says so now and then, from its conversation.
//!
//! source: the types of the SDKs (`agentProgressSummaries`), and the official CLI, observed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wardian_protocol::{ContentBlock, MessageParam, Role};

use crate::frames::AgentTag;
use crate::session::Setup;
use crate::transcript::calls;
use crate::words;

/// The most tokens of a summary, besides a budget for thinking.
const MAX_TOKENS: u64 = 1_000;
/// The most characters that are shown of it.
const MAX_CHARS: usize = 200;

/// How far a subagent's conversation is, for who sums it up.
pub(crate) type Seen = Option<(Arc<Setup>, Vec<MessageParam>)>;

/// Tells now and then what a subagent does, until `stop`. Where nothing new was said, nothing is told.
pub(super) async fn tell(
    tag: &AgentTag,
    every: Duration,
    seen: &watch::Receiver<Seen>,
    stop: &CancellationToken,
) {
    let mut known = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => (),
        }
        let latest = seen.borrow().clone();
        let is_news = |history: &[MessageParam]| {
            history.len() != known && history.iter().any(|message| message.role == Role::Assistant)
        };
        let Some((setup, history)) = latest.filter(|(_, history)| is_news(history)) else { continue };
        known = history.len();
        let summary = setup.summed_up(&history, stop).await;
        if let Some(summary) = summary.filter(|_| !stop.is_cancelled()) {
            tag.tell_summary(&summary).await;
        }
    }
}

impl AgentTag {
    async fn tell_summary(&self, summary: &str) {
        let usage = json!({
            "total_tokens": self.last_tokens.load(Ordering::Relaxed),
            "tool_uses": self.tool_uses.load(Ordering::Relaxed),
            "duration_ms": u64::try_from(self.task.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        self.tasks.progress(&self.task, summary, &self.agent_type, usage, ("summary", summary)).await;
    }
}

impl Setup {
    async fn summed_up(&self, history: &[MessageParam], stop: &CancellationToken) -> Option<String> {
        if self.limits.before_call(self.spent()).is_some() {
            return None;
        }
        let content = self.ask_about(&with_open_calls(history), words::DOING, MAX_TOKENS, stop).await?;
        line(&content)
    }
}

/// The conversation with answers to the calls that run: without them the API takes none.
fn with_open_calls(history: &[MessageParam]) -> Vec<MessageParam> {
    let mut history = history.to_vec();
    let last = history.last().filter(|last| last.role == Role::Assistant);
    let open: Vec<ContentBlock> = last.map_or_else(Vec::new, |last| {
        calls(&last.content).map(|id| ContentBlock::tool_result(id, words::STILL_RUNNING, false)).collect()
    });
    if !open.is_empty() {
        history.push(MessageParam::new(Role::User, open));
    }
    history
}

/// The first line of what a reply says.
fn line(content: &[ContentBlock]) -> Option<String> {
    let text = content.iter().find_map(|block| match block {
        ContentBlock::Text { text, .. } => text.lines().map(str::trim).find(|line| !line.is_empty()),
        ContentBlock::Thinking { .. }
        | ContentBlock::ToolUse { .. }
        | ContentBlock::ToolResult { .. }
        | ContentBlock::Other(_) => None,
    })?;
    Some(text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect())
}
