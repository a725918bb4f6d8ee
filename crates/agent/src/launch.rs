//! Starts the programs of tool servers: this program is started in their place, asks the kernel to be killed when the agent
//! dies, and becomes them. So none outlives an agent that was killed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The first argument of a program that is to become a server.
pub const WORD: &str = "__become-server";
/// What shells say of a program that cannot be started.
const NOT_STARTED: u8 = 127;

/// The command that starts a server: without one, where this program cannot be found, servers are started as they are.
pub fn launcher() -> Vec<String> {
    let own = std::env::current_exe().ok().and_then(|path| path.into_os_string().into_string().ok());
    own.map(|own| vec![own, WORD.to_owned(), std::process::id().to_string()]).unwrap_or_default()
}

/// Becomes a server: the arguments are the agent's process id, the program, and its arguments.
pub fn become_server(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let agent = words.next().and_then(|word| word.to_str()?.parse::<i32>().ok());
    let Some(program) = words.next() else { return ExitCode::from(NOT_STARTED) };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("warning: a tool server may outlive its agent: {error}");
    }
    // The agent may have died before it was asked for.
    if agent.is_some() && getppid().map(|parent| parent.as_raw_pid()) != agent {
        return ExitCode::from(NOT_STARTED);
    }
    let error = Command::new(&program).args(words).exec();
    eprintln!("{} cannot be started: {error}", program.display());
    ExitCode::from(NOT_STARTED)
}
