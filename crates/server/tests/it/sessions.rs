//! Sessions as clients see them.

use serde_json::{Value, json};
use wardian_protocol::SessionId;
use wardian_store::Scope;

use super::agents::NO_MODEL;
use super::app::App;
use super::foreign::told;

/// What a session is made of.
pub struct Parts {
    pub agent: String,
    pub environment: String,
}

impl Parts {
    pub async fn new(app: &App) -> Self {
        let id = |made: Value| made["id"].as_str().unwrap_or_else(|| panic!("{made:#}")).to_owned();
        let agent =
            json!({"name": "helper", "model": "haiku", "tools": [{"type": "agent_toolset_20260401"}]});
        let agent = id(app.post(&app.key, "/v1/agents", &agent).await.json());
        let environment = id(app.post(&app.key, "/v1/environments", &json!({"name": "x"})).await.json());
        Self { agent, environment }
    }

    /// A body that makes a session, with more fields.
    pub fn body(&self, more: &Value) -> Value {
        let mut body = json!({"agent": self.agent, "environment_id": self.environment});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }
}

/// Makes a session; its id.
pub async fn session(app: &App, more: Value) -> String {
    let parts = Parts::new(app).await;
    let made = app.post(&app.key, "/v1/sessions", &parts.body(&more)).await;
    made.json()["id"].as_str().unwrap_or_else(|| panic!("{made:#?}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_what_the_stock_client_knows() {
    let app = App::new(NO_MODEL).await;
    let parts = Parts::new(&app).await;
    let agent =
        json!({"type": "agent_with_overrides", "id": parts.agent, "system": "Be brief.", "tools": []});
    let budget = json!({"type": "limit", "max_list_cost": {"amount": "125", "currency": "USD"}});
    let more = json!({"agent": agent, "title": "t", "metadata": {"a": "b"}, "budget": budget});
    let made = app.post(&app.key, "/v1/sessions", &parts.body(&more)).await;
    assert_eq!(made.status, 200, "{made:#?}");
    let made = made.json();
    let id = made["id"].as_str().unwrap().to_owned();
    let mut shown = made.clone();
    for (name, kept) in
        [("id", "sesn_"), ("created_at", "20"), ("updated_at", "20"), ("environment_id", "env_")]
    {
        assert!(made[name].as_str().unwrap().starts_with(kept), "{name}");
        shown[name] = json!(kept);
    }
    shown["agent"]["id"] = json!("agent_");
    shown["agent"]["model"]["id"] = json!("haiku");
    assert!(shown["stats"]["duration_seconds"].as_f64().unwrap() < 60.0);
    shown["stats"]["duration_seconds"] = json!(0.0);
    let expected = json!({
        "id": "sesn_", "type": "session", "status": "idle", "title": "t", "metadata": {"a": "b"}, "budget": budget,
        "agent": {
            "id": "agent_", "type": "agent", "version": 1, "name": "helper", "description": null,
            "model": {"id": "haiku", "speed": "standard"}, "system": "Be brief.", "tools": [], "mcp_servers": [],
            "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"},
        },
        "environment_id": "env_",
        "usage": {
            "input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "active_seconds": 0.0, "list_cost": {"amount": "0", "currency": "USD"},
            "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        },
        "stats": {"active_seconds": 0.0, "duration_seconds": 0.0},
        "resources": [], "vault_ids": [], "outcome_evaluations": [], "deployment_id": null, "queue_position": null,
        "created_at": "20", "updated_at": "20", "archived_at": null,
    });
    assert_eq!(shown, expected, "{shown:#}");
    let path = format!("/v1/sessions/{id}");
    assert_eq!(app.get(&app.key, &path).await.json()["agent"], made["agent"]);
    let changed = json!({"title": null, "metadata": {"a": null, "c": "d"}, "budget": null});
    let changed = app.post(&app.key, &path, &changed).await.json();
    assert_eq!(
        (&changed["title"], &changed["metadata"], &changed["budget"]),
        (&json!(null), &json!({"c": "d"}), &json!(null))
    );
    let archived = app.call(&app.key, "POST", &format!("{path}/archive"), &[], &Value::Null).await.json();
    assert!(archived["archived_at"].is_string(), "{archived:#}");
    let deleted = app.delete(&app.key, &path).await;
    assert_eq!((deleted.status, deleted.json()), (200, json!({"id": id, "type": "session_deleted"})));
    assert_eq!(app.get(&app.key, &path).await.status, 404);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_walked_both_ways() {
    let app = App::new(NO_MODEL).await;
    let (one, two) = (Parts::new(&app).await, Parts::new(&app).await);
    let mut ids = Vec::new();
    for number in 0..5 {
        let parts = if number % 2 == 0 { &one } else { &two };
        let made = app.post(&app.key, "/v1/sessions", &parts.body(&json!({}))).await.json();
        ids.push((made["id"].as_str().unwrap().to_owned(), made["created_at"].as_str().unwrap().to_owned()));
    }
    let listed = async |query: &str| {
        let reply = app.get(&app.key, &format!("/v1/sessions?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {reply:#?}");
        let page = reply.json();
        let found: Vec<usize> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| ids.iter().position(|(id, _)| *id == row["id"]).unwrap())
            .collect();
        (found, page)
    };
    assert_eq!(listed("").await.0, [4, 3, 2, 1, 0]);
    assert_eq!(listed("order=asc&beta=true").await.0, [0, 1, 2, 3, 4]);
    assert_eq!(listed(&format!("agent_id={}", two.agent)).await.0, [3, 1]);
    assert_eq!(listed(&format!("agent_id={}&agent_version=2", two.agent)).await.0, [0; 0]);
    assert_eq!(listed("statuses[]=idle&statuses[]=running").await.0, [4, 3, 2, 1, 0]);
    assert_eq!(listed("statuses=terminated").await.0, [0; 0]);
    assert_eq!(listed(&format!("created_at[gt]={}", ids[2].1)).await.0, [4, 3]);
    assert_eq!(listed(&format!("created_at%5Blte%5D={}&order=asc", ids[1].1)).await.0, [0, 1]);
    let (found, first) = listed("limit=2").await;
    assert_eq!((found, &first["prev_page"]), (vec![4, 3], &Value::Null));
    let (found, second) = listed(&format!("limit=2&page={}", first["next_page"].as_str().unwrap())).await;
    assert_eq!(found, [2, 1]);
    let (found, back) = listed(&format!("limit=2&page={}", second["prev_page"].as_str().unwrap())).await;
    assert_eq!((found, &back["prev_page"]), (vec![4, 3], &Value::Null));
    let other = format!("/v1/sessions?order=asc&page={}", first["next_page"].as_str().unwrap());
    assert_eq!(app.get(&app.key, &other).await.status, 400, "a cursor of another list");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_its_users_and_its_orgs() {
    let app = App::new(NO_MODEL).await;
    let parts = Parts::new(&app).await;
    let ann = app.new_key(&[Scope::Sessions], Some("ann")).await;
    let bob = app.new_key(&[Scope::Sessions], Some("bob")).await;
    let foreign = app.foreign_key().await;
    let posing = app.post(&ann, "/v1/sessions", &parts.body(&json!({"metadata": {"user_id": "bob"}}))).await;
    assert_eq!((posing.status, posing.error_type().as_str()), (400, "invalid_request_error"), "{posing:#?}");
    let of_ann = app.post(&ann, "/v1/sessions", &parts.body(&json!({}))).await.json();
    let of_bob = parts.body(&json!({"metadata": {"user_id": "bob"}}));
    let of_bob = app.post(&app.key, "/v1/sessions", &of_bob).await.json();
    let change = app.post(&bob, &path(&of_bob), &json!({"metadata": {"user_id": "ann"}})).await;
    assert_eq!(change.status, 400, "{change:#?}");
    for (key, seen) in [(&ann, vec![&of_ann]), (&bob, vec![&of_bob]), (&app.key, vec![&of_bob, &of_ann])] {
        let listed = app.get(key, "/v1/sessions").await.json();
        let listed: Vec<_> = listed["data"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
        assert_eq!(listed, seen.iter().map(|row| row["id"].clone()).collect::<Vec<_>>());
    }
    assert_eq!(app.get(&foreign, "/v1/sessions").await.json()["data"], json!([]));
    let unknown = SessionId::from_random([7; 16]).to_string();
    let (none, message) = (Value::Null, json!({"events": [{"type": "user.interrupt"}]}));
    let routes = [
        ("GET", "/v1/sessions/ID", &none),
        ("POST", "/v1/sessions/ID", &json!({"title": "stolen"})),
        ("POST", "/v1/sessions/ID", &json!({"titel": "stolen"})),
        ("POST", "/v1/sessions/ID/archive", &none),
        ("GET", "/v1/sessions/ID/events", &none),
        ("GET", "/v1/sessions/ID/events?types=agent.message&order=desc", &none),
        ("POST", "/v1/sessions/ID/events", &message),
        ("POST", "/v1/sessions/ID/events", &json!({"events": []})),
        ("GET", "/v1/sessions/ID/events/stream", &none),
        ("GET", "/v1/sessions/ID/events/stream?after=0", &none),
        ("GET", "/v1/sessions/ID/events/stream?after=1000", &none),
        ("GET", "/v1/sessions/ID/resources", &none),
        ("GET", "/v1/x/sessions/ID", &none),
        ("DELETE", "/v1/sessions/ID", &none),
    ];
    let theirs = of_ann["id"].as_str().unwrap();
    for (number, (method, route, body)) in routes.into_iter().enumerate() {
        // The second: replay; the third: a key that the owner, too, has sent.
        for more in [vec![], vec![("last-event-id", "0")], vec![("idempotency-key", "the-same-key")]] {
            for key in [&foreign, &bob] {
                let ask = async |id: &str| {
                    let own = format!("the-same-key-{number}-{id}");
                    let more: Vec<_> = more
                        .iter()
                        .map(|(name, value)| {
                            (*name, if *name == "idempotency-key" { own.as_str() } else { *value })
                        })
                        .collect();
                    if !more.is_empty() && method == "POST" {
                        let agent = json!({"name": "x", "model": "haiku"});
                        assert_eq!(app.call(&ann, "POST", "/v1/agents", &more, &agent).await.status, 200);
                    }
                    app.call(key, method, &route.replace("ID", id), &more, body).await
                };
                let (known, unknown) =
                    (told(&ask(theirs).await, theirs), told(&ask(&unknown).await, &unknown));
                assert_eq!(known, unknown, "{method} {route} {more:?}");
                assert_eq!(known.0, 404, "{method} {route} {more:?}: {known:#?}");
            }
        }
    }
    let kept = app.get(&ann, &path(&of_ann)).await.json();
    assert_eq!((&kept["title"], &kept["archived_at"]), (&Value::Null, &Value::Null), "untouched");
    app.stop().await;
}

fn path(session: &Value) -> String {
    format!("/v1/sessions/{}", session["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_runs_and_these_do_not_mix() {
    let app = App::new(NO_MODEL).await;
    let id = session(&app, json!({})).await;
    let run = app.run(&json!({"prompt": "x", "command": ["true"], "session_id": id})).await;
    assert_eq!((run.status, run.error_type().as_str()), (404, "not_found_error"), "{run:#?}");
    let run = app.run(&json!({"prompt": "x", "command": ["true"]})).await.json();
    let of_run = run["session_id"].as_str().unwrap();
    assert_eq!(app.get(&app.key, &format!("/v1/sessions/{of_run}")).await.status, 404);
    assert_eq!(app.get(&app.key, "/v1/sessions").await.json()["data"].as_array().unwrap().len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_asked_for_twice_is_made_once() {
    let app = App::new(NO_MODEL).await;
    let parts = Parts::new(&app).await;
    let once = [("idempotency-key", "once")];
    let make = async |title: &str| {
        app.call(&app.key, "POST", "/v1/sessions", &once, &parts.body(&json!({"title": title}))).await
    };
    let (first, again) = (make("a").await, make("a").await);
    assert_eq!((first.status, &first.body), (200, &again.body));
    assert_eq!(make("b").await.status, 422);
    assert_eq!(app.get(&app.key, "/v1/sessions").await.json()["data"].as_array().unwrap().len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_takes_no_new_sessions() {
    let app = App::new(NO_MODEL).await;
    let (one, two) = (Parts::new(&app).await, Parts::new(&app).await);
    app.call(&app.key, "POST", &format!("/v1/agents/{}/archive", one.agent), &[], &Value::Null).await;
    app.call(&app.key, "POST", &format!("/v1/environments/{}/archive", two.environment), &[], &Value::Null)
        .await;
    for (parts, message) in [(one, "agent: it is archived"), (two, "environment_id: it is archived")] {
        let refused = app.post(&app.key, "/v1/sessions", &parts.body(&json!({}))).await;
        assert_eq!((refused.status, refused.error_type().as_str()), (400, "invalid_request_error"));
        assert!(refused.body.contains(message), "{refused:#?}");
    }
    app.stop().await;
}
