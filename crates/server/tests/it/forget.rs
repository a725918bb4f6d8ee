//! Forgetting a user: afterwards nothing of the user is anywhere, but what it cost.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wardian_store::Scope;

use super::app::{App, form};
use super::foreign::told;
use super::sessions::Parts;

/// What the user says, and what stands in the user's files, in the replies, in names and titles.
const SECRET: &str = "correct-horse-battery-staple";
const USER: &str = "ada@example.com";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

fn script() -> String {
    let usage = json!({"input_tokens": 1000, "output_tokens": 100});
    let replies = json!({"replies": [
        {"match": {"tool_result_contains": "written"}, "repeat": true, "model": "claude-haiku-4-5",
         "text": format!("I know {SECRET}."), "usage": usage},
        {"match": {"last_text_contains": "wait"}, "repeat": true, "model": "claude-haiku-4-5",
         "tool_use": [{"name": "Bash", "input": {"command": "touch ready; while ! test -e go; do sleep 0.01; done; echo written"}}],
         "usage": usage},
        {"repeat": true, "model": "claude-haiku-4-5", "usage": usage,
         "tool_use": [{"name": "Bash", "input": {
             "command": format!("mkdir -p ~/deep && echo {SECRET} | tee note.txt ~/deep/note.txt && echo written")}}]},
    ]});
    replies.to_string()
}

/// All files below a folder, and what names them.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        }
    }
}

/// Where these words are, in the bytes and the names of everything that the server wrote.
fn traces(app: &App, words: &[&str]) -> Vec<String> {
    let database = app.database();
    let mut paths = Vec::new();
    files_below(database.parent().unwrap(), &mut paths);
    let mut found = Vec::new();
    for path in paths {
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        for word in words {
            let is_inside = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            if is_inside || path.to_string_lossy().contains(word) {
                found.push(format!("{word} in {}", path.display()));
            }
        }
    }
    found
}

