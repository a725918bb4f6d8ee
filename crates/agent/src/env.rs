//! Every environment variable that `wardian-agent` reads. The library reads none.
//!
//! source: the agent protocol reference, section 1.9.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use wardian_agent::mcp::ToolSearch;
use wardian_agent::tool::ToolLimits;
use wardian_agent::{ApiConfig, ApiKey, Endpoint};
use wardian_protocol::JsonMap;

/// What the environment says.
pub struct Environment {
    /// How the model is reached.
    pub api: ApiConfig,
    /// Which variable the key came from, or `none`.
    pub api_key_source: &'static str,
    /// `ANTHROPIC_MODEL`.
    pub model: Option<String>,
    /// `CLAUDE_CODE_MAX_OUTPUT_TOKENS`.
    pub max_output_tokens: Option<u64>,
    /// `MAX_THINKING_TOKENS`.
    pub max_thinking_tokens: Option<u64>,
    /// `CLAUDE_CODE_EFFORT_LEVEL`.
    pub effort: Option<String>,
    /// `BASH_DEFAULT_TIMEOUT_MS`, `BASH_MAX_TIMEOUT_MS`, `BASH_MAX_OUTPUT_LENGTH`.
    pub tool_limits: ToolLimits,
    /// `WARDIAN_REPLAY_AFTER`: the last message that the host had before a restart.
    pub replay_after: Option<String>,
    /// `MCP_TIMEOUT`.
    pub mcp_connect_timeout: Option<Duration>,
    /// `MCP_TOOL_TIMEOUT`.
    pub mcp_call_timeout: Option<Duration>,
    /// `MAX_MCP_OUTPUT_TOKENS`, in characters.
    pub max_mcp_output_chars: Option<usize>,
    /// `ENABLE_TOOL_SEARCH`.
    pub tool_search: ToolSearch,
    /// `WARDIAN_TRUST_PROJECT=1`: what the project's settings allow and run holds.
    pub trusts_project: bool,
    /// `CLAUDE_CODE_SDK_READS_SESSION_STATE=1`: the host is an Agent SDK, which knows that several prompts may become one
    /// turn.
    pub sdk_prompts: bool,
    /// `HTTPS_PROXY`, or `https_proxy`: the way of WebFetch to the web, and to tool servers with TLS.
    pub web_proxy: Option<String>,
    /// `http_proxy`, or `HTTP_PROXY`: the way to tool servers without TLS.
    pub http_proxy: Option<String>,
    /// `NO_PROXY`, or `no_proxy`: what is reached without a proxy.
    pub no_proxy: Vec<String>,
    /// `IS_SANDBOX=1`: root is nobody's root here.
    pub is_sandbox: bool,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `CLAUDE_CONFIG_DIR`, or `.claude` in the home: where transcripts are kept.
    pub config_dir: Option<PathBuf>,
    /// `CLAUDE_CODE_RESUME_INTERRUPTED_TURN=1`: the host takes up again what a restart interrupts.
    pub resume_interrupted: bool,
    /// Whether anything may go on beside the turn.
    pub background_tasks: bool,
    /// How long it is waited for at the end.
    pub background_patience: Option<Duration>,
    /// `CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING=true`: what files were before tools change them is kept.
    pub file_checkpoints: bool,
    /// `CLAUDE_CODE_EXTRA_BODY`: fields for the body of each request to the model.
    pub extra_body: JsonMap,
    /// `DEBUG=1`, which the TypeScript SDK sets where it is itself told to: a debug log is written.
    pub debug: bool,
    /// `CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION`: whether prompts may be suggested, whatever settings say.
    pub suggests: Option<bool>,
    /// Not `CLAUDE_CODE_DISABLE_AGENT_PROGRESS_SUMMARIES`: what subagents do may be summed up.
    pub sums_agents_up: bool,
    /// What the tools get: everything but what could hold a key.
    pub tools: Vec<(String, String)>,
    /// What was not understood, for standard error.
    pub warnings: Vec<String>,
}

/// From which part of the context window on `auto` searches for tools.
const AUTO_TOOL_SEARCH_PERCENT: u8 = 10;
/// The most characters of Bash output that may be asked for. source: the protocol reference, section 1.7.
const BASH_OUTPUT_CHARS: std::ops::RangeInclusive<usize> = 4_000..=128_000;

/// Characters of a token, about, where a limit is given in tokens.
const CHARS_PER_TOKEN: usize = 4;

impl Environment {
    /// Reads the process's own, and what settings put in or over it.
    pub fn read(more: &[(String, String)]) -> Self {
        let readable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let own = std::env::vars_os().filter_map(readable);
        let own = own.filter(|(name, _)| more.iter().all(|(known, _)| known != name));
        let mut named: Vec<(String, String)> = Vec::new();
        for (name, value) in more {
            named.retain(|(known, _)| known != name);
            named.push((name.clone(), value.clone()));
        }
        Self::from(own.chain(named).collect())
    }

