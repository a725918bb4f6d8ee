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

pub fn random<K: wardian_protocol::id::Kind>() -> wardian_protocol::Id<K> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).unwrap();
    wardian_protocol::Id::from_random(bits)
}

pub fn message(text: &str) -> (EventId, UserEvent) {
    (random(), UserEvent::Message { content: vec![json!({"type": "text", "text": text})] })
}

pub fn toolset(policy: &str) -> Value {
    json!({"type": "agent_toolset_20260401", "configs": [],
           "default_config": {"enabled": true, "permission_policy": {"type": policy}}})
}

/// A world with its default agent, whose tools are these.
pub struct Sessions {
    pub world: World,
    tools: Value,
    pub resources: Vec<Value>,
    budget: Option<NanoUsd>,
}

impl Sessions {
    pub async fn new(script: Value, tools: Value) -> Self {
        Self::with(script, tools, |_| ()).await
    }

    async fn with(script: Value, tools: Value, change: impl FnOnce(&mut EngineConfig)) -> Self {
        Self {
            world: World::with(&script.to_string(), change).await,
            tools,
            resources: Vec::new(),
            budget: None,
        }
    }

    pub fn caller(&self) -> Caller {
        self.world.caller(None)
    }

    pub async fn create(&self, initial_events: Vec<(EventId, UserEvent)>) -> SessionView {
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
            resources: self.resources.clone(),
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

    pub async fn send(&self, id: &SessionId, event: UserEvent) -> Result<Vec<Value>, SessionError> {
        self.world.engine.send_events(&self.caller(), id, vec![(random(), event)]).await
    }

    /// All rows from after `from` up to the first that `last` accepts.
    pub async fn until(&self, id: &SessionId, from: u64, last: impl Fn(&Value) -> bool) -> Vec<Value> {
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
    pub async fn until_idle(&self, id: &SessionId) -> Vec<Value> {
        self.until(id, 0, |row| row["type"] == "session.status_idle").await
    }

    /// Waits until no session is looked after.
    async fn at_rest(&self) {
        let resting = async {
            while self.world.engine.live_sessions() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, resting).await.unwrap();
    }

    /// Stops the server at once, and starts another on what it left.
    pub async fn restart(&mut self) {
        self.world.engine.stop(Duration::ZERO).await;
        let World { temp, store, model, .. } = &self.world;
        self.world.engine = super::world::restart(temp, store, &model.base_url()).await;
    }

    async fn list(&self, id: &SessionId) -> Vec<Value> {
        let created = wardian_store::CreatedRange::default();
        let query = EventQuery { types: Vec::new(), created, order: Order::Asc, after: None, limit: 1000 };
        let rows = self.world.engine.list_events(&self.caller(), id, query).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(&row.payload).unwrap()).collect()
    }
}

pub fn kinds(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["type"].as_str().unwrap()).collect()
}

pub fn find<'a>(rows: &'a [Value], kind: &str) -> &'a Value {
    rows.iter().find(|row| row["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {:?}", kinds(rows)))
}

fn id_of(row: &Value) -> EventId {
    row["id"].as_str().unwrap().parse().unwrap()
}

