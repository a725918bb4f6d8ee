//! What changes while the agent runs.

use std::path::Path;

use serde_json::{Value, json};

use crate::process::{Agent, STREAM, command, kind_of, kinds_of};
use crate::support::{call, model};

const SONNET: &str = "claude-sonnet-5";
const HAIKU: &str = "claude-haiku-5-5";

/// The agent once the host has said which callbacks there are.
async fn hooked(server: &wardian_model::Server, cwd: &Path, events: &[&str]) -> Agent {
    let mut agent = Agent::start(server, cwd, &["--model", SONNET]);
    let hooks: serde_json::Map<String, Value> =
        events.iter().map(|event| ((*event).to_owned(), json!([{"hookCallbackIds": [event]}]))).collect();
    agent.control("init", json!({"subtype": "initialize", "hooks": hooks})).await;
    agent.until("answers/success").await;
    agent
}

/// What a callback was told of a switch.
fn switch(question: &Value) -> [&Value; 6] {
    let input = &question["request"]["input"];
    ["hook_event_name", "from_model", "to_model", "requested_model", "source", "context_tokens"]
        .map(|name| &input[name])
}

#[tokio::test]
async fn callbacks_hear_of_a_switch_of_models_and_what_comes_behind_it_waits() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = hooked(&server, folder.path(), &["PreModelSwitch", "PostModelSwitch"]).await;
    agent.prompt("first").await;
    agent.until("state/idle").await;
    agent.control("switch", json!({"subtype": "set_model", "model": "haiku"})).await;
    agent.prompt("second").await;
    let asked = agent.until("asks/hook_callback").await.pop().unwrap();
    assert_eq!(
        switch(&asked),
        [&json!("PreModelSwitch"), &json!(SONNET), &json!(HAIKU), &json!("haiku"), &json!("sdk"), &json!(15)]
    );
    let input = &asked["request"]["input"];
    assert_eq!(
        [&input["prompt_cache_warm"], &input["cache_ttl"], &input["pricing"], &input["permission_mode"]],
        [&json!(true), &json!("5m"), &json!("catalog"), &Value::Null]
    );
    agent.answer(&asked, json!({})).await;
    let before = agent.until("asks/hook_callback").await;
    assert_eq!(kinds_of(&before), ["user", "answers/success", "asks/hook_callback"]);
    assert_eq!(before[1]["response"]["response"], json!({"model": HAIKU}));
    assert_eq!(before[2]["request"]["input"]["hook_event_name"], "PostModelSwitch");
    let kiwi = json!({"hookEventName": "PostModelSwitch", "additionalContext": "Mind the KIWIS."});
    agent.answer(&before[2], json!({"hookSpecificOutput": kiwi})).await;
    agent.until("state/idle").await;
    let requests = server.requests();
    let of =
        |model: &str| requests.iter().filter(|request| request.body["model"] == model).collect::<Vec<_>>();
    // The API was asked for one token, then the prompt went to the new model, with what the hook had to say.
    assert_eq!((of(SONNET).len(), of(HAIKU).len()), (1, 2));
    assert!(of(HAIKU)[1].body["messages"].to_string().contains("KIWIS"));
    // To the same model is no switch.
    agent.control("same", json!({"subtype": "set_model", "model": HAIKU})).await;
    assert_eq!(kinds_of(&agent.until("answers/success").await), ["answers/success"]);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_callback_refuses_a_switch_of_models_and_the_model_stays() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = hooked(&server, folder.path(), &["PreModelSwitch"]).await;
    let decided = |decision: &str| {
        json!({"hookSpecificOutput": {"hookEventName": "PreModelSwitch", "permissionDecision": decision,
            "permissionDecisionReason": "no PLUMS"}})
    };
    let set = json!({"subtype": "set_model", "model": "haiku"});
    let apply = json!({"subtype": "apply_flag_settings", "settings": {"model": "haiku"}});
    for (request, answer, reason) in [
        (&set, decided("deny"), "no PLUMS"),
        (&set, decided("ask"), "nobody can be asked"),
        (&set, json!({"decision": "block", "reason": "not now"}), "not now"),
        (&apply, decided("deny"), "no PLUMS"),
    ] {
        agent.control("switch", request.clone()).await;
        let asked = agent.until("asks/hook_callback").await.pop().unwrap();
        agent.answer(&asked, answer).await;
        let refused = agent.until("answers/error").await.pop().unwrap()["response"].clone();
        assert!(refused["error"].as_str().unwrap().contains(reason), "{refused}");
        if request["subtype"] == "set_model" {
            assert_eq!(
                (&refused["error_code"], &refused["model"]),
                (&json!("blocked_by_hook"), &json!(SONNET))
            );
        }
    }
    agent.prompt("hi").await;
    agent.until("result/success").await;
    assert_eq!(server.requests().last().unwrap().body["model"], SONNET);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_host_that_never_answers_a_switch_of_models_is_left_behind() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = hooked(&server, folder.path(), &["PreModelSwitch"]).await;
    agent.control("switch", json!({"subtype": "set_model", "model": "haiku"})).await;
    agent.until("asks/hook_callback").await;
    // The channel goes on meanwhile.
    agent.control("mode", json!({"subtype": "set_permission_mode", "mode": "plan"})).await;
    agent.until("answers/success").await;
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn what_fills_the_window_is_told_while_the_model_speaks_and_while_a_tool_runs() {
    let waits = call("toolu_1", "Bash", json!({"command": "while [ ! -e go ]; do sleep 0.05; done"}));
    let server =
        model(&json!({"replies": [{"tool_use": [waits]}, {"text": "Once upon a time", "hold": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&server, folder.path(), &["--permission-mode", "bypassPermissions"]);
    agent.prompt("hi").await;
    agent.until("assistant").await;
    agent.control("1", json!({"subtype": "get_context_usage"})).await;
    let told = agent.until("answers/success").await;
    assert!(told.iter().all(|frame| kind_of(frame) != "user"), "the tool still runs");
    assert_eq!(told.last().unwrap()["response"]["response"]["apiUsage"]["input_tokens"], 10);
    std::fs::write(folder.path().join("go"), "").unwrap();
    agent.until("user").await;
    agent.control("2", json!({"subtype": "get_context_usage"})).await;
    agent.until("answers/success").await;
    agent.control("3", json!({"subtype": "interrupt"})).await;
    agent.until("result/error_during_execution").await;
    agent.end().await;
}

/// Hooks of a `--settings` flag that keep what they are told in files of their events.
fn keeping(folder: &Path, events: &[&str]) -> String {
    let hooks: serde_json::Map<String, Value> = events
        .iter()
        .map(|event| {
            let command =
                format!("cat >> {}/{event}; echo {event} >> {}/order", folder.display(), folder.display());
            ((*event).to_owned(), json!([{"hooks": [{"type": "command", "command": command}]}]))
        })
        .collect();
    json!({"hooks": hooks}).to_string()
}

#[tokio::test]
async fn hooks_on_the_set_up_run_before_the_beginning() {
    for (flags, trigger) in [
        (&["--init"][..], "init"),
        (&["--maintenance"], "maintenance"),
        (&["--maintenance", "--init"], "init"),
        (&["--init", "--maintenance"], "init"),
    ] {
        let server = model(&json!({"replies": [{"text": "Hi."}]})).await;
        let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings = keeping(kept.path(), &["Setup", "SessionStart"]);
        let flags: Vec<&str> = flags.iter().copied().chain(["--settings", &settings]).collect();
        let mut agent = Agent::start(&server, folder.path(), &flags);
        agent.prompt("hi").await;
        agent.until("result/success").await;
        agent.end().await;
        let told = std::fs::read_to_string(kept.path().join("Setup")).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(
            (&told["hook_event_name"], &told["trigger"]),
            (&json!("Setup"), &json!(trigger)),
            "{flags:?}"
        );
        assert_eq!(told.get("permission_mode"), None);
        assert_eq!(std::fs::read_to_string(kept.path().join("order")).unwrap(), "Setup\nSessionStart\n");
    }
}

#[tokio::test]
async fn who_only_sets_up_hears_nothing_and_asks_nothing() {
    let server = model(&json!({"replies": []})).await;
    let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = keeping(kept.path(), &["Setup", "SessionStart"]);
    let agent = Agent::start(&server, folder.path(), &["--init-only", "--settings", &settings]);
    let (frames, stderr, code) = agent.wait().await;
    assert_eq!((frames, stderr, code), (vec![], String::new(), Some(0)));
    assert_eq!(std::fs::read_to_string(kept.path().join("order")).unwrap(), "Setup\nSessionStart\n");
    assert!(server.requests().is_empty());
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Checks that what the model was told in one request it was told again in the next, before anything else.
fn begins_as_before(server: &wardian_model::Server) {
    let plain = |mut body: Value| {
        fn strip(value: &mut Value) {
            match value {
                Value::Object(fields) => {
                    fields.shift_remove("cache_control");
                    fields.values_mut().for_each(strip);
                }
                Value::Array(items) => items.iter_mut().for_each(strip),
                _ => (),
            }
        }
        strip(&mut body);
        body
    };
    let bodies: Vec<Value> = server.requests().iter().map(|request| plain(request.body.clone())).collect();
    for pair in bodies.windows(2) {
        let (before, after) =
            (pair[0]["messages"].as_array().unwrap(), pair[1]["messages"].as_array().unwrap());
        assert_eq!(before[..], after[..before.len()]);
        assert_eq!((&pair[0]["system"], &pair[0]["tools"]), (&pair[1]["system"], &pair[1]["tools"]));
    }
}

#[tokio::test]
async fn a_folder_that_the_host_registers_counts_from_then_on() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work").canonicalize().unwrap_or_else(|_| folder.path().join("work"));
    write(folder.path(), "outside/CLAUDE.md", "Mind the SECRETS.");
    write(&work, "clone/CLAUDE.md", "Mind the PLUMS.");
    write(&work, "clone/.claude/skills/peel/SKILL.md", "---\ndescription: Peels\n---\nPeel.");
    write(folder.path(), "outside/secret/SKILL.md", "---\ndescription: SECRET\n---\nSecret.");
    std::os::unix::fs::symlink(
        folder.path().join("outside/secret"),
        work.join("clone/.claude/skills/secret"),
    )
    .unwrap();
    std::os::unix::fs::symlink(folder.path().join("outside"), work.join("link")).unwrap();
    let mut agent = hooked(&server, &work, &["DirectoryAdded"]).await;
    agent.prompt("first").await;
    agent.until("state/idle").await;
    let clone = work.canonicalize().unwrap().join("clone");
    let register = |directory: &str| json!({"subtype": "register_repo_root", "directory": directory, "reload_claude_md": true, "reload_skills": true});
    agent.control("1", register("clone")).await;
    let asked = agent.until("asks/hook_callback").await.pop().unwrap();
    let input = &asked["request"]["input"];
    assert_eq!(
        [&input["hook_event_name"], &input["directory"], &input["source"]],
        [&json!("DirectoryAdded"), &json!(clone), &json!("register_repo_root")]
    );
    agent.answer(&asked, json!({})).await;
    let answered = agent.until("answers/success").await;
    assert_eq!(kinds_of(&answered), ["system/commands_changed", "answers/success"]);
    let names: Vec<&Value> =
        answered[0]["commands"].as_array().unwrap().iter().map(|command| &command["name"]).collect();
    assert!(names.contains(&&json!("peel")) && !names.contains(&&json!("secret")), "{names:?}");
    assert_eq!(answered[1]["response"]["response"], json!({"directory": clone}));
    for directory in ["clone", "link", "..", "nope", "../outside", ""] {
        agent.control("no", register(directory)).await;
        assert_eq!(kinds_of(&agent.until("answers/error").await), ["answers/error"], "{directory}");
    }
    agent.prompt("second").await;
    let frames = agent.until("result/success").await;
    let init = frames.iter().find(|frame| kind_of(frame) == "system/init").unwrap();
    assert_eq!((&init["additional_directories"], &init["skills"]), (&json!([clone]), &json!(["peel"])));
    let told = server.requests()[1].body["messages"].to_string();
    for text in ["Mind the PLUMS", "peel: Peels", &format!("- {}", clone.display())] {
        assert!(told.contains(text), "{text}");
    }
    assert!(!told.contains("SECRET"));
    begins_as_before(&server);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn skills_are_read_anew_and_what_was_said_of_them_stays() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), ".claude/skills/peel/SKILL.md", "---\ndescription: Peels\n---\nPeel.");
    let mut agent = hooked(&server, folder.path(), &[]).await;
    agent.prompt("first").await;
    agent.until("state/idle").await;
    agent.control("same", json!({"subtype": "reload_skills"})).await;
    assert_eq!(kinds_of(&agent.until("answers/success").await), ["answers/success"]);
    write(folder.path(), ".claude/skills/peel/SKILL.md", "---\ndescription: Peels twice\n---\nPeel.");
    write(folder.path(), ".claude/skills/core/SKILL.md", "---\ndescription: Cores\n---\nCore.");
    write(folder.path(), ".claude/skills/broken/SKILL.md", "---\n: [\n---\nStill here.");
    agent.control("1", json!({"subtype": "reload_skills"})).await;
    let frames = agent.until("answers/success").await;
    assert_eq!(kinds_of(&frames), ["system/commands_changed", "answers/success"]);
    let skills = frames[1]["response"]["response"]["skills"].as_array().unwrap();
    let listed: Vec<String> =
        skills.iter().map(|one| format!("{}: {}", one["name"], one["description"])).collect();
    assert_eq!(
        listed,
        [
            "\"broken\": \"Still here. (project)\"",
            "\"core\": \"Cores (project)\"",
            "\"peel\": \"Peels twice (project)\""
        ]
    );
    agent.prompt("/core it").await;
    agent.until("result/success").await;
    let told = server.requests()[1].body["messages"].to_string();
    assert!(told.contains("- peel: Peels twice") && told.contains("- core: Cores"), "{told}");
    begins_as_before(&server);
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_plugin_brings_commands_skills_agents_and_hooks_under_its_name() {
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    let (folder, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fruit = place.path().join("fruit");
    write(&fruit, ".claude-plugin/plugin.json", r#"{"name": "fruit", "version": "1.0.0"}"#);
    write(
        &fruit,
        "commands/peel.md",
        "---\ndescription: Peels\n---\nPeel the MANGO in ${CLAUDE_PLUGIN_ROOT}.",
    );
    write(&fruit, "agents/sorter.md", "---\nname: sorter\ndescription: Sorts\n---\nYou sort.");
    write(
        &fruit,
        "skills/juice/SKILL.md",
        "---\ndescription: Juices\n---\nJuice by ${CLAUDE_PLUGIN_ROOT}/press.",
    );
    let command = "echo \"$CLAUDE_PLUGIN_ROOT\" >> \"${CLAUDE_PLUGIN_ROOT}/heard\"";
    let hooks =
        json!({"hooks": {"UserPromptSubmit": [{"hooks": [{"type": "command", "command": command}]}]}});
    write(&fruit, "hooks/hooks.json", &hooks.to_string());
    let (flag, root) = (fruit.display().to_string(), fruit.display().to_string());
    let nope = place.path().join("nope").display().to_string();
    let flags = ["--plugin-dir", &flag, "--plugin-dir", &nope, "--plugin-dir", &flag];
    let mut agent = Agent::start(&server, folder.path(), &flags);
    agent
        .control("init", json!({"subtype": "initialize", "plugins": [{"type": "local", "path": root}]}))
        .await;
    let described = agent.until("answers/success").await.pop().unwrap()["response"]["response"].clone();
    assert_eq!(described["plugins_applied"], true);
    let peel = json!({"name": "fruit:peel", "description": "(fruit) Peels", "argumentHint": ""});
    assert!(described["commands"].as_array().unwrap().contains(&peel), "{described}");
    agent.prompt("/fruit:peel").await;
    let frames = agent.until("state/idle").await;
    let init = frames.iter().find(|frame| kind_of(frame) == "system/init").unwrap();
    assert_eq!(
        init["plugins"],
        json!([{"name": "fruit", "path": root, "source": "fruit@inline", "version": "1.0.0"}])
    );
    assert_eq!(
        [&init["plugin_errors"][0]["plugin"], &init["plugin_errors"][0]["type"], &init["plugin_errors"][1]],
        [&json!("inline[1]"), &json!("path-not-found"), &Value::Null]
    );
    let has = |field: &str, name: &str| init[field].as_array().unwrap().contains(&json!(name));
    assert!(
        has("slash_commands", "fruit:peel") && has("skills", "fruit:juice") && has("agents", "fruit:sorter")
    );
    agent.prompt("/juice").await;
    agent.until("state/idle").await;
    let told = server.requests()[1].body["messages"].to_string();
    for text in [format!("Peel the MANGO in {root}."), format!("Juice by {root}/press.")] {
        assert!(told.contains(&text), "{text}: {told}");
    }
    assert_eq!(std::fs::read_to_string(fruit.join("heard")).unwrap(), format!("{root}\n{root}\n"));
    begins_as_before(&server);
    // What changes is read when the host says so.
    write(&fruit, "commands/core.md", "Core it.");
    std::fs::remove_file(fruit.join("hooks/hooks.json")).unwrap();
    agent.control("reload", json!({"subtype": "reload_plugins", "hold_on_cache_impact": true})).await;
    let frames = agent.until("answers/success").await;
    assert_eq!(kinds_of(&frames), ["system/commands_changed", "answers/success"]);
    let reloaded = &frames[1]["response"]["response"];
    assert_eq!((&reloaded["error_count"], &reloaded["held"]), (&json!(1), &json!(false)));
    agent.prompt("/fruit:core").await;
    agent.until("state/idle").await;
    assert!(server.requests()[2].body["messages"].to_string().contains("Core it."));
    assert_eq!(std::fs::read_to_string(fruit.join("heard")).unwrap(), format!("{root}\n{root}\n"));
    let (_, stderr, code) = agent.end().await;
    assert!(code == Some(0) && stderr.contains("warning: the plugin inline[1]"), "{stderr}");
}

#[tokio::test]
async fn plugins_of_initialize_count_where_a_flag_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = model(&json!({"replies": [{"text": "Hi.", "repeat": true}]})).await;
    write(folder.path(), "fruit/commands/peel.md", "Peel.");
    for (flags, applied) in [(&["--await-initialize"][..], true), (&[], false)] {
        let mut agent = Agent::start(&server, folder.path(), flags);
        let plugins = json!([{"type": "local", "path": folder.path().join("fruit")}]);
        agent.control("init", json!({"subtype": "initialize", "plugins": plugins})).await;
        let described = agent.until("answers/success").await.pop().unwrap()["response"]["response"].clone();
        assert_eq!(described["plugins_applied"], applied);
        assert_eq!(described["commands"].to_string().contains("fruit:peel"), applied);
        assert_eq!(agent.end().await.2, Some(0));
    }
}

#[tokio::test]
async fn a_session_begins_anew_when_it_is_compacted_or_cleared() {
    let summary = "<summary>They spoke.</summary>";
    let server = model(&json!({"replies": [{"text": summary, "repeat": true}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = hooked(&server, folder.path(), &["SessionStart", "SessionEnd"]).await;
    agent.prompt("hello").await;
    let frames = agent.until("state/idle").await;
    assert!(!kinds_of(&frames).contains(&"asks/hook_callback".to_owned()), "the beginning is not the host's");
    let kiwi = |text: &str| json!({"hookSpecificOutput": {"hookEventName": "SessionStart", "additionalContext": text}});
    agent.prompt("/compact").await;
    let asked = agent.until("asks/hook_callback").await.pop().unwrap();
    let input = &asked["request"]["input"];
    assert_eq!(
        [&input["hook_event_name"], &input["source"], &input["model"]],
        [&json!("SessionStart"), &json!("compact"), &json!(SONNET)]
    );
    agent.answer(&asked, kiwi("COMPACTED")).await;
    agent.until("state/idle").await;
    agent.prompt("more").await;
    agent.until("state/idle").await;
    let told = |index: usize| server.requests()[index].body["messages"].to_string();
    assert!(told(2).contains("COMPACTED"), "{}", told(2));
    agent.prompt("/clear").await;
    let ended = agent.until("asks/hook_callback").await.pop().unwrap();
    assert_eq!(
        [&ended["request"]["input"]["hook_event_name"], &ended["request"]["input"]["reason"]],
        [&json!("SessionEnd"), &json!("clear")]
    );
    agent.answer(&ended, json!({})).await;
    let begun = agent.until("asks/hook_callback").await.pop().unwrap();
    let input = &begun["request"]["input"];
    assert_eq!([&input["source"], &input["model"]], [&json!("clear"), &Value::Null]);
    assert_ne!(input["session_id"], ended["request"]["input"]["session_id"]);
    agent.answer(&begun, kiwi("CLEARED")).await;
    agent.until("state/idle").await;
    agent.prompt("again").await;
    agent.until("state/idle").await;
    assert!(told(3).contains("CLEARED") && !told(3).contains("COMPACTED"), "{}", told(3));
    assert_eq!(agent.end().await.2, Some(0));
}

/// The agent in a project with these settings, which it trusts or not.
async fn watching(server: &wardian_model::Server, cwd: &Path, trusted: bool, flags: &[&str]) -> Agent {
    let args: Vec<&str> = STREAM.iter().chain(flags).copied().collect();
    let mut command = command(server, cwd, &args);
    if trusted {
        command.env("WARDIAN_TRUST_PROJECT", "1");
    }
    let mut agent = Agent::spawn(command);
    let hooks = json!({"ConfigChange": [{"hookCallbackIds": ["changed"]}]});
    agent.control("init", json!({"subtype": "initialize", "hooks": hooks})).await;
    agent.until("answers/success").await;
    agent
}

const SETTINGS: &str = ".claude/settings.json";

/// Changes the project's settings beside the agent, gives it a prompt and answers its hook, until the turn is over and these
/// frames came too, and it holds. Gives what the hook was told, and all frames.
async fn change(
    agent: &mut Agent,
    folder: &Path,
    settings: &str,
    answer: Value,
    besides: &[&str],
) -> (Value, Vec<Value>) {
    write(folder, SETTINGS, settings);
    agent.prompt("look").await;
    let mut missing: Vec<&str> =
        ["asks/hook_callback", "state/idle"].iter().chain(besides).copied().collect();
    let (mut input, mut frames) = (Value::Null, Vec::new());
    while !missing.is_empty() {
        let frame = agent.next().await.unwrap();
        let kind = kind_of(&frame);
        if kind == "asks/hook_callback" {
            agent.answer(&frame, answer.clone()).await;
            input = frame["request"]["input"].clone();
        }
        missing.retain(|missing| *missing != kind);
        frames.push(frame);
    }
    // Until it holds, unless it is not to.
    while !besides.contains(&"system/informational") {
        agent.control("settings", json!({"subtype": "get_settings"})).await;
        let told = agent.until("answers/success").await.pop().unwrap()["response"]["response"].clone();
        let expected: Value = serde_json::from_str(settings).unwrap();
        if told["sources"].as_array().unwrap().iter().any(|source| source["settings"] == expected) {
            break;
        }
    }
    (input, frames)
}

#[tokio::test]
async fn a_settings_file_that_changes_is_noticed_and_holds() {
    let bash = |id: &str| json!({"tool_use": [call(id, "Bash", json!({"command": "printenv A"}))]});
    let server = model(&json!({"replies": [
        {"text": "One."}, {"text": "Two."}, bash("toolu_1"), {"text": "Three."}, {"text": "Four."}, {"text": "Five."},
        {"text": "Six."}, {"text": "Seven."}, bash("toolu_2"), {"text": "Eight."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), SETTINGS, "{}");
    let mut agent = watching(&server, folder.path(), true, &[]).await;
    agent.prompt("first").await;
    agent.until("state/idle").await;
    let heard = folder.path().join("heard");
    let command = format!("echo heard >> {}", heard.display());
    let settings = json!({
        "permissions": {"allow": ["Bash(printenv *)"]}, "env": {"A": "KIWI"},
        "hooks": {"PreToolUse": [{"hooks": [{"type": "command", "command": command}]}]},
    });
    let (input, _) = change(&mut agent, folder.path(), &settings.to_string(), json!({}), &[]).await;
    let path = folder.path().canonicalize().unwrap().join(SETTINGS);
    assert_eq!(
        [&input["hook_event_name"], &input["source"], &input["file_path"], &input["permission_mode"]],
        [&json!("ConfigChange"), &json!("project_settings"), &json!(path), &Value::Null]
    );
    agent.prompt("use it").await;
    let frames = agent.until("state/idle").await;
    let said = frames.iter().find(|frame| frame["type"] == "user").unwrap();
    assert_eq!(said["message"]["content"][0]["content"], "KIWI");
    assert_eq!(std::fs::read_to_string(&heard).unwrap(), "heard\n");
    // What restrains comes at once, and is not taken back; what allows is.
    let denies = r#"{"permissions": {"deny": ["Bash(printenv *)"]}}"#;
    change(&mut agent, folder.path(), denies, json!({}), &[]).await;
    let allows = r#"{"permissions": {"allow": ["Bash"]}}"#;
    // Nor are the host's own hooks, though it says something else when it sets up again.
    agent.control("again", json!({"subtype": "initialize", "hooks": null})).await;
    agent.until("answers/success").await;
    change(&mut agent, folder.path(), allows, json!({}), &[]).await;
    change(&mut agent, folder.path(), denies, json!({}), &[]).await;
    change(&mut agent, folder.path(), allows, json!({}), &[]).await;
    agent.prompt("again").await;
    let frames = agent.until("state/idle").await;
    let said = frames.iter().find(|frame| frame["type"] == "user").unwrap();
    assert_eq!(said["message"]["content"][0]["is_error"], true, "{said}");
    assert_eq!(agent.end().await.2, Some(0));
}

#[tokio::test]
async fn a_hook_keeps_a_change_from_holding_and_broken_settings_change_nothing() {
    let bash = |id: &str| json!({"tool_use": [call(id, "Bash", json!({"command": "true; touch made"}))]});
    let server = model(&json!({"replies": [
        {"text": "One."}, {"text": "Two."}, {"text": "Three."}, {"text": "Four."}, bash("toolu_1"), {"text": "Five."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = watching(&server, folder.path(), true, &[]).await;
    agent.prompt("first").await;
    agent.until("state/idle").await;
    let all = r#"{"permissions": {"allow": ["Bash", "Edit"]}}"#;
    for (settings, answer, why) in [
        (all, json!({"decision": "block", "reason": "no PLUMS"}), "no PLUMS"),
        (r#"{"permissions": {"allow": ["Bash"#, json!({}), "no JSON"),
        (r#"{"permissions": {"allow": ["Bash", "Edit", "Bash("]}, "hooks": 7}"#, json!({}), "Bash("),
    ] {
        let (_, told) = change(&mut agent, folder.path(), settings, answer, &["system/informational"]).await;
        let warning = told.iter().find(|frame| kind_of(frame) == "system/informational").unwrap();
        assert!(warning["content"].as_str().unwrap().contains(why), "{warning}");
    }
    agent.prompt("use it").await;
    agent.until("state/idle").await;
    assert!(!folder.path().join("made").exists());
    let (_, stderr, code) = agent.end().await;
    assert_eq!((code, stderr.matches("is kept as it was").count()), (Some(0), 3), "{stderr}");
}

#[tokio::test]
async fn the_settings_of_a_strange_project_allow_nothing_when_they_change_either() {
    let bash = |id: &str, command: &str| json!({"tool_use": [call(id, "Bash", json!({"command": command}))]});
    let server = model(&json!({"replies": [
        {"text": "One."}, {"text": "Two."}, bash("toolu_1", "touch made"), bash("toolu_2", "ls -d /"), {"text": "Three."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut agent = watching(&server, folder.path(), false, &["--allowedTools", "Bash(ls *)"]).await;
    agent.prompt("first").await;
    agent.until("state/idle").await;
    let hook = json!([{"hooks": [{"type": "command", "command": "touch hooked"}]}]);
    let settings = json!({
        "permissions": {"allow": ["Bash", "Edit"], "deny": ["Bash(ls *)"]}, "env": {"PATH": "/nowhere"},
        "hooks": {"PreToolUse": hook, "UserPromptSubmit": hook}, "disableAllHooks": true,
    });
    change(&mut agent, folder.path(), &settings.to_string(), json!({}), &[]).await;
    agent.prompt("use it").await;
    let frames = agent.until("state/idle").await;
    let errors: Vec<&Value> = frames
        .iter()
        .filter(|frame| frame["type"] == "user")
        .map(|frame| &frame["message"]["content"][0]["is_error"])
        .collect();
    assert_eq!(errors, [&json!(true), &json!(true)]);
    assert!(!folder.path().join("made").exists() && !folder.path().join("hooked").exists());
    assert_eq!(agent.end().await.2, Some(0));
}
