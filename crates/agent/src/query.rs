//! `query`: the stream of messages, and the handle to steer it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::stream::{BoxStream, Stream, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wardian_policy::PermissionMode;
use wardian_protocol::{ContentBlock, MessageParam, Role};

use crate::checkpoint::{Checkpoints, RewindError, Rewound};
use crate::hook::Hooks;
use crate::later::{NewDirectory, Reread};
use crate::mcp::Mcp;
use crate::skill::Skill;
use crate::switch::{ModelSwitch, Wish};
use crate::task::{Killer, TaskOutput, Tasks};
use crate::view::{UsageReport, View};
use crate::{Error, Message, Options, PermissionChange, ResultMessage, Thinking, UserMessage, session};

/// Messages that wait for a slow reader; then the turn waits too.
const MESSAGE_QUEUE: usize = 64;
/// Requests to the session on their way.
const COMMAND_QUEUE: usize = 64;

/// How long a stream of prompts waits for a place in the queue.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// What is asked.
pub enum Prompt {
    /// One text: one turn, then the query ends.
    Text(String),
    /// These messages, a turn each, then the query ends.
    Messages(Vec<UserMessage>),
    /// Nothing yet: prompts come by [`QueryHandle::send`] until [`QueryHandle::end_input`].
    Open,
    /// The messages of a stream, a turn each, as they come; the query ends after its end. See [`Prompt::stream`].
    Stream(BoxStream<'static, UserMessage>),
}

impl Prompt {
    /// The prompts of a stream: texts, or whole messages.
    pub fn stream(prompts: impl Stream<Item: Into<UserMessage>> + Send + 'static) -> Self {
        Self::Stream(prompts.map(Into::into).boxed())
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => out.debug_tuple("Text").field(text).finish(),
            Self::Messages(messages) => out.debug_tuple("Messages").field(messages).finish(),
            Self::Open => out.write_str("Open"),
            Self::Stream(_) => out.write_str("Stream"),
        }
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Runs an agent on a prompt. Must be called within a tokio runtime.
///
/// Nothing fails here: what is wrong with the options is the stream's first and last item.
pub fn query(prompt: impl Into<Prompt>, mut options: Options) -> Query {
    let (commands, requests) = mpsc::channel(COMMAND_QUEUE);
    let (sender, messages) = mpsc::channel(MESSAGE_QUEUE);
    let cancel = CancellationToken::new();
    let tasks = TaskTracker::new();
    let mcp = Mcp::new(&mut options, tasks.clone(), cancel.child_token());
    let (show, view) = watch::channel(None);
    let checkpoints = options.checkpoints.clone();
    let handle = QueryHandle { commands, view, checkpoints, mcp: mcp.clone() };
    let mut prompt = prompt.into();
    if let Prompt::Stream(prompts) = prompt {
        tasks.spawn(pass_on(prompts, handle.clone(), cancel.clone()));
        prompt = Prompt::Open;
    }
    tasks.spawn(session::run(prompt, options, mcp, sender, requests, show, cancel.clone()));
    tasks.close();
    Query { handle, messages, cancel, tasks }
}

/// Sends the prompts of a stream, and says when it has ended.
async fn pass_on(
    mut prompts: BoxStream<'static, UserMessage>,
    handle: QueryHandle,
    cancel: CancellationToken,
) {
    let pass_all = async {
        while let Some(prompt) = prompts.next().await {
            while let Err(error) = handle.send(prompt.clone()).await {
                if !matches!(error, Error::QueueFull { .. }) {
                    return;
                }
                tokio::time::sleep(FULL_PAUSE).await;
            }
        }
        // It may have ended by itself.
        let _ = handle.end_input().await;
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => (),
        // A query that ended without its prompts wants no more of them.
        () = handle.commands.closed() => (),
        () = pass_all => (),
    }
}

/// The messages of a query. Dropping it stops the turn and its tools.
#[derive(Debug)]
pub struct Query {
    handle: QueryHandle,
    messages: mpsc::Receiver<Result<Message, Error>>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Query {
    /// The handle to steer it, which can be kept elsewhere.
    #[must_use]
    pub fn handle(&self) -> QueryHandle {
        self.handle.clone()
    }

    /// Stops the turn. See [`QueryHandle::interrupt`].
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn interrupt(&self) -> Result<Interrupted, Error> {
        self.handle.interrupt().await
    }

    /// Goes on to the end and gives the last result: for who wants the answer, not the way there.
    ///
    /// # Errors
    /// Why the query could not begin; [`Error::Ended`] if it ended without a result.
    pub async fn result(mut self) -> Result<ResultMessage, Error> {
        let mut last = None;
        while let Some(message) = self.next().await {
            if let Message::Result(result) = message? {
                last = Some(*result);
            }
        }
        last.ok_or(Error::Ended)
    }

    /// Stops the turn and its tools, and waits until they have ended.
    pub async fn close(mut self) {
        self.cancel.cancel();
        self.messages.close();
        self.tasks.wait().await;
    }
}

impl Stream for Query {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(context)
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Steers a query.
#[derive(Clone, Debug)]
pub struct QueryHandle {
    commands: mpsc::Sender<Command>,
    /// There once the query is set up.
    view: watch::Receiver<Option<View>>,
    checkpoints: Option<Checkpoints>,
    mcp: Mcp,
}

impl QueryHandle {
    /// The servers of tools.
    #[must_use]
    pub fn mcp(&self) -> Mcp {
        self.mcp.clone()
    }

