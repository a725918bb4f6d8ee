//! What the first process of a sandbox does between its birth in new namespaces and becoming the guest.
//!
//! It begins with all capabilities in its own user namespace and with the launcher's view of the files, and ends with
//! neither.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};

use crate::cgroup::Group;
use crate::spec::{Limits, RUN_DIR};
use crate::sys;
use crate::wire::{self, Failure, Greeting};

/// User and group inside.
pub(crate) const INSIDE_ID: u32 = 1000;
/// Where the guest finds its end of the control socket.
pub(crate) const CONTROL_DESCRIPTOR: i32 = 3;
/// Where the guest finds the socket that ends with the launcher.
pub(crate) const LIFE_DESCRIPTOR: i32 = 4;
/// Where the guest finds its control group, if there is one of version 2.
pub(crate) const GROUP_DESCRIPTOR: i32 = 5;

/// Numbers from here on are given no place.
const FIRST_FREE: i32 = 64;

pub(crate) const CLONE_FLAGS: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS) as u64;

/// What of `/proc` is covered because it tells about the host. The rest is read-only, and the kernel's own checks hold
/// for an unprivileged user; files that only root may read need no cover.
const MASKED: &[&str] = &[
    "cmdline",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "modules",
    "sched_debug",
    "timer_list",
];

/// Returns what of `/proc` has to be covered on this host.
pub(crate) fn masked() -> Vec<String> {
    let readable = |name: &&&str| {
        std::fs::metadata(format!("/proc/{name}")).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
    };
    MASKED.iter().filter(readable).map(|name| format!("proc/{name}")).collect()
}

/// Something to be mounted at `target` of the new root.
pub(crate) struct Mount {
    pub(crate) tree: OwnedFd,
    pub(crate) target: PathBuf,
}

/// All that the new process needs to know.
pub(crate) struct Plan<'a> {
    pub(crate) life: OwnedFd,
    pub(crate) control: BorrowedFd<'a>,
    pub(crate) group: Group,
    /// The root first, and what is inside another one after it.
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hostname: &'a str,
    pub(crate) limits: &'a Limits,
    /// What of `/proc` is covered, relative to the root.
    pub(crate) masked: &'a [String],
}

/// Turns this process, freshly cloned, into the guest. What goes wrong is said on the control socket.
pub(crate) fn become_guest(plan: &Plan<'_>) -> ! {
    // High up, so that it stays usable when the low numbers are given their places.
    let Ok(control) = rustix::io::fcntl_dupfd_cloexec(plan.control, FIRST_FREE) else { sys::exit_now(1) };
    let Err(failure) = try_become_guest(plan, &control);
    let _ = wire::send(&control, &Greeting::Failed(failure));
    sys::exit_now(1)
}

fn try_become_guest(plan: &Plan<'_>, control: &OwnedFd) -> Result<std::convert::Infallible, Failure> {
    let mut go = [0];
    match rustix::io::read(&plan.life, &mut go) {
        Ok(1) => (),
        // The launcher has ended, or has already said what went wrong.
        _ => sys::exit_now(1),
    }
    take_identity(plan).map_err(step("own user and control groups", crate::doctor::mend_user_namespaces))?;
    let root = mount_root(&plan.mounts)?;
    rustix::process::fchdir(root).map_err(mount_step("the new root"))?;
    mount_proc(root, plan.masked).map_err(step("own /proc", crate::doctor::mend_proc))?;
    mount_terminals(root).map_err(mount_step("own /dev/pts"))?;
    leave_old_root().map_err(mount_step("the new root"))?;
    sys::loopback_up().map_err(other_step("loopback"))?;
    rustix::system::sethostname(plan.hostname.as_bytes()).map_err(other_step("host name"))?;
    limit_resources(plan.limits).map_err(other_step("resource limits"))?;
    let descriptors = place_descriptors(plan, control).map_err(other_step("descriptors"))?;
    rustix::thread::set_no_new_privs(true).map_err(other_step("no new privileges"))?;
    sys::drop_capabilities().map_err(other_step("no capabilities"))?;
    sys::close_on_exec_from(descriptors).map_err(other_step("descriptors"))?;
    let argv =
        sys::CStrings::new([b"wardian-guest".to_vec(), b"guest".to_vec()]).expect("no NUL in constants");
    let env = sys::CStrings::new([]).expect("an empty list");
    let error = sys::execve(c"/run/wardian/wardian-guest", &argv, &env);
    Err(Failure::isolation(
        format!("start {RUN_DIR}/wardian-guest"),
        error,
        "its file must be static, executable and readable by everybody; `make guest` builds it",
    ))
}

