//! The rows of sessions, events and streams.

use serde_json::{Value, json};
use wardian_protocol::{AgentId, EnvironmentId, SessionId};

use super::super::app::App;
use super::super::client::request;
use super::super::sessions::Parts;
use super::{AUTH, DENIED, Hostile, INVALID, Kind, MISSING, Malformed, OverLimit, Row, Truncated, row};

/// All routes of these.
const KEYED: [(&str, &str); 9] = [
    ("GET", "/v1/sessions"),
    ("POST", "/v1/sessions"),
    ("GET", "/v1/sessions/sesn_0000"),
    ("POST", "/v1/sessions/sesn_0000"),
    ("DELETE", "/v1/sessions/sesn_0000"),
    ("POST", "/v1/sessions/sesn_0000/archive"),
    ("GET", "/v1/sessions/sesn_0000/events"),
    ("POST", "/v1/sessions/sesn_0000/events"),
    ("GET", "/v1/sessions/sesn_0000/events/stream"),
];

const fn bad(message: &'static str) -> (u16, &'static str, &'static str) {
    (400, INVALID, message)
}

/// All of them, about a session that is there.
pub async fn rows(app: &App, read_only: &str) -> Vec<Row> {
    let parts = Parts::new(app).await;
    let session = app.post(&app.key, "/v1/sessions", &parts.body(&json!({}))).await.json();
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    let mut rows = Vec::new();
    for (method, route) in KEYED {
        rows.push(row("key", Malformed, request(method, route, &[], b""), (401, AUTH, "API key")));
        if method != "GET" {
            let bytes = request(method, route, &[("x-api-key", read_only)], b"");
            rows.push(row("key", Hostile, bytes, (403, DENIED, "`sessions` or `admin`")));
        }
    }
    rows.push(row("key", Malformed, request("GET", "/openapi.json", &[], b""), (401, AUTH, "API key")));
    rows.extend(path_rows(app));
    rows.extend(query_rows(app, &path));
    rows.extend(create_rows(app, &parts));
    rows.extend(update_rows(app, &path));
    rows.extend(event_rows(app, &path));
    rows
}

fn path_rows(app: &App) -> Vec<Row> {
    let key = [("x-api-key", app.key.as_str())];
    let unknown = SessionId::from_random([7; 16]).to_string();
    let long = format!("sesn_{}", "0".repeat(20_000));
    let mut rows = Vec::new();
    for (kind, id) in [
        (Malformed, "agent_0000"),
        (Malformed, "%ff"),
        (Truncated, "sesn_"),
        (OverLimit, &long),
        (Hostile, &unknown),
        (Hostile, "..%2f..%2fetc"),
    ] {
        for rest in ["", "/events", "/events/stream"] {
            let bytes = request("GET", &format!("/v1/sessions/{id}{rest}"), &key, b"");
            rows.push(row("path", kind, bytes, (404, MISSING, "no session")));
        }
    }
    let bytes = request("PUT", "/v1/sessions", &key, b"");
    rows.push(row("path", Malformed, bytes, (405, INVALID, "other methods")));
    rows
}

fn query_rows(app: &App, path: &str) -> Vec<Row> {
    let get = |kind: Kind, path: &str, expected| {
        row("query", kind, request("GET", path, &[("x-api-key", &app.key)], b""), expected)
    };
    let list = |query: &str| format!("/v1/sessions?{query}");
    let events = |query: &str| format!("{path}/events?{query}");
    let stream = |query: &str| format!("{path}/events/stream?{query}");
    vec![
        get(Malformed, &list("agent=x"), bad("agent: unknown parameter")),
        get(Malformed, &list("agent_id=env_1"), bad("agent_id: ")),
        get(Malformed, &list("agent_version=x"), bad("agent_version: ")),
        get(Malformed, &list("statuses=done"), bad("statuses: \"done\": expected `idle`")),
        get(
            OverLimit,
            &list("statuses=idle&statuses=idle&statuses=idle&statuses=idle&statuses=idle"),
            bad("at most 4"),
        ),
        get(Malformed, &list("created_at[gt]=yesterday"), bad("created_at[gt]: ")),
        get(Malformed, &list("include_archived=maybe"), bad("include_archived: ")),
        get(Malformed, &list("order=up"), bad("order: \"up\": expected `asc` or `desc`")),
        get(Malformed, &list("deployment_id=depl_1"), bad("deployments are not supported")),
        get(Malformed, &list("memory_store_id=memstore_1"), bad("memory stores are not supported")),
        get(OverLimit, &list("limit=101"), bad("limit: ")),
        get(OverLimit, &list("limit=0"), bad("limit: ")),
        get(Hostile, &list("page=eyJ2IjoxfQ"), bad("page: ")),
        get(Malformed, path_query(path).as_str(), bad("unknown parameter")),
        get(Malformed, &events("types=user.massage"), bad("types: \"user.massage\"")),
        get(
            OverLimit,
            &events(&vec!["types=agent.message"; 42].join("&")),
            bad("types: expected at most 41"),
        ),
        get(OverLimit, &events("limit=1001"), bad("limit: ")),
        get(Malformed, &events("created_at[lte]=x"), bad("created_at[lte]: ")),
        get(Malformed, &events("order=x"), bad("order: ")),
        get(Hostile, &events("page=e30"), bad("page: ")),
        get(Malformed, &stream("after=x"), bad("after: ")),
        get(Truncated, &stream("after=1."), bad("after: ")),
        get(OverLimit, &stream("after=99999999999999999999"), bad("after: ")),
        get(Hostile, &stream("after=7"), bad("no event 7")),
        get(Malformed, &stream("event_deltas[]=agent.tool_use"), bad("event_deltas: ")),
        get(Malformed, &stream("types=agent.message"), bad("types: unknown parameter")),
    ]
}

