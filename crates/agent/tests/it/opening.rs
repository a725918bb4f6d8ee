//! What the model is told before the first prompt, and that nothing of it changes afterwards.

use serde_json::{Value, json};
use wardian_agent::memory::{MemorySources, load};
use wardian_agent::{Options, Prompt, Resume, SystemPrompt, Transcripts, query};

use crate::support::{call, messages, model, options, result};
use crate::transcripts::{ID, Place};

pub fn prompts(texts: &[&str]) -> Prompt {
    let message = |text: &&str| {
        let frame = json!({"message": {"role": "user", "content": [{"type": "text", "text": text}]}});
        serde_json::from_value(frame).unwrap()
    };
    Prompt::Messages(texts.iter().map(message).collect())
}

/// A body without the marks of the cache.
fn bare(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.shift_remove("cache_control");
                map.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
        }
    }
    strip(&mut value);
    value
}

/// How often a mark stands in a body.
fn marks(value: &Value) -> usize {
    value.to_string().matches("\"cache_control\"").count()
}

/// Fails where a request changes what the one before it said.
fn assert_stable(requests: &[Value]) {
    for pair in requests.windows(2) {
        let [before, after] = [bare(pair[0].clone()), bare(pair[1].clone())];
        assert_eq!((&before["system"], &before["tools"]), (&after["system"], &after["tools"]));
        let texts = [&before, &after].map(|body| {
            let messages = body["messages"].as_array().unwrap();
            let blocks = messages.iter().flat_map(|message| {
                let content = message["content"].as_array().unwrap();
                content.iter().map(|block| format!("{}: {block}", message["role"]))
            });
            blocks.collect::<Vec<_>>()
        });
        assert_eq!(texts[0], texts[1][..texts[0].len()], "what was said is said again, byte for byte");
    }
    for request in requests {
        assert!((2..=4).contains(&marks(request)), "{} marks; the API allows four", marks(request));
    }
}

#[tokio::test]
async fn instructions_come_once_before_the_first_prompt_and_the_prefix_stays() {
    let place = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("CLAUDE.md"), "Use tabs. @more.md").unwrap();
    std::fs::write(place.path().join("more.md"), "And be brief.").unwrap();
    let cwd = place.path().canonicalize().unwrap();
    let read = call("toolu_1", "Read", json!({"file_path": "more.md"}));
    let server = model(&json!({"replies": [
        {"text": "One.", "tool_use": [read]}, {"text": "Two."}, {"text": "Three."}, {"text": "Four.", "repeat": true},
    ]}))
    .await;
    let transcripts = Transcripts::of(kept.path(), &cwd);
    let sources = MemorySources { project: true, ..MemorySources::default() };
    let set_up = |conversation| Options {
        memory: load(&sources, &cwd),
        system_prompt: SystemPrompt::Preset,
        append_system_prompt: Some("Appended.".to_owned()),
        exclude_dynamic_sections: true,
        conversation: Some(conversation),
        ..options(&server, &cwd)
    };
    let conversation = transcripts.begin(Some(ID.to_owned())).await.unwrap();
    messages(query(prompts(&["p1", "p2"]), set_up(conversation))).await;
    // What is in the files now does not matter any more.
    std::fs::write(place.path().join("CLAUDE.md"), "Use spaces.").unwrap();
    let conversation = transcripts.resume(ID, &Resume::default()).await.unwrap().unwrap();
    messages(query("p3", set_up(conversation))).await;
    let requests: Vec<Value> = server.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(requests.len(), 4);
    assert_stable(&requests);
    let first = requests[0]["messages"][0]["content"].as_array().unwrap();
    let texts: Vec<&str> = first.iter().map(|block| block["text"].as_str().unwrap()).collect();
    assert_eq!((texts.len(), texts[2]), (3, "p1"));
    assert!(texts[0].contains(cwd.to_str().unwrap()), "the surroundings that the system prompt leaves out");
    let places = ["Use tabs.", "more.md", "And be brief."].map(|text| texts[1].find(text).unwrap());
    assert!(places.is_sorted(), "{}", texts[1]);
    let system = requests[0]["system"].to_string();
    assert!(!system.contains(cwd.to_str().unwrap()) && system.contains("Appended."));
    assert_eq!(requests[3].to_string().matches("Use tabs.").count(), 1);
}

