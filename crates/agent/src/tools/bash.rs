//! Bash.
//!
//! Each call is a shell of its own, in a process group of its own. The call ends when the shell does: what it left
//! running in the background goes on, and its output is drained and dropped. At the timeout, when the turn is stopped
//! and when the call is dropped, the whole tree ends: the group, every descendant, and, where this process is a
//! [child subreaper](become_subreaper), also what detached itself by a double fork and `setsid`. That is care, not a
//! wall: hostile code can race it. The wall is the sandbox.

use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::background::{Running, Side};
use self::output::{Collector, Output};
pub(crate) use self::processes::Tree;
use self::shell::Shell;
use super::Failure;
use super::input::parse_input;
use crate::task::Task;
use crate::tool::{Tool, ToolContext, ToolOutput};

mod background;
mod meaning;
mod output;
mod processes;
mod shell;

pub use self::processes::{become_subreaper, end_descendants, reap_orphans};

/// Once the shell has ended, how long its output is waited for while nothing comes: what it wrote is in the pipe
/// already, only what runs on in the background can write more.
const DRAIN_IDLE: Duration = Duration::from_millis(20);

/// The same while something comes.
const DRAIN_MAX: Duration = Duration::from_millis(250);

/// How long a killed shell may take to be gone: only one stuck in the kernel takes any time.
const GONE_GRACE: Duration = Duration::from_secs(2);

/// Commands running on in the background whose output is drained; beyond, a further one gets a broken pipe.
const MAX_DRAINED: usize = 64;

/// Bytes read at a time: what a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// The tool `Bash`. Dropping it lets go of what still runs in the background.
#[derive(Debug, Default)]
pub struct Bash {
    drained: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Bash {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Tool for Bash {
    fn name(&self) -> &str {
        "Bash"
    }

    fn description(&self) -> &str {
        "Runs a command in bash and gives what it printed, standard output and standard error in the order they came.\n\
         \n\
         - A `cd` lasts for the next call; variables, functions and options do not.\n\
         - There is no input and no terminal: a command that asks something gets end of file.\n\
         - `timeout` is 2 minutes unless you say otherwise, at most 10.\n\
         - Long output is cut in the middle; all of it is then kept in a file that is named.\n\
         - What runs long goes into the background with run_in_background. A command that takes longer than its \
         `timeout` is moved there. You are told when it ends; until then its output so far is in the file that is named.\n\
         - To read, write, edit and search files use Read, Write, Edit, Glob and Grep rather than cat, sed, find and grep.\n\
         - Quote paths that have spaces."
    }

    /// Not closed: two more parameters of the reference are understood, and refused by name.
    fn input_schema(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "The command"},
                "timeout": {"type": "integer", "minimum": 1, "description": "How long it may take, in milliseconds"},
                "description": {"type": "string", "description": "What it does, in a few plain words for the user"},
                "run_in_background": {
                    "type": "boolean",
                    "description": "True: it runs beside the turn, and you are told when it ends. `timeout` is then how \
                                    long it may run at most, default 30 minutes",
                },
            },
            "required": ["command"],
        })
    }

    fn call<'a>(&'a self, input: Value, context: &'a ToolContext) -> BoxFuture<'a, ToolOutput> {
        Box::pin(async move {
            match parse_input("Bash", &self.input_schema(), input) {
                Ok(input) => self.run(&input, context).await.unwrap_or_else(ToolOutput::from),
                Err(failure) => failure.into(),
            }
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    command: String,
    timeout: Option<u64>,
    /// For whoever watches.
    description: Option<String>,
    #[serde(default)]
    run_in_background: bool,
    #[serde(default, rename = "dangerouslyDisableSandbox")]
    dangerously_disable_sandbox: bool,
}

impl Input {
    fn check(&self) -> Result<(), Failure> {
        Err(Failure::new(if self.command.contains('\0') {
            "the command holds a NUL byte, which no command can"
        } else if self.dangerously_disable_sandbox {
            "dangerouslyDisableSandbox is not available here; commands run where the agent runs"
        } else {
            return Ok(());
        }))
    }

    fn timeout(&self, context: &ToolContext) -> Duration {
        let limits = &context.limits;
        self.timeout.map_or(limits.bash_default_timeout, Duration::from_millis).min(limits.bash_max_timeout)
    }
}

/// How a command came to its end.
enum Ending {
    Exited(ExitStatus),
    TimedOut(Duration),
    Stopped,
    /// It goes on in the background.
    Moved(Task, Option<Duration>),
}

impl Bash {
    async fn run(&self, input: &Input, context: &ToolContext) -> Result<ToolOutput, Failure> {
        input.check()?;
        if input.run_in_background {
            return background::launch(input, context).await;
        }
        let time = input.timeout(context);
        let deadline = Instant::now() + time;
        let mut shell = Shell::start(&input.command, context).map_err(Failure::new)?;
        let mut tree = Tree::of(shell.id());
        let mut reader = Reader::new(shell.take_output(), Collector::new(context));
        let mut side = Side::new(input, context);
        let ending = loop {
            tokio::select! {
                biased;
                task = side.moved() => break Ending::Moved(task, None),
                () = reader.read(), if reader.open => {}
                exited = shell.wait() => match exited {
                    Ok(status) => break Ending::Exited(status),
                    Err(error) => return Err(Failure::new(format!("failed to wait for the shell: {error}"))),
                },
                () = context.cancel.cancelled() => break Ending::Stopped,
                () = sleep_until(deadline) => match side.take_task().await {
                    Some(task) => break Ending::Moved(task, Some(time)),
                    None => break Ending::TimedOut(time),
                },
            }
        };
        if let Ending::Moved(task, timed_out) = ending {
            return Ok(background::go_on(task, timed_out, Running { shell, tree, reader }, input, context));
        }
        side.end(matches!(ending, Ending::Exited(status) if status.success())).await;
        match ending {
            Ending::Exited(_) => shell.carry_folder(context),
            Ending::TimedOut(_) | Ending::Stopped | Ending::Moved(..) => {
                reader.read_while(tree.end()).await;
                // The result is not interesting, only that no zombie stays.
                let _ = timeout(GONE_GRACE, shell.wait()).await;
            }
        }
        tree.let_go();
        reader.drain().await;
        reap_orphans();
        let output = reader.collector.finish();
        self.keep_draining(reader.pipe, reader.open);
        Ok(told(input, &ending, &output, shell.note()))
    }

    /// Goes on reading what runs on in the background writes, so that it meets neither a full nor a broken pipe.
    fn keep_draining(&self, mut pipe: pipe::Receiver, open: bool) {
        if !open || self.drained.len() >= MAX_DRAINED {
            return;
        }
        let stop = self.stop.clone();
        self.drained.spawn(stop.run_until_cancelled_owned(async move {
            let mut dropped = vec![0; CHUNK_BYTES];
            while pipe.read(&mut dropped).await.is_ok_and(|read| read > 0) {}
        }));
    }
}

/// The shell's output: both streams through one pipe, so that their order is kept.
struct Reader {
    pipe: pipe::Receiver,
    chunk: Vec<u8>,
    collector: Collector,
    /// Whether anybody still holds the other end.
    open: bool,
}

impl Reader {
    fn new(pipe: pipe::Receiver, collector: Collector) -> Self {
        Self { pipe, chunk: vec![0; CHUNK_BYTES], collector, open: true }
    }

    /// Takes what is there, or waits for some. Loses nothing when dropped.
    async fn read(&mut self) {
        match self.pipe.read(&mut self.chunk).await {
            Ok(read) if read > 0 => self.collector.push(&self.chunk[..read]),
            _ => self.open = false,
        }
    }

    async fn read_while(&mut self, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                () = self.read(), if self.open => {}
            }
        }
    }

    async fn drain(&mut self) {
        let end = Instant::now() + DRAIN_MAX;
        while self.open && Instant::now() < end {
            if timeout(DRAIN_IDLE, self.read()).await.is_err() {
                return;
            }
        }
    }
}