fn path_query(path: &str) -> String {
    format!("{path}?version=1")
}

fn post(app: &App, kind: Kind, path: &str, body: &Value, expected: (u16, &'static str, &'static str)) -> Row {
    let headers = [("x-api-key", app.key.as_str()), ("content-type", "application/json")];
    row("field", kind, request("POST", path, &headers, body.to_string().as_bytes()), expected)
}

fn create_rows(app: &App, parts: &Parts) -> Vec<Row> {
    let new = |kind, more: Value, expected| post(app, kind, "/v1/sessions", &parts.body(&more), expected);
    let unknown = AgentId::from_random([7; 16]);
    let nowhere = EnvironmentId::from_random([7; 16]);
    let over = |more: Value| {
        let mut agent = json!({"type": "agent_with_overrides", "id": parts.agent});
        agent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"agent": agent})
    };
    let budget = |amount: Value| json!({"budget": {"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}}});
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "x"}]});
    vec![
        new(Malformed, json!({"agent": 7}), bad("agent: expected an object")),
        new(Malformed, json!({"agent": null}), bad("agent: expected an agent's id")),
        new(Truncated, json!({"agent": "agent_"}), bad("agent: expected an agent's id")),
        new(Hostile, json!({"agent": unknown}), (404, MISSING, "no agent")),
        new(
            Hostile,
            json!({"agent": {"type": "agent", "id": parts.agent, "version": 9}}),
            (404, MISSING, "with a version 9"),
        ),
        new(
            Malformed,
            json!({"agent": {"type": "agent", "id": parts.agent, "version": 0}}),
            bad("agent.version"),
        ),
        new(Malformed, over(json!({"tools": [{"type": "x"}]})), bad("agent.tools[0].type: ")),
        new(Malformed, over(json!({"model": 7})), bad("agent.model")),
        new(OverLimit, over(json!({"system": "x".repeat(100_001)})), bad("agent.system: ")),
        new(Hostile, over(json!({"mcp_servers": [{}]})), bad("agent.mcp_servers: ")),
        new(Malformed, json!({"environment_id": "x"}), bad("environment_id: expected")),
        new(Hostile, json!({"environment_id": nowhere}), (404, MISSING, "no environment")),
        new(Malformed, json!({"title": 7}), bad("title: expected")),
        new(OverLimit, json!({"title": "x".repeat(501)}), bad("title: expected")),
        new(Malformed, json!({"metadata": {"a": 1}}), bad("metadata.a: expected a string")),
        new(
            OverLimit,
            json!({"metadata": {"user_id": "x".repeat(129)}}),
            bad("metadata.user_id: expected 1 to 128"),
        ),
        new(Hostile, json!({"metadata": {"user_id": "a\nb"}}), bad("metadata.user_id: ")),
        new(Malformed, budget(json!(1.25)), bad("budget.max_list_cost.amount: ")),
        new(Malformed, budget(json!("1.25")), bad("budget.max_list_cost.amount: ")),
        new(OverLimit, budget(json!("100000001")), bad("budget.max_list_cost.amount: ")),
        new(Hostile, budget(json!("-1")), bad("budget.max_list_cost.amount: ")),
        new(Malformed, json!({"vault_ids": ["vlt_1"]}), bad("vault_ids: vaults are not supported")),
        new(Malformed, json!({"resources": {}}), bad("resources: expected a list")),
        new(OverLimit, json!({"resources": vec![json!({}); 101]}), bad("resources: ")),
        new(
            Malformed,
            json!({"initial_events": [{"type": "user.interrupt"}]}),
            bad("initial_events[0].type: "),
        ),
        new(OverLimit, json!({"initial_events": vec![message; 51]}), bad("initial_events: 51 events")),
        new(Malformed, json!({"deployment": "x"}), bad("deployment: unknown field")),
    ]
}

