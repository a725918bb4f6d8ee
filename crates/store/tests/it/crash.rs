//! `kill -9` in the middle of writing: what was acknowledged is there.
//!
//! The test binary starts itself again as the process to be killed: it appends, and says on its standard output what the
//! store acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use serde_json::json;
use tokio::task::JoinSet;
use wardian_protocol::{NanoUsd, OrgId};
use wardian_store::{
    Error, Lease, SessionChange, SessionCommit, SessionStatus, SqliteStore, Store, UsageQuery,
};

use crate::common::{at, change, commit, id, new_managed, session, small, start};
use crate::concurrent::read_all;

const PATH: &str = "WARDIAN_STORE_TEST_PATH";
const ROLE: &str = "WARDIAN_STORE_TEST_ROLE";

/// What a child process does until it is killed.
#[derive(Clone, Copy, PartialEq)]
pub enum Role {
    /// Appends one event after the other to session 1.
    Append,
    /// Appends with 16 tasks, and opens usage, as a server does.
    Serve,
    /// Commits to 8 managed sessions: three events, a line and a state that knows the last `seq`.
    Commit,
}

/// Managed sessions, and events in each commit to one.
const SESSIONS: u64 = 8;
const EVENTS: u64 = 3;
/// An acknowledgement names the session too.
const PER_SESSION: u64 = 1 << 32;

