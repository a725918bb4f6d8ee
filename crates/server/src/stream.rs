//! `GET /v1/sessions/{id}/events/stream`: the events of a session as they come, and after a cut from where it was.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::{Interval, MissedTickBehavior};
use wardian_session::{Followed, Follower, Previews};
use wardian_store::SessionStatus;

use crate::App;
use crate::auth::{Identity, reader};
use crate::error::Error;
use crate::managed::{session_error, session_id};
use crate::query::Query;
use crate::{metrics, readers};

/// What a browser's `EventSource` sends when it comes again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What has to stand in it.
const SEQ: &str = "the `id` of an event of this stream, a whole number";
/// Kinds of events that there are previews of.
const MAX_PREVIEWS: usize = 2;
/// What a quiet stream says; proxies close what is silent.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The handler. All is authorised and checked before the stream begins; after that there are events only.
pub async fn stream(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Error> {
    let identity = reader(&app, &request).await?;
    let (text, id) = session_id(path)?;
    let caller = identity.caller();
    let session = app.engine.get_session(&caller, &id).await.map_err(|error| session_error(error, &text))?;
    let asked = read(request.uri().query(), request.headers())?;
    let begins = begin(asked.after, session.last_seq)?;
    let place = app.readers.take(identity.org(), &id)?;
    let body =
        if session.status == SessionStatus::Terminated && begins.is_none_or(|seq| seq >= session.last_seq) {
            // Nothing will come.
            Body::empty()
        } else {
            let follower = app.engine.follow(&caller, &id, begins, asked.previews).await;
            let follower = follower.map_err(|error| session_error(error, &text))?;
            Body::from_stream(Told::new(app, identity, follower, place).into_stream())
        };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, body).into_response())
}

/// What the request asks for.
#[derive(Debug, PartialEq)]
struct Asked {
    after: Option<u64>,
    previews: Previews,
}

fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Asked, Error> {
    let mut query = Query::read(query)?;
    let after = query.optional("after", SEQ, |text| text.parse().ok());
    let expected = "`agent.message` or `agent.thinking`";
    let kinds = query.list("event_deltas", expected, MAX_PREVIEWS, |text| match text {
        "agent.message" => Some(Previews { message: true, thinking: false }),
        "agent.thinking" => Some(Previews { message: false, thinking: true }),
        _ => None,
    });
    let mut previews = Previews::default();
    for kind in kinds.unwrap_or_default() {
        previews.message |= kind.message;
        previews.thinking |= kind.thinking;
    }
    let last = read_last_event_id(headers)?;
    if let (Some(after), Some(last)) = (after, last)
        && after != last
    {
        query.error("after", format!("{after}, and the header Last-Event-ID says {last}: send one of them"));
    }
    query.finish()?;
    Ok(Asked { after: after.or(last), previews })
}

fn read_last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let (value, more) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let seq = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    match (seq, more) {
        (Some(seq), None) => Ok(Some(seq)),
        _ => Err(Error::invalid(format!("the header Last-Event-ID: expected {SEQ}"))),
    }
}

/// After which event the stream begins; `None`: with what comes from now on. An event that is not there yet is refused: a
/// client that waits for what comes after it has mistaken the session or the server, and would miss all until then.
fn begin(after: Option<u64>, last_seq: u64) -> Result<Option<u64>, Error> {
    match after {
        Some(after) if after > last_seq => {
            Err(Error::invalid(format!("no event {after} to go on after: the last one is {last_seq}")))
        }
        begins => Ok(begins),
    }
}

/// A stream under way.
struct Told {
    app: Arc<App>,
    identity: Identity,
    follower: Follower,
    ticks: Interval,
    over: bool,
    _place: readers::Reader,
    _counted: metrics::Reader,
}

impl Told {
    fn new(app: Arc<App>, identity: Identity, follower: Follower, place: readers::Reader) -> Self {
        let mut ticks = tokio::time::interval(app.config.keep_alive);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let counted = app.config.metrics.reader();
        Self { app, identity, follower, ticks, over: false, _place: place, _counted: counted }
    }

    /// The stream's bytes. A client that takes them slowly is waited for by nobody but itself; one that takes nothing for
    /// `ServerConfig::write_timeout` is cut off with its connection.
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut told| async move {
            let bytes = told.next().await?;
            Some((Ok(bytes), told))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        // The tick comes first: a reader whose key was revoked sees nothing more, however much there is.
        tokio::select! {
            biased;
            () = self.app.ended.cancelled() => None,
            _ = self.ticks.tick() => self.may_go_on().await.then_some(KEEP_ALIVE),
            followed = self.follower.next() => {
                let followed = followed.unwrap_or_else(|error| {
                    tracing::warn!(%error, "a stream ends: its events cannot be read; the client can go on later");
                    None
                })?;
                self.over = is_last(&followed);
                Some(frame(&followed))
            }
        }
    }

