//! The settings that a host gave by a flag: what they are, and what of them it may change.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wardian_agent::{Destination, Error, QueryHandle};

use super::Front;
use super::request::{Answer, Asked, Done, Worked};
use crate::env::Environment;
use crate::settings::{environment_of, nothing, read_environment};
use crate::setup::tools_environment;

mod rules;

pub(super) use rules::FlagRules;

#[derive(Deserialize)]
struct Apply {
    settings: Map<String, Value>,
}

#[derive(Deserialize)]
struct Update {
    source: String,
    settings: Map<String, Value>,
}

/// The layer of settings that belongs to the host.
const FLAG_LAYER: &str = "flagSettings";
/// Variables that this program read when it began: what it is to the model and to tools does not change with them.
const OWN_VARIABLES: &[&str] = &["ANTHROPIC_", "CLAUDE_CODE_", "WARDIAN_"];
/// The longest text that is kept in a settings file for a host.
const MAX_VALUE_CHARS: usize = 200;
/// Efforts that settings keep. source: the types of the TypeScript SDK.
const KEPT_EFFORTS: &[&str] = &["low", "medium", "high", "xhigh"];

impl Front {
    /// Changes settings of the running session. All are read before the first is changed.
    pub(super) fn apply_flag_settings(&mut self, asked: Asked) -> Done {
        let Apply { settings } = asked.read()?;
        let mut model = None;
        let mut effort = None;
        for (name, value) in &settings {
            let text = value.as_str().map(str::to_owned);
            match (name.as_str(), text, value.is_null()) {
                ("model", text @ Some(_), _) | ("model", text @ None, true) => model = Some(text),
                ("effortLevel", text @ Some(_), _) | ("effortLevel", text @ None, true) => {
                    effort = Some(text)
                }
                ("permissions", ..) => self.check_permissions(value)?,
                ("env", ..) => check_environment(value)?,
                _ if nothing(value) => (),
                _ => {
                    return Err(format!(
                        "the setting '{name}' cannot be changed while wardian-agent runs, or not to this"
                    ));
                }
            }
        }
        let handle = self.handle();
        Ok(Answer::Worked(Box::pin(async move {
            if let Err(error) = apply(&handle, model, effort).await {
                return Err(format!("failed to {error}")).into();
            }
            let then = Box::new(move |front: &mut Self| front.take_flags(settings));
            Worked { answer: Ok(json!({})), more: Map::new(), then: Some(then) }
        })))
    }

    fn check_permissions(&self, value: &Value) -> Result<(), String> {
        let managed = self.setup.layers.iter().filter(|(name, _)| *name == "policySettings");
        let only_managed = |(_, settings): &(_, Map<String, Value>)| {
            settings.get("allowManagedPermissionRulesOnly") == Some(&true.into())
        };
        if !nothing(value) && managed.clone().any(only_managed) {
            return Err("an administrator lets only managed permission rules hold".to_owned());
        }
        FlagRules::read(value, &self.setup.options.cwd).map(drop)
    }

    /// Makes the host's settings hold. They were checked, and the query has begun.
    fn take_flags(&mut self, settings: Map<String, Value>) {
        let cwd = self.setup.options.cwd.clone();
        let rules = |front: &mut Self| {
            let value = front.flag_layer().get("permissions").cloned().unwrap_or_default();
            FlagRules::read(&value, &cwd).unwrap_or_default()
        };
        let before = rules(self);
        let touches = |name: &str| settings.contains_key(name);
        let (permissions, environment) = (touches("permissions"), touches("env"));
        let layer = self.flag_layer();
        for (name, value) in settings {
            if value.is_null() {
                layer.shift_remove(&name);
            } else {
                layer.insert(name, value);
            }
        }
        // A query that has ended needs neither any more.
        if permissions {
            let changes = rules(self).changes(&before, &mut self.setup.options);
            let _ = self.handle().change_permissions(changes);
        }
        if environment {
            let said = environment_of(&self.setup.layers, self.setup.parts.shelves.is_trusted());
            let _ = self.handle().set_env(tools_environment(Environment::read(&said).tools, &cwd));
        }
    }

