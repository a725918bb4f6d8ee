use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::{Place, make_fifo, set_modified};
use crate::tool::ToolLimits;

fn tree() -> Place {
    let place = Place::new();
    for (name, age) in [
        ("a.rs", 50),
        ("src/b.rs", 40),
        ("src/deep/c.rs", 30),
        ("src/d.txt", 20),
        (".hidden/e.rs", 10),
        (".git/x.rs", 5),
        ("target/f.rs", 60),
        ("we ird[1].rs", 1),
    ] {
        set_modified(&place.put(name, ""), 1_000_000 - age);
    }
    place.put(".gitignore", "target\n");
    place
}

#[tokio::test]
async fn patterns() {
    let place = tree();
    let absolute = place.path("src/*.rs");
    for (pattern, path, expected) in [
        ("*.rs", json!(null), "we ird[1].rs\n.hidden/e.rs\nsrc/deep/c.rs\nsrc/b.rs\na.rs\ntarget/f.rs"),
        ("**/*.rs", json!("src"), "src/deep/c.rs\nsrc/b.rs"),
        ("src/*.rs", json!(null), "src/b.rs"),
        ("./src/*.rs", json!(null), "src/b.rs"),
        ("src/**", json!(null), "src/d.txt\nsrc/deep/c.rs\nsrc/b.rs"),
        ("**/*.{txt,md}", json!(null), "src/d.txt"),
        ("src/**/[cd].*", json!(null), "src/d.txt\nsrc/deep/c.rs"),
        ("we ird\\[1\\].rs", json!(null), "we ird[1].rs"),
        ("?.rs", json!("src"), "src/deep/c.rs\nsrc/b.rs"),
        (absolute.to_str().unwrap(), json!(null), "src/b.rs"),
        ("*.nope", json!(null), "[no files found]"),
    ] {
        let mut input = json!({"pattern": pattern});
        if !path.is_null() {
            input["path"] = path;
        }
        assert_eq!(place.ok("Glob", input.clone()).await, expected, "{input}");
    }
}

#[tokio::test]
async fn programs_get_names_and_numbers() {
    let place = Place::with_limits(ToolLimits { glob_paths: 2, ..ToolLimits::default() });
    for (name, age) in [("a", 3), ("b", 1), ("c", 2)] {
        set_modified(&place.put(name, ""), 1_000_000 - age);
    }
    let mut output = place.call("Glob", json!({"pattern": "*"})).await;
    assert!(output.structured["durationMs"].take().is_u64());
    assert_eq!(
        output.structured,
        json!({"durationMs": null, "numFiles": 2, "filenames": ["b", "c"], "truncated": true,
               "totalMatches": 3, "countIsComplete": true})
    );
    assert_eq!(output.content, "b\nc\n\n[the newest 2 of 3 files; narrow the pattern to see others]");
}

#[tokio::test]
async fn what_is_refused() {
    let place = tree();
    for (input, says) in [
        (json!({"pattern": ""}), "the pattern is empty"),
        (json!({"pattern": "[a"}), "failed to understand the pattern"),
        (json!({"pattern": "{a"}), "failed to understand the pattern"),
        (json!({"pattern": "../*"}), "goes up with `..`"),
        (json!({"pattern": "src/../../*"}), "goes up with `..`"),
        (json!({"pattern": "/etc/*"}), "begins outside of"),
        (json!({"pattern": "x".repeat(5_000)}), "longer than 4096 bytes"),
        (json!({"pattern": "*", "path": "nope"}), "No such file"),
        (json!({"pattern": "*", "path": "a.rs"}), "is not a folder"),
        (json!({"pattern": "*", "path": ""}), "the path is empty"),
        (json!({"pattern": "*", "path": "a\0"}), "NUL byte"),
    ] {
        let error = place.fails("Glob", input).await;
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn links_are_named_but_not_followed() {
    let place = Place::new();
    let outside = place.cwd.parent().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "").unwrap();
    place.put("d/f", "");
    symlink(&outside, place.path("out")).unwrap();
    symlink("..", place.path("d/up")).unwrap();
    symlink("f", place.path("d/link")).unwrap();
    symlink("nowhere", place.path("d/dangling")).unwrap();
    make_fifo(&place.path("d/fifo"));
    let mut names: Vec<_> =
        place.ok("Glob", json!({"pattern": "**"})).await.lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["d/f", "d/link"]);
}

#[tokio::test]
async fn a_deep_tree_and_strange_names() {
    let place = Place::new();
    let mut deep = place.cwd.clone();
    while deep.as_os_str().len() < 3_900 {
        deep.push("d".repeat(100));
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("found"), "").unwrap();
    place.put("new\nline", "");
    assert!(place.ok("Glob", json!({"pattern": "found"})).await.ends_with("/found"));
    assert_eq!(place.ok("Glob", json!({"pattern": "new*"})).await, "new\\nline");
}

#[tokio::test]
async fn a_search_that_is_stopped_says_so() {
    let place = tree();
    place.context.cancel.cancel();
    for (tool, input) in [
        ("Glob", json!({"pattern": "*"})),
        ("Grep", json!({"pattern": "x"})),
        ("Read", json!({"file_path": "a.rs"})),
    ] as [(&str, Value); 3]
    {
        assert!(place.fails(tool, input).await.contains("stopped"));
    }
}
