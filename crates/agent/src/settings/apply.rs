//! What the settings mean, all sources together.

use serde_json::Value;
use wardian_agent::{AutoCompact, Hooks, PermissionMode};

use super::layer::Layer;
use super::{Effective, hooks, mcp, nothing};
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

/// The smallest window that compaction goes by. source: the types of the SDKs.
const MIN_COMPACT_WINDOW: u64 = 100_000;

/// The most characters of Bash output that may be asked for. source: the protocol reference, section 1.7.
const BASH_OUTPUT_CHARS: std::ops::RangeInclusive<u64> = 4_000..=128_000;

/// Takes the layers in, the weakest first in the list.
pub(super) fn apply(args: &mut Args, layers: &[Layer], effective: &mut Effective) -> Result<(), Complaint> {
    let only_managed_rules = managed_says(layers, "allowManagedPermissionRulesOnly");
    if only_managed_rules {
        args.allowed_tools.clear();
    }
    let hooks_off = Off::of(layers);
    effective.plugin_hooks_off = hooks_off.all || hooks_off.but_managed;
    let mut all_hooks = Vec::new();
    let mut suggestions = None;
    // The strongest first: of single values the first that is found holds.
    for layer in layers.iter().rev() {
        for (key, value) in &layer.settings {
            match key.as_str() {
                "permissions" => permissions(args, layer, value, only_managed_rules, effective)?,
                "hooks" => all_hooks.extend(of_hooks(layer, value, &hooks_off, effective)?),
                "model" => args.model = args.model.take().or(Some(string(key, value)?)),
                "effortLevel" => args.effort = args.effort.take().or(Some(string(key, value)?)),
                "fallbackModel" if args.fallback_models.is_empty() => {
                    args.fallback_models = match value {
                        Value::String(one) => vec![one.clone()],
                        list => strings(key, list)?,
                    };
                }
                "bashOutputMaxChars" => {
                    let chars = value.as_u64().ok_or_else(|| wrong(key, "a whole number"))?;
                    let chars = chars.clamp(*BASH_OUTPUT_CHARS.start(), *BASH_OUTPUT_CHARS.end());
                    effective.bash_output_chars.get_or_insert(usize::try_from(chars).unwrap_or(usize::MAX));
                }
                "autoCompactEnabled" if *value == Value::Bool(false) => {
                    effective.auto_compact = AutoCompact::Off
                }
                "autoCompactEnabled" => (),
                "autoCompactWindow" => {
                    // The first that says how large holds; none, where it is off.
                    if let (Some(window), AutoCompact::ModelWindow) = (value.as_u64(), effective.auto_compact)
                    {
                        effective.auto_compact = AutoCompact::Window(window.max(MIN_COMPACT_WINDOW));
                    }
                }
                "promptSuggestionEnabled" => suggestions = suggestions.or(value.as_bool()),
                "env" => environment(layer, value, effective)?,
                "fallbackModel"
                | "disableAllHooks"
                | "allowManagedHooksOnly"
                | "allowManagedPermissionRulesOnly" => (),
                "sandbox" if value["enabled"] == true => return Err(not_built("sandbox")),
                key if HARMLESS.contains(&key) || mcp::KEYS.contains(&key) => (),
                _ if nothing(value) || !layer.strict => (),
                key => return Err(not_built(key)),
            }
        }
    }
    effective.suggestions_off = suggestions == Some(false);
    // The hooks of weaker sources run first.
    for hooks in all_hooks.into_iter().rev() {
        effective.hooks.extend(hooks);
    }
    // A stronger value of the same name comes last, and holds.
    effective.env.reverse();
    Ok(())
}

/// Which hooks do not run.
struct Off {
    all: bool,
    but_managed: bool,
}

impl Off {
    fn of(layers: &[Layer]) -> Self {
        let is_off = |layer: &Layer| layer.settings.get("disableAllHooks") == Some(&true.into());
        Self {
            all: managed_says(layers, "disableAllHooks"),
            but_managed: managed_says(layers, "allowManagedHooksOnly")
                // A project that nobody trusts does not turn the user's hooks off: they may be what guards against it.
                || layers.iter().any(|layer| layer.trusted && is_off(layer)),
        }
    }
}

