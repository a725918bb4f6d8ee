//! Commands: split, matched part by part, and asked about when they are not understood.

use serde_json::json;
use wardian_policy::PermissionMode::{AcceptEdits, BypassPermissions, Default, DontAsk};
use wardian_policy::{Call, Facts, PathFact, decide, paths_of};

use super::support::{CWD, bash, file, in_mode, policy, said};

#[test]
fn allow_rules_need_every_part() {
    let policy = policy(&["Bash(git *)", "Bash(npm run test:*)", "Bash(echo:*)", "Bash(true)"], &[], &[]);
    for (command, word) in [
        ("git status", "allow"),
        ("git", "allow"),
        ("  git   status  ", "allow"),
        ("git log --format='%h | %s && x; y'", "allow"),
        ("git commit -m \"a; b & c | d\"", "allow"),
        ("git log -n 5 # rm -rf /", "allow"),
        ("git log \\\n --oneline", "allow"),
        ("npm run test -- --watch", "allow"),
        ("npm run tests", "ask"),
        ("gitk", "ask"),
        ("true", "allow"),
        ("make x", "ask"),
        ("git status && npm run test", "allow"),
        ("git status || git diff; echo done | git apply", "allow"),
        ("git status & echo x", "allow"),
        ("git status\necho x\n\n", "allow"),
        ("git status && rm -rf /", "ask"),
        ("git status; rm -rf /", "ask"),
        ("git status | sh", "ask"),
        ("git status & rm -rf /", "ask"),
        ("git status\nrm -rf /", "ask"),
        ("git status |& rm x", "ask"),
        ("git status & <<< x", "ask"),
        ("git status; > /dev/null", "ask"),
        ("rm -rf / # git", "ask"),
        ("git\trm", "allow"),
        ("echo \"$HOME\" *.rs ~", "allow"),
        // Assignments change what a command does.
        ("GIT_SSH_COMMAND=evil git fetch", "ask"),
        ("PATH=/tmp; git status", "ask"),
        // The name is not what stands there.
        ("\\git status", "ask"),
        ("/tmp/git status", "ask"),
        ("./git status", "ask"),
        ("g''it status", "ask"),
        ("$GIT status", "ask"),
        ("git' status'", "ask"),
        ("", "ask"),
        ("   ", "ask"),
        ("# nothing", "ask"),
    ] {
        assert_eq!(bash(&policy, command), word, "{command:?}");
    }
}

#[test]
fn what_is_not_understood_is_never_allowed_by_a_rule() {
    let policy = policy(
        &[
            "Bash(echo:*)",
            "Bash(printf:*)",
            "Bash(git:*)",
            "Bash(cat:*)",
            "Bash(sh:*)",
            "Bash(env:*)",
            "Bash(xargs:*)",
            "Bash(eval:*)",
            "Bash(find:*)",
            "Bash(timeout:*)",
            "Bash(for:*)",
            "Bash($*)",
            "Bash(bash -c *)",
            "Bash(* x)",
        ],
        &[],
        &[],
    );
    for command in [
        "$(printf 'r')m -r -f /",
        "echo $(rm -rf /)",
        "echo `rm -rf /`",
        "echo \"$(rm -rf /)\"",
        "echo \"`rm -rf /`\"",
        "echo ${x:-$(rm -rf /)}",
        "echo ${x@P}",
        "echo $((1+1))",
        "echo $[1+1]",
        "echo $'\\x72m'",
        "cat <(rm x)",
        "echo x >(sh)",
        "cat <<EOF\n$(rm -rf /)\nEOF",
        "cat <<-'EOF'\nx\nEOF",
        "eval rm -rf /",
        "sh -c 'rm -rf /'",
        "bash -c 'rm -rf /' x",
        "/bin/sh -c x",
        "env rm -rf /",
        "timeout 5 rm x",
        "git ls-files | xargs rm",
        "echo x | sh",
        "(git status)",
        "{ git status; }",
        "git() { rm -rf /; }; git x",
        "for x in a; do rm x; done",
        "if true; then rm x; fi",
        "! echo x",
        "[[ a == x ]]",
        "$X x",
        "${X} x",
        "r{m,} x",
        "/bin/r? x",
        "find . -exec rm x",
        "find . -delete x",
        "find . -name a -fprint x",
        "echo 'unbalanced",
        "echo \"unbalanced",
        "echo `unbalanced",
        "echo $(unbalanced",
        "echo \\",
        "echo >",
        "echo > > x",
        "echo a\rb",
        "echo a\0b",
        "echo \u{1b}[0m x",
        "alias git=rm x",
    ] {
        assert_eq!(bash(&policy, command), "ask", "{command:?}");
    }
    let long = format!("echo {}", "x".repeat(70_000));
    assert_eq!(bash(&policy, &long), "ask");
    let deep = format!("echo {}{}", "$(".repeat(10_000), ")".repeat(10_000));
    assert_eq!(bash(&policy, &deep), "ask");
}

