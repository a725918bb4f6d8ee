//! An upstream of plain bytes: keeps requests byte for byte and answers with what it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

/// The upstream. Each answer is given once, in order; after the last one it holds.
pub struct Raw {
    pub url: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    requests: Mutex<Vec<Vec<u8>>>,
    answers: Mutex<VecDeque<Answer>>,
    came: Notify,
    left: Semaphore,
}

/// An answer: pieces, each sent by itself, then the end.
pub struct Answer {
    pub pieces: Vec<Vec<u8>>,
    pub pause: std::time::Duration,
    pub then: Then,
}

/// What happens after an answer.
#[derive(Clone, Copy)]
pub enum Then {
    /// The next request on the same connection.
    Keep,
    /// The connection is closed.
    Close,
    /// Nothing, until the client leaves.
    Hold,
}

impl Answer {
    pub fn of(text: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { pieces: vec![text.into()], pause: std::time::Duration::ZERO, then }
    }

    /// An event stream in chunked encoding, one chunk a piece.
    pub fn stream(pieces: &[&[u8]], then: Then) -> Self {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_up\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        let mut all = vec![head.as_bytes().to_vec()];
        for piece in pieces {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            all.push(chunk);
        }
        if matches!(then, Then::Keep) {
            all.push(b"0\r\n\r\n".to_vec());
        }
        Self { pieces: all, pause: std::time::Duration::ZERO, then }
    }

    /// A reply in one piece.
    pub fn json(status: &str, lines: &str, body: &str) -> Self {
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{lines}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::of(text, Then::Keep)
    }
}

impl Raw {
    pub async fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base", listener.local_addr().unwrap());
        let state = Arc::new(State {
            requests: Mutex::default(),
            answers: Mutex::new(answers.into()),
            came: Notify::new(),
            left: Semaphore::new(0),
        });
        let shared = Arc::clone(&state);
        let tracker = tokio_util::task::TaskTracker::new();
        let task = tracker.spawn(async move {
            let connections = tokio_util::task::TaskTracker::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                connections.spawn(async move { drop(connection(state, stream).await) });
            }
        });
        Self { url, state, task }
    }

    /// The requests so far, byte for byte.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.state.requests.lock().unwrap();
        requests.iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }

    /// Waits for so many requests.
    pub async fn wait_for(&self, count: usize) {
        loop {
            let mut came = std::pin::pin!(self.state.came.notified());
            came.as_mut().enable();
            if self.state.requests.lock().unwrap().len() >= count {
                return;
            }
            came.await;
        }
    }

    /// Waits until a client left that was held.
    pub async fn client_left(&self) {
        self.state.left.acquire().await.unwrap().forget();
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(state: Arc<State>, mut stream: TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let request = loop {
            if let Some(end) = whole(&read) {
                break read.drain(..end).collect::<Vec<u8>>();
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        };
        // The answer first: who waits for a request counts on its answer being taken.
        let answer = state.answers.lock().unwrap().pop_front();
        state.requests.lock().unwrap().push(request);
        state.came.notify_waiters();
        let answer = answer.unwrap_or_else(|| Answer::of("", Then::Hold));
        for piece in answer.pieces {
            stream.write_all(&piece).await?;
            tokio::time::sleep(answer.pause).await;
        }
        match answer.then {
            Then::Keep => (),
            Then::Close => return Ok(()),
            Then::Hold => {
                while stream.read_buf(&mut read).await.is_ok_and(|more| more > 0) {}
                state.left.add_permits(1);
                return Ok(());
            }
        }
    }
}

/// Where the first request ends, if it is all there.
fn whole(read: &[u8]) -> Option<usize> {
    let end = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let end = end + length.unwrap_or(0);
    (read.len() >= end).then_some(end)
}