    /// Reads these.
    pub fn from(variables: Vec<(String, String)>) -> Self {
        let mut warnings = Vec::new();
        let get = |name: &str| {
            let found = variables.iter().find(|(known, value)| known == name && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let mut number = |name: &str| {
            let text = get(name)?;
            let number = text.parse::<u64>().ok();
            if number.is_none() {
                warnings.push(format!("{name} is not a whole number; it is ignored"));
            }
            number
        };
        let mut api = ApiConfig::default();
        let mut limits = ToolLimits::default();
        if let Some(retries) = number("CLAUDE_CODE_MAX_RETRIES") {
            api.retry.max_retries = u32::try_from(retries).unwrap_or(u32::MAX);
        }
        if let Some(timeout) = number("API_TIMEOUT_MS") {
            api.first_byte_timeout = Duration::from_millis(timeout);
        }
        if let Some(timeout) = number("BASH_MAX_TIMEOUT_MS") {
            limits.bash_max_timeout = Duration::from_millis(timeout);
        }
        if let Some(timeout) = number("BASH_DEFAULT_TIMEOUT_MS") {
            limits.bash_default_timeout = Duration::from_millis(timeout);
            limits.bash_max_timeout = limits.bash_max_timeout.max(limits.bash_default_timeout);
        }
        if let Some(chars) = number("BASH_MAX_OUTPUT_LENGTH") {
            let chars = usize::try_from(chars).unwrap_or(usize::MAX);
            limits.bash_output_chars = chars.clamp(*BASH_OUTPUT_CHARS.start(), *BASH_OUTPUT_CHARS.end());
        }
        let mcp_connect_timeout = number("MCP_TIMEOUT").filter(|ms| *ms > 0).map(Duration::from_millis);
        let mcp_call_timeout = number("MCP_TOOL_TIMEOUT").filter(|ms| *ms > 0).map(Duration::from_millis);
        let max_mcp_output_chars = number("MAX_MCP_OUTPUT_TOKENS").filter(|tokens| *tokens > 0);
        let max_mcp_output_chars = max_mcp_output_chars
            .map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(CHARS_PER_TOKEN));
        let max_output_tokens = number("CLAUDE_CODE_MAX_OUTPUT_TOKENS").filter(|tokens| *tokens > 0);
        let background_patience = number("CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS").map(Duration::from_millis);
        let max_thinking_tokens = number("MAX_THINKING_TOKENS");
        let base_url = get("ANTHROPIC_BASE_URL");
        let extra_body = get("CLAUDE_CODE_EXTRA_BODY").map(|text| serde_json::from_str(&text));
        let extra_body = match extra_body {
            Some(Ok(Value::Object(fields))) => fields,
            Some(Ok(_) | Err(_)) => {
                warnings.push("CLAUDE_CODE_EXTRA_BODY is no JSON object; it is ignored".to_owned());
                JsonMap::new()
            }
            None => JsonMap::new(),
        };
        api.endpoint = match (get("ANTHROPIC_UNIX_SOCKET"), base_url) {
            (Some(path), base_url) => Endpoint::Unix {
                path: path.into(),
                base_url: base_url.unwrap_or_else(|| "http://localhost".to_owned()),
            },
            (None, Some(url)) => Endpoint::Url(url),
            (None, None) => Endpoint::default(),
        };
        let (key, api_key_source) = match (get("ANTHROPIC_API_KEY"), get("ANTHROPIC_AUTH_TOKEN")) {
            (Some(key), _) => (ApiKey::Key(key.into()), "ANTHROPIC_API_KEY"),
            (None, Some(token)) => (ApiKey::Bearer(token.into()), "ANTHROPIC_AUTH_TOKEN"),
            (None, None) => (ApiKey::Missing, "none"),
        };
        api.headers = custom_headers(&get("ANTHROPIC_CUSTOM_HEADERS").unwrap_or_default());
        // Who listens on a socket, or reads such a header, knows who calls.
        let is_known =
            matches!(api.endpoint, Endpoint::Unix { .. }) || api.headers.iter().any(proves_who_calls);
        api.key = if is_known && matches!(key, ApiKey::Missing) { ApiKey::None } else { key };
        Self {
            api,
            api_key_source,
            model: get("ANTHROPIC_MODEL"),
            max_output_tokens,
            max_thinking_tokens,
            effort: get("CLAUDE_CODE_EFFORT_LEVEL"),
            tool_limits: limits,
            replay_after: get("WARDIAN_REPLAY_AFTER"),
            mcp_connect_timeout,
            mcp_call_timeout,
            max_mcp_output_chars,
            tool_search: tool_search(get("ENABLE_TOOL_SEARCH").as_deref()),
            trusts_project: get("WARDIAN_TRUST_PROJECT").as_deref() == Some("1"),
            sdk_prompts: get("CLAUDE_CODE_SDK_READS_SESSION_STATE").as_deref() == Some("1"),
            http_proxy: get("http_proxy").or_else(|| get("HTTP_PROXY")),
            no_proxy: get("NO_PROXY")
                .or_else(|| get("no_proxy"))
                .map(|list| list.split(',').map(|entry| entry.trim().to_owned()).collect())
                .unwrap_or_default(),
            web_proxy: get("HTTPS_PROXY").or_else(|| get("https_proxy")),
            is_sandbox: get("IS_SANDBOX").as_deref() == Some("1"),
            home: get("HOME").map(PathBuf::from),
            config_dir: get("CLAUDE_CONFIG_DIR")
                .map(PathBuf::from)
                .or_else(|| get("HOME").map(|home| PathBuf::from(home).join(".claude"))),
            resume_interrupted: get("CLAUDE_CODE_RESUME_INTERRUPTED_TURN").as_deref() == Some("1"),
            background_tasks: !get("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS")
                .is_some_and(|value| matches!(value.as_str(), "1" | "true")),
            background_patience,
            file_checkpoints: get("CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING")
                .is_some_and(|value| matches!(value.as_str(), "1" | "true")),
            extra_body,
            debug: get("DEBUG").is_some_and(|value| matches!(value.as_str(), "1" | "true")),
            suggests: get("CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION")
                .map(|value| !matches!(value.as_str(), "0" | "false")),
            sums_agents_up: !get("CLAUDE_CODE_DISABLE_AGENT_PROGRESS_SUMMARIES")
                .is_some_and(|value| matches!(value.as_str(), "1" | "true")),
            warnings,
            tools: variables.into_iter().filter(|(name, _)| !may_hold_a_key(name)).collect(),
        }
    }
}

/// `auto` and `auto:N` are a part of the context window, in percent. source: the official CLI's documentation.
fn tool_search(value: Option<&str>) -> ToolSearch {
    match value {
        None | Some("true" | "1" | "auto:0") => ToolSearch::On,
        Some("false" | "0" | "auto:100") => ToolSearch::Off,
        Some(text) => {
            let percent = text.strip_prefix("auto:").and_then(|percent| percent.parse().ok());
            ToolSearch::Auto(percent.unwrap_or(AUTO_TOOL_SEARCH_PERCENT))
        }
    }
}

/// Whether a variable is kept from the tools: those that say how, and as whom, the model is reached.
fn may_hold_a_key(name: &str) -> bool {
    name.starts_with("ANTHROPIC_") || name.starts_with("CLAUDE_CODE_OAUTH")
}

fn proves_who_calls((name, _): &(String, String)) -> bool {
    ["authorization", "x-api-key"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Reads `Name: value` lines.
fn custom_headers(text: &str) -> Vec<(String, String)> {
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::from(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn tools_get_everything_but_keys() {
        let environment = read(&[
            ("PATH", "/bin"),
            ("ANTHROPIC_API_KEY", "sk-secret"),
            ("ANTHROPIC_AUTH_TOKEN", "secret"),
            ("ANTHROPIC_CUSTOM_HEADERS", "X-Key: secret\nbroken\nX-B: a:b"),
            ("CLAUDE_CODE_OAUTH_TOKEN", "secret"),
        ]);
        assert_eq!(environment.tools, [("PATH".to_owned(), "/bin".to_owned())]);
        assert_eq!(environment.api_key_source, "ANTHROPIC_API_KEY");
        assert!(!format!("{:?}", environment.api.key).contains("sk-secret"));
        assert_eq!(environment.api.headers[1], ("X-B".to_owned(), "a:b".to_owned()));
    }

    #[test]
    fn numbers_that_are_none_are_named_and_ignored() {
        let environment = read(&[
            ("CLAUDE_CODE_MAX_RETRIES", "many"),
            ("BASH_MAX_OUTPUT_LENGTH", "99999999999"),
            ("BASH_DEFAULT_TIMEOUT_MS", "900000"),
            ("CLAUDE_CODE_MAX_OUTPUT_TOKENS", "0"),
        ]);
        assert_eq!(environment.warnings.len(), 1);
        assert!(environment.warnings[0].contains("CLAUDE_CODE_MAX_RETRIES"));
        assert_eq!(environment.api.retry.max_retries, 10);
        assert_eq!(environment.tool_limits.bash_output_chars, 128_000);
        assert_eq!(environment.tool_limits.bash_max_timeout, Duration::from_secs(900));
        assert_eq!(environment.max_output_tokens, None);
    }

    #[test]
    fn who_has_no_key_is_not_logged_in_unless_a_header_or_a_socket_says_who_calls() {
        for (variables, missing) in [
            (&[][..], true),
            (&[("ANTHROPIC_CUSTOM_HEADERS", "X-Team: a")], true),
            (&[("ANTHROPIC_CUSTOM_HEADERS", "Authorization: Bearer x")], false),
            (&[("ANTHROPIC_UNIX_SOCKET", "/run/x")], false),
            (&[("ANTHROPIC_API_KEY", "k")], false),
        ] {
            let environment = read(variables);
            assert_eq!(matches!(environment.api.key, ApiKey::Missing), missing, "{variables:?}");
        }
    }

    #[test]
    fn a_socket_goes_before_an_address() {
        let environment = read(&[("ANTHROPIC_UNIX_SOCKET", "/run/x"), ("ANTHROPIC_BASE_URL", "http://h/p")]);
        let expected = Endpoint::Unix { path: "/run/x".into(), base_url: "http://h/p".to_owned() };
        assert_eq!(environment.api.endpoint, expected);
    }
}