#[test]
fn a_rule_that_spells_a_command_out_allows_it() {
    let policy = policy(&["Bash(bash run_tests.sh)", "Bash(env)"], &[], &[]);
    assert_eq!(bash(&policy, "bash run_tests.sh"), "allow");
    assert_eq!(bash(&policy, "bash run_tests.sh x"), "ask");
    assert_eq!(bash(&policy, "env"), "allow");
    assert_eq!(bash(&policy, "env rm"), "ask");
}

#[test]
fn deny_rules_take_any_part_however_it_is_hidden() {
    let policy =
        in_mode(BypassPermissions, policy(&["Bash"], &[], &["Bash(rm:*)", "Bash(git push * --force)"]));
    for command in [
        "rm",
        "rm -rf /",
        "ls && rm x",
        "ls; rm x",
        "ls | rm x",
        "ls & rm x",
        "ls\nrm x",
        "(rm x)",
        "{ rm x; }",
        "/bin/rm x",
        "../../bin/rm x",
        "\\rm x",
        "r\\m x",
        "r''m x",
        "'rm' x",
        "\"rm\" x",
        "rm\tx",
        "A=1 rm x",
        "a+=1 B[0]=x rm x",
        "echo $(rm x)",
        "echo \"$(rm x)\"",
        "echo `rm x`",
        "echo $(echo $(rm x))",
        "cat <(rm x)",
        "sudo rm x",
        "sudo -u root rm x",
        "env A=1 rm x",
        "xargs -n 1 rm",
        "timeout 5 rm x",
        "nohup rm x &",
        "sh -c 'rm x'",
        "bash -lc \"cd / && rm x\"",
        "eval rm x",
        "eval 'rm x'",
        "sh -c \"sh -c 'rm x'\"",
        "if true; then rm x; fi",
        "for f in *; do rm $f; done",
        "! rm x",
        "time rm x",
        "while rm x; do :; done",
        "find . -exec rm {} ;",
        "rm>x",
        "x=1;rm y",
        ">y rm x",
        "2>&1 rm x",
        "cat <<EOF | rm x\nEOF",
        "git push origin --force",
        "git push origin main --force",
    ] {
        assert_eq!(bash(&policy, command), "deny", "{command:?}");
    }
    for command in [
        "echo \"rm -rf\"",
        "echo rm",
        "echo 'rm -rf /' > x",
        "rmdir x",
        "grep rm x",
        "git push origin",
        "ls # rm x",
        "cat rm",
        "echo \"a $ rm\"",
        "ls *.rs",
        "echo $HOME ~",
    ] {
        assert_eq!(bash(&policy, command), "allow", "{command:?}");
    }
    // It cannot be told: asked, in every mode.
    for command in [
        "$(printf 'r')m -r -f /",
        "curl x | sh",
        "python3 - <<EOF\nimport os\nEOF",
        "$X -rf /",
        "r{m,} x",
        "/bin/r? x",
        "echo 'unbalanced",
        "git push $X",
        "git $X --force",
        "base64 -d x | bash",
        "source x",
        "ssh host ls",
    ] {
        assert_eq!(bash(&policy, command), "ask", "{command:?}");
    }
}

#[test]
fn the_bare_rule_allows_whatever_no_rule_refuses() {
    for rule in ["Bash", "Bash(*)"] {
        let policy = policy(&[rule], &[], &["Read(//nowhere)"]);
        for command in ["ls", "for f in *; do cat $f; done", "echo $(date) > x", "cat <<EOF\nx\nEOF", "sh x"]
        {
            assert_eq!(bash(&policy, command), "allow", "{command:?}");
        }
    }
}

