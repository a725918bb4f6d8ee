//! The table of the server's boundaries: what is malformed, truncated, over a limit or hostile, at every place where
//! something comes in. Each row says which status, type and message come back; after each, a good request works.

mod resources;
mod sessions;

use std::time::Duration;

use serde_json::{Value, json};
use wardian_protocol::SessionId;
use wardian_store::Scope;

use super::app::App;
use super::client::{Reply, request, send};

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Malformed,
    Truncated,
    OverLimit,
    Hostile,
}
use Kind::{Hostile, Malformed, OverLimit, Truncated};

/// One row: where, what, the bytes, and what comes back.
struct Row {
    place: &'static str,
    kind: Kind,
    bytes: Vec<u8>,
    /// Whether the client says that no more comes.
    close: bool,
    /// 0: the connection closes without an answer.
    status: u16,
    error: &'static str,
    message: &'static str,
}

const KEYED: [(&str, &str); 3] =
    [("POST", "/v1/x/run"), ("GET", "/v1/x/usage"), ("GET", "/v1/x/sessions/sesn_0000")];
const INVALID: &str = "invalid_request_error";
const AUTH: &str = "authentication_error";
const DENIED: &str = "permission_error";
const MISSING: &str = "not_found_error";

#[tokio::test(flavor = "multi_thread")]
async fn every_boundary_holds() {
    let app = App::with(r#"{"replies": []}"#, |config| {
        config.body_timeout = Duration::from_millis(500);
        config.head_timeout = Duration::from_millis(500);
        config.failed_logins_per_minute = u32::MAX;
    })
    .await;
    let mut rows = connection_rows(&app);
    rows.extend(key_rows(&app).await);
    rows.extend(path_rows(&app));
    rows.extend(query_rows(&app));
    rows.extend(body_rows(&app));
    rows.extend(field_rows(&app));
    let read_only = app.new_key(&[Scope::Read], None).await;
    rows.extend(resources::rows(&app, &read_only).await);
    rows.extend(sessions::rows(&app, &read_only).await);
    for place in ["connection", "key", "path", "query", "body", "field"] {
        for kind in [Malformed, Truncated, OverLimit, Hostile] {
            let found = rows.iter().any(|row| row.place == place && row.kind == kind);
            assert!(found, "the table has no row for {place} × {kind:?}");
        }
    }
    let mut wrong = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let reply = send(app.address, &row.bytes, row.close).await;
        wrong.extend(check(index, row, &reply));
        let good = app.get(&app.key, "/v1/x/usage").await;
        assert_eq!(good.status, 200, "a good request after row {index}: {good:#?}");
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    // Nothing of all this began a run, and one still works.
    assert_eq!(app.model.request_count(), 0);
    let run = app.run(&json!({"prompt": "x", "command": ["echo", "fine"]})).await;
    assert_eq!((run.status, &run.json()["stdout"]), (200, &json!("fine\n")), "{run:#?}");
    app.stop().await;
}

/// What is wrong with the answer to a row.
fn check(index: usize, row: &Row, reply: &Reply) -> Option<String> {
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let message = body["error"]["message"].as_str().unwrap_or_default();
    let request_id = body["request_id"].as_str().unwrap_or_default();
    let enveloped = body["type"] == "error"
        && reply.error_type() == row.error
        && message.contains(row.message)
        && request_id.starts_with("req_")
        && reply.header("request-id") == Some(request_id)
        && reply.body.len() < 10_000;
    if reply.status == row.status && (row.error.is_empty() || enveloped) {
        return None;
    }
    let sent = String::from_utf8_lossy(&row.bytes[..row.bytes.len().min(300)]).into_owned();
    let expected = (row.status, row.error, row.message);
    Some(format!(
        "row {index}, {} × {:?}: {sent:?}\n  expected {expected:?}, found {reply:#?}",
        row.place, row.kind
    ))
}

fn row(place: &'static str, kind: Kind, bytes: Vec<u8>, expected: (u16, &'static str, &'static str)) -> Row {
    let (status, error, message) = expected;
    Row { place, kind, bytes, close: false, status, error, message }
}

