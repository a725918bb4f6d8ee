//! What goes through, and how it comes out.

use super::client::Client;
use super::raw::{Answer, Raw, Then};
use super::rig::{REAL_KEY, Rig, ask, model};

const REPLY: &str = r#"{"id":"msg_1","type":"message","model":"claude-sonnet-5-5","content":[],"usage":{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":100,"cache_creation_input_tokens":0}}"#;

/// Every byte of the body arrives, odd spaces, escapes, unknown fields, betas and roles included, and the reply's bytes
/// come back as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_unchanged_in_both_directions() {
    let raw = Raw::new(vec![Answer::json("200 OK", "request-id: req_up\r\nx-new: 1\r\n", REPLY)]).await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let body = "{ \"model\" : \"claude-sonnet-5-5\",\t\"max_tokens\":7, \"new\": [1.0,1e2, \"\\u00e9\\/é\"],\r\n \
                \"messages\":[{\"role\":\"from_the_future\",\"content\":\"a\"}],\"context_management\":{\"edits\":[]} } \n";
    let mut client = door.connect().await;
    let lines = format!(
        "authorization: Bearer {}\r\nanthropic-beta: claude-code-20250219,future-2031-01-01\r\n\
         accept-encoding: gzip\r\ncookie: a=b\r\nconnection: keep-alive, x-drop\r\nx-drop: 1\r\nx-kept: 1\r\n",
        door.key()
    );
    client.request_with("POST", "/v1/messages?beta=true", &lines, body).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, REPLY));
    assert_eq!(reply.header("request-id").unwrap(), "req_up");
    assert_eq!(reply.header("x-new").unwrap(), "1");
    assert!(reply.header("x-wardian-request-id").unwrap().starts_with("req_"));

    let requests = raw.requests();
    let (head, sent) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(sent, body);
    assert!(head.starts_with("POST /base/v1/messages?beta=true HTTP/1.1"), "{head}");
    for line in
        ["anthropic-beta: claude-code-20250219,future-2031-01-01", "x-kept: 1", "accept-encoding: identity"]
    {
        assert!(head.contains(line), "{head}");
    }
    assert!(head.contains(&format!("x-api-key: {REAL_KEY}")), "{head}");
    for gone in ["sk-wardian", "authorization", "cookie", "x-drop", "gzip", "127.0.0.1:4000"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

/// The upstream gets the real key, and nothing that the client or the log of errors sees holds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_swapped_and_never_seen() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.door();
    let mut client = door.connect().await;
    for (method, path, body) in [
        ("POST", "/v1/messages", ask(false, 50)),
        ("POST", "/v1/messages", ask(true, 50)),
        (
            "POST",
            "/v1/messages/count_tokens?beta=true",
            ask(false, 50).replace(r#""max_tokens":50,"stream":false,"#, ""),
        ),
        ("GET", "/v1/models?limit=1000", String::new()),
        ("POST", "/v1/messages", "{".to_owned()),
        ("GET", "/v1/files", String::new()),
    ] {
        client.request(method, path, &body).await;
        let reply = client.reply().await;
        let seen = format!("{}{}", reply.head, reply.text());
        assert!(!seen.contains(REAL_KEY), "{seen}");
    }
    let requests = model.requests();
    assert_eq!(requests.len(), 4, "the two bad ones went nowhere");
    for request in requests {
        assert!(request.key_accepted);
        assert_eq!(request.header("x-api-key"), Some(REAL_KEY));
        assert_eq!(request.header("authorization"), None);
    }
    assert!(!format!("{:?} {:?}", rig.gateway, door.door).contains("sk-"));
}

/// Another session's key is as good as none on this socket, and a key dies with its door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_good_on_its_own_socket_only() {
    let model = model(r#"{"replies":[{"text":"Hello.","repeat":true}]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let (mine, other) = (rig.door(), rig.door());
    for key in [other.key(), REAL_KEY.to_owned(), String::new(), "x".repeat(8000)] {
        let mut client = Client::open(&mine.socket, &key).await;
        let reply = client.ask(&ask(false, 5)).await;
        assert_eq!(reply.status, 401, "{}", reply.text());
        assert_eq!(reply.error().0, "authentication_error");
        assert_eq!(reply.json()["request_id"].as_str().unwrap(), reply.header("request-id").unwrap());
    }
    let mut client = mine.connect().await;
    client.request_with("POST", "/v1/messages", "", &ask(false, 5)).await;
    assert_eq!(client.reply().await.status, 401, "no key");
    assert_eq!(client.ask(&ask(false, 5)).await.status, 200, "the next good one, on the same connection");
    assert_eq!(model.request_count(), 1);

    let socket = mine.socket.clone();
    mine.door.close().await;
    assert!(!socket.exists());
    assert!(client.ends().await);
    assert_eq!(other.connect().await.ask(&ask(false, 5)).await.status, 200, "the other door stays");
}

/// The probe of the CLI is answered here, without a key and without the upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn free_routes_are_free_and_unknown_ones_do_not_exist() {
    let model = model(r#"{"replies":[]}"#).await;
    let rig = Rig::new(&model.base_url()).await;
    let door = rig.door();
    let mut client = door.connect().await;
    client.send(b"HEAD /api/hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let hello = client.until("\r\n\r\n").await;
    assert!(hello.starts_with("HTTP/1.1 200"), "{hello}");
    assert_eq!(model.request_count(), 0);

    let mut client = door.connect().await;
    client.request("GET", "/v1/models?limit=1000", "").await;
    let models = client.reply().await;
    assert_eq!(models.status, 200);
    assert!(models.json()["data"].is_array());
    let count = r#"{"model":"claude-sonnet-5-5","messages":[{"role":"user","content":"hi"}]}"#;
    client.request("POST", "/v1/messages/count_tokens?beta=true", count).await;
    let counted = client.reply().await;
    assert!(counted.json()["input_tokens"].is_u64(), "{}", counted.text());
    for (method, path) in [
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/files"),
        ("POST", "/v1/complete"),
        ("GET", "/v1/messages"),
        ("DELETE", "/v1/models/x"),
        ("GET", "/v1/models/%2e%2e/files"),
        ("POST", "/v1/messages/"),
        ("GET", "http://evil.example/v1/files"),
        ("OPTIONS", "*"),
        ("TRACE", "/v1/messages"),
    ] {
        client.request(method, path, "").await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.error().0.as_str()), (404, "not_found_error"), "{method} {path}");
    }
    // An absolute address chooses the path only, never the host.
    client.request("GET", "http://evil.example/v1/models", "").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(model.request_count(), 3);
    let spent = door.door.close().await;
    assert_eq!(spent, wardian_gateway::Spent::default());
    assert_eq!(rig.usage().await.requests, 0);
}

