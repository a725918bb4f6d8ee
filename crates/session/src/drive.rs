//! Follows an agent: reads what it writes, stores it, then acts on it. All decisions are in [`crate::state`].

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wardian_protocol::HostFrame;
use wardian_protocol::control::{CanUseTool, PermissionAnswer};
use wardian_sandbox::{Exit, Process};

use crate::engine::{Begun, Inner, RunEvent, RunSink};
use crate::error::RunError;
use crate::launch;
use crate::plan::Plan;
use crate::report::Spending;
use crate::request::Permissions;
use crate::run::{STALLED_CALLER, append};
use crate::stamp::stamp;
use crate::state::{Effect, Event, Grace, Row, RunState, Show};
use crate::watch::TurnWatch;

/// How much is read at a time; also what a pipe holds.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// What waits to be written to the agent; over it, nothing more is read from it.
const MAX_OUTGOING_BYTES: usize = 1024 * 1024;
/// The signal that ends what does not end by itself.
const SIGKILL: i32 = 9;
/// How long an interrupted agent gets to stop its tools and say its result.
const INTERRUPT_GRACE: Duration = Duration::from_secs(2);
/// How long an agent gets to exit after its result.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// How long output is awaited from what an agent left behind when it exited.
const DRAIN: Duration = Duration::from_secs(1);
/// The same, when the caller takes what came slowly.
const DRAIN_AT_MOST: Duration = Duration::from_secs(60);

/// A run whose agent has ended.
pub(crate) struct Driven {
    pub(crate) state: RunState,
    /// What the caller has not taken yet.
    pub(crate) shown: VecDeque<RunEvent>,
    /// The agent's result, to be stamped when the figures are final.
    pub(crate) last: Option<Value>,
}

struct Driver<'a> {
    engine: &'a Inner,
    begun: &'a Begun,
    plan: &'a Plan,
    spending: &'a (dyn Fn() -> Spending + Sync),
    watch: &'a mut TurnWatch,
    state: RunState,
    process: Process,
    stdin: Option<pipe::Sender>,
    close_stdin: bool,
    outgoing: Vec<u8>,
    shown: VecDeque<RunEvent>,
    last: Option<Value>,
    questions: FuturesUnordered<BoxFuture<'static, Option<Answer>>>,
    askers: HashMap<String, AbortHandle>,
    /// When the run's time is over; none when that was said.
    deadline: Option<Instant>,
    grace: Option<Instant>,
    cancelled: bool,
    killed: bool,
    exited: Option<Instant>,
    /// When the caller last took an event after the agent's exit.
    progress: Instant,
}

/// What the agent writes to.
struct Pipes {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Pipes {
    const fn are_open(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }
}

type Answer = (String, PermissionAnswer);

/// Something that the driver waits for.
enum Next {
    Event(Event),
    /// The caller took an event, or left; or the agent took input.
    Progress,
    StdoutEnded,
    StderrEnded,
    Exited(Exit),
    Drained,
}

#[expect(clippy::too_many_arguments, reason = "the one call that joins a run's parts")]
pub(crate) async fn drive(
    engine: &Inner,
    begun: &Begun,
    plan: &Plan,
    mut process: Process,
    started: RunEvent,
    spending: &(dyn Fn() -> Spending + Sync),
    watch: &mut TurnWatch,
    sink: &RunSink,
    cancel: &CancellationToken,
) -> Result<Driven, RunError> {
    let stdin = process.stdin.take();
    let mut pipes = Pipes {
        stdout: process.stdout.take(),
        stderr: process.stderr.take(),
        out: vec![0; CHUNK_BYTES],
        err: vec![0; CHUNK_BYTES],
    };
    let mut driver = Driver {
        engine,
        begun,
        plan,
        spending,
        watch,
        state: launch::state(plan),
        process,
        stdin,
        close_stdin: false,
        outgoing: Vec::new(),
        shown: VecDeque::from([started]),
        last: None,
        questions: FuturesUnordered::new(),
        askers: HashMap::new(),
        deadline: Some(Instant::now() + plan.limits.timeout),
        grace: None,
        cancelled: false,
        killed: false,
        exited: None,
        progress: Instant::now(),
    };
    let payload = json!({"source": "observed", "runtime": runtime_name(plan), "model": plan.model});
    append(engine, begun, plan, vec![Row { kind: "run.started", payload }]).await?;
    driver.take(Event::Begun).await?;
    driver.follow(&mut pipes, sink, cancel).await?;
    Ok(Driven { state: driver.state, shown: driver.shown, last: driver.last })
}

const fn runtime_name(plan: &Plan) -> &'static str {
    match plan.runtime {
        crate::request::Runtime::Wardian => "wardian",
        crate::request::Runtime::Command(_) => "command",
    }
}

