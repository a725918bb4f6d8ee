//! What the user may say next.

use futures_util::StreamExt;
use serde_json::{Value, json};
use wardian_agent::{Message, Options, PermissionMode, Prompt, Query, UserMessage, query};
use wardian_model::Server;
use wardian_protocol::NanoUsd;

use crate::process::{Agent, command, kind_of, kinds_of};
use crate::support::{call, model, options};

fn prompt(text: &str) -> UserMessage {
    serde_json::from_value(json!({"message": {"role": "user", "content": text}})).unwrap()
}

/// Says these one after the other, each after the result of the one before, and ends: what was given.
async fn say(query: &mut Query, prompts: &[&str]) -> Vec<Value> {
    let mut given = Vec::new();
    for text in prompts {
        query.handle().send(prompt(text)).await.unwrap();
        while given.last().is_none_or(|last: &Value| last["type"] != "result") {
            given.push(query.next().await.unwrap().unwrap().to_value());
        }
        given.push(Value::Null);
    }
    given.retain(|message| !message.is_null());
    given
}

/// The same, to the end.
async fn all(model: &Server, prompts: &[&str], change: impl FnOnce(&mut Options)) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options { prompt_suggestions: true, ..options(model, folder.path()) };
    change(&mut options);
    let mut query = query(Prompt::Open, options);
    let mut given = say(&mut query, prompts).await;
    query.handle().end_input().await.unwrap();
    given.extend(query.map(|message| message.unwrap().to_value()).collect::<Vec<_>>().await);
    given
}

fn suggestions(given: &[Value]) -> Vec<&str> {
    let of_type = given.iter().filter(|message| message["type"] == "prompt_suggestion");
    of_type.map(|message| message["suggestion"].as_str().unwrap()).collect()
}

const LAST: &str = "Guess what the user will type next";

#[tokio::test]
async fn the_next_prompt_is_suggested_on_the_cache_of_the_turn() {
    let replies = json!({"replies": [
        {"match": {"last_text_contains": LAST}, "text": "and the figs"},
        {"text": "One."}, {"text": "Two."}, {"text": "Three."},
        {"match": {"last_text_contains": LAST}, "text": "done"},
    ]});
    let model = model(&replies).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { prompt_suggestions: true, ..options(&model, folder.path()) };
    let mut query = query(Prompt::Open, options);
    let first = say(&mut query, &["the plums", "the pears"]).await;
    assert_eq!(suggestions(&first), [""; 0], "none yet: the model was asked for two replies alone");
    let suggestion = query.next().await.unwrap().unwrap().to_value();
    assert_eq!(
        (&suggestion["type"], &suggestion["suggestion"]),
        (&json!("prompt_suggestion"), &json!("and the figs"))
    );
    assert!(suggestion["uuid"].is_string() && suggestion["session_id"] == first[0]["session_id"]);
    let rest = say(&mut query, &["the apples"]).await;
    // It was paid for, by nobody's turn.
    let total = |messages: &[Value]| messages.last().unwrap()["total_cost_usd"].as_f64().unwrap();
    assert!((total(&rest) - total(&first) * 2.0).abs() < 1e-9, "{} {}", total(&first), total(&rest));
    assert_eq!(rest.last().unwrap()["usage"]["output_tokens"], 5);
    query.close().await;
    let bodies: Vec<Value> = model.requests().iter().map(|request| request.body.clone()).collect();
    let plain = |body: &Value| {
        let mut messages = body["messages"].clone();
        for block in
            messages.as_array_mut().unwrap().iter_mut().flat_map(|m| m["content"].as_array_mut().unwrap())
        {
            block.as_object_mut().unwrap().shift_remove("cache_control");
        }
        messages.as_array().unwrap().clone()
    };
    let (turn, asked, next) = (plain(&bodies[1]), plain(&bodies[2]), plain(&bodies[3]));
    assert_eq!((&bodies[1]["system"], &bodies[1]["tools"]), (&bodies[2]["system"], &bodies[2]["tools"]));
    assert_eq!((asked[..turn.len()].to_vec(), asked.len()), (turn.clone(), turn.len() + 2));
    assert_eq!((next[..=turn.len()].to_vec(), next.len()), (asked[..=turn.len()].to_vec(), turn.len() + 2));
    assert!(!next.iter().any(|message| message.to_string().contains("figs")));
}

