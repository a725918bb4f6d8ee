//! The binary `wardian`: agents in sandboxes, here or served over HTTP.

mod config;
mod doctor;
mod failure;
mod host;
mod keys;
mod model;
mod run;
mod sandbox;
mod serve;
mod sessions;
mod show;
mod telemetry;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Outcome;

/// Runs agents under glass: each in its own sealed sandbox, with every model call checked, limited and recorded.
#[derive(Parser)]
#[command(
    name = "wardian",
    version,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Let an agent work in a folder of yours, in a sandbox
    Run(run::Arguments),
    /// Serve the HTTP API: sessions of many users, a sandbox each
    Serve(serve::Arguments),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// List sessions, show one, follow its events
    #[command(subcommand)]
    Sessions(sessions::Command),
    /// Show what was spent
    Usage(usage::Arguments),
    /// Use sandboxes without a server
    #[command(subcommand)]
    Sandbox(sandbox::Command),
    /// Play the Messages API from a script, to test agents without a key
    Model(model::Arguments),
    /// Say what this host can do, and what mends what it can't
    Doctor(doctor::Arguments),
    /// Print the configuration file with every key and its default
    Config,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    host::forbid_core_dumps();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(dispatch(arguments.command));
            // A question at the terminal that nobody answered any more must not hold the process.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => {
            Err(failure::setup(error).hint("the system refused a thread or a descriptor: see `ulimit -a`"))
        }
    };
    outcome.unwrap_or_else(|failure| failure.report())
}

async fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Run(arguments) => Box::pin(run::run(arguments)).await,
        Command::Serve(arguments) => Box::pin(serve::serve(arguments)).await,
        Command::Keys(command) => keys::keys(command).await,
        Command::Sessions(command) => sessions::sessions(command).await,
        Command::Usage(arguments) => usage::usage(arguments).await,
        Command::Sandbox(sandbox::Command::Exec(arguments)) => sandbox::exec(arguments).await,
        Command::Model(arguments) => model::model(arguments).await,
        Command::Doctor(arguments) => doctor::doctor(arguments).await,
        Command::Config => config::print(),
    }
}
