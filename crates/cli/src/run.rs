//! `wardian run`: session, sandbox, gateway and store in this process, no port.

use std::env;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wardian_gateway::{Gateway, GatewayConfig};
use wardian_protocol::control::{CanUseTool, PermissionAnswer};
use wardian_protocol::{JsonMap, NanoUsd, RequestId, SessionId};
use wardian_sandbox::{Launcher, LauncherConfig};
use wardian_session::{
    Caller, Engine, EngineConfig, LimitsAsked, Ownership, PermissionAsker, Permissions, Place, RunError,
    RunReport, RunRequest, RunStatus,
};
use wardian_store::Store;

use crate::config::{open_store, upstream};
use crate::failure::{FAILED, Failure, INTERRUPTED, LIMIT, Outcome, setup, usage};
use crate::host::{self, DEFAULT_UPSTREAM, ScratchDir};
use crate::sandbox::seconds;
use crate::show::{self, OutputFormat};

/// Events on their way to the terminal; a slow one makes the agent wait.
const EVENTS: usize = 64;

/// The longest prompt that is read from the standard input.
const MAX_PROMPT_BYTES: u64 = 1024 * 1024;

/// Lets the agent work in a folder of yours, in a sandbox, and shows what it says and does.
///
/// The folder is all that it can change, and the network is not there: model calls go through a gateway in this
/// process, which alone holds ANTHROPIC_API_KEY. What the agent may not do unasked is asked at the terminal; without a
/// terminal it is denied.
///
/// Exit status: 0 the agent finished; 1 it failed; 2 wrong arguments; 3 the sandbox, gateway or store could not be set
/// up; 4 a limit was reached (turns, dollars, time); 130 Ctrl-C.
#[derive(clap::Args)]
pub struct Arguments {
    /// What the agent is to do; `-` reads it from the standard input
    #[arg(value_name = "PROMPT")]
    prompt: String,
    /// The folder that it works in
    #[arg(long, value_name = "DIR", default_value = ".")]
    cwd: PathBuf,
    /// Where model requests go [default: ANTHROPIC_BASE_URL, or `https://api.anthropic.com`]
    #[arg(long, env = "WARDIAN_UPSTREAM", value_name = "URL")]
    upstream: Option<String>,
    /// How to show it
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
    /// The model: an id, or opus, sonnet, haiku, fable
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The system prompt, in place of the agent's own
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Allow these tools and nothing else, unasked: `Bash(git *)`, `Edit`; several with commas or again
    #[arg(long, value_name = "RULES", conflicts_with = "allow_all")]
    allowed_tools: Vec<String>,
    /// Allow every tool unasked: the sandbox is the wall
    #[arg(long)]
    allow_all: bool,
    /// Stop after so many turns
    #[arg(long, value_name = "N")]
    max_turns: Option<u32>,
    /// Stop before more than this is spent
    #[arg(long, value_name = "DOLLARS")]
    max_cost_usd: Option<NanoUsd>,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Go on with the session of an earlier run
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
    /// A host folder that the agent may read besides, at its own path; may be given again
    #[arg(long, value_name = "DIR")]
    read_only: Vec<PathBuf>,
    /// Where sessions and usage are kept [default: $XDG_DATA_HOME/wardian]
    #[arg(long, env = "WARDIAN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The folder with the static binaries wardian-guest and wardian-agent
    #[arg(long, env = "WARDIAN_LIBEXEC_DIR", value_name = "DIR")]
    libexec_dir: Option<PathBuf>,
}

