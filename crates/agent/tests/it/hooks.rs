//! Hooks on every event that can be reached with a prompt and a tool.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use wardian_agent::{
    CommandHook, Hook, HookEvent, HookFailure, HookOutput, Hooks, Message, OnFailure, Options, Permission,
    PermissionMode, Prompt, query,
};
use wardian_model::Server;

use crate::support::{call, kinds, messages, model, options, result, tool_results};

/// What hooks were told, in order: the event and its fields.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

/// Hooks on these events that note what they are told and answer so.
fn hooks(answers: &[(HookEvent, Value)]) -> (Hooks, Seen) {
    let seen = Seen::default();
    let mut hooks = Hooks::default();
    for (event, answer) in answers.iter().cloned() {
        let notes = Arc::clone(&seen);
        hooks.add(
            event,
            Hook::new(None, move |input| {
                notes.lock().unwrap().push((input.hook_event_name, Value::Object(input.fields)));
                let answer = serde_json::from_value::<HookOutput>(answer.clone()).unwrap();
                async move { Ok(answer) }
            }),
        );
    }
    (hooks, seen)
}

fn events(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().iter().map(|(event, _)| event.clone()).collect()
}

fn told(event: &str, context: &str) -> Value {
    json!({"hookSpecificOutput": {"hookEventName": event, "additionalContext": context}})
}

async fn run(script: Value, change: impl FnOnce(&mut Options)) -> (Vec<Message>, Server) {
    let model = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    change(&mut options);
    (messages(query("hi", options)).await, model)
}

fn two_calls() -> Value {
    json!({"replies": [
        {"tool_use": [call("toolu_1", "Bash", json!({"command": "echo one"})),
            call("toolu_2", "Bash", json!({"command": "exit 3"}))]},
        {"text": "Done."},
    ]})
}

fn one_call() -> Value {
    json!({"replies": [
        {"tool_use": [call("toolu_1", "Bash", json!({"command": "echo one"}))]}, {"text": "Done."},
        {"text": "More."},
    ]})
}

#[tokio::test]
async fn every_event_of_a_turn_in_its_order() {
    use HookEvent::{PostToolBatch, PostToolUse, PostToolUseFailure, PreToolUse, Stop, UserPromptSubmit};
    let all = [UserPromptSubmit, PreToolUse, PostToolUse, PostToolUseFailure, PostToolBatch, Stop];
    let (hooks, seen) = hooks(&all.map(|event| (event, json!({}))));
    run(two_calls(), |options| options.hooks = hooks).await;
    let order = [
        "UserPromptSubmit",
        "PreToolUse",
        "PreToolUse",
        "PostToolUse",
        "PostToolUseFailure",
        "PostToolBatch",
        "Stop",
    ];
    assert_eq!(events(&seen), order);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].1, json!({"prompt": "hi"}));
    assert_eq!(seen[3].1["tool_response"]["stdout"], "one");
    assert_eq!(seen[4].1["is_interrupt"], false);
    assert!(seen[4].1["error"].as_str().unwrap().contains('3'), "{}", seen[4].1);
    assert_eq!(seen[5].1["tool_calls"][0]["tool_response"], "one");
    assert_eq!(seen[5].1["tool_calls"][1]["tool_use_id"], "toolu_2");
    assert_eq!(
        (&seen[6].1["stop_hook_active"], &seen[6].1["last_assistant_message"]),
        (&json!(false), &json!("Done."))
    );
    assert!(seen[3].1["duration_ms"].is_u64() && seen[1].1["effort"]["level"] == "high");
}

