//! What a host says about tools and permissions, and what it sends and gets, through the program itself.

use serde_json::{Value, json};

use crate::process::{Agent, kind_of, kinds_of};
use crate::support::{call, model};

const ASK: &str = "--permission-prompt-tool=stdio";

/// One Bash call under these flags: what the host was asked, and what the call came to.
async fn one_call(flags: &[&str], command: &str) -> (Vec<Value>, Option<Value>, Value) {
    let bash = call("toolu_1", "Bash", json!({"command": command}));
    let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), flags);
    agent.prompt("hi").await;
    let mut frames = Vec::new();
    let mut asked = Vec::new();
    loop {
        let frame = agent.next().await.unwrap();
        match kind_of(&frame).as_str() {
            "asks/can_use_tool" => {
                agent
                    .answer(&frame, json!({"behavior": "allow", "updatedInput": frame["request"]["input"]}))
                    .await;
                asked.push(frame);
            }
            "result/success" => break,
            _ => frames.push(frame),
        }
    }
    assert_eq!(agent.end().await.2, Some(0));
    let answered = frames.iter().find(|frame| frame["type"] == "user").cloned();
    (asked, answered, server.requests()[0].body.clone())
}

fn failed(answer: Option<&Value>) -> bool {
    answer.unwrap()["message"]["content"][0]["is_error"] == true
}

#[tokio::test]
async fn rules_of_the_host_decide_and_ask_beats_allow() {
    let settings = |permissions: Value| json!({"permissions": permissions}).to_string();
    let both = settings(json!({"allow": ["Bash"], "ask": ["Bash(touch *)"]}));
    let deny = settings(json!({"allow": ["Bash"], "deny": ["Bash(touch *)"]}));
    let all = settings(json!({"ask": ["Bash"]}));
    for (flags, asked, fails) in [
        (vec![ASK], 1, false),
        (vec![ASK, "--allowedTools", "Bash,Edit"], 0, false),
        (vec![ASK, "--allowedTools=Bash(touch *),Edit"], 0, false),
        (vec![ASK, "--settings", &both], 1, false),
        (vec![ASK, "--allowedTools=Bash", "--settings", &all], 1, false),
        (vec![ASK, "--permission-mode=bypassPermissions", "--settings", &all], 1, false),
        (vec!["--settings", &both], 0, true),
        (vec![ASK, "--permission-mode=dontAsk", "--settings", &both], 0, true),
        (vec![ASK, "--settings", &deny], 0, true),
        (vec![ASK, "--permission-mode=bypassPermissions", "--disallowedTools=Bash(touch *)"], 0, true),
    ] {
        let (asks, answer, _) = one_call(&flags, "touch made").await;
        assert_eq!((asks.len(), failed(answer.as_ref())), (asked, fails), "{flags:?}: {answer:?}");
        for ask in asks {
            assert_eq!(ask["request"]["tool_use_id"], "toolu_1");
            assert_eq!(ask["request"]["input"], json!({"command": "touch made"}));
        }
    }
}

