//! What is too much ends what took it, and nothing else.

use wardian_sandbox::{Exec, Exit, Tier};

use super::support::*;

#[tokio::test]
async fn too_much_memory_kills_who_took_it() {
    let host = Host::start();
    assert_eq!(host.launcher.capabilities().tier, Tier::Full, "{:?}", host.launcher.capabilities());
    let mut spec = host.spec("one");
    spec.limits.memory_bytes = 64 << 20;
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let output = python(&sandbox, "x = bytearray(200 << 20); print('had it')").await;
    assert_eq!((output.exit, output.stdout.as_str()), (Exit::Signal(9), ""));
    // Together, too, and in files in memory.
    let output =
        sh(&sandbox, "head -c 200000000 /dev/zero > /tmp/big; head -c 200000000 /dev/zero > ~/big").await;
    assert!(output.stderr.matches("No space left").count() == 2, "{output:?}");
    let eight = "import os, time\nfor _ in range(8):\n  if os.fork() == 0: os.close(1); os.close(2); x = bytearray(12 << 20); time.sleep(600)\nwhile os.wait()[1] != 9: pass\nprint('one was killed')";
    let mut process = sandbox.exec(Exec::new(["python3", "-c", eight])).await.unwrap();
    // The kernel takes a child, as a rule; it may take their parent, which then says nothing.
    if line(&mut process).await != "one was killed\n" {
        assert_eq!(process.wait().await.unwrap(), Exit::Signal(9));
    }
    drop(process);
    assert_eq!(sh(&sandbox, "rm -f /tmp/big ~/big; echo alive").await.stdout, "alive\n");
}

#[tokio::test]
async fn a_fork_bomb_is_held() {
    let host = Host::start();
    let mut spec = host.spec("one");
    spec.limits.pids = 50;
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let bomb = "import os, time
n = 0
try:
    while True:
        if os.fork() == 0: time.sleep(600)
        n += 1
except OSError as e: print(n, e.errno, flush=True)
time.sleep(600)";
    let mut process = sandbox.exec(Exec::new(["python3", "-c", bomb])).await.unwrap();
    assert_eq!(line(&mut process).await, "49 11\n");
    process.kill().await.unwrap();
    assert_eq!(process.wait().await.unwrap(), Exit::Signal(9));
    let classic = Exec::new(["sh", "-c", "f() { f | f & }; f; sleep 1"]);
    let mut classic_exec = sandbox.exec(classic).await;
    if let Ok(process) = &mut classic_exec {
        let _ = process.wait().await;
    }
    // The host and the launcher are untouched.
    host.launcher.health().await.unwrap();
    sandbox.destroy().await.unwrap();
    assert!(host.launcher.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn tmp_and_files_have_a_size() {
    let host = Host::start();
    let mut spec = host.spec("one");
    spec.limits.tmp_bytes = 1 << 20;
    spec.limits.file_bytes = 3 << 20;
    spec.limits.open_files = 40;
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let output = sh(&sandbox, "head -c 2000000 /dev/zero > /tmp/x; stat -c %s /tmp/x; head -c 2000000 /dev/zero > /dev/shm/y; stat -c %s /tmp/y").await;
    assert_eq!(output.stdout, "1048576\n0\n", "{output:?}");
    assert!(output.stderr.contains("No space left"), "{output:?}");
    let output = sh(&sandbox, "head -c 5000000 /dev/zero > /workspace/x").await;
    assert_eq!(std::fs::metadata(spec.workspace.host.join("x")).unwrap().len(), 3 << 20, "{output:?}");
    let script = "import os\nn = 0\ntry:\n  while True: os.open('/', 0); n += 1\nexcept OSError as e: print(e.errno, n < 40)";
    assert_eq!(python(&sandbox, script).await.stdout, "24 True\n");
    assert_eq!(sh(&sandbox, "ulimit -c").await.stdout, "0\n", "no core files");
}
