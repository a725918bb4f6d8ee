//! A thousand readers of one session, and one that never reads: each gets every row, the turns go on, and the server
//! stays small.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::support::{Options, Wardian, until};
use super::talk::{Client, Talk};

const READERS: usize = 1000;
/// What the log holds before they come: more than the buffers between the server and who never reads.
const BACKLOG: usize = 30;
const BACKLOG_BYTES: usize = 200 * 1000;
/// Turns that they see.
const TURNS: usize = 3;
/// Memory of the server that they may take: a connection with its buffers is tens of kilobytes.
const MOST_KIB: u64 = 200 * 1024;

fn script() -> Value {
    let call = json!({"name": "Bash", "input": {"command": "head -c 5000 /dev/zero | tr '\\0' x"}});
    json!({"replies": [
        {"match": {"tool_result_contains": "x"}, "repeat": true, "text": "Done."},
        {"match": {"last_text_contains": "long"}, "repeat": true, "text": "y".repeat(BACKLOG_BYTES), "chunk_bytes": 65536},
        {"repeat": true, "tool_use": [call, call, call]},
    ]})
}

async fn ask(mut stream: TcpStream, client: &Client, session: &str, after: u64) -> TcpStream {
    let request = format!(
        "GET /v1/sessions/{session}/events/stream HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\nlast-event-id: {after}\r\n\r\n",
        client.key
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads on and on; what it has seen is the next row, always.
async fn read(stream: TcpStream, seen: Arc<AtomicU64>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
        if let Some(seq) = line.strip_prefix(b"id: ") {
            let seq: u64 = std::str::from_utf8(seq).unwrap().trim().parse().unwrap();
            assert_eq!(seen.fetch_add(1, Ordering::Relaxed) + 1, seq, "without gaps, each once");
        }
        line.clear();
    }
    panic!("the stream ended");
}

/// Takes as little as it can and reads nothing.
async fn never_reads(address: SocketAddr, client: &Client, session: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    ask(socket.connect(address).await.unwrap(), client, session, 0).await
}

fn memory_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Some turns, and how long they take.
async fn turns(talk: &mut Talk, client: &Client, name: &str, number: usize) -> Duration {
    let begun = Instant::now();
    for turn in 0..number {
        talk.turn(client, &format!("{name}-{turn}")).await.unwrap();
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_and_one_that_never_reads() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("wardian.toml");
    std::fs::write(&config, "[server]\nmax_connections = 5000\n").unwrap();
    let args = vec!["--config".to_owned(), config.to_str().unwrap().to_owned()];
    let mut wardian = Wardian::start(&script().to_string(), Options { args, ..Options::default() }).await;
    let client = Client::of(&wardian);
    let mut talk = Talk::new(client.session("always_allow").await);
    turns(&mut talk, &client, "long", BACKLOG).await;
    let alone = turns(&mut talk, &client, "alone", TURNS).await;
    let before = memory_kib(wardian.pid());

    let _deaf = never_reads(wardian.address, &client, &talk.session).await;
    let from = talk.rows.len() as u64;
    let mut readers = JoinSet::new();
    let mut seen = Vec::new();
    for number in 0..READERS {
        // Some begin at the beginning.
        let after = if number % 100 == 0 { 0 } else { from };
        let stream = TcpStream::connect(wardian.address).await.unwrap();
        let stream = ask(stream, &client, &talk.session, after).await;
        let count = Arc::new(AtomicU64::new(after));
        readers.spawn(read(stream, Arc::clone(&count)));
        seen.push(count);
    }
    let watched = turns(&mut talk, &client, "watched", TURNS).await;
    talk.is_what_is_listed(&client).await;
    let last = talk.rows.len() as u64;
    until("all have seen all", || {
        assert!(readers.try_join_next().is_none(), "a reader has ended");
        seen.iter().all(|count| count.load(Ordering::Relaxed) == last).then_some(())
    })
    .await;
    let after = memory_kib(wardian.pid());
    println!(
        "{TURNS} turns: {alone:?} alone, {watched:?} with {READERS} readers; memory {before} KiB, then {after} KiB"
    );
    assert!(watched < 20 * alone + Duration::from_secs(10), "{watched:?}, and {alone:?} alone");
    assert!(after < before + MOST_KIB, "{before} KiB, then {after} KiB");
    drop(readers);
    wardian.stop().await;
}
