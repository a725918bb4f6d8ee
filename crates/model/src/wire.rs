//! The connection under the HTTP server, which can be made to end badly.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How far a broken chunk promises more bytes than come.
const MISSING_BYTES: usize = 64;

/// Tells a connection to end badly once everything written so far is out.
#[derive(Clone, Debug, Default)]
pub(crate) struct CutSwitch(Arc<Mutex<Option<Order>>>);

#[derive(Debug)]
struct Order {
    /// Raw bytes that still go out.
    tail: Bytes,
    reset: bool,
}

impl CutSwitch {
    /// Ends the connection; `tail` goes out first, in a chunk that is longer than what comes of it.
    pub(crate) fn cut(&self, tail: &Bytes, reset: bool) {
        let mut raw = Vec::new();
        if !tail.is_empty() {
            raw.extend_from_slice(format!("{:x}\r\n", tail.len() + MISSING_BYTES).as_bytes());
            raw.extend_from_slice(tail);
        }
        *self.order() = Some(Order { tail: raw.into(), reset });
    }

    fn order(&self) -> std::sync::MutexGuard<'_, Option<Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A TCP connection with a [`CutSwitch`].
pub(crate) struct Wire {
    stream: TcpStream,
    switch: CutSwitch,
}

impl Wire {
    pub(crate) const fn new(stream: TcpStream, switch: CutSwitch) -> Self {
        Self { stream, switch }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.switch.order().as_ref().is_some_and(|order| order.reset) {
            // With no linger time the kernel sends RST in place of FIN. If it cannot, the end is orderly.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Comes when everything was written: the moment to cut.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut guard = this.switch.order();
        let Some(order) = guard.as_mut() else {
            drop(guard);
            return Pin::new(&mut this.stream).poll_flush(cx);
        };
        while !order.tail.is_empty() {
            match Pin::new(&mut this.stream).poll_write(cx, &order.tail) {
                Poll::Ready(Ok(written)) => order.tail.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the script cuts the connection here",
        )))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
