//! Deleting by age, with a clock that is moved.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use wardian_protocol::{AgentId, EnvironmentId, Id, SessionId};
use wardian_session::{
    Definition, Engine, Expired, NewManagedSession, Previews, Retention, SessionError, UserEvent,
};
use wardian_store::{UsageQuery, UsageRow};

use super::world::{World, assert_completed, prompt, python};

const DAY: i64 = 24 * 3600;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const TALKS: &str = r#"{"replies": [{"repeat": true, "model": "claude-haiku-4-5", "text": "Hello.",
    "usage": {"input_tokens": 1000, "output_tokens": 100}}]}"#;

/// A world whose clock stands where this says, in seconds.
async fn world(now: &'static AtomicI64, clock: fn() -> Timestamp) -> World {
    now.store(20_000 * DAY, Ordering::Relaxed);
    World::with(TALKS, |config| {
        config.clock = clock;
        config.sessions.idle_timeout = Duration::ZERO;
    })
    .await
}

fn random<K: wardian_protocol::id::Kind>() -> Id<K> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).unwrap();
    Id::from_random(bits)
}

/// A managed session that has said hello.
async fn session(world: &World) -> SessionId {
    let (agent_id, environment_id): (AgentId, EnvironmentId) = (random(), random());
    let (org_id, created_at) = (world.org.clone(), Timestamp::UNIX_EPOCH);
    let definition = json!({});
    let new = wardian_store::NewAgent { id: agent_id.clone(), org_id, definition, created_at };
    world.store.create_agent(new).await.unwrap();
    let (org_id, definition) = (world.org.clone(), json!({}));
    let new = wardian_store::NewEnvironment { id: environment_id.clone(), org_id, definition, created_at };
    world.store.create_environment(new).await.unwrap();
    let definition = Definition {
        agent: json!({"model": {"id": "claude-haiku-4-5"}, "system": null, "tools": []}),
        environment: json!({}),
        title: None,
        metadata: std::collections::BTreeMap::new(),
        budget: None,
        resources: Vec::new(),
        vault_ids: Vec::new(),
    };
    let hello = UserEvent::Message { content: vec![json!({"type": "text", "text": "Hi."})] };
    let new = NewManagedSession {
        id: random(),
        user: None,
        agent_id,
        agent_version: 1,
        environment_id,
        definition,
        initial_events: vec![(random(), hello)],
    };
    let id = new.id.clone();
    world.engine.create_session(&world.caller(None), new).await.unwrap();
    at_rest(&world.engine).await;
    id
}

async fn at_rest(engine: &Engine) {
    let resting = async {
        while engine.live_sessions() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, resting).await.unwrap();
}

async fn usage(world: &World) -> UsageRow {
    world.store.usage(&world.org, UsageQuery::default()).await.unwrap().remove(0)
}

