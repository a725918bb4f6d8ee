//! One sandbox made: its folders opened, its groups made, its first process started.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chownat, fstat, mkdirat};
use rustix::mount::open_tree;
use rustix::net::SocketFlags;
use rustix::process::{Signal, pidfd_send_signal};

use super::idmap::Map;
use super::view::{self, PointKind, Points};
use super::{Launcher, MAX_SANDBOXES, Sandbox};
use crate::namespace::{self, Mount, Plan};
use crate::spec::{HOME, RUN_DIR, Volume};
use crate::sys::{
    self, Cloned, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountAttributes,
};
use crate::wire::{Create, Failure, name_is_valid};

/// Parts of the view that nothing may be mounted over: the rest of the isolation rests on them.
const RESERVED: &[&str] = &[
    "/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys", "/usr",
    "/var/tmp",
];
/// More mounts than a sandbox needs; each costs time at every start.
const MAX_MOUNTS: usize = 64;

/// Puts this process into a mount namespace of its own, and without root into a user namespace too: from here on what
/// it mounts is seen by nobody else and ends with it. Returns true when it has root's rights on the host.
pub(super) fn enter_own_namespaces() -> Result<bool, Failure> {
    let uid = sys::effective_uid();
    let mend = crate::doctor::mend_user_namespaces();
    if uid == 0 && sys::unshare(libc::CLONE_NEWNS).is_ok() {
        make_slave().map_err(|error| Failure::isolation("own mount namespace", error, &mend))?;
        return Ok(true);
    }
    let gid = rustix::process::getegid().as_raw();
    let step = |what: &str| {
        let (what, mend) = (what.to_owned(), mend.clone());
        move |error: io::Error| Failure::isolation(what, error, mend)
    };
    sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(step("user namespace without root"))?;
    fs::write("/proc/self/setgroups", "deny").map_err(step("user namespace without root"))?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).map_err(step("user id map without root"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).map_err(step("group id map without root"))?;
    make_slave().map_err(step("own mount namespace"))?;
    Ok(false)
}

/// What the host mounts and unmounts later is seen here too, and nothing the other way.
fn make_slave() -> io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

impl Launcher {
    pub(super) fn create(&mut self, create: Create, control: &OwnedFd) -> Result<(), Failure> {
        if !name_is_valid(&create.name) {
            return Err(Failure::invalid("name", "1 to 64 letters, digits, - and _"));
        }
        if self.sandboxes.iter().any(|sandbox| sandbox.name == create.name) {
            return Err(Failure::Exists { name: create.name });
        }
        if self.sandboxes.len() >= MAX_SANDBOXES {
            return Err(Failure::Capacity { what: "sandboxes".to_owned(), limit: MAX_SANDBOXES as u64 });
        }
        let owner = self.owner(&create)?;
        let mounts = self.open_mounts(&create, owner)?;
        let group =
            self.groups.create(&create.name, &create.limits, Some(owner).filter(|_| self.privileged()));
        let started = group.and_then(|group| {
            let (ours, theirs) = life_pair()?;
            let plan = Plan {
                life: theirs,
                control: control.as_fd(),
                group,
                mounts,
                hostname: &create.hostname,
                limits: &create.limits,
                masked: &self.masked,
            };
            self.start(&plan, owner, ours, &create.name)
        });
        match started {
            Ok(sandbox) => {
                self.sandboxes.push(sandbox);
                Ok(())
            }
            Err(failure) => {
                self.groups.remove(&create.name);
                Err(failure)
            }
        }
    }

    fn privileged(&self) -> bool {
        self.capabilities.uid_per_tenant
    }

    /// The user id on the host that everything inside runs as.
    fn owner(&self, create: &Create) -> Result<u32, Failure> {
        match (self.privileged(), create.uid) {
            (false, _) => Ok(sys::effective_uid()),
            (true, Some(uid)) if uid != 0 => Ok(uid),
            (true, _) => {
                Err(Failure::invalid("tenant", "a launcher with root's rights needs the tenant's user id"))
            }
        }
    }

    /// Opens everything that will be mounted, outermost first.
    fn open_mounts(&mut self, create: &Create, owner: u32) -> Result<Vec<Mount>, Failure> {
        let mut wanted = wanted_mounts(create)?;
        wanted.sort_by_key(|mount| mount.inside.components().count());
        if let Some(twice) = wanted.windows(2).find(|pair| pair[0].inside == pair[1].inside) {
            return Err(Failure::invalid(
                twice[0].field,
                format!("{} is mounted twice", twice[0].inside.display()),
            ));
        }
        let mut points = Points::new();
        let mut mounts = Vec::with_capacity(wanted.len() + 3);
        // Files there are memory: /tmp and home together never fill it, or the kernel would kill for want of it.
        let size = create.limits.tmp_bytes.min(create.limits.memory_bytes / 2);
        let tmp = tmp(size, "1777", owner)?;
        for (index, mount) in wanted.iter().enumerate() {
            let (tree, kind) = self.open_one(mount, owner)?;
            if !wanted[..index].iter().any(|outer| mount.inside.starts_with(&outer.inside)) {
                match mount.inside.strip_prefix("/tmp") {
                    Ok(below) => make_point(&tmp, below, kind).map_err(|error| cannot_open(mount, error))?,
                    Err(_) => drop(points.insert(mount.inside.clone(), kind)),
                }
            }
            mounts.push(Mount { tree, target: mount.inside.clone() });
        }
        mounts.insert(0, Mount { tree: tmp, target: PathBuf::from("/tmp") });
        if create.home.is_none() && !wanted.iter().any(|mount| Path::new(HOME).starts_with(&mount.inside)) {
            // Private and forgotten; before whatever is mounted below it.
            return self.with_private_home(create, owner, wanted, points, mounts);
        }
        let base = self.base(&points)?;
        mounts.insert(0, base);
        Ok(mounts)
    }

