//! Events a second that are acknowledged durable: the store with 64 tasks that each wait for every one of theirs, beside bare
//! SQLite with one transaction an insert on the same disk. `cargo bench -p wardian-store`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed measurement")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wardian_protocol::{EventId, SessionId};
use wardian_store::{NewEvent, NewSession, SqliteStore, Store};

/// Tasks that append at the same time, each to a session of its own.
const TASKS: u64 = 64;

/// Rounds, and how long each side is measured in one. The disk is shared and its speed comes and goes, so the sides take turns.
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(1);

fn main() {
    let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let payload =
        json!({"type": "assistant", "message": {"content": [{"type": "text", "text": "x".repeat(400)}]}});
    let (mut alone, mut one, mut many) = (Measured::default(), Measured::default(), Measured::default());
    for round in 0..ROUNDS {
        let path = |name: &str| folder.path().join(format!("{name}{round}.db"));
        alone.add(bare(&path("bare"), &payload));
        one.add(runtime.block_on(store(&path("one"), &payload, 1)));
        many.add(runtime.block_on(store(&path("many"), &payload, TASKS)));
    }
    println!("durable events a second, {} bytes each:", payload.to_string().len());
    println!("  bare rusqlite, one transaction an insert   {alone}");
    println!("  store, 1 task                              {one}");
    println!("  store, {TASKS} tasks                            {many}");
}

/// How long each append took, and all together.
#[derive(Default)]
struct Measured {
    seconds: f64,
    waits: Vec<Duration>,
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.waits.extend(other.waits);
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let at = |part: usize| waits[(waits.len() - 1) * part / 100].as_secs_f64() * 1e3;
        let rate = f64::from(u32::try_from(self.waits.len()).unwrap()) / self.seconds;
        write!(out, "{rate:>9.0}/s   p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))
    }
}

/// The same row, settings and indexes without the store around them.
fn bare(path: &Path, payload: &Value) -> Measured {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA synchronous = full;
             CREATE TABLE events (session_id TEXT, seq INTEGER, id TEXT UNIQUE, at_us INTEGER, payload TEXT,
                 PRIMARY KEY (session_id, seq));",
        )
        .unwrap();
    let mut insert =
        connection.prepare("INSERT INTO events VALUES ('sesn_1', ?1, ?2, 1795305600000000, ?3)").unwrap();
    let begun = Instant::now();
    let mut waits = Vec::new();
    while begun.elapsed() < TIME {
        let n = waits.len() as u64;
        let asked = Instant::now();
        let id = EventId::from_random((u128::from(n) << 64 | u128::from(n)).to_be_bytes());
        insert
            .execute(rusqlite::params![i64::try_from(n).unwrap(), id.as_str(), payload.to_string()])
            .unwrap();
        waits.push(asked.elapsed());
    }
    Measured { seconds: begun.elapsed().as_secs_f64(), waits }
}

async fn store(path: &Path, payload: &Value, tasks: u64) -> Measured {
    let store = Arc::new(SqliteStore::open(path).unwrap());
    let org_id = store.default_org().await.unwrap();
    let session = |task: u64| SessionId::from_random(u128::from(task).to_be_bytes());
    for task in 0..tasks {
        let new = NewSession {
            id: session(task),
            org_id: org_id.clone(),
            user_id: None,
            created_at: Timestamp::UNIX_EPOCH,
            managed: None,
        };
        store.create_session(new).await.unwrap();
    }
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (store, org_id, payload) = (Arc::clone(&store), org_id.clone(), payload.clone());
        let session_id = session(task);
        running.spawn(async move {
            let mut waits = Vec::new();
            while begun.elapsed() < TIME {
                let number = u128::from(task) << 64 | waits.len() as u128;
                let event = NewEvent {
                    id: EventId::from_random(number.to_be_bytes()),
                    request_id: None,
                    kind: "agent.message".to_owned(),
                    payload: payload.clone(),
                    at: Timestamp::UNIX_EPOCH,
                };
                let asked = Instant::now();
                store.append_events(&org_id, &session_id, 0, vec![event]).await.unwrap();
                waits.push(asked.elapsed());
            }
            waits
        });
    }
    let waits: Vec<Duration> = running.join_all().await.into_iter().flatten().collect();
    Measured { seconds: begun.elapsed().as_secs_f64(), waits }
}
