//! What a turn uses up, and when its first things happened.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;
use wardian_protocol::Usage;

use crate::meter::no_usage;
use crate::random;

/// What the calls of a turn used.
#[derive(Debug)]
pub(crate) struct Spending {
    /// The turn's id, for hooks.
    pub(crate) turn_id: String,
    pub(crate) usage: Usage,
    pub(crate) api_time: Duration,
    pub(crate) times: Times,
    /// The ids that the host gave to the prompts of the turn, in their order.
    pub(crate) prompts: Vec<String>,
    /// The replies whose raw events were given.
    pub(crate) begun: Vec<String>,
}

/// When the first things of a turn happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) began: Instant,
    /// From the beginning to the first request.
    pub(crate) request: Option<Duration>,
    /// The wall clock at the first request, in milliseconds since the epoch.
    pub(crate) request_at_ms: Option<i64>,
    /// To the first event of the first reply.
    pub(crate) stream: Option<Duration>,
    /// To the first piece of content of the first reply.
    pub(crate) content: Option<Duration>,
    /// What the first request read: plain prompt tokens, and those from the cache.
    pub(crate) first_input: Option<(u64, u64)>,
}

impl Spending {
    pub(crate) fn new() -> Self {
        let times = Times {
            began: Instant::now(),
            request: None,
            request_at_ms: None,
            stream: None,
            content: None,
            first_input: None,
        };
        Self {
            turn_id: random::uuid(),
            usage: no_usage(),
            api_time: Duration::ZERO,
            times,
            prompts: Vec::new(),
            begun: Vec::new(),
        }
    }

    /// The fields by which a message is told to belong to its prompts; none where the host gave them no ids.
    pub(crate) fn marks(&self) -> Map<String, Value> {
        let mut marks = Map::new();
        if let Some(last) = self.prompts.last() {
            marks.insert("user_message_uuid".to_owned(), last.clone().into());
            marks.insert("user_message_uuids".to_owned(), self.prompts.clone().into());
        }
        marks
    }
}

impl Times {
    /// Notes that a request goes out.
    pub(crate) fn requested(&mut self, now: jiff::Timestamp) {
        let since = self.began.elapsed();
        self.request.get_or_insert(since);
        self.request_at_ms.get_or_insert(now.as_millisecond());
    }

    /// Notes that a reply begins.
    pub(crate) fn streams(&mut self, usage: &Usage) {
        let since = self.began.elapsed();
        self.stream.get_or_insert(since);
        let input = (usage.input_tokens.unwrap_or(0), usage.cache_read_input_tokens.unwrap_or(0));
        self.first_input.get_or_insert(input);
    }

    /// Notes that a reply has content.
    pub(crate) fn has_content(&mut self) {
        let since = self.began.elapsed();
        self.content.get_or_insert(since);
    }

    /// The fields of a result that say how long the first things took.
    pub(crate) fn fields(&self, is_marked: bool) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        put("ttft_ms", self.content.map(|since| millis(since).into()));
        put("ttft_stream_ms", self.stream.map(|since| millis(since).into()));
        put("time_to_request_ms", self.request.map(|since| millis(since).into()));
        put("first_content_frame_ms", self.content.map(|since| millis(since).into()));
        if is_marked {
            put("request_sent_wall_ms", self.request_at_ms.map(Value::from));
            put("first_request_input_tokens", self.first_input.map(|(input, _)| json!(input)));
            put("first_request_cache_read_input_tokens", self.first_input.map(|(_, read)| json!(read)));
        }
        fields
    }
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
