//! The stream-json front: the Agent SDK's protocol on standard input and output, with [`wardian_agent::query`] behind it.
//!
//! source: the agent protocol reference, section 2.

use std::process::ExitCode;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use wardian_agent::{
    Conversation, Error, Interrupted, Message, Options, PROTOCOL_VERSION, PermissionMode, Prompt, Query,
    SystemPrompt, UserMessage, query,
};
use wardian_protocol::control::{ControlRequest, ControlResponse, HostRequest, Initialize};
use wardian_protocol::{AgentFrame, HostFrame, JsonMap};

use crate::host::{Host, Pending, Question};
use crate::lines::{Gone, Input, Output};
use crate::servers::{self, Servers};
use crate::settings::nothing;

/// How the front ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The input ended and every prompt was answered.
    Done,
    /// Something went wrong, and standard error says what.
    Failed,
    /// The last result was an error.
    LastResultWasError,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Done => Self::SUCCESS,
            Ended::Failed | Ended::LastResultWasError => Self::FAILURE,
        }
    }
}

/// Serves one host.
pub struct Front {
    /// How the query will be set up; taken when it begins.
    setup: Setup,
    query: Option<Query>,
    host: Host,
    questions: mpsc::Receiver<Question>,
    pending: Pending,
    output: Output,
    input_open: bool,
    /// The host has said how the query is set up.
    initialized: bool,
    last_was_error: bool,
    stopping: bool,
}

/// How a query is set up, and what of it the host may still say.
pub struct Setup {
    pub options: Options,
    /// Whether a flag gave the system prompt; else the host does, or the preset holds.
    pub system_prompt_given: bool,
    /// The tool servers that the host runs.
    pub servers: Servers,
    /// Whether the host asked to be asked.
    pub ask_host: bool,
}

impl Setup {
    /// Whether the first turn is one that a restart interrupted.
    fn resumes(&self) -> bool {
        let options = &self.options;
        options.continue_interrupted
            && options.conversation.as_ref().is_some_and(Conversation::is_interrupted)
    }
}

impl Front {
    pub fn new(setup: Setup, output: Output) -> Self {
        let (host, questions) = Host::channel();
        Self {
            setup,
            query: None,
            host,
            questions,
            pending: Pending::default(),
            output,
            input_open: true,
            initialized: false,
            last_was_error: false,
            stopping: false,
        }
    }

    /// Serves until the input ends and all prompts are answered. `stops` is SIGINT.
    pub async fn run(&mut self, input: &mut mpsc::Receiver<Input>, stops: &mut Signal) -> Ended {
        match self.serve(input, stops).await {
            Ok(ended) => ended,
            Err(Gone) => Ended::Failed,
        }
    }

    /// Stops the turn and its tools, and waits until they have ended.
    pub async fn close(mut self) {
        if let Some(query) = self.query.take() {
            query.close().await;
        }
    }

    async fn serve(&mut self, input: &mut mpsc::Receiver<Input>, stops: &mut Signal) -> Result<Ended, Gone> {
        let output = self.output.clone();
        loop {
            if self.query.is_none() && (!self.input_open || self.stopping) {
                return Ok(Ended::Done);
            }
            // Messages go before questions: the host hears of a call before it is asked about it.
            tokio::select! {
                biased;
                () = output.gone() => return Err(Gone),
                Some(()) = stops.recv() => self.stop().await,
                message = next(&mut self.query), if self.query.is_some() => match message {
                    Some(Ok(message)) => self.give(message).await?,
                    Some(Err(error)) => return Ok(failed(&error)),
                    None => return Ok(self.ended()),
                },
                Some(question) = self.questions.recv() => {
                    if !self.input_open && self.setup.options.continue_interrupted {
                        return Ok(left_open());
                    }
                    if let Some(frame) = self.pending.ask(question) {
                        self.output.frame(frame.to_value()).await?;
                    }
                }
                line = input.recv(), if self.input_open => match line {
                    None if self.pending.is_waiting() && self.setup.options.continue_interrupted => {
                        return Ok(left_open());
                    }
                    None => self.end_input().await,
                    Some(line) => {
                        if let Err(complaint) = self.take_in(line).await? {
                            eprintln!("error: {complaint}");
                            return Ok(Ended::Failed);
                        }
                    }
                },
            }
        }
    }

    fn ended(&self) -> Ended {
        match (self.last_was_error, self.stopping) {
            (true, false) => Ended::LastResultWasError,
            (true, true) | (false, _) => Ended::Done,
        }
    }

    async fn give(&mut self, message: Message) -> Result<(), Gone> {
        if let Message::Result(result) = &message {
            self.last_was_error = result.is_error;
        }
        self.output.frame(message.to_value()).await
    }

