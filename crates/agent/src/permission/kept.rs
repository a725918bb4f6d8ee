//! Keeps changes of the permissions in settings files.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use wardian_policy::Rule;

use super::{Destination, PermissionChange, SettingsFiles};

/// The largest settings file that is changed, in bytes: people write them.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Writes a change into a settings file. What else stands there stays. A file that cannot be read is left alone: the
/// change then holds for the query only.
pub(crate) async fn keep(file: &Path, change: &PermissionChange) {
    let (path, change) = (file.to_owned(), change.clone());
    let kept = tokio::task::spawn_blocking(move || write(&path, &change)).await;
    let kept = kept.unwrap_or_else(|error| Err(io::Error::other(error)));
    if let Err(error) = kept {
        tracing::warn!(%error, path = %file.display(), "a permission was not kept");
    }
}

fn write(path: &Path, change: &PermissionChange) -> io::Result<()> {
    let mut settings = read(path)?;
    let permissions = settings.entry("permissions").or_insert_with(|| json!({}));
    let permissions = permissions.as_object_mut().ok_or(io::ErrorKind::InvalidData)?;
    amend(permissions, change);
    replace(path, &settings)
}

impl SettingsFiles {
    /// Sets values in a settings file; what else stands there stays. Blocks.
    ///
    /// # Errors
    /// There is no file for this destination; it cannot be read, has no settings, or cannot be written.
    pub fn set(&self, destination: Destination, values: Map<String, Value>) -> io::Result<()> {
        let path = self.of(destination).ok_or(io::ErrorKind::NotFound)?;
        let mut settings = read(path)?;
        settings.extend(values);
        replace(path, &settings)
    }
}

fn replace(path: &Path, settings: &Map<String, Value>) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let mut text = serde_json::to_string_pretty(settings)?;
    text.push('\n');
    // Another reader sees the old file or the new one, never half of one.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", crate::random::uuid()));
    let beside = folder.join(name);
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&beside);
    })
}

fn read(path: &Path) -> io::Result<Map<String, Value>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let text = std::fs::read_to_string(path)?;
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    Ok(serde_json::from_str(&text)?)
}

fn amend(permissions: &mut Map<String, Value>, change: &PermissionChange) {
    let texts = |rules: &[Rule]| rules.iter().map(|rule| rule.as_str().to_owned()).collect::<Vec<_>>();
    let paths = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    match change {
        PermissionChange::AddRules(kind, rules) => add(permissions, kind.as_str(), texts(rules)),
        PermissionChange::ReplaceRules(kind, rules) => {
            permissions.insert(kind.as_str().to_owned(), texts(rules).into());
        }
        PermissionChange::RemoveRules(kind, rules) => remove(permissions, kind.as_str(), &texts(rules)),
        PermissionChange::SetMode(mode) => {
            permissions.insert("defaultMode".to_owned(), mode.as_str().into());
        }
        PermissionChange::AddDirectories(list) => add(permissions, DIRECTORIES, paths(list)),
        PermissionChange::RemoveDirectories(list) => remove(permissions, DIRECTORIES, &paths(list)),
    }
}

const DIRECTORIES: &str = "additionalDirectories";

fn add(permissions: &mut Map<String, Value>, name: &str, more: Vec<String>) {
    let list = permissions.entry(name).or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for text in more {
        if !list.iter().any(|known| *known == text) {
            list.push(text.into());
        }
    }
}

fn remove(permissions: &mut Map<String, Value>, name: &str, gone: &[String]) {
    if let Some(list) = permissions.get_mut(name).and_then(Value::as_array_mut) {
        list.retain(|known| gone.iter().all(|gone| known != gone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RuleKind;

    #[tokio::test]
    async fn a_change_is_kept_and_all_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".claude/settings.local.json");
        let rule = |text: &str| vec![text.parse::<Rule>().unwrap()];
        keep(&file, &PermissionChange::AddRules(RuleKind::Allow, rule("Bash(git *)"))).await;
        keep(&file, &PermissionChange::AddRules(RuleKind::Allow, rule("Bash(git *)"))).await;
        keep(&file, &PermissionChange::AddDirectories(vec!["/a".into()])).await;
        let text = std::fs::read_to_string(&file)
            .unwrap()
            .replace("\"permissions\"", "\"model\":\"m\",\"permissions\"");
        std::fs::write(&file, text).unwrap();
        keep(&file, &PermissionChange::RemoveRules(RuleKind::Allow, rule("Bash(git *)"))).await;
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let expected = json!({"model": "m", "permissions": {"allow": [], "additionalDirectories": ["/a"]}});
        assert_eq!(kept, expected);
        assert_eq!(
            std::fs::read_dir(folder.path().join(".claude")).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_not_understood_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.json");
        for text in ["{broken", "[]", "{\"permissions\": 5}"] {
            std::fs::write(&file, text).unwrap();
            keep(&file, &PermissionChange::AddDirectories(vec!["/a".into()])).await;
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}
