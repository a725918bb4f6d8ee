//! The settings that a host gave by a flag: what they are, and what of them it may change.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Front;
use super::request::{Answer, Asked, Done, done};
use crate::settings::nothing;

#[derive(Deserialize)]
struct Apply {
    settings: Map<String, Value>,
}

impl Front {
    /// Changes settings of the running session. All are read before the first is changed.
    pub(super) async fn apply_flag_settings(&mut self, asked: Asked) -> Done {
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
                _ if nothing(value) => (),
                _ => {
                    return Err(format!(
                        "the setting '{name}' cannot be changed while wardian-agent runs, or not to this"
                    ));
                }
            }
        }
        let told = |error| format!("failed to {error}");
        let handle = self.handle();
        if let Some(model) = model {
            let model = model.filter(|model| !model.is_empty() && model != "default");
            handle.set_model(model).await.map_err(told)?;
        }
        if let Some(effort) = effort {
            handle.set_effort(effort).await.map_err(told)?;
        }
        for (name, value) in settings {
            if value.is_null() {
                self.flag_settings.shift_remove(&name);
            } else {
                self.flag_settings.insert(name, value);
            }
        }
        done()
    }

    pub(super) async fn get_settings(&mut self) -> Done {
        let model = self.handle().model().await.map_err(|error| format!("failed to {error}"))?;
        let mut layers: Vec<(&str, Map<String, Value>)> = self.setup.layers.clone();
        if !self.flag_settings.is_empty() {
            let place = layers.iter().position(|(name, _)| *name == "flagSettings");
            let place = place.unwrap_or_else(|| {
                let end =
                    layers.iter().position(|(name, _)| *name == "policySettings").unwrap_or(layers.len());
                layers.insert(end, ("flagSettings", Map::new()));
                end
            });
            layers[place].1.extend(self.flag_settings.clone());
        }
        let mut effective = Map::new();
        for (_, settings) in &layers {
            effective.extend(settings.clone());
        }
        let source = |(name, settings)| json!({"source": name, "settings": settings});
        let sources: Vec<Value> = layers.into_iter().map(source).collect();
        Ok(Answer::Now(json!({
            "effective": effective,
            "sources": sources,
            "applied": {"model": model, "effort": self.setup.options.effort},
        })))
    }
}
