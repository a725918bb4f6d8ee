//! Commands that run beside the turn.
//!
//! A command begins there, or is moved there: by the host, or at its timeout. It then runs as a task of the session's
//! registry: its output goes into a file, and its end is told to the model.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::output::Collector;
use super::processes::Tree;
use super::shell::Shell;
use super::{GONE_GRACE, Input, Reader, reap_orphans};
use crate::task::{Finished, Killer, Kind, NewTask, Status, Task, Tasks};
use crate::tool::{ToolContext, ToolOutput};
use crate::tools::Failure;

/// How long a command may run in the background when it does not say. source: the reference CLI.
const DEFAULT_TIME: Duration = Duration::from_secs(30 * 60);
/// The most that it may ask for.
const MAX_TIME: Duration = Duration::from_secs(120 * 60);
/// How long a command runs before hosts hear of it, and may move it. source: the reference CLI.
const QUIET_TIME: Duration = Duration::from_secs(2);

/// A command that runs.
pub(super) struct Running {
    pub(super) shell: Shell,
    pub(super) tree: Tree,
    pub(super) reader: Reader,
}

/// What came of a command in the background.
enum Ending {
    Exited(ExitStatus),
    Late,
    Stopped,
    Lost(std::io::Error),
}

/// Begins a command in the background.
pub(super) async fn launch(input: &Input, context: &ToolContext) -> Result<ToolOutput, Failure> {
    let Some(tasks) = registry(context) else {
        return Err(Failure::new(
            "run_in_background is not available here; end the command with & and send its output to a file",
        ));
    };
    let mut shell = Shell::start(&input.command, context).map_err(Failure::new)?;
    let tree = Tree::of(shell.id());
    let reader = Reader::new(shell.take_output(), Collector::new(context));
    // Dropped, the tree ends.
    let task = tasks.start(described(input, context, true)).await.map_err(Failure::new)?;
    let (id, output) = (task.id.clone(), task.output.clone());
    run(tasks, task, Running { shell, tree, reader }, input, context);
    let text = format!(
        "The command runs in the background with ID: {id}. Its output goes to {}. You are told when it ends; Read \
         shows what there is until then.",
        output.display()
    );
    Ok(ToolOutput::ok(text, structured(String::new(), &id)))
}

/// Goes on with a command that was moved into the background.
pub(super) fn go_on(
    task: Task,
    timed_out: Option<Duration>,
    running: Running,
    input: &Input,
    context: &ToolContext,
) -> ToolOutput {
    let Some(tasks) = registry(context) else { return ToolOutput::error("the session is gone") };
    let so_far = running.reader.collector.so_far();
    let (id, output) = (task.id.clone(), task.output.clone());
    run(tasks, task, running, input, context);
    let why = match timed_out {
        Some(time) => format!("did not end within {} ms and was moved", time.as_millis()),
        None => "was moved by the user".to_owned(),
    };
    let mut structured = structured(so_far.clone(), &id);
    match timed_out {
        Some(time) => structured["timedOutAfterMs"] = json!(time.as_millis() as u64),
        None => structured["backgroundedByUser"] = json!(true),
    }
    let text = format!(
        "{so_far}\n[The command {why} into the background, with ID: {id}. Its output goes to {}. You are told when it \
         ends; TaskStop with this id ends it.]",
        output.display()
    );
    ToolOutput::ok(text.trim_start().to_owned(), structured)
}

fn structured(stdout: String, id: &str) -> Value {
    json!({
        "stdout": stdout,
        "stderr": "",
        "interrupted": false,
        "isImage": false,
        "noOutputExpected": false,
        "backgroundTaskId": id,
    })
}

/// The session's registry, where commands may run in the background.
fn registry(context: &ToolContext) -> Option<&Tasks> {
    context.within.setup().filter(|setup| setup.background_tasks).map(|setup| &setup.tasks)
}

fn described(input: &Input, context: &ToolContext, is_backgrounded: bool) -> NewTask {
    let agent = context.within.setup().and_then(|setup| setup.out.agent.as_ref());
    NewTask {
        kind: Kind::Command { command: input.command.clone() },
        tool_use_id: context.tool_use_id.clone(),
        description: input.description.clone().unwrap_or_else(|| input.command.clone()),
        is_backgrounded,
        owner: agent.map(|agent| agent.agent_id.clone()),
    }
}

fn run(tasks: &Tasks, task: Task, mut running: Running, input: &Input, context: &ToolContext) {
    let time = input.timeout.filter(|_| input.run_in_background).map_or(DEFAULT_TIME, Duration::from_millis);
    let until = Instant::now() + time.min(MAX_TIME);
    let limit = context.limits.bash_output_bytes as u64;
    if let Err(error) = running.reader.collector.log_to(&task.output, limit) {
        tracing::warn!(%error, "the output of a command in the background is not kept");
    }
    let registry = tasks.clone();
    tasks.spawn(async move {
        let ending = watch(&task, &mut running, until).await;
        registry.finish(&task, finished(&task, &ending)).await;
    });
}