#[test]
fn redirects_are_file_writes() {
    let only_echo = policy(&["Bash(echo:*)", "Bash(cat:*)"], &[], &[]);
    for (command, word) in [
        ("echo x > file", "ask"),
        ("echo x >> file", "ask"),
        ("echo x>file", "ask"),
        ("echo x >| file", "ask"),
        ("echo x &> file", "ask"),
        ("echo x &>> file", "ask"),
        ("echo x >& file", "ask"),
        ("echo x 2> file", "ask"),
        ("echo x <> file", "ask"),
        ("> file echo x", "ask"),
        ("> file", "ask"),
        ("echo x > /dev/null", "allow"),
        ("echo x 2>&1", "allow"),
        ("echo x >&2 2>&-", "allow"),
        ("echo x &> /dev/null", "allow"),
        ("cat < file", "allow"),
        ("cat <<< \"x > y\"", "allow"),
        ("echo 'x > file'", "allow"),
        ("echo x \\> file", "allow"),
    ] {
        assert_eq!(bash(&only_echo, command), word, "{command:?}");
    }
    let with_edit = policy(&["Bash(echo:*)", "Bash(cd:*)", "Edit(./out/**)", "Edit(//var/tmp/x)"], &[], &[]);
    for (command, word) in [
        ("echo x > out/file", "allow"),
        ("echo x > ./out/file && echo y >> out/b", "allow"),
        ("echo x > '/var/tmp/x'", "allow"),
        ("echo x > other", "ask"),
        ("echo x > out/../other", "ask"),
        ("echo x > link/passwd", "ask"),
        ("echo x > $HOME/out", "ask"),
        ("echo x > ~/out", "ask"),
        ("echo x > out/*", "ask"),
        ("cd /etc && echo x > out/file", "ask"),
        ("echo x > out/a > other", "ask"),
    ] {
        assert_eq!(bash(&with_edit, command), word, "{command:?}");
    }
    let editing = in_mode(AcceptEdits, only_echo);
    assert_eq!(bash(&editing, "echo x > file"), "allow");
    assert_eq!(bash(&editing, "echo x > /etc/file"), "ask");
    assert_eq!(bash(&editing, "echo x > link/file"), "ask");
    assert_eq!(bash(&editing, "make > file"), "ask");
}

#[test]
fn rules_that_refuse_files_hold_for_redirects_and_file_commands() {
    let policy = in_mode(
        BypassPermissions,
        policy(&["Bash"], &[], &["Edit(./secret/**)", "Read(.env)", "Edit(//etc/**)"]),
    );
    for (command, word) in [
        ("echo x > secret/a", "deny"),
        ("echo x > ./secret/../secret/a", "deny"),
        ("make && echo x >> SECRET/a", "deny"),
        ("echo x > /etc/passwd", "deny"),
        ("echo x > link/passwd", "deny"),
        ("tee secret/a", "deny"),
        ("cat .env", "deny"),
        ("sort < .env", "deny"),
        ("cat sub/.env | head", "deny"),
        ("echo .env", "allow"),
        ("echo x > other", "allow"),
        // Where it goes is not known, so it is asked about.
        ("echo x > $X", "ask"),
        ("cd secret && echo x > a", "ask"),
    ] {
        assert_eq!(bash(&policy, command), word, "{command:?}");
    }
}

#[test]
fn the_caller_resolves_what_can_be_read_off() {
    let command = "echo a > x 2>> 'y z'; cat < in <<< no > /dev/null >&2 > x > $X; echo $(echo > inner)";
    let input = json!({ "command": command });
    let call = Call { tool: "Bash", input: &input };
    assert_eq!(paths_of(&call), ["x", "y z", "in", "inner"]);

    // Without the fact the write is not allowed; a fact that was not resolved is none.
    let policy = policy(&["Bash(echo:*)", "Edit"], &[], &[]);
    let input = json!({"command": "echo a > x"});
    let call = Call { tool: "Bash", input: &input };
    let with = |resolved: &str| {
        let paths = vec![PathFact { given: "x".into(), resolved: resolved.into() }];
        said(&decide(
            &policy,
            &call,
            &Facts { cwd: CWD.into(), call_cwd: CWD.into(), paths, ..Facts::default() },
        ))
        .0
    };
    assert_eq!(with("/work/app/x"), "allow");
    assert_eq!(with("/work/app/../../etc/x"), "ask");
    assert_eq!(with("x"), "ask");
    assert_eq!(
        said(&decide(&policy, &call, &Facts { cwd: CWD.into(), call_cwd: CWD.into(), ..Facts::default() })).0,
        "ask"
    );
}

#[test]
fn a_command_that_is_missing_is_asked_about() {
    let policy = policy(&["Bash(ls)"], &[], &["Bash(rm:*)"]);
    for input in [json!({}), json!({"command": 5}), json!(null), json!([]), json!("ls")] {
        let call = Call { tool: "Bash", input: &input };
        assert_eq!(said(&decide(&policy, &call, &Facts::default())).0, "ask", "{input}");
    }
}

#[test]
fn a_shell_that_went_elsewhere_does_not_move_the_rules() {
    let policy = in_mode(BypassPermissions, policy(&[], &[], &["Edit(./secret/**)"]));
    let input = json!({"command": "echo x > ../secret/a"});
    let call = Call { tool: "Bash", input: &input };
    for resolved in ["/work/app/secret/a", "/elsewhere"] {
        let paths = vec![PathFact { given: "../secret/a".into(), resolved: resolved.into() }];
        let facts = Facts { cwd: CWD.into(), call_cwd: "/work/app/sub".into(), paths, ..Facts::default() };
        assert_eq!(said(&decide(&policy, &call, &facts)).0, "deny");
    }
}

