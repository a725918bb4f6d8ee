//! A wall clock that steps by an hour, forward and back, under sessions: order, pages, approvals and times hold.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::app::App;

/// How far the clock is off, in seconds.
static OFF: AtomicI64 = AtomicI64::new(0);
const HOUR: i64 = 3600;
const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "the clock that this test turns")]
fn clock() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(OFF.load(Ordering::Relaxed))
}

fn script() -> String {
    let call = json!({"name": "Bash", "input": {"command": "echo ran"}});
    json!({"replies": [
        {"match": {"tool_result_contains": "ran"}, "repeat": true, "text": "It ran."},
        {"match": {"tool_result_contains": "denied"}, "repeat": true, "text": "It may not."},
        {"repeat": true, "tool_use": [call]},
    ]})
    .to_string()
}

struct Clocked {
    app: App,
    agent: Value,
    environment: Value,
}

impl Clocked {
    async fn session(&self) -> String {
        let new = json!({"agent": self.agent["id"], "environment_id": self.environment["id"]});
        let session = self.app.post(&self.app.key, "/v1/sessions", &new).await.json();
        session["id"].as_str().unwrap_or_else(|| panic!("{session:#}")).to_owned()
    }

    async fn post(&self, session: &str, event: Value) {
        let path = format!("/v1/sessions/{session}/events");
        let reply = self.app.post(&self.app.key, &path, &json!({"events": [event]})).await;
        assert_eq!(reply.status, 200, "{reply:#?}");
    }

    /// All of a list, a few at a time.
    async fn pages(&self, path: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut page = self.app.get(&self.app.key, path).await.json();
        loop {
            all.extend_from_slice(page["data"].as_array().unwrap_or_else(|| panic!("{page:#}")));
            let Some(next) = page["next_page"].as_str() else { return all };
            page = self.app.get(&self.app.key, &format!("{path}&page={next}")).await.json();
        }
    }

    async fn events(&self, session: &str) -> Vec<Value> {
        self.pages(&format!("/v1/sessions/{session}/events?limit=3")).await
    }

    /// Waits until the session is idle for this reason, for the nth time.
    async fn idle(&self, session: &str, reason: &str, times: usize) -> Vec<Value> {
        let waiting = async {
            loop {
                let events = self.events(session).await;
                let is_it = |event: &&Value| event["stop_reason"]["type"] == reason;
                if events.iter().filter(is_it).count() >= times {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(events) => events,
            Err(_) => panic!("not {reason}: {:#?}", self.events(session).await),
        }
    }

    /// A turn whose call is asked for at one time and answered at another.
    async fn turn(&self, session: &str, number: usize, asked: i64, answered: i64) -> Vec<Value> {
        OFF.store(asked, Ordering::Relaxed);
        self.post(session, json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]}))
            .await;
        let events = self.idle(session, "requires_action", number).await;
        let call = events.iter().rfind(|event| event["type"] == "agent.tool_use").unwrap();
        OFF.store(answered, Ordering::Relaxed);
        self.post(
            session,
            json!({"type": "user.tool_confirmation", "tool_use_id": call["id"], "result": "allow"}),
        )
        .await;
        self.idle(session, "end_turn", number).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_an_hour() {
    let app = App::with_engine(
        &script(),
        |config| config.clock = clock,
        |config| {
            config.clock = clock;
            config.sessions.approval_ttl = Duration::from_secs(3 * HOUR.unsigned_abs());
        },
    )
    .await;
    let tools = json!([{"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": "always_ask"}}}]);
    let agent = json!({"name": "x", "model": "haiku", "tools": tools});
    let agent = app.post(&app.key, "/v1/agents", &agent).await.json();
    let environment = app.post(&app.key, "/v1/environments", &json!({"name": "x"})).await.json();
    let clocked = Clocked { app, agent, environment };
    let session = clocked.session().await;

    // In the middle of a turn, while it waits, and between turns.
    let steps = [(0, 0), (0, -HOUR), (-HOUR, HOUR), (HOUR, 0), (-HOUR, 0), (HOUR, -HOUR)];
    for (number, (asked, answered)) in (1..).zip(steps) {
        clocked.turn(&session, number, asked, answered).await;
    }
    let events = clocked.events(&session).await;
    let results: Vec<_> = events.iter().filter(|event| event["type"] == "agent.tool_result").collect();
    assert_eq!(results.len(), steps.len());
    assert!(
        results.iter().all(|result| result["is_error"] == false),
        "no approval has expired: {results:#?}"
    );

    // Pages: each event once, in the order of the log, forwards and backwards; the whole list at once says the same.
    let whole = clocked.pages(&format!("/v1/sessions/{session}/events?limit=1000")).await;
    assert_eq!(events, whole);
    let mut backwards = clocked.pages(&format!("/v1/sessions/{session}/events?limit=3&order=desc")).await;
    backwards.reverse();
    assert_eq!(backwards, whole);

    // Times: none is negative, and a step counts for no more than itself.
    let shown = clocked.app.get(&clocked.app.key, &format!("/v1/sessions/{session}")).await.json();
    for name in ["active_seconds", "duration_seconds"] {
        let seconds = shown["stats"][name].as_f64().unwrap_or_else(|| panic!("{shown:#}"));
        assert!((0.0..4.0 * 3600.0).contains(&seconds), "{name}: {shown:#}");
    }

    // Sessions made at the same time by clocks that differ are each on one page.
    let mut made = vec![session];
    for off in [HOUR, 0, -HOUR, HOUR, -HOUR] {
        OFF.store(off, Ordering::Relaxed);
        made.push(clocked.session().await);
    }
    let listed = clocked.pages("/v1/sessions?limit=2").await;
    let mut ids: Vec<_> = listed.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    made.sort();
    assert_eq!(ids, made);

    // An approval whose time is over by the clock is denied, and the turn ends: a step of four hours takes it there.
    OFF.store(0, Ordering::Relaxed);
    let late = made.last().unwrap();
    let late = if clocked.events(late).await.is_empty() { late } else { &made[0] };
    clocked.post(late, json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]})).await;
    clocked.idle(late, "requires_action", 1).await;
    OFF.store(4 * HOUR, Ordering::Relaxed);
    // Somebody comes, or the engine looks by itself.
    clocked.post(late, json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]})).await;
    let events = clocked.idle(late, "requires_action", 2).await;
    let denied = events.iter().find(|event| event["type"] == "agent.tool_result").unwrap();
    assert!(denied.to_string().contains("in time"), "{denied:#}");
    clocked.app.stop().await;
}
