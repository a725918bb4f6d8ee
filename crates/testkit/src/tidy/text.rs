//! Rules on files and their text.

use super::source::Source;
use super::{Problem, Repository, problem};

/// A README of a crate fits on a screen or two; what is longer belongs into `docs/`.
const README_LINES: usize = 80;

pub(super) fn readme(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for folder in repository.crates() {
        let path = format!("crates/{folder}/README.md");
        let Some(text) = repository.get(&path) else {
            problems.push(problem("readme", &path, 1, "every crate has a README of one screen"));
            continue;
        };
        let lines = text.lines().count();
        if lines > README_LINES {
            problems.push(problem(
                "readme",
                &path,
                README_LINES + 1,
                format!("{lines} lines are not one screen"),
            ));
        }
        // The documentation of a program is its README and `--help`; that of a library is what rustdoc shows.
        let root = format!("crates/{folder}/src/lib.rs");
        if repository.get(&root).is_some_and(|text| !includes_readme(text)) {
            let what = "#![doc = include_str!(\"../README.md\")] makes the README the crate's documentation";
            problems.push(problem("readme", &root, 1, what));
        }
    }
    problems
}

fn includes_readme(root: &str) -> bool {
    let source = Source::new(root);
    let attributes = source.attributes();
    attributes.iter().any(|(line, attribute)| {
        let included = attribute.starts_with("doc") && attribute.contains("include_str!");
        included && source.strings.iter().any(|(at, text)| at == line && text == "../README.md\"")
    })
}

/// What must be there for `make test` and for people.
const REQUIRED: &[&str] =
    &["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Cargo.toml", "clippy.toml", "deny.toml"];

pub(super) fn required(repository: &Repository) -> Vec<Problem> {
    let missing = REQUIRED.iter().filter(|path| repository.get(path).is_none());
    missing.map(|path| problem("required", path, 1, "this file is missing")).collect()
}

pub(super) fn changelog(repository: &Repository) -> Vec<Problem> {
    match repository.get("CHANGELOG.md") {
        Some(text) if text.lines().any(|line| line.starts_with("- ")) => Vec::new(),
        Some(_) => vec![problem("changelog", "CHANGELOG.md", 1, "what a user notices is told here")],
        None => Vec::new(), // `required` says so
    }
}

pub(super) fn whitespace(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for end in [".rs", ".md", ".toml", ".sql"] {
        for (path, text) in repository.ending(end) {
            for (number, line) in (1..).zip(text.split('\n')) {
                let what = if line.contains('\t') {
                    "a tab"
                } else if line.ends_with([' ', '\r']) {
                    "white space at the end"
                } else {
                    continue;
                };
                problems.push(problem("whitespace", path, number, what));
            }
            if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
                problems.push(problem("whitespace", path, text.lines().count(), "one newline ends a file"));
            }
        }
    }
    problems
}

pub(super) fn mod_rs(repository: &Repository) -> Vec<Problem> {
    let found = repository.ending("/mod.rs");
    found.map(|(path, _)| problem("mod-rs", path, 1, "foo.rs beside foo/, no mod.rs")).collect()
}
