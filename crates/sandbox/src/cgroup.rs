//! Control groups: limits on memory and processes, and a handle to kill by.
//!
//! A launcher has one group in each hierarchy it uses, named after its state folder, and below it one a sandbox. On
//! hosts with only version 2 that is one hierarchy. On hybrid hosts version 2 has no controllers: it kills, and the
//! memory and pids hierarchies of version 1 limit.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::spec::{Limits, Missing};
use crate::wire::Failure;

const DELEGATE: &str =
    "start it under `systemd-run --scope -p Delegate=yes` (a service: `Delegate=yes`), or as root";

/// The hierarchies that a launcher uses.
#[derive(Debug)]
pub(crate) struct Groups {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Debug)]
struct Hierarchy {
    kind: Kind,
    /// The launcher's own group.
    path: PathBuf,
    directory: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    V2 { limits: bool },
    V1Memory,
    V1Pids,
}

/// One sandbox's groups, ready to be entered.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The version 2 group, to be cloned into and delegated to the guest.
    pub(crate) unified: Option<OwnedFd>,
    /// The `tasks` files of version 1: the child writes itself there.
    pub(crate) tasks: Vec<OwnedFd>,
}

impl Groups {
    /// Finds the hierarchies, removes what an earlier launcher left in them, and makes this launcher's groups.
    /// What is missing for full limits is added to `missing`. `record` is where launchers of this name write down where
    /// their groups are: the next one may be started in another place.
    pub(crate) fn open(name: &str, record: &Path, missing: &mut Vec<Missing>) -> Self {
        sweep_recorded(name, record);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut hierarchies = Vec::new();
        let mut problems = Vec::new();
        for place in places(&mounts, &own) {
            let opened = match place.controllers {
                Controllers::V2 => open_v2(&place, name),
                Controllers::Memory => open_v1(&place, name, Kind::V1Memory),
                Controllers::Pids => open_v1(&place, name, Kind::V1Pids),
            };
            match opened {
                Ok(hierarchy) => hierarchies.push(hierarchy),
                Err(error) => problems.push(format!("{}: {error}", place.own.display())),
            }
        }
        let groups = Self { hierarchies };
        let paths =
            groups.hierarchies.iter().map(|one| format!("{}\n", one.path.display())).collect::<String>();
        // Not being able to write it down only means that a move is not followed.
        let _ = fs::write(record, paths);
        if !groups.limit() {
            let why = if problems.is_empty() { String::new() } else { format!(" ({})", problems.join("; ")) };
            missing.push(Missing {
                what: format!("limits on memory and processes by control groups{why}"),
                mend: DELEGATE.to_owned(),
            });
        }
        if !groups.unified() {
            missing.push(Missing {
                what: "a control group of version 2 for each exec".to_owned(),
                mend: format!("mount cgroup2 (`mount -t cgroup2 none /sys/fs/cgroup/unified`); {DELEGATE}"),
            });
        }
        groups
    }

    /// Returns true when memory and processes are limited.
    pub(crate) fn limit(&self) -> bool {
        let has = |kind| self.hierarchies.iter().any(|hierarchy| hierarchy.kind == kind);
        has(Kind::V2 { limits: true }) || (has(Kind::V1Memory) && has(Kind::V1Pids))
    }

    /// Returns true when there is a version 2 group to kill by.
    pub(crate) fn unified(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| matches!(hierarchy.kind, Kind::V2 { .. }))
    }

    /// Makes the groups of one sandbox. The version 2 group belongs to `owner` then, so that the guest can divide it.
    pub(crate) fn create(&self, name: &str, limits: &Limits, owner: Option<u32>) -> Result<Group, Failure> {
        let mut group = Group::default();
        let has_v2_limits = self.hierarchies.iter().any(|one| one.kind == Kind::V2 { limits: true });
        for hierarchy in &self.hierarchies {
            if has_v2_limits && !matches!(hierarchy.kind, Kind::V2 { .. }) {
                continue;
            }
            hierarchy.create(name, limits, owner, &mut group).map_err(|error| {
                Failure::isolation(
                    format!("control group {}/{name}", hierarchy.path.display()),
                    error,
                    "remove what is left of an earlier server there, or raise the limit on control groups",
                )
            })?;
        }
        Ok(group)
    }

    /// Removes the groups of one sandbox; false while the kernel still counts a dying process in one of them.
    pub(crate) fn remove(&self, name: &str) -> bool {
        self.hierarchies.iter().filter(|hierarchy| !hierarchy.remove(name)).count() == 0
    }

    /// Kills everything in all sandboxes' groups.
    pub(crate) fn kill_all(&self) {
        for hierarchy in &self.hierarchies {
            kill_tree(&hierarchy.path);
        }
    }

    /// Removes the launcher's own groups, when they are empty.
    pub(crate) fn close(self) {
        for hierarchy in self.hierarchies {
            let _ = remove_tree(&hierarchy.path);
        }
    }
}

