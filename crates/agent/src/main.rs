//! The binary `wardian-agent`: the Agent SDK's stream protocol on standard input and output, and one prompt on the
//! command line. Only here, and in `env`, are the process's own surroundings read.

mod answer;
mod args;
mod control;
mod env;
mod host;
mod kept;
mod lines;
mod servers;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wardian_agent::{Options, PermissionMode, SystemPrompt, Thinking, ToolSet, tools};

use crate::answer::Answer;
use crate::args::{Args, Complaint, Invocation, OutputFormat};
use crate::control::{Front, Setup};
use crate::env::Environment;
use crate::kept::Wish;
use crate::lines::Output;

/// Threads for files and names; the agent itself runs on one.
const BLOCKING_THREADS: usize = 8;
/// How long tools may take to end at SIGTERM.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// The longest prompt read from standard input.
const MAX_PROMPT_BYTES: u64 = 10 * 1024 * 1024;
/// Lets a request say how hard the model tries. source: the protocol reference, section 2.11.
const EFFORT_BETA: &str = "effort-2025-11-24";
/// What a process says that SIGTERM ended.
const TERMINATED: u8 = 143;

fn main() -> ExitCode {
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
            return run(*args).unwrap_or_else(|complaint| {
                eprintln!("error: {complaint}");
                ExitCode::FAILURE
            });
        }
        Err(complaint) => {
            eprintln!("error: {complaint}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(mut args: Args) -> Result<ExitCode, Complaint> {
    let environment = Environment::read();
    for warning in &environment.warnings {
        eprintln!("warning: {warning}");
    }
    if let Some(settings) = args.settings.take() {
        let text = if settings.trim_start().starts_with('{') { settings } else { file(&settings)? };
        settings::apply(&mut args, &text)?;
    }
    if args.stream_input && args.output != OutputFormat::StreamJson {
        return Err("--input-format stream-json needs --output-format stream-json".to_owned());
    }
    let cwd =
        std::env::current_dir().map_err(|error| format!("failed to find the working directory: {error}"))?;
    let wish = Wish::new(&args, &environment, &cwd)?;
    let setup = setup(&mut args, environment, cwd)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| format!("failed to start the runtime: {error}"))?;
    let code = runtime.block_on(serve(args, setup, wish));
    // A thread that waits for a file or a name must not keep the process.
    runtime.shutdown_background();
    code
}

async fn serve(args: Args, mut setup: Setup, wish: Wish) -> Result<ExitCode, Complaint> {
    let mut terminate = on(SignalKind::terminate())?;
    let mut stops = on(SignalKind::interrupt())?;
    let (output, written) =
        Output::to(std::io::stdout()).map_err(|error| format!("failed to start a thread: {error}"))?;
    match wish.fulfil().await? {
        Ok(conversation) => setup.options.conversation = conversation,
        Err(missing) => {
            let result = missing.into_result().to_value();
            if args.output != OutputFormat::Text {
                // Nobody may be reading.
                let _ = output.frame(result).await;
            }
            drop(output);
            let _ = written.await;
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
        let mut answer = Answer::begin(prompt, setup.options, args.output, output);
        let ended = tokio::select! {
            biased;
            _ = terminate.recv() => None,
            ended = answer.run(&mut stops) => Some(ended),
        };
        close(answer.close()).await;
        ended
    };
    let Some(ended) = ended else { return Ok(ExitCode::from(TERMINATED)) };
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

fn setup(args: &mut Args, environment: Environment, cwd: PathBuf) -> Result<Setup, Complaint> {
    let system_prompt_given = args.system_prompt.is_some() || args.system_prompt_file.is_some();
    let system_prompt = match (args.system_prompt.take(), args.system_prompt_file.take()) {
        (Some(text), _) => SystemPrompt::Text(vec![text]),
        (None, Some(path)) => SystemPrompt::Text(vec![file(path)?]),
        (None, None) => SystemPrompt::Preset,
    };
    let mut append = args.append_system_prompt.take();
    if let Some(path) = args.append_system_prompt_file.take() {
        append = Some(file(path)?);
    }
    let mode = match (args.skip_permissions, args.permission_mode) {
        (true, _) => PermissionMode::BypassPermissions,
        (false, mode) => mode.unwrap_or_default(),
    };
    let bypass = mode == PermissionMode::BypassPermissions || args.allow_skip_permissions;
    if bypass && rustix::process::geteuid().is_root() && !environment.is_sandbox {
        return Err("bypassPermissions is not for root: use another user, or set IS_SANDBOX=1 in a sandbox"
            .to_owned());
    }
    let mut env = environment.tools;
    env.push(("CLAUDECODE".to_owned(), "1".to_owned()));
    env.push(("CLAUDE_PROJECT_DIR".to_owned(), cwd.display().to_string()));
    let mut api = environment.api;
    let effort = args.effort.take().or(environment.effort);
    args.betas.extend(effort.as_ref().map(|_| EFFORT_BETA.to_owned()));
    if !args.betas.is_empty() {
        api.headers.push(("anthropic-beta".to_owned(), args.betas.join(",")));
    }
    let defaults = Options::default();
    let options = Options {
        cwd,
        model: args.model.take().or(environment.model).unwrap_or(defaults.model),
        system_prompt,
        append_system_prompt: append,
        tools: built(std::mem::take(&mut args.tools)),
        allowed_tools: std::mem::take(&mut args.allowed_tools),
        ask_tools: std::mem::take(&mut args.ask_tools),
        disallowed_tools: std::mem::take(&mut args.disallowed_tools),
        permission_mode: mode,
        allow_bypass_permissions: bypass,
        max_turns: args.max_turns,
        max_budget: args.max_budget,
        additional_directories: std::mem::take(&mut args.additional_directories),
        env,
        home: environment.home,
        tool_limits: environment.tool_limits,
        api,
        thinking: thinking(args.thinking, environment.max_thinking_tokens),
        effort,
        max_output_tokens: environment.max_output_tokens,
        include_partial_messages: args.include_partial_messages,
        session_state_events: args.stream_input,
        api_key_source: environment.api_key_source.to_owned(),
        session_id: args.session_id.take(),
        continue_interrupted: environment.resume_interrupted,
        ..Options::default()
    };
    let mut servers = std::mem::take(&mut args.servers);
    servers.connect_timeout = environment.mcp_connect_timeout;
    servers.call_timeout = environment.mcp_call_timeout;
    Ok(Setup { options, servers, system_prompt_given, ask_host: args.ask_host && !args.never_ask })
}

/// The tools asked for that there are. A host that asks for others is told, and can do without them.
fn built(asked: ToolSet) -> ToolSet {
    let ToolSet::Only(names) = asked else { return asked };
    let known = tools::builtin();
    let (there, missing): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| known.iter().any(|tool| tool.name() == name));
    if !missing.is_empty() {
        eprintln!("warning: wardian-agent has no tool {}", missing.join(", "));
    }
    ToolSet::Only(there)
}

const fn thinking(flag: Thinking, budget: Option<u64>) -> Thinking {
    match (flag, budget) {
        (Thinking::Unset, Some(0)) => Thinking::Disabled,
        (Thinking::Unset, Some(tokens)) => Thinking::Budget(tokens),
        (flag, _) => flag,
    }
}

fn file(path: impl AsRef<std::path::Path>) -> Result<String, Complaint> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|error| format!("failed to read {}: {error}", path.display()))
}
