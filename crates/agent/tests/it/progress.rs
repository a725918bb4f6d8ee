//! What is told while work goes on.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use wardian_agent::{Message, Options, PermissionMode, query};

use crate::support::{Waiter, call, model, options};

#[tokio::test]
async fn a_call_that_takes_long_is_told_of_again_and_again() {
    let model = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "wait", json!({}))]}, {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let waiter = Waiter::new(false);
    let options = Options {
        permission_mode: PermissionMode::BypassPermissions,
        custom_tools: vec![waiter.clone()],
        // Shorter than what is allowed.
        tool_heartbeat: Duration::ZERO,
        ..options(&model, folder.path())
    };
    let mut query = query("hi", options);
    let mut beats = Vec::new();
    while let Some(message) = query.next().await {
        let message = message.unwrap().to_value();
        if message["type"] == "tool_progress" {
            beats.push(message);
        }
        if beats.len() == 2 {
            waiter.go_on.add_permits(1);
        }
    }
    assert!(beats.len() >= 2);
    for (count, beat) in beats.iter().enumerate() {
        assert_eq!(beat["tool_use_id"], format!("toolu_1-heartbeat-{count}"));
        assert_eq!((&beat["tool_name"], &beat["parent_tool_use_id"]), (&json!("wait"), &json!("toolu_1")));
        assert_eq!((&beat["heartbeat"], &beat["elapsed_time_seconds"]), (&json!(true), &json!(0)));
    }
}

const ASKED: &str = "Say in 3 to 7 words";

/// A subagent that waits in a call until it was summed up once, where that is wanted: what was told of it, and what was
/// asked of the model.
async fn summed_up(reply: Value, change: impl FnOnce(&mut Options)) -> (Vec<Value>, Vec<Value>) {
    let agent = json!({"description": "d", "prompt": "the sub work", "subagent_type": "general-purpose", "run_in_background": false});
    let mut answer = reply;
    answer["match"] = json!({"last_text_contains": ASKED});
    let model = model(&json!({"replies": [
        answer,
        {"match": {"last_text_contains": "the sub work"}, "tool_use": [call("toolu_2", "wait", json!({}))]},
        {"match": {"tool_result_contains": "waited"}, "text": "Sub done."},
        {"tool_use": [call("toolu_1", "Agent", agent)]},
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let waiter = Waiter::new(false);
    let mut options = Options {
        permission_mode: PermissionMode::BypassPermissions,
        custom_tools: vec![waiter.clone()],
        agent_progress_summaries: Some(Duration::from_millis(20)),
        ..options(&model, folder.path())
    };
    change(&mut options);
    let is_on = options.agent_progress_summaries.is_some();
    let mut query = query("hi", options);
    let mut told = Vec::new();
    let release = async {
        waiter.has_begun(1).await;
        if is_on {
            model.wait_for(3).await;
        }
        waiter.go_on.add_permits(1);
    };
    let read = async {
        while let Some(message) = query.next().await {
            told.push(message.unwrap());
        }
    };
    tokio::join!(read, release);
    let told = told.iter().map(Message::to_value).collect();
    (told, model.requests().into_iter().map(|request| request.body).collect())
}

#[tokio::test]
async fn what_a_subagent_does_is_summed_up_once_for_what_is_new() {
    let (told, asked) = summed_up(json!({"text": "\n Reading  the plums \u{7}\nMore."}), |_| ()).await;
    let result = told.iter().rfind(|message| message["type"] == "result").unwrap();
    assert_eq!(result["result"], "Done.");
    let of_progress: Vec<&Value> =
        told.iter().filter(|message| message["subtype"] == "task_progress").collect();
    let summary = of_progress.iter().find(|message| message["summary"].is_string());
    // The subagent may have ended before it was told.
    if let Some(summary) = summary {
        assert_eq!(
            (&summary["summary"], &summary["description"]),
            (&json!("Reading  the plums "), &summary["summary"])
        );
        assert_eq!(
            (&summary["usage"]["tool_uses"], &summary["usage"]["total_tokens"]),
            (&json!(1), &json!(11))
        );
    }
    // While it waited, nothing new was said.
    let is_summary = |body: &&Value| {
        body["messages"].as_array().unwrap().len() == 3 && body["messages"].to_string().contains(ASKED)
    };
    let requests: Vec<&Value> = asked.iter().filter(is_summary).collect();
    assert_eq!(requests.len(), 1);
    // It goes on from the subagent's own request, and the call that runs has an answer.
    let messages = requests[0]["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[1]["content"][0]["id"], messages[2]["content"][0]["tool_use_id"]);
    assert_eq!((&requests[0]["tools"], &requests[0]["system"]), (&asked[1]["tools"], &asked[1]["system"]));
    // It was paid for.
    assert_eq!(result["modelUsage"]["claude-sonnet-5"]["inputTokens"], 50);
}

#[tokio::test]
async fn nothing_is_summed_up_where_nobody_wants_it() {
    let (told, asked) =
        summed_up(json!({"text": "no"}), |options| options.agent_progress_summaries = None).await;
    assert!(!told.iter().any(|message| message["summary"] == "no"));
    assert_eq!(asked.len(), 4);
}
