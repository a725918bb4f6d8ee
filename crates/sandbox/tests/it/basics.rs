//! Programs run, say what they say, and end as they end.

use super::support::*;
use wardian_sandbox::Exit;

#[tokio::test]
async fn a_program_runs_and_its_streams_and_status_come_out() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let output = sh(&sandbox, "echo out; echo err >&2; exit 7").await;
    assert_eq!(output, Output { exit: Exit::Code(7), stdout: "out\n".into(), stderr: "err\n".into() });
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn python_runs() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let output =
        python(&sandbox, "import os; print(os.getuid(), os.getpid() > 1, sorted(os.environ), os.getcwd())")
            .await;
    assert_eq!(output.stdout, "1000 True ['HOME', 'LC_CTYPE', 'PATH'] /workspace\n", "{output:?}");
}

#[tokio::test]
async fn the_doctor_finds_nothing_wrong_here_but_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let config = wardian_sandbox::LauncherConfig::new(libexec_dir(), folder.path().join("state"));
    let checks = wardian_sandbox::doctor::check(&config).await;
    let wrong: Vec<_> =
        checks.iter().filter(|check| !check.ok && !check.detail.contains("wardian-agent")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checks.iter().filter(|check| check.name.starts_with("held: ")).count() > 20, "{checks:#?}");
    assert!(!folder.path().join("state").exists(), "it leaves nothing behind");
}
