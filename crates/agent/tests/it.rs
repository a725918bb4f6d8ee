//! The engine and the binary against the scripted model.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

#[path = "it/addresses.rs"]
mod addresses;
#[path = "it/agents.rs"]
mod agents;
#[path = "it/background.rs"]
mod background;
#[path = "it/binary.rs"]
mod binary;
#[path = "it/bodies.rs"]
mod bodies;
#[path = "it/checkpoints.rs"]
mod checkpoints;
#[path = "it/commands.rs"]
mod commands;
#[path = "it/control.rs"]
mod control;
#[path = "it/debug_log.rs"]
mod debug_log;
#[path = "it/display.rs"]
mod display;
#[path = "it/failures.rs"]
mod failures;
#[path = "it/flags.rs"]
mod flags;
#[path = "it/forks.rs"]
mod forks;
#[path = "it/fuzzed.rs"]
mod fuzzed;
#[path = "it/hooks.rs"]
mod hooks;
#[path = "it/hostile.rs"]
mod hostile;
#[path = "it/hosting.rs"]
mod hosting;
#[path = "it/library.rs"]
mod library;
#[path = "it/limits.rs"]
mod limits;
#[path = "it/live.rs"]
mod live;
#[path = "it/mcp.rs"]
mod mcp;
#[path = "it/mirrored.rs"]
mod mirrored;
#[path = "it/opening.rs"]
mod opening;
#[path = "it/permissions.rs"]
mod permissions;
#[path = "it/planning.rs"]
mod planning;
#[path = "it/process.rs"]
mod process;
#[path = "it/progress.rs"]
mod progress;
#[path = "it/restarts.rs"]
mod restarts;
#[path = "it/servers.rs"]
mod servers;
#[path = "it/skills.rs"]
mod skills;
#[path = "it/steering.rs"]
mod steering;
#[path = "it/structured.rs"]
mod structured;
#[path = "it/suggestions.rs"]
mod suggestions;
#[path = "it/support.rs"]
mod support;
#[path = "it/tls.rs"]
mod tls;
#[path = "it/transcripts.rs"]
mod transcripts;
#[path = "it/turns.rs"]
mod turns;
#[path = "it/web.rs"]
mod web;
#[path = "it/wire.rs"]
mod wire;