/// A process of this test binary that runs [`child`].
pub struct Child {
    process: std::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub fn start(role: Role, path: &Path) -> Self {
        let role = match role {
            Role::Append => "append",
            Role::Serve => "serve",
            Role::Commit => "commit",
        };
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(PATH, path)
            .env(ROLE, role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Waits for this many acknowledgements: the last seq of each append.
    pub fn acknowledged(&mut self, number: usize) -> Vec<u64> {
        let seqs = (&mut self.lines).map_while(Result::ok).filter_map(|line| seq(&line));
        seqs.take(number).collect()
    }

    /// Kills it with no warning and returns what it had still acknowledged.
    pub fn kill(mut self) -> Vec<u64> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        (&mut self.lines).map_while(Result::ok).filter_map(|line| seq(&line)).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// `ack 12.` is an acknowledgement; without the full stop it was cut off.
fn seq(line: &str) -> Option<u64> {
    line.strip_prefix("ack ")?.strip_suffix('.')?.parse().ok()
}

/// Not a test of its own: the body of a child. Called by the test runner like the others, it has nothing to do.
#[tokio::test]
async fn child() {
    let (Some(path), Some(role)) = (std::env::var_os(PATH), std::env::var_os(ROLE)) else { return };
    let store = std::sync::Arc::new(SqliteStore::open(Path::new(&path)).unwrap());
    let org_id = store.default_org().await.unwrap();
    if role == "commit" {
        return commit_forever(store, org_id).await;
    }
    let tasks = if role == "serve" { 16 } else { 1 };
    let mut writers = JoinSet::new();
    for task in 0..tasks {
        let (store, org_id) = (std::sync::Arc::clone(&store), org_id.clone());
        writers.spawn(async move {
            let first = (u64::from(std::process::id()) << 32) + (task << 24);
            for n in first.. {
                if task > 0 {
                    store.open_usage(start(&org_id, n, &format!("child {first}"))).await.unwrap();
                }
                let seq = store.append_events(&org_id, &id(1), 0, vec![small(n)]).await.unwrap();
                // One write a line, so that two tasks cannot mix theirs.
                std::io::stdout().write_all(format!("ack {seq}.\n").as_bytes()).unwrap();
            }
        });
    }
    writers.join_all().await;
}

async fn commit_forever(store: std::sync::Arc<SqliteStore>, org_id: OrgId) {
    let mut writers = JoinSet::new();
    for session in 1..=SESSIONS {
        let (store, org_id) = (std::sync::Arc::clone(&store), org_id.clone());
        writers.spawn(async move {
            let owner = format!("child {}", std::process::id());
            let taken = store.lease_session(&org_id, &id(session), &owner, at(0)).await.unwrap();
            let Lease::Taken { fence, record } = taken else { panic!("{taken:?}") };
            let mut last = record.last_seq;
            loop {
                let events = (last + 1..=last + EVENTS).map(small).collect();
                let state = json!({"last": last + EVENTS});
                let changed = SessionChange { state, ..change(SessionStatus::Running, 1) };
                let raw = vec![format!("after {last}")];
                let write =
                    SessionCommit { change: Some(changed), raw, ..commit(&org_id, session, fence, events) };
                last = store.commit_session(write).await.unwrap();
                let said = format!("ack {}.\n", session * PER_SESSION + last);
                std::io::stdout().write_all(said.as_bytes()).unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn killed_in_the_middle_of_a_commit_all_of_it_is_there_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let org_id = store.default_org().await.unwrap();
    for session in 1..=SESSIONS {
        store.create_session(new_managed(&org_id, session, 0)).await.unwrap();
    }
    drop(store);
    let mut acknowledged = Vec::new();
    for round in 1..=5 {
        let mut child = Child::start(Role::Commit, &path);
        acknowledged.extend(child.acknowledged(40 * round));
        acknowledged.extend(child.kill());
        let store = SqliteStore::open(&path).unwrap();
        for session in 1..=SESSIONS {
            // The dead one's lease is no hindrance, and its fence is worth nothing.
            let taken = store.lease_session(&org_id, &id(session), "here", at(9)).await.unwrap();
            let Lease::Taken { fence, record } = taken else { panic!("{taken:?}") };
            let late = commit(&org_id, session, fence - 1, vec![]);
            assert!(matches!(store.commit_session(late).await, Err(Error::Fenced)));
            let managed = record.managed.unwrap();
            let state = managed.state["last"].as_u64().unwrap_or(0);
            assert_eq!(record.last_seq, state, "the state and the log are of the same commit");
            assert_eq!(record.last_seq % EVENTS, 0, "no commit is there in part");
            let rows = read_rows(&store, &org_id, session).await;
            assert!(rows.iter().copied().eq(1..=record.last_seq), "the log has no gap");
            let lines = store.raw_rows(&org_id, &id(session), 0, 1000).await.unwrap();
            assert!(lines.len() == 1000 || lines.len() as u64 == record.last_seq / EVENTS);
            let of_session = acknowledged.iter().filter(|ack| **ack / PER_SESSION == session);
            let newest = of_session.max().map_or(0, |ack| ack % PER_SESSION);
            assert!(newest <= record.last_seq, "every acknowledged commit is there");
        }
    }
    assert!(acknowledged.len() >= 600, "{}", acknowledged.len());
}

async fn read_rows(store: &SqliteStore, org_id: &OrgId, session: u64) -> Vec<u64> {
    let mut seqs: Vec<u64> = Vec::new();
    loop {
        let after = seqs.last().copied().unwrap_or(0);
        let page = store.event_rows(org_id, &id(session), after, 1000).await.unwrap();
        if page.is_empty() {
            return seqs;
        }
        seqs.extend(page.iter().map(|row| row.seq));
    }
}

#[tokio::test]
async fn killed_in_the_middle_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (org_id, session_id) = session(&SqliteStore::open(&path).unwrap(), 1).await;
    let mut acknowledged = Vec::new();
    for round in 1..=5 {
        let mut child = Child::start(Role::Serve, &path);
        acknowledged.extend(child.acknowledged(40 * round));
        acknowledged.extend(child.kill());

        let store = SqliteStore::open(&path).unwrap();
        let all = read_all(&store, &org_id, &session_id).await;
        let seqs: BTreeMap<u64, &str> = all.iter().map(|event| (event.seq, event.id.as_str())).collect();
        assert!(seqs.keys().copied().eq(1..=all.len() as u64), "the log has no gap");
        assert!(acknowledged.iter().all(|seq| seqs.contains_key(seq)), "every acknowledged event is there");
        let last = store.session(&org_id, &session_id).await.unwrap().unwrap().last_seq;
        assert_eq!(last, all.len() as u64);
        store.append_events(&org_id, &session_id, 0, vec![small(round as u64)]).await.unwrap();
        acknowledged.push(last + 1);

        // What the dead one had reserved is charged, all of it and once.
        let before = store.usage(&org_id, UsageQuery::default()).await.unwrap().remove(0);
        let charged = store.settle_orphans("this", crate::common::at(9)).await.unwrap();
        let after = store.usage(&org_id, UsageQuery::default()).await.unwrap().remove(0);
        assert!(charged > 0 && before.open_requests == charged);
        assert_eq!((after.open_requests, after.cost), (0, before.cost + before.reserved));
        assert_eq!(after.cost, NanoUsd(i64::try_from(after.requests * 1_000).unwrap()));
        assert_eq!(store.settle_orphans("this", crate::common::at(10)).await.unwrap(), 0);
    }
    assert!(acknowledged.len() > 600, "{}", acknowledged.len());
}
