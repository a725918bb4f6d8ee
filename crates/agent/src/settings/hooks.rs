//! The setting `hooks`: programs that run when something happens.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use wardian_agent::{CommandHook, Hook, HookEvent, Hooks, OnFailure};

use crate::args::Complaint;

/// The most hooks that settings may have: each is a process when it runs.
const MAX_HOOKS: usize = 1_000;

#[derive(Deserialize)]
struct Group {
    matcher: Option<String>,
    hooks: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Program {
    command: String,
    args: Option<Vec<String>>,
    #[serde(rename = "if")]
    condition: Option<String>,
    timeout: Option<f64>,
    #[serde(default, rename = "async")]
    in_background: bool,
    on_failure: Option<String>,
}

/// Reads the setting. What is not understood is an error: a hook that is left out guards nothing.
pub(super) fn read(value: &Value) -> Result<Hooks, Complaint> {
    read_with(value, &[])
}

/// The same for programs that get these variables besides.
pub fn read_with(value: &Value, env: &[(String, String)]) -> Result<Hooks, Complaint> {
    let broken = |what: String| format!("the setting 'hooks' cannot be read: {what}");
    let events = value.as_object().ok_or_else(|| broken("it must be an object".to_owned()))?;
    let mut hooks = Hooks::default();
    let mut count = 0;
    for (name, groups) in events {
        let event: HookEvent = name.parse().map_err(|error| broken(format!("failed to {error}")))?;
        let groups: Vec<Group> =
            Vec::deserialize(groups).map_err(|error| broken(format!("{name}: {error}")))?;
        for group in groups {
            for hook in &group.hooks {
                count += 1;
                if count > MAX_HOOKS {
                    return Err(broken(format!("it has more than {MAX_HOOKS} hooks")));
                }
                let hook = program(group.matcher.as_deref(), hook, env);
                hooks.add(event, hook.map_err(|error| broken(format!("{name}: {error}")))?);
            }
        }
    }
    Ok(hooks)
}

fn program(matcher: Option<&str>, value: &Value, env: &[(String, String)]) -> Result<Hook, String> {
    match value["type"].as_str() {
        Some("command") => (),
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            return Err(format!("hooks of type '{kind}' are not supported by wardian-agent yet"));
        }
        None => return Err("a hook has no type".to_owned()),
    }
    let program = Program::deserialize(value).map_err(|error| error.to_string())?;
    let condition = program.condition.map(|rule| rule.parse().map_err(|error| format!("failed to {error}")));
    let command = CommandHook {
        command: program.command,
        args: program.args,
        condition: condition.transpose()?,
        in_background: program.in_background,
        env: env.to_vec(),
    };
    let mut hook = Hook::command(matcher, command);
    if let Some(seconds) = program.timeout {
        let timeout = Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero());
        hook.timeout = timeout.ok_or("a timeout must be a number of seconds above 0")?;
    }
    match program.on_failure.as_deref() {
        None | Some("continue") => (),
        Some("block") => hook.on_failure = OnFailure::Block,
        Some(_) => return Err("onFailure must be continue or block".to_owned()),
    }
    Ok(hook)
}
