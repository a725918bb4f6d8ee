//! Changes of the permissions while a query runs.

use std::path::PathBuf;

use serde_json::{Value, json};
use wardian_policy::{PermissionMode, Rule};

/// A change of the permissions, and how long it is to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct PermissionUpdate {
    /// What changes. It holds at once, whatever the destination.
    pub change: PermissionChange,
    /// Where it is kept.
    pub destination: Destination,
}

/// What changes.
#[derive(Clone, Debug, PartialEq)]
pub enum PermissionChange {
    /// More rules.
    AddRules(RuleKind, Vec<Rule>),
    /// These rules instead of those with the same destination.
    ReplaceRules(RuleKind, Vec<Rule>),
    /// These rules no more.
    RemoveRules(RuleKind, Vec<Rule>),
    /// Another mode.
    SetMode(PermissionMode),
    /// More roots.
    AddDirectories(Vec<PathBuf>),
    /// These roots no more.
    RemoveDirectories(Vec<PathBuf>),
}

/// Which list of rules is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Calls that go through unasked.
    Allow,
    /// Calls that are asked about.
    Ask,
    /// Calls that are refused.
    Deny,
}

/// Where a change is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: it ends with the query.
    #[default]
    Session,
    /// Nowhere: as if it had been given on the command line.
    CliArg,
    /// In the user's settings.
    UserSettings,
    /// In the project's settings.
    ProjectSettings,
    /// In the project's settings that are not shared.
    LocalSettings,
}

/// The settings files that changes may be kept in. Where there is none for a destination, a change holds for the query
/// only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsFiles {
    /// `~/.claude/settings.json`
    pub user: Option<PathBuf>,
    /// `.claude/settings.json`
    pub project: Option<PathBuf>,
    /// `.claude/settings.local.json`
    pub local: Option<PathBuf>,
}

impl SettingsFiles {
    /// The file of a destination.
    pub(crate) const fn of(&self, destination: Destination) -> Option<&PathBuf> {
        match destination {
            Destination::Session | Destination::CliArg => None,
            Destination::UserSettings => self.user.as_ref(),
            Destination::ProjectSettings => self.project.as_ref(),
            Destination::LocalSettings => self.local.as_ref(),
        }
    }
}

impl RuleKind {
    /// The kind as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

impl Destination {
    const ALL: [Self; 5] =
        [Self::Session, Self::CliArg, Self::UserSettings, Self::ProjectSettings, Self::LocalSettings];

    /// The destination as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::CliArg => "cliArg",
            Self::UserSettings => "userSettings",
            Self::ProjectSettings => "projectSettings",
            Self::LocalSettings => "localSettings",
        }
    }
}

impl PermissionUpdate {
    /// A change that ends with the query.
    #[must_use]
    pub const fn session(change: PermissionChange) -> Self {
        Self { change, destination: Destination::Session }
    }

    /// Reads a change as hosts write it; `None` for what is not understood: then nothing changes, and the like is asked
    /// about again. source: the agent protocol reference, section 1.5.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        let kind = || match value["behavior"].as_str()? {
            "allow" => Some(RuleKind::Allow),
            "ask" => Some(RuleKind::Ask),
            "deny" => Some(RuleKind::Deny),
            _ => None,
        };
        let rules = || value["rules"].as_array()?.iter().map(read_rule).collect::<Option<Vec<_>>>();
        let directories = || {
            let list = value["directories"].as_array()?.iter();
            list.map(|path| path.as_str().filter(|path| path.starts_with('/')).map(PathBuf::from))
                .collect::<Option<Vec<_>>>()
        };
        let change = match value["type"].as_str()? {
            "addRules" => PermissionChange::AddRules(kind()?, rules()?),
            "replaceRules" => PermissionChange::ReplaceRules(kind()?, rules()?),
            "removeRules" => PermissionChange::RemoveRules(kind()?, rules()?),
            "setMode" => PermissionChange::SetMode(value["mode"].as_str()?.parse().ok()?),
            "addDirectories" => PermissionChange::AddDirectories(directories()?),
            "removeDirectories" => PermissionChange::RemoveDirectories(directories()?),
            _ => return None,
        };
        let destination = match value.get("destination") {
            None | Some(Value::Null) => Destination::Session,
            Some(name) => Destination::ALL.into_iter().find(|known| name.as_str() == Some(known.as_str()))?,
        };
        Some(Self { change, destination })
    }

    /// The change as hosts read it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let rules = |kind: &str, behavior: RuleKind, rules: &[Rule]| {
            let rules: Vec<Value> = rules.iter().map(rule_value).collect();
            json!({"type": kind, "rules": rules, "behavior": behavior.as_str()})
        };
        let mut value = match &self.change {
            PermissionChange::AddRules(kind, list) => rules("addRules", *kind, list),
            PermissionChange::ReplaceRules(kind, list) => rules("replaceRules", *kind, list),
            PermissionChange::RemoveRules(kind, list) => rules("removeRules", *kind, list),
            PermissionChange::SetMode(mode) => json!({"type": "setMode", "mode": mode.as_str()}),
            PermissionChange::AddDirectories(list) => json!({"type": "addDirectories", "directories": list}),
            PermissionChange::RemoveDirectories(list) => {
                json!({"type": "removeDirectories", "directories": list})
            }
        };
        value["destination"] = self.destination.as_str().into();
        value
    }
}

fn read_rule(rule: &Value) -> Option<Rule> {
    let tool = rule["toolName"].as_str()?;
    let content = rule["ruleContent"].as_str();
    content.map_or_else(|| tool.to_owned(), |content| format!("{tool}({content})")).parse().ok()
}

fn rule_value(rule: &Rule) -> Value {
    let text = rule.as_str();
    match text.split_once('(').and_then(|(tool, rest)| Some((tool, rest.strip_suffix(')')?))) {
        Some((tool, content)) => json!({"toolName": tool, "ruleContent": content}),
        None => json!({"toolName": text}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_they_are_written() {
        for value in [
            json!({"type": "addRules", "rules": [{"toolName": "Bash", "ruleContent": "git *"}, {"toolName": "Read"}],
                "behavior": "allow", "destination": "localSettings"}),
            json!({"type": "replaceRules", "rules": [], "behavior": "deny", "destination": "session"}),
            json!({"type": "setMode", "mode": "acceptEdits", "destination": "session"}),
            json!({"type": "addDirectories", "directories": ["/a"], "destination": "userSettings"}),
        ] {
            assert_eq!(PermissionUpdate::read(&value).unwrap().to_value(), value);
        }
        for nonsense in [
            json!(null),
            json!({}),
            json!({"type": "addRules", "rules": [{"toolName": "Bash("}], "behavior": "allow"}),
            json!({"type": "addRules", "rules": [{"toolName": "Bash"}], "behavior": "maybe"}),
            json!({"type": "addRules", "rules": [{"toolName": "Bash"}], "behavior": "allow", "destination": "moon"}),
            json!({"type": "setMode", "mode": "yolo"}),
            json!({"type": "addDirectories", "directories": ["relative"]}),
        ] {
            assert_eq!(PermissionUpdate::read(&nonsense), None, "{nonsense}");
        }
    }
}
