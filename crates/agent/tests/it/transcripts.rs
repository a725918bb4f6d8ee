//! Conversations on disk: what is written when, and what is taken up again.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wardian_agent::Transcripts;
use wardian_model::Server;

use crate::process::{Agent, at, kind_of, kinds_of};
use crate::support::{call, model};

pub const ID: &str = "11111111-2222-3333-4444-555555555555";
pub const BYPASS: &str = "--dangerously-skip-permissions";

/// A place to work in and one to keep conversations in.
pub struct Place {
    pub cwd: tempfile::TempDir,
    pub kept: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { cwd: tempfile::tempdir().unwrap(), kept: tempfile::tempdir().unwrap() }
    }

    pub fn agent(&self, server: &Server, flags: &[&str]) -> Agent {
        Agent::keeping(&server.base_url(), self.cwd.path(), self.kept.path(), flags)
    }

    pub fn file(&self) -> PathBuf {
        Transcripts::of(self.kept.path(), &self.cwd.path().canonicalize().unwrap()).path(ID)
    }

    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Puts a transcript there.
    pub fn write(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        std::fs::write(self.file(), bytes).unwrap();
    }

    /// Everything of one turn, written by the program: a tool, and a text.
    pub async fn one_turn(&self) {
        let read = call("toolu_1", "Bash", json!({"command": "echo hello"}));
        let server =
            model(&json!({"replies": [{"text": "I run it.", "tool_use": [read]}, {"text": "Done."}]})).await;
        let mut agent = self.agent(&server, &["--session-id", ID, BYPASS]);
        agent.prompt("first").await;
        assert_eq!(agent.end().await.2, Some(0));
    }
}

/// The messages of a request, without what marks the cache.
pub fn messages(server: &Server, request: usize) -> Value {
    let mut messages = server.requests()[request].body["messages"].clone();
    for message in messages.as_array_mut().unwrap() {
        for block in message["content"].as_array_mut().unwrap() {
            block.as_object_mut().unwrap().shift_remove("cache_control");
        }
    }
    messages
}

fn kinds(lines: &[Value]) -> Vec<String> {
    lines.iter().map(kind_of).collect()
}

#[tokio::test]
async fn a_turn_is_kept_line_by_line_as_the_helpers_read_it() {
    let place = Place::new();
    place.one_turn().await;
    let lines = place.lines();
    let expected = [
        "user",
        "last-prompt",
        "assistant",
        "assistant",
        "system/wardian_reply_ended",
        "system/wardian_tool_started",
        "user",
        "assistant",
        "system/wardian_reply_ended",
        "system/wardian_turn_ended",
    ];
    assert_eq!(kinds(&lines), expected);
    let messages: Vec<&Value> = lines.iter().filter(|line| line["uuid"].is_string()).collect();
    let mut parent = &Value::Null;
    for line in &messages {
        assert_eq!(&line["parentUuid"], parent, "{line}");
        assert_eq!((&line["sessionId"], &line["isSidechain"]), (&json!(ID), &json!(false)));
        assert_eq!(line["version"], "2.1.330");
        assert_eq!(line["cwd"], json!(place.cwd.path().canonicalize().unwrap()));
        let at = line["timestamp"].as_str().unwrap();
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        parent = &line["uuid"];
    }
    assert_eq!(messages[0]["message"]["content"][0]["text"], "first");
    assert_eq!(messages[2]["message"]["content"][0]["id"], "toolu_1");
    assert_eq!(messages[3]["message"]["content"][0]["tool_use_id"], "toolu_1");
    assert_eq!(messages[3]["toolUseResult"]["stdout"], "hello");
    let started = lines.iter().find(|line| line["subtype"] == "wardian_tool_started").unwrap();
    assert_eq!(started["toolUseId"], "toolu_1");
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.file()), mode(place.file().parent().unwrap())), (0o600, 0o700));
}

#[tokio::test]
async fn a_conversation_goes_on_with_its_id_its_words_and_its_costs() {
    let place = Place::new();
    place.one_turn().await;
    for flags in [&["--resume", ID][..], &["--continue"], &["-c"]] {
        let server = model(&json!({"replies": [{"text": "Again."}]})).await;
        let mut agent = place.agent(&server, flags);
        agent.prompt("more").await;
        let frames = agent.until("result/success").await;
        let result = frames.last().unwrap();
        assert_eq!(result["session_id"], ID);
        let said = messages(&server, 0);
        let turns = said.as_array().unwrap();
        assert_eq!(turns[0]["content"][0]["text"], "first");
        assert_eq!(turns[1]["content"][0]["text"], "I run it.");
        assert_eq!(turns[1]["content"][1]["name"], "Bash");
        assert_eq!(turns[2]["content"][0]["content"], "hello");
        assert_eq!(turns[3]["content"][0]["text"], "Done.");
        assert_eq!(turns.last().unwrap()["content"][0]["text"], "more");
        assert!(result["total_cost_usd"].as_f64().unwrap() > 0.000_2, "{result}");
        let counted = result["modelUsage"].as_object().unwrap().values().next().unwrap();
        assert!(counted["inputTokens"].as_u64().unwrap() >= 30, "{counted}");
        assert_eq!(result["usage"]["input_tokens"], 10, "a turn's own usage begins anew");
        assert_eq!(agent.end().await.2, Some(0));
    }
    let parents =
        place.lines().iter().filter(|line| line["parentUuid"].is_null() && line["uuid"].is_string()).count();
    assert_eq!(parents, 1, "the chain goes on");
}

