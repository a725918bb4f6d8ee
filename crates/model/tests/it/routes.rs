//! The other routes, keys, and requests that the API refuses.

use http::Method;
use serde_json::json;
use wardian_model::ServerOptions;

use crate::client::{ask, call, get, send, serve, serve_with};

const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

#[tokio::test]
async fn a_key_is_needed_in_either_header() {
    let options = ServerOptions { expect_key: Some("sk-right".to_owned()), ..ServerOptions::default() };
    let server = serve_with(&json!({"replies": [{"text": "ok", "repeat": true}]}), options).await;
    let body = ask("a", false).to_string();
    for (headers, status) in [
        (vec![("x-api-key", "sk-right")], 200),
        (vec![("authorization", "Bearer sk-right")], 200),
        (vec![("authorization", "bearer  sk-right ")], 200),
        (vec![], 401),
        (vec![("x-api-key", "")], 401),
        (vec![("x-api-key", "sk-wrong")], 401),
        (vec![("x-api-key", "sk-right2")], 401),
        (vec![("authorization", "Bearer sk-wrong")], 401),
        (vec![("x-api-key", "sk-right"), ("authorization", "Bearer sk-wrong")], 401),
    ] {
        let headers: Vec<_> = headers.into_iter().chain([VERSION]).collect();
        let answer = call(&server, Method::POST, "/v1/messages", &headers, &body).await;
        assert_eq!(answer.status, status, "{headers:?}");
        if status == 401 {
            assert!(answer.problem().starts_with("401 authentication_error: "));
        }
    }
    let accepted: Vec<bool> = server.requests().iter().map(|request| request.key_accepted).collect();
    assert_eq!(accepted, [true, true, true, false, false, false, false, false, false]);
}

#[tokio::test]
async fn without_an_expected_key_any_key_will_do() {
    let server = serve(&json!({"replies": [{"text": "ok"}]})).await;
    assert_eq!(get(&server, "/v1/models").await.status, 200);
    let answer = call(&server, Method::GET, "/v1/models", &[], "").await;
    assert_eq!(answer.problem(), "401 authentication_error: x-api-key: header is required");
}

#[tokio::test]
async fn hello_needs_no_key() {
    let server = serve(&json!({"replies": []})).await;
    let answer = call(&server, Method::HEAD, "/api/hello", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
}

#[tokio::test]
async fn tokens_are_estimated_at_four_bytes_each() {
    let server = serve(&json!({"replies": []})).await;
    let count = async |body: &str| {
        call(
            &server,
            Method::POST,
            "/v1/messages/count_tokens?beta=true",
            &[("x-api-key", "k"), VERSION],
            body,
        )
        .await
    };
    // [{"role":"user","content":"hi"}] is 32 bytes, "sys" with its quotes 5: 37 / 4, rounded up.
    let body = r#"{"model": "m", "system": "sys", "messages": [{"role": "user", "content": "hi"}]}"#;
    assert_eq!(count(body).await.json(), json!({"input_tokens": 10}));
    assert_eq!(
        count(r#"{"model": "m"}"#).await.problem(),
        "400 invalid_request_error: messages: Field required"
    );
}

#[tokio::test]
async fn models_are_listed_by_pages_and_found_by_id() {
    let server = serve(&json!({"replies": [], "models": ["claude-a", "claude-b"]})).await;
    let page = get(&server, "/v1/models?limit=1").await.json();
    let model = json!({"type": "model", "id": "claude-a", "display_name": "Claude A", "created_at": "2026-01-01T00:00:00Z"});
    assert_eq!(
        page,
        json!({"data": [model], "has_more": true, "first_id": "claude-a", "last_id": "claude-a"})
    );
    assert_eq!(get(&server, "/v1/models/claude-b").await.json()["id"], "claude-b");
    assert_eq!(
        get(&server, "/v1/models/claude-c").await.problem(),
        "404 not_found_error: not found: /v1/models/claude-c"
    );
    let problem = get(&server, "/v1/models?limit=0").await.problem();
    assert_eq!(problem, "400 invalid_request_error: limit: expected a number from 1 to 1000");
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_done_there_405() {
    let server = serve(&json!({"replies": []})).await;
    for path in [
        "/",
        "/v1",
        "/v1/messages/",
        "/v1/messages/batches",
        "/v2/messages",
        "/../etc/passwd",
        "/v1/messages%00",
    ] {
        assert!(get(&server, path).await.problem().starts_with("404 not_found_error: "), "{path}");
    }
    assert_eq!(get(&server, "/v1/messages").await.problem(), "405 invalid_request_error: method not allowed");
}

#[tokio::test]
async fn a_wrong_request_is_refused_and_uses_no_reply_up() {
    let server = serve(&json!({"replies": [{"text": "ok"}]})).await;
    let mut body = ask("a", false);
    body["messages"] = json!([{"role": "assistant", "content": "a"}]);
    assert_eq!(
        send(&server, &body).await.problem(),
        "400 invalid_request_error: messages: first message must use the \"user\" role"
    );
    let answer =
        call(&server, Method::POST, "/v1/messages", &[("x-api-key", "k")], &ask("a", false).to_string())
            .await;
    assert_eq!(answer.problem(), "400 invalid_request_error: anthropic-version: header is required");
    assert_eq!(server.unused_replies(), 1);
    assert_eq!(send(&server, &ask("a", false)).await.status, 200);
}
