//! What is deleted for good, and what stays.

use serde_json::json;
use wardian_protocol::OrgId;
use wardian_protocol::id::Session;
use wardian_store::{
    DeletedSession, FileQuery, ForgetUser, Forgotten, GroupBy, Idempotent, IdempotentRequest, NewEvent,
    NewFile, NewKey, NewSession, Order, Page, SessionChange, SessionCommit, SessionStatus, SqliteStore,
    Store, UsageQuery, UsageStart,
};

use crate::common::{
    at, change, commit, end, event, id, lease, leased, new_managed, outcome, session, small, start,
};

const SECRET: &str = "correct horse battery staple";

/// A key that is bound to nobody.
const NOBODYS: u64 = 4711;

fn answered(org_id: &OrgId, key: &str, route: String) -> IdempotentRequest {
    IdempotentRequest {
        org_id: org_id.clone(),
        key_id: id(NOBODYS),
        route,
        key: key.to_owned(),
        request_sha256: [1; 32],
        seed: [1; 16],
        owner: "here".to_owned(),
        at: at(0),
    }
}

/// Everything that can belong to a user: two managed sessions, one of runs, files, a key, usage.
async fn belongings(store: &dyn Store, org_id: &OrgId, user: &str, first: u64) {
    let user_id = Some(user.to_owned());
    for n in first..first + 2 {
        let new = NewSession { user_id: user_id.clone(), ..new_managed(org_id, n, 0) };
        store.create_session(new).await.unwrap();
        let fence = lease(store, org_id, n, "here").await;
        let events = (0..1500).map(|n| event(n, json!({"text": SECRET}))).collect();
        let raw = vec![SECRET.to_owned(); 1000];
        store.commit_session(SessionCommit { raw, ..commit(org_id, n, fence, events) }).await.unwrap();
        store.release_session(org_id, &id(n), fence).await.unwrap();
    }
    let n = first + 2;
    let new = NewSession { user_id: user_id.clone(), managed: None, ..new_managed(org_id, n, 0) };
    store.create_session(new).await.unwrap();
    store.begin_run(org_id, &id(n), &id(n), "here", at(1)).await.unwrap();
    store.append_events(org_id, &id(n), 1, vec![small(n)]).await.unwrap();
    store.end_run(org_id, &id(n), &id(n), outcome(wardian_store::RunStatus::Completed, 1)).await.unwrap();

    let file = |n: u64, user_id: Option<String>| NewFile {
        id: id(n),
        org_id: org_id.clone(),
        user_id,
        filename: SECRET.to_owned(),
        mime_type: "text/plain".to_owned(),
        size_bytes: 1,
        created_at: at(0),
        expires_at: None,
        session_id: Some(id(first)),
    };
    store.create_file(file(first, user_id.clone())).await.unwrap();
    store.create_file(file(first + 1, None)).await.unwrap();
    let key = NewKey {
        id: id(first),
        org_id: org_id.clone(),
        name: SECRET.to_owned(),
        scopes: vec![],
        user_id: user_id.clone(),
        secret_sha256: [1; 32],
        created_at: at(0),
    };
    store.create_key(key).await.unwrap();
    let request = IdempotentRequest {
        org_id: org_id.clone(),
        key_id: id(first),
        route: "POST /v1/sessions".to_owned(),
        key: "k".to_owned(),
        request_sha256: [1; 32],
        seed: [1; 16],
        owner: "here".to_owned(),
        at: at(0),
    };
    store.begin_idempotent(request).await.unwrap();
    let body = SECRET.as_bytes().to_vec();
    store.finish_idempotent(org_id, &id(first), "k", 200, body, at(0)).await.unwrap();
    // Answers to a key that is nobody's: by their route or their words they are about the user's, or about others'.
    for (key, route, body) in [
        ("route", format!("POST /v1/sessions/{}/events", id::<Session>(first)), SECRET.to_owned()),
        (
            "body",
            "POST /v1/sessions".to_owned(),
            format!("{{\"id\":\"{}\",{SECRET}", id::<Session>(first + 2)),
        ),
        ("other", "POST /v1/agents".to_owned(), "{\"id\":\"agent_x\"}".to_owned()),
    ] {
        let request = answered(org_id, key, route);
        store.begin_idempotent(request.clone()).await.unwrap();
        let body = body.into_bytes();
        store.finish_idempotent(org_id, &id(NOBODYS), key, 200, body, at(0)).await.unwrap();
        assert!(matches!(store.begin_idempotent(request).await.unwrap(), Idempotent::Done { .. }));
    }
    let usage = UsageStart { user_id, session_id: id(first), ..start(org_id, first, "here") };
    store.open_usage(usage).await.unwrap();
    store.settle_usage(end(org_id, first, 5)).await.unwrap();
}

