//! Rows that this program did not write, and values that are too much.

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};
use wardian_protocol::NanoUsd;
use wardian_store::{
    AgentQuery, CreatedRange, Error, EventQuery, IdempotentRequest, MAX_APPEND_BYTES, MAX_APPEND_EVENTS,
    MAX_COUNT, MAX_DEFINITION_BYTES, MAX_EVENT_BYTES, MAX_NAME_BYTES, MAX_STATE_BYTES, MAX_USER_BYTES,
    NewAgent, NewEnvironment, NewEvent, NewFile, NewKey, NewSession, Order, Page, RunStatus, Scope,
    SessionChange, SessionCommit, SessionStatus, SqliteStore, Store, UsageQuery,
};

use crate::common::{at, change, commit, end, event, id, leased, outcome, running, session, small, start};
use crate::managed::{all_events, everything};

/// Every column that is read, spoiled in every way that the schema lets pass: a typed error that names the row.
#[tokio::test]
async fn a_malformed_row_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let (org_id, session_id, _run) = running(&store, 1, "gone").await;
    store.append_events(&org_id, &session_id, 1, vec![small(1), small(2)]).await.unwrap();
    let key = NewKey {
        id: id(1),
        org_id: org_id.clone(),
        name: String::new(),
        scopes: vec![Scope::Admin],
        user_id: None,
        secret_sha256: [0; 32],
        created_at: at(0),
    };
    store.create_key(key).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF").unwrap();

    for (table, column, bad) in [
        ("sessions", "status", "'asleep'"),
        ("sessions", "active_run", "'../../etc/passwd'"),
        ("sessions", "runs", "-1"),
        ("sessions", "last_seq", "-9223372036854775808"),
        ("sessions", "created_us", "9223372036854775807"),
        ("sessions", "user_id", "CAST(x'ff00fe' AS TEXT)"),
        ("events", "id", "'sevt_'"),
        ("events", "request_id", "'req-1'"),
        ("events", "payload", "'{\"n\":'"),
        ("events", "payload", "CAST(x'22ff22' AS TEXT)"),
        ("events", "at_us", "-9223372036854775808"),
        ("keys", "scopes", "'admin,root'"),
        ("keys", "secret_sha256", "x'00'"),
        ("keys", "org_id", "'acme'"),
        ("keys", "revoked_us", "9223372036854775807"),
        ("runs", "session_id", "''"),
        ("runs", "started_us", "9223372036854775807"),
    ] {
        let good: rusqlite::types::Value = raw
            .query_row(&format!("SELECT {column} FROM {table} ORDER BY rowid LIMIT 1"), [], |row| row.get(0))
            .unwrap();
        let first = format!("rowid = (SELECT min(rowid) FROM {table})");
        raw.execute(&format!("UPDATE {table} SET {column} = {bad} WHERE {first}"), []).unwrap();
        let result = match table {
            "sessions" => store.session(&org_id, &session_id).await.map(|_| ()),
            "events" => store.events(&org_id, &session_id, 0, 10).await.map(|_| ()),
            "keys" => store.key(&id(1)).await.map(|_| ()),
            _ => store.interrupted_runs("here").await.map(|_| ()),
        };
        match result {
            Err(Error::Malformed { table: named, id, why }) => {
                assert_eq!(named, table);
                assert!(!id.is_empty() && why.starts_with(column), "{table}.{column}: `{id}` {why}");
            }
            other => panic!("{table}.{column} = {bad}: {other:?}"),
        }
        raw.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE {first}"), [good]).unwrap();
        store.session(&org_id, &session_id).await.unwrap().unwrap();
        assert_eq!(store.events(&org_id, &session_id, 0, 10).await.unwrap().len(), 2);
    }
}

