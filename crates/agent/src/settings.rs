//! `--settings`: the keys that are enforced, and a refusal by name of those that are not.
//!
//! source: the agent protocol reference, section 1.7.

use serde_json::Value;

use crate::args::{Args, Complaint};

/// Keys that change nothing here: they are about screens, updates, and what this program does not do.
const HARMLESS: &[&str] = &[
    "$schema",
    "autoUpdatesChannel",
    "cleanupPeriodDays",
    "includeCoAuthoredBy",
    "language",
    "outputStyle",
    "prefersReducedMotion",
    "showTurnDuration",
    "spinnerTipsEnabled",
    "theme",
    "verbose",
];

/// Takes settings into the arguments. What a flag says goes before what a setting says.
pub fn apply(args: &mut Args, text: &str) -> Result<(), Complaint> {
    let settings: Value =
        serde_json::from_str(text).map_err(|error| format!("settings are no JSON: {error}"))?;
    let settings = settings.as_object().ok_or("settings must be an object")?;
    for (key, value) in settings {
        match key.as_str() {
            "permissions" => permissions(args, value)?,
            "model" => args.model = args.model.take().or(Some(string(key, value)?)),
            key if HARMLESS.contains(&key) => (),
            _ if nothing(value) => (),
            key => return Err(format!("the setting '{key}' is not supported by wardian-agent yet")),
        }
    }
    Ok(())
}

fn permissions(args: &mut Args, value: &Value) -> Result<(), Complaint> {
    let permissions = value.as_object().ok_or("the setting 'permissions' must be an object")?;
    for (key, value) in permissions {
        match key.as_str() {
            "allow" => args.allowed_tools.extend(strings(key, value)?),
            "ask" => args.ask_tools.extend(strings(key, value)?),
            "deny" => args.disallowed_tools.extend(strings(key, value)?),
            "additionalDirectories" => {
                let directories = strings(key, value)?;
                args.additional_directories.extend(directories.into_iter().map(Into::into));
            }
            "defaultMode" => {
                let mode = string(key, value)?;
                let mode = mode.parse().map_err(|error| format!("failed to {error}"))?;
                args.permission_mode = args.permission_mode.or(Some(mode));
            }
            _ if nothing(value) => (),
            key => {
                return Err(format!("the setting 'permissions.{key}' is not supported by wardian-agent yet"));
            }
        }
    }
    Ok(())
}

/// Whether a value asks for nothing.
pub fn nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn string(key: &str, value: &Value) -> Result<String, Complaint> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("the setting '{key}' must be a string"))
}

fn strings(key: &str, value: &Value) -> Result<Vec<String>, Complaint> {
    let list = value.as_array().ok_or_else(|| format!("the setting '{key}' must be a list"))?;
    list.iter().map(|item| string(key, item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_taken_in_and_the_unknown_is_named() {
        let mut args = Args::default();
        let text = r#"{"permissions": {"allow": ["Read"], "ask": ["Bash(git push *)"], "deny": ["WebFetch"],
            "defaultMode": "plan"}, "model": "opus", "theme": "dark", "hooks": {}, "sandbox": null}"#;
        apply(&mut args, text).unwrap();
        assert_eq!(args.allowed_tools, ["Read"]);
        assert_eq!(args.ask_tools, ["Bash(git push *)"]);
        assert_eq!(args.disallowed_tools, ["WebFetch"]);
        assert_eq!(args.permission_mode, Some(wardian_agent::PermissionMode::Plan));
        for (text, expected) in [
            ("[", "no JSON"),
            ("[]", "must be an object"),
            (r#"{"sandbox": {"enabled": true}}"#, "'sandbox'"),
            (r#"{"hooks": {"PreToolUse": []}}"#, "'hooks'"),
            (r#"{"apiKeyHelper": "cmd"}"#, "'apiKeyHelper'"),
            (r#"{"permissions": {"deny": "Bash"}}"#, "must be a list"),
            (
                r#"{"permissions": {"disableBypassPermissionsMode": "disable"}}"#,
                "disableBypassPermissionsMode",
            ),
        ] {
            let complaint = apply(&mut Args::default(), text).unwrap_err();
            assert!(complaint.contains(expected), "{text}: {complaint}");
        }
    }
}
