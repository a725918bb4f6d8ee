//! Transcripts given to the host line by line (`--session-mirror`): all of them, in the order of the file, before what they
//! tell is shown, and enough to go on from.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use wardian_agent::Transcripts;

use crate::process::{Agent, kind_of};
use crate::support::{call, model};
use crate::transcripts::{BYPASS, ID, Place, messages};

const FORKED: &str = "bbbbbbbb-0000-4000-8000-00000000000b";

/// Every mirrored entry, by its file.
fn mirrored(frames: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for frame in frames.iter().filter(|frame| frame["type"] == "transcript_mirror") {
        let entries = frame["entries"].as_array().unwrap();
        assert!(!entries.is_empty());
        files
            .entry(frame["filePath"].as_str().unwrap().to_owned())
            .or_default()
            .extend(entries.iter().cloned());
    }
    files
}

fn lines(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn talk(agent: &mut Agent, prompts: &[&str]) -> Vec<Value> {
    let mut frames = Vec::new();
    for prompt in prompts {
        agent.prompt(prompt).await;
        frames.extend(agent.until("result/success").await);
    }
    frames
}

#[tokio::test]
async fn every_line_is_given_once_in_its_order_and_before_it_is_shown() {
    let place = Place::new();
    let look = call(
        "toolu_a",
        "Agent",
        json!({"description": "look", "prompt": "count the plums",
        "subagent_type": "general-purpose", "run_in_background": false}),
    );
    let bash = [
        call("toolu_1", "Bash", json!({"command": "echo one"})),
        call("toolu_2", "Bash", json!({"command": "cd /"})),
    ];
    let server = model(&json!({"replies": [
        {"match": {"last_text_contains": "first thing"}, "tool_use": [look]},
        {"match": {"last_text_contains": "count the plums"}, "text": "Four plums."},
        {"text": "I work.", "tool_use": bash},
        {"text": "Done.", "repeat": true},
    ]}))
    .await;
    let mut agent = place.agent(&server, &["--session-id", ID, BYPASS, "--session-mirror"]);
    agent.control("1", json!({"subtype": "initialize", "title": "Plums"})).await;
    let mut frames =
        talk(&mut agent, &["first thing", "/compact", "second thing", "/clear", "third thing"]).await;
    let (rest, _, code) = agent.end().await;
    frames.extend(rest);
    assert_eq!(code, Some(0));

    let mut files = mirrored(&frames);
    let mut metadata = None;
    for (path, entries) in &mut files {
        if path.contains("/subagents/") {
            let of_agent = |entry: &Value| entry["type"] == "agent_metadata";
            metadata = entries.iter().rfind(|entry| of_agent(entry)).cloned();
            entries.retain(|entry| !of_agent(entry));
        }
        assert_eq!(*entries, lines(path), "{path}");
    }
    let metadata = metadata.expect("the subagent's is there");
    assert_eq!(
        (&metadata["type"], &metadata["agentType"]),
        (&json!("agent_metadata"), &json!("general-purpose"))
    );
    assert_eq!((&metadata["toolUseId"], &metadata["finished"]), (&json!("toolu_a"), &json!(true)));
    assert_eq!(files.len(), 3, "the session, its subagent, and the one after /clear: {:?}", files.keys());

    let position = |wanted: &dyn Fn(&Value) -> bool| frames.iter().position(wanted).unwrap();
    for shown in frames.iter().filter(|frame| ["assistant", "user"].contains(&kind_of(frame).as_str())) {
        // What subagents say in the foreground, and what commands print, is not always a line.
        let in_mirror = |frame: &Value| {
            let entries = frame["entries"].as_array();
            entries.is_some_and(|entries| entries.iter().any(|entry| entry["uuid"] == shown["uuid"]))
        };
        if frames.iter().any(in_mirror) {
            assert!(position(&in_mirror) < position(&|frame| frame == shown), "{shown}");
        }
    }
    let results: Vec<_> = frames.iter().enumerate().filter(|(_, frame)| frame["type"] == "result").collect();
    for (index, result) in results {
        let told = frames[..index].iter().filter_map(|frame| frame["entries"].as_array()).flatten();
        assert!(
            told.into_iter().any(|entry| entry["result"]["uuid"] == result["uuid"]),
            "a result comes last"
        );
    }
}

/// Puts mirrored entries where the SDKs put them: under another folder, as JavaScript would write them.
fn materialise(entries: &[Value], config: &Path, cwd: &Path) {
    let path = Transcripts::of(config, &cwd.canonicalize().unwrap()).path(ID);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lines: Vec<String> = entries.iter().map(|entry| as_javascript(entry).to_string()).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// Numbers are doubles there.
fn as_javascript(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            let double = number.as_f64().unwrap();
            let back = json!(double);
            // It prints whole numbers without a point.
            serde_json::from_str(back.to_string().trim_end_matches(".0")).unwrap()
        }
        Value::Array(items) => items.iter().map(as_javascript).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), as_javascript(field))).collect()
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn a_conversation_is_taken_up_from_what_was_mirrored() {
    let place = Place::new();
    std::fs::write(place.cwd.path().join("a.txt"), "x\n").unwrap();
    let server = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Read", json!({"file_path": "a.txt"}))]}, {"text": "Read."},
    ]}))
    .await;
    let mut first = place.agent(&server, &["--session-id", ID, BYPASS, "--session-mirror"]);
    let frames = talk(&mut first, &["first thing"]).await;
    first.end().await;
    let entries = mirrored(&frames).remove(place.file().to_str().unwrap()).unwrap();

    let config = tempfile::tempdir().unwrap();
    materialise(&entries, config.path(), place.cwd.path());
    let elsewhere = Place { kept: config, cwd: place.cwd };
    let edit = call("toolu_2", "Edit", json!({"file_path": "a.txt", "old_string": "x", "new_string": "y"}));
    let server = model(&json!({"replies": [{"tool_use": [edit]}, {"text": "Edited."}]})).await;
    let mut second = elsewhere.agent(&server, &["--resume", ID, BYPASS, "--session-mirror"]);
    let frames = talk(&mut second, &["second thing"]).await;
    second.end().await;
    assert!(messages(&server, 0).to_string().contains("first thing"));
    let text = std::fs::read_to_string(elsewhere.cwd.path().join("a.txt")).unwrap();
    assert_eq!(text, "y\n", "what was read is still known");
    let cost = frames.last().unwrap()["total_cost_usd"].as_f64().unwrap();
    assert!((cost - 0.000_28).abs() < 1e-9, "{cost}");
    // Only what is new is given.
    let added = mirrored(&frames).remove(elsewhere.file().to_str().unwrap()).unwrap();
    assert_eq!(lines(elsewhere.file().to_str().unwrap())[entries.len()..], added);
}