/// The same for what managed sessions are made of.
#[tokio::test]
async fn a_malformed_row_of_a_managed_session_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    let raw_line = vec!["line".to_owned()];
    let write = SessionCommit { raw: raw_line, ..commit(&org_id, 1, fence, vec![small(1), small(1)]) };
    store.commit_session(write).await.unwrap();
    let (definition, created_at) = (json!({}), at(0));
    let agent = NewAgent { id: id(1), org_id: org_id.clone(), definition: definition.clone(), created_at };
    store.create_agent(agent).await.unwrap();
    let environment = NewEnvironment { id: id(1), org_id: org_id.clone(), definition, created_at };
    store.create_environment(environment).await.unwrap();
    let file = NewFile {
        id: id(1),
        org_id: org_id.clone(),
        user_id: None,
        filename: "f".to_owned(),
        mime_type: "t".to_owned(),
        size_bytes: 1,
        created_at,
        expires_at: None,
        session_id: None,
    };
    store.create_file(file).await.unwrap();
    let request = IdempotentRequest {
        org_id: org_id.clone(),
        key_id: id(1),
        route: "POST /".to_owned(),
        key: "k".to_owned(),
        request_sha256: [1; 32],
        seed: [1; 16],
        owner: "here".to_owned(),
        at: at(0),
    };
    store.begin_idempotent(request.clone()).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF").unwrap();

    for (table, column, bad) in [
        ("sessions", "agent_id", "'agent 1'"),
        ("sessions", "agent_version", "-1"),
        ("sessions", "environment_id", "'env_../x'"),
        ("sessions", "state", "'{'"),
        ("sessions", "state", "NULL"),
        ("sessions", "fence", "-1"),
        ("sessions", "wake_us", "9223372036854775807"),
        ("sessions", "archived_us", "9223372036854775807"),
        ("sessions", "lease_owner", "CAST(x'ff' AS TEXT)"),
        ("session_definitions", "definition", "'nul'"),
        ("session_definitions", "definition", "CAST(x'22ff22' AS TEXT)"),
        ("events", "id", "'sevt_'"),
        ("events", "first_seq", "-1"),
        ("events", "at_us", "9223372036854775807"),
        ("events", "kind", "CAST(x'ff' AS TEXT)"),
        ("events", "payload", "CAST(x'22ff22' AS TEXT)"),
        ("session_raw", "line", "CAST(x'ff' AS TEXT)"),
        ("agents", "id", "'x'"),
        ("agents", "archived_us", "9223372036854775807"),
        ("agent_versions", "definition", "'{\"a\"}'"),
        ("environments", "definition", "''"),
        ("environments", "updated_us", "9223372036854775807"),
        ("files", "size_bytes", "-1"),
        ("files", "session_id", "'x'"),
        ("idempotent", "seed", "x'00'"),
        ("idempotent", "request_sha256", "x'00'"),
    ] {
        let good: rusqlite::types::Value =
            raw.query_row(&format!("SELECT {column} FROM {table} LIMIT 1"), [], |row| row.get(0)).unwrap();
        raw.execute(&format!("UPDATE {table} SET {column} = {bad}"), []).unwrap();
        let page = Page::first(Order::Asc, 10);
        let (created, include_archived) = (CreatedRange::default(), true);
        let (result, named) = match table {
            "sessions" | "session_definitions" => {
                let listed = store.sessions(&org_id, everything()).await.map(|_| ());
                let found = store.session(&org_id, &session_id).await.map(|_| ());
                assert_eq!(listed.unwrap_err().to_string(), found.as_ref().unwrap_err().to_string());
                (found, "sessions")
            }
            "events" => (store.event_rows(&org_id, &session_id, 0, 10).await.map(|_| ()), "events"),
            "session_raw" => (store.raw_rows(&org_id, &session_id, 0, 10).await.map(|_| ()), "session_raw"),
            "agents" | "agent_versions" => {
                let query = AgentQuery { created, include_archived, page };
                raw.execute("UPDATE agent_versions SET agent_id = (SELECT id FROM agents)", []).unwrap();
                (store.agents(&org_id, query).await.map(|_| ()), "agents")
            }
            "environments" => (store.environment(&org_id, &id(1)).await.map(|_| ()), "environments"),
            "files" => (store.file(&org_id, &id(1)).await.map(|_| ()), "files"),
            _ => (store.begin_idempotent(request.clone()).await.map(|_| ()), "idempotent"),
        };
        match result {
            Err(Error::Malformed { table: table_named, id, why }) => {
                assert_eq!(table_named, named);
                let spoiled = why.starts_with(column) || (table, column) == ("agents", "id");
                assert!(!id.is_empty() && spoiled, "{table}.{column}: `{id}` {why}");
            }
            other => panic!("{table}.{column} = {bad}: {other:?}"),
        }
        raw.execute(&format!("UPDATE {table} SET {column} = ?1"), [good]).unwrap();
        raw.execute("UPDATE agent_versions SET agent_id = (SELECT id FROM agents)", []).unwrap();
    }
    assert!(store.session(&org_id, &session_id).await.unwrap().is_some());
    assert_eq!(store.list_events(&org_id, &session_id, all_events()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_too_much_for_a_managed_session_is_refused_whole() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id, fence) = leased(&store, 1, "here").await;
    let text = |bytes: usize| Value::String("x".repeat(bytes - 2));
    let write = async |state: Value, definition: Option<Value>, events: Vec<NewEvent>| {
        let changed = SessionChange { state, definition, ..change(SessionStatus::Idle, 1) };
        let write = SessionCommit { change: Some(changed), ..commit(&org_id, 1, fence, events) };
        store.commit_session(write).await
    };
    let largest = write(text(MAX_STATE_BYTES), Some(text(MAX_DEFINITION_BYTES)), vec![small(1)]).await;
    assert_eq!(largest.unwrap(), 1, "the limits themselves fit");
    let large = write(text(MAX_STATE_BYTES + 1), None, vec![small(2)]).await;
    assert!(matches!(large, Err(Error::TooLarge { what: "state", .. })), "{large:?}");
    let large = write(json!(1), Some(text(MAX_DEFINITION_BYTES + 1)), vec![small(2)]).await;
    assert!(matches!(large, Err(Error::TooLarge { what: "definition", .. })), "{large:?}");
    let large = write(json!(1), None, vec![event(2, text(MAX_EVENT_BYTES + 1))]).await;
    assert!(matches!(large, Err(Error::TooLarge { what: "event", .. })), "{large:?}");
    let many = write(json!(1), None, (0..=MAX_APPEND_EVENTS as u64).map(small).collect()).await;
    assert!(matches!(many, Err(Error::TooLarge { what: "append, in events", .. })), "{many:?}");
    let record = store.session(&org_id, &session_id).await.unwrap().unwrap();
    assert_eq!((record.last_seq, record.managed.unwrap().state), (1, text(MAX_STATE_BYTES)));

    // A page of a stream ends early where events are large, and has one at least; a list is refused.
    for n in 2..=6 {
        let large = event(n, text(MAX_EVENT_BYTES));
        store.commit_session(commit(&org_id, 1, fence, vec![large])).await.unwrap();
    }
    let rows = store.event_rows(&org_id, &session_id, 1, 100).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [2]);
    let list = async |limit: u32| {
        store.list_events(&org_id, &session_id, EventQuery { limit, ..all_events() }).await
    };
    let refused = list(100).await.map(|rows| rows.len());
    assert!(matches!(refused, Err(Error::TooLarge { what: "page", .. })), "{refused:?}");
    assert_eq!(list(4).await.unwrap().len(), 4);
}