    /// Adds a prompt: one more turn, after those that wait.
    ///
    /// # Errors
    /// [`Error::QueueFull`], [`Error::Ended`].
    pub async fn send(&self, message: impl Into<UserMessage>) -> Result<(), Error> {
        let message = Box::new(message.into());
        self.ask(|reply| Command::Prompt { message, reply }).await?
    }

    /// Says that no more prompts come: the query ends after those that wait.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn end_input(&self) -> Result<(), Error> {
        self.ask(Command::EndInput).await
    }

    /// Stops the turn; prompts that wait stay. The query goes on.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn interrupt(&self) -> Result<Interrupted, Error> {
        self.ask(|reply| Command::Interrupt { cancel_queued: false, reply }).await
    }

    /// Stops the turn and forgets the prompts that wait.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn interrupt_all(&self) -> Result<Interrupted, Error> {
        self.ask(|reply| Command::Interrupt { cancel_queued: true, reply }).await
    }

    /// Takes a prompt back that waits, by its id. False: it does not wait.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn cancel_prompt(&self, uuid: &str) -> Result<bool, Error> {
        self.ask(|reply| Command::CancelPrompt { uuid: uuid.to_owned(), reply }).await
    }

    /// From the next decision on, this mode.
    ///
    /// # Errors
    /// [`Error::BypassNotPermitted`], [`Error::Ended`].
    pub async fn set_permission_mode(&self, mode: PermissionMode) -> Result<(), Error> {
        self.ask(|reply| Command::SetPermissionMode { mode, reply }).await?
    }

    /// From the next model call on, this model; `None`: the one that the query began with. Prompts that are sent later
    /// are for it, even where hooks take their time.
    ///
    /// # Errors
    /// [`Error::SwitchBlocked`], [`Error::Ended`].
    pub async fn set_model(&self, model: Option<String>) -> Result<ModelSwitch, Error> {
        self.ask(|reply| Command::SwitchModel(Wish { model, probe: false, reply })).await?
    }

    /// The same, but the API is asked first whether it has the model, by a request for one token.
    ///
    /// # Errors
    /// [`Error::Model`] when it says that there is none for this key; then [`Self::set_model`]'s.
    pub async fn set_checked_model(&self, model: Option<String>) -> Result<ModelSwitch, Error> {
        self.ask(|reply| Command::SwitchModel(Wish { model, probe: true, reply })).await?
    }