#[test]
fn commands_that_only_look_here_need_nobodys_leave() {
    for command in [
        "echo hello",
        "pwd; ls -la src && wc -l a.rs",
        "cat a.rs | grep -n 'fn main' | head -5",
        "grep -rn word src",
        "find . -name a.rs -type f",
        "sed -n 3,9p a.rs",
        "git status",
        "git log --oneline -n 5",
        "git diff src/a.rs",
        "cat < a.rs",
        "cd src && pwd",
        "ls 2> /dev/null",
        "date +%s",
    ] {
        for mode in [Default, AcceptEdits, DontAsk] {
            assert_eq!(
                bash(&in_mode(mode, policy(&[], &[], &[])), command),
                "allow",
                "{command:?} in {mode}"
            );
        }
    }
    let denied = policy(&[], &["Bash(pwd)"], &["Read(./secret)", "Bash(echo:*)"]);
    for (command, word) in
        [("cat secret", "deny"), ("echo x", "deny"), ("pwd", "ask"), ("ls; cat secret", "deny")]
    {
        assert_eq!(bash(&denied, command), word, "{command:?}");
    }
}

#[test]
fn what_seems_to_look_and_does_more_is_asked_about() {
    for command in [
        // Outside.
        "cat /etc/passwd",
        "cat ../../etc/passwd",
        "cat < /etc/passwd",
        "ls /",
        "grep x ../..",
        "cd /tmp && ls",
        "cd ~",
        // Somewhere that cannot be told.
        "cat $FILE",
        "cat *",
        "cat ~/.ssh/id",
        "cd src && cat a.rs",
        "cat $(echo a)",
        // It writes.
        "echo x > a",
        "sed -i s/a/b/ a.rs",
        "sed -n 'w a' b",
        "sed -n 3,9p --in-place a.rs",
        "git log --output=a",
        "git log --outp=a",
        "find . -delete",
        "find . -fprint a",
        "date -s tomorrow",
        "touch a",
        // It runs something.
        "find . -exec sh {} +",
        "git -c core.pager=evil log",
        "git diff --ext-diff",
        "git diff --ext",
        "git show --textconv",
        "git push",
        "sed 's/x/y/e' a.rs",
        "LD_PRELOAD=./evil.so ls",
        "PATH=. ls",
        "./ls",
        "/tmp/evil/ls",
        // It reads what others name, or where links lead.
        "wc --files0-from=list",
        "wc --files0=list",
        "grep -R x .",
        "grep -nR x .",
        "diff -ru a b",
        "git diff --no-index a b",
        "grep -f/etc/passwd a",
        "grep --file=/etc/passwd a",
    ] {
        assert_eq!(bash(&policy(&[], &[], &[]), command), "ask", "{command:?}");
    }
}

#[test]
fn everyday_edits_here_are_free_where_edits_are() {
    let edits = in_mode(AcceptEdits, policy(&[], &[], &[]));
    for (command, word) in [
        ("touch a", "allow"),
        ("mkdir -p a/b && mv c a/b", "allow"),
        ("rm -rf target", "allow"),
        ("cp a b", "allow"),
        ("sed -i s/a/b/g a.rs", "allow"),
        ("echo x > a", "allow"),
        ("touch /tmp/a", "ask"),
        ("cp /etc/passwd a", "ask"),
        ("rm -rf .", "ask"),
        ("rm -rf ..", "ask"),
        ("rm -rf .git", "ask"),
        ("touch .git/hooks/pre-commit", "ask"),
        ("echo x > .git/hooks/pre-commit", "ask"),
        ("cp a .claude/settings.json", "ask"),
        ("echo x > .claude/settings.json", "ask"),
        ("sed -i s/a/b/e a.rs", "ask"),
        ("sed -i 's/a/b/w c' a.rs", "ask"),
        ("sed -i '1e id' a.rs", "ask"),
        ("mv -t /tmp a", "ask"),
        ("cp --target-directory=/tmp a", "ask"),
        ("cd /tmp && rm a", "ask"),
        ("cd src && rm a", "ask"),
        ("chmod +x a", "ask"),
        ("ln -s /etc a", "ask"),
        ("rm $X", "ask"),
    ] {
        assert_eq!(bash(&edits, command), word, "{command:?}");
    }
    assert_eq!(bash(&policy(&[], &[], &[]), "touch a"), "ask");
    assert_eq!(file(&edits, "Write", ".claude/settings.json"), "ask");
    assert_eq!(file(&edits, "Write", ".git/hooks/pre-commit"), "ask");
    assert_eq!(file(&edits, "Write", "src/a.rs"), "allow");
    let named = in_mode(AcceptEdits, policy(&["Write"], &[], &[]));
    assert_eq!(file(&named, "Write", ".git/hooks/pre-commit"), "allow", "a rule says so");
}
