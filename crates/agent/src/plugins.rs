//! Plugins of the host: folders that `--plugin-dir` or `initialize` names. Whoever names one trusts it as itself; what lies
//! in one stays in it: a path that leads out of the folder, also by a link, is not followed.
//!
//! source: the agent protocol reference, section 1.1, and what the official CLI was seen to do.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use wardian_agent::command::{self, CustomCommand};
use wardian_agent::subagent::{self, AgentDefinition, AgentSource};
use wardian_agent::{Hooks, PluginError, PluginInfo, Shelf, Skill, skill};

use crate::settings::hooks;

/// The most plugins of a session: each is a dozen looks at the disk.
const MAX_PLUGINS: usize = 64;
/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The most paths that a manifest may name of one kind.
const MAX_PATHS: usize = 100;
/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// What stands for a plugin's folder in its texts, and is in the environment of its hooks.
const ROOT: &str = "CLAUDE_PLUGIN_ROOT";

/// The plugins of a process: those that were named, and what of them is there.
#[derive(Clone, Debug, Default)]
pub struct Plugins {
    named: Vec<Named>,
    pub loaded: Vec<Plugin>,
    pub errors: Vec<PluginError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    path: PathBuf,
    skips_servers: bool,
}

/// A plugin, read.
#[derive(Clone, Debug, Default)]
pub struct Plugin {
    pub info: PluginInfo,
    pub commands: Vec<CustomCommand>,
    pub skills: Vec<Skill>,
    pub agents: BTreeMap<String, AgentDefinition>,
    pub hooks: Hooks,
    /// By the name that hosts see.
    pub servers: Map<String, Value>,
}

/// One of the SDKs' `plugins`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    #[serde(rename = "type")]
    kind: String,
    path: PathBuf,
    #[serde(default)]
    skip_mcp_discovery: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    name: String,
    version: Option<String>,
    #[serde(default)]
    commands: Value,
    #[serde(default)]
    agents: Value,
    #[serde(default)]
    skills: Value,
    #[serde(default)]
    hooks: Value,
    #[serde(default)]
    mcp_servers: Value,
}

impl Plugins {
    /// Names one more folder. One that is named already is not read twice.
    pub fn add(&mut self, path: PathBuf, skips_servers: bool) -> Result<(), String> {
        if self.named.iter().any(|known| known.path == path) {
            return Ok(());
        }
        if self.named.len() >= MAX_PLUGINS {
            return Err(format!("more than {MAX_PLUGINS} plugins were named"));
        }
        self.named.push(Named { path, skips_servers });
        Ok(())
    }

    /// Names those of a list as the SDKs write it. Gives whether that changed anything.
    pub fn add_list(&mut self, list: &Value, cwd: &Path) -> Result<bool, String> {
        let before = self.named.len();
        let wanted: Vec<Wanted> =
            Vec::deserialize(list).map_err(|error| format!("the list of plugins cannot be read: {error}"))?;
        for Wanted { kind, path, skip_mcp_discovery } in wanted {
            if kind != "local" {
                let kind: String = kind.chars().take(40).collect();
                return Err(format!("plugins of type '{kind}' are not supported by wardian-agent yet"));
            }
            self.add(cwd.join(path), skip_mcp_discovery)?;
        }
        Ok(self.named.len() > before)
    }

    /// Whether each of a list was named.
    pub fn has_all(&self, list: &Value, cwd: &Path) -> bool {
        let is_known = |wanted: &Value| {
            let path = wanted["path"].as_str().map(|path| cwd.join(path));
            path.is_some_and(|path| self.loaded.iter().any(|plugin| plugin.info.path == path))
        };
        list.as_array().is_some_and(|list| list.iter().all(is_known))
    }

