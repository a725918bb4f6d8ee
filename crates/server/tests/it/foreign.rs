//! Another organisation's ids, on every route that takes one: answered byte for byte like ids that do not exist.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardian_protocol::{AgentId, EnvironmentId, FileId, ResourceId, SessionId};

use super::agents::NO_MODEL;
use super::app::{App, form};
use super::client::Reply;

/// What of an answer may depend on whose id it was: all but what depends on the request itself.
pub fn told(reply: &Reply, id: &str) -> (u16, Vec<String>, String) {
    let request_id = reply.header("request-id").unwrap_or_default();
    let headers =
        reply.head.lines().filter(|line| !line.starts_with("date:") && !line.starts_with("request-id:"));
    let body = reply.body.replace(request_id, "REQUEST").replace(id, "ID");
    (reply.status, headers.map(str::to_owned).collect(), body)
}

/// What stands for an id of this kind in a request.
const NAMES: [&str; 5] = ["AGENT", "ENVIRONMENT", "FILE", "SESSION", "RUN"];

/// Requests to a route, with ids of others in them: a path, the body, and more headers.
type Requests = Vec<(String, Value, Vec<(&'static str, &'static str)>)>;

/// Every request to this route that names something; none for a route that takes no id at all.
fn requests(method: &str, path: &str) -> Requests {
    let plain = |path: &str, body: Value| (path.to_owned(), body, Vec::new());
    let message = json!({"events": [{"type": "user.message", "content": [{"type": "text", "text": "x"}]}]});
    let confirmation = json!({"events": [{"type": "user.tool_confirmation", "result": "allow",
        "tool_use_id": "sevt_00000000000000000000000001"}]});
    let file = |id: &str| json!({"type": "file", "file_id": id, "mount_path": "/mnt/session/uploads/x"});
    let new = |agent: Value, environment: &str, resources: Value| json!({"agent": agent, "environment_id": environment, "resources": resources});
    let own = path.replace("{id}", "SESSION").replace("{resource}", "RESOURCE");
    match (method, path) {
        // They name nothing.
        ("get", "/livez" | "/readyz" | "/openapi.json" | "/v1/agents" | "/v1/environments")
        | ("post", "/v1/agents" | "/v1/environments" | "/v1/files") => Vec::new(),
        (_, path) if path.starts_with("/v1/agents/{id}") => {
            let path = path.replace("{id}", "AGENT");
            match method {
                "get" => vec![
                    plain(&path, Value::Null),
                    plain(&format!("{path}?limit=1"), Value::Null),
                    plain(&format!("{path}?version=1"), Value::Null),
                ],
                _ => vec![
                    plain(&path, Value::Null),
                    plain(&path, json!({})),
                    plain(&path, json!({"name": "stolen", "version": 1})),
                ],
            }
        }
        (_, path) if path.starts_with("/v1/environments/{id}") => {
            let path = path.replace("{id}", "ENVIRONMENT");
            vec![plain(&path, Value::Null), plain(&path, json!({"name": "stolen"}))]
        }
        ("get", "/v1/files") => {
            vec![plain("/v1/files?ids[]=FILE", Value::Null), plain("/v1/files?scope_id=SESSION", Value::Null)]
        }
        (_, path) if path.starts_with("/v1/files/{id}") => {
            vec![plain(&path.replace("{id}", "FILE"), Value::Null)]
        }
        ("get", "/v1/sessions") => vec![
            plain("/v1/sessions?agent_id=AGENT", Value::Null),
            plain("/v1/sessions?agent_id=AGENT&agent_version=1", Value::Null),
        ],
        ("post", "/v1/sessions") => vec![
            plain(path, new(json!("AGENT"), "MY_ENVIRONMENT", json!([]))),
            plain(
                path,
                new(json!({"type": "agent", "id": "AGENT", "version": 1}), "MY_ENVIRONMENT", json!([])),
            ),
            plain(path, new(json!("MY_AGENT"), "ENVIRONMENT", json!([]))),
            plain(path, new(json!("MY_AGENT"), "MY_ENVIRONMENT", json!([file("FILE")]))),
        ],
        ("get", "/v1/sessions/{id}" | "/v1/sessions/{id}/resources") => vec![plain(&own, Value::Null)],
        ("get", "/v1/sessions/{id}/events") => vec![
            plain(&own, Value::Null),
            plain(&format!("{own}?limit=1&order=desc"), Value::Null),
            plain(&format!("{own}?types[]=user.message"), Value::Null),
        ],
        ("get", "/v1/sessions/{id}/events/stream") => vec![
            plain(&own, Value::Null),
            plain(&format!("{own}?after=0"), Value::Null),
            (own.clone(), Value::Null, vec![("last-event-id", "1")]),
            (own.clone(), Value::Null, vec![("last-event-id", "1000000")]),
            plain(&format!("{own}?event_deltas[]=agent.message"), Value::Null),
        ],
        ("post", "/v1/sessions/{id}") => {
            vec![plain(&own, json!({"title": "stolen"})), plain(&own, json!({}))]
        }
        ("post", "/v1/sessions/{id}/events") => {
            vec![plain(&own, message), plain(&own, confirmation), plain(&own, json!({}))]
        }
        ("post", "/v1/sessions/{id}/archive") | ("delete", "/v1/sessions/{id}") => {
            vec![plain(&own, Value::Null)]
        }
        ("post", "/v1/sessions/{id}/resources") => {
            vec![plain(&own, file("MY_FILE")), plain("/v1/sessions/MY_SESSION/resources", file("FILE"))]
        }
        (_, "/v1/sessions/{id}/resources/{resource}") => {
            vec![plain(&own, Value::Null), plain(&own.replace("SESSION", "MY_SESSION"), Value::Null)]
        }
        ("post", "/v1/x/run") => vec![
            plain(path, json!({"prompt": "x", "command": ["true"], "session_id": "SESSION"})),
            plain(path, json!({"prompt": "x", "session_id": "RUN"})),
            plain(path, json!({"prompt": "x", "command": ["true"], "session_id": "RUN"})),
        ],
        ("get", "/v1/x/sessions/{id}") => {
            vec![plain(&own, Value::Null), plain(&own.replace("SESSION", "RUN"), Value::Null)]
        }
        ("get", "/v1/x/usage") => vec![
            plain("/v1/x/usage?session=SESSION", Value::Null),
            plain("/v1/x/usage?session=RUN", Value::Null),
        ],
        // Whoever it is, there is nothing of theirs here.
        ("delete", "/v1/x/users/{id}") => vec![plain("/v1/x/users/USER", Value::Null)],
        other => panic!("the route {other:?} is not in this sweep: add what can be asked of it"),
    }
}

