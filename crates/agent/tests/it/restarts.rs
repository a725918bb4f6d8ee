//! The program is killed, and takes up again what it was doing: nothing is run twice, and the turn comes to its end.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::process::{Agent, kind_of, kinds_of};
use crate::support::{call, model, request_body};
use crate::transcripts::{BYPASS, ID, Place};

/// Calls that a turn makes, one a reply and two in every third.
const REPLIES: usize = 6;

/// A model that goes by the conversation alone: its reply follows from how many there were, as after a restart it must.
/// Every reply streams in pieces.
struct Stateless {
    url: String,
    tasks: tokio_util::task::TaskTracker,
    stop: tokio_util::sync::CancellationToken,
}

impl Stateless {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tasks, stop) =
            (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
        let (spawner, stopped) = (tasks.clone(), stop.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                spawner.spawn(Self::serve(accepted));
            }
        });
        Self { url, tasks, stop }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn serve(mut stream: tokio::net::TcpStream) {
        let Some(body) = request_body(&mut stream).await else { return };
        let problem = problem(&body);
        let head = |status: &str, kind: &str| {
            format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n")
        };
        if let Some(problem) = problem {
            let error =
                json!({"type": "error", "error": {"type": "invalid_request_error", "message": problem}});
            let text = format!("{}{error}", head("400 Bad Request", "application/json"));
            let _ = stream.write_all(text.as_bytes()).await;
            return;
        }
        // The client may be killed at any piece.
        if stream.write_all(head("200 OK", "text/event-stream").as_bytes()).await.is_err() {
            return;
        }
        for event in events(&body) {
            let text = format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
            if stream.write_all(text.as_bytes()).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    }
}

/// What the API would refuse: a call without its one result right after it, or a result without its call.
fn problem(body: &Value) -> Option<String> {
    let messages = body["messages"].as_array().unwrap();
    let ids = |message: Option<&Value>, kind: &str, field: &str| -> Vec<String> {
        let content = message.and_then(|message| message["content"].as_array()).into_iter().flatten();
        content
            .filter(|block| block["type"] == kind)
            .map(|block| block[field].as_str().unwrap().to_owned())
            .collect()
    };
    for (index, message) in messages.iter().enumerate() {
        let mut called =
            if message["role"] == "assistant" { ids(Some(message), "tool_use", "id") } else { Vec::new() };
        let mut answered = match message["role"].as_str() {
            Some("assistant") => ids(messages.get(index + 1), "tool_result", "tool_use_id"),
            _ if index == 0 => {
                called = ids(Some(message), "tool_result", "tool_use_id");
                Vec::new()
            }
            _ => continue,
        };
        called.sort();
        answered.sort();
        if called != answered {
            return Some(format!("message {index}: calls {called:?}, results {answered:?}"));
        }
    }
    None
}

