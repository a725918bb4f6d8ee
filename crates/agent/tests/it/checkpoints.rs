//! Files as they were at a prompt, and what tools know after a restart.

use serde_json::{Value, json};

use crate::process::{Agent, at};
use crate::support::{call, model};
use crate::transcripts::{BYPASS, ID, Place};

const PROMPTS: [&str; 3] = [
    "aaaaaaaa-0000-4000-8000-000000000001",
    "aaaaaaaa-0000-4000-8000-000000000002",
    "aaaaaaaa-0000-4000-8000-000000000003",
];

fn agent(server: &wardian_model::Server, place: &Place, flags: &[&str], keeps: bool) -> Agent {
    let stream = ["--output-format=stream-json", "--verbose", "--input-format=stream-json", BYPASS];
    let args: Vec<&str> = stream.iter().chain(flags).copied().collect();
    let mut command = at(&server.base_url(), place.cwd.path(), &args);
    command.env("CLAUDE_CONFIG_DIR", place.kept.path());
    if keeps {
        command.env("CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING", "true");
    }
    Agent::spawn(command)
}

async fn ask(agent: &mut Agent, uuid: &str) {
    agent
        .send(json!({"type": "user", "uuid": uuid, "session_id": "", "parent_tool_use_id": null,
            "message": {"role": "user", "content": "do it"}}))
        .await;
    agent.until("result/success").await;
}

/// The answer to a request: what it gave, or its error.
async fn rewind(agent: &mut Agent, uuid: &str, dry_run: bool) -> Value {
    agent
        .control(uuid, json!({"subtype": "rewind_files", "user_message_id": uuid, "dry_run": dry_run}))
        .await;
    loop {
        let frame = agent.next().await.unwrap();
        if frame["type"] == "control_response" && frame["response"]["request_id"] == uuid {
            let response = &frame["response"];
            return if response["error"].is_string() {
                response["error"].clone()
            } else {
                response["response"].clone()
            };
        }
    }
}

#[tokio::test]
async fn files_are_rewound_to_a_prompt_as_by_the_official_cli() {
    let server = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Write", json!({"file_path": "new.txt", "content": "hello\n"}))]}, {"text": "ok"},
        {"tool_use": [call("toolu_2", "Read", json!({"file_path": "old.txt"}))]},
        {"tool_use": [call("toolu_3", "Edit", json!({"file_path": "old.txt", "old_string": "one", "new_string": "ONE\nmore"}))]},
        {"text": "ok"},
        {"tool_use": [call("toolu_4", "Bash", json!({"command": "rm new.txt"}))]}, {"text": "ok"},
    ]}))
    .await;
    let place = Place::new();
    let file = |name: &str| place.cwd.path().join(name);
    std::fs::write(file("old.txt"), "one\ntwo\n").unwrap();
    let mut first = agent(&server, &place, &["--session-id", ID], true);
    for uuid in PROMPTS {
        ask(&mut first, uuid).await;
    }
    let (old, new) =
        (file("old.txt").canonicalize().unwrap(), place.cwd.path().canonicalize().unwrap().join("new.txt"));
    let dry = |changed: Value, insertions: u64, deletions: u64| json!({"canRewind": true, "filesChanged": changed, "insertions": insertions, "deletions": deletions});
    assert_eq!(rewind(&mut first, PROMPTS[1], true).await, dry(json!([new, old]), 2, 2));
    assert_eq!(rewind(&mut first, PROMPTS[0], true).await, dry(json!([old]), 1, 2));
    assert_eq!(rewind(&mut first, "nonsense", false).await, "No file checkpoint found for this message.");
    assert_eq!(first.end().await.2, Some(0));
    // The next start knows them too.
    let mut second = agent(&server, &place, &["--resume", ID], true);
    second.control("i", json!({"subtype": "initialize"})).await;
    assert_eq!(rewind(&mut second, PROMPTS[1], false).await, json!({"canRewind": true, "skippedLinks": 0}));
    let read = |name: &str| std::fs::read_to_string(file(name)).ok();
    assert_eq!(
        (read("old.txt").as_deref(), read("new.txt").as_deref()),
        (Some("one\ntwo\n"), Some("hello\n"))
    );
    assert_eq!(rewind(&mut second, PROMPTS[0], false).await["canRewind"], true);
    assert_eq!((read("old.txt").as_deref(), read("new.txt")), (Some("one\ntwo\n"), None));
    assert_eq!(second.end().await.2, Some(0));
}