fn step<E: Into<io::Error>>(what: &'static str, mend: fn() -> String) -> impl FnOnce(E) -> Failure {
    move |error| Failure::isolation(what, error.into(), mend())
}

fn mount_step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Failure {
    step(what, crate::doctor::mend_mounts)
}

fn other_step<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Failure {
    step(what, || "report this: the kernel allowed the namespace but not its use".to_owned())
}

fn take_identity(plan: &Plan<'_>) -> io::Result<()> {
    // Writing oneself ("0", one thread) spares the kernel the lock over all processes that moving another one takes.
    for tasks in &plan.group.tasks {
        rustix::io::write(tasks, b"0")?;
    }
    // Now, so that the groups just entered are the roots of what can be seen.
    sys::unshare(libc::CLONE_NEWCGROUP)?;
    match rustix::thread::set_thread_groups(&[]) {
        // Without root the map forbids it; the groups then stand for nobody inside.
        Ok(()) | Err(rustix::io::Errno::PERM) => (),
        Err(error) => return Err(error.into()),
    }
    let (uid, gid) = (Uid::from_raw(INSIDE_ID), Gid::from_raw(INSIDE_ID));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::process::setsid()?;
    Ok(())
}

fn mount_root(mounts: &[Mount]) -> Result<BorrowedFd<'_>, Failure> {
    let (root, rest) = mounts.split_first().expect("the root comes first");
    // Any folder will do until the old root goes; every view has this one.
    move_mount(&root.tree, "", rustix::fs::CWD, "/usr", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(step("the new root", crate::doctor::mend_mounts))?;
    let root = root.tree.as_fd();
    for one in rest {
        attach(root, &one.tree, &one.target).map_err(|error| {
            let mend = "make it an existing plain folder (no link) in what it lies in";
            Failure::isolation(format!("mount at {}", one.target.display()), error, mend)
        })?;
    }
    Ok(root)
}

/// Mounts at a path below the new root, through no link that somebody may have put there.
fn attach(root: BorrowedFd<'_>, tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let target = openat2(root, target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", &target, "", flags)?)
}

fn mount_proc(root: BorrowedFd<'_>, masked: &[String]) -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&proc, "", root, "proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for path in masked {
        mount("dev/null", path.as_str(), "", MountFlags::BIND, None)?;
    }
    Ok(())
}

fn mount_terminals(root: BorrowedFd<'_>) -> io::Result<()> {
    let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0620")?;
    fsconfig_set_string(&context, "ptmxmode", "0666")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let terminals = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(move_mount(&terminals, "", root, "dev/pts", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Makes the current directory the root and lets go of the old one with all its mounts.
fn leave_old_root() -> io::Result<()> {
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn limit_resources(limits: &Limits) -> io::Result<()> {
    let set = |resource, value: u64| {
        let hard = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = Some(value.min(hard));
        rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value })
    };
    set(Resource::Core, 0)?;
    set(Resource::Fsize, limits.file_bytes)?;
    // Counted for this user namespace alone; the control group limits too, where there is one.
    set(Resource::Nproc, limits.pids.saturating_add(1))?;
    Ok(())
}

/// Puts the descriptors where the guest expects them and returns the first number after them.
fn place_descriptors(plan: &Plan<'_>, control: &OwnedFd) -> io::Result<u32> {
    // First out of the way, so that none is overwritten before it is placed.
    let high = |descriptor: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(descriptor, FIRST_FREE);
    let life = high(plan.life.as_fd())?;
    let group = plan.group.unified.as_ref().map(|group| high(group.as_fd())).transpose()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    let null = high(null.as_fd())?;
    for standard in 0..3 {
        sys::place_descriptor(null.as_fd(), standard)?;
    }
    sys::place_descriptor(control.as_fd(), CONTROL_DESCRIPTOR)?;
    sys::place_descriptor(life.as_fd(), LIFE_DESCRIPTOR)?;
    let mut next = GROUP_DESCRIPTOR;
    if let Some(group) = &group {
        sys::place_descriptor(group.as_fd(), GROUP_DESCRIPTOR)?;
        next += 1;
    }
    Ok(next as u32)
}
