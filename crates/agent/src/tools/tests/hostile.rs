//! What lies in a workspace is hostile: nothing in it hangs a tool, fills its memory or shows it the agent.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Place, make_fifo, text};

#[tokio::test]
async fn special_files_are_never_opened() {
    let place = Place::new();
    make_fifo(&place.path("fifo"));
    symlink("/dev/zero", place.path("zero")).unwrap();
    symlink("loop", place.path("loop")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    let started = Instant::now();
    for (path, says) in [
        ("fifo", "is a pipe"),
        ("zero", "is a device"),
        ("socket", "is a socket"),
        ("loop", "oo many levels of symbolic links"),
        ("/dev/zero", "is a device"),
        ("/dev/tty", "is a device"),
        ("/dev/stdin", ""),
        ("/dev/fd/0", ""),
        ("/proc/self/fd/0", ""),
    ] {
        for (tool, input) in [
            ("Read", json!({"file_path": path})),
            ("Edit", json!({"file_path": path, "old_string": "a", "new_string": "b"})),
            ("Write", json!({"file_path": path, "content": "b"})),
            ("Grep", json!({"path": path, "pattern": "a"})),
        ] as [(&str, Value); 4]
        {
            let error = place.fails(tool, input).await;
            assert!(error.contains(says) || error.contains("leads nowhere"), "{tool} {path}: {error}");
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn the_agent_itself_cannot_be_read() {
    let place = Place::new();
    let own = std::process::id();
    let thread = rustix::thread::gettid().as_raw_pid();
    symlink("/proc/self", place.path("me")).unwrap();
    symlink(format!("/proc/{own}/environ"), place.path("env")).unwrap();
    let open = std::fs::File::open(place.put("secret", "x")).unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&open);
    std::fs::remove_file(place.path("secret")).unwrap();
    for path in [
        "/proc/self/environ".to_owned(),
        "/proc/self/mem".to_owned(),
        "/proc/self/maps".to_owned(),
        "/proc/self/cmdline".to_owned(),
        "/proc/thread-self/environ".to_owned(),
        "/proc/self/root/proc/self/environ".to_owned(),
        format!("/proc/{own}/environ"),
        format!("/proc/{thread}/environ"),
        format!("/proc/{own}/task/{thread}/environ"),
        format!("/proc/self/fd/{descriptor}"),
        format!("/proc/self/fdinfo/{descriptor}"),
        format!("/dev/fd/{descriptor}"),
        format!("/proc/{}/environ", rustix::process::getppid().unwrap().as_raw_pid()),
        "/proc/../proc/self/environ".to_owned(),
        "me/environ".to_owned(),
        "env".to_owned(),
    ] {
        for (tool, input) in [
            ("Read", json!({"file_path": path})),
            ("Edit", json!({"file_path": path, "old_string": "a", "new_string": "b"})),
            ("Write", json!({"file_path": path, "content": "b"})),
            ("Grep", json!({"path": path, "pattern": "a"})),
        ] as [(&str, Value); 4]
        {
            let error = place.fails(tool, input).await;
            assert!(
                error.contains("about a process") || error.contains("Permission denied"),
                "{tool} {path}: {error}"
            );
        }
    }
    // Neither by searching the folder.
    let input = json!({"path": "/proc/self", "pattern": ".", "output_mode": "content", "glob": "environ"});
    let output = place.call("Grep", input).await;
    assert!(text(&output).starts_with("[nothing found]"), "{output:?}");
    // What /proc tells about the machine may be read.
    assert!(place.ok("Read", json!({"file_path": "/proc/version"})).await.starts_with("1\tLinux version"));
    place.ok("Read", json!({"file_path": "/proc/sys/kernel/pid_max"})).await;
}

#[tokio::test]
async fn ignore_files_that_would_hang_are_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.path(".git")).unwrap();
    for (folder, name) in [("a", ".gitignore"), ("b", ".ignore")] {
        place.put(&format!("{folder}/f"), "needle");
        make_fifo(&place.path(&format!("{folder}/{name}")));
    }
    place.put("c/f", "needle");
    symlink("/dev/zero", place.path("c/.gitignore")).unwrap();
    place.put("d/f", "needle");
    let big = std::fs::File::create(place.path("d/.gitignore")).unwrap();
    big.set_len(1 << 40).unwrap();
    place.put("good/f", "needle");
    let started = Instant::now();
    let found = place.ok("Grep", json!({"pattern": "needle"})).await;
    assert_eq!(found, "good/f");
    // Also where the folder itself, or one above it, has one.
    let found = place.ok("Grep", json!({"pattern": "needle", "path": "a"})).await;
    assert_eq!(found, "a/f");
    assert_eq!(place.ok("Glob", json!({"pattern": "f"})).await.lines().count(), 5);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = Place::new();
    std::fs::write(place.cwd.join(std::ffi::OsStr::from_bytes(b"bad\xffname.txt")), "needle").unwrap();
    std::fs::write(place.cwd.join("\u{1b}[31mred"), "needle").unwrap();
    let found = place.ok("Grep", json!({"pattern": "needle", "output_mode": "count"})).await;
    assert_eq!(found, "\\u{1b}[31mred:1\nbad\u{fffd}name.txt:1");
    assert!(place.ok("Glob", json!({"pattern": "*.txt"})).await.contains("bad\u{fffd}name.txt"));
}

#[tokio::test]
async fn costly_patterns_end() {
    let place = Place::new();
    place.put("f", "a".repeat(200_000));
    let started = Instant::now();
    for pattern in
        ["(a*)*b", "(a|aa)+$x", "(.*)(.*)(.*)(.*)(.*)z", "(?:a?){200}a{200}q", "\\w{1,60}\\W\\w{1,60}"]
    {
        let _ = place.call("Grep", json!({"pattern": pattern, "output_mode": "content"})).await;
    }
    for pattern in ["*".repeat(1_000), "**/".repeat(500), "{a,b}".repeat(500), "?".repeat(4_000)] {
        let _ = place.call("Glob", json!({"pattern": pattern})).await;
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_wide_tree() {
    let place = Place::new();
    for n in 0..2_000 {
        std::fs::write(place.path(&format!("f{n}")), "needle\n").unwrap();
    }
    let found = place.call("Grep", json!({"pattern": "needle"})).await;
    assert_eq!(
        (&found.structured["numFiles"], &found.structured["totalFiles"]),
        (&json!(250), &json!(2_000))
    );
    let found = place.call("Glob", json!({"pattern": "*"})).await;
    assert_eq!(
        (&found.structured["numFiles"], &found.structured["totalMatches"]),
        (&json!(100), &json!(2_000))
    );
}
