//! `wardian sessions`: what an operator reads beside a server.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use wardian_protocol::id::{Id, Kind};
use wardian_protocol::{OrgId, SessionId};
use wardian_store::{
    Lease, NewEvent, NewManaged, NewSession, SessionChange, SessionCommit, SessionStatus, SqliteStore, Store,
};

use super::support::{PATIENCE, wardian};

/// A data folder as a server has it, and its store.
struct Data {
    folder: tempfile::TempDir,
    store: Arc<SqliteStore>,
    org_id: OrgId,
}

fn id<K: Kind>(number: u8) -> Id<K> {
    Id::from_random([number; 16])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_305_600 + second).unwrap()
}

fn event(number: u8, kind: &str, fields: Value) -> NewEvent {
    let (id, at) = (id(number), at(i64::from(number)));
    NewEvent { id, request_id: None, kind: kind.to_owned(), payload: fields, at }
}

impl Data {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("wardian.db")).unwrap());
        let org_id = store.default_org().await.unwrap();
        Self { folder, store, org_id }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    async fn create(&self, number: u8, user: &str, events: Vec<NewEvent>) -> SessionId {
        let agent = json!({"id": "agent_x", "name": format!("fixer {number}")});
        let managed = NewManaged {
            agent_id: id(number),
            agent_version: 3,
            environment_id: id(1),
            definition: json!({"agent": agent, "title": "a title\u{1b}[31m\nof two lines"}),
            state: json!({}),
            events,
            wake_at: None,
        };
        let session = NewSession {
            id: id(number),
            org_id: self.org_id.clone(),
            user_id: Some(user.to_owned()),
            created_at: at(i64::from(number)),
            managed: Some(managed),
        };
        self.store.create_session(session).await.unwrap();
        id(number)
    }

    async fn commit(&self, session_id: &SessionId, events: Vec<NewEvent>, status: SessionStatus) {
        let lease = self.store.lease_session(&self.org_id, session_id, "own_test", at(50)).await.unwrap();
        let Lease::Taken { fence, .. } = lease else { panic!("{lease:?}") };
        let change = SessionChange {
            status,
            active_run: None,
            state: json!({}),
            wake_at: None,
            definition: None,
            archived_at: None,
            at: at(60),
        };
        let (org_id, session_id) = (self.org_id.clone(), session_id.clone());
        let commit =
            SessionCommit { org_id, session_id, fence, events, change: Some(change), raw: Vec::new() };
        self.store.commit_session(commit).await.unwrap();
    }
}

async fn sessions(data: &Path, arguments: &[&str]) -> Output {
    let mut command = wardian();
    command.arg("sessions").args(arguments).arg("--data-dir").arg(data);
    command.output().await.unwrap()
}

