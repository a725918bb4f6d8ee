//! Requests about what lies on the disk and changed meanwhile: skills, and folders that are added.
//!
//! source: the agent protocol reference, section 1.2, and what the official CLI was seen to do.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use wardian_agent::command::{self, CustomCommand};
use wardian_agent::{NewDirectory, PluginInfo, QueryHandle, Reread, Skill};
use wardian_protocol::JsonMap;

use super::Front;
use super::request::{Answer, Asked, Done, Worked};
use crate::parts::Parts;
use crate::settings::nothing;

#[derive(Deserialize)]
struct Register {
    directory: PathBuf,
    #[serde(default)]
    reload_claude_md: bool,
    #[serde(default)]
    reload_skills: bool,
    #[serde(default)]
    reload_plugins: Value,
}

#[derive(Deserialize)]
struct ReloadPlugins {
    #[serde(default)]
    add_plugins: Value,
    #[serde(default)]
    hold_on_cache_impact: bool,
    #[serde(default)]
    refuse_if_busy: bool,
}

impl Front {
    /// Reads the skills anew. The model hears of what is new with its next prompt.
    pub(super) fn reload_skills(&mut self) -> Done {
        let handle = self.running()?;
        let parts = self.setup.parts.clone();
        Ok(Answer::Worked(Box::pin(async move {
            match reloaded(parts, &handle).await {
                Ok(skills) => Worked {
                    answer: Ok(json!({"skills": command::of_skills(&skills)})),
                    more: JsonMap::new(),
                    then: Some(Box::new(move |front| front.keep_skills(skills))),
                },
                Err(error) => Err(error).into(),
            }
        })))
    }

    /// Adds a directory below one of those that the session began with: a repository that was cloned there, say.
    pub(super) fn register_repo_root(&mut self, asked: Asked) -> Done {
        let Register { directory, reload_claude_md, reload_skills, reload_plugins } = asked.read()?;
        if !nothing(&reload_plugins) {
            return Err("the field 'reload_plugins' is not supported by wardian-agent yet".to_owned());
        }
        let handle = self.running()?;
        let asked = self.setup.options.cwd.join(&directory);
        let known: Vec<PathBuf> = self.setup.options.additional_directories.clone();
        let (roots, mut parts) = (self.setup.roots.clone(), self.setup.parts.clone());
        Ok(Answer::Worked(Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || {
                let path = new_root(&asked, &roots, &known)?;
                let memory = if reload_claude_md { parts.shelves.instructions(&path) } else { Vec::new() };
                parts.shelves.add_project(&path);
                Ok((path, memory, parts))
            });
            let looked = looked.await.unwrap_or_else(|error| Err(error.to_string()));
            let (path, memory, parts) = match looked {
                Ok(looked) => looked,
                Err(error) => {
                    return Err(format!("failed to register {}: {error}", directory.display())).into();
                }
            };
            let source = "register_repo_root".to_owned();
            let added = handle.add_directory(NewDirectory { path: path.clone(), source, memory }).await;
            if let Err(error) = added {
                return Err(format!("failed to {error}")).into();
            }
            let mut skills = None;
            if reload_skills {
                match reloaded(parts.clone(), &handle).await {
                    Ok(found) => skills = Some(found),
                    Err(error) => return Err(error).into(),
                }
            }
            let answer = Ok(json!({"directory": path}));
            let then = Box::new(move |front: &mut Self| {
                front.setup.options.additional_directories.push(path);
                front.setup.parts.shelves = parts.shelves;
                if let Some(skills) = skills {
                    front.keep_skills(skills);
                }
            });
            Worked { answer, more: JsonMap::new(), then: Some(then) }
        })))
    }

    /// Reads the plugins anew: their commands, skills and hooks hold from then on; their agents and servers are those of the
    /// beginning, for the model's tools stay as they are.
    pub(super) fn reload_plugins(&mut self, asked: Asked) -> Done {
        let ReloadPlugins { add_plugins, hold_on_cache_impact, refuse_if_busy } = asked.read()?;
        if refuse_if_busy && self.running {
            return Ok(Answer::refused(
                "the session is busy: ask again when it is idle",
                "reload_plugins_busy",
            ));
        }
        let handle = self.running()?;
        let mut parts = self.setup.parts.clone();
        if !nothing(&add_plugins) {
            parts.plugins.add_list(&add_plugins, &self.setup.options.cwd)?;
        }
        let agents = self.setup.agents.listing();
        Ok(Answer::Worked(Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                parts.plugins.load();
                let reread = parts.reread();
                (parts, reread)
            });
            let (parts, reread) = match read.await {
                Ok(read) => read,
                Err(error) => return Err(format!("failed to read the plugins: {error}")).into(),
            };
            if let Err(error) = handle.reread(reread.clone()).await {
                return Err(format!("failed to {error}")).into();
            }
            let mut servers: Vec<Value> =
                handle.mcp().statuses().iter().map(|status| json!(status)).collect();
            servers.retain(|server| server["source"] == "plugin");
            let Reread { commands, skills, plugins, .. } = reread;
            let mut answer = json!({
                "commands": command::listing(&commands, &skills),
                "agents": agents,
                "plugins": plugins.iter().map(PluginInfo::row).collect::<Vec<_>>(),
                "mcpServers": servers,
                "error_count": parts.plugins.errors.len(),
            });
            if hold_on_cache_impact {
                answer["held"] = false.into();
            }
            let then = Box::new(move |front: &mut Self| {
                front.setup.parts = parts;
                front.keep_texts(commands, skills);
            });
            Worked { answer: Ok(answer), more: JsonMap::new(), then: Some(then) }
        })))
    }

    /// The query, once the host has said how it is set up.
    fn running(&mut self) -> Result<QueryHandle, String> {
        if self.query.is_none() && !self.initialized {
            return Err("the session has not begun".to_owned());
        }
        Ok(self.handle())
    }

    fn keep_skills(&mut self, skills: Vec<Skill>) {
        self.keep_texts(self.setup.options.commands.clone(), skills);
    }

    /// Notes which commands and skills there are, and says so if that changes the list.
    fn keep_texts(&mut self, commands: Vec<CustomCommand>, skills: Vec<Skill>) {
        let options = &mut self.setup.options;
        let before = command::listing(&options.commands, &options.skills);
        (options.commands, options.skills) = (commands, skills);
        let now = command::listing(&options.commands, &options.skills);
        if before != now {
            let told = self.message("system", json!({"subtype": "commands_changed", "commands": now}));
            self.early_news.push(told);
        }
    }
}

