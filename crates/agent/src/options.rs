//! How a query is set up. Nothing here is read from the environment: what is not given has the default written here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use wardian_policy::PermissionMode;
use wardian_protocol::NanoUsd;

use crate::checkpoint::Checkpoints;
use crate::command::CustomCommand;
use crate::hook::Hooks;
use crate::mcp::{self, McpConfigError, McpServer, OnElicitation, ToolSearch};
use crate::memory::MemoryFile;
use crate::permission::{CanUseTool, SettingsFiles};
use crate::plugin::{PluginError, PluginInfo};
use crate::skill::Skill;
use crate::subagent::AgentDefinition;
use crate::tool::{Tool, ToolLimits};
use crate::transcript::Conversation;

/// How a query is set up; the names are the Agent SDK's.
#[derive(Clone)]
pub struct Options {
    /// The working directory of the tools. Relative: to the process's own.
    pub cwd: PathBuf,
    /// A model id or an alias (`opus`, `sonnet`, `haiku`); with `[1m]` behind it, with a context of a million tokens.
    pub model: String,
    /// Ids or aliases of models that take its place, in this order, for the rest of a turn in which it cannot be had.
    pub fallback_models: Vec<String>,
    /// What the model is told first.
    pub system_prompt: SystemPrompt,
    /// Added to the system prompt, a block of its own.
    pub append_system_prompt: Option<String>,
    /// Leaves what differs from user to user out of the preset and says it with the first prompt, so that the cache of the
    /// preset is shared.
    pub exclude_dynamic_sections: bool,
    /// Whether the system prompt that the conversation began with stays until it is compacted, whatever a later start
    /// says.
    pub system_prompt_snapshot: bool,
    /// Instructions from files, told with the first prompt. See [`crate::memory::load`].
    pub memory: Vec<MemoryFile>,
    /// Slash commands besides the built-in ones. See [`CustomCommand`].
    pub commands: Vec<CustomCommand>,
    /// Skills. See [`Skill`].
    pub skills: Vec<Skill>,
    /// The skills that the model has, by name; none: all.
    pub enabled_skills: Option<Vec<String>>,
    /// Names of tools that lead to others: a call of the one is a call of the other.
    pub tool_aliases: BTreeMap<String, String>,
    /// When the conversation is made shorter by itself.
    pub auto_compact: AutoCompact,
    /// Keeps what files were before tools change them, for [`crate::QueryHandle::rewind_files`].
    pub checkpoints: Option<Checkpoints>,
    /// Which built-in tools the model has.
    pub tools: ToolSet,
    /// The JSON schema of what a turn shall end with, which is then in `structured_output` of the result.
    pub output_schema: Option<serde_json::Value>,
    /// Tools of the caller's own.
    pub custom_tools: Vec<Arc<dyn Tool>>,
    /// The subagents that the model can call on, by name, besides the built-in ones.
    pub agents: BTreeMap<String, AgentDefinition>,
    /// The agent that the main thread itself runs as, by name.
    pub agent: Option<String>,
    /// Whether commands and subagents may go on beside the turn. Then the query ends when they have, and their end is
    /// told to the model, which is a turn more.
    pub background_tasks: bool,
    /// How long what goes on in the background is waited for once no more prompts come; then it is ended.
    pub background_patience: Duration,
    /// Whether an interrupt lets subagents in the background go on.
    pub interrupt_spares_tasks: bool,
    /// How often `task_progress` messages say in a line what a subagent does: a call of its model each, on its cache, where
    /// something new was said. `None`: never.
    pub agent_progress_summaries: Option<Duration>,
    /// How often a `tool_progress` message says that a call of the main thread still runs.
    pub tool_heartbeat: Duration,
    /// Whether the texts of subagents in the foreground are given too, and not only their calls.
    pub forward_subagent_text: bool,
    /// Servers of tools: programs, addresses, or the caller's own.
    pub mcp_servers: Vec<McpServer>,
    /// Servers that were left out of `mcp_servers`, and why: `system/init` tells.
    pub mcp_config_errors: Vec<McpConfigError>,
    /// Asks the user what servers want to know. Without it they are declined.
    pub on_elicitation: Option<OnElicitation>,
    /// What starts the servers' programs in their place, a command that takes the program and its arguments and becomes
    /// it: one that has them killed when this process dies. Without it they end with the session, and when they read
    /// the end of their input.
    pub mcp_launcher: Vec<String>,
    /// Whether the model finds the servers' tools by ToolSearch, or has them all from the start.
    pub tool_search: ToolSearch,
    /// The most characters of a result of a server's tool that the model gets.
    pub max_mcp_output_chars: usize,
    /// Rules for calls that go through unasked (`Bash(git *)`). They do not restrict which tools there are.
    pub allowed_tools: Vec<String>,
    /// Rules for calls that are always asked about, even in `bypassPermissions`.
    pub ask_tools: Vec<String>,
    /// Rules for calls that are refused; a bare tool name takes the tool away.
    pub disallowed_tools: Vec<String>,
    /// What happens to calls that no rule decides.
    pub permission_mode: PermissionMode,
    /// How the model is to plan in plan mode, in place of what it is told by default.
    pub plan_mode_instructions: Option<String>,
    /// Whether `bypassPermissions` may be set while the query runs.
    pub allow_bypass_permissions: bool,
    /// Is asked about calls that nothing else decides. Without it they are denied.
    pub can_use_tool: Option<CanUseTool>,
    /// The caller's code around what happens.
    pub hooks: Hooks,
    /// Plugins whose parts are among the rest here: `system/init` tells.
    pub plugins: Vec<PluginInfo>,
    /// Plugins that are not there, or lack a part: `system/init` tells.
    pub plugin_errors: Vec<PluginError>,
    /// What the session sets up, if it does: hooks on that run first.
    pub set_up: Option<SetupTrigger>,
    /// Whether `hook_started`, `hook_progress` and `hook_response` messages tell of hooks that are programs.
    pub include_hook_events: bool,
    /// Where permissions are kept that a host grants for longer than the query; default: nowhere.
    pub settings_files: SettingsFiles,
    /// How many replies of the model a prompt may take.
    pub max_turns: Option<u64>,
    /// What the query may cost, by our price table, beyond what the conversation had cost before. Checked before each model call and after each reply, so the last
    /// reply may pass it.
    pub max_budget: Option<NanoUsd>,
    /// Roots besides the working directory that tools may read and write.
    pub additional_directories: Vec<PathBuf>,
    /// The whole environment of the tools' processes. Put no key in it.
    pub env: Vec<(String, String)>,
    /// The user's home, for rules with `~/`.
    pub home: Option<PathBuf>,
    /// Where tool outputs too long for the model are kept; default: a folder of this session in `/tmp`.
    pub output_dir: Option<PathBuf>,
    /// Limits of the built-in tools.
    pub tool_limits: ToolLimits,
    /// The proxy that WebFetch reaches the web through, `http://host:port`: without one it reaches nothing.
    pub web_proxy: Option<String>,
    /// The proxy to tool servers at an address without TLS, as `http://host:port`.
    pub http_proxy: Option<String>,
    /// Hosts of tool servers that are reached without a proxy: `*`, or names with what is below them. This machine is.
    pub no_proxy: Vec<String>,
    /// How the model is reached.
    pub api: ApiConfig,
    /// Whether, and how much, the model thinks.
    pub thinking: Thinking,
    /// How much of the thinking is shown (`summarized`, `omitted`); `None`: as the API does by itself. Holds where
    /// `thinking` is adaptive or a budget.
    pub thinking_display: Option<String>,
    /// The tokens that the model is told to get by with, in a turn as a whole; passed to the API.
    pub task_budget: Option<u64>,
    /// `low`, `medium`, `high`, `xhigh` or `max`; passed to the API.
    pub effort: Option<String>,
    /// The most tokens of one reply; default: what the model can do, at most 32,000.
    pub max_output_tokens: Option<u64>,
    /// Fields for the body of each request to the model, in the place of what it would hold; `stream` is left out.
    pub extra_body: wardian_protocol::JsonMap,
    /// Whether the raw events of the model's stream are given too.
    pub include_partial_messages: bool,
    /// Whether prompts that wait are taken into the turn under way, between its rounds, and those left at its end begin
    /// one turn together; a prompt with the priority `now` ends the turn, one with `later` waits for its end. Else each
    /// is a turn of its own.
    pub fold_prompts: bool,
    /// Whether `command_lifecycle` messages say what becomes of the prompts that have ids.
    pub prompt_events: bool,
    /// Whether `prompt_suggestion` messages say after a turn what the user may say next: a call of the model more, of a few
    /// tokens, on the same cache. None after the first reply, after an error, in plan mode, or while a prompt waits.
    pub prompt_suggestions: bool,
    /// Whether prompts are given back as messages when they are taken.
    pub replay_user_messages: bool,
    /// Whether `session_state_changed` messages are given: for a host that waits for `idle`.
    pub session_state_events: bool,
    /// What `system/init` says of where the key came from (`ANTHROPIC_API_KEY`, `none`, `user`, …).
    pub api_key_source: String,
    /// The session's id, a UUID; default: the conversation's, or a fresh one.
    pub session_id: Option<String>,
    /// What a new session is called where sessions are listed; default: by its last prompt.
    pub title: Option<String>,
    /// Where the conversation is kept, and what was said before; none: nowhere, and nothing.
    pub conversation: Option<Conversation>,
    /// Whether each line of the conversation's transcript, and of its subagents', is given as a `transcript_mirror` message
    /// too, for who keeps transcripts elsewhere: `{"type", "filePath", "entries"}`, a [`crate::Message::Other`].
    pub mirror_transcript: bool,
    /// Whether a turn that did not come to its end is taken to it before the first prompt. Else its open calls are told
    /// to the model as interrupted, with the next prompt.
    pub continue_interrupted: bool,
    /// Reads the wall clock: for timestamps, dated prices and `retry-after` dates.
    pub clock: fn() -> jiff::Timestamp,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cwd: PathBuf::from("."),
            model: "sonnet".to_owned(),
            fallback_models: Vec::new(),
            system_prompt: SystemPrompt::default(),
            append_system_prompt: None,
            exclude_dynamic_sections: false,
            system_prompt_snapshot: false,
            memory: Vec::new(),
            commands: Vec::new(),
            skills: Vec::new(),
            enabled_skills: None,
            tool_aliases: BTreeMap::new(),
            auto_compact: AutoCompact::default(),
            checkpoints: None,
            tools: ToolSet::default(),
            output_schema: None,
            custom_tools: Vec::new(),
            agents: BTreeMap::new(),
            agent: None,
            background_tasks: true,
            background_patience: Duration::from_secs(600),
            interrupt_spares_tasks: false,
            agent_progress_summaries: None,
            tool_heartbeat: Duration::from_secs(30),
            forward_subagent_text: false,
            mcp_servers: Vec::new(),
            mcp_config_errors: Vec::new(),
            on_elicitation: None,
            mcp_launcher: Vec::new(),
            tool_search: ToolSearch::default(),
            max_mcp_output_chars: mcp::MAX_OUTPUT_CHARS,
            allowed_tools: Vec::new(),
            ask_tools: Vec::new(),
            disallowed_tools: Vec::new(),
            permission_mode: PermissionMode::Default,
            plan_mode_instructions: None,
            allow_bypass_permissions: false,
            can_use_tool: None,
            hooks: Hooks::default(),
            plugins: Vec::new(),
            plugin_errors: Vec::new(),
            set_up: None,
            include_hook_events: false,
            settings_files: SettingsFiles::default(),
            max_turns: None,
            max_budget: None,
            additional_directories: Vec::new(),
            env: Vec::new(),
            home: None,
            output_dir: None,
            tool_limits: ToolLimits::default(),
            web_proxy: None,
            http_proxy: None,
            no_proxy: Vec::new(),
            api: ApiConfig::default(),
            thinking: Thinking::default(),
            thinking_display: None,
            task_budget: None,
            effort: None,
            max_output_tokens: None,
            extra_body: wardian_protocol::JsonMap::new(),
            include_partial_messages: false,
            prompt_suggestions: false,
            replay_user_messages: false,
            fold_prompts: false,
            prompt_events: false,
            session_state_events: false,
            api_key_source: "user".to_owned(),
            session_id: None,
            title: None,
            conversation: None,
            mirror_transcript: false,
            continue_interrupted: false,
            clock: system_clock,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the library's one clock, replaced by `Options::clock`")]
fn system_clock() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// What the model is told first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SystemPrompt {
    /// Nothing.
    #[default]
    Empty,
    /// These texts, a block each.
    Text(Vec<String>),
    /// Wardian's own prompt for work on code.
    Preset,
}

