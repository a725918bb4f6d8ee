//! Permission rules of the host's settings, which it may change while the session runs.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wardian_agent::{Options, PermissionChange, RuleKind};
use wardian_policy::Rule;

use crate::settings::nothing;

/// The most rules of a kind that a host may give.
const MAX_RULES: usize = 4_096;

/// What the host's settings say about permissions.
#[derive(Debug, Default, PartialEq)]
pub(in super::super) struct FlagRules {
    allow: Vec<Rule>,
    ask: Vec<Rule>,
    deny: Vec<Rule>,
    directories: Vec<PathBuf>,
}

impl FlagRules {
    /// Reads the setting `permissions`. What cannot be changed while the session runs is refused by name.
    pub(in super::super) fn read(value: &Value, cwd: &Path) -> Result<Self, String> {
        if nothing(value) {
            return Ok(Self::default());
        }
        let fields = value.as_object().ok_or("the setting 'permissions' must be an object")?;
        let mut read = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "allow" => read.allow = rules(name, value)?,
                "ask" => read.ask = rules(name, value)?,
                "deny" => read.deny = rules(name, value)?,
                "additionalDirectories" => {
                    read.directories = texts(name, value)?.iter().map(|path| cwd.join(path)).collect();
                }
                _ if nothing(value) => (),
                name => {
                    return Err(format!(
                        "the setting 'permissions.{name}' cannot be changed while wardian-agent runs"
                    ));
                }
            }
        }
        Ok(read)
    }

    /// The same, where what restrains is not taken back.
    pub(in super::super) fn with_restraints_of(mut self, before: &Self) -> Self {
        for (old, new) in [(&before.ask, &mut self.ask), (&before.deny, &mut self.deny)] {
            let gone: Vec<Rule> = old.iter().filter(|rule| !new.contains(rule)).cloned().collect();
            new.extend(gone);
        }
        self
    }

    /// What must change for these to hold instead of those before. What others say too stays; `options` tells what
    /// all say, and is brought up to date.
    pub(in super::super) fn changes(self, before: &Self, options: &mut Options) -> Vec<PermissionChange> {
        let mut changes = Vec::new();
        for (kind, old, new, all) in [
            // First what restrains, so that nothing slips through between.
            (RuleKind::Deny, &before.deny, self.deny, &mut options.disallowed_tools),
            (RuleKind::Ask, &before.ask, self.ask, &mut options.ask_tools),
            (RuleKind::Allow, &before.allow, self.allow, &mut options.allowed_tools),
        ] {
            let others = without(all, old.iter().map(|rule| rule.as_str().to_owned()));
            let stays = |rule: &Rule| others.iter().any(|known| known == rule.as_str());
            let gone = old.iter().filter(|rule| !new.contains(rule) && !stays(rule)).cloned().collect();
            let come = new.iter().filter(|rule| !old.contains(rule) && !stays(rule)).cloned().collect();
            changes.push(PermissionChange::AddRules(kind, come));
            changes.push(PermissionChange::RemoveRules(kind, gone));
            *all = others.into_iter().chain(new.iter().map(|rule| rule.as_str().to_owned())).collect();
        }
        let (old, new) = (&before.directories, self.directories);
        let mut others = without(&options.additional_directories, old.iter().cloned());
        let stays = |path: &PathBuf| others.contains(path) || *path == options.cwd;
        let gone = old.iter().filter(|path| !new.contains(path) && !stays(path)).cloned().collect();
        let come = new.iter().filter(|path| !old.contains(path) && !stays(path)).cloned().collect();
        changes.push(PermissionChange::AddDirectories(come));
        changes.push(PermissionChange::RemoveDirectories(gone));
        others.extend(new);
        options.additional_directories = others;
        changes
    }
}

/// A list without one of each of these.
fn without<T: Clone + PartialEq>(list: &[T], gone: impl Iterator<Item = T>) -> Vec<T> {
    let mut left = list.to_vec();
    for item in gone {
        if let Some(place) = left.iter().position(|known| *known == item) {
            left.remove(place);
        }
    }
    left
}

fn rules(name: &str, value: &Value) -> Result<Vec<Rule>, String> {
    let read = |text: &String| text.parse::<Rule>().map_err(|error| format!("failed to {error}"));
    texts(name, value)?.iter().map(read).collect()
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("the setting 'permissions.{name}' must be a list of texts");
    if value.is_null() {
        return Ok(Vec::new());
    }
    let list = value.as_array().ok_or_else(wrong)?;
    if list.len() > MAX_RULES {
        return Err(format!("the setting 'permissions.{name}' has more than {MAX_RULES} entries"));
    }
    list.iter().map(|text| text.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<FlagRules, String> {
        FlagRules::read(&value, Path::new("/work"))
    }

    fn texts(change: &PermissionChange) -> Vec<String> {
        match change {
            PermissionChange::AddRules(_, rules) | PermissionChange::RemoveRules(_, rules) => {
                rules.iter().map(|rule| rule.as_str().to_owned()).collect()
            }
            PermissionChange::AddDirectories(list) | PermissionChange::RemoveDirectories(list) => {
                list.iter().map(|path| path.display().to_string()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_the_flag_said_goes_with_it() {
        let mut options = Options {
            cwd: "/work".into(),
            allowed_tools: vec!["Read".into(), "Bash(a)".into(), "Bash(a)".into(), "Bash(b)".into()],
            disallowed_tools: vec!["WebFetch".into(), "Write".into()],
            additional_directories: vec!["/else".into(), "/flag".into()],
            ..Options::default()
        };
        let before = read(
            json!({"allow": ["Bash(a)", "Bash(b)"], "deny": ["Write"], "additionalDirectories": ["/flag"]}),
        )
        .unwrap();
        let after = read(
            json!({"allow": ["Bash(b)", "Bash(c)", "Read"], "ask": ["Edit"], "additionalDirectories": ["/work", "sub"]}),
        );
        let changes: Vec<Vec<String>> =
            after.unwrap().changes(&before, &mut options).iter().map(texts).collect();
        let expected: [&[&str]; 8] =
            [&[], &["Write"], &["Edit"], &[], &["Bash(c)"], &[], &["/work/sub"], &["/flag"]];
        assert_eq!(changes, expected, "Bash(a) was said twice, Read by others too");
        assert_eq!(options.allowed_tools, ["Read", "Bash(a)", "Bash(b)", "Bash(c)", "Read"]);
        assert_eq!(options.disallowed_tools, ["WebFetch"]);
    }

    #[test]
    fn what_cannot_change_is_named_and_nonsense_refused() {
        let many = json!({"allow": vec!["Read"; MAX_RULES + 1]});
        for (value, expected) in [
            (json!({"defaultMode": "plan"}), "defaultMode"),
            (json!({"disableBypassPermissionsMode": "disable"}), "disableBypass"),
            (json!({"deny": "Bash"}), "list of texts"),
            (json!({"deny": [1]}), "list of texts"),
            (json!({"deny": ["Bash("]}), "Bash("),
            (json!([]), ""),
            (json!("x"), "object"),
            (many, "entries"),
        ] {
            match read(value) {
                Ok(rules) => assert_eq!((rules, expected), (FlagRules::default(), "")),
                Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{error}"),
            }
        }
    }
}