#[tokio::test]
async fn what_hooks_add_the_model_hears_and_nobody_else() {
    use HookEvent::{PostToolBatch, PostToolUse, PreToolUse, UserPromptSubmit};
    let all = [UserPromptSubmit, PreToolUse, PostToolUse, PostToolBatch];
    let answers = all.map(|event| (event, told(event.as_str(), &format!("<{event}>"))));
    let (messages, model) = run(one_call(), |options| options.hooks = hooks(&answers).0).await;
    let requests = model.requests();
    assert!(requests[0].body["messages"].to_string().contains("<UserPromptSubmit>"));
    let said = requests[1].body["messages"].to_string();
    let places = all.map(|event| said.find(&format!("<{event}>")).expect("it was told"));
    assert!(places.is_sorted(), "{said}");
    let shown = messages.iter().map(|message| message.to_value().to_string()).collect::<String>();
    assert!(!shown.contains("<PreToolUse>") && !shown.contains("<PostToolBatch>"));
    assert_eq!(result(&messages).num_turns, 2);
}

#[tokio::test]
async fn a_prompt_is_refused_or_stopped_before_anything_is_asked() {
    for (answer, kept, kind) in [
        (json!({"decision": "block", "reason": "not this"}), false, "blocked_by_hook"),
        (json!({"continue": false, "stopReason": "not this"}), true, "stopped_by_hook"),
    ] {
        let hooks = hooks(&[(HookEvent::UserPromptSubmit, answer)]).0;
        let (messages, model) = run(one_call(), |options| options.hooks = hooks).await;
        assert_eq!(kinds(&messages), ["system/init", "system/informational", "result/success"]);
        let Message::System(said) = &messages[1] else { panic!() };
        assert_eq!(said.fields["prevent_continuation"], true);
        let fate = json!({"kind": kind, "prompt_kept": kept, "reason": "not this"});
        assert_eq!(said.fields["prompt_submit_outcome"], fate);
        let result = result(&messages);
        assert_eq!((result.num_turns, result.is_error), (0, false));
        assert_eq!(result.terminal_reason, None);
        assert_eq!(said.fields["content"], json!(result.result));
        assert_eq!(result.result.as_ref().unwrap().contains("The prompt was: hi"), !kept);
        assert!(model.requests().is_empty());
    }
}

#[tokio::test]
async fn an_output_is_replaced_for_the_model_and_the_host() {
    let new = json!({"stdout": "[redacted]", "stderr": "", "interrupted": false, "isImage": false});
    let said =
        json!({"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": new.clone()}});
    let (messages, model) = run(one_call(), |options| {
        options.hooks = hooks(&[(HookEvent::PostToolUse, said)]).0;
    })
    .await;
    assert_eq!(tool_results(&messages), [("[redacted]".to_owned(), false)]);
    let user = messages.iter().find_map(|message| match message {
        Message::User(user) => user.tool_use_result.clone(),
        _ => None,
    });
    assert_eq!(user, Some(new));
    assert!(model.requests()[1].body["messages"].to_string().contains("[redacted]"));
}

#[tokio::test]
async fn hooks_end_a_turn_behind_a_call_and_behind_all_calls() {
    for (event, answer) in [
        (HookEvent::PreToolUse, json!({"continue": false})),
        (HookEvent::PostToolUse, json!({"continue": false, "stopReason": "enough"})),
        (HookEvent::PostToolBatch, json!({"continue": false})),
        (HookEvent::PostToolBatch, json!({"decision": "block", "reason": "enough"})),
    ] {
        let hooks = hooks(&[(event, answer)]).0;
        let (messages, model) = run(one_call(), |options| options.hooks = hooks).await;
        assert_eq!(tool_results(&messages), [("one".to_owned(), false)], "{event}");
        let result = result(&messages);
        assert_eq!((result.subtype.as_str(), result.num_turns), ("success", 2), "{event}");
        assert_eq!(result.terminal_reason.as_deref(), Some("hook_stopped"), "{event}");
        assert_eq!(result.result.as_deref(), Some(""), "{event}");
        assert_eq!(model.requests().len(), 1, "{event}");
    }
}

