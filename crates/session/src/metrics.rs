//! What the engine counts. Nothing is labelled with a session, a user, or a text that an agent chose.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, MeterProvider, NoopMeterProvider, UpDownCounter};
use wardian_store::SessionStatus;

/// Tools whose names may stand in a label; another is `other`, and one of an MCP server `mcp`.
const TOOLS: &[&str] = &[
    "Agent",
    "AskUserQuestion",
    "Bash",
    "BashOutput",
    "Edit",
    "ExitPlanMode",
    "Glob",
    "Grep",
    "KillShell",
    "NotebookEdit",
    "Read",
    "Skill",
    "Task",
    "TodoWrite",
    "WebFetch",
    "WebSearch",
    "Write",
];

/// From a sandbox in a few milliseconds to one on a host without breath, in seconds.
const START_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// From a turn of one call to an hour's work, in seconds.
const TURN_SECONDS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// Whether a sandbox was there already when a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It was.
    Warm,
    /// One had to be made first.
    Cold,
}

/// The instruments. Cheap to clone; the default counts nothing.
#[derive(Clone, Debug)]
pub struct Metrics {
    created: Counter<u64>,
    sessions: UpDownCounter<i64>,
    sandboxes: UpDownCounter<i64>,
    sandbox_starts: Histogram<f64>,
    sandbox_failures: Counter<u64>,
    turns_running: UpDownCounter<i64>,
    turns: Histogram<f64>,
    first_messages: Histogram<f64>,
    tools: Counter<u64>,
    queue: UpDownCounter<i64>,
    queue_waits: Histogram<f64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&NoopMeterProvider::new().meter("none"))
    }
}

impl Metrics {
    /// Makes the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        let gauge = |name, text| meter.i64_up_down_counter(name).with_description(text).build();
        let seconds = |name, text, buckets: &[f64]| {
            let histogram = meter.f64_histogram(name).with_description(text).with_unit("s");
            histogram.with_boundaries(buckets.to_vec()).build()
        };
        let metrics = Self {
            created: counter("claude_code.session.count", "Sessions that were made"),
            sessions: gauge("wardian.sessions", "Sessions that this process works on, by status"),
            sandboxes: gauge("wardian.sandboxes", "Sandboxes that exist now"),
            sandbox_starts: seconds(
                "wardian.sandbox.start.duration",
                "From asking for a sandbox until programs can run in it",
                START_SECONDS,
            ),
            sandbox_failures: counter("wardian.sandbox.start.failures", "Sandboxes that could not be made"),
            turns_running: gauge("wardian.turns.running", "Turns under way now"),
            turns: seconds("wardian.turn.duration", "Turns, by how they ended", TURN_SECONDS),
            first_messages: seconds(
                "wardian.turn.time_to_first_message",
                "From taking a message until the agent's first answer to it",
                TURN_SECONDS,
            ),
            tools: counter("wardian.tool.calls", "Tool calls that ended, by tool and whether they failed"),
            queue: gauge("wardian.queue.depth", "Turns that wait for a place"),
            queue_waits: seconds(
                "wardian.queue.wait.duration",
                "How long turns waited for a place",
                TURN_SECONDS,
            ),
        };
        metrics.show_zeros();
        metrics
    }

    /// A series that is there from the start shows its first change, too.
    fn show_zeros(&self) {
        [&self.created, &self.sandbox_failures].into_iter().for_each(|counter| counter.add(0, &[]));
        let gauges = [&self.sandboxes, &self.turns_running, &self.queue];
        gauges.into_iter().for_each(|gauge| gauge.add(0, &[]));
        for status in [SessionStatus::Idle, SessionStatus::Running, SessionStatus::Rescheduling] {
            self.sessions.add(0, &[KeyValue::new("status", status_name(status))]);
        }
    }

    /// A session was made.
    pub fn session_created(&self) {
        self.created.add(1, &[]);
    }

    /// A session that this process works on changed its status: from none when it is taken up, to none when it is let go.
    pub fn session_status(&self, from: Option<SessionStatus>, to: Option<SessionStatus>) {
        if from == to {
            return;
        }
        for (status, step) in [(from, -1), (to, 1)] {
            if let Some(status) = status {
                self.sessions.add(step, &[KeyValue::new("status", status_name(status))]);
            }
        }
    }

    /// A sandbox is up.
    pub fn sandbox_started(&self, took: Duration) {
        self.sandboxes.add(1, &[]);
        self.sandbox_starts.record(took.as_secs_f64(), &[]);
    }

    /// A sandbox could not be made.
    pub fn sandbox_failed(&self) {
        self.sandbox_failures.add(1, &[]);
    }

    /// A sandbox that was up is gone.
    pub fn sandbox_gone(&self) {
        self.sandboxes.add(-1, &[]);
    }

    /// A turn began.
    pub fn turn_started(&self) {
        self.turns_running.add(1, &[]);
    }

    /// A turn that began is over.
    pub fn turn_ended(&self, outcome: &'static str, took: Duration) {
        self.turns_running.add(-1, &[]);
        self.turns.record(took.as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
    }

    /// The agent said the first thing in answer to a message.
    pub fn first_message(&self, start: Start, after: Duration) {
        let start = match start {
            Start::Warm => "warm",
            Start::Cold => "cold",
        };
        self.first_messages.record(after.as_secs_f64(), &[KeyValue::new("start", start)]);
    }

    /// A tool call ended. The name is the agent's: an unknown one is counted as `other`.
    pub fn tool_used(&self, tool: &str, is_error: bool) {
        let labels = [KeyValue::new("tool", tool_label(tool)), KeyValue::new("is_error", is_error)];
        self.tools.add(1, &labels);
    }

    /// A turn began to wait for a place.
    pub fn queued(&self) {
        self.queue.add(1, &[]);
    }

    /// A turn that waited got a place, or was given up.
    pub fn queue_wait(&self, waited: Duration) {
        self.queue.add(-1, &[]);
        self.queue_waits.record(waited.as_secs_f64(), &[]);
    }
}

const fn status_name(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Idle => "idle",
        SessionStatus::Running => "running",
        SessionStatus::Rescheduling => "rescheduling",
        SessionStatus::Terminated => "terminated",
    }
}

/// The label for a tool that an agent named.
pub fn tool_label(name: &str) -> &'static str {
    match TOOLS.binary_search(&name) {
        Ok(place) => TOOLS[place],
        Err(_) if name.starts_with("mcp__") => "mcp",
        Err(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_a_bounded_set() {
        assert!(TOOLS.is_sorted());
        for name in TOOLS {
            assert_eq!(tool_label(name), *name);
        }
        assert_eq!(tool_label("mcp__github__create_issue"), "mcp");
        for strange in ["", "bash", "Bash ", "\u{0}", &"x".repeat(1 << 20)] {
            assert_eq!(tool_label(strange), "other");
        }
    }
}
