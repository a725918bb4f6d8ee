//! Nobody clears up after the living.

use wardian_protocol::RequestId;
use wardian_store::{BeginRun, Error, RunStatus, SqliteStore, Store};

use crate::common::{at, end, id, outcome, running, session, start};

#[tokio::test]
async fn a_living_owner_keeps_its_runs_and_its_open_requests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let server = SqliteStore::open(&path).unwrap();
    let (org_id, session_id, run) = running(&server, 1, "server").await;
    server.open_usage(start(&org_id, 1, "server")).await.unwrap();

    let beside = SqliteStore::open(&path).unwrap();
    assert_eq!(beside.interrupted_runs("beside").await.unwrap(), []);
    assert_eq!(beside.settle_orphans("beside", at(9)).await.unwrap(), 0);
    let taken = beside.begin_run(&org_id, &session_id, &id(2), "beside", at(2)).await.unwrap();
    assert_eq!(taken, BeginRun::Busy);
    let (_, other) = session(&beside, 2).await;
    let thief = beside.begin_run(&org_id, &other, &id(2), "server", at(2)).await;
    assert!(matches!(thief, Err(Error::Invalid { what: "owner", .. })), "a name in use: {thief:?}");

    // A second owner of the same process, whose store this is, has taken the first one's place.
    assert_eq!(server.interrupted_runs("server again").await.unwrap().len(), 1);

    drop(server);
    let orphans: Vec<RequestId> =
        beside.interrupted_runs("beside").await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(orphans, std::slice::from_ref(&run));
    assert!(beside.end_run(&org_id, &session_id, &run, outcome(RunStatus::Interrupted, 0)).await.unwrap());
    assert_eq!(beside.settle_orphans("beside", at(9)).await.unwrap(), 1);
    assert!(!beside.settle_usage(end(&org_id, 1, 1)).await.unwrap());
    assert_eq!(beside.interrupted_runs("beside").await.unwrap(), []);
}

#[tokio::test]
async fn the_locks_of_the_dead_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let lock = folder.path().join("store.db-owner-6f6c64");
    std::fs::write(&lock, "").unwrap();
    let store = SqliteStore::open(&path).unwrap();
    assert!(!lock.exists());
    running(&store, 1, "new").await;
    let held = folder.path().join("store.db-owner-6e6577");
    assert!(held.exists());
    drop(SqliteStore::open(&path).unwrap());
    assert!(held.exists(), "a living one is not swept");
    drop(store);
    assert!(!held.exists());
}

#[tokio::test]
async fn an_owner_has_a_name() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id) = session(&store, 1).await;
    for owner in [String::new(), "o".repeat(97), "../x\0".to_owned()] {
        let refused = store.begin_run(&org_id, &session_id, &id(1), &owner, at(0)).await;
        assert!(matches!(refused, Err(Error::Invalid { .. } | Error::TooLarge { .. })), "{refused:?}");
    }
    let fine = store.begin_run(&org_id, &session_id, &id(1), "../x/y", at(0)).await.unwrap();
    assert_eq!(fine, BeginRun::Started { fence: 1 });
}
