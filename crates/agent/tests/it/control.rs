//! What hosts say that no host should.

use serde_json::{Value, json};

use crate::process::{Agent, kind_of};
use crate::support::{call, model};

const BYPASS: &[&str] = &["--dangerously-skip-permissions"];

/// Denies each call that it is asked about, to the end of the turn: how often it was asked.
async fn deny_all(agent: &mut Agent) -> usize {
    let mut asked = 0;
    loop {
        let frame = agent.next().await.unwrap();
        match kind_of(&frame).as_str() {
            "asks/hook_callback" => {
                asked += 1;
                let no = json!({"hookEventName": "PreToolUse", "permissionDecision": "deny"});
                agent.answer(&frame, json!({"hookSpecificOutput": no})).await;
            }
            "result/success" => return asked,
            _ => (),
        }
    }
}

fn guards() -> Value {
    json!({"subtype": "initialize", "hooks": {"PreToolUse": [{"matcher": null, "hookCallbackIds": ["h"]}]}})
}

#[tokio::test]
async fn guards_hold_whatever_the_host_said_before_them() {
    let bash = call("toolu_1", "Bash", json!({"command": "touch made"}));
    let begins = [
        // This one begins the session, and then some things can no longer be said.
        (json!({"subtype": "get_usage"}), true),
        (json!({"subtype": "set_model", "model": "claude-sonnet-5"}), false),
    ];
    for (first, is_late) in begins {
        let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), BYPASS);
        agent.control("1", first).await;
        agent.until("answers/success").await;
        if is_late {
            let mut late = guards();
            late["systemPrompt"] = json!(["Be brief."]);
            agent.control("2", late).await;
            let refused = agent.until("answers/error").await.pop().unwrap();
            let why = refused["response"]["error"].as_str().unwrap();
            assert!(why.contains("'systemPrompt' comes too late"), "{why}");
        }
        agent.control("3", guards()).await;
        agent.until("answers/success").await;
        agent.prompt("go").await;
        assert_eq!(deny_all(&mut agent).await, 1);
        assert!(!folder.path().join("made").exists());
        assert_eq!(agent.end().await.2, Some(0));
    }
}

#[tokio::test]
async fn a_call_that_is_too_long_to_be_shown_to_its_guard_is_refused() {
    let long = "x".repeat(1_100_000);
    let write = call("toolu_1", "Write", json!({"file_path": "made", "content": long}));
    let server =
        model(&json!({"replies": [{"tool_use": [write], "chunk_bytes": 65536}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), BYPASS);
    agent.control("1", guards()).await;
    agent.prompt("go").await;
    assert_eq!(deny_all(&mut agent).await, 0);
    assert!(!folder.path().join("made").exists());
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn what_is_no_frame_is_passed_over() {
    let server = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    for line in [
        "[]",
        "3",
        "null",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"of_tomorrow","x":[]}"#,
        r#"{"type":"control_response"}"#,
        r#"{"type":"control_response","response":{"subtype":"maybe","request_id":"nobody"}}"#,
        r#"{"type":"control_response","response":{"subtype":"success","request_id":"nobody","response":{}}}"#,
        r#"{"type":"control_cancel_request"}"#,
        r#"{"type":"control_cancel_request","request_id":"nobody"}"#,
        "",
    ] {
        agent.write(format!("{line}\n").as_bytes()).await;
    }
    for (id, request) in [("a", json!(7)), ("b", json!({})), ("c", json!({"subtype": ["initialize"]}))] {
        agent.control(id, request).await;
        let refused = agent.next().await.unwrap();
        assert_eq!(
            (&refused["response"]["request_id"], kind_of(&refused)),
            (&json!(id), "answers/error".to_owned())
        );
    }
    agent.prompt("hi").await;
    agent.until("result/success").await;
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn what_cannot_be_answered_ends_the_program() {
    let server = model(&json!({"replies": []})).await;
    for line in [
        r#"{"type":"control_request","request_id":"x"}"#,
        r#"{"type":"user"}"#,
        r#"{"type":"user","message":{}}"#,
        r#"{"type":"user","message":{"role":"assistant","content":"I agree."}}"#,
        "{nope",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &[]);
        agent.write(format!("{line}\n").as_bytes()).await;
        let (frames, stderr, code) = agent.end().await;
        assert_eq!((frames.len(), code), (0, Some(1)), "{line}");
        assert!(!stderr.is_empty() && !stderr.contains("I agree"), "{stderr}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn ten_thousand_requests_at_once_are_all_answered() {
    let server = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    agent.control("0", json!({"subtype": "initialize"})).await;
    agent.until("answers/success").await;
    let kinds = ["get_usage", "no_such", "get_binary_version", "mcp_status", "get_context_usage"];
    let mut stdin = agent.stdin.take().unwrap();
    let asking = async {
        for count in 0..10_000 {
            // Every id is used twice.
            let frame = json!({"type": "control_request", "request_id": (count / 2).to_string(),
                "request": {"subtype": kinds[count % kinds.len()]}});
            let line = format!("{frame}\n");
            tokio::io::AsyncWriteExt::write_all(&mut stdin, line.as_bytes()).await.unwrap();
        }
    };
    let hearing = async {
        let mut answers = std::collections::BTreeMap::<String, usize>::new();
        while answers.values().sum::<usize>() < 10_000 {
            let frame = agent.next().await.unwrap();
            assert_eq!(frame["type"], "control_response", "{frame}");
            *answers.entry(frame["response"]["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        answers
    };
    let ((), answers) = tokio::join!(asking, hearing);
    assert!(answers.len() == 5_000 && answers.values().all(|count| *count == 2));
    agent.stdin = Some(stdin);
    agent.prompt("hi").await;
    agent.until("result/success").await;
    assert_eq!(agent.end().await.2, Some(0));
}
