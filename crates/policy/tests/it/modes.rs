//! The order: deny, ask, mode, allow, host.

use serde_json::json;
use wardian_policy::PermissionMode::{self, AcceptEdits, Auto, BypassPermissions, Default, DontAsk, Plan};
use wardian_policy::ReasonKind;

use super::support::{bash, decided, file, in_mode, policy, said};

const MODES: [PermissionMode; 6] = [Default, AcceptEdits, Plan, DontAsk, BypassPermissions, Auto];

#[test]
fn what_each_mode_makes_of_a_call_without_rules() {
    // In the order of MODES.
    for (tool, path, words) in [
        ("Read", "src/a.rs", ["allow"; 6]),
        ("Grep", "src", ["allow"; 6]),
        ("Glob", ".", ["allow"; 6]),
        ("Read", "/etc/passwd", ["ask", "ask", "ask", "ask", "allow", "ask"]),
        ("Write", "src/a.rs", ["ask", "allow", "ask", "ask", "allow", "ask"]),
        ("Edit", "/work/shared/a", ["ask", "allow", "ask", "ask", "allow", "ask"]),
        ("NotebookEdit", "a.ipynb", ["ask", "allow", "ask", "ask", "allow", "ask"]),
        ("Write", "/etc/passwd", ["ask", "ask", "ask", "ask", "allow", "ask"]),
        ("Bash", "", ["ask", "ask", "ask", "ask", "allow", "ask"]),
        ("mcp__lab__add", "", ["ask", "ask", "ask", "ask", "allow", "ask"]),
        ("TodoWrite", "", ["allow"; 6]),
    ] {
        for (mode, word) in MODES.into_iter().zip(words) {
            let policy = in_mode(mode, policy(&[], &[], &[]));
            assert_eq!(file(&policy, tool, path), word, "{tool} {path} in {mode}");
        }
    }
}

#[test]
fn deny_beats_everything_and_ask_beats_mode_and_allow() {
    for mode in MODES {
        let all = in_mode(mode, policy(&["Bash", "Read", "Edit(//**)"], &[], &["Bash(echo:*)", "Edit(./a)"]));
        assert_eq!(bash(&all, "echo hi"), "deny", "{mode}");
        assert_eq!(file(&all, "Write", "a"), "deny", "{mode}");
        let asking = in_mode(mode, policy(&["Bash", "Read"], &["Bash(echo:*)", "Read(./hello.txt)"], &[]));
        assert_eq!(bash(&asking, "echo hi"), "ask", "{mode}");
        assert_eq!(file(&asking, "Read", "hello.txt"), "ask", "{mode}");
        let both = in_mode(mode, policy(&["Bash"], &["Bash(echo:*)"], &["Bash(echo x)"]));
        assert_eq!(bash(&both, "echo x"), "deny", "{mode}");
        assert_eq!(bash(&both, "echo y"), "ask", "{mode}");
    }
}

#[test]
fn plan_mode_lets_no_rule_run_a_command() {
    let plan =
        in_mode(Plan, policy(&["Bash(make:*)", "Bash", "Edit(./**)", "WebSearch", "mcp__lab"], &[], &[]));
    assert_eq!(bash(&plan, "make"), "ask");
    assert_eq!(bash(&plan, "ls"), "allow");
    assert_eq!(file(&plan, "Edit", "a"), "ask");
    assert_eq!(file(&plan, "mcp__lab__x", ""), "ask");
    assert_eq!(file(&plan, "WebSearch", ""), "allow");
}

#[test]
fn reasons_say_what_decided() {
    let policy = policy(&["Bash(ls:*)"], &["Bash(git push:*)"], &["Bash(rm:*)"]);
    let reason = |tool: &str, input| decided(&policy, tool, input).reason().clone();
    let command = |text: &str| reason("Bash", json!({ "command": text }));
    assert_eq!(command("rm x").text, "the rule Bash(rm:*) denies it");
    assert_eq!(command("git push").text, "the rule Bash(git push:*) asks about it");
    assert_eq!(command("ls; make").text, "no rule allows the command \"make\"");
    assert_eq!(command("ls $(pwd)").text, "it cannot be told that the rule Bash(rm:*) does not refuse it");
    assert_eq!(command("ls $(pwd)").kind.as_str(), Some("other"));
    let outside = reason("Write", json!({"file_path": "/etc/x"}));
    assert_eq!(
        (outside.kind, outside.text.as_str()),
        (ReasonKind::Boundary, "/etc/x is outside the working directories")
    );
    assert_eq!(outside.kind.as_str(), Some("workingDir"));
    assert_eq!(reason("Frob", json!({})).text, "no rule allows Frob to do this");
    assert_eq!(said(&decided(&policy, "Read", json!({"file_path": 5}))).1, ReasonKind::NotEvaluated);
}
