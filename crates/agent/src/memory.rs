//! Instructions from files, `CLAUDE.md` and what it imports: read before the first prompt, and told to the model with it.
//!
//! They are text of whoever wrote the folder. What a project's file imports must lie in the project: a path that leads
//! out of it, also by a link, is left out, so that a strange project cannot have the user's files sent to the model.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::frontmatter::Document;
use crate::tools::file;

/// The largest file that is read, in bytes: many times what helps a model.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The most that is read altogether, in bytes; it is sent with every request.
const MAX_TOTAL_BYTES: usize = 1024 * 1024;
/// The most files; each costs a look at the disk before the first prompt.
const MAX_FILES: usize = 200;
/// How deep imports may import. source: the official CLI.
const MAX_DEPTH: usize = 5;
/// The most entries of a folder of rules that are looked at.
const MAX_RULES: usize = 500;

/// Whose instructions a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// The user's, for all projects.
    User,
    /// The project's, shared by all who work on it.
    Project,
    /// The user's own, for this project.
    Local,
}

impl MemoryKind {
    /// Returns the protocol's word: `User`, `Project`, `Local`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Project => "Project",
            Self::Local => "Local",
        }
    }
}

/// A file of instructions, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFile {
    /// Where it lies, absolute.
    pub path: PathBuf,
    /// Whose it is.
    pub kind: MemoryKind,
    /// What it says.
    pub content: String,
    /// The file that imports it.
    pub parent: Option<PathBuf>,
}

/// Where instructions are looked for. Nothing is by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemorySources {
    /// The user's folder of settings (`~/.claude`), for `CLAUDE.md` and `rules/` in it.
    pub user: Option<PathBuf>,
    /// The user's home, which `@~/…` leads to.
    pub home: Option<PathBuf>,
    /// Whether `CLAUDE.md`, `.claude/CLAUDE.md` and `.claude/rules/` are read, from the root down to the working directory.
    pub project: bool,
    /// Whether `CLAUDE.local.md` is read, from the root down.
    pub local: bool,
}

/// Reads the instructions that hold in `cwd`, in the order in which they are told. What is missing, too large or no
/// plain text is left out. Blocks.
#[must_use]
pub fn load(sources: &MemorySources, cwd: &Path) -> Vec<MemoryFile> {
    let mut reader = Reader::new(sources);
    if let Some(user) = &sources.user {
        reader.file(&user.join("CLAUDE.md"), MemoryKind::User, None, 0);
        reader.rules(&user.join("rules"), MemoryKind::User);
    }
    let mut folders: Vec<&Path> = cwd.ancestors().collect();
    folders.reverse();
    for folder in folders {
        reader.folder(sources, folder);
    }
    reader.files
}

/// Reads the instructions of one folder alone, a project's. Blocks.
#[must_use]
pub fn of_folder(sources: &MemorySources, folder: &Path) -> Vec<MemoryFile> {
    let mut reader = Reader::new(sources);
    reader.folder(sources, folder);
    reader.files
}

struct Reader {
    home: Option<PathBuf>,
    /// What imports of a project's file must lie in; none: anywhere, for the user's own.
    root: Option<PathBuf>,
    /// Resolved, so that a ring of imports ends.
    seen: HashSet<PathBuf>,
    files: Vec<MemoryFile>,
    bytes: usize,
}

impl Reader {
    fn new(sources: &MemorySources) -> Self {
        Self { home: sources.home.clone(), root: None, seen: HashSet::new(), files: Vec::new(), bytes: 0 }
    }

