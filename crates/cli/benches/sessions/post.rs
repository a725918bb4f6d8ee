//! Events a second into logs, over HTTP.
//!
//! What a client may post at any rate without starting a turn is `user.interrupt`: it makes two rows of the log, as it was
//! accepted and as it was taken, and goes the way of all events: key, session, actor, commit. What the log itself takes is
//! measured by `cargo bench -p wardian-store --bench commit`.

use serde_json::{Value, json};

use super::client::{Client, create, new_session, together};
use super::create::print;
use crate::Bench;
use crate::serve::{Serve, model};
use crate::table::heading;

/// Events of one request: as many as it may have.
const BATCH: usize = 50;
/// Rows that an event makes.
const ROWS: usize = 2;
const POSTS: usize = 1000;
const SESSIONS: usize = 200;
const CLIENTS: [usize; 2] = [8, 32];

/// Measures and prints.
pub fn measure(bench: &Bench) {
    let model = model(&bench.runtime, &json!([]));
    let folder = tempfile::tempdir().expect("a folder");
    let server = Serve::start(folder.path(), &bench.libexec, &model.base_url(), "");
    let mut client = Client::new(&server);
    let body = new_session(&mut client);
    let paths = together(&server, 8, SESSIONS, |client, _| create(client, &body)).given;
    heading("POST /v1/sessions/{id}/events, user.interrupt");
    let cpu = server.cpu();
    let one = together(&server, 1, POSTS, |client, _| post(client, &paths[0], 1));
    print("1 event, 1 client", &server, cpu, one);
    let mut rates = Vec::new();
    for (sessions, clients) in [1, SESSIONS].into_iter().zip(CLIENTS) {
        let (cpu, name) = (server.cpu(), format!("{BATCH} events, {clients} clients, {sessions} sessions"));
        let done = together(&server, clients, POSTS, |client, n| post(client, &paths[n % sessions], BATCH));
        let events = done.per_second() * BATCH as f64;
        rates.push(format!("{events:.0} events/s ({:.0} rows/s) into {sessions}", events * ROWS as f64));
        print(&name, &server, cpu, done);
    }
    println!("  durable: {}", rates.join(", "));
    server.end();
    bench.runtime.block_on(model.shutdown());
}

/// Posts so many events that start no turn.
pub fn post(client: &mut Client, path: &str, events: usize) -> Value {
    let events = vec![json!({"type": "user.interrupt"}); events];
    client.post(&format!("{path}/events"), &json!({"events": events}))
}
