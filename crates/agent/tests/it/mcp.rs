//! Tools that the host runs in its own process, over the control channel.

use serde_json::{Value, json};
use wardian_model::Server;

use crate::process::{Agent, at, kind_of};
use crate::support::{call, model};

const CONFIG: &str = r#"--mcp-config={"mcpServers":{"lab":{"type":"sdk","name":"lab","alwaysLoad":true}}}"#;
const ALLOW: &str = "--allowedTools=mcp__lab";

fn manifest() -> (Value, Value) {
    let about = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
        "serverInfo": {"name": "lab", "version": "1"}});
    let schema = json!({"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]});
    let tools = json!({"tools": [
        {"name": "add", "description": "Adds.", "inputSchema": schema},
        {"name": "look it up", "inputSchema": {}},
    ]});
    (about, tools)
}

/// Answers the questions of a handshake; gives the method of any other.
async fn shake(agent: &mut Agent, question: &Value) -> Option<String> {
    let message = &question["request"]["message"];
    let (about, tools) = manifest();
    let result = match message["method"].as_str()? {
        "initialize" => about,
        "tools/list" => tools,
        "notifications/initialized" => json!({}),
        other => return Some(other.to_owned()),
    };
    answer(agent, question, result).await;
    None
}

pub async fn answer(agent: &mut Agent, question: &Value, result: Value) {
    let id = question["request"]["message"]["id"].clone();
    agent.answer(question, json!({"mcp_response": {"jsonrpc": "2.0", "id": id, "result": result}})).await;
}

/// The next `tools/call`, with the frames before it; the handshake is answered on the way.
pub async fn next_call(agent: &mut Agent) -> (Vec<Value>, Value) {
    let mut frames = Vec::new();
    loop {
        let frame = agent.next().await.unwrap();
        if kind_of(&frame) == "asks/mcp_message" {
            if shake(agent, &frame).await.is_some() {
                return (frames, frame);
            }
        } else {
            frames.push(frame);
        }
    }
}

async fn calling(inputs: &[Value]) -> Server {
    let calls: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| call(&format!("toolu_{index}"), "mcp__lab__add", input.clone()))
        .collect();
    model(&json!({"replies": [{"tool_use": calls}, {"text": "Done."}]})).await
}

/// The results that the model got.
fn results(server: &Server) -> Vec<Value> {
    let messages = server.requests().pop().unwrap().body["messages"].clone();
    let mut results = messages.as_array().unwrap().last().unwrap()["content"].as_array().unwrap().clone();
    for result in &mut results {
        result.as_object_mut().unwrap().shift_remove("cache_control");
    }
    results
}

#[tokio::test]
async fn a_tool_of_the_host_by_flag_with_the_whole_handshake() {
    let server = calling(&[json!({"a": 1})]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[CONFIG, ALLOW]);
    agent.prompt("add").await;
    let (frames, question) = next_call(&mut agent).await;
    let init = frames.iter().find(|frame| kind_of(frame) == "system/init").unwrap();
    assert_eq!(init["mcp_servers"], json!([{"name": "lab", "status": "connected", "source": "sdk"}]));
    let tools = init["tools"].as_array().unwrap();
    assert!(
        tools.contains(&json!("mcp__lab__add")) && tools.contains(&json!("mcp__lab__look_it_up")),
        "{init}"
    );
    let asked = &question["request"];
    assert_eq!((&asked["server_name"], &asked["message"]["method"]), (&json!("lab"), &json!("tools/call")));
    let parameters = &asked["message"]["params"];
    assert_eq!((&parameters["name"], &parameters["arguments"]), (&json!("add"), &json!({"a": 1})));
    assert_eq!(parameters["_meta"]["claudecode/toolUseId"], "toolu_0");
    let content = json!([{"type": "text", "text": "It is 2."}, {"type": "image", "mimeType": "image/png", "data": "iVBO"}]);
    answer(&mut agent, &question, json!({"content": content})).await;
    let frames = agent.until("result/success").await;
    let user = frames.iter().find(|frame| frame["type"] == "user").unwrap();
    assert_eq!(user["tool_use_result"], content);
    assert_eq!(
        results(&server),
        [json!({"type": "tool_result", "tool_use_id": "toolu_0", "content": [
            {"type": "text", "text": "It is 2."},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}]})]
    );
    assert_eq!(agent.end().await.2, Some(0));
    let offered = server.requests()[0].body["tools"].clone();
    let add = offered.as_array().unwrap().iter().find(|tool| tool["name"] == "mcp__lab__add").unwrap();
    assert_eq!((&add["description"], &add["input_schema"]["required"]), (&json!("Adds."), &json!(["a"])));
}

