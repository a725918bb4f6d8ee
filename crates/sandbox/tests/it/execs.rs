//! Programs started and ended in every way.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wardian_sandbox::{Error, Exec, Exit, Stdio};

use super::support::*;

#[tokio::test]
async fn codes_and_signals_come_through() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    for (script, exit) in [
        ("true", Exit::Code(0)),
        ("exit 255", Exit::Code(255)),
        ("kill -TERM $$", Exit::Signal(15)),
        ("kill -KILL $$", Exit::Signal(9)),
        ("kill -SEGV $$", Exit::Signal(11)),
    ] {
        assert_eq!(sh(&sandbox, script).await.exit, exit, "{script}");
    }
    assert_eq!(Exit::Signal(9).shell_code(), 137);
    assert_eq!(Exit::TimedOut.shell_code(), 124);
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why_and_the_next_one_runs() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let fails = async |argv: &[&str]| sandbox.exec(Exec::new(argv.iter().copied())).await.unwrap_err();
    let kind = |error: Error| match error {
        Error::Exec { cause, .. } => cause.kind(),
        other => panic!("{other}"),
    };
    assert_eq!(kind(fails(&["no-such-program"]).await), std::io::ErrorKind::NotFound);
    assert_eq!(kind(fails(&["/workspace/none"]).await), std::io::ErrorKind::NotFound);
    assert_eq!(kind(fails(&["/etc/passwd"]).await), std::io::ErrorKind::PermissionDenied);
    assert_eq!(kind(fails(&["/usr"]).await), std::io::ErrorKind::PermissionDenied);
    for argv in [&[][..], &[""], &["a\0b"]] {
        assert!(matches!(fails(argv).await, Error::Invalid { .. }), "{argv:?}");
    }
    let mut nowhere = Exec::new(["true"]);
    nowhere.cwd = Some("/nowhere".into());
    let error = sandbox.exec(nowhere).await.unwrap_err();
    assert_eq!(error.to_string(), "accept cwd: /nowhere: No such file or directory (os error 2)");
    assert_eq!(sh(&sandbox, "echo fine").await.stdout, "fine\n");
}

#[tokio::test]
async fn input_goes_in_and_its_end_is_seen() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let mut exec = Exec::new(["sha256sum"]);
    exec.stdin = Stdio::Piped;
    let mut process = sandbox.exec(exec).await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let data = vec![b'x'; 3 << 20];
    stdin.write_all(&data).await.unwrap();
    drop(stdin);
    let output = finish(process).await;
    assert_eq!(output.exit, Exit::Code(0));
    assert!(
        output.stdout.starts_with("1cae0e2c96a75f9df2aa3ee7ee0bd9c9e3e7c5a2") || output.stdout.len() == 68,
        "{output:?}"
    );
    assert_eq!(sh(&sandbox, "cat; echo end").await.stdout, "end\n", "no input is an empty input");
}

#[tokio::test]
async fn large_outputs_arrive_whole_and_apart() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let script =
        "import sys\nfor i in range(2000):\n sys.stdout.write('o'*2500)\n sys.stderr.write('e'*2500)";
    let output = python(&sandbox, script).await;
    assert_eq!(output.exit, Exit::Code(0));
    assert!(output.stdout.len() == 5_000_000 && output.stdout.bytes().all(|byte| byte == b'o'));
    assert!(output.stderr.len() == 5_000_000 && output.stderr.bytes().all(|byte| byte == b'e'));
}

#[tokio::test]
async fn a_prompt_of_100_kib_is_one_argument() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    // Quotes and newlines, which JSON escapes, and characters of several bytes.
    let prompt = "\"ä\n\\$(x)".repeat((100 << 10) / 10);
    let exec = Exec::new(["python3", "-c", "import sys; sys.stdout.write(sys.argv[1])", &prompt]);
    let output = finish(sandbox.exec(exec).await.unwrap()).await;
    assert!(output.stdout == prompt, "{} of {} bytes, {:?}", output.stdout.len(), prompt.len(), output.exit);
    // The same as a variable, and several at a time up to what the kernel takes.
    let mut exec = Exec::new(["python3", "-c", "import os; print(sum(len(v) for v in os.environ.values()))"]);
    exec.env = (0..15).map(|number| (format!("V{number}"), "v".repeat(120_000))).collect();
    let output = finish(sandbox.exec(exec).await.unwrap()).await;
    assert!(output.stdout.trim().parse::<usize>().unwrap() > 15 * 120_000, "{output:?}");
    // Over the limits: an error with a name, before anything is sent.
    for argv in [vec!["true".to_owned(), "x".repeat(128 << 10)], vec!["y".repeat(100_000); 30]] {
        assert!(matches!(sandbox.exec(Exec::new(argv)).await, Err(Error::Invalid { .. })));
    }
    assert_eq!(sh(&sandbox, "echo fine").await.stdout, "fine\n");
}

