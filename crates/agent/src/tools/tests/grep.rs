use serde_json::{Value, json};

use super::{Place, set_modified};

fn tree() -> Place {
    let place = Place::new();
    for (name, age, content) in [
        ("a.rs", 50, "fn main() {\n    todo();\n}\n"),
        ("src/b.rs", 40, "one\ntodo\nthree\nfour\nfive\nsix\nTODO again todo\n"),
        ("src/c.py", 30, "# todo\n"),
        (".hidden/d.rs", 20, "todo\n"),
        ("target/e.rs", 10, "todo\n"),
        (".git/config", 5, "todo\n"),
    ] {
        set_modified(&place.put(name, content), 1_000_000 - age);
    }
    place.put(".gitignore", "target\n");
    place
}

async fn grep(place: &Place, input: Value) -> String {
    place.ok("Grep", input).await
}

#[tokio::test]
async fn files_newest_first() {
    let place = tree();
    for (input, expected) in [
        (json!({"pattern": "todo"}), ".hidden/d.rs\nsrc/c.py\nsrc/b.rs\na.rs"),
        (json!({"pattern": "todo", "path": "src"}), "src/c.py\nsrc/b.rs"),
        (json!({"pattern": "todo", "path": "src/b.rs"}), "src/b.rs"),
        (json!({"pattern": "todo", "glob": "*.py"}), "src/c.py"),
        (json!({"pattern": "todo", "glob": "*.{py,txt}"}), "src/c.py"),
        (json!({"pattern": "todo", "glob": "src/**"}), "src/c.py\nsrc/b.rs"),
        (json!({"pattern": "todo", "glob": "!*.rs"}), "src/c.py"),
        (json!({"pattern": "todo", "glob": "*.py, a.*"}), "src/c.py\na.rs"),
        (json!({"pattern": "todo", "type": "rust"}), ".hidden/d.rs\nsrc/b.rs\na.rs"),
        (json!({"pattern": "todo", "type": "py"}), "src/c.py"),
        (json!({"pattern": "again$"}), "[nothing found]"),
        (json!({"pattern": "^todo$"}), ".hidden/d.rs\nsrc/b.rs"),
        (json!({"pattern": "todo\\(\\)"}), "a.rs"),
        (
            json!({"pattern": "todo", "head_limit": 1}),
            ".hidden/d.rs\n\n[1 of 4 given; to go on, set offset to 1, or narrow the search]",
        ),
        (json!({"pattern": "todo", "head_limit": 2, "offset": 2}), "src/b.rs\na.rs"),
        (json!({"pattern": "todo", "head_limit": 0}), ".hidden/d.rs\nsrc/c.py\nsrc/b.rs\na.rs"),
        (json!({"pattern": "todo", "offset": 9}), "[nothing found]\n\n[there are only 4 before offset 9]"),
        (json!({"pattern": "todo", "path": "target"}), "target/e.rs"),
    ] {
        assert_eq!(grep(&place, input.clone()).await, expected, "{input}");
    }
}

