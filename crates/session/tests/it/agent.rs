//! Runtime `wardian`: our agent, a scripted model, a real workspace.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use wardian_protocol::NanoUsd;
use wardian_protocol::control::{CanUseTool, PermissionAnswer};
use wardian_session::{PermissionAsker, Permissions, Place, RunEvent, RunStatus};

use super::world::{World, assert_completed, messages, prompt, request_id};

/// One tool call, then a word: 10 + 20 input and 5 + 7 output tokens.
const WRITES_A_FILE: &str = r#"{"replies": [
    {"match": {"last_text_contains": "write it"}, "model": "claude-sonnet-5",
     "tool_use": [{"name": "Bash", "input": {"command": "echo hello > note.txt && pwd"}}],
     "usage": {"input_tokens": 10, "output_tokens": 5}},
    {"match": {"tool_result_contains": "/workspace"}, "model": "claude-sonnet-5", "text": "It is written.",
     "usage": {"input_tokens": 20, "output_tokens": 7}}
]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_in_and_files_words_and_cost_come_out() {
    let world = World::new(WRITES_A_FILE).await;
    let (report, events) = world.run(prompt("write it")).await;
    let report = report.unwrap();
    assert_completed(&report);
    assert_eq!(report.result.as_deref(), Some("It is written."));
    assert_eq!((report.is_error, report.num_turns, report.exit_code), (false, 2, None));
    assert_eq!(report.stop_reason.as_deref(), Some("end_turn"));
    assert_eq!(json!(report.files_changed), json!([{"path": "note.txt", "kind": "added"}]));
    assert_eq!((report.usage.input_tokens, report.usage.output_tokens), (30, 12));

    // First that it started, last the result with the gateway's figures, everywhere our ids.
    let RunEvent::Started { session_id, workspace, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(session_id, &report.session_id);
    assert_eq!(std::fs::read_to_string(workspace.join("note.txt")).unwrap(), "hello\n");
    let messages = messages(&events);
    assert!(messages.iter().all(|message| message["session_id"] == session_id.as_str()));
    let last = messages.last().unwrap();
    assert_eq!(last["type"], "result");
    assert_eq!(last["total_cost_usd"], json!(report.cost_usd));
    assert!(report.cost_usd > NanoUsd::ZERO);
    world.assert_clean(session_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_in_the_log_before_and_after() {
    let world = World::new(WRITES_A_FILE).await;
    let report = world.report(prompt("write it")).await;
    let log = world.log(&report.session_id).await;
    let kinds: Vec<_> = log.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds.first(), Some(&"run.started"));
    assert_eq!(kinds.last(), Some(&"run.ended"));
    for kind in ["frame.assistant", "frame.user", "frame.result"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    assert!(log.iter().zip(1..).all(|(row, seq)| row.seq == seq), "without gaps");
    assert!(log.iter().all(|row| row.request_id.as_ref() == Some(&report.request_id)));
    let claimed = log.iter().filter(|row| row.kind.starts_with("frame."));
    assert!(claimed.into_iter().all(|row| row.payload["source"] == "claimed"));
    assert_eq!(log.last().unwrap().payload["cost_usd"], json!(report.cost_usd));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_in_the_same_workspace() {
    let world = World::new(WRITES_A_FILE).await;
    let first = world.report(prompt("write it")).await;
    let mut second = super::world::command(&["cat", "note.txt"]);
    second.session_id = Some(first.session_id.clone());
    let second = world.report(second).await;
    assert_completed(&second);
    assert_eq!(second.session_id, first.session_id);
    assert_eq!(second.stdout.as_deref(), Some("hello\n"));
    let record = world.store.session(&world.org, &first.session_id).await.unwrap().unwrap();
    assert_eq!(record.runs, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_tools_are_all_that_is_allowed() {
    let script = r#"{"replies": [
        {"match": {"last_text_contains": "write it"},
         "tool_use": [{"name": "Bash", "input": {"command": "touch forbidden"}},
                      {"name": "Write", "input": {"file_path": "/workspace/allowed", "content": "x"}}]},
        {"text": "Done what I may."}]}"#;
    let world = World::new(script).await;
    let mut request = prompt("write it");
    request.permissions = Permissions::Only(vec!["Edit".to_owned(), "Write".to_owned()]);
    let report = world.report(request).await;
    assert_completed(&report);
    let paths: Vec<_> = report.files_changed.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["allowed"]);
}

struct Refuses(Mutex<Vec<String>>);

impl PermissionAsker for Refuses {
    fn ask<'a>(&'a self, question: &'a CanUseTool) -> BoxFuture<'a, PermissionAnswer> {
        self.0.lock().unwrap().push(question.tool_name.clone());
        let message = "not today".to_owned();
        async { PermissionAnswer::Deny { message, interrupt: false, extra: serde_json::Map::new() } }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_run_asks_and_works_at_the_folders_own_path() {
    let script = r#"{"replies": [
        {"match": {"last_text_contains": "write it"},
         "tool_use": [{"name": "Bash", "input": {"command": "touch made-by-bash"}}]},
        {"match": {"tool_result_contains": "not today"}, "text": "I was not allowed to."}]}"#;
    let world = World::new(script).await;
    let folder = tempfile::tempdir().unwrap();
    let asker = Arc::new(Refuses(Mutex::default()));
    let mut request = prompt("write it");
    request.permissions = Permissions::Ask(Arc::clone(&asker) as Arc<dyn PermissionAsker>);
    request.place = Place::Local(folder.path().to_owned());
    let (report, events) = world.run(request).await;
    let report = report.unwrap();
    assert_eq!(report.result.as_deref(), Some("I was not allowed to."));
    assert_eq!(*asker.0.lock().unwrap(), ["Bash"]);
    let RunEvent::Started { workspace, .. } = &events[0] else { panic!("{events:?}") };
    assert_eq!(workspace, folder.path());
    let kinds: Vec<_> = world.log(&report.session_id).await.into_iter().map(|row| row.kind).collect();
    assert!(kinds.iter().any(|kind| kind == "permission.asked"));
    assert!(kinds.iter().any(|kind| kind == "permission.answered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_money_ends_the_run_before_a_byte_goes_upstream() {
    let world = World::new(WRITES_A_FILE).await;
    let mut request = prompt("write it");
    request.limits.max_cost = Some(NanoUsd(1));
    let report = world.report(request).await;
    assert_eq!(report.status, RunStatus::BudgetReached, "{report:#?}");
    assert_eq!(report.cost_usd, NanoUsd::ZERO);
    let asked = world.model.requests().into_iter().filter(|request| request.path == "/v1/messages").count();
    assert_eq!(asked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_are_limited() {
    let script =
        r#"{"replies": [{"repeat": true, "tool_use": [{"name": "Bash", "input": {"command": "true"}}]}]}"#;
    let world = World::new(script).await;
    let mut request = prompt("loop");
    request.limits.max_turns = Some(2);
    let report = world.report(request).await;
    assert_eq!(report.status, RunStatus::MaxTurns, "{report:#?}");
    assert!(report.is_error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_fails_makes_a_run_that_failed() {
    let script = r#"{"replies": [{"repeat": true, "error": {"status": 400, "type": "invalid_request_error", "message": "no such thing"}}]}"#;
    let world = World::new(script).await;
    let report = world.report(prompt("hi")).await;
    assert_eq!((report.status, report.is_error), (RunStatus::Failed, true), "{report:#?}");
    assert!(report.result.as_deref().unwrap().contains("no such thing"), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_key_reaches_the_model_and_nothing_else() {
    let world = World::new(r#"{"replies": [{"repeat": true, "text": "ok"}]}"#).await;
    let report = world.report(prompt("hi")).await;
    assert!(world.model.requests().iter().all(|request| request.key_accepted));
    let request = super::world::command(&["sh", "-c", "env; cat /proc/self/environ /proc/1/environ; true"]);
    assert_eq!(request.request_id.as_str().len(), request_id().as_str().len());
    let inside = world.report(request).await.stdout.unwrap();
    assert!(inside.contains("ANTHROPIC_API_KEY=sk-wardian-"), "{inside}");
    assert!(!inside.contains(super::world::REAL_KEY));
    let log = format!("{:?}", world.log(&report.session_id).await);
    assert!(!log.contains(super::world::REAL_KEY));
}