/// What is wrong before there is a request at all. The HTTP library answers these itself, without a body.
fn connection_rows(app: &App) -> Vec<Row> {
    let key = format!("x-api-key: {}\r\n", app.key);
    let raw = |kind, text: String, expected| row("connection", kind, text.into_bytes(), expected);
    let usage = "GET /v1/x/usage HTTP/1.1\r\n";
    vec![
        raw(Malformed, "this is not HTTP\r\n\r\n".to_owned(), (400, "", "")),
        raw(Malformed, format!("{usage}{key}\r\n"), (400, INVALID, "one Host")),
        raw(Malformed, format!("{usage}Host: a\r\nHost: b\r\n{key}\r\n"), (400, INVALID, "one Host")),
        Row { close: true, ..raw(Truncated, format!("{usage}Host: localhost\r\nx-api"), (0, "", "")) },
        raw(Truncated, format!("{usage}Host: localhost\r\nx-api"), (0, "", "")),
        raw(
            OverLimit,
            format!("{usage}Host: localhost\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
            (431, "", ""),
        ),
        raw(OverLimit, format!("{usage}Host: localhost\r\n{}\r\n", "x: y\r\n".repeat(200)), (431, "", "")),
        raw(OverLimit, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)), (431, "", "")),
        raw(
            Hostile,
            format!("{usage}Host: attacker.example\r\nConnection: close\r\n{key}\r\n"),
            (403, DENIED, "not known under the name"),
        ),
        raw(
            Hostile,
            format!(
                "GET http://attacker.example/v1/x/usage HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}\r\n"
            ),
            (403, DENIED, "not known under the name"),
        ),
        raw(
            Hostile,
            format!(
                "{usage}Host: localhost\r\nOrigin: https://attacker.example\r\nConnection: close\r\n{key}\r\n"
            ),
            (403, DENIED, "Origin"),
        ),
        raw(
            Hostile,
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nConnection: close\r\n\r\n".to_owned(),
            (403, DENIED, "Origin"),
        ),
        raw(
            Hostile,
            format!(
                "POST /v1/x/run HTTP/1.1\r\nHost: localhost\r\n{key}Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
            ),
            (415, INVALID, "Content-Type"),
        ),
    ]
}

