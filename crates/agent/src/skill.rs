//! Skills: folders with a `SKILL.md` that says when it helps and what to do. The model hears their names and descriptions,
//! and gets the text of one when it asks for it.
//!
//! source: the agent protocol reference, sections 1.1 and 1.6, and what the official CLI was seen to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wardian_policy::Rule;

use crate::command;
use crate::frontmatter::Document;
use crate::shelf::Shelf;
use crate::words;

/// The most skills of a session; each is named in every `system/init`.
const MAX_SKILLS: usize = 500;
/// The most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 5_000;
/// What is told of one skill, in characters. source: the official setting `skillListingMaxDescChars`.
const MAX_DESCRIPTION_CHARS: usize = 1_536;
/// What is told of all skills, in bytes: some 8,000 tokens. Beyond, names alone.
const MAX_LISTING_BYTES: usize = 32 * 1024;

/// A skill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skill {
    /// What it is called by: its folder's name.
    pub name: String,
    /// What it does and when it helps.
    pub description: String,
    /// What its arguments are, for people.
    pub argument_hint: String,
    /// Whether the model may use it by itself; else only who types `/name`.
    pub for_model: bool,
    /// Whether it is a slash command.
    pub for_user: bool,
    /// Rules for calls that go through unasked in the turn that uses it.
    pub allowed_tools: Vec<String>,
    /// The model of a turn that begins with it as a command.
    pub model: Option<String>,
    /// Its folder, with `SKILL.md` and what belongs to it.
    pub folder: PathBuf,
    /// Whose it is: `user`, `project` or `plugin`.
    pub source: String,
    /// What its file must lie in, wherever links lead. See [`Shelf::root`].
    pub root: Option<PathBuf>,
}

/// Reads the skills in a folder (`.claude/skills`): a folder each. Blocks.
#[must_use]
pub fn discover(shelf: &Shelf) -> Vec<Skill> {
    let Ok(entries) = std::fs::read_dir(&shelf.folder) else { return Vec::new() };
    let found = entries.take(MAX_ENTRIES).flatten().filter_map(|entry| read(&entry.path(), shelf));
    let mut skills: Vec<Skill> = found.take(MAX_SKILLS).collect();
    skills.sort_by(|one, other| one.name.cmp(&other.name));
    skills
}

fn read(folder: &Path, shelf: &Shelf) -> Option<Skill> {
    let name = folder.file_name()?.to_str().filter(|name| command::is_name(name))?;
    let document = Document::read(&folder.join("SKILL.md"), shelf.root.as_deref()).ok()?;
    let first_line = || document.body.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut description = document.text("description").unwrap_or_else(|| first_line().trim().to_owned());
    if let Some(when) = document.text("when_to_use").or_else(|| document.text("when-to-use")) {
        description = format!("{description} - {when}");
    }
    Some(Skill {
        name: shelf.named(name),
        description,
        argument_hint: document.text("argument-hint").unwrap_or_default(),
        for_model: document.flag("disable-model-invocation") != Some(true),
        for_user: document.flag("user-invocable") != Some(false),
        allowed_tools: document.list("allowed-tools").unwrap_or_default(),
        model: document.text("model").filter(|model| model != "inherit"),
        folder: folder.to_owned(),
        source: shelf.source.clone(),
        root: shelf.root.clone(),
    })
}

impl Skill {
    /// What the model is told when the skill is used: read anew, for it may have changed.
    pub(crate) async fn text(&self, arguments: &str) -> Result<String, String> {
        let (folder, root) = (self.folder.clone(), self.root.clone());
        let read = move || Document::read(&folder.join("SKILL.md"), root.as_deref());
        let document = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(document)) => document,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let folder = self.folder.display().to_string();
        let mut body = document.body.replace("${CLAUDE_SKILL_DIR}", &folder);
        if let Some(root) = self.root.as_ref().filter(|_| self.source == "plugin") {
            body = body.replace("${CLAUDE_PLUGIN_ROOT}", &root.display().to_string());
        }
        let body = command::with_arguments(body.trim_start_matches('\n'), arguments);
        Ok(words::skill(&folder, &body))
    }
}

/// A skill by its name; a plugin's also by what follows the plugin's name.
fn find<'a>(all: &'a BTreeMap<String, Skill>, name: &str) -> Option<&'a Skill> {
    let is_short = |skill: &&Skill| skill.name.rsplit_once(':').is_some_and(|(_, short)| short == name);
    all.get(name).or_else(|| all.values().find(is_short))
}

/// The skills of a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skills(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The first of a name has it.
    all: Mutex<Arc<BTreeMap<String, Skill>>>,
    enabled: Option<Vec<String>>,
    /// Rules that skills brought into the turn.
    granted: Mutex<Vec<Rule>>,
}

impl Skills {
    /// `enabled`: the only ones that the model has; `None`: all.
    pub(crate) fn new(skills: Vec<Skill>, enabled: Option<Vec<String>>) -> Self {
        let made = Self(Arc::new(Inner { enabled, ..Inner::default() }));
        made.replace(skills);
        made
    }

    /// These are the skills from now on.
    pub(crate) fn replace(&self, skills: Vec<Skill>) {
        let mut all = BTreeMap::new();
        for skill in skills.into_iter().take(MAX_SKILLS) {
            all.entry(skill.name.clone()).or_insert(skill);
        }
        *self.0.all.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
    }

