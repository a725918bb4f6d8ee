//! Whoever dies, and however: within a second nothing of the sandboxes is left.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wardian_sandbox::{Error, Exec, Launcher, LauncherConfig, Spec, Volume};

use super::support::*;

/// How long what the issue promises may take.
const SOON: Duration = Duration::from_secs(1);
/// Says to [`a_server`] in another process which folder to work in.
const ROLE: &str = "WARDIAN_TEST_SERVER";

/// Not a test by itself: what the others start in a process of its own, to be killed.
#[tokio::test]
async fn a_server() {
    let Some(folder) = std::env::var_os(ROLE).map(PathBuf::from) else { return };
    let launcher = Launcher::start(LauncherConfig::new(libexec_dir(), folder.join("state"))).unwrap();
    let mut held = Vec::new();
    for name in ["first", "second"] {
        let workspace = folder.join("volumes").join(name);
        launcher.make_volume(&workspace, None).unwrap();
        let sandbox = launcher.create(name, &Spec::new(Volume::new(workspace, "/workspace"))).await.unwrap();
        let mut process =
            sandbox.exec(Exec::new(["python3", "-c", super::execs::HIDDEN_CHILD])).await.unwrap();
        assert_eq!(line(&mut process).await, "alive\n");
        held.push((sandbox, process));
    }
    println!("SERVING");
    std::future::pending::<()>().await;
}

/// A server in a process of its own, with two sandboxes and hidden children in them.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self { child: Self::spawn(folder.path()), folder };
        server.wait_until_serving();
        server
    }

    fn spawn(folder: &Path) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "it::lifecycle::a_server", "--nocapture"])
            .env(ROLE, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn wait_until_serving(&mut self) {
        let stdout = BufReader::new(self.child.stdout.take().unwrap());
        assert!(
            stdout.lines().any(|line| line.unwrap().contains("SERVING")),
            "the server ends before it serves"
        );
    }

    fn remains(&self) -> Remains {
        Remains::of(self.child.id(), self.folder.path())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Everything that must not be left.
struct Remains {
    launcher: i32,
    processes: BTreeSet<i32>,
    groups: BTreeSet<PathBuf>,
    state_dir: PathBuf,
}

impl Remains {
    /// Collects what belongs to a server while it lives.
    fn of(server: u32, folder: &Path) -> Self {
        let parents = parents();
        let below = |root: i32| -> Vec<i32> {
            parents.iter().filter(|(_, parent)| *parent == root).map(|(pid, _)| *pid).collect()
        };
        let launcher =
            below(server.cast_signed()).into_iter().find(|pid| name(*pid) == "wardian-guest").unwrap();
        let mut processes = BTreeSet::new();
        let mut queue = below(launcher);
        while let Some(pid) = queue.pop() {
            processes.insert(pid);
            queue.extend(below(pid));
        }
        assert!(processes.len() >= 6, "two guests, two programs, two hidden children: {processes:?}");
        let groups = processes.iter().flat_map(|pid| groups(*pid)).collect();
        Self { launcher, processes, groups, state_dir: folder.join("state") }
    }

    fn found(&self) -> Vec<String> {
        let processes = self.processes.iter().chain([&self.launcher]).filter(|pid| is_alive(**pid));
        let processes = processes.map(|pid| format!("process {pid} {}", name(*pid)));
        let groups = self
            .groups
            .iter()
            .filter(|group| group.exists())
            .map(|group| format!("group {}", group.display()));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts =
            mounts.lines().filter(|line| line.contains(self.state_dir.to_str().unwrap())).map(str::to_owned);
        let folders = std::fs::read_dir(&self.state_dir).into_iter().flatten().flatten();
        let folders = folders
            .filter(|entry| entry.path().is_dir())
            .map(|entry| format!("folder {}", entry.path().display()));
        processes.chain(groups).chain(mounts).chain(folders).collect()
    }

    /// Waits until nothing is left, and returns how long it took.
    async fn gone(&self) -> Duration {
        let start = Instant::now();
        while !self.found().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "left: {:#?}", self.found());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }

    async fn processes_gone(&self) -> Duration {
        let start = Instant::now();
        while self.processes.iter().any(|pid| is_alive(*pid)) {
            assert!(start.elapsed() < Duration::from_secs(20), "left: {:#?}", self.found());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }
}

fn parents() -> Vec<(i32, i32)> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| Some((pid, fields(pid)?.get(1)?.parse().ok()?))).collect()
}

fn fields(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn is_alive(pid: i32) -> bool {
    fields(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// Returns the control groups of a process that are a launcher's, with the launcher's own above them.
fn groups(pid: i32) -> Vec<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':');
        let (_, controller, path) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        let mount = if controller.is_empty() { "unified" } else { controller };
        for mount in [format!("/sys/fs/cgroup/{mount}"), "/sys/fs/cgroup".to_owned()] {
            let path = PathBuf::from(format!("{mount}{path}"));
            let ours = path
                .ancestors()
                .filter(|one| one.to_str().unwrap().contains("/wardian-"))
                .map(Path::to_owned);
            found.extend(ours.filter(|one| one.exists()));
        }
    }
    found
}