/// The Python SDK gives prompts no ids: it goes by those under which they are given back.
#[tokio::test]
async fn a_prompt_without_an_id_is_found_by_the_one_it_is_given_back_with() {
    let server = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Write", json!({"file_path": "new.txt", "content": "hello\n"}))]}, {"text": "ok"},
        {"tool_use": [call("toolu_2", "Write", json!({"file_path": "other.txt", "content": "hello\n"}))]}, {"text": "ok"},
    ]}))
    .await;
    let place = Place::new();
    let flags = ["--session-id", ID, "--replay-user-messages"];
    let mut agent = agent(&server, &place, &flags, true);
    let mut given_back = Vec::new();
    for _ in 0..2 {
        agent.prompt("do it").await;
        let frames = agent.until("result/success").await;
        let prompt = frames.iter().find(|frame| frame["isReplay"] == true).unwrap();
        given_back.push(prompt["uuid"].as_str().unwrap().to_owned());
    }
    let transcript = std::fs::read_to_string(place.file()).unwrap();
    for uuid in &given_back {
        assert!(transcript.contains(&format!("\"uuid\":\"{uuid}\"")), "{uuid}");
    }
    let there = || ["new.txt", "other.txt"].map(|name| place.cwd.path().join(name).exists());
    assert_eq!(rewind(&mut agent, &given_back[1], false).await["canRewind"], true);
    assert_eq!(there(), [true, false]);
    assert_eq!(rewind(&mut agent, &given_back[0], false).await["canRewind"], true);
    assert_eq!(there(), [false, false]);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_fork_is_rewound_to_prompts_of_before_it() {
    let write = |id: &str, file: &str| call(id, "Write", json!({"file_path": file, "content": "hello\n"}));
    let server = model(&json!({"replies": [
        {"tool_use": [write("toolu_1", "a.txt")]}, {"text": "ok"}, {"tool_use": [write("toolu_2", "b.txt")]}, {"text": "ok"},
    ]}))
    .await;
    let place = Place::new();
    let mut first = agent(&server, &place, &["--session-id", ID], true);
    ask(&mut first, PROMPTS[0]).await;
    assert_eq!(first.end().await.2, Some(0));
    let mut fork = agent(&server, &place, &["--resume", ID, "--fork-session"], true);
    ask(&mut fork, PROMPTS[1]).await;
    let there = || ["a.txt", "b.txt"].map(|name| place.cwd.path().join(name).exists());
    assert_eq!(rewind(&mut fork, PROMPTS[1], false).await["canRewind"], true);
    assert_eq!(there(), [true, false]);
    assert_eq!(rewind(&mut fork, PROMPTS[0], false).await["canRewind"], true);
    assert_eq!(there(), [false, false]);
    assert_eq!(fork.end().await.2, Some(0));
}