    /// From now on these are the skills; the model hears of new ones with its next prompt.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn set_skills(&self, skills: Vec<Skill>) -> Result<(), Error> {
        self.ask(|reply| Command::SetSkills { skills, reply }).await
    }

    /// Has hooks hear that a settings file has changed; `source`: which, in the words of the SDKs. Gives why one does not
    /// want the change to hold.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn config_changed(&self, source: &str, path: &Path) -> Result<Option<String>, Error> {
        let (source, path) = (source.to_owned(), path.to_owned());
        self.ask(|reply| Command::ConfigChanged { source, path, reply }).await
    }

    /// From now on the hooks and skills are these; commands from the next turn on.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn reread(&self, parts: Reread) -> Result<(), Error> {
        self.ask(|reply| Command::Reread { parts: Box::new(parts), reply }).await
    }

    /// Adds a directory to work in, and waits until hooks have heard of it.
    ///
    /// # Errors
    /// [`Error::Directory`] when there are too many, [`Error::Ended`].
    pub async fn add_directory(&self, directory: NewDirectory) -> Result<(), Error> {
        self.ask(|reply| Command::AddDirectory { directory, reply }).await?
    }

    /// What fills the context window, in the shape of the SDKs' `getContextUsage`. While the conversation is compacted the
    /// answer waits.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn context_usage(&self) -> Result<serde_json::Value, Error> {
        self.ask(Command::ContextUsage).await
    }

    /// Puts the files back to what they were when a prompt came, by the prompt's uuid; what Bash did to them is not seen.
    /// `dry_run`: only says what that would change. The conversation stays as it is.
    ///
    /// # Errors
    /// [`RewindError`].
    pub async fn rewind_files(&self, user_message_id: &str, dry_run: bool) -> Result<Rewound, RewindError> {
        let checkpoints = self.checkpoints.clone().ok_or(RewindError::NotEnabled)?;
        let prompt = user_message_id.to_owned();
        let rewound = tokio::task::spawn_blocking(move || checkpoints.rewind(&prompt, dry_run)).await;
        rewound.unwrap_or_else(|error| Err(RewindError::Failed(error.to_string())))
    }

    /// What the query has used so far.
    ///
    /// # Errors
    /// [`Error::Ended`], when it could not begin.
    pub async fn usage(&self) -> Result<UsageReport, Error> {
        Ok(self.view().await?.usage())
    }

    /// The model that the next request is for.
    ///
    /// # Errors
    /// [`Error::Ended`], when the query could not begin.
    pub async fn model(&self) -> Result<String, Error> {
        Ok(self.view().await?.model())
    }

    /// From the next event on, these hooks in place of those that there were.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn set_hooks(&self, hooks: Hooks) -> Result<(), Error> {
        self.ask(|reply| Command::SetHooks { hooks: Box::new(hooks), reply }).await
    }

    /// From the next model call on, this much thinking; `None`: what the options say.
    ///
    /// # Errors
    /// [`Error::Ended`], when the query could not begin.
    pub async fn set_thinking(&self, thinking: Option<Thinking>) -> Result<(), Error> {
        self.view().await?.set_thinking(thinking);
        Ok(())
    }

    /// From the next model call on, this effort (`low` to `max`); `None`: what the options say.
    ///
    /// # Errors
    /// [`Error::Ended`], when the query could not begin.
    pub async fn set_effort(&self, effort: Option<String>) -> Result<(), Error> {
        self.view().await?.set_effort(effort);
        Ok(())
    }

    /// Changes rules, mode or roots from the next call on, until the query ends. Who changes them has a right to: a deny
    /// rule can be taken away.
    ///
    /// # Errors
    /// [`Error::Ended`], when the query has not begun.
    pub fn change_permissions(&self, changes: Vec<PermissionChange>) -> Result<(), Error> {
        self.begun()?.change_permissions(changes);
        Ok(())
    }

    /// From the next call on, tools and hooks get this environment, whole.
    ///
    /// # Errors
    /// [`Error::Ended`], when the query has not begun.
    pub fn set_env(&self, env: Vec<(String, String)>) -> Result<(), Error> {
        self.begun()?.set_env(env);
        Ok(())
    }

    /// From the next call on, the tools of a server are decided about in this mode where the session's own lets
    /// everything through or has a model decide; `None`: as all others. It never lets more through. The server need not
    /// be there yet. `false`: too many servers have one.
    ///
    /// # Errors
    /// [`Error::Ended`], when the query could not begin.
    pub async fn set_server_mode(
        &self,
        server: impl Into<String>,
        mode: Option<PermissionMode>,
    ) -> Result<bool, Error> {
        Ok(self.view().await?.set_server_mode(server.into(), mode))
    }

    /// Says that the model knows a file as it was at a time, so that it may be edited. One that has changed since, to
    /// the millisecond, it does not know.
    ///
    /// # Errors
    /// [`Error::Ended`], when the query could not begin.
    pub async fn seed_read_state(&self, path: &Path, modified: SystemTime) -> Result<(), Error> {
        self.view().await?.seed_read(path, modified).await;
        Ok(())
    }

    /// Gives the conversation a title.
    ///
    /// # Errors
    /// [`Error::Transcript`], [`Error::Ended`].
    pub async fn rename(&self, title: &str) -> Result<(), Error> {
        self.view().await?.rename(title).await
    }

    fn begun(&self) -> Result<View, Error> {
        self.view.borrow().clone().ok_or(Error::Ended)
    }

    async fn view(&self) -> Result<View, Error> {
        let mut view = self.view.clone();
        let view = view.wait_for(Option::is_some).await.map_err(|_| Error::Ended)?;
        view.clone().ok_or(Error::Ended)
    }

    /// Has the query tell once more what goes on in the background.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn tell_tasks(&self) -> Result<(), Error> {
        self.ask(Command::TellTasks).await
    }

    /// Ends a command or a subagent that goes on in the background, and waits until it has ended. False: there is none
    /// of this id.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn stop_task(&self, task_id: &str) -> Result<bool, Error> {
        let tasks = self.ask(Command::Tasks).await?;
        Ok(tasks.stop_and_wait(task_id, Killer::User).await.is_some())
    }

    /// Lets the command or subagent of this call go on in the background; `None`: all that the turn waits for. Gives how
    /// many there were.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn background_tasks(&self, tool_use_id: Option<&str>) -> Result<usize, Error> {
        let tasks = self.ask(Command::Tasks).await?;
        Ok(tasks.background(tool_use_id).await)
    }

    /// What a task has put out so far; a subagent's is its report. `None`: there is none of this id.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn task_output(&self, task_id: &str) -> Result<Option<TaskOutput>, Error> {
        let tasks = self.ask(Command::Tasks).await?;
        Ok(tasks.output(task_id).await)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Ended)?;
        answer.await.map_err(|_| Error::Ended)
    }
}