#[tokio::test]
async fn none_is_suggested_where_nothing_is_to_be_said() {
    let (one, two) = (json!({"text": "One."}), json!({"text": "Two."}));
    let guess = json!({"match": {"last_text_contains": LAST}, "text": "run the tests", "repeat": true});
    let failing = json!({"error": {"status": 400, "message": "no"}});
    let dear = json!({"text": "Two.", "usage": {"output_tokens": 1_000_000}});
    let working = json!({"match": {"last_text_contains": LAST}, "text": "run the tests",
        "tool_use": [call("toolu_1", "Bash", json!({"command": "touch made"}))]});
    type Change = fn(&mut Options);
    let nothing: Change = |_| ();
    for (why, replies, prompts, change, requests) in [
        ("the first turn", vec![&one], vec!["a"], nothing, 1),
        ("an error", vec![&one, &failing], vec!["a", "b"], nothing, 2),
        ("a command", vec![&one, &two], vec!["a", "/context"], nothing, 1),
        (
            "plan mode",
            vec![&one, &two],
            vec!["a", "b"],
            |options| options.permission_mode = PermissionMode::Plan,
            2,
        ),
        ("not wanted", vec![&one, &two], vec!["a", "b"], |options| options.prompt_suggestions = false, 2),
        (
            "no money",
            vec![&one, &dear],
            vec!["a", "b"],
            |options| options.max_budget = Some(NanoUsd(1_000_000_000)),
            2,
        ),
        ("the model works", vec![&working, &one, &two], vec!["a", "b"], nothing, 3),
    ] {
        let replies: Vec<&Value> = replies.into_iter().chain([&guess]).collect();
        let model = model(&json!({"replies": replies})).await;
        let given = all(&model, &prompts, change).await;
        assert_eq!((suggestions(&given), model.requests().len()), (vec![], requests), "{why}: {given:#?}");
    }
}

#[tokio::test]
async fn a_prompt_and_an_interrupt_end_the_guessing() {
    let slow = json!({"match": {"last_text_contains": LAST}, "text": "run the tests", "hold": true});
    let model =
        model(&json!({"replies": [slow, {"text": "One."}, {"text": "Two."}, slow, {"text": "Three."}]}))
            .await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options { prompt_suggestions: true, ..options(&model, folder.path()) };
    let mut query = query(Prompt::Open, options);
    say(&mut query, &["a", "b"]).await;
    model.wait_for(3).await;
    let last = say(&mut query, &["c"]).await;
    model.wait_for_aborted(1).await;
    assert_eq!(last.last().unwrap()["result"], "Three.");
    model.wait_for(5).await;
    query.handle().interrupt().await.unwrap();
    model.wait_for_aborted(2).await;
    query.handle().end_input().await.unwrap();
    assert!(
        query.map(Result::unwrap).all(|message| async move { !matches!(message, Message::Other(_)) }).await
    );
}

#[tokio::test]
async fn what_ends_in_the_background_is_heard_of_before_the_guess() {
    let slow = json!({"match": {"last_text_contains": LAST}, "text": "run the tests", "hold": true});
    let input = json!({"command": "until [ -e go ]; do sleep 0.01; done", "run_in_background": true});
    let model = model(&json!({"replies": [
        slow,
        {"match": {"last_text_contains": "task-notification"}, "text": "Heard."},
        {"text": "One.", "tool_use": [call("toolu_1", "Bash", input)]},
        {"text": "Two."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        prompt_suggestions: true,
        permission_mode: PermissionMode::BypassPermissions,
        ..options(&model, folder.path())
    };
    let mut query = query(Prompt::Open, options);
    say(&mut query, &["a"]).await;
    model.wait_for(3).await;
    std::fs::write(folder.path().join("go"), "").unwrap();
    model.wait_for_aborted(1).await;
    let mut given = Vec::new();
    while given.last().is_none_or(|last: &Value| last["type"] != "result") {
        given.push(query.next().await.unwrap().unwrap().to_value());
    }
    assert_eq!((&given.last().unwrap()["result"], suggestions(&given)), (&json!("Heard."), vec![]));
}

#[tokio::test]
async fn the_host_says_whether_and_the_user_says_never() {
    let off = json!({"promptSuggestionEnabled": false}).to_string();
    let stream = ["--output-format=stream-json", "--verbose", "--input-format=stream-json"];
    for (flags, variable, asked, suggested) in [
        (vec![], None, true, true),
        (vec![], None, false, false),
        (vec![], Some("false"), true, false),
        (vec!["--settings", &off], None, true, false),
        (vec!["--settings", &off], Some("true"), true, true),
    ] {
        let server = model(&json!({"replies": [
            {"match": {"last_text_contains": LAST}, "text": "run the tests"}, {"text": "One."}, {"text": "Two."},
        ]}))
        .await;
        let folder = tempfile::tempdir().unwrap();
        let args: Vec<&str> = stream.iter().chain(&flags).copied().collect();
        let mut program = command(&server, folder.path(), &args);
        program.envs(variable.map(|value| ("CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION", value)));
        let mut agent = Agent::spawn(program);
        agent.control("r", json!({"subtype": "initialize", "promptSuggestions": asked})).await;
        for text in ["a", "b"] {
            agent.prompt(text).await;
            agent.until("result/success").await;
        }
        // The input may end at once: the guess is still given.
        let (frames, _, code) = agent.end().await;
        let kinds = kinds_of(&frames);
        assert_eq!(
            (code, kinds.contains(&"prompt_suggestion".to_owned())),
            (Some(0), suggested),
            "{flags:?} {variable:?}"
        );
        assert_eq!(frames.first().map(kind_of), Some("state/idle".to_owned()), "first the session rests");
    }
}
