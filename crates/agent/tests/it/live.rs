//! What changes while the agent runs.

use serde_json::{Value, json};

use crate::process::{Agent, kind_of, kinds_of};
use crate::support::{call, model};

const SONNET: &str = "claude-sonnet-5";
const HAIKU: &str = "claude-haiku-5-5";

/// The agent once the host has said which callbacks there are.
async fn hooked(server: &wardian_model::Server, cwd: &std::path::Path, events: &[&str]) -> Agent {
    let mut agent = Agent::start(server, cwd, &["--model", SONNET]);
    let hooks: serde_json::Map<String, Value> =
        events.iter().map(|event| ((*event).to_owned(), json!([{"hookCallbackIds": [event]}]))).collect();
    agent.control("init", json!({"subtype": "initialize", "hooks": hooks})).await;
    agent.until("answers/success").await;
    agent
}

/// What a callback was told of a switch.
fn switch(question: &Value) -> [&Value; 6] {
    let input = &question["request"]["input"];
    ["hook_event_name", "from_model", "to_model", "requested_model", "source", "context_tokens"]
        .map(|name| &input[name])
}

#[tokio::test]
async fn callbacks_hear_of_a_switch_of_models_and_what_comes_behind_it_waits() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = hooked(&server, folder.path(), &["PreModelSwitch", "PostModelSwitch"]).await;
    agent.prompt("first").await;
    agent.until("state/idle").await;
    agent.control("switch", json!({"subtype": "set_model", "model": "haiku"})).await;
    agent.prompt("second").await;
    let asked = agent.until("asks/hook_callback").await.pop().unwrap();
    assert_eq!(
        switch(&asked),
        [&json!("PreModelSwitch"), &json!(SONNET), &json!(HAIKU), &json!("haiku"), &json!("sdk"), &json!(15)]
    );
    let input = &asked["request"]["input"];
    assert_eq!(
        [&input["prompt_cache_warm"], &input["cache_ttl"], &input["pricing"], &input["permission_mode"]],
        [&json!(true), &json!("5m"), &json!("catalog"), &Value::Null]
    );
    agent.answer(&asked, json!({})).await;
    let before = agent.until("asks/hook_callback").await;
    assert_eq!(kinds_of(&before), ["user", "answers/success", "asks/hook_callback"]);
    assert_eq!(before[1]["response"]["response"], json!({"model": HAIKU}));
    assert_eq!(before[2]["request"]["input"]["hook_event_name"], "PostModelSwitch");
    let kiwi = json!({"hookEventName": "PostModelSwitch", "additionalContext": "Mind the KIWIS."});
    agent.answer(&before[2], json!({"hookSpecificOutput": kiwi})).await;
    agent.until("state/idle").await;
    let requests = server.requests();
    let of =
        |model: &str| requests.iter().filter(|request| request.body["model"] == model).collect::<Vec<_>>();
    // The API was asked for one token, then the prompt went to the new model, with what the hook had to say.
    assert_eq!((of(SONNET).len(), of(HAIKU).len()), (1, 2));
    assert!(of(HAIKU)[1].body["messages"].to_string().contains("KIWIS"));
    // To the same model is no switch.
    agent.control("same", json!({"subtype": "set_model", "model": HAIKU})).await;
    assert_eq!(kinds_of(&agent.until("answers/success").await), ["answers/success"]);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_callback_refuses_a_switch_of_models_and_the_model_stays() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = hooked(&server, folder.path(), &["PreModelSwitch"]).await;
    let decided = |decision: &str| {
        json!({"hookSpecificOutput": {"hookEventName": "PreModelSwitch", "permissionDecision": decision,
            "permissionDecisionReason": "no PLUMS"}})
    };
    let set = json!({"subtype": "set_model", "model": "haiku"});
    let apply = json!({"subtype": "apply_flag_settings", "settings": {"model": "haiku"}});
    for (request, answer, reason) in [
        (&set, decided("deny"), "no PLUMS"),
        (&set, decided("ask"), "nobody can be asked"),
        (&set, json!({"decision": "block", "reason": "not now"}), "not now"),
        (&apply, decided("deny"), "no PLUMS"),
    ] {
        agent.control("switch", request.clone()).await;
        let asked = agent.until("asks/hook_callback").await.pop().unwrap();
        agent.answer(&asked, answer).await;
        let refused = agent.until("answers/error").await.pop().unwrap()["response"].clone();
        assert!(refused["error"].as_str().unwrap().contains(reason), "{refused}");
        if request["subtype"] == "set_model" {
            assert_eq!(
                (&refused["error_code"], &refused["model"]),
                (&json!("blocked_by_hook"), &json!(SONNET))
            );
        }
    }
    agent.prompt("hi").await;
    agent.until("result/success").await;
    assert_eq!(server.requests().last().unwrap().body["model"], SONNET);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_host_that_never_answers_a_switch_of_models_is_left_behind() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = hooked(&server, folder.path(), &["PreModelSwitch"]).await;
    agent.control("switch", json!({"subtype": "set_model", "model": "haiku"})).await;
    agent.until("asks/hook_callback").await;
    // The channel goes on meanwhile.
    agent.control("mode", json!({"subtype": "set_permission_mode", "mode": "plan"})).await;
    agent.until("answers/success").await;
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn what_fills_the_window_is_told_while_the_model_speaks_and_while_a_tool_runs() {
    let waits = call("toolu_1", "Bash", json!({"command": "while [ ! -e go ]; do sleep 0.05; done"}));
    let server =
        model(&json!({"replies": [{"tool_use": [waits]}, {"text": "Once upon a time", "hold": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--permission-mode", "bypassPermissions"]);
    agent.prompt("hi").await;
    agent.until("assistant").await;
    agent.control("1", json!({"subtype": "get_context_usage"})).await;
    let told = agent.until("answers/success").await;
    assert!(told.iter().all(|frame| kind_of(frame) != "user"), "the tool still runs");
    assert_eq!(told.last().unwrap()["response"]["response"]["apiUsage"]["input_tokens"], 10);
    std::fs::write(folder.path().join("go"), "").unwrap();
    agent.until("user").await;
    agent.control("2", json!({"subtype": "get_context_usage"})).await;
    agent.until("answers/success").await;
    agent.control("3", json!({"subtype": "interrupt"})).await;
    agent.until("result/error_during_execution").await;
    agent.end().await;
}
