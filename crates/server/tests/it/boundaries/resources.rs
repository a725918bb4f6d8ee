//! The rows of agents, environments and files.

use serde_json::{Value, json};
use wardian_protocol::{AgentId, EnvironmentId, FileId};

use super::super::app::{App, form};
use super::super::client::request;
use super::{DENIED, Hostile, INVALID, Kind, MISSING, Malformed, OverLimit, Row, Truncated, row};

/// All routes of these that need a key.
pub const KEYED: [(&str, &str); 21] = [
    ("GET", "/v1/agents"),
    ("POST", "/v1/agents"),
    ("GET", "/v1/agents/agent_0000"),
    ("POST", "/v1/agents/agent_0000"),
    ("POST", "/v1/agents/agent_0000/archive"),
    ("GET", "/v1/agents/agent_0000/versions"),
    ("GET", "/v1/environments"),
    ("POST", "/v1/environments"),
    ("GET", "/v1/environments/env_0000"),
    ("POST", "/v1/environments/env_0000"),
    ("DELETE", "/v1/environments/env_0000"),
    ("POST", "/v1/environments/env_0000/archive"),
    ("GET", "/v1/files"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/file_0000/content"),
    ("DELETE", "/v1/files/file_0000"),
    ("GET", "/v1/sessions/sesn_0000/resources"),
    ("POST", "/v1/sessions/sesn_0000/resources"),
    ("GET", "/v1/sessions/sesn_0000/resources/sesrsc_0000"),
    ("POST", "/v1/sessions/sesn_0000/resources/sesrsc_0000"),
    ("DELETE", "/v1/sessions/sesn_0000/resources/sesrsc_0000"),
];

type Expected = (u16, &'static str, &'static str);

const fn bad(message: &'static str) -> Expected {
    (400, INVALID, message)
}

/// All of them, about an agent and an environment that are there.
pub async fn rows(app: &App, read_only: &str) -> Vec<Row> {
    let agent = app.post(&app.key, "/v1/agents", &json!({"name": "x", "model": "haiku"})).await.json();
    let environment = app.post(&app.key, "/v1/environments", &json!({"name": "x"})).await.json();
    let agent = format!("/v1/agents/{}", agent["id"].as_str().unwrap());
    let environment = format!("/v1/environments/{}", environment["id"].as_str().unwrap());
    let mut rows = path_rows(app);
    rows.extend(query_rows(app, &agent));
    rows.extend(body_rows(app, &agent));
    rows.extend(agent_rows(app, &agent));
    rows.extend(environment_rows(app, &environment));
    rows.extend(upload_rows(app));
    rows.extend(key_rows(app));
    for (method, path) in KEYED.iter().filter(|(method, _)| *method != "GET") {
        let bytes = request(method, path, &[("x-api-key", read_only)], b"");
        rows.push(row("key", Hostile, bytes, (403, DENIED, "`sessions` or `admin`")));
    }
    rows
}

fn path_rows(app: &App) -> Vec<Row> {
    let key = [("x-api-key", app.key.as_str())];
    let mut rows = Vec::new();
    for (place, prefix, unknown, message) in [
        ("/v1/agents", "agent", AgentId::from_random([7; 16]).to_string(), "no agent"),
        ("/v1/environments", "env", EnvironmentId::from_random([7; 16]).to_string(), "no environment"),
        ("/v1/files", "file", FileId::from_random([7; 16]).to_string(), "no file"),
    ] {
        for (kind, id) in [
            (Malformed, "%ff".to_owned()),
            (Malformed, "sesn_0000".to_owned()),
            (Truncated, format!("{prefix}_")),
            (Truncated, "%e".to_owned()),
            (OverLimit, format!("{prefix}_{}", "0".repeat(20_000))),
            (Hostile, unknown),
            (Hostile, "..%2f..%2fetc%2fpasswd".to_owned()),
            (Hostile, format!("{prefix}_'%20OR%201=1")),
            (Hostile, format!("{prefix}_%00")),
        ] {
            let missing = (404, MISSING, message);
            rows.push(row("path", kind, request("GET", &format!("{place}/{id}"), &key, b""), missing));
        }
        rows.push(row(
            "path",
            Malformed,
            request("GET", &format!("{place}/"), &key, b""),
            (404, MISSING, "no route"),
        ));
        let methods = (405, INVALID, "other methods");
        rows.push(row("path", Malformed, request("PUT", place, &key, b""), methods));
    }
    rows.push(row(
        "path",
        Hostile,
        request("GET", "/v1/files/..%2f..%2fstore.db/content", &key, b""),
        (404, MISSING, "no file"),
    ));
    rows
}

fn query_rows(app: &App, agent: &str) -> Vec<Row> {
    let key = [("x-api-key", app.key.as_str())];
    let get = |kind, path: String, expected| row("query", kind, request("GET", &path, &key, b""), expected);
    let mut rows = Vec::new();
    for list in [
        "/v1/agents".to_owned(),
        "/v1/environments".to_owned(),
        "/v1/files".to_owned(),
        format!("{agent}/versions"),
    ] {
        for (kind, query, message) in [
            (Malformed, "limit=ten".to_owned(), "limit: \"ten\": expected a whole number from 1 to 100"),
            (Malformed, "limit=1&limit=2".to_owned(), "limit: stands there twice"),
            (Malformed, "page=%7B%7D".to_owned(), "page: "),
            (Malformed, "limits=5".to_owned(), "limits: unknown parameter; did you mean `limit`?"),
            (Truncated, "limit=%".to_owned(), "percent-encoded"),
            (Truncated, "page=eyJ2IjoxLCJrIjpb".to_owned(), "page: "),
            (OverLimit, "limit=0".to_owned(), "limit: "),
            (OverLimit, "limit=101".to_owned(), "limit: "),
            (OverLimit, "limit=-1".to_owned(), "limit: "),
            (OverLimit, "limit=99999999999999999999".to_owned(), "limit: "),
            (OverLimit, format!("page={}", "A".repeat(5000)), "page: "),
            (OverLimit, format!("page={}", "A".repeat(17_000)), "over 16384 bytes"),
            (Hostile, "page=eyJ2IjoxLCJrIjpudWxsLCJiIjpmYWxzZSwiYyI6IiJ9".to_owned(), "page: "),
            (Hostile, "page=%00".to_owned(), "page: "),
            (Hostile, "org_id=org_another".to_owned(), "org_id: unknown parameter"),
        ] {
            rows.push(get(kind, format!("{list}?{query}"), bad(message)));
        }
    }
    let ids = |number: usize| "ids[]=x&".repeat(number);
    rows.extend([
        get(
            Malformed,
            "/v1/agents?include_archived=yes".to_owned(),
            bad("include_archived: \"yes\": expected true or false"),
        ),
        get(
            Malformed,
            "/v1/agents?created_at[gte]=yesterday".to_owned(),
            bad("created_at[gte]: \"yesterday\": expected a time"),
        ),
        get(Malformed, "/v1/agents?created_at=2026-01-01".to_owned(), bad("created_at: unknown parameter")),
        get(OverLimit, "/v1/agents?created_at[lte]=99999-01-01".to_owned(), bad("created_at[lte]: ")),
        get(Malformed, "/v1/environments?include_archived=1".to_owned(), bad("include_archived: ")),
        get(
            Malformed,
            "/v1/files?scope_id=agent_1".to_owned(),
            bad("scope_id: \"agent_1\": expected a session's id"),
        ),
        get(Hostile, "/v1/files?scope_id=sesn_'".to_owned(), bad("scope_id: ")),
        get(OverLimit, format!("/v1/files?{}", ids(101)), bad("ids: expected at most 100, found 101")),
        get(
            Malformed,
            "/v1/files?ids[]=x&limit=1".to_owned(),
            bad("ids: expected neither `page` nor `limit`"),
        ),
        get(
            Malformed,
            format!("{agent}?version=one"),
            bad("version: \"one\": expected a whole number of at least 1"),
        ),
        get(OverLimit, format!("{agent}?version=0"), bad("version: ")),
        get(OverLimit, format!("{agent}?version=18446744073709551616"), bad("version: ")),
        get(OverLimit, format!("{agent}?version=18446744073709551615"), (404, MISSING, "has no version")),
        get(Hostile, format!("{agent}?version=-1"), bad("version: ")),
        get(
            Malformed,
            format!("{agent}?versions=1"),
            bad("versions: unknown parameter; did you mean `version`?"),
        ),
    ]);
    rows
}

fn body_rows(app: &App, agent: &str) -> Vec<Row> {
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
    let mut rows = Vec::new();
    for path in ["/v1/agents", "/v1/environments", agent] {
        let post =
            |kind, body: &[u8], expected| row("body", kind, request("POST", path, &headers, body), expected);
        rows.extend([
            post(Malformed, b"name=x", bad("no JSON")),
            post(Malformed, b"[]", bad("body: expected an object, found a list")),
            post(Malformed, b"null", bad("body: expected an object, found null")),
            post(Truncated, b"", bad("no JSON")),
            post(Truncated, br#"{"name": "x""#, bad("no JSON")),
            post(Hostile, "[".repeat(100_000).as_bytes(), bad("no JSON")),
            post(Hostile, br#"{"name": "\ud800"}"#, bad("no JSON")),
            row(
                "body",
                Malformed,
                request("POST", path, &headers[..1], b"{}"),
                (415, INVALID, "Content-Type"),
            ),
        ]);
        let query = request("POST", &format!("{path}?dry_run=true"), &headers, b"{}");
        rows.push(row("query", Malformed, query, bad("dry_run: unknown parameter")));
    }
    for (kind, body, expected) in [
        (Malformed, br#"{"reason": "old"}"#.to_vec(), bad("expected no body here")),
        (OverLimit, vec![b' '; 2000], (413, "request_too_large", "over 1024 bytes")),
    ] {
        rows.push(row("body", kind, request("POST", &format!("{agent}/archive"), &headers, &body), expected));
    }
    rows
}

/// Rows of one field each, in a body that is good without it.
fn field_rows(app: &App, path: &str, base: &Value, fields: Vec<(Kind, Value, Expected)>) -> Vec<Row> {
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
    let rows = fields.into_iter().map(|(kind, change, expected)| {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        row("field", kind, request("POST", path, &headers, body.to_string().as_bytes()), expected)
    });
    rows.collect()
}

fn agent_rows(app: &App, agent: &str) -> Vec<Row> {
    let toolset = |more: Value| {
        let mut tool = json!({"type": "agent_toolset_20260401"});
        tool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"tools": [tool]})
    };
    let custom = |schema: Value| json!({"tools": [{"type": "custom", "name": "a", "description": "b", "input_schema": schema}]});
    let deep = (0..100).fold(json!({}), |inner, _| json!({"properties": {"a": inner}, "type": "object"}));
    let fields = || {
        vec![
            (Malformed, json!({"name": 7}), bad("name: expected a text")),
            (Malformed, json!({"name": null}), bad("name: expected a text")),
            (Malformed, json!({"model": []}), bad("model: expected an object, found a list")),
            (Malformed, json!({"model": {"name": "haiku"}}), bad("model.id: expected a model's name")),
            (
                Malformed,
                json!({"model": {"id": "haiku", "effort": "high"}}),
                bad("model.effort: not supported yet"),
            ),
            (
                Malformed,
                json!({"model": {"id": "haiku", "speed": "fast"}}),
                bad("model.speed: `fast` is not supported yet"),
            ),
            (
                Malformed,
                json!({"model": {"id": "haiku", "inference_geo": "eu"}}),
                bad("model.inference_geo: not supported yet"),
            ),
            (Malformed, json!({"system": {}}), bad("system: expected a string")),
            (Malformed, json!({"description": 1}), bad("description: expected a string")),
            (Malformed, json!({"metadata": []}), bad("metadata: expected an object of strings")),
            (Malformed, json!({"metadata": {"a": 1}}), bad("metadata.a: expected a string")),
            (
                Malformed,
                json!({"mcp_servers": [{"type": "url", "name": "a", "url": "https://a"}]}),
                bad("mcp_servers: not supported yet"),
            ),
            (
                Malformed,
                json!({"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}),
                bad("skills: not supported yet"),
            ),
            (
                Malformed,
                json!({"multiagent": {"type": "multiagent_20261001"}}),
                bad("multiagent: not supported yet"),
            ),
            (
                Malformed,
                json!({"execution_identity": {"type": "aws_role", "role_arn": "arn"}}),
                bad("execution_identity: only"),
            ),
            (Malformed, json!({"tools": {}}), bad("tools: expected a list")),
            (
                Malformed,
                json!({"tools": [{"type": "mcp_toolset", "mcp_server_name": "a"}]}),
                bad("tools[0].type: MCP servers are not supported yet"),
            ),
            (
                Malformed,
                toolset(json!({"configs": [{"name": "web_search", "enabled": true}]})),
                bad("tools[0].configs[0].enabled: not supported yet"),
            ),
            (
                Malformed,
                toolset(json!({"default_config": {"permission_policy": {"type": "ask"}}})),
                bad("tools[0].default_config.permission_policy.type: \"ask\""),
            ),
            (
                Malformed,
                custom(json!({"type": "array"})),
                bad("tools[0].input_schema.type: expected `object`"),
            ),
            (
                Truncated,
                json!({"tools": [{"type": "custom", "name": "a"}]}),
                bad("tools[0].description: expected"),
            ),
            (Truncated, json!({"model": ""}), bad("model: expected a model's name")),
            (OverLimit, json!({"name": "x".repeat(257)}), bad("name: expected a text of 1 to 256")),
            (OverLimit, json!({"description": "x".repeat(2049)}), bad("description: expected at most 2048")),
            (OverLimit, json!({"system": "x".repeat(100_001)}), bad("system: expected at most 100000")),
            (OverLimit, json!({"metadata": {"a": "x".repeat(513)}}), bad("metadata.a: expected at most 512")),
            (OverLimit, json!({"tools": vec![json!({}); 257]}), bad("tools: 257 tools; the limit is 256")),
            (
                OverLimit,
                custom(json!({"type": "object", "x": "y".repeat(70_000)})),
                bad("tools[0].input_schema: expected at most 65536"),
            ),
            (Hostile, json!({"model": "--dangerously"}), bad("model: expected a model's name")),
            (
                Hostile,
                json!({"tools": [{"type": "custom", "name": "../a", "description": "b", "input_schema": {"type": "object"}}]}),
                bad("tools[0].name: expected 1 to 128 letters"),
            ),
            (Hostile, custom(deep.clone()), bad("no JSON")),
            (Hostile, json!({"id": "agent_1"}), bad("id: unknown field")),
            (Hostile, json!({"org_id": "org_another"}), bad("org_id: unknown field")),
            (Hostile, json!({"__proto__": {}}), bad("__proto__: unknown field")),
        ]
    };
    let mut rows = field_rows(app, "/v1/agents", &json!({"name": "x", "model": "haiku"}), fields());
    rows.extend(field_rows(app, agent, &json!({"version": 1}), fields()));
    rows.extend(field_rows(
        app,
        agent,
        &json!({}),
        vec![
            (Malformed, json!({"version": "1"}), bad("version: expected a whole number")),
            (OverLimit, json!({"version": 0}), bad("version: expected a whole number")),
            (OverLimit, json!({"version": 1e30}), bad("version: expected a whole number")),
            (Hostile, json!({"version": 2}), (409, "conflict_error", "current version is 1")),
        ],
    ));
    rows
}

fn environment_rows(app: &App, environment: &str) -> Vec<Row> {
    let config = |more: Value| {
        let mut config = json!({"type": "cloud"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"config": config})
    };
    let hosts = |hosts: Value| config(json!({"networking": {"type": "limited", "allowed_hosts": hosts}}));
    let fields = || {
        vec![
            (Malformed, json!({"name": 7}), bad("name: expected a string")),
            (Malformed, json!({"description": []}), bad("description: expected a text")),
            (Malformed, json!({"metadata": "a=b"}), bad("metadata: expected an object of strings")),
            (Malformed, json!({"scope": "account"}), bad("scope: `account` is not supported")),
            (Malformed, json!({"config": "cloud"}), bad("config: expected an object")),
            (Malformed, config(json!({"networking": "none"})), bad("config.networking: expected an object")),
            (
                Malformed,
                config(json!({"networking": {"type": "none"}})),
                bad("config.networking.type: \"none\""),
            ),
            (
                Malformed,
                config(json!({"packages": {"pip": ["pandas"]}})),
                bad("config.packages.pip: packages are not supported yet"),
            ),
            (
                Malformed,
                config(json!({"packages": {"pip": "pandas"}})),
                bad("config.packages.pip: expected a list"),
            ),
            (Truncated, json!({"config": {}}), bad("config.type: expected `cloud`")),
            (Truncated, config(json!({"networking": {}})), bad("config.networking.type: expected")),
            (OverLimit, json!({"name": ""}), bad("name: expected a text of 1 to 256")),
            (OverLimit, json!({"name": "x".repeat(257)}), bad("name: expected a text of 1 to 256")),
            (
                OverLimit,
                json!({"description": "x".repeat(2049)}),
                bad("description: expected a text of at most 2048"),
            ),
            (OverLimit, hosts(json!(vec!["a.b"; 257])), bad("config.networking.allowed_hosts: 257 hosts")),
            (
                OverLimit,
                hosts(json!(["a".repeat(254)])),
                bad("config.networking.allowed_hosts[0]: expected a host"),
            ),
            (
                Hostile,
                hosts(json!(["169.254.169.254/latest"])),
                bad("config.networking.allowed_hosts[0]: expected a host"),
            ),
            (Hostile, hosts(json!(["a.b\r\nx"])), bad("config.networking.allowed_hosts[0]: expected a host")),
            (Hostile, json!({"max_networking": "all"}), bad("max_networking: unknown field")),
            (Hostile, config(json!({"privileged": true})), bad("config.privileged: unknown field")),
        ]
    };
    let mut rows = field_rows(app, "/v1/environments", &json!({"name": "x"}), fields());
    rows.extend(field_rows(app, environment, &json!({}), fields()));
    let kind = json!({"config": {"type": "self_hosted"}});
    let made = vec![(Malformed, kind.clone(), bad("config.type: `self_hosted` is not supported"))];
    rows.extend(field_rows(app, "/v1/environments", &json!({"name": "x"}), made));
    let changed = vec![(Malformed, kind, bad("config.type: it cannot change"))];
    rows.extend(field_rows(app, environment, &json!({}), changed));
    rows
}

fn upload_rows(app: &App) -> Vec<Row> {
    let good = form("a.txt", "text/plain", "content");
    let typed = |kind, content_type: &str, body: &[u8], expected| {
        let headers = [("x-api-key", app.key.as_str()), ("content-type", content_type)];
        row("body", kind, request("POST", "/v1/files", &headers, body), expected)
    };
    let up = |kind, body: String, expected| {
        typed(kind, "multipart/form-data; boundary=XX", body.as_bytes(), expected)
    };
    let part = |head: &str, content: &str| format!("--XX\r\n{head}\r\n\r\n{content}\r\n--XX--\r\n");
    let field = |name: &str, content: &str| {
        part(&format!("Content-Disposition: form-data; name=\"{name}\""), content)
    };
    let two = good.replace("--XX--\r\n", &good);
    let many =
        format!("{}{}", "--XX\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n\r\n".repeat(20), good);
    let key = app.key.as_str();
    let announced = format!(
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx-api-key: {key}\r\n\
         content-type: multipart/form-data; boundary=XX\r\nContent-Length: 600000000\r\n\r\n"
    );
    vec![
        typed(Malformed, "application/json", b"{}", (415, INVALID, "multipart/form-data")),
        typed(Malformed, "multipart/form-data", good.as_bytes(), (415, INVALID, "with a boundary")),
        typed(
            OverLimit,
            &format!("multipart/form-data; boundary={}", "X".repeat(71)),
            good.as_bytes(),
            (415, INVALID, "with a boundary"),
        ),
        up(Malformed, format!("preamble{good}"), bad("does not begin with its boundary")),
        up(Malformed, part("no colon", "x"), bad("has no colon")),
        up(Malformed, part("Content-Type: text/plain", "x"), bad("expected `Content-Disposition: form-data")),
        up(
            Malformed,
            field("file2", "x"),
            bad("file2: unknown field; known are file, expires_in_seconds; file: expected a file"),
        ),
        up(Malformed, field("expires_in_seconds", "3600"), bad("file: expected a file")),
        up(Malformed, two, bad("file: stands there twice")),
        up(Malformed, form("a", "text", "x"), bad("file: expected a media type")),
        up(Truncated, good[..good.len() - 4].to_owned(), bad("the form ended early")),
        up(Truncated, good[..20].to_owned(), bad("the form ended early")),
        up(Truncated, String::new(), bad("the form ended early")),
        up(OverLimit, many, bad("more than 8 parts")),
        up(OverLimit, part(&format!("X: {}", "y".repeat(9000)), "x"), bad("is too long")),
        up(
            OverLimit,
            form(&"n".repeat(256), "text/plain", "x"),
            bad("file: expected a file name of at most 255"),
        ),
        up(
            OverLimit,
            form("a", &format!("text/{}", "x".repeat(200)), "x"),
            bad("file: expected a media type"),
        ),
        up(
            OverLimit,
            field("expires_in_seconds", &"9".repeat(100)),
            bad("expires_in_seconds: expected a number"),
        ),
        row("body", OverLimit, announced.into_bytes(), (413, "request_too_large", "over 500000000 bytes")),
        up(Hostile, form("a%0D%0Ab", "text/plain", "x"), bad("file: expected a file name")),
        up(Hostile, form("a", "text/html\u{0}", "x"), bad("file: expected a media type")),
        up(
            Hostile,
            good.replace("--XX--", "--XX--XX--").replace("--XX\r\n", "--XX;\r\n"),
            bad("not followed by a line's end"),
        ),
    ]
}

/// The header of requests that are answered once.
fn key_rows(app: &App) -> Vec<Row> {
    let keyed = |kind, keys: &[&str]| {
        let mut headers = vec![("x-api-key", app.key.as_str()), ("content-type", "application/json")];
        headers.extend(keys.iter().map(|key| ("idempotency-key", *key)));
        row(
            "field",
            kind,
            request("POST", "/v1/agents", &headers, b"{}"),
            bad("expected one Idempotency-Key"),
        )
    };
    let long = "k".repeat(256);
    vec![
        keyed(Malformed, &["two words"]),
        keyed(Malformed, &["one", "two"]),
        keyed(Truncated, &[""]),
        keyed(OverLimit, &[&long]),
        keyed(Hostile, &["é"]),
    ]
}