#[tokio::test]
async fn malformed_usage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let store = SqliteStore::open(&path).unwrap();
    let org_id = store.default_org().await.unwrap();
    store.open_usage(start(&org_id, 1, "here")).await.unwrap();
    store.settle_usage(end(&org_id, 1, 1)).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    for bad in ["input_tokens = -5", "session_id = 'x'"] {
        raw.execute(&format!("UPDATE usage SET {bad}"), []).unwrap();
        let query = UsageQuery { group_by: vec![wardian_store::GroupBy::Session], ..UsageQuery::default() };
        let result = store.usage(&org_id, query).await;
        assert!(matches!(result, Err(Error::Malformed { table: "usage", .. })), "{bad}: {result:?}");
    }
}

#[tokio::test]
async fn what_is_too_much_is_refused_whole() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id) = session(&store, 1).await;
    let text = |bytes: usize| Value::String("x".repeat(bytes - 2));

    let append = async |events| store.append_events(&org_id, &session_id, 0, events).await;
    assert_eq!(append(vec![event(1, text(MAX_EVENT_BYTES))]).await.unwrap(), 1, "the limit itself fits");
    let too_large = append(vec![small(2), event(3, text(MAX_EVENT_BYTES + 1))]).await.unwrap_err();
    assert_eq!(too_large.to_string(), "store the event: 8388609 is over the limit of 8388608");
    let parts = (MAX_APPEND_BYTES / MAX_EVENT_BYTES) as u64 + 1;
    let too_much = append((0..parts).map(|n| event(10 + n, text(MAX_EVENT_BYTES))).collect()).await;
    assert!(matches!(too_much, Err(Error::TooLarge { what: "append", .. })), "{too_much:?}");
    let too_many = append((0..=MAX_APPEND_EVENTS as u64).map(small).collect()).await;
    assert!(matches!(too_many, Err(Error::TooLarge { what: "append, in events", .. })), "{too_many:?}");
    assert_eq!(append(vec![small(2)]).await.unwrap(), 2, "and nothing of it was kept");

    let user = "é".repeat(MAX_USER_BYTES / 2);
    store.ensure_user(&org_id, &user).await.unwrap();
    for user in [user + "x", String::new(), "a\0b".to_owned()] {
        let refused = store.ensure_user(&org_id, &user).await;
        assert!(matches!(refused, Err(Error::TooLarge { .. } | Error::Invalid { .. })), "{user:?}");
        let new = NewSession {
            id: id(9),
            org_id: org_id.clone(),
            user_id: Some(user),
            created_at: at(0),
            managed: None,
        };
        assert!(store.create_session(new).await.is_err());
    }
    assert_eq!(store.session(&org_id, &id(9)).await.unwrap(), None);
}

