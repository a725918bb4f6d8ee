//! Requests with an `Idempotency-Key`: done once, answered each time.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use wardian_protocol::AgentId;
use wardian_store::{Idempotent, IdempotentRequest, NewAgent, Scope, SqliteStore, Store};

use super::agents::NO_MODEL;
use super::app::{App, form};
use super::client::{Reply, request};

async fn keyed(app: &App, key: &str, path: &str, idempotency_key: &str, body: &Value) -> Reply {
    app.call(key, "POST", path, &[("idempotency-key", idempotency_key)], body).await
}

fn agent(name: &str) -> Value {
    json!({"name": name, "model": "haiku"})
}

async fn agents(app: &App) -> usize {
    app.get(&app.key, "/v1/agents").await.json()["data"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gets_the_same_answer() {
    let app = App::new(NO_MODEL).await;
    let first = keyed(&app, &app.key, "/v1/agents", "one", &agent("x")).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None), "{first:#?}");
    let again = keyed(&app, &app.key, "/v1/agents", "one", &agent("x")).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("content-type"), Some("application/json"));
    assert_ne!(again.header("request-id"), first.header("request-id"));
    // Another body, and another route.
    let id = first.json()["id"].as_str().unwrap().to_owned();
    for (path, body) in [
        ("/v1/agents", agent("y")),
        ("/v1/environments", agent("x")),
        (&format!("/v1/agents/{id}"), agent("x")),
        ("/v1/agents?beta=true", agent("x")),
    ] {
        let other = keyed(&app, &app.key, path, "one", &body).await;
        assert_eq!(
            (other.status, other.error_type().as_str()),
            (422, "invalid_request_error"),
            "{path}: {other:#?}"
        );
    }
    // Without the key, or with another, it is another request.
    assert_ne!(keyed(&app, &app.key, "/v1/agents", "two", &agent("x")).await.body, first.body);
    assert_eq!(app.post(&app.key, "/v1/agents", &agent("x")).await.status, 200);
    assert_eq!(agents(&app).await, 3);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_two_callers_never_meet() {
    let app = App::new(NO_MODEL).await;
    let (second, foreign) = (app.new_key(&[Scope::Admin], None).await, app.foreign_key().await);
    let mut bodies = Vec::new();
    for key in [&app.key, &second, &foreign] {
        let reply = keyed(&app, key, "/v1/agents", "one", &agent("x")).await;
        assert_eq!((reply.status, reply.header("idempotent-replayed")), (200, None), "{reply:#?}");
        bodies.push(reply.json()["id"].to_string());
        // Nor is another body of somebody else's key a contradiction.
        let other =
            keyed(&app, key, "/v1/agents", &format!("of {}", bodies.len()).replace(' ', "-"), &agent("y"))
                .await;
        assert_eq!(other.status, 200);
    }
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), 3);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_kept_and_who_may_not_asks_in_vain() {
    let app = App::new(NO_MODEL).await;
    let wrong = json!({"name": "x"});
    let first = keyed(&app, &app.key, "/v1/agents", "one", &wrong).await;
    let again = keyed(&app, &app.key, "/v1/agents", "one", &wrong).await;
    // The answer names the request that it was an answer to.
    assert_eq!((first.status, again.status, &again.body), (400, 400, &first.body));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let reading = app.new_key(&[Scope::Read], None).await;
    assert_eq!(keyed(&app, &reading, "/v1/agents", "one", &agent("x")).await.status, 403);
    assert_eq!(keyed(&app, "wrong", "/v1/agents", "one", &agent("x")).await.status, 401);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_the_same_time_one_waits() {
    let app = App::new(NO_MODEL).await;
    let body = json!({"prompt": "x", "command": ["sh", "-c", "sleep 0.7; echo done"]});
    let (one, other) = tokio::join!(
        keyed(&app, &app.key, "/v1/x/run", "one", &body),
        keyed(&app, &app.key, "/v1/x/run", "one", &body)
    );
    let (done, refused) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!((done.status, refused.status, refused.error_type().as_str()), (200, 409, "conflict_error"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let later = keyed(&app, &app.key, "/v1/x/run", "one", &body).await;
    assert_eq!(
        (later.status, &later.body, later.header("idempotent-replayed")),
        (200, &done.body, Some("true"))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_on_when_its_client_leaves() {
    let app = App::new(NO_MODEL).await;
    let body = json!({"prompt": "x", "command": ["sh", "-c", "sleep 0.3; echo done"]});
    let headers =
        [("x-api-key", app.key.as_str()), ("content-type", "application/json"), ("idempotency-key", "one")];
    let bytes = request("POST", "/v1/x/run", &headers, body.to_string().as_bytes());
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    while app.engine.runs() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(stream);
    let reply = loop {
        let reply = keyed(&app, &app.key, "/v1/x/run", "one", &body).await;
        if reply.status != 409 {
            break reply;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((reply.status, reply.header("idempotent-replayed")), (200, Some("true")), "{reply:#?}");
    assert_eq!(reply.json()["stdout"], "done\n");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_costs_once_and_a_stream_is_not_kept() {
    let script = r#"{"replies": [{"model": "claude-haiku-4-5", "text": "ok", "usage": {"input_tokens": 1000, "output_tokens": 100}}]}"#;
    let app = App::new(script).await;
    let body = json!({"prompt": "hi", "model": "haiku"});
    let first = keyed(&app, &app.key, "/v1/x/run", "one", &body).await;
    assert_eq!(first.status, 200, "{first:#?}");
    assert_eq!(keyed(&app, &app.key, "/v1/x/run", "one", &body).await.body, first.body);
    assert_eq!(app.model.request_count(), 1);
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let refused = keyed(&app, &app.key, "/v1/x/run", "two", &streamed).await;
    assert_eq!(
        (refused.status, refused.error_type().as_str()),
        (400, "invalid_request_error"),
        "{refused:#?}"
    );
    assert!(refused.body.contains("stream: "), "{refused:#?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_forgotten() {
    let app = App::new(NO_MODEL).await;
    // 504: its time is over. It may be tried again, and is done again then.
    let body = json!({"prompt": "x", "command": ["sleep", "1000"], "limits": {"timeout_seconds": 0.2}});
    for _ in 0..2 {
        let reply = keyed(&app, &app.key, "/v1/x/run", "one", &body).await;
        assert_eq!((reply.status, reply.header("idempotent-replayed")), (504, None), "{reply:#?}");
    }
    // What is forgotten contradicts nothing.
    let quick = json!({"prompt": "x", "command": ["true"]});
    assert_eq!(keyed(&app, &app.key, "/v1/x/run", "one", &quick).await.status, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_the_same_whatever_its_boundary() {
    let app = App::new(NO_MODEL).await;
    let one = form("a.txt", "text/plain", "content");
    let key = [("idempotency-key", "one")];
    let first = app.upload(&app.key, &key, &one).await;
    assert_eq!(first.status, 200, "{first:#?}");
    let headers = [
        ("x-api-key", app.key.as_str()),
        ("content-type", "multipart/form-data; boundary=other"),
        ("idempotency-key", "one"),
    ];
    let bytes = request("POST", "/v1/files", &headers, one.replace("--XX", "--other").as_bytes());
    let again = super::client::send(app.address, &bytes, false).await;
    assert_eq!(
        (again.status, &again.body, again.header("idempotent-replayed")),
        (200, &first.body, Some("true"))
    );
    for other in [
        form("b.txt", "text/plain", "content"),
        form("a.txt", "text/html", "content"),
        form("a.txt", "text/plain", "contenT"),
    ] {
        let reply = app.upload(&app.key, &key, &other).await;
        assert_eq!((reply.status, reply.error_type().as_str()), (422, "invalid_request_error"), "{reply:#?}");
    }
    assert_eq!(std::fs::read_dir(app.files()).unwrap().count(), 1);
    app.stop().await;
}

/// A process that began a request with this key and seed, and died.
async fn died(app: &App, key: &str, seed: [u8; 16], body: &Value) -> String {
    let (key_id, api_key) = app.new_key_with_id(&[Scope::Sessions], None).await;
    let other = SqliteStore::open(&app.database()).unwrap();
    let request_sha256 =
        Sha256::digest([b"/v1/agents\0".as_slice(), body.to_string().as_bytes()].concat()).into();
    let asked = IdempotentRequest {
        org_id: app.org.clone(),
        key_id,
        route: "POST /v1/agents".to_owned(),
        key: key.to_owned(),
        request_sha256,
        seed,
        owner: "a-process-that-died".to_owned(),
        at: (wardian_server::ServerConfig::default().clock)(),
    };
    assert_eq!(other.begin_idempotent(asked).await.unwrap(), Idempotent::New { seed });
    api_key
}

/// The id that a seed makes.
fn id_of(seed: [u8; 16]) -> AgentId {
    let digest = Sha256::new().chain_update(seed).chain_update(0u32.to_be_bytes()).finalize();
    AgentId::from_random(digest[..16].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_try_that_died_is_done_again_under_the_same_id() {
    let app = App::new(NO_MODEL).await;
    // Before it had made anything, and after.
    for (seed, made) in [([1; 16], false), ([2; 16], true)] {
        let id = id_of(seed);
        let key = died(&app, "one", seed, &agent("x")).await;
        if made {
            let definition = json!({"name": "x", "model": {"id": "claude-haiku-5-5", "speed": "standard"}});
            let created_at = jiff::Timestamp::UNIX_EPOCH;
            let new = NewAgent { id: id.clone(), org_id: app.org.clone(), definition, created_at };
            app.store.create_agent(new).await.unwrap();
        }
        let reply = keyed(&app, &key, "/v1/agents", "one", &agent("x")).await;
        assert_eq!((reply.status, reply.header("idempotent-replayed")), (200, None), "{reply:#?}");
        assert_eq!(reply.json()["id"], json!(id));
        let again = keyed(&app, &key, "/v1/agents", "one", &agent("x")).await;
        assert_eq!((again.body, again.status), (reply.body, 200));
    }
    assert_eq!(agents(&app).await, 2);
    app.stop().await;
}
