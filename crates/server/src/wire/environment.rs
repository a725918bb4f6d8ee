//! An environment's definition: what is asked for, and what of it takes effect here.

use serde_json::{Value, json};
use wardian_protocol::message::json_type;
use wardian_session::FieldError;

use super::agent::pairs_of;
use super::{Fields, metadata};
use crate::config::MaxNetworking;

/// Characters of a name.
const MAX_NAME_CHARS: usize = 256;
/// Characters of a description.
const MAX_DESCRIPTION_CHARS: usize = 2048;
/// Hosts that an environment may reach.
const MAX_HOSTS: usize = 256;
/// The longest name of a host, as DNS has it.
const MAX_HOST_BYTES: usize = 253;
/// Package managers whose packages an environment may have, in the stock API.
const MANAGERS: [&str; 6] = ["apt", "cargo", "gem", "go", "npm", "pip"];

/// What is wrong with a definition.
#[derive(Debug)]
pub enum Wrong {
    /// Some fields.
    Fields(Vec<FieldError>),
    /// The kind of an environment cannot change.
    KindChange,
}

/// Reads the body of a create.
pub fn read_new(body: Value, max: MaxNetworking) -> Result<Value, Wrong> {
    let packages: Value = MANAGERS.iter().map(|manager| ((*manager).to_owned(), json!([]))).collect();
    let mut definition = json!({
        "name": null, "description": null, "metadata": {},
        "config": {"type": "cloud", "networking": effective(max), "packages": packages},
    });
    definition["config"]["packages"]["type"] = json!("packages");
    let mut errors = Vec::new();
    if let Some(mut fields) = Fields::of(body, "", &mut errors) {
        let mut nested = Vec::new();
        read_fields(&mut fields, &mut definition);
        if definition["name"].is_null() && !fields.failed("name") {
            fields.error("name", "expected a name");
        }
        if let Some(config) = fields.value("config") {
            read_config(config, &mut definition["config"], max, &mut nested);
        }
        if let Some(value) = fields.value("metadata") {
            definition["metadata"] = json!(metadata::read(value, &mut nested));
        }
        fields.finish();
        errors.append(&mut nested);
    }
    if errors.is_empty() { Ok(definition) } else { Err(Wrong::Fields(errors)) }
}

/// The definition after an update.
pub fn update(body: Value, current: &Value, max: MaxNetworking) -> Result<Value, Wrong> {
    let mut definition = current.clone();
    let mut errors = Vec::new();
    if body["config"]["type"] == "self_hosted" {
        return Err(Wrong::KindChange);
    }
    if let Some(mut fields) = Fields::of(body, "", &mut errors) {
        let mut nested = Vec::new();
        read_fields(&mut fields, &mut definition);
        if let Some(config) = fields.value("config") {
            read_config(config, &mut definition["config"], max, &mut nested);
        }
        if let Some(value) = fields.value("metadata") {
            let mut pairs = pairs_of(current);
            let mut patch = metadata::read_patch(value, &mut nested);
            // Here, unlike with agents, an empty text removes a pair too.
            for value in patch.values_mut() {
                value.take_if(|text| text.is_empty());
            }
            metadata::apply(&mut pairs, patch, &mut nested);
            definition["metadata"] = json!(pairs);
        }
        fields.finish();
        errors.append(&mut nested);
    }
    if errors.is_empty() { Ok(definition) } else { Err(Wrong::Fields(errors)) }
}

/// What a sandbox may reach at most: whatever is asked for, this is what it gets and what is shown.
fn effective(max: MaxNetworking) -> Value {
    match max {
        MaxNetworking::None => json!({
            "type": "limited", "allowed_hosts": [], "allow_mcp_servers": false, "allow_package_managers": false,
        }),
    }
}

fn read_fields(fields: &mut Fields<'_>, definition: &mut Value) {
    if let Some(name) = fields.string("name") {
        if (1..=MAX_NAME_CHARS).contains(&name.chars().count()) {
            definition["name"] = json!(name);
        } else {
            fields.error("name", format!("expected a text of 1 to {MAX_NAME_CHARS} characters"));
        }
    }
    match fields.patch("description") {
        Some(None) => definition["description"] = Value::Null,
        Some(Some(Value::String(text))) if text.chars().count() <= MAX_DESCRIPTION_CHARS => {
            definition["description"] = json!(text);
        }
        Some(Some(_)) => {
            fields.error(
                "description",
                format!("expected a text of at most {MAX_DESCRIPTION_CHARS} characters"),
            );
        }
        None => {}
    }
    if fields.word("scope", &[("organization", true), ("account", false)]) == Some(false) {
        fields.error("scope", "`account` is not supported: every environment is the organization's");
    }
}

