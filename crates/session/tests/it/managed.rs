//! Managed sessions with everything real around them: turns, approvals, custom tools, interrupts, restarts.

use std::time::Duration;

use serde_json::{Value, json};
use wardian_protocol::{AgentId, EnvironmentId, EventId, NanoUsd, SessionId};
use wardian_session::{
    Caller, Confirmation, Definition, EngineConfig, Followed, NewManagedSession, Previews, SessionError,
    SessionUpdate, SessionView, UserEvent,
};
use wardian_store::{EventQuery, Order, SessionStatus};

use super::world::World;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn random<K: wardian_protocol::id::Kind>() -> wardian_protocol::Id<K> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).unwrap();
    wardian_protocol::Id::from_random(bits)
}

fn message(text: &str) -> (EventId, UserEvent) {
    (random(), UserEvent::Message { content: vec![json!({"type": "text", "text": text})] })
}

fn toolset(policy: &str) -> Value {
    json!({"type": "agent_toolset_20260401", "configs": [],
           "default_config": {"enabled": true, "permission_policy": {"type": policy}}})
}

/// A world with its default agent, whose tools are these.
struct Sessions {
    world: World,
    tools: Value,
    budget: Option<NanoUsd>,
}

impl Sessions {
    async fn new(script: Value, tools: Value) -> Self {
        Self::with(script, tools, |_| ()).await
    }

    async fn with(script: Value, tools: Value, change: impl FnOnce(&mut EngineConfig)) -> Self {
        Self { world: World::with(&script.to_string(), change).await, tools, budget: None }
    }

    fn caller(&self) -> Caller {
        self.world.caller(None)
    }

    async fn create(&self, initial_events: Vec<(EventId, UserEvent)>) -> SessionView {
        let (agent, environment): (AgentId, EnvironmentId) = (random(), random());
        self.world
            .store
            .create_agent(wardian_store::NewAgent {
                id: agent.clone(),
                org_id: self.world.org.clone(),
                definition: json!({}),
                created_at: jiff::Timestamp::UNIX_EPOCH,
            })
            .await
            .unwrap();
        self.world
            .store
            .create_environment(wardian_store::NewEnvironment {
                id: environment.clone(),
                org_id: self.world.org.clone(),
                definition: json!({}),
                created_at: jiff::Timestamp::UNIX_EPOCH,
            })
            .await
            .unwrap();
        let definition = Definition {
            agent: json!({"model": {"id": "claude-sonnet-4-5"}, "system": "Be brief.", "tools": self.tools}),
            environment: json!({}),
            title: None,
            metadata: std::collections::BTreeMap::new(),
            budget: self.budget,
            resources: Vec::new(),
            vault_ids: Vec::new(),
        };
        let new = NewManagedSession {
            id: random(),
            user: None,
            agent_id: agent,
            agent_version: 1,
            environment_id: environment,
            definition,
            initial_events,
        };
        self.world.engine.create_session(&self.caller(), new).await.unwrap()
    }

    async fn send(&self, id: &SessionId, event: UserEvent) -> Result<Vec<Value>, SessionError> {
        self.world.engine.send_events(&self.caller(), id, vec![(random(), event)]).await
    }

    /// All rows from after `from` up to the first that `last` accepts.
    async fn until(&self, id: &SessionId, from: u64, last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut follower =
            self.world.engine.follow(&self.caller(), id, Some(from), Previews::default()).await.unwrap();
        let mut rows: Vec<Value> = Vec::new();
        let reading = async {
            let mut expected = from;
            while let Some(followed) = follower.next().await.unwrap() {
                let Followed::Event { seq, data, .. } = followed else { panic!("no preview was asked for") };
                expected += 1;
                assert_eq!(seq, expected, "without gaps");
                let row: Value = serde_json::from_str(&data).unwrap();
                let is_last = last(&row);
                rows.push(row);
                if is_last {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reading).await;
        assert!(in_time.is_ok(), "only these came: {rows:#?}");
        rows
    }

    /// All rows up to `n` times idle.
    async fn until_idle(&self, id: &SessionId) -> Vec<Value> {
        self.until(id, 0, |row| row["type"] == "session.status_idle").await
    }

    async fn list(&self, id: &SessionId) -> Vec<Value> {
        let created = wardian_store::CreatedRange::default();
        let query = EventQuery { types: Vec::new(), created, order: Order::Asc, after: None, limit: 1000 };
        let rows = self.world.engine.list_events(&self.caller(), id, query).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(&row.payload).unwrap()).collect()
    }
}

fn kinds(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["type"].as_str().unwrap()).collect()
}