#[tokio::test]
async fn a_fork_is_given_whole_and_an_earlier_message_with_its_note() {
    let place = Place::new();
    place.one_turn().await;
    let first = place.lines();
    let at =
        first.iter().find(|line| line["type"] == "assistant").unwrap()["uuid"].as_str().unwrap().to_owned();
    for (flags, id) in [
        (vec!["--resume", ID, "--fork-session", "--session-id", FORKED], FORKED),
        (vec!["--resume", ID, "--resume-session-at", &at], ID),
    ] {
        let server = model(&json!({"replies": [{"text": "Again."}]})).await;
        let before = if id == ID { lines(place.file().to_str().unwrap()).len() } else { 0 };
        let flags: Vec<&str> = flags.into_iter().chain(["--session-mirror"]).collect();
        let mut agent = place.agent(&server, &flags);
        let frames = talk(&mut agent, &["more"]).await;
        agent.end().await;
        let path = place.file().with_file_name(format!("{id}.jsonl"));
        let given = mirrored(&frames).remove(path.to_str().unwrap()).unwrap();
        assert_eq!(given, lines(path.to_str().unwrap())[before..], "{id}");
    }
}

/// What one line cannot hold is shortened for the host, and whole on disk.
#[tokio::test]
async fn an_entry_that_no_line_holds_is_shortened_on_its_way_only() {
    let place = Place::new();
    let server = model(&json!({"replies": [{"text": "Done."}, {"text": "Done."}]})).await;
    let mut agent = place.agent(&server, &["--session-id", ID, "--session-mirror"]);
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A".repeat(2 << 20)}});
    agent
        .send(json!({"type": "user", "session_id": "", "parent_tool_use_id": null,
            "message": {"role": "user", "content": [{"type": "text", "text": "see"}, image]}}))
        .await;
    let mut frames = agent.until("result/success").await;
    frames.extend(talk(&mut agent, &[&"long ".repeat(1 << 19)]).await);
    assert_eq!(agent.end().await.2, Some(0));
    let given = mirrored(&frames).remove(place.file().to_str().unwrap()).unwrap();
    let content = |entry: &Value| entry["message"]["content"].clone();
    assert_eq!(content(&given[0])[0]["text"], "see");
    assert_eq!(content(&given[0])[1]["type"], "text");
    assert_eq!(content(&place.lines()[0])[1]["type"], "image");
    assert!(given.iter().all(|entry| entry.to_string().len() < 1 << 20));
    assert_eq!(given.len(), place.lines().len());
}

#[tokio::test]
async fn nothing_is_given_where_nobody_asked_and_where_nothing_is_kept() {
    for flags in [&["--session-id", ID][..], &["--session-mirror", "--no-session-persistence"]] {
        let place = Place::new();
        let server = model(&json!({"replies": [{"text": "Done."}]})).await;
        let mut agent = place.agent(&server, flags);
        let frames = talk(&mut agent, &["hi"]).await;
        assert!(mirrored(&frames).is_empty());
        assert_eq!(agent.end().await.2, Some(0));
    }
}
