use std::collections::BTreeMap;

use serde_json::json;

use super::*;

const AGENT: &str = "agent_070w3ge1r70w3ge1r70w3ge1r7";
const ENVIRONMENT: &str = "env_070w3ge1r70w3ge1r70w3ge1r7";

fn created(change: Value) -> Result<AskedSession, Vec<String>> {
    let mut body = json!({"agent": AGENT, "environment_id": ENVIRONMENT});
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    read_create(body).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn error_of(change: Value) -> String {
    let mut errors = created(change).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn an_agent_is_named_in_three_ways() {
    let id: AgentId = AGENT.parse().unwrap();
    let plain = |version| AskedAgent { id: id.clone(), version, overrides: JsonMap::new() };
    assert_eq!(created(json!({})).unwrap().agent, plain(None));
    let agent = json!({"type": "agent", "id": AGENT});
    assert_eq!(created(json!({"agent": agent})).unwrap().agent, plain(None));
    let agent = json!({"type": "agent", "id": AGENT, "version": 3});
    assert_eq!(created(json!({"agent": agent})).unwrap().agent, plain(Some(3)));
    let agent = json!({"type": "agent_with_overrides", "id": AGENT, "system": null, "tools": []});
    let overrides = created(json!({"agent": agent})).unwrap().agent.overrides;
    assert_eq!(Value::Object(overrides), json!({"system": null, "tools": []}));
    for (agent, message) in [
        (json!("sesn_1"), "agent: expected an agent's id"),
        (json!(7), "agent: expected an object, found a number"),
        (json!({"type": "agent"}), "agent.id: expected an agent's id"),
        (json!({"id": AGENT}), "agent.type: expected `agent` or `agent_with_overrides`"),
        (
            json!({"type": "agent", "id": AGENT, "version": 0}),
            "agent.version: expected a whole number above 0",
        ),
        (json!({"type": "agent", "id": AGENT, "tools": []}), "agent.tools: unknown field"),
        (json!({"type": "agent_with_overrides", "id": AGENT, "name": "x"}), "agent.name: unknown field"),
    ] {
        let error = error_of(json!({"agent": agent}));
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn the_rest_is_read_and_bounded() {
    let asked = created(json!({
        "title": "t", "metadata": {"a": "b"}, "vault_ids": [], "resources": [{"type": "file"}],
        "budget": {"type": "limit", "max_list_cost": {"amount": "125", "currency": "USD"}},
        "initial_events": [{"type": "user.message", "content": [{"type": "text", "text": "hi"}]}],
    }))
    .unwrap();
    assert_eq!((asked.title.as_deref(), asked.budget), (Some("t"), Some(NanoUsd(1_250_000_000))));
    assert_eq!(asked.metadata, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    assert_eq!((asked.resources.len(), asked.events.len()), (1, 1));
    let pairs: JsonMap = (0..17).map(|number| (number.to_string(), json!(""))).collect();
    for (change, message) in [
        (json!({"environment_id": "x"}), "environment_id: expected an environment's id"),
        (json!({"environment_id": null}), "environment_id: expected an environment's id"),
        (json!({"agent": null}), "agent: expected an agent's id"),
        (json!({"title": 7}), "title: expected a text of at most 500 characters"),
        (json!({"title": "é".repeat(501)}), "title: expected a text"),
        (json!({"metadata": pairs}), "metadata: 17 pairs; the limit is 16"),
        (json!({"metadata": {"a": null}}), "metadata.a: expected a string, found null"),
        (json!({"vault_ids": ["vlt_1"]}), "vault_ids: vaults are not supported"),
        (json!({"resources": vec![json!({}); 101]}), "resources: 101 resources; the limit is 100"),
        (json!({"budget": {"type": "none"}}), "budget.type: \"none\": expected `limit`"),
        (json!({"deployment_id": "depl_1"}), "deployment_id: unknown field"),
        (json!({"initial_events": [{"type": "user.interrupt"}]}), "initial_events[0].type: a session begins"),
        (json!({"initial_events": {}}), "initial_events: expected a list"),
    ] {
        let mut errors = created(change).unwrap_err();
        assert!(errors.remove(0).starts_with(message), "{message}: {errors:?}");
    }
    assert_eq!(read_create(json!([])).unwrap_err()[0].to_string(), "body: expected an object, found a list");
}

#[test]
fn an_update_tells_missing_from_null() {
    assert_eq!(read_update(json!({})).unwrap(), AskedUpdate::default());
    let asked = read_update(json!({
        "title": null, "budget": null, "metadata": {"a": null, "b": "c"}, "vault_ids": [],
        "agent": {"tools": [], "mcp_servers": null},
    }))
    .unwrap();
    assert_eq!((asked.title, asked.budget), (Some(None), Some(None)));
    assert_eq!(
        asked.metadata,
        BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some("c".to_owned()))])
    );
    assert_eq!(Value::Object(asked.agent), json!({"tools": []}));
    for (change, message) in [
        (json!({"agent": {"model": "x"}}), "agent.model: unknown field"),
        (json!({"agent": {"tools": "x"}}), "agent.tools: expected a list"),
        (json!({"vault_ids": ["vlt_1"]}), "vault_ids: vaults are not supported"),
        (json!({"environment_id": ENVIRONMENT}), "environment_id: unknown field"),
        (json!({"title": 7}), "title: expected a text"),
    ] {
        let errors = read_update(change).unwrap_err();
        assert!(errors[0].to_string().starts_with(message), "{errors:?}");
    }
}

#[test]
fn a_session_is_shown_as_the_stock_client_knows_it() {
    let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
    let view = SessionView {
        id: "sesn_1".parse().unwrap(),
        org_id: "org_1".parse().unwrap(),
        user: None,
        status: SessionStatus::Idle,
        agent_id: "agent_1".parse().unwrap(),
        agent_version: 2,
        environment_id: "env_1".parse().unwrap(),
        definition: wardian_session::Definition {
            agent: json!({"id": "agent_1", "type": "agent", "version": 2}),
            environment: json!({}),
            title: None,
            metadata: BTreeMap::new(),
            budget: Some(NanoUsd(1_250_000_000)),
            resources: Vec::new(),
            vault_ids: Vec::new(),
        },
        usage: SessionUsage { cost: NanoUsd(1_500_000), ..SessionUsage::default() },
        last_seq: 7,
        queue_position: None,
        created_at: at(0),
        updated_at: at(5),
        archived_at: None,
    };
    assert_eq!(
        session_json(&view, at(9)),
        json!({
            "id": "sesn_1", "type": "session", "status": "idle", "title": null,
            "agent": {"id": "agent_1", "type": "agent", "version": 2}, "environment_id": "env_1",
            "budget": {"type": "limit", "max_list_cost": {"amount": "125", "currency": "USD"}},
            "usage": {
                "input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                "active_seconds": 0.0, "list_cost": {"amount": "1", "currency": "USD"},
                "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
            },
            "stats": {"active_seconds": 0.0, "duration_seconds": 9.0},
            "resources": [], "metadata": {}, "vault_ids": [], "outcome_evaluations": [], "deployment_id": null,
            "queue_position": null,
            "created_at": "1970-01-12T13:46:40Z", "updated_at": "1970-01-12T13:46:45Z", "archived_at": null,
        })
    );
    let ended = SessionView { status: SessionStatus::Terminated, ..view };
    assert_eq!(session_json(&ended, at(9))["stats"]["duration_seconds"], 5.0);
}
