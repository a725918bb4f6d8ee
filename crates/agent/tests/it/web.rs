//! WebSearch and WebFetch.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wardian_agent::{Message, Options, query};
use wardian_model::Server;

use crate::support::{call, messages, model, options, response, result, tool_results};

fn structured(messages: &[Message]) -> Value {
    let user = messages.iter().find_map(|message| match message {
        Message::User(user) => user.tool_use_result.clone(),
        _ => None,
    });
    user.unwrap()
}

#[tokio::test]
async fn a_search_is_asked_of_the_api_beside_the_conversation() {
    let page = json!({"type": "web_search_result", "title": "T\nx", "url": "https://example.com/a", "encrypted_content": "abc"});
    let found = json!([
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rust"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [page, {"title": 7}, "nonsense"]},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_2",
         "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}},
        {"type": "text", "text": "It is "}, {"type": "text", "text": "this."},
    ]);
    let input = json!({"query": "rust async", "allowed_domains": ["example.com"]});
    let model = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "WebSearch", input)]},
        {"content": found, "usage": {"server_tool_use": {"web_search_requests": 2}}},
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { allowed_tools: vec!["WebSearch".to_owned()], ..options(&model, folder.path()) };
    let messages = messages(query("hi", options)).await;
    let body = &model.requests()[1].body;
    assert_eq!(
        body["tools"],
        json!([{"type": "web_search_20250305", "name": "web_search", "max_uses": 8, "allowed_domains": ["example.com"]}])
    );
    assert_eq!(body["tool_choice"], json!({"type": "tool", "name": "web_search"}));
    let mut structured = structured(&messages);
    assert!(structured["durationSeconds"].take().is_number());
    assert_eq!(
        structured,
        json!({"query": "rust async", "durationSeconds": null, "searchCount": 2, "results": [
            {"tool_use_id": "srvtoolu_1", "content": [{"title": "T\nx", "url": "https://example.com/a"}]},
            "The search failed: max_uses_exceeded",
            "It is this.",
        ]})
    );
    let (text, is_error) = tool_results(&messages)[0].clone();
    assert!(
        !is_error && text.contains("- T x: https://example.com/a") && text.contains("It is this."),
        "{text}"
    );
    let result = result(&messages);
    assert_eq!(result.num_turns, 2, "nothing of the search is shown");
    assert_eq!(result.model_usage["claude-sonnet-5"].web_search_requests, 2, "but it is counted");
}

#[tokio::test]
async fn a_search_that_fails_is_told() {
    let model = model(&json!({"replies": [
        {"tool_use": [
            call("toolu_1", "WebSearch", json!({"query": "rust"})),
            call("toolu_2", "WebSearch", json!({"query": "rust", "allowed_domains": ["a.com"], "blocked_domains": ["b.com"]})),
        ]},
        {"error": {"status": 400, "message": "no search here"}},
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { allowed_tools: vec!["WebSearch".to_owned()], ..options(&model, folder.path()) };
    let results = tool_results(&messages(query("hi", options)).await);
    assert!(results[0].1 && results[0].0.contains("no search here"), "{results:?}");
    assert!(results[1].1 && results[1].0.contains("not both"), "{results:?}");
}

/// A proxy that answers each connection with the next of these, and gives the heads that it got.
async fn proxy(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:pass@{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the test awaits it")]
    let served = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            heads.push(String::from_utf8(head).unwrap());
            // The client may leave before the end of a long answer.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        heads
    });
    (url, served)
}

async fn fetched(url: &str, answers: Vec<String>) -> (Vec<Message>, Vec<String>, Server) {
    let model = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "WebFetch", json!({"url": url, "prompt": "What is it?"}))]},
        {"text": "A plum.", "match": {"model": "claude-haiku-4-5", "last_text_contains": "PLUM & PEAR"}},
        {"text": "A plum.", "match": {"last_text_contains": "PLUM & PEAR"}},
        {"text": "Done."},
    ]}))
    .await;
    let (proxy, served) = proxy(answers).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        allowed_tools: vec!["WebFetch(domain:example.com)".to_owned()],
        web_proxy: Some(proxy),
        ..options(&model, folder.path())
    };
    let messages = messages(query("hi", options)).await;
    (messages, served.await.unwrap(), model)
}

