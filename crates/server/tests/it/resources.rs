//! The files that a session is given.

use serde_json::{Value, json};
use wardian_protocol::{FileId, ResourceId};
use wardian_store::Scope;

use super::agents::NO_MODEL;
use super::app::{App, form};

/// Makes an agent, an environment, a file and a session; their ids.
async fn session(app: &App, more: Value) -> (String, String) {
    let id = |made: Value| made["id"].as_str().unwrap_or_else(|| panic!("{made:#}")).to_owned();
    let agent = json!({"name": "x", "model": "haiku", "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = id(app.post(&app.key, "/v1/agents", &agent).await.json());
    let environment = id(app.post(&app.key, "/v1/environments", &json!({"name": "x"})).await.json());
    let file = id(app.upload(&app.key, &[], &form("a.csv", "text/csv", "1,2,3\n")).await.json());
    let mut body = json!({"agent": agent, "environment_id": environment});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = serde_json::from_str(&body.to_string().replace("FILE", &file)).unwrap();
    (id(app.post(&app.key, "/v1/sessions", &body).await.json()), file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_given_files_and_they_are_taken_again() {
    let app = App::new(NO_MODEL).await;
    let first = json!({"resources": [{"type": "file", "file_id": "FILE", "mount_path": "/mnt/data/a.csv"}]});
    let (session, file) = session(&app, first).await;
    let path = format!("/v1/sessions/{session}/resources");
    let listed = app.get(&app.key, &path).await.json();
    assert_eq!(
        (&listed["data"][0]["file_id"], &listed["next_page"]),
        (&json!(file), &json!(null)),
        "{listed:#}"
    );
    let added = app.post(&app.key, &path, &json!({"type": "file", "file_id": file})).await;
    assert_eq!(added.status, 200, "{added:#?}");
    let added = added.json();
    let id = added["id"].as_str().unwrap();
    assert!(id.starts_with("sesrsc_"));
    assert_eq!(added["mount_path"], json!(format!("/mnt/session/uploads/{file}")));
    let one = format!("{path}/{id}");
    assert_eq!(app.get(&app.key, &one).await.json(), added);
    let shown = app.get(&app.key, &format!("/v1/sessions/{session}")).await.json();
    assert_eq!(shown["resources"], json!([listed["data"][0], added]));
    let page = app.get(&app.key, &format!("{path}?limit=1")).await.json();
    let next = page["next_page"].as_str().unwrap();
    assert_eq!(
        app.get(&app.key, &format!("{path}?limit=1&page={next}")).await.json()["data"],
        json!([added])
    );
    let token = app.post(&app.key, &one, &json!({"authorization_token": "x"})).await;
    assert_eq!((token.status, token.error_type().as_str()), (400, "invalid_request_error"), "{token:#?}");
    let gone = json!({"id": id, "type": "session_resource_deleted"});
    assert_eq!(app.delete(&app.key, &one).await.json(), gone);
    for reply in [app.get(&app.key, &one).await, app.delete(&app.key, &one).await] {
        assert_eq!((reply.status, reply.error_type().as_str()), (404, "not_found_error"), "{reply:#?}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_resource_is_named() {
    let app = App::new(NO_MODEL).await;
    let (session, file) = session(&app, json!({})).await;
    let path = format!("/v1/sessions/{session}/resources");
    let unknown = FileId::from_random([7; 16]);
    for (body, status, message) in [
        (json!([]), 400, "body: expected an object"),
        (
            json!({"type": "memory_store", "memory_store_id": "x"}),
            400,
            "type: `memory_store` is not supported yet",
        ),
        (json!({"type": "file"}), 400, "file_id: expected a file's id"),
        (json!({"type": "file", "file_id": "file_../x"}), 400, "file_id: expected a file's id"),
        (
            json!({"type": "file", "file_id": file, "mount_path": "/etc/passwd"}),
            400,
            "mount_path: expected a plain path",
        ),
        (
            json!({"type": "file", "file_id": file, "mount_path": "/mnt/../x"}),
            400,
            "mount_path: expected a plain path",
        ),
        (
            json!({"type": "file", "file_id": file, "mountPath": "/mnt/x"}),
            400,
            "mountPath: unknown field; did you mean `mount_path`?",
        ),
        (json!({"type": "file", "file_id": unknown}), 404, "no file"),
    ] {
        let reply = app.post(&app.key, &path, &body).await;
        let error = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(reply.status == status && error.starts_with(message), "{body}: {reply:#?}");
    }
    let body = json!({"type": "file", "file_id": file});
    assert_eq!(app.post(&app.key, &path, &body).await.status, 200);
    let twice = app.post(&app.key, &path, &body).await;
    assert!(twice.status == 400 && twice.body.contains("mount_path: another file"), "{twice:#?}");
    assert_eq!(app.get(&app.key, &path).await.json()["data"].as_array().unwrap().len(), 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_unknown() {
    let app = App::new(NO_MODEL).await;
    let (session, file) = session(
        &app,
        json!({"resources": [{"type": "file", "file_id": "FILE"}], "metadata": {"user_id": "ann"}}),
    )
    .await;
    let path = format!("/v1/sessions/{session}/resources");
    let id = app.get(&app.key, &path).await.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let unknown = ResourceId::from_random([7; 16]);
    let (foreign, bob) = (app.foreign_key().await, app.new_key(&[Scope::Sessions], Some("bob")).await);
    for key in [&foreign, &bob] {
        for id in [id.as_str(), unknown.as_str()] {
            for (method, path, body) in [
                ("GET", path.clone(), Value::Null),
                ("POST", path.clone(), json!({"type": "file", "file_id": file})),
                ("GET", format!("{path}/{id}"), Value::Null),
                ("POST", format!("{path}/{id}"), json!({"authorization_token": "x"})),
                ("DELETE", format!("{path}/{id}"), Value::Null),
            ] {
                let reply = app.call(key, method, &path, &[], &body).await;
                let error = reply.json()["error"].clone();
                let expected =
                    json!({"type": "not_found_error", "message": format!("no session {session:?}")});
                assert_eq!((reply.status, error), (404, expected), "{method} {path}");
            }
        }
    }
    // Nor does a user give a session a file of another user.
    let ann = app.new_key(&[Scope::Sessions], Some("ann")).await;
    let of_bob = app.upload(&bob, &[], &form("b", "text/plain", "secret of bob")).await.json();
    let stolen = app.post(&ann, &path, &json!({"type": "file", "file_id": of_bob["id"]})).await;
    assert_eq!((stolen.status, stolen.error_type().as_str()), (404, "not_found_error"), "{stolen:#?}");
    app.stop().await;
}

/// Reads what it was given, and tries to change it; twice.
const READS: &str = r#"{"replies": [
    {"match": {"last_text_contains": "first"}, "model": "claude-haiku-4-5", "tool_use": [{"name": "Bash", "input": {"command":
        "cat /mnt/session/uploads/* /workspace/in/a.csv; echo x > /mnt/y || echo refused; echo 4 >> /workspace/in/a.csv"}}]},
    {"match": {"last_text_contains": "second"}, "model": "claude-haiku-4-5", "tool_use": [{"name": "Bash", "input": {"command":
        "ls -R /mnt; tail -1 /workspace/in/a.csv; id -u"}}]},
    {"repeat": true, "model": "claude-haiku-4-5", "text": "Read."}
]}"#;

/// Posts a message, waits until the session is idle again, and says what its last tool gave.
async fn tool_result(app: &App, session: &str, text: &str, turns: usize) -> String {
    let path = format!("/v1/sessions/{session}/events");
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
    let posted = app.post(&app.key, &path, &json!({"events": [message]})).await;
    assert_eq!(posted.status, 200, "{posted:#?}");
    loop {
        let events = app.get(&app.key, &format!("{path}?limit=1000")).await.json()["data"].clone();
        let of = |kind: &str| {
            events.as_array().unwrap().iter().filter(|event| event["type"] == kind).collect::<Vec<_>>()
        };
        if of("session.status_idle").len() == turns {
            let results = of("agent.tool_result");
            assert_eq!(results.len(), turns, "{events:#}");
            return results[turns - 1]["content"].to_string();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_sees_its_files_and_cannot_change_them() {
    let app = App::new(READS).await;
    let resources = json!({"resources": [
        {"type": "file", "file_id": "FILE"},
        {"type": "file", "file_id": "FILE", "mount_path": "/workspace/in/a.csv"},
    ]});
    let (session, file) = session(&app, resources).await;
    let first = tool_result(&app, &session, "first", 1).await;
    assert!(first.matches("1,2,3").count() == 2 && first.contains("refused"), "{first}");
    // What comes and goes while its sandbox lives is seen at once.
    let path = format!("/v1/sessions/{session}/resources");
    let given = app.get(&app.key, &path).await.json()["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(app.delete(&app.key, &format!("{path}/{given}")).await.status, 200);
    let body = json!({"type": "file", "file_id": file, "mount_path": "/mnt/late/b.csv"});
    assert_eq!(app.post(&app.key, &path, &body).await.status, 200);
    let second = tool_result(&app, &session, "second", 2).await;
    assert!(second.contains("b.csv") && !second.contains(&file), "{second}");
    assert!(second.contains("4"), "{second}");
    app.stop().await;
}
