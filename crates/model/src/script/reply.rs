//! One reply of a script.

use std::time::Duration;

use serde_json::{Value, json};
use wardian_protocol::{ApiErrorKind, Usage};

use super::fields::{Fields, nearest_of};
use super::{Object, ScriptError};

/// The most deltas that one reply may be cut into: a stream is built in memory before it is sent.
const MAX_DELTAS: usize = 500_000;
const MAX_BLOCKS: usize = 10_000;
const MAX_PINGS: usize = 10_000;
const MAX_CHUNK_BYTES: usize = 1024 * 1024;
const DEFAULT_CHUNK_BYTES: usize = 16;
/// The field names of the usage object that [`Usage`] knows; a near miss of one of them is a typing error.
const USAGE_FIELDS: [&str; 12] = [
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_creation",
    "output_tokens_details",
    "fallback_credit",
    "server_tool_use",
    "service_tier",
    "speed",
    "inference_geo",
    "iterations",
];

/// One reply: whom it answers, what it says, and how the transport behaves meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub matches: Match,
    pub repeat: bool,
    pub answer: Answer,
    pub model: Option<String>,
    pub stop_reason: Option<String>,
    pub stop_sequence: Option<String>,
    /// The whole usage object, defaults filled in.
    pub usage: Object,
    pub headers: http::HeaderMap,
    pub delay: Duration,
    pub chunk_delay: Duration,
    pub chunk_bytes: usize,
    pub pings: usize,
    pub extra_events: Vec<ExtraEvent>,
    pub error_in_stream: Option<(usize, Failure)>,
    pub cut: Option<Cut>,
    pub hold: bool,
}

/// Which requests a reply answers. Everything that is set must fit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Match {
    pub last_text_contains: Option<String>,
    pub system_contains: Option<String>,
    pub tool_result_contains: Option<String>,
    pub model: Option<String>,
}

/// What a reply says.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These content blocks.
    Content(Vec<Value>),
    /// The last user text again.
    Echo,
    /// An HTTP error instead of a message.
    Error(Failure),
    /// Nothing: the connection ends without an answer.
    Drop,
}

/// An error of the API.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub status: http::StatusCode,
    pub kind: String,
    pub message: String,
    pub headers: http::HeaderMap,
}

/// An event that the API does not send (yet), put into the stream.
#[derive(Clone, Debug)]
pub(crate) struct ExtraEvent {
    pub after_events: usize,
    pub event: String,
    pub data: Value,
}

/// Where a connection ends too early, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub at: CutAt,
    /// A reset (RST) instead of an orderly end (FIN).
    pub reset: bool,
}

/// Where a connection ends too early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CutAt {
    /// After this many events of the stream, between two chunks.
    Events(usize),
    /// After this many bytes of the body, in the middle of a chunk.
    Bytes(usize),
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            matches: Match::default(),
            repeat: false,
            answer: Answer::Content(Vec::new()),
            model: None,
            stop_reason: None,
            stop_sequence: None,
            usage: default_usage(),
            headers: http::HeaderMap::new(),
            delay: Duration::ZERO,
            chunk_delay: Duration::ZERO,
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            pings: 0,
            extra_events: Vec::new(),
            error_in_stream: None,
            cut: None,
            hold: false,
        }
    }
}

impl Reply {
    /// Reads one reply strictly.
    pub(super) fn read(value: Value, at: &str) -> Result<Self, ScriptError> {
        let mut fields = Fields::of(value, at)?;
        let matches = match fields.take("match") {
            Some(value) => Match::read(value, &fields.at("match"))?,
            None => Match::default(),
        };
        let error_after = fields.opt_size("error_in_stream_after", 0, MAX_DELTAS)?;
        let error = match fields.take("error") {
            Some(value) => Some(Failure::read(value, &fields.at("error"))?),
            None => None,
        };
        let content = read_content(&mut fields)?;
        let drop = fields.flag("drop_connection")?;
        let error_in_stream =
            error_after.map(|after| (after, error.clone().unwrap_or_else(Failure::overloaded)));
        let error = error.filter(|_| error_after.is_none());
        let answer = match (content, error, drop) {
            (Some(answer), None, false) => answer,
            (None, Some(failure), false) => Answer::Error(failure),
            (None, None, true) => Answer::Drop,
            (None, None, false) if error_in_stream.is_some() => Answer::Content(Vec::new()),
            (None, None, false) => {
                let problem =
                    "says nothing: give text, thinking, tool_use, content, echo, error or drop_connection";
                return Err(ScriptError::field(at, problem));
            }
            (_, _, _) => {
                let problem = "an error, a dropped connection and content exclude each other";
                return Err(ScriptError::field(at, problem));
            }
        };
        let reply = Self {
            matches,
            answer,
            error_in_stream,
            repeat: fields.flag("repeat")?,
            model: fields.opt_string("model")?,
            stop_reason: fields.opt_string("stop_reason")?,
            stop_sequence: fields.opt_string("stop_sequence")?,
            usage: read_usage(&mut fields)?,
            headers: fields.headers("headers")?,
            delay: fields.delay("delay_ms")?,
            chunk_delay: fields.delay("chunk_delay_ms")?,
            chunk_bytes: fields.opt_size("chunk_bytes", 1, MAX_CHUNK_BYTES)?.unwrap_or(DEFAULT_CHUNK_BYTES),
            pings: fields.opt_size("pings", 0, MAX_PINGS)?.unwrap_or(0),
            extra_events: read_extra_events(&mut fields)?,
            cut: read_cut(&mut fields)?,
            hold: fields.flag("hold")?,
        };
        fields.finish()?;
        reply.check_size(at)?;
        Ok(reply)
    }