#[tokio::test]
async fn amounts_and_times_must_make_sense() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for bound in [NanoUsd(-1), NanoUsd(i64::MAX), NanoUsd(i64::MIN)] {
        let refused =
            store.open_usage(wardian_store::UsageStart { bound, ..start(&org_id, 1, "here") }).await;
        assert!(matches!(refused, Err(Error::Invalid { what: "amount", .. })), "{refused:?}");
    }
    let early =
        store.open_usage(wardian_store::UsageStart { at: Timestamp::MIN, ..start(&org_id, 1, "here") }).await;
    assert!(matches!(early, Err(Error::Invalid { what: "time", .. })), "{early:?}");
    let model = "m".repeat(MAX_NAME_BYTES + 1);
    let long = store.open_usage(wardian_store::UsageStart { model, ..start(&org_id, 1, "here") }).await;
    assert!(matches!(long, Err(Error::TooLarge { what: "model", .. })), "{long:?}");

    // A count from upstream beyond reason does not lose the record, nor spoil the sums.
    store.open_usage(start(&org_id, 1, "here")).await.unwrap();
    let mut huge = end(&org_id, 1, 1);
    huge.tokens.input_tokens = u64::MAX;
    assert!(store.settle_usage(huge).await.unwrap());
    assert_eq!(store.usage(&org_id, UsageQuery::default()).await.unwrap()[0].tokens.input_tokens, MAX_COUNT);

    let (org_id, session_id, run) = running(&store, 1, "here").await;
    let mut bad = outcome(RunStatus::Completed, -1);
    assert!(store.end_run(&org_id, &session_id, &run, bad.clone()).await.is_err());
    bad.cost = NanoUsd(0);
    assert!(store.end_run(&org_id, &session_id, &run, bad).await.unwrap());
}

#[tokio::test]
async fn a_page_of_large_events_ends_early() {
    let store = SqliteStore::open_in_memory().unwrap();
    let (org_id, session_id) = session(&store, 1).await;
    let large = json!("y".repeat(3 << 20));
    for n in 1..=5 {
        store.append_events(&org_id, &session_id, 0, vec![event(n, large.clone())]).await.unwrap();
    }
    let page = store.events(&org_id, &session_id, 0, 1000).await.unwrap();
    assert_eq!(page.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    let all = crate::concurrent::read_all(&store, &org_id, &session_id).await;
    assert_eq!(all.len(), 5);
}
