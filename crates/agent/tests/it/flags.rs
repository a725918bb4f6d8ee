//! Settings that a host changes while the agent runs, and those that it has kept in files.

use std::path::Path;

use serde_json::{Value, json};
use wardian_model::Server;

use crate::process::{Agent, command};
use crate::support::{call, model};

/// A model that makes these Bash calls, one a prompt.
async fn calling(commands: &[&str]) -> Server {
    let replies = commands.iter().enumerate().flat_map(|(index, command)| {
        let call = call(&format!("toolu_{index}"), "Bash", json!({"command": command}));
        [json!({"tool_use": [call]}), json!({"text": "Done."})]
    });
    model(&json!({"replies": replies.collect::<Vec<_>>()})).await
}

struct Live {
    agent: Agent,
    asked: u32,
}

impl Live {
    async fn start(server: &Server, cwd: &Path, flags: &[&str]) -> Self {
        Self::with(Agent::start(server, cwd, flags)).await
    }

    async fn with(agent: Agent) -> Self {
        let mut live = Self { agent, asked: 0 };
        live.request(json!({"subtype": "initialize"})).await.unwrap();
        live
    }

    /// Asks the agent, and gives its answer or its refusal.
    async fn request(&mut self, request: Value) -> Result<Value, String> {
        self.asked += 1;
        let id = format!("asked-{}", self.asked);
        self.agent.control(&id, request).await;
        loop {
            let frame = self.agent.next().await.unwrap();
            let response = &frame["response"];
            if frame["type"] == "control_response" && response["request_id"] == *id {
                return match response["error"].as_str() {
                    Some(error) => Err(error.to_owned()),
                    None => Ok(response["response"].clone()),
                };
            }
        }
    }

    async fn apply(&mut self, settings: Value) -> Result<Value, String> {
        self.request(json!({"subtype": "apply_flag_settings", "settings": settings})).await
    }

    /// Lets the model make its next call; gives the result, and whether the call was denied.
    async fn turn(&mut self) -> (String, bool) {
        self.agent.prompt("go on").await;
        let frames = self.agent.until("result/success").await;
        let result = frames
            .iter()
            .find(|frame| frame["type"] == "user" && frame["message"]["content"][0]["type"] == "tool_result");
        let text =
            result.unwrap()["message"]["content"][0]["content"].as_str().unwrap_or_default().to_owned();
        (text, frames.last().unwrap()["permission_denials"] != json!([]))
    }
}

#[tokio::test]
async fn rules_and_environment_of_the_host_hold_from_then_on() {
    let commands = ["touch a", "touch b", "touch c", "echo $FRUIT", "echo $FRUIT", "touch d", "touch e"];
    let server = calling(&commands).await;
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--settings", r#"{"permissions": {"allow": ["Bash(touch:*)"]}, "env": {"FRUIT": "plum"}}"#];
    let mut live =
        Live::start(&server, folder.path(), &[&flags[..], &["--allowedTools=Bash(echo:*)"]].concat()).await;
    assert!(!live.turn().await.1, "the flag allows it");
    // What the flag said before goes, what the command line said stays; nothing of a call that is refused holds.
    live.apply(json!({"permissions": {"ask": ["Bash(make:*)"]}})).await.unwrap();
    assert!(live.turn().await.1);
    for (settings, expected) in [
        (json!({"permissions": {"allow": ["Bash"]}, "sandbox": {"enabled": true}}), "'sandbox'"),
        (json!({"permissions": {"allow": ["Bash"], "defaultMode": "bypassPermissions"}}), "defaultMode"),
        (json!({"permissions": {"allow": ["Bash", "Bash("]}}), "Bash("),
        (json!({"permissions": {"allow": ["Bash"]}, "env": {"A=": "1"}}), "'env'"),
        (
            json!({"permissions": {"allow": ["Bash"]}, "env": {"ANTHROPIC_BASE_URL": "http://evil"}}),
            "ANTHROPIC_BASE_URL",
        ),
        (json!({"permissions": "none"}), "'permissions'"),
    ] {
        let refused = live.apply(settings.clone()).await.unwrap_err();
        assert!(refused.contains(expected), "{settings}: {refused}");
    }
    assert!(live.turn().await.1);
    live.apply(json!({"env": {"FRUIT": "pear"}})).await.unwrap();
    assert_eq!(live.turn().await, ("pear".to_owned(), false));
    live.apply(json!({"env": null})).await.unwrap();
    assert_eq!(live.turn().await, ("[no output]".to_owned(), false), "the flag's own is gone as well");
    live.apply(json!({"permissions": {"allow": ["Bash(touch:*)"]}})).await.unwrap();
    assert!(!live.turn().await.1);
    live.apply(json!({"permissions": {"allow": ["Bash(touch:*)"], "deny": ["Bash(touch e)"]}}))
        .await
        .unwrap();
    assert!(live.turn().await.1);
    let settings = live.request(json!({"subtype": "get_settings"})).await.unwrap();
    assert_eq!(settings["effective"]["permissions"]["deny"], json!(["Bash(touch e)"]));
    let rules = live.request(json!({"subtype": "list_permission_rules"})).await.unwrap()["state"]["rules"]
        .to_string();
    assert!(rules.contains("touch e") && rules.contains("echo:*") && !rules.contains("make"), "{rules}");
    let made = ["a", "b", "c", "d", "e"].map(|name| folder.path().join(name).exists());
    assert_eq!(made, [true, false, false, true, false]);
    assert_eq!(live.agent.end().await.2, Some(0));
}

