//! Environments.

use serde_json::{Value, json};

use super::agents::NO_MODEL;
use super::app::App;

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_lives() {
    let app = App::new(NO_MODEL).await;
    let body = json!({
        "name": "data", "description": "for data", "metadata": {"a": "1"},
        "config": {"type": "cloud", "networking": {"type": "unrestricted"}},
    });
    let made = app.post(&app.key, "/v1/environments", &body).await;
    assert_eq!(made.status, 200, "{made:#?}");
    let first = made.json();
    let id = first["id"].as_str().unwrap();
    let path = format!("/v1/environments/{id}");
    assert!(id.starts_with("env_"));
    // What it asked for, and what it gets.
    assert_eq!(
        first["config"]["networking"],
        json!({"type": "limited", "allowed_hosts": [], "allow_mcp_servers": false, "allow_package_managers": false})
    );
    assert_eq!((&first["scope"], &first["type"]), (&json!("organization"), &json!("environment")));
    assert_eq!(app.get(&app.key, &path).await.json(), first);
    let changed = app
        .post(&app.key, &path, &json!({"name": "other", "description": null, "metadata": {"a": ""}}))
        .await
        .json();
    assert_eq!(
        (&changed["name"], &changed["description"], &changed["metadata"], &changed["config"]),
        (&json!("other"), &json!(null), &json!({}), &first["config"])
    );
    assert_eq!(
        app.get(&app.key, "/v1/environments").await.json(),
        json!({"next_page": null, "data": [changed]})
    );
    let archived = app.call(&app.key, "POST", &format!("{path}/archive"), &[], &Value::Null).await.json();
    assert!(archived["archived_at"].is_string());
    let late = app.post(&app.key, &path, &json!({"name": "late"})).await;
    assert_eq!(
        (late.status, &late.json()["error"]["details"]["error_code"]),
        (400, &json!("environment_archived"))
    );
    assert_eq!(app.get(&app.key, "/v1/environments").await.json()["data"], json!([]));
    assert_eq!(
        app.get(&app.key, "/v1/environments?include_archived=true").await.json()["data"],
        json!([archived])
    );
    assert_eq!(app.delete(&app.key, &path).await.json(), json!({"id": id, "type": "environment_deleted"}));
    for gone in [app.get(&app.key, &path).await, app.delete(&app.key, &path).await] {
        assert_eq!((gone.status, gone.error_type().as_str()), (404, "not_found_error"), "{gone:#?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_codes_that_stock_clients_know() {
    let app = App::new(NO_MODEL).await;
    let made = app.post(&app.key, "/v1/environments", &json!({"name": "x"})).await.json();
    let path = format!("/v1/environments/{}", made["id"].as_str().unwrap());
    for (path, body, code) in [
        (path.as_str(), json!({"config": {"type": "self_hosted"}}), "invalid_config_type_change"),
        (path.as_str(), json!({"metadata": {"a": 1}}), "invalid_metadata"),
        ("/v1/environments", json!({"name": "x", "metadata": {"a": "x".repeat(513)}}), "invalid_metadata"),
    ] {
        let reply = app.post(&app.key, path, &body).await;
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["details"]["error_code"]), (400, &json!(code)), "{error:#}");
    }
    app.stop().await;
}
