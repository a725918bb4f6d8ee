//! The repository keeps its rules, and each rule finds what breaks it.

use std::path::Path;

use wardian_testkit::tidy::{RULES, Repository, Rule, check};

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = Repository::read(&root).unwrap();
    let problems: Vec<String> = check(&repository).iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// A repository that keeps every rule; the examples below change it in one place each.
const GOOD: &[(&str, &str)] = &[
    ("README.md", "# wardian\n"),
    ("CONTRIBUTING.md", "# Contributing\n"),
    ("Cargo.toml", "[workspace]\n"),
    ("clippy.toml", "allow-unwrap-in-tests = true\n"),
    ("deny.toml", "[bans]\n"),
    ("CHANGELOG.md", "# Changes\n\n- It works.\n"),
    (
        "crates/agent/Cargo.toml",
        "[package]\nname = \"wardian-agent\"\n[dependencies]\nwardian-ledger.workspace = true\n[dev-dependencies]\nwardian-model.workspace = true\n[lints]\nworkspace = true\n",
    ),
    ("crates/agent/README.md", "# wardian-agent\n"),
    (
        "crates/agent/src/lib.rs",
        "#![doc = include_str!(\"../README.md\")]\n// dbg!(1), unsafe, SELECT\nconst A: &str = \"dbg!(todo!())\";\n",
    ),
    ("crates/agent/tests/it.rs", "#![expect(clippy::unwrap_used, reason = \"\")]\nmod turn;\n"),
    ("crates/agent/tests/it/turn.rs", "#[test]\nfn turns() {}\n"),
    ("crates/ledger/src/price.rs", "use std::fmt;\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n"),
    ("crates/sandbox/src/clone.rs", "unsafe fn clone3() {}\n"),
    ("crates/store/src/sum.rs", "const SUM: &str = \"SELECT sum(cost) FROM usage\";\n"),
];

/// What breaks a rule: the rule, where it is found, and the file that does it.
const BAD: &[(&str, &str, &str, &str)] = &[
    // Who may depend on whom.
    (
        "direction",
        "crates/ledger/Cargo.toml:1",
        "crates/ledger/Cargo.toml",
        "[package]\nname = \"wardian-ledger\"\n[dependencies]\nwardian-store = { path = \"../store\" }\n[lints]\nworkspace = true\n",
    ),
    (
        "direction",
        "crates/policy/Cargo.toml:1",
        "crates/policy/Cargo.toml",
        "[target.'cfg(unix)'.dependencies]\np = { package = \"wardian-agent\", path = \"\" }\n",
    ),
    (
        "direction",
        "crates/store/Cargo.toml:1",
        "crates/store/Cargo.toml",
        "[dev-dependencies]\nwardian-server.workspace = true\n",
    ),
    (
        "direction",
        "crates/gateway/Cargo.toml:1",
        "crates/gateway/Cargo.toml",
        "[dependencies]\nwardian-model.workspace = true\n",
    ),
    (
        "direction",
        "crates/helper/Cargo.toml:1",
        "crates/helper/Cargo.toml",
        "[package]\nname = \"wardian-helper\"\n",
    ),
    ("direction", "crates/store/Cargo.toml:1", "crates/store/Cargo.toml", "[dependencies\n"),
    (
        "only-in",
        "crates/server/Cargo.toml:1",
        "crates/server/Cargo.toml",
        "[dependencies]\nrusqlite = \"0.42\"\n",
    ),
    (
        "only-in",
        "crates/agent/Cargo.toml:1",
        "crates/agent/Cargo.toml",
        "[build-dependencies]\nanyhow = \"1\"\n",
    ),
    (
        "lints",
        "crates/store/Cargo.toml:1",
        "crates/store/Cargo.toml",
        "[package]\nname = \"wardian-store\"\n",
    ),
    ("packages", "crates/cli/Cargo.toml:1", "crates/cli/Cargo.toml", "[package]\nname = \"wardian-cli\"\n"),
    // Files.
    ("readme", "crates/store/README.md:1", "crates/store/Cargo.toml", "[package]\n"),
    (
        "readme",
        "crates/agent/src/lib.rs:1",
        "crates/agent/src/lib.rs",
        "//! The agent. include_str!(\"../README.md\")\n",
    ),
    ("readme", "crates/agent/README.md:81", "crates/agent/README.md", LONG),
    ("changelog", "CHANGELOG.md:1", "CHANGELOG.md", "# Changes\n"),
    ("whitespace", "crates/agent/README.md:2", "crates/agent/README.md", "# agent\ntwo spaces  \n"),
    ("whitespace", "README.md:1", "README.md", "a\tb\n"),
    ("whitespace", "README.md:1", "README.md", "a\r\nb\n"),
    ("whitespace", "README.md:2", "README.md", "a\nno newline"),
    ("mod-rs", "crates/agent/src/tools/mod.rs:1", "crates/agent/src/tools/mod.rs", "\n"),
    // Code.
    ("length", "crates/agent/src/turn.rs:701", "crates/agent/src/turn.rs", LONG),
    (
        "forgotten-test",
        "crates/agent/tests/it/lost.rs:1",
        "crates/agent/tests/it/lost.rs",
        "#[test]\nfn lost() {}\n",
    ),
    (
        "forgotten-test",
        "crates/agent/tests/it/turn.rs:1",
        "crates/agent/tests/it.rs",
        "// mod turn;\nmod turns;\n",
    ),
    ("forgotten-test", "crates/agent/tests/other.rs:1", "crates/agent/tests/other.rs", "\n"),
    ("leftovers", "crates/agent/src/x.rs:2", "crates/agent/src/x.rs", "fn x() {\n    dbg!(1);\n}\n"),
    ("leftovers", "crates/agent/src/x.rs:1", "crates/agent/src/x.rs", "fn x() { todo!() }\n"),
    ("leftovers", "crates/agent/src/x.rs:1", "crates/agent/src/x.rs", "fn x() { std::unimplemented!() }\n"),
    ("attributes", "crates/agent/src/x.rs:1", "crates/agent/src/x.rs", "#[allow(dead_code)]\nfn x() {}\n"),
    (
        "attributes",
        "crates/agent/src/x.rs:1",
        "crates/agent/src/x.rs",
        "#![allow (dead_code, reason = \"\")]\n",
    ),
    (
        "attributes",
        "crates/agent/src/x.rs:1",
        "crates/agent/src/x.rs",
        "#[cfg_attr(unix, allow(dead_code))]\nfn x() {}\n",
    ),
    (
        "attributes",
        "crates/agent/tests/it/turn.rs:2",
        "crates/agent/tests/it/turn.rs",
        "#[test]\n#[ignore = \"slow\"]\nfn x() {}\n",
    ),
    (
        "attributes",
        "crates/agent/src/x.rs:1",
        "crates/agent/src/x.rs",
        "#[cfg_attr(not(unix), ignore)]\nfn x() {}\n",
    ),
    (
        "attributes",
        "crates/agent/src/x.rs:1",
        "crates/agent/src/x.rs",
        "#![expect(clippy::unwrap_used, reason = \"lazy\")]\n",
    ),
    ("unsafe", "crates/agent/src/x.rs:1", "crates/agent/src/x.rs", "fn x() { unsafe { y() } }\n"),
    ("unsafe", "crates/agent/src/x.rs:1", "crates/agent/src/x.rs", "#[unsafe(no_mangle)]\nfn x() {}\n"),
    (
        "sql",
        "crates/server/src/x.rs:1",
        "crates/server/src/x.rs",
        concat!("const X: &str = \"SEL", "ECT cost FROM usage\";\n"),
    ),
    (
        "sql",
        "crates/server/src/x.rs:1",
        "crates/server/src/x.rs",
        concat!("const X: &str = r#\" upd", "ate usage set cost = 0\"#;\n"),
    ),
    (
        "sql",
        "crates/server/src/x.rs:1",
        "crates/server/src/x.rs",
        concat!("const X: &str = \"ins", "ert into usage values (1)\";\n"),
    ),
    ("sql", "crates/server/x.sql:1", "crates/server/x.sql", "-- nothing\n"),
    ("pure", "crates/ledger/src/x.rs:1", "crates/ledger/src/x.rs", "use std::fs::File;\n"),
    ("pure", "crates/policy/src/x.rs:1", "crates/policy/src/x.rs", "fn x() { jiff::Timestamp::now(); }\n"),
    ("pure", "crates/session/src/state.rs:1", "crates/session/src/state.rs", "use tokio::sync::mpsc;\n"),
];

