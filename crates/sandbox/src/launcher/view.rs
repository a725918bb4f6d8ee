//! The read-only part of every sandbox, put together once and cloned as a whole.
//!
//! A base is a small file system with the host's `/usr`, a generated `/etc`, a minimal `/dev`, Wardian's binaries and
//! empty folders where a sandbox's own mounts go. Sandboxes with the same mount points share one: each gets a clone
//! of the mounts, and the content cannot be written by anybody. All this is mounted in the launcher's own mount
//! namespace, so that the host sees none of it, and it goes with the launcher.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::spec::HOME;
use crate::sys::{self, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttributes};
use crate::wire::Failure;

/// Each base costs a dozen mounts that every clone copies; few servers need more than two.
const MAX_BASES: usize = 8;

/// Of the host's `/etc`, what programs need and what holds no secret: links to alternatives, certificates, toolchains.
const ETC_FOLDERS: &[&str] = &[
    "alternatives",
    "ssl/certs",
    "ca-certificates",
    "pki/tls/certs",
    "pki/ca-trust",
    "fonts",
    "perl",
    "terminfo",
];
/// Toolchains of which each version has its own folder.
const ETC_PREFIXES: &[&str] = &["java-", "python3"];
const ETC_FILES: &[&str] = &[
    "debian_version",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "locale.alias",
    "localtime",
    "mime.types",
    "os-release",
    "protocols",
    "services",
    "ssl/openssl.cnf",
    "timezone",
];
/// A file of `/etc` longer than this is not what we think it is.
const MAX_ETC_BYTES: u64 = 4 << 20;

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
/// Folders that are links into `/usr` on merged systems, and folders of their own on others.
const USR_LINKS: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Where a sandbox's own mount goes that is not below another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PointKind {
    Folder,
    File,
}

pub(super) type Points = BTreeMap<PathBuf, PointKind>;

pub(super) struct View {
    /// This launcher's own mount namespace, and one with nothing of the host in it, to be born in.
    own: OwnedFd,
    bare: OwnedFd,
    root: PathBuf,
    libexec_dir: PathBuf,
    bases: Vec<(Points, PathBuf)>,
    made: usize,
}

impl View {
    pub(super) fn prepare(state_dir: &Path, libexec_dir: &Path) -> Result<Self, Failure> {
        let root = state_dir.join("view");
        let failed =
            |error| Failure::isolation("the read-only system view", error, crate::doctor::mend_mounts());
        lay_out(&root).map_err(failed)?;
        let (own, bare) = make_bare_namespace(&root.join("bare")).map_err(failed)?;
        Ok(Self { own, bare, root, libexec_dir: libexec_dir.to_owned(), bases: Vec::new(), made: 0 })
    }

    /// Goes where there is nothing of the host, to clone there: less to copy, less to leave behind, and nothing of the
    /// host within reach of what is born.
    pub(super) fn enter_bare(&self) -> io::Result<()> {
        enter(&self.bare)
    }

    /// Comes back.
    pub(super) fn leave_bare(&self) -> io::Result<()> {
        enter(&self.own)
    }

    pub(super) fn has_agent(&self) -> bool {
        self.libexec_dir.join("wardian-agent").is_file()
    }

    /// Returns a clone of the base with these mount points.
    pub(super) fn base(&mut self, points: &Points) -> io::Result<OwnedFd> {
        let path = match self.bases.iter().find(|(known, _)| known == points) {
            Some((_, path)) => path.clone(),
            None => self.make_base(points)?,
        };
        Ok(open_tree(CWD, &path, clone_flags())?)
    }