async fn until_idle(app: &App, session: &str) {
    let idle = async {
        loop {
            let shown = app.get(&app.key, &format!("/v1/sessions/{session}")).await.json();
            let events =
                app.get(&app.key, &format!("/v1/sessions/{session}/events?order=desc&limit=1")).await;
            let last = events.json()["data"][0]["type"].clone();
            if shown["status"] == "idle" && last == "session.status_idle" {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, idle).await.unwrap();
}

/// Everything that can be a user's: sessions, a session's files, a run, an upload, a bound key, kept answers. Returns ids.
async fn belongings(app: &App, user: &str) -> Vec<String> {
    let bound = app.new_key(&[Scope::Sessions], Some(user)).await;
    let file = app.upload(&bound, &[("idempotency-key", "f")], &form(SECRET, "text/plain", SECRET)).await;
    let file = file.json()["id"].as_str().unwrap().to_owned();
    let parts = Parts::new(app).await;
    let body = parts.body(&json!({
        "title": SECRET, "metadata": {"user_id": user, "note": SECRET},
        "resources": [{"type": "file", "file_id": file, "mount_path": "/workspace/given.txt"}],
    }));
    let made = app.call(&bound, "POST", "/v1/sessions", &[("idempotency-key", "s")], &body).await;
    let session = made.json()["id"].as_str().unwrap_or_else(|| panic!("{made:#?}")).to_owned();
    // Posted with a key that belongs to nobody, whose answers are kept, too.
    let body = json!({"events": [{"type": "user.message", "content": [{"type": "text", "text": SECRET}]}]});
    let events = format!("/v1/sessions/{session}/events");
    let key = format!("e-{user}");
    let sent = app.call(&app.key, "POST", &events, &[("idempotency-key", &key)], &body).await;
    assert_eq!(sent.status, 200, "{sent:#?}");
    until_idle(app, &session).await;
    let run = json!({"prompt": SECRET, "user": user, "files": [{"path": "a.txt", "content": SECRET}]});
    let key = format!("r-{user}");
    let run = app.call(&app.key, "POST", "/v1/x/run", &[("idempotency-key", &key)], &run).await;
    assert_eq!(run.status, 200, "{run:#?}");
    vec![file, session, run.json()["session_id"].as_str().unwrap().to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_user_is_left_but_the_money() {
    let app = App::new(&script()).await;
    let admin = app.new_key(&[Scope::Admin], None).await;
    let ids = belongings(&app, USER).await;
    let before = traces(&app, &[SECRET, USER]);
    assert!(before.len() > 5, "the test looks where it is: {before:#?}");
    let spent = app.get(&admin, "/v1/x/usage").await.json();
    assert!(spent["data"][0]["requests"].as_u64().unwrap() >= 4, "{spent:#}");

    let path = format!("/v1/x/users/{}", USER.replace('@', "%40"));
    let forgotten = app.delete(&admin, &path).await;
    assert_eq!(forgotten.status, 200, "{forgotten:#?}");
    let counts = json!({"id": USER, "type": "user_forgotten", "sessions": 2, "files": 1, "keys": 1});
    assert_eq!(forgotten.json(), counts);

    assert_eq!(traces(&app, &[SECRET, USER]), [] as [&str; 0]);
    let mut words: Vec<&str> = ids.iter().map(String::as_str).collect();
    words.retain(|id| id.starts_with("file_"));
    assert_eq!(traces(&app, &words), [] as [&str; 0]);
    assert_eq!(app.get(&admin, "/v1/x/usage").await.json(), spent);
    let by_user = app.get(&admin, "/v1/x/usage?group_by=user").await.json();
    assert_eq!((by_user["data"].as_array().unwrap().len(), &by_user["data"][0]["user"]), (1, &Value::Null));
    for path in [
        format!("/v1/sessions/{}", ids[1]),
        format!("/v1/x/sessions/{}", ids[2]),
        format!("/v1/files/{}", ids[0]),
    ] {
        assert_eq!(app.get(&admin, &path).await.status, 404, "{path}");
    }
    // Again: there is nothing left, and that is no error.
    let again = app.delete(&admin, &path).await;
    let nothing = json!({"id": USER, "type": "user_forgotten", "sessions": 0, "files": 0, "keys": 0});
    assert_eq!((again.status, again.json()), (200, nothing));
    app.stop().await;
    assert_eq!(traces(&app, &[SECRET, USER]), [] as [&str; 0], "nor after the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn others_keep_what_is_theirs_and_may_not_ask() {
    let app = App::new(&script()).await;
    let admin = app.new_key(&[Scope::Admin], None).await;
    let foreign = app.foreign_key().await;
    let bob = belongings(&app, "bob").await;
    let bound = app.new_key(&[Scope::Admin], Some("bob")).await;
    let read = app.new_key(&[Scope::Read], None).await;
    for (key, status) in [(&bound, 403), (&app.key, 403), (&read, 403), (&"none".to_owned(), 401)] {
        let refused = app.delete(key, "/v1/x/users/bob").await;
        assert_eq!(refused.status, status, "{refused:#?}");
    }
    let long = format!("/v1/x/users/{}", "x".repeat(129));
    for wrong in
        [long.as_str(), "/v1/x/users/a%00b", "/v1/x/users/a%0Ab", "/v1/x/users/%FF", "/v1/x/users/bob?x=1"]
    {
        let refused = app.delete(&admin, wrong).await;
        assert_eq!(
            (refused.status, refused.error_type().as_str()),
            (400, "invalid_request_error"),
            "{wrong}"
        );
    }
    // Another organisation's user is answered like one that never was.
    let known = told(&app.delete(&foreign, "/v1/x/users/bob").await, "bob");
    let unknown = told(&app.delete(&foreign, "/v1/x/users/eve").await, "eve");
    assert_eq!(known, unknown);
    assert_eq!(known.0, 200);
    // Nor does forgetting another user of the org touch anything, also not kept answers.
    assert_eq!(app.delete(&admin, "/v1/x/users/ada").await.status, 200);
    assert_eq!(app.get(&admin, &format!("/v1/sessions/{}", bob[1])).await.status, 200);
    assert_eq!(app.get(&admin, &format!("/v1/files/{}/content", bob[0])).await.body, SECRET);
    let body = json!({"prompt": SECRET, "user": "bob", "files": [{"path": "a.txt", "content": SECRET}]});
    let again = app.call(&app.key, "POST", "/v1/x/run", &[("idempotency-key", "r-bob")], &body).await;
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:#?}");
    assert_eq!(again.json()["session_id"], json!(bob[2]));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_while_a_session_of_the_user_runs() {
    let app = App::new(&script()).await;
    let admin = app.new_key(&[Scope::Admin], None).await;
    let parts = Parts::new(&app).await;
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "wait"}]});
    let body = parts.body(&json!({"metadata": {"user_id": "ada"}, "initial_events": [message]}));
    let made = app.post(&app.key, "/v1/sessions", &body).await;
    let session = made.json()["id"].as_str().unwrap_or_else(|| panic!("{made:#?}")).to_owned();
    let workspace = app.engine.workspace(&session.parse().unwrap());
    let refused = async || {
        let refused = app.delete(&admin, "/v1/x/users/ada").await;
        assert_eq!((refused.status, refused.error_type().as_str()), (409, "conflict_error"), "{refused:#?}");
        assert!(refused.body.contains("interrupt it or wait for its end"), "{refused:#?}");
        refused
    };
    assert!(refused().await.body.contains(&session));
    exists(&workspace.join("ready")).await;
    refused().await;
    assert!(workspace.exists(), "it goes on");
    std::fs::write(workspace.join("go"), "").unwrap();
    until_idle(&app, &session).await;
    assert_eq!(app.delete(&admin, "/v1/x/users/ada").await.json()["sessions"], 1);
    assert!(!workspace.exists());

    // A run is no managed session; it is waited for, too.
    let run = json!({"prompt": "x", "user": "ada", "command": ["sh", "-c", "touch ready; while ! test -e go; do sleep 0.01; done"]});
    let running = app.run(&run);
    let asking = async {
        let workspace = loop {
            let sessions = workspace.parent().unwrap().parent().unwrap();
            let mut found = std::fs::read_dir(sessions).unwrap().map(|entry| entry.unwrap().path());
            if let Some(found) = found.next() {
                break found.join("workspace");
            }
            tokio::task::yield_now().await;
        };
        exists(&workspace.join("ready")).await;
        refused().await;
        std::fs::write(workspace.join("go"), "").unwrap();
    };
    let (run, ()) = tokio::join!(running, asking);
    assert_eq!(run.status, 200, "{run:#?}");
    assert_eq!(app.delete(&admin, "/v1/x/users/ada").await.json()["sessions"], 1);
    app.stop().await;
}

async fn exists(path: &Path) {
    let there = async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap();
}