/// Every route that needs a key, with keys that are none.
async fn key_rows(app: &App) -> Vec<Row> {
    let (revoked_id, revoked) = app.new_key_with_id(&[Scope::Admin], None).await;
    app.store.revoke_key(&app.org, &revoked_id, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    let gateway_only = app.new_key(&[Scope::Gateway], None).await;
    let read_only = app.new_key(&[Scope::Read], None).await;
    // Another key's public id with this key's secret.
    let crossed = [&revoked[..revoked.len() - 64], &app.key[app.key.len() - 64..]].concat();
    let wrong = [
        (Malformed, "x-api-key", "secret".to_owned()),
        (Malformed, "authorization", format!("Basic {}", app.key)),
        (Malformed, "authorization", "Bearer".to_owned()),
        (Truncated, "x-api-key", app.key[..app.key.len() - 1].to_owned()),
        (Truncated, "x-api-key", "sk-wardian-".to_owned()),
        (OverLimit, "x-api-key", format!("{}{}", app.key, "0".repeat(10_000))),
        (Hostile, "x-api-key", app.key.to_uppercase()),
        (Hostile, "x-api-key", "sk-wardian-' OR 1=1 --".to_owned()),
        (Hostile, "x-api-key", crossed),
        (Hostile, "x-api-key", revoked),
        (Hostile, "x-api-key", super::app::REAL_KEY.to_owned()),
    ];
    let mut rows = Vec::new();
    for (method, path) in KEYED.into_iter().chain(resources::KEYED) {
        rows.push(row("key", Malformed, request(method, path, &[], b""), (401, AUTH, "expected an API key")));
        for (kind, header, value) in &wrong {
            let bytes = request(method, path, &[(header, value)], b"");
            rows.push(row("key", *kind, bytes, (401, AUTH, "expected an API key")));
        }
        let bytes = request(method, path, &[("x-api-key", &gateway_only)], b"");
        rows.push(row("key", Hostile, bytes, (403, DENIED, "lacks the scope")));
    }
    let bytes = request("POST", "/v1/x/run", &[("x-api-key", &read_only)], b"");
    rows.push(row("key", Hostile, bytes, (403, DENIED, "`sessions` or `admin`")));
    rows
}

fn path_rows(app: &App) -> Vec<Row> {
    let get = |kind, path: &str, expected| {
        row("path", kind, request("GET", path, &[("x-api-key", &app.key)], b""), expected)
    };
    let with = |method: &str, path: &str| request(method, path, &[("x-api-key", &app.key)], b"");
    let unknown = SessionId::from_random([7; 16]);
    vec![
        get(Malformed, "/", (404, MISSING, "no route GET /")),
        get(Malformed, "/v1/x/usage/", (404, MISSING, "no route")),
        get(Malformed, "/v1/x/sessions/", (404, MISSING, "no route")),
        get(Malformed, "/v1/x/sessions/%ff", (404, MISSING, "no session")),
        get(Malformed, "/v1/x/sessions/req_0000", (404, MISSING, "no session")),
        get(Truncated, "/v1/x/sessions/sesn_", (404, MISSING, "no session")),
        get(Truncated, "/v1/x/sessions/%e", (404, MISSING, "no session")),
        get(OverLimit, &format!("/v1/x/sessions/sesn_{}", "0".repeat(20_000)), (404, MISSING, "no session")),
        get(OverLimit, &format!("/{}", "x/".repeat(10_000)), (404, MISSING, "no route")),
        get(Hostile, &format!("/v1/x/sessions/{unknown}"), (404, MISSING, "no session")),
        get(Hostile, "/v1/x/sessions/..%2f..%2fetc%2fpasswd", (404, MISSING, "no session")),
        get(Hostile, "/v1/x/sessions/sesn_'%20OR%201=1", (404, MISSING, "no session")),
        get(Hostile, "/v1/x/../../etc/passwd", (404, MISSING, "no route")),
        row("path", Malformed, with("GET", "/v1/x/run"), (405, INVALID, "other methods")),
        row("path", Malformed, with("DELETE", "/v1/x/usage"), (405, INVALID, "other methods")),
        row("path", Malformed, with("PUT", "/livez"), (405, INVALID, "other methods")),
        row("path", Hostile, with("TRACE", "/v1/x/run"), (405, INVALID, "other methods")),
        row("path", Hostile, with("OPTIONS", "/v1/x/run"), (405, INVALID, "other methods")),
    ]
}

fn query_rows(app: &App) -> Vec<Row> {
    let get = |kind, query: &str, expected| {
        let path = format!("/v1/x/usage?{query}");
        row("query", kind, request("GET", &path, &[("x-api-key", &app.key)], b""), expected)
    };
    vec![
        get(Malformed, "usr=ann", (400, INVALID, "did you mean `user`?")),
        get(Malformed, "user=", (400, INVALID, "user: ")),
        get(Malformed, "user=%zz", (400, INVALID, "percent-encoded")),
        get(Malformed, "user=%ff", (400, INVALID, "percent-encoded")),
        get(Malformed, "from=yesterday", (400, INVALID, "from: \"yesterday\": expected a time")),
        get(Malformed, "group_by=user,hour", (400, INVALID, "group_by: ")),
        get(Malformed, "group_by=user,user", (400, INVALID, "group_by: ")),
        get(Malformed, "session=req_0000", (400, INVALID, "session: ")),
        get(Malformed, "user=a&user=b", (400, INVALID, "user: stands there twice")),
        get(Truncated, "user=%e", (400, INVALID, "percent-encoded")),
        get(Truncated, "from=2026-13", (400, INVALID, "from: ")),
        get(OverLimit, &format!("user={}", "x".repeat(129)), (400, INVALID, "user: ")),
        get(OverLimit, &format!("user={}", "x".repeat(17_000)), (400, INVALID, "over 16384 bytes")),
        get(OverLimit, "from=-9999999-01-01", (400, INVALID, "from: ")),
        get(Hostile, "user='%20OR%201=1%20--", (200, "", "")),
        get(Hostile, "model=%25%00", (200, "", "")),
        get(Hostile, "from=2026-01-01&to=2020-01-01", (200, "", "")),
    ]
}

fn body_rows(app: &App) -> Vec<Row> {
    let key = ("x-api-key", app.key.as_str());
    let json_type = ("content-type", "application/json");
    let post = |kind, headers: &[(&str, &str)], body: &[u8], expected| {
        row("body", kind, request("POST", "/v1/x/run", headers, body), expected)
    };
    let good = json!({"prompt": "x", "command": ["true"]}).to_string().into_bytes();
    let announced = |length: usize, body: &[u8]| {
        let head = format!(
            "POST /v1/x/run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-api-key: {}\r\n\
             content-type: application/json\r\nContent-Length: {length}\r\n\r\n",
            app.key
        );
        [head.as_bytes(), body].concat()
    };
    let chunked = |body: &[u8]| {
        let head = format!(
            "POST /v1/x/run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-api-key: {}\r\n\
             content-type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            app.key
        );
        [head.as_bytes(), body].concat()
    };
    let mebibyte = [b"100000\r\n".as_slice(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    vec![
        post(Malformed, &[key], &good, (415, INVALID, "Content-Type")),
        post(Malformed, &[key, ("content-type", "text/plain")], &good, (415, INVALID, "Content-Type")),
        post(
            Malformed,
            &[key, json_type, ("content-encoding", "gzip")],
            &good,
            (415, INVALID, "Content-Encoding"),
        ),
        post(Malformed, &[key, json_type], b"prompt=x", (400, INVALID, "no JSON")),
        post(Malformed, &[key, json_type], b"\xff\xfe", (400, INVALID, "no JSON")),
        post(Malformed, &[key, json_type], b"[]", (400, INVALID, "expected an object, found a list")),
        post(Malformed, &[key, json_type], b"{} {}", (400, INVALID, "no JSON")),
        post(
            Malformed,
            &[key, json_type, ("idempotency-key", "two words")],
            &good,
            (400, INVALID, "Idempotency-Key"),
        ),
        row("body", Malformed, chunked(b"zz\r\n"), (400, INVALID, "ended early")),
        post(Truncated, &[key, json_type], b"", (400, INVALID, "no JSON")),
        post(Truncated, &[key, json_type], &good[..good.len() - 1], (400, INVALID, "no JSON")),
        row("body", Truncated, announced(good.len() + 1, &good), (408, "timeout_error", "in time")),
        Row {
            close: true,
            ..row("body", Truncated, announced(good.len() + 1, &good), (400, INVALID, "ended early"))
        },
        row("body", OverLimit, announced(33 << 20, b""), (413, "request_too_large", "over 33554432 bytes")),
        row("body", OverLimit, announced(1 << 60, b""), (413, "request_too_large", "over")),
        row("body", OverLimit, announced(usize::MAX, b""), (431, "", "")),
        row("body", OverLimit, chunked(&mebibyte.repeat(33)), (413, "request_too_large", "over")),
        post(Hostile, &[key, json_type], "[".repeat(1 << 20).as_bytes(), (400, INVALID, "recursion limit")),
        post(
            Hostile,
            &[key, json_type],
            format!("{{\"prompt\":\"x\",\"files\":[{}]}}", vec!["{}"; 500_000].join(",")).as_bytes(),
            (400, INVALID, "files"),
        ),
        post(
            Hostile,
            &[key, json_type],
            format!("{{{}}}", (0..100_000).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(","))
                .as_bytes(),
            (400, INVALID, "unknown field"),
        ),
    ]
}

/// Every field of `POST /v1/x/run`.
fn field_rows(app: &App) -> Vec<Row> {
    let unknown = SessionId::from_random([7; 16]);
    let base = |change: Value| {
        let mut body = json!({"prompt": "x", "command": ["true"]});
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        body.to_string().into_bytes()
    };
    let field = |kind, change: Value, expected| {
        let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
        row("field", kind, request("POST", "/v1/x/run", &headers, &base(change)), expected)
    };
    let bad = |message: &'static str| (400, INVALID, message);
    let file = |path: &str, content: &str| json!({"files": [{"path": path, "content": content}]});
    vec![
        field(Malformed, json!({"prompt": 7}), bad("prompt: expected a string, found a number")),
        field(Malformed, json!({"prompt": ""}), bad("prompt: expected a text that is not empty")),
        field(
            Malformed,
            json!({"runtime": "claude"}),
            bad("runtime: \"claude\": expected `wardian` or `command`"),
        ),
        field(Malformed, json!({"runtime": "wardian"}), bad("command: only runtime `command` has one")),
        field(Malformed, json!({"command": "true"}), bad("command: expected a list, found a string")),
        field(Malformed, json!({"command": []}), bad("command: expected a program")),
        field(Malformed, json!({"command": ["a", 1]}), bad("command[1]: expected a string")),
        field(Malformed, json!({"system": "x"}), bad("system: runtime `command` has no system prompt")),
        field(Malformed, json!({"allowed_tools": ["Read"]}), bad("allowed_tools: runtime `command`")),
        field(Malformed, json!({"files": [{"path": "a"}]}), bad("files[0].content: expected either")),
        field(
            Malformed,
            json!({"files": [{"path": "a", "content_base64": "%"}]}),
            bad("files[0].content_base64"),
        ),
        field(Malformed, json!({"limits": 7}), bad("limits: expected an object")),
        field(
            Malformed,
            json!({"limits": {"max_turns": 1.5}}),
            bad("limits.max_turns: expected a whole number"),
        ),
        field(
            Malformed,
            json!({"limits": {"max_cost_usd": "1"}}),
            bad("limits.max_cost_usd: expected dollars"),
        ),
        field(
            Malformed,
            json!({"limits": {"maxTurns": 1}}),
            bad("limits.maxTurns: unknown field; did you mean `max_turns`?"),
        ),
        field(Malformed, json!({"stream": "yes"}), bad("stream: expected a boolean")),
        field(
            Malformed,
            json!({"on_disconnect": "wait"}),
            bad("on_disconnect: \"wait\": expected `cancel` or `continue`"),
        ),
        field(Malformed, json!({"max_tokens": 7}), bad("max_tokens: unknown field")),
        field(Malformed, json!({"model": "two words"}), bad("model: expected a model's name")),
        field(Truncated, json!({"session_id": "sesn_"}), bad("session_id: expected a session's id")),
        field(
            Truncated,
            json!({"files": [{"path": "a", "content_base64": "AA"}]}),
            bad("files[0].content_base64"),
        ),
        field(OverLimit, json!({"prompt": "x".repeat(200_000)}), bad("prompt: 200000 bytes; the limit is")),
        field(OverLimit, json!({"command": vec!["x"; 300]}), bad("command: 300 elements; the limit is 256")),
        field(OverLimit, json!({"user": "x".repeat(129)}), bad("user: expected 1 to 128 bytes")),
        field(OverLimit, json!({"model": "x".repeat(129)}), bad("model: expected")),
        field(
            OverLimit,
            json!({"limits": {"max_turns": 1_000_000}}),
            bad("limits.max_turns: 1000000: expected 1 to 1000"),
        ),
        field(
            OverLimit,
            json!({"limits": {"max_turns": 1e30}}),
            bad("limits.max_turns: expected a whole number"),
        ),
        field(
            OverLimit,
            json!({"limits": {"max_cost_usd": 1e6}}),
            bad("limits.max_cost_usd: $1000000.00: expected"),
        ),
        field(
            OverLimit,
            json!({"limits": {"max_cost_usd": 1e-10}}),
            bad("limits.max_cost_usd: expected dollars"),
        ),
        field(OverLimit, json!({"limits": {"timeout_seconds": 1e300}}), bad("limits.timeout_seconds")),
        field(OverLimit, file(&"x".repeat(2000), ""), bad("files[0].path: too long")),
        field(
            OverLimit,
            file("big", &"x".repeat(17 << 20)),
            bad("files[0].content: 17825792 bytes; the limit is"),
        ),
        field(Hostile, json!({"limits": {"timeout_seconds": -1}}), bad("limits.timeout_seconds")),
        field(Hostile, json!({"limits": {"max_cost_usd": -1}}), bad("limits.max_cost_usd")),
        field(Hostile, json!({"model": "--dangerously"}), bad("model: expected")),
        field(Hostile, json!({"prompt": "a\u{0}b"}), bad("prompt: expected no NUL")),
        field(Hostile, json!({"command": ["tr\u{0}ue"]}), bad("command[0]: expected no NUL")),
        field(Hostile, json!({"user": "a\nb"}), bad("user: expected")),
        field(Hostile, file("../../etc/passwd", "x"), bad("files[0].path: expected no `.` or `..`")),
        field(Hostile, file("/etc/passwd", "x"), bad("files[0].path: expected a path relative")),
        field(Hostile, file("a\u{0}b", "x"), bad("files[0].path: expected no NUL")),
        field(Hostile, json!({"session_id": "../../x"}), bad("session_id: expected a session's id")),
        field(Hostile, json!({"session_id": unknown}), (404, MISSING, "no session")),
    ]
}