/// One of each kind of thing, of one organisation.
async fn things(app: &App, key: &str) -> BTreeMap<&'static str, String> {
    let id = |value: &Value| value["id"].as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let agent = id(&app.post(key, "/v1/agents", &json!({"name": "x", "model": "haiku"})).await.json());
    let environment = id(&app.post(key, "/v1/environments", &json!({"name": "x"})).await.json());
    let file = id(&app.upload(key, &[], &form("a", "text/plain", "secret")).await.json());
    let user: String = agent.chars().rev().collect();
    let new = json!({"agent": agent, "environment_id": environment, "title": "secret",
        "metadata": {"user_id": user},
        "resources": [{"type": "file", "file_id": file, "mount_path": "/mnt/session/uploads/a"}]});
    let session = app.post(key, "/v1/sessions", &new).await.json();
    let resource = id(&session["resources"][0]);
    let run = app.post(key, "/v1/x/run", &json!({"prompt": "x", "command": ["true"]})).await.json();
    let run = run["session_id"].as_str().unwrap().to_owned();
    [
        ("AGENT", agent),
        ("ENVIRONMENT", environment),
        ("FILE", file),
        ("SESSION", id(&session)),
        ("RUN", run),
        ("RESOURCE", resource),
        ("USER", user),
    ]
    .into()
}

