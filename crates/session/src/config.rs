//! What an engine is told once, when it starts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::global::BoxedTracer;
use wardian_protocol::NanoUsd;

/// What [`crate::Engine::start`] is told. Every value has a safe default except the folder and the owner.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Where sessions, doors and the lock file lie. Made with mode 0700 when it is missing.
    pub data_dir: PathBuf,
    /// Who owns the runs of this process, unlike any other process before or after: a random id.
    pub owner: String,
    /// Whether other processes may run sessions in the same folder at the same time.
    pub ownership: Ownership,
    /// Host folders that every sandbox sees, read-only, at their own path: toolchains.
    pub read_only: Vec<PathBuf>,
    /// The limits of a run that asks for none.
    pub defaults: RunLimits,
    /// The most that a run may ask for.
    pub ceilings: RunLimits,
    /// How many runs and turns there may be at once.
    pub caps: Caps,
    /// What a managed session may use, and for how long.
    pub sessions: SessionLimits,
    /// The model of a run that asks for none; a name or an alias.
    pub default_model: String,
    /// Memory, processes and sizes of each sandbox.
    pub sandbox_limits: wardian_sandbox::Limits,
    /// What is counted.
    pub metrics: crate::Metrics,
    /// Writes spans of turns and tool calls; `None` writes none.
    pub tracer: Option<Arc<BoxedTracer>>,
    /// Reads the wall clock.
    pub clock: fn() -> jiff::Timestamp,
}

impl EngineConfig {
    /// The defaults, with the two values that have none.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, owner: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            owner: owner.into(),
            ownership: Ownership::Sole,
            read_only: Vec::new(),
            defaults: RunLimits::DEFAULT,
            ceilings: RunLimits::CEILING,
            caps: Caps::default(),
            sessions: SessionLimits::default(),
            default_model: "sonnet".to_owned(),
            sandbox_limits: wardian_sandbox::Limits::default(),
            metrics: crate::Metrics::default(),
            tracer: None,
            clock: system_clock,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the engine's one clock, replaced by `EngineConfig::clock`")]
fn system_clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Who may use the data folder beside this engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody: a server. A second engine is refused.
    Sole,
    /// Other engines that say `Shared` too: `wardian run` in two terminals. What a crash left is put right by the
    /// first that comes when nobody else is there.
    Shared,
}

/// What a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Rounds between model and tools.
    pub max_turns: u32,
    /// Money, over all models.
    pub max_cost: NanoUsd,
    /// Wall time from the start of the agent.
    pub timeout: Duration,
}

impl RunLimits {
    /// Enough for a task of some size; a slip costs a few dollars, not a night's worth.
    pub const DEFAULT: Self =
        Self { max_turns: 100, max_cost: NanoUsd::from_usd(5), timeout: Duration::from_secs(600) };

    /// What a single request may raise its limits to, unless the host's configuration says otherwise.
    pub const CEILING: Self =
        Self { max_turns: 1_000, max_cost: NanoUsd::from_usd(100), timeout: Duration::from_secs(6 * 3600) };
}

/// What a managed session may use, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Money over its whole life, also where its own budget is higher or none.
    pub max_cost: NanoUsd,
    /// Rounds between model and tools in one turn.
    pub max_turns: u32,
    /// Wall time of one turn, without the time in which it waits for its client.
    pub turn_timeout: Duration,
    /// How long its sandbox stays after it has nothing to do.
    pub idle_timeout: Duration,
    /// How long a call waits for its client before it is denied.
    pub approval_ttl: Duration,
    /// Sandboxes that stay though they have nothing to do; over it, the one that has waited longest goes.
    pub warm_sandboxes: usize,
}

impl Default for SessionLimits {
    /// A turn may be an hour's work; a sandbox that waits costs tens of MiB, and making another costs milliseconds; a
    /// person may answer the next day.
    fn default() -> Self {
        Self {
            max_cost: NanoUsd::from_usd(100),
            max_turns: 1_000,
            turn_timeout: Duration::from_secs(3600),
            idle_timeout: Duration::from_secs(300),
            approval_ttl: Duration::from_secs(24 * 3600),
            warm_sandboxes: 32,
        }
    }
}

/// How many runs and turns there may be at once. A run over it is told to come back, a turn waits in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// On this host.
    pub runs_per_host: usize,
    /// Of one org.
    pub runs_per_org: usize,
    /// Of one user. Runs without a user count together.
    pub runs_per_user: usize,
    /// Under one API key; turns are not counted by key.
    pub runs_per_key: usize,
    /// Turns in line on this host.
    pub queued_per_host: usize,
    /// Turns in line of one user.
    pub queued_per_user: usize,
}

impl Default for Caps {
    /// A sandbox with an agent takes tens of MiB and most of its time waits for the model: 64 fit a small machine.
    /// A user gets a share that leaves room for others. A line of thousands costs little and is worth more than a refusal.
    fn default() -> Self {
        Self {
            runs_per_host: 64,
            runs_per_org: 64,
            runs_per_user: 8,
            runs_per_key: 32,
            queued_per_host: 10_000,
            queued_per_user: 1_000,
        }
    }
}