#[tokio::test]
async fn a_conversation_that_was_cleared_has_checkpoints_of_its_own() {
    let write = |id: &str, file: &str| call(id, "Write", json!({"file_path": file, "content": "hello\n"}));
    let server = model(&json!({"replies": [
        {"tool_use": [write("toolu_1", "a.txt")]}, {"text": "ok"}, {"tool_use": [write("toolu_2", "b.txt")]}, {"text": "ok"},
    ]}))
    .await;
    let place = Place::new();
    let mut first = agent(&server, &place, &["--session-id", ID], true);
    ask(&mut first, PROMPTS[0]).await;
    first.prompt("/clear").await;
    let cleared = first.until("result/success").await.pop().unwrap();
    ask(&mut first, PROMPTS[1]).await;
    let unknown = json!({"canRewind": false, "error": "No file checkpoint found for this message."});
    assert_eq!(rewind(&mut first, PROMPTS[0], true).await, unknown);
    assert_eq!(rewind(&mut first, PROMPTS[1], true).await["canRewind"], true);
    assert_eq!(first.end().await.2, Some(0));
    // Each is found again under its own id.
    let there = || ["a.txt", "b.txt"].map(|name| place.cwd.path().join(name).exists());
    for (id, prompt, left) in [
        (cleared["session_id"].as_str().unwrap(), PROMPTS[1], [true, false]),
        (ID, PROMPTS[0], [false, false]),
    ] {
        let mut again = agent(&server, &place, &["--resume", id], true);
        again.control("i", json!({"subtype": "initialize"})).await;
        assert_eq!(rewind(&mut again, prompt, false).await["canRewind"], true, "{id}");
        assert_eq!(there(), left);
        assert_eq!(again.end().await.2, Some(0));
    }
}

#[tokio::test]
async fn who_did_not_ask_for_checkpoints_has_none() {
    let server = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Write", json!({"file_path": "new.txt", "content": "hello\n"}))]}, {"text": "ok"},
    ]}))
    .await;
    let place = Place::new();
    let mut agent = agent(&server, &place, &["--session-id", ID], false);
    ask(&mut agent, PROMPTS[0]).await;
    let expected = json!({"canRewind": false, "error": "File rewinding is not enabled."});
    assert_eq!(rewind(&mut agent, PROMPTS[0], true).await, expected);
    assert_eq!(agent.end().await.2, Some(0));
    assert!(!place.kept.path().join("file-history").exists());
}

#[tokio::test]
async fn where_bash_is_and_what_was_read_outlive_a_restart() {
    let edit = |id: &str, to: &str| {
        call(id, "Edit", json!({"file_path": "a.txt", "old_string": "x", "new_string": to}))
    };
    let server = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Read", json!({"file_path": "a.txt"})), call("toolu_2", "Bash", json!({"command": "cd sub"}))]},
        {"text": "ok"},
        {"tool_use": [edit("toolu_3", "y"), call("toolu_4", "Bash", json!({"command": "pwd"}))]}, {"text": "ok"},
        {"tool_use": [call("toolu_5", "Edit", json!({"file_path": "a.txt", "old_string": "changed", "new_string": "z"}))]},
        {"text": "ok"},
    ]}))
    .await;
    let place = Place::new();
    let file = place.cwd.path().join("a.txt");
    std::fs::write(&file, "x\n").unwrap();
    std::fs::create_dir(place.cwd.path().join("sub")).unwrap();
    let mut first = agent(&server, &place, &["--session-id", ID], false);
    ask(&mut first, PROMPTS[0]).await;
    first.signal(rustix::process::Signal::KILL);
    first.child.wait().await.unwrap();
    let mut second = agent(&server, &place, &["--resume", ID], false);
    ask(&mut second, PROMPTS[1]).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "y\n", "it was read before the restart");
    let results =
        server.requests().pop().unwrap().body["messages"].as_array().unwrap().last().unwrap()["content"]
            .clone();
    assert!(results[1]["content"].as_str().unwrap().trim_end().ends_with("/sub"), "{results}");
    second.signal(rustix::process::Signal::KILL);
    second.child.wait().await.unwrap();
    // What changed meanwhile must be read again, and a folder that is gone is not gone to.
    std::fs::write(&file, "changed\n").unwrap();
    std::fs::remove_dir(place.cwd.path().join("sub")).unwrap();
    let mut third = agent(&server, &place, &["--resume", ID], false);
    ask(&mut third, PROMPTS[2]).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "changed\n");
    assert_eq!(third.end().await.2, Some(0));
}
