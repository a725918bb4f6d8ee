use std::os::unix::fs::symlink;

use serde_json::json;
use wardian_agent::HookEvent;

use super::*;

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn loaded(folder: &Path, names: &[&str]) -> Plugins {
    let mut plugins = Plugins::default();
    for name in names {
        plugins.add(folder.join(name), false).unwrap();
    }
    plugins.load();
    plugins
}

fn names<T>(items: &[T], name: impl Fn(&T) -> &str) -> String {
    items.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_plugin_is_read_with_its_name_before_all_names() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    write(folder, "fruit/.claude-plugin/plugin.json", r#"{"name": "fruit", "version": "1.0.0", "x": 1}"#);
    write(folder, "fruit/commands/peel.md", "---\ndescription: Peels\n---\nPeel in ${CLAUDE_PLUGIN_ROOT}.");
    write(folder, "fruit/commands/deep/core.md", "Core.");
    write(
        folder,
        "fruit/agents/sorter.md",
        "---\nname: sorter\ndescription: Sorts\n---\n${CLAUDE_PLUGIN_ROOT}",
    );
    write(folder, "fruit/skills/juice/SKILL.md", "---\ndescription: Juices\n---\nJuice.");
    let hook = json!({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "true"}]}]}});
    write(folder, "fruit/hooks/hooks.json", &hook.to_string());
    write(
        folder,
        "fruit/.mcp.json",
        r#"{"mcpServers": {"lab": {"command": "${CLAUDE_PLUGIN_ROOT}/s", "args": []}}}"#,
    );
    write(folder, "bare/commands/hi.md", "Hi.");
    let plugins = loaded(folder, &["fruit", "bare", "fruit"]);
    assert_eq!(plugins.errors, []);
    let [fruit, bare] = &plugins.loaded[..] else { panic!("{:?}", plugins.loaded) };
    assert_eq!(names(&fruit.commands, |command| &command.name), "fruit:deep:core fruit:peel");
    assert_eq!(fruit.commands[1].body, format!("Peel in {}/fruit.", folder.display()));
    assert_eq!(fruit.agents["fruit:sorter"].prompt, format!("{}/fruit", folder.display()));
    assert_eq!(names(&fruit.skills, |skill| &skill.name), "fruit:juice");
    assert_eq!(fruit.hooks.of(HookEvent::Stop).len(), 1);
    assert_eq!(fruit.servers["plugin:fruit:lab"]["command"], format!("{}/fruit/s", folder.display()));
    assert_eq!(
        (bare.info.name.as_str(), names(&bare.commands, |command| &command.name).as_str()),
        ("bare", "bare:hi")
    );
    assert_eq!(
        plugins.infos()[0].row(),
        json!({"name": "fruit", "path": folder.join("fruit"), "source": "fruit@inline", "version": "1.0.0"})
    );
}

#[test]
fn a_manifest_names_other_places_in_the_folder() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let manifest = json!({
        "name": "paths", "commands": ["./more", "./one.md"], "skills": "./sk", "hooks": {"Stop": []},
        "mcpServers": {"in": {"command": "true"}},
    });
    write(folder, "p/.claude-plugin/plugin.json", &manifest.to_string());
    for (path, text) in
        [("more/m.md", "M"), ("one.md", "ONE"), ("commands/d.md", "D"), ("sk/s1/SKILL.md", "S")]
    {
        write(&folder.join("p"), path, text);
    }
    let plugins = loaded(folder, &["p"]);
    assert_eq!(plugins.errors, []);
    let plugin = &plugins.loaded[0];
    assert_eq!(names(&plugin.commands, |command| &command.name), "paths:m paths:one");
    assert_eq!(names(&plugin.skills, |skill| &skill.name), "paths:s1");
    assert_eq!(plugin.servers.keys().collect::<Vec<_>>(), ["plugin:paths:in"]);
}