    /// Whether the key is still good. It was right when the stream began; since then it may have been revoked.
    async fn may_go_on(&self) -> bool {
        match self.app.store.key(self.identity.key_id()).await {
            Ok(key) => key.is_some_and(|key| key.revoked_at.is_none()),
            Err(error) => {
                tracing::warn!(%error, "a stream ends: its key could not be checked");
                false
            }
        }
    }
}

/// Whether nothing comes after it.
fn is_last(followed: &Followed) -> bool {
    match followed {
        Followed::Event { kind, .. } => matches!(&**kind, "session.deleted" | "session.status_terminated"),
        Followed::Preview { .. } => false,
    }
}

/// One event on the wire. Its text goes out as it was stored; only what is stored has an `id` to go on after.
fn frame(followed: &Followed) -> Bytes {
    let (kind, seq, data) = match followed {
        Followed::Event { seq, kind, data } => (&**kind, Some(seq), data),
        Followed::Preview { kind, data } => (*kind, None, data),
    };
    let mut text = String::with_capacity(data.len() + kind.len() + 48);
    text.push_str("event: ");
    text.push_str(kind);
    if let Some(seq) = seq {
        text.push_str("\nid: ");
        text.push_str(&seq.to_string());
    }
    // JSON text has no line ends; if it ever had, each line is a field of its own.
    for line in data.split(['\r', '\n']) {
        text.push_str("\ndata: ");
        text.push_str(line);
    }
    text.push_str("\n\n");
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_stored_text() {
        let event =
            Followed::Event { seq: 7, kind: "agent.message".into(), data: "{\"id\":\"sevt_1\"}".into() };
        assert_eq!(frame(&event), "event: agent.message\nid: 7\ndata: {\"id\":\"sevt_1\"}\n\n");
        let preview = Followed::Preview { kind: "event_delta", data: "{}".into() };
        assert_eq!(frame(&preview), "event: event_delta\ndata: {}\n\n");
        let forged = Followed::Preview { kind: "event_delta", data: "{\n\rid: 9}".into() };
        assert_eq!(frame(&forged), "event: event_delta\ndata: {\ndata: \ndata: id: 9}\n\n");
        assert!(is_last(&Followed::Event { seq: 1, kind: "session.deleted".into(), data: "{}".into() }));
        assert!(!is_last(&event));
    }

    #[test]
    fn where_it_begins_is_said_once_and_is_there() {
        let read = |query: &str, headers: &[&str]| {
            let mut map = HeaderMap::new();
            for value in headers {
                map.append(LAST_EVENT_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            read(Some(query), &map).map(|asked| asked.after).ok()
        };
        assert_eq!(read("", &[]), Some(None));
        assert_eq!(read("after=7", &[]), Some(Some(7)));
        assert_eq!(read("after=", &["8"]), Some(Some(8)));
        assert_eq!(read("after=8", &["8"]), Some(Some(8)));
        for (query, headers) in [
            ("after=7", ["8"].as_slice()),
            ("after=-1", &[]),
            ("after=x", &[]),
            ("after=1.0", &[]),
            ("after=99999999999999999999", &[]),
            ("after=1&after=1", &[]),
            ("", &["x"]),
            ("", &[""]),
            ("", &["é"]),
            ("", &["7", "7"]),
            ("event_deltas=user.message", &[]),
            ("types=user.message", &[]),
        ] {
            assert_eq!(read(query, headers), None, "{query} {headers:?}");
        }
        assert_eq!(begin(None, 5).ok(), Some(None));
        assert_eq!(begin(Some(5), 5).ok(), Some(Some(5)));
        assert!(begin(Some(6), 5).is_err());
    }

    #[test]
    fn previews_are_asked_for_as_each_stock_client_does() {
        let read = |query| read(Some(query), &HeaderMap::new()).unwrap().previews;
        let both = Previews { message: true, thinking: true };
        assert_eq!(read("event_deltas[]=agent.message&event_deltas[]=agent.thinking"), both);
        assert_eq!(read("event_deltas=agent.message&event_deltas=agent.thinking&beta=true"), both);
        assert_eq!(read("event_deltas%5B%5D=agent.thinking"), Previews { message: false, thinking: true });
        assert_eq!(read(""), Previews::default());
    }
}