fn update_rows(app: &App, path: &str) -> Vec<Row> {
    let change = |kind, body: Value, expected| post(app, kind, path, &body, expected);
    let pairs: Value = (0..17).map(|number| (number.to_string(), json!("x"))).collect();
    let budget = json!({"type": "limit", "max_list_cost": {"amount": "1", "currency": "USD"}});
    vec![
        change(Malformed, json!([]), bad("body: expected an object")),
        change(Malformed, json!({"titel": "x"}), bad("did you mean `title`?")),
        change(OverLimit, json!({"metadata": pairs}), bad("metadata: 17 pairs")),
        change(
            Hostile,
            json!({"metadata": {"user_id": "bob"}}),
            bad("metadata.user_id: a session's user is set"),
        ),
        change(Hostile, json!({"budget": budget}), bad("budget_create_only")),
        change(Malformed, json!({"agent": {"model": "x"}}), bad("agent.model: unknown field")),
        change(Malformed, json!({"agent": {"tools": [{}]}}), bad("agent.tools[0].type: ")),
        change(Malformed, json!({"agent": {"mcp_servers": [{}]}}), bad("agent.mcp_servers: ")),
        change(Malformed, json!({"vault_ids": ["vlt_1"]}), bad("vault_ids: ")),
        change(Malformed, json!({"environment_id": "env_1"}), bad("environment_id: unknown field")),
    ]
}

fn event_rows(app: &App, path: &str) -> Vec<Row> {
    let path = format!("{path}/events");
    let send = |kind, event: Value, expected| post(app, kind, &path, &json!({"events": [event]}), expected);
    let said = |block: Value| json!({"type": "user.message", "content": [block]});
    let call = "sevt_070w3ge1r70w3ge1r70w3ge1r7";
    let data = "A".repeat(8 << 20);
    let image = |data: &str| json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}});
    vec![
        post(app, Malformed, &path, &json!({}), bad("events: expected 1 to 50 events")),
        post(app, OverLimit, &path, &json!({"events": vec![json!({}); 51]}), bad("events: 51 events")),
        send(Malformed, json!("x"), bad("events[0]: expected an object")),
        send(
            Malformed,
            json!({"type": "agent.message"}),
            bad("events[0].type: \"agent.message\": expected one of"),
        ),
        send(
            Malformed,
            json!({"type": "user.define_outcome"}),
            bad("`user.define_outcome` is not supported"),
        ),
        send(Malformed, json!({"type": "user.tool_result"}), bad("`user.tool_result` is not supported")),
        send(Malformed, json!({"type": "system.message"}), bad("`system.message` is not supported")),
        send(Malformed, json!({"type": "user.message"}), bad("events[0].content: ")),
        send(Malformed, said(json!({"type": "text"})), bad("events[0].content[0].text: ")),
        send(Malformed, said(json!({"type": "video"})), bad("events[0].content[0].type: ")),
        send(
            Hostile,
            said(json!({"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}})),
            bad("sources of type `url`"),
        ),
        send(
            Hostile,
            said(json!({"type": "document", "source": {"type": "file", "file_id": "file_1"}})),
            bad("sources of type `file`"),
        ),
        send(Truncated, said(image("AAE")), bad("events[0].content[0].source.data: expected base64")),
        send(OverLimit, said(image(&data)), bad("events[0].content: 8388608 bytes of base64")),
        send(OverLimit, said(json!({"type": "text", "text": "x".repeat(2 << 20)})), bad("bytes of text")),
        send(
            Malformed,
            json!({"type": "user.tool_confirmation", "tool_use_id": call}),
            bad("events[0].result: "),
        ),
        send(
            Malformed,
            json!({"type": "user.tool_confirmation", "tool_use_id": "toolu_1", "result": "deny"}),
            bad("events[0].tool_use_id: "),
        ),
        send(
            Malformed,
            json!({"type": "user.custom_tool_result", "custom_tool_use_id": "x"}),
            bad("events[0].custom_tool_use_id: "),
        ),
        send(
            Malformed,
            json!({"type": "user.interrupt", "session_thread_id": "sthr_1"}),
            bad("threads are not supported"),
        ),
    ]
}
