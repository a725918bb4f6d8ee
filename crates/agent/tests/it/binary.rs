//! `wardian-agent` as hosts start it: lines in, lines out, signals, exit codes.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use wardian_model::Server;

use crate::process::{Agent, PATIENCE, command, kind_of, kinds_of};
use crate::support::{call, model};

#[tokio::test]
async fn a_run_in_the_order_of_the_protocol() {
    let server = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--setting-sources="]);
    // Written back to back, as the TypeScript SDK does.
    agent.control("1", json!({"subtype": "initialize", "hooks": null, "systemPrompt": ["Be brief."]})).await;
    agent.prompt("hi").await;
    let frames = agent.until("state/idle").await;
    let expected =
        ["answers/success", "state/running", "system/init", "assistant", "result/success", "state/idle"];
    assert_eq!(kinds_of(&frames), expected);
    assert_eq!(frames[0]["response"]["request_id"], "1");
    assert_eq!(frames[0]["response"]["response"]["hook_on_failure_supported"], true);
    assert_eq!(frames[1]["sdk_host_only"], true);
    assert_eq!(frames[2]["apiKeySource"], "ANTHROPIC_API_KEY");
    assert_eq!(frames[4]["total_cost_usd"], 0.000_07);
    let (left, stderr, code) = agent.end().await;
    assert_eq!((left.len(), stderr.as_str(), code), (0, "", Some(0)));
    let request = &server.requests()[0];
    assert_eq!(request.body["system"][0]["text"], "Be brief.");
    assert_eq!(request.header("x-api-key"), Some("sk-ant-binary"));
}

#[tokio::test]
async fn system_prompts_by_flag_and_by_initialize() {
    for (args, initialize, expected) in [
        (&["--system-prompt", ""][..], json!({"hooks": null}), None),
        (&["--system-prompt", "flag"], json!({}), Some("flag")),
        (&["--system-prompt", "flag"], json!({"systemPrompt": ["field"]}), Some("field")),
        (&[], json!({"systemPrompt": [""]}), None),
        (&["--append-system-prompt=more"], json!({"systemPrompt": [""]}), Some("more")),
        (&[], json!({"systemPrompt": [""], "appendSystemPrompt": "added"}), Some("added")),
    ] {
        let server = model(&json!({"replies": [{"text": "Hello."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), args);
        let mut request = json!({"subtype": "initialize"});
        request.as_object_mut().unwrap().extend(initialize.as_object().unwrap().clone());
        agent.control("1", request).await;
        agent.prompt("hi").await;
        assert_eq!(agent.end().await.2, Some(0));
        let sent = &server.requests()[0].body["system"];
        assert_eq!(sent[0]["text"].as_str(), expected, "{args:?} {initialize}");
    }
}

#[tokio::test]
async fn the_host_is_asked_only_where_it_wants_to_be() {
    let bash = call("toolu_1", "Bash", json!({"command": "touch ran", "description": "makes a file"}));
    let script = json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]});
    let folder = tempfile::tempdir().unwrap();
    let server = model(&script).await;
    let mut agent = Agent::start(&server, folder.path(), &["--permission-prompt-tool", "stdio"]);
    agent.prompt("hi").await;
    let frames = agent.until("asks/can_use_tool").await;
    assert_eq!(kinds_of(&frames)[2..], ["assistant", "state/requires_action", "asks/can_use_tool"]);
    let asked = frames.last().unwrap();
    assert_eq!(asked["request"]["tool_name"], "Bash");
    assert_eq!(asked["request"]["input"]["command"], "touch ran");
    assert_eq!(
        (&asked["request"]["tool_use_id"], &asked["request"]["description"]),
        (&json!("toolu_1"), &json!("makes a file"))
    );
    // Answers to questions that were never asked change nothing.
    agent
        .send(json!({"type": "control_response", "response": {"subtype": "success", "request_id": "forged",
        "response": {"behavior": "allow", "updatedInput": {}}}}))
        .await;
    agent
        .send(json!({"type": "control_response", "response": {"subtype": "success",
        "request_id": asked["request_id"], "response": {"behavior": "deny", "message": "No."}}}))
        .await;
    let (frames, _, code) = agent.end().await;
    assert_eq!(code, Some(0));
    let answered = frames.iter().find(|frame| frame["type"] == "user").unwrap();
    assert_eq!(answered["message"]["content"][0]["content"], "No.");
    assert_eq!(answered["tool_use_result"], "Error: No.");
    assert!(!folder.path().join("ran").exists());

    let server = model(&script).await;
    let mut agent = Agent::start(&server, folder.path(), &[]);
    agent.prompt("hi").await;
    let (frames, _, _) = agent.end().await;
    assert!(kinds_of(&frames).contains(&"system/permission_denied".to_owned()));
    assert!(!kinds_of(&frames).contains(&"asks/can_use_tool".to_owned()));
}

