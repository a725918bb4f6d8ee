//! What is inside sees nothing of the host, nothing of its neighbours, and can widen nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use wardian_sandbox::{Error, Exec, Exit, Shown, Spec, Volume};

use super::support::*;

#[tokio::test]
async fn the_environment_is_exactly_what_was_named() {
    let host = Host::start();
    let mut spec = host.spec("one");
    spec.env = vec![("A".into(), "1 = x".into()), ("HOME".into(), "/workspace".into())];
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let mut exec = Exec::new(["/usr/bin/env", "-0"]);
    exec.env = vec![("B".into(), "ä\n".into()), ("A".into(), "2".into())];
    let output = finish(sandbox.exec(exec).await.unwrap()).await;
    let mut variables: Vec<_> = output.stdout.split_terminator('\0').collect();
    variables.sort_unstable();
    assert_eq!(variables, ["A=2", "B=ä\n", "HOME=/workspace", "PATH=/usr/local/bin:/usr/bin:/bin"]);
    for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
        let mut exec = Exec::new(["true"]);
        exec.env = vec![(name.into(), value.into())];
        assert!(matches!(sandbox.exec(exec).await, Err(Error::Invalid { .. })), "{name:?}");
    }
}

#[tokio::test]
async fn no_descriptor_is_inherited() {
    // One of this process's that would be inherited if anything were.
    let secret = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let script = "import os; print(sorted(int(f) for f in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{f}')))";
    assert_eq!(python(&sandbox, script).await.stdout, "[0, 1, 2]\n");
    let guest = python(
        &sandbox,
        "import os\ntry: print(os.listdir('/proc/1/fd'))\nexcept OSError as e: print(e.errno)",
    )
    .await;
    assert_eq!(guest.stdout, "13\n", "the guest's own are not even seen");
}

#[tokio::test]
async fn the_host_is_not_there() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let listed =
        sh(&sandbox, "ls -A / | tr '\\n' ' '; ls -A /home /root /boot /opt /srv /mnt /sys 2>/dev/null").await;
    let allowed = "bin dev etc home lib lib32 lib64 libx32 proc run sbin tmp usr var workspace";
    let (root, rest) = listed.stdout.split_once("workspace ").unwrap();
    assert!(root.split_whitespace().all(|name| allowed.split(' ').any(|one| one == name)), "{listed:?}");
    assert_eq!(rest, "/home:\nagent\n", "{listed:?}");
    for path in [
        "/etc/shadow",
        "/etc/sudoers",
        "/etc/ssh",
        "/root",
        "/home/root",
        "/sys/fs/cgroup",
        "/var/lib",
        "/var/log",
    ] {
        assert_ne!(sh(&sandbox, &format!("ls -d {path}")).await.exit, Exit::Code(0), "{path}");
    }
    // By ways around: the root and current folder of every process, and what was the root before.
    let around = "import os
seen = set()
for p in ['self', '1', *[d for d in os.listdir('/proc') if d.isdigit()]]:
    for way in ('root', 'cwd', 'root/..', 'cwd/../..', 'root/proc/1/root'):
        try: seen.update(os.listdir(f'/proc/{p}/{way}'))
        except OSError: pass
print('root' in seen, 'boot' in seen, 'workspace' in seen)";
    assert_eq!(python(&sandbox, around).await.stdout, "False False True\n");
    // What tells about the host is covered.
    let covered = sh(
        &sandbox,
        "cat /proc/cmdline /proc/kallsyms /proc/keys /proc/modules /proc/key-users 2>/dev/null | wc -c",
    )
    .await;
    assert_eq!(covered.stdout, "0\n");
    let mounts = sh(&sandbox, "cat /proc/self/mountinfo").await.stdout;
    let state = host.folder.path().join("state");
    assert!(!mounts.contains(state.to_str().unwrap()), "{mounts}");
    let cgroup = sh(&sandbox, "cat /proc/self/cgroup").await.stdout;
    assert!(!cgroup.contains("wardian"), "{cgroup}");
}