#[tokio::test]
async fn lines_like_ripgrep() {
    let place = tree();
    for (input, expected) in [
        (
            json!({"pattern": "todo"}),
            ".hidden/d.rs:1:todo\na.rs:2:    todo();\nsrc/b.rs:2:todo\nsrc/b.rs:7:TODO again todo\nsrc/c.py:1:# todo",
        ),
        (json!({"pattern": "todo", "path": "src/b.rs"}), "src/b.rs:2:todo\nsrc/b.rs:7:TODO again todo"),
        (
            json!({"pattern": "todo", "path": "src/b.rs", "-n": false}),
            "src/b.rs:todo\nsrc/b.rs:TODO again todo",
        ),
        (json!({"pattern": "TODO", "path": "src/b.rs"}), "src/b.rs:7:TODO again todo"),
        (
            json!({"pattern": "todo", "path": "src/b.rs", "-i": true, "-o": true}),
            "src/b.rs:2:todo\nsrc/b.rs:7:TODO\nsrc/b.rs:7:todo",
        ),
        (json!({"pattern": "x*", "path": "src/c.py", "-o": true}), "[nothing found]"),
        (
            json!({"pattern": "todo", "path": "src/b.rs", "-A": 1}),
            "src/b.rs:2:todo\nsrc/b.rs-3-three\n--\nsrc/b.rs:7:TODO again todo",
        ),
        (
            json!({"pattern": "todo", "path": "src/b.rs", "-B": 1}),
            "src/b.rs-1-one\nsrc/b.rs:2:todo\n--\nsrc/b.rs-6-six\nsrc/b.rs:7:TODO again todo",
        ),
        (
            json!({"pattern": "three", "path": "src/b.rs", "-C": 1}),
            "src/b.rs-2-todo\nsrc/b.rs:3:three\nsrc/b.rs-4-four",
        ),
        (
            json!({"pattern": "three", "path": "src/b.rs", "context": 1, "-A": 0}),
            "src/b.rs-2-todo\nsrc/b.rs:3:three",
        ),
        (
            json!({"pattern": "todo", "glob": "c.py,d.rs", "-C": 1}),
            ".hidden/d.rs:1:todo\n--\nsrc/c.py:1:# todo",
        ),
        (
            json!({"pattern": "todo", "path": "src", "-C": 1_000_000_000, "head_limit": 3}),
            "src/b.rs-1-one\nsrc/b.rs:2:todo\nsrc/b.rs-3-three\n\n\
             [3 of 9 given; to go on, set offset to 3, or narrow the search]",
        ),
        (
            json!({"pattern": "todo", "head_limit": 2, "offset": 1}),
            "a.rs:2:    todo();\nsrc/b.rs:2:todo\n\n[2 of 5 given; to go on, set offset to 3, or narrow the search]",
        ),
        (
            json!({"pattern": "one.*three", "path": "src", "multiline": true}),
            "src/b.rs:1:one\nsrc/b.rs:2:todo\nsrc/b.rs:3:three",
        ),
        (
            json!({"pattern": "two\\nthree|five\\nsix", "path": "src", "multiline": true, "-o": true}),
            "src/b.rs:5:five\nsrc/b.rs:6:six",
        ),
    ] {
        let mut input = input;
        input["output_mode"] = json!("content");
        assert_eq!(grep(&place, input.clone()).await, expected, "{input}");
    }
}

#[tokio::test]
async fn counts() {
    let place = tree();
    for (input, expected) in [
        (json!({"pattern": "todo"}), ".hidden/d.rs:1\na.rs:1\nsrc/b.rs:2\nsrc/c.py:1"),
        (
            json!({"pattern": "todo", "head_limit": 1, "offset": 2}),
            "src/b.rs:2\n\n[1 of 4 given; to go on, set offset to 3, or narrow the search]",
        ),
        (json!({"pattern": "(?i)todo", "path": "src/b.rs", "multiline": true}), "src/b.rs:3"),
    ] {
        let mut input = input;
        input["output_mode"] = json!("count");
        assert_eq!(grep(&place, input.clone()).await, expected, "{input}");
    }
}

#[tokio::test]
async fn programs_get_numbers() {
    let place = tree();
    for (input, expected) in [
        (
            json!({"pattern": "todo", "head_limit": 2}),
            json!({"mode": "files_with_matches", "numFiles": 2, "filenames": [".hidden/d.rs", "src/c.py"],
                   "totalFiles": 4, "appliedLimit": 2}),
        ),
        (
            json!({"pattern": "todo", "output_mode": "content", "path": "src", "-n": true, "offset": 1}),
            json!({"mode": "content", "numFiles": 2, "filenames": [], "totalFiles": 2,
                   "content": "src/b.rs:7:TODO again todo\nsrc/c.py:1:# todo",
                   "numLines": 2, "totalLines": 3, "numMatches": 3, "appliedOffset": 1}),
        ),
        (
            json!({"pattern": "todo", "output_mode": "count", "path": "src"}),
            json!({"mode": "count", "numFiles": 2, "filenames": [], "totalFiles": 2,
                   "content": "src/b.rs:2\nsrc/c.py:1", "numMatches": 3}),
        ),
        (
            json!({"pattern": "nope"}),
            json!({"mode": "files_with_matches", "numFiles": 0, "filenames": [], "totalFiles": 0}),
        ),
    ] {
        assert_eq!(place.call("Grep", input.clone()).await.structured, expected, "{input}");
    }
}