#[test]
fn broken_plugins_are_told_of_and_the_rest_is_there() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    let manifest =
        |name: &str, text: &str| write(folder, &format!("{name}/.claude-plugin/plugin.json"), text);
    manifest("broken", "{nope");
    manifest("noname", r#"{"version": "1"}"#);
    manifest("number", r#"{"name": "number", "version": 5}"#);
    manifest("bad", r#"{"name": "bad name"}"#);
    manifest("huge", &format!(r#"{{"name": "huge", "x": "{}"}}"#, "x".repeat(2 * 1024 * 1024)));
    manifest("many", &json!({"name": "many", "commands": vec!["./a"; 1_000]}).to_string());
    manifest("hooks", r#"{"name": "hooks"}"#);
    write(folder, "hooks/hooks/hooks.json", "{oops");
    write(folder, "hooks/.mcp.json", "[]");
    write(folder, "hooks/commands/x.md", "X");
    write(folder, "twin/.claude-plugin/plugin.json", r#"{"name": "hooks"}"#);
    write(folder, "file", "");
    let plugins = loaded(
        folder,
        &["broken", "noname", "number", "bad", "huge", "many", "hooks", "twin", "nope", "file"],
    );
    assert_eq!(names(&plugins.loaded, |plugin| &plugin.info.name), "hooks");
    assert_eq!(names(&plugins.loaded[0].commands, |command| &command.name), "hooks:x");
    let errors: Vec<String> =
        plugins.errors.iter().map(|error| format!("{} {}", error.plugin, error.kind)).collect();
    assert_eq!(
        errors,
        [
            "inline[0] generic-error",
            "inline[1] generic-error",
            "inline[2] generic-error",
            "inline[3] generic-error",
            "inline[4] generic-error",
            "inline[5] generic-error",
            "hooks@inline hook-load-failed",
            "hooks@inline mcp-config-invalid",
            "inline[7] generic-error",
            "inline[8] path-not-found",
            "inline[9] path-not-found",
        ]
    );
    let mut full = Plugins::default();
    let added: Vec<bool> = (0..100).map(|n| full.add(format!("/{n}").into(), false).is_ok()).collect();
    assert_eq!(added.iter().filter(|added| **added).count(), MAX_PLUGINS);
}

#[test]
fn nothing_of_a_plugin_leads_out_of_its_folder() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    for path in ["out/key.md", "out/SKILL.md", "out/hooks.json", "out/c/key.md"] {
        write(folder, path, "---\nname: key\ndescription: d\n---\nSECRET");
    }
    for (name, commands) in [("up", json!("../out/c")), ("root", json!(["/etc"])), ("link", json!("./c"))] {
        let manifest = json!({"name": name, "commands": commands});
        write(folder, &format!("{name}/.claude-plugin/plugin.json"), &manifest.to_string());
    }
    symlink(folder.join("out/c"), folder.join("link/c")).unwrap();
    write(folder, "soft/.claude-plugin/plugin.json", r#"{"name": "soft", "hooks": "./h.json"}"#);
    for kind in ["commands", "agents", "skills/one"] {
        std::fs::create_dir_all(folder.join("soft").join(kind)).unwrap();
    }
    for (target, link) in [
        ("out/key.md", "commands/key.md"),
        ("out/key.md", "agents/key.md"),
        ("out/SKILL.md", "skills/one/SKILL.md"),
        ("out", "skills/two"),
        ("out/hooks.json", "h.json"),
        ("out/hooks.json", ".mcp.json"),
    ] {
        symlink(folder.join(target), folder.join("soft").join(link)).unwrap();
    }
    std::fs::create_dir_all(folder.join("stolen/.claude-plugin")).unwrap();
    symlink(folder.join("out/key.md"), folder.join("stolen/.claude-plugin/plugin.json")).unwrap();
    let plugins = loaded(folder, &["up", "root", "link", "stolen", "soft"]);
    assert_eq!(names(&plugins.loaded, |plugin| &plugin.info.name), "soft");
    let soft = &plugins.loaded[0];
    assert_eq!((soft.commands.len(), soft.skills.len(), soft.agents.len()), (0, 0, 0));
    assert_eq!((soft.hooks.is_empty(), soft.servers.len()), (true, 0));
    assert!(!format!("{plugins:?}").contains("SECRET"));
    let failed: Vec<&str> = plugins.errors.iter().map(|error| error.plugin.as_str()).collect();
    assert_eq!(failed[..4], ["inline[0]", "inline[1]", "inline[2]", "inline[3]"]);
    assert!(failed[4..].iter().all(|plugin| *plugin == "soft@inline"), "{failed:?}");
}

#[test]
fn a_list_of_the_sdks_is_read() {
    let cwd = Path::new("/work");
    let mut plugins = Plugins::default();
    let list =
        json!([{"type": "local", "path": "a"}, {"type": "local", "path": "/b", "skipMcpDiscovery": true}]);
    assert_eq!(plugins.add_list(&list, cwd), Ok(true));
    assert_eq!(plugins.add_list(&list, cwd), Ok(false));
    assert_eq!(plugins.named[0], Named { path: "/work/a".into(), skips_servers: false });
    assert!(plugins.named[1].skips_servers);
    for wrong in [
        json!("x"),
        json!([{"path": "a"}]),
        json!([{"type": "npm", "path": "a"}]),
        json!([{"type": "local"}]),
    ] {
        assert!(plugins.add_list(&wrong, cwd).is_err(), "{wrong}");
    }
}
