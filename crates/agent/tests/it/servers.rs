//! Tool servers that are programs, good ones and hostile ones, through the program itself.

use std::path::Path;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::{Value, json};
use wardian_model::Server;

use crate::process::{Agent, at, kind_of};
use crate::support::{call, model};

/// A server in Python: a line of its own for what it does with each request. `WHAT` is set by the environment.
const PROGRAM: &str = r#"
import json, os, subprocess, sys, time
what = os.environ.get("WHAT", "")
def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
def answer(id, result):
    say({"jsonrpc": "2.0", "id": id, "result": result})
def text(text, **more):
    return {"content": [{"type": "text", "text": text}], **more}
if "PID_FILE" in os.environ:
    open(os.environ["PID_FILE"], "a").write("%d\n" % os.getpid())
if what == "dies at once":
    sys.stderr.write("no license\n"); sys.exit(3)
if what == "is deaf":
    time.sleep(600)
if what == "has a child":
    child = subprocess.Popen(["sleep", "600"])
    open(os.environ["PID_FILE"], "a").write("%d\n" % child.pid)
if what == "prints":
    print("Welcome to the server!\n{\"half\": \n[1]\n7\n{}")
lists = 0
for line in sys.stdin:
    asked = json.loads(line)
    id, method = asked.get("id"), asked.get("method")
    params = asked.get("params", {})
    if method == "initialize":
        if what == "talks nonsense": answer(id, 7); continue
        if what == "refuses": say({"jsonrpc": "2.0", "id": id, "error": {"code": -1, "message": "go away"}}); continue
        if what == "gives a long line": sys.stdout.write("x" * (17 * 1024 * 1024)); sys.stdout.flush()
        if what == "is not text": sys.stdout.buffer.write(b"\xff\xfe\n"); sys.stdout.flush()
        if what == "floods":
            while True: say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}})
        answer(id, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": True}, "resources": {}},
            "serverInfo": {"name": "pysrv", "version": "1"}, "instructions": "Use add for sums."})
    elif method == "tools/list":
        if what == "lists nonsense": answer(id, {"tools": "none"}); continue
        if what == "lists for ever": answer(id, {"tools": [{"name": "t%s" % lists}], "nextCursor": "x"}); lists += 1; continue
        if what == "lists a flood":
            answer(id, {"tools": [{"name": "t%d" % n, "description": "x" * 100} for n in range(20000)]}); continue
        lists += 1
        names = ["add", "other"] if what == "changes" and lists > 1 else ["add"]
        odd = [7, {}, {"name": ""}, {"name": "n" * 200}, {"name": 5}]
        answer(id, {"tools": odd + [{"name": name, "description": "Adds.", "inputSchema": {"properties": {"a": {"type": "number"}}}} for name in names]})
    elif method == "tools/call":
        if what == "hangs": continue
        if what == "dies in a call": sys.exit(1)
        if what == "dies once" and not os.path.exists(os.environ["PID_FILE"] + ".died"):
            open(os.environ["PID_FILE"] + ".died", "w"); sys.exit(1)
        if what == "answers twice": answer(id, text("first")); answer(id, text("second")); answer(999999, text("whose?")); continue
        if what == "gives much": answer(id, text("word " * 200000)); continue
        if what == "is structured": answer(id, text("one", structuredContent={"a": 1})); continue
        if what == "gives nonsense": say({"jsonrpc": "2.0", "id": id}); continue
        if what == "shows its environment": answer(id, text(json.dumps(dict(os.environ)))); continue
        if what == "asks much":
            for n in range(1000): say({"jsonrpc": "2.0", "id": "q%d" % n, "method": "elicitation/create", "params": {"message": "?"}})
            answer(id, text("asked")); continue
        if what == "asks":
            say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {"message": "Your name?",
                "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "number"}}}}})
            answer(id, text(json.dumps(json.loads(sys.stdin.readline())["result"]))); continue
        if what == "asks for roots":
            say({"jsonrpc": "2.0", "id": 1, "method": "roots/list"})
            answer(id, text(sys.stdin.readline())); continue
        if what == "asks for a model":
            say({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}})
            answer(id, text(sys.stdin.readline())); continue
        if what == "changes": say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        if what == "has progress":
            token = params["_meta"]["progressToken"]
            for n in range(50): say({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": n}})
        answer(id, text(json.dumps(params.get("arguments"))))
    elif method == "resources/list":
        answer(id, {"resources": [{"uri": "test://one", "name": "one", "mimeType": "text/plain"}, {"name": "no uri"}, 7, {"uri": "test://bin"}]})
    elif method == "resources/read":
        uri = params["uri"]
        if uri == "test://bin": answer(id, {"contents": [{"uri": uri, "mimeType": "a/b", "blob": "AAEC"}]})
        elif uri == "test://odd": answer(id, {"contents": [{"uri": uri, "blob": "%%%"}, 7]})
        elif uri == "test://none": say({"jsonrpc": "2.0", "id": id, "error": {"code": -32002, "message": "no such thing"}})
        else: answer(id, {"contents": [{"uri": uri, "mimeType": "text/plain", "text": "the text"}]})
    elif method == "notifications/cancelled" and "PID_FILE" in os.environ:
        open(os.environ["PID_FILE"] + ".cancelled", "w").write(line)
"#;

const STREAM: [&str; 5] = [
    "--output-format=stream-json",
    "--verbose",
    "--input-format=stream-json",
    "--allowedTools=mcp__lab",
    "--mcp-config",
];

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("server.py"), PROGRAM).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, what: &str, always_load: bool) -> Value {
        json!({
            "command": "python3",
            "args": [self.file("server.py")],
            "env": {"WHAT": what, "PID_FILE": self.file("pids")},
            "alwaysLoad": always_load,
        })
    }

    /// The program with a server that does this.
    fn agent(&self, model: &Server, what: &str, env: &[(&str, &str)]) -> Agent {
        self.agent_with(model, &json!({"mcpServers": {"lab": self.config(what, true)}}), env, &[])
    }

    fn agent_with(&self, model: &Server, config: &Value, env: &[(&str, &str)], more: &[&str]) -> Agent {
        let config = config.to_string();
        let args: Vec<&str> =
            STREAM.iter().copied().chain([config.as_str()]).chain(more.iter().copied()).collect();
        let mut command = at(&model.base_url(), self.folder.path(), &args);
        command.envs(env.iter().copied());
        Agent::spawn(command)
    }

    fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.file("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok() && !stat.contains(") Z ")
}

