//! One session, a thousand readers.
//!
//! Live, a turn writes messages at a steady pace, then as fast as it can; then all readers come again and read the
//! session from its beginning. Beside each the limit: the same bytes at the same times from a program that only sends.
//! How long a row took is counted from the `processed_at` that it carries, which is read before its commit.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::broadcast::{Broadcaster, Orders};
use super::client::{Client, create, new_session};
use super::reader::{Read, ask, connect, delays, read_all};
use crate::Bench;
use crate::serve::{Serve, model};
use crate::table::{Series, heading};

const READERS: usize = 1000;
/// Messages of a turn that takes its time, and between two of them.
const PACED: usize = 60;
const PACE_MS: u64 = 50;
/// Messages of a turn that is in a hurry.
const BURST: usize = 200;
/// Room for so many readers of one session.
const SETTINGS: &str = "[server]\nmax_connections = 4096\n";
const TEXT_BYTES: usize = 200;

/// Measures and prints.
pub fn measure(bench: &Bench) {
    let text = json!({"type": "text", "text": "x".repeat(TEXT_BYTES)});
    let reply = |word: &str, messages: usize, pace: u64| {
        json!({"match": {"last_text_contains": word}, "content": vec![text.clone(); messages], "repeat": true,
            "chunk_bytes": TEXT_BYTES, "chunk_delay_ms": pace})
    };
    let replies = json!([reply("paced", PACED, PACE_MS), reply("burst", BURST, 0)]);
    let model = model(&bench.runtime, &replies);
    let folder = tempfile::tempdir().expect("a folder");
    let server = Serve::start(folder.path(), &bench.libexec, &model.base_url(), SETTINGS);
    let mut client = Client::new(&server);
    let body = new_session(&mut client);
    let path = create(&mut client, &body);
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    heading(&format!("SSE, {READERS} readers of one session"));
    println!("  RSS {:.1} MiB before", rss_mib(&server));
    for (word, name) in [("paced", "live, 20 messages a second"), ("burst", "live, as fast as it can")] {
        let (reads, took, cpu) = one_thread.block_on(live(&server, &path, word));
        print(name, &reads, took, cpu, processed_at(&reads[0].text));
        println!("  RSS {:.1} MiB with the readers", rss_mib(&server));
        limit(&one_thread, folder.path(), &reads[0].text, true);
    }
    let (reads, took, cpu) = one_thread.block_on(replayed(&server, &path));
    print("all of it again, from after=0", &reads, took, cpu, Vec::new());
    limit(&one_thread, folder.path(), &reads[0].text, false);
    server.end();
    bench.runtime.block_on(model.shutdown());
}

/// Readers follow; then a client asks.
async fn live(server: &Serve, path: &str, word: &str) -> (Vec<Read>, Duration, Duration) {
    let mut streams = connect(server.address, READERS).await;
    ask(&mut streams, &request(server, path, "")).await;
    let cpu = server.cpu();
    let begun = Instant::now();
    let content = json!([{"type": "text", "text": word}]);
    let asked = json!({"events": [{"type": "user.message", "content": content}]});
    let (path, mut client) = (format!("{path}/events"), Client::new(server));
    let posted = tokio::task::spawn_blocking(move || client.post(&path, &asked));
    let (reads, ended) = read_all(streams).await;
    posted.await.expect("an answer");
    (reads, ended - begun, server.cpu() - cpu)
}

/// Readers come for what is there already. Their first reading ends with the first turn, which is what is compared.
async fn replayed(server: &Serve, path: &str) -> (Vec<Read>, Duration, Duration) {
    let mut streams = connect(server.address, READERS).await;
    let (cpu, begun) = (server.cpu(), Instant::now());
    ask(&mut streams, &request(server, path, "?after=0")).await;
    let (reads, ended) = read_all(streams).await;
    (reads, ended - begun, server.cpu() - cpu)
}

fn request(server: &Serve, path: &str, query: &str) -> String {
    let (address, key) = (server.address, &server.key);
    format!("GET {path}/events/stream{query} HTTP/1.1\r\nhost: {address}\r\nx-api-key: {key}\r\n\r\n")
}

/// The same bytes without a server.
fn limit(runtime: &tokio::runtime::Runtime, folder: &std::path::Path, text: &str, is_timed: bool) {
    let frames: Vec<&str> = text.split_inclusive("\n\n").filter(|frame| frame.contains("id: ")).collect();
    let times = processed_at(text);
    let first = times.first().map_or(0, |(_, at)| *at);
    let mut last = 0;
    let timed = frames.iter().map(|frame| {
        let at = seq(frame).and_then(|seq| times.iter().find(|(own, _)| *own == seq));
        last = at.map_or(last, |(_, at)| at.saturating_sub(first).max(last));
        (if is_timed { last } else { 0 }, (*frame).to_owned())
    });
    let orders = Orders { readers: READERS, frames: timed.collect() };
    let mut broadcaster = Broadcaster::start(folder, &orders);
    let (reads, took, sent, cpu) = runtime.block_on(async {
        let streams = connect(broadcaster.address, READERS).await;
        let begun = Instant::now();
        broadcaster.go();
        let (reads, ended) = read_all(streams).await;
        let (sent, cpu) = broadcaster.end();
        (reads, ended - begun, sent, cpu)
    });
    let seqs = frames.iter().filter_map(|frame| seq(frame));
    let sent: Vec<(u64, u64)> = seqs.zip(sent).collect();
    print(
        "  the limit: the same bytes, only sent",
        &reads,
        took,
        cpu,
        if is_timed { sent } else { Vec::new() },
    );
}

fn seq(frame: &str) -> Option<u64> {
    frame.lines().find_map(|line| line.strip_prefix("id: "))?.parse().ok()
}

/// When each row says that it was made, in microseconds; none for one that is only accepted.
fn processed_at(text: &str) -> Vec<(u64, u64)> {
    let row = |frame: &str| {
        let data = frame.lines().find_map(|line| line.strip_prefix("data: "))?;
        let data: Value = serde_json::from_str(data).ok()?;
        let at: Timestamp = data["processed_at"].as_str()?.parse().ok()?;
        Some((seq(frame)?, u64::try_from(at.as_microsecond()).ok()?))
    };
    text.split_inclusive("\n\n").filter_map(row).collect()
}

fn print(name: &str, reads: &[Read], took: Duration, cpu: Duration, sent: Vec<(u64, u64)>) {
    let rows = reads[0].rows.len();
    assert!(reads.iter().all(|read| read.rows.len() == rows), "every reader has all of it");
    let all = rows * reads.len();
    let mut series = Series::new(name);
    let sent: std::collections::HashMap<u64, u64> = sent.into_iter().collect();
    let waits = delays(reads, |seq| sent.get(&seq).copied());
    if !waits.is_empty() {
        waits.into_iter().for_each(|wait| series.add(true, wait));
        series.print();
    }
    println!(
        "  {:<48} {:>8.0}/s: {rows} rows x {} in {:.2} s; CPU {:.2} s, {:.1} µs a row",
        format!("{name}: delivered"),
        all as f64 / took.as_secs_f64(),
        reads.len(),
        took.as_secs_f64(),
        cpu.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / all as f64,
    );
}

fn rss_mib(server: &Serve) -> f64 {
    super::idle::rss_kib(server) as f64 / 1024.0
}
