//! Properties over hostile input.

use proptest::prelude::*;
use serde_json::{Value, json};
use wardian_policy::{Call, Decision, Facts, PathFact, PermissionMode, Policy, Rule, decide, paths_of};

use super::support::{CWD, bash, facts, policy};

const TOOLS: [&str; 9] =
    ["Bash", "Read", "Write", "Edit", "Glob", "Grep", "WebFetch", "mcp__lab__add", "Unheard"];

/// Pieces that shell texts are made of, so that arbitrary texts are not all plain words.
fn shell_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "rm",
            " ",
            "-rf",
            "git",
            "echo",
            "$(",
            ")",
            "`",
            "'",
            "\"",
            "\\",
            "&&",
            "||",
            ";",
            "|",
            "&",
            "\n",
            ">",
            "<",
            "<<",
            "EOF",
            "{",
            "}",
            "(",
            "$",
            "${",
            "*",
            "~",
            "#",
            "sh -c",
            "eval",
            "x=1",
            "/etc/passwd",
            "2>&1",
            "\t",
            "!",
            "if",
            "then",
            "fi",
            "[[",
            "\0",
            "é",
            "\u{202e}",
            "<(",
            "<<<",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn input() -> impl Strategy<Value = Value> {
    let field =
        prop::sample::select(vec!["command", "file_path", "path", "pattern", "url", "notebook_path", "x"]);
    let value = prop_oneof![
        shell_text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        "(/|\\.\\./|[a-z]{1,3}/){0,6}".prop_map(Value::from),
    ];
    prop_oneof![
        9 => prop::collection::vec((field, value), 0..4)
            .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()),
        1 => prop_oneof![Just(Value::Null), Just(json!([1])), Just(json!("x"))],
    ]
}

fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    let texts = vec![
        "Bash",
        "Bash(*)",
        "Bash(git *)",
        "Bash(rm:*)",
        "Bash(echo:*)",
        "Bash(sh -c *)",
        "Bash(rm -rf /)",
        "Read",
        "Read(.env)",
        "Read(//etc/**)",
        "Read(./src/**)",
        "Edit",
        "Edit(./**)",
        "Edit(//**)",
        "Write",
        "Write(~/x)",
        "WebFetch(domain:*.test)",
        "WebFetch",
        "mcp__lab",
        "mcp__lab__*",
        "Unheard(x:*)",
        "Glob(**/*.rs)",
    ];
    prop::collection::vec(prop::sample::select(texts), 0..4)
        .prop_map(|texts| texts.into_iter().map(|text| text.parse().unwrap()).collect())
}

fn modes() -> impl Strategy<Value = PermissionMode> {
    prop::sample::select(vec![
        PermissionMode::Default,
        PermissionMode::AcceptEdits,
        PermissionMode::Plan,
        PermissionMode::DontAsk,
        PermissionMode::BypassPermissions,
        PermissionMode::Auto,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn deciding_never_panics_and_a_denial_is_never_overridden(
        tool in prop::sample::select(TOOLS.to_vec()), input in input(), deny in some_rules(), ask in some_rules(),
        allow in some_rules(), mode in modes(), resolved in prop::collection::vec("(/[a-z.]{0,4}){0,5}", 0..3),
        honest: bool,
    ) {
        let call = Call { tool, input: &input };
        let facts = if honest { facts(&call) } else {
            let given = paths_of(&call);
            let paths = given.into_iter().zip(resolved).map(|(given, resolved)| PathFact { given, resolved: resolved.into() });
            Facts { cwd: CWD.into(), call_cwd: CWD.into(), paths: paths.collect(), ..Facts::default() }
        };
        let only_deny = Policy { deny, roots: vec![CWD.into()], ..Policy::default() };
        let all = Policy { ask, allow, mode, ..only_deny.clone() };
        let decided = decide(&all, &call, &facts);
        if matches!(decide(&only_deny, &call, &facts), Decision::Deny { .. }) {
            prop_assert!(matches!(decided, Decision::Deny { .. }), "{decided:?}");
        }
        // What may be denied, or is to be asked about, is not allowed by anything either.
        let bypassing = Policy { mode: PermissionMode::BypassPermissions, ..all.clone() };
        if !matches!(decide(&bypassing, &call, &facts), Decision::Allow { .. }) {
            prop_assert!(!matches!(decided, Decision::Allow { .. }), "{decided:?}");
        }
        prop_assert_eq!(decide(&all, &call, &facts), decided);
    }

    #[test]
    fn no_text_makes_reading_a_rule_panic(text in ".{0,40}", tool in "(Bash|Read|Edit|WebFetch|mcp__a__)", rest in shell_text()) {
        let _ = text.parse::<Rule>();
        if let Ok(rule) = format!("{tool}({rest})").parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn one_part_that_no_rule_matches_is_enough(
        parts in prop::collection::vec(prop::sample::select(vec!["git status", "echo 'a b'", "git log -n 5", "echo x"]), 0..5),
        alien in "[a-z]{1,6}( -?[a-z]{1,5}){0,3}", place in 0..5_usize,
        joints in prop::collection::vec(prop::sample::select(vec![" && ", "||", "; ", " | ", "\n", " & ", "|&"]), 5),
    ) {
        prop_assume!(!alien.starts_with("git ") && !alien.starts_with("echo ") && alien != "git" && alien != "echo");
        let policy = policy(&["Bash(git *)", "Bash(echo:*)"], &[], &[]);
        // Some only look.
        prop_assume!(bash(&policy, &alien) == "ask");
        let mut parts: Vec<&str> = parts;
        let join = |parts: &[&str]| {
            parts.iter().zip(&joints).fold(String::new(), |text, (part, joint)| {
                if text.is_empty() { (*part).to_owned() } else { format!("{text}{joint}{part}") }
            })
        };
        if !parts.is_empty() {
            prop_assert_eq!(bash(&policy, &join(&parts)), "allow");
        }
        parts.truncate(4);
        parts.insert(place.min(parts.len()), &alien);
        prop_assert_eq!(bash(&policy, &join(&parts)), "ask", "{}", join(&parts));
    }

    #[test]
    fn whatever_surrounds_it_a_denied_part_is_not_allowed(before in shell_text(), after in shell_text()) {
        let policy = Policy { mode: PermissionMode::BypassPermissions, ..policy(&["Bash"], &[], &["Bash(rm:*)"]) };
        // Only where the text before does not swallow it as a quote, comment or document: the real shell decides that,
        // so it is enough that its own line is a command of its own or the whole is not understood.
        let quiet = !before.contains(['\'', '"', '`', '#', '\\', '<', '(', ')', '{', '}', '$', '>']);
        let command = format!("{before}\nrm x\n{after}");
        if quiet {
            prop_assert_ne!(bash(&policy, &command), "allow", "{:?}", command);
        }
    }
}
