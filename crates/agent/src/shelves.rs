//! Where the texts lie that a session is given: the user's, the project's, those of folders that the host adds.

use std::path::{Path, PathBuf};

use wardian_agent::command::{self, CustomCommand};
use wardian_agent::memory::{self, MemoryFile, MemorySources};
use wardian_agent::{Shelf, Skill, skill};

/// The folders of the sources that are on.
#[derive(Clone, Debug, Default)]
pub struct Shelves {
    /// The user's folder of settings.
    user: Option<PathBuf>,
    /// The project, and folders in it that count as one.
    projects: Vec<PathBuf>,
    /// Whether the user trusts the project.
    trusted: bool,
    instructions: MemorySources,
}

impl Shelves {
    pub fn new(
        user: Option<&Path>,
        project: Option<&Path>,
        trusted: bool,
        instructions: MemorySources,
    ) -> Self {
        Self {
            user: user.map(Path::to_owned),
            projects: project.map(Path::to_owned).into_iter().collect(),
            trusted,
            instructions,
        }
    }

    /// Whether the user trusts the project.
    pub const fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// One more folder whose skills count as the project's, where the project's do.
    pub fn add_project(&mut self, folder: &Path) {
        if !self.projects.is_empty() {
            self.projects.push(folder.to_owned());
        }
    }

    /// The instructions of a folder that is added. Blocks.
    pub fn instructions(&self, folder: &Path) -> Vec<MemoryFile> {
        memory::of_folder(&self.instructions, folder)
    }

    /// The skills as they are on the disk now. What those of a project allow counts where the user trusts it. Blocks.
    pub fn skills(&self) -> Vec<Skill> {
        let mut found: Vec<Skill> = self.of_user("skills").iter().flat_map(skill::discover).collect();
        for shelf in self.of_projects("skills") {
            let bounded = |skill: Skill| Skill {
                allowed_tools: if self.trusted { skill.allowed_tools } else { Vec::new() },
                ..skill
            };
            found.extend(skill::discover(&shelf).into_iter().map(bounded));
        }
        found
    }

    /// The commands as they are on the disk now: of one name, the project's goes before the user's. Blocks.
    pub fn commands(&self) -> Vec<CustomCommand> {
        let bounded = |command: CustomCommand| CustomCommand {
            allowed_tools: if self.trusted { command.allowed_tools } else { Vec::new() },
            ..command
        };
        let mut commands: Vec<CustomCommand> = Vec::new();
        let of_projects =
            self.of_projects("commands").flat_map(|shelf| command::discover(&shelf)).map(bounded);
        let of_user = self.of_user("commands").into_iter().flat_map(|shelf| command::discover(&shelf));
        for command in of_projects.chain(of_user) {
            if commands.iter().all(|known| known.name != command.name) {
                commands.push(command);
            }
        }
        commands
    }

    /// The folder of the user's texts of a kind.
    pub fn of_user(&self, kind: &str) -> Option<Shelf> {
        self.user.as_ref().map(|folder| Shelf::new(folder.join(kind), "user"))
    }

    /// The project's folders of a kind. A link in a project that nobody trusts is not followed out of it: it would have
    /// the user's files told to the model.
    pub fn of_projects(&self, kind: &str) -> impl Iterator<Item = Shelf> {
        self.projects.iter().map(move |project| {
            let shelf = Shelf::new(project.join(".claude").join(kind), "project");
            if self.trusted { shelf } else { shelf.within(project) }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_a_strange_project_do_not_lead_out_of_it() {
        let place = tempfile::tempdir().unwrap();
        let (project, secret) = (place.path().join("project"), place.path().join("secret"));
        for folder in ["commands", "skills/mine", "skills/stolen", "agents", "real"] {
            std::fs::create_dir_all(project.join(".claude").join(folder)).unwrap();
        }
        std::fs::create_dir_all(&secret).unwrap();
        let text = "---\nname: key\ndescription: d\n---\nsecret";
        for name in ["SKILL.md", "key.md"] {
            std::fs::write(secret.join(name), text).unwrap();
        }
        std::fs::write(project.join(".claude/real/inside.md"), text).unwrap();
        std::fs::write(project.join(".claude/skills/mine/SKILL.md"), text).unwrap();
        for (target, link) in [
            (secret.join("SKILL.md"), "skills/stolen/SKILL.md"),
            (secret.clone(), "skills/whole"),
            (secret.join("key.md"), "commands/key.md"),
            (PathBuf::from("../real/inside.md"), "commands/inside.md"),
            (PathBuf::from("../../../secret/key.md"), "commands/up.md"),
            (secret.join("key.md"), "agents/key.md"),
        ] {
            symlink(target, project.join(".claude").join(link)).unwrap();
        }
        let names = |trusted: bool| {
            let shelves = Shelves::new(None, Some(&project), trusted, MemorySources::default());
            let skills: Vec<String> = shelves.skills().into_iter().map(|skill| skill.name).collect();
            let commands: Vec<String> = shelves.commands().into_iter().map(|command| command.name).collect();
            let mut agents = crate::agents::Agents::default();
            agents.read_files(&shelves);
            (skills.join(" "), commands.join(" "), agents.names().join(" "))
        };
        assert_eq!(names(false), ("mine".into(), "inside".into(), String::new()));
        assert_eq!(names(true), ("mine stolen whole".into(), "inside key up".into(), "key".into()));
        // A whole folder that is a link.
        std::fs::remove_dir_all(project.join(".claude")).unwrap();
        std::fs::create_dir_all(secret.join("commands")).unwrap();
        std::fs::write(secret.join("commands/key.md"), text).unwrap();
        symlink(&secret, project.join(".claude")).unwrap();
        assert_eq!(names(false), (String::new(), String::new(), String::new()));
    }
}