    fn check_size(&self, at: &str) -> Result<(), ScriptError> {
        let Answer::Content(blocks) = &self.answer else { return Ok(()) };
        let bytes: usize = blocks.iter().map(|block| block.to_string().len()).sum();
        if bytes / self.chunk_bytes > MAX_DELTAS {
            let problem = format!("more than {MAX_DELTAS} chunks; use a larger `chunk_bytes`");
            return Err(ScriptError::field(at, problem));
        }
        Ok(())
    }
}

impl Match {
    fn read(value: Value, at: &str) -> Result<Self, ScriptError> {
        let mut fields = Fields::of(value, at)?;
        let matches = Self {
            last_text_contains: fields.opt_string("last_text_contains")?,
            system_contains: fields.opt_string("system_contains")?,
            tool_result_contains: fields.opt_string("tool_result_contains")?,
            model: fields.opt_string("model")?,
        };
        fields.finish()?;
        Ok(matches)
    }
}

impl Failure {
    fn read(value: Value, at: &str) -> Result<Self, ScriptError> {
        let mut fields = Fields::of(value, at)?;
        let status = fields.opt_number("status", 400, 599)?;
        let kind = fields.opt_string("type")?;
        let message = fields.opt_string("message")?;
        let headers = fields.headers("headers")?;
        fields.finish()?;
        let (status, kind) = match (status, kind) {
            (Some(status), Some(kind)) => (status, kind),
            (Some(status), None) => (status, kind_of(status).as_str().to_owned()),
            (None, Some(kind)) => {
                let known: ApiErrorKind = serde_json::from_value(Value::String(kind.clone()))
                    .map_err(|error| ScriptError::field(at, error.to_string()))?;
                (u64::from(known.status()), kind)
            }
            (None, None) => return Err(ScriptError::field(at, "give a `status`, a `type`, or both")),
        };
        let message = message.unwrap_or_else(|| format!("the script answers with {kind}"));
        let status = u16::try_from(status)
            .ok()
            .and_then(|status| http::StatusCode::from_u16(status).ok())
            .expect("checked to be from 400 to 599");
        Ok(Self { status, kind, message, headers })
    }

    fn overloaded() -> Self {
        let kind = ApiErrorKind::OverloadedError;
        let status = http::StatusCode::from_u16(kind.status()).expect("529 is a status");
        Self {
            status,
            kind: kind.as_str().to_owned(),
            message: "Overloaded".to_owned(),
            headers: http::HeaderMap::new(),
        }
    }
}

fn kind_of(status: u64) -> ApiErrorKind {
    match status {
        401 => ApiErrorKind::AuthenticationError,
        402 => ApiErrorKind::BillingError,
        403 => ApiErrorKind::PermissionError,
        404 => ApiErrorKind::NotFoundError,
        409 => ApiErrorKind::ConflictError,
        413 => ApiErrorKind::RequestTooLarge,
        429 => ApiErrorKind::RateLimitError,
        504 => ApiErrorKind::TimeoutError,
        529 => ApiErrorKind::OverloadedError,
        400..=499 => ApiErrorKind::InvalidRequestError,
        _ => ApiErrorKind::ApiError,
    }
}

