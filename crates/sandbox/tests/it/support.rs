//! Launchers, sandboxes and short programs for the tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use wardian_sandbox::{Exec, Exit, Launcher, LauncherConfig, Process, Sandbox, Spec, Volume};

/// Nothing that a test waits for takes this long, however loaded the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the folder with the static programs; a test that misses it says what makes it.
pub fn libexec_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    let folder = std::env::var_os("WARDIAN_LIBEXEC_DIR").map_or(default, PathBuf::from);
    assert!(
        folder.join("wardian-guest").is_file(),
        "{} has no wardian-guest: build it with `make guest`, or `cargo rustc --profile guest -p wardian-sandbox \
         --bin wardian-guest -- -C target-feature=+crt-static` and copy it there (WARDIAN_LIBEXEC_DIR names another folder)",
        folder.display()
    );
    folder.canonicalize().unwrap()
}

/// A launcher with its own folders.
pub struct Host {
    pub launcher: Launcher,
    pub folder: tempfile::TempDir,
}

impl Host {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let launcher =
            Launcher::start(LauncherConfig::new(libexec_dir(), folder.path().join("state"))).unwrap();
        Self { launcher, folder }
    }

    /// Returns a spec with a fresh workspace of its own at `/workspace`.
    pub fn spec(&self, name: &str) -> Spec {
        let host = self.folder.path().join("volumes").join(name);
        self.launcher.make_volume(&host, None).unwrap();
        Spec::new(Volume::new(host, "/workspace"))
    }

    pub async fn sandbox(&self, name: &str) -> Sandbox {
        self.launcher.create(name, &self.spec(name)).await.unwrap()
    }
}

/// What a program said and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

pub async fn finish(mut process: Process) -> Output {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (mut out, mut err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
    let all = async {
        let (a, b) = tokio::join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr));
        a.unwrap();
        b.unwrap();
        process.wait().await.unwrap()
    };
    let exit = tokio::time::timeout(PATIENCE, all).await.expect("the program ends");
    Output {
        exit,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Reads one line of a program's output.
pub async fn line(process: &mut Process) -> String {
    let mut line = Vec::new();
    let stdout = process.stdout.as_mut().unwrap();
    while !line.ends_with(b"\n") {
        match tokio::time::timeout(PATIENCE, stdout.read_u8()).await.expect("the program says something") {
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(line).unwrap()
}

pub async fn run(sandbox: &Sandbox, argv: &[&str]) -> Output {
    finish(sandbox.exec(Exec::new(argv.iter().copied())).await.unwrap()).await
}

pub async fn sh(sandbox: &Sandbox, script: &str) -> Output {
    run(sandbox, &["sh", "-c", script]).await
}

pub async fn python(sandbox: &Sandbox, script: &str) -> Output {
    run(sandbox, &["python3", "-c", script]).await
}

/// Asks again until it is so.
pub async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it becomes so in time");
}

/// Runs all at the same time.
pub async fn join_all(futures: impl IntoIterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
