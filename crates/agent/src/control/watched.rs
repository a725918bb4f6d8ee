//! Settings files that change while the session runs: hooks hear of it and may object, and then their permission rules,
//! hooks and environment hold from then on. What cannot be read leaves all as it was.
//!
//! The agent may have written the file itself, so it takes nothing back that restrains: deny and ask rules stay until the
//! session ends, and so do the hooks that it began with.
//!
//! source: the agent protocol reference, section 1.4, and what the official CLI was seen to do.

use serde_json::{Map, Value, json};

use super::Front;
use super::request::Then;
use super::settings::FlagRules;
use crate::env::Environment;
use crate::settings::{self, environment_of, nothing};
use crate::setup::tools_environment;

/// Changes that are worked on at once; meanwhile no further look is taken.
const MAX_CHANGES: usize = 4;
/// What of `permissions` can change while the session runs.
const LIVE_PERMISSIONS: &[&str] = &["allow", "ask", "deny", "additionalDirectories"];

impl Front {
    /// Looks whether settings files have changed, and begins to work on those that have.
    pub(super) fn look_at_settings(&mut self) {
        let Some(handle) = self.query.as_ref().map(|query| query.handle()) else { return };
        if self.beside.len() >= MAX_CHANGES {
            return;
        }
        // A look at three files that were read at the start: nothing that a thread of its own would be worth.
        for file in self.setup.watched.iter_mut().filter_map(|file| file.has_changed().then(|| file.clone()))
        {
            let handle = handle.clone();
            self.beside.push(Box::pin(async move {
                let (source, path, layer) = (file.source(), file.path.clone(), file.layer);
                let told = format!("{} changed and is kept as it was", path.display());
                // A query that has ended needs no settings any more.
                if let Some(reason) = handle.config_changed(source, &path).await.ok().flatten() {
                    return warning(format!("{told}: a ConfigChange hook blocked it: {reason}"));
                }
                let read = tokio::task::spawn_blocking(move || file.read()).await;
                match read.unwrap_or_else(|error| Err(error.to_string())) {
                    Ok(settings) => Box::new(move |front: &mut Self| {
                        if let Err(error) = front.take_settings(layer, settings) {
                            front.warn(format!("{told}: {error}"));
                        }
                    }),
                    Err(error) => warning(format!("{told}: {error}")),
                }
            }));
        }
    }

    /// Makes the settings of a file hold: all of them that can, or none.
    fn take_settings(&mut self, layer: &'static str, settings: Map<String, Value>) -> Result<(), String> {
        let trusted = self.setup.parts.shelves.is_trusted();
        let widens = trusted || layer == "userSettings";
        let cwd = self.setup.options.cwd.clone();
        let place = self.setup.layers.iter().position(|(name, _)| *name == layer);
        let old = place.map(|place| self.setup.layers[place].1.clone()).unwrap_or_default();
        let mut layers = self.setup.layers.clone();
        match place {
            Some(place) => layers[place].1 = settings.clone(),
            None => {
                let rank = |name: &str| settings::RANKS.iter().position(|known| *known == name);
                let end = layers.iter().position(|(name, _)| rank(name) > rank(layer));
                layers.insert(end.unwrap_or(layers.len()), (layer, settings.clone()));
            }
        }
        let only_managed = settings::managed_says(&layers, "allowManagedPermissionRulesOnly");
        let rules = |settings: &Map<String, Value>| {
            let said = settings.get("permissions").cloned().unwrap_or_default();
            if !nothing(&said) && !said.is_object() {
                return Err("the setting 'permissions' must be an object".to_owned());
            }
            let counts = |name: &str| {
                LIVE_PERMISSIONS.contains(&name)
                    && (!only_managed || name == "additionalDirectories")
                    && (widens || !matches!(name, "allow" | "additionalDirectories"))
            };
            let fields = said.as_object().cloned().unwrap_or_default().into_iter();
            FlagRules::read(&Value::Object(fields.filter(|(name, _)| counts(name)).collect()), &cwd)
        };
        let before = rules(&old)?;
        let after = rules(&settings)?.with_restraints_of(&before);
        let hooks = settings::hooks_of(&layers, trusted)?;
        if let Some(env) = settings.get("env").filter(|env| !nothing(env)) {
            settings::read_environment(env)?;
        }
        self.setup.layers = layers;
        let changes = after.changes(&before, &mut self.setup.options);
        // A query that has ended needs none of it any more.
        let handle = self.handle();
        let _ = handle.change_permissions(changes);
        if old.get("env") != settings.get("env") {
            let said = environment_of(&self.setup.layers, trusted);
            let _ = handle.set_env(tools_environment(Environment::read(&said).tools, &cwd));
        }
        self.setup.parts.later_hooks = hooks;
        self.setup.options.hooks = self.setup.parts.hooks();
        let hooks = self.setup.options.hooks.clone();
        self.beside.push(Box::pin(async move {
            let _ = handle.set_hooks(hooks).await;
            Box::new(|_: &mut Self| ()) as Then
        }));
        Ok(())
    }

    fn warn(&mut self, text: String) {
        eprintln!("warning: {text}");
        let told =
            self.message("system", json!({"subtype": "informational", "content": text, "level": "warning"}));
        self.news.push(told);
    }
}

fn warning(text: String) -> Then {
    Box::new(move |front| front.warn(text))
}