/// 701 lines.
const LONG: &str = {
    const LINES: [u8; 701] = [b'\n'; 701];
    match str::from_utf8(&LINES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

#[test]
fn what_is_good_breaks_no_rule() {
    let good: Vec<_> = GOOD.iter().map(|(path, text)| (*path, *text)).collect();
    assert_eq!(check(&Repository::of(&good)), []);
}

#[test]
fn each_rule_finds_what_breaks_it() {
    for (name, place, path, text) in BAD {
        let rule: &Rule = RULES.iter().find(|rule| rule.name == *name).unwrap();
        let mut files: Vec<_> = GOOD.iter().copied().filter(|(good, _)| good != path).collect();
        files.push((path, text));
        let found: Vec<String> =
            (rule.check)(&Repository::of(&files)).iter().map(ToString::to_string).collect();
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("{place}: ")),
            "{name} on {path}: {found:?}"
        );
    }
    for rule in RULES {
        let shown = rule.name == "required" || BAD.iter().any(|(name, ..)| *name == rule.name);
        assert!(shown, "{} has no example: a rule that cannot fail is none", rule.name);
    }
}

#[test]
fn a_file_that_is_lost_is_missed() {
    let rule = RULES.iter().find(|rule| rule.name == "required").unwrap();
    for lost in ["README.md", "CHANGELOG.md", "deny.toml"] {
        let files: Vec<_> = GOOD.iter().copied().filter(|(path, _)| *path != lost).collect();
        let found: Vec<String> =
            (rule.check)(&Repository::of(&files)).iter().map(|problem| problem.path.clone()).collect();
        assert_eq!(found, [lost]);
    }
}

#[test]
fn what_reads_like_sql_but_is_prose_passes() {
    for prose in [
        "select a model from the list",
        "update the set of tools",
        "update it set by set",
        "delete the file",
        "Insert text",
    ] {
        let text = format!("const X: &str = \"{prose}\";\n");
        let repository = Repository::of(&[("crates/server/src/x.rs", &text)]);
        let sql = RULES.iter().find(|rule| rule.name == "sql").unwrap();
        assert_eq!((sql.check)(&repository), [], "{prose}");
    }
}
