//! Path patterns in the style of gitignore.

use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Flaw;
use crate::Facts;

/// A pattern over files: `//abs/**`, `~/home`, `/from-the-working-directory`, `./the-same`, or a bare name or path.
#[derive(Clone, Debug)]
pub(crate) struct PathPattern {
    base: Base,
    /// The directories that the pattern begins with, before anything that varies.
    fixed: PathBuf,
    /// The last name in it, which may vary.
    last: String,
    exact: GlobSet,
    folded: GlobSet,
}

#[derive(Clone, Copy, Debug)]
enum Base {
    Root,
    Home,
    /// The working directory, or so many directories above it.
    WorkingDirectory {
        up: usize,
    },
}

impl PathPattern {
    pub(super) fn read(text: &str) -> Result<Self, Flaw> {
        let text = text.trim();
        if text.starts_with('!') {
            return Err(Flaw {
                at: 0,
                problem: "a negated pattern",
                hint: "write an allow rule instead of a negated deny rule",
            });
        }
        let (base, rest, anchored) = split_base(text)?;
        if rest.split('/').any(|part| part == "..") {
            return Err(Flaw {
                at: text.find("..").unwrap_or(0),
                problem: "a .. in the middle",
                hint: "write the path that it leads to",
            });
        }
        let is_directory = rest.ends_with('/');
        let parts: Vec<&str> = rest.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let rest = parts.join("/") + if is_directory { "/" } else { "" };
        let globs = globs(&rest, anchored);
        let build = |fold: bool| {
            let mut set = GlobSetBuilder::new();
            for glob in &globs {
                let glob = GlobBuilder::new(glob)
                    .literal_separator(true)
                    .backslash_escape(true)
                    .case_insensitive(fold)
                    .build();
                set.add(glob.map_err(|_| Flaw {
                    at: text.len().saturating_sub(rest.len()),
                    problem: "a pattern that cannot be read",
                    hint: "close every [ and {, or escape it with \\",
                })?);
            }
            set.build().map_err(|_| Flaw {
                at: 0,
                problem: "a pattern that is too large",
                hint: "split it into several rules",
            })
        };
        let last = rest.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_lowercase();
        Ok(Self { base, fixed: fixed(&rest, anchored), last, exact: build(false)?, folded: build(true)? })
    }

    /// Whether the pattern of a rule that allows covers an absolute path.
    pub(crate) fn allows(&self, path: &Path, facts: &Facts) -> bool {
        let base = self.base(&facts.cwd, facts.home.as_deref());
        base.and_then(|base| inside(path, &base, false)).is_some_and(|inner| self.exact.is_match(inner))
    }

    /// Whether the pattern of a rule that refuses covers an absolute path: also where the place that the rule names is a
    /// link and the path is where it leads. The case of letters does not count, which is how the file systems of macOS
    /// and Windows see it.
    pub(crate) fn refuses(&self, path: &Path, facts: &Facts) -> bool {
        let Some(base) = self.base(&facts.cwd, facts.home.as_deref()) else { return false };
        let covers = |path: &Path| inside(path, &base, true).is_some_and(|inner| self.folded.is_match(inner));
        covers(path)
            || facts.links.iter().any(|link| {
                inside(path, &link.leads_to, true).is_some_and(|inner| covers(&link.named.join(inner)))
            })
    }

    /// Whether what the shell makes of a path with `*` could be something that the pattern covers. By what stands before the
    /// first and behind the last star of a name: it may say yes where it is no.
    pub(crate) fn could_meet(&self, path: &Path, facts: &Facts) -> bool {
        let Some(begin) = self.begin(&facts.cwd, facts.home.as_deref()) else { return false };
        let names = |path: &Path| -> Vec<String> {
            path.components().map(|part| part.as_os_str().to_string_lossy().to_lowercase()).collect()
        };
        let (path, begin) = (names(path), names(&begin));
        if !path.iter().zip(&begin).all(|(one, other)| may_be_same(one, other)) {
            return false;
        }
        let rest = path.get(begin.len()..).unwrap_or_default();
        // The pattern may vary behind its beginning, the path too.
        rest.is_empty()
            || !self.last.contains(VARIES) && self.is_fixed(&begin)
            || rest.iter().any(|name| may_be_same(name, &self.last))
    }

    /// Whether nothing in the pattern varies.
    fn is_fixed(&self, begin: &[String]) -> bool {
        begin.last().is_some_and(|name| *name == self.last) && !self.fixed.as_os_str().is_empty()
    }

    /// The place below which all lies that the pattern covers.
    pub(crate) fn begin(&self, cwd: &Path, home: Option<&Path>) -> Option<PathBuf> {
        Some(self.base(cwd, home)?.join(&self.fixed))
    }

    fn base(&self, cwd: &Path, home: Option<&Path>) -> Option<PathBuf> {
        match self.base {
            Base::Root => Some(PathBuf::from("/")),
            Base::Home => home.map(Path::to_owned),
            Base::WorkingDirectory { up } => cwd.ancestors().nth(up).map(Path::to_owned),
        }
    }

