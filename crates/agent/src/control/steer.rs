//! Requests that steer the turn: interrupt, mode, model.

use serde::Deserialize;
use serde_json::json;
use wardian_agent::{Error, Interrupted, PermissionMode};

use super::Front;
use super::request::{Answer, Asked, Done, done};

#[derive(Deserialize)]
struct Interrupt {
    #[serde(default)]
    cancel_queued: bool,
}

#[derive(Deserialize)]
struct Mode {
    mode: String,
}

#[derive(Deserialize)]
struct Model {
    model: Option<String>,
}

impl Front {
    pub(super) async fn interrupt(&self, asked: Asked) -> Done {
        let Interrupt { cancel_queued } = asked.read()?;
        let Some(query) = &self.query else { return Ok(Answer::Now(json!({"still_queued": []}))) };
        // It may have just ended.
        Ok(Answer::Now(if cancel_queued {
            let Interrupted { still_queued, cancelled } =
                query.handle().interrupt_all().await.unwrap_or_default();
            json!({"still_queued": still_queued, "cancelled": cancelled})
        } else {
            json!({"still_queued": query.interrupt().await.unwrap_or_default().still_queued})
        }))
    }

    pub(super) async fn set_permission_mode(&mut self, asked: Asked) -> Done {
        let Mode { mode } = asked.read()?;
        let mode: PermissionMode = mode.parse().map_err(|error| format!("failed to {error}"))?;
        let options = &mut self.setup.options;
        match &self.query {
            Some(query) => query.handle().set_permission_mode(mode).await,
            None if mode == PermissionMode::BypassPermissions && !options.allow_bypass_permissions => {
                Err(Error::BypassNotPermitted)
            }
            None => {
                options.permission_mode = mode;
                Ok(())
            }
        }
        .map_err(|error| format!("failed to {error}"))?;
        done()
    }

    pub(super) async fn set_model(&mut self, asked: Asked) -> Done {
        let Model { model } = asked.read()?;
        let model = model.filter(|model| !model.is_empty() && model != "default");
        match (&self.query, model) {
            (Some(query), model) => {
                query.handle().set_model(model).await.map_err(|error| format!("failed to {error}"))?;
            }
            (None, Some(model)) => self.setup.options.model = model,
            (None, None) => (),
        }
        done()
    }
}