#[tokio::test]
async fn by_initialize_and_with_a_manifest_nothing_is_asked_before_the_call() {
    for (manifests, parked) in [(true, json!({"lab": "parked"})), (false, Value::Null)] {
        let server = calling(&[json!({"a": 1})]).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &[ALLOW]);
        let (about, tools) = manifest();
        let mut request = json!({"subtype": "initialize", "sdkMcpServers": ["lab"]});
        if manifests {
            request["sdkMcpServerManifests"] =
                json!({"lab": {"initializeResult": about, "toolsListResult": tools}});
        }
        agent.control("1", request).await;
        agent.prompt("add").await;
        let reply = agent.next().await.unwrap();
        assert_eq!(reply["response"]["response"]["sdk_mcp_manifests_parked"], parked);
        let question = if manifests {
            agent.until("asks/mcp_message").await.pop().unwrap()
        } else {
            next_call(&mut agent).await.1
        };
        assert_eq!(question["request"]["message"]["method"], "tools/call");
        answer(&mut agent, &question, json!({"content": [{"type": "text", "text": "2"}]})).await;
        agent.until("result/success").await;
        assert_eq!(agent.end().await.2, Some(0));
    }
}

#[tokio::test]
async fn calls_are_out_side_by_side_and_answered_in_any_order() {
    let server = calling(&(0..20).map(|n| json!({"a": n})).collect::<Vec<_>>()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[CONFIG, ALLOW]);
    agent.prompt("add").await;
    let mut questions = Vec::new();
    while questions.len() < 20 {
        questions.push(next_call(&mut agent).await.1);
    }
    for question in questions.iter().rev() {
        let n = &question["request"]["message"]["params"]["arguments"]["a"];
        answer(&mut agent, question, json!({"content": [{"type": "text", "text": n.to_string()}]})).await;
    }
    agent.until("result/success").await;
    for (n, result) in results(&server).iter().enumerate() {
        assert_eq!(result["tool_use_id"], format!("toolu_{n}"));
        assert_eq!(result["content"][0]["text"], n.to_string());
    }
}

#[tokio::test]
async fn a_host_that_fails_is_contained() {
    let rpc = |fields: Value| json!({"subtype": "success", "response": {"mcp_response": fields}});
    for (response, expected) in [
        (json!({"subtype": "error", "error": "the host broke"}), "the host broke"),
        (
            rpc(json!({"jsonrpc": "2.0", "id": 9, "error": {"code": -32000, "message": "no such thing"}})),
            "no such thing",
        ),
        (rpc(json!({"jsonrpc": "2.0", "id": 9, "error": 7})), "gave no reason"),
        (rpc(json!({"jsonrpc": "2.0", "id": 9})), "makes no sense"),
        (rpc(json!("nonsense")), "makes no sense"),
        (rpc(Value::Null), "makes no sense"),
        (json!({"subtype": "success", "response": {}}), "makes no sense"),
        (json!({"subtype": "success"}), "makes no sense"),
        (
            rpc(json!({"result": {"isError": true, "content": [{"type": "text", "text": "It broke."}]}})),
            "It broke.",
        ),
    ] {
        let server = calling(&[json!({"a": 1})]).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &[CONFIG, ALLOW]);
        agent.prompt("add").await;
        let (_, question) = next_call(&mut agent).await;
        let mut full = response.clone();
        full["request_id"] = question["request_id"].clone();
        agent.send(json!({"type": "control_response", "response": full})).await;
        agent.until("result/success").await;
        let result = &results(&server)[0];
        assert_eq!(result["is_error"], true, "{response}");
        assert!(result["content"].as_str().unwrap().contains(expected), "{response}: {result}");
    }
}

