//! Reads definitions: JSON objects by name (`--agents`, `initialize`), and Markdown files with fields.
//!
//! source: the agent protocol reference, section 1.1; file and JSON have the same names.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use wardian_policy::PermissionMode;

use super::{AgentDefinition, AgentSource, MAX_DEFINITIONS};
use crate::frontmatter::Document;
use crate::shelf::Shelf;

/// The longest name of an agent, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Fields that would change what an agent does or costs, and that are not built.
const NOT_BUILT: &[&str] = &["isolation", "memory", "observer", "observerMessage"];

/// Reads definitions from an object, by name.
///
/// # Errors
/// What is wrong, with the name of the agent and of the field.
pub fn definitions(value: &Value) -> Result<BTreeMap<String, AgentDefinition>, String> {
    let Value::Object(agents) = value else { return Err("agents must be an object".to_owned()) };
    if agents.len() > MAX_DEFINITIONS {
        return Err(format!("there are more than {MAX_DEFINITIONS} agents"));
    }
    let mut read = BTreeMap::new();
    for (name, value) in agents {
        let Value::Object(fields) = value else {
            return Err(format!("the agent {name:?} must be an object"));
        };
        let definition = definition(name, fields).map_err(|error| format!("the agent {name:?}: {error}"))?;
        read.insert(name.clone(), definition);
    }
    Ok(read)
}

fn definition(name: &str, fields: &Map<String, Value>) -> Result<AgentDefinition, String> {
    check_name(name)?;
    let document = Document { fields: fields.clone(), body: String::new() };
    let needed = |field: &str| document.text(field).ok_or_else(|| format!("'{field}' is missing"));
    let (description, prompt) = (needed("description")?, needed("prompt")?);
    from_fields(&document, description, prompt, AgentSource::Options)
}

/// Reads the definitions of a folder and of those within it, or of one file: `*.md`. What cannot be used is left out, with the
/// reason. Blocks.
#[must_use]
pub fn files(shelf: &Shelf, source: AgentSource) -> (BTreeMap<String, AgentDefinition>, Vec<String>) {
    let (mut found, mut complaints) = (BTreeMap::new(), Vec::new());
    let mut paths = Vec::new();
    if shelf.folder.is_file() {
        paths.push(shelf.folder.clone());
    }
    collect(&shelf.folder, 0, &mut paths);
    paths.sort();
    for path in paths {
        match file(&path, source, shelf) {
            Ok((name, definition)) => {
                found.insert(shelf.named(&name), definition);
            }
            Err(error) => complaints.push(format!("no agent in {}: {error}", path.display())),
        }
    }
    (found, complaints)
}

fn collect(folder: &Path, depth: usize, paths: &mut Vec<std::path::PathBuf>) {
    /// Agents may be sorted into folders, a few levels of them.
    const MAX_FOLDERS: usize = 4;
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok).take(MAX_DEFINITIONS) {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth < MAX_FOLDERS {
            collect(&path, depth + 1, paths);
        } else if path.extension().is_some_and(|extension| extension == "md") && paths.len() < MAX_DEFINITIONS
        {
            paths.push(path);
        }
    }
}

fn file(path: &Path, source: AgentSource, shelf: &Shelf) -> Result<(String, AgentDefinition), String> {
    let document = Document::read(path, shelf.root.as_deref()).map_err(|error| error.to_string())?;
    let name = document.text("name").ok_or("'name' is missing")?;
    check_name(&name)?;
    let description = document.text("description").ok_or("'description' is missing")?;
    let prompt = document.body.trim().to_owned();
    Ok((name, from_fields(&document, description, prompt, source)?))
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ' | '.' | ':');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_plain) {
        return Err("its name is not one of letters, digits and - _ . :".to_owned());
    }
    Ok(())
}

