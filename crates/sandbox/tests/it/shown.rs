//! Folders of the host's shown at another path: read, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::os::unix::fs::PermissionsExt;

use wardian_sandbox::{Error, Exit, Shown, Spec, Volume};

use super::support::*;

/// A folder with a file and a program in it.
fn folder(host: &Host) -> std::path::PathBuf {
    let folder = host.folder.path().join("shown");
    std::fs::create_dir_all(folder.join("deep/er")).unwrap();
    std::fs::write(folder.join("deep/er/file"), "host\n").unwrap();
    std::fs::write(folder.join("program"), "#!/bin/sh\necho ran\n").unwrap();
    for (path, mode) in [("", 0o755), ("deep/er/file", 0o444), ("program", 0o755)] {
        std::fs::set_permissions(folder.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    folder
}

#[tokio::test]
async fn it_is_read_at_its_other_path_and_nothing_else_can_be_done_with_it() {
    let host = Host::start();
    let shown = folder(&host);
    let mut spec = host.spec("one");
    spec.shown = vec![Shown::new(&shown, "/mnt")];
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    assert_eq!(sh(&sandbox, "cat /mnt/deep/er/file").await.stdout, "host\n");
    for attempt in [
        "echo x > /mnt/new",
        "echo x >> /mnt/deep/er/file",
        "rm -f /mnt/deep/er/file",
        "mv /mnt/deep /mnt/moved",
        "chmod 666 /mnt/deep/er/file",
        "ln /mnt/deep/er/file /workspace/linked",
        "ln -s x /mnt/link",
        "mkdir /mnt/folder",
        "touch /mnt/deep/er/file",
        "/mnt/program",
        "exec 3< /mnt/deep/er/file; echo x > /proc/self/fd/3",
    ] {
        let output = sh(&sandbox, attempt).await;
        assert_ne!(output.exit, Exit::Code(0), "{attempt}: {output:?}");
        assert_eq!(output.stdout, "", "{attempt}");
    }
    let flags = sh(&sandbox, "grep ' /mnt ' /proc/self/mountinfo | cut -d' ' -f6").await.stdout;
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(flags.trim().split(',').any(|found| found == flag), "{flag} of {flags}");
    }
    // What the host adds and removes is seen at once.
    std::fs::write(shown.join("later"), "later\n").unwrap();
    std::fs::remove_file(shown.join("deep/er/file")).unwrap();
    let output = sh(&sandbox, "cat /mnt/later; ls /mnt/deep/er").await;
    assert_eq!((output.exit, output.stdout.as_str()), (Exit::Code(0), "later\n"));
    sandbox.destroy().await.unwrap();
    assert_eq!(std::fs::read_dir(&shown).unwrap().count(), 3, "nothing was added from inside");
}

#[tokio::test]
async fn it_may_lie_in_a_volume_and_no_link_leads_it_elsewhere() {
    let host = Host::start();
    let shown = folder(&host);
    let mut spec = host.spec("one");
    spec.shown = vec![Shown::new(&shown, "/workspace/vendor"), Shown::new(shown.join("deep"), "/tmp/deep")];
    let point = spec.workspace.host.join("vendor");
    std::fs::create_dir(&point).unwrap();
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let output =
        sh(&sandbox, "cat vendor/deep/er/file /tmp/deep/er/file; touch here && touch vendor/no").await;
    assert_eq!(output.stdout, "host\nhost\n", "{output:?}");
    assert_ne!(output.exit, Exit::Code(0));
    sandbox.destroy().await.unwrap();
    std::fs::remove_dir(&point).unwrap();
    std::os::unix::fs::symlink("/home", &point).unwrap();
    let error = host.launcher.create("two", &spec).await.unwrap_err();
    assert!(matches!(error, Error::Isolation { .. }), "{error}");
    assert!(host.launcher.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn one_that_would_break_the_walls_is_refused() {
    let host = Host::start();
    let shown = folder(&host);
    let good = host.spec("one");
    let refused = async |shown: Vec<Shown>, why: &str| {
        let spec = Spec { shown, ..good.clone() };
        let error = host.launcher.create("one", &spec).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{why}: {error}");
    };
    for inside in [
        "/",
        "",
        "/usr",
        "/usr/local/x",
        "/etc",
        "/proc/1",
        "/dev/x",
        "/run/wardian",
        "/sys",
        "/tmp",
        "/var",
        "/var/tmp/x",
        "mnt",
        "/mnt/../etc",
        "/mnt/a/..",
        "/workspace",
        "/bin/sh",
    ] {
        refused(vec![Shown::new(&shown, inside)], inside).await;
    }
    let file = shown.join("program");
    for path in ["/nonexistent", "relative", "", "/tmp/..", file.to_str().unwrap()] {
        refused(vec![Shown::new(path, "/mnt")], path).await;
    }
    refused(vec![Shown::new(&shown, "/mnt"), Shown::new(&shown, "/mnt")], "twice").await;
    let many = (0..65).map(|number| Shown::new(&shown, format!("/mnt/{number}")));
    refused(many.collect(), "too many").await;
    let mut spec = good.clone();
    spec.shown = vec![Shown::new(&shown, "/mnt")];
    spec.home = Some(Volume::new(&shown, "/mnt"));
    assert!(matches!(host.launcher.create("one", &spec).await, Err(Error::Invalid { .. })));
    assert!(format!("{spec:?}").contains("/mnt"));
    let sandbox = host.launcher.create("one", &good).await.unwrap();
    assert_eq!(sh(&sandbox, "echo fine; ls /mnt 2>&1").await.stdout.lines().next(), Some("fine"));
}
