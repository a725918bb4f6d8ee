//! Ways around a rule that were tried: each is refused or asked about.

use std::time::{Duration, Instant};

use wardian_policy::PermissionMode::{BypassPermissions, Default};

use serde_json::json;

use super::support::{bash, decided, in_mode, policy, said};

#[test]
fn a_denied_command_is_not_hidden_by_how_it_is_written_or_by_what_runs_it() {
    let policy = in_mode(BypassPermissions, policy(&["Bash"], &[], &["Bash(rm:*)"]));
    for command in [
        // Quotes, escapes, line ends.
        "r\\\nm x",
        "rm\\\n x",
        "r\"\"m x",
        "\"r\"'m' x",
        "echo a \\\n&& rm x",
        "echo 'a\n'; rm x",
        "echo \"a\n\"; rm x",
        "echo a\\\\; rm x",
        "echo \"\\\\\"; rm x",
        "echo '\\'; rm x",
        "echo a#b; rm x",
        "echo a # b\nrm x",
        // Redirects before and around the name.
        "{fd}>x rm y",
        "<x rm y",
        "2>&1 >x rm y",
        "<<<x rm y",
        "<<E rm y\nE",
        "cat <<E; rm y\nE",
        "cat <<E\nE\nrm y",
        "cat <<'E'\n$x\nE\nrm y",
        "cat <<-E\n\tx\n\tE\nrm y",
        "cat <<E <<F\nE\nF\nrm y",
        // Constructs of the shell.
        "case a in a) rm x;; esac",
        "case rm in (rm) rm x;; esac",
        "for ((i=0;i<1;i++)); do rm x; done",
        "select x in a; do rm x; done",
        "until rm x; do :; done",
        "if rm x; then :; fi",
        "if :; then :; elif rm x; then :; else rm y; fi",
        "f() { rm x; }; f",
        "f() (rm x)",
        "function f { rm x; }",
        "coproc rm x",
        "coproc N { rm x; }",
        "time -p rm x",
        "! ! rm x",
        "{ rm x; } > y",
        "(rm x) &",
        "((1)) && rm x",
        "[[ a == a ]] && rm x",
        // Substitutions, wherever they stand.
        "x=$(rm x)",
        "a=(1 $(rm x))",
        "a[$(rm x)]=1",
        "export A=`rm x`",
        "echo ${x:-$(rm x)}",
        "echo ${x:-`rm x`}",
        "echo \"${x:-$(rm x)}\"",
        "echo $(($(rm x)))",
        "echo $[$(rm x)]",
        "echo {a,$(rm x)}",
        "echo $(echo \"$(echo `rm x`)\")",
        "echo `echo \\`rm x\\``",
        "cat <<<$(rm x)",
        "cat <<< \"`rm x`\"",
        "cat <<E\n$(rm x)\nE",
        "cat <<E\n`rm x`\nE",
        "cat <<E\n${x:-$(rm x)}\nE",
        "cat <(rm x)",
        "tee >(rm x)",
        "echo > $(rm x)",
        "[[ -n $(rm x) ]]",
        "((a=$(rm x)))",
        "$(rm x)",
        // What runs another command.
        "env -i A=1 rm x",
        "env -S 'rm x'",
        "env -u A -- rm x",
        "nice -n5 rm x",
        "ionice -c3 rm x",
        "timeout -s KILL 5 rm x",
        "nohup nice timeout 5 rm x",
        "xargs -I{} rm {}",
        "find . -exec rm {} +",
        "find . -type f -execdir /bin/rm {} \\;",
        "parallel rm ::: x",
        "bash -xec 'rm x'",
        "command -p rm x",
        "exec -a ls rm x",
        "builtin command rm x",
        "busybox rm x",
        "chroot / rm x",
        "setsid -w rm x",
        "stdbuf -oL rm x",
        "setpriv rm x",
        "prlimit --nproc=1 rm x",
        "setarch x86_64 rm x",
        "fakeroot rm x",
        "pkexec rm x",
        "bwrap --ro-bind / / rm x",
        "/lib64/ld-linux-x86-64.so.2 /bin/rm x",
        "script -qc 'rm x' /dev/null",
        "su -c 'rm x'",
        "watch -n1 'rm x'",
        "ssh host 'rm x'",
        "trap 'rm x' EXIT",
        "hash -p /bin/rm ls",
        "eval \"r\"'m' x",
        "eval 'eval \"rm x\"'",
        "sh -c \"sh -c 'sh -c \\\"rm x\\\"'\"",
        "mksh -c 'rm x'",
        "mapfile -C 'rm x' -c 1 a < f",
        "readarray -C 'rm x' -c 1 a < f",
        "compgen -C 'rm x'",
        "complete -C 'rm x' y",
        // Builtins that evaluate an array's index, which may hold a substitution, whatever quotes are around it.
        "test -v 'a[$(rm x)]'",
        "[ -v 'a[$(rm x)]' ]",
        "[[ 'a[$(rm x)]' -eq 1 ]]",
        "printf -v 'a[$(rm x)]' y",
        "let 'a[$(rm x)]=1'",
        "declare 'a[$(rm x)]=1'",
        "read 'a[`rm x`]'",
        "unset 'a[$(rm x)]'",
    ] {
        assert_eq!(bash(&policy, command), "deny", "{command:?}");
    }
}