#[tokio::test]
async fn tools_are_chosen_by_name_and_a_denied_name_is_gone() {
    let deny = json!({"permissions": {"deny": ["Bash", "Write"]}}).to_string();
    let standard = [
        "Task",
        "Bash",
        "Edit",
        "NotebookEdit",
        "Read",
        "Skill",
        "TaskStop",
        "WebFetch",
        "WebSearch",
        "Write",
    ];
    for (flags, expected) in [
        (vec![], &standard[..]),
        (vec!["--tools=Read,Bash"], &["Bash", "Read"][..]),
        (vec!["--tools", ""], &[]),
        (
            vec!["--disallowedTools=Bash,Write,Task"],
            &["Edit", "NotebookEdit", "Read", "Skill", "TaskStop", "WebFetch", "WebSearch"],
        ),
        (
            vec!["--settings", &deny],
            &["Task", "Edit", "NotebookEdit", "Read", "Skill", "TaskStop", "WebFetch", "WebSearch"],
        ),
        (vec!["--tools=Read,Bash", "--disallowedTools", "Bash"], &["Read"]),
    ] {
        let server = model(&json!({"replies": [{"text": "Done."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &flags);
        agent.prompt("hi").await;
        let frames = agent.until("result/success").await;
        let init = frames.iter().find(|frame| kind_of(frame) == "system/init").unwrap();
        assert_eq!(init["tools"], json!(expected), "{flags:?}");
        let request = server.requests()[0].body.clone();
        let none = Vec::new();
        let offered = request["tools"].as_array().unwrap_or(&none).iter().map(|tool| tool["name"].clone());
        // Programs know one of them by its old name, the model does not.
        let expected: Vec<_> =
            expected.iter().map(|&name| if name == "Task" { "Agent" } else { name }).collect();
        assert_eq!(offered.collect::<Vec<_>>(), expected, "{flags:?}");
    }
}

#[tokio::test]
async fn content_of_all_kinds_reaches_the_model_unchanged() {
    let pdf = "JVBERi0xLjQK".repeat(250_000);
    let content = json!([
        {"type": "text", "text": "Look at these. \u{1f980}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": pdf}, "title": "a"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"},
            "context": "notes", "citations": {"enabled": true}},
        {"type": "of_tomorrow", "x": [1, null, {"y": 1.5}]},
    ]);
    let server = model(&json!({"replies": [{"text": "Seen."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    agent
        .send(json!({"type": "user", "session_id": "", "parent_tool_use_id": null,
            "message": {"role": "user", "content": content}}))
        .await;
    agent.until("result/success").await;
    let mut sent = server.requests()[0].body["messages"][0]["content"].clone();
    let marked = sent[4].as_object_mut().unwrap().shift_remove("cache_control");
    assert!(marked.is_some(), "the cache breakpoint at the end");
    assert_eq!(sent, content);
}

#[tokio::test]
async fn partial_messages_come_for_every_kind_of_block() {
    let script = json!({"replies": [
        {"thinking": "Hm.", "text": "I look.", "tool_use": [call("toolu_1", "Read", json!({"file_path": "x"})),
            call("toolu_2", "Read", json!({"file_path": "y"}))], "chunk_bytes": 3},
        {"text": "Done."},
    ]});
    let server = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--include-partial-messages"]);
    agent.prompt("hi").await;
    let frames = agent.until("result/success").await;
    let events: Vec<&Value> = frames.iter().filter(|frame| frame["type"] == "stream_event").collect();
    let of = |kind: &str| events.iter().filter(|frame| frame["event"]["type"] == kind).count();
    assert_eq!((of("message_start"), of("message_stop"), of("message_delta")), (2, 2, 2));
    assert_eq!((of("content_block_start"), of("content_block_stop")), (5, 5));
    let joined = |kind: &str, field: &str, index: u64| {
        let deltas = events
            .iter()
            .take_while(|frame| frame["event"]["type"] != "message_stop")
            .filter(|frame| frame["event"]["delta"]["type"] == kind && frame["event"]["index"] == index);
        deltas.map(|frame| frame["event"]["delta"][field].as_str().unwrap()).collect::<String>()
    };
    assert_eq!(joined("thinking_delta", "thinking", 0), "Hm.");
    assert_eq!(joined("text_delta", "text", 1), "I look.");
    assert_eq!(joined("input_json_delta", "partial_json", 3).replace(' ', ""), "{\"file_path\":\"y\"}");
    assert!(events.iter().all(|frame| frame["uuid"].is_string() && frame["session_id"].is_string()));
    let kinds = kinds_of(&frames);
    assert_eq!(kinds.iter().filter(|kind| *kind == "assistant").count(), 5);
}

#[tokio::test]
async fn an_interrupt_spares_the_queue_or_empties_it() {
    for cancel in [false, true] {
        let bash = call("toolu_1", "Bash", json!({"command": "sleep 600"}));
        let server =
            model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Next.", "repeat": true}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
        agent.prompt("first").await;
        agent.until("assistant").await;
        let uuid = "aaaaaaaa-2222-3333-4444-555555555555";
        agent
            .send(json!({"type": "user", "uuid": uuid, "session_id": "", "parent_tool_use_id": null,
                "message": {"role": "user", "content": "second"}}))
            .await;
        agent.control("i", json!({"subtype": "interrupt", "cancel_queued": cancel})).await;
        let reply = agent.until("answers/success").await.pop().unwrap();
        let (queued, cancelled) =
            if cancel { (json!([]), json!([uuid])) } else { (json!([uuid]), Value::Null) };
        assert_eq!(reply["response"]["response"]["still_queued"], queued);
        assert_eq!(reply["response"]["response"]["cancelled"], cancelled);
        let (frames, _, _) = agent.end().await;
        let results =
            kinds_of(&frames).into_iter().filter(|kind| kind.starts_with("result")).collect::<Vec<_>>();
        let expected: &[&str] = if cancel {
            &["result/error_during_execution"]
        } else {
            &["result/error_during_execution", "result/success"]
        };
        assert_eq!(results, expected);
    }
}

/// Two questions at once: the session waits until both are answered.
#[tokio::test]
async fn the_state_is_requires_action_while_any_question_is_out() {
    let outside = ["/etc/hostname", "/etc/hosts"];
    let calls: Vec<Value> = outside
        .iter()
        .enumerate()
        .map(|(n, path)| call(&format!("toolu_{n}"), "Read", json!({"file_path": path})))
        .collect();
    let server = model(&json!({"replies": [{"tool_use": calls}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[ASK]);
    agent.prompt("hi").await;
    let first = agent.until("asks/can_use_tool").await.pop().unwrap();
    let second = agent.until("asks/can_use_tool").await.pop().unwrap();
    agent.answer(&first, json!({"behavior": "deny", "message": "No."})).await;
    agent.answer(&second, json!({"behavior": "deny", "message": "No."})).await;
    let frames = agent.until("state/idle").await;
    let states = kinds_of(&frames).into_iter().filter(|kind| kind.starts_with("state")).collect::<Vec<_>>();
    assert_eq!(states, ["state/running", "state/idle"]);
    assert_eq!(agent.end().await.2, Some(0));
}
