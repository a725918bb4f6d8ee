//! Reads a conversation back. The file may end anywhere, hold lines that are none, or be what somebody else wrote:
//! what cannot be read is skipped, and what is left is made into a conversation that the API takes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

use serde_json::Value;
use wardian_protocol::frame::MAX_HOST_LINE_BYTES;
use wardian_protocol::{ContentBlock, MessageParam, Role};

use super::line::{Line, REPLY_ENDED, TOOL_STARTED, TURN_ENDED};
use super::repair::repair;
use super::{Found, OpenReply};
use crate::Message;
use crate::frames::presentable;

/// The longest line that is read: the longest prompt, and room around it.
const MAX_LINE_BYTES: usize = MAX_HOST_LINE_BYTES + 64 * 1024;
/// The most that is read of a file: many times what a model can be told.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// The most that is kept in memory of what was said: more than the API takes in one request (32 MB).
const MAX_HISTORY_BYTES: usize = 96 * 1024 * 1024;

/// Reads a file from its beginning. Blocks.
pub(super) fn read(mut file: &File, replay_after: Option<String>) -> io::Result<Found> {
    if file.metadata()?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("the transcript is too large"));
    }
    file.seek(SeekFrom::Start(0))?;
    parse(BufReader::new(file), replay_after)
}

pub(super) fn parse(mut source: impl BufRead, replay_after: Option<String>) -> io::Result<Found> {
    let mut reader = Reader { replay_after, ..Reader::default() };
    let mut line = Vec::new();
    let mut cut = false;
    while let Some(ended) = next_line(&mut source, &mut line)? {
        cut = !ended;
        if let Ok(text) = std::str::from_utf8(&line)
            && let Ok(line) = serde_json::from_str::<Line<'_>>(text)
        {
            reader.take_in(&line);
        }
        if reader.history_bytes > MAX_HISTORY_BYTES {
            return Err(io::Error::other("the conversation is too large"));
        }
    }
    Ok(Found { cut, ..reader.finish() })
}

/// The next line, empty where it is too long. `None` at the end; else whether the line had its end.
fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut too_long = false;
    let mut any = false;
    loop {
        let chunk = source.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any.then_some(false));
        }
        any = true;
        let end = memchr::memchr(b'\n', chunk);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        too_long |= line.len() + part.len() > MAX_LINE_BYTES;
        if too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        source.consume(used);
        if end.is_some() {
            return Ok(Some(true));
        }
    }
}

/// A reply whose lines are being read.
#[derive(Default)]
struct Reply {
    id: String,
    content: Vec<ContentBlock>,
    /// We wrote it, so that its end is noted if it had one.
    ours: bool,
}

#[derive(Default)]
struct Reader {
    history: Vec<MessageParam>,
    history_bytes: usize,
    reply: Option<Reply>,
    stop_reason: Option<String>,
    /// Of the calls of the last reply.
    started: HashSet<String>,
    /// Whether a turn is under way; unknown where others wrote the lines.
    turn_open: Option<bool>,
    /// Until it is found.
    replay_after: Option<String>,
    replays: bool,
    found: Found,
}

impl Reader {
    fn take_in(&mut self, line: &Line<'_>) {
        match (line.kind.as_str(), line.subtype.as_deref()) {
            ("user" | "assistant", _) if line.is_sidechain => (),
            ("user", _) => self.user(line),
            ("assistant", _) => self.assistant(line),
            ("system", Some(TOOL_STARTED)) => self.started.extend(line.tool_use_id.clone()),
            ("system", Some(REPLY_ENDED)) => self.reply_ended(line),
            ("system", Some(TURN_ENDED)) => {
                self.end_reply(None);
                // One that failed for want of an answer, or of money, can be gone on with: its message stands unanswered.
                let failed = line.result.as_ref().is_some_and(lacks_answer);
                self.turn_open = (!failed).then_some(false);
                self.found.result = line.result.clone().filter(|_| !failed).and_then(result);
            }
            // What is not known says nothing.
            _ => (),
        }
    }

    fn user(&mut self, line: &Line<'_>) {
        let Some(raw) = line.message else { return };
        let Ok(message) = serde_json::from_str::<MessageParam>(raw.get()) else { return };
        self.message(line, raw.get().len());
        self.end_reply(None);
        if line.is_prompt {
            self.found.prompts.extend(line.uuid.clone());
            self.found.result = None;
        }
        match self.history.last_mut() {
            Some(last) if last.role == Role::User => last.content.extend(message.content),
            Some(_) | None => self.history.push(MessageParam::new(Role::User, message.content)),
        }
    }

