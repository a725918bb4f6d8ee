//! A thousand readers of one stream, on one thread.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::sse::PATIENCE;

/// What ends a stream for these readers: the line that names the event.
pub const LAST: &str = "event: session.status_idle";

/// What one reader got.
#[derive(Default)]
pub struct Read {
    /// Rows by their `seq`, and when they were there, in microseconds since 1970.
    pub rows: Vec<(u64, u64)>,
    /// All that was sent, if it was to be kept: without the head and the lengths of chunks.
    pub text: String,
}

/// Connects so many readers.
pub async fn connect(address: SocketAddr, readers: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..readers {
        streams.push(TcpStream::connect(address).await.expect("the server listens"));
    }
    streams
}

/// Sends each reader's request, if there is one, and waits until all have had something.
pub async fn ask(streams: &mut [TcpStream], request: &str) {
    for stream in streams.iter_mut() {
        stream.write_all(request.as_bytes()).await.expect("the server reads");
    }
    for stream in streams {
        stream.readable().await.expect("an answer");
    }
}

/// Reads each stream until the turn has ended; the first reader keeps the text. Also says when the last one was done.
pub async fn read_all(streams: Vec<TcpStream>) -> (Vec<Read>, Instant) {
    let mut running = JoinSet::new();
    for (number, stream) in streams.into_iter().enumerate() {
        running.spawn(async move {
            let reading = tokio::time::timeout(PATIENCE, read(stream, number == 0));
            reading.await.expect("the turn ends")
        });
    }
    let mut all = running.join_all().await;
    all.sort_by_key(|read| read.text.is_empty());
    (all, Instant::now())
}

async fn read(mut stream: TcpStream, keep: bool) -> Read {
    let mut read = Read::default();
    let mut begun = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    let mut is_last = false;
    loop {
        let bytes = stream.read(&mut chunk).await.expect("a stream");
        assert_ne!(bytes, 0, "a stream ended early: {}", String::from_utf8_lossy(&begun));
        let at = micros();
        begun.extend_from_slice(&chunk[..bytes]);
        let text = std::str::from_utf8(&begun).expect("ASCII");
        let mut done = 0;
        while let Some(end) = text[done..].find('\n') {
            let line = &text[done..done + end];
            done += end + 1;
            if let Some(seq) = line.strip_prefix("id: ") {
                read.rows.push((seq.parse().expect("a number"), at));
            }
            is_last |= line == LAST;
            if keep && (line.is_empty() || !line.ends_with('\r')) {
                read.text.push_str(line);
                read.text.push('\n');
            }
            if is_last && line.is_empty() {
                return read;
            }
        }
        begun.drain(..done);
    }
}

/// The time, as another process knows it too.
#[expect(clippy::disallowed_methods, reason = "times of several processes are compared")]
pub fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// How long rows took to their readers, after `sent_at` said they were there.
pub fn delays(reads: &[Read], sent_at: impl Fn(u64) -> Option<u64>) -> Vec<Duration> {
    let rows = reads.iter().flat_map(|read| &read.rows);
    let delay = |(seq, at): &(u64, u64)| Some(Duration::from_micros(at.saturating_sub(sent_at(*seq)?)));
    rows.filter_map(delay).collect()
}
