//! Event streams: what a reader gets, and when it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use wardian_server::ReaderLimits;
use wardian_store::Scope;

use super::agents::NO_MODEL;
use super::app::App;
use super::client::request;
use super::sessions::session;

/// A reader of a stream.
struct Tail {
    stream: TcpStream,
    text: String,
}

impl Tail {
    async fn open(app: &App, key: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        let headers: Vec<_> = [("x-api-key", key)].iter().chain(headers).copied().collect();
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        stream.write_all(&request("GET", path, &headers, b"")).await.unwrap();
        let mut tail = Self { stream, text: String::new() };
        tail.until("\r\n\r\n").await;
        tail
    }

    /// Reads until the text is there.
    async fn until(&mut self, needle: &str) {
        while !self.text.contains(needle) {
            assert!(self.more().await, "no {needle:?} in {}", self.text);
        }
    }

    /// Reads to the end.
    async fn end(mut self) -> String {
        while self.more().await {}
        self.text
    }

    async fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read(&mut bytes)).await;
        let count = read.unwrap_or_else(|_| panic!("nothing more came: {}", self.text)).unwrap();
        self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }

    /// The frames so far, each with its id and its data.
    fn frames(&self) -> Vec<(Option<u64>, String)> {
        frames(&self.text)
    }
}

fn frames(text: &str) -> Vec<(Option<u64>, String)> {
    let mut frames = Vec::new();
    let mut id = None;
    for line in text.lines() {
        if let Some(number) = line.strip_prefix("id: ") {
            id = Some(number.parse().unwrap());
        }
        if let Some(data) = line.strip_prefix("data: ") {
            frames.push((id.take(), data.to_owned()));
        }
    }
    frames
}

