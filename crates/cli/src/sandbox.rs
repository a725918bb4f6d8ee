//! `wardian sandbox`.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use wardian_sandbox::{Exec, Launcher, LauncherConfig, Process, Spec, Stdio, Volume};

use crate::failure::{Failure, INTERRUPTED, Outcome, setup, usage};
use crate::host::{self, ScratchDir};

/// The sandbox could not be made: as `docker run` and `env` have it, apart from what the command itself may give.
const NO_SANDBOX: u8 = 125;
/// The command is there and cannot be started, as shells have it.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command, as shells have it.
const NOT_FOUND: u8 = 127;

/// Sandboxes without a server.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Run a command in a new sandbox: no network, no files but those named, no environment but what is given
    Exec(ExecArguments),
}

/// Arguments of `wardian sandbox exec`.
///
/// Standard input, output and error are the command's. The exit status is the command's too; 124 when the time was
/// over, 125 when the sandbox could not be made, 126 or 127 when the command cannot be started or is not there.
#[derive(clap::Args)]
pub struct ExecArguments {
    /// The folder that the command may write; at its own path inside, and the current directory
    #[arg(long, value_name = "DIR", default_value = ".")]
    workspace: PathBuf,
    /// A folder that the command may read, at its own path; may be given again
    #[arg(long, value_name = "DIR")]
    read_only: Vec<PathBuf>,
    /// A variable of the command's environment; may be given again
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,
    /// End everything after so many seconds, with status 124
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// The folder with the static binary wardian-guest
    #[arg(long, env = "WARDIAN_LIBEXEC_DIR", value_name = "DIR")]
    libexec_dir: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the command; gives its status.
pub async fn exec(arguments: ExecArguments) -> Outcome {
    let spec = spec(&arguments)?;
    let unmade = |failure: Failure| failure.code(NO_SANDBOX);
    let scratch = ScratchDir::new().map_err(unmade)?;
    let libexec_dir = host::libexec_dir(arguments.libexec_dir).map_err(unmade)?;
    let config = LauncherConfig::new(libexec_dir, scratch.path().join("launcher"));
    let doctor = "`wardian doctor` says what this host can do, and what mends what it can't";
    let failed = |error| setup(anyhow::Error::from(error)).hint(doctor).code(NO_SANDBOX);
    let launcher = Launcher::start(config).map_err(failed)?;
    let sandbox = launcher.create("exec", &spec).await.map_err(failed)?;
    let exec = Exec {
        cwd: Some(spec.workspace.inside.clone()),
        timeout: arguments.timeout,
        stdin: own(io::stdin().as_fd().try_clone_to_owned())?,
        stdout: own(io::stdout().as_fd().try_clone_to_owned())?,
        stderr: own(io::stderr().as_fd().try_clone_to_owned())?,
        ..Exec::new(arguments.command)
    };
    let mut process = sandbox.exec(exec).await.map_err(|error| match &error {
        wardian_sandbox::Error::Exec { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
            setup(error).hint("the sandbox sees /usr, the workspace and --read-only folders").code(NOT_FOUND)
        }
        wardian_sandbox::Error::Exec { .. } => setup(error).code(NOT_EXECUTABLE),
        _ => failed(error),
    })?;
    let status = finish(&mut process).await.map_err(failed)?;
    drop(process);
    sandbox.destroy().await.map_err(failed)?;
    launcher.shut_down().await;
    Ok(ExitCode::from(status))
}

/// Waits for the command, or for Ctrl-C, which ends it.
async fn finish(process: &mut Process) -> Result<u8, wardian_sandbox::Error> {
    tokio::select! {
        exit = process.wait() => Ok(u8::try_from(exit?.shell_code()).unwrap_or(u8::MAX)),
        () = host::asked_to_stop() => {
            process.kill().await?;
            Ok(INTERRUPTED)
        }
    }
}

fn own(descriptor: io::Result<OwnedFd>) -> Result<Stdio, Failure> {
    descriptor.map(Stdio::Fd).context("pass the standard streams on").map_err(setup)
}

fn spec(arguments: &ExecArguments) -> Result<Spec, Failure> {
    let folder = |path: &PathBuf| {
        let found = fs::canonicalize(path).with_context(|| format!("find the folder {}", path.display()));
        let found = found.map_err(usage)?;
        if found.is_dir() {
            Ok(found)
        } else {
            Err(usage(anyhow!("use {}: it is no folder", path.display())))
        }
    };
    let mut spec = Spec::new(Volume::same(folder(&arguments.workspace)?));
    spec.read_only = arguments.read_only.iter().map(folder).collect::<Result<_, _>>()?;
    spec.env.clone_from(&arguments.env);
    Ok(spec)
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Reads a number of seconds above zero, at most a week.
pub fn seconds(text: &str) -> Result<Duration, String> {
    const LONGEST: f64 = 7.0 * 24.0 * 3600.0;
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= LONGEST => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("expected a number of seconds above 0 and up to {LONGEST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_seconds_are_read_strictly() {
        assert_eq!(variable("A=b=c").unwrap(), ("A".to_owned(), "b=c".to_owned()));
        assert!(variable("=x").is_err() && variable("A").is_err());
        assert_eq!(seconds("0.5").unwrap(), Duration::from_millis(500));
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "", "5s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