#[tokio::test]
async fn a_deferred_call_is_left_and_the_others_run() {
    let two = json!({"replies": [{"tool_use": [
        call("toolu_1", "Bash", json!({"command": "echo one"})),
        call("toolu_2", "Bash", json!({"command": "echo two"})),
    ]}, {"text": "Next."}]});
    let model = model(&two).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(&model, folder.path());
    options.permission_mode = PermissionMode::BypassPermissions;
    let (others, seen) = hooks(&[(HookEvent::Stop, json!({})), (HookEvent::PostToolBatch, json!({}))]);
    options.hooks = others.on(
        HookEvent::PreToolUse,
        Hook::new(None, |input| async move {
            let later = input.tool_use_id() == Some("toolu_2");
            let said =
                json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": "defer"}});
            Ok(if later { serde_json::from_value(said).unwrap() } else { HookOutput::default() })
        }),
    );
    let prompts = ["hi", "next"]
        .map(|text| serde_json::from_value(json!({"message": {"role": "user", "content": text}})).unwrap());
    let messages = messages(query(Prompt::Messages(prompts.into()), options)).await;
    assert_eq!(tool_results(&messages), [("one".to_owned(), false)]);
    let Some(Message::Result(first)) = messages.iter().find(|message| matches!(message, Message::Result(_)))
    else {
        panic!()
    };
    assert_eq!(first.terminal_reason.as_deref(), Some("tool_deferred"));
    assert_eq!((first.num_turns, first.stop_reason.as_deref()), (2, Some("tool_deferred")));
    let call = json!({"id": "toolu_2", "name": "Bash", "input": {"command": "echo two"}});
    assert_eq!(first.extra["deferred_tool_use"], call);
    // The next prompt does not trip over the call that was left.
    assert_eq!(result(&messages).result.as_deref(), Some("Next."));
    assert_eq!(events(&seen), ["Stop"]);
}

#[tokio::test]
async fn a_stop_hook_keeps_the_turn_going_and_not_for_ever() {
    let once = |active: bool| if active { json!({}) } else { json!({"decision": "block", "reason": "more"}) };
    let hook = Hook::new(None, move |input| async move {
        let active = input.fields["stop_hook_active"] == true;
        Ok(serde_json::from_value(once(active)).unwrap())
    });
    let (messages, model) =
        run(one_call(), |options| options.hooks = Hooks::default().on(HookEvent::Stop, hook)).await;
    let told = kinds(&messages);
    let place = told.iter().rposition(|kind| kind == "user").unwrap();
    let Message::User(user) = &messages[place] else { panic!() };
    assert_eq!(user.extra["isSynthetic"], true);
    assert!(json!(user.message.content).to_string().contains("Stop hook feedback:\\nmore"));
    assert_eq!(told[place + 1], "system/notification");
    assert_eq!((result(&messages).result.as_deref(), result(&messages).num_turns), (Some("More."), 3));
    assert_eq!(model.requests().len(), 3);

    let always = hooks(&[(HookEvent::Stop, json!({"decision": "block", "reason": "more"}))]).0;
    let (messages, _) =
        run(json!({"replies": [{"text": "x", "repeat": true}]}), |options| options.hooks = always).await;
    assert_eq!((result(&messages).result.as_deref(), result(&messages).num_turns), (Some(""), 10));
    assert!(kinds(&messages).contains(&"system/informational".to_owned()));
}

#[tokio::test]
async fn a_stop_hook_may_tell_the_model_quietly_or_prevent_the_end() {
    let (stop, seen) = hooks(&[(HookEvent::Stop, json!({"continue": false}))]);
    let (messages, _) = run(one_call(), |options| options.hooks = stop).await;
    assert_eq!(result(&messages).terminal_reason.as_deref(), Some("stop_hook_prevented"));
    assert_eq!((result(&messages).result.as_deref(), events(&seen).len()), (Some("Done."), 1));

    let quietly = Hook::new(None, |input| async move {
        let active = input.fields["stop_hook_active"] == true;
        let said = if active { json!({}) } else { told("Stop", "<and tests>") };
        Ok(serde_json::from_value(said).unwrap())
    });
    let (messages, model) =
        run(one_call(), |options| options.hooks = Hooks::default().on(HookEvent::Stop, quietly)).await;
    assert_eq!((result(&messages).result.as_deref(), result(&messages).num_turns), (Some("More."), 2));
    assert!(model.requests()[2].body["messages"].to_string().contains("<and tests>"));
}

