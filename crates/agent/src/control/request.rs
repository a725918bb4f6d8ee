//! What a host may ask for: a line for each subtype, each with its method in a file of this folder.
//!
//! source: the agent protocol reference, section 1.2.

use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wardian_protocol::JsonMap;
use wardian_protocol::control::ControlRequest;

use super::{Front, MAX_WORKS, models};
use crate::lines::Gone;

/// What a request comes to.
pub(super) enum Answer {
    /// This, at once.
    Now(Value),
    /// Something that takes a while, or that needs the host's own answers: the front goes on meanwhile.
    Later(BoxFuture<'static, Result<Value, String>>),
    /// The same, with more fields beside it, and something to do when it is there.
    Worked(BoxFuture<'static, Worked>),
    /// This, or a refusal, with more fields beside it.
    With(Result<Value, String>, JsonMap),
}

impl Answer {
    /// A refusal with a code that programs compare.
    pub(super) fn refused(error: impl Into<String>, code: &str) -> Self {
        Self::With(Err(error.into()), JsonMap::from_iter([("error_code".to_owned(), code.into())]))
    }
}

/// What comes of a request, or why nothing does.
pub(super) type Done = Result<Answer, String>;

/// A request that is worked on.
pub(super) type Work = BoxFuture<'static, Answered>;

/// A request that was worked on.
pub(super) struct Answered {
    pub(super) id: String,
    pub(super) worked: Worked,
}

/// What work came to.
pub(super) struct Worked {
    pub(super) answer: Result<Value, String>,
    pub(super) more: JsonMap,
    /// Done before the answer is given.
    pub(super) then: Option<Then>,
}

/// Something to do with the front once work is done.
pub(super) type Then = Box<dyn FnOnce(&mut Front) + Send>;

impl From<Result<Value, String>> for Worked {
    fn from(answer: Result<Value, String>) -> Self {
        Self { answer, more: JsonMap::new(), then: None }
    }
}

/// A request: its subtype and its fields.
pub(super) struct Asked {
    subtype: String,
    fields: Value,
}

impl Asked {
    fn new(mut fields: Value) -> Self {
        let subtype = fields["subtype"].as_str().unwrap_or_default().chars().take(80).collect();
        if let Some(fields) = fields.as_object_mut() {
            fields.shift_remove("subtype");
        }
        Self { subtype, fields }
    }

    /// One field as it stands.
    pub(super) fn field(&self, name: &str) -> Value {
        self.fields[name].clone()
    }

    /// Reads the fields.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, String> {
        let Self { subtype, fields } = self;
        serde_json::from_value(fields)
            .map_err(|error| format!("the control request {subtype:?} cannot be read: {error}"))
    }
}

/// The answer of a request that has nothing to say.
pub(super) fn done() -> Done {
    Ok(Answer::Now(json!({})))
}

impl Front {
    /// Does what the host asks for and answers it, or begins to.
    pub(super) async fn take_request(&mut self, request: ControlRequest) -> Result<(), Gone> {
        let id = request.request_id;
        match self.ask(Asked::new(request.request)).await {
            Ok(Answer::Now(value)) => self.answer(id, Ok(value), JsonMap::new()).await,
            Ok(Answer::With(answer, more)) => self.answer(id, answer, more).await,
            Ok(Answer::Later(_) | Answer::Worked(_)) if self.works.len() >= MAX_WORKS => {
                let error = format!("{MAX_WORKS} requests are worked on already");
                self.answer(id, Err(error), JsonMap::new()).await
            }
            Ok(Answer::Later(work)) => {
                self.works.push(Box::pin(async move { Answered { id, worked: work.await.into() } }));
                Ok(())
            }
            Ok(Answer::Worked(work)) => {
                self.works.push(Box::pin(async move { Answered { id, worked: work.await } }));
                Ok(())
            }
            Err(error) => self.answer(id, Err(error), JsonMap::new()).await,
        }?;
        for news in std::mem::take(&mut self.news) {
            self.output.frame(news).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, asked: Asked) -> Done {
        match asked.subtype.as_str() {
            "apply_flag_settings" => self.apply_flag_settings(asked),
            "cancel_async_message" => self.cancel_async_message(asked).await,
            "file_suggestions" => self.file_suggestions(asked),
            "get_binary_version" => Ok(Answer::Now(models::version())),
            "get_context_usage" => self.context_usage(&asked),
            "get_hooks_listing" => self.hooks_listing(),
            "get_session_cost" => self.get_session_cost().await,
            "get_settings" => self.get_settings().await,
            "get_usage" => self.get_usage(),
            "background_tasks" => self.background_tasks(asked),
            "get_task_output" => self.get_task_output(asked),
            "initialize" => self.initialize(asked).await,
            "interrupt" => self.interrupt(asked).await,
            "list_models" => Ok(Answer::Now(json!({"models": models::list()}))),
            "list_permission_rules" => self.list_permission_rules(),
            "mcp_call" => self.mcp_call(asked),
            "mcp_message" => self.mcp_message(asked),
            "mcp_read_resource" => self.mcp_read_resource(asked),
            "mcp_reconnect" => self.mcp_reconnect(asked),
            "mcp_set_servers" => self.mcp_set_servers(asked),
            "mcp_status" => self.mcp_status(),
            "mcp_toggle" => self.mcp_toggle(asked),
            "read_file" => self.read_file(asked),
            "reload_output_styles" => Ok(Answer::Now(json!({"available_output_styles": ["default"]}))),
            "reload_plugins" => self.reload_plugins(asked),
            "register_repo_root" => self.register_repo_root(asked),
            "reload_skills" => self.reload_skills(),
            "rename_session" => self.rename_session(asked).await,
            "rewind_files" => self.rewind_files(asked),
            "seed_read_state" => self.seed_read_state(asked).await,
            "set_max_thinking_tokens" => self.set_max_thinking_tokens(asked).await,
            "set_model" => self.set_model(asked),
            "set_permission_mode" => self.set_permission_mode(asked).await,
            // Nobody watching changes nothing here.
            "set_has_subscribers" => done(),
            "set_mcp_permission_mode_override" => self.set_server_mode(asked).await,
            "stop_task" => self.stop_task(asked),
            "update_settings" => self.update_settings(asked),
            // Programs compare these words.
            subtype => Ok(Answer::refused(
                format!("Unsupported control request subtype: {subtype}"),
                "unsupported_request",
            )),
        }
    }
}
