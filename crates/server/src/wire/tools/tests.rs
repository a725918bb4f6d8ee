use super::*;

fn outcome(value: Value) -> (Vec<Value>, Vec<String>) {
    let mut errors = Vec::new();
    let tools = read(value, "tools", &mut errors);
    (tools, errors.iter().map(ToString::to_string).collect())
}

fn errors_of(value: Value) -> Vec<String> {
    outcome(value).1
}

fn custom(name: &str) -> Value {
    json!({"type": "custom", "name": name, "description": "x", "input_schema": {"type": "object"}})
}

#[test]
fn a_toolset_is_resolved_with_the_web_off() {
    let (tools, errors) = outcome(json!([{"type": TOOLSET}]));
    let allow = json!({"type": "always_allow"});
    let off = |name: &str| json!({"type": name, "name": name, "enabled": false, "permission_policy": allow});
    let mut fetch = off("web_fetch");
    fetch["url_sources"] = Value::Null;
    assert_eq!(errors, [""; 0]);
    assert_eq!(
        tools,
        [json!({"type": TOOLSET, "configs": [fetch, off("web_search")],
            "default_config": {"enabled": true, "permission_policy": allow}})]
    );
}

#[test]
fn what_is_said_of_a_tool_beats_the_default_and_reads_back() {
    let asked = json!([{
        "type": TOOLSET,
        "default_config": {"enabled": false, "permission_policy": {"type": "always_ask"}},
        "configs": [{"name": "bash", "enabled": true}, {"name": "read", "type": "read", "permission_policy": {"type": "auto"}},
            {"name": "web_search", "enabled": null}],
    }, custom("look-up_1")]);
    let (tools, errors) = outcome(asked);
    assert_eq!(errors, [""; 0]);
    let configs = tools[0]["configs"].as_array().unwrap();
    let seen: Vec<_> = configs
        .iter()
        .map(|one| {
            (
                one["name"].as_str().unwrap(),
                one["enabled"].as_bool().unwrap(),
                one["permission_policy"]["type"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("bash", true, "always_ask"),
            ("read", false, "auto"),
            ("web_search", false, "always_ask"),
            ("web_fetch", false, "always_ask")
        ]
    );
    // A client may send back what it got.
    assert_eq!(outcome(json!(tools)), (tools, Vec::new()));
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    for (tool, error) in [
        (
            json!({"type": "mcp_toolset", "mcp_server_name": "x"}),
            "tools[0].type: MCP servers are not supported yet",
        ),
        (
            json!({"type": TOOLSET, "configs": [{"name": "web_fetch", "enabled": true}]}),
            "tools[0].configs[0].enabled: not supported yet",
        ),
        (
            json!({"type": TOOLSET, "configs": [{"name": "web_search", "allowed_domains": ["a"]}]}),
            "tools[0].configs[0].allowed_domains: not supported yet",
        ),
        (
            json!({"type": TOOLSET, "configs": [{"name": "web_fetch", "url_sources": {}}]}),
            "tools[0].configs[0].url_sources: not supported yet",
        ),
    ] {
        let errors = errors_of(json!([tool]));
        assert!(errors.len() == 1 && errors[0].starts_with(error), "{errors:?}");
    }
}

#[test]
fn wrong_tools_are_named() {
    let long = "x".repeat(129);
    for (tools, error) in [
        (json!({}), "tools: expected a list, found an object"),
        (json!(["bash"]), "tools[0]: expected an object, found a string"),
        (json!([{}]), "tools[0].type: expected `agent_toolset_20260401` or `custom`"),
        (json!([{"type": 1}]), "tools[0].type: expected a string, found a number"),
        (json!([{"type": "bash_20250124"}]), "tools[0].type: expected `agent_toolset_20260401` or `custom`"),
        (json!([{"type": TOOLSET}, {"type": TOOLSET}]), "tools[1].type: a second"),
        (json!([{"type": TOOLSET}, custom("grep")]), "tools[1].name: a second tool `grep`"),
        (json!([custom("bash"), {"type": TOOLSET}]), "tools[1].type: a second"),
        (json!([custom("a"), custom("a")]), "tools[1].name: a second tool `a`"),
        (json!([custom("")]), "tools[0].name: expected 1 to 128 letters"),
        (json!([custom(&long)]), "tools[0].name: expected 1 to 128 letters"),
        (json!([custom("a b")]), "tools[0].name: expected 1 to 128 letters"),
        (
            json!([{"type": "custom", "name": "a", "input_schema": {"type": "object"}}]),
            "tools[0].description: expected what",
        ),
        (
            json!([{"type": "custom", "name": "a", "description": "x"}]),
            "tools[0].input_schema: expected a JSON schema",
        ),
        (json!([{"type": TOOLSET, "config": []}]), "tools[0].config: unknown field; did you mean `configs`?"),
        (
            json!([{"type": TOOLSET, "configs": [{"name": "bsh"}]}]),
            "tools[0].configs[0].name: \"bsh\": expected `bash`",
        ),
        (json!([{"type": TOOLSET, "configs": [{}]}]), "tools[0].configs[0].name: expected one of"),
        (
            json!([{"type": TOOLSET, "configs": [{"name": "bash"}, {"name": "bash"}]}]),
            "tools[0].configs[1].name: a second config",
        ),
        (
            json!([{"type": TOOLSET, "configs": [{"name": "bash", "type": "read"}]}]),
            "tools[0].configs[0].type: expected `bash`",
        ),
        (
            json!([{"type": TOOLSET, "default_config": {"permission_policy": {"type": "never"}}}]),
            "tools[0].default_config.permission_policy.type: \"never\"",
        ),
        (
            json!([{"type": TOOLSET, "default_config": {"permission_policy": {}}}]),
            "tools[0].default_config.permission_policy.type: expected",
        ),
        (
            json!([{"type": TOOLSET, "default_config": {"permission_policy": "auto"}}]),
            "tools[0].default_config.permission_policy: expected an object",
        ),
    ] {
        let errors = errors_of(tools);
        assert!(errors.len() == 1 && errors[0].starts_with(error), "{errors:?} {error}");
    }
}

#[test]
fn schemas_are_of_objects_and_bounded() {
    let with = |schema: Value| {
        errors_of(json!([{"type": "custom", "name": "a", "description": "x", "input_schema": schema}]))
    };
    assert_eq!(with(json!({"type": "object", "properties": null, "required": ["a"], "$defs": {}})), [""; 0]);
    for (schema, error) in [
        (json!("object"), "tools[0].input_schema: expected an object"),
        (json!({"type": "string"}), "tools[0].input_schema.type: expected `object`"),
        (json!({"type": "object", "properties": []}), "tools[0].input_schema.properties: expected an object"),
        (
            json!({"type": "object", "required": [1]}),
            "tools[0].input_schema.required: expected a list of strings",
        ),
        (
            json!({"type": "object", "x": "y".repeat(70_000)}),
            "tools[0].input_schema: expected at most 65536 bytes",
        ),
    ] {
        let errors = with(schema);
        assert!(errors.len() == 1 && errors[0].starts_with(error), "{errors:?}");
    }
}

#[test]
fn a_flood_of_tools_is_one_error() {
    let many: Vec<_> = (0..257).map(|number| custom(&number.to_string())).collect();
    assert_eq!(errors_of(json!(many)), ["tools: 257 tools; the limit is 256"]);
    let mut many: Vec<_> = (0..249).map(|number| custom(&number.to_string())).collect();
    many.push(json!({"type": TOOLSET}));
    assert_eq!(errors_of(json!(many)), ["tools: 257 tools; the limit is 256"]);
    assert!(errors_of(json!(vec![json!(1); 200])).len() <= 20);
}