async fn reloaded(parts: Parts, handle: &QueryHandle) -> Result<Vec<Skill>, String> {
    let read = tokio::task::spawn_blocking(move || parts.skills()).await;
    let skills = read.map_err(|error| format!("failed to read the skills: {error}"))?;
    handle.set_skills(skills.clone()).await.map_err(|error| format!("failed to {error}"))?;
    Ok(skills)
}

/// The directory as it lies on the disk, if it may be added: it lies below a root, wherever links lead, and is none yet.
fn new_root(path: &Path, roots: &[PathBuf], known: &[PathBuf]) -> Result<PathBuf, String> {
    let found = path.canonicalize().map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is no directory".to_owned());
    }
    let is_known = |known: &PathBuf| known.canonicalize().is_ok_and(|known| known == found);
    if roots.contains(&found) || known.iter().any(is_known) {
        return Err("it is one of the session's directories already".to_owned());
    }
    if !roots.iter().any(|root| found.starts_with(root)) {
        return Err("it is not below the working directory or one that the session began with".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_below_the_roots_are_added_and_once() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        for folder in ["work/extra/deep", "work/other", "outside", "added/sub"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        std::fs::write(path("work/file"), "").unwrap();
        std::os::unix::fs::symlink(path("outside"), path("work/link")).unwrap();
        std::os::unix::fs::symlink(path("work/extra"), path("work/inside")).unwrap();
        let roots = [path("work"), path("added")];
        let known = [path("work/extra")];
        let may = |name: &str| new_root(&path(name), &roots, &known).is_ok();
        for (name, expected) in [
            ("work/extra/deep", true),
            ("work/other", true),
            ("added/sub", true),
            ("work/other/../extra/deep", true),
            ("work", false),
            ("added", false),
            ("work/extra", false),
            ("work/inside", false),
            ("work/link", false),
            ("work/../outside", false),
            ("outside", false),
            (".", false),
            ("work/file", false),
            ("work/none", false),
        ] {
            assert_eq!(may(name), expected, "{name}");
        }
    }
}
