//! Reads a copy of the reply for what it cost. The bytes themselves pass untouched, whatever is found here.

use std::borrow::Cow;

use http::{HeaderMap, header};
use serde::Deserialize;
use wardian_protocol::Usage;
use wardian_protocol::sse::{SseDecoder, SseEvent};

use crate::check::MAX_MODEL_BYTES;

/// A token of a reply that nobody counted is taken for three bytes: fewer than it mostly has, so never too cheap.
const BYTES_PER_TOKEN: u64 = 3;

/// Reads a reply as it comes.
#[derive(Debug)]
pub enum Meter {
    /// An event stream.
    Stream(Box<StreamMeter>),
    /// A reply in one piece.
    Whole(WholeMeter),
}

/// What was found in a reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The counts so far.
    pub usage: Usage,
    /// The model that answered.
    pub model: Option<String>,
    /// How much the counts can be relied on.
    pub certainty: Certainty,
    /// Tokens of the reply by its length, where it was not counted.
    pub written_tokens: u64,
    /// Whether tokens may have been written that did not show in the bytes: a reply in one piece that never came, or
    /// thinking of which only a summary is sent.
    pub hidden: bool,
    /// The type of the error that ended the reply.
    pub error: Option<String>,
}

/// How much a reading can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Certainty {
    /// Nothing of a reply came.
    #[default]
    Nothing,
    /// It began, and the final counts are missing.
    Partial,
    /// The final counts came.
    Final,
    /// It could not be read.
    Unreadable,
}

impl Meter {
    /// A meter for a reply with this head. A reply in one piece is read up to `limit` bytes.
    pub fn for_reply(headers: &HeaderMap, limit: usize) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
        let is_stream = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        let plain = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
        match (is_stream, plain) {
            (true, true) => Self::Stream(Box::default()),
            (false, true) => Self::Whole(WholeMeter { body: Vec::new(), limit, unreadable: false }),
            (_, false) => Self::Whole(WholeMeter { body: Vec::new(), limit, unreadable: true }),
        }
    }

    /// Takes a piece of the reply.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Stream(stream) => stream.feed(bytes),
            Self::Whole(whole) => whole.feed(bytes),
        }
    }

    /// Whether a piece of a streamed answer came, be it text, thinking or a tool's input.
    pub fn has_answer(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.has_answer,
            Self::Whole(_) => false,
        }
    }

    /// What was found, once no more comes. `complete` is whether the reply came to its end.
    pub fn finish(self, complete: bool) -> Reading {
        match self {
            Self::Stream(stream) => stream.finish(),
            Self::Whole(whole) => whole.finish(complete),
        }
    }
}

/// Reads an event stream.
#[derive(Debug, Default)]
pub struct StreamMeter {
    decoder: Option<SseDecoder>,
    events: Vec<SseEvent>,
    reading: Reading,
    written_bytes: u64,
    has_answer: bool,
    unreadable: bool,
}

impl StreamMeter {
    fn feed(&mut self, bytes: &[u8]) {
        if self.unreadable {
            return;
        }
        let mut events = std::mem::take(&mut self.events);
        let decoder = self.decoder.get_or_insert_default();
        self.unreadable = decoder.feed(bytes, &mut events).is_err();
        for event in events.drain(..) {
            self.take(&event);
        }
        self.events = events;
    }

    fn finish(mut self) -> Reading {
        if let Some(event) = self.decoder.take().and_then(SseDecoder::finish) {
            // It may be cut in the middle: that is no sign that the stream cannot be read.
            let unreadable = self.unreadable;
            self.take(&event);
            self.unreadable = unreadable;
        }
        let mut reading = self.reading;
        reading.written_tokens = self.written_bytes.div_ceil(BYTES_PER_TOKEN);
        if self.unreadable && reading.certainty != Certainty::Final {
            reading.certainty = Certainty::Unreadable;
        }
        reading
    }

