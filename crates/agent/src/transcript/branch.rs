//! The branch that a working directory is on, read from its files: starting `git` would take longer than all else.

use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest `HEAD`, or file that leads to it.
const MAX_BYTES: u64 = 4096;
/// What is said where there is none.
const NONE: &str = "HEAD";

/// Reads it. Blocks.
pub(crate) fn branch(cwd: &Path) -> String {
    let heads = cwd.ancestors().filter_map(|folder| head(&folder.join(".git")));
    let found = heads.into_iter().next().unwrap_or_default();
    found.strip_prefix("ref: refs/heads/").unwrap_or(NONE).to_owned()
}

fn head(git: &Path) -> Option<String> {
    let kind = std::fs::metadata(git).ok()?;
    let folder = if kind.is_dir() {
        git.to_owned()
    } else {
        // A worktree's is a file that says where it is.
        let text = text(git)?;
        git.parent()?.join(PathBuf::from(text.strip_prefix("gitdir: ")?))
    };
    text(&folder.join("HEAD"))
}

fn text(path: &Path) -> Option<String> {
    // A pipe in its place must not be waited for.
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_read_from_the_files_of_git() {
        let place = tempfile::tempdir().unwrap();
        let at = |path: &str| place.path().join(path);
        std::fs::create_dir_all(at("repo/.git/worktrees/w")).unwrap();
        std::fs::create_dir_all(at("repo/deep/er")).unwrap();
        std::fs::create_dir_all(at("tree")).unwrap();
        assert_eq!(branch(&at("repo")), "HEAD");
        std::fs::write(at("repo/.git/HEAD"), "ref: refs/heads/feature/x\n").unwrap();
        std::fs::write(at("repo/.git/worktrees/w/HEAD"), "ref: refs/heads/w\n").unwrap();
        std::fs::write(at("tree/.git"), format!("gitdir: {}\n", at("repo/.git/worktrees/w").display()))
            .unwrap();
        assert_eq!(branch(&at("repo/deep/er")), "feature/x");
        assert_eq!(branch(&at("tree")), "w");
        std::fs::write(at("repo/.git/HEAD"), "0123456789abcdef\n").unwrap();
        assert_eq!(branch(&at("repo")), "HEAD");
    }
}