#[test]
fn what_cannot_be_told_is_asked_even_where_all_is_allowed() {
    let policy = in_mode(BypassPermissions, policy(&["Bash"], &[], &["Bash(rm:*)"]));
    for command in [
        "$'\\x72m' x",
        "r$'m' x",
        "$'rm' x",
        "$\"rm\" x",
        "IFS=,; a=rm,x; $a",
        "X=rm; $X x",
        "${X}m x",
        "\"$X\" x",
        "r? x",
        "/b*/rm x",
        "~/bin/rm? x",
        "{rm,x}",
        "eval $(printf %s cm0= | base64 -d) x",
        "echo cm0geA== | base64 -d | sh",
        "bash -c \"$(cat x)\"",
        "bash < x",
        ". ./x",
        "exec 3<x; source /dev/fd/3",
        "echo 'unbalanced\nrm x",
        "cat <<E\nno end\nrm x",
        "enable -f ./evil.so evil",
        "echo $(case a in a) rm x;; esac)",
        "bash <<< 'rm x'",
        "alias ls='rm x'",
        "bind -x '\"a\": rm x'",
        "x='a[$(rm x)]'; echo $((x))",
        "echo a\0b",
    ] {
        let word = bash(&policy, command);
        assert!(word == "ask" || word == "deny", "{command:?}: {word}");
    }
}

#[test]
fn nothing_of_it_is_allowed_by_rules_for_harmless_commands() {
    let rules = ["Bash(echo:*)", "Bash(printf:*)", "Bash(test:*)", "Bash([ *)", "Bash(cat:*)", "Bash(ls:*)"];
    for allow in [&rules[..], &[]] {
        let policy = in_mode(Default, policy(allow, &[], &[]));
        for command in [
            "{fd}>x echo a",
            "echo $'a\\'; rm x'",
            "echo a\u{2028}\nrm x",
            "echo a\r\nrm x",
            "rm\u{a0}x",
            "\u{a0}rm x",
            "\u{2003}echo x",
            "echo\u{a0}a",
            "echo\u{b}x",
            "echo a\u{c}b",
            "test -v 'a[$(rm x)]'",
            "[ -v 'a[$(rm x)]' ]",
            "[ ! -v 'a[b]' ]",
            "printf -v 'a[$(rm x)]' y",
            "printf -v PATH /tmp/evil",
            "printf -vPATH /tmp/evil",
            "echo <(rm x)",
            "cat <<E\n$(rm x)\nE",
            "echo !(rm x)",
            "echo @(a|rm x)",
            "echo a;;rm x",
            "echo a &! rm x",
            "echo a >&rm x",
            "echo a >&$X",
            "echo a 2>&1x",
            "echo a {x}>y",
            "IFS=x echo a",
            "BASH_ENV=x echo a",
            "PS4='$(rm x)' set -x",
            "echo a | while read x; do rm $x; done",
            "echo \\\n$(rm x)",
            "echo a \\\n| rm x",
            "function echo { rm x; }",
            "echo () { rm x; }",
            "echo() (rm x)",
            "cat = () { rm x; }",
            "echo a=(`rm x`)",
        ] {
            assert_ne!(bash(&policy, command), "allow", "{command:?} with {allow:?}");
        }
    }
}

#[test]
fn options_before_a_subcommand_do_not_hide_it() {
    let denies =
        in_mode(BypassPermissions, policy(&["Bash"], &[], &["Bash(git push:*)", "Bash(npm publish:*)"]));
    for (command, word) in [
        ("git -C . push", "deny"),
        ("git -c a=b -C x --no-pager push origin", "deny"),
        ("/usr/bin/git --git-dir=x push", "deny"),
        ("timeout 5 git -C x push", "deny"),
        ("npm --prefix x publish", "deny"),
        ("git -C . pull", "allow"),
        ("git log push", "allow"),
        ("git commit -m push", "allow"),
        ("npm run publish", "allow"),
    ] {
        assert_eq!(bash(&denies, command), word, "{command:?}");
    }
    // What a rule allows is not stretched so.
    let allows = policy(&["Bash(git push:*)"], &[], &[]);
    assert_eq!(bash(&allows, "git -C /elsewhere push"), "ask");
}