    fn folder(&mut self, sources: &MemorySources, folder: &Path) {
        self.root = Some(std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()));
        if sources.project {
            self.file(&folder.join("CLAUDE.md"), MemoryKind::Project, None, 0);
            self.file(&folder.join(".claude/CLAUDE.md"), MemoryKind::Project, None, 0);
            self.rules(&folder.join(".claude/rules"), MemoryKind::Project);
        }
        if sources.local {
            self.file(&folder.join("CLAUDE.local.md"), MemoryKind::Local, None, 0);
        }
    }

    fn file(&mut self, path: &Path, kind: MemoryKind, parent: Option<&Path>, depth: usize) {
        let Ok(resolved) = std::fs::canonicalize(path) else { return };
        let is_outside = self.root.as_ref().is_some_and(|root| !resolved.starts_with(root));
        if is_outside || self.files.len() >= MAX_FILES || !self.seen.insert(resolved.clone()) {
            return;
        }
        let Some(content) = read(&resolved) else { return };
        if content.trim().is_empty() || self.bytes + content.len() > MAX_TOTAL_BYTES {
            return;
        }
        self.bytes += content.len();
        let imports = imports(&content);
        self.files.push(MemoryFile {
            path: path.to_owned(),
            kind,
            content,
            parent: parent.map(Path::to_owned),
        });
        if depth >= MAX_DEPTH {
            return;
        }
        for import in imports {
            if let Some(target) = self.target(&import, path) {
                self.file(&target, kind, Some(path), depth + 1);
            }
        }
    }

    fn target(&self, import: &str, from: &Path) -> Option<PathBuf> {
        if let Some(rest) = import.strip_prefix("~/") {
            return Some(self.home.as_ref()?.join(rest));
        }
        Some(plain(&from.parent()?.join(import)))
    }

    fn rules(&mut self, folder: &Path, kind: MemoryKind) {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                // Links to folders are not followed: they may go round.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(_) if entry.path().extension().is_some_and(|end| end == "md") => {
                        found.push(entry.path())
                    }
                    Ok(_) | Err(_) => (),
                }
                if found.len() + folders.len() >= MAX_RULES {
                    break;
                }
            }
        }
        found.sort();
        for path in found {
            // A rule for some paths only is not for the whole session.
            if read(&path).is_some_and(|text| !Document::parse(&text).fields.contains_key("paths")) {
                self.file(&path, kind, None, 0);
            }
        }
    }
}

/// Reads a plain file of text. A pipe in its place is not waited for.
fn read(path: &Path) -> Option<String> {
    let (mut opened, _) = file::open_regular(path).ok()?;
    let bytes = file::read_whole(&mut opened, MAX_FILE_BYTES, &CancellationToken::new()).ok()?;
    String::from_utf8(bytes).ok()
}

/// Without `.` and `..`, so that the path reads well.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => (),
            Component::ParentDir => {
                out.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => out.push(component),
        }
    }
    out
}

/// The paths that a text imports: `@path` at the beginning of a word, outside of code.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => (),
            (None, Some(mark)) => fence = Some(mark),
            (None, None) => imports_of_line(line, &mut found),
        }
    }
    found
}

