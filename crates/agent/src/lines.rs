//! Standard input and output as lines, each on a thread of its own: a host that does not read, or does not write, stalls
//! neither signals nor timers.

use std::io::{BufRead, IsTerminal as _, Write};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use wardian_protocol::frame::{MAX_HOST_LINE_BYTES, MAX_LINE_BYTES};

/// Lines on their way in, or out.
const QUEUE: usize = 16;

/// What came on standard input.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// A line, without its end.
    Line(String),
    /// A line over [`MAX_HOST_LINE_BYTES`]; no more is read.
    TooLong,
    /// A line that is not UTF-8; no more is read.
    NotText,
}

/// Reads lines until the end; then the channel closes.
pub fn read(source: impl BufRead + Send + 'static) -> std::io::Result<mpsc::Receiver<Input>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let read_all = move || {
        let mut source = source;
        while let Some(input) = next_line(&mut source) {
            let last = !matches!(input, Input::Line(_));
            if sender.blocking_send(input).is_err() || last {
                break;
            }
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).stack_size(STACK).spawn(read_all)?;
    Ok(receiver)
}

/// Waits for the first line that the host writes, and drops it. A host writes at once; one that finds the pipe closed tells
/// its user of that, and not of the exit status and what standard error says.
pub fn hear_first(grace: std::time::Duration) {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return;
    }
    let (sender, heard) = std::sync::mpsc::sync_channel(1);
    let read = move || {
        let _ = stdin.lock().skip_until(b'\n');
        let _ = sender.send(());
    };
    let thread = std::thread::Builder::new().name("first line".to_owned()).stack_size(STACK).spawn(read);
    if thread.is_ok() {
        // Late or never: the program ends either way.
        let _ = heard.recv_timeout(grace);
    }
}

/// The threads only copy lines.
const STACK: usize = 128 * 1024;

fn next_line(source: &mut impl BufRead) -> Option<Input> {
    let mut line = Vec::new();
    let mut limited = std::io::Read::take(&mut *source, (MAX_HOST_LINE_BYTES + 2) as u64);
    // A broken pipe ends the input like its end.
    limited.read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > MAX_HOST_LINE_BYTES {
        return Some(Input::TooLong);
    }
    Some(String::from_utf8(line).map_or(Input::NotText, Input::Line))
}

/// Where lines go.
#[derive(Clone, Debug)]
pub struct Output(mpsc::Sender<Vec<u8>>);

/// Nobody reads the output any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl Output {
    /// Writes to `sink` until the last `Output` is dropped, or it takes no more. The receiver tells when all is written.
    pub fn to(mut sink: impl Write + Send + 'static) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(QUEUE);
        let (done, written) = oneshot::channel();
        let write_all = move || {
            while let Some(line) = receiver.blocking_recv() {
                if sink.write_all(&line).and_then(|()| sink.flush()).is_err() {
                    break;
                }
            }
            drop(receiver);
            let _ = done.send(());
        };
        std::thread::Builder::new().name("stdout".to_owned()).stack_size(STACK).spawn(write_all)?;
        Ok((Self(sender), written))
    }

    /// Writes a frame as one line, shortened if it is too long for one.
    pub async fn frame(&self, frame: Value) -> Result<(), Gone> {
        self.text(line(frame)).await
    }

    /// Writes a text and the end of the line.
    pub async fn text(&self, mut text: String) -> Result<(), Gone> {
        text.push('\n');
        self.0.send(text.into_bytes()).await.map_err(|_| Gone)
    }

    /// Ends when nobody reads the output any more.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

/// A frame as a line under [`MAX_LINE_BYTES`]: where it is longer, its longest strings and lists are cut.
fn line(mut frame: Value) -> String {
    let mut text = frame.to_string();
    let mut longest = MAX_LINE_BYTES / 2;
    while text.len() >= MAX_LINE_BYTES {
        if longest < 64 {
            return outline(&frame).to_string();
        }
        cut(&mut frame, longest);
        text = frame.to_string();
        longest /= 2;
    }
    text
}

