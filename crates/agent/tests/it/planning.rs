//! Questions to the user, plans, and the list of tasks.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use serde_json::{Value, json};
use wardian_agent::{
    CanUseTool, Message, Options, Permission, PermissionMode, Prompt, ToolSet, UserMessage, query,
};

use crate::support::{call, messages, model, options, result, tool_results};

fn host(asked: &Arc<Mutex<Vec<String>>>) -> CanUseTool {
    let asked = Arc::clone(asked);
    Arc::new(move |question| {
        asked.lock().unwrap().push(question.tool_name.clone());
        let mut input = question.input;
        if question.tool_name == "AskUserQuestion" {
            input["answers"] = json!({"Which?": ["A", "B"]});
        }
        Box::pin(async move { Permission::Allow { updated_input: Some(input), updates: Vec::new() } })
    })
}

fn question() -> Value {
    let option = |label| json!({"label": label, "description": "d"});
    json!({"questions": [{"question": "Which?", "header": "Pick", "options": [option("A"), option("B")]}]})
}

fn modes(messages: &[Message]) -> Vec<String> {
    let mode = |message: &Message| {
        let value = message.to_value();
        (value["subtype"] == "status").then(|| value["permissionMode"].as_str().map(str::to_owned)).flatten()
    };
    messages.iter().filter_map(mode).collect()
}

#[tokio::test]
async fn a_question_is_answered_and_a_plan_agreed_to() {
    let script = json!({"replies": [
        {"tool_use": [call("toolu_1", "AskUserQuestion", question())]},
        {"tool_use": [call("toolu_2", "EnterPlanMode", json!({}))]},
        {"tool_use": [call("toolu_3", "ExitPlanMode", json!({"plan": "1. Write it"}))]},
        {"tool_use": [call("toolu_4", "Write", json!({"file_path": "a.txt", "content": "x"}))]},
        {"text": "done"},
    ]});
    let model = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    // Not even bypassPermissions answers in the user's place.
    let options = Options {
        can_use_tool: Some(host(&asked)),
        permission_mode: PermissionMode::BypassPermissions,
        ..options(&model, folder.path())
    };
    let messages = messages(query("hi", options)).await;
    assert_eq!(result(&messages).result.as_deref(), Some("done"));
    assert_eq!(*asked.lock().unwrap(), ["AskUserQuestion", "ExitPlanMode"]);
    assert_eq!(modes(&messages), ["plan", "bypassPermissions"]);
    let outputs: Vec<Value> =
        messages.iter().map(Message::to_value).filter(|value| value["type"] == "user").collect();
    assert_eq!(outputs[0]["tool_use_result"]["answers"], json!({"Which?": ["A", "B"]}));
    assert_eq!(outputs[2]["tool_use_result"], json!({"plan": "1. Write it", "isAgent": false}));
    assert!(folder.path().join("a.txt").exists());
}

#[tokio::test]
async fn without_a_host_nothing_is_asked_and_nothing_is_agreed_to() {
    let script = json!({"replies": [
        {"tool_use": [call("toolu_1", "AskUserQuestion", question()), call("toolu_2", "ExitPlanMode", json!({}))]},
        {"text": "done"},
    ]});
    let model = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let named = ["AskUserQuestion", "ExitPlanMode"].map(str::to_owned).to_vec();
    let options = Options {
        tools: ToolSet::Only(named),
        permission_mode: PermissionMode::Plan,
        allowed_tools: vec!["AskUserQuestion".to_owned(), "ExitPlanMode".to_owned()],
        ..options(&model, folder.path())
    };
    let messages = messages(query("hi", options)).await;
    assert_eq!(result(&messages).permission_denials.len(), 2);
    assert_eq!(modes(&messages), [""; 0]);
}

#[tokio::test]
async fn tasks_are_offered_when_named() {
    let script = json!({"replies": [
        {"tool_use": [call("toolu_1", "TaskCreate", json!({"subject": "S", "description": "D"}))]},
        {"tool_use": [call("toolu_2", "TaskUpdate", json!({"taskId": "1", "status": "completed"}))]},
        {"text": "done"},
    ]});
    let model = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let named = ["TaskCreate", "TaskUpdate"].map(str::to_owned).to_vec();
    let options = Options { tools: ToolSet::Only(named), ..options(&model, folder.path()) };
    let messages = messages(query("hi", options)).await;
    let outputs: Vec<Value> =
        messages.iter().map(Message::to_value).filter(|value| value["type"] == "user").collect();
    assert_eq!(outputs[0]["tool_use_result"]["task"]["id"], "1");
    assert_eq!(outputs[1]["tool_use_result"]["statusChange"], json!({"from": "pending", "to": "completed"}));
    let offered = &model.requests()[0].body["tools"];
    assert_eq!(offered.as_array().unwrap().len(), 2);
}