async fn printed(data: &Path, arguments: &[&str]) -> String {
    let output = sessions(data, arguments).await;
    assert!(output.status.success(), "{arguments:?} {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Filters narrow the list, lines of JSON have everything, and a hostile title does not steer the terminal.
#[tokio::test]
async fn sessions_are_listed_and_shown() {
    let data = Data::new().await;
    for (number, user) in [(1, "alice"), (2, "bob"), (3, "alice")] {
        data.create(number, user, vec![event(number, "user.message", json!({}))]).await;
    }
    data.commit(&id(3), vec![], SessionStatus::Terminated).await;
    let path = data.path();
    let table = printed(&path, &["list"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(
        lines[0].starts_with("session ")
            && lines[1].starts_with(id::<wardian_protocol::id::Session>(3).as_str()),
        "{table}"
    );
    assert!(!table.contains(|c: char| c.is_control() && c != '\n') && table.contains("fixer 2"), "{table}");
    for (arguments, count) in [
        (&["list", "--user", "alice"][..], 2),
        (&["list", "--status", "terminated,running"], 1),
        (&["list", "--user", "bob", "--status", "idle"], 1),
        (&["list", "--agent", id::<wardian_protocol::id::Agent>(2).as_str()], 1),
        (&["list", "--limit", "2"], 2),
        (&["list", "--user", "nobody"], 0),
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let lines = printed(&path, &arguments).await;
        let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), count, "{arguments:?} {lines}");
        assert!(objects.iter().all(|object| object["agent_version"] == 3 && object["last_seq"] == 1));
    }
    let session: SessionId = id(2);
    let shown = printed(&path, &["show", session.as_str()]).await;
    assert!(shown.contains("user                bob") && shown.contains("cost_usd            0"), "{shown}");
    let shown: Value =
        serde_json::from_str(&printed(&path, &["show", "--json", session.as_str()]).await).unwrap();
    assert_eq!(
        (&shown["kind"], &shown["title"]),
        (&json!("managed"), &json!("a title\u{1b}[31m\nof two lines"))
    );
}

/// What is not there is said to be, each with its status.
#[tokio::test]
async fn what_is_missing_is_said() {
    let data = Data::new().await;
    let nowhere = data.path().join("nowhere");
    let unknown: SessionId = id(9);
    for (path, arguments, code, said) in [
        (nowhere.clone(), vec!["list"], 2, "there is no store"),
        (data.path(), vec!["show", unknown.as_str()], 1, "there is none"),
        (data.path(), vec!["logs", "-f", unknown.as_str()], 1, "there is none"),
        (data.path(), vec!["show", "../x"], 2, "sesn_"),
        (data.path(), vec!["list", "--status", "asleep"], 2, "expected idle"),
        (data.path(), vec!["list", "--agent", "sesn_x"], 2, "agent_"),
    ] {
        let output = sessions(&path, &arguments).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {error}");
        assert!(error.contains(said) && output.stdout.is_empty(), "{arguments:?} {error}");
    }
    assert!(!nowhere.exists(), "a question makes nothing");
}

/// Each event once for people, each row for programs; `-f` follows what another process writes, to the session's end.
#[tokio::test]
async fn logs_are_printed_and_followed() {
    let data = Data::new().await;
    let message = json!({"content": [{"type": "text", "text": "Fix it"}]});
    let session = data.create(1, "alice", vec![event(1, "user.message", message.clone())]).await;
    data.commit(&session, vec![event(1, "user.message", message)], SessionStatus::Running).await;
    let path = data.path();
    let people = printed(&path, &["logs", session.as_str()]).await;
    assert_eq!(people.lines().count(), 1, "{people}");
    assert!(people.ends_with("user.message                  Fix it\n"), "{people}");
    let programs = printed(&path, &["logs", "--json", session.as_str()]).await;
    let seqs: Vec<Value> =
        programs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone()).collect();
    assert_eq!(seqs, [1, 2]);
    assert_eq!(
        printed(&path, &["logs", "--json", "--after", "1", session.as_str()]).await.lines().count(),
        1
    );

    let mut command = wardian();
    command.args(["sessions", "logs", "-f", "--after", "2", session.as_str(), "--data-dir"]).arg(&path);
    let mut following = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let following = async {
        let fields = json!({"name": "bash", "input": {"command": "ls"}});
        data.commit(&session, vec![event(2, "agent.tool_use", fields)], SessionStatus::Running).await;
        assert!(
            lines.next_line().await.unwrap().unwrap().ends_with("agent.tool_use                bash  ls")
        );
        let last = event(3, "session.status_terminated", json!({}));
        data.commit(&session, vec![last], SessionStatus::Terminated).await;
        assert!(lines.next_line().await.unwrap().unwrap().ends_with("session.status_terminated"));
        assert_eq!(lines.next_line().await.unwrap(), None);
        assert!(following.wait().await.unwrap().success());
    };
    tokio::time::timeout(PATIENCE, following).await.unwrap();
}

/// Ctrl-C ends it, with the status that shells know.
#[tokio::test]
async fn ctrl_c_ends_following() {
    let data = Data::new().await;
    let session = data.create(1, "alice", vec![event(1, "user.message", json!({}))]).await;
    let mut command = wardian();
    command.args(["sessions", "logs", "-f", session.as_str(), "--data-dir"]).arg(data.path());
    let mut following = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().is_some());
    let pid = Pid::from_raw(following.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = tokio::time::timeout(PATIENCE, following.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(130));
}