    /// Whether the pattern could cover something inside this directory.
    pub(crate) fn could_cover_inside(&self, dir: &Path, facts: &Facts) -> bool {
        let Some(begin) = self.begin(&facts.cwd, facts.home.as_deref()) else { return false };
        let meets = |begin: &Path| inside(begin, dir, true).is_some() || inside(dir, begin, true).is_some();
        meets(&begin) || facts.links.iter().any(|link| link.named == begin && meets(&link.leads_to))
    }
}

/// Letters by which a name varies, for the shell or in a pattern.
const VARIES: [char; 5] = ['*', '?', '[', '{', '\\'];

/// Whether two names that may vary can be the same.
fn may_be_same(one: &str, other: &str) -> bool {
    let ends = |name: &str| -> (String, Option<String>) {
        match (name.find(VARIES), name.rfind([']', '}', '*', '?', '\\'])) {
            (Some(first), last) => {
                let behind = last.map_or("", |last| name.get(last + 1..).unwrap_or_default());
                (name[..first].to_owned(), Some(behind.to_owned()))
            }
            (None, _) => (name.to_owned(), None),
        }
    };
    // A star of the shell does not stand for a dot at the beginning.
    let hides = |one: &str, other: &str| one.starts_with(['*', '?']) && other.starts_with('.');
    let ((begin, end), (other_begin, other_end)) = (ends(one), ends(other));
    let begins = begin.starts_with(&other_begin) || other_begin.starts_with(&begin);
    let is_end = |one: &str, other: &str| one.ends_with(other) || other.ends_with(one);
    !hides(one, other)
        && match (end, other_end) {
            (None, None) => one == other,
            (Some(end), None) => other.starts_with(&begin) && other.ends_with(&end),
            (None, Some(end)) => one.starts_with(&other_begin) && one.ends_with(&end),
            (Some(end), Some(other_end)) => begins && is_end(&end, &other_end),
        }
}

fn fixed(pattern: &str, anchored: bool) -> PathBuf {
    if !anchored && !pattern.trim_end_matches('/').contains('/') {
        return PathBuf::new();
    }
    pattern.split('/').take_while(|part| !part.contains(['*', '?', '[', '{', '\\'])).collect()
}

/// The patterns that one rule stands for: a directory covers what is in it, and what covers a directory's inside covers
/// the directory; a name without a slash counts at any depth.
fn globs(pattern: &str, anchored: bool) -> Vec<String> {
    let stem = pattern.trim_end_matches('/');
    let stem = stem.strip_suffix("/**").unwrap_or(stem);
    if stem.is_empty() || stem == "**" {
        return vec!["**".to_owned(), String::new()];
    }
    let mut globs = vec![stem.to_owned(), format!("{stem}/**")];
    if !anchored && !stem.contains('/') {
        globs.extend([format!("**/{stem}"), format!("**/{stem}/**")]);
    }
    globs
}

fn split_base(text: &str) -> Result<(Base, &str, bool), Flaw> {
    if let Some(rest) = text.strip_prefix("//") {
        return Ok((Base::Root, rest, true));
    }
    if let Some(rest) = text.strip_prefix('~') {
        return match rest.strip_prefix('/') {
            Some(rest) => Ok((Base::Home, rest, true)),
            None if rest.is_empty() => Ok((Base::Home, rest, true)),
            None => Err(Flaw { at: 1, problem: "another user's home", hint: "write it as //home/name/…" }),
        };
    }
    let mut rest = text;
    let mut up = 0;
    let mut anchored = false;
    loop {
        (rest, up) = match (rest.strip_prefix("./"), rest.strip_prefix("../")) {
            (Some(rest), _) => (rest, up),
            (None, Some(rest)) => (rest, up + 1),
            (None, None) if rest == "." => ("", up),
            (None, None) if rest == ".." => ("", up + 1),
            (None, None) => break,
        };
        anchored = true;
    }
    anchored |= rest.starts_with('/');
    Ok((Base::WorkingDirectory { up }, rest, anchored))
}

/// The path below the directory, if it is the directory or in it.
pub(crate) fn inside(path: &Path, dir: &Path, fold: bool) -> Option<PathBuf> {
    if !fold {
        return path.strip_prefix(dir).ok().map(Path::to_owned);
    }
    let mut parts = path.components();
    for part in dir.components() {
        if !same(part, parts.next()?) {
            return None;
        }
    }
    Some(parts.as_path().to_owned())
}

fn same(one: Component<'_>, other: Component<'_>) -> bool {
    one == other
        || one.as_os_str().to_string_lossy().to_lowercase()
            == other.as_os_str().to_string_lossy().to_lowercase()
}

/// The path without `.` and `..`, taken literally: no file system is asked.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => (),
            Component::ParentDir => {
                out.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => out.push(part),
        }
    }
    out
}
