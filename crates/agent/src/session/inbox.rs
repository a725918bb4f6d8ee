//! What a session is to do next: prompts that wait, what the host asks, what has ended in the background.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::authorise::{Live, lock, resolve};
use crate::context::Asks;
use crate::later::{Later, show_directory};
use crate::query::{Command, text_prompt};
use crate::queue::Queue;
use crate::session::Setup;
use crate::skill::Skills;
use crate::switch::Switches;
use crate::task::{Notice, Tasks};
use crate::{Error, Interrupted, Prompt, UserMessage};

/// What a session does next.
pub(super) enum Next {
    Prompts(Vec<UserMessage>),
    /// Something in the background has ended.
    Notices(Vec<Notice>),
    /// Nothing, but what goes on in the background has changed.
    Rest,
    End,
}

/// Prompts that wait.
pub(super) struct Inbox {
    pub(super) queue: Queue,
    open: bool,
    asks: Asks,
    switches: Switches,
    later: Later,
    skills: Skills,
    tasks: Tasks,
    /// How long what is in the background is waited for once no more prompts come.
    pub(super) patience: Duration,
    pub(super) spares_tasks: bool,
}

impl Inbox {
    pub(super) fn new(prompt: Prompt, setup: &Setup) -> Self {
        let (first, open) = match prompt {
            Prompt::Text(text) => (vec![text_prompt(text)], false),
            Prompt::Messages(messages) => (messages, false),
            // A stream is passed on by `query`.
            Prompt::Open | Prompt::Stream(_) => (Vec::new(), true),
        };
        Self {
            queue: Queue::of(first),
            open,
            asks: setup.asks.clone(),
            switches: setup.switches.clone(),
            later: setup.later.clone(),
            skills: setup.skills.clone(),
            tasks: setup.tasks.clone(),
            patience: Duration::ZERO,
            spares_tasks: false,
        }
    }

    /// What comes next; the end when no more prompts come and what is in the background has ended, or takes too long.
    pub(super) async fn next(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        live: &Mutex<Live>,
        cancel: &CancellationToken,
        answer_asks: impl Fn(),
    ) -> Next {
        let patience = Instant::now() + self.patience;
        loop {
            // What was asked first is done first: a mode set before a prompt holds for it.
            while let Ok(command) = commands.try_recv() {
                self.take_in(command, live, None);
            }
            answer_asks();
            if cancel.is_cancelled() {
                return Next::End;
            }
            let is_settled = self.switches.is_settled();
            // What comes after a wish for another model is for that model.
            if is_settled {
                let prompts = self.queue.take();
                if !prompts.is_empty() {
                    return Next::Prompts(prompts);
                }
                let notices = self.tasks.take_notices(None);
                if !notices.is_empty() {
                    return Next::Notices(notices);
                }
            }
            if is_settled && !self.open && !self.tasks.is_busy() {
                return Next::End;
            }
            let command = tokio::select! {
                biased;
                () = cancel.cancelled() => return Next::End,
                command = commands.recv() => command,
                () = self.switches.settled(), if !is_settled => continue,
                () = self.tasks.changed() => return Next::Rest,
                () = sleep_until(patience), if !self.open => return Next::End,
            };
            let Some(command) = command else { return Next::End };
            self.take_in(command, live, None);
        }
    }

    /// Does what was asked at once. Who asked may not wait for the answer: that is no matter.
    pub(super) fn take_in(&mut self, command: Command, live: &Mutex<Live>, turn: Option<&CancellationToken>) {
        match command {
            Command::Prompt { message, reply } => {
                let answer = if self.open { self.queue.push(*message) } else { Err(Error::Ended) };
                let _ = reply.send(answer);
            }
            Command::CancelPrompt { uuid, reply } => {
                let _ = reply.send(self.queue.cancel(&uuid));
            }
            Command::EndInput(reply) => {
                self.open = false;
                let _ = reply.send(());
            }
            Command::Interrupt { cancel_queued, reply } => {
                let mut interrupted = Interrupted::default();
                if cancel_queued {
                    interrupted.cancelled = self.queue.cancel_all();
                } else {
                    interrupted.still_queued = self.queue.uuids();
                }
                if let Some(turn) = turn {
                    turn.cancel();
                }
                if !self.spares_tasks {
                    self.tasks.interrupt();
                }
                let _ = reply.send(interrupted);
            }
            Command::TellTasks(reply) => {
                let tasks = self.tasks.clone();
                self.tasks.spawn(async move { tasks.tell_listing().await });
                let _ = reply.send(());
            }
            Command::Tasks(reply) => {
                let _ = reply.send(self.tasks.clone());
            }
            Command::SetPermissionMode { mode, reply } => {
                let _ = reply.send(lock(live).set_mode(mode));
            }
            Command::ContextUsage(reply) => self.asks.push(reply),
            Command::ConfigChanged { source, path, reply } => {
                let hooks = self.switches.hooks();
                self.tasks.spawn(async move {
                    let _ = reply.send(hooks.config_changed(&source, &path).await);
                });
            }
            Command::Reread { mut parts, reply } => {
                self.skills.replace(std::mem::take(&mut parts.skills));
                self.switches.hooks().replace(std::mem::take(&mut parts.hooks));
                self.later.reread(*parts);
                let _ = reply.send(());
            }
            Command::SetHooks { hooks, reply } => {
                self.switches.hooks().replace(*hooks);
                let _ = reply.send(());
            }
            Command::SetSkills { skills, reply } => {
                self.skills.replace(skills);
                let _ = reply.send(());
            }
            Command::AddDirectory { directory, reply } => {
                let roots = &mut lock(live).policy.roots;
                if let Err(error) = self.later.add_directory(&directory, roots.len()) {
                    let _ = reply.send(Err(error));
                    return;
                }
                roots.push(resolve(&directory.path));
                let hooks = self.switches.hooks();
                self.tasks.spawn(async move {
                    show_directory(&hooks, &directory).await;
                    let _ = reply.send(Ok(()));
                });
            }
            Command::SwitchModel(wish) => self.switches.begin(wish, &self.tasks),
        }
    }
}