    fn with_private_home(
        &mut self,
        create: &Create,
        owner: u32,
        wanted: Vec<Wanted>,
        mut points: Points,
        mut mounts: Vec<Mount>,
    ) -> Result<Vec<Mount>, Failure> {
        let home = tmp(create.limits.tmp_bytes.min(create.limits.memory_bytes / 4), "0700", owner)?;
        for mount in &wanted {
            if let Ok(below) = mount.inside.strip_prefix(HOME)
                && let Some(kind) = points.remove(&mount.inside)
            {
                make_point(&home, below, kind).map_err(|error| cannot_open(mount, error))?;
            }
        }
        points.insert(PathBuf::from(HOME), PointKind::Folder);
        mounts.insert(1, Mount { tree: home, target: PathBuf::from(HOME) });
        mounts.insert(0, self.base(&points)?);
        Ok(mounts)
    }

    fn base(&mut self, points: &Points) -> Result<Mount, Failure> {
        let tree = self.view.base(points).map_err(|error| {
            Failure::isolation("the read-only system view", error, crate::doctor::mend_mounts())
        })?;
        Ok(Mount { tree, target: PathBuf::from("/") })
    }

    fn open_one(&mut self, wanted: &Wanted, owner: u32) -> Result<(OwnedFd, PointKind), Failure> {
        let failed = |error: io::Error| cannot_open(wanted, error);
        let tree = open_tree(CWD, &wanted.host, view::clone_flags()).map_err(|error| failed(error.into()))?;
        let status = fstat(&tree).map_err(|error| failed(error.into()))?;
        let is_folder = rustix::fs::FileType::from_raw_mode(status.st_mode).is_dir();
        let mut attributes =
            MountAttributes { set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, private: true, id_map: None };
        match wanted.access {
            Access::ReadOnly => attributes.set |= MOUNT_ATTR_RDONLY,
            Access::Shown | Access::Writable if !is_folder => {
                return Err(Failure::invalid(wanted.field, "not a folder"));
            }
            Access::Shown => attributes.set |= MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC,
            Access::Writable if self.privileged() && status.st_uid != owner => {
                let map = Map { uid: status.st_uid, gid: status.st_gid, inside: owner };
                let namespace = self.id_maps.get(map).map_err(failed)?;
                attributes.id_map = Some(namespace.as_fd());
            }
            Access::Writable => (),
            Access::Socket => {
                attributes.set |= MOUNT_ATTR_RDONLY;
                if self.privileged() {
                    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
                    chownat(&tree, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
                        .map_err(|error| failed(error.into()))?;
                }
            }
        }
        sys::mount_setattr(tree.as_fd(), attributes).map_err(|error| match attributes.id_map {
            None => failed(error),
            Some(_) => Failure::isolation(
                format!("id-mapped mount of {}", wanted.host.display()),
                error,
                "keep the folder on ext4, xfs or btrfs, or give it to the tenant's user id",
            ),
        })?;
        Ok((tree, if is_folder { PointKind::Folder } else { PointKind::File }))
    }

    fn start(&self, plan: &Plan<'_>, owner: u32, life: OwnedFd, name: &str) -> Result<Sandbox, Failure> {
        let unified = plan.group.unified.as_ref().map(AsFd::as_fd);
        let refused =
            |error| Failure::isolation("new namespaces", error, crate::doctor::mend_user_namespaces());
        self.view.enter_bare().map_err(refused)?;
        let cloned = sys::clone3(namespace::CLONE_FLAGS, unified);
        if let Ok(Cloned::Child) = cloned {
            // Or this process would keep alive what tells it that the launcher has died.
            drop(life);
            namespace::become_guest(plan);
        }
        self.view.leave_bare().map_err(refused)?;
        let Cloned::Parent { pid, pidfd } = cloned.map_err(refused)? else {
            unreachable!("the child has become the guest")
        };
        let inside = namespace::INSIDE_ID;
        // The group id needs no other than the user id's number as root; without root it is the caller's own.
        let group = if self.privileged() { owner } else { rustix::process::getegid().as_raw() };
        let mapped =
            fs::write(format!("/proc/{}/uid_map", pid.as_raw_nonzero()), format!("{inside} {owner} 1"))
                .and_then(|()| {
                    fs::write(
                        format!("/proc/{}/gid_map", pid.as_raw_nonzero()),
                        format!("{inside} {group} 1"),
                    )
                })
                .and_then(|()| Ok(rustix::io::write(&life, b"!").map(drop)?));
        if let Err(error) = mapped {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            while !super::has_ended(&pidfd) {
                super::pause(super::RETRY);
            }
            return Err(Failure::isolation("user id map", error, crate::doctor::mend_user_namespaces()));
        }
        Ok(Sandbox { name: name.to_owned(), pidfd, _life: life, waiting: Vec::new(), dead: false })
    }
}

/// Something of the host's that goes into a sandbox.
struct Wanted {
    field: &'static str,
    host: PathBuf,
    inside: PathBuf,
    access: Access,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    Shown,
    Writable,
    Socket,
}

fn wanted_mounts(create: &Create) -> Result<Vec<Wanted>, Failure> {
    let mut wanted = Vec::new();
    let mut volume = |field, volume: &Volume| -> Result<(), Failure> {
        let inside = allowed_point(field, &volume.inside)?;
        wanted.push(Wanted { field, host: absolute(field, &volume.host)?, inside, access: Access::Writable });
        Ok(())
    };
    volume("workspace", &create.workspace)?;
    if let Some(home) = &create.home {
        volume("home", home)?;
    }
    for path in &create.read_only {
        let host = absolute("read_only", path)?;
        if host.starts_with("/usr") {
            continue; // It is there already.
        }
        let inside = allowed_point("read_only", &host)?;
        wanted.push(Wanted { field: "read_only", host, inside, access: Access::ReadOnly });
    }
    for shown in &create.shown {
        let (host, inside) = (absolute("shown", &shown.host)?, allowed_point("shown", &shown.inside)?);
        wanted.push(Wanted { field: "shown", host, inside, access: Access::Shown });
    }
    if let Some(way_out) = &create.way_out {
        let host = absolute("way_out", &way_out.socket)?;
        if !fs::symlink_metadata(&host).is_ok_and(|meta| meta.file_type().is_socket()) {
            return Err(Failure::invalid("way_out", format!("{} is not a listening socket", host.display())));
        }
        let inside = Path::new(RUN_DIR).join("out.sock");
        wanted.push(Wanted { field: "way_out", host, inside, access: Access::Socket });
    }
    if wanted.len() > MAX_MOUNTS {
        return Err(Failure::invalid("read_only", format!("more than {MAX_MOUNTS} mounts")));
    }
    Ok(wanted)
}

fn absolute(field: &'static str, path: &Path) -> Result<PathBuf, Failure> {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir => (),
            Component::Normal(part) => plain.push(part),
            Component::Prefix(_) | Component::CurDir | Component::ParentDir => {
                return Err(Failure::invalid(
                    field,
                    format!("{}: not a plain absolute path", path.display()),
                ));
            }
        }
    }
    if !path.is_absolute() {
        return Err(Failure::invalid(field, format!("{}: not an absolute path", path.display())));
    }
    Ok(plain)
}