impl From<&str> for SystemPrompt {
    fn from(text: &str) -> Self {
        Self::Text(vec![text.to_owned()])
    }
}

/// What a session sets up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupTrigger {
    /// A project, for the first time.
    Init,
    /// What is to be done to a project now and then.
    Maintenance,
}

impl SetupTrigger {
    /// The trigger as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Maintenance => "maintenance",
        }
    }
}

/// When a conversation is compacted by itself: summed up by the model, and gone on with from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompact {
    /// When the model's context window is nearly full.
    #[default]
    ModelWindow,
    /// When a window of this many tokens is, or the model's if that is smaller.
    Window(u64),
    /// Never: a conversation that is too long is the API's error.
    Off,
}

/// Which built-in tools the model has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolSet {
    /// All of them.
    #[default]
    All,
    /// Those that the official CLI has when nothing is said: without Glob, Grep and the list of tasks.
    Standard,
    /// These, by name.
    Only(Vec<String>),
}

/// Whether, and how much, the model thinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thinking {
    /// What the API does when nothing is said.
    #[default]
    Unset,
    /// As much as the model thinks right.
    Adaptive,
    /// Up to this many tokens a reply.
    Budget(u64),
    /// Not at all.
    Disabled,
}

/// How the model is reached.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Where the API is.
    pub endpoint: Endpoint,
    /// What proves who calls.
    pub key: ApiKey,
    /// Added to each request: names and values. `anthropic-beta` goes here.
    pub headers: Vec<(String, String)>,
    /// When a request is made again.
    pub retry: RetryPolicy,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How long the first byte of a reply may take.
    pub first_byte_timeout: Duration,
    /// How long a reply may pause. The API sends a ping every few seconds.
    pub idle_timeout: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::default(),
            key: ApiKey::None,
            headers: Vec::new(),
            retry: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(600),
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://` or `https://`, a host, maybe a port and a path, which is kept.
    Url(String),
    /// HTTP over a unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
        /// The URL that requests are written for; only its path is used.
        base_url: String,
    },
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::Url("https://api.anthropic.com".to_owned())
    }
}

/// What proves to the API who calls. Its `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub enum ApiKey {
    /// Nothing.
    #[default]
    None,
    /// Nothing, where something is needed: a turn ends before its first call, as one of somebody who is not logged in.
    Missing,
    /// `x-api-key`.
    Key(SecretString),
    /// `authorization: Bearer`.
    Bearer(SecretString),
}

impl ApiKey {
    /// An `x-api-key`.
    #[must_use]
    pub fn key(secret: impl Into<String>) -> Self {
        Self::Key(SecretString::from(secret.into()))
    }
}

/// When a request is made again: on 408, 409, 429, 5xx and lost connections, before anything of the reply was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a request is made again.
    pub max_retries: u32,
    /// The first wait; it doubles each time.
    pub first_delay: Duration,
    /// The longest wait that is not the API's own wish.
    pub max_delay: Duration,
    /// How long all tries of one request may take together. A `retry-after` beyond it ends them at once.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 10,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(32),
            deadline: Duration::from_secs(600),
        }
    }
}