#[tokio::test]
async fn a_failed_call_to_the_model_is_told() {
    let (failed, seen) = hooks(&[(HookEvent::StopFailure, json!({})), (HookEvent::Stop, json!({}))]);
    let script = json!({"replies": [{"error": {"status": 400, "message": "no"}}]});
    let (messages, _) = run(script, |options| options.hooks = failed).await;
    assert_eq!(events(&seen), ["StopFailure"]);
    let seen = seen.lock().unwrap();
    assert_eq!(json!(result(&messages).result), seen[0].1["last_assistant_message"]);
}

#[tokio::test]
async fn late_hooks_refuse_what_they_guard() {
    let late = |event| {
        let mut hook = Hook::new(None, |_| std::future::pending::<Result<HookOutput, HookFailure>>());
        hook.timeout = Duration::from_millis(1);
        Hooks::default().on(event, hook)
    };
    let (messages, _) = run(one_call(), |options| options.hooks = late(HookEvent::PreToolUse)).await;
    assert!(tool_results(&messages)[0].1, "the call was not run");
    assert!(result(&messages).permission_denials.is_empty());
    let (_, model) = run(one_call(), |options| options.hooks = late(HookEvent::UserPromptSubmit)).await;
    assert!(model.requests().is_empty());
    for event in [HookEvent::PostToolUse, HookEvent::PostToolBatch, HookEvent::Stop] {
        let (messages, _) = run(one_call(), |options| options.hooks = late(event)).await;
        assert_eq!(result(&messages).result.as_deref(), Some("Done."), "{event}");
    }
}

#[tokio::test]
async fn failing_hooks_block_where_they_should() {
    for (event, blocked) in
        [(HookEvent::UserPromptSubmit, true), (HookEvent::PostToolBatch, true), (HookEvent::Stop, false)]
    {
        let mut hook = Hook::new(None, |_| async { Err(HookFailure("boom".to_owned())) });
        hook.on_failure = OnFailure::Block;
        let (messages, _) = run(one_call(), |options| options.hooks = Hooks::default().on(event, hook)).await;
        assert!(kinds(&messages).contains(&"system/informational".to_owned()), "{event}");
        assert_eq!(result(&messages).result.as_deref() != Some("Done."), blocked, "{event}");
    }
}

#[tokio::test]
async fn a_hook_answers_in_the_hosts_place() {
    let answer = |decision: Value| {
        let said =
            json!({"hookSpecificOutput": {"hookEventName": "PermissionRequest", "decision": decision}});
        hooks(&[(HookEvent::PermissionRequest, said)])
    };
    let asking = |options: &mut Options, hooks: Hooks| {
        options.permission_mode = PermissionMode::Default;
        options.ask_tools = vec!["Bash".to_owned()];
        options.hooks = hooks;
    };
    let changed = json!({"behavior": "allow", "updatedInput": {"command": "echo changed"}});
    let (messages, _) = run(one_call(), |options| asking(options, answer(changed).0)).await;
    assert_eq!(tool_results(&messages), [("changed".to_owned(), false)]);
    // It goes before a host that takes its time.
    let (denies, seen) = answer(json!({"behavior": "deny", "message": "never"}));
    let (messages, _) = run(one_call(), |options| {
        asking(options, denies);
        options.can_use_tool = Some(Arc::new(|_| Box::pin(std::future::pending::<Permission>())));
    })
    .await;
    assert_eq!(tool_results(&messages), [("never".to_owned(), true)]);
    assert_eq!(seen.lock().unwrap()[0].1["tool_input"], json!({"command": "echo one"}));
    assert_eq!(result(&messages).permission_denials.len(), 1);
}