    fn take(&mut self, event: &SseEvent) {
        let Ok(seen) = serde_json::from_str::<Event<'_>>(&event.data) else {
            // An event of another kind may carry anything; one that counts must be readable.
            self.unreadable |= matches!(event.event.as_str(), "message_start" | "message_delta");
            return;
        };
        match &*seen.kind {
            "message_start" => {
                let Some(message) = seen.message else { return };
                self.reading.certainty = Certainty::Partial;
                self.reading.model = message.model.and_then(model_name);
                self.reading.usage.merge(&message.usage.unwrap_or_default());
            }
            "message_delta" => {
                let Some(usage) = seen.usage else { return };
                if usage.output_tokens.is_some() {
                    self.reading.certainty = Certainty::Final;
                }
                self.reading.usage.merge(&usage);
            }
            "content_block_start" | "content_block_delta" => {
                self.has_answer = true;
                let part = seen.delta.or(seen.content_block).unwrap_or_default();
                self.reading.hidden |= part.kind.contains("thinking");
                self.written_bytes = self.written_bytes.saturating_add(part.bytes());
            }
            "error" => {
                let kind = seen.error.and_then(|error| error.kind);
                self.reading.error = Some(kind.unwrap_or_else(|| "unknown".to_owned()));
            }
            _ => (),
        }
    }
}

/// Reads a reply in one piece.
#[derive(Debug)]
pub struct WholeMeter {
    body: Vec<u8>,
    limit: usize,
    unreadable: bool,
}

impl WholeMeter {
    fn feed(&mut self, bytes: &[u8]) {
        if self.unreadable || self.body.len() + bytes.len() > self.limit {
            self.unreadable = true;
            self.body = Vec::new();
            return;
        }
        self.body.extend_from_slice(bytes);
    }

    fn finish(self, complete: bool) -> Reading {
        if self.unreadable {
            return Reading { certainty: Certainty::Unreadable, ..Reading::default() };
        }
        match serde_json::from_slice::<Message>(&self.body) {
            Ok(Message { model, usage: Some(usage) }) if usage.output_tokens.is_some() => {
                let model = model.and_then(model_name);
                Reading { usage, model, certainty: Certainty::Final, ..Reading::default() }
            }
            _ if complete => Reading { certainty: Certainty::Unreadable, ..Reading::default() },
            _ => {
                let written_bytes = u64::try_from(self.body.len()).unwrap_or(u64::MAX);
                let written_tokens = written_bytes.div_ceil(BYTES_PER_TOKEN);
                Reading { certainty: Certainty::Partial, written_tokens, hidden: true, ..Reading::default() }
            }
        }
    }
}

/// A model's name as far as it can be kept. One that cannot is priced as the model asked for.
fn model_name(name: String) -> Option<String> {
    let usable = !name.is_empty() && name.len() <= MAX_MODEL_BYTES && !name.contains(char::is_control);
    usable.then_some(name)
}

/// The parts of an event that count.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    message: Option<Message>,
    usage: Option<Usage>,
    #[serde(borrow)]
    delta: Option<BlockPart<'a>>,
    #[serde(borrow)]
    content_block: Option<BlockPart<'a>>,
    error: Option<ErrorPart>,
}

#[derive(Deserialize)]
struct Message {
    model: Option<String>,
    usage: Option<Usage>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BlockPart<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow)]
    partial_json: Cow<'a, str>,
    #[serde(borrow)]
    thinking: Cow<'a, str>,
}