fn read_config(config: Value, definition: &mut Value, max: MaxNetworking, errors: &mut Vec<FieldError>) {
    let mut nested = Vec::new();
    let Some(mut fields) = Fields::of(config, "config.", errors) else { return };
    match fields.word("type", &[("cloud", true), ("self_hosted", false)]) {
        Some(true) => {}
        Some(false) => {
            fields.error(
                "type",
                "`self_hosted` is not supported; sandboxes are this server's own: use `cloud`",
            );
            return;
        }
        None if !fields.failed("type") => fields.error("type", "expected `cloud`"),
        None => {}
    }
    if let Some(networking) = fields.value("networking") {
        check_networking(networking, &mut nested);
        definition["networking"] = effective(max);
    }
    if let Some(packages) = fields.value("packages") {
        check_packages(packages, &mut nested);
    }
    fields.finish();
    errors.append(&mut nested);
}

fn check_networking(networking: Value, errors: &mut Vec<FieldError>) {
    let Some(mut fields) = Fields::of(networking, "config.networking.", errors) else { return };
    let limited = fields.word("type", &[("unrestricted", false), ("limited", true)]);
    if limited.is_none() && !fields.failed("type") {
        fields.error("type", "expected `unrestricted` or `limited`");
    }
    if limited == Some(true) {
        fields.boolean("allow_mcp_servers");
        fields.boolean("allow_package_managers");
        let hosts = fields.strings("allowed_hosts").unwrap_or_default();
        if hosts.len() > MAX_HOSTS {
            fields.error("allowed_hosts", format!("{} hosts; the limit is {MAX_HOSTS}", hosts.len()));
        } else if let Some(index) = hosts.iter().position(|host| !is_host(host)) {
            let message = "expected a host's name such as `example.com` or `*.example.com`";
            fields.error(&format!("allowed_hosts[{index}]"), message);
        }
    }
    fields.finish();
}

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= MAX_HOST_BYTES && name.split('.').all(label)
}