    fn flag_layer(&mut self) -> &mut Map<String, Value> {
        let layers = &mut self.setup.layers;
        let place = layers.iter().position(|(name, _)| *name == FLAG_LAYER).unwrap_or_else(|| {
            let end = layers.iter().position(|(name, _)| *name == "policySettings").unwrap_or(layers.len());
            layers.insert(end, (FLAG_LAYER, Map::new()));
            end
        });
        &mut layers[place].1
    }

    pub(super) async fn get_settings(&mut self) -> Done {
        let model = self.handle().model().await.map_err(|error| format!("failed to {error}"))?;
        let layers =
            self.setup.layers.iter().filter(|(name, settings)| *name != FLAG_LAYER || !settings.is_empty());
        let mut effective = Map::new();
        for (_, settings) in layers.clone() {
            effective.extend(settings.clone());
        }
        let source = |(name, settings): &(_, _)| json!({"source": name, "settings": settings});
        let sources: Vec<Value> = layers.map(source).collect();
        Ok(Answer::Now(json!({
            "effective": effective,
            "sources": sources,
            "applied": {"model": model, "effort": self.setup.options.effort},
        })))
    }

    /// Keeps settings in a file: a few, and only where the session reads that file.
    pub(super) fn update_settings(&mut self, asked: Asked) -> Done {
        let Update { source, settings } = asked.read()?;
        let refused = |what: &str| Err(format!("update_settings: {what}"));
        let (destination, key) = match source.as_str() {
            "localSettings" => (Destination::LocalSettings, "outputStyle"),
            "userSettings" => (Destination::UserSettings, "effortLevel"),
            _ => return refused("the source is 'localSettings' or 'userSettings'"),
        };
        if settings.is_empty() {
            return refused("there is nothing to set");
        }
        for (name, value) in &settings {
            let Some(text) = value.as_str().filter(|_| name == key) else {
                return refused(&format!("only '{key}' can be set in {source}, to a text"));
            };
            let is_known = key != "effortLevel" || KEPT_EFFORTS.contains(&text);
            if !is_known || text.is_empty() || text.chars().count() > MAX_VALUE_CHARS {
                return refused(&format!("'{key}' cannot be this"));
            }
        }
        let files = self.setup.options.settings_files.clone();
        let is_read = match destination {
            Destination::LocalSettings => files.local.is_some(),
            _ => files.user.is_some(),
        };
        if !is_read {
            return refused(&format!("the source {source} is disabled for this session (--setting-sources)"));
        }
        Ok(Answer::Worked(Box::pin(async move {
            let kept = settings.clone();
            let written = tokio::task::spawn_blocking(move || files.set(destination, kept)).await;
            if let Err(error) = written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                return Err(format!("update_settings: failed to keep them: {error}")).into();
            }
            let then = Box::new(move |front: &mut Self| {
                let layer = front.setup.layers.iter_mut().find(|(name, _)| *name == source);
                if let Some((_, known)) = layer {
                    known.extend(settings);
                }
            });
            Worked { answer: Ok(json!({})), more: Map::new(), then: Some(then) }
        })))
    }
}

fn check_environment(value: &Value) -> Result<(), String> {
    if nothing(value) {
        return Ok(());
    }
    let variables = read_environment(value)?;
    let own = variables.iter().find(|(name, _)| OWN_VARIABLES.iter().any(|own| name.starts_with(own)));
    match own {
        Some((name, _)) => Err(format!("the variable {name:?} cannot be changed while wardian-agent runs")),
        None => Ok(()),
    }
}

/// Hooks may be asked about the model: the front must not wait for this.
async fn apply(
    handle: &QueryHandle,
    model: Option<Option<String>>,
    effort: Option<Option<String>>,
) -> Result<(), Error> {
    if let Some(model) = model {
        handle.set_model(model.filter(|model| !model.is_empty() && model != "default")).await?;
    }
    if let Some(effort) = effort {
        handle.set_effort(effort).await?;
    }
    // What comes after needs a query that has begun.
    handle.model().await.map(drop)
}
