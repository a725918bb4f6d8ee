//! The debug log: what is in it, what never is, and that one that cannot be written stops nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use wardian_model::Server;

use crate::process::{Agent, at};
use crate::support::{call, canned, model, response};

const STREAM: [&str; 4] =
    ["--output-format=stream-json", "--verbose", "--input-format=stream-json", "--debug-file"];
/// Prints what it was given, as a careless server does, and dies.
const CARELESS: &str =
    "import os, sys; sys.stderr.write('failed with ' + os.environ['DB'] + '\\n'); sys.exit(3)";
/// What must never be in the log.
const SECRETS: &[&str] = &[
    "sk-ant-binary",
    "header-of-the-api",
    "header-of-a-server",
    "env-of-a-server",
    "token-in-env",
    "proxy-password",
    "later-header",
    "text of the prompt",
    "text of the reply",
    "text of a tool",
    "text of a hook",
    "text of the system",
];

fn agent(server: &Server, folder: &Path, log: &Path, more: &[&str]) -> Agent {
    let args: Vec<&str> =
        STREAM.into_iter().chain([log.to_str().unwrap()]).chain(more.iter().copied()).collect();
    let mut command = at(&server.base_url(), folder, &args);
    command.env("HOME", folder).envs([
        ("ANTHROPIC_CUSTOM_HEADERS", "x-team: header-of-the-api"),
        ("MY_TOKEN", "token-in-env"),
        ("HTTPS_PROXY", "http://me:proxy-password@127.0.0.1:9"),
    ]);
    Agent::spawn(command)
}

#[tokio::test]
async fn what_is_done_is_logged_and_nothing_that_is_said_or_secret() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("logs/debug.log");
    // The server says what it was sent: the reason that it cannot be used.
    let body = r#"{"error":"bad token header-of-a-server of sk-ant-binary and proxy-password"}"#;
    let (careless, served) = canned(vec![response("403 Forbidden", "application/json", body)]).await;
    let hook = json!({"hooks": [{"type": "command", "command": "echo text of a hook >&2; exit 2"}]});
    std::fs::create_dir(folder.path().join(".claude")).unwrap();
    std::fs::write(
        folder.path().join(".claude/settings.json"),
        json!({"hooks": {"PostToolUse": [hook]}, "permissions": {"deny": ["Bash(rm *)"]}}).to_string(),
    )
    .unwrap();
    let servers = json!({"mcpServers": {
        "printer": {"command": "python3", "args": ["-c", CARELESS], "env": {"DB": "env-of-a-server"}},
        "web": {"type": "http", "url": careless, "headers": {"Authorization": "Bearer header-of-a-server"}},
    }});
    let calls = [
        call("toolu_1", "Bash", json!({"command": "echo text of a tool $MY_TOKEN"})),
        call("toolu_2", "Bash", json!({"command": "rm text of a tool"})),
        call("toolu_3", "No such\ntool", json!({})),
    ];
    let server = model(&json!({"replies": [
        {"error": {"status": 529, "message": "header-of-the-api, text of the prompt", "headers": {"retry-after": "0"}}},
        {"text": "text of the reply", "tool_use": calls},
        {"text": "text of the reply"},
    ]}))
    .await;
    let config = servers.to_string();
    let more = ["--mcp-config", &config, "--system-prompt", "text of the system", "--allowedTools=Bash"];
    let mut agent = agent(&server, folder.path(), &log, &more);
    agent.control("1", json!({"subtype": "initialize", "hooks": null})).await;
    let later = json!({"late": {"type": "http", "url": "http://127.0.0.1:9/later-header", "headers": {"K": "later-header"}}});
    agent.control("2", json!({"subtype": "mcp_set_servers", "servers": later})).await;
    agent.prompt("text of the prompt").await;
    agent.until("result/success").await;
    let (_, _, code) = agent.end().await;
    assert_eq!(code, Some(0));
    served.abort();

    let text = std::fs::read_to_string(&log).unwrap();
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        let level = rest.split_once(' ').unwrap().0;
        assert!(["[ERROR]", "[WARN]", "[INFO]", "[DEBUG]"].contains(&level), "{line}");
    }
    for part in [
        "[INFO] start version=",
        "flags=output-format verbose input-format debug-file mcp-config system-prompt allowed-tools",
        "settings source=userSettings keys=hooks permissions",
        "model call: failed status=529",
        "model call: again attempt=1",
        "model call status=200",
        "tool tool=Bash id=toolu_1",
        "tool: refused tool=Bash id=toolu_2",
        "hook event=PostToolUse answered=blocks",
        "a tool server cannot be used server=printer",
        "a tool server cannot be used server=web",
        "turn ended subtype=success",
        "end ended=Done",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else reads it");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Below a file, a folder, a pipe that nobody reads, a device without room.
    for (log, is_said) in [
        (file.join("below").as_path(), true),
        (folder.path(), true),
        (pipe.as_path(), true),
        (Path::new("/dev/full"), false),
    ] {
        let server = model(&json!({"replies": [{"text": "Done."}]})).await;
        let mut agent = agent(&server, folder.path(), log, &[]);
        agent.prompt("hi").await;
        agent.until("result/success").await;
        let (_, stderr, code) = agent.end().await;
        assert_eq!(
            (stderr.contains("no debug log is written"), code),
            (is_said, Some(0)),
            "{log:?}: {stderr}"
        );
    }
}

#[tokio::test]
async fn without_a_file_it_is_below_the_configuration_folder_and_without_a_flag_nowhere() {
    for (args, env, is_written) in [
        (&["--debug"][..], None, true),
        (&["--debug=api"], None, true),
        (&[], Some("1"), true),
        (&[], None, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = model(&json!({"replies": [{"text": "Done."}]})).await;
        let args: Vec<&str> = STREAM[..3].iter().chain(args).copied().collect();
        let mut command = at(&server.base_url(), folder.path(), &args);
        command.env("CLAUDE_CONFIG_DIR", folder.path()).envs(env.map(|value| ("DEBUG", value)));
        let mut agent = Agent::spawn(command);
        agent.prompt("hi").await;
        let frames = agent.until("result/success").await;
        agent.end().await;
        let session: &Value = &frames.last().unwrap()["session_id"];
        let debug = folder.path().join("debug");
        let log = debug.join(format!("{}.txt", session.as_str().unwrap()));
        assert_eq!((log.exists(), debug.exists()), (is_written, is_written), "{args:?}");
        if is_written {
            let latest = std::fs::read_to_string(debug.join("latest")).unwrap();
            assert_eq!(latest, std::fs::read_to_string(log).unwrap());
        }
    }
}