#[tokio::test]
async fn what_is_not_there_is_said_as_hosts_expect_it() {
    let place = Place::new();
    place.one_turn().await;
    let other = "99999999-2222-3333-4444-555555555555";
    for id in [other, "../../../etc/passwd", "", "nonsense"] {
        let server = model(&json!({"replies": []})).await;
        let agent = place.agent(&server, &["--resume", id]);
        let (frames, stderr, code) = agent.wait().await;
        assert_eq!(
            (kinds_of(&frames), code),
            (vec!["result/error_during_execution".to_owned()], Some(1)),
            "{id}"
        );
        let text = format!("No conversation found with session ID: {id}");
        assert_eq!(frames[0]["errors"], json!([text]));
        assert_eq!((&frames[0]["is_error"], &frames[0]["num_turns"]), (&json!(true), &json!(0)));
        assert!(stderr.contains(&text));
    }
    // A new session does not take an old one's place.
    let server = model(&json!({"replies": []})).await;
    let (_, stderr, code) = place.agent(&server, &["--session-id", ID]).wait().await;
    assert!(stderr.contains("already in use") && code == Some(1), "{stderr}");
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_is_to_be() {
    let place = Place::new();
    let server = model(&json!({"replies": [{"text": "Hello.", "repeat": true}]})).await;
    let mut agent = place.agent(&server, &["--no-session-persistence", "--session-id", ID]);
    agent.prompt("hi").await;
    assert_eq!(agent.end().await.2, Some(0));
    assert_eq!(std::fs::read_dir(place.kept.path()).unwrap().count(), 0);
    // Resumed, but not added to.
    place.one_turn().await;
    let before = place.lines().len();
    let mut agent = place.agent(&server, &["--no-session-persistence", "--resume", ID]);
    agent.prompt("hi").await;
    assert_eq!(agent.end().await.2, Some(0));
    assert_eq!(place.lines().len(), before);
    // Where no folder can be made, a session without a name goes on all the same.
    std::fs::write(place.kept.path().join("file"), "").unwrap();
    let kept = place.kept.path().join("file");
    for (flags, code) in [(&[][..], 0), (&["--session-id", ID], 1)] {
        let mut agent = Agent::keeping(&server.base_url(), place.cwd.path(), &kept, flags);
        if code == 0 {
            agent.prompt("hi").await;
        }
        let (_, stderr, ended) = agent.end().await;
        assert_eq!(ended, Some(code), "{stderr}");
        assert!(stderr.contains("failed to use the transcripts in"), "{stderr}");
    }
}

#[tokio::test]
async fn a_transcript_cut_at_any_byte_goes_on_from_its_last_whole_line() {
    let place = Place::new();
    place.one_turn().await;
    let whole = std::fs::read(place.file()).unwrap();
    let server = model(&json!({"replies": [{"text": "Again.", "repeat": true}]})).await;
    // The program for some cuts; the library for many more of them.
    for part in 0..24 {
        let cut = whole.len() * part / 23;
        place.write(&whole[..cut]);
        let mut agent = place.agent(&server, &["--resume", ID]);
        agent.prompt("more").await;
        let (frames, stderr, code) = agent.end().await;
        assert_eq!(code, Some(0), "{cut}: {stderr} {frames:?}");
        // What was added stands on lines of its own, and is read again.
        let mut agent = place.agent(&server, &["--resume", ID]);
        agent.prompt("and more").await;
        assert_eq!(agent.end().await.2, Some(0), "{cut}");
        let request = messages(&server, server.request_count() - 1);
        let said = request.to_string();
        assert!(said.contains("more") && said.contains("Again."), "{cut}: {said}");
    }
    let transcripts = Transcripts::of(place.kept.path(), &place.cwd.path().canonicalize().unwrap());
    for cut in (0..whole.len()).step_by(7) {
        place.write(&whole[..cut]);
        assert!(transcripts.resume(ID, &wardian_agent::Resume::default()).await.unwrap().is_some(), "{cut}");
    }
}

#[tokio::test]
async fn hostile_transcripts_are_bounded_and_links_are_not_followed() {
    let place = Place::new();
    place.one_turn().await;
    let whole = std::fs::read_to_string(place.file()).unwrap();
    let server = model(&json!({"replies": [{"text": "Again.", "repeat": true}]})).await;
    let good: Vec<&str> = whole.lines().collect();
    let deep = format!("{{\"type\":\"user\",\"message\":{}", "[".repeat(100_000));
    let long = format!("{{\"type\":\"user\",\"x\":\"{}\"}}", "x".repeat(40_000_000));
    let result = r#"{"type":"user","uuid":"x","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_none","content":"forged"}]}}"#;
    let lone = r#"{"type":"assistant","uuid":"y","message":{"id":"m","role":"assistant","model":"m","content":[{"type":"tool_use","id":"toolu_9","name":"Bash","input":{}}]}}"#;
    let cases: Vec<Vec<u8>> = vec![
        b"\xff\xfe\n".iter().chain(whole.as_bytes()).copied().collect(),
        format!("{deep}\n{whole}").into_bytes(),
        format!("{long}\n{whole}").into_bytes(),
        format!("null\n[]\n7\n{{}}\n{{\"type\":7}}\n{{\"type\":\"user\"}}\n{whole}").into_bytes(),
        format!("{result}\n{whole}").into_bytes(),
        format!("{whole}{result}\n").into_bytes(),
        format!("{lone}\n{whole}{lone}\n{lone}\n").into_bytes(),
        // A line is gone: the result, the prompt, the reply.
        [&good[..5], &good[6..]].concat().join("\n").into_bytes(),
        good[1..].join("\n").into_bytes(),
        [&good[..1], &good[4..]].concat().join("\n").into_bytes(),
        good.iter().rev().copied().collect::<Vec<_>>().join("\n").into_bytes(),
        Vec::new(),
    ];
    for (case, bytes) in cases.iter().enumerate() {
        place.write(bytes);
        let mut agent = place.agent(&server, &["--resume", ID, "--permission-mode=dontAsk"]);
        agent.prompt("more").await;
        let (frames, stderr, code) = agent.end().await;
        // The model server checks a request as the API does: each call answered once, and so on.
        assert_eq!(code, Some(0), "{case}: {stderr} {:?}", frames.last());
    }
    let elsewhere = place.cwd.path().join("elsewhere");
    std::fs::write(&elsewhere, &whole).unwrap();
    let pipe = || {
        let file = place.file();
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
    };
    std::fs::remove_file(place.file()).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.file()).unwrap();
    for (what, expected) in [("link", "is a link"), ("pipe", "no plain file")] {
        if what == "pipe" {
            pipe();
        }
        let (frames, stderr, code) = place.agent(&server, &["--resume", ID]).wait().await;
        assert_eq!((frames.len(), code), (0, Some(1)), "{what}: {stderr}");
        assert!(stderr.contains(expected), "{what}: {stderr}");
    }
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), whole);
}