#[tokio::test]
async fn what_is_refused() {
    let place = tree();
    for (input, says) in [
        (json!({"pattern": ""}), "the pattern is empty"),
        (json!({"pattern": "(a"}), "unclosed group"),
        (json!({"pattern": "a{2"}), "failed to understand the pattern"),
        (json!({"pattern": "a\\nb"}), "set multiline for that"),
        (json!({"pattern": "(?:(?:a{1000}){1000}){1000}"}), "size limit"),
        (json!({"pattern": "(".repeat(10_000)}), "failed to understand the pattern"),
        (json!({"pattern": "a".repeat(70_000)}), "longer than 65536 bytes"),
        (json!({"pattern": "a", "type": "klingon"}), "there is no file type \"klingon\""),
        (json!({"pattern": "a", "glob": "[a"}), "failed to understand the glob"),
        (json!({"pattern": "a", "path": "nope"}), "No such file"),
        (json!({"pattern": "a", "path": "/dev/zero"}), "is a device"),
        (json!({"pattern": "a", "path": "/proc/self/environ"}), "about a process"),
        (json!({"pattern": "a", "output_mode": "lines"}), "must be one of \"content\""),
        (json!({"pattern": "a", "-A": -1}), "`-A` must be at least 0"),
    ] {
        let error = place.fails("Grep", input).await;
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn ignore_files_count_where_git_does() {
    let place = Place::new();
    place.put("sub/x", "needle");
    place.put("sub/y", "needle");
    place.put(".gitignore", "y\n");
    // Like ripgrep: without a repository a .gitignore means nothing, an .ignore does.
    let found = |place: &Place| {
        let context = place.context.clone();
        let tool = super::super::Grep;
        async move {
            use crate::tool::Tool as _;
            let input = json!({"pattern": "needle", "output_mode": "count"});
            super::text(&tool.call(input, &context).await)
        }
    };
    assert_eq!(found(&place).await, "sub/x:1\nsub/y:1");
    std::fs::create_dir(place.path(".git")).unwrap();
    assert_eq!(found(&place).await, "sub/x:1");
    place.put("sub/.ignore", "x\n");
    assert_eq!(found(&place).await, "[nothing found]");
    place.put("sub/.gitignore", "!y\n");
    assert_eq!(found(&place).await, "sub/y:1");
    // From within, what is above counts too.
    std::fs::remove_file(place.path("sub/.gitignore")).unwrap();
    let input = json!({"pattern": "needle", "path": "sub"});
    assert_eq!(grep(&place, input).await, "[nothing found]");
}

#[tokio::test]
async fn binary_files_are_skipped() {
    let place = Place::new();
    place.put("early", b"needle\n\0needle\n");
    place.put("late", [b"needle\n".repeat(100_000).as_slice(), b"\0"].concat());
    place.put("text", b"needle\n");
    place.put("latin1", b"caf\xe9 needle\n");
    place.put("utf16", b"\xff\xfen\0e\0e\0d\0l\0e\0\n\0");
    for mode in ["count", "content"] {
        let text = grep(&place, json!({"pattern": "needle", "output_mode": mode})).await;
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains("early") && !text.contains("late:"), "{text}");
    }
}

#[tokio::test]
async fn long_lines_are_shown_around_the_match() {
    let place = Place::new();
    place.put("min.js", format!("{}needle{}\n", "a".repeat(1_000_000), "b".repeat(1_000_000)));
    let text = grep(&place, json!({"pattern": "needle", "output_mode": "content"})).await;
    assert!(text.starts_with("min.js:1:…aaaa") && text.contains("aneedleb") && text.len() < 600, "{text}");
    assert!(text.ends_with("b… [2000006 bytes in this line]"), "{text}");
}

#[tokio::test]
async fn a_line_longer_than_memory_is_a_failure_of_its_file() {
    let place = Place::new();
    place.put("long", vec![b'a'; 40 * 1024 * 1024]);
    place.put("short", "needle\n");
    let text = grep(&place, json!({"pattern": "needle"})).await;
    assert!(text.starts_with("short\n\n[1 files could not be searched; the first: long: "), "{text}");
}

#[tokio::test]
async fn a_page_is_bounded_whatever_is_asked_for() {
    let place = Place::new();
    place.put("f", "needle in a haystack, one of very many\n".repeat(100_000));
    let input = json!({"pattern": "needle", "output_mode": "content", "head_limit": 0});
    let output = place.call("Grep", input).await;
    assert!(output.content.to_string().len() + output.structured.to_string().len() < 250_000);
    assert!(super::text(&output).contains("of 100000 given; to go on, set offset to"));
    assert_eq!(output.structured["totalLines"], 100_000);
}
