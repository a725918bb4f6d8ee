//! Data folders of other versions: the one before this is served, one of a later version is refused and left alone.

use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::Connection;
use serde_json::json;
use tokio::process::Command;

use super::support::{Options, Wardian, wardian};
use super::talk::{Client, Talk};

const REPLIES: &str =
    r#"{"replies": [{"repeat": true, "model": "claude-haiku-4-5", "text": "Still here."}]}"#;

/// A data folder as the first program left it.
fn first(data: &Path) {
    std::fs::create_dir(data).unwrap();
    let connection = Connection::open(data.join("wardian.db")).unwrap();
    connection.execute_batch(include_str!("../../../store/migrations/0001_first.sql")).unwrap();
    connection.execute_batch(include_str!("../../../store/tests/it/first.sql")).unwrap();
    for (session, content) in [(1, "of the first"), (2, "of the second")] {
        let session = data.join(format!("sessions/sesn_0000000000000000000000000{session}"));
        std::fs::create_dir_all(session.join("workspace")).unwrap();
        std::fs::create_dir_all(session.join("home")).unwrap();
        std::fs::write(session.join("workspace/file"), content).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_the_version_before_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    first(&data);
    let mut wardian =
        Wardian::start(REPLIES, Options { data_dir: Some(data.clone()), ..Options::default() }).await;
    let id = |number: u8| format!("sesn_0000000000000000000000000{number}");
    for (number, content) in [(1, "of the first"), (2, "of the second")] {
        let session = wardian.get(&wardian.key, &format!("/v1/x/sessions/{}", id(number))).await.report();
        assert_eq!((&session["status"], &session["runs"]), (&json!("idle"), &json!(1)), "{session:#}");
        let run = json!({"prompt": "x", "session_id": id(number), "command": ["cat", "file"]});
        let report = wardian.run(&run).await.report();
        assert_eq!(report["stdout"], content, "{report:#}");
        let report = wardian.run(&json!({"prompt": "hello", "session_id": id(number)})).await.report();
        assert_eq!(report["result"], "Still here.", "{report:#}");
    }
    let usage = wardian.get(&wardian.key, &format!("/v1/x/usage?session={}", id(1))).await.report();
    assert!(usage["data"][0]["cost_usd"].as_f64().unwrap() >= 0.077, "{usage:#}");
    // And it has sessions now, beside those.
    let client = Client::of(&wardian);
    let mut talk = Talk::new(client.session("always_allow").await);
    talk.turn(&client, "hello").await.unwrap();
    talk.is_what_is_listed(&client).await;
    let listed = client.get("/v1/sessions").await.unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "runs are no sessions of the API: {listed:#}");
    wardian.kill().await;
    wardian.restart().await;
    talk.turn(&Client::of(&wardian), "again").await.unwrap();
    wardian.stop().await;
}

/// Where a database's `user_version` stands in its file (SQLite's file format, 1.3).
const USER_VERSION: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let options = Options { data_dir: Some(data.clone()), ..Options::default() };
    Wardian::start(REPLIES, options).await.stop().await;
    let path = data.join("wardian.db");
    let database = std::fs::File::options().write(true).open(&path).unwrap();
    database.write_all_at(&1000_u32.to_be_bytes(), USER_VERSION).unwrap();
    let before = std::fs::read(&path).unwrap();
    let mut command: Command = wardian();
    command.args(["serve", "--allow-no-cgroup", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let output = command.env("ANTHROPIC_API_KEY", "sk-ant-x").output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(output.stdout.is_empty());
    assert!(said.contains("newer") && said.contains("1000"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
