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

#[test]
fn what_a_crash_cut_takes_nothing_that_comes_later_with_it() {
    let place = Place::new();
    let folder = place.root.path().join("copies");
    place.checkpoints.begin("p1");
    place.write("a.txt", "first");
    let index = folder.join("index.jsonl");
    let whole = std::fs::read(&index).unwrap();
    for cut in 1..whole.len() {
        std::fs::write(&index, &whole[..cut]).unwrap();
        let next = Checkpoints::open(folder.clone());
        next.begin("p2");
        next.before_change(&place.path("a.txt"));
        next.before_change(&place.path("b.txt"));
        let again = Checkpoints::open(folder.clone());
        assert_eq!(again.rewind("p2", true), Ok(Rewound::default()), "{cut}");
        std::fs::write(place.path("b.txt"), "made").unwrap();
        assert_eq!(again.rewind("p2", true).unwrap().files_changed, [place.path("b.txt")], "{cut}");
        std::fs::remove_file(place.path("b.txt")).unwrap();
    }
}

#[test]
fn who_is_told_that_files_are_back_can_rely_on_it() {
    let place = Place::new();
    for name in ["a.txt", "b.txt"] {
        std::fs::write(place.path(name), "before").unwrap();
    }
    place.checkpoints.begin("p1");
    place.write("a.txt", "after");
    place.write("b.txt", "after");
    let folder = place.root.path().join("copies");
    let copies: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let copy = |name: &str| {
        let hash = format!("{:016x}", hash(&place.path(name)));
        copies.iter().find(|path| path.to_string_lossy().contains(&hash)).unwrap()
    };
    // One that is gone, a pipe that nobody writes to, a link to a device without end.
    let put_pipe = |path: &Path| {
        let made = std::process::Command::new("mkfifo").arg(path).status();
        assert!(made.unwrap().success());
    };
    let put_link = |path: &Path| symlink("/dev/zero", path).unwrap();
    for put in [&|_: &Path| () as (), &put_pipe as &dyn Fn(&Path), &put_link] {
        std::fs::remove_file(copy("b.txt")).ok();
        put(copy("b.txt"));
        for dry_run in [true, false] {
            let Err(RewindError::Failed(why)) = place.checkpoints.rewind("p1", dry_run) else {
                panic!("a copy is missing")
            };
            assert!(why.starts_with("1 of 2: ") && why.contains("b.txt"), "{why}");
        }
        assert_eq!(
            (place.text("a.txt").as_deref(), place.text("b.txt").as_deref()),
            (Some("before"), Some("after"))
        );
    }
}

#[test]
fn bytes_come_back_as_bytes_and_what_is_too_large_is_left() {
    let place = Place::new();
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    std::fs::write(place.path("binary"), &binary).unwrap();
    let huge = File::create(place.path("huge")).unwrap();
    huge.set_len(MAX_FILE_BYTES + 1).unwrap();
    place.checkpoints.begin("p1");
    place.write("binary", "text");
    place.write("huge", "small");
    let rewound = place.checkpoints.rewind("p1", false).unwrap();
    assert_eq!((rewound.files_changed, rewound.skipped_links), (vec![place.path("binary")], 1));
    assert_eq!(std::fs::read(place.path("binary")).unwrap(), binary);
    assert_eq!(place.text("huge").as_deref(), Some("small"));
}

#[test]
fn a_fork_begins_with_the_checkpoints_of_the_other_and_changes_none_of_them() {
    let place = Place::new();
    std::fs::write(place.path("a.txt"), "before").unwrap();
    place.checkpoints.begin("p1");
    place.write("a.txt", "first");
    place.checkpoints.begin("p2");
    place.write("a.txt", "second");
    let (source, folder) = (place.root.path().join("copies"), place.root.path().join("fork"));
    let contents = || {
        let entries = std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        all.sort();
        all
    };
    let before = contents();
    let fork = Checkpoints::open_fork(folder.clone(), &source);
    fork.begin("p3");
    fork.before_change(&place.path("b.txt"));
    std::fs::write(place.path("b.txt"), "made").unwrap();
    fork.begin("p4");
    std::fs::write(place.path("a.txt"), "third").unwrap();
    fork.begin("p5");
    fork.rewind("p2", false).unwrap();
    assert_eq!((place.text("a.txt").as_deref(), place.text("b.txt")), (Some("first"), None));
    fork.rewind("p1", false).unwrap();
    assert_eq!(place.text("a.txt").as_deref(), Some("before"));
    assert_eq!(contents(), before);
    // A second start takes nothing over again; a source without checkpoints gives none.
    let again = Checkpoints::open_fork(folder, &source);
    again.rewind("p5", false).unwrap();
    assert_eq!(place.text("a.txt").as_deref(), Some("third"));
    let none = Checkpoints::open_fork(place.root.path().join("other"), &place.root.path().join("nothing"));
    assert_eq!(none.rewind("p1", true), Err(RewindError::Unknown));
}

#[test]
fn prompts_that_change_nothing_cost_nothing_and_the_first_of_very_many_go() {
    let place = Place::new();
    std::fs::write(place.path("a.txt"), "before").unwrap();
    place.checkpoints.begin("p0");
    for n in 0..50 {
        place.write(&format!("{n}.txt"), "made");
    }
    place.write("a.txt", "after");
    let index = place.root.path().join("copies/index.jsonl");
    let before = std::fs::metadata(&index).unwrap().len();
    for n in 1..=MAX_CHECKPOINTS {
        place.checkpoints.begin(&format!("p{n}"));
    }
    // The first prompt after the changes notes them.
    let first = std::fs::read_to_string(&index).unwrap().lines().nth(52).unwrap().len() as u64;
    let grown = std::fs::metadata(&index).unwrap().len() - before;
    assert!(grown < first + 40 * MAX_CHECKPOINTS as u64, "{grown}");
    for checkpoints in [place.checkpoints.clone(), Checkpoints::open(place.root.path().join("copies"))] {
        assert_eq!(checkpoints.rewind("p0", true), Err(RewindError::Unknown));
        assert_eq!(checkpoints.rewind("p1", true), Ok(Rewound::default()));
        std::fs::write(place.path("a.txt"), "later").unwrap();
        checkpoints.rewind(&format!("p{MAX_CHECKPOINTS}"), false).unwrap();
        assert_eq!(place.text("a.txt").as_deref(), Some("after"));
    }
}