#[tokio::test]
async fn a_user_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let org_id = store.default_org().await.unwrap();
    let other: OrgId = id(77);
    store.ensure_org(&other, "other").await.unwrap();
    belongings(&store, &org_id, "ada lovelace", 10).await;

    let gone = ForgetUser::Forgotten(Forgotten::default());
    assert_eq!(store.forget_user(&other, "ada lovelace").await.unwrap(), gone, "another org's user");
    assert_eq!(store.forget_user(&org_id, "nobody").await.unwrap(), gone);
    assert!(store.session(&org_id, &id(10)).await.unwrap().is_some());

    // Not while somebody works for the user.
    let fence = lease(&store, &org_id, 11, "here").await;
    let in_use = |n| ForgetUser::InUse { session: id(n), gone: Forgotten::default() };
    assert_eq!(store.forget_user(&org_id, "ada lovelace").await.unwrap(), in_use(11));
    let beside = SqliteStore::open(&path).unwrap();
    assert_eq!(beside.forget_user(&org_id, "ada lovelace").await.unwrap(), in_use(11));
    store.release_session(&org_id, &id(11), fence).await.unwrap();
    store.begin_run(&org_id, &id(12), &id(99), "here", at(1)).await.unwrap();
    assert_eq!(store.forget_user(&org_id, "ada lovelace").await.unwrap(), in_use(12));
    let ended = outcome(wardian_store::RunStatus::Completed, 1);
    store.end_run(&org_id, &id(12), &id(99), ended).await.unwrap();
    assert!(store.session(&org_id, &id(10)).await.unwrap().is_some(), "nothing went so far");

    let ForgetUser::Forgotten(mut went) = store.forget_user(&org_id, "ada lovelace").await.unwrap() else {
        panic!()
    };
    went.sessions.sort();
    went.files.sort();
    let sessions = vec![id(10), id(11), id(12)];
    assert_eq!(went, Forgotten { sessions, files: vec![id(10), id(11)], keys: 1 });
    assert_eq!(store.forget_user(&org_id, "ada lovelace").await.unwrap(), gone, "again");
    for n in 10..=12 {
        assert_eq!(store.session(&org_id, &id(n)).await.unwrap(), None);
        assert_eq!(store.event_rows(&org_id, &id(n), 0, 10).await.unwrap(), []);
    }
    assert_eq!(store.key(&id(10)).await.unwrap(), None);
    let page = Page::first(Order::Asc, 10);
    let files = FileQuery { ids: vec![], session_id: None, user_id: None, page };
    assert_eq!(store.files(&org_id, files).await.unwrap(), []);
    let other = answered(&org_id, "other", "POST /v1/agents".to_owned());
    assert!(
        matches!(store.begin_idempotent(other).await.unwrap(), Idempotent::Done { .. }),
        "not the user's"
    );
    // The money stays.
    let query = UsageQuery { group_by: vec![GroupBy::User], ..UsageQuery::default() };
    let usage = store.usage(&org_id, query).await.unwrap();
    assert_eq!((usage.len(), &usage[0].user_id, usage[0].requests, usage[0].cost.0), (1, &None, 1, 5));

    // Not a word of it is in the files of the database.
    for name in ["store.db", "store.db-wal"] {
        let bytes = std::fs::read(folder.path().join(name)).unwrap();
        for word in [SECRET, "ada lovelace"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{word} in {name}");
        }
    }
}

#[tokio::test]
async fn the_user_of_a_dead_owner_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (org_id, ..) = leased(&SqliteStore::open(&path).unwrap(), 1, "dead").await;
    let store = SqliteStore::open(&path).unwrap();
    let went = Forgotten { sessions: vec![id(1)], ..Forgotten::default() };
    assert_eq!(store.forget_user(&org_id, "ada").await.unwrap(), ForgetUser::Forgotten(went));
}

