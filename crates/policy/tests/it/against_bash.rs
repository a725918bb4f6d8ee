//! What the splitter takes a command for, held against what bash does with it.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use wardian_policy::PermissionMode::BypassPermissions;

use super::support::{bash, in_mode, policy};

/// The commands that bash runs for this text, as written, right before each.
fn traced(text: &str) -> Vec<String> {
    let lines = run("trap 'printf \"%s\\0\" \"$BASH_COMMAND\" >&3' DEBUG; set -T; eval \"$1\"", text);
    let ours = |line: &&str| line.is_empty() || line.starts_with("set -T") || *line == "eval \"$1\"";
    lines.split('\0').filter(|line| !ours(line)).map(str::to_owned).collect()
}

/// The first words of the commands that bash runs for this text, as it expanded them.
fn names_run(text: &str) -> Vec<String> {
    let lines = run("BASH_XTRACEFD=3; PS4=$'\\1'; set -x; eval \"$1\"", text);
    let commands = lines.lines().filter(|line| line.starts_with('\u{1}'));
    commands.map(|line| line.trim_start_matches('\u{1}').split(' ').next().unwrap().to_owned()).collect()
}

/// Runs the text in a bash that finds no programs, and gives what the script wrote to descriptor 3.
fn run(script: &str, text: &str) -> String {
    let output = Command::new("/bin/bash")
        .args(["--norc", "--noprofile", "-c", &format!("exec 3>&1 >/dev/null 2>&1; {script}"), "_", text])
        .env_clear()
        .env("PATH", "/nowhere")
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::null())
        .output()
        .expect("bash is needed to compare with");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn shell_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "echo",
        "echo ",
        "echo a",
        " ",
        "; echo ",
        " | echo",
        "&& echo x",
        "\necho y",
        "'",
        "\"",
        "\\",
        "a",
        "b c",
        "$x",
        "$(",
        ")",
        "`",
        "#",
        " #",
        "2>&1",
        " > /dev/null",
        " < /dev/null",
        "<<<",
        "&",
        "|",
        ";",
        "\n",
        "{",
        "}",
        "*",
        "~",
        "=",
        "x=1 ",
        "!",
        "$",
        "$'",
        "\\n",
        "\t",
        "\\\n",
        "pwd",
        "true",
        "é",
        "[",
        "]",
        "(",
        ",",
        "'a b'",
        "\"a $y b\"",
        "<<E\n",
        "\nE\n",
        "{fd}>/dev/null ",
        "test -v ",
        "printf -v ",
        "'a[$(no)]'",
        "if true; then ",
        "; fi",
        "for x in a; do ",
        "; done",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("echo {}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_allowed_runs_nothing_else(text in shell_text()) {
        let policy = policy(&["Bash(echo:*)"], &[], &[]);
        prop_assume!(bash(&policy, &text) == "allow");
        for command in traced(&text) {
            let name = command.split(' ').next().unwrap_or_default();
            prop_assert!(["echo", "pwd", "true", "[", "test", "printf"].contains(&name), "{text:?} runs {command:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_denied_does_not_run_by_another_spelling(text in shell_text()) {
        let policy = in_mode(BypassPermissions, policy(&[], &[], &["Bash(rm:*)", "Edit(//**)"]));
        prop_assume!(bash(&policy, &text) == "allow");
        let names = names_run(&text);
        prop_assert!(!names.iter().any(|name| name == "rm"), "{text:?} runs {names:?}");
    }
}

#[test]
fn bash_is_traced() {
    assert_eq!(names_run("x=rm; $x y; \\rm z; r'm'"), ["eval", "x=rm", "rm", "rm", "rm"]);
    assert_eq!(traced("echo a; echo $(pwd); true"), ["echo a", "echo $(pwd)", "pwd", "true"]);
}
