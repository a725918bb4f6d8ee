//! Settings: where they come from, which goes before which, and what of them holds here.
//!
//! From the weakest to the strongest: the user's file, the project's, the project's that is not shared, the flag
//! `--settings`, and what an administrator says. Lists add up; of single values the strongest holds, and what a flag of
//! the command line says goes before all of them but an administrator's word.
//!
//! A project is somebody else's work until the user says otherwise: what its files would allow, run or put into the
//! environment is left out unless it is trusted. What they forbid always holds.
//!
//! source: the agent protocol reference, sections 1.5 and 1.7.

mod apply;
pub mod hooks;
mod layer;
mod mcp;
mod texts;
mod watch;

use std::path::Path;

use serde_json::{Map, Value};
use wardian_agent::memory::MemoryFile;
use wardian_agent::{AutoCompact, Hooks, SettingsFiles};

use crate::args::{Args, Complaint};
use crate::shelves::Shelves;
use layer::Layer;
pub use watch::WatchedFile;

/// The settings files that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    pub user: bool,
    pub project: bool,
    pub local: bool,
}

impl Default for Sources {
    fn default() -> Self {
        Self { user: true, project: true, local: true }
    }
}

impl Sources {
    pub const NONE: Self = Self { user: false, project: false, local: false };

    /// Reads `user,project,local`.
    pub fn read(text: &str) -> Result<Self, Complaint> {
        let mut sources = Self::NONE;
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "user" => sources.user = true,
                "project" => sources.project = true,
                "local" => sources.local = true,
                name => {
                    let name: String = name.chars().take(60).collect();
                    return Err(format!(
                        "option '--setting-sources' cannot be '{name}': it is a list of user, project, local"
                    ));
                }
            }
        }
        Ok(sources)
    }
}

/// Where settings are looked for.
#[derive(Debug)]
pub struct Place<'a> {
    /// The folder of the user's settings.
    pub config_dir: Option<&'a Path>,
    /// The project.
    pub project: &'a Path,
    /// Whether the user trusts it.
    pub trusted: bool,
    /// The administrator's file.
    pub managed: &'a Path,
}

/// Where an administrator says what holds on a machine.
pub const MANAGED_FILE: &str = "/etc/claude-code/managed-settings.json";

/// What settings say beside the arguments.
#[derive(Debug, Default)]
pub struct Effective {
    pub hooks: Hooks,
    /// Goes into the environment.
    pub env: Vec<(String, String)>,
    /// Where permissions are kept.
    pub files: SettingsFiles,
    pub bash_output_chars: Option<usize>,
    /// Whether no prompts are to be suggested.
    pub suggestions_off: bool,
    pub auto_compact: AutoCompact,
    /// Instructions for the model.
    pub memory: Vec<MemoryFile>,
    /// Where texts lie.
    pub shelves: Shelves,
    /// The files that were read, or would have been.
    pub watched: Vec<WatchedFile>,
    /// Whether no hooks of plugins run.
    pub plugin_hooks_off: bool,
    /// Whether nobody may run without permissions.
    pub bypass_disabled: bool,
    /// What was left out, for standard error.
    pub warnings: Vec<String>,
    /// The settings of each source, the weakest first.
    pub layers: Vec<(&'static str, Map<String, Value>)>,
}

/// Reads all settings and takes them into the arguments.
pub fn load(args: &mut Args, place: &Place<'_>) -> Result<Effective, Complaint> {
    let mut effective = Effective::default();
    let mut layers = files(args, place, &mut effective)?;
    if let Some(given) = args.settings.take() {
        layers.push(Layer::given(&given)?);
    }
    layers.extend(Layer::file("policySettings", place.managed, true)?.map(Layer::managed));
    if let Some(given) = args.managed_settings.take() {
        layers.extend(Layer::embedder(&given, layers.iter().any(|layer| layer.is_managed))?);
    }
    apply::apply(args, &layers, &mut effective)?;
    mcp::apply(args, place, &layers, &mut effective)?;
    effective.layers = layers.into_iter().map(|layer| (layer.name, layer.settings)).collect();
    Ok(effective)
}

fn files(args: &Args, place: &Place<'_>, effective: &mut Effective) -> Result<Vec<Layer>, Complaint> {
    let sources = args.setting_sources;
    let user = place.config_dir.filter(|_| sources.user).map(|folder| folder.join("settings.json"));
    let of_project = |is_read: bool, name: &str| {
        is_read.then(|| place.project.join(".claude").join(name)).filter(|path| Some(path) != user.as_ref())
    };
    let project = of_project(sources.project, "settings.json");
    let local = of_project(sources.local, "settings.local.json");
    let elsewhere = args.project_root.as_ref().map(|_| place.project);
    let mut layers = Vec::new();
    for (name, path, trusted, root) in [
        ("userSettings", &user, true, place.config_dir),
        ("projectSettings", &project, place.trusted, elsewhere),
        ("localSettings", &local, place.trusted, elsewhere),
    ] {
        let Some(path) = path else { continue };
        effective.watched.push(WatchedFile::new(name, path, root));
        layers.extend(Layer::file(name, path, trusted)?.map(|layer| layer.below(root)));
    }
    effective.files = SettingsFiles { user, project, local };
    Ok(layers)
}

/// The layers by rank, the weakest first.
pub const RANKS: &[&str] =
    &["userSettings", "projectSettings", "localSettings", "flagSettings", "policySettings"];

/// Whether an administrator says yes to something.
pub fn managed_says(layers: &[(&'static str, Map<String, Value>)], key: &str) -> bool {
    layers.iter().any(|(name, settings)| *name == "policySettings" && settings.get(key) == Some(&true.into()))
}

/// The hooks of these layers. What a project says counts where it is trusted.
pub fn hooks_of(layers: &[(&'static str, Map<String, Value>)], trusted: bool) -> Result<Hooks, Complaint> {
    let of_project = |name: &str| matches!(name, "projectSettings" | "localSettings");
    let layer = |(name, settings): &(&'static str, Map<String, Value>)| Layer {
        name,
        settings: settings.clone(),
        trusted: trusted || !of_project(name),
        strict: false,
        is_managed: *name == "policySettings",
    };
    apply::hooks_of(&layers.iter().map(layer).collect::<Vec<_>>())
}

/// What the settings of these layers put into the environment, the weakest first. What a project says counts where it is
/// trusted.
pub fn environment_of(layers: &[(&'static str, Map<String, Value>)], trusted: bool) -> Vec<(String, String)> {
    let counts = |name: &str| trusted || !matches!(name, "projectSettings" | "localSettings");
    let layers = layers.iter().filter(|(name, _)| counts(name));
    let fields = layers.filter_map(|(_, settings)| settings.get("env")?.as_object()).flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// Reads variables as settings have them.
pub fn read_environment(value: &Value) -> Result<Vec<(String, String)>, Complaint> {
    apply::variables(value)
}

/// Whether the user trusts a project: where the official CLI keeps it, in `.claude.json`.
pub fn is_trusted(config: Option<&Path>, home: Option<&Path>, project: &Path) -> bool {
    let files =
        [config.map(|folder| folder.join(".claude.json")), home.map(|home| home.join(".claude.json"))];
    files.into_iter().flatten().any(|file| says_trusted(&file, project))
}

fn says_trusted(file: &Path, project: &Path) -> bool {
    let Ok(Some(text)) = layer::read_file(file) else { return false };
    let Ok(config) = serde_json::from_str::<Value>(&text) else { return false };
    config["projects"][project.to_string_lossy().as_ref()]["hasTrustDialogAccepted"] == true
}

/// Whether a value asks for nothing.
pub fn nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
