//! Requests that steer the session: interrupt, mode, model, thinking, title.

use serde::Deserialize;
use serde_json::{Value, json};
use wardian_agent::{Error, Interrupted, ModelSwitch, PermissionMode, Thinking};
use wardian_protocol::JsonMap;

use super::Front;
use super::request::{Answer, Asked, Done, Then, Worked, done};

#[derive(Deserialize)]
struct Interrupt {
    #[serde(default)]
    cancel_queued: bool,
}

#[derive(Deserialize)]
struct CancelMessage {
    message_uuid: String,
}

#[derive(Deserialize)]
struct Mode {
    #[serde(default)]
    mode: String,
}

#[derive(Deserialize)]
struct Model {
    model: Option<String>,
}

#[derive(Deserialize)]
struct ThinkingTokens {
    #[serde(default, deserialize_with = "some")]
    max_thinking_tokens: Option<Value>,
    thinking_display: Option<Value>,
}

#[derive(Deserialize)]
struct Rename {
    title: String,
    session_id: Option<String>,
}

/// Tells a null from a field that is not there.
fn some<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// The longest title that is kept.
const MAX_TITLE_CHARS: usize = 200;

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

    pub(super) async fn cancel_async_message(&self, asked: Asked) -> Done {
        let CancelMessage { message_uuid } = asked.read()?;
        let cancelled = match &self.query {
            // It may have just ended.
            Some(query) => query.handle().cancel_prompt(&message_uuid).await.unwrap_or(false),
            None => false,
        };
        let mut answer = json!({"cancelled": cancelled});
        if cancelled {
            answer["message_uuid"] = message_uuid.into();
        }
        Ok(Answer::Now(answer))
    }

    pub(super) async fn set_permission_mode(&mut self, asked: Asked) -> Done {
        let Mode { mode } = asked.read()?;
        let Ok(mode) = mode.parse::<PermissionMode>() else {
            let modes = "acceptEdits, auto, bypassPermissions, default, dontAsk, plan";
            return Ok(Answer::refused(
                format!("cannot set the permission mode: it is one of {modes}"),
                "invalid_mode",
            ));
        };
        let options = &mut self.setup.options;
        let set = match &self.query {
            Some(query) => query.handle().set_permission_mode(mode).await,
            None if mode == PermissionMode::BypassPermissions && !options.allow_bypass_permissions => {
                Err(Error::BypassNotPermitted)
            }
            None => {
                options.permission_mode = mode;
                Ok(())
            }
        };
        match set {
            Err(error @ Error::BypassNotPermitted) => {
                return Ok(Answer::refused(format!("failed to {error}"), "bypass_not_launched"));
            }
            set => set.map_err(|error| format!("failed to {error}"))?,
        }
        let status = json!({"subtype": "status", "status": null, "permissionMode": mode.as_str()});
        let status = self.message("system", status);
        self.news.push(status);
        Ok(Answer::Now(json!({"mode": mode.as_str()})))
    }

    /// A model that the API does not have for this key is refused, and the one before stays; so it does where a hook says
    /// so. The host's own hooks are asked through this same channel, which goes on meanwhile.
    pub(super) fn set_model(&mut self, asked: Asked) -> Done {
        let Model { model } = asked.read()?;
        let model = model.filter(|model| !model.is_empty() && model != "default");
        if self.query.is_none() {
            self.setup.options.model = model.clone().unwrap_or_else(|| self.setup.options.model.clone());
            return Ok(Answer::Now(json!({"model": self.setup.options.model})));
        }
        let handle = self.handle();
        Ok(Answer::Worked(Box::pin(async move {
            let refused = |error: &Error, code: &str, model: Option<String>| {
                let fields = [("error_code", json!(code)), ("model", json!(model))];
                let more = fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
                Worked { answer: Err(format!("failed to {error}")), more, then: None }
            };
            match handle.set_checked_model(model.clone()).await {
                Ok(ModelSwitch { model, changed }) => {
                    let answer = Ok(json!({"model": model}));
                    let tell: Then = Box::new(move |front| front.tell_model(&model));
                    Worked { answer, more: JsonMap::new(), then: changed.then_some(tell) }
                }
                Err(error @ Error::SwitchBlocked { .. }) => {
                    refused(&error, "blocked_by_hook", handle.model().await.ok())
                }
                Err(error @ Error::Model { .. }) => refused(&error, "check_rejected", model),
                Err(error) => Err(format!("failed to {error}")).into(),
            }
        })))
    }

    /// Says which model is used from now on, as the official CLI does once there was a prompt.
    fn tell_model(&mut self, model: &str) {
        if !self.prompted {
            return;
        }
        let text = format!("<local-command-stdout>The model is now {model}.</local-command-stdout>");
        let told = json!({
            "message": {"role": "user", "content": text},
            "parent_tool_use_id": null,
            "isReplay": true,
            "timestamp": format!("{:.3}", (self.setup.options.clock)()),
        });
        let told = self.message("user", told);
        self.early_news.push(told);
    }

    /// Null: as much as the session began with. No such field: as before.
    pub(super) async fn set_max_thinking_tokens(&mut self, asked: Asked) -> Done {
        let ThinkingTokens { max_thinking_tokens, thinking_display } = asked.read()?;
        if thinking_display.is_some_and(|display| !display.is_null()) {
            return Err("the field 'thinking_display' is not supported by wardian-agent yet".to_owned());
        }
        let thinking = match max_thinking_tokens {
            None => return done(),
            Some(Value::Null) => None,
            Some(tokens) => match tokens.as_u64() {
                Some(0) => Some(Thinking::Disabled),
                Some(tokens) => Some(Thinking::Budget(tokens)),
                None => {
                    return Err("the field 'max_thinking_tokens' must be a whole number or null".to_owned());
                }
            },
        };
        self.handle().set_thinking(thinking).await.map_err(|error| format!("failed to {error}"))?;
        done()
    }

    pub(super) async fn rename_session(&mut self, asked: Asked) -> Done {
        let Rename { title, session_id } = asked.read()?;
        let title: String = title.trim().chars().take(MAX_TITLE_CHARS).collect();
        if title.is_empty() {
            return Err("a title must have some text".to_owned());
        }
        if session_id.is_some_and(|id| id != self.setup.session_id()) {
            return Err("the title is for another session".to_owned());
        }
        self.handle().rename(&title).await.map_err(|error| format!("failed to {error}"))?;
        let told = self.message("system", json!({"subtype": "session_title_changed", "title": title}));
        self.early_news.push(told);
        done()
    }
}
