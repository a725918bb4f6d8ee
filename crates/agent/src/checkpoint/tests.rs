//! What checkpoints keep and give back, and what they refuse to follow.

use std::os::unix::fs::symlink;

use super::*;

struct Place {
    root: tempfile::TempDir,
    checkpoints: Checkpoints,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        let checkpoints = Checkpoints::open(root.path().join("copies"));
        Self { root, checkpoints }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join("work").join(name)
    }

    /// As a tool would.
    fn write(&self, name: &str, text: &str) {
        self.checkpoints.before_change(&self.path(name));
        std::fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    fn changes(&self, prompt: &str) -> (Vec<String>, usize, usize) {
        let rewound = self.checkpoints.rewind(prompt, true).unwrap();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        (rewound.files_changed.iter().map(name).collect(), rewound.insertions, rewound.deletions)
    }
}

#[test]
fn files_come_back_as_they_were_at_a_prompt() {
    let place = Place::new();
    std::fs::write(place.path("old.txt"), "one\ntwo\n").unwrap();
    place.checkpoints.begin("p1");
    place.write("new.txt", "hello\n");
    place.checkpoints.begin("p2");
    place.write("old.txt", "ONE\nmore\ntwo\n");
    place.checkpoints.begin("p3");
    // Bash is not seen.
    std::fs::remove_file(place.path("new.txt")).unwrap();
    // The numbers are the official CLI's for the same story.
    assert_eq!(place.changes("p2"), (vec!["new.txt".to_owned(), "old.txt".to_owned()], 2, 2));
    assert_eq!(place.changes("p1"), (vec!["old.txt".to_owned()], 1, 2));
    assert_eq!(place.checkpoints.rewind("p9", true), Err(RewindError::Unknown));
    assert_eq!(place.text("old.txt").as_deref(), Some("ONE\nmore\ntwo\n"), "a dry run changes nothing");
    place.checkpoints.rewind("p2", false).unwrap();
    assert_eq!(
        (place.text("new.txt").as_deref(), place.text("old.txt").as_deref()),
        (Some("hello\n"), Some("one\ntwo\n"))
    );
    place.checkpoints.rewind("p1", false).unwrap();
    assert_eq!((place.text("new.txt"), place.text("old.txt").as_deref()), (None, Some("one\ntwo\n")));
    assert_eq!(place.changes("p1"), (vec![], 0, 0));
    // And forward again.
    place.checkpoints.rewind("p3", false).unwrap();
    assert_eq!(place.text("old.txt").as_deref(), Some("ONE\nmore\ntwo\n"));
}

#[test]
fn they_outlive_the_process_and_a_cut_index() {
    let place = Place::new();
    place.checkpoints.begin("p1");
    place.write("a.txt", "first");
    place.checkpoints.begin("p2");
    place.write("a.txt", "second");
    let folder = place.root.path().join("copies");
    let again = Checkpoints::open(folder.clone());
    again.rewind("p2", false).unwrap();
    assert_eq!(place.text("a.txt").as_deref(), Some("first"));
    let index = std::fs::read(folder.join("index.jsonl")).unwrap();
    for cut in 0..index.len() {
        std::fs::write(folder.join("index.jsonl"), &index[..cut]).unwrap();
        let rewound = Checkpoints::open(folder.clone()).rewind("p1", true);
        assert!(rewound.is_ok() || rewound == Err(RewindError::Unknown), "{cut}");
    }
}

#[test]
fn permissions_come_back_too() {
    let place = Place::new();
    std::fs::write(place.path("run.sh"), "echo").unwrap();
    std::fs::set_permissions(place.path("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    place.checkpoints.begin("p1");
    place.checkpoints.before_change(&place.path("run.sh"));
    std::fs::remove_file(place.path("run.sh")).unwrap();
    place.checkpoints.rewind("p1", false).unwrap();
    assert_eq!(std::fs::metadata(place.path("run.sh")).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn links_put_in_the_way_are_not_followed() {
    let place = Place::new();
    let outside = place.root.path().join("outside.txt");
    std::fs::write(&outside, "safe").unwrap();
    std::fs::create_dir(place.path("sub")).unwrap();
    for name in ["link.txt", "hard.txt", "sub/deep.txt", "folder"] {
        std::fs::write(place.path(name), "before").unwrap();
    }
    place.checkpoints.begin("p1");
    for name in ["link.txt", "hard.txt", "sub/deep.txt", "folder"] {
        place.write(name, "after");
    }
    for name in ["link.txt", "hard.txt", "folder"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    symlink(&outside, place.path("link.txt")).unwrap();
    std::fs::hard_link(&outside, place.path("hard.txt")).unwrap();
    std::fs::create_dir(place.path("folder")).unwrap();
    std::fs::remove_dir_all(place.path("sub")).unwrap();
    std::fs::create_dir(place.root.path().join("elsewhere")).unwrap();
    symlink(place.root.path().join("elsewhere"), place.path("sub")).unwrap();
    let rewound = place.checkpoints.rewind("p1", false).unwrap();
    assert_eq!((rewound.skipped_links, rewound.files_changed), (4, vec![]));
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "safe");
    assert_eq!(std::fs::read_dir(place.root.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn an_index_that_lies_reaches_nothing_outside_of_its_folder() {
    let place = Place::new();
    let folder = place.root.path().join("copies");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(place.root.path().join("secret"), "secret").unwrap();
    let target = place.path("got.txt");
    let line = serde_json::json!({"prompt": "p1", "files": [
        {"path": target, "version": 1, "folder": place.path(""), "name": "../secret", "mode": 0o7777},
        {"path": "relative", "version": 1, "folder": "", "name": "x"},
    ]});
    std::fs::write(folder.join("index.jsonl"), format!("{line}\n")).unwrap();
    let rewound = Checkpoints::open(folder).rewind("p1", false);
    assert_eq!(rewound, Ok(Rewound::default()));
    assert_eq!(place.text("got.txt"), None);
}
