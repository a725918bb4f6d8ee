use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Place, make_fifo, set_modified};
use crate::tool::ToolLimits;

#[tokio::test]
async fn a_new_file_with_its_folders() {
    let place = Place::new();
    let path = place.path("a/b/c.txt");
    let output = place.call("Write", json!({"file_path": path, "content": "x\ny\n"})).await;
    assert_eq!(output.content, json!(format!("Created {} (2 lines).", path.display())));
    assert_eq!(
        output.structured,
        json!({"type": "create", "filePath": path, "content": "x\ny\n", "structuredPatch": [],
               "originalFile": null, "userModified": false})
    );
    assert_eq!(place.get("a/b/c.txt"), "x\ny\n");
    assert_eq!(place.names("a/b"), ["c.txt"]);
    // What it wrote it knows.
    place.ok("Write", json!({"file_path": "a/b/c.txt", "content": "z"})).await;
    assert_eq!(place.get("a/b/c.txt"), "z");
}

#[tokio::test]
async fn an_existing_file_must_have_been_read() {
    let place = Place::new();
    let path = place.put("f", "one\ntwo\n");
    let input = json!({"file_path": "f", "content": "one\n2\n"});
    assert!(place.fails("Write", input.clone()).await.contains("has not been read yet"));
    place.ok("Read", json!({"file_path": "f"})).await;
    let output = place.call("Write", input).await;
    assert_eq!(
        output.structured,
        json!({"type": "update", "filePath": path, "content": "one\n2\n", "originalFile": "one\ntwo\n",
               "userModified": false, "structuredPatch": [
                   {"oldStart": 1, "oldLines": 2, "newStart": 1, "newLines": 2, "lines": [" one", "-two", "+2"]}]})
    );
    assert_eq!(place.get("f"), "one\n2\n");
}

#[tokio::test]
async fn a_file_changed_since_it_was_read_is_refused() {
    let place = Place::new();
    let path = place.put("f", "aaaa");
    place.ok("Read", json!({"file_path": "f"})).await;
    let modified = path.metadata().unwrap().modified().unwrap();
    // The same length, and the same time.
    std::fs::write(&path, "bbbb").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let error = place.fails("Write", json!({"file_path": "f", "content": "c"})).await;
    assert!(error.contains("has changed since it was read"), "{error}");
    assert_eq!(place.get("f"), "bbbb");
    // Only touched: still what was read.
    place.ok("Read", json!({"file_path": "f"})).await;
    set_modified(&path, 1_000_000);
    place.ok("Write", json!({"file_path": "f", "content": "c"})).await;
}

#[tokio::test]
async fn mode_stays_and_hard_links_part() {
    let place = Place::new();
    for mode in [0o755, 0o600, 0o640, 0o4755] {
        let path = place.put("f", "#!/bin/sh\n");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let _ = std::fs::remove_file(place.path("g"));
        std::fs::hard_link(&path, place.path("g")).unwrap();
        place.ok("Read", json!({"file_path": "f"})).await;
        place.ok("Write", json!({"file_path": "f", "content": "new"})).await;
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, mode & 0o777);
        assert_eq!((place.get("f"), place.get("g")), ("new".to_owned(), "#!/bin/sh\n".to_owned()));
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_link_stays_a_link() {
    let place = Place::new();
    place.put("real/target", "old");
    symlink("real/target", place.path("link")).unwrap();
    place.ok("Read", json!({"file_path": "link"})).await;
    place.ok("Write", json!({"file_path": "link", "content": "new"})).await;
    assert!(place.path("link").is_symlink());
    assert_eq!(place.get("real/target"), "new");
    // Both names are the same file.
    place.ok("Write", json!({"file_path": "real/target", "content": "newer"})).await;
    assert_eq!(place.names("real"), ["target"]);
    symlink("/nowhere/x", place.path("dangling")).unwrap();
    let error = place.fails("Write", json!({"file_path": "dangling", "content": ""})).await;
    assert!(error.contains("is a link that leads nowhere, to /nowhere/x"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_written() {
    let place = Place::with_limits(ToolLimits { file_bytes: 100, ..ToolLimits::default() });
    place.put("file", "x");
    std::fs::create_dir(place.path("folder")).unwrap();
    make_fifo(&place.path("fifo"));
    symlink("loop", place.path("loop")).unwrap();
    for (path, content, says) in [
        ("", "", "the path is empty"),
        ("a\0b", "", "NUL byte"),
        ("folder", "", "is a folder"),
        ("folder/", "", "names a folder"),
        ("new/", "", "names a folder"),
        ("folder/..", "", "names a folder"),
        ("file/x", "", "Not a directory"),
        ("fifo", "", "is a pipe"),
        ("loop", "", "leads nowhere"),
        ("loop/x", "", "too many levels"),
        ("/dev/null", "", "is a device"),
        ("/proc/self/mem", "", "about a process"),
        ("/proc/nope", "", "failed to write"),
        ("new", &"x".repeat(101), "the content has 101 bytes, more than the 100"),
    ] {
        let error = place.fails("Write", json!({"file_path": path, "content": content})).await;
        assert!(error.to_lowercase().contains(&says.to_lowercase()), "{path}: {error}");
    }
    assert_eq!(place.names("."), ["fifo", "file", "folder", "loop"]);
}

#[tokio::test]
async fn nobody_ever_sees_half_a_file() {
    let place = Place::new();
    let path = place.put("f", "a".repeat(1_000_000));
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (path, done) = (path.clone(), done.clone());
        move || {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = std::fs::read(&path).unwrap();
                assert!(seen.len() == 1_000_000 && seen.iter().all(|byte| *byte == seen[0]), "half a file");
                looks += 1;
            }
            looks
        }
    });
    place.ok("Read", json!({"file_path": "f"})).await;
    for sign in ["b", "c", "d", "e", "f", "g"] {
        place.ok("Write", json!({"file_path": "f", "content": sign.repeat(1_000_000)})).await;
    }
    done.store(true, Ordering::Relaxed);
    assert!(watcher.join().unwrap() > 0);
    assert_eq!(place.names("."), ["f"]);
}

#[tokio::test]
async fn a_file_too_long_for_programs_is_left_out() {
    let place = Place::new();
    place.put("f", "old line\n".repeat(100_000));
    place.ok("Read", json!({"file_path": "f", "limit": 1})).await;
    let output = place.call("Write", json!({"file_path": "f", "content": "short"})).await;
    assert_eq!(
        (&output.structured["originalFile"], &output.structured["structuredPatch"]),
        (&json!(null), &json!([]))
    );
}