impl BlockPart<'_> {
    fn bytes(&self) -> u64 {
        let bytes = self.text.len() + self.partial_json.len() + self.thinking.len();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

#[derive(Deserialize)]
struct ErrorPart {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","model":"claude-sonnet-5-5","usage":{"input_tokens":10,"cache_read_input_tokens":4,"output_tokens":1}}}"#;
    const DELTA: &str =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"12345678"}}"#;
    const END: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"cache_read_input_tokens":null,"output_tokens":7}}"#;

    fn stream(events: &[&str]) -> String {
        events.iter().map(|data| format!("data: {data}\n\n")).collect()
    }

    fn read(kind: &'static str, bytes: &[u8], chunk: usize, complete: bool) -> Reading {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let mut meter = Meter::for_reply(&headers, 1000);
        bytes.chunks(chunk).for_each(|piece| meter.feed(piece));
        meter.finish(complete)
    }

    fn read_stream(text: &str) -> Reading {
        read("text/event-stream; charset=utf-8", text.as_bytes(), 1 << 20, true)
    }

    #[test]
    fn later_counts_overwrite_and_zeros_do_not() {
        let text = stream(&[START, DELTA, r#"{"type":"ping"}"#, END]);
        let whole = read_stream(&text);
        assert_eq!(whole.certainty, Certainty::Final);
        assert_eq!(whole.model.as_deref(), Some("claude-sonnet-5-5"));
        let counts = |usage: &Usage| (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens);
        assert_eq!(counts(&whole.usage), (Some(10), Some(4), Some(7)));
        for chunk in 1..20 {
            assert_eq!(read("text/event-stream", text.as_bytes(), chunk, true), whole);
        }
        assert_eq!(read_stream(&text.replace('\n', "\r\n")), whole);
        let named = text.replace(
            "data: {\"type\":\"message_delta\"",
            "event: message_delta\ndata: {\"type\":\"message_delta\"",
        );
        for text in [&text, &named] {
            let cut = &text[..text.len() - 10];
            assert_eq!(read_stream(cut).certainty, Certainty::Partial, "the last line was cut");
        }
        assert_eq!(read_stream(&text[..text.len() - 1]), whole, "only the last blank line was");
        let json = r#"{"type":"message","model":"claude-sonnet-5-5","usage":{"input_tokens":10,"cache_read_input_tokens":4,"output_tokens":7}}"#;
        let json = read("application/json", json.as_bytes(), 3, true);
        assert_eq!((json.certainty, counts(&json.usage)), (Certainty::Final, counts(&whole.usage)));
    }

    #[test]
    fn a_cut_reply_counts_what_was_written() {
        let reading = read_stream(&stream(&[START, DELTA, DELTA]));
        assert_eq!(reading.certainty, Certainty::Partial);
        assert_eq!((reading.written_tokens, reading.hidden), (6, false), "16 bytes");
        assert_eq!(read_stream("").certainty, Certainty::Nothing);
        let thinking = r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"x"}}"#;
        assert!(read_stream(&stream(&[START, thinking])).hidden);
        let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#;
        assert_eq!(read_stream(&stream(&[START, error])).error.as_deref(), Some("overloaded_error"));
        let half = read("application/json", br#"{"type":"message","usage":{"inp"#, 100, false);
        assert_eq!((half.certainty, half.hidden), (Certainty::Partial, true));
    }

    #[test]
    fn unknown_events_are_passed_over_and_broken_counts_are_not_trusted() {
        let odd = "event: new_thing\ndata: not json\n\n: comment\n\nevent: x\n\ndata: [1]\n\n";
        let text = format!("{}{odd}{}", stream(&[START]), stream(&[END]));
        assert_eq!(read_stream(&text).certainty, Certainty::Final);
        let broken = format!("{}event: message_delta\ndata: {{\"usage\":\n\n", stream(&[START]));
        assert_eq!(read_stream(&broken).certainty, Certainty::Unreadable);
        let endless = format!("{}data: {}", stream(&[START]), "x".repeat(2 << 20));
        assert_eq!(read_stream(&endless).certainty, Certainty::Unreadable);
        assert_eq!(read("application/json", b"<html>", 9, true).certainty, Certainty::Unreadable);
        assert_eq!(read("application/json", &[b' '; 1001], 9, true).certainty, Certainty::Unreadable);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(Meter::for_reply(&headers, 9).finish(true).certainty, Certainty::Unreadable);
    }
}
