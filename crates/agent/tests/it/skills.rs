//! Skills: found in folders, named to the model, used by it or typed by the user.

use serde_json::{Value, json};
use wardian_agent::{Message, Options, Shelf, ToolSet, query, skill};

use crate::support::{call, messages, model, options, result, tool_results};

fn write(folder: &std::path::Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder.join(name)).unwrap();
    std::fs::write(folder.join(name).join("SKILL.md"), text).unwrap();
}

fn with_skills(folder: &std::path::Path, options: Options) -> Options {
    let place = folder.join(".claude/skills");
    write(&place, "greet", "---\ndescription: Greets people\n---\nSay hello to $ARGUMENTS.\n");
    write(&place, "echo", "---\ndescription: Echoes\nallowed-tools: Bash(echo *)\n---\nUse echo.\n");
    write(&place, "mine", "---\ndescription: Only typed\ndisable-model-invocation: true\n---\nDo mine.\n");
    Options { skills: skill::discover(&Shelf::new(&place, "project")), ..options }
}

fn use_skill(id: &str, skill: &str) -> Value {
    json!({"tool_use": [call(id, "Skill", json!({"skill": skill, "args": "Ada"}))]})
}

#[tokio::test]
async fn a_skill_is_named_used_and_followed_by_its_text() {
    let model = model(&json!({"replies": [
        {"tool_use": [
            call("toolu_1", "Skill", json!({"skill": "greet", "args": "Ada"})),
            call("toolu_2", "Read", json!({"file_path": "a.txt"})),
        ]},
        use_skill("toolu_3", "mine"),
        use_skill("toolu_4", "nope"),
        {"text": "Done."},
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "content").unwrap();
    let mut options = with_skills(folder.path(), options(&model, folder.path()));
    options.allowed_tools = vec!["Skill".to_owned()];
    let messages = messages(query("hi", options)).await;
    let Message::System(init) = &messages[0] else { panic!() };
    assert_eq!(init.fields["skills"], json!(["echo", "greet", "mine"]));
    let commands = init.fields["slash_commands"].as_array().unwrap();
    assert!(commands.contains(&json!("greet")) && commands.contains(&json!("mine")));
    let requests = model.requests();
    let told = requests[0].body["messages"].to_string();
    assert!(
        told.contains("- greet: Greets people")
            && !told.contains("Only typed")
            && !told.contains("Say hello")
    );
    let content = requests[1].body["messages"][2]["content"].as_array().unwrap();
    let kinds: Vec<_> = content.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["tool_result", "tool_result", "text"], "the API takes results first");
    assert!(content[2]["text"].as_str().unwrap().contains("Say hello to Ada."));
    // One message each for three results and a text, then two results.
    assert_eq!(result(&messages).num_turns, 6);
    let results = tool_results(&messages);
    assert!(results[2].1 && results[2].0.contains("only for people"), "{results:?}");
    assert!(results[3].1 && results[3].0.contains("There is no skill \"nope\""), "{results:?}");
    // The list is told once, and the beginning stays as it was.
    assert_eq!(requests[3].body["messages"].to_string().matches("- greet: Greets people").count(), 1);
}

#[tokio::test]
async fn what_a_skill_allows_ends_with_the_turn() {
    let echo = |id: &str| json!({"tool_use": [call(id, "Bash", json!({"command": "echo hi > made"}))]});
    let plain = |id: &str| json!({"tool_use": [call(id, "Bash", json!({"command": "touch made-2"}))]});
    let model = model(&json!({"replies": [
        plain("toolu_0"), use_skill("toolu_1", "touch"), plain("toolu_2"), {"text": "Done."}, plain("toolu_3"),
        {"text": "Done."}, echo("toolu_4"),
    ]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("s"), "touch", "---\nallowed-tools: Bash(touch made-2)\n---\nTouch.");
    let options = Options {
        skills: skill::discover(&Shelf::new(folder.path().join("s"), "project")),
        allowed_tools: vec!["Skill(touch)".to_owned()],
        ..options(&model, folder.path())
    };
    let prompt = |text: &str| {
        serde_json::from_value(
            json!({"message": {"role": "user", "content": text}, "parent_tool_use_id": null}),
        )
        .unwrap()
    };
    let prompts = wardian_agent::Prompt::Messages(vec![prompt("one"), prompt("two")]);
    let messages = messages(query(prompts, options)).await;
    let refused: Vec<bool> = tool_results(&messages).iter().map(|(_, is_error)| *is_error).collect();
    assert_eq!(refused, [true, false, false, true]);
}

#[tokio::test]
async fn a_skill_can_be_typed_and_the_model_has_only_those_enabled() {
    let model = model(&json!({"replies": [
        {"text": "Hello."}, use_skill("toolu_1", "echo"), {"text": "Done."}]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = with_skills(folder.path(), options(&model, folder.path()));
    options.enabled_skills = Some(vec!["greet".to_owned()]);
    options.allowed_tools = vec!["Skill".to_owned()];
    let first = messages(query("/mine", options.clone())).await;
    assert_eq!(result(&first).num_turns, 1);
    let told = model.requests()[0].body["messages"].to_string();
    assert!(told.contains("Do mine.") && !told.contains("Echoes"), "{told}");
    let second = messages(query("go", options)).await;
    assert!(tool_results(&second)[0].0.contains("not enabled"));
}

#[tokio::test]
async fn a_call_by_an_alias_is_one_of_the_other_tool() {
    let model = model(&json!({"replies": [
        {"tool_use": [call("toolu_1", "Bash", json!({"file_path": "a.txt"}))]}, {"text": "Done."}]}))
    .await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), "content").unwrap();
    let mut options = options(&model, folder.path());
    // A ring of names does not go round: one step, and that is it.
    options.tool_aliases =
        [("Bash", "Read"), ("Read", "Bash")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let messages = messages(query("hi", options)).await;
    assert_eq!(tool_results(&messages), [("1\tcontent".to_owned(), false)]);
}

#[tokio::test]
async fn tools_are_those_of_the_set() {
    let folder = tempfile::tempdir().unwrap();
    let offered = async |set: ToolSet| {
        let model = model(&json!({"replies": [{"text": "Done."}]})).await;
        let options = Options { tools: set, ..options(&model, folder.path()) };
        let messages = messages(query("hi", options)).await;
        let Message::System(init) = &messages[0] else { panic!() };
        let names = init.fields["tools"].as_array().unwrap().clone();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let standard = offered(ToolSet::Standard).await;
    assert!(standard.contains(&"Skill".to_owned()) && !standard.contains(&"Glob".to_owned()), "{standard:?}");
    let all = offered(ToolSet::All).await;
    assert!(all.contains(&"Glob".to_owned()) && !all.contains(&"Skill".to_owned()), "{all:?}");
    let some = offered(ToolSet::Only(vec!["Skill".to_owned(), "Grep".to_owned()])).await;
    assert_eq!(some, ["Grep", "Skill"]);
}
