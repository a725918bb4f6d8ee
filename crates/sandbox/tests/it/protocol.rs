//! What the peers send may be malformed, truncated, too long or hostile; the next good request works.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use wardian_sandbox::{Error, Exec, Launcher, LauncherConfig, Spec, Volume};

use super::support::*;

/// Installs a program in the place of `wardian-guest`. In the role of the launcher it becomes the real one, unless the
/// script says otherwise first.
fn libexec_with(folder: &Path, script: &str) -> LauncherConfig {
    let libexec = folder.join("libexec");
    std::fs::create_dir_all(&libexec).unwrap();
    let real = libexec_dir().join("wardian-guest");
    let program = format!(
        "#!/usr/bin/python3 -IS\nimport os, sys, socket, json, array\nlauncher = sys.argv[1] == 'launcher'\n{script}\n\
         if launcher: os.execv('{}', ['wardian-guest', 'launcher'])\n",
        real.display()
    );
    std::fs::write(libexec.join("wardian-guest"), program).unwrap();
    std::fs::set_permissions(libexec.join("wardian-guest"), std::fs::Permissions::from_mode(0o755)).unwrap();
    LauncherConfig::new(libexec, folder.join("state"))
}

#[tokio::test]
async fn a_launcher_that_is_missing_foreign_or_broken_is_an_error_with_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let start = |script: &str| Launcher::start(libexec_with(folder.path(), script)).unwrap_err();
    let missing =
        Launcher::start(LauncherConfig::new(folder.path(), folder.path().join("state"))).unwrap_err();
    assert!(
        matches!(missing, Error::MissingProgram { .. }) && missing.to_string().contains("make guest"),
        "{missing}"
    );
    let say = |what: &str| format!("s = socket.socket(fileno=0); s.recv(65536)\n{what}\nsys.exit(0)");
    let foreign = start(&say(
        "s.send(json.dumps({'hello': {'version': {'version': '9.9.9', 'protocol': 99}}}).encode())",
    ));
    assert!(matches!(foreign, Error::Version { .. }), "{foreign}");
    assert!(foreign.to_string().contains("9.9.9 (protocol 99)"), "{foreign}");
    for what in [
        "s.send(b'garbage')",
        "s.send(b'{\"hello\":')",
        "s.send(b'x' * 100000)",
        "s.send(b'\"done\"')",
        "s.send(b'\"list\"')",
    ] {
        let error = start(&say(what));
        assert!(matches!(error, Error::Protocol { .. }), "{what}: {error}");
    }
    let gone = start(&say(""));
    assert!(matches!(gone, Error::LauncherGone), "{gone}");
    Launcher::start(LauncherConfig::new(libexec_dir(), folder.path().join("state")))
        .unwrap()
        .health()
        .await
        .unwrap();
}

/// The start of a hostile guest: it has read its configuration.
const GUEST: &str = "if not launcher:
    s = socket.socket(fileno=3)
    config = json.loads(s.recv(65536))
    def hello(version): s.send(json.dumps({'hello': {'version': version}}).encode())
    def take():
        data, fds, _, _ = socket.recv_fds(s, 65536, 10)
        return socket.socket(fileno=fds[3])
";

