//! Lists for a host that shows them to a person: permission rules, hooks, and files by a part of their name.

use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Front;
use super::request::{Answer, Asked, Done};

/// The most files that are looked at for a suggestion: a person waits for it at the keyboard.
const MAX_LOOKED_AT: usize = 20_000;
/// The most files that are suggested.
const MAX_SUGGESTIONS: usize = 15;

#[derive(Deserialize)]
struct FileSuggestions {
    query: String,
}

impl Front {
    /// Files of the working directory whose path has the query in it, the shortest paths first.
    pub(super) fn file_suggestions(&self, asked: Asked) -> Done {
        let FileSuggestions { query } = asked.read()?;
        let cwd = self.setup.options.cwd.clone();
        Ok(Answer::Later(Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || {
                let paths = suggestions(&cwd, &query.to_lowercase());
                let suggestions: Vec<Value> = paths.iter().map(|path| json!({"path": path})).collect();
                json!({"suggestions": suggestions, "cwd": cwd})
            });
            found.await.map_err(|error| format!("failed to look for files: {error}"))
        })))
    }

    /// The rules of the settings, each with its source, and those of the flags.
    pub(super) fn list_permission_rules(&self) -> Done {
        let options = &self.setup.options;
        let mut rules = Vec::new();
        for (source, settings) in &self.setup.layers {
            for behavior in ["allow", "deny", "ask"] {
                let listed =
                    settings.get("permissions").and_then(|permissions| permissions[behavior].as_array());
                let texts = listed.into_iter().flatten().filter_map(Value::as_str);
                rules.extend(texts.map(|rule| (behavior, *source, rule.to_owned())));
            }
        }
        // The options have the rules of all sources; what no settings have, a flag gave.
        let flags = [
            ("allow", &options.allowed_tools),
            ("deny", &options.disallowed_tools),
            ("ask", &options.ask_tools),
        ];
        for (behavior, texts) in flags {
            for rule in texts {
                if !rules.iter().any(|(known, _, text)| *known == behavior && text == rule) {
                    rules.push((behavior, "cliArg", rule.clone()));
                }
            }
        }
        let rules: Vec<Value> = rules.into_iter().map(rule).collect();
        let directories: Vec<Value> = options
            .additional_directories
            .iter()
            .map(|path| json!({"path": path, "source": "cliArg"}))
            .collect();
        Ok(Answer::Now(json!({"state": {
            "rules": rules,
            "workspaceDirectories": directories,
            "originalCwd": options.cwd,
            "managedOnly": false,
        }})))
    }

    /// The hooks of the settings. The host's own are the host's to list.
    pub(super) fn hooks_listing(&self) -> Done {
        let mut hooks = Vec::new();
        for (source, settings) in &self.setup.layers {
            let events = settings.get("hooks").and_then(Value::as_object).into_iter().flatten();
            for (event, matchers) in events {
                for matcher in matchers.as_array().into_iter().flatten() {
                    let commands = matcher["hooks"].as_array().into_iter().flatten();
                    hooks.extend(commands.map(|command| hook(event, source, &matcher["matcher"], command)));
                }
            }
        }
        let mut events: Vec<Value> = Vec::new();
        for hook in &hooks {
            let name = &hook["event"];
            match events.iter_mut().find(|event| event["name"] == *name) {
                Some(event) => event["hookCount"] = json!(event["hookCount"].as_u64().unwrap_or(0) + 1),
                None => events.push(json!({
                    "name": name,
                    "summary": "",
                    "supportsMatcher": name.as_str().is_some_and(has_matcher),
                    "hookCount": 1,
                })),
            }
        }
        let all_disabled = self
            .setup
            .layers
            .iter()
            .any(|(_, settings)| settings.get("disableAllHooks") == Some(&true.into()));
        Ok(Answer::Now(json!({
            "events": events,
            "hooks": hooks,
            "eventCatalog": [],
            "policy": {
                "disabledByPolicy": false,
                "managedOnly": false,
                "pluginOnly": false,
                "allDisabled": all_disabled,
                "policyHookCount": 0,
            },
        })))
    }
}

/// Whether a matcher of this event's hooks is looked at.
fn has_matcher(event: &str) -> bool {
    !matches!(
        event,
        "UserPromptSubmit" | "Stop" | "StopFailure" | "PostToolBatch" | "CwdChanged" | "MessageDisplay"
    )
}

fn rule((behavior, source, rule): (&str, &str, String)) -> Value {
    json!({
        "behavior": behavior,
        "source": source,
        "rule": rule,
        "editability": "readonly",
    })
}

fn hook(event: &str, source: &str, matcher: &Value, command: &Value) -> Value {
    let text = command["command"].as_str().unwrap_or_default();
    let mut listed = Map::from_iter([
        ("event".to_owned(), event.into()),
        ("matcher".to_owned(), matcher.as_str().unwrap_or_default().into()),
        ("source".to_owned(), source.into()),
        ("sourceLabel".to_owned(), source.into()),
        ("type".to_owned(), command["type"].clone()),
        ("displayText".to_owned(), text.into()),
        ("commandText".to_owned(), text.into()),
        ("contentLabel".to_owned(), "Command".into()),
    ]);
    if let Some(seconds) = command.get("timeout") {
        listed.insert("timeout".to_owned(), seconds.clone());
    }
    Value::Object(listed)
}

/// Paths below `cwd`, relative, that have `query` (in lower case) in them. What git ignores is left out.
fn suggestions(cwd: &Path, query: &str) -> Vec<PathBuf> {
    let files = WalkBuilder::new(cwd).require_git(false).build().flatten().take(MAX_LOOKED_AT);
    let mut found: Vec<PathBuf> = files
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.path().strip_prefix(cwd).map(Path::to_owned).ok())
        .filter(|path| path.to_string_lossy().to_lowercase().contains(query))
        .collect();
    found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    found.truncate(MAX_SUGGESTIONS);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_suggested_by_a_part_of_their_path_the_shortest_first() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["src/plum.rs", "Plum.md", ".gitignore", "out/plum.o", "pear.rs"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, if name == ".gitignore" { "out/\n" } else { "" }).unwrap();
        }
        let paths = suggestions(folder.path(), "plum");
        assert_eq!(paths, [PathBuf::from("Plum.md"), PathBuf::from("src/plum.rs")]);
    }
}