    /// Reads them from the disk. Blocks.
    pub fn load(&mut self) {
        (self.loaded, self.errors) = (Vec::new(), Vec::new());
        for (index, named) in self.named.clone().into_iter().enumerate() {
            let mut complaints = Vec::new();
            match read(&named, &mut complaints) {
                Ok(plugin) if self.loaded.iter().any(|known| known.info.name == plugin.info.name) => {
                    let message = format!("another plugin is called {} already", plugin.info.name);
                    self.fail(index, named.path, "generic-error", message);
                }
                Ok(plugin) => {
                    let name = format!("{}@inline", plugin.info.name);
                    self.errors.extend(complaints.into_iter().map(|(kind, message)| PluginError {
                        plugin: name.clone(),
                        kind,
                        message,
                        path: None,
                    }));
                    self.loaded.push(plugin);
                }
                Err((kind, message)) => self.fail(index, named.path, kind, message),
            }
        }
    }

    fn fail(&mut self, index: usize, path: PathBuf, kind: &'static str, message: String) {
        self.errors.push(PluginError { plugin: format!("inline[{index}]"), kind, message, path: Some(path) });
    }

    pub fn infos(&self) -> Vec<PluginInfo> {
        self.loaded.iter().map(|plugin| plugin.info.clone()).collect()
    }

    pub fn commands(&self) -> impl Iterator<Item = CustomCommand> {
        self.loaded.iter().flat_map(|plugin| plugin.commands.iter().cloned())
    }

    pub fn skills(&self) -> impl Iterator<Item = Skill> {
        self.loaded.iter().flat_map(|plugin| plugin.skills.iter().cloned())
    }

    pub fn hooks(&self) -> Hooks {
        let mut all = Hooks::default();
        self.loaded.iter().for_each(|plugin| all.extend(plugin.hooks.clone()));
        all
    }
}

/// What kind of failure it is, and what is wrong.
type Failure = (&'static str, String);

/// Reads a plugin. What it lacks, though the rest is there, goes to `complaints`.
fn read(named: &Named, complaints: &mut Vec<Failure>) -> Result<Plugin, Failure> {
    let generic = |message: String| ("generic-error", message);
    let path = &named.path;
    let root = path
        .canonicalize()
        .map_err(|error| ("path-not-found", format!("failed to find {}: {error}", path.display())))?;
    if !root.is_dir() {
        return Err(("path-not-found", format!("{} is no folder", path.display())));
    }
    let manifest = match text_in(&root, &root.join(".claude-plugin/plugin.json")).map_err(generic)? {
        Some(text) => serde_json::from_str(&text).map_err(|error| {
            generic(format!("failed to read the manifest of {}: {error}", path.display()))
        })?,
        None => Manifest {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            ..Manifest::default()
        },
    };
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = manifest.name.clone();
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_plain) {
        let name: String = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(generic(format!("{name:?} is no name of a plugin: it has letters, digits and - _ .")));
    }
    let folders = |value: &Value, default: &str| {
        paths(&root, value, default).map_err(|error| generic(format!("the manifest's {default}: {error}")))
    };
    let shelf = |folder: PathBuf| Shelf {
        folder,
        source: "plugin".to_owned(),
        root: Some(root.clone()),
        prefix: Some(name.clone()),
    };
    let (commands, agents, skills) = (
        folders(&manifest.commands, "commands")?,
        folders(&manifest.agents, "agents")?,
        folders(&manifest.skills, "skills")?,
    );
    let rooted = |text: &str| text.replace(&format!("${{{ROOT}}}"), &path.display().to_string());
    let mut plugin = Plugin {
        info: PluginInfo { name: name.clone(), path: path.clone(), version: manifest.version.clone() },
        ..Plugin::default()
    };
    for path in commands {
        let found = if path.is_dir() {
            command::discover(&shelf(path))
        } else {
            command::of_file(&path, &shelf(root.clone())).into_iter().collect()
        };
        plugin.commands.extend(found.into_iter().map(|mut command| {
            command.body = rooted(&command.body);
            command
        }));
    }
    for path in agents {
        let (found, wrong) = subagent::files(&shelf(path), AgentSource::Plugin);
        complaints.extend(wrong.into_iter().map(generic));
        plugin.agents.extend(found.into_iter().map(|(name, mut agent)| {
            agent.prompt = rooted(&agent.prompt);
            (name, agent)
        }));
    }
    plugin.skills = skills.into_iter().flat_map(|path| skill::discover(&shelf(path))).collect();
    match hooks_of(&root, path, &manifest.hooks) {
        Ok(hooks) => plugin.hooks = hooks,
        Err(message) => complaints.push(("hook-load-failed", message)),
    }
    if !named.skips_servers {
        match servers_of(&root, &manifest.mcp_servers) {
            Ok(servers) => {
                let servers = servers.into_iter().map(|(server, mut config)| {
                    replace(&mut config, &rooted);
                    (format!("plugin:{name}:{server}"), config)
                });
                plugin.servers = servers.collect();
            }
            Err(message) => complaints.push(("mcp-config-invalid", message)),
        }
    }
    Ok(plugin)
}

