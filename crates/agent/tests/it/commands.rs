//! Slash commands and compaction.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use wardian_agent::command::CustomCommand;
use wardian_agent::hook::{Hook, HookEvent, HookOutput, Hooks};
use wardian_agent::{AutoCompact, Message, Options, Resume, Transcripts, query};

use crate::opening::prompts;
use crate::process::{Agent, kind_of};
use crate::support::{call, kinds, messages, model, options, result};
use crate::transcripts::{ID, Place, messages as sent};

const SUMMARY: &str = "<analysis>Thinking.</analysis><summary>They said p1 and p2.</summary>";

fn frames(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(Message::to_value).collect()
}

/// What a request says, a text each.
fn said(server: &wardian_model::Server, request: usize) -> Vec<String> {
    let messages = sent(server, request);
    let blocks =
        messages.as_array().unwrap().iter().flat_map(|message| message["content"].as_array().unwrap());
    blocks.map(|block| block["text"].as_str().unwrap_or("?").to_owned()).collect()
}

/// Hooks that note what they were told, by event.
fn noting(events: &[HookEvent]) -> (Hooks, Arc<Mutex<Vec<Value>>>) {
    let noted: Arc<Mutex<Vec<Value>>> = Arc::default();
    let mut hooks = Hooks::default();
    for event in events {
        let noted = Arc::clone(&noted);
        let hook = Hook::new(None, move |input| {
            noted.lock().unwrap().push(serde_json::to_value(&input).unwrap());
            async { Ok(HookOutput::default()) }
        });
        hooks.add(*event, hook);
    }
    (hooks, noted)
}