fn allowed_point(field: &'static str, path: &Path) -> Result<PathBuf, Failure> {
    let path = absolute(field, path)?;
    let reserved = RESERVED.iter().any(|reserved| path.starts_with(reserved));
    let covers = path == Path::new("/") || path == Path::new("/tmp") || path == Path::new("/var");
    if reserved || covers {
        return Err(Failure::invalid(field, format!("{} belongs to the system view", path.display())));
    }
    Ok(path)
}

fn cannot_open(wanted: &Wanted, error: io::Error) -> Failure {
    Failure::invalid(wanted.field, format!("{}: {error}", wanted.host.display()))
}

fn tmp(size: u64, mode: &str, owner: u32) -> Result<OwnedFd, Failure> {
    view::tmpfs(&size.to_string(), mode, Some(owner))
        .map_err(|error| Failure::isolation("private /tmp", error, crate::doctor::mend_mounts()))
}

/// Makes the folder (or file) that something is mounted on, in a file system that nobody else has seen yet.
fn make_point(root: &OwnedFd, below: &Path, kind: PointKind) -> io::Result<()> {
    let mut path = PathBuf::new();
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        if parts.peek().is_none() && kind == PointKind::File {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
            rustix::fs::openat(root, &path, flags, Mode::from_raw_mode(0o444))?;
        } else if let Err(error) = mkdirat(root, &path, Mode::from_raw_mode(0o755))
            && error != rustix::io::Errno::EXIST
        {
            return Err(error.into());
        }
    }
    Ok(())
}

fn life_pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    crate::wire::pair(SocketFlags::empty()).map_err(|error| {
        Failure::isolation("a socket pair", error, "raise the limit on open files (`ulimit -n`)")
    })
}
