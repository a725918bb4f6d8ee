//! Reads a conversation back. The file may end anywhere, hold lines that are none, or be what somebody else wrote:
//! what cannot be read is skipped, and what is left is made into a conversation that the API takes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::ops::Range;

use serde_json::Value;
use wardian_protocol::frame::MAX_HOST_LINE_BYTES;
use wardian_protocol::{ContentBlock, MessageParam, Role};

use super::line::{
    COMPACT_BOUNDARY, Line, REPLY_ENDED, REWOUND, SYSTEM_PROMPT, TOOL_STARTED, TOOL_STATE, TURN_ENDED,
};
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

/// What of a conversation is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) replay_after: Option<String>,
    /// Nothing after this message.
    pub(super) at: Option<String>,
    /// The prompt whose turn alone may come after it.
    pub(super) drops: Option<String>,
}

/// Why a conversation cannot be taken up where it was wanted.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It has no such message.
    NoMessage,
    /// What would be dropped is not the turn that was named.
    DropsMore(String),
    Io(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a file from its beginning. Blocks.
pub(super) fn read(mut file: &File, wanted: &Wanted) -> Result<Found, Unreadable> {
    if file.metadata()?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other("the transcript is too large").into());
    }
    file.seek(SeekFrom::Start(0))?;
    parse(BufReader::new(file), wanted)
}

pub(super) fn parse(mut source: impl BufRead + Seek, wanted: &Wanted) -> Result<Found, Unreadable> {
    let mut dropped = Dropped::default();
    let first = Reader { replay_after: wanted.replay_after.clone(), ..Reader::default() };
    let read = pass(&mut source, first, &dropped)?;
    for (line, to) in &read.rewinds {
        if let Some(place) = read.places.get(to).filter(|place| !dropped.contains(**place)) {
            dropped.add(place + 1..*line);
        }
    }
    if let Some(at) = &wanted.at {
        let place = read.places.get(at).filter(|place| !dropped.contains(**place));
        let place = *place.ok_or(Unreadable::NoMessage)?;
        if let Some(turn) = &wanted.drops {
            source.seek(SeekFrom::Start(0))?;
            only_this_turn(&mut source, place, &dropped, turn)?;
        }
        dropped.add(place + 1..usize::MAX);
    }
    if dropped.is_empty() {
        return Ok(read.finish());
    }
    source.seek(SeekFrom::Start(0))?;
    let again = Reader { replay_after: wanted.replay_after.clone(), ..Reader::default() };
    let mut read = pass(&mut source, again, &dropped)?;
    if wanted.at.is_some() {
        read.cut();
    }
    Ok(Found { dropped, ..read.finish() })
}

fn pass(source: &mut impl BufRead, mut reader: Reader, dropped: &Dropped) -> io::Result<Reader> {
    let mut line = Vec::new();
    let mut index = 0;
    while let Some(ended) = next_line(source, &mut line)? {
        reader.found.cut = !ended;
        let text = std::str::from_utf8(&line).ok();
        if let Some(line) = text.and_then(|text| serde_json::from_str::<Line<'_>>(text).ok()) {
            reader.index(&line, index);
            if dropped.contains(index) {
                reader.pass_over(&line);
            } else {
                reader.take_in(&line);
            }
        }
        if reader.places.len() > MAX_MESSAGES || reader.rewinds.len() > MAX_MESSAGES {
            return Err(io::Error::other("the conversation has too many messages"));
        }
        if reader.history_bytes > MAX_HISTORY_BYTES {
            return Err(io::Error::other("the conversation is too large"));
        }
        index += 1;
    }
    Ok(reader)
}

/// The lines that are no part of the conversation any more: ranges in their order that do not meet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dropped(Vec<Range<usize>>);

impl Dropped {
    /// Adds lines; none that begin later than these were added before.
    fn add(&mut self, lines: Range<usize>) {
        while self.0.pop_if(|last| last.start >= lines.start).is_some() {}
        if !lines.is_empty() {
            self.0.push(lines);
        }
    }

