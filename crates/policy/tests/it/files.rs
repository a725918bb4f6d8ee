//! Path rules and the boundary.

use serde_json::json;
use wardian_policy::PermissionMode::{AcceptEdits, BypassPermissions};
use wardian_policy::{Call, Facts, PathFact, decide, paths_of};

use super::support::{CWD, decided, file, in_mode, policy, said};

#[test]
fn path_patterns_are_those_of_gitignore() {
    for (pattern, yes, no) in [
        ("//etc/**", &["/etc/passwd", "/etc/a/b", "/etc", "link/passwd"][..], &["/etcx", "etc/passwd"][..]),
        ("//etc/passwd", &["/etc/passwd"], &["/etc/passwd2", "/etc"]),
        ("~/.ssh", &["/home/user/.ssh", "/home/user/.ssh/id"], &[".ssh", "/home/other/.ssh"]),
        ("~/**", &["/home/user/x"], &["/home/x"]),
        ("/src/**", &["src/a", "src/a/b", "./src/a", "x/../src/a"], &["/src/a", "x/src/a", "srcx"]),
        ("./src", &["src", "src/a"], &["x/src"]),
        ("src/*.rs", &["src/a.rs"], &["src/a/b.rs", "x/src/a.rs", "src/a.py"]),
        ("src/**/*.rs", &["src/a.rs", "src/a/b/c.rs"], &["a.rs"]),
        (".env", &[".env", "a/b/.env", ".env/x"], &[".envx", "/etc/.env"]),
        ("*.pem", &["a.pem", "x/y/a.pem"], &["a.pemx"]),
        ("secrets/", &["secrets/a", "a/secrets/b"], &["secretsx"]),
        ("./**", &["a", "a/b", "."], &["/etc/x", "../x"]),
        ("../shared/*.md", &["../shared/a.md", "/work/shared/a.md"], &["shared/a.md", "../shared/a/b.md"]),
        ("{a,b}.txt", &["a.txt", "b.txt"], &["c.txt"]),
        ("[ab].txt", &["a.txt"], &["c.txt"]),
        (r"\[x\].txt", &["[x].txt"], &["x.txt"]),
    ] {
        let (read, edit) = (format!("Read({pattern})"), format!("Edit({pattern})"));
        let denies = in_mode(BypassPermissions, policy(&[], &[], &[read.as_str(), edit.as_str()]));
        let allows = policy(&[edit.as_str()], &[], &[]);
        for path in yes {
            assert_eq!(file(&denies, "Read", path), "deny", "{pattern} covers {path}");
            assert_eq!(file(&denies, "Write", path), "deny", "{pattern} covers {path}");
            assert_eq!(file(&allows, "Write", path), "allow", "{pattern} covers {path}");
        }
        for path in no {
            assert_eq!(file(&denies, "Read", path), "allow", "{pattern} does not cover {path}");
            assert_eq!(file(&allows, "Write", path), "ask", "{pattern} does not cover {path}");
        }
    }
}

#[test]
fn edit_is_about_every_writing_tool_and_read_about_every_reading_one() {
    let policy =
        in_mode(BypassPermissions, policy(&[], &[], &["Edit(./w)", "Read(./r)", "Write(./x)", "Glob(./g)"]));
    for (tool, path, word) in [
        ("Write", "w", "deny"),
        ("Edit", "w", "deny"),
        ("NotebookEdit", "w", "deny"),
        ("Read", "w", "allow"),
        ("Read", "r", "deny"),
        ("Glob", "r", "deny"),
        ("Grep", "r", "deny"),
        ("Write", "r", "allow"),
        ("Write", "x", "deny"),
        ("Edit", "x", "allow"),
        ("Glob", "g", "deny"),
        ("Read", "g", "allow"),
    ] {
        assert_eq!(file(&policy, tool, path), word, "{tool} {path}");
    }
}

#[test]
fn where_a_path_leads_decides_and_both_ends_can_be_denied() {
    let editing = in_mode(AcceptEdits, policy(&[], &[], &[]));
    for (path, word) in [
        ("a", "allow"),
        ("new/dir/a", "allow"),
        ("/work/shared/a", "allow"),
        ("link/passwd", "ask"),
        ("../app/a", "allow"),
        ("../other/a", "ask"),
        ("a/../../../etc/passwd", "ask"),
        ("/work/app2/a", "ask"),
        ("/work/appa", "ask"),
        ("/WORK/APP/a", "ask"),
    ] {
        assert_eq!(file(&editing, "Write", path), word, "{path}");
    }
    for denied in ["Edit(./link/**)", "Edit(//etc/passwd)", "Edit(//ETC/**)", "Edit(./LINK/*)"] {
        let policy = in_mode(BypassPermissions, policy(&["Edit(//**)", "Write"], &[], &[denied]));
        assert_eq!(file(&policy, "Write", "link/passwd"), "deny", "{denied}");
    }
    // An allow rule looks at where the path leads, with case.
    assert_eq!(file(&policy(&["Edit(./link/**)"], &[], &[]), "Write", "link/passwd"), "ask");
    assert_eq!(file(&policy(&["Edit(//etc/**)"], &[], &[]), "Write", "link/passwd"), "allow");
    assert_eq!(file(&policy(&["Edit(./SRC/**)"], &[], &[]), "Write", "src/a"), "ask");
}

