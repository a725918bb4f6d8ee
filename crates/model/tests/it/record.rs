//! What the server says it got.

use serde_json::{Value, json};
use wardian_model::ServerOptions;

use crate::client::{ask, call, get, send, serve_with};

const KEY: &str = "sk-ant-secret-1234567890";

#[tokio::test]
async fn requests_are_kept_whole_in_order_and_only_the_newest() {
    let options = ServerOptions { keep_requests: 2, ..ServerOptions::default() };
    let server = serve_with(&json!({"replies": [{"echo": true, "repeat": true}]}), options).await;
    for text in ["one", "two", "three"] {
        send(&server, &ask(text, false)).await;
    }
    let kept = server.requests();
    let texts: Vec<_> = kept.iter().map(|request| request.last_user_text().unwrap()).collect();
    assert_eq!(texts, ["two", "three"]);
    assert_eq!(server.request_count(), 3);
    let first = server.next_request().await;
    assert_eq!(
        (first.method.as_str(), first.path.as_str(), first.query.as_str()),
        ("POST", "/v1/messages", "beta=true")
    );
    assert_eq!(first.header("x-api-key"), Some("k"));
    assert_eq!(first.body, ask("two", false));
    assert_eq!(server.next_request().await.last_user_text().as_deref(), Some("three"));
    let next = async { server.next_request().await.path };
    let (path, _) = tokio::join!(next, get(&server, "/v1/models"));
    assert_eq!(path, "/v1/models");
}

#[tokio::test]
async fn the_log_tells_keys_apart_and_shows_none() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("got.jsonl");
    let options = ServerOptions {
        expect_key: Some(KEY.to_owned()),
        log: Some(log.clone()),
        ..ServerOptions::default()
    };
    assert!(!format!("{options:?}").contains(KEY));
    let server =
        serve_with(&json!({"replies": [{"drop_connection": true}, {"text": "ok", "repeat": true}]}), options)
            .await;
    let version = ("anthropic-version", "2023-06-01");
    let body = ask("hello", false).to_string();
    let bearer = format!("Bearer {KEY}");
    let post = http::Method::POST;
    assert!(crate::client::try_send(&server, &ask("no key of ours", false)).await.is_ok());
    call(&server, post.clone(), "/v1/messages", &[version], &body).await;
    for headers in [[("x-api-key", KEY), version], [("authorization", bearer.as_str()), version]] {
        let dropped = call(&server, http::Method::GET, "/v1/models", &headers, "").await;
        assert_eq!(dropped.status, 200);
    }
    call(
        &server,
        post,
        "/v1/messages",
        &[("x-api-key", KEY), version, ("x-tag", "a"), ("x-tag", "b")],
        "not JSON",
    )
    .await;
    assert!(!format!("{:?}", server.requests()).contains(KEY));
    assert_eq!(server.requests()[2].header("x-api-key"), Some(KEY));

    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains(KEY));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fields = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(fields("status"), [401, 401, 200, 200, 400]);
    assert_eq!(fields("key_as_expected"), [false, false, true, true, true]);
    assert_eq!(lines[0]["body"], ask("no key of ours", false));
    assert_eq!(lines[4]["body"], "not JSON");
    assert_eq!(lines[4]["headers"]["x-tag"], "a, b");
    // One key, one hash, in whichever header.
    assert_eq!(lines[2]["headers"]["x-api-key"], lines[3]["headers"]["authorization"]);
    assert_ne!(lines[2]["headers"]["x-api-key"], lines[0]["headers"]["x-api-key"]);
}
