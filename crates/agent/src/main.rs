//! The binary `wardian-agent`: the Agent SDK's stream protocol on standard input and output, and one prompt on the
//! command line. Only here, and in `env`, are the process's own surroundings read.

mod agents;
mod answer;
mod args;
mod asktool;
mod control;
mod debug;
mod env;
mod host;
mod kept;
mod launch;
mod lines;
mod parts;
mod plugins;
mod servers;
mod settings;
mod setup;
mod shelves;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wardian_agent::{Prompt, new_session_id, query, tools};

use crate::answer::Answer;
use crate::args::{Args, Complaint, Invocation, OutputFormat};
use crate::asktool::AskTool;
use crate::control::Front;
use crate::env::Environment;
use crate::kept::Wish;
use crate::lines::Output;
use crate::settings::{Effective, MANAGED_FILE, Place};
use crate::setup::Setup;

/// Threads for files and names; the agent itself runs on one.
const BLOCKING_THREADS: usize = 8;
/// How long tools may take to end at SIGTERM.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// How long a host may take to say something to an agent that cannot begin.
const FIRST_LINE_GRACE: Duration = Duration::from_secs(2);
/// The longest prompt read from standard input.
const MAX_PROMPT_BYTES: u64 = 10 * 1024 * 1024;
/// What a process says that SIGTERM ended.
const TERMINATED: u8 = 143;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == launch::WORD) {
        return launch::become_server(words);
    }
    // Its memory and environment hold the key, and its tools run as the same user.
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("warning: this process could not be closed to its tools: {error}");
    }
    // What a command detached comes back to this process, which ends it with the command.
    if let Err(error) = tools::bash::become_subreaper() {
        eprintln!("warning: commands that detach themselves cannot be ended: {error}");
    }
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Help) => println!("{}", args::HELP),
        Ok(Invocation::Version) => println!("{} (wardian-agent)", env!("CARGO_PKG_VERSION")),
        Ok(Invocation::Run(args)) => {
            return run(*args).unwrap_or_else(failed);
        }
        Err(complaint) => return failed(complaint),
    }
    ExitCode::SUCCESS
}

fn failed(complaint: Complaint) -> ExitCode {
    eprintln!("error: {complaint}");
    let words: Vec<_> = std::env::args_os().collect();
    let is_pair = |pair: &[std::ffi::OsString]| pair[0] == "--input-format" && pair[1] == "stream-json";
    if words.windows(2).any(is_pair) || words.iter().any(|word| word == "--input-format=stream-json") {
        lines::hear_first(FIRST_LINE_GRACE);
    }
    ExitCode::FAILURE
}

fn run(mut args: Args) -> Result<ExitCode, Complaint> {
    let cwd =
        std::env::current_dir().map_err(|error| format!("failed to find the working directory: {error}"))?;
    let environment = Environment::read(&[]);
    let settings = settings(&mut args, &environment, &cwd)?;
    let environment = if settings.env.is_empty() { environment } else { Environment::read(&settings.env) };
    for warning in environment.warnings.iter().chain(&settings.warnings) {
        eprintln!("warning: {warning}");
    }
    if args.stream_input && args.output != OutputFormat::StreamJson {
        return Err("--input-format stream-json needs --output-format stream-json".to_owned());
    }
    let wish = Wish::new(&args, &environment, &cwd)?;
    let log = debug::Plan::new(&mut args.debug, &environment);
    let setup = Setup::new(&mut args, environment, settings, cwd)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| format!("failed to start the runtime: {error}"))?;
    let code = runtime.block_on(serve(args, setup, wish, log));
    // A thread that waits for a file or a name must not keep the process.
    runtime.shutdown_background();
    // Nor does anything stay that its tools, hooks or servers started.
    tools::bash::end_descendants();
    code
}

/// Reads the settings and takes them into the arguments.
fn settings(args: &mut Args, environment: &Environment, cwd: &Path) -> Result<Effective, Complaint> {
    let project = args.project_root.as_deref().map_or_else(|| cwd.to_owned(), |root| cwd.join(root));
    let config = environment.config_dir.as_deref();
    let place = Place {
        config_dir: config,
        trusted: environment.trusts_project
            || settings::is_trusted(config, environment.home.as_deref(), &project),
        project: &project,
        managed: Path::new(MANAGED_FILE),
    };
    let sources = args.setting_sources;
    let mut settings = settings::load(args, &place)?;
    settings.read_texts(&place, sources, environment.home.as_deref());
    Ok(settings)
}