fn kill(pid: i32) {
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

#[tokio::test]
async fn killing_the_server_leaves_nothing_and_the_next_one_goes_on() {
    let mut server = Server::start();
    let remains = server.remains();
    server.kill();
    let took = remains.gone().await;
    assert!(took < SOON, "it took {took:?}");
    // What the sandboxes wrote is there, and a new server with the same folder goes on.
    assert!(server.folder.path().join("volumes/first/beat").exists());
    server.child = Server::spawn(server.folder.path());
    server.wait_until_serving();
    let remains = server.remains();
    server.kill();
    remains.gone().await;
}

#[tokio::test]
async fn killing_server_and_launcher_is_swept_by_the_next_one() {
    let mut server = Server::start();
    let remains = server.remains();
    kill(remains.launcher);
    server.kill();
    let took = remains.processes_gone().await;
    assert!(took < SOON, "without a launcher the guests end by themselves; it took {took:?}");
    // A group that is not where the next launcher would look is found by the record, and one of another name is not.
    let moved = remains
        .groups
        .iter()
        .find(|group| group.ends_with("first"))
        .and_then(|group| group.parent())
        .map(|own| {
            let elsewhere = own.with_file_name(format!("wardian-test-{}", std::process::id()));
            let (ours, foreign) =
                (elsewhere.join(own.file_name().unwrap()), elsewhere.join("wardian-foreign"));
            std::fs::create_dir_all(ours.join("first")).unwrap();
            std::fs::create_dir_all(&foreign).unwrap();
            let record = server.folder.path().join("state/groups");
            let recorded = std::fs::read_to_string(&record).unwrap();
            std::fs::write(&record, format!("{recorded}{}\n{}\n/\n\n", ours.display(), foreign.display()))
                .unwrap();
            (elsewhere, ours, foreign)
        });
    let launcher =
        Launcher::start(LauncherConfig::new(libexec_dir(), server.folder.path().join("state"))).unwrap();
    if let Some((elsewhere, ours, foreign)) = moved {
        assert!(!ours.exists() && foreign.exists());
        std::fs::remove_dir(foreign).unwrap();
        std::fs::remove_dir(elsewhere).unwrap();
    }
    for group in remains.groups.iter().filter(|group| group.ends_with("first") || group.ends_with("second")) {
        assert!(!group.exists(), "{}", group.display());
    }
    assert!(launcher.list().await.unwrap().is_empty());
    launcher.shut_down().await;
    assert_eq!(remains.found(), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_launcher_is_noticed_and_another_can_be_started() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let mut process = sandbox.exec(Exec::new(["sleep", "600"])).await.unwrap();
    let launcher = parents().into_iter().find(|(pid, parent)| {
        *parent == std::process::id().cast_signed()
            && name(*pid) == "wardian-guest"
            && held(*pid, host.folder.path())
    });
    kill(launcher.unwrap().0);
    assert!(matches!(process.wait().await, Err(Error::SandboxGone)));
    assert!(matches!(host.launcher.health().await, Err(Error::LauncherGone)));
    assert!(matches!(sandbox.exec(Exec::new(["true"])).await, Err(Error::SandboxGone)));
    assert!(matches!(host.launcher.create("two", &host.spec("two")).await, Err(Error::LauncherGone)));
    let again = Launcher::start(host.launcher.config().clone()).unwrap();
    let sandbox = again.create("one", &host.spec("one")).await.unwrap();
    assert_eq!(sh(&sandbox, "echo again").await.stdout, "again\n");
}

/// Tells this test's launcher from others of the same process.
fn held(pid: i32, folder: &Path) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let lock = folder.join("state/lock").canonicalize().unwrap();
    descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|path| path == lock)
}

#[tokio::test]
async fn destroying_is_complete_and_can_be_repeated() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let process = sandbox.exec(Exec::new(["sleep", "600"])).await.unwrap();
    assert_eq!(host.launcher.list().await.unwrap(), ["one"]);
    host.launcher.destroy("one").await.unwrap();
    host.launcher.destroy("one").await.unwrap();
    host.launcher.destroy("never was").await.unwrap();
    assert!(host.launcher.list().await.unwrap().is_empty());
    assert!(matches!(sandbox.exec(Exec::new(["true"])).await, Err(Error::SandboxGone)));
    drop(process);
    // The old handle's end does not end the new sandbox of the same name, once it is known to be gone.
    sandbox.destroy().await.unwrap();
    let sandbox = host.sandbox("one").await;
    assert_eq!(sh(&sandbox, "echo new").await.stdout, "new\n");
}

#[tokio::test]
async fn dropping_a_sandbox_destroys_it() {
    let host = Host::start();
    drop(host.sandbox("one").await);
    eventually(async || host.launcher.list().await.unwrap().is_empty()).await;
    // Also when the creation is not waited for.
    let spec = host.spec("two");
    tokio::select! {
        biased;
        // On a machine without breath the launcher may be done first; then this one is dropped as the other was.
        created = host.launcher.create("two", &spec) => drop(created),
        () = async { tokio::task::yield_now().await } => (),
    }
    eventually(async || host.launcher.list().await.unwrap().is_empty()).await;
}

#[tokio::test]
async fn two_servers_do_not_disturb_each_other() {
    let mut one = Server::start();
    let two = Host::start();
    let sandbox = two.sandbox("first").await;
    let busy =
        Launcher::start(LauncherConfig::new(libexec_dir(), one.folder.path().join("state"))).unwrap_err();
    assert!(matches!(busy, Error::StateDirBusy { .. }), "{busy}");
    let remains = one.remains();
    one.kill();
    remains.gone().await;
    assert_eq!(sh(&sandbox, "echo fine").await.stdout, "fine\n");
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn many_come_and_go_at_a_time() {
    let host = Host::start();
    join_all((0..24).map(|number| {
        let host = &host;
        async move {
            let sandbox = host.sandbox(&format!("s{number}")).await;
            assert_eq!(
                sh(&sandbox, "echo $$ >/tmp/x; ls /workspace /tmp").await.stdout,
                "/tmp:\nx\n\n/workspace:\n"
            );
            sandbox.destroy().await.unwrap();
        }
    }))
    .await;
    assert!(host.launcher.list().await.unwrap().is_empty());
}
