//! Commands in the background.

use std::path::Path;

use serde_json::{Value, json};

use crate::process::{Agent, PATIENCE, command, kind_of};
use crate::support::model;

fn bash(input: Value) -> Value {
    json!({"name": "Bash", "id": "toolu_b", "input": input})
}

fn find<'a>(frames: &'a [Value], kind: &str) -> &'a Value {
    let kinds: Vec<_> = frames.iter().map(kind_of).collect();
    frames.iter().find(|frame| kind_of(frame) == kind).unwrap_or_else(|| panic!("no {kind} among {kinds:?}"))
}

/// Waits until a process has written its id.
async fn pid_in(path: &Path) -> i32 {
    let written = async {
        loop {
            if let Ok(text) = std::fs::read_to_string(path)
                && let Ok(pid) = text.trim().parse()
            {
                return pid;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap()
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn its_end_is_told_to_the_model_and_the_input_may_end_before() {
    let server = model(&json!({"replies": [
        {"match": {"last_text_contains": "task-notification"}, "text": "Heard."},
        {"match": {"last_text_contains": "begin"}, "tool_use":
            [bash(json!({"command": "echo one; until [ -e go ]; do sleep 0.01; done; echo two; exit 3", "run_in_background": true, "description": "count"}))]},
        {"match": {"tool_result_contains": "background"}, "text": "Launched."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
    agent.prompt("begin").await;
    let mut frames = agent.until("result/success").await;
    agent.stdin = None;
    std::fs::write(folder.path().join("go"), "").unwrap();
    let (rest, _, code) = agent.wait().await;
    frames.extend(rest);
    assert_eq!(code, Some(0));
    let started = find(&frames, "system/task_started");
    assert_eq!(
        (started["task_type"].clone(), started["description"].clone()),
        (json!("local_bash"), json!("count"))
    );
    let updated = find(&frames, "system/task_updated");
    assert_eq!(updated["patch"]["status"], "failed");
    let notice = find(&frames, "system/task_notification");
    assert_eq!(
        (notice["status"].clone(), notice["task_id"].clone()),
        (json!("failed"), started["task_id"].clone())
    );
    assert_eq!(std::fs::read_to_string(notice["output_file"].as_str().unwrap()).unwrap(), "one\ntwo\n");
    let results: Vec<_> = frames.iter().filter(|frame| frame["type"] == "result").collect();
    assert_eq!((results.len(), results[1]["result"].clone()), (2, json!("Heard.")));
    // Commands do not keep the session from rest: it comes after each turn.
    assert_eq!(frames.iter().filter(|frame| kind_of(frame) == "state/idle").count(), 2);
}

#[tokio::test]
async fn the_host_stops_it_and_reads_what_it_said() {
    let server = model(&json!({"replies": [
        {"tool_use": [bash(json!({"command": "echo said; echo $$ >pid; sleep 1000", "run_in_background": true}))]},
        {"text": "Launched."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
    agent.prompt("begin").await;
    let frames = agent.until("result/success").await;
    let id = find(&frames, "system/task_started")["task_id"].clone();
    let pid = pid_in(&folder.path().join("pid")).await;
    agent.control("o", json!({"subtype": "get_task_output", "task_id": id})).await;
    let answer = agent.until("answers/success").await.pop().unwrap();
    assert_eq!(
        answer["response"]["response"],
        json!({"output": "said\n", "total_bytes": 5, "truncated": false})
    );
    agent.control("s", json!({"subtype": "stop_task", "task_id": id})).await;
    let frames = agent.until("answers/success").await;
    assert_eq!(find(&frames, "system/task_updated")["patch"]["status"], "killed");
    assert_eq!(find(&frames, "system/task_notification")["status"], "stopped");
    assert_eq!(find(&frames, "system/background_tasks_changed")["tasks"], json!([]));
    assert!(!is_alive(pid));
    for (request, kind) in [
        (json!({"subtype": "stop_task", "task_id": "nobody"}), "answers/success"),
        (json!({"subtype": "get_task_output", "task_id": "../../etc/passwd"}), "answers/error"),
        (json!({"subtype": "background_tasks"}), "answers/success"),
    ] {
        agent.control("x", request).await;
        agent.until(kind).await;
    }
    // Who was stopped by the host is no news to the model: no further turn.
    let (frames, _, code) = agent.end().await;
    assert!(frames.iter().all(|frame| frame["type"] != "result"));
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn the_model_stops_it() {
    let server = model(&json!({"replies": [
        {"match": {"last_text_contains": "begin"}, "tool_use": [bash(json!({"command": "sleep 1000", "run_in_background": true}))]},
        {"match": {"tool_result_contains": "background"}, "tool_use":
            [{"name": "TaskStop", "id": "toolu_s", "input": {"task_id": "nobody"}}, {"name": "TaskStop", "id": "toolu_t", "input": {}}]},
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
    agent.prompt("begin").await;
    agent.until("result/success").await;
    let told = server.requests().last().unwrap().body["messages"].to_string();
    assert!(told.contains("No task found with ID: nobody") && told.contains("task_id is missing"), "{told}");
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.wait().await.2, Some(143));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_moved() {
    let server = model(&json!({"replies": [
        {"match": {"last_text_contains": "task-notification"}, "text": "Heard."},
        {"match": {"last_text_contains": "begin"}, "tool_use":
            [bash(json!({"command": "echo early; until [ -e go ]; do sleep 0.01; done; echo late", "timeout": 200}))]},
        {"match": {"tool_result_contains": "moved into the background"}, "text": "It goes on."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
    agent.prompt("begin").await;
    let frames = agent.until("result/success").await;
    let told = frames.iter().find(|frame| frame["tool_use_result"]["timedOutAfterMs"] == 200).unwrap();
    assert_eq!(told["tool_use_result"]["stdout"], "early\n");
    std::fs::write(folder.path().join("go"), "").unwrap();
    let frames = agent.until("result/success").await;
    let output = find(&frames, "system/task_notification")["output_file"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(output).unwrap(), "early\nlate\n");
    assert_eq!(agent.end().await.2, Some(0));
}

/// However the program ends, nothing stays of what its commands started: not in the background, not detached.
#[tokio::test]
async fn no_process_stays() {
    for (way, code) in [("eof", 0), ("term", 143)] {
        let server = model(&json!({"replies": [
            {"match": {"last_text_contains": "begin"}, "tool_use": [bash(json!({"command":
                "(setsid sh -c 'echo $$ >detached; exec sleep 1000' &) ; sh -c 'echo $$ >left; exec sleep 1000' & until [ -s detached -a -s left ]; do sleep 0.01; done"}))]},
            {"match": {"tool_result_contains": "no output"}, "tool_use":
                [json!({"name": "Bash", "id": "toolu_c", "input": {"command": "echo $$ >pid; sleep 1000", "run_in_background": true}})]},
            {"text": "Done.", "repeat": true},
        ]}))
        .await;
        let folder = tempfile::tempdir().unwrap();
        let args = [
            "--output-format=stream-json",
            "--verbose",
            "--input-format=stream-json",
            "--dangerously-skip-permissions",
        ];
        let mut command = command(&server, folder.path(), &args);
        command.env("CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS", "100");
        let mut agent = Agent::spawn(command);
        agent.prompt("begin").await;
        agent.until("result/success").await;
        let mut pids = Vec::new();
        for name in ["pid", "left", "detached"] {
            pids.push(pid_in(&folder.path().join(name)).await);
        }
        assert!(pids.iter().all(|pid| is_alive(*pid)), "{way}");
        let ended = if way == "term" {
            agent.signal(rustix::process::Signal::TERM);
            agent.wait().await
        } else {
            agent.end().await
        };
        assert_eq!(ended.2, Some(code), "{way}: {}", ended.1);
        assert!(pids.iter().all(|pid| !is_alive(*pid)), "{way}: {pids:?}");
    }
}

#[tokio::test]
async fn who_names_a_call_that_nobody_waits_for_hears_that_nothing_moved() {
    let server = model(&json!({"replies": []})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    for (request, expected) in [
        (json!({"subtype": "background_tasks"}), json!({})),
        (json!({"subtype": "background_tasks", "tool_use_id": "x"}), json!({"backgrounded": false})),
    ] {
        agent.control("r", request).await;
        assert_eq!(agent.next().await.unwrap()["response"]["response"], expected);
    }
    assert_eq!(agent.end().await.2, Some(0));
    let mut off = command(
        &server,
        folder.path(),
        &["--input-format=stream-json", "--output-format=stream-json", "--verbose"],
    );
    off.env("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1");
    let mut agent = Agent::spawn(off);
    agent.control("r", json!({"subtype": "background_tasks"})).await;
    assert_eq!(kind_of(&agent.next().await.unwrap()), "answers/error");
}