/// Begins the debug log, with what the program was started with.
fn begin_log(log: Option<debug::Plan>, args: &Args, setup: &Setup, session_id: &str) {
    let Some(log) = log else { return };
    log.begin(session_id, setup.options.clock);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), session_id, flags = %args.given.join(" "), "start");
    for (source, settings) in &setup.layers {
        let keys: Vec<&str> = settings.keys().map(String::as_str).collect();
        tracing::info!(source, keys = %keys.join(" "), "settings");
    }
}

/// Lets hooks see the beginning of a session that nothing is asked of.
async fn only_begin(mut setup: Setup) -> Result<ExitCode, Complaint> {
    setup.options.session_id.get_or_insert_with(new_session_id);
    setup.agents.install(&mut setup.options, setup.model_given);
    let mut messages = query(Prompt::Messages(Vec::new()), setup.options);
    while let Some(message) = messages.next().await {
        message.map_err(|error| format!("failed to {error}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    args: Args,
    mut setup: Setup,
    wish: Wish,
    log: Option<debug::Plan>,
) -> Result<ExitCode, Complaint> {
    let mut terminate = on(SignalKind::terminate())?;
    if args.init_only {
        return tokio::select! {
            biased;
            _ = terminate.recv() => Ok(ExitCode::from(TERMINATED)),
            ended = only_begin(setup) => ended,
        };
    }
    let mut stops = on(SignalKind::interrupt())?;
    let (output, written) =
        Output::to(std::io::stdout()).map_err(|error| format!("failed to start a thread: {error}"))?;
    match wish.fulfil().await? {
        Ok(conversation) => {
            setup.keep_in(conversation);
            begin_log(log, &args, &setup, setup.session_id());
        }
        Err(missing) => {
            begin_log(log, &args, &setup, missing.session_id());
            tracing::error!("there is no such conversation");
            let result = missing.into_result().to_value();
            if args.output != OutputFormat::Text {
                // Nobody may be reading.
                let _ = output.frame(result).await;
            }
            drop(output);
            let _ = written.await;
            if args.stream_input {
                // Only this is left to do.
                lines::hear_first(FIRST_LINE_GRACE);
            }
            return Ok(ExitCode::FAILURE);
        }
    }
    let ended = if args.stream_input {
        let input = lines::read(std::io::BufReader::new(std::io::stdin()));
        let mut input = input.map_err(|error| format!("failed to start a thread: {error}"))?;
        let mut front = Front::new(setup, output);
        let ended = tokio::select! {
            biased;
            _ = terminate.recv() => None,
            ended = front.run(&mut input, &mut stops) => Some(ended),
        };
        close(front.close()).await;
        ended
    } else {
        let prompt = match args.prompt {
            Some(prompt) => prompt,
            None => prompt_from_stdin().await?,
        };
        setup.servers.install(None, &mut setup.options);
        setup.agents.install(&mut setup.options, setup.model_given);
        setup.options.can_use_tool = setup.ask_tool.as_ref().map(AskTool::can_use_tool);
        let mut answer = Answer::begin(prompt, setup.options, args.output, output);
        if let Some(tool) = setup.ask_tool {
            tool.reaches(answer.mcp());
        }
        let ended = tokio::select! {
            biased;
            _ = terminate.recv() => None,
            ended = answer.run(&mut stops) => Some(ended),
        };
        close(answer.close()).await;
        ended
    };
    let Some(ended) = ended else {
        tracing::info!(code = TERMINATED, "end: SIGTERM");
        return Ok(ExitCode::from(TERMINATED));
    };
    tracing::info!(?ended, "end");
    tokio::select! {
        biased;
        _ = terminate.recv() => Ok(ExitCode::from(TERMINATED)),
        _ = written => Ok(ended.into()),
    }
}

async fn close(closing: impl Future<Output = ()>) {
    if tokio::time::timeout(CLOSE_GRACE, closing).await.is_err() {
        eprintln!("warning: a tool did not end in time");
    }
}

fn on(kind: SignalKind) -> Result<Signal, Complaint> {
    signal(kind).map_err(|error| format!("failed to listen for signals: {error}"))
}

async fn prompt_from_stdin() -> Result<String, Complaint> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        let mut limited = std::io::Read::take(std::io::stdin(), MAX_PROMPT_BYTES);
        std::io::Read::read_to_string(&mut limited, &mut text).map(|_| text)
    });
    let text = match read.await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(format!("failed to read the prompt: {error}")),
        Err(error) => return Err(format!("failed to read the prompt: {error}")),
    };
    if text.trim().is_empty() {
        return Err("no prompt: give one as an argument or on standard input".to_owned());
    }
    Ok(text)
}
