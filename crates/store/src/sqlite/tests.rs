//! What only shows with a hand on the connection.

use serde_json::json;
use wardian_protocol::{EventId, SessionId};

use super::*;

fn event(n: u64, bytes: usize) -> NewEvent {
    NewEvent {
        id: EventId::from_random(u128::from(n).to_be_bytes()),
        request_id: None,
        kind: "test".to_owned(),
        payload: json!("x".repeat(bytes)),
        at: Timestamp::UNIX_EPOCH,
    }
}

async fn session(store: &SqliteStore) -> (OrgId, SessionId) {
    let org_id = store.default_org().await.unwrap();
    let id = SessionId::from_random([1; 16]);
    let created_at = Timestamp::UNIX_EPOCH;
    let new = NewSession { id: id.clone(), org_id: org_id.clone(), user_id: None, created_at, managed: None };
    store.create_session(new).await.unwrap();
    (org_id, id)
}

/// Lets the database have this many pages more than it has.
async fn set_room(store: &SqliteStore, more: i64) {
    let set = move |connection: &Connection| {
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
        Ok(connection.pragma_update_and_check(None, "max_page_count", pages + more, |_| Ok(()))?)
    };
    store.writer.run(set).await.unwrap();
}

#[tokio::test]
async fn a_full_store_refuses_and_goes_on_when_there_is_room() {
    for store in [in_file(), (None, SqliteStore::open_in_memory().unwrap())] {
        let (_folder, store) = store;
        let (org_id, session_id) = session(&store).await;
        set_room(&store, 30).await;
        let mut last = 0;
        let refused = loop {
            match store.append_events(&org_id, &session_id, 0, vec![event(last + 1, 3000)]).await {
                Ok(seq) => last = seq,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full), "{refused:?}");
        assert!(last > 5);
        assert!(matches!(store.ping().await, Err(Error::Full)));
        assert_eq!(store.events(&org_id, &session_id, 0, 1000).await.unwrap().len() as u64, last);
        set_room(&store, 30).await;
        store.ping().await.unwrap();
        let next = store.append_events(&org_id, &session_id, 0, vec![event(last + 1, 3000)]).await.unwrap();
        assert_eq!(next, last + 1, "the refused one left no gap");
    }
}

/// Of many in one commit only the one too large for the rest of the disk fails.
#[tokio::test]
async fn a_large_job_takes_no_small_one_with_it() {
    let (_folder, store) = in_file();
    let (org_id, session_id) = session(&store).await;
    set_room(&store, 100).await;
    // Holds the writer until all three wait, so that they share a commit.
    let (let_go, held) = std::sync::mpsc::sync_channel::<()>(1);
    let hold = store.writer.run(move |_| Ok(held.recv().is_err()));
    let append = |n, bytes| store.append_events(&org_id, &session_id, 0, vec![event(n, bytes)]);
    let queued = async {
        while store.writer.waiting() < 3 {
            tokio::task::yield_now().await;
        }
        drop(let_go);
    };
    let (_, first, large, second, ()) =
        tokio::join!(hold, append(1, 100), append(2, 2_000_000), append(3, 100), queued);
    assert!(matches!(large, Err(Error::Full)), "{large:?}");
    assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
}

fn in_file() -> (Option<tempfile::TempDir>, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("store.db")).unwrap();
    (Some(folder), store)
}
