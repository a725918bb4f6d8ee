//! One connection of a sandbox: the opening line, then HTTP/1.1.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, timeout};
use wardian_protocol::ApiErrorKind;

use crate::OPENING_LINE;
use crate::door::DoorState;
use crate::forward;
use crate::reply::Refusal;

/// The smallest read buffer that hyper takes.
const MIN_BUFFER_BYTES: usize = 8192;

/// Serves a connection to its end.
pub async fn serve(door: Arc<DoorState>, mut stream: UnixStream) {
    let config = &door.shared.config;
    match timeout(config.timeouts.opening, opening(&mut stream)).await {
        Ok(Ok(Opening::Gateway)) => (),
        Ok(Ok(Opening::Other)) => return explain(&door, stream).await,
        Ok(Err(_)) | Err(_) => return,
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(config.timeouts.request_head)
        .max_headers(config.limits.headers)
        .max_header_size(config.limits.head_bytes)
        .max_buf_size((2 * config.limits.head_bytes).max(MIN_BUFFER_BYTES));
    let stream = TokioIo::new(Patient::new(stream, config.timeouts.client_idle));
    let state = Arc::clone(&door);
    let service = service_fn(move |request| forward::serve(Arc::clone(&state), request));
    // A connection's error is the client's: it left, or it sent what is no HTTP and was told so.
    if let Err(error) = http.serve_connection(stream, service).await {
        tracing::debug!(session_id = %door.grant.session_id, %error, "a sandbox's connection broke off");
    }
}

/// What a connection opens with.
enum Opening {
    /// The line.
    Gateway,
    /// Something else.
    Other,
}

/// Reads the opening line and not a byte more. There is one, so that its length is known; what differs is refused with its
/// first byte.
async fn opening(stream: &mut UnixStream) -> io::Result<Opening> {
    let mut line = [0; OPENING_LINE.len()];
    let mut read = 0;
    while read < line.len() {
        let more = stream.read(&mut line[read..]).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read += more;
        if line[..read] != OPENING_LINE.as_bytes()[..read] {
            return Ok(Opening::Other);
        }
    }
    Ok(Opening::Gateway)
}

/// Tells a client that began with something else, most likely with HTTP, what is expected.
async fn explain(door: &DoorState, mut stream: UnixStream) {
    let message = format!("a connection begins with the line {:?}", OPENING_LINE.trim_end());
    let body = Refusal::new(ApiErrorKind::InvalidRequestError, message).into_json(&door.new_id());
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let writing = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.shutdown().await?;
        // What the client still has to say is read away for a moment, or it might not get to read the answer.
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // It gets the answer or it does not; either way the connection is over.
    let _: Result<io::Result<()>, _> = timeout(EXPLAIN_TIMEOUT, writing).await;
}

/// How long the explanation may take.
const EXPLAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A stream whose peer may be slow to read, but not for ever: a reply that nobody takes holds an upstream connection and a
/// reservation.
struct Patient {
    stream: UnixStream,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    const fn new(stream: UnixStream, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    fn check<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = Instant::now() + self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
