//! Work that goes on beside the turn: commands and subagents. One registry for a session and all that it began.
//!
//! source: the agent protocol reference, section 1.3 (`task_*`, `background_tasks_changed`), and its notes on what ends
//! when: an interrupt ends the subagents, a subagent's end its commands, the session's end all of them.

mod id;
mod stats;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wardian_protocol::frame::PermissionDenial;

pub(crate) use self::stats::Refusal;
use self::stats::Stats;
use crate::frames::Out;

/// Subagents that run at once, those of subagents too. source: the reference CLI's limit.
pub(crate) const MAX_AGENTS: usize = 20;
/// Commands in the background at once: each has a pipe, a file and up to 250 KB.
const MAX_COMMANDS: usize = 64;
/// Ended tasks that are remembered, for those who ask for their output.
const MAX_ENDED: usize = 256;
/// Notices that wait for the model; of more, the oldest are dropped. More than can run at once.
const MAX_NOTICES: usize = 256;
/// How long tasks may take to end at the session's end: a little longer than a process tree gets.
const END_GRACE: Duration = Duration::from_secs(4);
/// The most bytes of an output that are given. source: `get_task_output` of the reference.
const MAX_OUTPUT_BYTES: u64 = 8 * 1024;

/// What is to be registered.
#[derive(Clone, Debug)]
pub(crate) struct NewTask {
    pub(crate) kind: Kind,
    pub(crate) tool_use_id: String,
    pub(crate) description: String,
    pub(crate) is_backgrounded: bool,
    /// The subagent that began it.
    pub(crate) owner: Option<String>,
}

/// What a task is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Command { command: String },
    Agent { subagent_type: String, prompt: String, depth: usize, asked: Option<bool> },
}

impl Kind {
    pub(crate) const fn task_type(&self) -> &'static str {
        match self {
            Self::Command { .. } => "local_bash",
            Self::Agent { .. } => "local_agent",
        }
    }

    const fn is_agent(&self) -> bool {
        matches!(self, Self::Agent { .. })
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Completed,
    Failed,
    Stopped,
}

impl Status {
    /// In `task_notification`, and to the model.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    const fn of_state(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopped => "killed",
        }
    }
}

/// Who ended a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Killer {
    /// The model that began it.
    Parent,
    User,
    /// The end of the session, or of the subagent that began it.
    System,
}

/// What came of a task.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) status: Status,
    /// For people.
    pub(crate) summary: String,
    /// For the model, in place of `summary`.
    pub(crate) told: Option<String>,
    /// What a subagent reports.
    pub(crate) report: Option<String>,
    pub(crate) usage: Option<Value>,
}

/// Tells the model that a task in the background has ended.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    owner: Option<String>,
    pub(crate) task_id: String,
    pub(crate) run_id: String,
    pub(crate) tool_use_id: String,
    pub(crate) output: PathBuf,
    pub(crate) status: Status,
    pub(crate) summary: String,
    pub(crate) report: Option<String>,
}

impl Notice {
    /// What a turn that it begins says of its origin.
    pub(crate) fn origin(&self) -> Value {
        json!({"kind": "task-notification", "producer": "session-task", "runId": self.run_id})
    }
}

/// The tasks of a session and all its subagents.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    out: Out,
    folder: PathBuf,
    state: Mutex<State>,
    /// Held while a change is told, so that changes are told in their order.
    telling: tokio::sync::Mutex<()>,
    changed: Notify,
    tracker: TaskTracker,
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<Entry>,
    ended: VecDeque<(String, PathBuf)>,
    notices: VecDeque<Notice>,
    denials: Vec<PermissionDenial>,
    stats: Stats,
}

#[derive(Debug)]
struct Entry {
    new: NewTask,
    task: Task,
    killer: Option<Killer>,
}

/// A task that is registered; for whoever runs it.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) run_id: String,
    pub(crate) tool_use_id: String,
    pub(crate) description: String,
    /// Where its output is.
    pub(crate) output: PathBuf,
    /// Fires when it is to end.
    pub(crate) stop: CancellationToken,
    /// Fired once it is in the background.
    pub(crate) moved: CancellationToken,
    /// Fires when its end was told.
    done: CancellationToken,
    pub(crate) began: Instant,
}

/// The end of a task's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskOutput {
    /// At most the last 8 KiB.
    pub output: String,
    /// The length of all of it.
    pub total_bytes: u64,
    /// Whether `output` is only its end.
    pub truncated: bool,
}