#[tokio::test]
async fn an_interrupt_ends_the_wait_for_a_call_and_the_next_prompt_works() {
    let server = calling(&[json!({"a": 1}), json!({"a": 2})]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[CONFIG, ALLOW]);
    agent.prompt("add").await;
    let (_, first) = next_call(&mut agent).await;
    let (_, second) = next_call(&mut agent).await;
    agent.control("i", json!({"subtype": "interrupt"})).await;
    let mut frames = agent.until("result/error_during_execution").await;
    agent.prompt("go on").await;
    frames.extend(agent.until("result/success").await);
    let cancelled = frames.iter().filter(|frame| frame["type"] == "control_cancel_request");
    let withdrawn: Vec<&Value> = cancelled.map(|frame| &frame["request_id"]).collect();
    assert_eq!(withdrawn.len(), 2, "{frames:?}");
    assert!(withdrawn.contains(&&first["request_id"]) && withdrawn.contains(&&second["request_id"]));
    let messages = server.requests().pop().unwrap().body["messages"].clone();
    let last = messages.as_array().unwrap().last().unwrap()["content"].as_array().unwrap().clone();
    assert_eq!(
        last.iter().filter(|block| block["type"] == "tool_result" && block["is_error"] == true).count(),
        2
    );
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_host_that_never_answers() {
    // The handshake has its time; what is left works without the server.
    let server = calling(&[json!({"a": 1})]).await;
    let folder = tempfile::tempdir().unwrap();
    let timed = |variable: &str| {
        let flags = ["--output-format=stream-json", "--verbose", "--input-format=stream-json", CONFIG, ALLOW];
        let mut command = at(&server.base_url(), folder.path(), &flags);
        command.env(variable, "50");
        Agent::spawn(command)
    };
    let mut agent = timed("MCP_TIMEOUT");
    agent.prompt("add").await;
    let frames = agent.until("result/success").await;
    let init = frames.iter().find(|frame| kind_of(frame) == "system/init").unwrap();
    assert_eq!(init["mcp_servers"][0]["status"], "failed", "{init}");
    assert!(results(&server)[0]["content"].as_str().unwrap().contains("no tool"));
    drop(agent);
    // A call has its time where the environment gives it one.
    let server = calling(&[json!({"a": 1})]).await;
    let flags = ["--output-format=stream-json", "--verbose", "--input-format=stream-json", CONFIG, ALLOW];
    let mut command = at(&server.base_url(), folder.path(), &flags);
    command.env("MCP_TOOL_TIMEOUT", "50");
    let mut agent = Agent::spawn(command);
    agent.prompt("add").await;
    next_call(&mut agent).await;
    agent.until("result/success").await;
    assert!(results(&server)[0]["content"].as_str().unwrap().contains("did not answer within"));
}

#[tokio::test]
async fn rules_hold_for_the_hosts_tools() {
    let ask = json!({"permissions": {"allow": ["mcp__lab"], "ask": ["mcp__lab__add"]}}).to_string();
    for (flags, asked) in [
        (vec![CONFIG, "--permission-prompt-tool=stdio"], true),
        (vec![CONFIG, "--permission-prompt-tool=stdio", ALLOW], false),
        (vec![CONFIG, "--permission-prompt-tool=stdio", "--settings", &ask], true),
        (vec![CONFIG, "--allowedTools=mcp__lab__add"], false),
    ] {
        let server = calling(&[json!({"a": 1})]).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &flags);
        agent.prompt("add").await;
        let mut questions = 0;
        loop {
            let frame = agent.next().await.unwrap();
            match kind_of(&frame).as_str() {
                "asks/can_use_tool" => {
                    assert_eq!(frame["request"]["tool_name"], "mcp__lab__add");
                    assert_eq!(frame["request"]["mcp_server"], json!({"name": "lab", "source": "sdk"}));
                    assert_eq!(frame["request"]["display_name"], "Add");
                    questions += 1;
                    agent.answer(&frame, json!({"behavior": "allow", "updatedInput": {"a": 5}})).await;
                }
                "asks/mcp_message" if shake(&mut agent, &frame).await.is_some() => {
                    let given = &frame["request"]["message"]["params"]["arguments"]["a"];
                    assert_eq!(given, if asked { 5 } else { 1 });
                    answer(&mut agent, &frame, json!({"content": []})).await;
                }
                "result/success" => break,
                _ => (),
            }
        }
        assert_eq!(questions, u32::from(asked), "{flags:?}");
    }
    let server = model(&json!({"replies": [{"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[CONFIG, "--disallowedTools=mcp__lab__add"]);
    agent.prompt("hi").await;
    while let Some(frame) = agent.next().await {
        match kind_of(&frame).as_str() {
            "asks/mcp_message" => assert_eq!(shake(&mut agent, &frame).await, None),
            "result/success" => break,
            _ => (),
        }
    }
    let offered = server.requests()[0].body["tools"].to_string();
    assert!(!offered.contains("mcp__lab__add") && offered.contains("mcp__lab__look_it_up"), "{offered}");
}

/// Runs one Bash call that the host's tool is asked about and answers so; gives the call's result and whether it ran.
async fn asked(said: Value) -> (Value, bool) {
    let bash = call("toolu_1", "Bash", json!({"command": "touch ran"}));
    let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let flags = [CONFIG, "--permission-prompt-tool=mcp__lab__look_it_up"];
    let mut agent = Agent::start(&server, folder.path(), &flags);
    agent.prompt("go").await;
    let (_, question) = next_call(&mut agent).await;
    let parameters = &question["request"]["message"]["params"];
    assert_eq!(parameters["name"], "look it up");
    let expected = json!({"tool_name": "Bash", "input": {"command": "touch ran"}, "tool_use_id": "toolu_1"});
    assert_eq!(parameters["arguments"], expected);
    answer(&mut agent, &question, said).await;
    agent.until("result/success").await;
    assert_eq!(agent.end().await.2, Some(0));
    (results(&server).remove(0), folder.path().join("ran").exists())
}

#[tokio::test]
async fn a_tool_is_asked_in_place_of_the_host_and_only_a_plain_yes_is_one() {
    let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
    let (result, ran) = asked(text(r#"{"behavior": "allow"}"#)).await;
    assert!(ran && result["is_error"] != true, "{result}");
    let (result, ran) =
        asked(text(r#"{"behavior": "allow", "updatedInput": {"command": "echo PLUM"}}"#)).await;
    assert!(!ran && result["content"] == "PLUM", "{result}");
    for (said, expected) in [
        (text(r#"{"behavior": "deny", "message": "no PLUMS"}"#), "no PLUMS"),
        (text("yes"), "no JSON"),
        (text(r#"{"behavior": "allow", "updatedInput": "ls"}"#), "updatedInput"),
        (
            json!({"isError": true, "content": [{"type": "text", "text": r#"{"behavior": "allow"}"#}]}),
            "it failed",
        ),
        (json!({"content": []}), "said nothing"),
        (json!([]), "mcp__lab__look_it_up"),
    ] {
        let (result, ran) = asked(said.clone()).await;
        let told = result["content"].as_str().unwrap_or_default();
        assert!(!ran && result["is_error"] == true && told.contains(expected), "{said}: {result}");
    }
}

#[tokio::test]
async fn a_tool_that_is_not_there_gives_no_permission() {
    for (name, expected) in [("mcp__lab__gone", "no tool"), ("mcp__nowhere__x", "not connected")] {
        let bash = call("toolu_1", "Bash", json!({"command": "touch ran"}));
        let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let flag = format!("--permission-prompt-tool={name}");
        let mut agent = Agent::start(&server, folder.path(), &[CONFIG, &flag]);
        agent.prompt("go").await;
        loop {
            let frame = agent.next().await.unwrap();
            match kind_of(&frame).as_str() {
                "asks/mcp_message" => assert_eq!(shake(&mut agent, &frame).await, None),
                "result/success" => break,
                _ => (),
            }
        }
        let result = results(&server).remove(0);
        assert!(result["content"].as_str().unwrap().contains(expected), "{result}");
        assert!(!folder.path().join("ran").exists());
    }
}

#[tokio::test]
async fn a_server_has_a_mode_of_its_own_that_only_asks_more() {
    let calls =
        ["one", "two", "three"].map(|id| json!({"tool_use": [call(id, "mcp__lab__add", json!({"a": 1}))]}));
    let done = json!({"text": "Done."});
    let replies: Vec<Value> = calls.into_iter().flat_map(|call| [call, done.clone()]).collect();
    let server = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &[CONFIG, "--permission-mode=bypassPermissions"]);
    let set = |name: &str, mode: Value| json!({"subtype": "set_mcp_permission_mode_override", "serverName": name, "mode": mode});
    agent.control("begin", json!({"subtype": "initialize"})).await;
    for (request, kind) in [
        (set("lab", json!("bypassPermissions")), "answers/error"),
        (set("lab", json!("acceptEdits")), "answers/error"),
        (set("", json!("default")), "answers/error"),
        (set("lab", json!("default")), "answers/success"),
        (set("later", json!("auto")), "answers/success"),
    ] {
        agent.control("set", request.clone()).await;
        let response = loop {
            let frame = agent.next().await.unwrap();
            match kind_of(&frame).as_str() {
                "asks/mcp_message" => assert_eq!(shake(&mut agent, &frame).await, None),
                answered if frame["response"]["request_id"] == "set" => {
                    assert_eq!(answered, kind, "{request}");
                    break frame["response"]["response"].clone();
                }
                _ => (),
            }
        };
        let is_warned = response["warning"].is_string();
        assert_eq!(is_warned, kind == "answers/success" && request["serverName"] == "later", "{request}");
    }
    for ran in [false, true] {
        agent.prompt("add").await;
        loop {
            let frame = agent.next().await.unwrap();
            match kind_of(&frame).as_str() {
                "asks/mcp_message" if shake(&mut agent, &frame).await.is_some() => {
                    answer(&mut agent, &frame, json!({"content": []})).await;
                }
                "result/success" => {
                    assert_eq!(frame["permission_denials"] == json!([]), ran);
                    break;
                }
                _ => (),
            }
        }
        agent.control("clear", set("lab", Value::Null)).await;
        agent.until("answers/success").await;
    }
    // Where the session asks by itself, nothing is let through.
    agent.control("mode", json!({"subtype": "set_permission_mode", "mode": "dontAsk"})).await;
    agent.control("set", set("lab", json!("auto"))).await;
    agent.prompt("add").await;
    let frames = agent.until("result/success").await;
    assert_ne!(frames.last().unwrap()["permission_denials"], json!([]));
    assert_eq!(agent.end().await.2, Some(0));
}
