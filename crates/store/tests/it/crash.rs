//! `kill -9` in the middle of writing: what was acknowledged is there.
//!
//! The test binary starts itself again as the process to be killed: it appends, and says on its standard output what the
//! store acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use tokio::task::JoinSet;
use wardian_protocol::NanoUsd;
use wardian_store::{SqliteStore, Store, UsageQuery};

use crate::common::{id, session, small, start};
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
}

/// A process of this test binary that runs [`child`].
pub struct Child {
    process: std::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub fn start(role: Role, path: &Path) -> Self {
        let role = if role == Role::Append { "append" } else { "serve" };
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