/// Starts a grandchild in a session of its own whose parent has gone, which writes a beat to the workspace.
pub const HIDDEN_CHILD: &str = "import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for f in (0, 1, 2): os.close(f)
        while True:
            with open('/workspace/beat', 'a') as f: f.write('.')
            time.sleep(0.01)
    os._exit(0)
while not os.path.exists('/workspace/beat'): time.sleep(0.01)
print('alive', flush=True)
time.sleep(600)
";

#[tokio::test]
async fn the_timeout_ends_also_what_hides() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    check_that_the_timeout_ends_also_what_hides(&host, &sandbox).await;
}

pub async fn check_that_the_timeout_ends_also_what_hides(host: &Host, sandbox: &wardian_sandbox::Sandbox) {
    // Another exec at the same time, which must live on.
    let mut bystander = sandbox.exec(Exec::new(["sleep", "600"])).await.unwrap();
    let mut exec = Exec::new(["python3", "-c", HIDDEN_CHILD]);
    exec.timeout = Some(Duration::from_millis(1500));
    let mut process = sandbox.exec(exec).await.unwrap();
    let mut alive = [0; 6];
    process.stdout.as_mut().unwrap().read_exact(&mut alive).await.unwrap();
    let beat = host.folder.path().join("volumes").join(sandbox.name()).join("beat");
    let before = std::fs::metadata(&beat).unwrap().len();
    assert_eq!(process.wait().await.unwrap(), Exit::TimedOut);
    let after = std::fs::metadata(&beat).unwrap().len();
    assert!(after > before, "the hidden child was alive until the timeout");
    let listed = python(sandbox, PROCESSES).await;
    assert_eq!(listed.stdout, "['sleep']\n", "nothing of the exec is left, the other one is ({listed:?})");
    assert_eq!(std::fs::metadata(&beat).unwrap().len(), after, "and it writes no more");
    bystander.kill().await.unwrap();
    assert_eq!(bystander.wait().await.unwrap(), Exit::Signal(9));
    assert_eq!(python(sandbox, PROCESSES).await.stdout, "[]\n");
}

/// Prints the names of all processes but the guest's own and the asker.
pub const PROCESSES: &str = "import os
names = []
for p in os.listdir('/proc'):
    if p.isdigit() and int(p) not in (1, os.getpid()):
        try:
            state = open(f'/proc/{p}/stat').read().rsplit(')', 1)[1].split()[0]
            name = open(f'/proc/{p}/comm').read().strip()
            if state != 'Z' and not name.startswith('wardian'): names.append(name)
        except OSError: pass
print(sorted(names))";

#[tokio::test]
async fn killing_and_dropping_end_the_whole_tree() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let mut process = sandbox.exec(Exec::new(["sh", "-c", "sleep 601 & sleep 602"])).await.unwrap();
    process.kill().await.unwrap();
    process.kill().await.unwrap();
    assert_eq!(process.wait().await.unwrap(), Exit::Signal(9));
    assert_eq!(process.wait().await.unwrap(), Exit::Signal(9), "asked again, the answer is the same");
    process.kill().await.unwrap();
    assert_eq!(python(&sandbox, PROCESSES).await.stdout, "[]\n");

    let process = sandbox.exec(Exec::new(["sh", "-c", "(setsid sleep 603 &) ; sleep 604"])).await.unwrap();
    drop(process);
    eventually(async || python(&sandbox, PROCESSES).await.stdout == "[]\n").await;
}

#[tokio::test]
async fn what_is_left_in_the_background_lives_until_the_sandbox_ends() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let output = sh(&sandbox, "sleep 605 >/dev/null 2>&1 & echo started").await;
    assert_eq!(output.stdout, "started\n");
    assert_eq!(python(&sandbox, PROCESSES).await.stdout, "['sleep']\n");
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn many_at_a_time_are_not_mixed_up() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let runs = (0..40).map(|number| {
        let sandbox = &sandbox;
        async move {
            let output = sh(sandbox, &format!("echo out{number}; echo err{number} >&2; exit {number}")).await;
            assert_eq!(output.exit, Exit::Code(number));
            assert_eq!((output.stdout, output.stderr), (format!("out{number}\n"), format!("err{number}\n")));
        }
    });
    join_all(runs).await;
}

#[tokio::test]
async fn a_stopped_program_is_still_ended_by_its_timeout() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let mut exec = Exec::new(["sh", "-c", "kill -STOP $$"]);
    exec.timeout = Some(Duration::from_millis(100));
    let mut process = sandbox.exec(exec).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), Exit::TimedOut);
}

#[tokio::test]
async fn a_terminal_can_be_had_inside() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let script = "import os, pty; m, s = pty.openpty(); print(os.ttyname(s), os.isatty(s))";
    let output = python(&sandbox, script).await;
    assert_eq!(output.stdout, "/dev/pts/0 True\n", "{output:?}");
}