/// Makes the session tell something.
async fn tell(app: &App, id: &str, title: &str) {
    let reply = app.post(&app.key, &format!("/v1/sessions/{id}"), &json!({"title": title})).await;
    assert_eq!(reply.status, 200, "{reply:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_what_comes_and_after_a_cut_what_it_missed() {
    let app = App::new(NO_MODEL).await;
    let id = session(&app, json!({})).await;
    let path = format!("/v1/sessions/{id}/events/stream");
    tell(&app, &id, "zero").await;
    let mut live = Tail::open(&app, &app.key, &path, &[]).await;
    assert!(live.text.starts_with("HTTP/1.1 200 OK"), "{}", live.text);
    for header in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(live.text.contains(header), "{}", live.text);
    }
    tell(&app, &id, "one").await;
    tell(&app, &id, "two").await;
    live.until("two").await;
    assert!(live.text.contains("event: session.updated\nid: 2\ndata: {"), "{}", live.text);
    let listed = app.get(&app.key, &format!("/v1/sessions/{id}/events")).await;
    // From the start, by either way to say so: the very texts that the list has.
    for (query, headers) in [
        ("?after=0", &[][..]),
        ("", &[("last-event-id", "0")]),
        ("?after=0&event_deltas[]=agent.message", &[("Last-Event-ID", "0")]),
    ] {
        let mut replay = Tail::open(&app, &app.key, &format!("{path}{query}"), headers).await;
        replay.until("two").await;
        let frames = replay.frames();
        assert_eq!(frames.iter().map(|(id, _)| id.unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(frames[1..], live.frames());
        let texts: Vec<_> = frames.into_iter().map(|(_, text)| text).collect();
        assert_eq!(listed.body, format!("{{\"data\":[{}],\"next_page\":null}}", texts.join(",")));
    }
    let mut after = Tail::open(&app, &app.key, &format!("{path}?after=2"), &[]).await;
    after.until("two").await;
    assert_eq!(after.frames(), live.frames()[1..]);
    for (query, headers, message) in [
        ("?after=2", &[("last-event-id", "1")][..], "send one of them"),
        ("?after=4", &[], "no event 4 to go on after: the last one is 3"),
        ("", &[("last-event-id", "9")], "no event 9"),
        ("", &[("last-event-id", "x")], "Last-Event-ID: expected"),
        ("?event_deltas=user.message", &[], "expected `agent.message` or `agent.thinking`"),
    ] {
        let reply = app.call(&app.key, "GET", &format!("{path}{query}"), headers, &Value::Null).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{reply:#?}");
        assert!(reply.body.contains(message), "{message}: {reply:#?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_says_that_it_lives_and_ends_with_its_key() {
    let app = App::with(NO_MODEL, |config| config.keep_alive = Duration::from_millis(20)).await;
    let id = session(&app, json!({})).await;
    let (key_id, key) = app.new_key_with_id(&[Scope::Read], None).await;
    let mut tail = Tail::open(&app, &key, &format!("/v1/sessions/{id}/events/stream"), &[]).await;
    tail.until(": keep-alive\n\n").await;
    tail.text.clear();
    tail.until(": keep-alive\n\n").await;
    app.store.revoke_key(&app.org, &key_id, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    tail.end().await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_session() {
    let app = App::new(NO_MODEL).await;
    let id = session(&app, json!({})).await;
    let tail = Tail::open(&app, &app.key, &format!("/v1/sessions/{id}/events/stream"), &[]).await;
    assert_eq!(app.delete(&app.key, &format!("/v1/sessions/{id}")).await.status, 200);
    let text = tail.end().await;
    assert!(text.contains("event: session.deleted\n") && text.ends_with("0\r\n\r\n"), "{text}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_server_stops() {
    let app = App::new(NO_MODEL).await;
    let id = session(&app, json!({})).await;
    let tail = Tail::open(&app, &app.key, &format!("/v1/sessions/{id}/events/stream"), &[]).await;
    let (text, ()) = tokio::join!(tail.end(), app.stop());
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_counted_and_their_places_come_back() {
    let limits = ReaderLimits { per_session: 2, per_org: 10, per_host: 10 };
    let app = App::with(NO_MODEL, |config| config.readers = limits).await;
    let id = session(&app, json!({})).await;
    let path = format!("/v1/sessions/{id}/events/stream");
    let first = Tail::open(&app, &app.key, &path, &[]).await;
    let _second = Tail::open(&app, &app.key, &path, &[]).await;
    let refused = app.get(&app.key, &path).await;
    assert_eq!((refused.status, refused.error_type().as_str()), (429, "rate_limit_error"), "{refused:#?}");
    assert!(
        refused.header("retry-after").is_some() && refused.body.contains("this session has as many readers")
    );
    drop(first);
    let freed = async {
        loop {
            let tail = Tail::open(&app, &app.key, &path, &[]).await;
            if tail.text.starts_with("HTTP/1.1 200") {
                return tail;
            }
        }
    };
    let _third = tokio::time::timeout(Duration::from_secs(10), freed).await.unwrap();
    app.stop().await;
}

/// A reader that never reads holds nobody up and is cut off; who reads gets everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_reader_stalls_nobody() {
    let limits = ReaderLimits { per_session: 2, per_org: 2, per_host: 2 };
    let app = App::with(NO_MODEL, |config| {
        config.readers = limits;
        config.write_timeout = Duration::from_millis(300);
        config.keep_alive = Duration::from_millis(100);
    })
    .await;
    let id = session(&app, json!({})).await;
    let path = format!("/v1/sessions/{id}/events/stream");
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let mut dead = socket.connect(app.address).await.unwrap();
    dead.write_all(&request("GET", &path, &[("x-api-key", &app.key)], b"")).await.unwrap();
    let mut alive = Tail::open(&app, &app.key, &path, &[]).await;
    let pairs = |number: usize| -> Value {
        (0..16).map(|index| (index.to_string(), json!(format!("{number}{}", "🦀".repeat(500))))).collect()
    };
    // Several megabytes: more than the kernel keeps for a connection.
    for number in 0..200 {
        let body = json!({"metadata": pairs(number), "title": format!("title {number}.")});
        let reply = app.post(&app.key, &format!("/v1/sessions/{id}"), &body).await;
        assert_eq!(reply.status, 200, "{reply:#?}");
        alive.until(&format!("title {number}.")).await;
        if number < 199 {
            alive.text.clear();
        }
    }
    let cut = async {
        loop {
            let tail = Tail::open(&app, &app.key, &path, &[]).await;
            if tail.text.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cut).await.unwrap();
    drop(dead);
    app.stop().await;
}
