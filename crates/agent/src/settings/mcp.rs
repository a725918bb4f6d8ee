//! Which tool servers of a project are started, and which servers an administrator forbids.
//!
//! A project's `.mcp.json` names programs, and a project is somebody else's work: they are started where the user trusts
//! the project, or has approved of them in settings of their own.

use serde_json::Value;
use wardian_agent::McpSource;

use super::layer::Layer;
use super::{Effective, Place};
use crate::args::{Args, Complaint};
use crate::servers::{self, Forbidden};

/// The keys that are read here.
pub(super) const KEYS: &[&str] = &[
    "allowedMcpServers",
    "deniedMcpServers",
    "disabledMcpjsonServers",
    "enableAllProjectMcpServers",
    "enabledMcpjsonServers",
];

/// The file of a project's servers.
const FILE: &str = ".mcp.json";

pub(super) fn apply(
    args: &mut Args,
    place: &Place<'_>,
    layers: &[Layer],
    effective: &mut Effective,
) -> Result<(), Complaint> {
    let list = |layer: &Layer, key: &str| layer.settings.get(key).and_then(Value::as_array).cloned();
    args.servers.forbidden = Forbidden {
        denied: layers.iter().filter_map(|layer| list(layer, "deniedMcpServers")).flatten().collect(),
        allowed: layers
            .iter()
            .filter(|layer| layer.trusted)
            .filter_map(|layer| list(layer, "allowedMcpServers"))
            .reduce(|some, more| [some, more].concat()),
    };
    if args.servers.strict || !args.setting_sources.project {
        return Ok(());
    }
    let path = place.project.join(FILE);
    let named = match servers::project_file(&path) {
        Ok(named) => named,
        Err(error) => {
            effective.warnings.push(error);
            return Ok(());
        }
    };
    let mut left_out = Vec::new();
    for (name, config) in named {
        let lists = |layer: &Layer, key: &str| {
            list(layer, key).is_some_and(|names| names.iter().any(|listed| *listed == name.as_str()))
        };
        let approves = |layer: &Layer| {
            layer.settings.get("enableAllProjectMcpServers") == Some(&true.into())
                || lists(layer, "enabledMcpjsonServers")
        };
        if layers.iter().any(|layer| lists(layer, "disabledMcpjsonServers")) {
            continue;
        }
        if place.trusted || layers.iter().any(|layer| layer.trusted && approves(layer)) {
            args.servers.add_unless_named(name, config, McpSource::Project)?;
        } else {
            left_out.push(name);
        }
    }
    if !left_out.is_empty() {
        effective.warnings.push(format!(
            "{} of .mcp.json is left out: this project is not trusted (set WARDIAN_TRUST_PROJECT=1 if it is, or name the \
             server in 'enabledMcpjsonServers' of your own settings)",
            left_out.join(", ")
        ));
    }
    Ok(())
}