/// What an interrupt left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupted {
    /// The uuids of the prompts that still wait.
    pub still_queued: Vec<String>,
    /// The uuids of those that were forgotten.
    pub cancelled: Vec<String>,
}

/// What the session is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Prompt { message: Box<UserMessage>, reply: oneshot::Sender<Result<(), Error>> },
    CancelPrompt { uuid: String, reply: oneshot::Sender<bool> },
    EndInput(oneshot::Sender<()>),
    Interrupt { cancel_queued: bool, reply: oneshot::Sender<Interrupted> },
    SetPermissionMode { mode: PermissionMode, reply: oneshot::Sender<Result<(), Error>> },
    Tasks(oneshot::Sender<Tasks>),
    TellTasks(oneshot::Sender<()>),
    SwitchModel(Wish),
    ConfigChanged { source: String, path: PathBuf, reply: oneshot::Sender<Option<String>> },
    Reread { parts: Box<Reread>, reply: oneshot::Sender<()> },
    SetHooks { hooks: Box<Hooks>, reply: oneshot::Sender<()> },
    SetSkills { skills: Vec<Skill>, reply: oneshot::Sender<()> },
    AddDirectory { directory: NewDirectory, reply: oneshot::Sender<Result<(), Error>> },
    ContextUsage(oneshot::Sender<serde_json::Value>),
}

/// A prompt of one text.
pub(crate) fn text_prompt(text: String) -> UserMessage {
    UserMessage {
        message: MessageParam::new(Role::User, vec![ContentBlock::text(text)]),
        parent_tool_use_id: None,
        tool_use_result: None,
        uuid: None,
        session_id: None,
        extra: wardian_protocol::JsonMap::new(),
    }
}
