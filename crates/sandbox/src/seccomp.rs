//! The system calls that nothing inside a sandbox may make, as BPF programs for the kernel.
//!
//! What the kernel cannot be asked for by an unprivileged process anyway is refused a second time here; what it could
//! be asked for but widens its attackable surface is refused only here. Calls newer than this list answer `ENOSYS`, as
//! on an older kernel, so that a kernel update opens nothing.

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, c_int, c_long,
    sock_filter,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The first call number that this list has not considered (`mseal` is 462, `file_setattr` 469).
const FIRST_UNKNOWN: u32 = 470;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// Answered as if the kernel did not have them: programs have a way around.
const MISSING: &[c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Its flags and modes are behind a pointer, where a filter cannot look.
    libc::SYS_openat2,
];

/// Refused.
const REFUSED: &[c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    SYS_OPEN_TREE_ATTR,
    SYS_LISTMOUNT,
    SYS_STATMOUNT,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes' memory.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Kernel programs, keys, tracing.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_syslog,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Files by handle go around folders.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

const SYS_STATMOUNT: c_long = 457;
const SYS_LISTMOUNT: c_long = 458;
const SYS_OPEN_TREE_ATTR: c_long = 467;

/// `(call, argument, bits)`: refused when one of the bits is set.
///
/// The set-id bits: a file that the agent makes may belong, on the host, to who runs Wardian; nobody else shall be
/// able to run it as them. The namespace bits: new namespaces bring capabilities, and those open the kernel.
const REFUSED_BITS: &[(c_long, u32, u32)] = &[
    (libc::SYS_clone, 0, NEW_NAMESPACES),
    (libc::SYS_fchmod, 1, SET_ID),
    (libc::SYS_fchmodat, 2, SET_ID),
    (SYS_FCHMODAT2, 2, SET_ID),
    (libc::SYS_mknodat, 2, SET_ID),
    (libc::SYS_openat, 3, SET_ID),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1, SET_ID),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1, SET_ID),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1, SET_ID),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 2, SET_ID),
];

const SYS_FCHMODAT2: c_long = 452;
const SET_ID: u32 = libc::S_ISUID | libc::S_ISGID;
const CLONE_NEWTIME: c_int = 0x80;
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32;
const _: () =
    assert!(CLONE_NEWTIME & libc::CLONE_NEWUSER == 0, "a clone's low byte is its signal, not CLONE_NEWTIME");

/// `(call, argument, value)`: refused when the argument is exactly that.
const REFUSED_VALUES: &[(c_long, u32, u32)] = &[
    // Typing into a terminal that is shared with the host.
    (libc::SYS_ioctl, 1, libc::TIOCSTI as u32),
    (libc::SYS_ioctl, 1, TIOCLINUX),
    (libc::SYS_ioctl, 1, libc::TIOCSETD as u32),
    // Kernels have had many faults in these families, and nothing in a sandbox needs them.
    (libc::SYS_socket, 0, libc::AF_ALG as u32),
    (libc::SYS_socket, 0, libc::AF_PACKET as u32),
    (libc::SYS_socket, 0, libc::AF_VSOCK as u32),
    (libc::SYS_socket, 0, libc::AF_KEY as u32),
    (libc::SYS_socket, 0, libc::AF_RDS as u32),
    (libc::SYS_socket, 0, libc::AF_TIPC as u32),
    (libc::SYS_socket, 0, libc::AF_CAN as u32),
    (libc::SYS_socket, 0, libc::AF_BLUETOOTH as u32),
    (libc::SYS_socket, 0, libc::AF_XDP as u32),
];

const TIOCLINUX: u32 = 0x541c;

/// Returns the filter for the guest and all that it starts.
pub(crate) fn guest_filter() -> Vec<sock_filter> {
    let mut program = Program::new();
    program.on_calls(MISSING, errno(libc::ENOSYS));
    program.on_calls(REFUSED, errno(libc::EPERM));
    for &(call, argument, bits) in REFUSED_BITS {
        program.on_argument(call, argument, BPF_JSET, bits, errno(libc::EPERM));
    }
    for &(call, argument, value) in REFUSED_VALUES {
        program.on_argument(call, argument, BPF_JEQ, value, errno(libc::EPERM));
    }
    program.finish()
}

/// Returns what is added for everything but the guest itself: `clone3` hides its flags behind a pointer, so that only
/// the guest may call it (to put an exec into its control group); others fall back to `clone`.
pub(crate) fn exec_filter() -> [sock_filter; 4] {
    [
        load(OFFSET_NUMBER),
        statement(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, libc::SYS_clone3 as u32),
        statement(BPF_RET | BPF_K, 0, 0, errno(libc::ENOSYS)),
        statement(BPF_RET | BPF_K, 0, 0, ALLOW),
    ]
}

struct Program(Vec<sock_filter>);

impl Program {
    fn new() -> Self {
        Self(vec![
            load(OFFSET_ARCHITECTURE),
            statement(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ARCHITECTURE),
            statement(BPF_RET | BPF_K, 0, 0, KILL),
            load(OFFSET_NUMBER),
            // The x32 calls of x86-64, which other filters forget.
            statement(BPF_JMP | BPF_JSET | BPF_K, 0, 1, 0x4000_0000),
            statement(BPF_RET | BPF_K, 0, 0, KILL),
            statement(BPF_JMP | BPF_JGE | BPF_K, 0, 1, FIRST_UNKNOWN),
            statement(BPF_RET | BPF_K, 0, 0, errno(libc::ENOSYS)),
        ])
    }

