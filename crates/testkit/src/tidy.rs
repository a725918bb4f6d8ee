//! The rules of the repository that no compiler checks.

mod code;
mod manifest;
mod source;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use self::source::Source;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", "node_modules"];

/// The files that rules look at, by what their name ends in.
const READ: &[&str] = &[".rs", ".md", ".toml", ".sql"];

/// The repository's text files, by their path from its root with `/` between.
#[derive(Debug, Default)]
pub struct Repository {
    files: BTreeMap<String, String>,
    /// The Rust files taken apart, once for all rules.
    sources: OnceLock<BTreeMap<String, Source>>,
}

impl Repository {
    /// Reads what rules look at, below the root. Hidden folders and those that tools fill are left out.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut repository = Self::default();
        repository.read_folder(root, "")?;
        Ok(repository)
    }

    /// Makes one of paths and texts.
    #[must_use]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { files, sources: OnceLock::new() }
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                self.read_folder(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() && READ.iter().any(|end| name.ends_with(end)) {
                self.files.insert(path, std::fs::read_to_string(entry.path())?);
            }
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Files whose name ends so, as (path, text).
    fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        let end = end.to_owned();
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| path.ends_with(&end))
    }

    /// Rust files, as (path, text, source).
    fn sources(&self) -> impl Iterator<Item = (&str, &str, &Source)> {
        let sources = self.sources.get_or_init(|| {
            self.ending(".rs").map(|(path, text)| (path.to_owned(), Source::new(text))).collect()
        });
        sources.iter().map(|(path, source)| (path.as_str(), self.files[path].as_str(), source))
    }

    /// The folders below `crates/` that have a manifest.
    fn crates(&self) -> impl Iterator<Item = &str> {
        self.files.keys().filter_map(|path| {
            let folder = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
            (!folder.contains('/')).then_some(folder)
        })
    }
}

/// Where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The rule's name.
    pub rule: &'static str,
    /// The file, from the repository's root.
    pub path: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there, and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {} ({})", self.path, self.line, self.what, self.rule)
    }
}

/// A rule: its name, and the function that looks for what breaks it.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// One word.
    pub name: &'static str,
    /// Finds what breaks the rule.
    pub check: fn(&Repository) -> Vec<Problem>,
}

/// Every rule.
pub const RULES: &[Rule] = &[
    Rule { name: "direction", check: manifest::direction },
    Rule { name: "only-in", check: manifest::only_in },
    Rule { name: "lints", check: manifest::lints },
    Rule { name: "packages", check: manifest::packages },
    Rule { name: "readme", check: text::readme },
    Rule { name: "required", check: text::required },
    Rule { name: "changelog", check: text::changelog },
    Rule { name: "whitespace", check: text::whitespace },
    Rule { name: "mod-rs", check: text::mod_rs },
    Rule { name: "length", check: code::length },
    Rule { name: "forgotten-test", check: code::forgotten_test },
    Rule { name: "leftovers", check: code::leftovers },
    Rule { name: "attributes", check: code::attributes },
    Rule { name: "unsafe", check: code::unsafe_outside },
    Rule { name: "sql", check: code::sql_outside },
    Rule { name: "pure", check: code::pure },
];

/// Everything that is wrong with the repository.
#[must_use]
pub fn check(repository: &Repository) -> Vec<Problem> {
    RULES.iter().flat_map(|rule| (rule.check)(repository)).collect()
}

fn problem(rule: &'static str, path: &str, line: usize, what: impl Into<String>) -> Problem {
    Problem { rule, path: path.to_owned(), line, what: what.into() }
}