/// Every route that the server says it has, asked by one organisation about the things of another.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_a_foreign_id_like_an_unknown_one() {
    let app = App::new(NO_MODEL).await;
    let (theirs, thief) = (things(&app, &app.key).await, app.foreign_key().await);
    let mine = things(&app, &thief).await;
    let mut unknown: BTreeMap<_, _> = NAMES
        .iter()
        .map(|name| {
            let id = match *name {
                "AGENT" => AgentId::from_random([7; 16]).to_string(),
                "ENVIRONMENT" => EnvironmentId::from_random([7; 16]).to_string(),
                "FILE" => FileId::from_random([7; 16]).to_string(),
                _ => SessionId::from_random([7; 16]).to_string(),
            };
            (*name, id)
        })
        .collect();
    unknown.insert("USER", unknown["AGENT"].chars().rev().collect());
    unknown.insert("RESOURCE", ResourceId::from_random([7; 16]).to_string());
    let before = shown(&app, &theirs).await;
    let document = app.get(&app.key, "/openapi.json").await.json();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            for (index, (place, body, headers)) in requests(method, path).into_iter().enumerate() {
                for keyed in [false, true].into_iter().take(if method == "post" { 2 } else { 1 }) {
                    let key = format!("same-{index}-{}", path.replace(['{', '}'], ""));
                    // The owner has used the same key, and the thief uses it for each of the two.
                    let ask = async |things: &BTreeMap<&str, String>, name: &str| {
                        let key = format!("{key}-{name}");
                        let mut headers = headers.clone();
                        if keyed {
                            headers.push(("idempotency-key", key.as_str()));
                        }
                        let (place, body) =
                            (filled(&place, &mine, things), filled(&body.to_string(), &mine, things));
                        let body = serde_json::from_str(&body).unwrap();
                        let method = method.to_uppercase();
                        if keyed && name == "theirs" {
                            let kept = json!({"name": "kept under this key", "model": "haiku"});
                            let keyed = [("idempotency-key", key.as_str())];
                            let kept = app.call(&app.key, "POST", "/v1/agents", &keyed, &kept).await;
                            assert_eq!(kept.status, 200, "{kept:#?}");
                        }
                        let reply = app.call(&thief, &method, &place, &headers, &body).await;
                        told_of(&reply, things)
                    };
                    let (foreign, nobodys) = (ask(&theirs, "theirs").await, ask(&unknown, "nobodys").await);
                    assert_eq!(foreign, nobodys, "{method} {place} {body}");
                    let is_list = (200..300).contains(&foreign.0) && method == "get" && place.contains('?');
                    let is_list = is_list || path == "/v1/x/users/{id}" && foreign.0 == 200;
                    let is_refused = matches!(foreign.0, 400 | 404);
                    assert!(is_refused || is_list, "{method} {place} {body}: {foreign:#?}");
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 60, "{asked}");
    assert_eq!(shown(&app, &theirs).await, before, "untouched");
    app.stop().await;
}

/// The text with ids in the place of their names.
fn filled(text: &str, mine: &BTreeMap<&str, String>, things: &BTreeMap<&str, String>) -> String {
    let mut text = text.to_owned();
    for (name, id) in mine {
        text = text.replace(&format!("MY_{name}"), id);
    }
    for (name, id) in things {
        text = text.replace(name, id);
    }
    text
}

fn told_of(reply: &Reply, things: &BTreeMap<&str, String>) -> (u16, Vec<String>, String) {
    let mut told = told(reply, "no id");
    for id in things.values() {
        told.2 = told.2.replace(id, "ID");
    }
    told
}

/// What the owner sees of everything.
async fn shown(app: &App, things: &BTreeMap<&str, String>) -> Vec<Value> {
    let mut shown = Vec::new();
    for (name, path) in [
        ("AGENT", "/v1/agents/AGENT"),
        ("AGENT", "/v1/agents/AGENT/versions"),
        ("ENVIRONMENT", "/v1/environments/ENVIRONMENT"),
        ("FILE", "/v1/files/FILE"),
        ("SESSION", "/v1/sessions/SESSION"),
        ("SESSION", "/v1/sessions/SESSION/events"),
        ("SESSION", "/v1/sessions/SESSION/resources"),
        ("RUN", "/v1/x/sessions/RUN"),
    ] {
        let reply = app.get(&app.key, &path.replace(name, &things[name])).await;
        assert_eq!(reply.status, 200, "{path}: {reply:#?}");
        let mut thing = reply.json();
        if let Some(thing) = thing.as_object_mut() {
            // Time passes by itself.
            thing.remove("stats");
        }
        shown.push(thing);
    }
    shown
}