/// How often each of the requests says a text.
fn said(model: &wardian_model::Server, text: &str) -> Vec<usize> {
    let count = |body: &Value| body["messages"].to_string().matches(text).count();
    model.requests().iter().map(|request| count(&request.body)).collect()
}

#[tokio::test]
async fn instructions_for_plan_mode_are_told_when_it_begins_and_its_end_when_it_ends() {
    let replies: Vec<Value> = (0..5).map(|_| json!({"text": "Hm."})).collect();
    let model = model(&json!({"replies": replies})).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        permission_mode: PermissionMode::Plan,
        plan_mode_instructions: Some("Plan with PAPAYA.".to_owned()),
        ..options(&model, folder.path())
    };
    let mut query = query(Prompt::Open, options);
    let handle = query.handle();
    use PermissionMode::{Default as Normal, Plan};
    for mode in [Plan, Plan, Normal, Normal, Plan] {
        handle.set_permission_mode(mode).await.unwrap();
        let prompt = json!({"message": {"role": "user", "content": "go on"}});
        handle.send(serde_json::from_value::<UserMessage>(prompt).unwrap()).await.unwrap();
        while !matches!(query.next().await.unwrap().unwrap(), Message::Result(_)) {}
    }
    assert_eq!(said(&model, "PAPAYA"), [1, 1, 1, 1, 2]);
    assert_eq!(said(&model, "Plan mode is over"), [0, 0, 1, 1, 1]);
    // What was said once stays as it was: each request begins with the one before it.
    let plain =
        |body: &Value| body["messages"].to_string().replace(r#","cache_control":{"type":"ephemeral"}"#, "");
    for pair in model.requests().windows(2) {
        let (before, after) = (plain(&pair[0].body), plain(&pair[1].body));
        assert!(after.starts_with(before.trim_end_matches(']')), "{before}\n{after}");
    }
}

#[tokio::test]
async fn who_goes_into_plan_mode_by_itself_is_told_the_instructions_too() {
    let script =
        json!({"replies": [{"tool_use": [call("toolu_1", "EnterPlanMode", json!({}))]}, {"text": "done"}]});
    let model = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        can_use_tool: Some(host(&Arc::default())),
        permission_mode: PermissionMode::BypassPermissions,
        plan_mode_instructions: Some("Plan with PAPAYA.".to_owned()),
        ..options(&model, folder.path())
    };
    messages(query("hi", options)).await;
    assert_eq!(said(&model, "PAPAYA"), [0, 1]);
}

#[tokio::test]
async fn questions_that_cannot_be_answered_are_not_asked() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut input = question();
        change(&mut input);
        input
    };
    let again = |input: &mut Value, count: usize| {
        let first = input["questions"][0].clone();
        input["questions"] = (0..count).map(|_| first.clone()).collect();
    };
    for (input, expected) in [
        (json!({"questions": []}), "at least 1"),
        (with(&|input| again(input, 2)), "twice"),
        (with(&|input| again(input, 5)), "at most 4"),
        (with(&|input| again(input, 10_000)), "at most 4"),
        (with(&|input| input["questions"][0]["options"] = json!([])), "at least 2"),
        (
            with(&|input| {
                let option = input["questions"][0]["options"][0].clone();
                input["questions"][0]["options"] = json!([option, option]);
            }),
            "twice",
        ),
        (with(&|input| input["questions"][0]["question"] = json!(" ")), "empty"),
        (json!({}), "missing"),
    ] {
        let calls = [call("toolu_1", "AskUserQuestion", input.clone())];
        let model = model(&json!({"replies": [{"tool_use": calls}, {"text": "Done."}]})).await;
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(&model, folder.path());
        options.can_use_tool = Some(wardian_agent::can_use_tool(|request| async move {
            panic!("asked about {}", request.input);
        }));
        let messages = messages(query("hi", options)).await;
        let (text, is_error) = &tool_results(&messages)[0];
        assert!(*is_error && text.contains(expected), "{expected}: {text}");
    }
}