/// Reads what the reply says: `echo`, raw `content`, or thinking, text and tool calls, in this order.
fn read_content(fields: &mut Fields) -> Result<Option<Answer>, ScriptError> {
    let echo = fields.flag("echo")?;
    let thinking = fields.opt_string("thinking")?;
    let text = fields.opt_string("text")?;
    let tools = fields.opt_list("tool_use", MAX_BLOCKS)?;
    let content = fields.opt_list("content", MAX_BLOCKS)?;
    let simple = thinking.is_some() || text.is_some() || tools.is_some();
    if usize::from(echo) + usize::from(simple) + usize::from(content.is_some()) > 1 {
        let problem = "excludes `echo`, and both exclude `text`, `thinking` and `tool_use`";
        return Err(ScriptError::field(fields.at("content"), problem));
    }
    if echo {
        return Ok(Some(Answer::Echo));
    }
    if let Some(content) = content {
        let at = fields.at("content");
        for (index, block) in content.iter().enumerate() {
            if !block.get("type").is_some_and(Value::is_string) {
                return Err(ScriptError::field(
                    format!("{at}[{index}]"),
                    "a content block is an object with a `type`",
                ));
            }
        }
        return Ok(Some(Answer::Content(content)));
    }
    if !simple {
        return Ok(None);
    }
    let mut blocks = Vec::new();
    if let Some(thinking) = thinking {
        blocks.push(json!({"type": "thinking", "thinking": thinking, "signature": SIGNATURE}));
    }
    if let Some(text) = text {
        blocks.push(json!({"type": "text", "text": text}));
    }
    let at = fields.at("tool_use");
    for (index, call) in tools.into_iter().flatten().enumerate() {
        blocks.push(read_call(call, &format!("{at}[{index}]"))?);
    }
    Ok(Some(Answer::Content(blocks)))
}

/// What thinking is signed with; only its shape (base64) is real.
const SIGNATURE: &str = "c2NyaXB0ZWQgdGhpbmtpbmcsIHNpZ25lZCBieSBub2JvZHk=";

fn read_call(value: Value, at: &str) -> Result<Value, ScriptError> {
    let mut call = Fields::of(value, at)?;
    let name = call.string("name")?;
    let id = call.opt_string("id")?;
    let input = call.opt_object("input")?.unwrap_or_default();
    call.finish()?;
    // Without an id the server gives one, unlike any other of its life.
    Ok(json!({"type": "tool_use", "id": id, "name": name, "input": input}))
}

fn default_usage() -> Object {
    let usage = json!({
        "input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 5,
        "service_tier": "standard",
    });
    match usage {
        Value::Object(usage) => usage,
        _ => Object::new(),
    }
}

fn read_usage(fields: &mut Fields) -> Result<Object, ScriptError> {
    let at = fields.at("usage");
    let mut usage = default_usage();
    for (name, value) in fields.opt_object("usage")?.unwrap_or_default() {
        // New classes of tokens pass, near misses of the old ones do not: a test of money must not lose a number.
        if !USAGE_FIELDS.contains(&name.as_str())
            && let Some((near, 1..=2)) = nearest_of(&name, &USAGE_FIELDS)
        {
            return Err(ScriptError::field(at, format!("unknown field `{name}`; did you mean `{near}`?")));
        }
        usage.insert(name, value);
    }
    serde_json::from_value::<Usage>(Value::Object(usage.clone()))
        .map_err(|error| ScriptError::field(at, error.to_string()))?;
    Ok(usage)
}

fn read_extra_events(fields: &mut Fields) -> Result<Vec<ExtraEvent>, ScriptError> {
    let at = fields.at("extra_events");
    let events = fields.opt_list("extra_events", MAX_BLOCKS)?.unwrap_or_default();
    let read = |(index, value): (usize, Value)| {
        let at = format!("{at}[{index}]");
        let mut event = Fields::of(value, &at)?;
        let after_events = event.opt_size("after_events", 0, MAX_DELTAS)?.unwrap_or(0);
        let name = event.string("event")?;
        let data = event.take("data").unwrap_or_else(|| json!({ "type": name }));
        event.finish()?;
        if name.contains(['\n', '\r']) {
            return Err(ScriptError::field(at, "the name of an event is one line"));
        }
        Ok(ExtraEvent { after_events, event: name, data })
    };
    events.into_iter().enumerate().map(read).collect()
}

fn read_cut(fields: &mut Fields) -> Result<Option<Cut>, ScriptError> {
    let events = fields.opt_size("cut_after_events", 0, usize::MAX >> 1)?;
    let bytes = fields.opt_size("cut_after_bytes", 0, usize::MAX >> 1)?;
    let with = fields.opt_string("cut_with")?;
    let at = match (events, bytes) {
        (None, None) if with.is_some() => {
            return Err(ScriptError::field(
                fields.at("cut_with"),
                "needs `cut_after_events` or `cut_after_bytes`",
            ));
        }
        (None, None) => return Ok(None),
        (Some(events), None) => CutAt::Events(events),
        (None, Some(bytes)) => CutAt::Bytes(bytes),
        (Some(_), Some(_)) => {
            return Err(ScriptError::field(fields.at("cut_after_bytes"), "excludes `cut_after_events`"));
        }
    };
    let reset = match with.as_deref() {
        None | Some("eof") => false,
        Some("reset") => true,
        Some(_) => return Err(ScriptError::field(fields.at("cut_with"), "expected \"eof\" or \"reset\"")),
    };
    Ok(Some(Cut { at, reset }))
}
