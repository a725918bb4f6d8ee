//! Mounts that show the files of one user on the host as the sandbox's own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Signal, WaitIdOptions, pidfd_send_signal, waitid};

use crate::spec::Missing;
use crate::sys::{self, Cloned, MountAttributes};

/// More owners than one host's sandboxes have at a time.
const MAX_CACHED: usize = 64;

/// The user namespaces that say which id becomes which: the kernel takes id maps in this form only.
#[derive(Default)]
pub(super) struct Cache {
    maps: Vec<(Map, OwnedFd)>,
}

/// Files of `uid` and `gid` on the host are `inside`'s in the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) inside: u32,
}

impl Cache {
    pub(super) fn get(&mut self, map: Map) -> io::Result<&OwnedFd> {
        if let Some(found) = self.maps.iter().position(|(known, _)| *known == map) {
            return Ok(&self.maps[found].1);
        }
        if self.maps.len() >= MAX_CACHED {
            self.maps.remove(0);
        }
        self.maps.push((map, user_namespace(map)?));
        Ok(&self.maps.last().expect("one has just been pushed").1)
    }

    /// Tries it on the file system of the state folder.
    pub(super) fn works(&mut self, folder: &Path, missing: &mut Vec<Missing>) -> bool {
        let result = self.get(Map { uid: 0, gid: 0, inside: 1 }).and_then(|map| {
            let tree =
                open_tree(CWD, folder, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
            sys::mount_setattr(
                tree.as_fd(),
                MountAttributes { id_map: Some(map.as_fd()), ..MountAttributes::default() },
            )
        });
        if let Err(error) = &result {
            missing.push(Missing {
                what: format!("id-mapped mounts on the file system of {}: {error}", folder.display()),
                mend: "use ext4, xfs or btrfs there, and Linux 5.12 or later".to_owned(),
            });
        }
        result.is_ok()
    }
}

fn user_namespace(map: Map) -> io::Result<OwnedFd> {
    match sys::clone3(libc::CLONE_NEWUSER as u64, None)? {
        // It only holds the namespace until the parent has it.
        Cloned::Child => loop {
            super::pause(std::time::Duration::from_secs(60));
        },
        Cloned::Parent { pid, pidfd } => {
            let result = (|| {
                let process = format!("/proc/{}", pid.as_raw_nonzero());
                fs::write(format!("{process}/uid_map"), format!("{} {} 1", map.uid, map.inside))?;
                fs::write(format!("{process}/gid_map"), format!("{} {} 1", map.gid, map.inside))?;
                Ok(OwnedFd::from(fs::File::open(format!("{process}/ns/user"))?))
            })();
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            result
        }
    }
}
