//! `POST /v1/x/run` as its callers see it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wardian_protocol::SessionId;
use wardian_store::{Scope, SessionStatus};

use super::app::App;
use super::client::{request, send};

const WRITES_A_FILE: &str = r#"{"replies": [
    {"match": {"last_text_contains": "write it"}, "model": "claude-haiku-4-5",
     "tool_use": [{"name": "Bash", "input": {"command": "echo hello > note.txt && pwd"}}],
     "usage": {"input_tokens": 1000, "output_tokens": 100}},
    {"match": {"tool_result_contains": "/workspace"}, "model": "claude-haiku-4-5", "text": "It is written.",
     "usage": {"input_tokens": 2000, "output_tokens": 200}}
]}"#;
const QUIET: &str = r#"{"replies": []}"#;

/// The events of a stream, by name.
fn events(body: &str) -> Vec<(String, Value)> {
    body.split("\n\n")
        .filter_map(|block| {
            let name = block.lines().find_map(|line| line.strip_prefix("event: "))?;
            let data = block.lines().find_map(|line| line.strip_prefix("data: "))?;
            Some((name.to_owned(), serde_json::from_str(data).unwrap()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_comes_back_with_its_cost_and_usage_knows_it() {
    let app = App::new(WRITES_A_FILE).await;
    let reply = app.run(&json!({"prompt": "write it", "model": "haiku", "user": "ann"})).await;
    assert_eq!(reply.status, 200, "{reply:#?}");
    let mut report = reply.json();
    let session = report["session_id"].take();
    assert_eq!(reply.header("request-id"), report["request_id"].as_str());
    report["request_id"].take();
    assert_eq!(
        report,
        json!({
            "session_id": null, "status": "completed", "result": "It is written.", "is_error": false,
            "stop_reason": "end_turn", "num_turns": 2,
            "usage": {
                "input_tokens": 3000, "output_tokens": 300, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "web_search_requests": 0,
            },
            "model_usage": {"claude-haiku-4-5": {
                "requests": 2, "input_tokens": 3000, "output_tokens": 300, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "web_search_requests": 0, "cost_usd": 0.0045,
            }},
            "cost_usd": 0.0045,
            "files_changed": [{"path": "note.txt", "kind": "added"}],
            "request_id": null,
        })
    );
    // 3000 × $1 and 300 × $5 a million: $0.0045, by every key of the usage route.
    for query in [
        "user=ann".to_owned(),
        format!("session={}", session.as_str().unwrap()),
        "model=claude-haiku-4-5".to_owned(),
    ] {
        let usage = app.get(&app.key, &format!("/v1/x/usage?{query}&group_by=user,session,model,day")).await;
        let usage = usage.json();
        assert_eq!(usage["data"].as_array().unwrap().len(), 1, "{usage}");
        let row = &usage["data"][0];
        assert_eq!((&row["cost_usd"], &row["requests"]), (&json!(0.0045), &json!(2)), "{usage}");
        assert_eq!((&row["user"], &row["session_id"]), (&json!("ann"), &session));
    }
    let admin = app.new_key(&[Scope::Admin], None).await;
    let path = format!("/v1/x/sessions/{}", session.as_str().unwrap());
    let seen = app.get(&admin, &path).await.json();
    assert_eq!((&seen["status"], &seen["user"], &seen["runs"]), (&json!("idle"), &json!("ann"), &json!(1)));
    let workspace = std::path::Path::new(seen["workspace"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(workspace.join("note.txt")).unwrap(), "hello\n");
    assert_eq!(app.get(&app.key, &path).await.json()["workspace"], Value::Null);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_run_tells_its_story_in_order() {
    let app = App::new(WRITES_A_FILE).await;
    let reply = app.run(&json!({"prompt": "write it", "model": "haiku", "stream": true})).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")), "{reply:#?}");
    let events = events(&reply.body);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"run_started"), Some(&"run_result")), "{names:?}");
    let session = &events[0].1["session_id"];
    let messages: Vec<_> =
        events.iter().filter(|(name, _)| name == "message").map(|(_, data)| data).collect();
    assert!(messages.iter().all(|message| message["session_id"] == *session));
    assert!(messages.iter().any(|message| message["type"] == "assistant"));
    assert_eq!(messages.last().unwrap()["total_cost_usd"], json!(0.0045));
    let report = &events.last().unwrap().1;
    assert_eq!((&report["status"], &report["cost_usd"]), (&json!("completed"), &json!(0.0045)));
    assert_eq!(&report["session_id"], session);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_a_command_streams_and_a_quiet_one_is_kept_alive() {
    let app = App::with(QUIET, |config| config.keep_alive = Duration::from_millis(100)).await;
    let command = ["sh", "-c", "echo one; sleep 1; echo two >&2; exit 4"];
    let reply = app.run(&json!({"prompt": "x", "command": command, "stream": true})).await;
    assert!(reply.body.contains("\n: keep-alive\n\n"), "{}", reply.body);
    let events = events(&reply.body);
    let output: Vec<_> =
        events.iter().filter(|(name, _)| name == "output").map(|(_, data)| data.clone()).collect();
    assert_eq!(
        output,
        [json!({"stream": "stdout", "text": "one\n"}), json!({"stream": "stderr", "text": "two\n"})]
    );
    let (name, report) = events.last().unwrap();
    assert_eq!(
        (name.as_str(), &report["status"], &report["exit_code"]),
        ("run_result", &json!("failed"), &json!(4))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_budget_is_a_billing_error_that_clients_do_not_retry() {
    let app = App::new(WRITES_A_FILE).await;
    let body = json!({"prompt": "write it", "limits": {"max_cost_usd": 0.000001}});
    let reply = app.run(&body).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (429, "billing_error"), "{reply:#?}");
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    let details = &reply.json()["error"]["details"];
    assert_eq!(details["report"]["status"], "budget_reached");
    assert_eq!(details["report"]["cost_usd"], json!(0.0));
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let reply = app.run(&streamed).await;
    let (name, error) = events(&reply.body).pop().unwrap();
    assert_eq!((name.as_str(), &error["error"]["type"]), ("error", &json!("billing_error")), "{reply:#?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_over_is_a_504_with_the_session_which_can_go_on() {
    let app = App::new(QUIET).await;
    let body = json!({"prompt": "x", "command": ["sh", "-c", "echo kept > file; sleep 1000"], "limits": {"timeout_seconds": 0.5}});
    let reply = app.run(&body).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (504, "timeout_error"), "{reply:#?}");
    let session = reply.json()["error"]["details"]["session_id"].clone();
    let next = app.run(&json!({"prompt": "x", "command": ["cat", "file"], "session_id": session})).await;
    assert_eq!(next.json()["stdout"], "kept\n", "{next:#?}");
    app.stop().await;
}

/// Starts a streamed run, reads until it has started, and returns the connection and the session.
async fn started(app: &App, mut body: Value) -> (TcpStream, SessionId) {
    body["stream"] = json!(true);
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
    let bytes = request("POST", "/v1/x/run", &headers, body.to_string().as_bytes());
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut text = String::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
        if let Some(at) = text.find("sesn_")
            && text[at..].contains('"')
        {
            let id = text[at..].split('"').next().unwrap();
            return (stream, id.parse().unwrap());
        }
    }
}

/// Waits until a session's run has ended, and says how.
async fn ended(app: &App, session: &SessionId) -> Value {
    loop {
        let record = app.store.session(&app.org, session).await.unwrap().unwrap();
        if record.status == SessionStatus::Idle {
            let log = app.store.events(&app.org, session, record.last_seq - 1, 1).await.unwrap();
            return log[0].payload["status"].clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_its_run() {
    let app = App::new(r#"{"replies": [{"text": "never", "hold": true}]}"#).await;
    let (stream, session) = started(&app, json!({"prompt": "think"})).await;
    app.model.wait_for(1).await;
    drop(stream);
    app.model.wait_for_aborted(1).await;
    assert_eq!(ended(&app, &session).await, "cancelled");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_without_a_stream_cancels_too() {
    let app = App::new(r#"{"replies": [{"text": "never", "hold": true}]}"#).await;
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
    let bytes = request("POST", "/v1/x/run", &headers, br#"{"prompt": "think"}"#);
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    app.model.wait_for(1).await;
    drop(stream);
    app.model.wait_for_aborted(1).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_without_its_client_when_told_to() {
    let app = App::new(QUIET).await;
    let body = json!({"prompt": "x", "command": ["sh", "-c", "sleep 0.3; echo done > file"], "on_disconnect": "continue"});
    let (stream, session) = started(&app, body).await;
    drop(stream);
    assert_eq!(ended(&app, &session).await, "completed");
    let file = app.engine.workspace(&session).join("file");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "done\n");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_run_under_way_is_a_conflict() {
    let app = App::new(QUIET).await;
    let (stream, session) = started(&app, json!({"prompt": "x", "command": ["sleep", "1000"]})).await;
    let reply = app.run(&json!({"prompt": "x", "command": ["true"], "session_id": session})).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (409, "conflict_error"), "{reply:#?}");
    drop(stream);
    assert_eq!(ended(&app, &session).await, "cancelled");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_runs_and_tells_their_clients() {
    let app = App::new(QUIET).await;
    let (mut stream, session) = started(&app, json!({"prompt": "x", "command": ["sleep", "1000"]})).await;
    let (rest, ()) = tokio::join!(
        async {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            rest
        },
        app.stop()
    );
    assert!(rest.contains("event: error") && rest.contains("stopping"), "{rest}");
    assert_eq!(ended(&app, &session).await, "cancelled");
    assert!(TcpStream::connect(app.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_key_and_says_each_part() {
    let app = App::new(QUIET).await;
    let live = send(app.address, &request("GET", "/livez", &[], b""), false).await;
    assert_eq!((live.status, live.json()), (200, json!({"status": "ok"})));
    let ready = send(app.address, &request("GET", "/readyz", &[], b""), false).await;
    let ok = json!({"status": "ok"});
    assert_eq!(ready.json(), json!({"status": "ready", "store": ok, "sandbox": ok, "gateway": ok}));
    assert_eq!(ready.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failed_logins_wait_but_a_known_key_works() {
    let app = App::with(QUIET, |config| config.failed_logins_per_minute = 3).await;
    assert_eq!(app.get(&app.key, "/v1/x/usage").await.status, 200);
    for _ in 0..3 {
        assert_eq!(app.get("wrong", "/v1/x/usage").await.status, 401);
    }
    let reply = app.get("wrong", "/v1/x/usage").await;
    assert_eq!((reply.status, reply.error_type().as_str()), (429, "rate_limit_error"));
    assert!(reply.header("retry-after").is_some());
    assert_eq!(app.get(&app.key, "/v1/x/usage").await.status, 200);
    app.stop().await;
}