/// What a frame was of which only endless small parts are left. Whoever waits for an answer hears that there is none.
fn outline(frame: &Value) -> Value {
    let kept = ["type", "subtype", "uuid", "session_id", "request_id"];
    let fields = kept.iter().filter_map(|name| Some(((*name).to_owned(), frame.get(name)?.clone())));
    let mut rest: serde_json::Map<String, Value> = fields.collect();
    if frame["type"] == "control_response" {
        let (id, error) = (&frame["response"]["request_id"], "the answer is too long for a line");
        rest.insert("response".to_owned(), json!({"subtype": "error", "request_id": id, "error": error}));
    }
    if let Some(request) = frame["request"].as_object() {
        let plain = |(_, value): &(&String, &Value)| !(value.is_array() || value.is_object());
        let fields = request.iter().filter(plain).take(32).map(|(name, value)| (name.clone(), value.clone()));
        rest.insert("request".to_owned(), Value::Object(fields.collect()));
    }
    rest.insert("wardian_cut".to_owned(), json!(true));
    Value::Object(rest)
}

fn cut(value: &mut Value, longest: usize) {
    match value {
        Value::String(text) if text.len() > longest => {
            let whole = text.len();
            text.truncate(text.floor_char_boundary(longest));
            text.push_str(&format!("… [cut: {whole} bytes]"));
        }
        Value::Array(items) => {
            // Half of what the strings may have: a list item takes more than a byte.
            items.truncate((longest / 2).max(32));
            items.iter_mut().for_each(|item| cut(item, longest));
        }
        Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, longest)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_to_their_limit() {
        let long = "x".repeat(MAX_HOST_LINE_BYTES + 1);
        let just = "x".repeat(MAX_HOST_LINE_BYTES);
        let text = format!("a\n\nb\n{just}\n{long}\nnever\n");
        let mut source = text.as_bytes();
        let mut next = || next_line(&mut source);
        assert_eq!(next(), Some(Input::Line("a".to_owned())));
        assert_eq!(next(), Some(Input::Line(String::new())));
        assert_eq!(next(), Some(Input::Line("b".to_owned())));
        assert_eq!(next(), Some(Input::Line(just)));
        assert_eq!(next(), Some(Input::TooLong));
        assert_eq!(next_line(&mut &b"cut"[..]), Some(Input::Line("cut".to_owned())));
        assert_eq!(next_line(&mut &b"\xff\n"[..]), Some(Input::NotText));
        assert_eq!(next_line(&mut &b""[..]), None);
    }

    #[test]
    fn long_frames_become_short_lines() {
        let big = "é\"\n".repeat(1 << 18);
        for frame in [
            json!({"type": "user", "uuid": "u", "tool_use_result": {"originalFile": big, "content": big}}),
            json!({"type": "user", "uuid": "u", "tool_use_result": {"filenames": vec!["name"; 1 << 18]}}),
            json!({"type": "user", "uuid": "u", "x": vec![vec![1; 100]; 6_000]}),
            json!({"type": "user", "uuid": "u", "x": (0..200_000).map(|n| (n.to_string(), json!(n))).collect::<serde_json::Map<_, _>>()}),
        ] {
            let line = line(frame);
            assert!(line.len() < MAX_LINE_BYTES, "{}", line.len());
            let back: Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&back["type"], &back["uuid"]), (&json!("user"), &json!("u")));
        }
        let small = json!({"type": "user", "text": "x".repeat(1000)});
        assert_eq!(line(small.clone()), small.to_string());
    }

    #[test]
    fn who_waits_for_what_is_cut_to_nothing_hears_of_it() {
        let answer = json!({"type": "control_response",
            "response": {"subtype": "success", "request_id": "r", "response": {"x": [1]}}});
        let short = outline(&answer);
        assert_eq!(
            (&short["response"]["subtype"], &short["response"]["request_id"]),
            (&json!("error"), &json!("r"))
        );
        let question = json!({"type": "control_request", "request_id": "q",
            "request": {"subtype": "hook_callback", "callback_id": "h", "input": {"x": [1]}}});
        let short = outline(&question);
        assert_eq!((&short["request_id"], &short["request"]["callback_id"]), (&json!("q"), &json!("h")));
        assert_eq!(short["request"].get("input"), None);
    }
}
