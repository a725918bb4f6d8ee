//! Opening: modes, versions, and files that are no store.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;
use wardian_store::{Error, SqliteStore, Store};

use crate::common::{session, small};

#[tokio::test]
async fn only_its_user_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/deep/store.db");
    let store = SqliteStore::open(&path).unwrap();
    store.ping().await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(&path.with_file_name(format!("store.db{suffix}"))), 0o600, "{suffix}");
    }
    drop(store);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = SqliteStore::open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[tokio::test]
async fn each_commit_is_told_before_its_writes_are_acknowledged() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (told, jobs) = std::sync::mpsc::sync_channel(64);
    store.watch_commits(move |_, jobs| told.send(jobs).unwrap());
    store.watch_commits(|_, _| panic!("it can be set once"));
    let org_id = store.default_org().await.unwrap();
    jobs.try_iter().count();
    store.ensure_user(&org_id, "alice").await.unwrap();
    assert_eq!(jobs.try_recv(), Ok(1));
}

#[tokio::test]
async fn it_is_there_when_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    for round in 0..3 {
        let store = SqliteStore::open(&path).unwrap();
        let org_id = store.default_org().await.unwrap();
        if round == 0 {
            session(&store, 1).await;
        }
        let last =
            store.append_events(&org_id, &crate::common::id(1), 0, vec![small(round + 1)]).await.unwrap();
        assert_eq!(last, round + 1);
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["store.db"], "closing leaves one file");
}

#[tokio::test]
async fn a_newer_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    drop(SqliteStore::open(&path).unwrap());
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA user_version = 1000").unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(refused, Error::TooNew { found: 1000, .. }), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(&path, "#!/bin/sh\n".repeat(1000)).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(&refused, Error::NotAStore { path: named } if *named == path), "{refused:?}");
    assert!(std::fs::read(&path).unwrap().starts_with(b"#!/bin/sh"));

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    assert!(matches!(SqliteStore::open(&path).unwrap_err(), Error::NotAStore { .. }));

    // Cut in the middle: an error, now or at the first question, and no panic.
    std::fs::remove_file(&path).unwrap();
    drop(SqliteStore::open(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    if let Ok(store) = SqliteStore::open(&path) {
        assert!(store.ping().await.is_err());
    }
    assert!(SqliteStore::open(Path::new("/proc/nowhere/store.db")).is_err());
    assert!(SqliteStore::open(folder.path()).is_err(), "a folder");
}

/// Two processes that start at once both find it migrated.
#[test]
fn many_may_open_a_new_store_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| SqliteStore::open(&path).map(|_| ()))).collect();
        for opened in opened {
            opened.join().unwrap().unwrap();
        }
    });
}
