use std::path::Path;

use wardian_agent::{HookEvent, PermissionMode};

use super::{Effective, Place, Sources, is_trusted, load};
use crate::args::{Args, Complaint};

fn given(text: &str) -> Result<(Args, Effective), Complaint> {
    let mut args =
        Args { settings: Some(text.to_owned()), setting_sources: Sources::NONE, ..Args::default() };
    let place = Place {
        config_dir: None,
        project: Path::new("/nowhere"),
        trusted: false,
        managed: Path::new("/nowhere/managed.json"),
    };
    let effective = load(&mut args, &place)?;
    Ok((args, effective))
}

#[test]
fn the_flag_is_taken_in_and_the_unknown_is_named() {
    let text = r#"{"permissions": {"allow": ["Read"], "ask": ["Bash(git push *)"], "deny": ["WebFetch"],
        "defaultMode": "plan", "disableBypassPermissionsMode": "disable"}, "model": "opus", "theme": "dark",
        "hooks": {"Stop": [{"hooks": [{"type": "command", "command": "true", "timeout": 5}]}]},
        "env": {"A": "1"}, "effortLevel": "low", "bashOutputMaxChars": 1, "sandbox": null}"#;
    let (args, effective) = given(text).unwrap();
    assert_eq!(args.allowed_tools, ["Read"]);
    assert_eq!(args.ask_tools, ["Bash(git push *)"]);
    assert_eq!(args.disallowed_tools, ["WebFetch"]);
    assert_eq!(args.permission_mode, Some(PermissionMode::Plan));
    assert_eq!((args.model.as_deref(), args.effort.as_deref()), (Some("opus"), Some("low")));
    assert_eq!(effective.hooks.of(HookEvent::Stop).len(), 1);
    assert_eq!(effective.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!((effective.bash_output_chars, effective.bypass_disabled), (Some(4_000), true));
    for (text, expected) in [
        ("{", "no JSON"),
        (r#"{"sandbox": {"enabled": true}}"#, "'sandbox'"),
        (r#"{"apiKeyHelper": "cmd"}"#, "'apiKeyHelper'"),
        (r#"{"permissions": {"deny": "Bash"}}"#, "must be a list"),
        (r#"{"permissions": {"x": 1}}"#, "'permissions.x'"),
        (r#"{"env": {"A=": "1"}}"#, "'env'"),
        (r#"{"hooks": {"Sneeze": []}}"#, "Sneeze"),
        (r#"{"hooks": {"Stop": [{"hooks": [{"type": "http", "url": "u"}]}]}}"#, "'http'"),
        (r#"{"hooks": {"Stop": [{"hooks": [{"type": "command"}]}]}}"#, "command"),
        (r#"{"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "x", "if": "Bash("}]}]}}"#, "rule"),
        (
            r#"{"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "x", "timeout": -1}]}]}}"#,
            "timeout",
        ),
    ] {
        let complaint = given(text).unwrap_err();
        assert!(complaint.contains(expected), "{text}: {complaint}");
    }
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn load(&self, mut args: Args, trusted: bool) -> Result<(Args, Effective), Complaint> {
        let config = self.folder.path().join("config");
        let place = Place {
            config_dir: Some(&config),
            project: &self.folder.path().join("project"),
            trusted,
            managed: &self.folder.path().join("managed.json"),
        };
        let effective = load(&mut args, &place)?;
        Ok((args, effective))
    }
}

const HOOK: &str = r#"{"Stop": [{"hooks": [{"type": "command", "command": "true"}]}]}"#;

#[test]
fn stronger_sources_go_before_weaker_ones_and_lists_add_up() {
    let files = Files::new();
    let layer = |model: &str, rule: &str| {
        format!(
            r#"{{"model": "{model}", "permissions": {{"allow": ["{rule}"]}}, "env": {{"M": "{model}"}}, "odd": 1}}"#
        )
    };
    files.write("config/settings.json", &layer("user", "A"));
    files.write("project/.claude/settings.json", &layer("project", "B"));
    files.write("project/.claude/settings.local.json", &layer("local", "C"));
    let sources = |text: &str| Args { setting_sources: Sources::read(text).unwrap(), ..Args::default() };
    for (text, model, rules) in [
        ("user,project,local", Some("local"), vec!["C", "B", "A"]),
        ("user,project", Some("project"), vec!["B", "A"]),
        ("user", Some("user"), vec!["A"]),
        ("", None, vec![]),
    ] {
        let (args, effective) = files.load(sources(text), true).unwrap();
        assert_eq!(
            (args.model.as_deref(), args.allowed_tools),
            (model, rules.iter().map(|rule| (*rule).to_owned()).collect()),
            "{text}"
        );
        assert_eq!(effective.env.last().map(|(_, value)| value.as_str()), model, "{text}");
    }
    let flag = Args { settings: Some(r#"{"model": "flag"}"#.to_owned()), ..Args::default() };
    assert_eq!(files.load(flag, true).unwrap().0.model.as_deref(), Some("flag"));
    files.write("managed.json", r#"{"model": "managed", "permissions": {"deny": ["D"]}}"#);
    let (args, _) = files.load(Args::default(), true).unwrap();
    assert_eq!((args.model.as_deref(), args.disallowed_tools), (Some("managed"), vec!["D".to_owned()]));
    let argument = Args { model: Some("argument".to_owned()), ..Args::default() };
    assert_eq!(files.load(argument, true).unwrap().0.model.as_deref(), Some("argument"));
    assert!(Sources::read("user,moon").is_err());
}

#[test]
fn paths_that_begin_with_a_slash_begin_beside_the_settings_that_name_them() {
    let files = Files::new();
    let text = r#"{"permissions": {"deny": ["Read(/x)", "Read(//x)", "Read(./x)", "Bash(/x)", "Read"]}}"#;
    files.write("config/settings.json", text);
    files.write("project/.claude/settings.json", text);
    let rest = ["Read(//x)", "Read(./x)", "Bash(/x)", "Read"];
    let from = |place: &str| format!("Read(/{}/{place}/x)", files.folder.path().display());
    let denied = |root: Option<&str>| {
        let args = Args { project_root: root.map(Into::into), ..Args::default() };
        files.load(args, true).unwrap().0.disallowed_tools
    };
    let expected = |project: &str| {
        let lists = [project.to_owned(), from("config")]
            .map(|first| std::iter::once(first).chain(rest.map(str::to_owned)).collect::<Vec<_>>());
        lists.concat()
    };
    assert_eq!(denied(None), expected("Read(/x)"));
    assert_eq!(denied(Some("elsewhere")), expected(&from("project")));
}

#[test]
fn a_project_that_is_not_trusted_forbids_and_does_not_allow() {
    let files = Files::new();
    let text = format!(
        r#"{{"permissions": {{"allow": ["Bash"], "deny": ["Read(./secret)"], "ask": ["Write"], "defaultMode":
        "bypassPermissions", "additionalDirectories": ["/"]}}, "hooks": {HOOK}, "env": {{"PATH": "/evil"}}}}"#
    );
    files.write("project/.claude/settings.json", &text);
    files.write("project/.claude/settings.local.json", &text);
    let (args, effective) = files.load(Args::default(), false).unwrap();
    assert!(args.allowed_tools.is_empty() && args.additional_directories.is_empty());
    assert_eq!(args.permission_mode, None);
    assert_eq!((args.disallowed_tools.len(), args.ask_tools.len()), (2, 2));
    assert!(effective.hooks.is_empty() && effective.env.is_empty());
    assert_eq!(effective.warnings.len(), 10, "{:?}", effective.warnings);
    let (args, effective) = files.load(Args::default(), true).unwrap();
    assert!(!args.allowed_tools.is_empty() && !effective.hooks.is_empty() && effective.warnings.is_empty());
}

#[test]
fn servers_of_a_project_need_trust_or_approval() {
    let files = Files::new();
    files.write("project/.mcp.json", r#"{"mcpServers": {"a": {"command": "a"}, "b": {"command": "b"}}}"#);
    let named = |args: &Args| {
        let mut options = wardian_agent::Options::default();
        args.servers.install(None, &mut options);
        options.mcp_servers.iter().map(|server| server.name.clone()).collect::<Vec<_>>()
    };
    let with = |settings: &str| Args { settings: Some(settings.to_owned()), ..Args::default() };
    for (args, trusted, expected, warns) in [
        (Args::default(), false, &[][..], true),
        (Args::default(), true, &["a", "b"], false),
        (with(r#"{"enableAllProjectMcpServers": true}"#), false, &["a", "b"], false),
        (with(r#"{"enabledMcpjsonServers": ["b"]}"#), false, &["b"], true),
        (with(r#"{"disabledMcpjsonServers": ["b"]}"#), true, &["a"], false),
        (with(r#"{"deniedMcpServers": [{"serverName": "a"}]}"#), true, &["b"], false),
        (Args { setting_sources: Sources::NONE, ..Args::default() }, true, &[], false),
    ] {
        let settings = args.settings.clone();
        let (args, effective) = files.load(args, trusted).unwrap();
        assert_eq!(named(&args), expected, "{settings:?} {trusted}");
        assert_eq!(!effective.warnings.is_empty(), warns, "{settings:?} {trusted}: {:?}", effective.warnings);
    }
    let mut strict = Args::default();
    strict.servers.strict = true;
    assert!(named(&files.load(strict, true).unwrap().0).is_empty());
    // What the project says of itself approves of nothing.
    files.write("project/.claude/settings.json", r#"{"enableAllProjectMcpServers": true}"#);
    assert!(named(&files.load(Args::default(), false).unwrap().0).is_empty());
    files.write("project/.mcp.json", "{nope");
    let (args, effective) = files.load(Args::default(), true).unwrap();
    assert!(named(&args).is_empty() && effective.warnings[0].contains(".mcp.json"));
}

#[test]
fn trust_is_what_the_user_said_of_this_project() {
    let files = Files::new();
    let (folder, project) = (files.folder.path(), files.folder.path().join("project"));
    let said = |of: &Path, yes: bool| {
        format!(r#"{{"projects": {{"{}": {{"hasTrustDialogAccepted": {yes}}}}}}}"#, of.display())
    };
    assert!(!is_trusted(None, Some(folder), &project));
    for (text, expected) in [
        (said(&project, true), true),
        (said(&project, false), false),
        (said(folder, true), false),
        ("broken".to_owned(), false),
    ] {
        files.write(".claude.json", &text);
        assert_eq!(is_trusted(None, Some(folder), &project), expected, "{text}");
    }
}

#[test]
fn an_administrators_word_narrows_and_an_embedders_only_narrows() {
    let files = Files::new();
    files.write(
        "config/settings.json",
        &format!(r#"{{"permissions": {{"allow": ["A"], "deny": ["X"]}}, "hooks": {HOOK}}}"#),
    );
    files.write(
        "managed.json",
        &format!(
            r#"{{"permissions": {{"allow": ["M"]}}, "allowManagedPermissionRulesOnly": true,
            "allowManagedHooksOnly": true, "hooks": {HOOK}}}"#
        ),
    );
    let flagged = Args { allowed_tools: vec!["Flag".to_owned()], ..Args::default() };
    let (args, effective) = files.load(flagged, true).unwrap();
    assert_eq!(args.allowed_tools, ["M"]);
    assert_eq!(effective.hooks.of(HookEvent::Stop).len(), 1, "the administrator's");
    std::fs::remove_file(files.folder.path().join("managed.json")).unwrap();
    let embedder = Args {
        managed_settings: Some(format!(
            r#"{{"permissions": {{"allow": ["E"], "deny": ["D"], "defaultMode": "bypassPermissions"}},
                "disableAllHooks": true, "hooks": {HOOK}, "env": {{"A": "1"}}}}"#
        )),
        ..Args::default()
    };
    let (args, effective) = files.load(embedder, true).unwrap();
    assert_eq!((args.allowed_tools, args.permission_mode), (vec!["A".to_owned()], None));
    assert!(args.disallowed_tools.contains(&"D".to_owned()));
    assert!(effective.hooks.is_empty() && effective.env.is_empty());
}

#[test]
fn all_hooks_can_be_turned_off() {
    let files = Files::new();
    files.write("config/settings.json", &format!(r#"{{"hooks": {HOOK}}}"#));
    files.write("project/.claude/settings.json", r#"{"disableAllHooks": true}"#);
    assert!(files.load(Args::default(), true).unwrap().1.hooks.is_empty());
    // Not by a project that is nobody's to trust: the user's hooks may be there because of it.
    assert!(!files.load(Args::default(), false).unwrap().1.hooks.is_empty());
}

#[test]
fn files_that_cannot_be_read_end_it_for_what_they_forbid_is_not_known() {
    let files = Files::new();
    for text in ["{broken", "[]", r#"{"permissions": {"deny": "Bash"}}"#, r#"{"permissions": []}"#] {
        files.write("project/.claude/settings.json", text);
        assert!(files.load(Args::default(), false).is_err(), "{text}");
    }
    files.write("project/.claude/settings.json", &format!("\"{}\"", "x".repeat(1024 * 1024)));
    assert!(files.load(Args::default(), false).unwrap_err().contains("more than"));
    files.write("project/.claude/settings.json", " ");
    assert!(files.load(Args::default(), false).is_ok());
    std::fs::remove_file(files.folder.path().join("project/.claude/settings.json")).unwrap();
    std::fs::create_dir(files.folder.path().join("project/.claude/settings.json")).unwrap();
    assert!(files.load(Args::default(), false).unwrap_err().contains("no plain file"));
}
