//! Many at once: tasks of one process, and two processes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;
use wardian_protocol::{OrgId, SessionId};
use wardian_store::{
    BeginRun, EventQuery, EventRecord, EventRow, Idempotent, IdempotentRequest, SqliteStore, Store,
};

use crate::common::{at, commit, id, leased, session, small};
use crate::crash::{Child, Role};
use crate::managed::all_events;

const TASKS: u64 = 64;
const EACH: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_append_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
    let (org_id, session_id) = session(store.as_ref(), 1).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, org_id, session_id) = (Arc::clone(&store), org_id.clone(), session_id.clone());
        tasks.spawn(async move {
            let mut seqs = Vec::new();
            for n in 0..EACH {
                // Two at a time: the two must stay together.
                let event = 1 + (task * EACH + n) * 2;
                let pair = vec![small(event), small(event + 1)];
                seqs.push(store.append_events(&org_id, &session_id, 0, pair).await.unwrap());
            }
            assert!(seqs.is_sorted(), "what a task writes later comes later");
            seqs
        });
    }
    let lasts: BTreeSet<u64> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(lasts, (1..=TASKS * EACH).map(|pair| pair * 2).collect(), "each pair got its own two numbers");

    let all = read_all(store.as_ref(), &org_id, &session_id).await;
    assert_eq!(all.len(), usize::try_from(TASKS * EACH * 2).unwrap());
    for (event, seq) in all.iter().zip(1..) {
        assert_eq!(event.seq, seq);
    }
    for pair in all.chunks(2) {
        let number = |event: &EventRecord| event.payload["n"].as_u64().unwrap();
        assert_eq!(number(&pair[0]) + 1, number(&pair[1]), "nobody came between");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_gets_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
    let (org_id, session_id) = session(store.as_ref(), 1).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, org_id, session_id) = (Arc::clone(&store), org_id.clone(), session_id.clone());
        tasks.spawn(
            async move { store.begin_run(&org_id, &session_id, &id(task), "here", at(1)).await.unwrap() },
        );
    }
    let begun = tasks.join_all().await;
    assert_eq!(begun.iter().filter(|begun| **begun == BeginRun::Started { fence: 1 }).count(), 1);
    assert_eq!(begun.iter().filter(|begun| **begun == BeginRun::Busy).count(), 63);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_tasks_commit_without_a_gap_and_one_does_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&folder.path().join("store.db")).unwrap());
    let (org_id, session_id, fence) = leased(store.as_ref(), 1, "here").await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, org_id) = (Arc::clone(&store), org_id.clone());
        tasks.spawn(async move {
            let request = IdempotentRequest {
                org_id: org_id.clone(),
                key_id: id(1),
                route: "POST /".to_owned(),
                key: "k".to_owned(),
                request_sha256: [1; 32],
                seed: [u8::try_from(task).unwrap(); 16],
                owner: "here".to_owned(),
                at: at(0),
            };
            let answer = store.begin_idempotent(request).await.unwrap();
            for n in 0..EACH {
                // Every task accepts the same event anew: one event of many rows.
                let events = vec![small(1), small(2 + task * EACH + n)];
                store.commit_session(commit(&org_id, 1, fence, events)).await.unwrap();
            }
            answer
        });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Idempotent::New { .. })).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == Idempotent::InProgress).count(), 63);

    let mut rows = Vec::new();
    loop {
        let after = rows.last().map_or(0, |row: &EventRow| row.seq);
        let page = store.event_rows(&org_id, &session_id, after, 1000).await.unwrap();
        if page.is_empty() {
            break;
        }
        rows.extend(page);
    }
    assert!(rows.iter().map(|row| row.seq).eq(1..=TASKS * EACH * 2));
    assert!(rows.iter().all(|row| row.first_seq == if row.id == id(1) { 1 } else { row.seq }));
    let listed = store.list_events(&org_id, &session_id, EventQuery { limit: 1000, ..all_events() }).await;
    let listed = listed.unwrap();
    assert_eq!((listed.len(), listed[0].seq), (1000, TASKS * EACH * 2 - 1));
}

/// A second process with the store open appends to the same session while this one does.
#[tokio::test]
async fn two_processes_append_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let (org_id, session_id) = session(&store, 1).await;
    let mut child = Child::start(Role::Append, &path);
    let mut mine = Vec::new();
    let mut theirs = Vec::new();
    while theirs.len() < 100 {
        mine.push(
            store.append_events(&org_id, &session_id, 0, vec![small(1 + mine.len() as u64)]).await.unwrap(),
        );
        theirs.extend(child.acknowledged(1));
    }
    theirs.extend(child.kill());
    assert!(mine.len() > 10 && theirs.len() >= 100, "both got on: {} and {}", mine.len(), theirs.len());
    let all: Vec<_> = read_all(&store, &org_id, &session_id).await.iter().map(|event| event.seq).collect();
    assert!(all.iter().copied().eq(1..=all.len() as u64), "no gap");
    let both: BTreeSet<u64> = mine.iter().chain(&theirs).copied().collect();
    assert_eq!(both.len(), mine.len() + theirs.len(), "no number twice");
    assert!(both.iter().all(|seq| all.contains(seq)), "nothing lost");
}

pub async fn read_all(store: &dyn Store, org_id: &OrgId, session_id: &SessionId) -> Vec<EventRecord> {
    let mut all: Vec<EventRecord> = Vec::new();
    loop {
        let after = all.last().map_or(0, |event| event.seq);
        let page = store.events(org_id, session_id, after, 100).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}
