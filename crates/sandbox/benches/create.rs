//! What a sandbox costs beside the least that the kernel allows: `cargo bench -p wardian-sandbox`.
//!
//! In one run, interleaved: a bare `clone3` into the same seven namespaces that executes `true`; a sandbox created,
//! `true` run in it, destroyed; and `true` run in a sandbox that is there. Wall time of each round, and CPU time of all
//! processes involved together (the kernel's own threads, which take network namespaces apart, are in none of them).

use std::mem::{MaybeUninit, size_of};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wardian_sandbox::{Exec, Exit, Launcher, LauncherConfig, Spec, Volume};

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let folder = tempfile::tempdir().expect("a folder");
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let config = LauncherConfig::new(libexec_dir(), folder.path().join("state"));
    let launcher = Launcher::start(config).expect("a launcher");
    let workspace = folder.path().join("workspace");
    launcher.make_volume(&workspace, None).expect("a folder");
    let home = folder.path().join("home");
    launcher.make_volume(&home, None).expect("a folder");
    let mut spec = Spec::new(Volume::new(workspace, "/workspace"));
    spec.home = Some(Volume::new(home, "/home/agent"));
    let pid = only_child();
    let standing = launcher.create("standing", &spec).await.expect("a sandbox");
    let standing_pid = children_of(pid)[0];

    let (mut bare, mut create, mut exec) = (Series::default(), Series::default(), Series::default());
    for round in 0..rounds + WARM_UP {
        let keep = round >= WARM_UP;
        let (start, cpu) = (Instant::now(), own_cpu() + reaped_cpu());
        bare_clone();
        bare.add(keep, start.elapsed(), own_cpu() + reaped_cpu() - cpu);

        let (start, cpu) = (Instant::now(), own_cpu() + cpu_of(pid));
        let sandbox = launcher.create("round", &spec).await.expect("a sandbox");
        run_true(&sandbox).await;
        sandbox.destroy().await.expect("destroyed");
        create.add(keep, start.elapsed(), own_cpu() + cpu_of(pid) - cpu);

        let (start, cpu) = (Instant::now(), own_cpu() + cpu_of(standing_pid));
        run_true(&standing).await;
        exec.add(keep, start.elapsed(), own_cpu() + cpu_of(standing_pid) - cpu);
    }
    println!("{rounds} rounds, milliseconds          min      p50      p99   CPU mean");
    bare.print("bare clone3, 7 namespaces, true");
    create.print("sandbox: create, true, destroy ");
    exec.print("sandbox: exec true             ");
    println!("tier {}", launcher.capabilities().tier);
    drop(standing);
    launcher.shut_down().await;
}

async fn run_true(sandbox: &wardian_sandbox::Sandbox) {
    let mut exec = Exec::new(["/usr/bin/true"]);
    exec.stdout = wardian_sandbox::Stdio::Null;
    exec.stderr = wardian_sandbox::Stdio::Null;
    let exit = sandbox.exec(exec).await.expect("started").wait().await.expect("ended");
    assert_eq!(exit, Exit::Code(0));
}

#[derive(Default)]
struct Series {
    walls: Vec<Duration>,
    cpu: Duration,
}

impl Series {
    fn add(&mut self, keep: bool, wall: Duration, cpu: Duration) {
        if keep {
            self.walls.push(wall);
            self.cpu += cpu;
        }
    }

    fn print(mut self, name: &str) {
        self.walls.sort_unstable();
        let at = |part: f64| {
            let index = ((self.walls.len() as f64 * part) as usize).min(self.walls.len() - 1);
            self.walls[index].as_secs_f64() * 1000.0
        };
        let cpu = self.cpu.as_secs_f64() * 1000.0 / self.walls.len() as f64;
        println!("{name} {:8.2} {:8.2} {:8.2} {cpu:10.2}", at(0.0), at(0.5), at(0.99));
    }
}

/// The least that any sandbox with these namespaces costs.
fn bare_clone() {
    const ARGV: [*const libc::c_char; 2] = [c"true".as_ptr(), std::ptr::null()];
    const ENV: [*const libc::c_char; 1] = [std::ptr::null()];
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let mut arguments = [0_u64; 11];
    arguments[0] = (flags | libc::CLONE_VFORK) as u64;
    arguments[4] = libc::SIGCHLD as u64;
    // SAFETY: the arguments are eleven initialised numbers, as clone_args has them; the child, a copy of this process,
    // only executes another program or exits.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of::<[u64; 11]>()) as libc::pid_t;
        if pid == 0 {
            libc::execve(c"/usr/bin/true".as_ptr(), ARGV.as_ptr(), ENV.as_ptr());
            libc::_exit(127);
        }
        assert!(pid > 0, "clone3: {}", std::io::Error::last_os_error());
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        assert_eq!(status, 0);
    }
}

fn rusage(who: libc::c_int) -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the structure, which is valid when zeroed.
    let usage = unsafe {
        assert_eq!(libc::getrusage(who, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn own_cpu() -> Duration {
    rusage(libc::RUSAGE_SELF)
}

fn reaped_cpu() -> Duration {
    rusage(libc::RUSAGE_CHILDREN)
}

/// A process and all that it has reaped, in ticks: exact only over many rounds.
fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    // SAFETY: asks for a constant.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Duration::from_micros(ticks * 1_000_000 / per_second)
}

fn children_of(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn only_child() -> u32 {
    children_of(std::process::id())[0]
}

fn libexec_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    let folder = std::env::var_os("WARDIAN_LIBEXEC_DIR").map_or(default, PathBuf::from);
    assert!(
        folder.join("wardian-guest").is_file(),
        "{} has no wardian-guest: run `make guest`",
        folder.display()
    );
    folder
}
