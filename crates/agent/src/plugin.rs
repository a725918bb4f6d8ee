//! Plugins, as hosts are told of them: folders of commands, skills, agents, hooks and servers under one name. Who reads
//! them from the disk gives their parts to a query like all others, with the plugin's name before theirs.

use std::path::PathBuf;

use serde_json::{Value, json};

/// A plugin that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginInfo {
    /// What goes before the names of its parts.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// As its manifest says.
    pub version: Option<String>,
}

/// A plugin that is not there, or lacks a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginError {
    /// Which: its name, or its place among those that were asked for (`inline[2]`).
    pub plugin: String,
    /// What kind of failure; programs compare it. source: the types of the TypeScript SDK.
    pub kind: &'static str,
    /// What is wrong.
    pub message: String,
    /// Its folder, where nothing of it is there.
    pub path: Option<PathBuf>,
}

impl PluginInfo {
    /// The plugin as it stands on the wire.
    #[must_use]
    pub fn row(&self) -> Value {
        let mut row =
            json!({"name": self.name, "path": self.path, "source": format!("{}@inline", self.name)});
        if let Some(version) = &self.version {
            row["version"] = version.as_str().into();
        }
        row
    }
}

impl PluginError {
    /// The failure as it stands on the wire.
    #[must_use]
    pub fn row(&self) -> Value {
        let mut row = json!({"plugin": self.plugin, "type": self.kind, "message": self.message});
        if let Some(path) = &self.path {
            row["path"] = json!(path);
        }
        row
    }
}
