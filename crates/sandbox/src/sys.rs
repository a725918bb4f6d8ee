//! The system calls that neither `std` nor `rustix` has. Everything here is small and says why it is sound.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, c_long, c_uint, c_ulong};
use rustix::process::Pid;

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a [`clone3`] this is.
pub(crate) enum Cloned {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArguments {
    fn new(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Self {
        let mut arguments = Self { flags, exit_signal: libc::SIGCHLD as u64, ..Self::default() };
        if let Some(cgroup) = cgroup {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = cgroup.as_raw_fd() as u64;
        }
        arguments
    }
}

/// More than 32 bits, which libc's constant is not.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `clone3` like a fork (no shared memory), into new namespaces and perhaps a control group of version 2.
///
/// The caller must be single-threaded, or do nothing in the child but system calls: then locks that other threads held
/// cannot matter. Launcher and guest are single-threaded by construction.
pub(crate) fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: c_int = -1;
    let mut arguments = CloneArguments::new(flags | libc::CLONE_PIDFD as u64, cgroup);
    arguments.pidfd = ptr::addr_of_mut!(pidfd) as u64;
    // SAFETY: the structure is initialised and as long as we say; without CLONE_VM the child has its own copy of all
    // memory, so that both sides go on with valid stacks.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, ptr::addr_of!(arguments), size_of::<CloneArguments>())
    })?;
    match Pid::from_raw(pid as i32) {
        None => Ok(Cloned::Child),
        // SAFETY: the kernel stored a new descriptor there, which nothing else owns.
        Some(pid) => Ok(Cloned::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// The stack of a child that shares our memory until it has become another program.
pub(crate) struct ChildStack(Vec<u128>);

impl ChildStack {
    pub(crate) fn new() -> Self {
        // What such a child does needs a tenth of it.
        Self(vec![0; (64 << 10) / size_of::<u128>()])
    }
}

/// Runs `program` in a new process that shares this one's memory, on a stack of its own, while this one sleeps until
/// the child has become another program or has ended: what a fork costs without copying any memory.
///
/// `program` must not return normally to anything of ours: it executes or exits. It must not allocate, unlock or drop
/// what this process goes on using; system calls act on the child alone.
#[cfg(target_arch = "x86_64")]
pub(crate) fn spawn<F: FnOnce() -> std::convert::Infallible>(
    program: F,
    cgroup: Option<BorrowedFd<'_>>,
    stack: &mut ChildStack,
) -> io::Result<Pid> {
    extern "C" fn enter<F: FnOnce() -> std::convert::Infallible>(program: *mut Option<F>) -> ! {
        // SAFETY: the parent passes the address of its variable, which lives while it sleeps.
        if let Some(program) = unsafe { (*program).take() } {
            let _never_returns = program();
        }
        exit_now(127)
    }
    let mut program = Some(program);
    let mut arguments = CloneArguments::new((libc::CLONE_VM | libc::CLONE_VFORK) as u64, cgroup);
    arguments.stack = stack.0.as_mut_ptr() as u64;
    arguments.stack_size = (stack.0.len() * size_of::<u128>()) as u64;
    let result: i64;
    // SAFETY: the child starts on its own stack, whose top is 16-byte aligned as a call wants it, and never returns from
    // `enter`, so that it touches no frame of ours; the kernel keeps us asleep (CLONE_VFORK) while it uses our memory.
    // The registers that the system call and the call in the child change are named or belong to the child alone.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r8",
            "call r9",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::addr_of!(arguments),
            in("rsi") size_of::<CloneArguments>(),
            in("r8") ptr::addr_of_mut!(program),
            in("r9") enter::<F> as extern "C" fn(*mut Option<F>) -> !,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // The child has taken it out of the memory that is ours too: nothing is dropped twice.
    match Pid::from_raw(result as i32) {
        Some(pid) if result > 0 => Ok(pid),
        _ => Err(io::Error::from_raw_os_error(-result as i32)),
    }
}

/// As above, by a fork that copies.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn spawn<F: FnOnce() -> std::convert::Infallible>(
    program: F,
    cgroup: Option<BorrowedFd<'_>>,
    _stack: &mut ChildStack,
) -> io::Result<Pid> {
    match clone3(libc::CLONE_VFORK as u64, cgroup)? {
        Cloned::Child => match program() {},
        Cloned::Parent { pid, .. } => Ok(pid),
    }
}

/// What [`mount_setattr`] changes.
#[derive(Default, Clone, Copy)]
pub(crate) struct MountAttributes<'a> {
    pub(crate) set: u64,
    pub(crate) private: bool,
    pub(crate) id_map: Option<BorrowedFd<'a>>,
}

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Changes a mount and all below it.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, attributes: MountAttributes<'_>) -> io::Result<()> {
    #[repr(C, align(8))]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let mut request = MountAttr {
        attr_set: attributes.set,
        attr_clr: 0,
        propagation: if attributes.private { libc::MS_PRIVATE } else { 0 },
        userns_fd: 0,
    };
    if let Some(user_namespace) = attributes.id_map {
        request.attr_set |= MOUNT_ATTR_IDMAP;
        request.userns_fd = user_namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a static C string, the structure initialised and as long as we say.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags as c_uint,
            ptr::addr_of!(request),
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Marks all descriptors from `first` on to be closed at exec.
pub(crate) fn close_on_exec_from(first: c_uint) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_uint = 4;
    // SAFETY: only a flag of descriptors changes.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// Closes all descriptors from `first` on: for a process that will do nothing with those it still has values of.
pub(crate) fn close_from(first: c_uint) -> io::Result<()> {
    // SAFETY: the caller never uses or drops what owned them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0 as c_uint) })?;
    Ok(())
}

/// Makes `to` a copy of `from` that survives exec. What `to` was before is closed: only for a process about to exec.
pub(crate) fn place_descriptor(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    let from = from.as_raw_fd();
    // SAFETY: both calls only change the descriptor table of this process, which is about to be replaced by exec.
    let result =
        unsafe { if from == to { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, to) } };
    check(c_long::from(result))?;
    Ok(())
}