fn from_fields(
    document: &Document,
    description: String,
    prompt: String,
    source: AgentSource,
) -> Result<AgentDefinition, String> {
    let is_given = |field: &str| document.fields.get(field).is_some_and(|value| !value.is_null());
    if let Some(field) = NOT_BUILT.iter().find(|field| is_given(field)) {
        return Err(format!("'{field}' is not supported by wardian-agent yet"));
    }
    let mode = document.text("permissionMode");
    let mode = mode.map(|mode| mode.parse::<PermissionMode>().map_err(|error| format!("failed to {error}")));
    let servers = match document.fields.get("mcpServers") {
        Some(Value::Array(servers)) if servers.iter().any(Value::is_object) => {
            return Err(
                "'mcpServers' with a server's own configuration is not supported here: name servers of the \
                        session"
                    .to_owned(),
            );
        }
        Some(Value::Object(_)) => {
            return Err("'mcpServers' must be a list of names of the session's servers".to_owned());
        }
        Some(_) | None => document.list("mcpServers"),
    };
    Ok(AgentDefinition {
        description,
        prompt,
        tools: document.list("tools"),
        disallowed_tools: document.list("disallowedTools").unwrap_or_default(),
        model: document.text("model").filter(|model| !model.is_empty()),
        effort: document.text("effort"),
        permission_mode: mode.transpose()?,
        max_turns: document.number("maxTurns"),
        mcp_servers: servers,
        skills: document.list("skills").unwrap_or_default(),
        background: document.flag("background"),
        initial_prompt: document.text("initialPrompt"),
        omit_claude_md: document.flag("omitClaudeMd").unwrap_or_default(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_become_definitions() {
        let read = definitions(&json!({
            "rev": {
                "description": "reviews", "prompt": "You review.", "tools": ["Read", "Bash(git *)"], "model": "haiku",
                "disallowedTools": ["Write"], "permissionMode": "plan", "maxTurns": 5, "background": true,
                "initialPrompt": "Begin.", "mcpServers": ["lab"], "skills": ["a"], "effort": "low",
            },
            "plain": {"description": "d", "prompt": "p"},
        }))
        .unwrap();
        let rev = &read["rev"];
        assert_eq!(rev.tools.as_deref().unwrap(), ["Read", "Bash(git *)"]);
        assert_eq!(
            (rev.permission_mode, rev.max_turns, rev.background),
            (Some(PermissionMode::Plan), Some(5), Some(true))
        );
        assert_eq!(rev.mcp_servers.as_deref().unwrap(), ["lab"]);
        assert_eq!(
            read["plain"],
            AgentDefinition {
                description: "d".to_owned(),
                prompt: "p".to_owned(),
                ..AgentDefinition::default()
            }
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (value, named) in [
            (json!([]), "object"),
            (json!({"x": 1}), "\"x\""),
            (json!({"x": {"prompt": "p"}}), "description"),
            (json!({"x": {"description": "d"}}), "prompt"),
            (json!({"": {"description": "d", "prompt": "p"}}), "name"),
            (json!({"a\nb": {"description": "d", "prompt": "p"}}), "name"),
            (json!({"x": {"description": "d", "prompt": "p", "permissionMode": "god"}}), "god"),
            (json!({"x": {"description": "d", "prompt": "p", "memory": "user"}}), "memory"),
            (json!({"x": {"description": "d", "prompt": "p", "isolation": "worktree"}}), "isolation"),
            (
                json!({"x": {"description": "d", "prompt": "p", "mcpServers": [{"a": {"command": "x"}}]}}),
                "mcpServers",
            ),
        ] {
            let error = definitions(&value).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let many: Map<String, Value> =
            (0..1000).map(|n| (n.to_string(), json!({"description": "d", "prompt": "p"}))).collect();
        assert!(definitions(&Value::Object(many)).is_err());
    }

    #[test]
    fn files_become_definitions_and_bad_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "filer.md",
            "---\nname: filer\ndescription: files things\ntools: Read, Write\nmodel: opus\n---\nYou file.\n",
        );
        write("team/deep.md", "---\nname: deep\ndescription: d\n---\nDeep.");
        write("none.md", "no fields at all");
        write("apart.md", "---\nname: apart\ndescription: d\nisolation: worktree\n---\nWork apart.");
        write("other.txt", "---\nname: other\ndescription: d\n---\n");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe.md"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let (found, complaints) = files(&Shelf::new(folder.path(), "project"), AgentSource::Project);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["deep", "filer"]);
        assert_eq!(found["filer"].prompt, "You file.");
        assert_eq!(found["filer"].tools.as_deref().unwrap(), ["Read", "Write"]);
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints.iter().any(|complaint| complaint.contains("'isolation'")), "{complaints:?}");
    }
}