/// Runs the prompt to its end.
pub async fn run(arguments: Arguments) -> Outcome {
    let format = arguments.output_format;
    let request = request(&arguments)?;
    host::log_json("warn");
    let scratch = ScratchDir::new()?;
    let engine = engine(&arguments, &scratch).await?;
    let org_id = "org_default".parse().expect("the store's first migration makes it");
    let caller = Caller { org_id, user_id: None, key_id: None };
    let cancel = CancellationToken::new();
    let (sink, mut events) = mpsc::channel(EVENTS);
    let run = engine.run(caller, request, sink, cancel.clone());
    tokio::pin!(run);
    let mut stop = std::pin::pin!(host::asked_to_stop());
    let outcome = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => show::event(format, &event),
            () = &mut stop, if !cancel.is_cancelled() => cancel.cancel(),
            outcome = &mut run => break outcome,
        }
    };
    while let Ok(event) = events.try_recv() {
        show::event(format, &event);
    }
    engine.stop(Duration::ZERO).await;
    match outcome {
        Ok(report) => {
            show::report(format, &report);
            Ok(ExitCode::from(status(&report)))
        }
        Err(error) => Err(explain(error)),
    }
}

/// The exit status that a report stands for.
fn status(report: &RunReport) -> u8 {
    match report.status {
        RunStatus::Completed if !report.is_error => 0,
        RunStatus::Completed | RunStatus::Failed | RunStatus::Interrupted => FAILED,
        RunStatus::MaxTurns | RunStatus::BudgetReached | RunStatus::TimedOut => LIMIT,
        RunStatus::Cancelled => INTERRUPTED,
    }
}

fn explain(error: RunError) -> Failure {
    match error {
        RunError::Invalid(_) | RunError::SessionNotFound(_) => usage(error),
        RunError::SessionBusy(_) | RunError::Full(_) => setup(error).hint("wait for the other run to end"),
        RunError::Sandbox(_) => {
            setup(error).hint("`wardian doctor` says what this host can do, and what mends what it can't")
        }
        RunError::Stopping
        | RunError::Gateway(_)
        | RunError::Store(_)
        | RunError::Folder(_)
        | RunError::Internal => setup(error),
    }
}

fn request(arguments: &Arguments) -> Result<RunRequest, Failure> {
    let cwd = std::fs::canonicalize(&arguments.cwd)
        .with_context(|| format!("find the folder {}", arguments.cwd.display()))
        .map_err(usage)?;
    let mut request =
        RunRequest::new(RequestId::from_random(host::random_bits()), prompt(&arguments.prompt)?);
    request.model.clone_from(&arguments.model);
    request.system.clone_from(&arguments.system);
    request.session_id.clone_from(&arguments.session);
    request.place = Place::Local(cwd);
    request.limits = LimitsAsked {
        max_turns: arguments.max_turns,
        max_cost: arguments.max_cost_usd,
        timeout: arguments.timeout,
    };
    request.permissions = permissions(arguments);
    Ok(request)
}