/// The paths that a manifest names of one kind; where it names none, the folder of that name.
fn paths(root: &Path, value: &Value, default: &str) -> Result<Vec<PathBuf>, String> {
    let texts: Vec<&str> = match value {
        Value::Null => return Ok(vec![root.join(default)]),
        Value::String(one) => vec![one],
        Value::Array(list) if list.len() <= MAX_PATHS => {
            let texts = list.iter().map(|item| item.as_str().ok_or("a path must be a text".to_owned()));
            texts.collect::<Result<_, _>>()?
        }
        Value::Array(_) => return Err(format!("more than {MAX_PATHS} paths")),
        _ => return Err("it must be a path or a list of paths".to_owned()),
    };
    texts.into_iter().map(|text| below(root, text)).collect()
}

/// A path of a manifest, which must lie in the plugin's folder.
fn below(root: &Path, text: &str) -> Result<PathBuf, String> {
    let shown: String = text.chars().take(80).collect();
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if text.is_empty() || !Path::new(text).components().all(is_plain) {
        return Err(format!("{shown:?} leads out of the plugin's folder"));
    }
    let path = root.join(text);
    match path.canonicalize() {
        Ok(found) if !found.starts_with(root) => Err(format!("{shown:?} leads out of the plugin's folder")),
        Ok(_) | Err(_) => Ok(path),
    }
}

/// The text of a file in a plugin's folder; `None`: there is none.
fn text_in(root: &Path, path: &Path) -> Result<Option<String>, String> {
    let told = |what: &str| format!("failed to read {}: {what}", path.display());
    let Ok(found) = path.canonicalize() else { return Ok(None) };
    if !found.starts_with(root) {
        return Err(told("it is a link that leads out of the plugin's folder"));
    }
    let metadata = std::fs::metadata(&found).map_err(|error| told(&error.to_string()))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(told(&format!("it is no file of at most {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(&found).map(Some).map_err(|error| told(&error.to_string()))
}

/// An object that a manifest has itself, or that a file has.
fn object(root: &Path, value: &Value, default: &str) -> Result<Value, String> {
    let path = match value {
        Value::Object(_) => return Ok(value.clone()),
        Value::Null => root.join(default),
        Value::String(path) => below(root, path)?,
        _ => return Err("it must be an object, or the path of one".to_owned()),
    };
    let Some(text) = text_in(root, &path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn hooks_of(root: &Path, path: &Path, value: &Value) -> Result<Hooks, String> {
    let read = object(root, value, "hooks/hooks.json")?;
    let hooks = read.get("hooks").unwrap_or(&read);
    if hooks.is_null() {
        return Ok(Hooks::default());
    }
    hooks::read_with(hooks, &[(ROOT.to_owned(), path.display().to_string())])
}

fn servers_of(root: &Path, value: &Value) -> Result<Map<String, Value>, String> {
    let read = object(root, value, ".mcp.json")?;
    match read.get("mcpServers").unwrap_or(&read) {
        Value::Null => Ok(Map::new()),
        Value::Object(servers) => Ok(servers.clone()),
        _ => Err("the servers must be an object".to_owned()),
    }
}

/// Changes every text of a value.
fn replace(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => (),
    }
}

#[cfg(test)]
mod tests;
