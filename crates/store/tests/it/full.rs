//! A full disk: new work is refused by type, nothing acknowledged is lost, and work goes on when there is room.
//!
//! The disk is a real one of two megabytes, in memory, mounted in a mount namespace of a process of its own. Where the
//! kernel gives us none, the same is shown with a limit on the database's pages, in `src/sqlite/tests.rs`.

use std::path::Path;

use serde_json::json;
use wardian_protocol::OrgId;
use wardian_store::{
    Error, NewSession, RunStatus, SessionChange, SessionCommit, SessionStatus, SqliteStore, Store, UsageQuery,
};
use wardian_testkit::disk::{ON_A_DISK, small_disk};

use crate::common::{
    at, change, commit, end, event, id, leased, new_managed, outcome, running, session, start,
};
use crate::concurrent::read_all;

const DISK: &str = "WARDIAN_STORE_TEST_DISK";

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(said) = small_disk(folder.path(), 2, "full::child", DISK) {
        eprintln!("no small disk to be had here, so only the limit on pages shows it: {said:?}");
    }
}

fn new_managed_of(org_id: &OrgId, n: u64, bytes: usize) -> NewSession {
    let mut new = new_managed(org_id, n, 0);
    new.managed.as_mut().unwrap().definition = json!("x".repeat(bytes));
    new
}

/// Not a test of its own: the body of the process that has the small disk.
#[tokio::test]
async fn child() {
    let Some(disk) = std::env::var_os(DISK) else { return };
    println!("{ON_A_DISK}");
    let (ballast, path) = (Path::new(&disk).join("ballast"), Path::new(&disk).join("store.db"));
    std::fs::write(&ballast, vec![1; 512 << 10]).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let (org_id, session_id, run) = running(&store, 1, "here").await;
    store.open_usage(start(&org_id, 1, "here")).await.unwrap();
    let (_, managed, fence) = leased(&store, 9, "here").await;

    let mut acknowledged = 0;
    let mut n = 1;
    for bytes in [20_000, 3_000, 10] {
        let refused = loop {
            n += 1;
            let events = vec![event(n, json!("x".repeat(bytes)))];
            match store.append_events(&org_id, &session_id, 1, events).await {
                Ok(seq) => acknowledged = seq,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full), "{refused:?}");
    }
    assert!(acknowledged > 20, "{acknowledged}");

    // New work is refused, and so the server can say that it is not ready. What needs a page or two may still fit.
    assert!(matches!(store.ping().await, Err(Error::Full)));
    assert!(matches!(store.open_usage(start(&org_id, 2, "here")).await, Err(Error::Full)));
    let commit = |n: u64, bytes: usize| {
        let changed = SessionChange { state: json!({"n": n}), ..change(SessionStatus::Running, 1) };
        let events = vec![event(n, json!("x".repeat(bytes))), event(n, json!("x"))];
        SessionCommit { change: Some(changed), ..commit(&org_id, 9, fence, events) }
    };
    let refused = store.commit_session(commit(1, 50_000)).await;
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    let refused = store.create_session(new_managed_of(&org_id, 10, 50_000)).await;
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    let record = store.session(&org_id, &managed).await.unwrap().unwrap();
    assert_eq!((record.last_seq, record.managed.unwrap().state), (0, json!({})), "nothing of it");
    assert_eq!(store.session(&org_id, &id(10)).await.unwrap(), None);
    let settled = store.settle_usage(end(&org_id, 1, 7)).await;
    assert!(matches!(settled, Ok(true) | Err(Error::Full)), "{settled:?}");
    let done = outcome(RunStatus::Completed, 7);
    let ended = store.end_run(&org_id, &session_id, &run, done.clone()).await;
    assert!(matches!(ended, Ok(true) | Err(Error::Full)), "{ended:?}");

    // Everything acknowledged is there.
    let all = read_all(&store, &org_id, &session_id).await;
    assert!(all.iter().map(|event| event.seq).eq(1..=acknowledged));
    let total = store.usage(&org_id, UsageQuery::default()).await.unwrap().remove(0);
    assert_eq!((total.requests, total.open_requests), (1, u64::from(settled.is_err())));

    // There is room again: the same store goes on.
    std::fs::remove_file(&ballast).unwrap();
    store.ping().await.unwrap();
    n += 1;
    let next = store.append_events(&org_id, &session_id, 1, vec![event(n, json!("y"))]).await.unwrap();
    assert_eq!(next, acknowledged + 1);
    assert_eq!(store.settle_usage(end(&org_id, 1, 7)).await.unwrap(), settled.is_err());
    assert_eq!(store.end_run(&org_id, &session_id, &run, done).await.unwrap(), ended.is_err());
    session(&store, 2).await;
    assert_eq!(store.commit_session(commit(1, 50_000)).await.unwrap(), 2);
    store.create_session(new_managed_of(&org_id, 10, 50_000)).await.unwrap();

    // And so does the next process.
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let all = read_all(&store, &org_id, &session_id).await;
    assert!(all.iter().map(|event| event.seq).eq(1..=next));
    assert_eq!(store.settle_orphans("next", at(9)).await.unwrap(), 0);
    assert!(store.session(&org_id, &id(2)).await.unwrap().is_some());
}
