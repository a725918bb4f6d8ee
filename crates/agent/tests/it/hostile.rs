//! A model that means harm, or has lost its mind.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use wardian_agent::{Options, PermissionMode, query};

use crate::process::{Agent, PATIENCE, kinds_of};
use crate::support::{call, canned, kinds, messages, model, options, response, result, tool_results};

async fn run(replies: Value, change: impl FnOnce(&mut Options)) -> Vec<wardian_agent::Message> {
    let model = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    change(&mut options);
    messages(query("hi", options)).await
}

#[tokio::test]
async fn calls_that_make_no_sense_are_answered_and_the_turn_goes_on() {
    let long = "x".repeat(100_000);
    for (name, input, expected) in [
        ("Teleport", json!({}), "There is no tool \"Teleport\""),
        (long.as_str(), json!({}), "There is no tool"),
        ("", json!({}), "There is no tool"),
        ("Read", json!({}), "`file_path` is missing"),
        ("Read", json!({"file_path": 7}), "must be of type string"),
        ("Bash", json!("{\"command\": \"touch ran"), "not valid JSON"),
        ("Bash", json!([1, 2]), "must be of type object"),
        ("Bash", json!(null), "must be of type object"),
    ] {
        let block = json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": input});
        let messages = run(json!([{"content": [block]}, {"text": "Done."}]), |_| ()).await;
        let results = tool_results(&messages);
        assert!(
            results[0].1 && results[0].0.contains(expected),
            "{}: {results:?}",
            &name[..name.len().min(20)]
        );
        assert!(results[0].0.len() < 1000);
        assert_eq!(result(&messages).result.as_deref(), Some("Done."));
    }
}

#[tokio::test]
async fn two_calls_with_one_id_are_both_answered() {
    let calls =
        json!([call("toolu_1", "Glob", json!({"pattern": "*"})), call("toolu_1", "Teleport", json!({}))]);
    let messages = run(json!([{"tool_use": calls}]), |_| ()).await;
    assert_eq!(tool_results(&messages).len(), 2);
}

#[tokio::test]
async fn a_model_that_never_stops_calling_is_bounded() {
    let reply = json!({"tool_use": [{"name": "Glob", "input": {"pattern": "*"}}], "repeat": true});
    let messages = run(json!([reply]), |options| options.max_turns = Some(20)).await;
    assert_eq!((result(&messages).subtype.as_str(), result(&messages).num_turns), ("error_max_turns", 21));
}

#[tokio::test]
async fn ten_megabytes_of_text_come_through() {
    let text = "0123456789".repeat(1_000_000);
    let messages = run(json!([{"text": text, "chunk_bytes": 60_000}]), |_| ()).await;
    assert_eq!(result(&messages).result.as_ref().unwrap().len(), 10_000_000);
}

#[tokio::test]
async fn a_result_too_long_for_the_model_is_cut_and_kept() {
    struct Long;
    impl wardian_agent::Tool for Long {
        fn name(&self) -> &str {
            "long"
        }
        fn description(&self) -> &str {
            "Gives much."
        }
        fn input_schema(&self) -> Value {
            json!({"type": "object"})
        }
        fn call<'a>(
            &'a self,
            _: Value,
            _: &'a wardian_agent::ToolContext,
        ) -> futures_util::future::BoxFuture<'a, wardian_agent::ToolOutput> {
            Box::pin(async { wardian_agent::ToolOutput::ok("é".repeat(1_000_000), json!({})) })
        }
    }
    let kept = tempfile::tempdir().unwrap();
    let replies = json!([{"tool_use": [call("../../toolu", "long", json!({}))]}, {"text": "Done."}]);
    let messages = run(replies, |options| {
        options.custom_tools = vec![std::sync::Arc::new(Long)];
        options.output_dir = Some(kept.path().join("outputs"));
    })
    .await;
    let (text, is_error) = &tool_results(&messages)[0];
    assert!(text.len() < 300_000 && !is_error);
    let file = kept.path().join("outputs/______toolu.txt");
    assert!(text.contains(file.to_str().unwrap()), "{}", &text[text.len() - 200..]);
    // Others on the machine are not to read what tools gave.
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(file.parent().unwrap()), mode(&file)), (0o700, 0o600));
    assert_eq!(std::fs::metadata(file).unwrap().len(), 2_000_000);
}

