//! Texts that lie beside the settings: instructions and commands. They come from the same sources.

use std::path::Path;

use wardian_agent::memory::{self, MemorySources};

use crate::shelves::Shelves;

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
        self.shelves = Shelves::new(user, sources.project.then_some(place.project), place.trusted, wanted);
    }
}
