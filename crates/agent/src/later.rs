//! What comes to a session from beside while it runs. It is taken up between model calls, so that what the model was told
//! before stays as it was, byte for byte.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wardian_protocol::Role;

use crate::command::CustomCommand;
use crate::hook::{HookEvent, Hooks, SessionHooks};
use crate::memory::MemoryFile;
use crate::plugin::{PluginError, PluginInfo};
use crate::session::Session;
use crate::skill::Skill;
use crate::{Error, prompt, words};

/// The most texts that wait for the next model call.
const MAX_TEXTS: usize = 64;
/// The most directories that may be added: each is a rule to check paths by.
const MAX_DIRECTORIES: usize = 1_000;

/// One more directory to work in.
#[derive(Clone, Debug)]
pub struct NewDirectory {
    /// Where it lies, absolute.
    pub path: PathBuf,
    /// How it came, for hooks: `register_repo_root`.
    pub source: String,
    /// Its instructions, told to the model with the next request.
    pub memory: Vec<MemoryFile>,
}

/// The parts of a query that come from files, read anew.
#[derive(Clone, Debug, Default)]
pub struct Reread {
    /// All commands.
    pub commands: Vec<CustomCommand>,
    /// All skills.
    pub skills: Vec<Skill>,
    /// All hooks, the caller's own too.
    pub hooks: Hooks,
    /// The plugins that they are from.
    pub plugins: Vec<PluginInfo>,
    /// The plugins that are not there, or lack a part.
    pub plugin_errors: Vec<PluginError>,
}

/// What waits to be taken up. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Later(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    directories: Vec<PathBuf>,
    reread: Option<Reread>,
    told: Told,
}

/// What the model is to be told.
#[derive(Debug, Default)]
struct Told {
    directories: Vec<PathBuf>,
    memory: Vec<MemoryFile>,
    texts: Vec<String>,
}

impl Later {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds texts for the model; those beyond the most are dropped.
    pub(crate) fn tell(&self, texts: impl IntoIterator<Item = String>) {
        let texts_waiting = &mut self.waiting().told.texts;
        let room = MAX_TEXTS.saturating_sub(texts_waiting.len());
        texts_waiting.extend(texts.into_iter().take(room));
    }

    /// The commands and plugins are these from the next turn on.
    pub(crate) fn reread(&self, reread: Reread) {
        self.waiting().reread = Some(reread);
    }

    /// Adds a directory. `known`: how many there are.
    pub(crate) fn add_directory(&self, directory: &NewDirectory, known: usize) -> Result<(), Error> {
        if known >= MAX_DIRECTORIES {
            let message = format!("there are {MAX_DIRECTORIES} directories already");
            return Err(Error::Directory { path: directory.path.clone(), message });
        }
        let mut waiting = self.waiting();
        waiting.directories.push(directory.path.clone());
        waiting.told.directories.push(directory.path.clone());
        waiting.told.memory.extend(directory.memory.iter().cloned());
        Ok(())
    }
}

impl Session {
    /// Makes what changed beside the conversation hold.
    pub(crate) fn take_changes(&mut self) {
        if self.setup.out.agent.is_some() {
            return;
        }
        let (directories, reread) = {
            let mut waiting = self.setup.later.waiting();
            (std::mem::take(&mut waiting.directories), waiting.reread.take())
        };
        if !directories.is_empty() {
            Arc::make_mut(&mut self.setup).additional_directories.extend(directories);
        }
        if let Some(Reread { commands, plugins, plugin_errors, .. }) = reread {
            let setup = Arc::make_mut(&mut self.setup);
            setup.commands = commands.into();
            setup.plugins = plugins;
            setup.plugin_errors = plugin_errors;
        }
    }

    /// Tells the model what has come meanwhile. A reply that is to be taken up again is not cut in two by it.
    pub(crate) async fn hear_later(&mut self) {
        let is_next = self.history.last().is_some_and(|last| last.role == Role::User);
        if !is_next || self.setup.out.agent.is_some() {
            return;
        }
        let Told { directories, memory, mut texts } = std::mem::take(&mut self.setup.later.waiting().told);
        if !directories.is_empty() {
            let listed: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
            texts.push(prompt::reminder(&words::directories_added(&listed)));
        }
        if !memory.is_empty() {
            for file in &memory {
                self.show_instructions(file, "nested_traversal").await;
            }
            texts.push(prompt::instructions(&memory));
            // Who begins a new conversation, or a shorter one, is told again.
            Arc::make_mut(&mut self.setup).opening.add(memory);
        }
        self.be_told(texts).await;
    }
}

/// What hooks are told of a directory.
pub(crate) async fn show_directory(hooks: &SessionHooks, directory: &NewDirectory) {
    let fields = serde_json::json!({"directory": directory.path, "source": directory.source});
    hooks.run(HookEvent::DirectoryAdded, &directory.source, fields).await;
}