fn days(days: u64) -> Option<Duration> {
    Some(Duration::from_secs(days * 24 * 3600))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_class_goes_when_its_own_time_is_over() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let world = world(&NOW, || Timestamp::from_second(NOW.load(Ordering::Relaxed)).unwrap()).await;
    let caller = world.caller(None);
    let (kept, archived) = (session(&world).await, session(&world).await);
    world.engine.archive_session(&caller, &archived).await.unwrap();
    let run = world.report(prompt("hi")).await;
    assert_completed(&run);
    at_rest(&world.engine).await;
    let spent = usage(&world).await;
    assert_eq!(spent.requests, 3);
    let mut follower =
        world.engine.follow(&caller, &archived, Some(u64::MAX), Previews::default()).await.unwrap();
    let rows = async |id: &SessionId| world.store.event_rows(&world.org, id, 0, 1000).await.unwrap().len();
    assert!(rows(&kept).await > 3);

    let retention = Retention { events: days(7), sessions: days(10), usage: days(30) };
    let expire = async || world.engine.expire(&retention).await.unwrap();
    assert_eq!(expire().await, Expired::default(), "all is new");
    NOW.fetch_add(7 * DAY - 1, Ordering::Relaxed);
    assert_eq!(expire().await, Expired::default(), "a second too early");
    assert_eq!(world.engine.expire(&Retention::default()).await.unwrap(), Expired::default());

    // After a week the logs, of runs, too. What is on the disk stays, and the sessions go on.
    NOW.fetch_add(2, Ordering::Relaxed);
    let gone = expire().await;
    assert!(gone.events > 6 && gone.sessions == 0 && gone.usage == 0, "{gone:?}");
    for id in [&kept, &archived, &run.session_id] {
        assert_eq!(world.store.events(&world.org, id, 0, 1000).await.unwrap(), []);
        assert!(world.engine.workspace(id).exists());
    }
    let last_seq = world.engine.get_session(&caller, &kept).await.unwrap().last_seq;
    let again = UserEvent::Message { content: vec![json!({"type": "text", "text": "Again."})] };
    world.engine.send_events(&caller, &kept, vec![(random(), again)]).await.unwrap();
    at_rest(&world.engine).await;
    let log = world.store.event_rows(&world.org, &kept, 0, 1000).await.unwrap();
    assert_eq!(log[0].seq, last_seq + 1, "without a gap");

    // After ten days the session that is archived, with its folders. Others stay, however old.
    NOW.fetch_add(3 * DAY, Ordering::Relaxed);
    let gone = expire().await;
    assert_eq!((gone.sessions, gone.usage), (1, 0), "{gone:?}");
    let missing = world.engine.get_session(&caller, &archived).await;
    assert!(matches!(missing, Err(SessionError::NotFound)));
    assert!(!world.engine.workspace(&archived).parent().unwrap().exists());
    assert_eq!(tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap(), None);
    assert!(world.engine.workspace(&kept).exists() && world.engine.workspace(&run.session_id).exists());

    // After a month what was spent in its first days; what the session spent later stays.
    NOW.fetch_add(20 * DAY + 1, Ordering::Relaxed);
    assert_eq!(expire().await.usage, 3);
    assert_eq!(usage(&world).await.requests, 1);
    world.engine.get_session(&caller, &kept).await.unwrap();
    world.engine.stop(PATIENCE).await;
}

/// The clock is set forward by years while things run, and back to before everything.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_never_touched() {
    static NOW: AtomicI64 = AtomicI64::new(0);
    let world = world(&NOW, || Timestamp::from_second(NOW.load(Ordering::Relaxed)).unwrap()).await;
    let all = Retention { events: days(1), sessions: days(1), usage: days(1) };
    let waits = python(
        "import os, time\nopen('ready', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('done')",
    );
    let running = world.run(waits);
    let meanwhile = async {
        let sessions = world.temp.path().join("data/sessions");
        let workspace = loop {
            let mut found = std::fs::read_dir(&sessions).unwrap();
            if let Some(found) = found.next() {
                break found.unwrap().path().join("workspace");
            }
            tokio::task::yield_now().await;
        };
        while !workspace.join("ready").exists() {
            tokio::task::yield_now().await;
        }
        let id: SessionId =
            workspace.parent().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
        let before = world.log(&id).await;
        NOW.fetch_add(3000 * DAY, Ordering::Relaxed);
        assert_eq!(world.engine.expire(&all).await.unwrap(), Expired::default());
        assert!(!world.engine.delete_runs(&world.caller(None), &id).await.unwrap(), "nor so");
        NOW.store(-5 * DAY, Ordering::Relaxed);
        assert_eq!(world.engine.expire(&all).await.unwrap(), Expired::default());
        NOW.store(20_000 * DAY, Ordering::Relaxed);
        assert_eq!(world.log(&id).await, before);
        std::fs::write(workspace.join("go"), "").unwrap();
    };
    let ((report, _), ()) = tokio::join!(running, meanwhile);
    let report = report.unwrap();
    assert_completed(&report);
    NOW.fetch_add(2 * DAY, Ordering::Relaxed);
    assert!(world.engine.expire(&all).await.unwrap().events > 0, "it is at rest");

    // A session of runs is deleted when it is asked for by its org.
    let mut foreign = world.caller(None);
    foreign.org_id = random();
    world.store.ensure_org(&foreign.org_id, "foreign").await.unwrap();
    assert!(!world.engine.delete_runs(&foreign, &report.session_id).await.unwrap());
    assert!(world.engine.delete_runs(&world.caller(None), &report.session_id).await.unwrap());
    assert!(!world.engine.delete_runs(&world.caller(None), &report.session_id).await.unwrap());
    assert_eq!(world.store.session(&world.org, &report.session_id).await.unwrap(), None);
    assert!(!world.engine.workspace(&report.session_id).parent().unwrap().exists());
    world.engine.stop(PATIENCE).await;
    assert_eq!(world.engine.expire(&all).await.unwrap(), Expired::default(), "not after the stop");
}
