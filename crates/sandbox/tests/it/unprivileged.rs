//! The same without root: the tests run again as a user who has nothing.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use wardian_sandbox::{Exec, Exit, Tier};

use super::support::*;

const USER: u32 = 65533;

/// Tests that are about control groups, about root, or about this very run.
const SKIPPED: &[&str] = &["limits::", "lifecycle::", "unprivileged::without_root", "the_doctor"];

#[test]
fn without_root() {
    if !rustix::process::geteuid().is_root() {
        return; // Then all tests are without root.
    }
    let folder = tempfile::tempdir().unwrap();
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), all.clone()).unwrap();
    let copy = |from: std::path::PathBuf, to: &str| {
        let to = folder.path().join(to);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, all.clone()).unwrap();
        to
    };
    let tests = copy(std::env::current_exe().unwrap(), "tests");
    copy(libexec_dir().join("wardian-guest"), "wardian-guest");
    let scratch = folder.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    std::os::unix::fs::chown(&scratch, Some(USER), Some(USER)).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups", "--"])
        .arg(tests)
        .args(["--test-threads", "2"])
        .env("WARDIAN_LIBEXEC_DIR", folder.path())
        .env("TMPDIR", &scratch)
        .current_dir("/");
    for name in SKIPPED {
        command.args(["--skip", name]);
    }
    let output = command.output().expect("setpriv (util-linux) is installed");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("a_user_has_every_wall_but_no_control_group ... ok"), "{stdout}");
}

#[tokio::test]
async fn a_user_has_every_wall_but_no_control_group() {
    if rustix::process::geteuid().is_root() {
        return; // Run by the test above.
    }
    let host = Host::start();
    let capabilities = host.launcher.capabilities();
    assert!(!capabilities.uid_per_tenant && !capabilities.idmapped_mounts);
    if capabilities.tier == Tier::Full {
        return; // A delegated group: no different from root.
    }
    assert!(
        capabilities.missing.iter().any(|missing| missing.mend.contains("Delegate=yes")),
        "{capabilities:?}"
    );
    let mut spec = host.spec("one");
    spec.limits.pids = 40;
    spec.limits.memory_bytes = 200 << 20;
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    assert_eq!(sandbox.tier(), Tier::NoCgroup);
    let bomb = "import os, time
n = 0
try:
    while True:
        if os.fork() == 0: time.sleep(600)
        n += 1
except OSError as e: print(n < 40, e.errno, flush=True)
time.sleep(600)";
    let mut process = sandbox.exec(Exec::new(["python3", "-c", bomb])).await.unwrap();
    assert_eq!(line(&mut process).await, "True 11\n");
    process.kill().await.unwrap();
    assert_eq!(process.wait().await.unwrap(), Exit::Signal(9));
    assert_eq!(python(&sandbox, super::execs::PROCESSES).await.stdout, "[]\n");
    // Memory is looked at, not walled in: what took too much is ended soon.
    let hog =
        "x = bytearray(300 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nimport time; time.sleep(600)";
    let mut process = sandbox.exec(Exec::new(["python3", "-c", hog])).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), Exit::Signal(9));
    // What kills the process that keeps its tree together is ended with all that has no parent.
    let murder = "import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(600)
    os._exit(0)
time.sleep(0.2)
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(600)";
    let mut process = sandbox.exec(Exec::new(["python3", "-c", murder])).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), Exit::Signal(9));
    assert_eq!(python(&sandbox, super::execs::PROCESSES).await.stdout, "[]\n");
}
