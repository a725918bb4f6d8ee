//! Walking a folder for Glob and Grep.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use ignore::WalkBuilder;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::tool::ToolContext;

/// How long a search may take; what was found until then is given.
const SEARCH_TIME: Duration = Duration::from_secs(20);

/// What version control keeps for itself.
const VERSION_CONTROL: [&str; 4] = [".git", ".hg", ".jj", ".svn"];

/// The largest ignore file that is read, in bytes.
const IGNORE_FILE_BYTES: u64 = 1024 * 1024;

/// Tells a search when to end.
#[derive(Debug)]
pub struct Watch<'a> {
    stop: &'a CancellationToken,
    deadline: Instant,
}

impl<'a> Watch<'a> {
    pub fn new(stop: &'a CancellationToken) -> Self {
        Self { stop, deadline: Instant::now() + SEARCH_TIME }
    }

    pub fn is_over(&self) -> bool {
        self.stop.is_cancelled() || Instant::now() >= self.deadline
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }
}

/// Returns where to search: a path from the model, or the working directory.
pub fn root(given: Option<&str>, context: &ToolContext) -> Result<PathBuf, Failure> {
    let Some(given) = given else { return Ok(context.cwd.clone()) };
    let path = super::file::absolute(given, context)?;
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(Failure::new(format!(
            "failed to search {given}: {error}. The working directory is {}.",
            context.cwd.display()
        ))),
    }
}

/// A walk through all files: hidden ones too, links not followed, without what version control keeps for itself.
pub fn everything(root: &Path) -> WalkBuilder {
    let mut builder = WalkBuilder::new(root);
    builder.standard_filters(false).follow_links(false);
    builder.filter_entry(|entry| !is_version_control(entry));
    builder
}

/// The same, without what `.gitignore` and `.ignore` files name. The user's global ignore file is not looked at: this
/// is a library, which knows no home.
///
/// An ignore file that is a pipe or a device would hang whoever opens it: a folder with one is left out.
pub fn not_ignored(root: &Path) -> WalkBuilder {
    let mut builder = WalkBuilder::new(root);
    let is_safe = root.ancestors().all(has_sound_ignore_files);
    builder.standard_filters(false).follow_links(false).ignore(is_safe).git_ignore(is_safe).parents(is_safe);
    builder.filter_entry(|entry| {
        let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
        !is_version_control(entry) && (!is_folder || has_sound_ignore_files(entry.path()))
    });
    builder
}

fn is_version_control(entry: &ignore::DirEntry) -> bool {
    entry.depth() > 0 && VERSION_CONTROL.iter().any(|name| entry.file_name() == *name)
}

fn has_sound_ignore_files(folder: &Path) -> bool {
    [".gitignore", ".ignore"].iter().all(|name| match std::fs::metadata(folder.join(name)) {
        Ok(found) => found.is_dir() || (found.is_file() && found.len() <= IGNORE_FILE_BYTES),
        Err(_) => true,
    })
}

/// Keeps the newest of many files, without keeping all.
#[derive(Debug)]
pub struct Newest {
    keep: usize,
    files: Vec<(SystemTime, PathBuf)>,
    total: usize,
}

impl Newest {
    pub fn new(keep: usize) -> Self {
        Self { keep, files: Vec::new(), total: 0 }
    }

    pub fn push(&mut self, modified: SystemTime, path: PathBuf) {
        self.total += 1;
        self.files.push((modified, path));
        if self.files.len() >= self.keep.saturating_mul(2).saturating_add(1_024) {
            self.cut();
        }
    }

    /// How many there were.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The newest first; of the same age by name.
    pub fn into_files(mut self) -> Vec<PathBuf> {
        self.cut();
        self.files.into_iter().map(|(_, path)| path).collect()
    }

    fn cut(&mut self) {
        self.files.sort_unstable_by(|(left, left_path), (right, right_path)| {
            right.cmp(left).then_with(|| left_path.cmp(right_path))
        });
        self.files.truncate(self.keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let mut newest = Newest::new(3);
        for age in (0..5_000_u64).map(|n| n * 7_919 % 5_000) {
            newest.push(SystemTime::UNIX_EPOCH + Duration::from_secs(age), PathBuf::from(age.to_string()));
        }
        assert_eq!(newest.total(), 5_000);
        assert_eq!(newest.into_files(), ["4999", "4998", "4997"].map(PathBuf::from));
    }
}