#[tokio::test]
async fn an_unanswered_question_is_withdrawn_by_an_interrupt_and_by_the_end() {
    let bash = call("toolu_1", "Bash", json!({"command": "touch ran"}));
    for interrupt in [true, false] {
        let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &["--permission-prompt-tool=stdio"]);
        agent.prompt("hi").await;
        let asked = agent.until("asks/can_use_tool").await.pop().unwrap();
        if interrupt {
            agent.control("i", json!({"subtype": "interrupt"})).await;
        }
        let (frames, _, code) = agent.end().await;
        let kinds = kinds_of(&frames);
        if interrupt {
            let withdrawn = frames.iter().find(|frame| frame["type"] == "control_cancel_request").unwrap();
            assert_eq!(withdrawn["request_id"], asked["request_id"]);
            assert!(kinds.contains(&"result/error_during_execution".to_owned()), "{kinds:?}");
            assert_eq!(code, Some(1));
        } else {
            assert!(kinds.contains(&"result/success".to_owned()), "a host that is gone denies: {kinds:?}");
            assert_eq!(code, Some(0));
        }
        assert!(!folder.path().join("ran").exists());
    }
}

#[tokio::test]
async fn hooks_are_called_and_obeyed() {
    let bash = call("toolu_1", "Bash", json!({"command": "touch ran"}));
    let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--permission-mode", "bypassPermissions"]);
    let hooks = json!({"PreToolUse": [{"matcher": null, "hookCallbackIds": ["hook_0"]}]});
    agent.control("1", json!({"subtype": "initialize", "hooks": hooks})).await;
    agent.prompt("hi").await;
    let asked = agent.until("asks/hook_callback").await.pop().unwrap();
    assert_eq!(asked["request"]["callback_id"], "hook_0");
    assert_eq!(asked["request"]["tool_use_id"], "toolu_1");
    let input = &asked["request"]["input"];
    assert_eq!((&input["hook_event_name"], &input["tool_name"]), (&json!("PreToolUse"), &json!("Bash")));
    assert_eq!(input["permission_mode"], "bypassPermissions");
    agent
        .send(json!({"type": "control_response", "response": {"subtype": "success",
        "request_id": asked["request_id"], "response": {"hookSpecificOutput": {"hookEventName": "PreToolUse",
        "permissionDecision": "deny", "permissionDecisionReason": "no"}}}}))
        .await;
    let (frames, _, code) = agent.end().await;
    let result = frames.iter().find(|frame| frame["type"] == "result").unwrap();
    assert_eq!((result["permission_denials"].as_array().unwrap().len(), code), (1, Some(0)));
    assert!(!folder.path().join("ran").exists());
}

