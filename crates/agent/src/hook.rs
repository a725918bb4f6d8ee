//! Hooks: the caller's code around what a query does.
//!
//! source: the agent protocol reference, section 1.4.

mod command;
mod event;
mod matcher;
mod outcome;
mod run;
mod tools;
mod turn;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
pub use wardian_protocol::hook::{HookInput, HookOutput, HookSpecificOutput, PermissionDecision};

pub use command::CommandHook;
pub use event::{EventError, HookEvent};
use matcher::Matcher;
pub(crate) use outcome::{HookDecision, HookOutcome};
pub(crate) use run::{SessionHooks, Surroundings};
pub(crate) use tools::Ran;
pub(crate) use turn::{Heard, STOP_CAP, Stopping};

/// What a hook runs. When the turn is interrupted, its future is dropped.
pub type HookCallback =
    Arc<dyn Fn(HookInput) -> BoxFuture<'static, Result<HookOutput, HookFailure>> + Send + Sync>;

/// Why a hook gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run the hook: {0}")]
pub struct HookFailure(pub String);

/// What happens when a hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// As if it had said nothing.
    #[default]
    Continue,
    /// What it guards does not happen. Hooks on the end of something guard nothing: there it changes nothing.
    Block,
}

/// The hooks of a query, by event. Those of one event that match run side by side.
#[derive(Clone, Debug, Default)]
pub struct Hooks(BTreeMap<HookEvent, Vec<Hook>>);

impl Hooks {
    /// Returns these hooks and one more.
    #[must_use]
    pub fn on(mut self, event: HookEvent, hook: Hook) -> Self {
        self.add(event, hook);
        self
    }

    /// Adds a hook.
    pub fn add(&mut self, event: HookEvent, hook: Hook) {
        self.0.entry(event).or_default().push(hook);
    }

    /// Adds all of these.
    pub fn extend(&mut self, more: Self) {
        for (event, hooks) in more.0 {
            self.0.entry(event).or_default().extend(hooks);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the hooks of an event.
    #[must_use]
    pub fn of(&self, event: HookEvent) -> &[Hook] {
        self.0.get(&event).map_or(&[], Vec::as_slice)
    }
}

/// One hook.
#[derive(Clone)]
pub struct Hook {
    matcher: Matcher,
    /// How long it may take.
    pub timeout: Duration,
    /// What happens when it fails or takes longer.
    pub on_failure: OnFailure,
    work: Work,
}

/// What a hook runs.
#[derive(Clone)]
enum Work {
    Callback(HookCallback),
    Command(Arc<CommandHook>),
}

/// How long a hook may take that does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for a program.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(600);

impl Hook {
    /// A hook for what `matcher` names: a tool, `A|B`, a regular expression that any part of the name fits, or
    /// nothing for everything. Events that are not about tools are matched by what they say of their cause. A matcher that cannot be
    /// read matches everything, so that a hook never fails to see a call.
    pub fn new<Run, Answer>(matcher: Option<&str>, run: Run) -> Self
    where
        Run: Fn(HookInput) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<HookOutput, HookFailure>> + Send + 'static,
    {
        Self {
            matcher: Matcher::read(matcher),
            timeout: DEFAULT_TIMEOUT,
            on_failure: OnFailure::Continue,
            work: Work::Callback(Arc::new(move |input| Box::pin(run(input)))),
        }
    }

    /// A hook that runs a program; see [`Hook::new`] for `matcher`.
    #[must_use]
    pub fn command(matcher: Option<&str>, command: CommandHook) -> Self {
        Self {
            matcher: Matcher::read(matcher),
            timeout: COMMAND_TIMEOUT,
            on_failure: OnFailure::Continue,
            work: Work::Command(Arc::new(command)),
        }
    }

    /// Whether it runs for this tool, or other cause.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        self.matcher.matches(subject)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Hook").field("matcher", &self.matcher).finish_non_exhaustive()
    }
}
