//! Makes the set-up of a session from its options.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use wardian_policy::{PermissionMode, Policy, Rule};
use wardian_protocol::NanoUsd;

use super::{Offered, Setup, definition, file_name};
use crate::authorise::{Live, resolve};
use crate::client::Client;
use crate::context::Asks;
use crate::frames::Out;
use crate::hook::{SessionHooks, Surroundings};
use crate::later::Later;
use crate::mcp::Mcp;
use crate::offer::ServerTools;
use crate::prompt::{self, Opening};
use crate::skill::Skills;
use crate::state::Limits;
use crate::structured::StructuredOutput;
use crate::subagent::{self, AgentDefinition};
use crate::switch::Switches;
use crate::task::Tasks;
use crate::tool::{ReadLog, Tool, ToolContext, Within};
use crate::{Error, Options, SystemPrompt, models, tools, transcript};

/// Hosts are not flooded.
const MIN_HEARTBEAT: Duration = Duration::from_millis(10);

pub(super) async fn set_up(mut options: Options, mut out: Out, mcp: Mcp) -> Result<Setup, Error> {
    let client = Arc::new(Client::new(&options.api)?);
    let cwd = directory(&options.cwd).await?;
    if let Some(journal) = &out.journal {
        let within = cwd.clone();
        let branch = tokio::task::spawn_blocking(move || transcript::branch(&within)).await;
        journal.set_branch(branch.unwrap_or_default());
    }
    let mut additional_directories = Vec::new();
    for path in &options.additional_directories {
        additional_directories.push(directory(&cwd.join(path)).await?);
    }
    let policy = policy(&options, &cwd, &additional_directories)?;
    let structured = options.output_schema.clone().map(StructuredOutput::new).transpose()?;
    let skills = Skills::new(options.skills.clone(), options.enabled_skills.clone());
    let agents = Arc::new(subagent::all(std::mem::take(&mut options.agents)));
    let main_agent = main_agent(&mut options, &agents)?;
    let mut tools = offered(&options, &policy, &skills, structured.clone(), &agents)?;
    // The structured output is the host's wish, whoever works.
    let is_admitted =
        |name: &str| name == "StructuredOutput" || main_agent.as_ref().is_none_or(|agent| agent.admits(name));
    tools.retain(|offered| is_admitted(offered.tool.name()));
    let definitions = tools.iter().map(definition).collect();
    let model = models::resolve(&options.model);
    let bypass_permitted =
        options.allow_bypass_permissions || options.permission_mode == PermissionMode::BypassPermissions;
    let live = Arc::new(Mutex::new(Live::new(policy, model, bypass_permitted)));
    let output_dir = options
        .output_dir
        .clone()
        .unwrap_or_else(|| PathBuf::from("/tmp").join(format!("wardian-{}", file_name(&out.session_id))));
    let context = ToolContext {
        bash_cwd: Arc::new(Mutex::new(cwd.clone())),
        env: Arc::new(options.env.clone()),
        reads: ReadLog::default(),
        checkpoints: options.checkpoints.clone(),
        output_dir,
        limits: Arc::new(options.tool_limits.clone()),
        tool_use_id: String::new(),
        cancel: CancellationToken::new(),
        cwd,
        within: Within::default(),
    };
    out.cwd.clone_from(&context.cwd);
    let servers = ServerTools::new(mcp, &options);
    let hooks = SessionHooks::new(
        std::mem::take(&mut options.hooks),
        &out,
        &live,
        Surroundings {
            effort: options.effort.as_deref(),
            env: Arc::clone(&context.env),
            told: options.include_hook_events,
        },
    );
    let later = Later::default();
    Ok(Setup {
        system: prompt::system(&options, &context, &additional_directories, (out.clock)()),
        plan_mode_instructions: options.plan_mode_instructions.clone(),
        auto_compact: options.auto_compact,
        agent_progress_summaries: options.agent_progress_summaries,
        tool_heartbeat: options.tool_heartbeat.max(MIN_HEARTBEAT),
        prompt_suggestions: options.prompt_suggestions,
        asks: Asks::default(),
        opening: Opening::new(&options, &context, &additional_directories, (out.clock)()),
        tasks: Tasks::new(out.clone(), &context.output_dir),
        switches: Switches::new(&live, &client, &hooks, &later),
        later,
        hooks,
        agents,
        agent: main_agent,
        model: None,
        headers: HeaderMap::new(),
        extra_body: Arc::new(std::mem::take(&mut options.extra_body)),
        carried: NanoUsd::ZERO,
        spent_before: NanoUsd::ZERO,
        background_tasks: options.background_tasks,
        forward_subagent_text: options.forward_subagent_text,
        out,
        client,
        meter: Arc::default(),
        retry: options.api.retry,
        live,
        tools,
        definitions,
        skills,
        web_proxy: options.web_proxy.map(Arc::from),
        tool_aliases: Arc::new(options.tool_aliases),
        structured,
        can_use_tool: options.can_use_tool,
        settings_files: options.settings_files,
        context,
        limits: Limits { max_turns: options.max_turns, max_budget: options.max_budget },
        home: options.home,
        additional_directories,
        thinking: options.thinking,
        thinking_display: options.thinking_display,
        task_budget: options.task_budget,
        effort: options.effort,
        replay_user_messages: options.replay_user_messages,
        max_output_tokens: options.max_output_tokens,
        fallback_models: resolved(&options.fallback_models),
        include_partial_messages: options.include_partial_messages,
        state_events: options.session_state_events,
        api_key_source: options.api_key_source,
        commands: options.commands.into(),
        plugins: options.plugins,
        plugin_errors: options.plugin_errors,
        waiting: Arc::default(),
        order: Arc::default(),
        servers,
    })
}