    pub(super) fn contains(&self, line: usize) -> bool {
        let after = self.0.partition_point(|range| range.start <= line);
        after > 0 && self.0[after - 1].contains(&line)
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks that what comes after a line is the turn of this prompt, and nothing else.
fn only_this_turn(
    source: &mut impl BufRead,
    after: usize,
    dropped: &Dropped,
    turn: &str,
) -> Result<(), Unreadable> {
    let mut text = Vec::new();
    let mut index = 0;
    let mut begun = false;
    while next_line(source, &mut text)?.is_some() {
        let line =
            std::str::from_utf8(&text).ok().and_then(|text| serde_json::from_str::<Line<'_>>(text).ok());
        let is_behind = index > after && !dropped.contains(index);
        index += 1;
        let Some(line) = line.filter(|_| is_behind) else { continue };
        let is_message = matches!(line.kind.as_str(), "user" | "assistant") && !line.is_sidechain;
        if !is_message || line.is_meta && !begun {
            continue;
        }
        let is_this = line.uuid.as_deref() == Some(turn);
        if !begun && !is_this {
            let uuid = line.uuid.unwrap_or_default();
            return Err(Unreadable::DropsMore(format!(
                "it would begin with {uuid}, which is not that prompt"
            )));
        }
        if begun && line.begins_turn() {
            let uuid = line.uuid.unwrap_or_default();
            return Err(Unreadable::DropsMore(format!("the prompt {uuid} came later")));
        }
        begun = true;
    }
    Ok(())
}

/// The next line, empty where it is too long. `None` at the end; else whether the line had its end.
pub(super) fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
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

/// The most messages of a file, those that were left out or summed up among them.
const MAX_MESSAGES: usize = 1_000_000;
/// How many of the last messages a summary may leave as they are.
const MAX_PRESERVED: usize = 64;

/// A reply whose lines are being read.
#[derive(Default)]
struct Reply {
    id: String,
    content: Vec<ContentBlock>,
    /// We wrote it, so that its end is noted if it had one.
    ours: bool,
}

/// A message that a summary may leave as it is.
struct Recent {
    uuid: String,
    /// It was told to the model beside another: what hooks have for it, with a prompt.
    is_beside: bool,
    message: MessageParam,
}

#[derive(Default)]
pub(super) struct Reader {
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
    /// The last messages, for a summary that leaves some of them.
    recent: VecDeque<Recent>,
    /// The messages that stay beside the summary that comes next.
    boundary: Option<Vec<String>>,
    /// Where messages lie, by their ids.
    places: HashMap<String, usize>,
    /// Where the conversation was taken up at an earlier message.
    rewinds: Vec<(usize, String)>,
    passes_over: bool,
    found: Found,
}

impl Reader {
    fn index(&mut self, line: &Line<'_>, index: usize) {
        if line.subtype.as_deref() == Some(REWOUND) {
            self.rewinds.extend(line.to.clone().map(|to| (index, to)));
        } else if let Some(uuid) = line.uuid.as_ref().filter(|_| !line.is_sidechain) {
            self.places.insert(uuid.clone(), index);
        }
    }

    /// Reads a line that is no part of the conversation any more: what it cost stays.
    fn pass_over(&mut self, line: &Line<'_>) {
        self.cut();
        self.cost(line);
    }

    /// Ends the conversation here: what there is of a reply stays, and nothing is under way.
    fn cut(&mut self) {
        if !std::mem::replace(&mut self.passes_over, true) {
            self.end_reply(Some(true));
            self.turn_open = Some(false);
            self.found.result = None;
        }
    }

    fn cost(&mut self, line: &Line<'_>) {
        if let Some((total, by_model)) = line.costs() {
            self.found.meter.restore(total, by_model);
        }
    }

    /// Puts a summary in the place of all before, but for the messages that its boundary left as they are.
    fn summed_up(&mut self, summary: MessageParam, kept: &[String]) {
        self.end_reply(None);
        let recent = std::mem::take(&mut self.recent);
        self.history.clear();
        self.history_bytes = 0;
        self.found.system_prompt = None;
        self.hear(summary);
        let mut goes_on = false;
        for Recent { uuid, is_beside, message } in recent {
            // What was told beside a message that stays, stays.
            goes_on = kept.contains(&uuid) || goes_on && is_beside;
            if goes_on {
                self.hear(message);
            }
        }
    }

    fn remember(&mut self, line: &Line<'_>, message: MessageParam) {
        if self.recent.len() == MAX_PRESERVED {
            self.recent.pop_front();
        }
        let is_beside = line.is_ours() && line.is_meta;
        self.recent.extend(line.uuid.clone().map(|uuid| Recent { uuid, is_beside, message }));
    }

    fn take_in(&mut self, line: &Line<'_>) {
        self.passes_over = false;
        match (line.kind.as_str(), line.subtype.as_deref()) {
            ("user" | "assistant", _) if line.is_sidechain => (),
            ("user", _) => self.user(line),
            ("assistant", _) => self.assistant(line),
            ("system", Some(TOOL_STARTED)) => self.started.extend(line.tool_use_id.clone()),
            ("system", Some(REPLY_ENDED)) => self.reply_ended(line),
            ("system", Some(COMPACT_BOUNDARY)) => {
                let metadata = line.compact_metadata.as_ref();
                let kept = metadata.and_then(|metadata| metadata.preserved_messages.as_ref());
                self.boundary = Some(kept.map(|kept| kept.uuids.clone()).unwrap_or_default());
            }
            ("system", Some(SYSTEM_PROMPT)) => self.found.system_prompt.clone_from(&line.system),
            ("system", Some(TOOL_STATE)) => {
                let state = line.state.clone().and_then(|state| serde_json::from_value(state).ok());
                self.found.tool_state.take_in(state.unwrap_or_default());
            }
            ("cost-state", _) => self.cost(line),
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
        if let Some(kept) = self.boundary.take().filter(|_| line.is_compact_summary) {
            return self.summed_up(message, &kept);
        }
        self.remember(line, message.clone());
        self.hear(message);
    }

    fn hear(&mut self, message: MessageParam) {
        match self.history.last_mut() {
            Some(last) if last.role == message.role => last.content.extend(message.content),
            Some(_) | None => self.history.push(message),
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
        reply.ours = line.is_ours();
        let content: Vec<ContentBlock> = message.content.iter().map(presentable).collect();
        reply.content.extend(content.iter().cloned());
        self.remember(line, MessageParam::new(Role::Assistant, content));
    }

    fn message(&mut self, line: &Line<'_>, bytes: usize) {
        self.history_bytes = self.history_bytes.saturating_add(bytes);
        if self.replays {
            self.found.replay.extend(line.frame());
        } else if self.replay_after.is_some() && self.replay_after == line.uuid {
            self.replays = true;
        }
        self.turn_open = line.is_ours().then_some(true);
        if line.uuid.is_some() {
            self.found.last_uuid.clone_from(&line.uuid);
        }
    }

    fn reply_ended(&mut self, line: &Line<'_>) {
        self.end_reply(Some(line.kept));
        self.stop_reason.clone_from(&line.stop_reason);
        self.cost(line);
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
