//! The stream-json front: the Agent SDK's protocol on standard input and output, with [`wardian_agent::query`] behind it.
//!
//! source: the agent protocol reference, section 2.

use std::process::ExitCode;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use wardian_agent::{
    Conversation, Error, Message, Options, Prompt, Query, QueryHandle, UserMessage, new_session_id, query,
};
use wardian_protocol::control::{ControlAnswer, ControlResponse};
use wardian_protocol::frame::FrameError;
use wardian_protocol::{AgentFrame, HostFrame, JsonMap, Role};

use crate::host::{Host, Pending, Question};
use crate::lines::{Gone, Input, Output};
use crate::setup::Setup;

mod files;
mod initialize;
mod listing;
mod models;
mod read;
mod reload;
mod request;
mod servers;
mod settings;
mod steer;
mod tasks;
mod usage;
mod watched;

use request::{Answered, Then, Work, Worked};

/// Requests of the host that are worked on at the same time.
const MAX_WORKS: usize = 64;
/// Messages of the query that are written before an answer; more than wait at any time.
const MAX_WAITING_MESSAGES: usize = 128;

/// What hosts say that nobody has to answer.
const NO_REQUESTS: [&str; 2] = ["control_response", "control_cancel_request"];

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
    /// What the host asked for that takes a while.
    works: FuturesUnordered<Work>,
    /// What the front does by itself that takes a while.
    beside: FuturesUnordered<BoxFuture<'static, Then>>,
    input_open: bool,
    /// The host has said how the query is set up.
    initialized: bool,
    /// The hooks that the query began with, as the host sent them.
    hooks_sent: Option<Value>,
    /// What is told before the answer under way.
    early_news: Vec<Value>,
    /// What is told after it.
    news: Vec<Value>,
    /// The query could not go on.
    failure: Option<Error>,
    /// There was something to do for the query.
    prompted: bool,
    /// A turn is under way.
    running: bool,
    last_was_error: bool,
    stopping: bool,
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
            works: FuturesUnordered::new(),
            beside: FuturesUnordered::new(),
            input_open: true,
            initialized: false,
            hooks_sent: None,
            early_news: Vec::new(),
            news: Vec::new(),
            failure: None,
            prompted: false,
            running: false,
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
            if let Some(error) = self.failure.take() {
                return Ok(failed(&error));
            }
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
                Some(Answered { id, worked }) = self.works.next(), if !self.works.is_empty() => {
                    let Worked { answer, more, then } = worked;
                    if let Some(then) = then {
                        then(self);
                    }
                    self.answer(id, answer, more).await?;
                }
                Some(then) = self.beside.next(), if !self.beside.is_empty() => {
                    then(self);
                    for news in std::mem::take(&mut self.news) {
                        self.output.frame(news).await?;
                    }
                }
                Some(question) = self.questions.recv() => {
                    if !self.input_open && self.setup.options.continue_interrupted {
                        return Ok(left_open());
                    }
                    self.put(question).await?;
                }
                line = input.recv(), if self.input_open => match line {
                    None if self.pending.is_waiting() && self.setup.options.continue_interrupted => {
                        return Ok(left_open());
                    }
                    None => self.end_input().await,
                    Some(line) => {
                        if let Err(complaint) = self.take_in(line).await? {
                            eprintln!("{complaint}");
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
        let is_rest = matches!(message, Message::User(_) | Message::Result(_));
        match &message {
            Message::Result(result) => self.last_was_error = result.is_error,
            Message::System(news) if news.subtype == "session_state_changed" => {
                self.running = news.fields.get("state").is_some_and(|state| state != "idle");
            }
            Message::System(_)
            | Message::Assistant(_)
            | Message::User(_)
            | Message::StreamEvent(_)
            | Message::Other(_) => (),
        }
        self.output.frame(message.to_value()).await?;
        if is_rest {
            self.look_at_settings();
        }
        Ok(())
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
        // What is asked of an agent that nobody hears any more, is not done.
        self.works.clear();
        if !self.prompted
            && let Some(query) = self.query.take()
        {
            return query.close().await;
        }
        if let Some(query) = &self.query {
            let _ = query.handle().end_input().await;
        }
    }

    async fn take_in(&mut self, input: Input) -> Result<Result<(), String>, Gone> {
        let line = match input {
            Input::Line(line) if line.trim().is_empty() => return Ok(Ok(())),
            Input::Line(line) => line,
            Input::TooLong => return Ok(Err("error: an input line is too long".to_owned())),
            Input::NotText => return Ok(Err("error: an input line is not UTF-8".to_owned())),
        };
        match HostFrame::parse(&line) {
            // Programs compare the words; what the line held is told to nobody.
            Err(FrameError::NotJson { chars, .. }) => Ok(Err(format!(
                "Error parsing streaming input line (type=unknown, {chars} chars): SyntaxError"
            ))),
            // What is no frame is passed over, and so are answers and withdrawals that cannot be read: whoever waits for
            // such an answer has none. source: the official CLI, observed.
            Err(FrameError::NotAnObject { .. }) => Ok(Ok(())),
            Err(FrameError::Malformed { kind, message }) if NO_REQUESTS.contains(&&*kind) => {
                self.pending.answer_unread(&line, &message);
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(format!("error: failed to {error}"))),
            Ok(HostFrame::User(message)) if message.message.role != Role::User => {
                Ok(Err("Error: Expected message role 'user', got 'assistant'".to_owned()))
            }
            Ok(HostFrame::User(message)) => Ok(self.prompt(message).await),
            Ok(HostFrame::ControlResponse(response)) => {
                self.pending.answer(response.response);
                Ok(Ok(()))
            }
            Ok(HostFrame::ControlRequest(request)) => {
                let is_again = self.initialized && request.request["subtype"] == "initialize";
                self.take_request(request).await?;
                if is_again {
                    self.tell_tasks().await;
                }
                self.begin().await?;
                Ok(Ok(()))
            }
            // The host asks nothing that takes long; and what is not known is ignored.
            Ok(HostFrame::ControlCancelRequest(_) | HostFrame::Other(_)) => Ok(Ok(())),
        }
    }

    /// Puts a question to the host.
    async fn put(&mut self, question: Question) -> Result<(), Gone> {
        match self.pending.ask(question) {
            Some(frame) => self.output.frame(frame.to_value()).await,
            None => Ok(()),
        }
    }

    async fn answer(&mut self, id: String, answer: Result<Value, String>, more: JsonMap) -> Result<(), Gone> {
        // What became of prompts, and questions that need no answer any more, are told before the answer; the rest after it.
        let mut after = None;
        for _ in 0..MAX_WAITING_MESSAGES {
            match next(&mut self.query).now_or_never() {
                Some(Some(Ok(message @ Message::Other(_)))) => self.give(message).await?,
                Some(Some(message)) => {
                    after = Some(message);
                    break;
                }
                Some(None) | None => break,
            }
        }
        let mut asked = Vec::new();
        while let Ok(question) = self.questions.try_recv() {
            match question {
                Question::Ask { .. } => asked.push(question),
                Question::Withdraw { ref id } if asked.iter().any(|asked| asked.id() == id) => {
                    asked.push(question);
                }
                Question::Withdraw { .. } => self.put(question).await?,
            }
        }
        for news in std::mem::take(&mut self.early_news) {
            self.output.frame(news).await?;
        }
        let mut response = match answer {
            Ok(value) => ControlResponse::success(id, value),
            Err(error) => ControlResponse::error(id, error),
        };
        match &mut response.response {
            ControlAnswer::Success { extra, .. } | ControlAnswer::Error { extra, .. } => extra.extend(more),
        }
        self.output.frame(AgentFrame::ControlResponse(response).to_value()).await?;
        for question in asked {
            self.put(question).await?;
        }
        match after {
            Some(Ok(message)) => self.give(message).await,
            Some(Err(error)) => {
                self.failure = Some(error);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Once the host has said how it is set up, gives what the host may have missed, and begins the query: its servers
    /// connect, and a turn that a restart interrupted goes on.
    async fn begin(&mut self) -> Result<(), Gone> {
        if !self.initialized || self.query.is_some() {
            return Ok(());
        }
        let conversation = self.setup.options.conversation.as_mut();
        for frame in conversation.map(Conversation::take_replay).unwrap_or_default() {
            self.output.frame(frame).await?;
        }
        self.running = self.setup.resumes();
        self.prompted |= self.running;
        self.query();
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
            if let Some(tool) = &self.setup.ask_tool {
                options.can_use_tool = Some(tool.can_use_tool());
            }
            options.on_elicitation = Some(self.host.elicitation());
            self.setup.servers.install(Some(&self.host), &mut options);
            self.setup.agents.install(&mut options, self.setup.model_given);
            let query = query(Prompt::Open, options);
            if let Some(tool) = &self.setup.ask_tool {
                tool.reaches(query.handle().mcp());
            }
            query
        })
    }

    /// A message of the front's own.
    fn message(&self, kind: &str, fields: Value) -> Value {
        let mut frame = json!({"type": kind});
        if let (Value::Object(frame), Value::Object(fields)) = (&mut frame, fields) {
            frame.extend(fields);
        }
        frame["uuid"] = new_session_id().into();
        frame["session_id"] = self.setup.session_id().into();
        frame
    }

    /// The handle of the query, which is begun if it is not yet.
    fn handle(&mut self) -> QueryHandle {
        self.query().handle()
    }

    async fn prompt(&mut self, message: UserMessage) -> Result<(), String> {
        if std::mem::replace(&mut self.prompted, true) {
            self.look_at_settings();
        }
        match self.handle().send(message).await {
            // A query that has ended says why by itself.
            Ok(()) | Err(Error::Ended) => Ok(()),
            Err(error) => Err(format!("error: failed to {error}")),
        }
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