#[test]
fn a_bare_rule_does_not_lead_a_writing_tool_out_of_the_roots() {
    let policy = policy(&["Write", "Read", "Grep"], &[], &[]);
    assert_eq!(file(&policy, "Write", "a"), "allow");
    assert_eq!(file(&policy, "Edit", "a"), "ask");
    assert_eq!(file(&policy, "Write", "/etc/passwd"), "ask");
    assert_eq!(file(&policy, "Write", "link/passwd"), "ask");
    assert_eq!(file(&policy, "Read", "/etc/passwd"), "allow");
    assert_eq!(file(&policy, "Grep", "/etc"), "allow");
}

#[test]
fn a_glob_looks_where_its_pattern_leads() {
    let free = policy(&[], &[], &[]);
    let glob = |policy: &_, input| said(&decided(policy, "Glob", input)).0;
    assert_eq!(glob(&free, json!({"pattern": "**/*.rs"})), "allow");
    assert_eq!(glob(&free, json!({"pattern": "src/*.rs"})), "allow");
    assert_eq!(glob(&free, json!({"pattern": "/etc/*"})), "ask");
    assert_eq!(glob(&free, json!({"pattern": "../../*"})), "ask");
    assert_eq!(glob(&free, json!({"pattern": "*/../../../etc/*"})), "ask");
    assert_eq!(glob(&free, json!({"pattern": "{/etc,/var}/*"})), "ask");
    assert_eq!(glob(&free, json!({"pattern": "link/*"})), "ask");
    assert_eq!(glob(&free, json!({"pattern": "*", "path": "/etc"})), "ask");
    let denied = policy(&["Glob"], &[], &["Read(//etc/**)"]);
    assert_eq!(glob(&denied, json!({"pattern": "/etc/*"})), "deny");
    assert_eq!(glob(&denied, json!({"pattern": "{/etc,/var}/*"})), "ask");
}

#[test]
fn a_search_over_files_that_may_not_be_read_is_asked_about() {
    let policy = policy(&["Grep"], &[], &["Read(./secrets/**)", "Read(//etc/**)"]);
    assert_eq!(file(&policy, "Grep", "."), "ask");
    assert_eq!(file(&policy, "Grep", "/"), "ask");
    assert_eq!(file(&policy, "Grep", "secrets/deep"), "deny");
    assert_eq!(file(&policy, "Grep", "src"), "allow");
    assert_eq!(file(&policy, "Read", "a"), "allow");
    let by_name = self::policy(&[], &[], &["Read(.env)"]);
    assert_eq!(file(&by_name, "Grep", "src"), "ask");
    assert_eq!(file(&by_name, "Grep", "/work/shared"), "allow");
}

#[test]
fn what_the_caller_must_resolve() {
    let paths = |tool: &str, input| paths_of(&Call { tool, input: &input });
    assert_eq!(paths("Read", json!({"file_path": "a"})), ["a"]);
    assert_eq!(paths("NotebookEdit", json!({"notebook_path": "n", "file_path": "x"})), ["n"]);
    assert_eq!(paths("Grep", json!({"pattern": "/etc"})), ["."]);
    assert_eq!(paths("Glob", json!({"pattern": "a/b/*.rs", "path": "p"})), ["p", "p/a/b/"]);
    assert_eq!(paths("Glob", json!({"pattern": "/etc/*"})), [".", "/etc/"]);
    assert!(paths("Read", json!({"file_path": 1})).is_empty());
    assert!(paths("WebFetch", json!({"url": "x"})).is_empty());
}

#[test]
fn a_path_without_a_fact_is_not_trusted() {
    let call = |facts: &Facts, policy| {
        let input = json!({"file_path": "a"});
        said(&decide(policy, &Call { tool: "Write", input: &input }, facts)).0
    };
    let editing = in_mode(AcceptEdits, policy(&["Write", "Edit(./**)"], &[], &[]));
    let none = Facts { cwd: CWD.into(), call_cwd: CWD.into(), ..Facts::default() };
    assert_eq!(call(&none, &editing), "ask");
    let of = |given: &str, resolved: &str| Facts {
        paths: vec![PathFact { given: given.into(), resolved: resolved.into() }],
        ..none.clone()
    };
    assert_eq!(call(&of("b", "/work/app/a"), &editing), "ask");
    assert_eq!(call(&of("a", "a"), &editing), "ask");
    assert_eq!(call(&of("a", "/work/app/../x"), &editing), "ask");
    assert_eq!(call(&of("a", "/work/app/a"), &editing), "allow");
    // With a rule about files it cannot be told; without one, bypass allows.
    let denies = in_mode(BypassPermissions, policy(&[], &[], &["Edit(//etc/**)"]));
    assert_eq!(call(&none, &denies), "ask");
    assert_eq!(call(&none, &in_mode(BypassPermissions, policy(&[], &[], &[]))), "allow");
}
