//! Boundary: HTTP from a client × {malformed, truncated, over the limit, hostile}. After each the next good request works.

use http::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::client::{ask, call, raw, send, serve};

const HEADERS: [(&str, &str); 2] = [("x-api-key", "k"), ("anthropic-version", "2023-06-01")];

#[tokio::test]
async fn bodies_that_are_no_request() {
    let server = serve(&json!({"replies": [{"echo": true, "repeat": true}]})).await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, part) in [
        ("", "the request body is empty"),
        ("{", "not valid JSON: EOF"),
        ("null", "should be a JSON object, found null"),
        ("[]", "should be a JSON object, found a list"),
        ("{\"model\": \"m\"} x", "not valid JSON: trailing characters"),
        ("{\"model\": \"\\ud800\"}", "not valid JSON"),
        ("model=m&max_tokens=5", "not valid JSON"),
        (deep.as_str(), "not valid JSON: recursion limit exceeded"),
    ] {
        let answer = call(&server, Method::POST, "/v1/messages", &HEADERS, body).await;
        let problem = answer.problem();
        assert!(problem.starts_with("400 invalid_request_error: ") && problem.contains(part), "{problem}");
        assert_eq!(send(&server, &ask("a", true)).await.status, 200);
    }
}

#[tokio::test]
async fn a_body_over_the_limit() {
    let server = serve(&json!({"replies": [{"text": "ok", "repeat": true}]})).await;
    let limit = 32 * 1024 * 1024;
    let padding = limit - ask("", false).to_string().len();
    let most = ask(&"x".repeat(padding), false).to_string();
    assert_eq!(most.len(), limit);
    assert_eq!(call(&server, Method::POST, "/v1/messages", &HEADERS, &most).await.status, 200);
    let answer = call(&server, Method::POST, "/v1/messages", &HEADERS, &(most + " ")).await;
    assert_eq!(
        answer.problem(),
        "413 request_too_large: the request is larger than the limit of 33554432 bytes"
    );
    assert_eq!(send(&server, &ask("a", true)).await.status, 200);
}

#[tokio::test]
async fn heads_that_are_no_http() {
    let server = serve(&json!({"replies": [{"echo": true, "repeat": true}]})).await;
    let many: String = (0..500).map(|number| format!("x-{number}: a\r\n")).collect();
    let huge = "a".repeat(1024 * 1024);
    for head in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3} a TLS greeting\r\n\r\n".to_owned(),
        "POST /v1/messages HTTP/9.9\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nbad header\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nx: a\0b\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{many}\r\n"),
        format!("GET / HTTP/1.1\r\nx: {huge}\r\n\r\n"),
        format!("GET /{huge} HTTP/1.1\r\n\r\n"),
        "POST /v1/messages HTTP/1.1\r\ncontent-length: -5\r\n\r\n".to_owned(),
        "POST /v1/messages HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef".to_owned(),
        "POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        "POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_owned(),
    ] {
        let (got, _) = raw(&server, head.as_bytes()).await;
        let status = String::from_utf8_lossy(&got).chars().take(12).collect::<String>();
        let shown: String = head.chars().take(60).collect();
        assert!(got.is_empty() || status.starts_with("HTTP/1.1 4"), "{shown:?}: {status}");
        assert_eq!(send(&server, &ask("a", true)).await.status, 200, "after {shown:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_cut_leaves_nothing_behind() {
    let server = serve(&json!({"replies": [{"text": "ok"}]})).await;
    let whole = crate::client::raw_request(&ask("a", true));
    for length in [0, 1, 20, 100, whole.len() - 1] {
        let mut client = TcpStream::connect(server.addr()).await.unwrap();
        client.write_all(&whole[..length]).await.unwrap();
        drop(client);
    }
    assert_eq!(send(&server, &ask("a", true)).await.status, 200);
    assert_eq!((server.request_count(), server.aborted()), (1, 0));
}

#[tokio::test]
async fn header_values_that_are_no_text_are_kept() {
    let server = serve(&json!({"replies": [{"text": "ok"}]})).await;
    let body = ask("a", false).to_string();
    let mut request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: a\r\nx-api-key: k\r\nanthropic-version: x\r\nconnection: close\r\ncontent-length: {}\r\nx-odd: ",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(b"\xff\xfe\r\n\r\n");
    request.extend_from_slice(body.as_bytes());
    let (got, _) = raw(&server, &request).await;
    assert!(got.starts_with(b"HTTP/1.1 200 OK"));
    let recorded = server.next_request().await;
    assert_eq!(recorded.headers["x-odd"].as_bytes(), b"\xff\xfe");
    assert_eq!(recorded.header("x-odd"), None);
}
