//! Who may do what: rules, modes, hooks, and whoever is asked.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use wardian_agent::permission::RuleKind;
use wardian_agent::{
    CanUseTool, Hook, HookEvent, HookFailure, HookOutput, Hooks, Message, OnFailure, Options, Permission,
    PermissionChange, PermissionMode, PermissionUpdate, query,
};

use crate::support::{call, kinds, messages, model, options, result, tool_results};

/// Runs one prompt whose reply makes these calls.
async fn run(calls: Value, change: impl FnOnce(&mut Options)) -> (Vec<Message>, tempfile::TempDir) {
    let model = model(&json!({"replies": [{"tool_use": calls}, {"text": "Done."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    change(&mut options);
    let messages = messages(query("hi", options)).await;
    (messages, folder)
}

fn touch() -> Value {
    json!([call("toolu_1", "Bash", json!({"command": "touch ran"}))])
}

/// A host that notes what it is asked and answers this.
fn host(answer: Permission) -> (CanUseTool, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let host: CanUseTool = Arc::new(move |request| {
        notes.lock().unwrap().push(request.input.clone());
        let answer = answer.clone();
        Box::pin(async move { answer })
    });
    (host, asked)
}

fn hook(output: Value) -> Hooks {
    let answer = move |_| {
        let output = serde_json::from_value::<HookOutput>(output.clone()).unwrap();
        async move { Ok(output) }
    };
    Hooks::default().on(HookEvent::PreToolUse, Hook::new(Some("Bash"), answer))
}

fn specific(fields: Value) -> Value {
    let mut specific = json!({"hookEventName": "PreToolUse"});
    specific.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"hookSpecificOutput": specific})
}

fn ran(folder: &tempfile::TempDir) -> bool {
    folder.path().join("ran").exists()
}

#[tokio::test]
async fn nobody_to_ask_is_a_denial_that_is_announced() {
    let (messages, folder) = run(touch(), |_| ()).await;
    assert!(!ran(&folder));
    assert!(kinds(&messages).contains(&"system/permission_denied".to_owned()));
    let result = result(&messages);
    assert_eq!((result.permission_denials.len(), result.is_error), (1, false));
    assert_eq!(result.permission_denials[0].tool_use_id, "toolu_1");
    assert_eq!(result.permission_denials[0].tool_input, json!({"command": "touch ran"}));
}

#[tokio::test]
async fn a_deny_rule_beats_every_mode_every_host_and_every_hook() {
    let (messages, folder) = run(touch(), |options| {
        options.permission_mode = PermissionMode::BypassPermissions;
        options.disallowed_tools = vec!["Bash(touch *)".to_owned()];
        options.can_use_tool = Some(host(Permission::allow()).0);
        options.hooks = hook(specific(json!({"permissionDecision": "allow"})));
    })
    .await;
    assert!(!ran(&folder));
    assert_eq!(result(&messages).permission_denials.len(), 1);
    assert!(kinds(&messages).contains(&"system/permission_denied".to_owned()));
}

#[tokio::test]
async fn an_ask_rule_asks_even_in_bypass_and_is_denied_where_nobody_answers() {
    let (can_use_tool, asked) = host(Permission::allow());
    let (_, folder) = run(touch(), |options| {
        options.permission_mode = PermissionMode::BypassPermissions;
        options.ask_tools = vec!["Bash".to_owned()];
        options.can_use_tool = Some(can_use_tool);
    })
    .await;
    assert!(ran(&folder));
    assert_eq!(asked.lock().unwrap().len(), 1);
    let (can_use_tool, asked) = host(Permission::allow());
    let (_, folder) = run(touch(), |options| {
        options.permission_mode = PermissionMode::DontAsk;
        options.can_use_tool = Some(can_use_tool);
    })
    .await;
    assert!(!ran(&folder) && asked.lock().unwrap().is_empty(), "dontAsk asks nobody");
}

#[tokio::test]
async fn the_hosts_answers() {
    let (messages, folder) = run(touch(), |options| {
        options.can_use_tool = Some(host(Permission::deny("Not on a Sunday.")).0);
    })
    .await;
    assert!(!ran(&folder));
    assert_eq!(tool_results(&messages), [("Not on a Sunday.".to_owned(), true)], "word for word");
    assert!(!kinds(&messages).contains(&"system/permission_denied".to_owned()), "the host knows");
    assert_eq!(result(&messages).permission_denials.len(), 1);

    let updated =
        Permission::Allow { updated_input: Some(json!({"command": "touch other"})), updates: Vec::new() };
    let (_, folder) = run(touch(), |options| options.can_use_tool = Some(host(updated).0)).await;
    assert!(!ran(&folder) && folder.path().join("other").exists());

    let wrong = Permission::Allow { updated_input: Some(json!({"command": 7})), updates: Vec::new() };
    let (messages, _) = run(touch(), |options| options.can_use_tool = Some(host(wrong).0)).await;
    assert!(tool_results(&messages)[0].1, "an input that the tool does not take is not run");
}

#[tokio::test]
async fn a_host_may_end_the_turn_with_its_denial() {
    let two = json!([
        call("toolu_1", "Bash", json!({"command": "touch ran"})),
        call("toolu_2", "Bash", json!({"command": "touch ran"})),
    ]);
    let (messages, folder) = run(two, |options| {
        let deny = Permission::Deny { message: String::new(), interrupt: true };
        options.can_use_tool = Some(host(deny).0);
    })
    .await;
    assert!(!ran(&folder));
    let result = result(&messages);
    assert_eq!(result.subtype, "error_during_execution");
    assert_eq!(result.terminal_reason.as_deref(), Some("aborted_tools"));
    assert_eq!(tool_results(&messages).len(), 2, "the second call is answered too");
    assert_eq!(kinds(&messages)[3..], ["user", "user", "user", "result/error_during_execution"]);
}

#[tokio::test]
async fn what_a_host_grants_holds_for_the_next_call() {
    let two = json!([
        call("toolu_1", "Bash", json!({"command": "touch one"})),
        call("toolu_2", "Bash", json!({"command": "touch two"})),
    ]);
    let updates = vec![
        PermissionUpdate::session(PermissionChange::AddRules(
            RuleKind::Allow,
            vec!["Bash(touch *)".parse().unwrap()],
        )),
        // Not permitted when the query began: it changes nothing.
        PermissionUpdate::session(PermissionChange::SetMode(PermissionMode::BypassPermissions)),
    ];
    let (can_use_tool, asked) = host(Permission::Allow { updated_input: None, updates });
    let (messages, _) = run(two, |options| options.can_use_tool = Some(can_use_tool)).await;
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert!(tool_results(&messages).iter().all(|(_, is_error)| !is_error));
}

#[tokio::test]
async fn hooks_deny_allow_and_rewrite() {
    for (output, runs, denied) in [
        (specific(json!({"permissionDecision": "deny", "permissionDecisionReason": "no"})), false, 1),
        (json!({"decision": "block", "reason": "no"}), false, 1),
        (specific(json!({"permissionDecision": "allow"})), true, 0),
        (json!({"decision": "approve"}), true, 0),
        (json!({}), false, 1),
        (json!({"async": true, "decision": "block"}), false, 1),
    ] {
        let (messages, folder) = run(touch(), |options| options.hooks = hook(output.clone())).await;
        assert_eq!(ran(&folder), runs, "{output}");
        assert_eq!(result(&messages).permission_denials.len(), denied, "{output}");
    }
    // A new input does not skip the question, and the host is asked about the new one.
    let (can_use_tool, asked) = host(Permission::allow());
    let rewrite =
        specific(json!({"updatedInput": {"command": "touch other"}, "additionalContext": "mind the gap"}));
    let (_, folder) = run(touch(), |options| {
        options.hooks = hook(rewrite);
        options.can_use_tool = Some(can_use_tool);
    })
    .await;
    assert_eq!(*asked.lock().unwrap(), [json!({"command": "touch other"})]);
    assert!(!ran(&folder) && folder.path().join("other").exists());
}

#[tokio::test]
async fn a_hook_may_ask_stop_or_defer() {
    let (can_use_tool, asked) = host(Permission::deny("no"));
    let (_, folder) = run(touch(), |options| {
        options.permission_mode = PermissionMode::BypassPermissions;
        options.hooks = hook(specific(json!({"permissionDecision": "ask"})));
        options.can_use_tool = Some(can_use_tool);
    })
    .await;
    assert_eq!((ran(&folder), asked.lock().unwrap().len()), (false, 1));
    for (output, reason, runs) in [
        (json!({"continue": false}), "hook_stopped", true),
        (specific(json!({"permissionDecision": "defer"})), "tool_deferred", false),
    ] {
        let (messages, folder) = run(touch(), |options| {
            options.permission_mode = PermissionMode::BypassPermissions;
            options.hooks = hook(output);
        })
        .await;
        let result = result(&messages);
        assert_eq!((result.subtype.as_str(), result.is_error), ("success", false));
        assert_eq!(result.terminal_reason.as_deref(), Some(reason));
        assert_eq!(ran(&folder), runs, "the turn ends behind the call, or before it");
    }
}

#[tokio::test]
async fn a_hook_that_fails_is_told_of_and_blocks_where_it_should() {
    for (on_failure, runs) in [(OnFailure::Continue, true), (OnFailure::Block, false)] {
        let mut hook = Hook::new(None, |_| async { Err(HookFailure("boom".to_owned())) });
        hook.on_failure = on_failure;
        let (messages, folder) = run(touch(), |options| {
            options.permission_mode = PermissionMode::BypassPermissions;
            options.hooks = Hooks::default().on(HookEvent::PreToolUse, hook);
        })
        .await;
        assert_eq!(ran(&folder), runs, "{on_failure:?}");
        assert!(kinds(&messages).contains(&"system/informational".to_owned()));
    }
}

#[tokio::test]
async fn files_outside_and_links_to_them_are_asked_about() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let link = outside.path().to_owned();
    for path in ["link/secret", "../../../../../../etc/passwd", "/etc/passwd"] {
        let model = model(&json!({"replies": [
            {"tool_use": [call("toolu_1", "Read", json!({"file_path": path}))]}, {"text": "Done."}]}))
        .await;
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&link, folder.path().join("link")).unwrap();
        let messages = messages(query("hi", options(&model, folder.path()))).await;
        assert!(tool_results(&messages)[0].1, "{path}");
        assert_eq!(result(&messages).permission_denials.len(), 1, "{path}");
    }
}

#[tokio::test]
async fn no_name_of_a_file_leads_around_a_rule() {
    let calls = [
        "secrets/key",
        "./x/../secrets/key",
        "SECRETS/key",
        "link/key",
        "deep/link/key",
        "file",
        "secrets",
        "secrets/",
        "here/secrets/key",
        "here/link/../link/key",
        "deep/here/secrets/key",
        "named/key",
        "other/key",
    ];
    let reads = calls
        .iter()
        .enumerate()
        .map(|(index, path)| call(&format!("toolu_{index}"), "Read", json!({"file_path": path})));
    let reads: Vec<Value> = reads.collect();
    let model = model(&json!({"replies": [{"tool_use": reads}, {"text": "Done."}]})).await;
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let link = |to: &std::path::Path, name: &str| {
        std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    };
    for directory in ["secrets", "x", "deep"] {
        std::fs::create_dir(folder.path().join(directory)).unwrap();
    }
    std::fs::write(folder.path().join("secrets/key"), "the key").unwrap();
    std::fs::write(other.path().join("key"), "the key").unwrap();
    link("secrets".as_ref(), "link");
    link("../secrets".as_ref(), "deep/link");
    link("secrets/key".as_ref(), "file");
    link(folder.path(), "here");
    link(folder.path(), "deep/here");
    link(other.path(), "named");
    link(other.path(), "other");
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    options.disallowed_tools = vec!["Read(./secrets/**)".into(), "Read(./named/**)".into()];
    let messages = messages(query("hi", options)).await;
    let results = tool_results(&messages);
    assert_eq!(results.len(), calls.len());
    for ((text, is_error), path) in results.iter().zip(calls) {
        assert!(*is_error && !text.contains("the key"), "{path}: {text}");
    }
    assert_eq!(result(&messages).permission_denials.len(), calls.len());
}

#[tokio::test]
async fn who_is_asked_cannot_write_what_a_deny_rule_refuses() {
    let answer =
        Permission::Allow { updated_input: Some(json!({"command": "env touch ran"})), updates: Vec::new() };
    let (ask, asked) = host(answer);
    let calls = json!([call("toolu_1", "Bash", json!({"command": "make it"}))]);
    let (messages, folder) = run(calls, |options| {
        options.can_use_tool = Some(ask);
        options.disallowed_tools = vec!["Bash(touch:*)".into()];
    })
    .await;
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert!(!ran(&folder) && tool_results(&messages)[0].1);
    assert_eq!(result(&messages).permission_denials.len(), 1);
}
