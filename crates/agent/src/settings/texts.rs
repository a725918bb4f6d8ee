//! Texts that lie beside the settings: instructions and commands. They come from the same sources.

use std::path::Path;

use wardian_agent::command::{self, CustomCommand};
use wardian_agent::memory::{self, MemorySources};

use super::{Effective, Place, Sources};

impl Effective {
    /// Reads them. What a command of a project's would allow unasked holds only where the user trusts the project.
    pub fn read_texts(&mut self, place: &Place<'_>, sources: Sources, home: Option<&Path>) {
        let user = place.config_dir.filter(|_| sources.user);
        let wanted = MemorySources {
            user: user.map(Path::to_owned),
            home: home.map(Path::to_owned),
            project: sources.project,
            local: sources.local,
        };
        self.memory = memory::load(&wanted, place.project);
        let of_user = user.map(|folder| command::discover(&folder.join("commands"), "user"));
        let project = place.project.join(".claude/commands");
        let of_project = sources.project.then(|| command::discover(&project, "project"));
        let bounded = |command: CustomCommand| {
            let allowed_tools = if place.trusted { command.allowed_tools } else { Vec::new() };
            CustomCommand { allowed_tools, ..command }
        };
        // Of one name, the project's goes before the user's.
        self.commands = of_project.into_iter().flatten().map(bounded).collect();
        for command in of_user.into_iter().flatten() {
            if self.commands.iter().all(|known| known.name != command.name) {
                self.commands.push(command);
            }
        }
    }
}