    fn all(&self) -> Arc<BTreeMap<String, Skill>> {
        Arc::clone(&self.0.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn get(&self, name: &str) -> Option<Skill> {
        find(&self.all(), name.strip_prefix('/').unwrap_or(name)).cloned()
    }

    /// Whether the host lets the model have it. source: the types of the SDKs: a plugin's is also known by what follows
    /// the plugin's name.
    pub(crate) fn is_enabled(&self, skill: &Skill) -> bool {
        let short = skill.name.rsplit_once(':').map(|(_, short)| short);
        let is_meant = |name: &String| *name == skill.name || short == Some(name);
        self.0.enabled.as_ref().is_none_or(|names| names.iter().any(is_meant))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// The names of all, for `system/init`.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    /// The names of those that are slash commands.
    pub(crate) fn command_names(&self) -> Vec<String> {
        self.all().values().filter(|skill| skill.for_user).map(|skill| skill.name.clone()).collect()
    }

    /// The skill as a slash command.
    pub(crate) fn command(&self, name: &str) -> Option<Skill> {
        find(&self.all(), name).filter(|skill| skill.for_user).cloned()
    }

    /// Those that the model may use.
    pub(crate) fn told(&self) -> Vec<Skill> {
        self.all().values().filter(|skill| skill.for_model && self.is_enabled(skill)).cloned().collect()
    }

    /// What the model is told of those that it may use.
    pub(crate) fn listing(&self) -> Option<String> {
        let mut lines = String::new();
        for skill in self.told() {
            let description: String = skill.description.chars().take(MAX_DESCRIPTION_CHARS).collect();
            let description = description.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_full = lines.len() + description.len() > MAX_LISTING_BYTES;
            let line = if is_full {
                format!("- {}\n", skill.name)
            } else {
                format!("- {}: {description}\n", skill.name)
            };
            lines.push_str(&line);
        }
        (!lines.is_empty()).then(|| words::skills(lines.trim_end()))
    }

    /// Notes rules that hold until the turn ends.
    pub(crate) fn grant(&self, rules: Vec<Rule>) {
        self.0.granted.lock().unwrap_or_else(PoisonError::into_inner).extend(rules);
    }

    /// The rules that end with the turn.
    pub(crate) fn take_granted(&self) -> Vec<Rule> {
        std::mem::take(&mut *self.0.granted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("SKILL.md"), text).unwrap();
    }

    #[tokio::test]
    async fn skills_are_found_listed_and_read() {
        let place = tempfile::tempdir().unwrap();
        write(
            place.path(),
            "peel",
            "---\nname: other\ndescription: Peels a fruit\n---\nPeel $ARGUMENTS in ${CLAUDE_SKILL_DIR}\n",
        );
        write(place.path(), "mine", "---\ndescription: For people\ndisable-model-invocation: true\n---\nx");
        write(place.path(), "bare", "\nDoes a thing.\nMore.");
        write(
            place.path(),
            "quiet",
            "---\ndescription: Not typed\nuser-invocable: false\nallowed-tools: Bash(echo a, b), Read\n---\n",
        );
        std::fs::write(place.path().join("loose.md"), "no skill").unwrap();
        std::fs::create_dir(place.path().join("empty")).unwrap();
        let found = discover(&Shelf::new(place.path(), "project"));
        let names: Vec<&str> = found.iter().map(|skill| skill.name.as_str()).collect();
        assert_eq!(names, ["bare", "mine", "peel", "quiet"]);
        assert_eq!(found[3].allowed_tools, ["Bash(echo a, b)", "Read"]);
        let skills = Skills::new(found, None);
        let listing = skills.listing().unwrap();
        assert!(
            listing.contains("- bare: Does a thing.\n- peel: Peels a fruit\n- quiet: Not typed"),
            "{listing}"
        );
        assert_eq!(skills.command_names(), ["bare", "mine", "peel"]);
        let text = skills.get("/peel").unwrap().text("an apple").await.unwrap();
        let folder = place.path().join("peel").display().to_string();
        assert!(text.ends_with(&format!("Peel an apple in {folder}\n")), "{text}");
        std::fs::remove_file(place.path().join("peel/SKILL.md")).unwrap();
        assert!(skills.get("peel").unwrap().text("").await.is_err());
    }

    #[test]
    fn what_is_told_is_bounded_and_chosen() {
        let skill = |name: String| Skill {
            name,
            description: "d \n".repeat(9_000),
            for_model: true,
            ..Skill::default()
        };
        let many = (0..9_000).map(|number| skill(format!("s{number}"))).collect();
        let listing = Skills::new(many, None).listing().unwrap();
        assert!(listing.len() < 2 * MAX_LISTING_BYTES, "{}", listing.len());
        let two = vec![skill("a".to_owned()), skill("b".to_owned())];
        let listing = Skills::new(two.clone(), Some(vec!["b".to_owned()])).listing().unwrap();
        assert!(listing.contains("- b: d") && !listing.contains("- a"), "{listing}");
        assert_eq!(Skills::new(two, Some(Vec::new())).listing(), None);
    }

    #[test]
    fn hostile_files_are_left_out() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "huge", &"x".repeat(2 * 1024 * 1024));
        std::fs::create_dir(place.path().join("pipe")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            place.path().join("pipe/SKILL.md"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        write(place.path(), "a b", "no name");
        write(place.path(), "bomb", "---\na: &a [x]\nb: [*a, *a]\ndescription: still\n---\n");
        let found = discover(&Shelf::new(place.path(), "project"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].description, "still");
    }
}
