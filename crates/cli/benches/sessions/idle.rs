//! What ten thousand sessions that do nothing cost.

use std::fs;

use super::client::{Client, create, new_session, together};
use super::create::print;
use super::post::post;
use crate::Bench;
use crate::serve::{Serve, model};
use crate::table::heading;

const SESSIONS: usize = 10_000;
/// Events of each, two rows a piece.
const EVENTS: usize = 3;
const CLIENTS: usize = 8;
/// Of each kind of request, once they are there.
const ASKED: usize = 300;

/// Measures and prints.
pub fn measure(bench: &Bench) {
    let model = model(&bench.runtime, &serde_json::json!([]));
    let folder = tempfile::tempdir().expect("a folder");
    let server = Serve::start(folder.path(), &bench.libexec, &model.base_url(), "");
    let mut client = Client::new(&server);
    let body = new_session(&mut client);
    heading(&format!("{SESSIONS} idle sessions of {} rows (aim: 200 MB)", 2 * EVENTS));
    let few = together(&server, CLIENTS, ASKED, |client, _| create(client, &body)).given;
    let few: Vec<&str> = few.iter().map(String::as_str).collect();
    ask("few sessions", &server, &few);
    let before = rss_kib(&server);
    let made = together(&server, CLIENTS, SESSIONS, |client, _| {
        let path = create(client, &body);
        post(client, &path, EVENTS);
        path
    });
    let after = rss_kib(&server);
    println!("  made in {:.1} s by {CLIENTS} clients", made.all.as_secs_f64());
    let some: Vec<&str> = made.given.iter().step_by(SESSIONS / ASKED).map(String::as_str).collect();
    ask("then", &server, &some);
    let asked = rss_kib(&server);
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!(
        "  RSS of server and launcher: {:.1} MiB with {ASKED}, {:.1} MiB with {SESSIONS} more, {:.1} MiB after the questions",
        mib(before),
        mib(after),
        mib(asked)
    );
    println!(
        "  a session more: {:.2} KiB of memory; store {:.1} KiB on the disk",
        after.saturating_sub(before) as f64 / SESSIONS as f64,
        fs::metadata(folder.path().join("data/wardian.db")).map_or(0, |file| file.len()) as f64
            / 1024.0
            / (SESSIONS + ASKED) as f64
    );
    server.end();
    bench.runtime.block_on(model.shutdown());
}

/// Asks what clients ask.
fn ask(when: &str, server: &Serve, paths: &[&str]) {
    let path = |number: usize| paths[number % paths.len()];
    let cpu = server.cpu();
    print(
        &format!("{when}: GET one"),
        server,
        cpu,
        together(server, 1, ASKED, |client, n| client.get(path(n))),
    );
    let cpu = server.cpu();
    let listed = together(server, 1, ASKED, |client, _| client.get("/v1/sessions"));
    print(&format!("{when}: list, the newest 20"), server, cpu, listed);
    let cpu = server.cpu();
    let posted = together(server, 1, ASKED, |client, n| post(client, path(n), 1));
    print(&format!("{when}: POST an event"), server, cpu, posted);
}

/// What the server and its launcher have in memory.
pub fn rss_kib(server: &Serve) -> u64 {
    let of = |pid: u32| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    server.processes().into_iter().map(of).sum()
}