#[tokio::test]
async fn a_page_is_fetched_through_the_proxy_and_read_by_a_small_model() {
    let page = response("200 OK", "text/html", "<title>T</title><p>PLUM &amp; PEAR<script>no</script>");
    let moved =
        "HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
    let (messages, heads, model) = fetched("http://example.com/a", vec![moved, page]).await;
    assert!(heads[0].starts_with("GET http://example.com/a HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[1].starts_with("GET http://example.com/b HTTP/1.1\r\n"), "{}", heads[1]);
    assert!(heads[1].to_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{}", heads[1]);
    assert_eq!(tool_results(&messages), [("A plum.".to_owned(), false)]);
    let mut structured = structured(&messages);
    assert!(structured["durationMs"].take().is_number());
    assert_eq!(
        structured,
        json!({"bytes": 53, "code": 200, "codeText": "OK", "result": "A plum.", "durationMs": null, "url": "http://example.com/a"})
    );
    let requests = model.requests();
    assert!(requests[1].body["model"].as_str().unwrap().contains("haiku"));
    assert!(requests[1].body.get("tools").is_none());
    assert!(!requests[1].body.to_string().contains("no\\n"), "scripts are not read");
}

#[tokio::test]
async fn what_a_proxy_refuses_or_floods_is_told() {
    let refuses = "HTTP/1.1 403 Forbidden\r\n\r\n".to_owned();
    let elsewhere =
        "HTTP/1.1 301 Moved\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n"
            .to_owned();
    for (url, answer, says) in [
        ("https://example.com/a", refuses, "the proxy refused: HTTP/1.1 403 Forbidden"),
        ("https://example.com/a", "x".repeat(100_000), "too long"),
        ("https://example.com/a", String::new(), "failed to fetch"),
        (
            "http://example.com/a",
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ncut".to_owned(),
            "failed to fetch",
        ),
        (
            "http://example.com/a",
            response("200 OK", "text/plain", &"x".repeat(11 * 1024 * 1024)),
            "failed to fetch",
        ),
        ("http://example.com/a", response("404 Not Found", "text/html", "no"), "404"),
        ("http://example.com/a", response("200 OK", "image/png", "no"), "no text"),
        ("http://example.com/a", elsewhere, "leads to another host: http://169.254.169.254/latest"),
    ] {
        let (messages, heads, model) = fetched(url, vec![answer]).await;
        let (text, _) = &tool_results(&messages)[0];
        assert!(text.contains(says), "{url}: {text}");
        assert_eq!(heads.len(), 1);
        if url.starts_with("https") {
            assert!(heads[0].starts_with("CONNECT example.com:443 HTTP/1.1\r\n"), "{}", heads[0]);
        }
        assert_eq!(model.requests().len(), 2, "no model read anything");
    }
}

#[tokio::test]
async fn there_is_no_way_but_the_proxy() {
    let model = model(&json!({"replies": [
        {"tool_use": [
            call("toolu_1", "WebFetch", json!({"url": "https://example.com/", "prompt": "x"})),
            call("toolu_2", "WebFetch", json!({"url": "http://127.0.0.1:1/", "prompt": "x"})),
            call("toolu_3", "WebFetch", json!({"url": "https://evil.com/", "prompt": "x"})),
        ]},
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let allowed_tools =
        ["example.com", "127.0.0.1"].map(|domain| format!("WebFetch(domain:{domain})")).to_vec();
    let options = Options { allowed_tools, ..options(&model, folder.path()) };
    let messages = messages(query("hi", options)).await;
    let results = tool_results(&messages);
    assert!(results[0].1 && results[0].0.contains("no proxy"), "{results:?}");
    assert!(results[1].1 && results[1].0.contains("public web"), "{results:?}");
    assert!(results[2].1, "no rule allows it: {results:?}");
    assert_eq!(result(&messages).permission_denials.len(), 1);
}
