//! Events a second that are acknowledged durable through `commit_session`, as the owners of sessions write them: a handful of
//! events with a new state. Into one session and into 200; and how long it takes to make a session.
//! `cargo bench -p wardian-store --bench commit`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed measurement")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use wardian_protocol::{AgentId, EnvironmentId, EventId, OrgId, SessionId};
use wardian_store::{
    Lease, NewEvent, NewManaged, NewSession, SessionChange, SessionCommit, SessionStatus, SqliteStore, Store,
};

/// Events in one commit.
const EVENTS: u64 = 5;

/// Rounds, and how long each case is measured in one. The disk is shared and its speed comes and goes, so the cases take turns.
const ROUNDS: usize = 5;
const TIME: Duration = Duration::from_secs(2);

/// Sessions made, one after the other, to see how long one takes.
const CREATED: u64 = 300;

/// Sessions and tasks that commit to them at the same time.
const CASES: [(u64, u64); 4] = [(1, 1), (1, 64), (200, 200), (200, 800)];

fn main() {
    let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut cases = CASES.map(|_| Measured::default());
    let mut created = Measured::default();
    for round in 0..ROUNDS {
        for (n, (sessions, tasks)) in CASES.into_iter().enumerate() {
            let path = folder.path().join(format!("{n}-{round}.db"));
            cases[n].add(runtime.block_on(commits(&path, sessions, tasks)));
        }
        let path = folder.path().join(format!("create-{round}.db"));
        created.add(runtime.block_on(creates(&path)));
    }
    println!(
        "durable events a second through commit_session, {EVENTS} of {} bytes each:",
        payload(0).to_string().len()
    );
    for ((sessions, tasks), measured) in CASES.into_iter().zip(&cases) {
        let rate = measured.rate() * f64::from(u32::try_from(EVENTS).unwrap());
        println!(
            "  {sessions:>3} sessions, {tasks:>3} tasks   {rate:>9.0}/s   a commit: {}",
            measured.waits()
        );
    }
    println!("create_session   {:>9.0}/s   {}", created.rate(), created.waits());
}

/// How long each call took, and all together.
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

    fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.waits.len()).unwrap()) / self.seconds
    }

    fn waits(&self) -> String {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let at = |part: usize| waits[(waits.len() - 1) * part / 100].as_secs_f64() * 1e3;
        format!("p50 {:.2} ms, p99 {:.2} ms", at(50), at(99))
    }
}

fn payload(n: u64) -> Value {
    json!({"id": event_id(n), "type": "agent.message", "processed_at": "2026-11-22T20:00:00.000000Z",
        "content": [{"type": "text", "text": "x".repeat(180)}]})
}

fn event_id(n: u64) -> EventId {
    // Ids are random: they come in no order.
    EventId::from_random((u128::from(n) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

fn session_id(n: u64) -> SessionId {
    SessionId::from_random((u128::from(n) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

fn new_session(org_id: &OrgId, n: u64) -> NewSession {
    let managed = NewManaged {
        agent_id: AgentId::from_random([1; 16]),
        agent_version: 1,
        environment_id: EnvironmentId::from_random([1; 16]),
        definition: json!({"agent": {"system": "x".repeat(4000)}}),
        state: json!({}),
        events: Vec::new(),
        wake_at: None,
    };
    NewSession {
        id: session_id(n),
        org_id: org_id.clone(),
        user_id: Some(format!("user {}", n % 100)),
        created_at: Timestamp::UNIX_EPOCH,
        managed: Some(managed),
    }
}

async fn commits(path: &Path, sessions: u64, tasks: u64) -> Measured {
    let store = Arc::new(SqliteStore::open(path).unwrap());
    let org_id = store.default_org().await.unwrap();
    for n in 0..sessions {
        store.create_session(new_session(&org_id, n)).await.unwrap();
        let lease = store.lease_session(&org_id, &session_id(n), "bench", Timestamp::UNIX_EPOCH).await;
        assert!(matches!(lease.unwrap(), Lease::Taken { fence: 1, .. }));
    }
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (store, org_id) = (Arc::clone(&store), org_id.clone());
        running.spawn(async move {
            let mut waits = Vec::new();
            while begun.elapsed() < TIME {
                let first = (task << 32) + waits.len() as u64 * EVENTS;
                let commit = commit(&org_id, task % sessions, first);
                let asked = Instant::now();
                store.commit_session(commit).await.unwrap();
                waits.push(asked.elapsed());
            }
            waits
        });
    }
    let waits: Vec<Duration> = running.join_all().await.into_iter().flatten().collect();
    Measured { seconds: begun.elapsed().as_secs_f64(), waits }
}

fn commit(org_id: &OrgId, session: u64, first: u64) -> SessionCommit {
    let event = |n| NewEvent {
        id: event_id(n),
        request_id: None,
        kind: "agent.message".to_owned(),
        payload: payload(n),
        at: Timestamp::UNIX_EPOCH,
    };
    let change = SessionChange {
        status: SessionStatus::Running,
        active_run: None,
        state: json!({"phase": "turn", "queue": [], "seen": first, "pending": "x".repeat(300)}),
        wake_at: None,
        definition: None,
        archived_at: None,
        at: Timestamp::UNIX_EPOCH,
    };
    SessionCommit {
        org_id: org_id.clone(),
        session_id: session_id(session),
        fence: 1,
        events: (first..first + EVENTS).map(event).collect(),
        change: Some(change),
        raw: Vec::new(),
    }
}

async fn creates(path: &Path) -> Measured {
    let store = SqliteStore::open(path).unwrap();
    let org_id = store.default_org().await.unwrap();
    let begun = Instant::now();
    let mut waits = Vec::new();
    for n in 0..CREATED {
        let new = new_session(&org_id, n);
        let asked = Instant::now();
        store.create_session(new).await.unwrap();
        waits.push(asked.elapsed());
    }
    Measured { seconds: begun.elapsed().as_secs_f64(), waits }
}