#[tokio::test]
async fn what_is_read_only_stays_so() {
    let host = Host::start();
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = shared.path().join("file");
    std::fs::write(&file, "host\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut spec = host.spec("one");
    spec.read_only = vec![shared.path().to_owned()];
    spec.shown = vec![Shown::new(shared.path(), "/mnt/shown")];
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let path = shared.path().display();
    assert_eq!(sh(&sandbox, &format!("cat {path}/file")).await.stdout, "host\n", "at its own path");
    assert_eq!(sh(&sandbox, "cat /mnt/shown/file").await.stdout, "host\n", "at another path");
    for script in [
        format!("echo x > {path}/file"),
        format!("echo x >> /proc/self/root{path}/file"),
        format!("cd {path} && echo x > /proc/self/cwd/file"),
        format!("exec 9<{path}/file; echo x > /proc/self/fd/9"),
        format!("touch {path}/new"),
        format!("rm -f {path}/file && test ! -e {path}/file"),
        format!("mv {path}/file {path}/other"),
        format!("ln {path}/file /workspace/file"),
        format!("chmod 600 {path}/file"),
        format!("mount -o remount,rw {path}"),
        format!("mkdir /workspace/m; mount --bind {path} /workspace/m"),
        "echo x > /mnt/shown/file".to_owned(),
        "touch /mnt/shown/new || touch /mnt/new".to_owned(),
        "rm -f /mnt/shown/file && test ! -e /mnt/shown/file".to_owned(),
        "mount -o remount,rw /mnt/shown".to_owned(),
        "touch /usr/new /usr/bin/new /etc/new /new /run/new /run/wardian/new /dev/new /proc/new".to_owned(),
        "echo x > /etc/passwd".to_owned(),
        "echo x > /run/wardian/wardian-guest".to_owned(),
        "rm -f /run/wardian/wardian-guest".to_owned(),
        "echo 1 > /proc/sys/vm/drop_caches".to_owned(),
        "echo x > /proc/sys/kernel/hostname".to_owned(),
    ] {
        let output = sh(&sandbox, &script).await;
        assert_ne!(output.exit, Exit::Code(0), "{script}: {output:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "host\n");
    assert_eq!(std::fs::read_dir(shared.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn neighbours_see_nothing_of_each_other() {
    let host = Host::start();
    let (mut one, mut two) = (host.spec("one"), host.spec("two"));
    (one.tenant, two.tenant) = (Some("first".into()), Some("second".into()));
    for (spec, name, tenant) in [(&mut one, "a", "first"), (&mut two, "b", "second")] {
        let folder = host.folder.path().join(name);
        host.launcher.make_volume(&folder, Some(tenant)).unwrap();
        spec.workspace = Volume::new(folder, "/workspace");
    }
    let one = host.launcher.create("one", &one).await.unwrap();
    let two = host.launcher.create("two", &two).await.unwrap();
    let mut secret = Exec::new([
        "sh",
        "-c",
        "echo secret > /workspace/x; echo secret > /tmp/x; echo secret > ~/x; exec sleep 600",
    ]);
    secret.env = vec![("TOKEN".into(), "secret".into())];
    let process = one.exec(secret).await.unwrap();
    eventually(async || sh(&one, "cat ~/x").await.stdout == "secret\n").await;
    let search = "grep -rs secret /workspace /tmp /home /proc/[0-9]*/environ /dev/shm | grep -v ^/proc/self; ls /proc | grep -c '^[0-9]'";
    let found = sh(&two, search).await;
    assert!(!found.stdout.contains("secret"), "{found:?}");
    assert_eq!(python(&two, super::execs::PROCESSES).await.stdout, "[]\n");
    // Neither by signals nor by abstract sockets, shared memory or message queues.
    let listen =
        python(&one, "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0wardian-test')").await;
    assert_eq!(listen.exit, Exit::Code(0));
    let killed = sh(&two, "kill -9 -1; for p in $(seq 2 400); do kill -9 $p 2>/dev/null; done; true").await;
    assert_eq!(killed.exit, Exit::Signal(9), "it killed itself, and nobody else");
    assert_eq!(python(&one, super::execs::PROCESSES).await.stdout, "['sleep']\n");
    assert_eq!(sh(&two, "echo still here").await.stdout, "still here\n", "not even its guest");
    drop(process);
    if host.launcher.capabilities().uid_per_tenant {
        let owner = |name: &str| std::fs::metadata(host.folder.path().join(name)).unwrap().uid();
        assert_ne!(owner("a"), owner("b"), "two tenants are two users on the host");
        assert!(owner("a") >= 0x7000_0000);
    }
}

#[tokio::test]
async fn there_is_no_network_but_the_loopback() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let script = "import socket
print([name for _, name in socket.if_nameindex()])
for address in ('1.1.1.1', '169.254.169.254', '10.0.0.1', '172.16.0.23'):
    s = socket.socket(); s.settimeout(2)
    try: s.connect((address, 80)); print('connected', address)
    except OSError as e: print(e.errno)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: u.sendto(b'x', ('1.1.1.1', 53)); print('sent')
except OSError as e: print(e.errno)
try: socket.getaddrinfo('example.com', 80); print('resolved')
except OSError as e: print('unresolved')
l = socket.create_server(('127.0.0.1', 8000)); c = socket.create_connection(('127.0.0.1', 8000)); print('loopback')";
    let output = python(&sandbox, script).await;
    assert_eq!(output.stdout, "['lo']\n101\n101\n101\n101\n101\nunresolved\nloopback\n", "{output:?}");
}

#[tokio::test]
async fn dangerous_calls_are_refused() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let script = "import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*a):
    r = libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
    return 'worked' if r >= 0 else errno.errorcode[ctypes.get_errno()]
print(call(165, b'none', b'/tmp', b'tmpfs', 0, 0), call(272, 0x10000000), call(101, 0), call(425, 1, 0), call(435, 0, 0),
  call(308, 0, 0), call(155, b'/', b'/'), call(321, 0, 0, 0), call(250, 0), call(298, 0), call(323, 0), call(246, 0),
  call(175, 0), call(16, 0, 0x5412, b'x'), call(56, 0x10000011, 0), call(56, 0x00020011, 0), call(41, 17, 3, 0), call(437, -100, b'/', 0, 0),
  call(90, b'/workspace', 0o4755), call(90, b'/workspace', 0o2755), call(9999))";
    let output = python(&sandbox, script).await;
    let expected = "EPERM EPERM EPERM ENOSYS ENOSYS EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM EPERM ENOSYS EPERM EPERM ENOSYS\n";
    if cfg!(target_arch = "x86_64") {
        assert_eq!(output.stdout, expected, "{output:?}");
    }
    let status =
        sh(&sandbox, "grep -E '^(Cap|NoNew|Seccomp:|Uid|Gid|Groups)' /proc/self/status | tr -d '\\n\\t '")
            .await
            .stdout;
    let none = "0000000000000000";
    assert!(
        status.starts_with("Uid:1000100010001000Gid:1000100010001000Groups:")
            && status.ends_with(&format!(
                "CapInh:{none}CapPrm:{none}CapEff:{none}CapBnd:{none}CapAmb:{none}NoNewPrivs:1Seccomp:2"
            )),
        "{status}"
    );
    // Programs that gain rights by their file do not.
    let gained = sh(&sandbox, "for p in su mount passwd newgrp; do f=$(command -v $p) && [ -u $f ] && $f -c id </dev/null; done; id -u").await;
    assert!(gained.stdout.ends_with("1000\n") && !gained.stdout.contains("uid=0"), "{gained:?}");
    let threads =
        "import threading\nt = threading.Thread(target=lambda: print('thread')); t.start(); t.join()";
    assert_eq!(python(&sandbox, threads).await.stdout, "thread\n", "without clone3 there are still threads");
}

#[tokio::test]
async fn a_users_own_folder_keeps_its_owner() {
    let host = Host::start();
    let project = tempfile::tempdir().unwrap();
    // As root, a folder of some other user; without, there is only one user.
    let _ = std::os::unix::fs::chown(project.path(), Some(12345), Some(12346));
    std::fs::write(project.path().join("old"), "old\n").unwrap();
    let _ = std::os::unix::fs::chown(project.path().join("old"), Some(12345), Some(12346));
    let owner = std::fs::metadata(project.path()).unwrap();
    let sandbox = host.launcher.create("one", &Spec::new(Volume::same(project.path()))).await.unwrap();
    let output = sh(&sandbox, "pwd; echo new > new; echo changed >> old; stat -c %u:%g . old new").await;
    let expected = format!("{}\n1000:1000\n1000:1000\n1000:1000\n", project.path().display());
    assert_eq!(output.stdout, expected, "{output:?}");
    for name in ["old", "new"] {
        let meta = std::fs::metadata(project.path().join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (owner.uid(), owner.gid()), "{name}");
    }
    assert_eq!(std::fs::read_to_string(project.path().join("old")).unwrap(), "old\nchanged\n");
}

#[tokio::test]
async fn folders_lie_inside_each_other_and_links_in_their_place_are_refused() {
    let host = Host::start();
    let project = tempfile::tempdir().unwrap();
    let inner = project.path().join("vendor");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("file"), "vendor\n").unwrap();
    let mut spec = Spec::new(Volume::same(project.path()));
    spec.read_only = vec![inner.clone()];
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let output = sh(&sandbox, "cat vendor/file; touch ok && ls; touch vendor/no").await;
    assert_eq!(output.stdout, "vendor\nok\nvendor\n", "{output:?}");
    assert_ne!(output.exit, Exit::Code(0));
    sandbox.destroy().await.unwrap();

    // The agent replaces the folder by a link to somewhere else before the next start.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::rename(&inner, project.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &inner).unwrap();
    let error = host.launcher.create("two", &spec).await.unwrap_err();
    assert!(matches!(error, Error::Isolation { .. }), "{error}");
    assert!(host.launcher.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_spec_that_would_break_the_walls_is_refused() {
    let host = Host::start();
    let good = host.spec("one");
    let folder = host.folder.path().to_owned();
    for inside in [
        "/",
        "/usr",
        "/usr/x",
        "/etc",
        "/proc",
        "/proc/self",
        "/dev",
        "/run/wardian",
        "/tmp",
        "relative",
        "/a/../etc",
        "/bin",
    ] {
        let mut spec = good.clone();
        spec.workspace = Volume::new(&folder, inside);
        let error = host.launcher.create("one", &spec).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{inside}: {error}");
    }
    for (read_only, why) in
        [("/", "root"), ("/etc", "etc"), ("/proc", "proc"), ("/nonexistent", "nothing"), ("x", "relative")]
    {
        let mut spec = good.clone();
        spec.read_only = vec![read_only.into()];
        let error = host.launcher.create("one", &spec).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{why}: {error}");
        spec.read_only = Vec::new();
        spec.shown = vec![Shown::new(host.folder.path(), read_only.replace("/nonexistent", "/usr/x"))];
        let error = host.launcher.create("one", &spec).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "shown, {why}: {error}");
    }
    for host_folder in ["/nonexistent", "/etc/passwd", "relative"] {
        let mut spec = good.clone();
        spec.workspace = Volume::new(host_folder, "/workspace");
        assert!(
            matches!(host.launcher.create("one", &spec).await, Err(Error::Invalid { .. })),
            "{host_folder}"
        );
    }
    for name in ["", "a/b", "..", "a b", "ä", &"x".repeat(65)] {
        assert!(matches!(host.launcher.create(name, &good).await, Err(Error::Invalid { .. })), "{name}");
    }
    let mut twice = good.clone();
    twice.home = Some(Volume::new(&folder, "/workspace"));
    assert!(matches!(host.launcher.create("one", &twice).await, Err(Error::Invalid { .. })));
    assert!(host.launcher.list().await.unwrap().is_empty());
    let sandbox = host.launcher.create("one", &good).await.unwrap();
    assert!(matches!(host.launcher.create("one", &good).await, Err(Error::Exists { .. })));
    assert_eq!(sh(&sandbox, "echo fine").await.stdout, "fine\n");
}

#[tokio::test]
async fn a_folder_below_tmp_and_a_home_of_ones_own() {
    let host = Host::start();
    let mut spec = host.spec("one");
    spec.workspace.inside = "/tmp/a/b".into();
    let home = host.folder.path().join("home");
    host.launcher.make_volume(&home, None).unwrap();
    spec.home = Some(Volume::new(&home, "/home/agent"));
    spec.hostname = "box".into();
    let sandbox = host.launcher.create("one", &spec).await.unwrap();
    let output = sh(&sandbox, "pwd; echo $HOME; touch ~/kept /tmp/gone here; uname -n; whoami").await;
    assert_eq!(output.stdout, "/tmp/a/b\n/home/agent\nbox\nagent\n", "{output:?}");
    sandbox.destroy().await.unwrap();
    assert!(home.join("kept").exists() && spec.workspace.host.join("here").exists());
    let again = host.launcher.create("one", &spec).await.unwrap();
    assert_eq!(sh(&again, "ls ~ /tmp").await.stdout, "/home/agent:\nkept\n\n/tmp:\na\n");
}

#[tokio::test]
async fn the_guest_hides_its_memory() {
    let host = Host::start();
    let sandbox = host.sandbox("one").await;
    let script = "for f in environ mem maps fd cwd root exe auxv stack syscall; do cat /proc/1/$f >/dev/null 2>&1 && echo $f; ls -l /proc/1/$f/ >/dev/null 2>&1 && echo $f; done; kill -STOP 1; kill -KILL 1; kill -TERM 1; echo alive";
    assert_eq!(sh(&sandbox, script).await.stdout, "alive\n");
    assert_eq!(sh(&sandbox, "echo still").await.stdout, "still\n");
}