    fn assistant(&mut self, line: &Line<'_>) {
        let Some(raw) = line.message else { return };
        let Ok(message) = serde_json::from_str::<wardian_protocol::Message>(raw.get()) else { return };
        self.message(line, raw.get().len());
        if message.model == "<synthetic>" {
            return;
        }
        if self.reply.as_ref().is_some_and(|reply| reply.id != message.id) {
            self.end_reply(None);
        }
        if self.reply.is_none() {
            self.started.clear();
        }
        let reply = self.reply.get_or_insert_with(Reply::default);
        reply.id = message.id;
        reply.ours = line.wardian_version.is_some();
        reply.content.extend(message.content.iter().map(presentable));
    }

    fn message(&mut self, line: &Line<'_>, bytes: usize) {
        self.history_bytes = self.history_bytes.saturating_add(bytes);
        if self.replays {
            self.found.replay.extend(line.frame());
        } else if self.replay_after.is_some() && self.replay_after == line.uuid {
            self.replays = true;
        }
        self.turn_open = line.wardian_version.is_some().then_some(true);
        if line.uuid.is_some() {
            self.found.last_uuid.clone_from(&line.uuid);
        }
    }

    fn reply_ended(&mut self, line: &Line<'_>) {
        self.end_reply(Some(line.kept));
        self.stop_reason.clone_from(&line.stop_reason);
        if let (Some(total), Some(by_model)) = (line.total_cost_usd, &line.model_usage) {
            self.found.meter.restore(total, by_model.clone());
        }
    }

    /// Takes the reply into the conversation. One of ours without its end was cut by a crash: with calls it stays, for
    /// those who watched saw them and wait for what comes of them; text alone is asked for again.
    fn end_reply(&mut self, kept: Option<bool>) {
        let Some(reply) = self.reply.take() else { return };
        self.stop_reason = None;
        let keep = kept.unwrap_or_else(|| !reply.ours || calls(&reply.content).next().is_some());
        if keep && !reply.content.is_empty() {
            self.history.push(MessageParam::new(Role::Assistant, reply.content));
        }
    }

    fn finish(mut self) -> Found {
        self.end_reply(None);
        let mut history = repair(self.history);
        let mut found = self.found;
        let ends_with_user = history.last().is_some_and(|last| last.role == Role::User);
        let open = take_open(&mut history, self.turn_open == Some(true));
        let unfinished = ends_with_user || open.as_ref().is_some_and(OpenReply::has_open_calls);
        found.interrupted = self.turn_open.unwrap_or(unfinished) && (open.is_some() || !history.is_empty());
        found.open =
            open.map(|open| OpenReply { stop_reason: self.stop_reason, started: self.started, ..open });
        found.history = history;
        found
    }
}

/// Takes the last reply off, with the results that it has, if calls of it are open, or if nothing followed it in a turn
/// that goes on.
fn take_open(history: &mut Vec<MessageParam>, goes_on: bool) -> Option<OpenReply> {
    let results = history.pop_if(|last| last.role == Role::User && only_results(last));
    let answered: HashMap<String, ContentBlock> = results
        .iter()
        .flat_map(|message| &message.content)
        .filter_map(|block| match block {
            ContentBlock::ToolResult { tool_use_id, .. } => Some((tool_use_id.clone(), block.clone())),
            _ => None,
        })
        .collect();
    let last = history.last().filter(|last| last.role == Role::Assistant);
    let content = last.map(|last| last.content.clone()).unwrap_or_default();
    let open = OpenReply { content, answered, ..OpenReply::default() };
    let nothing_followed = goes_on && results.is_none();
    if last.is_some() && (open.has_open_calls() || nothing_followed) {
        history.pop();
        return Some(open);
    }
    history.extend(results);
    None
}

/// Whether a result says that the model could not be asked, or not once more.
fn lacks_answer(result: &Value) -> bool {
    matches!(result["terminal_reason"].as_str(), Some("api_error" | "budget_exhausted"))
}

/// A result message as it was given.
fn result(mut value: Value) -> Option<Message> {
    value.as_object_mut()?.shift_remove("type");
    serde_json::from_value(value).ok().map(Message::Result)
}

fn only_results(message: &MessageParam) -> bool {
    message.content.iter().all(|block| matches!(block, ContentBlock::ToolResult { .. }))
}

/// The ids of the calls among blocks.
pub(crate) fn calls(content: &[ContentBlock]) -> impl Iterator<Item = &str> {
    content.iter().filter_map(|block| match block {
        ContentBlock::ToolUse { id, .. } => Some(id.as_str()),
        ContentBlock::Text { .. }
        | ContentBlock::Thinking { .. }
        | ContentBlock::ToolResult { .. }
        | ContentBlock::Other(_) => None,
    })
}

impl OpenReply {
    fn has_open_calls(&self) -> bool {
        calls(&self.content).any(|id| !self.answered.contains_key(id))
    }
}