#[tokio::test]
async fn where_only_an_administrators_rules_hold_a_host_adds_none() {
    let server = calling(&["touch a"]).await;
    let folder = tempfile::tempdir().unwrap();
    let managed = r#"--managed-settings={"allowManagedPermissionRulesOnly": true}"#;
    let mut live = Live::start(&server, folder.path(), &[managed]).await;
    let refused = live.apply(json!({"permissions": {"allow": ["Bash"]}})).await.unwrap_err();
    assert!(refused.contains("administrator"), "{refused}");
    assert!(live.turn().await.1);
    assert_eq!(live.agent.end().await.2, Some(0));
}

#[tokio::test]
async fn few_settings_are_kept_and_only_in_files_that_are_read() {
    let server = calling(&[]).await;
    let (folder, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = |sources: &str| {
        let flags = ["--output-format=stream-json", "--verbose", "--input-format=stream-json", sources];
        let mut command = command(&server, folder.path(), &flags);
        command.env("HOME", home.path());
        Agent::spawn(command)
    };
    let update = |source: &str, settings: Value| json!({"subtype": "update_settings", "source": source, "settings": settings});
    let user = home.path().join(".claude/settings.json");
    std::fs::create_dir_all(user.parent().unwrap()).unwrap();
    std::fs::write(&user, r#"{"env": {"A": "1"}}"#).unwrap();
    let mut live = Live::with(start("--setting-sources=user,local")).await;
    live.request(update("localSettings", json!({"outputStyle": "default"}))).await.unwrap();
    live.request(update("userSettings", json!({"effortLevel": "high"}))).await.unwrap();
    let kept = |path: &Path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(kept(&user), json!({"env": {"A": "1"}, "effortLevel": "high"}));
    let local = folder.path().join(".claude/settings.local.json");
    assert_eq!(kept(&local), json!({"outputStyle": "default"}));
    for (request, expected) in [
        (update("localSettings", json!({"permissions": {"allow": ["Bash"]}})), "outputStyle"),
        (update("localSettings", json!({"outputStyle": "x", "env": {"A": "2"}})), "outputStyle"),
        (update("localSettings", json!({"outputStyle": null})), "outputStyle"),
        (update("localSettings", json!({"outputStyle": "x".repeat(1_000)})), "outputStyle"),
        (update("userSettings", json!({"outputStyle": "x"})), "effortLevel"),
        (update("userSettings", json!({"effortLevel": "max"})), "effortLevel"),
        (update("projectSettings", json!({"outputStyle": "x"})), "source"),
        (update("localSettings", json!({})), "nothing"),
        (update("localSettings", json!([])), "cannot be read"),
    ] {
        let refused = live.request(request.clone()).await.unwrap_err();
        assert!(refused.contains(expected), "{request}: {refused}");
    }
    assert_eq!(kept(&local), json!({"outputStyle": "default"}));
    // What cannot be read is left alone.
    std::fs::write(&local, "{broken").unwrap();
    let refused = live.request(update("localSettings", json!({"outputStyle": "x"}))).await.unwrap_err();
    assert!(refused.contains("failed to keep"), "{refused}");
    assert_eq!(std::fs::read_to_string(&local).unwrap(), "{broken");
    assert_eq!(live.agent.end().await.2, Some(0));
    std::fs::remove_file(&local).unwrap();
    let mut live = Live::with(start("--setting-sources=user")).await;
    let refused = live.request(update("localSettings", json!({"outputStyle": "x"}))).await.unwrap_err();
    assert!(refused.contains("disabled") && !local.exists(), "{refused}");
    assert_eq!(live.agent.end().await.2, Some(0));
}