pub fn stop_reason(rows: &[Value]) -> &str {
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
async fn tools_that_are_changed_count_from_the_next_message_on() {
    let call = json!([{"id": "toolu_1", "name": "Bash", "input": {"command": "echo ran >> log"}}]);
    let replies = json!({"replies": [{"text": "Hello."}, {"tool_use": call}, {"text": "It ran."}]});
    let sessions = Sessions::new(replies, json!([toolset("always_allow")])).await;
    let session = sessions.create(vec![message("Hello.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    // Its agent is still there, with the rules that it was started with.
    let update =
        SessionUpdate { agent_tools: Some(json!([toolset("always_ask")])), ..SessionUpdate::default() };
    sessions.world.engine.update_session(&sessions.caller(), &session.id, update).await.unwrap();
    sessions.send(&session.id, message("Do it.").1).await.unwrap();
    let after = rows.len() as u64;
    let more = sessions.until(&session.id, after, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&more), "requires_action");
    assert!(!sessions.world.engine.workspace(&session.id).join("log").exists());
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

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_is_given_back_and_the_conversation_goes_on_in_another() {
    let sessions = Sessions::with(
        json!({"replies": [{"text": "Hello, Ann."}, {"text": "You are Ann."}]}),
        json!([toolset("always_allow")]),
        |config| config.sessions.idle_timeout = Duration::from_millis(10),
    )
    .await;
    let session = sessions.create(vec![message("I am Ann.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    sessions.at_rest().await;
    assert_eq!(sessions.world.engine.sandboxes().await.unwrap(), [] as [String; 0]);
    sessions.send(&session.id, message("Who am I?").1).await.unwrap();
    let more =
        sessions.until(&session.id, rows.len() as u64, |row| row["type"] == "session.status_idle").await;
    assert_eq!(find(&more, "agent.message")["content"][0]["text"], "You are Ann.");
    assert!(sessions.world.model.requests()[1].body.to_string().contains("I am Ann."));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_outlives_the_sandbox_and_the_server() {
    let call = json!([{"id": "toolu_1", "name": "Bash", "input": {"command": "echo ran >> log"}}]);
    let mut sessions = Sessions::new(
        json!({"replies": [{"tool_use": call}, {"text": "Done."}]}),
        json!([toolset("always_ask")]),
    )
    .await;
    let session = sessions.create(vec![message("Do it.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    assert_eq!(stop_reason(&rows), "requires_action");
    sessions.restart().await;
    let view = sessions.world.engine.get_session(&sessions.caller(), &session.id).await.unwrap();
    assert_eq!(view.status, SessionStatus::Idle);
    let tool_use_id = id_of(find(&rows, "agent.tool_use"));
    let confirm = UserEvent::ToolConfirmation { tool_use_id, result: Confirmation::Allow };
    sessions.send(&session.id, confirm).await.unwrap();
    let more =
        sessions.until(&session.id, rows.len() as u64, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&more), "end_turn", "{more:#?}");
    assert_eq!(find(&more, "agent.tool_result")["is_error"], false);
    let workspace = sessions.world.engine.workspace(&session.id);
    assert_eq!(std::fs::read_to_string(workspace.join("log")).unwrap(), "ran\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_goes_on_after_the_server_was_stopped_in_its_middle() {
    let call =
        json!([{"id": "toolu_1", "name": "Bash", "input": {"command": "echo ran >> log; sleep 1000"}}]);
    let mut sessions = Sessions::new(
        json!({"replies": [{"tool_use": call}, {"text": "Done."}]}),
        json!([toolset("always_allow")]),
    )
    .await;
    let session = sessions.create(vec![message("Do it.")]).await;
    let rows = sessions.until(&session.id, 0, |row| row["type"] == "agent.tool_use").await;
    let log = sessions.world.engine.workspace(&session.id).join("log");
    while !log.exists() {
        tokio::task::yield_now().await;
    }
    sessions.restart().await;
    let more =
        sessions.until(&session.id, rows.len() as u64, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&more), "end_turn", "{more:#?}");
    assert!(kinds(&more).contains(&"session.status_rescheduled"));
    let result = find(&more, "agent.tool_result");
    assert_eq!(result["is_error"], true, "the call was interrupted, and is not run again");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "ran\n");
    assert_eq!(find(&more, "agent.message")["content"][0]["text"], "Done.");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_runs_its_own_tools() {
    let call = json!([{"id": "toolu_1", "name": "mcp__custom__weather", "input": {"city": "Kew"}}]);
    let mut sessions = Sessions::new(
        json!({"replies": [{"tool_use": call}, {"text": "It rains."}]}),
        json!([{"type": "custom", "name": "weather", "description": "The weather.",
                "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]),
    )
    .await;
    let session = sessions.create(vec![message("How is it in Kew?")]).await;
    let rows = sessions.until_idle(&session.id).await;
    assert_eq!(stop_reason(&rows), "requires_action", "{rows:#?}");
    let used = find(&rows, "agent.custom_tool_use");
    assert_eq!((&used["name"], &used["input"]), (&json!("weather"), &json!({"city": "Kew"})));
    let tools = &sessions.world.model.requests()[0].body["tools"];
    assert!(tools.to_string().contains("mcp__custom__weather"), "{tools}");
    // Also across a restart.
    sessions.restart().await;
    let result = UserEvent::CustomToolResult {
        custom_tool_use_id: id_of(used),
        content: vec![json!({"type": "text", "text": "rain, 9 degrees"})],
        is_error: false,
    };
    sessions.send(&session.id, result).await.unwrap();
    let more =
        sessions.until(&session.id, rows.len() as u64, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&more), "end_turn", "{more:#?}");
    let asked = sessions.world.model.requests()[1].body.to_string();
    assert!(asked.contains("rain, 9 degrees"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_stops_the_turn_before_it_is_spent_and_a_higher_one_lets_it_go_on() {
    let mut sessions = Sessions::new(
        json!({"replies": [{"text": "Hello."}, {"text": "More."}]}),
        json!([toolset("always_allow")]),
    )
    .await;
    sessions.budget = Some(NanoUsd(1_000));
    let session = sessions.create(vec![message("Hi.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    assert_eq!(stop_reason(&rows), "budget_reached", "{rows:#?}");
    assert_eq!(sessions.world.model.requests().iter().filter(|r| r.path.ends_with("/messages")).count(), 0);
    let raise = |budget| SessionUpdate { budget: Some(Some(budget)), ..SessionUpdate::default() };
    let updated = sessions
        .world
        .engine
        .update_session(&sessions.caller(), &session.id, raise(NanoUsd::from_usd(5)))
        .await
        .unwrap();
    assert_eq!(updated.definition.budget, Some(NanoUsd::from_usd(5)));
    let more =
        sessions.until(&session.id, rows.len() as u64, |row| row["type"] == "session.status_idle").await;
    assert_eq!(stop_reason(&more), "end_turn", "{more:#?}");
    assert_eq!(find(&more, "agent.message")["content"][0]["text"], "Hello.");
    // Below what it has cost is refused.
    let lowered =
        sessions.world.engine.update_session(&sessions.caller(), &session.id, raise(NanoUsd(1))).await;
    assert!(matches!(lowered, Err(SessionError::Invalid(_))), "{lowered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn previews_come_before_their_event_and_are_not_in_the_log() {
    let sessions = Sessions::new(json!({"replies": [{"text": "Hello, world, once more."}]}), json!([])).await;
    let session = sessions.create(vec![]).await;
    let wanted = Previews { message: true, thinking: true };
    let engine = &sessions.world.engine;
    let mut follower = engine.follow(&sessions.caller(), &session.id, None, wanted).await.unwrap();
    sessions.send(&session.id, message("Hi.").1).await.unwrap();
    let mut text = String::new();
    let mut previewed = None;
    loop {
        let followed = tokio::time::timeout(PATIENCE, follower.next()).await.unwrap().unwrap().unwrap();
        match followed {
            Followed::Preview { kind: "event_start", data } => {
                let data: Value = serde_json::from_str(&data).unwrap();
                previewed = Some(data["event"]["id"].clone());
            }
            Followed::Preview { data, .. } => {
                let data: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(Some(&data["event_id"]), previewed.as_ref());
                text.push_str(data["delta"]["content"]["text"].as_str().unwrap());
            }
            Followed::Event { kind, data, .. } if &*kind == "agent.message" => {
                let data: Value = serde_json::from_str(&data).unwrap();
                assert_eq!(
                    (Some(&data["id"]), &data["content"][0]["text"]),
                    (previewed.as_ref(), &json!(text))
                );
                break;
            }
            Followed::Event { .. } => (),
        }
    }
    assert_eq!(text, "Hello, world, once more.");
    sessions.until_idle(&session.id).await;
    let list = sessions.list(&session.id).await;
    assert!(!kinds(&list).contains(&"event_start"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_waits_in_line_for_a_place() {
    let call =
        json!([{"id": "toolu_1", "name": "Bash", "input": {"command": "until [ -e go ]; do :; done"}}]);
    let sessions = Sessions::with(
        json!({"replies": [{"tool_use": call}, {"text": "First."}, {"text": "Second."}]}),
        json!([toolset("always_allow")]),
        |config| config.caps.runs_per_host = 1,
    )
    .await;
    let first = sessions.create(vec![message("Wait.")]).await;
    sessions.until(&first.id, 0, |row| row["type"] == "agent.tool_use").await;
    let second = sessions.create(vec![message("Next.")]).await;
    let engine = &sessions.world.engine;
    let in_line = async {
        loop {
            let view = engine.get_session(&sessions.caller(), &second.id).await.unwrap();
            assert_eq!(view.status, SessionStatus::Running);
            if let Some(position) = view.queue_position {
                return position;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, in_line).await.unwrap(), 1);
    std::fs::write(engine.workspace(&first.id).join("go"), "").unwrap();
    sessions.until_idle(&first.id).await;
    let rows = sessions.until_idle(&second.id).await;
    assert_eq!(find(&rows, "agent.message")["content"][0]["text"], "Second.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_post_changes_nothing() {
    let sessions = Sessions::new(json!({"replies": [{"text": "Once."}]}), json!([])).await;
    let session = sessions.create(vec![]).await;
    let event = message("Hi.");
    let engine = &sessions.world.engine;
    let first = engine.send_events(&sessions.caller(), &session.id, vec![event.clone()]).await.unwrap();
    sessions.until_idle(&session.id).await;
    let again = engine.send_events(&sessions.caller(), &session.id, vec![event]).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(
        kinds(&sessions.list(&session.id).await).iter().filter(|kind| **kind == "user.message").count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_ends_its_followers_and_leaves_nothing() {
    let sessions = Sessions::new(json!({"replies": [{"text": "Hello."}]}), json!([])).await;
    let session = sessions.create(vec![message("Hi.")]).await;
    let rows = sessions.until_idle(&session.id).await;
    let engine = &sessions.world.engine;
    let from = Some(rows.len() as u64);
    let mut follower =
        engine.follow(&sessions.caller(), &session.id, from, Previews::default()).await.unwrap();
    let folder = engine.workspace(&session.id);
    assert!(folder.exists());
    engine.delete_session(&sessions.caller(), &session.id).await.unwrap();
    let last = follower.next().await.unwrap().unwrap();
    assert!(matches!(last, Followed::Event { kind, .. } if &*kind == "session.deleted"));
    assert_eq!(follower.next().await.unwrap(), None);
    assert!(!folder.exists());
    assert_eq!(engine.sandboxes().await.unwrap(), [] as [String; 0]);
}