#[tokio::test]
async fn results_say_who_decided() {
    let meta = |messages: &[Message]| {
        let meta = messages.iter().find_map(|message| match message {
            Message::User(user) => user.extra.get("tool_result_meta").cloned(),
            _ => None,
        });
        meta.unwrap()[0].clone()
    };
    let accepted = |source: &str, kind: Option<&str>| {
        let mut decision = json!({"decision": "accept", "source": source});
        if let Some(kind) = kind {
            decision["reason_type"] = kind.into();
        }
        json!({"id": "toolu_1", "permission_decision": decision})
    };
    let (messages, _) = run(one_call(), |_| ()).await;
    assert_eq!(meta(&messages), accepted("config", Some("mode")));
    let (messages, _) = run(one_call(), |options| {
        options.permission_mode = PermissionMode::Default;
        options.allowed_tools = vec!["Bash".to_owned()];
    })
    .await;
    assert_eq!(meta(&messages), accepted("config", Some("rule")));
    let (messages, _) = run(one_call(), |options| {
        options.ask_tools = vec!["Bash".to_owned()];
        options.can_use_tool = Some(Arc::new(|_| Box::pin(async { Permission::allow() })));
    })
    .await;
    assert_eq!(meta(&messages), accepted("user_temporary", None));
    let (messages, _) = run(one_call(), |options| {
        options.ask_tools = vec!["Bash".to_owned()];
        options.can_use_tool = Some(Arc::new(|_| Box::pin(async { Permission::deny("no") })));
    })
    .await;
    let refused = json!({"id": "toolu_1", "non_execution_kind": "permission-rule",
        "permission_decision": {"decision": "reject", "source": "user_reject"}});
    assert_eq!(meta(&messages), refused);
}

fn program(event: HookEvent, command: &str) -> Hooks {
    let command = CommandHook { command: command.to_owned(), ..CommandHook::default() };
    Hooks::default().on(event, Hook::command(None, command))
}

#[tokio::test]
async fn programs_refuse_answer_and_add() {
    let deny = r#"echo '{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"deny"}}'"#;
    for (command, refused) in [
        ("echo not this >&2; exit 2", true),
        (deny, true),
        ("echo just so", false),
        ("echo oops >&2; exit 1", false),
        ("grep -q '\"tool_use_id\":\"toolu_1\"' && exit 2", true),
        ("test \"$ONE\" = 1 && exit 2", true),
        ("echo '{\"continue\": 5}'", false),
        ("/nowhere/no-such-program", false),
    ] {
        let (messages, _) = run(one_call(), |options| {
            options.hooks = program(HookEvent::PreToolUse, command);
            options.env.push(("ONE".to_owned(), "1".to_owned()));
        })
        .await;
        assert_eq!(tool_results(&messages)[0].1, refused, "{command}");
        let unclear = command.contains("5}") || command.contains("nowhere");
        assert_eq!(kinds(&messages).contains(&"system/informational".to_owned()), unclear, "{command}");
    }
    let (_, model) =
        run(one_call(), |options| options.hooks = program(HookEvent::UserPromptSubmit, "echo '<added>'"))
            .await;
    assert!(model.requests()[0].body["messages"].to_string().contains("<added>"));
    let (_, model) =
        run(one_call(), |options| options.hooks = program(HookEvent::SessionStart, "echo '<begun>'")).await;
    assert!(model.requests()[0].body["messages"].to_string().contains("<begun>"));
}

