use super::*;

fn errors_of(body: Value) -> Vec<String> {
    match read_new(body) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn new() -> Value {
    let body = json!({"name": "Fixer", "model": "haiku", "system": "Be brief.", "metadata": {"a": "1"}, "description": "d"});
    read_new(body).unwrap()
}

fn updated(body: Value) -> Result<Value, Vec<String>> {
    let told = |errors: Vec<FieldError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    Update::read(body).and_then(|update| update.apply(&new())).map_err(told)
}

#[test]
fn an_agent_is_resolved() {
    assert_eq!(
        read_new(json!({"name": "Fixer", "model": "haiku"})).unwrap(),
        json!({
            "name": "Fixer", "description": null, "model": {"id": "claude-haiku-5-5", "speed": "standard"}, "system": null,
            "tools": [], "metadata": {}, "mcp_servers": [], "skills": [], "multiagent": null,
            "execution_identity": {"type": "service_account"},
        })
    );
    let explicit = json!({
        "name": "Fixer", "model": {"id": "claude-new-9", "speed": "standard", "effort": null}, "description": null, "system": "",
        "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "tools": null,
    });
    assert_eq!(read_new(explicit).unwrap()["model"], json!({"id": "claude-new-9", "speed": "standard"}));
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    for (field, value) in [
        ("mcp_servers", json!([{"name": "x", "type": "url", "url": "https://example.com"}])),
        ("skills", json!([{"type": "anthropic", "skill_id": "xlsx"}])),
        ("multiagent", json!({"type": "multiagent_20261001"})),
        ("execution_identity", json!({"type": "aws_role", "role_arn": "arn:aws:iam::1:role/x"})),
    ] {
        let errors = errors_of(json!({"name": "x", "model": "haiku", field: value}));
        assert!(errors.len() == 1 && errors[0].starts_with(&format!("{field}: ")), "{errors:?}");
    }
    for (setting, value) in
        [("effort", json!("high")), ("speed", json!("fast")), ("inference_geo", json!("eu"))]
    {
        let errors = errors_of(json!({"name": "x", "model": {"id": "haiku", setting: value}}));
        assert!(errors.len() == 1 && errors[0].starts_with(&format!("model.{setting}: ")), "{errors:?}");
    }
}

#[test]
fn wrong_fields_are_named() {
    assert_eq!(errors_of(json!({})), ["name: expected a name", "model: expected a model"]);
    assert_eq!(errors_of(json!([])), ["body: expected an object, found a list"]);
    for (field, value, error) in [
        ("name", json!(""), "name: expected a text of 1 to 256"),
        ("name", json!(7), "name: expected a text"),
        ("name", json!("é".repeat(257)), "name: expected a text of 1 to 256"),
        ("description", json!("x".repeat(2049)), "description: expected at most 2048"),
        ("system", json!("x".repeat(100_001)), "system: expected at most 100000"),
        ("system", json!([]), "system: expected a string, found a list"),
        ("model", json!("--dangerously"), "model: expected a model's name"),
        ("model", json!({"id": "a b"}), "model.id: expected a model's name"),
        ("model", json!({}), "model.id: expected a model's name"),
        ("model", json!({"id": "haiku", "speed": "slow"}), "model.speed: \"slow\""),
        ("model", json!(1), "model: expected an object, found a number"),
        ("model", json!(null), "model: expected a model"),
        ("tools", json!("bash"), "tools: expected a list"),
        ("metadata", json!({"a": 1}), "metadata.a: expected a string"),
        ("skills", json!({}), "skills: expected a list"),
        ("version", json!(1), "version: unknown field"),
        ("modle", json!("x"), "modle: unknown field; did you mean `model`?"),
    ] {
        let mut body = json!({"name": "x", "model": "haiku"});
        body[field] = value;
        let errors = errors_of(body);
        assert!(errors.len() == 1 && errors[0].starts_with(error), "{errors:?} {error}");
    }
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    assert_eq!(updated(json!({})).unwrap(), new());
    assert_eq!(updated(json!({"version": 3, "metadata": null})).unwrap(), new());
    let changed = updated(json!({
        "name": "Other", "system": null, "description": "", "tools": [{"type": "agent_toolset_20260401"}],
        "metadata": {"a": null, "b": "2"}, "model": {"id": "opus"}, "skills": null, "mcp_servers": [], "multiagent": null,
    }))
    .unwrap();
    let seen = ["name", "system", "description", "metadata"].map(|field| changed[field].clone());
    assert_eq!(seen, [json!("Other"), json!(null), json!(null), json!({"b": "2"})]);
    assert_eq!(changed["tools"][0]["type"], "agent_toolset_20260401");
    for (body, error) in [
        (json!({"name": null}), "name: expected a text"),
        (json!({"model": null}), "model: expected a model; it cannot be cleared"),
        (json!({"version": 0}), "version: expected a whole number of at least 1"),
        (json!({"version": 1.5}), "version: expected a whole number"),
        (json!({"version": "1"}), "version: expected a whole number"),
        (json!({"verson": 1}), "verson: unknown field; did you mean `version`?"),
        (json!("x"), "body: expected an object"),
    ] {
        let errors = updated(body).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with(error), "{errors:?} {error}");
    }
}