fn events(body: &Value) -> Vec<Value> {
    let messages = body["messages"].as_array().unwrap();
    let done = messages.iter().filter(|message| message["role"] == "assistant").count();
    let mut blocks = vec![json!({"type": "text", "text": format!("Reply {done}.")})];
    if done < REPLIES {
        let calls = if done % 3 == 2 { 2 } else { 1 };
        blocks.extend((0..calls).map(|part| {
            let name = format!("{done}-{part}");
            json!({"type": "tool_use", "id": format!("toolu_{name}"), "name": "Bash",
                "input": {"command": format!("echo {name} >> log; sleep 0.0{}", done % 3)}})
        }));
    }
    let stop = if done < REPLIES { "tool_use" } else { "end_turn" };
    let mut events = vec![
        json!({"type": "message_start", "message": {"id": format!("msg_{done}_{}", messages.len()),
        "type": "message", "role": "assistant", "model": "claude-sonnet-5", "content": [], "stop_reason": null,
        "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 1}}}),
    ];
    for (index, block) in blocks.iter().enumerate() {
        let mut begun = block.clone();
        let delta = if block["type"] == "text" {
            begun["text"] = "".into();
            json!({"type": "text_delta", "text": block["text"]})
        } else {
            begun["input"] = json!({});
            json!({"type": "input_json_delta", "partial_json": block["input"].to_string()})
        };
        events.push(json!({"type": "content_block_start", "index": index, "content_block": begun}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
        "usage": {"output_tokens": 5}}));
    events.push(json!({"type": "message_stop"}));
    events
}

/// Reads frames for so long. True: the turn ended.
async fn watch(agent: &mut Agent, patience: Duration) -> bool {
    let ended = async {
        while let Some(frame) = agent.next().await {
            if frame["type"] == "result" {
                assert_eq!(frame["subtype"], "success", "{frame}");
                assert_eq!(frame["is_error"], false, "{frame}");
                return true;
            }
        }
        false
    };
    tokio::time::timeout(patience, ended).await.unwrap_or(false)
}

#[tokio::test]
async fn killed_at_any_moment_nothing_is_run_twice_and_the_turn_ends() {
    let model = Stateless::start().await;
    let mut kills = 0;
    for round in 0..6_u64 {
        let place = Place::new();
        let mut ended = false;
        let mut tries = 0_u64;
        while !ended {
            // Moments that differ, from before the prompt is kept to the end of the turn.
            let moment = Duration::from_micros((round * 7_919 + tries * 12_347) % 60_000);
            let flags = if place.file().exists() { ["--resume", ID] } else { ["--session-id", ID] };
            let mut agent = Agent::keeping(
                &model.url,
                place.cwd.path(),
                place.kept.path(),
                &[flags[0], flags[1], BYPASS],
            );
            agent.control("1", json!({"subtype": "initialize"})).await;
            // Sent again each time: it is taken once.
            agent
                .send(
                    json!({"type": "user", "uuid": "aaaaaaaa-2222-3333-4444-555555555555", "session_id": "",
                    "parent_tool_use_id": null, "message": {"role": "user", "content": "work"}}),
                )
                .await;
            let patience = if tries < 60 { moment } else { Duration::from_secs(20) };
            ended = watch(&mut agent, patience).await;
            agent.signal(rustix::process::Signal::KILL);
            agent.child.wait().await.unwrap();
            kills += 1;
            tries += 1;
        }
        let log = std::fs::read_to_string(place.cwd.path().join("log")).unwrap_or_default();
        let mut ran: HashMap<&str, u32> = HashMap::new();
        for line in log.lines() {
            *ran.entry(line).or_default() += 1;
        }
        assert!(ran.values().all(|times| *times == 1), "round {round}: {ran:?}");
        // Every call has one result, and those that ran to their end say so.
        let lines = place.lines();
        let results: Vec<&Value> = lines
            .iter()
            .filter(|line| line["type"] == "user")
            .flat_map(|line| line["message"]["content"].as_array().unwrap())
            .filter(|block| block["type"] == "tool_result")
            .collect();
        let answered: HashSet<&str> =
            results.iter().map(|block| block["tool_use_id"].as_str().unwrap()).collect();
        let said = lines.iter().filter(|line| line["type"] == "assistant");
        let called: HashSet<&str> =
            said.filter_map(|line| line["message"]["content"][0]["id"].as_str()).collect();
        assert_eq!((results.len(), &answered), (called.len(), &called), "round {round}");
        assert!(called.len() >= REPLIES, "round {round}: {called:?}");
        for result in results.iter().filter(|result| result["is_error"] != true) {
            let name = result["tool_use_id"].as_str().unwrap().trim_start_matches("toolu_");
            assert_eq!(ran.get(name), Some(&1), "round {round}: {result}");
        }
        let prompts = lines.iter().filter(|line| line["isPrompt"] == true).count();
        assert_eq!(prompts, 1, "round {round}");
    }
    assert!(kills > 24, "{kills}");
    model.end().await;
}

fn initialize() -> Value {
    json!({"subtype": "initialize", "hooks": null})
}

async fn kill(mut agent: Agent) {
    agent.signal(rustix::process::Signal::KILL);
    agent.child.wait().await.unwrap();
}

/// The results in the last message of the last request.
fn last_results(server: &wardian_model::Server) -> Vec<Value> {
    let messages = server.requests().pop().unwrap().body["messages"].clone();
    messages.as_array().unwrap().last().unwrap()["content"].as_array().unwrap().clone()
}

const ASK: &str = "--permission-prompt-tool=stdio";

#[tokio::test]
async fn a_call_that_waits_for_permission_is_asked_about_again() {
    let bash = call("toolu_1", "Bash", json!({"command": "echo ran >> log", "description": "d"}));
    let server = model(&json!({"replies": [{"text": "I do.", "tool_use": [bash]}, {"text": "Done."}]})).await;
    let place = Place::new();
    let mut agent = place.agent(&server, &["--session-id", ID, ASK]);
    agent.prompt("do it").await;
    let first = agent.until("asks/can_use_tool").await.pop().unwrap();
    kill(agent).await;
    for last in [false, true] {
        let mut agent = place.agent(&server, &["--resume", ID, ASK]);
        agent.control("1", initialize()).await;
        let frames = agent.until("asks/can_use_tool").await;
        let state = &frames[0]["response"]["response"];
        assert_eq!(
            (&state["session_state"], &state["wardian_resumed"]["interrupted"]),
            (&json!("running"), &json!(true))
        );
        let again = frames.last().unwrap();
        assert_eq!(again["request"], first["request"], "the same call, with the same input");
        if !last {
            kill(agent).await;
            continue;
        }
        agent.answer(again, json!({"behavior": "allow"})).await;
        let frames = agent.until("result/success").await;
        assert_eq!(frames.last().unwrap()["result"], "Done.");
        // It is a session as any other then.
        assert_eq!(agent.end().await.2, Some(0));
    }
    assert_eq!(std::fs::read_to_string(place.cwd.path().join("log")).unwrap(), "ran\n");
    assert_eq!(server.request_count(), 2);
}

/// A place whose program was killed in a Bash call that had begun, beside one that had not.
async fn killed_in_a_call(server: &wardian_model::Server, signal: rustix::process::Signal) -> Place {
    let place = Place::new();
    let mut agent = place.agent(server, &["--session-id", ID, BYPASS]);
    agent.prompt("do it").await;
    let began = place.cwd.path().join("log");
    while !std::fs::read_to_string(&began).is_ok_and(|text| text == "one\n") {
        tokio::task::yield_now().await;
    }
    agent.signal(signal);
    let (frames, _, _) = agent.wait().await;
    assert!(frames.iter().all(|frame| frame["type"] != "result"), "{:?}", kinds_of(&frames));
    place
}

fn two_calls() -> Value {
    let calls = [
        call("toolu_1", "Bash", json!({"command": "echo one >> log; sleep 600"})),
        call("toolu_2", "Bash", json!({"command": "echo two >> log"})),
    ];
    json!({"replies": [{"tool_use": calls}, {"text": "Done.", "repeat": true}]})
}

#[tokio::test]
async fn a_call_that_had_begun_is_not_run_again_and_the_one_after_it_is() {
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::TERM] {
        let server = model(&two_calls()).await;
        let place = killed_in_a_call(&server, signal).await;
        let mut agent = place.agent(&server, &["--resume", ID, BYPASS]);
        agent.control("1", initialize()).await;
        let frames = agent.until("result/success").await;
        assert_eq!(frames.last().unwrap()["result"], "Done.");
        let results = last_results(&server);
        assert!(results[0]["content"].as_str().unwrap().contains("interrupted by a restart"), "{results:?}");
        assert_eq!((&results[0]["tool_use_id"], &results[0]["is_error"]), (&json!("toolu_1"), &json!(true)));
        assert_eq!(
            (&results[1]["tool_use_id"], &results[1]["is_error"]),
            (&json!("toolu_2"), &Value::Bool(false))
        );
        assert_eq!(std::fs::read_to_string(place.cwd.path().join("log")).unwrap(), "one\ntwo\n");
        let shown: Vec<&Value> = frames.iter().filter(|frame| frame["type"] == "user").collect();
        assert_eq!(shown.len(), 2, "the host hears of both");
        assert_eq!(agent.end().await.2, Some(0));
    }
}

#[tokio::test]
async fn without_the_variable_calls_are_settled_when_the_next_prompt_comes() {
    let server = model(&two_calls()).await;
    let place = killed_in_a_call(&server, rustix::process::Signal::KILL).await;
    let flags =
        ["--output-format=stream-json", "--verbose", "--input-format=stream-json", "--resume", ID, BYPASS];
    let mut command = crate::process::at(&server.base_url(), place.cwd.path(), &flags);
    command.env("CLAUDE_CONFIG_DIR", place.kept.path());
    let mut agent = Agent::spawn(command);
    agent.control("1", initialize()).await;
    let reply = agent.next().await.unwrap();
    assert_eq!(reply["response"]["response"]["session_state"], "idle");
    agent.prompt("what now?").await;
    let frames = agent.until("result/success").await;
    assert_eq!(frames.iter().filter(|frame| frame["type"] == "user").count(), 2, "{:?}", kinds_of(&frames));
    let results = last_results(&server);
    assert!(results[0]["content"].as_str().unwrap().contains("interrupted by a restart"));
    assert!(results[1]["content"].as_str().unwrap().contains("was not run"));
    assert_eq!(results[2]["text"], "what now?");
    assert_eq!(std::fs::read_to_string(place.cwd.path().join("log")).unwrap(), "one\n");
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_call_of_the_hosts_own_tool_is_sent_again() {
    let config = r#"--mcp-config={"mcpServers":{"lab":{"type":"sdk","name":"lab"}}}"#;
    let flags = [config, "--allowedTools=mcp__lab"];
    let ask = call("toolu_1", "mcp__lab__add", json!({"a": 1}));
    let server = model(&json!({"replies": [{"tool_use": [ask]}, {"text": "Done."}]})).await;
    let place = Place::new();
    let mut agent = place.agent(&server, &[&["--session-id", ID][..], &flags].concat());
    agent.prompt("add").await;
    let (_, first) = crate::mcp::next_call(&mut agent).await;
    kill(agent).await;
    assert!(place.lines().iter().all(|line| line["subtype"] != "wardian_tool_started"));
    let mut agent = place.agent(&server, &[&["--resume", ID][..], &flags].concat());
    agent.control("1", initialize()).await;
    let (_, again) = crate::mcp::next_call(&mut agent).await;
    let parameters = |question: &Value| {
        let parameters = &question["request"]["message"]["params"];
        (
            parameters["name"].clone(),
            parameters["arguments"].clone(),
            parameters["_meta"]["claudecode/toolUseId"].clone(),
        )
    };
    assert_eq!(parameters(&again), parameters(&first));
    crate::mcp::answer(&mut agent, &again, json!({"content": [{"type": "text", "text": "2"}]})).await;
    agent.until("result/success").await;
    assert_eq!(last_results(&server)[0]["content"][0]["text"], "2");
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_prompt_is_taken_once_and_its_result_can_be_had_again() {
    let uuid = "aaaaaaaa-2222-3333-4444-555555555555";
    let prompt = json!({"type": "user", "uuid": uuid, "session_id": "", "parent_tool_use_id": null,
        "message": {"role": "user", "content": "once"}});
    let server = model(&json!({"replies": [{"text": "First."}, {"text": "Second."}]})).await;
    let place = Place::new();
    let mut agent = place.agent(&server, &["--session-id", ID]);
    agent.send(prompt.clone()).await;
    let first = agent.until("result/success").await.pop().unwrap();
    kill(agent).await;
    let mut agent = place.agent(&server, &["--resume", ID]);
    agent.control("1", initialize()).await;
    agent.send(prompt.clone()).await;
    let reply = agent.next().await.unwrap();
    let resumed = json!({"interrupted": false, "last_prompt_uuid": uuid});
    assert_eq!(reply["response"]["response"]["wardian_resumed"], resumed);
    assert_eq!(agent.next().await.unwrap(), first, "the very same result, and nothing else");
    agent.send(prompt).await;
    agent.prompt("another").await;
    let frames = agent.until("result/success").await;
    assert_eq!(frames.last().unwrap()["result"], "Second.");
    assert_eq!(server.request_count(), 2);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_reply_cut_in_its_words_is_asked_for_again() {
    let server = model(&json!({"replies": [
        {"content": [{"type": "text", "text": "A whole block."}, {"type": "text", "text": "And one that"}], "hold": true},
        {"text": "All of it."},
        {"text": "More."},
    ]}))
    .await;
    let place = Place::new();
    let mut agent = place.agent(&server, &["--session-id", ID]);
    agent.prompt("speak").await;
    agent.until("assistant").await;
    kill(agent).await;
    let mut agent = place.agent(&server, &["--resume", ID]);
    agent.control("1", initialize()).await;
    let frames = agent.until("result/success").await;
    assert_eq!(frames.last().unwrap()["result"], "All of it.");
    agent.prompt("more").await;
    agent.until("result/success").await;
    let said = crate::transcripts::messages(&server, 2);
    let text = |index: usize| said[index]["content"][0]["text"].clone();
    assert_eq!((text(0), text(1), text(2)), (json!("speak"), json!("All of it."), json!("more")));
    assert_eq!(agent.end().await.2, Some(0));
}

/// What the model was told before an interrupt and after it is what it is told after a restart.
#[tokio::test]
async fn an_interrupt_leaves_a_conversation_that_goes_on_here_and_after_a_restart() {
    let calls = [
        call("toolu_1", "Bash", json!({"command": "echo one >> log; sleep 600"})),
        call("toolu_2", "Bash", json!({"command": "echo two >> log"})),
    ];
    let server = model(&json!({"replies": [
        {"tool_use": calls},
        {"text": "I hear", "hold": true},
        {"text": "Done.", "repeat": true},
    ]}))
    .await;
    let place = Place::new();
    let mut agent = place.agent(&server, &["--session-id", ID, BYPASS, "--include-partial-messages"]);
    agent.prompt("do it").await;
    let log = place.cwd.path().join("log");
    while std::fs::read_to_string(&log).unwrap_or_default() != "one\n" {
        tokio::task::yield_now().await;
    }
    agent.control("i", json!({"subtype": "interrupt"})).await;
    let frames = agent.until("result/error_during_execution").await;
    assert_eq!(frames.last().unwrap()["terminal_reason"], "aborted_tools");
    agent.prompt("wait").await;
    while agent.until("stream_event").await.pop().unwrap()["event"]["type"] != "content_block_delta" {}
    agent.control("i", json!({"subtype": "interrupt"})).await;
    let frames = agent.until("result/error_during_execution").await;
    assert_eq!(frames.last().unwrap()["terminal_reason"], "aborted_streaming");
    agent.prompt("go on").await;
    agent.until("result/success").await;
    assert_eq!(agent.end().await.2, Some(0));
    let before = crate::transcripts::messages(&server, 2);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\n");

    let mut agent = place.agent(&server, &["--resume", ID]);
    agent.control("1", initialize()).await;
    let reply = agent.next().await.unwrap();
    assert_eq!(reply["response"]["response"]["wardian_resumed"]["interrupted"], false);
    agent.prompt("and on").await;
    agent.until("result/success").await;
    let after = crate::transcripts::messages(&server, 3);
    let count = before.as_array().unwrap().len();
    assert_eq!(after.as_array().unwrap()[..count], before.as_array().unwrap()[..]);
    let kinds: Vec<String> = place.lines().iter().map(kind_of).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "system/wardian_turn_ended").count(), 4);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn what_the_host_missed_is_given_again_after_what_it_saw_last() {
    let bash = call("toolu_1", "Bash", json!({"command": "echo hello"}));
    let server = model(&json!({"replies": [
        {"text": "I do.", "tool_use": [bash]}, {"text": "Never", "hold": true}, {"text": "Done."},
    ]}))
    .await;
    let place = Place::new();
    let mut agent = place.agent(&server, &["--session-id", ID, BYPASS]);
    agent.prompt("do it").await;
    let mut seen = agent.until("user").await;
    seen.retain(|frame| frame["type"] == "assistant" || frame["type"] == "user");
    kill(agent).await;
    for last in 0..=seen.len() {
        let mut command = crate::process::at(
            &server.base_url(),
            place.cwd.path(),
            &["--output-format=stream-json", "--verbose", "--input-format=stream-json", "--resume", ID],
        );
        command.env("CLAUDE_CONFIG_DIR", place.kept.path());
        let (uuid, missed) = match seen.get(last) {
            Some(frame) => (frame["uuid"].as_str().unwrap(), &seen[last + 1..]),
            None => ("nobody-knows", &seen[..0]),
        };
        command.env("WARDIAN_REPLAY_AFTER", uuid);
        let mut agent = Agent::spawn(command);
        agent.control("1", initialize()).await;
        let (frames, _, code) = agent.end().await;
        assert_eq!(code, Some(0));
        let mut expected = missed.to_vec();
        for frame in &mut expected {
            frame["isReplay"] = true.into();
            frame.as_object_mut().unwrap().shift_remove("request_id");
        }
        assert_eq!(frames[1..], expected[..], "{last}");
    }
}

#[tokio::test]
async fn a_host_that_goes_away_leaves_its_question_open() {
    let bash = call("toolu_1", "Bash", json!({"command": "echo ran >> log"}));
    let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
    let place = Place::new();
    let mut agent = place.agent(&server, &["--session-id", ID, ASK]);
    agent.prompt("do it").await;
    agent.until("asks/can_use_tool").await;
    let (frames, stderr, code) = agent.end().await;
    assert_eq!((frames.len(), code), (0, Some(1)), "{stderr}");
    assert!(stderr.contains("left for who resumes"), "{stderr}");
    // The input ends before the question comes: it is not asked, and left open too.
    let mut agent = place.agent(&server, &["--resume", ID, ASK]);
    agent.control("1", initialize()).await;
    assert_eq!(agent.end().await.2, Some(1));
    let mut agent = place.agent(&server, &["--resume", ID, ASK]);
    agent.control("1", initialize()).await;
    let again = agent.until("asks/can_use_tool").await.pop().unwrap();
    agent.answer(&again, json!({"behavior": "allow"})).await;
    agent.until("result/success").await;
    assert_eq!(std::fs::read_to_string(place.cwd.path().join("log")).unwrap(), "ran\n");
    assert_eq!(agent.end().await.2, Some(0));
}
