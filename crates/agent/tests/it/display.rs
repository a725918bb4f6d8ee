//! Hooks on what is shown.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use wardian_agent::{Hook, HookEvent, HookOutput, Hooks, Message, Options, Prompt, query};

use crate::support::{call, kinds, messages, model, options, result};

/// What a hook was told, in order.
type Seen = Arc<Mutex<Vec<Value>>>;

/// Puts `shown` of a text in its place; `None`: says nothing.
fn showing(seen: &Seen, shown: fn(&str) -> Option<String>) -> Hook {
    let seen = Arc::clone(seen);
    // There is nothing to match.
    Hook::new(Some("Bash"), move |input| {
        let mut fields = Value::Object(input.fields);
        let said = fields["delta"].as_str().and_then(shown);
        fields["mode"] = json!(input.permission_mode);
        seen.lock().unwrap().push(fields);
        let specific = said.map(|text| json!({"hookEventName": "MessageDisplay", "displayContent": text}));
        let answer = json!({"continue": false, "decision": "block", "systemMessage": "no", "hookSpecificOutput": specific});
        async move { Ok(serde_json::from_value::<HookOutput>(answer).unwrap()) }
    })
}

fn texts(messages: &[Message]) -> Vec<Value> {
    let assistant = messages.iter().filter(|message| matches!(message, Message::Assistant(_)));
    assistant.map(|message| message.to_value()["message"]["content"][0]["text"].clone()).collect()
}

#[tokio::test]
async fn what_is_shown_is_the_hooks_and_what_is_kept_is_the_models() {
    let script = json!({"replies": [
        {"text": "my secret", "tool_use": [call("toolu_1", "Glob", json!({"pattern": "*"}))]},
        {"text": "hide me"}, {"text": "plain\n"},
    ]});
    let model = model(&script).await;
    let folder = tempfile::tempdir().unwrap();
    let (seen, stops) = (Seen::default(), Seen::default());
    let shown = |text: &str| match text {
        "hide me" => Some(String::new()),
        "plain\n" => None,
        text => Some(text.replace("secret", "…")),
    };
    let ends = Arc::clone(&stops);
    let stop = Hook::new(None, move |input| {
        ends.lock().unwrap().push(input.fields["last_assistant_message"].clone());
        async { Ok(HookOutput::default()) }
    });
    let hooks =
        Hooks::default().on(HookEvent::MessageDisplay, showing(&seen, shown)).on(HookEvent::Stop, stop);
    let options = Options { hooks, ..options(&model, folder.path()) };
    let prompt =
        |text: &str| serde_json::from_value(json!({"message": {"role": "user", "content": text}})).unwrap();
    let messages = messages(query(Prompt::Messages(vec![prompt("one"), prompt("two")]), options)).await;
    assert_eq!(texts(&messages), [json!("my …"), Value::Null, json!("plain\n")]);
    let results = messages.iter().filter_map(|message| match message {
        Message::Result(result) => result.result.clone(),
        _ => None,
    });
    let results: Vec<_> = results.collect();
    assert_eq!(results, ["", "plain\n"], "{:?}", kinds(&messages));
    assert_eq!(*stops.lock().unwrap(), ["hide me", "plain\n"]);
    let said = model.requests()[2].body["messages"].to_string();
    assert!(said.contains("my secret") && said.contains("hide me"), "{said}");
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen.iter().map(|fields| &fields["delta"]).collect::<Vec<_>>(),
        ["my secret", "hide me", "plain\n"]
    );
    for fields in seen.iter() {
        assert_eq!(
            (&fields["index"], &fields["final"], &fields["mode"]),
            (&json!(0), &json!(true), &Value::Null)
        );
    }
    assert_eq!(seen[0]["turn_id"], seen[1]["turn_id"]);
    assert_ne!(seen[1]["turn_id"], seen[2]["turn_id"]);
    assert_ne!(seen[0]["message_id"], seen[1]["message_id"]);
}

#[tokio::test]
async fn a_hook_that_never_answers_holds_no_interrupt_up() {
    let model = model(&json!({"replies": [{"text": "Hello."}]})).await;
    let folder = tempfile::tempdir().unwrap();
    let (asked, mut was_asked) = tokio::sync::mpsc::channel(1);
    let hook = Hook::new(None, move |_| {
        let asked = asked.clone();
        async move {
            asked.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    let options = Options {
        hooks: Hooks::default().on(HookEvent::MessageDisplay, hook),
        ..options(&model, folder.path())
    };
    let query = query("hi", options);
    let handle = query.handle();
    let interrupt = async {
        was_asked.recv().await.unwrap();
        handle.interrupt().await.unwrap();
    };
    let (messages, ()) = tokio::join!(messages(query), interrupt);
    assert_eq!(result(&messages).terminal_reason.as_deref(), Some("aborted_streaming"));
    assert_eq!(texts(&messages), ["Hello."]);
}
