//! Pages: whatever there is and however it is walked, each row comes once and in order.

use std::fmt::Debug;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use wardian_store::{
    AgentQuery, CreatedRange, EnvironmentQuery, EventQuery, FileQuery, NewAgent, NewEnvironment, NewFile,
    NewSession, Order, Page, Position, SessionQuery, SqliteStore, Store,
};

use crate::common::{at, commit, event, id, leased, new_managed};
use crate::managed::{all_events, everything};

/// Walks a list by pages, forward and then from its end backward.
async fn walk<P: Clone + Debug>(
    limit: usize,
    ask: impl AsyncFn(Option<P>, bool) -> Vec<P>,
) -> (Vec<P>, Vec<P>) {
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    loop {
        let page = ask(forward.last().cloned(), false).await;
        assert!(page.len() <= limit);
        let last = page.len() < limit;
        forward.extend(page);
        if last {
            break;
        }
    }
    loop {
        let mut page = ask(backward.first().cloned(), true).await;
        assert!(page.len() <= limit);
        let last = page.len() < limit;
        page.append(&mut backward);
        backward = page;
        if last {
            return (forward, backward);
        }
    }
}

fn place(at: Timestamp, id: impl ToString) -> Position {
    Position { at, id: id.to_string() }
}

/// A list by pages in both directions and orders, beside the whole of it.
async fn lists(times: &[u8], limit: u32) {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    let mut places: [Vec<Position>; 4] = Default::default();
    for (n, time) in (1..).zip(times) {
        let created_at = at(i64::from(*time));
        store.create_session(NewSession { created_at, ..new_managed(&org_id, n, 0) }).await.unwrap();
        places[0].push(place(created_at, id::<wardian_protocol::id::Session>(n)));
        let agent = NewAgent { id: id(n), org_id: org_id.clone(), definition: json!(n), created_at };
        places[1].push(place(created_at, &agent.id));
        store.create_agent(agent).await.unwrap();
        let environment =
            NewEnvironment { id: id(n), org_id: org_id.clone(), definition: json!(n), created_at };
        places[2].push(place(created_at, &environment.id));
        store.create_environment(environment).await.unwrap();
        let file = NewFile {
            id: id(n),
            org_id: org_id.clone(),
            user_id: None,
            filename: "f".to_owned(),
            mime_type: "t".to_owned(),
            size_bytes: n,
            created_at,
            expires_at: None,
            session_id: None,
        };
        places[3].push(place(created_at, &file.id));
        store.create_file(file).await.unwrap();
    }
    let (created, include_archived) = (CreatedRange::default(), false);
    for order in [Order::Asc, Order::Desc] {
        for (kind, places) in places.iter().enumerate() {
            let ask = async |after: Option<Position>, backward: bool| -> Vec<Position> {
                let page = Page { order, after, backward, limit };
                match kind {
                    0 => {
                        let found =
                            store.sessions(&org_id, SessionQuery { page, ..everything() }).await.unwrap();
                        found.into_iter().map(|row| place(row.created_at, row.id)).collect()
                    }
                    1 => {
                        let query = AgentQuery { created, include_archived, page };
                        let found = store.agents(&org_id, query).await.unwrap();
                        found.into_iter().map(|row| place(row.created_at, row.id)).collect()
                    }
                    2 => {
                        let query = EnvironmentQuery { created, include_archived, page };
                        let found = store.environments(&org_id, query).await.unwrap();
                        found.into_iter().map(|row| place(row.created_at, row.id)).collect()
                    }
                    _ => {
                        let query = FileQuery { ids: vec![], session_id: None, user_id: None, page };
                        let found = store.files(&org_id, query).await.unwrap();
                        found.into_iter().map(|row| place(row.created_at, row.id)).collect()
                    }
                }
            };
            let (forward, backward) = walk(limit as usize, ask).await;
            let mut expected = places.clone();
            expected.sort();
            if order == Order::Desc {
                expected.reverse();
            }
            assert_eq!(forward, expected, "{kind} {order:?}");
            assert_eq!(backward, expected, "{kind} {order:?} backward");
        }
    }
}

/// A log whose events have several rows: its list by pages is what folding its rows by the event's id gives.
async fn events(ids: &[u8], limit: u32) {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    for (row, chunk) in ids.chunks(3).enumerate() {
        let events = chunk.iter().map(|n| event(u64::from(*n), json!({"row": row}))).collect();
        store.commit_session(commit(&org_id, 1, fence, events)).await.unwrap();
    }
    let mut folded: Vec<wardian_store::EventRow> = Vec::new();
    for row in store.event_rows(&org_id, &session_id, 0, 1000).await.unwrap() {
        match folded.iter_mut().find(|known| known.id == row.id) {
            Some(known) => *known = row,
            None => folded.push(row),
        }
    }
    for order in [Order::Asc, Order::Desc] {
        let mut listed: Vec<wardian_store::EventRow> = Vec::new();
        loop {
            let after = listed.last().map(|row| row.first_seq);
            let query = EventQuery { after, order, limit, ..all_events() };
            let page = store.list_events(&org_id, &session_id, query).await.unwrap();
            let last = page.len() < limit as usize;
            listed.extend(page);
            if last {
                break;
            }
        }
        assert_eq!(listed, folded, "{order:?}");
        folded.reverse();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_row_comes_once_in_both_directions(
        times in prop::collection::vec(0..4u8, 0..25), ids in prop::collection::vec(0..12u8, 0..40), limit in 1..7u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            lists(&times, limit).await;
            events(&ids, limit).await;
        });
    }
}

/// What is made or deleted while someone walks makes no other row come twice or not at all.
#[tokio::test]
async fn a_walk_survives_what_changes() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for n in 1..=9 {
        store.create_session(new_managed(&org_id, n, 5)).await.unwrap();
    }
    let ask = async |after: Option<Position>| {
        let page = Page { order: Order::Desc, after, backward: false, limit: 3 };
        let found = store.sessions(&org_id, SessionQuery { page, ..everything() }).await.unwrap();
        found.into_iter().map(|row| place(row.created_at, row.id)).collect::<Vec<_>>()
    };
    let first = ask(None).await;
    // The very row that the next page comes after goes, and so does one of the next; others come before and at the place.
    for n in [7, 5] {
        let fence = crate::common::lease(&store, &org_id, n, "here").await;
        assert!(store.delete_session(&org_id, &id(n), fence).await.unwrap());
    }
    for (n, seconds) in [(20, 9), (21, 5), (22, 1)] {
        store.create_session(new_managed(&org_id, n, seconds)).await.unwrap();
    }
    let mut seen = first;
    loop {
        let page = ask(seen.last().cloned()).await;
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let expected: Vec<_> = [(9, 5), (8, 5), (7, 5), (6, 5), (4, 5), (3, 5), (2, 5), (1, 5), (22, 1)]
        .map(|(n, seconds)| place(at(seconds), id::<wardian_protocol::id::Session>(n)))
        .to_vec();
    assert_eq!(seen, expected);
}