fn find<'a>(rows: &'a [Value], kind: &str) -> &'a Value {
    rows.iter().find(|row| row["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {:?}", kinds(rows)))
}

fn id_of(row: &Value) -> EventId {
    row["id"].as_str().unwrap().parse().unwrap()
}

fn stop_reason(rows: &[Value]) -> &str {
    rows.last().unwrap()["stop_reason"]["type"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_a_turn_and_the_next_one_knows_it() {
    let sessions = Sessions::new(
        json!({"replies": [{"text": "Hello, Ann."}, {"text": "You are Ann."}]}),
        json!([toolset("always_allow")]),
    )
    .await;
    let session = sessions.create(vec![message("I am Ann.")]).await;
    assert_eq!(session.status, SessionStatus::Running);
    let rows = sessions.until_idle(&session.id).await;
    // The gateway and the agent are two, so the end of the request may come before or after what it gave.
    let (mut kinds_of_rows, end) = (kinds(&rows), "span.model_request_end");
    let at = kinds_of_rows.iter().position(|kind| *kind == end).unwrap();
    kinds_of_rows.remove(at);
    assert_eq!(
        kinds_of_rows,
        [
            "user.message",
            "session.status_running",
            "user.message",
            "span.model_request_start",
            "agent.message",
            "session.usage",
            "session.status_idle",
        ]
    );
    assert_eq!(rows[0]["processed_at"], Value::Null);
    assert!(rows[2]["processed_at"].is_string());
    assert_eq!(rows[0]["id"], rows[2]["id"]);
    assert_eq!(find(&rows, "agent.message")["content"], json!([{"type": "text", "text": "Hello, Ann."}]));
    assert_eq!(stop_reason(&rows), "end_turn");

    sessions.send(&session.id, message("Who am I?").1).await.unwrap();
    let more = sessions.until(&session.id, 8, |row| row["type"] == "session.status_idle").await;
    assert_eq!(find(&more, "agent.message")["content"][0]["text"], "You are Ann.");
    let requests = sessions.world.model.requests();
    assert!(requests[1].body.to_string().contains("I am Ann."), "the conversation goes on");
    let view = sessions.world.engine.get_session(&sessions.caller(), &session.id).await.unwrap();
    assert_eq!(view.status, SessionStatus::Idle);
    assert!(view.usage.cost > NanoUsd::ZERO);
    assert!(view.usage.active > Duration::ZERO);
    // The list has each event once.
    let list = sessions.list(&session.id).await;
    assert_eq!(kinds(&list).iter().filter(|kind| **kind == "user.message").count(), 2);
    assert!(list.iter().all(|row| row["processed_at"].is_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_its_confirmation() {
    let call =
        json!([{"id": "toolu_1", "name": "Bash", "input": {"command": "echo ran >> log", "timeout": 5000}}]);
    let sessions = Sessions::new(
        json!({"replies": [{"tool_use": call}, {"text": "Done."}]}),
        json!([toolset("always_ask")]),
    )
    .await;
    let session = sessions.create(vec![message("Do it.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    assert_eq!(stop_reason(&rows), "requires_action");
    let asked = find(&rows, "agent.tool_use");
    assert_eq!((&asked["name"], &asked["evaluated_permission"]), (&json!("bash"), &json!("ask")));
    assert_eq!(asked["input"], json!({"command": "echo ran >> log", "timeout_ms": 5000}));
    assert_eq!(rows.last().unwrap()["stop_reason"]["event_ids"], json!([asked["id"]]));
    let confirm = UserEvent::ToolConfirmation { tool_use_id: id_of(asked), result: Confirmation::Allow };
    // Another call's id, or one made up, means nothing.
    let forged = UserEvent::ToolConfirmation { tool_use_id: random(), result: Confirmation::Allow };
    assert!(matches!(sessions.send(&session.id, forged).await, Err(SessionError::Invalid(_))));
    sessions.send(&session.id, confirm.clone()).await.unwrap();
    let after = rows.len() as u64;
    let more = sessions.until(&session.id, after, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&more), "end_turn");
    let result = find(&more, "agent.tool_result");
    assert_eq!((&result["tool_use_id"], &result["is_error"]), (&asked["id"], &json!(false)));
    // It counts once.
    assert!(matches!(sessions.send(&session.id, confirm).await, Err(SessionError::Invalid(_))));
    let workspace = sessions.world.engine.workspace(&session.id);
    assert_eq!(std::fs::read_to_string(workspace.join("log")).unwrap(), "ran\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_does_not_run_and_the_model_hears_why() {
    let call = json!([{"id": "toolu_1", "name": "Bash", "input": {"command": "echo ran >> log"}}]);
    let sessions = Sessions::new(
        json!({"replies": [{"tool_use": call}, {"text": "All right."}]}),
        json!([toolset("always_ask")]),
    )
    .await;
    let session = sessions.create(vec![message("Do it.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    let tool_use_id = id_of(find(&rows, "agent.tool_use"));
    let result = Confirmation::Deny { message: Some("Not on a Sunday.".to_owned()) };
    sessions.send(&session.id, UserEvent::ToolConfirmation { tool_use_id, result }).await.unwrap();
    let more =
        sessions.until(&session.id, rows.len() as u64, |row| row["type"] == "session.status_idle").await;
    let result = find(&more, "agent.tool_result");
    assert_eq!(result["is_error"], true);
    assert!(result["content"][0]["text"].as_str().unwrap().contains("Not on a Sunday."), "{result}");
    assert!(!sessions.world.engine.workspace(&session.id).join("log").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_the_turn_and_the_next_message_works() {
    let call = json!([{"id": "toolu_1", "name": "Bash", "input": {"command": "sleep 1000"}}]);
    let sessions = Sessions::new(
        json!({"replies": [{"tool_use": call}, {"text": "Back again."}]}),
        json!([toolset("always_allow")]),
    )
    .await;
    let session = sessions.create(vec![message("Sleep.")]).await;
    let rows = sessions.until(&session.id, 0, |row| row["type"] == "agent.tool_use").await;
    sessions.send(&session.id, UserEvent::Interrupt).await.unwrap();
    let more =
        sessions.until(&session.id, rows.len() as u64, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&more), "end_turn");
    assert_eq!(find(&more, "agent.tool_result")["is_error"], true);
    let after = (rows.len() + more.len()) as u64;
    sessions.send(&session.id, message("And now?").1).await.unwrap();
    let last = sessions.until(&session.id, after, |row| row["type"] == "session.status_idle").await;
    assert_eq!(find(&last, "agent.message")["content"][0]["text"], "Back again.");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_queue_behind_the_turn() {
    let sessions = Sessions::new(
        json!({"replies": [{"text": "One."}, {"text": "Two."}, {"text": "Three."}]}),
        json!([]),
    )
    .await;
    let session = sessions.create(vec![message("1"), message("2"), message("3")]).await;
    let rows = sessions.until_idle(&session.id).await;
    let said: Vec<_> = rows
        .iter()
        .filter(|row| row["type"] == "agent.message")
        .map(|row| row["content"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(said, ["One.", "Two.", "Three."]);
    assert_eq!(kinds(&rows).iter().filter(|kind| **kind == "session.status_idle").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_session_is_there() {
    let sessions = Sessions::new(json!({"replies": []}), json!([])).await;
    let session = sessions.create(vec![]).await;
    let bob = Caller { user_id: Some("bob".to_owned()), ..sessions.caller() };
    let engine = &sessions.world.engine;
    assert!(matches!(engine.get_session(&bob, &session.id).await, Err(SessionError::NotFound)));
    let sent = engine.send_events(&bob, &session.id, vec![message("hi")]).await;
    assert!(matches!(sent, Err(SessionError::NotFound)));
    let followed = engine.follow(&bob, &session.id, None, Previews::default()).await;
    assert!(matches!(followed, Err(SessionError::NotFound)));
    assert!(matches!(engine.delete_session(&bob, &session.id).await, Err(SessionError::NotFound)));
    assert!(matches!(
        engine.update_session(&bob, &session.id, SessionUpdate::default()).await,
        Err(SessionError::NotFound)
    ));
    engine.delete_session(&sessions.caller(), &session.id).await.unwrap();
    assert!(matches!(engine.get_session(&sessions.caller(), &session.id).await, Err(SessionError::NotFound)));
}