#[test]
fn files_have_their_names_from_where_the_shell_is() {
    let rules = ["Read(./secrets/**)", "Read(~/.ssh/**)"];
    let policy = in_mode(BypassPermissions, policy(&[], &[], &rules));
    for (command, word) in [
        ("cat ~/.ssh/id", "deny"),
        ("cat $HOME/.ssh/id", "deny"),
        ("cat \"${HOME}/.ssh/id\"", "deny"),
        ("cat $PWD/secrets/key", "deny"),
        ("cat ~+/secrets/key", "deny"),
        ("cd secrets && cat key", "deny"),
        ("cd x; cd ../secrets; cat key", "deny"),
        ("pushd secrets; head -n1 key", "deny"),
        ("(cd secrets; sort key)", "deny"),
        ("cd ~ && cat .ssh/id", "deny"),
        ("cd x && cat key", "allow"),
        ("cat $HOMELESS/.ssh/id", "allow"),
    ] {
        assert_eq!(bash(&policy, command), word, "{command:?}");
    }
}

#[test]
fn names_that_the_shell_makes_up_may_be_denied_ones() {
    let rules = [
        "Read(./secrets/**)",
        "Read(.env*)",
        "Read(*.pem)",
        "Read(~/.ssh/id_*)",
        "Read(conf/*.key)",
        "Read(./one)",
    ];
    let policy = in_mode(BypassPermissions, policy(&[], &[], &rules));
    for (command, word) in [
        ("cat sec*/key", "ask"),
        ("cat s?crets/key", "ask"),
        ("cat [s]ecrets/key", "ask"),
        ("cat {secrets,x}/key", "ask"),
        ("cat secrets/*", "deny"),
        ("cat .e*", "ask"),
        ("cat sub/.env.*", "deny"),
        ("cat sub/.en?", "ask"),
        ("head a.p*", "ask"),
        ("head *.pe?", "ask"),
        ("cat ~/.ss*/id_a", "ask"),
        ("cat ~/.ssh/*", "ask"),
        ("cat conf/a*", "ask"),
        ("cat on*", "ask"),
        ("grep -r x *", "ask"),
        ("cat src/*.rs", "allow"),
        ("rm -f build/*.o", "allow"),
        ("cat *.md", "allow"),
        ("cat conf/*.toml", "allow"),
        ("ls src/*", "ask"),
        ("ls src/x*.rs", "allow"),
        ("cat ~/notes/*", "allow"),
    ] {
        assert_eq!(bash(&policy, command), word, "{command:?}");
    }
}

#[test]
fn what_is_read_by_a_redirect_needs_what_reading_needs() {
    for (allow, command, word) in [
        (&["Bash(cat:*)"][..], "cat < a", "allow"),
        (&["Bash(cat:*)"], "cat < /etc/passwd", "ask"),
        (&["Bash(cat:*)"], "cat < link/passwd", "ask"),
        (&["Bash(cat:*)"], "cat < $X", "ask"),
        (&["Bash(cat:*)"], "cat < /dev/tcp/host/80", "ask"),
        (&["Bash(cat:*)", "Bash(cd:*)"], "cd x && cat < a", "ask"),
        (&["Bash(cat:*)", "Read(//etc/**)"], "cat < /etc/passwd", "allow"),
        (&["Bash(cat:*)", "Read"], "cat < /etc/passwd", "allow"),
        (&["Bash"], "cat < /etc/passwd", "allow"),
    ] {
        assert_eq!(bash(&policy(allow, &[], &[]), command), word, "{command:?} with {allow:?}");
    }
}

#[test]
fn commands_that_only_look_look_only_here() {
    for command in [
        "cat -- /etc/passwd",
        "cat -- -x ../../etc/passwd",
        "git diff .. passwd",
        "git blame --contents link HEAD -- a",
        "git diff -- /etc/passwd /dev/null",
        "grep -nf../../x a",
        "grep -flink a",
        "cat link",
    ] {
        assert_eq!(bash(&policy(&[], &[], &[]), command), "ask", "{command:?}");
    }
    for command in ["git diff -- src/a.rs", "git log HEAD~3 -- a", "cat -- -x", "grep -f words a"] {
        assert_eq!(bash(&policy(&[], &[], &[]), command), "allow", "{command:?}");
    }
    let editing = in_mode(wardian_policy::PermissionMode::AcceptEdits, policy(&[], &[], &[]));
    for (command, word) in [
        ("cp -rL d e", "ask"),
        ("cp -r d e", "allow"),
        ("rm -- link/x", "ask"),
        ("touch .bashrc", "ask"),
        ("echo x > sub/.envrc", "ask"),
        ("mv a .gitmodules", "ask"),
    ] {
        assert_eq!(bash(&editing, command), word, "{command:?}");
    }
}