#[tokio::test]
async fn a_tool_that_crashes_is_an_error_for_the_model() {
    struct Crash;
    impl wardian_agent::Tool for Crash {
        fn name(&self) -> &str {
            "crash"
        }
        fn description(&self) -> &str {
            "Crashes."
        }
        fn input_schema(&self) -> Value {
            json!({"type": "object"})
        }
        fn call<'a>(
            &'a self,
            _: Value,
            _: &'a wardian_agent::ToolContext,
        ) -> futures_util::future::BoxFuture<'a, wardian_agent::ToolOutput> {
            Box::pin(async { panic!("on purpose") })
        }
    }
    let replies = json!([{"tool_use": [call("toolu_1", "crash", json!({}))]}, {"text": "Done."}]);
    let messages = run(replies, |options| options.custom_tools = vec![std::sync::Arc::new(Crash)]).await;
    assert!(tool_results(&messages)[0].0.contains("crashed"));
    assert_eq!(kinds(&messages).last().unwrap(), "result/success");
}

#[tokio::test]
async fn counts_that_cannot_be_do_not_wrap() {
    let usage = json!({"input_tokens": u64::MAX, "output_tokens": u64::MAX});
    let glob = json!([{"name": "Glob", "input": {"pattern": "*"}}]);
    let replies = json!([{"tool_use": glob, "usage": usage}, {"text": "Done.", "usage": usage}]);
    let messages = run(replies, |_| ()).await;
    assert_eq!(result(&messages).usage.input_tokens, Some(u64::MAX));
    assert!(result(&messages).total_cost_usd.0 > 0);
}

#[tokio::test]
async fn a_stream_of_broken_json_is_an_error_and_no_crash() {
    let start = r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{}}}"#;
    for body in [
        "data: {\"type\": \"message_start\", \n\n".to_owned(),
        "data: []\n\ndata: 7\n\ndata: null\n\n".to_owned(),
        format!(
            "event: message_start\ndata: {start}\n\nevent: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":7}}\n\n"
        ),
        format!(
            "event: message_start\ndata: {start}\n\nevent: content_block_start\ndata: {}\n\n",
            "[".repeat(100_000)
        ),
        format!(
            "event: message_start\ndata: {start}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        ),
        "\u{feff}\0\u{fffd}\n\n".repeat(1000),
    ] {
        let (url, served) = canned(vec![response("200 OK", "text/event-stream", &body)]).await;
        let model = model(&json!({"replies": []})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(&model, folder.path());
        options.api.endpoint = wardian_agent::Endpoint::Url(url);
        options.api.retry.max_retries = 0;
        let messages = messages(query("hi", options)).await;
        assert!(kinds(&messages).last().unwrap().starts_with("result/"), "{}", &body[..body.len().min(60)]);
        served.abort();
    }
}

#[tokio::test]
async fn endless_calls_end_with_the_money() {
    let usage = json!({"input_tokens": 10_000, "output_tokens": 10});
    let reply =
        json!({"tool_use": [{"name": "Glob", "input": {"pattern": "*"}}], "usage": usage, "repeat": true});
    let messages = run(json!([reply]), |options| options.max_budget = Some("0.1".parse().unwrap())).await;
    assert_eq!(result(&messages).subtype, "error_max_budget_usd");
}

