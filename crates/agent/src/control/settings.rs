//! The settings that a host gave by a flag: what they are, and what of them it may change.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use wardian_agent::{Error, QueryHandle};

use super::Front;
use super::request::{Answer, Asked, Done, Worked};
use crate::settings::nothing;

#[derive(Deserialize)]
struct Apply {
    settings: Map<String, Value>,
}

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
            let then = Box::new(move |front: &mut Self| front.keep_flags(settings));
            Worked { answer: Ok(json!({})), more: Map::new(), then: Some(then) }
        })))
    }

    fn keep_flags(&mut self, settings: Map<String, Value>) {
        for (name, value) in settings {
            if value.is_null() {
                self.flag_settings.shift_remove(&name);
            } else {
                self.flag_settings.insert(name, value);
            }
        }
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
    Ok(())
}
