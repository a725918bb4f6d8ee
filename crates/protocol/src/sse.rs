//! Server-sent events, without I/O: bytes in, events out, whatever the chunking.
//!
//! source: WHATWG HTML, "9.2 Server-sent events". Lines end in LF, CR or CRLF; a leading BOM is dropped.

/// The longest event (data and name together) that the decoder keeps, in bytes. The largest known event is a whole
/// tool input in one delta; 1 MiB is the line limit of the agent protocol too.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event:` field; empty when there was none.
    pub event: String,
    /// The `data:` lines, joined by LF.
    pub data: String,
    /// The `id:` field, if this event had one.
    pub id: Option<String>,
}

/// Why decoding cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// An event grew over the decoder's limit.
    #[error("read the event stream: an event is over {MAX_EVENT_BYTES} bytes")]
    TooLarge,
}

/// Turns bytes into events. Feed it any chunks; it keeps what is not complete yet, at most [`MAX_EVENT_BYTES`]
/// unless another limit is set.
#[derive(Debug)]
pub struct SseDecoder {
    limit: usize,
    line: Vec<u8>,
    after_cr: bool,
    past_first_line: bool,
    event: String,
    data: String,
    has_data: bool,
    id: Option<String>,
}

impl Default for SseDecoder {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT_BYTES)
    }
}

impl SseDecoder {
    /// A decoder that keeps at most this many bytes of an event.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            after_cr: false,
            past_first_line: false,
            event: String::new(),
            data: String::new(),
            has_data: false,
            id: None,
        }
    }

    /// Takes a chunk and appends the events that it completes to `events`.
    ///
    /// # Errors
    /// [`SseError::TooLarge`]; the decoder must then be thrown away.
    pub fn feed(&mut self, chunk: &[u8], events: &mut Vec<SseEvent>) -> Result<(), SseError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let piece = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + self.data.len() + self.event.len() + piece.len() > self.limit {
                return Err(SseError::TooLarge);
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { break };
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line());
        }
        Ok(())
    }

    /// Ends the stream: an event whose closing blank line was lost is still given, because its data may carry the
    /// final usage. So is a last line without its end, if the event's data is whole JSON with it; a line that was cut
    /// in the middle is dropped.
    #[must_use]
    pub fn finish(mut self) -> Option<SseEvent> {
        let before = (self.event.clone(), self.data.clone(), self.has_data, self.id.clone());
        if !self.line.is_empty() {
            // A line that is not empty never ends an event.
            let _ = self.end_line();
            if serde_json::from_str::<serde::de::IgnoredAny>(&self.data).is_err() {
                (self.event, self.data, self.has_data, self.id) = before;
            }
        }
        self.dispatch()
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let mut text = String::from_utf8_lossy(&line);
        if !std::mem::replace(&mut self.past_first_line, true)
            && let Some(rest) = text.strip_prefix('\u{feff}')
        {
            text = rest.to_owned().into();
        }
        if text.is_empty() {
            return self.dispatch();
        }
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment (empty field name), `retry`, or a field that the standard says to ignore.
            _ => (),
        }
        None
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        let id = self.id.take();
        std::mem::take(&mut self.has_data).then_some(SseEvent { event, data, id })
    }
}