impl Driver<'_> {
    async fn follow(
        &mut self,
        pipes: &mut Pipes,
        sink: &RunSink,
        cancel: &CancellationToken,
    ) -> Result<(), RunError> {
        while self.exited.is_none() || pipes.are_open() {
            match self.next(pipes, sink, cancel).await? {
                Next::Event(event) => self.take(event).await?,
                Next::Progress => (),
                Next::StdoutEnded => {
                    pipes.stdout = None;
                    self.take(Event::StdoutEnded).await?;
                }
                Next::StderrEnded => pipes.stderr = None,
                Next::Exited(exit) => {
                    self.progress = Instant::now();
                    self.exited = Some(self.progress);
                    self.take(Event::Exited(exit.shell_code())).await?;
                }
                Next::Drained => {
                    pipes.stderr = None;
                    if pipes.stdout.take().is_some() {
                        self.take(Event::StdoutEnded).await?;
                    }
                }
            }
            if self.close_stdin && self.outgoing.is_empty() {
                self.stdin = None;
            }
        }
        Ok(())
    }

    /// Waits for the next thing to happen; what cannot wait comes first, what a hostile agent can flood comes last.
    async fn next(
        &mut self,
        pipes: &mut Pipes,
        sink: &RunSink,
        cancel: &CancellationToken,
    ) -> Result<Next, RunError> {
        let drained = self.exited.map(|exited| self.drained_at(exited));
        let may_read = self.shown.is_empty() && self.outgoing.len() < MAX_OUTGOING_BYTES;
        let next = tokio::select! {
            biased;
            () = cancelled_either(cancel, &self.engine.ending), if !self.cancelled => {
                self.cancelled = true;
                Next::Event(Event::Cancelled)
            }
            () = at(self.deadline) => {
                self.deadline = None;
                Next::Event(Event::TimeUp)
            }
            () = at(self.grace) => {
                self.grace = None;
                Next::Event(Event::GraceOver)
            }
            () = at(drained) => Next::Drained,
            exit = self.process.wait(), if self.exited.is_none() => match exit {
                Ok(exit) => Next::Exited(exit),
                // Its end was wanted; what became of it then is no matter.
                Err(_) if self.killed => Next::Exited(Exit::Signal(SIGKILL)),
                Err(error) => return Err(RunError::Sandbox(error)),
            },
            Some(Some((request_id, answer))) = self.questions.next() => {
                Next::Event(Event::Answered { request_id, answer })
            }
            permit = sink.reserve(), if !self.shown.is_empty() => {
                match (permit, self.shown.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    // Nobody listens any more.
                    (Err(_), _) => self.shown.clear(),
                    (Ok(_), None) => (),
                }
                self.progress = Instant::now();
                Next::Progress
            }
            () = write_some(&mut self.stdin, &mut self.outgoing) => Next::Progress,
            read = read_some(&mut pipes.stdout, &mut pipes.out), if may_read => match read {
                0 => Next::StdoutEnded,
                bytes => Next::Event(Event::Stdout(pipes.out[..bytes].to_vec())),
            },
            read = read_some(&mut pipes.stderr, &mut pipes.err), if may_read => match read {
                0 => Next::StderrEnded,
                bytes => Next::Event(Event::Stderr(pipes.err[..bytes].to_vec())),
            },
        };
        Ok(next)
    }

    /// When the output of an agent that has exited is given up.
    fn drained_at(&self, exited: Instant) -> Instant {
        let patience = if self.shown.is_empty() { DRAIN } else { STALLED_CALLER };
        (self.progress + patience).min(exited + DRAIN_AT_MOST)
    }

    /// Takes an event in: first what is to be stored is durable, then the rest is done.
    async fn take(&mut self, event: Event) -> Result<(), RunError> {
        let effects = self.state.step(event);
        let mut rows = Vec::new();
        let mut todo = Vec::new();
        for effect in effects {
            match effect {
                Effect::Store(row) => rows.push(row),
                other => todo.push(other),
            }
        }
        append(self.engine, self.begun, self.plan, rows).await?;
        for effect in todo {
            self.act(effect).await;
        }
        Ok(())
    }

    async fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Store(_) => (),
            Effect::Show(Show::Message(message)) => {
                self.watch.message(&message);
                let stamped = stamp(message, &self.begun.session_id, &(self.spending)());
                self.shown.push_back(RunEvent::Message(stamped));
            }
            Effect::Show(Show::FinalMessage(message)) => self.last = Some(message),
            Effect::Show(Show::Output { stream, text }) => {
                self.shown.push_back(RunEvent::Output { stream, text });
            }
            Effect::Write(frame) => self.write(&frame),
            Effect::CloseInput => self.close_stdin = true,
            Effect::Ask { request_id, question } => self.ask(request_id, question),
            Effect::Withdraw { request_id } => {
                if let Some(asker) = self.askers.remove(&request_id) {
                    asker.abort();
                }
            }
            Effect::StartGrace(grace) => {
                let patience = match grace {
                    Grace::Interrupt => INTERRUPT_GRACE,
                    Grace::Exit => EXIT_GRACE,
                };
                self.grace = Some(Instant::now() + patience);
            }
            Effect::Kill => {
                self.killed = true;
                if let Err(error) = self.process.kill().await {
                    tracing::warn!(%error, "the agent could not be ended; its sandbox is");
                }
            }
        }
    }

    fn write(&mut self, frame: &HostFrame) {
        if self.stdin.is_some() && !self.close_stdin {
            self.outgoing.extend(frame.to_value().to_string().into_bytes());
            self.outgoing.push(b'\n');
        }
    }

    fn ask(&mut self, request_id: String, question: Box<CanUseTool>) {
        let Permissions::Ask(asker) = &self.plan.permissions else { return };
        let asker = std::sync::Arc::clone(asker);
        let (abort, registration) = AbortHandle::new_pair();
        self.askers.insert(request_id.clone(), abort);
        let answer = async move { (request_id, asker.ask(&question).await) };
        let answer = Abortable::new(answer, registration);
        self.questions.push(Box::pin(async move { answer.await.ok() }));
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn cancelled_either(caller: &CancellationToken, engine: &CancellationToken) {
    tokio::select! {
        () = caller.cancelled() => (),
        () = engine.cancelled() => (),
    }
}

/// Reads a chunk; 0 at the end or a broken pipe, which is the same to us.
pub(crate) async fn read_some(pipe: &mut Option<pipe::Receiver>, chunk: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(chunk).await.unwrap_or(0),
        None => pending().await,
    }
}

/// Writes what the agent takes; an agent that closed its input gets no more.
pub(crate) async fn write_some(pipe: &mut Option<pipe::Sender>, outgoing: &mut Vec<u8>) {
    match pipe {
        Some(sender) if !outgoing.is_empty() => match sender.write(outgoing).await {
            Ok(written) => drop(outgoing.drain(..written)),
            Err(_) => {
                *pipe = None;
                outgoing.clear();
            }
        },
        Some(_) | None => pending().await,
    }
}
