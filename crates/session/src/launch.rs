//! What a run's sandbox is made of and what is started in it. No I/O.

use std::path::{Path, PathBuf};

use wardian_protocol::{OrgId, SessionId};
use wardian_sandbox::{Exec, HOME, RUN_DIR, Shown, Spec, Stdio, Volume, WayOut};

use crate::config::EngineConfig;
use crate::folder::SessionFolders;
use crate::plan::{PROMPT_ELEMENT, Plan};
use crate::request::{Permissions, Place, Runtime};
use crate::state::{Opening, RunState};

/// Where the workspace of a hosted session is, inside.
pub const WORKSPACE: &str = "/workspace";
/// Where the files that a managed session is given are, inside; those in the workspace aside.
pub const GIVEN: &str = "/mnt";
/// The port inside a sandbox that leads to the gateway; out of the way of what programs like to listen on.
pub const GATEWAY_PORT: u16 = 47_100;

/// The sandbox of a run.
pub(crate) fn spec(config: &EngineConfig, plan: &Plan, folders: &SessionFolders, door: PathBuf) -> Spec {
    let workspace = match &plan.place {
        Place::Hosted => Volume::new(&folders.workspace, WORKSPACE),
        Place::Local(dir) => Volume::same(dir),
    };
    on(config, workspace, folders, door)
}

/// The sandbox of a managed session.
pub(crate) fn hosted_spec(config: &EngineConfig, folders: &SessionFolders, door: PathBuf) -> Spec {
    let mut spec = on(config, Volume::new(&folders.workspace, WORKSPACE), folders, door);
    // Also when there are none: sandboxes with the same mount points share what they are cloned from.
    spec.shown = vec![Shown::new(&folders.shown, GIVEN)];
    spec
}

fn on(config: &EngineConfig, workspace: Volume, folders: &SessionFolders, door: PathBuf) -> Spec {
    let mut spec = Spec::new(workspace);
    spec.home = Some(Volume::new(&folders.home, HOME));
    spec.read_only.clone_from(&config.read_only);
    spec.limits = config.sandbox_limits.clone();
    spec.way_out = Some(WayOut { socket: door, port: GATEWAY_PORT });
    "wardian".clone_into(&mut spec.hostname);
    spec
}

/// Whose sandbox it is, as root: a user's, and without a user the session's alone. A local folder keeps its owner.
pub(crate) fn tenant(org: &OrgId, user: Option<&str>, session: &SessionId, place: &Place) -> Option<String> {
    match place {
        Place::Local(_) => None,
        Place::Hosted => Some(tenant_of(org, user, session)),
    }
}

/// Whose a hosted sandbox is.
pub(crate) fn tenant_of(org: &OrgId, user: Option<&str>, session: &SessionId) -> String {
    match user {
        Some(user) => format!("{org}/user/{user}"),
        None => format!("{org}/session/{session}"),
    }
}

/// The agent's program, inside.
pub(crate) fn agent_program() -> String {
    Path::new(RUN_DIR).join("wardian-agent").to_string_lossy().into_owned()
}

/// The program of a run. `key` is the virtual one: it opens this run's door only.
pub(crate) fn exec(plan: &Plan, key: &str) -> Exec {
    let mut exec = Exec::new(argv(plan));
    exec.env = environment(plan, key);
    exec.stdin = match plan.runtime {
        Runtime::Wardian => Stdio::Piped,
        Runtime::Command(_) => Stdio::Null,
    };
    exec
}

/// The run's state before anything has happened.
pub(crate) fn state(plan: &Plan) -> RunState {
    match &plan.runtime {
        Runtime::Command(_) => RunState::command(),
        Runtime::Wardian => RunState::agent(Opening {
            prompt: plan.prompt.clone(),
            system: plan.system.clone(),
            can_ask: matches!(plan.permissions, Permissions::Ask(_)),
        }),
    }
}

fn argv(plan: &Plan) -> Vec<String> {
    match &plan.runtime {
        Runtime::Wardian => agent_argv(plan),
        Runtime::Command(command) => command
            .iter()
            .map(|element| if element == PROMPT_ELEMENT { plan.prompt.clone() } else { element.clone() })
            .collect(),
    }
}

/// The tools of an agent in a run.
const TOOLS: &str = "Bash,Edit,Glob,Grep,Read,Write";

fn agent_argv(plan: &Plan) -> Vec<String> {
    let mut argv: Vec<String> = vec![
        agent_program(),
        "--output-format=stream-json".to_owned(),
        "--verbose".to_owned(),
        "--input-format=stream-json".to_owned(),
        // What lies in the workspace says nothing of how the agent runs.
        "--setting-sources=".to_owned(),
        format!("--tools={TOOLS}"),
        format!("--model={}", plan.model),
        format!("--max-turns={}", plan.limits.max_turns),
        format!("--max-budget-usd={}", plan.limits.max_cost.to_string().trim_start_matches('$')),
    ];
    match &plan.permissions {
        Permissions::Sandbox => {
            argv.push("--permission-mode=bypassPermissions".to_owned());
            argv.push("--allow-dangerously-skip-permissions".to_owned());
        }
        Permissions::Only(rules) => {
            argv.push("--permission-mode=dontAsk".to_owned());
            argv.extend(rules.iter().map(|rule| format!("--allowedTools={rule}")));
        }
        Permissions::Ask(_) => {
            argv.push("--permission-mode=default".to_owned());
            argv.push("--permission-prompt-tool=stdio".to_owned());
        }
    }
    argv
}

fn environment(plan: &Plan, key: &str) -> Vec<(String, String)> {
    let mut environment = base_environment(key);
    if matches!(plan.runtime, Runtime::Command(_)) {
        environment.push(("PROMPT".to_owned(), plan.prompt.clone()));
        environment.push(("ANTHROPIC_MODEL".to_owned(), plan.model.clone()));
    }
    environment
}

/// What every program of ours in a sandbox is told. `key` is the virtual one: it opens one door only.
pub(crate) fn base_environment(key: &str) -> Vec<(String, String)> {
    vec![
        ("ANTHROPIC_BASE_URL".to_owned(), format!("http://127.0.0.1:{GATEWAY_PORT}")),
        ("ANTHROPIC_API_KEY".to_owned(), key.to_owned()),
        ("IS_SANDBOX".to_owned(), "1".to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC".to_owned(), "1".to_owned()),
        // A turn ends with its result: nothing goes on after it that nobody would watch or pay for.
        ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS".to_owned(), "1".to_owned()),
        // A custom tool is told to the model from the start, as the API says.
        ("ENABLE_TOOL_SEARCH".to_owned(), "false".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]
}
