//! Another organisation's ids, on every route that takes one: answered byte for byte like ids that do not exist.

use serde_json::{Value, json};
use wardian_protocol::{AgentId, EnvironmentId, FileId};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_id_is_an_unknown_one() {
    let app = App::new(NO_MODEL).await;
    let agent = app.post(&app.key, "/v1/agents", &json!({"name": "x", "model": "haiku"})).await.json();
    let environment = app.post(&app.key, "/v1/environments", &json!({"name": "x"})).await.json();
    let file = app.upload(&app.key, &[], &form("a", "text/plain", "secret")).await.json();
    let foreign = app.foreign_key().await;
    let none = Value::Null;
    let rename = json!({"name": "stolen"});
    let routes = [
        (
            &agent,
            AgentId::from_random([7; 16]).to_string(),
            vec![
                ("GET", "/v1/agents/ID", &none),
                ("GET", "/v1/agents/ID?version=1", &none),
                ("GET", "/v1/agents/ID?version=2", &none),
                ("POST", "/v1/agents/ID", &rename),
                ("POST", "/v1/agents/ID/archive", &none),
                ("GET", "/v1/agents/ID/versions", &none),
            ],
        ),
        (
            &environment,
            EnvironmentId::from_random([7; 16]).to_string(),
            vec![
                ("GET", "/v1/environments/ID", &none),
                ("POST", "/v1/environments/ID", &rename),
                ("POST", "/v1/environments/ID/archive", &none),
                ("DELETE", "/v1/environments/ID", &none),
            ],
        ),
        (
            &file,
            FileId::from_random([7; 16]).to_string(),
            vec![
                ("GET", "/v1/files/ID", &none),
                ("GET", "/v1/files/ID/content", &none),
                ("GET", "/v1/files?ids[]=ID", &none),
                ("DELETE", "/v1/files/ID", &none),
            ],
        ),
    ];
    for (thing, unknown, routes) in &routes {
        let theirs = thing["id"].as_str().unwrap();
        for (method, route, body) in routes {
            for key in ["", "the-same-key"] {
                let more = [("idempotency-key", key)];
                let more = if key.is_empty() { &more[..0] } else { &more };
                let ask = async |id: &str| {
                    let key_of_its_own: Vec<_> = more
                        .iter()
                        .map(|(name, key)| (*name, format!("{key}-{method}-{route}-{id}")))
                        .collect();
                    let more: Vec<_> =
                        key_of_its_own.iter().map(|(name, key)| (*name, key.as_str())).collect();
                    app.call(&foreign, method, &route.replace("ID", id), &more, body).await
                };
                let (known, unknown) = (told(&ask(theirs).await, theirs), told(&ask(unknown).await, unknown));
                assert_eq!(known, unknown, "{method} {route}");
                assert!(known.0 == 404 || route.contains("ids[]"), "{method} {route}: {known:#?}");
            }
        }
    }
    for (list, thing) in [("agents", &agent), ("environments", &environment), ("files", &file)] {
        let id = thing["id"].as_str().unwrap();
        assert_eq!(app.get(&foreign, &format!("/v1/{list}")).await.json()["data"], json!([]));
        assert_eq!(app.get(&app.key, &format!("/v1/{list}/{id}")).await.json(), *thing, "untouched");
    }
    app.stop().await;
}