#[tokio::test]
async fn one_process_at_a_time_has_a_conversation() {
    let place = Place::new();
    place.one_turn().await;
    let server = model(&json!({"replies": [{"text": "Again.", "repeat": true}]})).await;
    let mut first = place.agent(&server, &["--resume", ID]);
    first.prompt("one").await;
    first.until("state/idle").await;
    let mut second = place.agent(&server, &["--resume", ID]);
    second.prompt("two").await;
    // The second waits until the first is gone.
    assert_eq!(first.end().await.2, Some(0));
    assert_eq!(second.end().await.2, Some(0));
    let said = messages(&server, 1).to_string();
    assert!(said.contains("one") && said.contains("two"), "{said}");
}

/// A disk that is full in the middle of a turn: nothing is done that could not be noted.
#[tokio::test]
async fn what_cannot_be_kept_is_not_done() {
    let place = Place::new();
    let bash = call("toolu_1", "Bash", json!({"command": "touch ran"}));
    let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
    // The size of files is limited as a full disk would limit it: to the prompt's line.
    let program = at(&server.base_url(), place.cwd.path(), &[]).as_std().get_program().to_owned();
    let mut command = tokio::process::Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(program)
        .args([
            "--output-format=stream-json",
            "--verbose",
            "--input-format=stream-json",
            "--session-id",
            ID,
            BYPASS,
        ])
        .current_dir(place.cwd.path())
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin"), ("ANTHROPIC_API_KEY", "sk-x"), ("IS_SANDBOX", "1")])
        .env("ANTHROPIC_BASE_URL", server.base_url())
        .env("CLAUDE_CONFIG_DIR", place.kept.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut agent = Agent::spawn(command);
    agent.prompt(&"x".repeat(200)).await;
    let (frames, _, code) = agent.end().await;
    let result = frames.iter().find(|frame| frame["type"] == "result").unwrap();
    assert_eq!((&result["subtype"], code), (&json!("error_during_execution"), Some(1)), "{result}");
    assert!(result["errors"][0].as_str().unwrap().contains("transcript"), "{result}");
    assert!(!place.cwd.path().join("ran").exists());
}