fn prompt(written: &str) -> Result<String, Failure> {
    if written != "-" {
        return Ok(written.to_owned());
    }
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_to_string(&mut text);
    let bytes = read.context("read the prompt from the standard input").map_err(usage)?;
    if u64::try_from(bytes).is_ok_and(|bytes| bytes > MAX_PROMPT_BYTES) {
        return Err(usage(anyhow!(
            "read the prompt from the standard input: it is over {MAX_PROMPT_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// A terminal is asked; where there is none, what would be asked is denied.
fn permissions(arguments: &Arguments) -> Permissions {
    if arguments.allow_all {
        Permissions::Sandbox
    } else if !arguments.allowed_tools.is_empty() {
        Permissions::Only(arguments.allowed_tools.iter().flat_map(|rules| split_rules(rules)).collect())
    } else if io::stdin().is_terminal() && io::stderr().is_terminal() {
        Permissions::Ask(Arc::new(Terminal))
    } else {
        Permissions::Ask(Arc::new(Nobody))
    }
}

/// Splits rules at the commas between them, not at those within parentheses.
fn split_rules(text: &str) -> Vec<String> {
    let (mut rules, mut depth) = (vec![String::new()], 0_usize);
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                rules.push(String::new());
                continue;
            }
            _ => (),
        }
        rules.last_mut().expect("it begins with one").push(c);
    }
    rules.iter().map(|rule| rule.trim().to_owned()).filter(|rule| !rule.is_empty()).collect()
}

async fn engine(arguments: &Arguments, scratch: &ScratchDir) -> Result<Engine, Failure> {
    let base = arguments
        .upstream
        .clone()
        .or_else(|| env::var("ANTHROPIC_BASE_URL").ok().filter(|url| !url.is_empty()));
    let upstream = upstream(base.as_deref().unwrap_or(DEFAULT_UPSTREAM))
        .map_err(|error| usage(anyhow!("use the upstream: {error}")))?;
    let key = host::api_key()?;
    let libexec_dir = host::libexec_dir(arguments.libexec_dir.clone())?;
    let data_dir = arguments.data_dir.clone().map_or_else(host::local_data_dir, Ok)?;
    let data_dir = std::path::absolute(data_dir).map_err(usage)?;
    let owner = host::owner();
    let store: Arc<dyn Store> = Arc::new(open_store(&data_dir)?);
    let gateway =
        Gateway::new(GatewayConfig::new(upstream, key, owner.as_str()), Arc::clone(&store)).map_err(setup)?;
    let launcher = Launcher::start(LauncherConfig::new(libexec_dir, scratch.path().join("launcher")))
        .map_err(|error| {
            setup(error).hint("`wardian doctor` says what this host can do, and what mends what it can't")
        })?;
    let read_only = arguments
        .read_only
        .iter()
        .map(|path| {
            std::fs::canonicalize(path).with_context(|| format!("find the folder {}", path.display()))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(usage)?;
    let config = EngineConfig {
        ownership: Ownership::Shared,
        read_only,
        clock: host::now,
        ..EngineConfig::new(data_dir, owner)
    };
    Engine::start(config, store, gateway, launcher)
        .await
        .map_err(|error| setup(error).hint("a server owns its data folder alone: --data-dir names another"))
}

/// Asks at the terminal.
struct Terminal;

impl PermissionAsker for Terminal {
    fn ask<'a>(&'a self, question: &'a CanUseTool) -> BoxFuture<'a, PermissionAnswer> {
        let asked = format!(
            "\nAllow {}?  {}\n  y yes   n no (default): ",
            show::printable(&question.tool_name),
            show::brief(&question.input)
        );
        Box::pin(async move {
            let answer = tokio::task::spawn_blocking(move || {
                // Not locked any longer than this: the run may end, and say so, while nobody answers.
                io::stderr().lock().write_all(asked.as_bytes())?;
                let mut line = String::new();
                io::stdin().read_line(&mut line)?;
                Ok::<_, io::Error>(line)
            });
            match answer.await {
                Ok(Ok(line)) if matches!(line.trim(), "y" | "Y" | "yes") => {
                    PermissionAnswer::Allow { updated_input: None, extra: JsonMap::new() }
                }
                _ => deny("The user did not allow this."),
            }
        })
    }
}

/// Denies: there is nobody to ask.
struct Nobody;

impl PermissionAsker for Nobody {
    fn ask<'a>(&'a self, question: &'a CanUseTool) -> BoxFuture<'a, PermissionAnswer> {
        show::note(&format!(
            "denied: {} {} (no terminal to ask at; --allowed-tools or --allow-all allow it)",
            show::printable(&question.tool_name),
            show::brief(&question.input)
        ));
        Box::pin(async { deny("Nobody is there to allow this, so it was denied.") })
    }
}

fn deny(message: &str) -> PermissionAnswer {
    PermissionAnswer::Deny { message: message.to_owned(), interrupt: false, extra: JsonMap::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_split_between_them_and_not_within() {
        assert_eq!(split_rules("Edit, Bash(make *),Read"), ["Edit", "Bash(make *)", "Read"]);
        assert_eq!(split_rules("Bash(git log --format=%h,%s)"), ["Bash(git log --format=%h,%s)"]);
        assert_eq!(split_rules("Bash(a (b), c),"), ["Bash(a (b), c)"]);
        assert!(split_rules(" ,").is_empty());
    }
}