    /// SIGINT: the turn is interrupted, its result comes, and that is the end.
    async fn stop(&mut self) {
        self.stopping = true;
        if let Some(query) = &self.query {
            // Either may find that the query has just ended.
            let _ = query.handle().interrupt_all().await;
            let _ = query.handle().end_input().await;
        }
    }

    async fn end_input(&mut self) {
        self.input_open = false;
        self.pending.close();
        if let Some(query) = &self.query {
            let _ = query.handle().end_input().await;
        }
    }

    async fn take_in(&mut self, input: Input) -> Result<Result<(), String>, Gone> {
        let line = match input {
            Input::Line(line) if line.trim().is_empty() => return Ok(Ok(())),
            Input::Line(line) => line,
            Input::TooLong => return Ok(Err("an input line is too long".to_owned())),
            Input::NotText => return Ok(Err("an input line is not UTF-8".to_owned())),
        };
        match HostFrame::parse(&line) {
            Err(error) => Ok(Err(format!("failed to {error}"))),
            Ok(HostFrame::User(message)) => Ok(self.prompt(message).await),
            Ok(HostFrame::ControlResponse(response)) => {
                self.pending.answer(response.response);
                Ok(Ok(()))
            }
            Ok(HostFrame::ControlRequest(request)) => {
                let response = self.control(request).await;
                self.output.frame(AgentFrame::ControlResponse(response).to_value()).await?;
                self.resume().await?;
                Ok(Ok(()))
            }
            // The host asks nothing that takes long; and what is not known is ignored.
            Ok(HostFrame::ControlCancelRequest(_) | HostFrame::Other(_)) => Ok(Ok(())),
        }
    }

    /// Gives what the host may have missed, and begins the query without a prompt, once the host has said how it is set up, where a restart interrupted a turn.
    async fn resume(&mut self) -> Result<(), Gone> {
        if !self.initialized || self.query.is_some() {
            return Ok(());
        }
        let conversation = self.setup.options.conversation.as_mut();
        for frame in conversation.map(Conversation::take_replay).unwrap_or_default() {
            self.output.frame(frame).await?;
        }
        if self.setup.resumes() {
            self.query();
        }
        Ok(())
    }

    /// The query, begun if it is not yet.
    fn query(&mut self) -> &Query {
        self.query.get_or_insert_with(|| {
            let conversation = self.setup.options.conversation.take();
            let mut options = Options { conversation, ..self.setup.options.clone() };
            if self.setup.ask_host {
                options.can_use_tool = Some(self.host.can_use_tool());
            }
            self.setup.servers.install(&self.host, &mut options);
            query(Prompt::Open, options)
        })
    }

    async fn prompt(&mut self, message: UserMessage) -> Result<(), String> {
        match self.query().handle().send(message).await {
            // A query that has ended says why by itself.
            Ok(()) | Err(Error::Ended) => Ok(()),
            Err(error) => Err(format!("failed to {error}")),
        }
    }

    async fn control(&mut self, request: ControlRequest) -> ControlResponse {
        let id = request.request_id;
        let subtype = request.request["subtype"].as_str().unwrap_or_default().to_owned();
        let cancel_queued = request.request["cancel_queued"] == true;
        let Ok(asked) = serde_json::from_value::<HostRequest>(request.request) else {
            return ControlResponse::error(id, format!("the control request {subtype:?} cannot be read"));
        };
        let done = match asked {
            HostRequest::Initialize(initialize) => self.initialize(*initialize),
            HostRequest::Interrupt {} => Ok(self.interrupt(cancel_queued).await),
            HostRequest::SetPermissionMode { mode } => self.set_permission_mode(&mode).await,
            HostRequest::SetModel { model } => self.set_model(model).await,
            HostRequest::Other(_) => Err(format!("Unsupported control request subtype: {subtype}")),
        };
        match done {
            Ok(value) => ControlResponse::success(id, value),
            Err(error) => ControlResponse::error(id, error),
        }
    }

    async fn interrupt(&self, cancel_queued: bool) -> Value {
        let Some(query) = &self.query else { return json!({"still_queued": []}) };
        // It may have just ended.
        if cancel_queued {
            let Interrupted { still_queued, cancelled } =
                query.handle().interrupt_all().await.unwrap_or_default();
            return json!({"still_queued": still_queued, "cancelled": cancelled});
        }
        json!({"still_queued": query.interrupt().await.unwrap_or_default().still_queued})
    }

    async fn set_permission_mode(&mut self, mode: &str) -> Result<Value, String> {
        let mode: PermissionMode = mode.parse().map_err(|error| format!("failed to {error}"))?;
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
        set.map(|()| json!({})).map_err(|error| format!("failed to {error}"))
    }