fn managed_says(layers: &[Layer], key: &str) -> bool {
    layers.iter().any(|layer| layer.is_managed && layer.settings.get(key) == Some(&true.into()))
}

/// The hooks of all layers, the weakest first.
pub(super) fn hooks_of(layers: &[Layer]) -> Result<Hooks, Complaint> {
    let (off, mut all, mut unused) = (Off::of(layers), Hooks::default(), Effective::default());
    for layer in layers {
        let value = layer.settings.get("hooks").unwrap_or(&Value::Null);
        if let Some(hooks) = of_hooks(layer, value, &off, &mut unused)? {
            all.extend(hooks);
        }
    }
    Ok(all)
}

fn of_hooks(
    layer: &Layer,
    value: &Value,
    off: &Off,
    effective: &mut Effective,
) -> Result<Option<Hooks>, Complaint> {
    if off.all || (off.but_managed && !layer.is_managed) || nothing(value) {
        return Ok(None);
    }
    if !layer.trusted {
        effective.left_out(layer, "hooks");
        return Ok(None);
    }
    hooks::read(value).map(Some)
}

fn permissions(
    args: &mut Args,
    layer: &Layer,
    value: &Value,
    only_managed: bool,
    effective: &mut Effective,
) -> Result<(), Complaint> {
    let permissions = value.as_object().ok_or_else(|| wrong("permissions", "an object"))?;
    let rules_hold = layer.is_managed || !only_managed;
    for (key, value) in permissions {
        match key.as_str() {
            "allow" | "additionalDirectories" | "defaultMode" if nothing(value) => (),
            "allow" | "additionalDirectories" | "defaultMode" if !layer.trusted => {
                effective.left_out(layer, key);
            }
            "allow" if rules_hold => args.allowed_tools.extend(strings(key, value)?),
            "ask" if rules_hold => args.ask_tools.extend(strings(key, value)?),
            "deny" if rules_hold => args.disallowed_tools.extend(strings(key, value)?),
            "allow" | "ask" | "deny" => (),
            "additionalDirectories" => {
                let directories = strings(key, value)?;
                args.additional_directories.extend(directories.into_iter().map(Into::into));
            }
            "defaultMode" => {
                let mode: PermissionMode =
                    string(key, value)?.parse().map_err(|error| format!("failed to {error}"))?;
                args.permission_mode = args.permission_mode.or(Some(mode));
            }
            "disableBypassPermissionsMode" => effective.bypass_disabled |= value == "disable",
            _ if nothing(value) || !layer.strict => (),
            key => return Err(not_built(&format!("permissions.{key}"))),
        }
    }
    Ok(())
}

fn environment(layer: &Layer, value: &Value, effective: &mut Effective) -> Result<(), Complaint> {
    if nothing(value) {
        return Ok(());
    }
    if !layer.trusted {
        effective.left_out(layer, "env");
        return Ok(());
    }
    effective.env.extend(variables(value)?);
    Ok(())
}

pub(super) fn variables(value: &Value) -> Result<Vec<(String, String)>, Complaint> {
    let fields = value.as_object().ok_or_else(|| wrong("env", "an object"))?;
    let read = |(name, value): (&String, &Value)| {
        let is_name = !name.is_empty() && !name.contains(['=', '\0']);
        let value = string(name, value)?;
        if !is_name || value.contains('\0') {
            return Err(wrong("env", "an object of names and texts"));
        }
        Ok((name.clone(), value))
    };
    fields.iter().map(read).collect()
}

impl Effective {
    fn left_out(&mut self, layer: &Layer, what: &str) {
        self.warnings.push(format!(
            "'{what}' of {} is left out: this project is not trusted (set WARDIAN_TRUST_PROJECT=1 if it is)",
            layer.name
        ));
    }
}

fn not_built(key: &str) -> Complaint {
    format!("the setting '{key}' is not supported by wardian-agent yet")
}

fn wrong(key: &str, expected: &str) -> Complaint {
    format!("the setting '{key}' must be {expected}")
}

fn string(key: &str, value: &Value) -> Result<String, Complaint> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(key, "a string"))
}

fn strings(key: &str, value: &Value) -> Result<Vec<String>, Complaint> {
    let list = value.as_array().ok_or_else(|| wrong(key, "a list"))?;
    list.iter().map(|item| string(key, item)).collect()
}
