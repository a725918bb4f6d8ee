//! The way back: files are put back by name in the very folder that they lay in, through no link.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use similar::DiffTag;

use super::{Backup, Content, RewindError, Rewound, look, read_copy, resolved};
use crate::random;
use crate::tools::patch;

/// How long may be counted what changes in a file.
const DIFF_TIMEOUT: Duration = Duration::from_millis(500);

/// Puts files back, or says what that would change.
pub(super) fn restore(
    copies: &Path,
    wanted: &BTreeMap<&PathBuf, &Backup>,
    dry_run: bool,
) -> Result<Rewound, RewindError> {
    let mut rewound = Rewound::default();
    let mut failures: Vec<String> = Vec::new();
    let mut failed = |path: &Path, error: io::Error| failures.push(format!("{}: {error}", path.display()));
    for (path, backup) in wanted {
        let target = match &backup.content {
            Content::Missing => None,
            Content::Copy { name, mode } => match read_copy(&copies.join(name)) {
                Ok(bytes) => Some((bytes, *mode)),
                Err(error) => {
                    failed(path, error);
                    continue;
                }
            },
            Content::Unknown => {
                rewound.skipped_links += 1;
                continue;
            }
        };
        // A folder that has become a link leads elsewhere now.
        let is_elsewhere = path.parent().map(resolved).as_deref() != Some(&backup.folder);
        let current = match look(path) {
            Ok(current) if !is_elsewhere => current,
            Ok(_) | Err(_) => {
                rewound.skipped_links += 1;
                continue;
            }
        };
        if current == target {
            continue;
        }
        count(
            &mut rewound,
            current.as_ref().map(|(bytes, _)| bytes),
            target.as_ref().map(|(bytes, _)| bytes),
        );
        rewound.files_changed.push((*path).clone());
        if !dry_run && let Err(error) = put(&backup.folder, path, target.as_ref()) {
            failed(path, error);
        }
    }
    // Who believes that files are as they were must not be wrong about one of them.
    match failures.first() {
        Some(first) => Err(RewindError::Failed(format!("{} of {}: {first}", failures.len(), wanted.len()))),
        None => Ok(rewound),
    }
}

fn count(rewound: &mut Rewound, from: Option<&Vec<u8>>, to: Option<&Vec<u8>>) {
    let text =
        |bytes: Option<&Vec<u8>>| String::from_utf8_lossy(bytes.map_or(&[], Vec::as_slice)).into_owned();
    let (from, to) = (text(from), text(to));
    for op in patch::difference(&patch::lines(&from), &patch::lines(&to), DIFF_TIMEOUT) {
        let (tag, old, new) = op.as_tag_tuple();
        if tag != DiffTag::Equal {
            rewound.deletions += old.len();
            rewound.insertions += new.len();
        }
    }
}

fn put(folder: &Path, path: &Path, target: Option<&(Vec<u8>, u32)>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no name"))?;
    let Some((bytes, mode)) = target else {
        return match unlinkat(&open_folder(folder)?, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        };
    };
    std::fs::create_dir_all(folder)?;
    let folder = open_folder(folder)?;
    let temporary = format!(".wardian-{}", random::uuid());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(openat(&folder, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file.write_all(bytes).and_then(|()| {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
        Ok(renameat(&folder, &temporary, &folder, name)?)
    });
    if written.is_err() {
        let _ = unlinkat(&folder, &temporary, AtFlags::empty());
    }
    written
}

/// Opens a resolved folder; a link anywhere in its path has come since.
fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // gVisor and old kernels have no openat2.
        Err(Errno::NOSYS) => Ok(rustix::fs::open(path, flags, Mode::empty())?),
        other => Ok(other?),
    }
}