fn told(input: &Input, ending: &Ending, output: &Output, note: Option<&str>) -> ToolOutput {
    let mut structured = json!({
        "stdout": output.text,
        "stderr": "",
        "interrupted": !matches!(ending, Ending::Exited(_)),
        "isImage": false,
        "noOutputExpected": meaning::is_silent(&input.command),
    });
    if let Some(kept) = &output.kept {
        structured["persistedOutputPath"] = json!(kept);
        structured["persistedOutputSize"] = json!(output.bytes);
    }
    let mut parts = Vec::new();
    let mut is_error = true;
    match ending {
        Ending::Exited(status) if status.success() => is_error = false,
        Ending::Exited(status) => match meaning::of_status(&input.command, *status) {
            Some(meaning) => {
                structured["returnCodeInterpretation"] = json!(meaning);
                parts.push(format!("[{meaning}]"));
                is_error = false;
            }
            None => parts.push(meaning::status_line(*status)),
        },
        Ending::TimedOut(time) => {
            structured["timedOutAfterMs"] = json!(time.as_millis() as u64);
            parts.push(format!(
                "[the command took longer than {} ms and was ended, with all that it had started]",
                time.as_millis()
            ));
        }
        Ending::Stopped | Ending::Moved(..) => {
            parts.push("[the command was stopped, with all that it had started]".to_owned());
        }
    }
    parts.extend(note.map(|note| format!("[{note}]")));
    if !output.text.is_empty() {
        parts.push(output.text.clone());
    }
    if parts.is_empty() {
        parts.push("[no output]".to_owned());
    }
    let content = parts.join("\n");
    // Programs expect the text of a failure where nothing else is to be told.
    match ending {
        Ending::Exited(_) if is_error => ToolOutput::error(content),
        _ => ToolOutput { is_error, ..ToolOutput::ok(content, structured) },
    }
}
