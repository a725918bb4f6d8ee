//! Clients that stall, crowd or leave, and parts that die.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::App;
use super::client::{request, send};

const QUIET: &str = r#"{"replies": []}"#;

/// Waits for something that is awaited by looking: the other side has no event for it.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_cut_and_its_run_ends() {
    let app = App::with(QUIET, |config| config.write_timeout = Duration::from_millis(300)).await;
    let body = json!({"prompt": "x", "command": ["yes", "no reader takes this"], "stream": true}).to_string();
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
    let mut stalled = TcpStream::connect(app.address).await.unwrap();
    stalled.write_all(&request("POST", "/v1/x/run", &headers, body.as_bytes())).await.unwrap();
    until("the run has begun", async || app.engine.runs() == 1).await;
    let other = app.run(&json!({"prompt": "x", "command": ["echo", "meanwhile"]})).await;
    assert_eq!(other.json()["stdout"], "meanwhile\n", "{other:#?}");
    until("the run has ended", async || app.engine.runs() == 0).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_cap_wait_for_a_place() {
    let app = App::with(QUIET, |config| {
        config.max_connections = 2;
        config.head_timeout = Duration::from_millis(300);
    })
    .await;
    // Two that say nothing hold both places until their time is over.
    let _idle =
        (TcpStream::connect(app.address).await.unwrap(), TcpStream::connect(app.address).await.unwrap());
    let reply = app.get(&app.key, "/v1/x/usage").await;
    assert_eq!(reply.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_methods_and_targets_are_answered_in_the_same_shape() {
    let app = App::new(QUIET).await;
    for head in ["OPTIONS * HTTP/1.1", "CONNECT example.com:443 HTTP/1.1", "BREW /v1/x/run HTTP/1.1"] {
        let bytes = format!("{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let reply = send(app.address, bytes.as_bytes(), false).await;
        assert!((400..500).contains(&reply.status), "{head}: {reply:#?}");
        assert!(!reply.error_type().is_empty(), "{head}: {reply:#?}");
    }
    // Two requests on one connection, the first refused.
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let kept = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{kept}{last}").as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert!(answers.starts_with("HTTP/1.1 404") && answers.contains("HTTP/1.1 200 OK"), "{answers}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launcher_that_dies_makes_only_the_sandbox_red() {
    let app = App::new(QUIET).await;
    let launcher = children().into_iter().next().unwrap();
    let killed = std::process::Command::new("kill").args(["-9", &launcher]).status().unwrap();
    assert!(killed.success());
    let ready = async || send(app.address, &request("GET", "/readyz", &[], b""), false).await;
    until("it is noticed", async || ready().await.status == 503).await;
    let (ok, failed) = (json!({"status": "ok"}), json!({"status": "failed"}));
    assert_eq!(
        ready().await.json(),
        json!({"status": "unready", "store": ok, "sandbox": failed, "gateway": ok})
    );
    let run = app.run(&json!({"prompt": "x", "command": ["true"]})).await;
    assert_eq!((run.status, run.error_type().as_str()), (500, "api_error"), "{run:#?}");
    assert_eq!(app.get(&app.key, "/v1/x/usage").await.status, 200);
    app.sweep();
}

/// The processes that this test has started: the launcher. (nextest gives each test a process of its own.)
fn children() -> Vec<String> {
    let own = std::process::id();
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{own}/task")).unwrap() {
        let listed = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        children.extend(listed.split_whitespace().map(str::to_owned));
    }
    children
}
