//! What only shows with a hand on the connection.

use jiff::Timestamp;
use serde_json::json;
use wardian_protocol::{AgentId, EventId, OrgId, SessionId};

use super::*;
use crate::{
    AgentQuery, CreatedRange, EnvironmentQuery, EventQuery, FileQuery, NewEvent, NewSession, Order, Page,
    Position, SessionQuery, Store,
};

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

/// Every list and every page is found through an index in the order asked for: none reads a whole table, and none sorts.
#[tokio::test]
async fn lists_are_found_by_index() {
    let (_folder, store) = in_file();
    let org_id = store.default_org().await.unwrap();
    let plans = move |connection: &Connection| {
        let mut plans = Vec::new();
        for order in [Order::Asc, Order::Desc] {
            for (after, backward) in [(None, false), (None, true), (Some(()), false), (Some(()), true)] {
                let after = after.map(|()| Position { at: Timestamp::UNIX_EPOCH, id: "x".to_owned() });
                let page = Page { order, after, backward, limit: 20 };
                for query in queries(&org_id, &page) {
                    plans.push(query.plan(connection));
                }
            }
        }
        for sql in [event::PAGE, event::RAW_PAGE] {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
            let steps = statement.query_map(["o", "s", "1", "20"], |row| row.get(3))?;
            plans.push(steps.map(Result::unwrap).collect());
        }
        Ok(plans)
    };
    for plan in store.writer.run(plans).await.unwrap() {
        let text = plan.join("\n");
        assert!(!text.contains("TEMP B-TREE"), "{text}");
        let scans = plan.iter().filter(|step| step.starts_with("SCAN") && !step.contains("CONSTANT ROW"));
        // The list of names in a question is a table too.
        assert!(scans.into_iter().all(|step| step.contains("json_each")), "{text}");
    }
}

fn queries(org_id: &OrgId, page: &Page) -> Vec<query::Query> {
    let created = CreatedRange {
        gte: Some(Timestamp::UNIX_EPOCH),
        lt: Some(Timestamp::MAX),
        ..CreatedRange::default()
    };
    let session_id = SessionId::from_random([1; 16]);
    let mut queries = Vec::new();
    for n in 0..8 {
        let query = SessionQuery {
            agent_id: (n == 1 || n == 2).then(|| AgentId::from_random([1; 16])),
            agent_version: (n == 2).then_some(1),
            statuses: if n == 3 { vec![crate::SessionStatus::Idle] } else { Vec::new() },
            created: if n == 4 { created } else { CreatedRange::default() },
            include_archived: n == 5,
            user_id: (n == 6).then(|| "ada".to_owned()),
            page: page.clone(),
        };
        queries.push(managed::list_query(org_id, &query));
    }
    for created in [created, CreatedRange::default()] {
        let include_archived = true;
        queries
            .push(agent::list_query(org_id, &AgentQuery { created, include_archived, page: page.clone() }));
        let query = EnvironmentQuery { created, include_archived, page: page.clone() };
        queries.push(environment::list_query(org_id, &query));
        for types in [Vec::new(), vec!["agent.message".to_owned()]] {
            let after = page.after.as_ref().map(|_| 5);
            let query = EventQuery { types, created, order: page.order, after, limit: 20 };
            queries.push(event::list_query(org_id, &session_id, &query).unwrap());
        }
    }
    for (session_id, user_id) in [(None, None), (Some(session_id), None), (None, Some("ada".to_owned()))] {
        queries.push(file::list_query(
            org_id,
            &FileQuery { ids: Vec::new(), session_id, user_id, page: page.clone() },
        ));
    }
    queries
}
