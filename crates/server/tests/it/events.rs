//! Events as clients post and list them.

use serde_json::{Value, json};

use super::agents::NO_MODEL;
use super::app::App;
use super::sessions::session;

const ECHO: &str = r#"{"replies": [{"repeat": true, "echo": true}]}"#;

fn message(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

/// Lists until the session rests after so many turns.
async fn rested(app: &App, id: &str, turns: usize) -> Vec<Value> {
    loop {
        let listed = app.get(&app.key, &format!("/v1/sessions/{id}/events?limit=1000")).await.json();
        let events = listed["data"].as_array().unwrap().clone();
        if events.iter().filter(|event| event["type"] == "session.status_idle").count() >= turns {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_accepted_at_once_and_listed_once() {
    let app = App::new(ECHO).await;
    let id = session(&app, json!({})).await;
    let path = format!("/v1/sessions/{id}/events");
    let sent = app.post(&app.key, &path, &json!({"events": [message("one")]})).await;
    assert_eq!(sent.status, 200, "{sent:#?}");
    let sent = sent.json();
    let accepted = &sent["data"][0];
    assert_eq!((&accepted["type"], &accepted["processed_at"]), (&json!("user.message"), &Value::Null));
    let events = rested(&app, &id, 1).await;
    assert_eq!(events[0]["id"], accepted["id"]);
    assert!(events[0]["processed_at"].is_string(), "{:#}", events[0]);
    assert_eq!(events.iter().filter(|event| event["id"] == accepted["id"]).count(), 1);
    let listed = async |query: &str| {
        let reply = app.get(&app.key, &format!("{path}?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {reply:#?}");
        reply.json()
    };
    let mut backward = listed("order=desc&limit=1000").await["data"].as_array().unwrap().clone();
    backward.reverse();
    assert_eq!(backward, events);
    let said = json!(["user.message", "agent.message"]);
    for query in
        ["types[]=user.message&types[]=agent.message", "types=agent.message&types=user.message&beta=true"]
    {
        let found = listed(query).await;
        let types: Value =
            found["data"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
        assert_eq!(types, said);
    }
    let mut walked = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = listed(&query).await;
        walked.extend(page["data"].as_array().unwrap().clone());
        let Some(next) = page["next_page"].as_str() else { break };
        query = format!("limit=2&page={next}");
    }
    assert_eq!(walked, events);
    assert_eq!(listed("created_at[lt]=2020-01-01").await["data"], json!([]));
    assert_eq!(listed("created_at[gt]=2020-01-01&limit=1000").await["data"], json!(events));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_sent_again_are_taken_once() {
    let app = App::new(ECHO).await;
    let id = session(&app, json!({})).await;
    let path = format!("/v1/sessions/{id}/events");
    let once = [("idempotency-key", "once")];
    let body = json!({"events": [message("one"), message("two")]});
    let first = app.call(&app.key, "POST", &path, &once, &body).await;
    let again = app.call(&app.key, "POST", &path, &once, &body).await;
    assert_eq!((first.status, &first.body), (200, &again.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "{again:#?}");
    let events = rested(&app, &id, 1).await;
    assert_eq!(events.iter().filter(|event| event["type"] == "user.message").count(), 2);
    let other = session(&app, json!({})).await;
    let elsewhere = app.call(&app.key, "POST", &format!("/v1/sessions/{other}/events"), &once, &body).await;
    assert_eq!(elsewhere.status, 422, "{elsewhere:#?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_session_did_not_ask_for_is_refused() {
    let app = App::new(NO_MODEL).await;
    let id = session(&app, json!({})).await;
    let path = format!("/v1/sessions/{id}/events");
    let unknown = "sevt_00000000000000000000000000";
    for event in [
        json!({"type": "user.tool_confirmation", "tool_use_id": unknown, "result": "allow"}),
        json!({"type": "user.custom_tool_result", "custom_tool_use_id": unknown, "content": []}),
    ] {
        let refused = app.post(&app.key, &path, &json!({"events": [event]})).await;
        assert!(matches!(refused.status, 400 | 409), "{refused:#?}");
    }
    assert_eq!(app.get(&app.key, &path).await.json()["data"], json!([]));
    app.call(&app.key, "POST", &format!("/v1/sessions/{id}/archive"), &[], &Value::Null).await;
    let refused = app.post(&app.key, &path, &json!({"events": [message("late")]})).await;
    assert!(matches!(refused.status, 400 | 409), "{refused:#?}");
    app.stop().await;
}
