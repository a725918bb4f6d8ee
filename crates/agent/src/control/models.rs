//! Which models there are, and which program this is.

use serde_json::{Value, json};
use wardian_agent::PROTOCOL_VERSION;
use wardian_ledger::PriceTable;

/// The names that stand for models, the one first that `default` stands for. source: the price table has their ids.
const ALIASES: [(&str, &str); 4] =
    [("opus", "Opus"), ("fable", "Fable"), ("sonnet", "Sonnet"), ("haiku", "Haiku")];

/// The models as hosts offer them to their users.
pub(super) fn list() -> Vec<Value> {
    let row = |value: &str, alias: &str, name: &str| {
        let resolved = PriceTable::embedded().resolve_alias(alias);
        json!({
            "value": value,
            "resolvedModel": resolved,
            "displayName": name,
            "description": resolved,
            "supportsEffort": true,
            "supportedEffortLevels": ["low", "medium", "high", "xhigh", "max"],
            "supportsAdaptiveThinking": true,
            "supportsFastMode": false,
            "supportsAutoMode": false,
            "supportsThinkingOff": true,
        })
    };
    let default = row("default", "sonnet", "Default");
    std::iter::once(default).chain(ALIASES.map(|(alias, name)| row(alias, alias, name))).collect()
}

/// The version of the protocol that is spoken, and our own.
pub(super) fn version() -> Value {
    json!({"version": PROTOCOL_VERSION, "wardianVersion": env!("CARGO_PKG_VERSION")})
}
