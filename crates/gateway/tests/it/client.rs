//! A client on a door's socket. Speaks plain bytes where a test needs to.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wardian_gateway::OPENING_LINE;

/// A test hangs no longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client {
    pub stream: UnixStream,
    key: String,
    read: Vec<u8>,
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub whole: bool,
}

impl Client {
    pub async fn open(socket: &Path, key: &str) -> Self {
        let mut client = Self::bare(socket, key).await;
        client.send(OPENING_LINE.as_bytes()).await;
        client
    }

    /// Without the opening line.
    pub async fn bare(socket: &Path, key: &str) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        Self { stream, key: key.to_owned(), read: Vec::new() }
    }

    /// Sends bytes; a peer that has closed is no failure, its reply tells.
    pub async fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
    }

    /// A request as stock clients make it.
    pub async fn request(&mut self, method: &str, path: &str, body: &str) {
        let key = self.key.clone();
        self.request_with(method, path, &format!("x-api-key: {key}\r\n"), body).await;
    }

    /// A request with its own header lines.
    pub async fn request_with(&mut self, method: &str, path: &str, lines: &str, body: &str) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:4000\r\nanthropic-version: 2023-06-01\r\n\
             content-type: application/json\r\n{lines}content-length: {}\r\n\r\n",
            body.len()
        );
        self.send(head.as_bytes()).await;
        self.send(body.as_bytes()).await;
    }

    /// Asks and waits for the whole reply.
    pub async fn ask(&mut self, body: &str) -> Reply {
        self.request("POST", "/v1/messages?beta=true", body).await;
        self.reply().await
    }

    /// Reads more; false at the end.
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        matches!(read.expect("the gateway answers in time"), Ok(read) if read > 0)
    }

    /// Reads until `text` was read, and returns what was read so far.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let seen = String::from_utf8_lossy(&self.read).into_owned();
            if seen.contains(text) {
                return seen;
            }
            assert!(self.more().await, "the connection ended before {text:?}: {seen}");
        }
    }

    /// Reads one reply.
    pub async fn reply(&mut self) -> Reply {
        let reply = self.try_reply().await;
        reply.expect("the connection stays open until there is a reply")
    }

    /// Reads one reply, if the connection does not end first.
    pub async fn try_reply(&mut self) -> Option<Reply> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status == 100 {
            return Box::pin(self.try_reply()).await;
        }
        let mut reply = Reply { status, head, body: Vec::new(), whole: true };
        if reply.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            reply.whole = self.chunks(&mut reply.body).await;
        } else if let Some(length) = reply.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.read.len() < length {
                if !self.more().await {
                    reply.whole = false;
                    break;
                }
            }
            let length = length.min(self.read.len());
            reply.body = self.read.drain(..length).collect();
        }
        Some(reply)
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = find(&self.read, b"\r\n") else {
                if self.more().await {
                    continue;
                }
                return false;
            };
            let size = String::from_utf8_lossy(&self.read[..line]).into_owned();
            let size = usize::from_str_radix(&size, 16).unwrap();
            while self.read.len() < line + 2 + size + 2 {
                if !self.more().await {
                    return false;
                }
            }
            body.extend_from_slice(&self.read[line + 2..line + 2 + size]);
            self.read.drain(..line + 2 + size + 2);
            if size == 0 {
                return true;
            }
        }
    }

    /// Whether the peer closes without another byte.
    pub async fn ends(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The type and the message of an error reply.
    pub fn error(&self) -> (String, String) {
        let json = self.json();
        assert_eq!(json["type"], "error", "{json}");
        let field = |name: &str| json["error"][name].as_str().unwrap().to_owned();
        (field("type"), field("message"))
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
