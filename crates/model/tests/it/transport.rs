//! Errors, cuts, holds, delays, clients that leave, the end of the server.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{ask, raw, raw_request, send, serve, try_send};

#[tokio::test]
async fn errors_have_the_status_type_message_and_headers_of_the_script() {
    let script = json!({"replies": [
        {"error": {"status": 529, "headers": {"retry-after": "1", "x-should-retry": "false"}}},
        {"error": {"type": "billing_error", "status": 429, "message": "no money"}},
        {"error": {"type": "rate_limit_error"}},
        {"error": {"type": "error_of_tomorrow"}},
        {"text": "ok"}
    ]});
    let server = serve(&script).await;
    let overloaded = send(&server, &ask("a", true)).await;
    assert_eq!(overloaded.problem(), "529 overloaded_error: the script answers with overloaded_error");
    assert_eq!(overloaded.headers["retry-after"], "1");
    assert_eq!(overloaded.headers["x-should-retry"], "false");
    assert_eq!(send(&server, &ask("a", false)).await.problem(), "429 billing_error: no money");
    assert!(send(&server, &ask("a", false)).await.problem().starts_with("429 rate_limit_error: "));
    assert!(send(&server, &ask("a", false)).await.problem().starts_with("500 error_of_tomorrow: "));
    assert_eq!(send(&server, &ask("a", false)).await.status, 200);
}

#[tokio::test]
async fn an_error_can_end_a_stream() {
    let reply = json!({"text": "a long text that is cut", "error_in_stream_after": 3});
    let named =
        json!({"text": "a", "error_in_stream_after": 0, "error": {"type": "api_error", "message": "broken"}});
    let server = serve(&json!({"replies": [reply, named, reply]})).await;
    let answer = send(&server, &ask("a", true)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.event_names(),
        ["message_start", "content_block_start", "content_block_delta", "error"]
    );
    let error: serde_json::Value = serde_json::from_str(&answer.events()[3].data).unwrap();
    assert_eq!(error["error"], json!({"type": "overloaded_error", "message": "Overloaded"}));
    let answer = send(&server, &ask("a", true)).await;
    assert_eq!(answer.event_names(), ["error"]);
    assert!(answer.events()[0].data.contains(r#""message":"broken""#));
    // Without a stream there is nothing to break off: the error is the answer.
    assert_eq!(send(&server, &ask("a", false)).await.problem(), "529 overloaded_error: Overloaded");
}

#[tokio::test]
async fn a_stream_is_cut_at_any_byte() {
    let reply = json!({"text": "Hello, wörld 🦀!", "chunk_bytes": 3, "pings": 1});
    let server = serve(&json!({"replies": [reply]})).await;
    let whole = send(&server, &ask("a", true)).await.body;
    let cuts: Vec<usize> =
        (0..whole.len()).step_by(7).chain([1, whole.len() - 1, whole.len(), whole.len() + 100]).collect();
    let replies: Vec<_> = cuts
        .iter()
        .map(|at| {
            let mut cut = reply.clone();
            cut["cut_after_bytes"] = json!(at);
            cut
        })
        .chain([json!({"text": "ok"})])
        .collect();
    let server = serve(&json!({"replies": replies})).await;
    for at in cuts {
        let answer = send(&server, &ask("a", true)).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.complete, "cut at {at}");
        // The ids have as many digits and other values.
        let same_length = at.min(whole.len());
        assert_eq!(answer.body.len(), same_length, "cut at {at}");
        assert_eq!(without_digits(&answer.body), without_digits(&whole[..same_length]), "cut at {at}");
    }
    assert!(send(&server, &ask("a", true)).await.complete);
    assert_eq!(server.aborted(), 0);
}

fn without_digits(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| !byte.is_ascii_digit()).collect()
}

#[tokio::test]
async fn a_stream_is_cut_between_two_events() {
    for (after, names) in [(0, vec![]), (2, vec!["message_start", "content_block_start"])] {
        let server = serve(&json!({"replies": [{"text": "hello", "cut_after_events": after}]})).await;
        let answer = send(&server, &ask("a", true)).await;
        assert!(!answer.complete);
        assert_eq!(answer.event_names(), names);
    }
}

#[tokio::test]
async fn a_plain_answer_is_cut_too() {
    let server = serve(
        &json!({"replies": [{"text": "hello", "cut_after_bytes": 5}, {"text": "a", "cut_after_events": 1}]}),
    )
    .await;
    let answer = send(&server, &ask("a", false)).await;
    assert!(!answer.complete);
    assert_eq!(&answer.body[..], b"{\"id\"");
    let answer = send(&server, &ask("a", false)).await;
    assert!(!answer.complete && answer.body.is_empty());
}

