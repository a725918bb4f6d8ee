//! Agents and their versions.

use serde_json::{Value, json};
use wardian_store::Scope;

use super::app::App;

pub const NO_MODEL: &str = r#"{"replies": []}"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_has_versions() {
    let app = App::new(NO_MODEL).await;
    let body = json!({
        "name": "Fixer", "model": "haiku", "system": "Be brief.", "metadata": {"team": "a"},
        "tools": [{"type": "agent_toolset_20260401"}],
    });
    let made = app.post(&app.key, "/v1/agents?beta=true", &body).await;
    assert_eq!(made.status, 200, "{made:#?}");
    let first = made.json();
    let id = first["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("agent_"));
    let fields: Vec<_> = first.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "id",
            "type",
            "version",
            "created_at",
            "updated_at",
            "archived_at",
            "name",
            "description",
            "model",
            "system",
            "tools",
            "metadata",
            "mcp_servers",
            "skills",
            "multiagent",
            "execution_identity"
        ]
    );
    let path = format!("/v1/agents/{id}");
    assert_eq!(app.get(&app.key, &path).await.json(), first);
    // Nothing new is no new version.
    let same = app.post(&app.key, &path, &json!({"name": "Fixer", "metadata": {"team": "a"}})).await;
    assert_eq!(same.json(), first, "{same:#?}");
    let second = app
        .post(&app.key, &path, &json!({"version": 1, "system": null, "metadata": {"team": null}}))
        .await
        .json();
    assert_eq!(
        (&second["version"], &second["system"], &second["metadata"]),
        (&json!(2), &json!(null), &json!({}))
    );
    assert_eq!((&second["created_at"], &second["model"]), (&first["created_at"], &first["model"]));
    let stale = app.post(&app.key, &path, &json!({"version": 1, "name": "Other"})).await;
    assert_eq!((stale.status, stale.error_type().as_str()), (409, "conflict_error"), "{stale:#?}");
    assert_eq!(stale.header("x-should-retry"), Some("false"));
    assert_eq!(app.get(&app.key, &format!("{path}?version=1")).await.json(), first);
    let none = app.get(&app.key, &format!("{path}?version=3")).await;
    assert_eq!((none.status, none.error_type().as_str()), (404, "not_found_error"));
    let versions = app.get(&app.key, &format!("{path}/versions")).await.json();
    assert_eq!(versions, json!({"next_page": null, "data": [second, first]}));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_agent_stays_as_it_is_and_is_listed_when_asked_for() {
    let app = App::new(NO_MODEL).await;
    let made = app.post(&app.key, "/v1/agents", &json!({"name": "Old", "model": "haiku"})).await.json();
    let path = format!("/v1/agents/{}", made["id"].as_str().unwrap());
    let archived = app.call(&app.key, "POST", &format!("{path}/archive"), &[], &Value::Null).await.json();
    assert!(archived["archived_at"].is_string());
    assert_eq!(app.post(&app.key, &format!("{path}/archive"), &json!({})).await.json(), archived);
    let changed = app.post(&app.key, &path, &json!({"name": "New"})).await;
    assert_eq!(
        (changed.status, changed.error_type().as_str()),
        (400, "invalid_request_error"),
        "{changed:#?}"
    );
    assert_eq!(app.get(&app.key, "/v1/agents").await.json()["data"], json!([]));
    assert_eq!(app.get(&app.key, "/v1/agents?include_archived=true").await.json()["data"], json!([archived]));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_at_the_same_time_all_count() {
    let app = App::new(NO_MODEL).await;
    let made = app.post(&app.key, "/v1/agents", &json!({"name": "x", "model": "haiku"})).await.json();
    let path = format!("/v1/agents/{}", made["id"].as_str().unwrap());
    let updates = (0..5).map(|number| {
        let (app, path) = (&app, &path);
        async move { app.post(&app.key, path, &json!({"metadata": {format!("key{number}"): "x"}})).await }
    });
    for reply in futures_util::future::join_all(updates).await {
        assert_eq!(reply.status, 200, "{reply:#?}");
    }
    let last = app.get(&app.key, &path).await.json();
    assert_eq!((&last["version"], last["metadata"].as_object().unwrap().len()), (&json!(6), 5));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_key_reads_and_does_not_write() {
    let app = App::new(NO_MODEL).await;
    let reading = app.new_key(&[Scope::Read], None).await;
    let admin = app.new_key(&[Scope::Admin], None).await;
    let body = json!({"name": "x", "model": "haiku"});
    let made = app.post(&admin, "/v1/agents", &body).await.json();
    let path = format!("/v1/agents/{}", made["id"].as_str().unwrap());
    assert_eq!(app.get(&reading, &path).await.json(), made);
    for (path, body) in [("/v1/agents", &body), (&path, &json!({})), (&format!("{path}/archive"), &json!({}))]
    {
        let refused = app.post(&reading, path, body).await;
        assert_eq!(
            (refused.status, refused.error_type().as_str()),
            (403, "permission_error"),
            "{refused:#?}"
        );
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_bounded_as_a_whole_too() {
    let app = App::new(NO_MODEL).await;
    let tool = |number: usize| {
        let schema = json!({"type": "object", "description": "x".repeat(60_000)});
        json!({"type": "custom", "name": format!("tool{number}"), "description": "x", "input_schema": schema})
    };
    let tools: Vec<_> = (0..20).map(tool).collect();
    let reply =
        app.post(&app.key, "/v1/agents", &json!({"name": "x", "model": "haiku", "tools": tools})).await;
    assert_eq!((reply.status, reply.error_type().as_str()), (400, "invalid_request_error"), "{}", reply.body);
    assert!(reply.body.contains("the limit is 1048576"), "{}", reply.body);
    app.stop().await;
}
