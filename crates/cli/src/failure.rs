//! How a command ends: whose fault it was, then the way out.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// What a command gives: its exit status, or why it could not do its work.
pub type Outcome = Result<ExitCode, Failure>;

/// The work was not done: a run failed, a check found something.
pub const FAILED: u8 = 1;
/// Wrong arguments or configuration: nothing was begun.
pub const USAGE: u8 = 2;
/// The sandbox, the gateway, the store or the listener could not be set up.
pub const SETUP: u8 = 3;
/// A limit was reached: turns, dollars or time.
pub const LIMIT: u8 = 4;
/// Stopped by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Why a command could not do its work.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
    code: u8,
}

/// What the caller wrote is wrong.
pub fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure { error: error.into(), hint: None, code: USAGE }
}

/// What this host gave, or did not.
pub fn setup(error: impl Into<anyhow::Error>) -> Failure {
    Failure { error: error.into(), hint: None, code: SETUP }
}

impl Failure {
    /// What to do next.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same with another exit status.
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Says so on the standard error.
    pub fn report(self) -> ExitCode {
        let causes: Vec<String> = self.error.chain().map(ToString::to_string).collect();
        let mut text = String::new();
        for cause in causes {
            // Many errors of libraries repeat their cause in their own text.
            if !text.ends_with(&cause) {
                text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
            }
        }
        let hint = self.hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
        // Where the standard error is gone too, the exit status still tells.
        let _ = write!(io::stderr().lock(), "error: {text}\n{hint}");
        ExitCode::from(self.code)
    }
}

/// Writes a line to the standard output, which may be a full disk or a pipe that nobody reads any more.
pub fn print(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|error| setup(anyhow::Error::from(error).context("write to the standard output")))
}
