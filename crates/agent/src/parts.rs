//! What of a session comes from files, and can be read anew while it runs.

use wardian_agent::{Hooks, Reread, Skill};

use crate::plugins::Plugins;
use crate::shelves::Shelves;

/// Where the parts come from.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    pub shelves: Shelves,
    /// The folders that the host named, and what was in them.
    pub plugins: Plugins,
    /// The hooks that settings had at the beginning.
    pub settings_hooks: Hooks,
    /// Those that settings have since; what is in both runs once.
    pub later_hooks: Hooks,
    /// The host's.
    pub host_hooks: Hooks,
    /// Whether an administrator, or the user, lets no hooks of plugins run.
    pub plugin_hooks_off: bool,
}

impl Parts {
    /// All of it as it is on the disk now; plugins as they were read. Blocks.
    pub fn reread(&self) -> Reread {
        Reread {
            commands: self.shelves.commands().into_iter().chain(self.plugins.commands()).collect(),
            skills: self.skills(),
            hooks: self.hooks(),
            plugins: self.plugins.infos(),
            plugin_errors: self.plugins.errors.clone(),
        }
    }

    /// All skills as they are on the disk now; those of plugins as they were read. Blocks.
    pub fn skills(&self) -> Vec<Skill> {
        self.shelves.skills().into_iter().chain(self.plugins.skills()).collect()
    }

    /// All hooks: those of settings first, then those of plugins, then the host's.
    pub fn hooks(&self) -> Hooks {
        let mut hooks = self.settings_hooks.clone();
        hooks.extend(self.later_hooks.clone());
        if !self.plugin_hooks_off {
            hooks.extend(self.plugins.hooks());
        }
        hooks.extend(self.host_hooks.clone());
        hooks
    }
}