/// A tool of the host's that does not listen ends with the turn all the same.
#[tokio::test]
async fn a_call_that_never_ends_ends_with_an_interrupt() {
    let began = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let signal = std::sync::Arc::clone(&began);
    let never = wardian_agent::tool("never", "Never ends.", move |(): ()| {
        signal.add_permits(1);
        std::future::pending::<String>()
    });
    let model = model(&json!({"replies": [{"tool_use": [call("toolu_1", "never", json!({}))]}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    options.custom_tools = vec![never.into()];
    let query = query("hi", options);
    let handle = query.handle();
    let stop = async {
        began.acquire().await.unwrap().forget();
        handle.interrupt().await.unwrap();
    };
    let (messages, ()) = tokio::join!(messages(query), stop);
    assert_eq!(result(&messages).terminal_reason.as_deref(), Some("aborted_tools"));
}

/// The most memory that the process ever had, in MiB.
fn peak_mib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.child.id().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// What is kept of an output is 16 MiB; the rest is read and forgotten.
const OUTPUT_PEAK_MIB: u64 = 100;

#[tokio::test]
async fn a_tool_that_prints_a_gigabyte_takes_little_memory() {
    let command = "head -c 1073741824 /dev/zero | tr '\\0' x";
    let bash = call("toolu_1", "Bash", json!({"command": command}));
    let server = model(&json!({"replies": [{"tool_use": [bash]}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--dangerously-skip-permissions"]);
    agent.prompt("hi").await;
    agent.until("result/success").await;
    let peak = peak_mib(&agent);
    assert!(peak < OUTPUT_PEAK_MIB, "{peak} MiB");
    let sent = server.requests()[1].body.to_string();
    assert!(sent.contains("xxxx") && sent.len() < 500_000, "{}", sent.len());
    assert_eq!(agent.end().await.2, Some(0));
}

/// The turn waits for the reader, and does not pile up what it does not read.
#[tokio::test]
async fn a_host_that_does_not_read_stalls_only_itself() {
    let text = "0123456789".repeat(100_000);
    let bash = call("toolu_1", "Bash", json!({"command": "true"}));
    let reply = json!({"text": text, "tool_use": [bash], "chunk_bytes": 1_000, "repeat": true});
    let server = model(&json!({"replies": [reply]})).await;
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--dangerously-skip-permissions", "--include-partial-messages", "--no-session-persistence"];
    let mut agent = Agent::start(&server, folder.path(), &flags);
    agent.prompt("hi").await;
    server.wait_for(1).await;
    // It is not dead: it ends when it is told to, with what it had to say unread.
    agent.signal(rustix::process::Signal::TERM);
    let status = tokio::time::timeout(PATIENCE, agent.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(143));
    assert!(server.request_count() < 20);
}

/// Neither to hooks, nor to questions, nor as a tool server.
#[tokio::test]
async fn a_host_that_never_answers_is_waited_for_and_left() {
    let write = call("toolu_1", "Write", json!({"file_path": "made", "content": ""}));
    let bash = call("toolu_0", "Bash", json!({"command": "touch made"}));
    let replies = json!([{"tool_use": [bash]}, {"tool_use": [write]}, {"text": "Done.", "repeat": true}]);
    let server = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--permission-prompt-tool=stdio"]);
    let hooks = json!({"PreToolUse": [{"matcher": "Bash", "hookCallbackIds": ["hook_0"], "timeout": 0.05}]});
    agent.control("init", json!({"subtype": "initialize", "hooks": hooks})).await;
    agent.prompt("hi").await;
    // The hook's time passes, and what it should have seen is not run; then the question is out, for ever.
    let frames = agent.until("asks/can_use_tool").await;
    assert!(kinds_of(&frames).contains(&"asks/hook_callback".to_owned()));
    agent.control("stop", json!({"subtype": "interrupt"})).await;
    let frames = agent.until("result/error_during_execution").await;
    assert!(kinds_of(&frames).contains(&"control_cancel_request".to_owned()), "{:?}", kinds_of(&frames));
    assert!(!folder.path().join("made").exists());
    // The session goes on.
    agent.prompt("again").await;
    agent.until("result/success").await;
    assert_eq!(agent.end().await.2, Some(0));
}

/// Each file of the corpus as standard input: the program ends by itself, and not by a panic.
#[tokio::test]
async fn lines_of_the_corpus_do_not_crash_the_program() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frames");
    for entry in std::fs::read_dir(corpus).unwrap() {
        let server = model(&json!({"replies": [{"text": "Yes.", "repeat": true}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&server, folder.path(), &["--no-session-persistence"]);
        agent.write(&std::fs::read(entry.unwrap().path()).unwrap()).await;
        let (_, stderr, code) = agent.end().await;
        assert!(matches!(code, Some(0 | 1)) && !stderr.contains("panicked"), "{code:?} {stderr}");
    }
}

/// What guards a tool guards it under every name that it can be called by.
#[tokio::test]
async fn a_call_by_an_old_name_is_seen_by_what_guards_the_new_one() {
    use wardian_agent::{Hook, HookEvent, HookOutput, Hooks};
    let task = call(
        "toolu_1",
        "Task",
        json!({"description": "d", "prompt": "p", "subagent_type": "general-purpose"}),
    );
    let bash = call("toolu_1", "shell", json!({"command": "touch made"}));
    for (call, guarded, rule) in [(task, "Agent", "Agent(general-purpose)"), (bash, "Bash", "Bash(touch *)")]
    {
        for by_hook in [true, false] {
            let hook = Hook::new(Some(guarded), |_| async { Ok(HookOutput::deny("No.")) });
            let messages = run(json!([{"tool_use": [call]}, {"text": "Done.", "repeat": true}]), |options| {
                options.tool_aliases = [("shell".to_owned(), "Bash".to_owned())].into();
                if by_hook {
                    options.hooks = Hooks::default().on(HookEvent::PreToolUse, hook);
                } else {
                    options.disallowed_tools = vec![rule.to_owned()];
                }
            })
            .await;
            let denials = &result(&messages).permission_denials;
            assert_eq!(denials.len(), 1, "{guarded}, by a hook: {by_hook}: {:?}", tool_results(&messages));
        }
    }
}