#[tokio::test]
async fn control_requests_are_answered_by_name() {
    let server = model(&json!({"replies": [
        {"match": {"model": "claude-nope"}, "error": {"status": 404, "message": "no such model"}},
        {"text": "x"},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    for (request, kind, error) in [
        (json!({"subtype": "initialize"}), "answers/success", None),
        (json!({"subtype": "initialize"}), "answers/success", None),
        (json!({"subtype": "interrupt"}), "answers/success", None),
        (json!({"subtype": "set_permission_mode", "mode": "plan"}), "answers/success", None),
        (json!({"subtype": "set_permission_mode", "mode": "yolo"}), "answers/error", Some("permission mode")),
        (
            json!({"subtype": "set_permission_mode", "mode": "bypassPermissions"}),
            "answers/error",
            Some("bypass"),
        ),
        (json!({"subtype": "set_permission_mode"}), "answers/error", Some("permission mode")),
        (json!({"subtype": "set_model", "model": "opus"}), "answers/success", None),
        (json!({"subtype": "set_model", "model": "claude-nope"}), "answers/error", Some("no such model")),
        (json!({"subtype": "set_model"}), "answers/success", None),
        (json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": 2000}), "answers/success", None),
        (json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": null}), "answers/success", None),
        (
            json!({"subtype": "set_max_thinking_tokens", "max_thinking_tokens": "x"}),
            "answers/error",
            Some("whole"),
        ),
        (json!({"subtype": "get_usage"}), "answers/success", None),
        (json!({"subtype": "get_session_cost"}), "answers/success", None),
        (json!({"subtype": "get_settings"}), "answers/success", None),
        (json!({"subtype": "list_models"}), "answers/success", None),
        (json!({"subtype": "get_binary_version"}), "answers/success", None),
        (
            json!({"subtype": "apply_flag_settings", "settings": {"effortLevel": "low"}}),
            "answers/success",
            None,
        ),
        (
            json!({"subtype": "apply_flag_settings", "settings": {"sandbox": {"enabled": true}}}),
            "answers/error",
            Some("'sandbox'"),
        ),
        (json!({"subtype": "rename_session", "title": "A name"}), "answers/success", None),
        (json!({"subtype": "rename_session", "title": " "}), "answers/error", Some("some text")),
        (
            json!({"subtype": "rename_session", "title": "x", "session_id": "other"}),
            "answers/error",
            Some("another"),
        ),
        (
            json!({"subtype": "read_file", "path": "/etc/passwd"}),
            "answers/error",
            Some("read denied: /etc/passwd"),
        ),
        (json!({"subtype": "seed_read_state", "path": "a", "mtime": 1}), "answers/success", None),
        (json!({"subtype": "seed_read_state", "path": "a", "mtime": -1}), "answers/error", Some("'mtime'")),
        (json!({"subtype": "set_has_subscribers", "has_subscribers": false}), "answers/success", None),
        (json!({"subtype": "reload_plugins"}), "answers/success", None),
        (
            json!({"subtype": "set_color", "color": "red"}),
            "answers/error",
            Some("Unsupported control request subtype: set_color"),
        ),
        (json!({"subtype": "sneeze"}), "answers/error", Some("Unsupported control request subtype: sneeze")),
        (json!({"subtype": 7}), "answers/error", None),
        (
            json!({"subtype": "initialize", "hooks": {"Sneeze": [{"hookCallbackIds": ["hook_0"]}]}}),
            "answers/error",
            Some("the hook event \"Sneeze\""),
        ),
        (json!({"subtype": "initialize", "agents": {"a": {}}}), "answers/error", Some("the agent \"a\"")),
        (json!({"subtype": "initialize", "mcpServers": ["lab"]}), "answers/error", Some("'mcpServers'")),
        (json!({"subtype": "initialize", "sdkMcpServers": [7]}), "answers/error", Some("'sdkMcpServers'")),
        (json!({"subtype": "initialize", "jsonSchema": "object"}), "answers/error", Some("'jsonSchema'")),
        (
            json!({"subtype": "initialize", "agents": {}, "sdkMcpServers": [], "title": "t"}),
            "answers/success",
            None,
        ),
    ] {
        agent.control("x", request.clone()).await;
        let mut answer = agent.next().await.unwrap();
        while kind_of(&answer).starts_with("system/") {
            answer = agent.next().await.unwrap();
        }
        assert_eq!(kind_of(&answer), kind, "{request}");
        if let Some(error) = error {
            let said = answer["response"]["error"].as_str().unwrap();
            assert!(said.contains(error), "{request}: {said}");
        }
    }
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn several_prompts_in_one_process() {
    let server = model(&json!({"replies": [{"text": "One."}, {"text": "Two."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[]);
    agent.prompt("first").await;
    agent.prompt("second").await;
    let (frames, _, code) = agent.end().await;
    let turn = ["state/running", "system/init", "assistant", "result/success", "state/idle"];
    assert_eq!(kinds_of(&frames), [turn, turn].concat());
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn lines_that_are_no_json_end_it_and_those_not_known_do_not() {
    for (line, code) in [
        (&b"not json\n"[..], 1),
        (b"{\"type\":\"user\"}\n", 1),
        (b"[]\n", 0),
        (b"{}\n", 0),
        (b"\xff\xfe\n", 1),
        (b"{\"type\":\"user\",\"mess", 1),
        (&vec![b' '; 37 * 1024 * 1024], 1),
        (&[b'['; 200_000], 1),
        (b"\n\n\n", 0),
        (b"{\"type\":\"keep_alive\"}\n", 0),
        (b"{\"type\":\"tomorrow\",\"x\":1}\n", 0),
        (b"{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"none\"}}\n", 0),
        (b"", 0),
    ] {
        let server = model(&json!({"replies": []})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &[]);
        // It may be gone before it has read everything.
        let _ = agent.stdin.as_mut().unwrap().write_all(line).await;
        let (frames, stderr, status) = agent.end().await;
        let shown = String::from_utf8_lossy(&line[..line.len().min(60)]);
        assert_eq!((frames.len(), status), (0, Some(code)), "{shown}: {stderr}");
        assert_eq!(stderr.to_lowercase().contains("error"), code == 1, "{shown}: {stderr}");
        assert!(stderr.len() < 1000);
    }
}

#[tokio::test]
async fn a_bad_line_in_mid_turn_stops_the_tools() {
    let (server, folder, mut agent) = in_a_command().await;
    agent.write(b"nonsense\n").await;
    let (_, stderr, code) = agent.end().await;
    assert_eq!(code, Some(1), "{stderr}");
    assert_gone(folder.path());
    drop(server);
}

/// An agent whose Bash call sleeps, and has said so.
async fn in_a_command() -> (Server, tempfile::TempDir, Agent) {
    let bash =
        call("toolu_1", "Bash", json!({"command": "mkfifo up; echo $$ > pid; echo x > up; sleep 600"}));
    let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Here."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
    agent.prompt("hi").await;
    agent.until("assistant").await;
    let fifo = folder.path().join("up");
    while !folder.path().join("pid").exists() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tokio::fs::read_to_string(fifo).await.unwrap(), "x\n");
    (server, folder, agent)
}

fn assert_gone(folder: &Path) {
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "the command ended with the agent");
}

#[tokio::test]
async fn sigterm_ends_it_with_143_and_without_a_result() {
    let (_server, folder, agent) = in_a_command().await;
    agent.signal(rustix::process::Signal::TERM);
    let (frames, stderr, code) = agent.wait().await;
    assert_eq!(code, Some(143), "{stderr}");
    assert!(frames.iter().all(|frame| frame["type"] != "result"), "{:?}", kinds_of(&frames));
    assert_gone(folder.path());
}

#[tokio::test]
async fn sigint_interrupts_and_then_ends_it_with_0() {
    let (_server, folder, agent) = in_a_command().await;
    agent.signal(rustix::process::Signal::INT);
    let (frames, stderr, code) = agent.wait().await;
    assert_eq!(code, Some(0), "{stderr}");
    let result = frames.iter().find(|frame| frame["type"] == "result").unwrap();
    assert_eq!(result["terminal_reason"], "aborted_tools");
    assert_gone(folder.path());
}

#[tokio::test]
async fn a_host_that_goes_away_ends_it() {
    let (_server, folder, agent) = in_a_command().await;
    let Agent { mut child, stdin, lines } = agent;
    drop(lines);
    let status = tokio::time::timeout(PATIENCE, async {
        // The next line that it writes finds nobody.
        let mut stdin = stdin.unwrap();
        let request =
            json!({"type": "control_request", "request_id": "1", "request": {"subtype": "interrupt"}});
        stdin.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        child.wait().await.unwrap()
    });
    assert_eq!(status.await.unwrap().code(), Some(1));
    assert_gone(folder.path());
}

#[tokio::test]
async fn lines_stay_under_the_limit() {
    let big = "é\"".repeat(900_000);
    let write = call("toolu_1", "Write", json!({"file_path": "big.txt", "content": big}));
    let script = json!({"replies": [
        {"tool_use": [write], "chunk_bytes": 200_000},
        {"text": "x".repeat(3_000_000), "chunk_bytes": 200_000},
    ]});
    let server = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(
        &server,
        folder.path(),
        &["--permission-mode=acceptEdits", "--include-partial-messages"],
    );
    agent.prompt("hi").await;
    agent.stdin = None;
    let mut kinds = Vec::new();
    while let Some(line) = agent.lines.next_line().await.unwrap() {
        assert!(line.len() < 1024 * 1024, "{}", line.len());
        kinds.push(kind_of(&serde_json::from_str(&line).unwrap()));
    }
    assert!(kinds.contains(&"result/success".to_owned()), "{kinds:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("big.txt")).unwrap(), big);
}

#[tokio::test]
async fn the_key_is_kept_from_the_tools() {
    // Root may read any process: what matters then is the sandbox around both.
    let root = rustix::process::geteuid().is_root();
    let look = if root {
        "env; set"
    } else {
        "env; set; cat /proc/$PPID/environ /proc/$PPID/mem 2>&1 | head -c 9999"
    };
    let server =
        model(&json!({"replies": [{"tool_use": [call("toolu_1", "Bash", json!({"command": look}))]}, {"text": "Done."}]}))
            .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
    agent.prompt("hi").await;
    let (frames, _, _) = agent.end().await;
    let seen = frames.iter().find(|frame| frame["type"] == "user").unwrap().to_string();
    assert!(seen.contains("CLAUDECODE=1"), "{seen}");
    assert!(!seen.contains("ANTHROPIC_"), "{seen}");
    assert!(!seen.contains("sk-ant-binary"), "{seen}");
    assert_eq!(server.requests()[0].header("x-api-key"), Some("sk-ant-binary"));
}

/// As in a container whose init was started from outside: session and process group have no number inside, they read as 0.
#[tokio::test]
async fn a_session_leader_outside_the_pid_namespace_does_not_matter() {
    let server = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Bash", json!({"command": "setsid sleep 1000 & echo ran; sleep 1000", "timeout": 300}))]},
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child", "--"])
        .arg(env!("CARGO_BIN_EXE_wardian-agent"))
        .args(["-p", "hi", "--output-format=stream-json", "--verbose", "--dangerously-skip-permissions"])
        .current_dir(folder.path())
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("ANTHROPIC_API_KEY", "sk-ant-binary"), ("IS_SANDBOX", "1")])
        .env("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1")
        .env("ANTHROPIC_BASE_URL", server.base_url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = String::new();
    let read = child.stdout.as_mut().unwrap().read_to_string(&mut stdout);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("took longer than 300 ms and was ended"), "{stdout}");
}

#[tokio::test]
async fn one_prompt_on_the_command_line() {
    for (args, stdin, expected, code) in [
        (&["-p", "hi"][..], "", "Hello.\n", 0),
        (&["-p"], "hi", "Hello.\n", 0),
        (&["hi"], "", "Hello.\n", 0),
        (&["-p", "hi", "--output-format=json"], "", "\"result\":\"Hello.\"", 0),
        (&["-p", "hi", "--output-format", "stream-json"], "", "\"subtype\":\"init\"", 0),
        (&["-p", "--model", "claude-fail", "hi"], "", "API Error: 400", 1),
    ] {
        let server = model(&json!({"replies": [
            {"match": {"model": "claude-fail"}, "error": {"status": 400}},
            {"text": "Hello."},
        ]}))
        .await;
        let folder = tempfile::tempdir().unwrap();
        let mut child = command(&server, folder.path(), args).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(expected), "{args:?}: {stdout} {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{args:?}");
    }
}

#[tokio::test]
async fn flags_are_refused_by_name_before_anything_is_asked() {
    for (args, root, expected) in [
        (&["--x"][..], false, "error: unknown option '--x'\n"),
        (&["--resume=11111111-2222-3333-4444-555555555555", "-p", "hi"], false, "No conversation found with"),
        (&["--continue", "-p", "hi"], false, "No conversation found to continue"),
        (
            &["-c", "--session-id=11111111-2222-3333-4444-555555555555", "-p", "hi"],
            false,
            "also needs --fork-session",
        ),
        (&["--input-format=stream-json"], false, "needs --output-format stream-json"),
        (&["--settings", "{\"hooks\":{\"Stop\":[1]}}", "-p", "hi"], false, "the setting 'hooks'"),
        (&["--settings", "/nowhere.json", "-p", "hi"], false, "failed to read /nowhere.json"),
        (&["-p", "hi", "--allowedTools", "Bash(("], false, "rule"),
        (&["-p", "hi", "--permission-mode=bypassPermissions"], true, "is not for root"),
        (&["-p", ""], false, ""),
    ] {
        let server = model(&json!({"replies": []})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(&server, folder.path(), args);
        if root {
            if !rustix::process::geteuid().is_root() {
                continue;
            }
            command.env_remove("IS_SANDBOX");
        }
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
}

/// A host writes its first line whenever it gets to it; what cannot begin waits for it, so that the host hears why and
/// not of a closed pipe.
#[tokio::test]
async fn what_cannot_begin_hears_its_host_out() {
    let missing = "11111111-2222-4333-8444-555555555555";
    for (flags, told) in [
        (["--nonsense", "--verbose"], "error: unknown option '--nonsense'"),
        (["--resume", missing], "No conversation found with session ID"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wardian-agent"));
        command.args(["--output-format", "stream-json", "--input-format", "stream-json"]).args(flags);
        command.env_clear().env("HOME", home.path()).current_dir(home.path()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut agent = command.spawn().unwrap();
        let mut errors = BufReader::new(agent.stderr.take().unwrap()).lines();
        // It has said all that it will say before its host writes.
        while !errors.next_line().await.unwrap().unwrap().starts_with(told) {}
        let mut stdin = agent.stdin.take().unwrap();
        stdin.write_all(&[b'x'; 200_000]).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
        assert_eq!(agent.wait().await.unwrap().code(), Some(1), "{told}");
    }
}
