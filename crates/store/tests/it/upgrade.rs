//! A store of the program before this one is brought to the present without loss.

use std::path::Path;

use rusqlite::Connection;
use serde_json::json;
use wardian_store::{
    BeginRun, Error, EventQuery, GroupBy, RunStatus, SessionStatus, SqliteStore, Store, UsageQuery,
};

use crate::common::{at, id, lease, new_managed, outcome, seqs, small};
use crate::managed::{all_events, everything};

/// What the first program left: a session at rest and one whose process died, with their logs, a key, usage.
const ROWS: &str = r#"
INSERT INTO orgs VALUES ('org_second', 'second');
INSERT INTO users VALUES ('org_default', 'ada'), ('org_second', 'ada');
INSERT INTO keys VALUES ('key_00000000000000000000000001', 'org_default', 'k', 'admin,read', 'ada',
    x'0707070707070707070707070707070707070707070707070707070707070707', 1795305600000000, NULL);
INSERT INTO sessions VALUES
    ('org_default', 'sesn_00000000000000000000000001', 'ada', 'idle', 2, NULL, 3, 1795305600000000, 1795305660000000),
    ('org_default', 'sesn_00000000000000000000000002', NULL, 'running', 1, 'req_00000000000000000000000003', 1,
        1795305600000001, 1795305600000001),
    ('org_second', 'sesn_00000000000000000000000001', 'ada', 'terminated', 0, NULL, 0, 0, 0);
INSERT INTO runs VALUES
    ('org_default', 'req_00000000000000000000000001', 'sesn_00000000000000000000000001', 'first', 1795305600000000,
        1795305660000000, 'completed', 0, 5, 3, 'end_turn', NULL, NULL),
    ('org_default', 'req_00000000000000000000000003', 'sesn_00000000000000000000000002', 'dead', 1795305600000001,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO events VALUES
    ('org_default', 'sesn_00000000000000000000000001', 1, 'sevt_00000000000000000000000001',
        'req_00000000000000000000000001', 'run.started', 1795305600000000, '{"z":1,"a":"ü"}'),
    ('org_default', 'sesn_00000000000000000000000001', 2, 'sevt_00000000000000000000000002', NULL, 'x', 0, 'null'),
    ('org_default', 'sesn_00000000000000000000000002', 1, 'sevt_00000000000000000000000009', NULL, 'x', 0, '9'),
    ('org_default', 'sesn_00000000000000000000000001', 3, 'sevt_00000000000000000000000003', NULL, 'x', 0, '[]');
INSERT INTO usage VALUES ('org_default', 'req_00000000000000000000000007', 'ada', 'sesn_00000000000000000000000001',
    'req_00000000000000000000000001', 'first', 'm', 1000, 1795305600000000, 'exact', 1795305601000000, NULL, NULL, 200,
    10, 5, 0, 0, 0, 0, 77, 'p', 0);
"#;

/// A store as the first program left it.
fn first(path: &Path, rows: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = wal; PRAGMA foreign_keys = OFF").unwrap();
    connection.execute_batch(include_str!("../../migrations/0001_first.sql")).unwrap();
    connection.execute_batch("PRAGMA application_id = 0x57617264; PRAGMA user_version = 1").unwrap();
    connection.execute_batch(rows).unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_schema_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    first(&path, ROWS);
    let store = SqliteStore::open(&path).unwrap();
    let org_id = store.default_org().await.unwrap();

    let session = store.session(&org_id, &id(1)).await.unwrap().unwrap();
    assert_eq!((session.status, session.runs, session.last_seq), (SessionStatus::Idle, 2, 3));
    assert_eq!(
        (session.user_id.as_deref(), session.created_at, session.updated_at),
        (Some("ada"), at(0), at(60))
    );
    assert_eq!((session.managed, session.active_run), (None, None));
    let other = store.session(&"org_second".parse().unwrap(), &id(1)).await.unwrap().unwrap();
    assert_eq!(other.status, SessionStatus::Terminated);
    let events = store.events(&org_id, &id(1), 0, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&events[0].payload, &events[0].request_id), (&json!({"z": 1, "a": "ü"}), &Some(id(1))));
    let rows = store.event_rows(&org_id, &id(1), 0, 10).await.unwrap();
    assert_eq!(seqs(&rows), [(1, 1, r#"{"z":1,"a":"ü"}"#), (2, 2, "null"), (3, 3, "[]")]);
    let query = EventQuery { types: vec!["x".to_owned()], ..all_events() };
    assert_eq!(store.list_events(&org_id, &id(1), query).await.unwrap(), rows[1..]);
    assert_eq!(store.key(&id(1)).await.unwrap().unwrap().user_id.as_deref(), Some("ada"));
    let query = UsageQuery { group_by: vec![GroupBy::User], ..UsageQuery::default() };
    assert_eq!(store.usage(&org_id, query).await.unwrap()[0].cost.0, 77);

    // It goes on: the run of the dead process is ended, the next one begins, and managed sessions are made beside.
    let interrupted = store.interrupted_runs("now").await.unwrap();
    assert_eq!(interrupted.iter().map(|run| (&run.id, run.fence)).collect::<Vec<_>>(), [(&id(3), 0)]);
    assert_eq!(store.append_events(&org_id, &id(2), 0, vec![small(10)]).await.unwrap(), 2);
    assert!(store.end_run(&org_id, &id(2), &id(3), outcome(RunStatus::Interrupted, 0)).await.unwrap());
    let begun = store.begin_run(&org_id, &id(1), &id(20), "now", at(99)).await.unwrap();
    assert_eq!(begun, BeginRun::Started { fence: 1 });
    assert_eq!(store.append_events(&org_id, &id(1), 1, vec![small(11)]).await.unwrap(), 4);
    assert_eq!(store.sessions(&org_id, everything()).await.unwrap(), []);
    store.create_session(new_managed(&org_id, 3, 0)).await.unwrap();
    assert_eq!(lease(&store, &org_id, 3, "now").await, 1);

    // Once: the next opening finds it done. References are looked after again.
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.session(&org_id, &id(1)).await.unwrap().unwrap().last_seq, 4);
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let orphaned = raw.execute("DELETE FROM sessions WHERE id LIKE '%1' AND org_id = 'org_default'", []);
    assert!(orphaned.is_err(), "runs refer to the rebuilt table");
    let (check, version): (String, i64) = (
        raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap(),
        raw.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap(),
    );
    assert_eq!((check.as_str(), version), ("ok", 2));
}

/// Eight processes that come at once migrate it once.
#[test]
fn many_may_open_an_old_store_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    first(&path, ROWS);
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| SqliteStore::open(&path).map(|_| ()))).collect();
        for opened in opened {
            opened.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_damaged_store_is_not_migrated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let dangling = "INSERT INTO runs (org_id, id, session_id, owner, started_us) VALUES ('org_default', 'r', 'none', 'o', 0)";
    first(&path, &format!("{ROWS}; {dangling}"));
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(&refused, Error::Dangling { table, .. } if table == "runs"), "{refused:?}");
    let raw = Connection::open(&path).unwrap();
    let version: i64 = raw.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let events: i64 = raw.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!((version, events), (1, 4), "it is as it was");
}