fn resolved(models: &[String]) -> Vec<String> {
    models.iter().map(|name| models::resolve(name)).collect()
}

async fn directory(path: &std::path::Path) -> Result<PathBuf, Error> {
    let broken = |message: String| Error::Directory { path: path.to_owned(), message };
    let found = tokio::fs::canonicalize(path).await.map_err(|error| broken(error.to_string()))?;
    let metadata = tokio::fs::metadata(&found).await.map_err(|error| broken(error.to_string()))?;
    if metadata.is_dir() { Ok(found) } else { Err(broken("it is no directory".to_owned())) }
}

fn policy(options: &Options, cwd: &std::path::Path, more: &[PathBuf]) -> Result<Policy, Error> {
    let rules = |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<Rule>, _>>();
    Ok(Policy {
        mode: options.permission_mode,
        allow: rules(&options.allowed_tools)?,
        ask: rules(&options.ask_tools)?,
        deny: rules(&options.disallowed_tools)?,
        roots: std::iter::once(cwd).chain(more.iter().map(PathBuf::as_path)).map(resolve).collect(),
    })
}

/// The agent that the main thread works as. Its prompt stands where the host gives none.
fn main_agent(
    options: &mut Options,
    agents: &BTreeMap<String, AgentDefinition>,
) -> Result<Option<Arc<AgentDefinition>>, Error> {
    let Some(name) = options.agent.take() else { return Ok(None) };
    let Some(agent) = agents.get(&name) else { return Err(Error::UnknownAgent(name)) };
    let is_given = match &options.system_prompt {
        SystemPrompt::Empty | SystemPrompt::Preset => false,
        SystemPrompt::Text(blocks) => blocks.iter().any(|block| !block.trim().is_empty()),
    };
    if !is_given {
        options.system_prompt = SystemPrompt::Text(vec![agent.prompt.clone()]);
    }
    Ok(Some(Arc::new(agent.clone())))
}

fn offered(
    options: &Options,
    policy: &Policy,
    skills: &Skills,
    structured: Option<Arc<StructuredOutput>>,
    agents: &BTreeMap<String, AgentDefinition>,
) -> Result<Vec<Offered>, Error> {
    let mut chosen = tools::chosen(&options.tools, skills, options.can_use_tool.is_some())?;
    for tool in &mut chosen {
        if tool.name() == "Agent" {
            *tool = Arc::new(tools::Agent::new(agents, options.background_tasks));
        }
    }
    chosen.retain(|tool| options.background_tasks || tool.name() != "TaskStop");
    chosen.extend(structured.map(|tool| tool as Arc<dyn Tool>));
    chosen.extend(options.custom_tools.iter().cloned());
    for (index, tool) in chosen.iter().enumerate() {
        if chosen[..index].iter().any(|earlier| earlier.name() == tool.name()) {
            return Err(Error::DuplicateTool(tool.name().to_owned()));
        }
    }
    chosen.retain(|tool| !policy.removes(tool.name()));
    Ok(chosen.into_iter().map(|tool| Offered { schema: tool.input_schema(), tool }).collect())
}
