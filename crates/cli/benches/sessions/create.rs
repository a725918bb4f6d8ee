//! How long it takes to make a session.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use super::client::{Client, Together, create, new_session, together};
use crate::Bench;
use crate::serve::{Serve, model};
use crate::table::{Series, heading};

/// Sessions that one client makes, and that several make together.
const MADE: usize = 1000;
const CLIENTS: usize = 8;
/// What a commit of a session writes to the store's log, roughly: a handful of pages.
const COMMIT_BYTES: usize = 32 << 10;
const SYNCS: usize = 300;

/// Measures and prints.
pub fn measure(bench: &Bench) {
    let model = model(&bench.runtime, &serde_json::json!([]));
    let folder = tempfile::tempdir().expect("a folder");
    let mut limit = Series::new("the limit: 32 KiB to a file, and fdatasync");
    let mut file = File::create(folder.path().join("limit")).expect("a file");
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[7; COMMIT_BYTES]).and_then(|()| file.sync_data()).expect("room");
        limit.add(true, begun.elapsed());
    }
    let server = Serve::start(folder.path(), &bench.libexec, &model.base_url(), "");
    let mut client = Client::new(&server);
    let body = new_session(&mut client);
    // To warm up.
    let path = create(&mut client, &body);
    together(&server, CLIENTS, MADE / 10, |client, _| create(client, &body));
    heading("POST /v1/sessions, no events (aim: p50 5 ms)");
    limit.print();
    let cpu = server.cpu();
    print(
        "GET /v1/sessions/{id}, 1 client",
        &server,
        cpu,
        together(&server, 1, MADE, |client, _| client.get(&path)),
    );
    let mut rates = Vec::new();
    for clients in [1, CLIENTS] {
        let (cpu, name) = (server.cpu(), format!("create, {clients} at a time"));
        let made = together(&server, clients, MADE, |client, _| create(client, &body));
        rates.push(format!("{:.0}/s by {clients}", made.per_second()));
        print(&name, &server, cpu, made);
    }
    println!("  sessions made: {}", rates.join(", "));
    server.end();
    bench.runtime.block_on(model.shutdown());
}

/// Prints what clients took together, with the server's CPU time since.
pub fn print<T>(name: &str, server: &Serve, since: std::time::Duration, done: Together<T>) {
    let mut series = Series::new(name);
    done.walls.into_iter().for_each(|wall| series.add(true, wall));
    series.add_cpu(true, server.cpu() - since);
    series.print();
}