/// Sets when a managed session last changed, and how it ended.
async fn ended(
    store: &dyn Store,
    org_id: &OrgId,
    n: u64,
    status: SessionStatus,
    archived: bool,
    seconds: i64,
) {
    let fence = lease(store, org_id, n, "here").await;
    let changed = SessionChange { archived_at: archived.then(|| at(seconds)), ..change(status, seconds) };
    let events: Vec<NewEvent> = (0..5).map(|event| small(n * 10 + event)).collect();
    let raw = vec!["line".to_owned()];
    let write = SessionCommit { change: Some(changed), raw, ..commit(org_id, n, fence, events) };
    store.commit_session(write).await.unwrap();
    store.release_session(org_id, &id(n), fence).await.unwrap();
}

#[tokio::test]
async fn old_logs_go_and_their_sessions_go_on() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, _) = session(&store, 1).await;
    store.append_events(&org_id, &id(1), 0, vec![small(1), small(2)]).await.unwrap();
    let other: OrgId = id(77);
    store.ensure_org(&other, "other").await.unwrap();
    for (n, org_id, seconds) in [(2, &org_id, 10), (3, &other, 10), (4, &org_id, 100), (5, &org_id, 10)] {
        store.create_session(new_managed(org_id, n, 0)).await.unwrap();
        ended(&store, org_id, n, SessionStatus::Idle, false, seconds).await;
    }
    lease(&store, &org_id, 5, "here").await;
    // 2 of session 1, and 5 with a line each of sessions 2 and 3; session 4 is too new and session 5 is held.
    assert_eq!(store.delete_events_before(at(0), 100).await.unwrap(), 0);
    assert_eq!(store.delete_events_before(at(50), 3).await.unwrap(), 3);
    assert_eq!(store.delete_events_before(at(50), 100).await.unwrap(), 11);
    assert_eq!(store.delete_events_before(at(50), 100).await.unwrap(), 0);
    for (n, org_id, rows) in
        [(1, &org_id, 0), (2, &org_id, 0), (3, &other, 0), (4, &org_id, 5), (5, &org_id, 5)]
    {
        assert_eq!(store.event_rows(org_id, &id(n), 0, 10).await.unwrap().len(), rows, "{n}");
        assert_eq!(store.raw_rows(org_id, &id(n), 0, 10).await.unwrap().len(), usize::from(rows > 0), "{n}");
    }
    let fence = lease(&store, &org_id, 2, "here").await;
    assert_eq!(store.commit_session(commit(&org_id, 2, fence, vec![small(20)])).await.unwrap(), 6);
    let row = store.event(&org_id, &id(2), &id(20)).await.unwrap().unwrap();
    assert_eq!((row.seq, row.first_seq), (6, 6));
}

#[tokio::test]
async fn old_sessions_go_when_they_are_over() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, _) = session(&store, 1).await;
    for (n, status, archived, seconds) in [
        (2, SessionStatus::Idle, false, 10),
        (3, SessionStatus::Terminated, false, 10),
        (4, SessionStatus::Idle, true, 10),
        (5, SessionStatus::Terminated, true, 100),
        (6, SessionStatus::Terminated, true, 10),
        (7, SessionStatus::Terminated, true, 10),
    ] {
        store.create_session(new_managed(&org_id, n, 0)).await.unwrap();
        ended(&store, &org_id, n, status, archived, seconds).await;
    }
    lease(&store, &org_id, 6, "here").await;
    let delete = async |limit| store.delete_sessions_before(at(50), limit).await.unwrap();
    let gone = |n| DeletedSession { org_id: org_id.clone(), session_id: id(n) };
    assert_eq!(delete(2).await, [gone(3), gone(4)]);
    assert_eq!(delete(100).await, [gone(7)]);
    assert_eq!(delete(100).await, []);
    for (n, there) in [(1, true), (2, true), (3, false), (4, false), (5, true), (6, true), (7, false)] {
        assert_eq!(store.session(&org_id, &id(n)).await.unwrap().is_some(), there, "{n}");
    }
}

#[tokio::test]
async fn old_usage_goes_when_it_is_settled() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for n in 1..=6 {
        let begun = UsageStart { at: at(i64::try_from(n).unwrap()), ..start(&org_id, n, "here") };
        store.open_usage(begun).await.unwrap();
        if n > 1 {
            store.settle_usage(end(&org_id, n, 1)).await.unwrap();
        }
    }
    assert_eq!(store.delete_usage_before(at(5), 2).await.unwrap(), 2);
    assert_eq!(store.delete_usage_before(at(5), 100).await.unwrap(), 1);
    assert_eq!(store.delete_usage_before(at(5), 100).await.unwrap(), 0);
    let left = store.usage(&org_id, UsageQuery::default()).await.unwrap().remove(0);
    assert_eq!((left.requests, left.open_requests), (3, 1));
}