#[tokio::test]
async fn a_conversation_is_compacted_by_hand_and_goes_on_from_the_summary() {
    let server = model(&json!({"replies": [{"text": "r1"}, {"text": "r2"}, {"text": SUMMARY}, {"text": "r3"}, {"text": "r4"}]})).await;
    let (place, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let transcripts = Transcripts::of(kept.path(), place.path());
    let (hooks, noted) = noting(&[HookEvent::PreCompact, HookEvent::PostCompact]);
    let conversation = transcripts.begin(Some(ID.to_owned())).await.unwrap();
    let set_up = Options { hooks, conversation: Some(conversation), ..options(&server, place.path()) };
    let given = messages(query(prompts(&["p1", "p2", "/compact keep names", "p3"]), set_up)).await;
    let kinds = kinds(&given);
    let from = kinds.iter().position(|kind| kind == "system/compact_boundary").unwrap();
    assert_eq!(
        &kinds[from - 3..from + 4],
        [
            "system/status",
            "system/status",
            "system/init",
            "system/compact_boundary",
            "user",
            "user",
            "result/success"
        ]
        .map(str::to_owned)
        .as_slice()
    );
    let frames = frames(&given);
    assert_eq!(
        (&frames[from - 3]["status"], &frames[from - 2]["compact_result"]),
        (&json!("compacting"), &json!("success"))
    );
    let metadata = &frames[from]["compact_metadata"];
    // The last reply had 10 and 5 tokens.
    assert_eq!((&metadata["trigger"], &metadata["pre_tokens"]), (&json!("manual"), &json!(15)));
    assert!(metadata["post_tokens"].is_u64() && metadata["duration_ms"].is_u64());
    assert_eq!(
        (&frames[from + 1]["isSynthetic"], &frames[from + 2]["isReplay"]),
        (&json!(true), &json!(true))
    );
    let told = frames[from + 1]["message"]["content"][0]["text"].as_str().unwrap();
    assert!(told.contains("They said p1 and p2.") && !told.contains("Thinking"), "{told}");
    assert_eq!(
        frames[from + 2]["message"]["content"][0]["text"],
        "<local-command-stdout>Compacted </local-command-stdout>"
    );
    let ended = &frames[from + 3];
    assert_eq!(
        (&ended["num_turns"], &ended["result"], &ended["local_command"], &ended["terminal_reason"]),
        (&json!(0), &json!(""), &json!("compact"), &Value::Null)
    );
    // Three calls, of which the summary is one.
    assert_eq!((&ended["total_cost_usd"], &ended["usage"]["input_tokens"]), (&json!(0.00021), &json!(0)));
    let request = said(&server, 2);
    assert_eq!(&request[..4], ["p1", "r1", "p2", "r2"]);
    assert!(request[4].contains("keep names"));
    let bodies: Vec<Value> = server.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(
        (&bodies[1]["tools"], &bodies[1]["system"]),
        (&bodies[2]["tools"], &bodies[2]["system"]),
        "the cache is used"
    );
    let after = said(&server, 3);
    assert!(after[0].contains("They said p1 and p2."), "{after:?}");
    assert_eq!((after.last().unwrap().as_str(), after.iter().any(|text| text == "p1")), ("p3", false));
    let noted = noted.lock().unwrap().clone();
    assert_eq!(
        (&noted[0]["hook_event_name"], &noted[0]["trigger"], &noted[0]["custom_instructions"]),
        (&json!("PreCompact"), &json!("manual"), &json!("keep names"))
    );
    assert_eq!(
        (&noted[1]["hook_event_name"], &noted[1]["compact_summary"]),
        (&json!("PostCompact"), &json!("They said p1 and p2."))
    );
    // After a restart it is the same conversation, byte for byte.
    let conversation = transcripts.resume(ID, &Resume::default()).await.unwrap().unwrap();
    let set_up = Options { conversation: Some(conversation), ..options(&server, place.path()) };
    messages(query("p4", set_up)).await;
    let resumed = said(&server, 4);
    assert_eq!(resumed[..after.len()], after);
    assert_eq!(&resumed[after.len()..], ["r3", "p4"]);
}

/// Usage that nearly fills a window.
fn full(tokens: u64) -> Value {
    json!({"input_tokens": tokens, "output_tokens": 5})
}

#[tokio::test]
async fn a_full_window_is_compacted_before_the_prompt_that_waits_is_answered() {
    let server = model(&json!({"replies": [
        {"text": "r1", "usage": full(980_000)}, {"text": SUMMARY}, {"text": "r2"}, {"text": "r3"},
    ]}))
    .await;
    let (place, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let transcripts = Transcripts::of(kept.path(), place.path());
    let conversation = transcripts.begin(Some(ID.to_owned())).await.unwrap();
    // What a hook has for the model with the prompt stays with the prompt.
    let tells = Hook::new(None, |_| async {
        let specific = json!({"hookEventName": "UserPromptSubmit", "additionalContext": "Mind the PLUMS."});
        Ok(HookOutput {
            hook_specific_output: serde_json::from_value(specific).ok(),
            ..HookOutput::default()
        })
    });
    let hooks = Hooks::default().on(HookEvent::UserPromptSubmit, tells);
    let set_up = Options { hooks, conversation: Some(conversation), ..options(&server, place.path()) };
    let given = messages(query(prompts(&["p1", "p2"]), set_up)).await;
    let frames = frames(&given);
    let boundary = frames.iter().find(|frame| frame["subtype"] == "compact_boundary").unwrap();
    let metadata = &boundary["compact_metadata"];
    assert_eq!(metadata["trigger"], "auto");
    assert!(metadata["pre_tokens"].as_u64().unwrap() >= 980_005);
    let ended = frames.last().unwrap();
    assert_eq!(
        (&ended["num_turns"], &ended["result"], &ended["usage"]["input_tokens"]),
        (&json!(2), &json!("r2"), &json!(10))
    );
    let summed_up = said(&server, 1);
    assert_eq!((summed_up[0].as_str(), summed_up[2].as_str()), ("p1", "r1"));
    assert!(!summed_up.contains(&"p2".to_owned()), "the prompt that waits is not summed up");
    let after = said(&server, 2);
    assert_eq!((after.len(), after[1].as_str()), (3, "p2"));
    assert!(after[2].contains("Mind the PLUMS."), "{after:?}");
    // The prompt is found again behind the boundary.
    let conversation = transcripts.resume(ID, &Resume::default()).await.unwrap().unwrap();
    let set_up = Options { conversation: Some(conversation), ..options(&server, place.path()) };
    messages(query("p3", set_up)).await;
    assert_eq!(said(&server, 3), [after, vec!["r2".to_owned(), "p3".to_owned()]].concat());
}

#[tokio::test]
async fn a_window_that_fills_within_a_turn_is_compacted_between_its_calls() {
    let run = call("toolu_1", "Bash", json!({"command": "echo hi"}));
    let server = model(&json!({"replies": [
        {"text": "I run it.", "tool_use": [run], "usage": full(90_000)}, {"text": SUMMARY}, {"text": "Done."},
    ]}))
    .await;
    let place = tempfile::tempdir().unwrap();
    let set_up = Options {
        auto_compact: AutoCompact::Window(100_000),
        allowed_tools: vec!["Bash".to_owned()],
        ..options(&server, place.path())
    };
    let given = messages(query("go", set_up)).await;
    assert_eq!(result(&given).result.as_deref(), Some("Done."));
    assert_eq!(result(&given).num_turns, 3);
    let asked = said(&server, 1);
    assert!(asked.last().unwrap().contains("<summary>"), "{asked:?}");
    let after = said(&server, 2);
    assert_eq!(after.len(), 1);
    assert!(after[0].contains("They said p1 and p2.") && after[0].contains("under way"), "{after:?}");
}

#[tokio::test]
async fn what_the_api_calls_too_long_is_compacted_once_and_asked_again() {
    let too_long = json!({"status": 400, "type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"});
    let server = model(&json!({"replies": [
        {"text": "r1"}, {"error": too_long}, {"text": SUMMARY}, {"text": "r2"},
        {"error": too_long}, {"text": SUMMARY}, {"error": too_long},
    ]}))
    .await;
    let place = tempfile::tempdir().unwrap();
    let given = messages(query(prompts(&["p1", "p2", "p3"]), options(&server, place.path()))).await;
    let ends: Vec<_> = given
        .iter()
        .filter_map(|message| match message {
            Message::Result(result) => Some((result.terminal_reason.clone().unwrap(), result.is_error)),
            _ => None,
        })
        .collect();
    let expected = [("completed", false), ("completed", false), ("prompt_too_long", true)];
    assert_eq!(ends, expected.map(|(reason, error)| (reason.to_owned(), error)));
    assert_eq!(server.request_count(), 7);
    // Where it is off, the error is the end.
    let server = model(&json!({"replies": [{"text": "r1"}, {"error": too_long}]})).await;
    let off = Options { auto_compact: AutoCompact::Off, ..options(&server, place.path()) };
    let given = messages(query(prompts(&["p1", "p2"]), off)).await;
    assert_eq!(result(&given).terminal_reason.as_deref(), Some("prompt_too_long"));
}

#[tokio::test]
async fn a_summary_that_does_not_come_leaves_the_conversation_as_it_was() {
    let server = model(&json!({"replies": [
        {"text": "r1", "usage": full(980_000)}, {"error": {"status": 400, "message": "no"}}, {"text": "r2", "usage": full(980_000)},
        {"text": " "}, {"text": "r3"},
    ]}))
    .await;
    let place = tempfile::tempdir().unwrap();
    let given = messages(query(prompts(&["p1", "p2", "/compact"]), options(&server, place.path()))).await;
    let frames = frames(&given);
    let failed: Vec<&Value> = frames.iter().filter(|frame| frame["compact_result"] == "failed").collect();
    assert_eq!(failed.len(), 2);
    assert!(failed[0]["compact_error"].as_str().unwrap().contains("no"));
    assert!(frames.iter().all(|frame| frame["subtype"] != "compact_boundary"));
    assert_eq!(said(&server, 2), ["p1", "r1", "p2"]);
    // A hook refuses.
    let server = model(&json!({"replies": [{"text": "r1"}]})).await;
    let refusing = Hook::new(None, |_| async {
        Ok(HookOutput {
            decision: Some("block".to_owned()),
            reason: Some("not now".to_owned()),
            ..HookOutput::default()
        })
    });
    let hooks = Hooks::default().on(HookEvent::PreCompact, refusing);
    let given =
        messages(query(prompts(&["p1", "/compact"]), Options { hooks, ..options(&server, place.path()) }))
            .await;
    assert_eq!(server.request_count(), 1);
    let text = given.iter().map(|message| message.to_value().to_string()).collect::<String>();
    assert!(text.contains("not now"));
    assert!(!result(&given).is_error);
}

#[tokio::test]
async fn what_is_no_summary_takes_the_place_of_nothing() {
    let look = call("toolu_1", "Bash", json!({"command": "touch ran"}));
    let server = model(&json!({"replies": [
        {"text": "r1"},
        {"text": "I cannot sum that up.", "stop_reason": "refusal"},
        {"text": "Let me look first.", "tool_use": [look]},
        {"text": "r2"},
    ]}))
    .await;
    let place = tempfile::tempdir().unwrap();
    let given =
        messages(query(prompts(&["p1", "/compact", "/compact", "p2"]), options(&server, place.path()))).await;
    let frames = frames(&given);
    assert_eq!(frames.iter().filter(|frame| frame["compact_result"] == "failed").count(), 2);
    let heard = said(&server, 3);
    assert_eq!(heard[..2], ["p1", "r1"]);
    assert!(!place.path().join("ran").exists(), "a call in a summary is not made");
}

#[tokio::test]
async fn compaction_that_frees_nothing_is_given_up() {
    // The instructions alone are more than the window holds.
    let run = |n: u32| json!({"text": "x", "usage": full(90_000), "tool_use": [call(&format!("toolu_{n}"), "Bash", json!({"command": "echo hi"}))]});
    let summary = || json!({"text": SUMMARY});
    let replies =
        [run(1), summary(), run(2), summary(), run(3), summary(), run(4), run(5), json!({"text": "Done."})];
    let instructions = "Many words. ".repeat(8_000);
    let server = model(&json!({"replies": replies})).await;
    let place = tempfile::tempdir().unwrap();
    let set_up = Options {
        auto_compact: AutoCompact::Window(20_000),
        allowed_tools: vec!["Bash".to_owned()],
        system_prompt: instructions.as_str().into(),
        ..options(&server, place.path())
    };
    let given = messages(query("go", set_up)).await;
    let compacted = kinds(&given).iter().filter(|kind| *kind == "system/compact_boundary").count();
    assert_eq!((compacted, result(&given).result.as_deref()), (3, Some("Done.")));
}

#[tokio::test]
async fn a_summary_counts_towards_the_budget() {
    // 100,000 output tokens at $10 a million: a dollar.
    let dear = json!({"input_tokens": 980_000, "output_tokens": 100_000});
    let server = model(&json!({"replies": [
        {"text": "r1", "usage": full(980_000)}, {"text": SUMMARY, "usage": dear}, {"text": "never"},
    ]}))
    .await;
    let place = tempfile::tempdir().unwrap();
    let set_up = Options {
        model: "claude-sonnet-5-5".to_owned(),
        max_budget: Some("2.5".parse().unwrap()),
        ..options(&server, place.path())
    };
    let given = messages(query(prompts(&["p1", "p2"]), set_up.clone())).await;
    assert_eq!(result(&given).subtype, "error_max_budget_usd");
    assert_eq!(server.request_count(), 2, "the prompt does not go out once the money is spent");
    let server = model(&json!({"replies": [{"text": "r1", "usage": dear}, {"text": "never"}]})).await;
    let set_up = Options { api: options(&server, place.path()).api, ..set_up };
    let given = messages(query(prompts(&["p1", "/compact"]), set_up)).await;
    assert_eq!(server.request_count(), 1);
    let text = given.iter().map(|message| message.to_value().to_string()).collect::<String>();
    assert!(text.contains("the budget is spent"), "{text}");
}

#[tokio::test]
async fn nothing_to_compact_is_said_and_nothing_done() {
    let server = model(&json!({"replies": []})).await;
    let place = tempfile::tempdir().unwrap();
    let given = messages(query("/compact", options(&server, place.path()))).await;
    assert_eq!(kinds(&given), ["system/init", "assistant", "result/success"]);
    let frames = frames(&given);
    assert_eq!(frames[1]["message"]["content"][0]["text"], "Error: No messages to compact");
    assert_eq!((&frames[1]["message"]["model"], &frames[2]["num_turns"]), (&json!("<synthetic>"), &json!(0)));
}

#[tokio::test]
async fn context_and_cost_are_said_without_the_model() {
    let server = model(&json!({"replies": [{"text": "r1"}, {"text": "r2"}]})).await;
    let place = tempfile::tempdir().unwrap();
    let given =
        messages(query(prompts(&["p1", "/context", "/cost", "p2"]), options(&server, place.path()))).await;
    assert_eq!(server.request_count(), 2);
    let frames = frames(&given);
    let results: Vec<&Value> = frames.iter().filter(|frame| frame["type"] == "result").collect();
    let context = results[1]["result"].as_str().unwrap();
    assert!(context.contains("claude-sonnet-5") && context.contains("System tools"), "{context}");
    let cost = results[2]["result"].as_str().unwrap();
    assert!(cost.contains("10 input, 5 output") && cost.contains("$0.0001"), "{cost}");
    for (result, name) in results[1..3].iter().zip(["context", "cost"]) {
        assert_eq!((&result["num_turns"], &result["local_command"]), (&json!(0), &json!(name)));
    }
    let card = frames.iter().find(|frame| frame["context_usage"].is_object()).unwrap();
    assert_eq!(card["context_usage"]["raw_max_tokens"], 1_000_000);
    assert!(card["local_command_source"].as_str().unwrap().starts_with("<local-command-stdout>## Context"));
    // The model finds them before the next prompt, marked as none of its own.
    let said = said(&server, 1);
    assert!(said.iter().any(|text| text.contains("<command-name>/context</command-name>")), "{said:?}");
    assert_eq!(said.last().unwrap(), "p2");
}

#[tokio::test]
async fn clear_begins_a_new_conversation_with_an_id_of_its_own() {
    let server = model(&json!({"replies": [{"text": "r1"}, {"text": "r2"}]})).await;
    let place = Place::new();
    let mut agent = place.agent(&server, &["--session-id", ID]);
    agent.prompt("p1").await;
    agent.until("result/success").await;
    agent.prompt("/clear").await;
    let cleared = agent.until("result/success").await;
    let reset = cleared.iter().find(|frame| frame["type"] == "conversation_reset").unwrap();
    let id = reset["new_conversation_id"].as_str().unwrap().to_owned();
    assert_eq!((&reset["trigger"], &reset["session_id"]), (&json!("clear"), &json!(ID)));
    let ended = cleared.last().unwrap();
    assert_eq!((&ended["session_id"], &ended["num_turns"]), (&json!(id), &json!(0)));
    assert_eq!(ended["total_cost_usd"].as_f64(), Some(0.0));
    let order: Vec<String> = cleared.iter().map(kind_of).collect();
    let at = |kind: &str| order.iter().position(|found| found == kind).unwrap();
    assert!(at("conversation_reset") < at("system/init"));
    agent.prompt("p2").await;
    let frames = agent.until("result/success").await;
    assert_eq!(said(&server, 1), ["p2"]);
    assert_eq!(frames.last().unwrap()["total_cost_usd"], json!(0.00007));
    assert_eq!(agent.end().await.2, Some(0));
    let old = std::fs::read_to_string(place.file()).unwrap();
    let new = std::fs::read_to_string(place.file().with_file_name(format!("{id}.jsonl"))).unwrap();
    assert!(
        old.contains("p1") && !old.contains("\"p2\"") && new.contains("\"p2\"") && !new.contains("\"p1\"")
    );
}

#[tokio::test]
async fn what_a_query_may_cost_is_not_cleared() {
    let server = model(&json!({"replies": [{"text": "r1"}, {"text": "r2"}, {"text": "r3"}]})).await;
    let place = tempfile::tempdir().unwrap();
    // Two replies of 0.00007.
    let set_up = Options { max_budget: Some("0.0001".parse().unwrap()), ..options(&server, place.path()) };
    let given = messages(query(prompts(&["p1", "/clear", "p2", "/clear", "p3"]), set_up)).await;
    assert_eq!(result(&given).subtype, "error_max_budget_usd");
    assert_eq!(server.request_count(), 2);
}

fn greet() -> CustomCommand {
    CustomCommand {
        name: "greet".to_owned(),
        description: "Greets".to_owned(),
        model: Some("claude-haiku-4-5".to_owned()),
        allowed_tools: vec!["Bash(touch:*)".to_owned()],
        body: "Greet $ARGUMENTS.".to_owned(),
        source: "project".to_owned(),
        ..CustomCommand::default()
    }
}

#[tokio::test]
async fn a_command_of_the_users_own_is_a_prompt_with_its_arguments_its_model_and_its_rules() {
    let touch = |id: &str| call(id, "Bash", json!({"command": "touch made"}));
    let server = model(&json!({"replies": [
        {"text": "I do.", "tool_use": [touch("toolu_1")]}, {"text": "Hello."},
        {"text": "I do.", "tool_use": [touch("toolu_2")]}, {"text": "Bye."},
    ]}))
    .await;
    let place = tempfile::tempdir().unwrap();
    let set_up = Options { commands: vec![greet()], ..options(&server, place.path()) };
    let given = messages(query(prompts(&["/greet Ada", "p2"]), set_up)).await;
    let models: Vec<Value> = server.requests().iter().map(|request| request.body["model"].clone()).collect();
    assert_eq!(models, ["claude-haiku-4-5", "claude-haiku-4-5", "claude-sonnet-5", "claude-sonnet-5"]);
    let said = said(&server, 0);
    assert!(said[0].contains("<command-name>/greet</command-name>") && said[0].contains("<command-args>Ada"));
    assert_eq!(said[1], "Greet Ada.");
    let frames = frames(&given);
    let commands = &frames[0]["slash_commands"];
    for name in ["greet", "compact", "context", "cost", "clear"] {
        assert!(commands.as_array().unwrap().contains(&json!(name)), "{commands}");
    }
    let errors: Vec<bool> = frames
        .iter()
        .filter(|frame| frame["type"] == "user")
        .map(|frame| frame["message"]["content"][0]["is_error"] == true)
        .collect();
    assert_eq!(errors, [false, true], "its rules end with its turn");
}

#[tokio::test]
async fn what_is_no_command_is_a_prompt() {
    let server = model(&json!({"replies": [{"text": "r", "repeat": true}]})).await;
    let place = tempfile::tempdir().unwrap();
    let verbatim = json!({"client_composed": true, "message": {"role": "user", "content": "/compact"}});
    let prompts = ["/nope x", "/tmp/x is a path", "// note"]
        .map(|text| json!({"message": {"role": "user", "content": text}}));
    let prompts = prompts.into_iter().chain([verbatim]).map(|frame| serde_json::from_value(frame).unwrap());
    messages(query(wardian_agent::Prompt::Messages(prompts.collect()), options(&server, place.path()))).await;
    let said = said(&server, 3);
    assert!(said[0].contains("/nope, which is no command") && said[0].contains("/compact"), "{said:?}");
    assert_eq!(
        (said[1].as_str(), said[3].as_str(), said[5].as_str(), said[7].as_str()),
        ("/nope x", "/tmp/x is a path", "// note", "/compact")
    );
}

#[tokio::test]
async fn a_command_that_was_done_is_not_done_again_after_a_restart() {
    let server = model(&json!({"replies": [{"text": "r1"}, {"text": SUMMARY}, {"text": "r2"}]})).await;
    let place = Place::new();
    let uuid = "aaaaaaaa-0000-4000-8000-000000000009";
    let compact = json!({"type": "user", "uuid": uuid, "session_id": "", "parent_tool_use_id": null,
        "message": {"role": "user", "content": "/compact"}});
    let mut agent = place.agent(&server, &["--session-id", ID]);
    agent.prompt("p1").await;
    agent.until("result/success").await;
    agent.send(compact.clone()).await;
    let first = agent.until("result/success").await.pop().unwrap();
    agent.signal(rustix::process::Signal::KILL);
    agent.child.wait().await.unwrap();
    let mut agent: Agent = place.agent(&server, &["--resume", ID]);
    agent.send(compact).await;
    let again = agent.until("result/success").await;
    assert_eq!((again.len(), &again[0]["uuid"]), (1, &first["uuid"]), "the result is given again");
    assert_eq!(server.request_count(), 2);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn what_fills_the_window_is_told_when_asked_for() {
    let server = model(&json!({"replies": [{"text": "r1", "usage": full(5_000)}]})).await;
    let place = Place::new();
    let mut agent =
        place.agent(&server, &["--session-id", ID, "--model=claude-sonnet-5", "--system-prompt=Short."]);
    agent.control("1", json!({"subtype": "initialize"})).await;
    agent.until("answers/success").await;
    agent.control("2", json!({"subtype": "get_context_usage", "detail": "summary"})).await;
    let usage = agent.until("answers/success").await.pop().unwrap()["response"]["response"].clone();
    let sum = |usage: &Value| -> u64 {
        usage["categories"]
            .as_array()
            .unwrap()
            .iter()
            .map(|category| category["tokens"].as_u64().unwrap())
            .sum()
    };
    assert_eq!((sum(&usage), &usage["apiUsage"]), (1_000_000, &Value::Null));
    assert_eq!(
        (&usage["autoCompactThreshold"], &usage["isAutoCompactEnabled"]),
        (&json!(967_000), &json!(true))
    );
    agent.prompt("p1").await;
    agent.until("result/success").await;
    agent.control("x", json!({"subtype": "get_context_usage", "detail": "most"})).await;
    let refused = agent.until("answers/error").await;
    let words = refused.last().unwrap()["response"]["error"].as_str().unwrap();
    assert_eq!(words, "get_context_usage: detail must be 'summary' or 'full'");
    agent.control("3", json!({"subtype": "get_context_usage"})).await;
    let usage = agent.until("answers/success").await.pop().unwrap()["response"]["response"].clone();
    assert_eq!((sum(&usage), &usage["totalTokens"]), (1_000_000, &json!(5_005)), "{usage}");
    assert_eq!(
        (&usage["apiUsage"]["input_tokens"], &usage["model"]),
        (&json!(5_000), &json!("claude-sonnet-5"))
    );
    let kinds: Vec<&Value> =
        usage["categories"].as_array().unwrap().iter().map(|category| &category["id"]).collect();
    assert_eq!(kinds, ["system_prompt", "system_tools", "messages", "autocompact_buffer", "free_space"]);
    assert_eq!(usage["gridRows"].as_array().unwrap().len(), 10);
    assert_eq!(agent.end().await.2, Some(0));
}

/// Who interrupts while a summary is written gets his answer, and the conversation is as it was.
#[tokio::test]
async fn an_interrupted_summary_takes_the_place_of_nothing() {
    for (prompt, reason) in [("/compact", "aborted_streaming"), ("p2", "aborted_streaming")] {
        let server = model(&json!({"replies": [
            {"match": {"last_text_contains": "p1"}, "text": "r1", "usage": full(980_000)},
            {"match": {"last_text_contains": "p3"}, "text": "r3"},
            {"text": "<summary>Half", "hold": true},
            {"text": SUMMARY, "repeat": true},
        ]}))
        .await;
        let place = Place::new();
        let mut agent = place.agent(&server, &["--session-id", ID]);
        agent.control("0", json!({"subtype": "initialize"})).await;
        agent.prompt("p1").await;
        agent.until("result/success").await;
        agent.prompt(prompt).await;
        server.wait_for(2).await;
        agent.control("1", json!({"subtype": "interrupt"})).await;
        let frames = agent.until("result/error_during_execution").await;
        assert!(frames.iter().all(|frame| frame["subtype"] != "compact_boundary"), "{prompt}");
        assert_eq!(frames.last().unwrap()["terminal_reason"], reason, "{prompt}");
        // What goes on is compacted in its turn, with all that was said.
        agent.prompt("p3").await;
        agent.until("result/success").await;
        assert_eq!(agent.end().await.2, Some(0));
        let summed_up = said(&server, 2);
        assert!(
            summed_up.contains(&"p1".to_owned()) && summed_up.contains(&"r1".to_owned()),
            "{summed_up:?}"
        );
    }
}
