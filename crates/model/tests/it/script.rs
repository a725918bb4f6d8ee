//! Boundary: scripts × {malformed, over the limit, hostile}.

use serde_json::{Value, json};
use wardian_model::{ModelArgs, RunError, Script, ServerOptions, run};

fn problem(script: &str) -> String {
    Script::parse(script).unwrap_err().to_string()
}

fn problem_of(reply: Value) -> String {
    problem(&json!({"replies": [{"text": "fine"}, reply]}).to_string())
}

#[test]
fn texts_that_are_no_script() {
    assert!(problem("").starts_with("read the script: not JSON: EOF"));
    assert!(problem("{\"replies\": [").starts_with("read the script: not JSON: EOF"));
    assert!(problem(&"[".repeat(100_000)).contains("recursion limit"));
    assert_eq!(problem(&" ".repeat(17 * 1024 * 1024)), "read the script: it is over 16777216 bytes");
    assert_eq!(problem("[]"), "read the script: the script: expected an object, found a list");
    assert_eq!(problem("{}"), "read the script: the script: `replies` is missing");
    assert_eq!(
        problem(r#"{"replies": {}}"#),
        "read the script: the script.replies: expected a list, found an object"
    );
    assert_eq!(problem(r#"{"replys": []}"#), "read the script: the script: `replies` is missing");
    assert_eq!(
        problem(r#"{"replies": [], "model": []}"#),
        "read the script: the script: unknown field `model`; did you mean `models`?"
    );
    let many = json!({"replies": vec![json!({}); 100_001]});
    assert_eq!(
        problem(&many.to_string()),
        "read the script: the script.replies: expected at most 100000 entries, found 100001"
    );
}

#[test]
fn replies_that_are_wrong_say_where_and_what() {
    for (reply, expected) in [
        (json!(5), "replies[1]: expected an object, found a number"),
        (
            json!({}),
            "replies[1]: says nothing: give text, thinking, tool_use, content, echo, error or drop_connection",
        ),
        (json!({"text": "a", "delayms": 5}), "replies[1]: unknown field `delayms`; did you mean `delay_ms`?"),
        (
            json!({"text": "a", "match": {"last_text": "b"}}),
            "replies[1].match: unknown field `last_text`; known are last_text_contains, system_contains, tool_result_contains, model",
        ),
        (
            json!({"text": "a", "match": {"last_text_contain": "b"}}),
            "replies[1].match: unknown field `last_text_contain`; did you mean `last_text_contains`?",
        ),
        (json!({"text": 5}), "replies[1].text: expected a string, found a number"),
        (json!({"text": "a", "repeat": "yes"}), "replies[1].repeat: expected true or false, found a string"),
        (
            json!({"text": "a", "delay_ms": -1}),
            "replies[1].delay_ms: expected a whole number from 0 to 3600000, found a number",
        ),
        (
            json!({"text": "a", "delay_ms": 3_600_001}),
            "replies[1].delay_ms: expected a number from 0 to 3600000, found 3600001",
        ),
        (
            json!({"text": "a", "chunk_bytes": 0}),
            "replies[1].chunk_bytes: expected a number from 1 to 1048576, found 0",
        ),
        (
            json!({"text": "x".repeat(600_000), "chunk_bytes": 1}),
            "replies[1]: more than 500000 chunks; use a larger `chunk_bytes`",
        ),
        (
            json!({"text": "a", "content": []}),
            "replies[1].content: excludes `echo`, and both exclude `text`, `thinking` and `tool_use`",
        ),
        (
            json!({"text": "a", "error": {"status": 500}}),
            "replies[1]: an error, a dropped connection and content exclude each other",
        ),
        (
            json!({"error": {"status": 200}}),
            "replies[1].error.status: expected a number from 400 to 599, found 200",
        ),
        (json!({"error": {}}), "replies[1].error: give a `status`, a `type`, or both"),
        (
            json!({"error": {"status": 429, "headers": {"a b": "c"}}}),
            "replies[1].error.headers.a b: not a header that HTTP can carry",
        ),
        (
            json!({"error": {"status": 429, "headers": {"a": "b\r\nc: d"}}}),
            "replies[1].error.headers.a: not a header that HTTP can carry",
        ),
        (
            json!({"text": "a", "headers": {"content-length": "5"}}),
            "replies[1].headers.content-length: the server sets this header itself",
        ),
        (json!({"tool_use": [{"input": {}}]}), "replies[1].tool_use[0]: `name` is missing"),
        (
            json!({"tool_use": [{"name": "A", "input": "b"}]}),
            "replies[1].tool_use[0].input: expected an object, found a string",
        ),
        (json!({"content": ["a"]}), "replies[1].content[0]: a content block is an object with a `type`"),
        (
            json!({"text": "a", "usage": {"input_token": 5}}),
            "replies[1].usage: unknown field `input_token`; did you mean `input_tokens`?",
        ),
        (
            json!({"text": "a", "cut_after_events": 1, "cut_after_bytes": 1}),
            "replies[1].cut_after_bytes: excludes `cut_after_events`",
        ),
        (
            json!({"text": "a", "cut_with": "reset"}),
            "replies[1].cut_with: needs `cut_after_events` or `cut_after_bytes`",
        ),
        (
            json!({"text": "a", "cut_after_bytes": 1, "cut_with": "axe"}),
            "replies[1].cut_with: expected \"eof\" or \"reset\"",
        ),
        (
            json!({"text": "a", "extra_events": [{"event": "a\nb"}]}),
            "replies[1].extra_events[0]: the name of an event is one line",
        ),
    ] {
        assert_eq!(problem_of(reply.clone()), format!("read the script: {expected}"), "{reply}");
    }
    assert!(
        problem_of(json!({"text": "a", "usage": {"input_tokens": "5"}}))
            .contains("replies[1].usage: invalid type")
    );
    assert!(problem_of(json!({"text": "a", "x".repeat(10_000): 5})).len() < 700);
}

#[tokio::test]
async fn the_command_says_which_file_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.json");
    let args = || ModelArgs {
        script: Some(path.clone()),
        listen: "127.0.0.1:0".parse().unwrap(),
        options: ServerOptions::default(),
    };
    let never = |_: &str| panic!("it is not ready");
    assert!(matches!(run(args(), never, async {}).await, Err(RunError::File { .. })));
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(run(args(), never, async {}).await, Err(RunError::Script { .. })));
    std::fs::write(&path, r#"{"replies": [{"text": "a"}]}"#).unwrap();
    let mut line = String::new();
    let summary = run(args(), |ready| ready.clone_into(&mut line), async {}).await.unwrap();
    assert_eq!((summary.requests, summary.aborted, summary.unused_replies), (0, 0, 1));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["base_url"], format!("http://{}", line["listening"].as_str().unwrap()));
}