#[test]
fn agents_and_skills_have_more_than_one_name() {
    let word = |rule: &str, tool: &str, input: serde_json::Value| {
        let policy = in_mode(BypassPermissions, policy(&[], &[], &[rule]));
        said(&decided(&policy, tool, input)).0
    };
    for (rule, skill, expected) in [
        ("Skill(deploy)", "deploy", "deny"),
        ("Skill(deploy)", "/deploy", "deny"),
        ("Skill(deploy)", "kit:deploy", "deny"),
        ("Skill(kit:deploy)", "kit:deploy", "deny"),
        ("Skill(kit:deploy)", "deploy", "deny"),
        ("Skill(kit:deploy)", "/deploy", "deny"),
        ("Skill(deploy:*)", "deploy", "deny"),
        ("Skill(kit:*)", "kit", "deny"),
        ("Skill(deploy)", "deploys", "allow"),
        ("Skill(kit:deploy)", "review", "allow"),
        ("Skill(args:x)", "x", "allow"),
    ] {
        assert_eq!(word(rule, "Skill", json!({"skill": skill})), expected, "{rule} {skill}");
    }
    for (rule, input, expected) in [
        ("Agent(general-purpose)", json!({"prompt": "x"}), "deny"),
        ("Agent(general-purpose)", json!({"subagent_type": ""}), "deny"),
        ("Task(general-purpose)", json!({"subagent_type": null}), "deny"),
        ("Agent(cook)", json!({"subagent_type": "kit:cook"}), "deny"),
        ("Agent(kit:cook)", json!({"subagent_type": "cook"}), "deny"),
        ("Agent(model:opus)", json!({"model": "opus"}), "deny"),
        ("Agent(cook)", json!({"subagent_type": "other"}), "allow"),
        ("Agent(cook)", json!({"prompt": "x"}), "allow"),
    ] {
        assert_eq!(word(rule, "Agent", input.clone()), expected, "{rule} {input}");
    }
    // An allow rule takes the name as it is.
    let allows = policy(&["Skill(deploy)"], &[], &[]);
    assert_eq!(said(&decided(&allows, "Skill", json!({"skill": "kit:deploy"}))).0, "ask");
}

/// The longest that a decision may take: many times what it does, also on a busy machine in a debug build.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn large_and_deep_commands_are_decided_soon() {
    let deny: Vec<String> = (0..40).map(|number| format!("Bash(never{number} *)")).collect();
    let deny: Vec<&str> = deny.iter().map(String::as_str).collect();
    let policy = in_mode(BypassPermissions, policy(&["Bash"], &[], &deny));
    let nested = |open: &str, close: &str, times: usize| {
        format!("echo {}x{}", open.repeat(times), close.repeat(times))
    };
    let long = "a".repeat(1_000);
    for command in [
        "x".repeat(1_000_000),
        "echo ".repeat(200_000),
        "echo;".repeat(200_000),
        "echo;".repeat(13_000),
        "echo|".repeat(13_000),
        "'".repeat(65_000),
        "\"".repeat(65_001),
        "\\".repeat(65_000),
        "((".repeat(30_000),
        "{ ".repeat(30_000),
        "$(".repeat(30_000),
        "${".repeat(30_000),
        "`".repeat(65_000),
        "<(".repeat(30_000),
        "<<$(  ".repeat(10_000),
        "cat <<E\nE\n".repeat(6_000),
        format!("cat {}\n{}", "<<E ".repeat(8_000), "E\n".repeat(8_000)),
        nested("$(", ")", 20_000),
        nested("\"$(", ")\"", 15_000),
        nested("(", ")", 30_000),
        nested("${x:-", "}", 10_000),
        nested("$((", "))", 10_000),
        nested("eval \"$(", ")\"", 6_000),
        format!("eval {}", format!("'{long};' ").repeat(63)),
        format!("{}rm x", "eval ".repeat(13_000)),
        format!("{}rm x", "env ".repeat(16_000)),
        format!("eval {}", "';' ".repeat(16_000)),
        format!("eval {}", "'eval ;' ".repeat(7_000)),
        "if ".repeat(20_000),
        "case x in a) ".repeat(5_000),
        "*".repeat(65_000),
    ] {
        let begin = Instant::now();
        let word = bash(&policy, &command);
        let shown: String = command.chars().take(40).collect();
        assert!(word == "ask" || command.len() < 65_536, "{shown:?}: {word}");
        assert!(begin.elapsed() < PATIENCE, "{shown:?} took {:?}", begin.elapsed());
    }
}
