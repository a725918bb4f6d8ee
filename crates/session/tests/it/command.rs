//! Runtime `command`: any program.

use serde_json::json;
use wardian_protocol::NanoUsd;
use wardian_session::{RunEvent, RunFile, RunStatus};
use wardian_store::{GroupBy, UsageQuery};

use super::world::{World, assert_completed, command, messages, python};

const QUIET: &str = r#"{"replies": []}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_is_one_argument_and_never_goes_through_a_shell() {
    let world = World::new(QUIET).await;
    let mut request = command(&["printf", "[%s]", "$PROMPT", "x$PROMPT", "$HOME", ";"]);
    request.prompt = "a b'\"; $(touch pwned) `id`\n&& $HOME".to_owned();
    let prompt = request.prompt.clone();
    let report = world.report(request).await;
    assert_completed(&report);
    assert_eq!(report.stdout.as_deref(), Some(format!("[{prompt}][x$PROMPT][$HOME][;]").as_str()));
    assert_eq!(json!(report.files_changed), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_there_and_what_a_program_does_is_told() {
    let world = World::new(QUIET).await;
    let mut request = command(&["python3", "tools/go.py"]);
    request.files = vec![
        RunFile {
            path: "tools/go.py".to_owned(),
            content: b"import os, sys\n\
                open('new.txt', 'w').write(os.environ['PROMPT'])\n\
                open('data.bin', 'ab').write(b'x')\n\
                os.remove('old.txt')\n\
                print(os.getcwd(), os.environ['HOME'])\n\
                print('complaint', file=sys.stderr)\n\
                sys.exit(3)\n"
                .to_vec(),
        },
        RunFile { path: "data.bin".to_owned(), content: vec![0, 255, 10] },
        RunFile { path: "old.txt".to_owned(), content: vec![] },
    ];
    let (report, events) = world.run(request).await;
    let report = report.unwrap();
    assert_eq!((report.status, report.is_error, report.exit_code), (RunStatus::Failed, true, Some(3)));
    assert_eq!(report.stdout.as_deref(), Some("/workspace /home/agent\n"));
    assert_eq!(report.stderr.as_deref(), Some("complaint\n"));
    assert_eq!(report.result.as_deref(), Some("/workspace /home/agent"));
    assert_eq!(
        json!(report.files_changed),
        json!([
            {"path": "data.bin", "kind": "modified"},
            {"path": "new.txt", "kind": "added"},
            {"path": "old.txt", "kind": "deleted"},
        ])
    );
    let output: Vec<_> = events.iter().filter(|event| matches!(event, RunEvent::Output { .. })).collect();
    assert_eq!(output.len(), 2, "{events:?}");
    world.assert_clean(&report.session_id).await;
}

/// A program as users write them: no SDK, the Messages API at `ANTHROPIC_BASE_URL`.
const ASKS_THE_MODEL: &str = r#"
import json, os, urllib.request
request = urllib.request.Request(
    os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
    json.dumps({"model": "claude-haiku-4-5", "max_tokens": 100,
                "messages": [{"role": "user", "content": os.environ["PROMPT"]}]}).encode(),
    {"x-api-key": os.environ["ANTHROPIC_API_KEY"], "anthropic-version": "2023-06-01",
     "content-type": "application/json"})
print(json.load(urllib.request.urlopen(request))["content"][0]["text"])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_asks_the_model_is_charged_for_it() {
    let script =
        r#"{"replies": [{"text": "Hello to you.", "usage": {"input_tokens": 1000, "output_tokens": 100}}]}"#;
    let world = World::new(script).await;
    let report = world.report(python(ASKS_THE_MODEL)).await;
    assert_completed(&report);
    assert_eq!(report.stdout.as_deref(), Some("Hello to you.\n"));
    // Haiku 4.5: $1 and $5 a million tokens; 1000 × 1 µ$ + 100 × 5 µ$ = $0.0015.
    assert_eq!(report.cost_usd, NanoUsd(1_500_000));
    assert_eq!(report.num_turns, 1);
    let query = UsageQuery {
        session_id: Some(report.session_id.clone()),
        group_by: vec![GroupBy::Session],
        ..UsageQuery::default()
    };
    let usage = world.store.usage(&world.org, query).await.unwrap();
    assert_eq!((usage[0].requests, usage[0].cost), (1, NanoUsd(1_500_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_exist_fails_like_in_a_shell() {
    let world = World::new(QUIET).await;
    let report = world.report(command(&["no-such-program"])).await;
    assert_eq!((report.status, report.exit_code), (RunStatus::Failed, Some(127)), "{report:#?}");
    assert!(report.stderr.as_deref().unwrap().contains("no-such-program"), "{report:#?}");
    world.assert_clean(&report.session_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_json_among_the_output_is_passed_on_as_messages() {
    let world = World::new(QUIET).await;
    let request = python(
        r#"
print("plain")
print('{"type":"assistant","message":{"id":"m","role":"assistant","model":"x","content":[{"type":"text","text":"hi"}]}}')
print('{"type":"result","subtype":"success","is_error":true,"result":"the answer","session_id":"sesn_other","total_cost_usd":0}')
"#,
    );
    let (report, events) = world.run(request).await;
    let report = report.unwrap();
    assert_completed(&report);
    assert_eq!(report.result.as_deref(), Some("the answer"));
    let messages = messages(&events);
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| message["session_id"] == report.session_id.as_str()));
}
