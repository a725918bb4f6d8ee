//! How long a client waits for the agent's first word.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Client, create, new_session};
use crate::Bench;
use crate::serve::{Serve, model};
use crate::sse::{Events, PATIENCE};
use crate::table::{Series, heading};

/// Sessions; each is asked twice.
const ROUNDS: usize = 100;
/// Of these, to warm up.
const WARM_UP: usize = 5;

/// Measures and prints.
pub fn measure(bench: &Bench) {
    let model = model(&bench.runtime, &json!([{"text": "Hello.", "repeat": true}]));
    let folder = tempfile::tempdir().expect("a folder");
    let server = Serve::start(folder.path(), &bench.libexec, &model.base_url(), "");
    let mut client = Client::new(&server);
    let body = new_session(&mut client);
    let mut accepted = Series::new("the event is accepted (both)");
    let mut cold = Series::new("cold: a new sandbox and agent → agent.message");
    let mut warm = Series::new("warm: the agent waits → agent.message");
    let mut idle = Series::new("warm → session.status_idle");
    for round in 0..ROUNDS + WARM_UP {
        let keep = round >= WARM_UP;
        let path = create(&mut client, &body);
        let mut events = stream(&server, &path);
        let first = ask(&mut client, &path, &mut events);
        let second = ask(&mut client, &path, &mut events);
        accepted.add(keep, first.accepted);
        accepted.add(keep, second.accepted);
        cold.add(keep, first.message);
        warm.add(keep, second.message);
        idle.add(keep, second.idle);
    }
    heading("POST …/events, user.message, to the stream");
    [accepted, cold, warm, idle].iter_mut().for_each(Series::print);
    server.end();
    bench.runtime.block_on(model.shutdown());
}

/// Follows a session from its beginning.
fn stream(server: &Serve, path: &str) -> Events {
    let mut stream = TcpStream::connect(server.address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let (address, key) = (server.address, &server.key);
    let request =
        format!("GET {path}/events/stream?after=0 HTTP/1.1\r\nhost: {address}\r\nx-api-key: {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    Events::of(stream)
}

/// What one message took.
struct Asked {
    accepted: Duration,
    message: Duration,
    idle: Duration,
}

fn ask(client: &mut Client, path: &str, events: &mut Events) -> Asked {
    let begun = Instant::now();
    let content = json!([{"type": "text", "text": "Go."}]);
    client
        .post(&format!("{path}/events"), &json!({"events": [{"type": "user.message", "content": content}]}));
    let mut asked = Asked { accepted: begun.elapsed(), message: Duration::ZERO, idle: Duration::ZERO };
    loop {
        let (name, data) = events.next();
        match name.as_str() {
            "agent.message" => asked.message = begun.elapsed(),
            "session.status_idle" => {
                assert!(!asked.message.is_zero(), "no message: {data}");
                asked.idle = begun.elapsed();
                return asked;
            }
            _ => assert_ne!(name, "session.error", "{data}"),
        }
    }
}