#[tokio::test]
async fn a_cut_is_an_end_or_a_reset() {
    let cut = |with: &str| json!({"text": "hello", "cut_after_bytes": 300, "cut_with": with});
    let server = serve(&json!({"replies": [cut("eof"), cut("reset"), {"drop_connection": true}]})).await;
    let request = raw_request(&ask("a", true));
    let (got, ended) = raw(&server, &request).await;
    assert!(ended.is_ok());
    let text = String::from_utf8_lossy(&got).into_owned();
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    assert!(!text.ends_with("\r\n"), "the last chunk is broken: {text}");
    let (got, ended) = raw(&server, &request).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(got.starts_with(b"HTTP/1.1 200 OK"));
    let (got, ended) = raw(&server, &request).await;
    assert!(ended.is_ok() && got.is_empty());
}

#[tokio::test]
async fn a_dropped_connection_brings_no_answer() {
    let server = serve(&json!({"replies": [{"drop_connection": true}, {"text": "ok"}]})).await;
    assert!(try_send(&server, &ask("a", true)).await.is_err());
    assert_eq!(send(&server, &ask("a", true)).await.status, 200);
    assert_eq!(server.aborted(), 0);
}

/// Sends a request, reads until `seen` appears, and leaves.
async fn leave_after(server: &wardian_model::Server, stream: bool, seen: &str) {
    let mut client = TcpStream::connect(server.addr()).await.unwrap();
    client.write_all(&raw_request(&ask("a", stream))).await.unwrap();
    let mut got = String::new();
    while !got.contains(seen) {
        let mut buffer = [0; 1024];
        let length = client.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0, "ended before {seen:?} came: {got}");
        got.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(!got.contains("message_stop"));
}

#[tokio::test]
async fn a_held_stream_lasts_until_the_client_leaves_and_that_is_counted() {
    let script = json!({"replies": [
        {"text": "hello", "hold": true},
        {"text": "hello", "hold": true},
        {"text": "slow", "chunk_bytes": 1, "chunk_delay_ms": 3_600_000},
        {"text": "ok"}
    ]});
    let server = serve(&script).await;
    leave_after(&server, true, "hello").await;
    server.wait_for_aborted(1).await;
    // Not streamed, nothing comes at all; the client leaves once its request was recorded.
    let mut client = TcpStream::connect(server.addr()).await.unwrap();
    client.write_all(&raw_request(&ask("a", false))).await.unwrap();
    server.wait_for(2).await;
    drop(client);
    server.wait_for_aborted(2).await;
    leave_after(&server, true, "content_block_start").await;
    server.wait_for_aborted(3).await;
    assert!(send(&server, &ask("a", true)).await.complete);
    assert_eq!(server.aborted(), 3);
}

#[tokio::test]
async fn shutdown_ends_held_and_delayed_answers() {
    let held = json!({"text": "hello", "hold": true});
    let late = json!({"text": "late", "delay_ms": 3_600_000});
    let server = serve(&json!({"replies": [held, late, held]})).await;
    let mut clients = Vec::new();
    for stream in [true, true, false] {
        let mut client = TcpStream::connect(server.addr()).await.unwrap();
        client.write_all(&raw_request(&ask("a", stream))).await.unwrap();
        server.wait_for(clients.len() + 1).await;
        clients.push(client);
    }
    clients.push(TcpStream::connect(server.addr()).await.unwrap());
    tokio::time::timeout(Duration::from_secs(1), server.shutdown()).await.expect("nothing holds it up");
    for mut client in clients {
        let mut got = Vec::new();
        // Ended, orderly or not, and never complete.
        let _ = client.read_to_end(&mut got).await;
        assert!(!String::from_utf8_lossy(&got).contains("message_stop"));
    }
}

#[tokio::test]
async fn delays_come_before_the_answer_and_between_chunks() {
    let script =
        json!({"replies": [{"text": "abcd", "chunk_bytes": 1, "delay_ms": 30, "chunk_delay_ms": 10}]});
    let server = serve(&script).await;
    let begun = std::time::Instant::now();
    assert!(send(&server, &ask("a", true)).await.complete);
    assert!(begun.elapsed() >= Duration::from_millis(30 + 4 * 10));
}

#[tokio::test]
async fn many_clients_at_once_each_get_their_own_answer() {
    let server = serve(&json!({"replies": [{"echo": true, "repeat": true, "chunk_bytes": 3}]})).await;
    let clients = (0..64).map(|number| {
        let server = &server;
        async move {
            let text = format!("client {number}: {}", "x".repeat(number * 10));
            let message = send(server, &ask(&text, number % 2 == 0)).await;
            assert!(message.complete);
            assert!(String::from_utf8_lossy(&message.body).contains("cli"), "{text}");
            let text_of = |message: &wardian_protocol::Message| match &message.content[0] {
                wardian_protocol::ContentBlock::Text { text, .. } => text.clone(),
                other => panic!("{other:?}"),
            };
            let got = if number % 2 == 0 {
                text_of(&message.assembled())
            } else {
                text_of(&serde_json::from_value(message.json()).unwrap())
            };
            assert_eq!(got, text);
        }
    });
    futures_util::future::join_all(clients).await;
    assert_eq!(server.requests().len(), 64);
}
