//! Server-sent events, read as a client does that does nothing else.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Server-sent events of a chunked answer.
pub struct Events {
    stream: BufReader<TcpStream>,
    text: String,
}

impl Events {
    /// Reads the head, which must be a 200.
    pub fn of(stream: TcpStream) -> Self {
        let mut events = Self { stream: BufReader::new(stream), text: String::new() };
        let status = events.line();
        assert!(status.starts_with("HTTP/1.1 200"), "{status}{}", events.rest());
        while !events.line().trim().is_empty() {}
        events
    }

    /// The next event's name and data; comments are passed over.
    pub fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let found = field("event: ").map(str::to_owned).zip(field("data: ").map(str::to_owned));
                self.text = rest.to_owned();
                if let Some((name, data)) = found {
                    return (name, serde_json::from_str(&data).expect("JSON"));
                }
            }
            self.read_chunk();
        }
    }

    fn read_chunk(&mut self) {
        let size = usize::from_str_radix(self.line().trim(), 16).expect("a chunk's size");
        assert_ne!(size, 0, "the stream ended without a result");
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).expect("the chunk");
        self.text.push_str(std::str::from_utf8(&chunk[..size]).expect("text"));
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line in time");
        line
    }

    fn rest(&mut self) -> String {
        let mut rest = String::new();
        let _ = self.stream.read_to_string(&mut rest);
        rest
    }
}