async fn watch(task: &Task, running: &mut Running, until: Instant) -> Ending {
    let Running { shell, tree, reader } = running;
    let ending = loop {
        tokio::select! {
            biased;
            () = task.stop.cancelled() => break Ending::Stopped,
            () = reader.read(), if reader.open => {}
            exited = shell.wait() => match exited {
                Ok(status) => break Ending::Exited(status),
                Err(error) => break Ending::Lost(error),
            },
            () = sleep_until(until) => break Ending::Late,
        }
    };
    match ending {
        Ending::Exited(_) => tree.let_go(),
        Ending::Late | Ending::Stopped | Ending::Lost(_) => {
            reader.read_while(tree.end()).await;
            let _ = timeout(GONE_GRACE, shell.wait()).await;
            tree.let_go();
        }
    }
    reader.drain().await;
    reap_orphans();
    ending
}

fn finished(task: &Task, ending: &Ending) -> Finished {
    let name = &task.description;
    let (status, summary) = match ending {
        Ending::Exited(status) if status.success() => {
            (Status::Completed, format!("Background command {name:?} completed (exit code 0)"))
        }
        Ending::Exited(status) => {
            let how = super::meaning::status_line(*status);
            (Status::Failed, format!("Background command {name:?} failed: {}", how.trim_matches(['[', ']'])))
        }
        Ending::Late => {
            (Status::Stopped, format!("Background command {name:?} was stopped: its time was over"))
        }
        Ending::Stopped => (Status::Stopped, name.clone()),
        Ending::Lost(error) => (Status::Failed, format!("Background command {name:?} was lost: {error}")),
    };
    let told = matches!(ending, Ending::Late).then(|| summary.clone());
    Finished { status, summary, told, report: None, usage: None }
}

/// A command in the foreground, as hosts see it: after a while it is a task, which they may move.
pub(super) struct Side<'a> {
    input: &'a Input,
    context: &'a ToolContext,
    /// Becomes the task, once the command has run for a while. Kept, because waiting for it may be broken off.
    starting: Option<BoxFuture<'a, Option<Task>>>,
    /// Whether it is about to be one.
    has_begun: Arc<AtomicBool>,
    task: Option<Task>,
}

impl<'a> Side<'a> {
    pub(super) fn new(input: &'a Input, context: &'a ToolContext) -> Self {
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&has_begun);
        let later = async move {
            sleep(QUIET_TIME).await;
            begun.store(true, Ordering::Relaxed);
            start(input, context).await
        };
        let starting = registry(context).map(|_| Box::pin(later) as BoxFuture<'a, _>);
        Self { input, context, has_begun, starting, task: None }
    }

    /// Waits until the host moves it into the background. Loses nothing when dropped.
    pub(super) async fn moved(&mut self) -> Task {
        if let Some(starting) = &mut self.starting {
            self.task = starting.await;
            self.starting = None;
        }
        match &self.task {
            Some(task) => {
                task.moved.cancelled().await;
                self.task.take().expect("it is there")
            }
            None => std::future::pending().await,
        }
    }

    /// Moves it into the background, where that can be.
    pub(super) async fn take_task(&mut self) -> Option<Task> {
        let tasks = registry(self.context)?;
        if self.starting.take().is_some() {
            self.task = start(self.input, self.context).await;
        }
        let task = self.task.take()?;
        tasks.background(Some(&task.tool_use_id)).await;
        Some(task)
    }

    /// It has ended in the foreground.
    pub(super) async fn end(mut self, is_success: bool) {
        if let Some(starting) = self.starting.take().filter(|_| self.has_begun.load(Ordering::Relaxed)) {
            self.task = starting.await;
        }
        let (Some(tasks), Some(task)) = (registry(self.context), self.task.take()) else { return };
        let status = if is_success { Status::Completed } else { Status::Failed };
        let summary = task.description.clone();
        if self.context.cancel.is_cancelled() {
            tasks.stop(&task.id, Killer::User);
        }
        tasks.finish(&task, Finished { status, summary, told: None, report: None, usage: None }).await;
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        if let (Some(tasks), Some(task)) = (registry(self.context), &self.task) {
            tasks.forget(task);
        }
    }
}

async fn start(input: &Input, context: &ToolContext) -> Option<Task> {
    // Where there are too many tasks it stays what it is.
    registry(context)?.start(described(input, context, false)).await.ok()
}
