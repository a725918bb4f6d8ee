//! The body of an answer: steps, one after the other.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::plan::Step;
use crate::record::Patience;
use crate::wire::CutSwitch;

/// The body of an answer.
pub(crate) struct Body {
    steps: VecDeque<Step>,
    /// Known only for bodies that are not streamed.
    length: Option<u64>,
    waiting: Option<Pin<Box<Sleep>>>,
    script: Option<Scripted>,
}

/// What a body needs beyond its bytes when a script made it.
struct Scripted {
    switch: CutSwitch,
    patience: Patience,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Body {
    /// A body that goes out as it is.
    pub(crate) fn plain(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self { steps: VecDeque::from([Step::Send(bytes)]), length: Some(length), waiting: None, script: None }
    }

    /// A body of a script. With a `length` it is announced, without it is sent in chunks.
    pub(crate) fn scripted(
        steps: Vec<Step>,
        length: Option<u64>,
        switch: CutSwitch,
        patience: Patience,
    ) -> Self {
        let shutdown = Box::pin(patience.shutdown().clone().cancelled_owned());
        let script = Some(Scripted { switch, patience, shutdown });
        Self { steps: steps.into(), length, waiting: None, script }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.steps.front() {
                None => {
                    self.finish();
                    return Poll::Ready(None);
                }
                Some(Step::Send(bytes)) => {
                    let frame = Frame::data(bytes.clone());
                    self.steps.pop_front();
                    if self.steps.is_empty() {
                        self.finish();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Step::Wait(time)) => {
                    self.waiting = Some(Box::pin(tokio::time::sleep(*time)));
                    self.steps.pop_front();
                }
                Some(Step::Hold) => return Poll::Pending,
                Some(Step::Cut { tail, reset }) => {
                    if let Some(script) = &self.script {
                        script.switch.cut(tail, *reset);
                    }
                    self.finish();
                    self.steps = VecDeque::from([Step::Hold]);
                    // The connection cuts when it next flushes, and it flushes when it is polled again.
                    cx.waker().wake_by_ref();
                }
            }
        }
    }

    /// Whatever happens to the connection from here on, the client did not leave too early.
    fn finish(&mut self) {
        if let Some(script) = &mut self.script {
            script.patience.end();
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let step = self.poll_step(cx);
        if step.is_pending()
            && let Some(script) = &mut self.script
            && script.shutdown.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(io::Error::other("the server is shutting down"))));
        }
        step
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
