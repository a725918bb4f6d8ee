//! `wardian model`.

use std::env;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use wardian_model::{ModelArgs, ServerOptions};

use crate::failure::{Outcome, print, setup};
use crate::host;

/// Plays the Messages API from a script: text, tool calls, thinking, errors, delays, cut streams.
///
/// Prints one line of JSON with its address when it listens. The script's format: docs/model-scripts.md. With
/// WARDIAN_MODEL_KEY in the environment only that key is accepted, else any.
#[derive(clap::Args)]
pub struct Arguments {
    /// The script; without one every request is answered with its own last text
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:4010")]
    listen: SocketAddr,
    /// Append what came to this file, a line of JSON a request; keys only as the start of a hash
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub async fn model(arguments: Arguments) -> Outcome {
    host::log_json("warn");
    let expect_key = env::var("WARDIAN_MODEL_KEY").ok().filter(|key| !key.is_empty());
    let options = ServerOptions { expect_key, log: arguments.log, keep_requests: 0 };
    let args = ModelArgs { script: arguments.script, listen: arguments.listen, options };
    let ready = |line: &str| {
        if let Err(failure) = print(line) {
            let _ = failure.report();
        }
    };
    let summary =
        wardian_model::run(args, ready, host::asked_to_stop()).await.map_err(|error| match error {
            wardian_model::RunError::Start { .. } => setup(error),
            wardian_model::RunError::File { .. } | wardian_model::RunError::Script { .. } => {
                crate::failure::usage(error).hint("docs/model-scripts.md describes the format")
            }
        })?;
    let _ = writeln!(
        std::io::stderr(),
        "{} requests, {} of them left by their client; {} replies of the script were not given",
        summary.requests,
        summary.aborted,
        summary.unused_replies
    );
    Ok(ExitCode::SUCCESS)
}