/// Waits until none of these is left.
async fn are_gone(pids: &[i32]) {
    let gone = async {
        while pids.iter().any(|pid| is_alive(*pid)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::process::PATIENCE, gone).await.expect("they end");
}

async fn calling(times: usize) -> Server {
    let mut replies: Vec<Value> = (0..times)
        .map(|n| json!({"tool_use": [call(&format!("toolu_{n}"), "mcp__lab__add", json!({"a": 1}))]}))
        .collect();
    replies.push(json!({"text": "Done.", "repeat": true}));
    model(&json!({"replies": replies})).await
}

/// A prompt's frames, up to its result.
async fn run(agent: &mut Agent) -> Vec<Value> {
    agent.prompt("add").await;
    agent.until("result/success").await
}

fn init(frames: &[Value]) -> &Value {
    frames.iter().find(|frame| kind_of(frame) == "system/init").unwrap()
}

/// What the program said of its calls, in their order: the text, and whether it is an error.
fn results(frames: &[Value]) -> Vec<(String, bool)> {
    let users = frames.iter().filter(|frame| frame["type"] == "user");
    let result = |frame: &Value| {
        let block = &frame["message"]["content"][0];
        let text = match &block["content"] {
            Value::String(text) => text.clone(),
            blocks => blocks[0]["text"].as_str().unwrap_or_default().to_owned(),
        };
        (text, block["is_error"] == true)
    };
    users.map(result).collect()
}

async fn status(agent: &mut Agent) -> Value {
    agent.control("status", json!({"subtype": "mcp_status"})).await;
    let answer = agent.until("answers/success").await.pop().unwrap();
    answer["response"]["response"]["mcpServers"].clone()
}

#[tokio::test]
async fn a_program_is_started_called_and_ended() {
    let (lab, model) = (Lab::new(), calling(1).await);
    let mut agent = lab.agent(&model, "has a child", &[]);
    agent.control("1", json!({"subtype": "initialize"})).await;
    agent.until("answers/success").await;
    let frames = run(&mut agent).await;
    assert_eq!(
        init(&frames)["mcp_servers"],
        json!([{"name": "lab", "status": "connected", "source": "dynamic"}])
    );
    assert_eq!(results(&frames), [("{\"a\": 1}".to_owned(), false)]);
    let called = frames.iter().find(|frame| frame["type"] == "assistant").unwrap();
    assert_eq!(
        called["tool_use_meta"],
        json!([{"id": "toolu_0", "display_name": "Add", "server_display_name": "pysrv", "tool_name": "add"}])
    );
    let row = status(&mut agent).await[0].clone();
    assert_eq!(
        (&row["status"], &row["scope"], &row["transport"]),
        (&json!("connected"), &json!("dynamic"), &json!("stdio"))
    );
    assert_eq!(row["serverInfo"], json!({"name": "pysrv", "version": "1"}));
    assert_eq!(row["tools"], json!([{"name": "add", "annotations": {}}]));
    assert!(!row.to_string().contains("PID_FILE"), "no environment: {row}");
    let pids = lab.pids();
    assert_eq!(pids.len(), 2);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert_eq!(agent.end().await.2, Some(0));
    are_gone(&pids).await;
}

#[tokio::test]
async fn none_outlives_an_agent_that_is_killed() {
    for signal in [Signal::KILL, Signal::TERM] {
        let (lab, model) = (Lab::new(), calling(1).await);
        let mut agent = lab.agent(&model, "hangs", &[]);
        agent.prompt("add").await;
        agent.until("assistant").await;
        let pids = lab.pids();
        assert!(is_alive(pids[0]));
        agent.signal(signal);
        are_gone(&pids).await;
    }
}

#[tokio::test]
async fn programs_get_no_key() {
    let (lab, model) = (Lab::new(), calling(1).await);
    let mut agent =
        lab.agent(&model, "shows its environment", &[("OTHER", "kept"), ("ANTHROPIC_AUTH_TOKEN", "sk-2")]);
    let frames = run(&mut agent).await;
    let (shown, _) = results(&frames)[0].clone();
    assert!(shown.contains("\"OTHER\": \"kept\"") && shown.contains("PID_FILE"), "{shown}");
    assert!(!shown.contains("sk-") && !shown.contains("ANTHROPIC"), "{shown}");
}

#[tokio::test]
async fn servers_that_cannot_be_used_are_named_and_the_rest_goes_on() {
    for (what, expected) in [
        ("dies at once", "no license"),
        ("talks nonsense", "makes no sense"),
        ("refuses", "go away"),
        ("gives a long line", "closed"),
        ("is not text", "closed"),
        ("floods", "closed"),
        ("lists nonsense", "list of tools"),
        ("is deaf", "did not answer within 5 s"),
    ] {
        let (lab, model) = (Lab::new(), calling(0).await);
        let patience = if what == "is deaf" { "5000" } else { "30000" };
        let config = json!({"mcpServers": {"lab": lab.config(what, true), "good": lab.config("", true),
            "missing": {"command": "/nowhere/server"}, "odd": {"type": "http"}}});
        let mut agent = lab.agent_with(&model, &config, &[("MCP_TIMEOUT", patience)], &[]);
        agent.control("1", json!({"subtype": "initialize"})).await;
        let frames = run(&mut agent).await;
        let rows = init(&frames)["mcp_servers"].as_array().unwrap();
        let states: Vec<_> = rows.iter().map(|row| row["status"].as_str().unwrap()).collect();
        assert_eq!(states, ["failed", "connected", "failed"], "{what}: {rows:?}");
        assert_eq!(init(&frames)["mcp_server_errors"][0]["type"], "invalid_config");
        let tools = init(&frames)["tools"].to_string();
        assert!(tools.contains("mcp__good__add") && !tools.contains("mcp__lab__"), "{what}: {tools}");
        let rows = status(&mut agent).await;
        let error = rows[0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains(expected), "{what}: {error}");
        let missing = rows[2]["error"].as_str().unwrap();
        assert!(missing.contains("/nowhere/server"), "{missing}");
        let pids = lab.pids();
        assert_eq!(agent.end().await.2, Some(0), "{what}");
        are_gone(&pids).await;
    }
}

#[tokio::test]
async fn servers_that_misbehave_in_a_call_are_contained() {
    for (what, expected, is_error) in [
        ("prints", "{\"a\": 1}", false),
        ("has progress", "{\"a\": 1}", false),
        ("answers twice", "first", false),
        ("dies in a call", "closed", true),
        ("hangs", "did not answer within 1 s", true),
        ("gives nonsense", "makes no sense", true),
        ("is structured", "{\"a\":1}", false),
        ("asks much", "asked", false),
        ("asks for a model", "not supported", false),
        ("asks for roots", "file:///", false),
    ] {
        let (lab, model) = (Lab::new(), calling(1).await);
        let patience: &[(&str, &str)] = if what == "hangs" { &[("MCP_TOOL_TIMEOUT", "1000")] } else { &[] };
        let mut agent = lab.agent(&model, what, patience);
        let frames = run(&mut agent).await;
        let (text, failed) = results(&frames)[0].clone();
        assert!(text.contains(expected), "{what}: {text}");
        assert_eq!(failed, is_error, "{what}: {text}");
        let pids = lab.pids();
        assert_eq!(agent.end().await.2, Some(0), "{what}");
        are_gone(&pids).await;
    }
}

#[tokio::test]
async fn a_server_that_died_is_started_again_by_the_next_call() {
    let (lab, model) = (Lab::new(), calling(2).await);
    let mut agent = lab.agent(&model, "dies once", &[]);
    let frames = run(&mut agent).await;
    let results = results(&frames);
    assert!(results[0].1 && results[0].0.contains("closed"), "{results:?}");
    assert_eq!(results[1], ("{\"a\": 1}".to_owned(), false));
    assert_eq!(lab.pids().len(), 2);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn much_is_kept_in_a_file_and_a_limit_is_the_users() {
    for (limit, is_cut) in [(&[][..], true), (&[("MAX_MCP_OUTPUT_TOKENS", "300000")][..], false)] {
        let (lab, model) = (Lab::new(), calling(1).await);
        let mut agent = lab.agent(&model, "gives much", limit);
        let frames = run(&mut agent).await;
        let (text, _) = results(&frames)[0].clone();
        assert_eq!(
            text.contains("1000000 characters"),
            is_cut,
            "{}",
            text.chars().take(300).collect::<String>()
        );
        if is_cut {
            let path = text.split_once(" is in ").unwrap().1.split_once(';').unwrap().0;
            assert_eq!(std::fs::metadata(path).unwrap().len(), 1_000_000);
        }
    }
}

#[tokio::test]
async fn an_interrupt_tells_the_server() {
    let (lab, model) = (Lab::new(), calling(1).await);
    let mut agent = lab.agent(&model, "hangs", &[]);
    agent.prompt("add").await;
    agent.until("assistant").await;
    // The call is out once the server has its line: it is asked for its list before.
    agent.control("i", json!({"subtype": "interrupt"})).await;
    agent.until("result/error_during_execution").await;
    assert_eq!(agent.end().await.2, Some(1));
    assert!(lab.pids().iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn a_servers_question_goes_to_the_host() {
    for (answer, expected) in [
        (
            json!({"action": "accept", "content": {"name": "Ada"}}),
            json!({"action": "accept", "content": {"name": "Ada"}}),
        ),
        (json!({"action": "accept", "content": 7}), json!({"action": "accept"})),
        (json!({"action": "cancel"}), json!({"action": "cancel"})),
        (json!({"action": "decline"}), json!({"action": "decline"})),
        (json!("nonsense"), json!({"action": "decline"})),
    ] {
        let (lab, model) = (Lab::new(), calling(1).await);
        let mut agent = lab.agent(&model, "asks", &[]);
        agent.prompt("add").await;
        let question = agent.until("asks/elicitation").await.pop().unwrap();
        let asked = &question["request"];
        assert_eq!((&asked["mcp_server_name"], &asked["mode"]), (&json!("lab"), &json!("form")));
        assert_eq!(
            (&asked["message"], &asked["property_order"]),
            (&json!("Your name?"), &json!(["name", "age"]))
        );
        agent.answer(&question, answer.clone()).await;
        let frames = agent.until("result/success").await;
        let told: Value = serde_json::from_str(&results(&frames)[0].0).unwrap();
        assert_eq!(told, expected, "{answer}");
    }
}

#[tokio::test]
async fn hooks_may_answer_a_servers_question_and_hear_of_the_answer() {
    let (lab, model) = (Lab::new(), calling(1).await);
    let mut agent = lab.agent(&model, "asks", &[]);
    let on = |id: &str| json!([{"matcher": null, "hookCallbackIds": [id]}]);
    let hooks =
        json!({"PreToolUse": on("before"), "Elicitation": on("asked"), "ElicitationResult": on("answered")});
    agent.control("1", json!({"subtype": "initialize", "hooks": hooks})).await;
    agent.prompt("add").await;
    let before = agent.until("asks/hook_callback").await.pop().unwrap();
    assert_eq!(before["request"]["input"]["mcp_server"], json!({"name": "lab", "source": "dynamic"}));
    agent.answer(&before, json!({})).await;
    let asked = agent.until("asks/hook_callback").await.pop().unwrap();
    let input = &asked["request"]["input"];
    assert_eq!(
        (&input["hook_event_name"], &input["mcp_server_name"]),
        (&json!("Elicitation"), &json!("lab"))
    );
    assert_eq!((&input["message"], &input["mode"]), (&json!("Your name?"), &json!("form")));
    let answer = json!({"hookSpecificOutput": {"hookEventName": "Elicitation", "action": "accept", "content": {"name": "Ada"}}});
    agent.answer(&asked, answer).await;
    let answered = agent.until("asks/hook_callback").await.pop().unwrap();
    let input = &answered["request"]["input"];
    assert_eq!((&input["action"], &input["content"]), (&json!("accept"), &json!({"name": "Ada"})));
    let answer = json!({"hookSpecificOutput": {"hookEventName": "ElicitationResult", "action": "decline"}});
    agent.answer(&answered, answer).await;
    let frames = agent.until("result/success").await;
    assert_eq!(serde_json::from_str::<Value>(&results(&frames)[0].0).unwrap(), json!({"action": "decline"}));
}

#[tokio::test]
async fn lists_have_limits_and_may_change() {
    for (what, count) in [("lists a flood", 1024), ("lists for ever", 64)] {
        let (lab, model) = (Lab::new(), calling(0).await);
        let mut agent = lab.agent(&model, what, &[]);
        let frames = run(&mut agent).await;
        let tools = init(&frames)["tools"].as_array().unwrap();
        assert_eq!(
            tools.iter().filter(|tool| tool.as_str().unwrap().starts_with("mcp__lab")).count(),
            count,
            "{what}"
        );
    }
    let (lab, model) = (Lab::new(), calling(1).await);
    let mut agent = lab.agent(&model, "changes", &[]);
    run(&mut agent).await;
    // The server has said so before it answered the call; its new list may come a moment later.
    loop {
        let rows = status(&mut agent).await;
        if rows[0]["tools"].as_array().unwrap().len() == 2 {
            break;
        }
    }
    let frames = run(&mut agent).await;
    assert!(init(&frames)["tools"].to_string().contains("mcp__lab__other"));
    assert_eq!(agent.end().await.2, Some(0));
}

/// A request and its answer.
async fn ask(agent: &mut Agent, request: Value) -> Result<Value, String> {
    agent.control("asked", request).await;
    loop {
        let frame = agent.next().await.unwrap();
        if frame["type"] == "control_response" && frame["response"]["request_id"] == "asked" {
            let response = &frame["response"];
            return match response["subtype"].as_str().unwrap() {
                "success" => Ok(response["response"].clone()),
                _ => Err(response["error"].as_str().unwrap().to_owned()),
            };
        }
    }
}

#[tokio::test]
async fn a_host_steers_its_servers() {
    let (lab, model) = (Lab::new(), calling(0).await);
    let mut agent = lab.agent(&model, "", &[]);
    assert_eq!(ask(&mut agent, json!({"subtype": "mcp_status"})).await, Ok(json!({"mcpServers": []})));
    ask(&mut agent, json!({"subtype": "initialize"})).await.unwrap();
    let server = |subtype: &str, name: &str| json!({"subtype": subtype, "serverName": name});
    let toggle = |enabled: bool| json!({"subtype": "mcp_toggle", "serverName": "lab", "enabled": enabled});
    let unknown = Err("Server not found: nope".to_owned());
    assert_eq!(ask(&mut agent, server("mcp_reconnect", "nope")).await, unknown);
    assert_eq!(
        ask(&mut agent, json!({"subtype": "mcp_toggle", "serverName": "nope", "enabled": true})).await,
        unknown
    );
    ask(&mut agent, server("mcp_reconnect", "lab")).await.unwrap();
    let first = lab.pids();
    assert_eq!(status(&mut agent).await[0]["status"], "connected");
    ask(&mut agent, toggle(false)).await.unwrap();
    assert_eq!(status(&mut agent).await[0]["status"], "disabled");
    are_gone(&first).await;
    assert!(ask(&mut agent, server("mcp_reconnect", "lab")).await.unwrap_err().contains("disabled"));
    let frames = run(&mut agent).await;
    assert!(!init(&frames)["tools"].to_string().contains("mcp__lab"));
    ask(&mut agent, toggle(true)).await.unwrap();
    let frames = run(&mut agent).await;
    assert!(init(&frames)["tools"].to_string().contains("mcp__lab__add"));

    let call = |tool: &str| json!({"subtype": "mcp_call", "tool": tool, "arguments": {"a": 2}});
    let answer = ask(&mut agent, call("mcp__lab__add")).await.unwrap();
    assert_eq!(answer, json!({"content": [{"type": "text", "text": "{\"a\": 2}"}]}));
    assert!(ask(&mut agent, call("mcp__lab__nope")).await.unwrap_err().contains("no tool"));
    assert_eq!(ask(&mut agent, call("mcp__nope__x")).await, Err("MCP server not connected: nope".to_owned()));
    assert!(ask(&mut agent, call("Bash")).await.is_err());
    let mut staged = call("mcp__lab__add");
    staged["check_permissions"] = true.into();
    assert!(ask(&mut agent, staged).await.unwrap_err().contains("check_permissions"));

    let read = |uri: &str| json!({"subtype": "mcp_read_resource", "serverName": "lab", "uri": uri});
    let answer = ask(&mut agent, read("ui://x")).await.unwrap();
    assert_eq!(answer["contents"][0]["text"], "the text");
    assert!(ask(&mut agent, read("test://one")).await.unwrap_err().contains("ui://"));
    assert_eq!(agent.end().await.2, Some(0));
    are_gone(&lab.pids()).await;
}

#[tokio::test]
async fn a_host_changes_its_servers() {
    let (lab, model) = (Lab::new(), calling(0).await);
    let mut agent = lab.agent(&model, "", &[]);
    ask(&mut agent, json!({"subtype": "initialize"})).await.unwrap();
    let set = |servers: Value| json!({"subtype": "mcp_set_servers", "servers": servers});
    let changes = ask(
        &mut agent,
        set(json!({"two": lab.config("", true), "bad": {"command": "/nowhere/x"}, "odd": {"type": "x"}})),
    )
    .await
    .unwrap();
    assert_eq!((&changes["added"], &changes["removed"]), (&json!(["two", "bad"]), &json!([])));
    let errors: Vec<&String> = changes["errors"].as_object().unwrap().keys().collect();
    assert_eq!(errors, ["bad", "odd"]);
    let frames = run(&mut agent).await;
    let tools = init(&frames)["tools"].to_string();
    assert!(tools.contains("mcp__lab__add") && tools.contains("mcp__two__add"), "{tools}");
    let again = ask(&mut agent, set(json!({"two": lab.config("", true)}))).await.unwrap();
    assert_eq!((&again["added"], &again["removed"]), (&json!([]), &json!(["bad"])), "what is the same stays");
    let other = ask(&mut agent, set(json!({"two": lab.config("prints", true)}))).await.unwrap();
    assert_eq!((&other["added"], &other["removed"]), (&json!(["two"]), &json!(["two"])));
    let none = ask(&mut agent, set(json!({}))).await.unwrap();
    assert_eq!(none, json!({"added": [], "removed": ["two"], "errors": {}}), "what a flag named stays");
    let rows = status(&mut agent).await;
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(agent.end().await.2, Some(0));
    are_gone(&lab.pids()).await;
}

#[tokio::test]
async fn tools_are_searched_for_and_stay_found() {
    let search = call("toolu_1", "ToolSearch", json!({"query": "select:mcp__lab__add"}));
    let nothing = call("toolu_2", "ToolSearch", json!({"query": "zzzz"}));
    let add = call("toolu_3", "mcp__lab__add", json!({"a": 5}));
    let script =
        json!({"replies": [{"tool_use": [search, nothing]}, {"tool_use": [add]}, {"text": "Done."}]});
    let (lab, model) = (Lab::new(), model(&script).await);
    let config = json!({"mcpServers": {"lab": lab.config("", false)}});
    let mut agent = lab.agent_with(&model, &config, &[], &[]);
    let frames = run(&mut agent).await;
    let tools = init(&frames)["tools"].to_string();
    assert!(tools.contains("\"ToolSearch\"") && tools.contains("mcp__lab__add"), "{tools}");
    assert!(tools.contains("ListMcpResourcesTool") && tools.contains("ReadMcpResourceTool"), "{tools}");
    let found = frames.iter().find(|frame| frame["type"] == "user").unwrap();
    assert_eq!(
        found["tool_use_result"],
        json!({"matches": ["mcp__lab__add"], "query": "select:mcp__lab__add", "total_deferred_tools": 1})
    );
    let bodies: Vec<Value> = model.requests().iter().map(|request| request.body.clone()).collect();
    let named = |body: &Value| {
        let tools = body["tools"].as_array().unwrap().iter();
        tools.filter(|tool| tool["name"] == "mcp__lab__add").cloned().collect::<Vec<_>>()
    };
    assert!(named(&bodies[0]).is_empty());
    assert_eq!(named(&bodies[1])[0]["defer_loading"], true);
    assert_eq!(named(&bodies[2]), named(&bodies[1]));
    assert!(
        bodies[1]["messages"]
            .to_string()
            .contains(r#"{"type":"tool_reference","tool_name":"mcp__lab__add"}"#)
    );
    let told = bodies[0]["messages"][0]["content"].to_string();
    assert!(told.contains("mcp__lab__add") && told.contains("Use add for sums."), "{told}");
    // What was said stays as it was, and the servers are told of once.
    let mut first = bodies[0]["messages"][0]["content"].clone();
    let mut last = bodies[2]["messages"][0]["content"].clone();
    for content in [&mut first, &mut last] {
        for block in content.as_array_mut().unwrap() {
            block.as_object_mut().unwrap().shift_remove("cache_control");
        }
    }
    assert_eq!(first, last);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn tools_are_not_searched_for_where_that_is_off_or_cannot_be() {
    for (env, flags) in [
        (&[("ENABLE_TOOL_SEARCH", "false")][..], &[][..]),
        (&[("ENABLE_TOOL_SEARCH", "auto")][..], &[][..]),
        (&[][..], &["--tools=Read"][..]),
        (&[][..], &["--disallowedTools=ToolSearch"][..]),
    ] {
        let (lab, model) = (Lab::new(), calling(0).await);
        let config = json!({"mcpServers": {"lab": lab.config("", false)}});
        let mut agent = lab.agent_with(&model, &config, env, flags);
        let frames = run(&mut agent).await;
        assert!(!init(&frames)["tools"].to_string().contains("ToolSearch"), "{env:?} {flags:?}");
        let body = model.requests()[0].body.clone();
        let offered = body["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "mcp__lab__add");
        assert_eq!(offered.unwrap().get("defer_loading"), None, "{env:?} {flags:?}");
    }
}

#[tokio::test]
async fn resources_are_listed_and_read() {
    let read = |n: usize, server: &str, uri: &str| {
        call(&format!("toolu_{n}"), "ReadMcpResourceTool", json!({"server": server, "uri": uri}))
    };
    let list = |n: usize, input: Value| call(&format!("toolu_{n}"), "ListMcpResourcesTool", input);
    let script = json!({"replies": [
        {"tool_use": [list(1, json!({})), list(2, json!({"server": "nope"})), read(3, "lab", "test://one"),
            read(4, "lab", "test://bin"), read(5, "lab", "test://none"), read(6, "nope", "x"), read(7, "lab", "test://odd")]},
        {"text": "Done."},
    ]});
    let (lab, model) = (Lab::new(), model(&script).await);
    let mut agent = lab.agent(&model, "", &[]);
    let frames = run(&mut agent).await;
    let given: Vec<Value> = frames
        .iter()
        .filter(|frame| frame["type"] == "user")
        .map(|frame| frame["tool_use_result"].clone())
        .collect();
    assert_eq!(
        given[0],
        json!([{"name": "one", "uri": "test://one", "mimeType": "text/plain", "server": "lab"},
            {"name": "test://bin", "uri": "test://bin", "server": "lab"}])
    );
    assert!(given[1].as_str().unwrap().contains("The servers are: lab"));
    assert_eq!(
        given[2],
        json!({"contents": [{"uri": "test://one", "mimeType": "text/plain", "text": "the text"}]})
    );
    let path = given[3]["contents"][0]["blobSavedTo"].as_str().unwrap();
    assert_eq!(std::fs::read(Path::new(path)).unwrap(), [0, 1, 2]);
    assert!(given[4]["error"].as_str().unwrap().contains("no such thing"));
    assert!(given[5].as_str().unwrap().starts_with("Error: "));
    assert!(given[6]["contents"][0]["text"].as_str().unwrap().contains("base64"));
    assert_eq!(agent.end().await.2, Some(0));
}