/// Takes a descriptor that this process was started with.
///
/// # Safety
/// Nothing else in the process may own `number`.
pub(crate) unsafe fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: asks only whether it is open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open, and by the caller's promise nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A list of C strings as exec takes it.
pub(crate) struct CStrings {
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    pub(crate) fn new(strings: impl IntoIterator<Item = Vec<u8>>) -> Option<Self> {
        let owned = strings.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().ok()?;
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Some(Self { _owned: owned, pointers })
    }
}

/// Replaces this process; returns only with the reason why not.
pub(crate) fn execve(path: &CStr, argv: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: path and both lists are NUL-terminated and live until the call returns or never returns.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, running nothing: for a child between fork and exec.
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: always sound; nothing of this process runs afterwards.
    unsafe { libc::_exit(code) }
}

fn signal_set(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: a zeroed set is valid storage, which sigemptyset and sigaddset then define.
    unsafe {
        let mut set = zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Blocks these signals and returns a descriptor that is readable when one of them has come.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised; the new descriptor is owned by nothing else.
    unsafe {
        check(c_long::from(libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut())))?;
        let descriptor =
            check(c_long::from(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)))?;
        Ok(OwnedFd::from_raw_fd(descriptor as RawFd))
    }
}

/// Reads one signal's number from a descriptor of [`signal_descriptor`]; `None` when there is none left.
pub(crate) fn next_signal(descriptor: BorrowedFd<'_>) -> Option<c_int> {
    let mut info = [0; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(descriptor, &mut info) {
        Ok(read) if read == info.len() => Some(c_int::from_ne_bytes([info[0], info[1], info[2], info[3]])),
        _ => None,
    }
}

/// Gives a child that is about to exec the signals of a fresh process: none blocked, none ignored.
pub(crate) fn reset_signals() {
    let set = signal_set(&[]);
    // SAFETY: the set is initialised, and SIG_DFL is valid for every signal.
    unsafe {
        libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Installs a seccomp filter for this thread and all that it will start. Needs no-new-privileges.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program's address and length belong to the slice, which outlives the call; the kernel copies it.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0 as c_ulong, ptr::addr_of!(program))
    })?;
    Ok(())
}

/// Brings the loopback of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: a zeroed ifreq is valid; the name is two characters of sixteen.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which is initialised and lives through the call.
    check(c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, ptr::addr_of!(request))
    }))?;
    Ok(())
}

/// Returns the effective user id.
pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Unshares namespaces of this single-threaded process.
pub(crate) fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: without CLONE_FILES and CLONE_FS no descriptor or directory changes under anybody: the process has one
    // thread.
    check(c_long::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Drops every capability that this process could ever have again.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: changes only this thread's bounding set.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as c_ulong, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            // The first number that the kernel does not have ends the list.
            if error.raw_os_error() == Some(libc::EINVAL) {
                break;
            }
            return Err(error);
        }
    }
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    Ok(())
}

/// Makes the system calls that the filter refuses, and says what came of each. Harmless where they succeed, except to
/// this process: for a probe inside a sandbox.
pub(crate) fn forbidden_calls() -> Vec<(&'static str, io::Result<()>)> {
    let done = |result: c_long| check(result).map(drop);
    let null = ptr::null::<c_char>();
    // SAFETY: none of these passes memory that the kernel would write to; pointers are null or static C strings, and
    // what would change if a call succeeded is only this process's own.
    unsafe {
        vec![
            (
                "mount",
                done(libc::syscall(
                    libc::SYS_mount,
                    c"none".as_ptr(),
                    c"/tmp".as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    null,
                )),
            ),
            ("unmount", done(libc::syscall(libc::SYS_umount2, c"/proc".as_ptr(), libc::MNT_DETACH))),
            ("new user namespace", done(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER))),
            ("trace", done(libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0))),
            ("io_uring", done(libc::syscall(libc::SYS_io_uring_setup, 1, null))),
            ("clone3", done(libc::syscall(libc::SYS_clone3, null, 0))),
            ("bpf", done(libc::syscall(libc::SYS_bpf, 0, null, 0))),
            ("kernel keys", done(libc::syscall(libc::SYS_keyctl, 0, -3, 0))),
            ("perf events", done(libc::syscall(libc::SYS_perf_event_open, null, 0, -1, -1, 0))),
            ("user faults", done(libc::syscall(libc::SYS_userfaultfd, 0))),
            ("change root", done(libc::syscall(libc::SYS_chroot, c"/tmp".as_ptr()))),
            ("raw packets", done(libc::syscall(libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0))),
            ("type into a terminal", done(libc::syscall(libc::SYS_ioctl, 0, libc::TIOCSTI, c"x".as_ptr()))),
        ]
    }
}

/// Returns the size of a page of memory.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: asks for a constant.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).unwrap_or(4096)
}
