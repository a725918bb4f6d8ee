//! Rules as texts.

use serde_json::json;
use wardian_policy::{MAX_RULE_BYTES, PermissionMode, Rule};

use super::support::{decided, policy, rules, said};

#[test]
fn rules_are_read_and_written_as_they_stand() {
    for text in [
        "Bash",
        "Bash(git *)",
        "Bash(npm run test:*)",
        "Bash(*)",
        "Read(./x/**)",
        "Edit(//abs/**)",
        "Read(~/x)",
        "Edit(/src)",
        "Read(.env)",
        "mcp__server",
        "mcp__server__tool",
        "mcp__server__*",
        "WebSearch",
        "WebFetch(domain:example.com)",
        "Agent(reviewer)",
        "Skill(pdf)",
        "Deploy(stage:test*)",
        "Bash(echo (x))",
    ] {
        let rule: Rule = text.parse().unwrap();
        assert_eq!(rule.to_string(), text);
        assert_eq!(serde_json::to_value(&rule).unwrap(), json!(text));
        assert_eq!(serde_json::from_value::<Rule>(json!(text)).unwrap(), rule);
    }
}

#[test]
fn malformed_rules_name_the_place_and_the_way_out() {
    for (text, position, problem) in [
        ("", 1, "no tool"),
        ("   ", 1, "no tool"),
        ("(git *)", 1, "no tool"),
        ("Bash(git *", 11, "no ) at the end"),
        ("Bash(git *) x", 14, "no ) at the end"),
        ("Bash git)", 9, "a ) without its ("),
        ("Bash()", 6, "an empty specifier"),
        ("Bash( )", 6, "an empty specifier"),
        ("Bäsh(x)", 2, "a character that no tool's name has"),
        ("Bash, Read", 5, "a character that no tool's name has"),
        ("Bash(git:* push)", 9, "a :* that is not at the end"),
        ("Bash(:*)", 6, "no command before the :*"),
        ("Ba*", 3, "a * in a tool's name"),
        ("*", 1, "a * in a tool's name"),
        ("mcp__*", 6, "a * in a tool's name"),
        ("Read(!x)", 6, "a negated pattern"),
        ("Read(~bob/x)", 7, "another user's home"),
        ("Read(a/../b)", 8, "a .. in the middle"),
        ("Read(./x[)", 8, "a pattern that cannot be read"),
        ("WebFetch(domain:)", 17, "no host"),
        ("WebFetch(domain:https://x)", 17, "no host"),
        ("WebSearch(anything)", 11, "a specifier that this tool does not have"),
        ("Bash(a\nb)", 7, "a control character"),
    ] {
        let error = text.parse::<Rule>().unwrap_err();
        assert_eq!((error.position, error.problem), (position, problem), "{text:?}");
        assert!(!error.hint.is_empty());
    }
    let long = format!("Bash({})", "x".repeat(MAX_RULE_BYTES));
    let error = long.parse::<Rule>().unwrap_err();
    assert_eq!(error.problem, "too long");
    assert!(error.to_string().len() < 300, "{error}");
    assert_eq!(
        "Bash(git".parse::<Rule>().unwrap_err().to_string(),
        "read the rule \"Bash(git\": no ) at the end at character 9; write Tool(specifier)"
    );
}

#[test]
fn names_cover_tools() {
    for (rule, tool, covers) in [
        ("mcp__lab", "mcp__lab__add", true),
        ("mcp__lab", "mcp__labs__add", false),
        ("mcp__lab__*", "mcp__lab__add", true),
        ("mcp__lab__a*", "mcp__lab__add", true),
        ("mcp__lab__b*", "mcp__lab__add", false),
        ("mcp__lab__add", "mcp__lab__add", true),
        ("mcp__lab__add", "mcp__lab__add2", false),
        ("Agent", "Task", true),
        ("Task", "Agent", true),
        ("WebSearch", "websearch", false),
        ("Re", "Read", false),
    ] {
        let input = json!({});
        let allowed = said(&decided(&policy(&[rule], &[], &[]), tool, input.clone())).0 == "allow";
        assert_eq!(allowed, covers, "{rule} allows {tool}");
        let denying = policy(&[], &[], &[rule]);
        assert_eq!(said(&decided(&denying, tool, input)).0 == "deny", covers, "{rule} denies {tool}");
        assert_eq!(denying.removes(tool), covers);
    }
}

#[test]
fn bare_denials_remove_tools() {
    let policy = policy(&[], &[], &["Bash(rm:*)", "WebFetch", "mcp__lab__*", "Bash(*)"]);
    assert_eq!(policy.removed_tools(), ["WebFetch", "mcp__lab__*", "Bash"]);
    assert!(policy.removes("mcp__lab__x") && !policy.removes("Read"));
}

#[test]
fn hosts_and_fields() {
    let policy = policy(
        &["WebFetch(domain:example.com)", "WebFetch(domain:*.example.org)", "Agent(reviewer)"],
        &[],
        &["WebFetch(domain:evil.example.org)", "Agent(deployer)"],
    );
    for (url, word) in [
        ("https://example.com/x", "allow"),
        ("HTTPS://EXAMPLE.com.:443/x?y", "allow"),
        ("https://a.example.org", "allow"),
        ("https://evil.example.org", "deny"),
        ("https://EVIL.example.org./", "deny"),
        ("https://notexample.com", "ask"),
        // The host is not the one that it seems: never allowed.
        ("https://example.com@evil.test/", "ask"),
        ("https://evil.test\\@example.com/", "ask"),
        ("https://evil.test#example.com", "ask"),
        ("file://example.com/etc/passwd", "ask"),
        ("example.com", "ask"),
    ] {
        assert_eq!(said(&decided(&policy, "WebFetch", json!({ "url": url }))).0, word, "{url}");
    }
    assert_eq!(said(&decided(&policy, "WebFetch", json!({}))).0, "ask");
    assert_eq!(said(&decided(&policy, "Agent", json!({"subagent_type": "reviewer"}))).0, "allow");
    // What a subagent does is decided call by call; beginning one is free.
    assert_eq!(said(&decided(&policy, "Agent", json!({"subagent_type": "writer"}))).0, "allow");
    assert_eq!(said(&decided(&policy, "Agent", json!({"subagent_type": "deployer"}))).0, "deny");
    assert_eq!(said(&decided(&policy, "Task", json!({"subagent_type": "deployer"}))).0, "deny");
}

#[test]
fn modes_are_read_and_written() {
    for mode in ["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions", "auto"] {
        let read: PermissionMode = mode.parse().unwrap();
        assert_eq!(read.to_string(), mode);
        assert_eq!(serde_json::to_value(read).unwrap(), json!(mode));
        assert_eq!(serde_json::from_value::<PermissionMode>(json!(mode)).unwrap(), read);
    }
    let error = "Default".parse::<PermissionMode>().unwrap_err().to_string();
    assert!(error.starts_with("read the permission mode \"Default\": expected default,"), "{error}");
    assert!(rules(&[]).is_empty());
}