    async fn set_model(&mut self, model: Option<String>) -> Result<Value, String> {
        let model = model.filter(|model| !model.is_empty() && model != "default");
        match (&self.query, model) {
            (Some(query), model) => {
                query.handle().set_model(model).await.map_err(|error| format!("failed to {error}"))?;
            }
            (None, Some(model)) => self.setup.options.model = model,
            (None, None) => (),
        }
        Ok(json!({}))
    }

    /// Takes the host's set-up in. After the first prompt it is only answered: what the query began with stays.
    fn initialize(&mut self, initialize: Initialize) -> Result<Value, String> {
        let mut parked = Value::Null;
        if self.query.is_none() {
            parked = self.setup.servers.add_initialize(&initialize.extra)?;
            self.set_up(initialize)?;
            self.initialized = true;
        }
        let mut description = self.description();
        if !parked.is_null() {
            description["sdk_mcp_manifests_parked"] = parked;
        }
        Ok(description)
    }

    fn set_up(&mut self, initialize: Initialize) -> Result<(), String> {
        if let Some(field) = not_built(&initialize.extra) {
            return Err(format!("the initialize field '{field}' is not supported by wardian-agent yet"));
        }
        let mut hooks = Vec::new();
        for (event, matchers) in initialize.hooks.unwrap_or_default() {
            match event.as_str() {
                "PreToolUse" => hooks = self.host.hooks(&matchers),
                _ if matchers.iter().all(|matcher| matcher.hook_callback_ids.is_empty()) => (),
                _ => return Err(format!("{event} hooks are not supported by wardian-agent yet")),
            }
        }
        let options = &mut self.setup.options;
        options.pre_tool_use = hooks;
        if let Some(blocks) = initialize.system_prompt {
            options.system_prompt = SystemPrompt::Text(blocks);
        } else if !self.setup.system_prompt_given {
            options.system_prompt = SystemPrompt::Preset;
        }
        if initialize.append_system_prompt.is_some() {
            options.append_system_prompt = initialize.append_system_prompt;
        }
        Ok(())
    }

    fn description(&self) -> Value {
        let options = &self.setup.options;
        let model = |alias: &str| {
            let resolved = wardian_ledger::PriceTable::embedded().resolve_alias(alias);
            json!({"value": alias, "resolvedModel": resolved, "displayName": resolved, "description": resolved})
        };
        let models = ["opus", "sonnet", "haiku"].map(model);
        let resumed = options.conversation.as_ref().map(|conversation| {
            json!({"interrupted": conversation.is_interrupted(), "last_prompt_uuid": conversation.last_prompt()})
        });
        json!({
            "commands": [],
            "agents": [],
            "output_style": "default",
            "available_output_styles": ["default"],
            "models": models,
            "account": {
                "tokenSource": options.api_key_source,
                "apiKeySource": options.api_key_source,
                "apiProvider": "firstParty",
            },
            "pid": std::process::id(),
            "claude_code_version": PROTOCOL_VERSION,
            "wardian_version": env!("CARGO_PKG_VERSION"),
            "current_permission_mode": options.permission_mode.as_str(),
            "hook_on_failure_supported": true,
            "session_state": if self.query.is_some() || self.setup.resumes() { "running" } else { "idle" },
            "wardian_resumed": resumed,
            "capabilities": [],
        })
    }
}

async fn next(query: &mut Option<Query>) -> Option<Result<Message, Error>> {
    match query {
        Some(query) => query.next().await,
        None => None,
    }
}

/// The host is gone that said that it resumes what is interrupted: its question is asked again then, and not answered
/// with a refusal now.
fn left_open() -> Ended {
    eprintln!("error: the input ended with a question open; it is left for who resumes the session");
    Ended::Failed
}

fn failed(error: &Error) -> Ended {
    eprintln!("error: failed to {error}");
    Ended::Failed
}

/// Fields of `initialize` that change nothing here: they ask for things that are only more to see.
const HARMLESS: &[&str] = &[
    "agentProgressSummaries",
    "excludeDynamicSections",
    "forwardSubagentText",
    "perTaskStopAffordance",
    "promptSuggestions",
    "supportedDialogKinds",
    "systemPromptSnapshot",
    "title",
];

/// The first field that asks for something that is not there.
fn not_built(fields: &JsonMap) -> Option<&str> {
    let asks = |(name, value): &(&String, &Value)| {
        let is_known = HARMLESS.contains(&name.as_str()) || servers::FIELDS.contains(&name.as_str());
        !is_known && !nothing(value)
    };
    fields.iter().find(asks).map(|(name, _)| name.as_str())
}