fn imports_of_line(line: &str, found: &mut Vec<String>) {
    // Every other part is between backticks.
    for part in line.split('`').step_by(2) {
        for word in part.split_whitespace() {
            let Some(path) = word.strip_prefix('@') else { continue };
            let path = path.trim_end_matches([',', ';', ':', '!', '?', ')', ']', '"', '\'']);
            let path = path.strip_suffix('.').unwrap_or(path);
            let begins = |c: char| c.is_alphanumeric() || matches!(c, '.' | '/' | '~' | '_' | '-');
            if path.chars().next().is_some_and(begins) && found.len() < MAX_FILES {
                found.push(path.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[MemoryFile], cwd: &Path) -> Vec<String> {
        let name = |file: &MemoryFile| {
            let path = file.path.strip_prefix(cwd).unwrap_or(&file.path);
            format!("{} {}", file.kind.as_str(), path.display())
        };
        files.iter().map(name).collect()
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn imports_are_words_outside_of_code() {
        let text =
            "See @a.md, @./b/c.md and (@no.md)\n```\n@fenced.md\n```\n`@quoted.md` me@mail.com @~/d.md.\n@";
        assert_eq!(imports(text), ["a.md", "./b/c.md", "~/d.md"]);
    }

    #[test]
    fn files_come_in_the_order_of_the_official_cli() {
        let place = tempfile::tempdir().unwrap();
        let (cwd, user) = (place.path().join("work/project"), place.path().join("home/.claude"));
        write(&user.join("CLAUDE.md"), "user @~/more.md");
        write(&place.path().join("home/more.md"), "more");
        write(&place.path().join("work/CLAUDE.md"), "above");
        write(&cwd.join("CLAUDE.md"), "project @extra.md");
        write(&cwd.join("extra.md"), "extra @deeper.md @CLAUDE.md");
        write(&cwd.join("deeper.md"), "deeper");
        write(&cwd.join(".claude/CLAUDE.md"), "dot");
        write(&cwd.join(".claude/rules/b.md"), "rule");
        write(&cwd.join(".claude/rules/a.md"), "---\npaths: src/**\n---\nsome");
        write(&cwd.join("CLAUDE.local.md"), "local");
        let home = Some(place.path().join("home"));
        let sources = MemorySources { user: Some(user), home, project: true, local: true };
        let files = load(&sources, &cwd);
        assert_eq!(
            names(&files, place.path()),
            [
                "User home/.claude/CLAUDE.md",
                "User home/more.md",
                "Project work/CLAUDE.md",
                "Project work/project/CLAUDE.md",
                "Project work/project/extra.md",
                "Project work/project/deeper.md",
                "Project work/project/.claude/CLAUDE.md",
                "Project work/project/.claude/rules/b.md",
                "Local work/project/CLAUDE.local.md",
            ]
        );
        assert_eq!(load(&MemorySources::default(), &cwd), []);
    }

    #[test]
    fn a_project_cannot_import_what_lies_outside_of_it() {
        let place = tempfile::tempdir().unwrap();
        let cwd = place.path().join("project");
        write(&place.path().join("secret.md"), "secret");
        let text = format!(
            "@../secret.md @~/secret.md @{}/secret.md @link.md @folder @pipe.md",
            place.path().display()
        );
        write(&cwd.join("CLAUDE.md"), &text);
        std::os::unix::fs::symlink(place.path().join("secret.md"), cwd.join("link.md")).unwrap();
        std::fs::create_dir(cwd.join("folder")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            cwd.join("pipe.md"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let sources =
            MemorySources { home: Some(place.path().to_owned()), project: true, ..MemorySources::default() };
        assert_eq!(names(&load(&sources, &cwd), &cwd), ["Project CLAUDE.md"]);
        // Nor be a link to it.
        std::fs::remove_file(cwd.join("CLAUDE.md")).unwrap();
        std::os::unix::fs::symlink(place.path().join("secret.md"), cwd.join("CLAUDE.md")).unwrap();
        assert_eq!(load(&sources, &cwd), []);
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let place = tempfile::tempdir().unwrap();
        let many: String = (0..MAX_FILES + 50).map(|n| format!("@m{n}.md\n")).collect();
        write(&place.path().join("CLAUDE.md"), &format!("{many}@huge.md @chain0.md"));
        for n in 0..MAX_FILES + 50 {
            write(&place.path().join(format!("m{n}.md")), "x");
        }
        write(&place.path().join("huge.md"), &"x".repeat(300 * 1024));
        write(&place.path().join("bytes.md"), "");
        let sources = MemorySources { project: true, ..MemorySources::default() };
        assert_eq!(load(&sources, place.path()).len(), MAX_FILES);
        for n in 0..9 {
            write(&place.path().join(format!("chain{n}.md")), &format!("@chain{}.md", n + 1));
        }
        write(&place.path().join("CLAUDE.md"), "@huge.md @chain0.md");
        assert_eq!(load(&sources, place.path()).len(), 1 + MAX_DEPTH);
    }
}
