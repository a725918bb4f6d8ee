//! Turns events into what the connection does: send, wait, hold, cut. Pure.

use std::time::Duration;

use bytes::Bytes;

use crate::render::{Event, error_event};
use crate::script::{Cut, CutAt, Reply};

/// How many bytes of a cut stream go into its broken last chunk.
const TAIL_BYTES: usize = 4;

/// One thing that a connection does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send these bytes at once.
    Send(Bytes),
    /// Do nothing for a while.
    Wait(Duration),
    /// Do nothing until the client leaves.
    Hold,
    /// End the connection; `tail` goes out before, in a chunk that promises more than it brings.
    Cut {
        /// May be empty: then the cut is between two chunks.
        tail: Bytes,
        /// With a reset.
        reset: bool,
    },
}

/// The steps of a streamed reply. What has no delay between it goes out as one piece.
pub(crate) fn streamed(reply: &Reply, mut events: Vec<Event>, request_id: &str) -> Vec<Step> {
    if let Some((after, failure)) = &reply.error_in_stream {
        events.truncate(*after);
        events.push(error_event(&failure.kind, &failure.message, request_id));
    } else if reply.hold {
        let open = events.iter().rposition(|event| !event.is_stop).map_or(0, |last| last + 1);
        events.truncate(open);
    }
    if let Some(Cut { at: CutAt::Events(after), .. }) = reply.cut {
        events.truncate(after);
    }
    let mut steps = Vec::new();
    let mut pending = String::new();
    for event in events {
        if event.is_delta && !reply.chunk_delay.is_zero() {
            send(&mut steps, &mut pending);
            steps.push(Step::Wait(reply.chunk_delay));
        }
        pending.push_str(&event.bytes);
    }
    send(&mut steps, &mut pending);
    match reply.cut {
        Some(Cut { at: CutAt::Events(_), reset }) => steps.push(Step::Cut { tail: Bytes::new(), reset }),
        Some(Cut { at: CutAt::Bytes(after), reset }) => cut_at(&mut steps, after, TAIL_BYTES, reset),
        None if reply.hold => steps.push(Step::Hold),
        None => (),
    }
    steps
}

/// The steps of a reply that is not streamed. It has no events: a cut after some of them brings no byte of the body.
pub(crate) fn whole(reply: &Reply, body: Bytes) -> Vec<Step> {
    let mut steps = vec![Step::Send(body)];
    match reply.cut {
        Some(Cut { at: CutAt::Events(_), reset }) => cut_at(&mut steps, 0, 0, reset),
        Some(Cut { at: CutAt::Bytes(after), reset }) => cut_at(&mut steps, after, 0, reset),
        None => (),
    }
    steps
}

fn send(steps: &mut Vec<Step>, pending: &mut String) {
    if !pending.is_empty() {
        steps.push(Step::Send(Bytes::from(std::mem::take(pending))));
    }
}

/// Keeps the first `bytes` bytes; the last `tail_bytes` of them become the broken chunk.
fn cut_at(steps: &mut Vec<Step>, bytes: usize, tail_bytes: usize, reset: bool) {
    let mut left = bytes;
    let mut kept = Vec::new();
    let mut tail = Bytes::new();
    for step in steps.drain(..) {
        let Step::Send(mut data) = step else {
            kept.push(step);
            continue;
        };
        if data.len() < left {
            left -= data.len();
            kept.push(Step::Send(data));
            continue;
        }
        data.truncate(left);
        tail = data.split_off(data.len().saturating_sub(tail_bytes));
        if !data.is_empty() {
            kept.push(Step::Send(data));
        }
        break;
    }
    kept.push(Step::Cut { tail, reset });
    *steps = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: &str, is_delta: bool, is_stop: bool) -> Event {
        Event { bytes: bytes.to_owned(), is_delta, is_stop }
    }

    fn events() -> Vec<Event> {
        vec![
            event("start;", false, false),
            event("one;", true, false),
            event("two;", true, false),
            event("stop;", false, true),
            event("end;", false, true),
        ]
    }

    fn sent(text: &'static str) -> Step {
        Step::Send(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn without_delays_a_reply_is_one_piece() {
        let steps = streamed(&Reply::default(), events(), "req_1");
        assert_eq!(steps, [sent("start;one;two;stop;end;")]);
    }

    #[test]
    fn a_delay_comes_before_each_delta() {
        let wait = Duration::from_millis(5);
        let reply = Reply { chunk_delay: wait, ..Reply::default() };
        let steps = streamed(&reply, events(), "req_1");
        assert_eq!(
            steps,
            [sent("start;"), Step::Wait(wait), sent("one;"), Step::Wait(wait), sent("two;stop;end;")]
        );
    }

    #[test]
    fn hold_stops_before_the_end_of_the_last_block() {
        let reply = Reply { hold: true, ..Reply::default() };
        assert_eq!(streamed(&reply, events(), "req_1"), [sent("start;one;two;"), Step::Hold]);
    }

    #[test]
    fn cuts_fall_where_they_are_asked() {
        let cut = |at, reset| Reply { cut: Some(Cut { at, reset }), ..Reply::default() };
        let broken =
            |tail: &'static str, reset| Step::Cut { tail: Bytes::from_static(tail.as_bytes()), reset };
        let steps = |at, reset| streamed(&cut(at, reset), events(), "req_1");
        assert_eq!(steps(CutAt::Events(2), true), [sent("start;one;"), broken("", true)]);
        assert_eq!(steps(CutAt::Events(0), false), [broken("", false)]);
        assert_eq!(steps(CutAt::Bytes(8), false), [sent("star"), broken("t;on", false)]);
        assert_eq!(steps(CutAt::Bytes(2), false), [broken("st", false)]);
        assert_eq!(steps(CutAt::Bytes(0), false), [broken("", false)]);
        // Further than there is: everything comes, the end of the body does not.
        assert_eq!(steps(CutAt::Bytes(1000), false), [sent("start;one;two;stop;end;"), broken("", false)]);
        let body = Bytes::from_static(b"{\"a\":1}");
        assert_eq!(whole(&cut(CutAt::Bytes(3), false), body.clone()), [sent("{\"a"), broken("", false)]);
        assert_eq!(whole(&cut(CutAt::Events(3), false), body), [broken("", false)]);
    }
}
