//! How a query is set up: what flags and environment say, and what of it the host may still change.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use wardian_agent::mcp::ToolSearch;
use wardian_agent::{
    Checkpoints, Conversation, McpSource, Options, PermissionMode, Reread, SystemPrompt, Thinking, ToolSet,
    new_session_id, tools,
};

use crate::agents::Agents;
use crate::args::{Args, Complaint};
use crate::asktool::AskTool;
use crate::env::Environment;
use crate::launch;
use crate::parts::Parts;
use crate::plugins::Plugins;
use crate::servers::Servers;
use crate::settings::{Effective, WatchedFile};

/// Lets a request say how hard the model tries. source: the protocol reference, section 2.11.
const EFFORT_BETA: &str = "effort-2025-11-24";
/// Lets a request name tools that the model loads when it needs them. source: as above.
const TOOL_SEARCH_BETA: &str = "advanced-tool-use-2025-11-20";
/// Lets a request say how many tokens the model is to get by with. source: observed of the official CLI.
const TASK_BUDGET_BETA: &str = "task-budgets-2026-03-13";

/// How a query is set up, and what of it the host may still say.
pub struct Setup {
    pub options: Options,
    /// Whether a flag gave the system prompt; else the host does, or the preset holds.
    pub system_prompt_given: bool,
    /// What comes from files.
    pub parts: Parts,
    /// The settings of each source, the weakest first.
    pub layers: Vec<(&'static str, Map<String, Value>)>,
    /// The tool servers that the host runs.
    pub servers: Servers,
    /// The agents that can be called on.
    pub agents: Agents,
    /// Whether a flag or the environment named the model; else the main thread's agent may.
    pub model_given: bool,
    /// Whether what subagents do may be summed up.
    pub sums_agents_up: bool,
    /// Whether prompts may be suggested.
    pub suggests: bool,
    /// The directories of the beginning, as they lie on the disk: the working directory first.
    pub roots: Vec<PathBuf>,
    /// Settings files that may change.
    pub watched: Vec<WatchedFile>,
    /// Whether the host asked to be asked.
    pub ask_host: bool,
    /// The tool that is asked instead.
    pub ask_tool: Option<AskTool>,
    /// The folder of all sessions' file checkpoints, if they are kept.
    checkpoints: Option<PathBuf>,
}

impl Setup {
    /// Puts flags, settings and the environment together.
    pub fn new(
        args: &mut Args,
        environment: Environment,
        settings: Effective,
        cwd: PathBuf,
    ) -> Result<Self, Complaint> {
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
        if bypass && settings.bypass_disabled {
            return Err("bypassPermissions is disabled by settings".to_owned());
        }
        if bypass && rustix::process::geteuid().is_root() && !environment.is_sandbox {
            return Err(
                "bypassPermissions is not for root: use another user, or set IS_SANDBOX=1 in a sandbox"
                    .to_owned(),
            );
        }
        let mut agents = std::mem::take(&mut args.agents);
        agents.read_files(&settings.shelves);
        let mut tool_limits = environment.tool_limits;
        if let Some(chars) = settings.bash_output_chars {
            tool_limits.bash_output_chars = chars;
        }
        let env = tools_environment(environment.tools, &cwd);
        let mut api = environment.api;
        let effort = args.effort.take().or(environment.effort);
        args.betas.extend(effort.as_ref().map(|_| EFFORT_BETA.to_owned()));
        args.betas.extend(args.task_budget.map(|_| TASK_BUDGET_BETA.to_owned()));
        let searches = environment.tool_search != ToolSearch::Off;
        args.betas.extend(searches.then(|| TOOL_SEARCH_BETA.to_owned()));
        let mut extra_body = environment.extra_body;
        // source: observed of the official CLI: they are a header.
        if let Some(Value::Array(betas)) = extra_body.shift_remove("betas") {
            args.betas.extend(betas.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        if !args.betas.is_empty() {
            api.headers.push(("anthropic-beta".to_owned(), args.betas.join(",")));
        }
        let roots = roots(&cwd, &args.additional_directories);
        let checkpoints = environment.config_dir.filter(|_| environment.file_checkpoints);
        let defaults = Options::default();
        let model_given = args.model.is_some() || environment.model.is_some();
        let options = Options {
            web_proxy: environment.web_proxy,
            http_proxy: environment.http_proxy,
            no_proxy: environment.no_proxy,
            cwd,
            model: args.model.take().or(environment.model).unwrap_or(defaults.model),
            fallback_models: std::mem::take(&mut args.fallback_models),
            system_prompt,
            append_system_prompt: append,
            tools: built(std::mem::take(&mut args.tools)),
            allowed_tools: std::mem::take(&mut args.allowed_tools),
            output_schema: args.output_schema.take(),
            ask_tools: std::mem::take(&mut args.ask_tools),
            disallowed_tools: std::mem::take(&mut args.disallowed_tools),
            permission_mode: mode,
            allow_bypass_permissions: bypass,
            max_turns: args.max_turns,
            max_budget: args.max_budget,
            additional_directories: std::mem::take(&mut args.additional_directories),
            env,
            home: environment.home,
            mcp_launcher: launch::launcher(),
            tool_search: environment.tool_search,
            max_mcp_output_chars: environment.max_mcp_output_chars.unwrap_or(defaults.max_mcp_output_chars),
            tool_limits,
            settings_files: settings.files,
            auto_compact: settings.auto_compact,
            memory: settings.memory,
            set_up: args.set_up,
            include_hook_events: args.include_hook_events,
            api,
            thinking: thinking(args.thinking, environment.max_thinking_tokens),
            thinking_display: args.thinking_display.take(),
            task_budget: args.task_budget,
            effort,
            max_output_tokens: environment.max_output_tokens,
            extra_body,
            include_partial_messages: args.include_partial_messages,
            fold_prompts: environment.sdk_prompts,
            prompt_events: environment.sdk_prompts,
            replay_user_messages: args.replay_user_messages,
            session_state_events: args.stream_input,
            api_key_source: environment.api_key_source.to_owned(),
            session_id: args.session_id.take(),
            mirror_transcript: args.mirror,
            continue_interrupted: environment.resume_interrupted,
            agent: args.agent.take(),
            background_tasks: environment.background_tasks,
            background_patience: environment.background_patience.unwrap_or(defaults.background_patience),
            ..Options::default()
        };
        let mut servers = std::mem::take(&mut args.servers);
        servers.connect_timeout = environment.mcp_connect_timeout;
        servers.call_timeout = environment.mcp_call_timeout;
        let mut made = Self {
            options,
            servers,
            agents,
            model_given,
            system_prompt_given,
            parts: Parts {
                shelves: settings.shelves,
                settings_hooks: settings.hooks,
                plugin_hooks_off: settings.plugin_hooks_off,
                ..Parts::default()
            },
            roots,
            watched: settings.watched,
            layers: settings.layers,
            sums_agents_up: environment.sums_agents_up,
            suggests: environment.suggests.unwrap_or(!settings.suggestions_off),
            ask_host: args.ask_host && !args.never_ask,
            ask_tool: args.ask_tool.take().filter(|_| !args.never_ask).map(AskTool::new),
            checkpoints: checkpoints.map(|config| config.join("file-history")),
        };
        let mut plugins = Plugins::default();
        for folder in std::mem::take(&mut args.plugins) {
            plugins.add(made.options.cwd.join(folder), false)?;
        }
        plugins.load();
        made.install_plugins(plugins)?;
        Ok(made)
    }

    /// Puts the parts of plugins where the query, and the host, find them. Servers and agents are those of the beginning.
    fn install_plugins(&mut self, plugins: Plugins) -> Result<(), Complaint> {
        for error in &plugins.errors {
            eprintln!("warning: the plugin {}: {}", error.plugin, error.message);
        }
        for plugin in &plugins.loaded {
            for (name, config) in plugin.servers.clone() {
                self.servers.add_unless_named(name, config, McpSource::Plugin)?;
            }
            self.agents.add_plugin(plugin.agents.clone());
        }
        self.parts.plugins = plugins;
        let Reread { commands, skills, hooks, plugins, plugin_errors } = self.parts.reread();
        let options = &mut self.options;
        (options.commands, options.skills, options.hooks) = (commands, skills, hooks);
        (options.plugins, options.plugin_errors) = (plugins, plugin_errors);
        Ok(())
    }

    /// Takes the plugins of `initialize` in; where it is not the first, they change nothing. Gives whether all are there.
    pub fn take_plugins(&mut self, list: &Value, is_new: bool) -> Result<bool, Complaint> {
        let cwd = self.options.cwd.clone();
        if is_new && self.servers.await_initialize {
            let mut plugins = self.parts.plugins.clone();
            if plugins.add_list(list, &cwd)? {
                plugins.load();
                self.install_plugins(plugins)?;
            }
        }
        Ok(self.parts.plugins.has_all(list, &cwd))
    }

    /// The session's id.
    pub fn session_id(&self) -> &str {
        self.options.session_id.as_deref().unwrap_or_default()
    }

    /// Sets the conversation, and where the copies of its files are kept.
    pub fn keep_in(&mut self, conversation: Option<Conversation>) {
        let options = &mut self.options;
        let id = match &conversation {
            Some(conversation) => options.session_id.insert(conversation.session_id().to_owned()),
            None => options.session_id.get_or_insert_with(new_session_id),
        };
        if let Some(folder) = &self.checkpoints {
            let own = folder.join(&*id);
            let source = conversation.as_ref().and_then(Conversation::forked_from);
            options.checkpoints = Some(match source {
                Some(source) => Checkpoints::open_fork(own, &folder.join(source)),
                None => Checkpoints::open(own),
            });
        }
        options.conversation = conversation;
    }

    /// Whether the first turn is one that a restart interrupted.
    pub fn resumes(&self) -> bool {
        let options = &self.options;
        options.continue_interrupted
            && options.conversation.as_ref().is_some_and(Conversation::is_interrupted)
    }
}

/// Directories with all links resolved; those that cannot be are none.
fn roots(cwd: &Path, more: &[PathBuf]) -> Vec<PathBuf> {
    let all = std::iter::once(cwd.to_owned()).chain(more.iter().map(|path| cwd.join(path)));
    all.filter_map(|path| path.canonicalize().ok()).collect()
}

/// What tools and hooks get beside the environment itself.
pub fn tools_environment(mut env: Vec<(String, String)>, cwd: &Path) -> Vec<(String, String)> {
    env.push(("CLAUDECODE".to_owned(), "1".to_owned()));
    env.push(("CLAUDE_PROJECT_DIR".to_owned(), cwd.display().to_string()));
    env
}

/// The tools asked for that there are. A host that asks for others is told, and can do without them.
fn built(asked: ToolSet) -> ToolSet {
    let ToolSet::Only(names) = asked else { return ToolSet::Standard };
    let known = tools::names();
    let (there, missing): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| known.iter().any(|known| known == tools::canonical(name)));
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

/// Reads a file that a flag names.
pub fn file(path: impl AsRef<Path>) -> Result<String, Complaint> {
    let path = path.as_ref();
    std::fs::read_to_string(path).map_err(|error| format!("failed to read {}: {error}", path.display()))
}
