//! Path rules and the boundary.

use serde_json::json;
use wardian_policy::PermissionMode::{AcceptEdits, BypassPermissions};
use wardian_policy::{Call, Facts, Link, PathFact, decide, paths_of};

use super::support::{CWD, decided, facts, file, in_mode, policy, said};

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
        ("[!ab].txt", &["c.txt"], &["a.txt"]),
        ("a?.txt", &["ab.txt", "x/ab.txt"], &["a.txt", "abc.txt"]),
        ("*", &["a", "a/b"], &["/etc/x"]),
        ("**/keys", &["keys", "a/b/keys", "a/keys/x"], &["keysx"]),
        ("a/**/z", &["a/z", "a/b/c/z"], &["z", "x/a/z"]),
        ("./a/./b//c", &["a/b/c", "a/b/c/d"], &["a/b"]),
        ("./a/b/", &["a/b", "a/b/c"], &["a/bc"]),
        ("//", &["/etc/x", "a"], &[]),
        ("/", &["a", "a/b"], &["/etc/x"]),
        ("~", &["/home/user", "/home/user/x"], &["/home/userx"]),
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

#[test]
fn a_pattern_that_could_never_match_is_no_rule() {
    for text in [
        "Read(//etc/../root/**)",
        "Read(~/../x)",
        "Read(a/../b)",
        "Read(./..)",
        "Read(!.env)",
        "Read(~root/x)",
    ] {
        let read = text.parse::<wardian_policy::Rule>();
        assert!(read.is_err() || text == "Read(./..)", "{text}");
    }
}

#[test]
fn what_a_rule_names_by_a_link_is_refused_by_its_other_names() {
    let link = |named: &str, leads_to: &str| Link { named: named.into(), leads_to: leads_to.into() };
    let links = [link("/work/app/link", "/etc"), link("/home/user/.ssh", "/data/user/ssh")];
    for (rule, path, word) in [
        ("Read(./link/**)", "/etc/passwd", "deny"),
        ("Read(./link/passwd)", "/etc/passwd", "deny"),
        ("Read(~/.ssh/id_*)", "/data/user/ssh/id_a", "deny"),
        ("Read(~/.ssh/id_*)", "/data/user/ssh/known", "allow"),
        ("Read(~/.ssh/**)", "/DATA/user/ssh", "deny"),
        ("Read(~/.ssh/**)", "/data/user/sshx", "allow"),
    ] {
        let policy = in_mode(BypassPermissions, policy(&[], &[], &[rule]));
        for (tool, input) in [
            ("Read", json!({"file_path": path})),
            ("Bash", json!({"command": format!("head {path}")})),
            ("Bash", json!({"command": format!("sort < {path}")})),
        ] {
            let call = Call { tool, input: &input };
            let facts = Facts { links: links.to_vec(), ..facts(&call) };
            assert_eq!(said(&decide(&policy, &call, &facts)).0, word, "{rule} {tool} {path}");
        }
        let input = json!({"pattern": "x", "path": "/data"});
        let call = Call { tool: "Grep", input: &input };
        let searched = decide(&policy, &call, &Facts { links: links.to_vec(), ..facts(&call) });
        assert_eq!(said(&searched).0, if rule.contains("ssh") { "ask" } else { "allow" }, "{rule}");
    }
    // A link never allows.
    let allows = policy(&["Edit(./link/**)"], &[], &[]);
    let input = json!({"file_path": "/etc/passwd"});
    let call = Call { tool: "Write", input: &input };
    assert_eq!(said(&decide(&allows, &call, &Facts { links: links.to_vec(), ..facts(&call) })).0, "ask");
    let named = policy(&[], &["Edit(//etc/x)"], &["Read(~/.ssh/**)", "Read(.env)", "Bash(rm:*)"]);
    let places = named.refused_places(CWD.as_ref(), Some("/home/user".as_ref()));
    assert_eq!(places, [std::path::Path::new("/home/user/.ssh"), "/etc/x".as_ref()]);
}

#[test]
fn files_that_commands_name_in_their_ways_are_seen() {
    let policy =
        in_mode(BypassPermissions, policy(&[], &[], &["Read(./secrets/**)", "Read(.env)", "Edit(//etc/**)"]));
    for (command, word) in [
        ("less secrets/a", "deny"),
        ("cat ./x/../secrets/a", "deny"),
        ("cat SECRETS/a", "deny"),
        ("cat secrets/", "deny"),
        ("cat secrets//a", "deny"),
        ("cat 'sec'rets/a", "deny"),
        ("cat sec\\\nrets/a", "deny"),
        ("dd if=secrets/a of=x", "deny"),
        ("grep --file=.env x", "deny"),
        ("grep -f.env x", "deny"),
        ("sort -T. .env", "deny"),
        ("head link/passwd", "deny"),
        ("env cat secrets/a", "deny"),
        ("sh -c 'cat secrets/a'", "deny"),
        ("if true; then cat secrets/a; fi", "deny"),
        ("for x in a; do cat secrets/$x; done", "deny"),
        ("echo $(cat secrets/a)", "deny"),
        ("cat <<E\n$(cat secrets/a)\nE", "deny"),
        ("xargs -a x cat secrets/a", "deny"),
        ("python3 secrets/a.py", "deny"),
        ("timeout 5 head link/passwd", "deny"),
        ("cat secretsx", "allow"),
        ("echo secrets/a", "allow"),
    ] {
        let command = command.replace("\\n", "\n");
        assert_eq!(said(&decided(&policy, "Bash", json!({"command": command}))).0, word, "{command}");
    }
}