#[tokio::test]
async fn what_programs_do_is_told_where_it_is_asked_for() {
    let told = |messages: &[Message]| {
        let fields = messages.iter().filter_map(|message| match message {
            Message::System(system) if system.subtype.starts_with("hook_") => {
                Some((system.subtype.clone(), system.fields.clone()))
            }
            _ => None,
        });
        fields.collect::<Vec<_>>()
    };
    let hooks = || program(HookEvent::PreToolUse, "echo out; echo err >&2; exit 2");
    let (messages, _) = run(one_call(), |options| options.hooks = hooks()).await;
    assert!(told(&messages).is_empty());
    let (messages, _) = run(one_call(), |options| {
        options.hooks = hooks();
        options.include_hook_events = true;
    })
    .await;
    let told = told(&messages);
    assert_eq!(
        told.iter().map(|(subtype, _)| subtype.as_str()).collect::<Vec<_>>(),
        ["hook_started", "hook_response"]
    );
    let (started, response) = (&told[0].1, &told[1].1);
    assert_eq!(started["hook_id"], response["hook_id"]);
    assert_eq!(
        (&response["hook_name"], &response["hook_event"]),
        (&json!("PreToolUse:Bash"), &json!("PreToolUse"))
    );
    assert_eq!((&response["stdout"], &response["stderr"]), (&json!("out\n"), &json!("err\n")));
    assert_eq!((&response["exit_code"], &response["outcome"]), (&json!(2), &json!("error")));
}

#[tokio::test]
async fn a_program_is_for_what_its_rule_is_about_and_runs_once() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let command = |condition: &str, word: &str| {
        let command = CommandHook {
            command: format!("echo {word} >> {}", log.display()),
            condition: Some(condition.parse().unwrap()),
            ..CommandHook::default()
        };
        Hook::command(Some("Bash"), command)
    };
    let hooks = Hooks::default()
        .on(HookEvent::PreToolUse, command("Bash(git *)", "git"))
        .on(HookEvent::PreToolUse, command("Bash(echo *)", "echo"))
        .on(HookEvent::PreToolUse, command("Bash(echo *)", "echo"));
    run(one_call(), |options| options.hooks = hooks).await;
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "echo\n");
}

#[tokio::test]
async fn a_program_that_hangs_floods_or_does_not_listen_is_contained() {
    let mut hangs = Hook::command(
        None,
        CommandHook { command: "sleep 600 & sleep 600".to_owned(), ..CommandHook::default() },
    );
    hangs.timeout = Duration::from_millis(50);
    let (messages, _) =
        run(one_call(), |options| options.hooks = Hooks::default().on(HookEvent::PreToolUse, hangs)).await;
    let Some(Message::System(said)) = messages
        .iter()
        .find(|message| matches!(message, Message::System(system) if system.subtype == "informational"))
    else {
        panic!()
    };
    assert_eq!(said.fields["hook_no_verdict"]["timed_out"], true);
    assert!(!tool_results(&messages)[0].1, "the call went ahead");
    for command in ["yes | head -c 3000000", "exec 0<&-; exit 0", "printf '\\377\\376{'"] {
        let (messages, _) = run(one_call(), |options| {
            options.hooks = program(HookEvent::PreToolUse, command);
            options.include_hook_events = true;
        })
        .await;
        assert_eq!(result(&messages).result.as_deref(), Some("Done."), "{command}");
        assert!(messages.iter().all(|message| message.to_value().to_string().len() < 1024 * 1024));
    }
}

#[tokio::test]
async fn a_program_in_the_background_ends_with_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let command = format!("echo $$ > {}; sleep 600", pid.display());
    let hook = Hook::command(None, CommandHook { command, in_background: true, ..CommandHook::default() });
    // The turn's own call waits until the program has begun.
    let wait = format!("until test -s {}; do :; done", pid.display());
    let script = json!({"replies": [
        {"tool_use": [call("toolu_1", "Bash", json!({"command": wait}))]}, {"text": "Done."}]});
    let (messages, _) =
        run(script, |options| options.hooks = Hooks::default().on(HookEvent::PreToolUse, hook)).await;
    assert_eq!(result(&messages).result.as_deref(), Some("Done."));
    let pid = std::fs::read_to_string(pid).unwrap();
    // It was killed; that its end was collected may take a moment more.
    let stat = std::path::Path::new("/proc").join(pid.trim()).join("stat");
    let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
    while lives() {
        tokio::task::yield_now().await;
    }
}