#[tokio::test]
async fn a_hostile_guest_gets_nothing_but_its_own_end() {
    let folder = tempfile::tempdir().unwrap();
    let workspace = folder.path().join("workspace");
    type Expected = fn(&Error) -> bool;
    let protocol: Expected = |error| matches!(error, Error::Protocol { peer: "the guest", .. });
    let gone: Expected = |error| matches!(error, Error::SandboxGone);
    let version: Expected = |error| matches!(error, Error::Version { .. });
    let greetings: [(&str, Expected); 7] = [
        ("    sys.exit(0)", gone),
        ("    s.send(b'garbage')", protocol),
        ("    s.send(b'x' * 150000)", protocol),
        ("    s.send(b'{\"hello\": {\"version\": {\"version\": \"1\"}}}')", protocol),
        ("    s.send(b'\\xff\\xfe')", protocol),
        ("    hello({'version': '0.0.1', 'protocol': 7})", version),
        (
            "    s.send(json.dumps({'failed': {'exists': {'name': 'other'}}}).encode()); sys.stdin.read()",
            |error| matches!(error, Error::Exists { .. }),
        ),
    ];
    for (script, expected) in greetings {
        let launcher = Launcher::start(libexec_with(folder.path(), &format!("{GUEST}{script}"))).unwrap();
        launcher.make_volume(&workspace, None).unwrap();
        let spec = Spec::new(Volume::new(&workspace, "/workspace"));
        let error = launcher.create("one", &spec).await.unwrap_err();
        assert!(expected(&error), "{script}: {error:?}");
        eventually(async || launcher.list().await.unwrap().is_empty()).await;
        launcher.shut_down().await;
    }
    let start_failed: Expected = |error| matches!(error, Error::Exec { .. });
    let execs: [(&str, Expected); 8] = [
        ("    take(); sys.exit(0)", gone),
        ("    c = take(); c.send(b'garbage'); s.recv(1)", protocol),
        ("    c = take(); c.send(b'x' * 100000); s.recv(1)", protocol),
        ("    c = take(); c.send(json.dumps({'exited': {'code': 0}}).encode()); s.recv(1)", protocol),
        ("    c = take(); c.send(b'\"started\"'); c.send(b'\"started\"'); s.recv(1)", protocol),
        (
            "    c = take(); c.send(json.dumps({'failed': {'step': 'exec', 'errno': 2}}).encode()); s.recv(1)",
            start_failed,
        ),
        ("    c = take(); c.send(json.dumps({'exited': {'code': 1e99}}).encode()); s.recv(1)", protocol),
        (
            "    c = take(); c.send(b'\"started\"'); socket.send_fds(c, [b'{'], [0, 1, 2])\n    c.setblocking(False)\n    \
             try:\n        while True: s.send(b'flood' * 1000)\n    except BlockingIOError: pass\n    s.recv(1)",
            protocol,
        ),
    ];
    for (script, expected) in execs {
        let script = format!("{GUEST}    hello(config['version'])\n{script}");
        let launcher = Launcher::start(libexec_with(folder.path(), &script)).unwrap();
        let spec = Spec::new(Volume::new(&workspace, "/workspace"));
        let sandbox = launcher.create("one", &spec).await.unwrap();
        let error = match sandbox.exec(Exec::new(["true"])).await {
            Err(error) => error,
            Ok(mut process) => process.wait().await.unwrap_err(),
        };
        assert!(expected(&error), "{script}: {error:?}");
        sandbox.destroy().await.unwrap();
        launcher.shut_down().await;
    }
    let launcher = Launcher::start(LauncherConfig::new(libexec_dir(), folder.path().join("state"))).unwrap();
    let sandbox = launcher.create("one", &Spec::new(Volume::new(&workspace, "/workspace"))).await.unwrap();
    assert_eq!(sh(&sandbox, "echo fine").await.stdout, "fine\n");
}

/// A real launcher with a socket of ours.
fn raw_launcher() -> (Child, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let child = Command::new(libexec_dir().join("wardian-guest"))
        .arg("launcher")
        .env_clear()
        .stdin(theirs)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, ours)
}

fn receive(socket: impl AsFd) -> String {
    let mut bytes = vec![0; 65536];
    loop {
        match recv(&socket, &mut bytes[..], RecvFlags::empty()) {
            Ok((length, _)) => return String::from_utf8_lossy(&bytes[..length]).into_owned(),
            Err(rustix::io::Errno::CONNRESET) => (),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_launcher_ends_when_its_server_talks_nonsense_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let hello = |protocol: u32| {
        format!(
            r#"{{"hello":{{"version":{{"version":"{}","protocol":{protocol}}},"libexec_dir":"{}","state_dir":"{}"}}}}"#,
            env!("CARGO_PKG_VERSION"),
            libexec_dir().display(),
            folder.path().join("state").display()
        )
    };
    for first in ["garbage", "\"list\"", "{\"hello\":{}}", "M12345678", "M", &"x".repeat(100_000)] {
        let (mut child, socket) = raw_launcher();
        send(&socket, first.as_bytes(), SendFlags::NOSIGNAL).unwrap();
        assert_eq!(receive(&socket), "", "{first:.20}");
        assert!(!child.wait().unwrap().success(), "{first:.20}");
    }
    let (mut child, socket) = raw_launcher();
    send(&socket, hello(99).as_bytes(), SendFlags::NOSIGNAL).unwrap();
    assert!(
        receive(&socket).contains("\"hello\""),
        "it says its own version, so that the server can name both"
    );
    assert_eq!(receive(&socket), "");
    assert!(child.wait().unwrap().success());

    let (mut child, socket) = raw_launcher();
    send(&socket, hello(2).as_bytes(), SendFlags::NOSIGNAL).unwrap();
    assert!(receive(&socket).contains("\"hello\""));
    assert!(receive(&socket).contains("\"ready\""));
    // Requests that nobody can be answered for are dropped; then nonsense ends it.
    for request in ["\"list\"", "{\"destroy\":{\"name\":\"../../x\"}}", hello(2).as_str()] {
        send(&socket, request.as_bytes(), SendFlags::NOSIGNAL).unwrap();
    }
    send(&socket, b"{\"create\":{\"name\":1}}", SendFlags::NOSIGNAL).unwrap();
    assert_eq!(receive(&socket), "");
    assert!(!child.wait().unwrap().success());
    assert!(!folder.path().join("state/view").exists());
}