#[tokio::test]
async fn what_is_the_same_in_every_session_has_a_mark_of_its_own() {
    let place = tempfile::tempdir().unwrap();
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let blocks = ["Static.", wardian_agent::DYNAMIC_BOUNDARY, "Dynamic."].map(str::to_owned);
    let options =
        Options { system_prompt: SystemPrompt::Text(blocks.to_vec()), ..options(&server, place.path()) };
    messages(query("hi", options)).await;
    let body = server.requests().pop().unwrap().body;
    let mark = json!({"type": "ephemeral"});
    assert_eq!(
        body["system"],
        json!([
            {"type": "text", "text": "Static.", "cache_control": mark},
            {"type": "text", "text": "Dynamic.", "cache_control": mark},
        ])
    );
}

#[tokio::test]
async fn a_system_prompt_that_is_to_stay_stays() {
    let place = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let transcripts = Transcripts::of(kept.path(), place.path());
    for (index, (text, snapshot, expected)) in
        [("X", true, "X"), ("Y", true, "X"), ("Z", false, "Z"), ("W", true, "X")].into_iter().enumerate()
    {
        let conversation = match index {
            0 => transcripts.begin(Some(ID.to_owned())).await.unwrap(),
            _ => transcripts.resume(ID, &Resume::default()).await.unwrap().unwrap(),
        };
        let options = Options {
            system_prompt: text.into(),
            system_prompt_snapshot: snapshot,
            conversation: Some(conversation),
            ..options(&server, place.path())
        };
        let messages = messages(query("hi", options)).await;
        assert!(!result(&messages).is_error);
        assert_eq!(server.requests()[index].body["system"][0]["text"], expected, "{index}");
    }
}

#[tokio::test]
async fn the_program_reads_instructions_and_commands_of_the_sources_that_it_is_told() {
    let place = Place::new();
    std::fs::create_dir_all(place.cwd.path().join(".claude/commands")).unwrap();
    let write = |path: std::path::PathBuf, text: &str| std::fs::write(path, text).unwrap();
    write(place.kept.path().join("CLAUDE.md"), "USER'S");
    write(place.cwd.path().join("CLAUDE.md"), "PROJECT'S");
    write(place.cwd.path().join("CLAUDE.local.md"), "LOCAL");
    write(
        place.cwd.path().join(".claude/commands/greet.md"),
        "---\ndescription: Greets\nallowed-tools: Bash\n---\nGreet $ARGUMENTS.",
    );
    for (sources, expected) in [
        ("", &[][..]),
        ("user", &["USER'S"]),
        ("project", &["PROJECT'S"]),
        ("user,project,local", &["USER'S", "PROJECT'S", "LOCAL"]),
    ] {
        let run = call("toolu_1", "Bash", json!({"command": "echo hi > it-ran"}));
        let server = model(
            &json!({"replies": [{"text": "I do.", "tool_use": [run]}, {"text": "Hi.", "repeat": true}]}),
        )
        .await;
        let mut agent = place.agent(&server, &["--setting-sources", sources]);
        agent.control("1", json!({"subtype": "initialize"})).await;
        let commands =
            agent.until("answers/success").await.pop().unwrap()["response"]["response"]["commands"].clone();
        let is_there = expected.contains(&"PROJECT'S");
        let greet = json!({"name": "greet", "description": "Greets (project)", "argumentHint": ""});
        assert_eq!(commands.as_array().unwrap().contains(&greet), is_there, "{sources}");
        agent.prompt("/greet Ada").await;
        agent.until("result/success").await;
        let body = server.requests()[0].body["messages"].to_string();
        let found = ["USER'S", "PROJECT'S", "LOCAL"].into_iter().filter(|text| body.contains(text));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{sources}");
        assert_eq!(body.contains("Greet Ada."), is_there, "{sources}");
        assert_eq!(agent.end().await.2, Some(0));
        assert!(!place.cwd.path().join("it-ran").exists(), "a project that nobody trusts allows nothing");
    }
}