impl Tasks {
    /// `out`: the main thread's. `folder`: where outputs are kept.
    pub(crate) fn new(out: Out, folder: &Path) -> Self {
        Self(Arc::new(Registry {
            out,
            folder: folder.join("tasks"),
            state: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            tracker: TaskTracker::new(),
            end: CancellationToken::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what a task does. It is to end soon after its `stop` fires.
    pub(crate) fn spawn(&self, run: impl Future<Output = ()> + Send + 'static) {
        self.0.tracker.spawn(run);
    }

    /// Fires when all of it is to end.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.0.end.clone()
    }

    /// Registers a task and tells of it. An error, for the model: there are too many.
    pub(crate) async fn start(&self, new: NewTask) -> Result<Task, String> {
        let _telling = self.0.telling.lock().await;
        let task = self.register(&new)?;
        if new.is_backgrounded {
            self.tell_changed().await;
        }
        let mut fields = self.named(&task);
        fields["description"] = new.description.clone().into();
        if let Kind::Agent { subagent_type, .. } = &new.kind {
            fields["subagent_type"] = subagent_type.clone().into();
        }
        fields["is_backgrounded"] = new.is_backgrounded.into();
        if let Kind::Agent { depth, .. } = &new.kind {
            fields["spawn_depth"] = (*depth).into();
        }
        if let Some(owner) = &new.owner {
            fields["parent_task_id"] = owner.clone().into();
        }
        fields["task_type"] = new.kind.task_type().into();
        if let Kind::Agent { prompt, .. } = &new.kind {
            fields["prompt"] = prompt.clone().into();
        }
        self.0.out.system("task_started", fields).await;
        Ok(task)
    }

    fn register(&self, new: &NewTask) -> Result<Task, String> {
        let mut state = self.state();
        let of_kind =
            state.live.iter().filter(|entry| entry.new.kind.is_agent() == new.kind.is_agent()).count();
        match &new.kind {
            Kind::Agent { .. } if of_kind >= MAX_AGENTS => {
                state.stats.refuse(Refusal::Concurrency);
                return Err(format!(
                    "{MAX_AGENTS} subagents run already, which is as many as can. Wait for one to end."
                ));
            }
            Kind::Command { .. } if of_kind >= MAX_COMMANDS => {
                return Err(format!(
                    "{MAX_COMMANDS} commands run in the background already. Stop one with TaskStop."
                ));
            }
            Kind::Agent { subagent_type, depth, asked, .. } => {
                state.stats.start(subagent_type, *depth, *asked, new.is_backgrounded);
            }
            Kind::Command { .. } => (),
        }
        let id = if new.kind.is_agent() { id::agent() } else { id::command() };
        let task = Task {
            run_id: id::run((self.0.out.clock)()),
            tool_use_id: new.tool_use_id.clone(),
            description: new.description.clone(),
            output: self.0.folder.join(format!("{id}.output")),
            stop: self.0.end.child_token(),
            moved: CancellationToken::new(),
            done: CancellationToken::new(),
            began: Instant::now(),
            id,
        };
        if new.is_backgrounded {
            task.moved.cancel();
        }
        state.live.push(Entry { new: new.clone(), task: task.clone(), killer: None });
        Ok(task)
    }

    /// Tells how far a subagent is.
    pub(crate) async fn progress(
        &self,
        task: &Task,
        description: &str,
        subagent_type: &str,
        usage: Value,
        (name, more): (&str, &str),
    ) {
        let mut fields = self.named(task);
        fields["description"] = description.into();
        fields["subagent_type"] = subagent_type.into();
        fields["usage"] = usage;
        fields[name] = more.into();
        self.0.out.system("task_progress", fields).await;
    }

    /// Tells that a task has ended, and keeps a notice for the model if it ended by itself in the background.
    pub(crate) async fn finish(&self, task: &Task, finished: Finished) {
        let _telling = self.0.telling.lock().await;
        let Some((entry, status)) = self.unregister(task, &finished) else { return };
        let is_foreground_command = !entry.new.is_backgrounded && !entry.new.kind.is_agent();
        if !is_foreground_command {
            let end_time = (self.0.out.clock)().as_millisecond();
            let patch = json!({"status": status.of_state(), "end_time": end_time});
            let fields = json!({"task_id": task.id, "run_id": task.run_id, "patch": patch});
            self.0.out.system("task_updated", fields).await;
        }
        let mut fields = self.named(task);
        let output = if is_foreground_command { Path::new("") } else { &task.output };
        fields["status"] = status.as_str().into();
        fields["output_file"] = json!(output);
        let summary = if status == Status::Stopped {
            finished.told.as_ref().unwrap_or(&task.description)
        } else {
            &finished.summary
        };
        fields["summary"] = summary.clone().into();
        if entry.new.is_backgrounded && finished.report.is_some() {
            fields["summary_is_report"] = true.into();
        }
        if let Some(usage) = finished.usage.filter(|_| status != Status::Stopped) {
            fields["usage"] = usage;
        }
        self.0.out.system("task_notification", fields).await;
        if entry.new.is_backgrounded {
            self.tell_changed().await;
        }
        task.done.cancel();
        self.0.changed.notify_one();
    }

    /// Takes a task off the books whose call was dropped.
    pub(crate) fn forget(&self, task: &Task) {
        self.state().live.retain(|entry| entry.task.id != task.id);
    }

    fn unregister(&self, task: &Task, finished: &Finished) -> Option<(Entry, Status)> {
        let mut state = self.state();
        let index = state.live.iter().position(|entry| entry.task.id == task.id)?;
        let entry = state.live.remove(index);
        let status = if entry.killer.is_some() { Status::Stopped } else { finished.status };
        if entry.new.kind.is_agent() {
            state.stats.end(status, entry.killer);
        }
        if state.ended.len() >= MAX_ENDED {
            state.ended.pop_front();
        }
        state.ended.push_back((task.id.clone(), task.output.clone()));
        // Who ended it knows.
        if entry.new.is_backgrounded && entry.killer.is_none() {
            if state.notices.len() >= MAX_NOTICES {
                state.notices.pop_front();
            }
            state.notices.push_back(Notice {
                owner: entry.new.owner.clone(),
                task_id: task.id.clone(),
                run_id: task.run_id.clone(),
                tool_use_id: task.tool_use_id.clone(),
                output: task.output.clone(),
                status,
                summary: finished.told.clone().unwrap_or_else(|| finished.summary.clone()),
                report: finished.report.clone(),
            });
        }
        Some((entry, status))
    }

    fn named(&self, task: &Task) -> Value {
        json!({"task_id": task.id, "run_id": task.run_id, "tool_use_id": task.tool_use_id})
    }

    async fn tell_changed(&self) {
        self.0.out.system("background_tasks_changed", json!({"tasks": self.listing()})).await;
    }

    /// What runs in the background.
    pub(crate) fn listing(&self) -> Vec<Value> {
        let state = self.state();
        let entry = |entry: &Entry| {
            let mut fields = json!({
                "task_id": entry.task.id,
                "run_id": entry.task.run_id,
                "task_type": entry.new.kind.task_type(),
            });
            if let Kind::Agent { subagent_type, .. } = &entry.new.kind {
                fields["subagent_type"] = subagent_type.clone().into();
            }
            fields["description"] = entry.new.description.clone().into();
            if let Some(owner) = &entry.new.owner {
                fields["parent_task_id"] = owner.clone().into();
            }
            fields
        };
        state.live.iter().filter(|entry| entry.new.is_backgrounded).map(entry).collect()
    }

    /// Tells again what runs in the background, to a host that begins to listen.
    pub(crate) async fn tell_listing(&self) {
        let _telling = self.0.telling.lock().await;
        self.tell_changed().await;
    }

    /// Ends a task. What it was, and its command or description; `None`: there is none of this id.
    pub(crate) fn stop(&self, id: &str, killer: Killer) -> Option<(&'static str, String)> {
        let mut state = self.state();
        let entry = state.live.iter_mut().find(|entry| entry.task.id == id)?;
        entry.kill(killer);
        let what = match &entry.new.kind {
            Kind::Command { command } => command.clone(),
            Kind::Agent { .. } => entry.new.description.clone(),
        };
        Some((entry.new.kind.task_type(), what))
    }

    /// Ends a task and waits until it has ended, for as long as ending may take. False: there is none of this id.
    pub(crate) async fn stop_and_wait(&self, id: &str, killer: Killer) -> Option<(&'static str, String)> {
        let stopped = self.stop(id, killer)?;
        self.wait_while(|entry| entry.task.id == id).await;
        Some(stopped)
    }

    /// Ends what a subagent began, and waits for it.
    pub(crate) async fn stop_owned(&self, owner: &str) {
        let owned = |entry: &Entry| entry.new.owner.as_deref() == Some(owner);
        for entry in self.state().live.iter_mut().filter(|entry| owned(entry)) {
            entry.kill(Killer::System);
        }
        self.wait_while(owned).await;
        self.state().notices.retain(|notice| notice.owner.as_deref() != Some(owner));
    }

    /// The user interrupts: the subagents in the background end.
    pub(crate) fn interrupt(&self) {
        for entry in self.state().live.iter_mut().filter(|entry| entry.new.kind.is_agent()) {
            entry.kill(Killer::User);
        }
    }

    async fn wait_while(&self, is_meant: impl Fn(&Entry) -> bool) {
        let meant: Vec<CancellationToken> = {
            let state = self.state();
            state.live.iter().filter(|entry| is_meant(entry)).map(|entry| entry.task.done.clone()).collect()
        };
        let all = async {
            for done in meant {
                done.cancelled().await;
            }
        };
        // What hangs beyond this is ended with the session.
        let _ = timeout(END_GRACE, all).await;
    }

    /// Puts foreground tasks into the background: that of a call, or all. How many there were.
    pub(crate) async fn background(&self, tool_use_id: Option<&str>) -> usize {
        let _telling = self.0.telling.lock().await;
        let moved: Vec<Task> = {
            let mut state = self.state();
            let meant = state.live.iter_mut().filter(|entry| {
                !entry.new.is_backgrounded && tool_use_id.is_none_or(|id| entry.new.tool_use_id == id)
            });
            meant
                .map(|entry| {
                    entry.new.is_backgrounded = true;
                    entry.task.clone()
                })
                .collect()
        };
        for task in &moved {
            self.tell_changed().await;
            let fields =
                json!({"task_id": task.id, "run_id": task.run_id, "patch": {"is_backgrounded": true}});
            self.0.out.system("task_updated", fields).await;
            task.moved.cancel();
        }
        moved.len()
    }

    /// The notices that wait for a subagent, or for the main thread.
    pub(crate) fn take_notices(&self, owner: Option<&str>) -> Vec<Notice> {
        let mut state = self.state();
        let (mine, others) = std::mem::take(&mut state.notices)
            .into_iter()
            .partition(|notice| notice.owner.as_deref() == owner);
        state.notices = others;
        Vec::from(mine as VecDeque<Notice>)
    }

    /// Calls of subagents that were refused, for the turn's result.
    pub(crate) fn deny(&self, denials: Vec<PermissionDenial>) {
        self.state().denials.extend(denials);
    }

    pub(crate) fn take_denials(&self) -> Vec<PermissionDenial> {
        std::mem::take(&mut self.state().denials)
    }

    /// Counts a subagent that was not begun.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.state().stats.refuse(refusal);
    }

    /// `subagent_stats` of a result.
    pub(crate) fn stats(&self) -> Value {
        self.state().stats.to_value()
    }

    /// Whether anything goes on in the background, or a notice waits for the main thread.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.state();
        state.notices.iter().any(|notice| notice.owner.is_none())
            || state.live.iter().any(|entry| entry.new.is_backgrounded)
    }

    /// Whether the main thread is not at rest: a subagent goes on, or a notice waits.
    pub(crate) fn has_agents(&self) -> bool {
        let state = self.state();
        state.notices.iter().any(|notice| notice.owner.is_none())
            || state.live.iter().any(|entry| entry.new.is_backgrounded && entry.new.kind.is_agent())
    }

    /// Waits until a task ends. One waits at a time: the session.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// The end of a task's output; `None`: there is none of this id.
    pub(crate) async fn output(&self, id: &str) -> Option<TaskOutput> {
        let path = {
            let state = self.state();
            let live =
                state.live.iter().find(|entry| entry.task.id == id).map(|entry| entry.task.output.clone());
            live.or_else(|| state.ended.iter().find(|(ended, _)| ended == id).map(|(_, path)| path.clone()))?
        };
        let read = tokio::task::spawn_blocking(move || read_end(&path)).await;
        let (bytes, total_bytes) = read.ok().and_then(Result::ok).unwrap_or_default();
        Some(TaskOutput {
            output: String::from_utf8_lossy(&bytes).into_owned(),
            total_bytes,
            truncated: total_bytes > bytes.len() as u64,
        })
    }

    /// Ends all of it, and waits.
    pub(crate) async fn end(&self) {
        for entry in &mut self.state().live {
            entry.kill(Killer::System);
        }
        self.0.end.cancel();
        self.0.tracker.close();
        if timeout(END_GRACE, self.0.tracker.wait()).await.is_err() {
            tracing::warn!("a background task did not end in time");
        }
    }
}

impl Entry {
    fn kill(&mut self, killer: Killer) {
        self.killer.get_or_insert(killer);
        self.task.stop.cancel();
    }
}

impl Task {
    /// Whether it is in the background.
    pub(crate) fn is_backgrounded(&self) -> bool {
        self.moved.is_cancelled()
    }
}

fn read_end(path: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let total = file.metadata()?.len();
    file.seek(SeekFrom::Start(total.saturating_sub(MAX_OUTPUT_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok((bytes, total))
}