fn check_packages(packages: Value, errors: &mut Vec<FieldError>) {
    let Some(mut fields) = Fields::of(packages, "config.packages.", errors) else { return };
    fields.word("type", &[("packages", ())]);
    for manager in MANAGERS {
        match fields.value(manager) {
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(Value::Array(_)) => fields.error(
                manager,
                "packages are not supported yet: sandboxes have no network; an operator can add toolchains to the host",
            ),
            Some(other) => fields.error(manager, format!("expected a list, found {}", json_type(&other))),
            None => {}
        }
    }
    fields.finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(body: Value) -> Result<Value, Vec<String>> {
        read_new(body, MaxNetworking::None).map_err(told)
    }

    fn told(wrong: Wrong) -> Vec<String> {
        match wrong {
            Wrong::Fields(errors) => errors.iter().map(ToString::to_string).collect(),
            Wrong::KindChange => vec!["kind".to_owned()],
        }
    }

    fn changed(body: Value) -> Result<Value, Vec<String>> {
        let body_before = json!({"name": "one", "description": "d", "metadata": {"a": "1", "b": "2"}});
        update(body, &new(body_before).unwrap(), MaxNetworking::None).map_err(told)
    }

    #[test]
    fn the_effective_network_is_what_is_shown() {
        let nothing = json!({"type": "limited", "allowed_hosts": [], "allow_mcp_servers": false, "allow_package_managers": false});
        let default = new(json!({"name": "one"})).unwrap();
        assert_eq!(
            default,
            json!({"name": "one", "description": null, "metadata": {}, "config": {"type": "cloud", "networking": nothing,
                "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": [], "type": "packages"}}})
        );
        for asked in [
            json!({"type": "unrestricted"}),
            json!({"type": "limited"}),
            json!({"type": "limited", "allowed_hosts": ["*.example.com", "pypi.org"], "allow_mcp_servers": true, "allow_package_managers": true}),
        ] {
            let config = json!({"type": "cloud", "networking": asked, "packages": {"pip": [], "apt": null, "type": "packages"}});
            let made = new(json!({"name": "one", "config": config, "scope": "organization"})).unwrap();
            assert_eq!(made, default);
            // A client may send back what it got.
            assert_eq!(new(json!({"name": "one", "config": made["config"]})).unwrap(), default);
        }
    }

    #[test]
    fn wrong_fields_and_what_is_not_enforced_are_named() {
        let networking =
            |networking: Value| json!({"name": "x", "config": {"type": "cloud", "networking": networking}});
        let packages =
            |packages: Value| json!({"name": "x", "config": {"type": "cloud", "packages": packages}});
        for (body, error) in [
            (json!({}), "name: expected a name"),
            (json!("x"), "body: expected an object"),
            (json!({"name": ""}), "name: expected a text of 1 to 256"),
            (json!({"name": "x".repeat(257)}), "name: expected a text of 1 to 256"),
            (json!({"name": 7}), "name: expected a string, found a number"),
            (
                json!({"name": "x", "description": "x".repeat(2049)}),
                "description: expected a text of at most 2048",
            ),
            (json!({"name": "x", "scope": "account"}), "scope: `account` is not supported"),
            (json!({"name": "x", "scope": "world"}), "scope: \"world\""),
            (
                json!({"name": "x", "config": {"type": "self_hosted"}}),
                "config.type: `self_hosted` is not supported",
            ),
            (json!({"name": "x", "config": {}}), "config.type: expected `cloud`"),
            (json!({"name": "x", "config": "cloud"}), "config: expected an object"),
            (
                json!({"name": "x", "config": {"type": "cloud", "network": {}}}),
                "config.network: unknown field; did you mean `networking`?",
            ),
            (networking(json!({})), "config.networking.type: expected"),
            (networking(json!({"type": "open"})), "config.networking.type: \"open\""),
            (
                networking(json!({"type": "unrestricted", "allowed_hosts": []})),
                "config.networking.allowed_hosts: unknown field",
            ),
            (
                networking(json!({"type": "limited", "allowed_hosts": "x"})),
                "config.networking.allowed_hosts: expected a list",
            ),
            (
                networking(json!({"type": "limited", "allowed_hosts": ["a", "https://b"]})),
                "config.networking.allowed_hosts[1]: expected a host",
            ),
            (
                networking(json!({"type": "limited", "allowed_hosts": [""]})),
                "config.networking.allowed_hosts[0]: expected a host",
            ),
            (
                networking(json!({"type": "limited", "allowed_hosts": vec!["a.b"; 257]})),
                "config.networking.allowed_hosts: 257 hosts",
            ),
            (
                networking(json!({"type": "limited", "allow_mcp_servers": "yes"})),
                "config.networking.allow_mcp_servers: expected a boolean",
            ),
            (packages(json!({"pip": ["pandas"]})), "config.packages.pip: packages are not supported yet"),
            (packages(json!({"pip": "pandas"})), "config.packages.pip: expected a list"),
            (packages(json!({"conda": []})), "config.packages.conda: unknown field"),
            (json!({"name": "x", "metadata": {"a": null}}), "metadata.a: expected a string"),
        ] {
            let errors = new(body).unwrap_err();
            assert!(errors.len() == 1 && errors[0].starts_with(error), "{errors:?} {error}");
        }
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let before = changed(json!({})).unwrap();
        assert_eq!(
            changed(json!({"name": null, "config": null, "scope": null, "metadata": null})).unwrap(),
            before
        );
        let after = changed(json!({
            "name": "two", "description": null, "metadata": {"a": "", "b": null, "c": "3"},
            "config": {"type": "cloud", "networking": {"type": "unrestricted"}},
        }))
        .unwrap();
        assert_eq!(
            (&after["name"], &after["description"], &after["metadata"]),
            (&json!("two"), &json!(null), &json!({"c": "3"}))
        );
        assert_eq!(after["config"], before["config"]);
        assert_eq!(changed(json!({"description": ""})).unwrap()["description"], "");
        assert_eq!(changed(json!({"config": {"type": "self_hosted"}})).unwrap_err(), ["kind"]);
    }
}