    fn make_base(&mut self, points: &Points) -> io::Result<PathBuf> {
        if self.bases.len() >= MAX_BASES {
            let (_, oldest) = self.bases.remove(0);
            unmount(&oldest, UnmountFlags::DETACH)?;
            fs::remove_dir(&oldest)?;
        }
        let path = self.root.join(format!("base-{}", self.made));
        self.made += 1;
        fs::create_dir(&path)?;
        attach(&tmpfs("1m", "0755", None)?, &path)?;
        self.fill_base(&path, points)?;
        let base = open_tree(CWD, &path, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        let set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID;
        sys::mount_setattr(base.as_fd(), MountAttributes { set, private: true, id_map: None })?;
        self.bases.push((points.clone(), path.clone()));
        Ok(path)
    }

    fn fill_base(&self, base: &Path, points: &Points) -> io::Result<()> {
        for folder in ["usr", "etc", "dev", "proc", "tmp", "var", "run/wardian"] {
            fs::create_dir_all(base.join(folder))?;
        }
        symlink("/tmp", base.join("var/tmp"))?;
        attach(
            &clone(Path::new("/usr"), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?,
            &base.join("usr"),
        )?;
        for name in USR_LINKS {
            let host = Path::new("/").join(name);
            if let Ok(target) = fs::read_link(&host) {
                symlink(target, base.join(name))?;
            } else if host.is_dir() {
                fs::create_dir(base.join(name))?;
                attach(
                    &clone(&host, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?,
                    &base.join(name),
                )?;
            }
        }
        attach(&clone(&self.root.join("etc"), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV)?, &base.join("etc"))?;
        attach(&clone(&self.root.join("dev"), MOUNT_ATTR_RDONLY)?, &base.join("dev"))?;
        for program in ["wardian-guest", "wardian-agent"] {
            let host = self.libexec_dir.join(program);
            if host.is_file() {
                let point = base.join("run/wardian").join(program);
                File::create(&point)?;
                attach(&clone(&host, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV)?, &point)?;
            }
        }
        for (point, kind) in points {
            let point = base.join(point.strip_prefix("/").unwrap_or(point));
            match kind {
                PointKind::Folder => fs::create_dir_all(&point)?,
                PointKind::File => {
                    fs::create_dir_all(point.parent().unwrap_or(base))?;
                    File::create(&point)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self) {
        let _ = unmount(&self.root, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.root);
    }
}

fn lay_out(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    attach(&tmpfs("16m", "0755", None)?, root)?;
    let etc = root.join("etc");
    write_etc(&etc)?;
    let dev = root.join("dev");
    fs::create_dir_all(dev.join("pts"))?;
    for device in DEVICES {
        File::create(dev.join(device))?;
        attach(&clone(&Path::new("/dev").join(device), MOUNT_ATTR_NOSUID)?, &dev.join(device))?;
    }
    for (link, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        // One file system, one limit, for both.
        ("shm", "/tmp"),
    ] {
        symlink(target, dev.join(link))?;
    }
    Ok(())
}

/// Makes a mount namespace with only an empty root, a place to mount at and `/proc` (which the kernel wants to see
/// before it allows another). Returns this process's own and that one.
fn make_bare_namespace(point: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let current = || Ok::<_, io::Error>(OwnedFd::from(File::open("/proc/thread-self/ns/mnt")?));
    let own = current()?;
    fs::create_dir(point)?;
    sys::unshare(libc::CLONE_NEWNS)?;
    let made = (|| {
        let root = tmpfs("64k", "0755", None)?;
        attach(&root, point)?;
        rustix::process::fchdir(&root)?;
        fs::create_dir("usr")?;
        fs::create_dir("proc")?;
        let proc = open_tree(CWD, "/proc", clone_flags())?;
        sys::mount_setattr(proc.as_fd(), MountAttributes { set: 0, private: true, id_map: None })?;
        attach(&proc, Path::new("proc"))?;
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        current()
    })();
    enter(&own)?;
    Ok((own, made?))
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    let kind = Some(rustix::thread::LinkNameSpaceType::Mount);
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?)
}

fn write_etc(etc: &Path) -> io::Result<()> {
    fs::create_dir(etc)?;
    let shell = if Path::new("/usr/bin/bash").exists() { "/usr/bin/bash" } else { "/bin/sh" };
    fs::write(
        etc.join("passwd"),
        format!(
            "root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:1000:1000:agent:{HOME}:{shell}\n\
             nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        ),
    )?;
    fs::write(etc.join("group"), "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n")?;
    fs::write(
        etc.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    )?;
    fs::write(etc.join("hosts"), "127.0.0.1 localhost sandbox\n::1 localhost\n")?;
    fs::write(etc.join("hostname"), "sandbox\n")?;
    let mut folders: Vec<String> = ETC_FOLDERS.iter().map(|&name| name.to_owned()).collect();
    for entry in fs::read_dir("/etc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ETC_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            folders.push(name);
        }
    }
    for folder in folders {
        let (host, point) = (Path::new("/etc").join(&folder), etc.join(&folder));
        if host.is_dir() {
            fs::create_dir_all(&point)?;
            attach(&clone(&host, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?, &point)?;
        }
    }
    for file in ETC_FILES {
        let host = Path::new("/etc").join(file);
        // Only what everybody on the host may read; links are followed (localtime, os-release).
        let readable = fs::metadata(&host).is_ok_and(|meta| {
            meta.is_file() && meta.len() <= MAX_ETC_BYTES && meta.permissions().mode() & 0o004 != 0
        });
        if readable {
            let point = etc.join(file);
            fs::create_dir_all(point.parent().unwrap_or(etc))?;
            fs::write(point, fs::read(&host)?)?;
        }
    }
    Ok(())
}

pub(super) fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE
}

/// Returns a private copy of the mounts at `path`, with these attributes on all of them.
fn clone(path: &Path, set: u64) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, path, clone_flags())?;
    sys::mount_setattr(tree.as_fd(), MountAttributes { set, private: true, id_map: None })?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, point: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Returns a new file system in memory.
pub(super) fn tmpfs(size: &str, mode: &str, owner: Option<u32>) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "size", size)?;
    fsconfig_set_string(&context, "mode", mode)?;
    if let Some(owner) = owner {
        let owner = owner.to_string();
        fsconfig_set_string(&context, "uid", &owner)?;
        fsconfig_set_string(&context, "gid", &owner)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