/// What an error of the upstream says passes as it is, costs nothing, and tells nothing about the account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_upstream_pass_and_cost_nothing() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_up"}"#;
    let lines = "request-id: req_up\r\nretry-after: 3\r\nx-should-retry: true\r\nset-cookie: a=b\r\n\
                 anthropic-ratelimit-requests-remaining: 49\r\nanthropic-ratelimit-unified-status: allowed\r\n";
    let raw = Raw::new(vec![
        Answer::json("529 Overloaded", lines, error),
        Answer::json("307 Temporary Redirect", "location: http://127.0.0.1:1/v1/messages\r\n", ""),
        Answer::json("200 OK", "", REPLY),
    ])
    .await;
    let rig = Rig::new(&raw.url).await;
    let door = rig.door();
    let mut client = door.connect().await;
    let reply = client.ask(&ask(false, 5)).await;
    assert_eq!((reply.status, reply.text().as_str()), (529, error));
    assert_eq!(reply.header("retry-after").unwrap(), "3");
    assert_eq!(reply.header("x-should-retry").unwrap(), "true");
    assert!(
        !reply.head.contains("anthropic-ratelimit") && !reply.head.contains("set-cookie"),
        "{}",
        reply.head
    );

    let redirected = client.ask(&ask(false, 5)).await;
    assert_eq!(redirected.status, 502);
    assert_eq!(redirected.error().0, "api_error");
    assert!(redirected.error().1.contains("redirect") && !redirected.head.contains("location"));

    assert_eq!(client.ask(&ask(false, 5)).await.status, 200);
    assert_eq!(raw.requests().len(), 3, "nothing was tried twice");
    let spent = door.door.close().await;
    let usage = rig.usage().await;
    assert_eq!((usage.requests, usage.open_requests), (3, 0));
    assert_eq!(usage.tokens.output_tokens, 5);
    assert_eq!(usage.cost, spent.cost);
}

/// An upstream that is not there is a 502 that costs nothing; one that never answers is a 504.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_away_is_said_to_be() {
    let rig = Rig::new("http://127.0.0.1:1").await;
    let door = rig.door();
    let reply = door.connect().await.ask(&ask(true, 5)).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (502, "api_error"));
    let spent = door.door.close().await;
    assert_eq!(spent.cost, wardian_protocol::NanoUsd::ZERO);
    assert_eq!((rig.usage().await.requests, rig.usage().await.open_requests), (1, 0));

    let raw = Raw::new(vec![Answer::of("", Then::Hold), Answer::of("HTTP/1.1 2", Then::Close)]).await;
    let short = |config: &mut wardian_gateway::GatewayConfig| {
        config.timeouts.response_head = std::time::Duration::from_millis(100);
    };
    let rig = Rig::with(&raw.url, short).await;
    let door = rig.door();
    let mut client = door.connect().await;
    let reply = client.ask(&ask(true, 5)).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (504, "timeout_error"));
    raw.client_left().await;
    let reply = client.ask(&ask(true, 5)).await;
    assert_eq!((reply.status, reply.error().0.as_str()), (502, "api_error"));
    assert!(door.door.close().await.cost.0 > 0, "it may have been worked on");
    assert_eq!(rig.usage().await.inexact_requests, 2);
}
