//! What the server got: in memory for tests, and as a log file of JSON lines.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::script::Object;

/// Headers that carry keys: whole in memory only.
const KEY_HEADERS: [HeaderName; 4] = [
    HeaderName::from_static("x-api-key"),
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];
/// How many hexadecimal digits of a key's hash the log shows: enough to tell keys apart.
const DIGEST_DIGITS: usize = 16;

/// One request, as it came. `Debug` does not show keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// `POST`.
    pub method: http::Method,
    /// `/v1/messages`, without the query.
    pub path: String,
    /// `beta=true`; empty when there was none.
    pub query: String,
    /// All headers, keys included.
    pub headers: HeaderMap,
    /// The body; text when it was not JSON, null when there was none.
    pub body: Value,
    /// Whether it brought a key that this server takes.
    pub key_accepted: bool,
}

impl Recorded {
    /// The value of a header, when it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the newest user message with text says.
    #[must_use]
    pub fn last_user_text(&self) -> Option<String> {
        crate::conversation::last_user_text(&self.body)
    }
}

/// Marks the headers that carry keys, so that `Debug` does not show them.
pub(crate) fn hide_keys(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if KEY_HEADERS.contains(name) {
            value.set_sensitive(true);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: usize,
    aborted: usize,
}

/// Everything that one server got.
#[derive(Debug)]
pub(crate) struct Recorder {
    keep: usize,
    kept: Mutex<VecDeque<Recorded>>,
    /// How many requests `next` gave out.
    read: Mutex<usize>,
    counts: watch::Sender<Counts>,
    log: Option<tokio::sync::Mutex<tokio::fs::File>>,
}

impl Recorder {
    pub(crate) async fn new(keep: usize, log: Option<&Path>) -> io::Result<Self> {
        let log = match log {
            Some(path) => {
                let file = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await?;
                Some(tokio::sync::Mutex::new(file))
            }
            None => None,
        };
        let (kept, read) = (Mutex::default(), Mutex::default());
        Ok(Self { keep, kept, read, counts: watch::Sender::default(), log })
    }

    /// Takes a request in.
    pub(crate) fn push(&self, recorded: &Recorded) {
        let mut kept = self.kept();
        if self.keep > 0 {
            if kept.len() == self.keep {
                kept.pop_front();
            }
            kept.push_back(recorded.clone());
        }
        self.counts.send_modify(|counts| counts.requests += 1);
    }

    pub(crate) const fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// Appends one line to the log; it is there before the answer begins.
    pub(crate) async fn log(&self, line: &Value) {
        let Some(log) = &self.log else { return };
        let mut text = line.to_string();
        text.push('\n');
        let mut file = log.lock().await;
        let written = match file.write_all(text.as_bytes()).await {
            Ok(()) => file.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::error!(%error, "the request log cannot be written");
        }
    }

    pub(crate) fn all(&self) -> Vec<Recorded> {
        self.kept().iter().cloned().collect()
    }

    pub(crate) fn requests(&self) -> usize {
        self.counts.borrow().requests
    }

    pub(crate) fn aborted(&self) -> usize {
        self.counts.borrow().aborted
    }

    /// Waits until `count` requests came in all.
    pub(crate) async fn wait_for(&self, count: usize) {
        self.wait(|counts| counts.requests >= count).await;
    }

    /// Waits until `count` clients left too early.
    pub(crate) async fn wait_for_aborted(&self, count: usize) {
        self.wait(|counts| counts.aborted >= count).await;
    }

    /// The first request that was not given out yet.
    pub(crate) async fn next(&self) -> Recorded {
        loop {
            let wanted = {
                let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = self.kept();
                let first = self.requests() - kept.len();
                let wanted = (*read).max(first);
                if let Some(recorded) = kept.get(wanted - first) {
                    *read = wanted + 1;
                    return recorded.clone();
                }
                wanted
            };
            self.wait_for(wanted + 1).await;
        }
    }

    async fn wait(&self, enough: impl Fn(&Counts) -> bool) {
        let mut counts = self.counts.subscribe();
        counts.wait_for(|counts| enough(counts)).await.expect("the sender is part of self");
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Recorded>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches one answer: dropped before its end, the client left, and that is counted (unless the server is ending).
pub(crate) struct Patience {
    recorder: std::sync::Arc<Recorder>,
    shutdown: CancellationToken,
    ended: bool,
}

impl Patience {
    pub(crate) const fn new(recorder: std::sync::Arc<Recorder>, shutdown: CancellationToken) -> Self {
        Self { recorder, shutdown, ended: false }
    }

    pub(crate) const fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    pub(crate) const fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        if !self.ended && !self.shutdown.is_cancelled() {
            self.recorder.counts.send_modify(|counts| counts.aborted += 1);
        }
    }
}

/// One line of the log. Keys appear as the beginning of their hash only.
pub(crate) fn log_line(recorded: &Recorded, expects_key: bool, status: Option<u16>) -> Value {
    let mut headers = Object::new();
    for (name, value) in &recorded.headers {
        let text = if KEY_HEADERS.contains(name) {
            format!("sha256:{}", digest(key_of(value.as_bytes())))
        } else {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        match headers.get_mut(name.as_str()) {
            Some(Value::String(before)) => {
                before.push_str(", ");
                before.push_str(&text);
            }
            _ => {
                headers.insert(name.as_str().to_owned(), Value::String(text));
            }
        }
    }
    json!({
        "method": recorded.method.as_str(),
        "path": recorded.path,
        "query": recorded.query,
        "headers": headers,
        "key_as_expected": expects_key.then_some(recorded.key_accepted),
        "status": status,
        "body": recorded.body,
    })
}

/// The key in a header's value, so that one key has one hash in whichever header it comes.
pub(crate) fn key_of(value: &[u8]) -> &[u8] {
    match value.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
        _ => value.trim_ascii(),
    }
}

fn digest(key: &[u8]) -> String {
    let mut text = String::new();
    for byte in &Sha256::digest(key)[..DIGEST_DIGITS / 2] {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}