impl Hierarchy {
    fn create(&self, name: &str, limits: &Limits, owner: Option<u32>, group: &mut Group) -> io::Result<()> {
        mkdirat(&self.directory, name, Mode::from_raw_mode(0o755))?;
        let directory = openat(
            &self.directory,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        )?;
        // One more for the guest itself.
        let pids = limits.pids.saturating_add(1).to_string();
        match self.kind {
            Kind::V2 { limits: with_limits } => {
                if with_limits {
                    write_at(&directory, "memory.max", &limits.memory_bytes.to_string())?;
                    write_optional(&directory, "memory.swap.max", "0")?;
                    write_at(&directory, "pids.max", &pids)?;
                }
                if let Some(owner) = owner {
                    for path in ["", "cgroup.procs"] {
                        chownat(
                            &directory,
                            path,
                            Some(Uid::from_raw(owner)),
                            Some(Gid::from_raw(owner)),
                            AtFlags::EMPTY_PATH,
                        )?;
                    }
                }
                group.unified = Some(directory);
            }
            Kind::V1Memory => {
                let bytes = limits.memory_bytes.to_string();
                write_at(&directory, "memory.limit_in_bytes", &bytes)?;
                write_optional(&directory, "memory.memsw.limit_in_bytes", &bytes)?;
                group.tasks.push(open_tasks(&directory)?);
            }
            Kind::V1Pids => {
                write_at(&directory, "pids.max", &pids)?;
                group.tasks.push(open_tasks(&directory)?);
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> bool {
        match unlinkat(&self.directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => true,
            Err(_) => remove_tree(&self.path.join(name)).is_ok(),
        }
    }
}

fn open_tasks(directory: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(openat(directory, "tasks", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn write_at(directory: impl AsFd, name: &str, value: &str) -> io::Result<()> {
    let file = openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// Writes a file that some kernels do not have (swap accounting off).
fn write_optional(directory: impl AsFd, name: &str, value: &str) -> io::Result<()> {
    match write_at(directory, name, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controllers {
    V2,
    Memory,
    Pids,
}

/// Where a hierarchy is mounted, and where this process is in it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    controllers: Controllers,
    mount: PathBuf,
    own: PathBuf,
}

fn places(mountinfo: &str, own: &str) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (&[_, _, _, root, mount, ..], &[kind, _, options, ..]) = (left.as_slice(), right.as_slice())
        else {
            continue;
        };
        let has = |wanted: &str| options.split(',').any(|option| option == wanted);
        let controllers = match kind {
            "cgroup2" => Controllers::V2,
            "cgroup" if has("memory") => Controllers::Memory,
            "cgroup" if has("pids") => Controllers::Pids,
            _ => continue,
        };
        if places.iter().any(|place| place.controllers == controllers) {
            continue;
        }
        let inside = own_path(own, controllers).unwrap_or("/");
        let relative = Path::new(inside).strip_prefix(root).or_else(|_| Path::new(inside).strip_prefix("/"));
        let relative = relative.unwrap_or(Path::new(""));
        places.push(Place { controllers, mount: PathBuf::from(mount), own: Path::new(mount).join(relative) });
    }
    places
}

fn own_path(own: &str, wanted: Controllers) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let mut controllers = controllers.split(',');
        let found = match wanted {
            Controllers::V2 => number == "0",
            Controllers::Memory => controllers.any(|one| one == "memory"),
            Controllers::Pids => controllers.any(|one| one == "pids"),
        };
        found.then_some(path)
    })
}

fn open_v1(place: &Place, name: &str, kind: Kind) -> io::Result<Hierarchy> {
    open_below(&place.own, name, kind)
}

fn open_v2(place: &Place, name: &str) -> io::Result<Hierarchy> {
    let controllers = fs::read_to_string(place.own.join("cgroup.controllers")).unwrap_or_default();
    let available = |wanted| controllers.split_whitespace().any(|one| one == wanted);
    if !(available("memory") && available("pids")) {
        // A hybrid host: version 1 has them.
        return open_below(&place.own, name, Kind::V2 { limits: false });
    }
    let limits = Kind::V2 { limits: true };
    if enable(&place.own).is_ok() || (make_room(&place.own).is_ok() && enable(&place.own).is_ok()) {
        return open_below(&place.own, name, limits);
    }
    // As root outside of any delegation, beside systemd's own groups.
    if enable(&place.mount).is_ok()
        && let Ok(hierarchy) = open_below(&place.mount, name, limits)
    {
        return Ok(hierarchy);
    }
    open_below(&place.own, name, Kind::V2 { limits: false })
}

fn enable(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.subtree_control"), "+memory +pids")
}

/// A group of version 2 cannot both hold processes and hand controllers down. When only the server and this launcher
/// are in it, they move to a leaf of their own.
fn make_room(group: &Path) -> io::Result<()> {
    let ours = [std::process::id(), std::os::unix::process::parent_id()].map(|pid| pid.to_string());
    let members = fs::read_to_string(group.join("cgroup.procs"))?;
    if members.lines().any(|pid| !ours.iter().any(|our| our == pid)) {
        return Err(io::Error::other("other processes are in the same control group"));
    }
    let leaf = group.join("wardian-server");
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => (),
    }
    for pid in ours {
        fs::write(leaf.join("cgroup.procs"), pid)?;
    }
    Ok(())
}

fn open_below(parent: &Path, name: &str, kind: Kind) -> io::Result<Hierarchy> {
    let path = parent.join(name);
    if path.exists() {
        kill_tree(&path);
        remove_tree_patiently(&path)?;
    }
    mkdirat(CWD, &path, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, &path, flags, Mode::empty())?;
    if kind == (Kind::V2 { limits: true }) {
        enable(&path)?;
    }
    Ok(Hierarchy { kind, path, directory })
}

fn sweep_recorded(name: &str, record: &Path) {
    let recorded = fs::read_to_string(record).unwrap_or_default();
    for path in recorded.lines().map(Path::new) {
        // Only what can be ours is ever touched, whatever the file says.
        let ours = path.starts_with("/sys/fs/cgroup") && path.file_name().is_some_and(|last| last == name);
        if ours && path.is_dir() {
            kill_tree(path);
            let _ = remove_tree_patiently(path);
        }
    }
}

/// Kills every process in a group and below it.
fn kill_tree(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for child in children(path) {
        kill_tree(&child);
    }
    let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|pid| pid.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Killed processes leave their group a moment later; a second is more than the kernel takes.
fn remove_tree_patiently(path: &Path) -> io::Result<()> {
    let mut result = remove_tree(path);
    for _ in 0..100 {
        if result.is_ok() {
            break;
        }
        kill_tree(path);
        crate::launcher::pause(std::time::Duration::from_millis(10));
        result = remove_tree(path);
    }
    result
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hybrid_hierarchies_where_this_process_is() {
        let mounts = "\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
32 30 0:28 / /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids\n\
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n\
garbage\n";
        let own = "8:pids:/\n4:memory:/a/b\n0::/c\n:::\n";
        let found = places(mounts, own);
        let place =
            |controllers, mount: &str, own: &str| Place { controllers, mount: mount.into(), own: own.into() };
        assert_eq!(
            found,
            [
                place(Controllers::Memory, "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b"),
                place(Controllers::Pids, "/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids/"),
                place(Controllers::V2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/c"),
            ]
        );
    }

    #[test]
    fn a_container_sees_its_own_group_as_the_root_of_the_mount() {
        let mounts = "31 30 0:27 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(places(mounts, "0::/docker/x/y\n")[0].own, Path::new("/sys/fs/cgroup/y"));
        assert_eq!(places(mounts, "0::/\n")[0].own, Path::new("/sys/fs/cgroup/"));
    }
}