    /// Each call jumps to one shared return; after them, the others jump over it.
    fn on_calls(&mut self, calls: &[c_long], action: u32) {
        for (call, left) in calls.iter().zip((1..=calls.len()).rev()) {
            let to_return = u8::try_from(left).expect("fewer calls than a jump reaches");
            self.0.push(statement(BPF_JMP | BPF_JEQ | BPF_K, to_return, 0, *call as u32));
        }
        self.0.push(statement(BPF_JMP | BPF_JA, 0, 0, 1));
        self.0.push(statement(BPF_RET | BPF_K, 0, 0, action));
    }

    /// The low half of an argument decides: the calls listed take 32-bit values there, and the kernel ignores the rest.
    fn on_argument(&mut self, call: c_long, argument: u32, comparison: u32, value: u32, action: u32) {
        self.0.push(statement(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, call as u32));
        self.0.push(load(OFFSET_ARGUMENTS + argument * 8));
        self.0.push(statement(BPF_JMP | comparison | BPF_K, 0, 1, value));
        self.0.push(statement(BPF_RET | BPF_K, 0, 0, action));
        self.0.push(load(OFFSET_NUMBER));
    }

    fn finish(mut self) -> Vec<sock_filter> {
        self.0.push(statement(BPF_RET | BPF_K, 0, 0, ALLOW));
        self.0
    }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn statement(code: u32, if_true: u8, if_false: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: if_true, jf: if_false, k }
}

const fn errno(number: c_int) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(program: &[sock_filter], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&call.to_ne_bytes());
        data.extend_from_slice(&architecture.to_ne_bytes());
        data.extend_from_slice(&0_u64.to_ne_bytes());
        arguments.iter().for_each(|argument| data.extend_from_slice(&argument.to_ne_bytes()));
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let code = u32::from(step.code);
            let jump = |taken| usize::from(if taken { step.jt } else { step.jf });
            match code {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    let offset = step.k as usize;
                    accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                c if c == BPF_JMP | BPF_JEQ | BPF_K => at += jump(accumulator == step.k),
                c if c == BPF_JMP | BPF_JA => at += step.k as usize,
                c if c == BPF_JMP | BPF_JGE | BPF_K => at += jump(accumulator >= step.k),
                c if c == BPF_JMP | BPF_JSET | BPF_K => at += jump(accumulator & step.k != 0),
                c if c == BPF_RET | BPF_K => return step.k,
                _ => panic!("unknown instruction {code}"),
            }
        }
    }

    fn guest(call: c_long, arguments: [u64; 6]) -> u32 {
        run(&guest_filter(), ARCHITECTURE, call as u32, arguments)
    }

    #[test]
    fn everyday_calls_pass() {
        for call in [
            libc::SYS_read,
            libc::SYS_execve,
            libc::SYS_futex,
            libc::SYS_socket,
            libc::SYS_clone3,
            libc::SYS_ioctl,
        ] {
            assert_eq!(guest(call, [0; 6]), ALLOW, "call {call}");
        }
        let thread = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SETTLS) as u64;
        assert_eq!(guest(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(guest(libc::SYS_openat, [0, 0, 0, 0o644, 0, 0]), ALLOW);
        assert_eq!(guest(libc::SYS_fchmod, [0, 0o1777, 0, 0, 0, 0]), ALLOW);
    }

    #[test]
    fn every_listed_call_is_refused() {
        for &call in REFUSED {
            assert_eq!(guest(call, [0; 6]), errno(libc::EPERM), "call {call}");
        }
        for &call in MISSING {
            assert_eq!(guest(call, [0; 6]), errno(libc::ENOSYS), "call {call}");
        }
        for &(call, argument, value) in REFUSED_BITS.iter().chain(REFUSED_VALUES) {
            let mut arguments = [0; 6];
            // The upper half of the argument makes no difference.
            arguments[argument as usize] = u64::from(value) | 0xdead_0000_0000_0000;
            assert_eq!(guest(call, arguments), errno(libc::EPERM), "call {call}");
        }
    }

    #[test]
    fn each_namespace_alone_is_refused() {
        for bit in 0..32 {
            let flag = 1_u32 << bit;
            let expected = if NEW_NAMESPACES & flag != 0 { errno(libc::EPERM) } else { ALLOW };
            assert_eq!(guest(libc::SYS_clone, [u64::from(flag), 0, 0, 0, 0, 0]), expected, "bit {bit}");
        }
    }

    #[test]
    fn other_abis_die_and_new_calls_are_unknown() {
        let filter = guest_filter();
        assert_eq!(run(&filter, 0x4000_0003, 4, [0; 6]), KILL, "i386");
        assert_eq!(run(&filter, ARCHITECTURE, 0x4000_0000, [0; 6]), KILL, "x32");
        assert_eq!(run(&filter, ARCHITECTURE, FIRST_UNKNOWN, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(run(&filter, ARCHITECTURE, 100_000, [0; 6]), errno(libc::ENOSYS));
    }

    #[test]
    fn only_the_guest_may_call_clone3() {
        assert_eq!(run(&exec_filter(), ARCHITECTURE, libc::SYS_clone3 as u32, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(run(&exec_filter(), ARCHITECTURE, libc::SYS_clone as u32, [0; 6]), ALLOW);
    }

    #[test]
    fn the_programs_are_within_the_kernels_limit() {
        assert!(guest_filter().len() < 4096);
    }
}
